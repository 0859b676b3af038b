//! IPNS names: [`IpnsName`], one public key in several spellings.
//!
//! Sources: IPNS specification ("IPNS Name"), libp2p peer-ids specification, did:key method.

use std::fmt;

use cid::Cid;
use cid::multihash::Multihash;
use libp2p_identity::PeerId;

use crate::dag::block::LIBP2P_KEY;

/// The hash of a public key, which names a mutable pointer. Its text form is the CIDv1 in base36 (`k51…`, `k2k4…`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpnsName(PeerId);

impl IpnsName {
    /// The name whose key has this peer id.
    pub fn from_peer_id(peer: PeerId) -> Self {
        Self(peer)
    }

    /// The same key as a peer id (`12D3Koo…`, `Qm…`).
    pub fn peer_id(&self) -> PeerId {
        self.0
    }

    /// The key under which records are kept and asked for: `/ipns/` and the binary multihash (IPNS specification, "Routing
    /// Record").
    pub fn routing_key(&self) -> Vec<u8> {
        [b"/ipns/".as_slice(), &self.0.to_bytes()].concat()
    }

    /// As a CIDv1 with the `libp2p-key` codec.
    pub fn cid(&self) -> Cid {
        let hash = Multihash::from_bytes(&self.0.to_bytes()).expect("a peer id is a multihash");
        Cid::new_v1(LIBP2P_KEY, hash)
    }
}

impl fmt::Display for IpnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.cid().to_string_of_base(multibase::Base::Base36Lower).expect("base36 takes any CIDv1");
        f.write_str(&text)
    }
}

impl fmt::Debug for IpnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
