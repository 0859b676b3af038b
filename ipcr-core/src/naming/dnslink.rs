//! What the TXT records of a domain say: where it leads ([`link`]), and whom to dial first ([`hints`]).
//!
//! Sources: DNSLink specification; libp2p multiaddr `dnsaddr`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use multiaddr::{Multiaddr, Protocol};
use tokio::time::timeout;

use super::target::Target;
use crate::kind::ErrorKind;
use crate::net::addresses::NetworkMode;
use crate::port::dns::{Dns, DnsError, Security, TxtAnswer};
use crate::reference::domain::Domain;

/// Most addresses that the hints of one domain are read for.
const HINTS: usize = 64;
/// Deepest nesting of `/dnsaddr/` in hints.
const HINT_DEPTH: usize = 4;

/// How long hints may take, all together.
const HINT_TIME: Duration = Duration::from_secs(4);

/// Where a link was found that nobody was asked for.
pub(super) const KEPT: &str = "kept";

/// The link of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads.
    pub target: Target,
    /// The name at which the record was found: `_dnslink.<domain>`, or the domain itself; `kept` when nobody was asked.
    pub found_at: String,
    /// Whether it was found at the bare domain.
    pub bare: bool,
    /// What DNSSEC says about the record, and about the absence of one before it.
    pub security: Security,
}

impl Link {
    /// Who said so, for people: `TXT _dnslink.hub.test`, or `kept`.
    pub fn source(&self) -> String {
        if self.found_at == KEPT { KEPT.to_owned() } else { format!("TXT {}", self.found_at) }
    }
}

/// Why a domain leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No TXT record of the domain is a link.
    #[error("{domain} has no DNSLink (a TXT record at _dnslink.{domain})")]
    Missing {
        /// The domain.
        domain: Domain,
    },
    /// Several are, and nothing says which one is meant.
    #[error("{domain} has {} DNSLinks: {}", targets.len(), targets.join(", "))]
    Several {
        /// The domain.
        domain: Domain,
        /// Where they lead, at most eight.
        targets: Vec<String>,
    },
    /// There is one, and it cannot be read.
    #[error("the DNSLink of {domain} is malformed")]
    Malformed {
        /// The domain.
        domain: Domain,
        /// What is wrong with it.
        source: super::target::ParseTargetError,
    },
    /// The look-up failed.
    #[error("looking up the DNSLink of {domain} failed")]
    Dns {
        /// The domain.
        domain: Domain,
        /// Why.
        source: DnsError,
    },
}

impl LinkError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Several { .. } | Self::Malformed { .. } => ErrorKind::Integrity,
            Self::Dns { source, .. } => source.kind(),
        }
    }
}

/// The link of a domain: at `_dnslink.<domain>`, else at the bare domain.
pub async fn link(dns: &dyn Dns, domain: &Domain) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Dns { domain: domain.clone(), source };
    let name = format!("_dnslink.{domain}");
    let answer = dns.txt(&name).await.map_err(failed)?;
    if let Some(target) = read(domain, &answer)? {
        return Ok(Link { target, found_at: name, bare: false, security: answer.security });
    }
    let absence = answer.security;
    let answer = dns.txt(domain.as_str()).await.map_err(failed)?;
    let Some(target) = read(domain, &answer)? else {
        return Err(LinkError::Missing { domain: domain.clone() });
    };
    let secure = absence == Security::Secure && answer.security == Security::Secure;
    let security = if secure { Security::Secure } else { Security::Insecure };
    Ok(Link { target, found_at: domain.to_string(), bare: true, security })
}

/// The one valid link among TXT records; malformed ones are an error only when there is no valid one.
fn read(domain: &Domain, answer: &TxtAnswer) -> Result<Option<Target>, LinkError> {
    let (mut targets, mut malformed) = (Vec::new(), None);
    for value in answer.records.iter().filter_map(|record| record.strip_prefix("dnslink=")) {
        // Behind the last slash blanks would be a name, which nobody means who leaves some behind a value.
        match value.trim_end_matches(|c: char| c.is_whitespace() || c == '/').parse::<Target>() {
            Ok(target) => targets.push(target),
            Err(error) => malformed = Some(error),
        }
    }
    match (targets.len(), malformed) {
        (0, None) => Ok(None),
        (0, Some(source)) => Err(LinkError::Malformed { domain: domain.clone(), source }),
        (1, _) => Ok(targets.pop()),
        _ => {
            let targets = targets.iter().take(8).map(Target::to_string).collect();
            Err(LinkError::Several { domain: domain.clone(), targets })
        }
    }
}

/// The addresses to dial first, from `_dnsaddr.<domain>`, with their host names resolved. Hints are a help: what fails, cannot be
/// read, may not be dialled in this mode or takes longer than [`HINT_TIME`] is left out.
pub async fn hints(dns: &dyn Dns, domain: &Domain, mode: &NetworkMode) -> Vec<Multiaddr> {
    hints_within(HINT_TIME, dns, domain, mode).await
}

async fn hints_within(limit: Duration, dns: &dyn Dns, domain: &Domain, mode: &NetworkMode) -> Vec<Multiaddr> {
    let found = Mutex::default();
    if timeout(limit, name_all(dns, domain, &found)).await.is_err() {
        tracing::debug!(%domain, "not all dial hints came in time");
    }
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.retain(|address| mode.allows_learned(address));
    found
}

/// Adds to `found` what the records name, and what those name that they lead to; all of one step at once.
async fn name_all(dns: &dyn Dns, domain: &Domain, found: &Mutex<Vec<Multiaddr>>) {
    let mut names = vec![(domain.to_string(), None)];
    for _ in 0..HINT_DEPTH {
        let asked = std::mem::take(&mut names).into_iter().map(|(name, peer)| async move {
            match dns.txt(&format!("_dnsaddr.{name}")).await {
                Ok(answer) => Some((answer.records, peer)),
                Err(error) => {
                    tracing::debug!(%name, %error, "no dial hints");
                    None
                }
            }
        });
        let answers = join_all(asked).await;
        let mut direct = Vec::new();
        for (records, peer) in answers.into_iter().flatten() {
            for address in addresses(&records) {
                let last = address.iter().last().filter(|part| matches!(part, Protocol::P2p(_))).map(Protocol::acquire);
                // A hint below `/dnsaddr/<name>/p2p/<peer>` is for that peer.
                if peer.is_some() && last != peer {
                    continue;
                }
                match address.iter().next() {
                    Some(Protocol::Dnsaddr(next)) => names.push((next.into_owned(), last)),
                    _ => direct.push(address),
                }
            }
        }
        names.truncate(HINTS);
        direct.truncate(HINTS);
        let add = |addresses: Vec<Multiaddr>| {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            let room = HINTS.saturating_sub(found.len());
            found.extend(addresses.into_iter().take(room));
        };
        // In their order as far as they need no question, so that what is there does not wait for what is not.
        let (named, plain): (Vec<_>, Vec<_>) = direct.into_iter().partition(has_host);
        add(plain);
        let resolving = named.iter().map(|address| async { add(resolved(dns, address).await) });
        join_all(resolving).await;
        if names.is_empty() {
            return;
        }
    }
}

/// Whether an address begins with a host name.
fn has_host(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)))
}

/// What the TXT records at `_dnsaddr.<name>` lead to; those that cannot be read are left out.
pub(crate) fn addresses(records: &[String]) -> impl Iterator<Item = Multiaddr> {
    let texts = records.iter().filter_map(|record| record.trim().strip_prefix("dnsaddr="));
    texts.filter_map(|text| text.trim().parse().ok())
}

/// A multiaddr with its host name resolved: one for each address.
pub async fn resolved(dns: &dyn Dns, address: &Multiaddr) -> Vec<Multiaddr> {
    let name = address.iter().enumerate().find_map(|(index, part)| match part {
        Protocol::Dns(host) => Some((index, host, true, true)),
        Protocol::Dns4(host) => Some((index, host, true, false)),
        Protocol::Dns6(host) => Some((index, host, false, true)),
        _ => None,
    });
    let Some((index, host, v4, v6)) = name else { return vec![address.clone()] };
    let found = dns.addresses(&host).await.unwrap_or_else(|error| {
        tracing::debug!(%host, %error, "a host name does not resolve");
        Vec::new()
    });
    let wanted = found.into_iter().filter(|ip| if ip.is_ipv4() { v4 } else { v6 });
    wanted.filter_map(|ip| address.replace(index, |_| Some(ip.into()))).collect()
}

/// For `fuzzing`: the TXT records of a domain, one in a line.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let domain: Domain = "hub.test".parse().expect("a domain");
    let answer = TxtAnswer { records: text.lines().map(str::to_owned).collect(), security: Security::Insecure, ttl: 0 };
    match read(&domain, &answer) {
        Ok(Some(target)) => {
            let records = vec![format!("dnslink={target}")];
            let again = read(&domain, &TxtAnswer { records, ..answer.clone() });
            assert_eq!(again.expect("what was written is a link"), Some(target), "a link comes back");
        }
        Ok(None) => {
            assert!(!answer.records.iter().any(|record| record.starts_with("dnslink=")), "no link is passed over");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{error}"),
    }
    for address in addresses(&answer.records) {
        let records = [format!("dnsaddr={address}")];
        assert!(addresses(&records).eq([address]), "an address comes back");
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::port::memory::dns::MemoryDns;

    const ONE: &str = "dnslink=/ipfs/bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    const TWO: &str = "dnslink=/ipns/k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb/sub";
    const PEER: &str = "12D3KooWEqTTp5n78FnDxHQnLRDiWtPPpVG37zEg4ewdhGmzYn38";

    fn domain() -> Domain {
        "hub.test".parse().unwrap()
    }

    #[tokio::test]
    async fn the_subdomain_comes_first() {
        let dns = MemoryDns::new();
        dns.set_txt("_dnslink.hub.test", &["v=spf1 -all", TWO, "dnslink=garbage"]);
        dns.set_txt("hub.test", &[ONE]);
        let found = link(&dns, &domain()).await.unwrap();
        assert_eq!(format!("dnslink={}", found.target), TWO);
        assert_eq!((found.bare, found.found_at.as_str()), (false, "_dnslink.hub.test"));
        assert_eq!(dns.asked(), ["_dnslink.hub.test"]);
    }

    #[tokio::test]
    async fn the_bare_domain_comes_second() {
        let dns = MemoryDns::new();
        dns.set_txt_with("hub.test", &["unrelated", ONE], Security::Secure);
        let found = link(&dns, &domain()).await.unwrap();
        assert_eq!((found.bare, found.found_at.as_str()), (true, "hub.test"));
        // Nothing proves that there was none before it.
        assert_eq!(found.security, Security::Insecure);
        dns.set_txt_with("_dnslink.hub.test", &[], Security::Secure);
        assert_eq!(link(&dns, &domain()).await.unwrap().security, Security::Secure);
    }

    #[tokio::test]
    async fn refusals() {
        let dns = MemoryDns::new();
        let missing = link(&dns, &domain()).await.unwrap_err();
        assert_eq!((missing.kind(), missing.to_string().contains("_dnslink.hub.test")), (ErrorKind::NotFound, true));
        dns.set_txt("_dnslink.hub.test", &["dnslink=/ipfs/nothing"]);
        dns.set_txt("hub.test", &[ONE]);
        let malformed = link(&dns, &domain()).await.unwrap_err();
        assert!(matches!(malformed, LinkError::Malformed { .. }) && malformed.kind() == ErrorKind::Integrity);
        dns.set_txt("_dnslink.hub.test", &[ONE, TWO]);
        let several = link(&dns, &domain()).await.unwrap_err();
        assert!(several.to_string().starts_with("hub.test has 2 DNSLinks: /ipfs/"), "{several}");
        assert_eq!(several.kind(), ErrorKind::Integrity);
        dns.set_txt("_dnslink.hub.test", &[&format!("{ONE}/a b/ / ")]);
        let blanks = link(&dns, &domain()).await.unwrap();
        assert_eq!(format!("dnslink={}", blanks.target), format!("{ONE}/a b"));
        dns.set_bogus("_dnslink.hub.test");
        assert_eq!(link(&dns, &domain()).await.unwrap_err().kind(), ErrorKind::Integrity);
        dns.set_down(true);
        assert_eq!(link(&dns, &domain()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn hints_are_resolved() {
        let dns = MemoryDns::new();
        let peer = |start: &str| format!("dnsaddr={start}/p2p/{PEER}");
        dns.set_txt(
            "_dnsaddr.hub.test",
            &[
                &peer("/ip4/127.0.0.1/tcp/4001"),
                &peer("/dns/host.test/udp/4001/quic-v1"),
                &peer("/dns4/host.test/tcp/4001"),
                &peer("/dnsaddr/more.test"),
                "dnsaddr=garbage",
                "unrelated",
            ],
        );
        dns.set_txt(
            "_dnsaddr.more.test",
            &[
                &peer("/ip4/127.0.0.2/tcp/1"),
                "dnsaddr=/ip4/127.0.0.3/tcp/1/p2p/12D3KooWDcoQ2VcDpXtVm29oqQc1JsuC7vkf5zHVK9qCtB39hEJB",
                &peer("/dnsaddr/more.test"),
            ],
        );
        dns.set_addresses("host.test", &["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()]);
        let found = hints(&dns, &domain(), &NetworkMode::Loopback).await;
        let shown: Vec<_> = found.iter().map(|a| a.to_string().replace(&format!("/p2p/{PEER}"), "")).collect();
        assert_eq!(
            shown[..5],
            [
                "/ip4/127.0.0.1/tcp/4001",
                "/ip4/127.0.0.9/udp/4001/quic-v1",
                "/ip6/::1/udp/4001/quic-v1",
                "/ip4/127.0.0.9/tcp/4001",
                "/ip4/127.0.0.2/tcp/1",
            ]
        );
        // The loop of more.test ends at its depth.
        assert!(shown[5..].iter().all(|address| address == "/ip4/127.0.0.2/tcp/1") && shown.len() < 10);
        dns.set_down(true);
        assert!(hints(&dns, &domain(), &NetworkMode::Loopback).await.is_empty());
    }

    /// A zone with a host about which nobody answers.
    #[derive(Debug)]
    struct Silent(MemoryDns);

    #[async_trait::async_trait]
    impl Dns for Silent {
        async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError> {
            self.0.txt(name).await
        }

        async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, DnsError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_host_that_does_not_answer_holds_up_no_other_hint() {
        let dns = MemoryDns::new();
        let hint = |start: &str| format!("dnsaddr={start}/p2p/{PEER}");
        dns.set_txt("_dnsaddr.hub.test", &[&hint("/dns4/black-hole.test/tcp/1"), &hint("/ip4/127.0.0.1/tcp/4001")]);
        let limit = Duration::from_millis(50);
        let found = hints_within(limit, &Silent(dns), &domain(), &NetworkMode::Loopback).await;
        assert_eq!(found, [format!("/ip4/127.0.0.1/tcp/4001/p2p/{PEER}").parse().unwrap()]);
    }
}
