//! The chain of names that led to a registry root, and why it is believed. Both are part of the JSON contract.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The kind of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// A TXT record.
    Dnslink,
    /// An IPNS record.
    Ipns,
    /// Content: the end of the chain.
    Ipfs,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStep {
    /// Its kind.
    pub kind: StepKind,
    /// What was asked: a domain, an IPNS name, a CID.
    pub name: String,
    /// What it says: `/ipns/…` or `/ipfs/…`.
    pub value: String,
    /// The record's sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Until when the record is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<DateTime<Utc>>,
    /// Seconds since the answer was last confirmed by the network; 0 when it was just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Who answered, for people.
    pub source: String,
}

impl ChainStep {
    /// A step without what only IPNS records have.
    pub fn new(kind: StepKind, name: String, value: String, source: String) -> Self {
        Self { kind, name, value, sequence: None, valid_until: None, age: None, source }
    }
}

/// Why a chain of names is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustLevel {
    /// DNSSEC secures the domain's records.
    Dnssec,
    /// The domain leads to the key that was remembered.
    Pinned,
    /// The domain was seen for the first time; its key is remembered now.
    FirstUse,
    /// The reference names a key.
    Key,
    /// The reference names content.
    Content,
    /// The domain leads to content without any key.
    DnsOnly,
}
