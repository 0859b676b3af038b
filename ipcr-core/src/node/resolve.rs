//! Names in multiaddrs are resolved here, before anything is dialled: [`resolve`].
//!
//! Source: multiaddr specification, "DNS" (`/dns`, `/dns4`, `/dns6`, `/dnsaddr` with TXT records at `_dnsaddr.<domain>`).

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};

use crate::naming::dnslink;
use crate::net::addresses;
use crate::port::dns::Dns;

/// Deepest chain of `/dnsaddr` records.
const DEPTH: usize = 4;
/// Most addresses that one address may become.
const ADDRESSES: usize = 64;
/// Most questions for one address: a zone can make many of each.
const QUESTIONS: usize = 16;
/// How long the names of one address may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address with all names replaced by what they stand for; names that do not resolve, or not in time, vanish.
pub(super) async fn resolve(dns: &dyn Dns, address: &Multiaddr) -> Vec<Multiaddr> {
    let mut resolved = Vec::new();
    if tokio::time::timeout(PATIENCE, resolve_into(dns, address, &mut resolved)).await.is_err() {
        tracing::debug!(%address, "the names of an address take too long");
    }
    resolved
}

async fn resolve_into(dns: &dyn Dns, address: &Multiaddr, resolved: &mut Vec<Multiaddr>) {
    let mut open = vec![(address.clone(), 0)];
    let mut questions = 0;
    while let Some((address, depth)) = open.pop() {
        let Some((index, name)) = address.iter().enumerate().find(|(_, part)| is_name(part)) else {
            if resolved.len() < ADDRESSES && !resolved.contains(&address) {
                resolved.push(address);
            }
            continue;
        };
        if depth < DEPTH && questions < QUESTIONS {
            questions += 1;
            open.extend(step(dns, &address, index, &name).await.into_iter().map(|address| (address, depth + 1)));
        }
    }
}

/// All addresses of a list, resolved.
pub(super) async fn resolve_all(dns: &dyn Dns, list: &[Multiaddr]) -> Vec<Multiaddr> {
    futures::future::join_all(list.iter().map(|address| resolve(dns, address))).await.concat()
}

fn is_name(part: &Protocol<'_>) -> bool {
    matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
}

async fn step(dns: &dyn Dns, address: &Multiaddr, index: usize, name: &Protocol<'_>) -> Vec<Multiaddr> {
    match name {
        Protocol::Dnsaddr(domain) => dnsaddr(dns, address, index, domain).await,
        _ => dnslink::resolved(dns, address).await,
    }
}

async fn dnsaddr(dns: &dyn Dns, address: &Multiaddr, index: usize, domain: &str) -> Vec<Multiaddr> {
    let answer = match dns.txt(&format!("_dnsaddr.{domain}")).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%domain, %error, "a dnsaddr does not resolve");
            return Vec::new();
        }
    };
    let rest: Multiaddr = address.iter().skip(index + 1).collect();
    // What follows the name says which of the records is meant (usually the peer).
    let matching = dnslink::addresses(&answer.records).filter(|found| ends_with(found, &rest));
    let mut matching: Vec<_> = matching.take(ADDRESSES).collect();
    matching.dedup();
    matching
}

fn ends_with(address: &Multiaddr, suffix: &Multiaddr) -> bool {
    let (whole, end): (Vec<_>, Vec<_>) = (address.iter().collect(), suffix.iter().collect());
    whole.ends_with(&end) || (addresses::peer(suffix).is_some() && addresses::peer(address) == addresses::peer(suffix))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::port::dns::{DnsError, Security, TxtAnswer};

    #[derive(Debug, Default)]
    struct Zone(AtomicUsize);

    const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    #[async_trait]
    impl Dns for Zone {
        async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let records = match name {
                "_dnsaddr.a.test" => vec![format!("dnsaddr=/dnsaddr/b.test/p2p/{PEER}"), "junk".into()],
                "_dnsaddr.b.test" => vec![
                    format!("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{PEER}"),
                    format!("dnsaddr=/dns4/host.test/tcp/2/p2p/{PEER}"),
                    "dnsaddr=/ip4/192.0.2.9/tcp/1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ".into(),
                ],
                "_dnsaddr.loop.test" => vec!["dnsaddr=/dnsaddr/loop.test".into()],
                _ if name.ends_with(".many.test") => {
                    (0..50).map(|i| format!("dnsaddr=/dnsaddr/{i}.many.test/p2p/{PEER}")).collect()
                }
                _ => Vec::new(),
            };
            Ok(TxtAnswer { records, security: Security::Insecure, ttl: 1 })
        }

        async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
            Ok(if host == "host.test" {
                vec!["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]
            } else {
                vec![]
            })
        }
    }

    async fn texts(address: &str) -> Vec<String> {
        let mut texts: Vec<_> =
            resolve(&Zone::default(), &address.parse().unwrap()).await.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    }

    #[tokio::test]
    async fn names_become_addresses() {
        assert_eq!(texts("/ip4/127.0.0.1/tcp/1").await, ["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(texts("/dns/host.test/tcp/1").await, ["/ip4/192.0.2.2/tcp/1", "/ip6/2001:db8::2/tcp/1"]);
        assert_eq!(texts("/dns6/host.test/tcp/1").await, ["/ip6/2001:db8::2/tcp/1"]);
        assert_eq!(
            texts(&format!("/dnsaddr/a.test/p2p/{PEER}")).await,
            [format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}"), format!("/ip4/192.0.2.2/tcp/2/p2p/{PEER}")]
        );
        assert!(texts("/dnsaddr/loop.test").await.is_empty());
        assert!(texts("/dns4/nowhere.test/tcp/1").await.is_empty());
    }

    #[tokio::test]
    async fn a_zone_of_countless_names_is_not_walked_to_the_end() {
        let zone = Zone::default();
        let address = format!("/dnsaddr/a.many.test/p2p/{PEER}").parse().unwrap();
        assert!(resolve(&zone, &address).await.is_empty());
        assert_eq!(zone.0.load(Ordering::Relaxed), QUESTIONS);
    }
}
