//! IPNS names: [`IpnsName`], one public key in several spellings.
//!
//! Sources: IPNS specification ("IPNS Name"), libp2p peer-ids specification, did:key method.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use cid::multihash::Multihash;
use libp2p_identity::PeerId;

use super::{NameError, Problem, did};
use crate::dag::block::LIBP2P_KEY;

/// Longest text that can be a CID or peer id of a key: generous, and still cheap to try.
const TEXT_BYTES: usize = 128;
/// Shortest hash or key in a name.
const DIGEST_BYTES: usize = 32;

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

/// The key that a text spells as a CID or a peer id; `None` for any other text. DIDs are not tried.
pub(super) fn parse(text: &str) -> Option<IpnsName> {
    if text.len() > TEXT_BYTES {
        return None;
    }
    // Base58btc without a multibase prefix (libp2p peer-ids specification, "String representation").
    let peer = if text.starts_with('1') || text.starts_with("Qm") {
        text.parse::<PeerId>().ok()?
    } else {
        let cid = Cid::try_from(text).ok()?;
        if cid.version() != cid::Version::V1 || cid.codec() != LIBP2P_KEY {
            return None;
        }
        PeerId::from_bytes(&cid.hash().to_bytes()).ok()?
    };
    // Shorter than any key or hash: a word that happens to decode, such as `161aa1`.
    (peer.as_ref().digest().len() >= DIGEST_BYTES).then_some(IpnsName(peer))
}

impl FromStr for IpnsName {
    type Err = NameError;

    /// Any spelling: a CIDv1 with the `libp2p-key` codec in any base, a peer id, a `did:key`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrap = |problem| NameError::new("a key", text, problem);
        if text.starts_with("did:") {
            return did::from_did_key(text).map_err(wrap);
        }
        parse(text).ok_or_else(|| wrap(Problem::NotAKey))
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
