//! Following a chain of names to its end: [`NameResolver`].
//!
//! That has two steps, because between them the registry may have to be asked for hand-overs: [`NameResolver::follow`] goes
//! to the end of the chain, [`NameResolver::believe`] decides whether its domains may lead there.
//!
//! What is learned on the way is kept at once: the best record of each name when it has been weighed, and the key of each
//! domain when the chain has reached content. Nothing of that depends on whether the content can be fetched afterwards: what
//! is remembered is that a domain leads to a key, not that the key's registry is reachable.

use std::sync::Arc;
use std::time::Duration;

use chrono::SubsecRound as _;
use cid::Cid;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::Clock;
use super::chain::{ChainStep, StepKind, TrustLevel};
use super::dnslink::{self, KEPT, Link, LinkError};
use super::ipns::{IpnsError, RecordTable};
use super::target::{Target, TargetRoot};
use super::trust::{Anchor, Handover, Sighting, TrustError, TrustTable};
use crate::event::{Emitter, Event, Warning};
use crate::kind::ErrorKind;
use crate::limits;
use crate::net::addresses::NetworkMode;
use crate::port::dns::{Dns, DnsError, Security};
use crate::port::records::NameRecords;
use crate::port::table::Table;
use crate::reference::Authority;
use crate::reference::domain::Domain;
use crate::reference::key::IpnsName;

/// The longest time to wait for the records of one name.
const RECORDS: Duration = Duration::from_secs(30);

/// Options of a [`NameResolver`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResolverOptions {
    /// What time it is.
    pub clock: Clock,
    /// The longest time to wait for the records of one name.
    pub timeout: Duration,
    /// How far addresses that domains name may reach.
    pub mode: NetworkMode,
    /// Lets DNSSEC alone change the key that a domain is remembered with.
    pub dnssec_may_change: bool,
}

impl Default for ResolverOptions {
    /// The system's clock, 30 seconds, the public network, and no change by DNSSEC alone.
    fn default() -> Self {
        Self { clock: Clock::default(), timeout: RECORDS, mode: NetworkMode::default(), dnssec_may_change: false }
    }
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The steps, the last one content.
    pub chain: Vec<ChainStep>,
    /// The content that the chain ends at.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Path segments below the root that the names gave.
    pub path: Vec<String>,
    /// The last key of the chain, if there was any.
    pub key: Option<IpnsName>,
    /// Addresses to dial first: those that were given, then those that the domains name.
    pub hints: Vec<Multiaddr>,
    /// Why it is believed.
    pub trust: TrustLevel,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// At a domain.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// At a key.
    #[error(transparent)]
    Ipns(#[from] IpnsError),
    /// The domain is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The chain comes back to a name that it went through.
    #[error("{name} leads in a circle: back to {again}")]
    Circle {
        /// Where it began.
        name: String,
        /// The name that was met again.
        again: String,
    },
    /// The chain is too long.
    #[error("{name} leads through more than {limit} names", limit = limits::NAME_RECURSION)]
    TooLong {
        /// Where it began.
        name: String,
    },
}

impl ResolveError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Link(error) => error.kind(),
            Self::Ipns(error) => error.kind(),
            Self::Trust(error) => error.kind(),
            Self::Circle { .. } | Self::TooLong { .. } => ErrorKind::Integrity,
        }
    }
}

/// Follows names.
#[derive(Clone, Debug)]
pub struct NameResolver {
    dns: Arc<dyn Dns>,
    records: RecordTable,
    trust: TrustTable,
    options: ResolverOptions,
}

impl NameResolver {
    /// A resolver over these parts.
    pub fn new(
        dns: Arc<dyn Dns>,
        network: Arc<dyn NameRecords>,
        table: Arc<dyn Table>,
        options: ResolverOptions,
    ) -> Self {
        let records = RecordTable::new(network, table.clone(), options.clock.clone());
        let trust = TrustTable::new(table, options.clock.clone()).dnssec_may_change(options.dnssec_may_change);
        Self { dns, records, trust, options }
    }

    /// The same, which waits no longer than this for the records of one name.
    #[must_use]
    pub fn within(mut self, longest: Duration) -> Self {
        self.options.timeout = self.options.timeout.min(longest);
        self
    }

    /// The records that it weighs and keeps.
    pub fn records(&self) -> &RecordTable {
        &self.records
    }

    /// The domains that it remembers.
    pub fn trust(&self) -> &TrustTable {
        &self.trust
    }

    /// Follows `authority` to content, and believes the way there without any hand-over.
    pub async fn resolve(
        &self,
        authority: &Authority,
        hints: &[Multiaddr],
        allow_stale: bool,
        events: &Emitter,
    ) -> Result<Resolved, ResolveError> {
        let followed = self.follow(authority, hints, allow_stale, events).await?;
        self.believe(followed, &[]).await.map_err(|(error, _)| error)
    }

    /// Follows `authority` to content. Peers at `hints` are asked first. With `allow_stale`, a kept record is used although it
    /// has expired, when nobody has a valid one.
    pub async fn follow(
        &self,
        authority: &Authority,
        hints: &[Multiaddr],
        allow_stale: bool,
        events: &Emitter,
    ) -> Result<Chain, ResolveError> {
        let mut walk = Walk { hints: hints.to_vec(), ..Walk::default() };
        let mut target = Target::from(authority);
        for _ in 0..=limits::NAME_RECURSION {
            // Nothing on the way depends on the path below a name, so that a name met twice is met for ever.
            if let Some(again) = walk.met(&target.root) {
                return Err(ResolveError::Circle { name: authority.to_string(), again });
            }
            let (step, next) = match target.root {
                TargetRoot::Ipfs(root) => {
                    let value = format!("/ipfs/{root}");
                    let source = walk.chain.last().map_or("reference", |step| step.source.as_str()).to_owned();
                    let step = ChainStep::new(StepKind::Ipfs, root.to_string(), value, source);
                    walk.push(step, events).await;
                    return Ok(Chain { authority: authority.clone(), root, path: target.path, walk });
                }
                TargetRoot::Domain(domain) => self.domain_step(domain, &mut walk, events).await?,
                TargetRoot::Ipns(name) => {
                    let timeout = self.options.timeout;
                    let followed = match self.records.follow(&name, &walk.hints, timeout, allow_stale, events).await {
                        Err(error @ IpnsError::NotFound { .. }) => return Err(self.lost(name, error, &walk).await),
                        followed => followed?,
                    };
                    walk.key = Some(name);
                    let record = followed.record;
                    let next = record.target().clone();
                    let step = ChainStep {
                        sequence: Some(record.sequence()),
                        valid_until: Some(record.valid_until().trunc_subsecs(0)),
                        age: Some(followed.age),
                        ..ChainStep::new(StepKind::Ipns, name.to_string(), next.to_string(), followed.source)
                    };
                    (step, next)
                }
            };
            walk.push(step, events).await;
            target = Target { root: next.root, path: next.path.into_iter().chain(target.path).collect() };
        }
        Err(ResolveError::TooLong { name: authority.to_string() })
    }

    async fn domain_step(
        &self,
        domain: Domain,
        walk: &mut Walk,
        events: &Emitter,
    ) -> Result<(ChainStep, Target), ResolveError> {
        let dns = self.dns.as_ref();
        let (link, hints) = tokio::join!(dnslink::link(dns, &domain), dnslink::hints(dns, &domain, &self.options.mode));
        let link = match link {
            Err(LinkError::Dns { source: DnsError::Offline { name }, .. }) => self.last_link(&domain, name).await?,
            link => link?,
        };
        if link.bare {
            events.warn(Warning::BareDomain { domain: domain.to_string() }).await;
        }
        for hint in hints {
            if !walk.hints.contains(&hint) {
                walk.hints.push(hint);
            }
        }
        let step = ChainStep::new(StepKind::Dnslink, domain.to_string(), link.target.to_string(), link.source());
        let target = link.target.clone();
        walk.key = None;
        walk.domains.push((domain, link));
        Ok((step, target))
    }

    /// Why a key without a record leads nowhere: a domain that never led to this key before has changed, which matters more than that
    /// nobody has the record.
    async fn lost(&self, key: IpnsName, error: IpnsError, walk: &Walk) -> ResolveError {
        let Some((domain, link)) = walk.domains.last() else { return error.into() };
        match self.trust.get(domain).await {
            Ok(Some(old)) if old.key != Anchor::Key(key) && old.last_link().as_ref() != Some(&link.target) => {
                let (remembered, found) = (Box::new(old.key), Box::new(Anchor::Key(key)));
                TrustError::Changed { domain: old.domain, remembered, found }.into()
            }
            Ok(_) => error.into(),
            Err(error) => error.into(),
        }
    }

    /// Where a domain led when DNS was last asked, for when it cannot be asked.
    async fn last_link(&self, domain: &Domain, name: String) -> Result<Link, ResolveError> {
        let remembered = self.trust.get(domain).await?;
        let found = remembered.and_then(|entry| Some((entry.last_link()?, entry.secure)));
        let Some((target, secure)) = found else {
            return Err(LinkError::Dns { domain: domain.clone(), source: DnsError::Offline { name } }.into());
        };
        // What was believed then is believed now: nobody has said anything else since.
        let security = if secure { Security::Secure } else { Security::Insecure };
        Ok(Link { target, found_at: KEPT.into(), bare: false, security })
    }

    /// Checks every domain of a chain, and remembers new ones. Of several domains the first decides. A key that replaces another is
    /// believed if one of `handovers` says so. The chain is given back where it is not believed.
    pub async fn believe(&self, chain: Chain, handovers: &[Handover]) -> Result<Resolved, (ResolveError, Box<Chain>)> {
        match self.level(&chain, handovers).await {
            Ok(trust) => {
                let Chain { root, path, walk: Walk { chain, key, hints, .. }, .. } = chain;
                Ok(Resolved { chain, root, path, key, hints, trust })
            }
            Err(error) => Err((error.into(), Box::new(chain))),
        }
    }

    async fn level(&self, chain: &Chain, handovers: &[Handover]) -> Result<TrustLevel, TrustError> {
        // A domain is only as secure as those that it leads through.
        let mut security = Security::Secure;
        let mut level = match &chain.authority {
            Authority::Key(_) => TrustLevel::Key,
            _ => TrustLevel::Content,
        };
        let found = chain.walk.key.map_or(Anchor::Keyless, Anchor::Key);
        for (domain, link) in chain.walk.domains.iter().rev() {
            if link.security == Security::Insecure {
                security = Security::Insecure;
            }
            let seen = self.trust.see(&Sighting { domain, found, link: &link.target, security, handovers }).await?;
            if chain.authority.domain().is_some() {
                level = seen;
            }
        }
        Ok(level)
    }
}

/// A chain of names that was followed to its end, and is not believed yet.
#[derive(Clone, Debug)]
pub struct Chain {
    authority: Authority,
    root: Cid,
    path: Vec<String>,
    walk: Walk,
}

impl Chain {
    /// The content that it ends at.
    pub fn root(&self) -> &Cid {
        &self.root
    }

    /// Path segments below the root that the names gave.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// Addresses to dial first.
    pub fn hints(&self) -> &[Multiaddr] {
        &self.walk.hints
    }
}

/// What was met on the way.
#[derive(Clone, Debug, Default)]
struct Walk {
    chain: Vec<ChainStep>,
    domains: Vec<(Domain, Link)>,
    key: Option<IpnsName>,
    hints: Vec<Multiaddr>,
}

impl Walk {
    /// The name that `next` starts at, if the chain went through it before.
    fn met(&self, next: &TargetRoot) -> Option<String> {
        let name = match next {
            TargetRoot::Ipfs(_) => return None,
            TargetRoot::Ipns(key) => key.to_string(),
            TargetRoot::Domain(domain) => domain.to_string(),
        };
        self.chain.iter().any(|step| step.name == name).then_some(name)
    }

    async fn push(&mut self, step: ChainStep, events: &Emitter) {
        let kind = match step.kind {
            StepKind::Dnslink => "dnslink",
            StepKind::Ipns => "ipns",
            StepKind::Ipfs => "ipfs",
        };
        let (name, value, source) = (step.name.clone(), step.value.clone(), step.source.clone());
        events.tell(Event::Name { kind: kind.to_owned(), name, value, source }).await;
        self.chain.push(step);
    }
}

#[cfg(test)]
mod tests;
