//! Where missing blocks come from: [`Exchange`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::dag::block::{Block, BlockError};
use crate::event::Emitter;
use crate::kind::ErrorKind;

/// A way to get blocks from others.
#[async_trait]
pub trait Exchange: Debug + Send + Sync + 'static {
    /// Begins to fetch the DAG under a root. Finding and dialling peers goes on in the background: the session can be
    /// used at once, and one that never finds anybody fails its fetches with [`ExchangeError::NoProvider`].
    async fn open(&self, request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError>;
}

/// What a session is for.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Providers of this root hold all of its blocks.
    pub root: Cid,
    /// Addresses to dial first, each ending in `/p2p/<peer>`.
    pub hints: Vec<Multiaddr>,
    /// The longest time without a single block before a fetch fails.
    pub stall: Duration,
    /// Whether others may know that the DAG is fetched and get blocks of it meanwhile. Without it nothing that is fetched is served to
    /// anybody for as long as the exchange lives.
    pub share: bool,
    /// Where peers and received bytes are told.
    pub events: Emitter,
}

/// Blocks of one DAG, from any number of peers. Dropping it cancels what is under way.
#[async_trait]
pub trait FetchSession: Debug + Send + Sync {
    /// Gets one block. Any number of calls may run at once; each that is dropped is cancelled.
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError>;

    /// Who sent how much so far.
    fn peers(&self) -> Vec<PeerShare>;

    /// The same of those gateways that were asked.
    fn gateways(&self) -> Vec<GatewayShare> {
        Vec::new()
    }

    /// How many of them all sent something so far.
    fn sources(&self) -> usize {
        let peers = self.peers().iter().filter(|peer| peer.blocks > 0).count();
        peers + self.gateways().iter().filter(|gateway| gateway.blocks > 0).count()
    }
}

/// A peer's part in a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PeerShare {
    /// Who.
    pub peer: PeerId,
    /// The address in use, if known.
    pub address: Option<Multiaddr>,
    /// Whether the connection goes through a relay.
    pub relayed: bool,
    /// Blocks received.
    pub blocks: u64,
    /// Block bytes received.
    pub bytes: u64,
}

/// A gateway's part in a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GatewayShare {
    /// Its URL.
    pub url: String,
    /// Blocks received.
    pub blocks: u64,
    /// Block bytes received.
    pub bytes: u64,
}

/// An exchange's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Nobody who holds the root could be found or reached.
    #[error("no peer that holds {root} could be reached within {}s ({tried} tried)", waited.as_secs())]
    NoProvider {
        /// The root of the session.
        root: Cid,
        /// How long it was tried.
        waited: Duration,
        /// How many peers were dialled.
        tried: usize,
    },
    /// Peers were connected and none delivered the block in time.
    #[error("none of {peers} connected peers sent block {cid} within {}s", waited.as_secs())]
    Stalled {
        /// The block.
        cid: Cid,
        /// How long nothing came.
        waited: Duration,
        /// Peers of the session.
        peers: usize,
    },
    /// Neither peers nor gateways delivered the block in time.
    #[error(
        "neither one of {peers} connected peers nor one of {gateways} gateways sent block {cid} within {}s{}",
        waited.as_secs(),
        said.as_ref().map_or_else(String::new, |said| format!(" ({said})"))
    )]
    NotSent {
        /// The block.
        cid: Cid,
        /// How long nothing came.
        waited: Duration,
        /// Peers of the session.
        peers: usize,
        /// Gateways that were asked.
        gateways: usize,
        /// Which gateway failed last, and why, for people.
        said: Option<String>,
    },
    /// The block cannot be asked for at all (hash function, size).
    #[error("block {cid} is not acceptable")]
    Refused {
        /// The block.
        cid: Cid,
        /// Why.
        source: BlockError,
    },
    /// There is no network: offline mode, or the node has stopped.
    #[error("the network is not available: {reason}")]
    Offline {
        /// Why, for people.
        reason: String,
    },
    /// The process that fetches for this one has ended, or failed in a way that no other variant describes.
    #[error("fetching through the process that holds the home failed: {reason}")]
    HolderGone {
        /// The class of what was said last.
        kind: ErrorKind,
        /// What was said last, for people.
        reason: String,
    },
}

impl ExchangeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProvider { .. } | Self::Stalled { .. } | Self::NotSent { .. } => ErrorKind::Unavailable,
            Self::Offline { .. } => ErrorKind::Unavailable,
            Self::HolderGone { kind, .. } => *kind,
            Self::Refused { .. } => ErrorKind::Integrity,
        }
    }
}
