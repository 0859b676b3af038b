//! An in-memory resolver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::port::dns::{Dns, DnsError, Security, TxtAnswer};

/// A [`Dns`] that knows what it is told. Clones share their zone.
#[derive(Clone, Debug, Default)]
pub struct MemoryDns(Arc<Mutex<Zone>>);

#[derive(Debug, Default)]
struct Zone {
    txt: BTreeMap<String, (Vec<String>, Security)>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    bogus: BTreeSet<String>,
    down: bool,
    asked: Vec<String>,
}

impl MemoryDns {
    /// A resolver that knows no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the TXT records of a name, not signed.
    pub fn set_txt(&self, name: &str, records: &[&str]) {
        self.set_txt_with(name, records, Security::Insecure);
    }

    /// Sets the TXT records of a name.
    pub fn set_txt_with(&self, name: &str, records: &[&str], security: Security) {
        let records = records.iter().map(|&record| record.to_owned()).collect();
        self.zone().txt.insert(normal(name), (records, security));
    }

    /// Sets the addresses of a host name.
    pub fn set_addresses(&self, host: &str, addresses: &[IpAddr]) {
        self.zone().addresses.insert(normal(host), addresses.to_vec());
    }

    /// Makes the signatures of a name wrong from now on.
    pub fn set_bogus(&self, name: &str) {
        self.zone().bogus.insert(normal(name));
    }

    /// Makes every look-up fail while `down`.
    pub fn set_down(&self, down: bool) {
        self.zone().down = down;
    }

    /// The names that were asked for TXT records so far, in order.
    pub fn asked(&self) -> Vec<String> {
        self.zone().asked.clone()
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// RFC 1035, section 2.3.4, and what can be typed.
fn check(name: &str) -> Result<String, DnsError> {
    let name = normal(name);
    let labels = name.split('.').all(|label| (1..=63).contains(&label.len()));
    let good = name.len() <= 253 && labels && name.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(name) } else { Err(DnsError::BadName { name }) }
}

#[async_trait]
impl Dns for MemoryDns {
    async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError> {
        let name = check(name)?;
        let mut zone = self.zone();
        zone.asked.push(name.clone());
        if zone.down {
            return Err(DnsError::Unreachable { name, source: "it is switched off".into() });
        }
        if zone.bogus.contains(&name) {
            return Err(DnsError::Bogus { name });
        }
        let (records, security) = zone.txt.get(&name).cloned().unwrap_or((Vec::new(), Security::Insecure));
        Ok(TxtAnswer { records, security, ttl: 60 })
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let host = check(host)?;
        let zone = self.zone();
        if zone.down {
            return Err(DnsError::Unreachable { name: host, source: "it is switched off".into() });
        }
        Ok(zone.addresses.get(&host).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::dns as suite;

    #[tokio::test]
    async fn conforms() {
        let dns = MemoryDns::new();
        let long = suite::long_text();
        dns.set_txt("_dnslink.hub.test", &[suite::LINK]);
        dns.set_txt("two.hub.test", &["one", "two"]);
        dns.set_txt("long.hub.test", &[&long]);
        dns.set_addresses("host.hub.test", &["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
        suite::run(&dns).await;
        dns.set_down(true);
        suite::run_down(&dns).await;
    }
}
