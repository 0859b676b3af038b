//! Telling the network who holds what: [`Announce`].

use std::fmt::Debug;

use async_trait::async_trait;
use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

/// A node that can be found by others.
#[async_trait]
pub trait Announce: Debug + Send + Sync + 'static {
    /// Its peer id.
    fn peer_id(&self) -> PeerId;

    /// The addresses at which it listens or is reached, each with `/p2p/<peer>`.
    async fn addresses(&self) -> Vec<Multiaddr>;

    /// Provides these keys; returns for how many of them at least one other node took the provider record.
    async fn provide(&self, keys: &[Cid]) -> usize;

    /// Asks others (never itself) who holds a root; returns the peer ids found within `timeout`.
    async fn holders(&self, root: &Cid, timeout: std::time::Duration) -> Vec<PeerId>;
}
