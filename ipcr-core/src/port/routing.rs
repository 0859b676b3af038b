//! Asking others who holds what: [`Routing`].

use std::fmt::Debug;

use async_trait::async_trait;
use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::mpsc;

/// Somebody who knows who holds what, beside the DHT.
#[async_trait]
pub trait Routing: Debug + Send + Sync + 'static {
    /// Sends everyone who is said to hold `root`, as they become known, until nobody else is or the receiver is gone. Returns whether
    /// anybody who could know has answered. What they say is a claim of strangers.
    async fn providers(&self, root: &Cid, found: mpsc::Sender<Provider>) -> bool;
}

/// A peer that is said to hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Where it is said to be reached; none where that is not known.
    pub addresses: Vec<Multiaddr>,
}
