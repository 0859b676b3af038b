//! Where IPNS records are found and put. Records travel as the bytes of the IPNS specification; nobody on this side of
//! the port has verified them.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use multiaddr::Multiaddr;

use crate::kind::ErrorKind;
use crate::reference::key::IpnsName;

/// A network that carries IPNS records: peers, the DHT, delegated routers, gateways.
#[async_trait]
pub trait NameRecords: Debug + Send + Sync + 'static {
    /// Asks everyone in parallel. Answers come in any order and may be wrong, old or forged; the stream ends when all
    /// have answered or `timeout` has passed.
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError>;

    /// Hands a signed record to everyone who takes it; returns who accepted.
    async fn put(&self, name: &IpnsName, record: Bytes, hints: &[Multiaddr]) -> Result<Vec<String>, RecordsError>;
}

/// A question for [`NameRecords::find`].
#[derive(Clone, Debug)]
pub struct RecordQuery {
    /// Whose record.
    pub name: IpnsName,
    /// Peers to ask first, each address ending in `/p2p/<peer>`.
    pub hints: Vec<Multiaddr>,
    /// The longest time to wait.
    pub timeout: std::time::Duration,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// The record's bytes, not verified.
    pub record: Bytes,
    /// Who gave it, for people: `peer 12D3…`, `dht`, a URL's host.
    pub source: String,
}

/// The records that a node answers with when it is asked: own, followed and cached names.
#[async_trait]
pub trait RecordShelf: Debug + Send + Sync + 'static {
    /// The best valid record of a binary routing key (`/ipns/` + multihash).
    async fn record(&self, routing_key: &[u8]) -> Option<Bytes>;
}

/// A failure to ask at all; a name that nobody knows is an empty answer, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// There is no network.
    #[error("the network is not available: {reason}")]
    Offline {
        /// Why, for people.
        reason: String,
    },
}

impl RecordsError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Offline { .. } => ErrorKind::Unavailable,
        }
    }
}
