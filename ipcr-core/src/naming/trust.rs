//! The key that each domain is remembered with: [`TrustTable`].
//!
//! A domain is remembered on first use with the final IPNS key of its chain, or as keyless (`dnslink=/ipfs/…`). Any change
//! is refused, unless a [`Handover`] signed by the old key says so, the user confirms it ([`TrustTable::add`]), or DNSSEC
//! secures it and the settings let that be enough. A domain once seen secure is refused when it no longer is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Clock;
use super::chain::TrustLevel;
pub use super::handover::Handover;
use super::handover::leads;
use super::target::{Target, TargetRoot};
use crate::kind::{Cause, ErrorKind};
use crate::port::dns::Security;
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::NameError;
use crate::reference::domain::Domain;
use crate::reference::key::IpnsName;

/// What a domain is remembered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// The final IPNS key of its chain.
    Key(IpnsName),
    /// There is none: it leads to content.
    Keyless,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Keyless => f.write_str("keyless"),
        }
    }
}

impl FromStr for Anchor {
    type Err = NameError;

    /// A key in any spelling, or `keyless`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "keyless" { Ok(Self::Keyless) } else { text.parse().map(Self::Key) }
    }
}

impl Serialize for Anchor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A remembered domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The domain.
    pub domain: Domain,
    /// What it is remembered with.
    pub key: Anchor,
    /// Whether it was ever seen secured by DNSSEC.
    pub secure: bool,
    /// Since when it is remembered so.
    pub since: DateTime<Utc>,
    /// What its DNSLink said last, for when nobody can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Remembered {
    /// Where the domain led when it was last looked up; its key, where only that is known.
    pub fn last_link(&self) -> Option<Target> {
        let key = match self.key {
            Anchor::Key(key) => Some(Target { root: TargetRoot::Ipns(key), path: Vec::new() }),
            Anchor::Keyless => None,
        };
        self.link.as_ref().and_then(|link| link.parse().ok()).or(key)
    }
}

/// Why a domain is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It leads to another key than before.
    #[error("{domain} is remembered with {remembered}, and now leads to {found}")]
    Changed {
        /// The domain.
        domain: Domain,
        /// What it is remembered with.
        remembered: Box<Anchor>,
        /// What it leads to.
        found: Box<Anchor>,
    },
    /// It was secured by DNSSEC, and is not any more.
    #[error("{domain} was secured by DNSSEC, and is not any more")]
    NoLongerSecure {
        /// The domain.
        domain: Domain,
    },
    /// The table failed.
    #[error("reading or remembering the key of {domain} failed")]
    Table {
        /// The domain, or what stands for all.
        domain: String,
        /// Why.
        source: TableError,
    },
    /// What is remembered cannot be read.
    #[error("what is remembered of {domain} is damaged")]
    Damaged {
        /// The domain.
        domain: String,
        /// Why.
        source: Cause,
    },
}

impl TrustError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed { .. } | Self::NoLongerSecure { .. } | Self::Damaged { .. } => ErrorKind::Integrity,
            Self::Table { source, .. } => source.kind(),
        }
    }
}

/// What was seen of a domain.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// The end of its chain.
    pub found: Anchor,
    /// What its DNSLink says.
    pub link: &'a Target,
    /// What DNSSEC says about its records.
    pub security: Security,
    /// Hand-overs that the registry shows.
    pub handovers: &'a [Handover],
}

/// Remembered domains.
#[derive(Clone, Debug)]
pub struct TrustTable {
    table: Arc<dyn Table>,
    clock: Clock,
    dnssec_may_change: bool,
}

impl TrustTable {
    /// The domains remembered in this table.
    pub fn new(table: Arc<dyn Table>, clock: Clock) -> Self {
        Self { table, clock, dnssec_may_change: false }
    }

    /// Lets DNSSEC alone change what a domain is remembered with.
    #[must_use]
    pub fn dnssec_may_change(mut self, may: bool) -> Self {
        self.dnssec_may_change = may;
        self
    }

    /// Checks what was seen of a domain against what is remembered, and remembers it if that is right.
    pub async fn see(&self, seen: &Sighting<'_>) -> Result<TrustLevel, TrustError> {
        let secure = seen.security == Security::Secure;
        let remembered = self.get(seen.domain).await?;
        let link = Some(seen.link.to_string());
        let new =
            |since| Remembered { domain: seen.domain.clone(), key: seen.found, secure, since, link: link.clone() };
        let (level, entry) = match remembered {
            None => (TrustLevel::FirstUse, Some(new(self.clock.now()))),
            Some(old) if old.secure && !secure => {
                return Err(TrustError::NoLongerSecure { domain: old.domain });
            }
            Some(old) if old.key == seen.found => {
                let changed = secure != old.secure || link != old.link;
                (TrustLevel::Pinned, changed.then(|| new(old.since)))
            }
            Some(old) => {
                let handed_over = match (old.key, seen.found) {
                    (Anchor::Key(from), Anchor::Key(to)) => leads(seen.handovers, from, to),
                    _ => false,
                };
                if !(handed_over || secure && self.dnssec_may_change) {
                    let (remembered, found) = (Box::new(old.key), Box::new(seen.found));
                    return Err(TrustError::Changed { domain: old.domain, remembered, found });
                }
                (TrustLevel::Pinned, Some(new(self.clock.now())))
            }
        };
        if let Some(entry) = entry {
            self.put(&entry).await?;
        }
        Ok(match (secure, seen.found) {
            (true, _) => TrustLevel::Dnssec,
            (false, Anchor::Keyless) => TrustLevel::DnsOnly,
            (false, Anchor::Key(_)) => level,
        })
    }

    /// What a domain is remembered with.
    pub async fn get(&self, domain: &Domain) -> Result<Option<Remembered>, TrustError> {
        let value = self.table.get(Space::Trust, domain.as_str().as_bytes()).await;
        let value = value.map_err(|source| TrustError::Table { domain: domain.to_string(), source })?;
        value.map(|value| read(domain.as_str(), &value)).transpose()
    }

    /// All remembered domains, in order of their names.
    pub async fn list(&self) -> Result<Vec<Remembered>, TrustError> {
        let rows = self.table.scan(Space::Trust, b"").await;
        let rows = rows.map_err(|source| TrustError::Table { domain: "all domains".into(), source })?;
        rows.iter().map(|(key, value)| read(&String::from_utf8_lossy(key), value)).collect()
    }

    /// Remembers a domain with this, in place of what it is remembered with. Whether it is secure is found out anew.
    pub async fn add(&self, domain: &Domain, key: Anchor) -> Result<Remembered, TrustError> {
        let (domain, since) = (domain.clone(), self.clock.now());
        let entry = Remembered { domain, key, secure: false, since, link: None };
        self.put(&entry).await?;
        Ok(entry)
    }

    /// Forgets a domain; false if it was not remembered.
    pub async fn remove(&self, domain: &Domain) -> Result<bool, TrustError> {
        let there = self.get(domain).await?.is_some();
        if there {
            let change = Change::Delete(Space::Trust, domain.as_str().as_bytes().to_vec());
            self.write(domain, change).await?;
        }
        Ok(there)
    }

    async fn put(&self, entry: &Remembered) -> Result<(), TrustError> {
        let value = serde_json::to_vec(entry).expect("strings serialise");
        let key = entry.domain.as_str().as_bytes().to_vec();
        self.write(&entry.domain, Change::Put(Space::Trust, key, value)).await
    }

    async fn write(&self, domain: &Domain, change: Change) -> Result<(), TrustError> {
        let failed = |source| TrustError::Table { domain: domain.to_string(), source };
        self.table.write(vec![change]).await.map_err(failed)
    }
}

fn read(domain: &str, value: &[u8]) -> Result<Remembered, TrustError> {
    let damaged = |error: serde_json::Error| TrustError::Damaged { domain: domain.to_owned(), source: error.into() };
    serde_json::from_slice(value).map_err(damaged)
}

#[cfg(test)]
mod tests;
