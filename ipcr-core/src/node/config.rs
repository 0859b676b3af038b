//! What a node is started with: [`NodeConfig`].

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};

use cid::Cid;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;

use crate::exchange::walk::Seen;
use crate::net::addresses::NetworkMode;

/// The port that is tried first, for TCP and UDP.
pub const DEFAULT_PORT: u16 = 4001;

/// The public network's bootstrap peers, as Kubo 0.43 has them; names are resolved before dialling.
pub const PUBLIC_BOOTSTRAP: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
    "/ip4/104.131.131.82/udp/4001/quic-v1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// What others get of what is stored here.
#[derive(Clone, Debug, Default)]
pub enum Share {
    /// Everything: what is this registry's own, and what was pulled.
    #[default]
    All,
    /// What is this registry's own.
    Own(OwnBlocks),
    /// Nothing.
    Nothing,
}

impl Share {
    /// Whether others get a block, if it is here.
    pub fn allows(&self, cid: &Cid) -> bool {
        match self {
            Self::All => true,
            Self::Own(own) => own.contains(cid),
            Self::Nothing => false,
        }
    }
}

/// The blocks of this registry; none until somebody says which they are. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct OwnBlocks(Arc<RwLock<Seen>>);

impl OwnBlocks {
    /// These are the registry's blocks from now on.
    pub fn set(&self, own: Seen) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = own;
    }

    fn contains(&self, cid: &Cid) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(cid)
    }
}

/// How a node runs. Plain data: make one with [`NodeConfig::new`] and change its fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The transport key; its peer id names the node. Not the registry's key.
    pub keypair: Keypair,
    /// How far the node reaches.
    pub mode: NetworkMode,
    /// Where it listens. Empty: all addresses of the mode, at [`NodeConfig::port`].
    pub listen: Vec<Multiaddr>,
    /// The port for an empty [`NodeConfig::listen`]. `None`: [`DEFAULT_PORT`], or a free one when that is taken.
    /// [`super::Node::port`] tells which one it became, to be remembered for the next start.
    pub port: Option<u16>,
    /// Addresses at which others reach this node, when it cannot find them out itself.
    pub announce: Vec<Multiaddr>,
    /// Peers that are dialled first and kept connected, each ending in `/p2p/<peer>`.
    pub peers: Vec<Multiaddr>,
    /// Ways into the DHT, each ending in `/p2p/<peer>`. [`NodeConfig::new`] fills in [`PUBLIC_BOOTSTRAP`] in public mode.
    pub bootstrap: Vec<Multiaddr>,
    /// What others get of what is stored here.
    pub share: Share,
    /// The most bytes of blocks that are sent in a second, to all peers together.
    pub upload: Option<NonZeroU64>,
    /// The most bytes of messages with blocks that are taken in a second, from all peers together, and from gateways that are given
    /// [`super::Node::download`].
    pub download: Option<NonZeroU64>,
    /// No network at all: nothing is listened to or dialled, and every question fails at once.
    pub offline: bool,
}

impl NodeConfig {
    /// A node in `mode` with everything else at its default.
    pub fn new(keypair: Keypair, mode: NetworkMode) -> Self {
        let bootstrap = match mode {
            NetworkMode::Public => PUBLIC_BOOTSTRAP
                .iter()
                .map(|text| text.parse().expect("the built-in addresses are well-formed"))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            keypair,
            mode,
            listen: Vec::new(),
            port: None,
            announce: Vec::new(),
            peers: Vec::new(),
            bootstrap,
            share: Share::All,
            upload: None,
            download: None,
            offline: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_network_has_built_in_peers() {
        let keypair = Keypair::generate_ed25519();
        assert_eq!(NodeConfig::new(keypair.clone(), NetworkMode::Public).bootstrap.len(), PUBLIC_BOOTSTRAP.len());
        assert!(NodeConfig::new(keypair, NetworkMode::Lan).bootstrap.is_empty());
    }
}
