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

    /// Provides these keys; returns for each of them whether at least one other node took the provider record.
    async fn provide(&self, keys: &[Cid]) -> Vec<bool>;

    /// Asks others who holds a root, within `timeout`.
    async fn holders(&self, root: &Cid, timeout: std::time::Duration) -> Sought;
}

/// Who holds a root, as far as others say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// Others that said themselves that they hold it.
    pub holders: Vec<PeerId>,
    /// Whether somebody who looks for it finds a holder: another one, or this node by its provider record. `None` when nobody who
    /// could know has answered.
    pub findable: Option<bool>,
}
