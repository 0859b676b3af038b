//! Following a chain of names to its end: [`NameResolver`].
//!
//! What is learned on the way is kept at once: the best record of each name when it has been weighed, and the key of each
//! domain when the chain has reached content. Nothing of that depends on whether the content can be fetched afterwards: what
//! is remembered is that a domain leads to a key, not that the key's registry is reachable.

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::Clock;
use super::chain::{ChainStep, StepKind, TrustLevel};
use super::dnslink::{self, LinkError};
use super::ipns::{IpnsError, RecordTable};
use super::target::{Target, TargetRoot};
use super::trust::{Anchor, Sighting, TrustError, TrustTable};
use crate::event::{Emitter, Event, Warning};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::dns::{Dns, Security};
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
    /// Lets DNSSEC alone change the key that a domain is remembered with.
    pub dnssec_may_change: bool,
}

impl Default for ResolverOptions {
    /// The system's clock, 30 seconds, and no change by DNSSEC alone.
    fn default() -> Self {
        Self { clock: Clock::default(), timeout: RECORDS, dnssec_may_change: false }
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
    /// The chain does not end.
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
            Self::TooLong { .. } => ErrorKind::Integrity,
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

    /// The records that it weighs and keeps.
    pub fn records(&self) -> &RecordTable {
        &self.records
    }

    /// The domains that it remembers.
    pub fn trust(&self) -> &TrustTable {
        &self.trust
    }

    /// Follows `authority` to content. Peers at `hints` are asked first. With `allow_stale`, a kept record is used although it
    /// has expired, when nobody has a valid one.
    pub async fn resolve(
        &self,
        authority: &Authority,
        hints: &[Multiaddr],
        allow_stale: bool,
        events: &Emitter,
    ) -> Result<Resolved, ResolveError> {
        let mut walk = Walk { hints: hints.to_vec(), ..Walk::default() };
        let mut target = Target::from(authority);
        for _ in 0..=limits::NAME_RECURSION {
            let (step, next) = match target.root {
                TargetRoot::Ipfs(root) => {
                    let value = format!("/ipfs/{root}");
                    let source = walk.chain.last().map_or("reference", |step| step.source.as_str()).to_owned();
                    let step = ChainStep::new(StepKind::Ipfs, root.to_string(), value, source);
                    walk.push(step, events).await;
                    let trust = self.believe(authority, &walk).await?;
                    let Walk { chain, key, hints, .. } = walk;
                    return Ok(Resolved { chain, root, path: target.path, key, hints, trust });
                }
                TargetRoot::Domain(domain) => self.domain_step(domain, &mut walk, events).await?,
                TargetRoot::Ipns(name) => {
                    let timeout = self.options.timeout;
                    let followed = self.records.follow(&name, &walk.hints, timeout, allow_stale, events).await?;
                    walk.key = Some(name);
                    let record = followed.record;
                    let next = record.target().clone();
                    let step = ChainStep {
                        sequence: Some(record.sequence()),
                        valid_until: Some(record.valid_until()),
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
        let (link, hints) = tokio::join!(dnslink::link(dns, &domain), dnslink::hints(dns, &domain));
        let link = link?;
        if link.bare {
            events.warn(Warning::BareDomain { domain: domain.to_string() }).await;
        }
        for hint in hints {
            if !walk.hints.contains(&hint) {
                walk.hints.push(hint);
            }
        }
        let source = format!("TXT {}", link.found_at);
        let step = ChainStep::new(StepKind::Dnslink, domain.to_string(), link.target.to_string(), source);
        walk.key = None;
        walk.domains.push((domain, link.security));
        Ok((step, link.target))
    }

    /// Checks every domain of a complete chain, and remembers new ones. The first decides.
    async fn believe(&self, authority: &Authority, walk: &Walk) -> Result<TrustLevel, ResolveError> {
        // A domain is only as secure as those that it leads through.
        let mut security = Security::Secure;
        let mut level = match authority {
            Authority::Key(_) => TrustLevel::Key,
            _ => TrustLevel::Content,
        };
        let found = walk.key.map_or(Anchor::Keyless, Anchor::Key);
        for (domain, own) in walk.domains.iter().rev() {
            if *own == Security::Insecure {
                security = Security::Insecure;
            }
            let seen = self.trust.see(&Sighting { domain, found, security, handovers: &[] }).await?;
            if authority.domain().is_some() {
                level = seen;
            }
        }
        Ok(level)
    }
}

/// What was met on the way.
#[derive(Default)]
struct Walk {
    chain: Vec<ChainStep>,
    domains: Vec<(Domain, Security)>,
    key: Option<IpnsName>,
    hints: Vec<Multiaddr>,
}

impl Walk {
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
