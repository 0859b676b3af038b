//! DNS TXT look-ups: [`Dns`].

use std::fmt::Debug;

use async_trait::async_trait;

use crate::kind::{Cause, ErrorKind};

/// A resolver.
#[async_trait]
pub trait Dns: Debug + Send + Sync + 'static {
    /// All TXT records of a name, each with its character-strings joined. A name that does not exist, or has no TXT
    /// record, is an empty answer.
    async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError>;

    /// All addresses of a host name.
    async fn addresses(&self, host: &str) -> Result<Vec<std::net::IpAddr>, DnsError>;
}

/// The resolver of a home without a network: it asks nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDns;

#[async_trait]
impl Dns for NoDns {
    async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError> {
        Err(DnsError::Offline { name: name.to_owned() })
    }

    async fn addresses(&self, host: &str) -> Result<Vec<std::net::IpAddr>, DnsError> {
        Err(DnsError::Offline { name: host.to_owned() })
    }
}

/// What a resolver says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxtAnswer {
    /// The records.
    pub records: Vec<String>,
    /// What DNSSEC says about them.
    pub security: Security,
    /// How long the answer may be kept, in seconds.
    pub ttl: u32,
}

/// The DNSSEC state of an answer (RFC 4035, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Signed, and the signatures lead to an anchor.
    Secure,
    /// The zone is not signed, or this resolver cannot tell.
    Insecure,
}

/// A resolver's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// No server answered.
    #[error("no DNS server answered for {name}")]
    Unreachable {
        /// What was asked.
        name: String,
        /// Why.
        source: Cause,
    },
    /// The signatures are wrong.
    #[error("the DNSSEC signatures of {name} are bogus")]
    Bogus {
        /// What was asked.
        name: String,
    },
    /// Nobody was asked, because the network is switched off.
    #[error("DNS was not asked for {name}: offline mode")]
    Offline {
        /// What would have been asked.
        name: String,
    },
    /// The text is no DNS name.
    #[error("`{name}` is not a DNS name")]
    BadName {
        /// What was asked.
        name: String,
    },
}

impl DnsError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Offline { .. } => ErrorKind::Unavailable,
            Self::Bogus { .. } => ErrorKind::Integrity,
            Self::BadName { .. } => ErrorKind::Usage,
        }
    }
}
