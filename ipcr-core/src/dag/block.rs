//! A block: bytes and the CID that they hash to.

use std::sync::LazyLock;

use bytes::Bytes;
use cid::multihash::Multihash;
use cid::{Cid, Version};
use sha2::{Digest as _, Sha256, Sha512};

use crate::limits;

/// Multicodec of raw leaves.
pub const RAW: u64 = 0x55;
/// Multicodec of dag-pb nodes.
pub const DAG_PB: u64 = 0x70;
/// Multicodec of libp2p keys, used in IPNS names.
pub const LIBP2P_KEY: u64 = 0x72;
/// Multihash code of the identity function.
pub const IDENTITY: u64 = 0x00;
/// Multihash code of SHA-256.
pub const SHA2_256: u64 = 0x12;
/// Multihash code of SHA-512.
pub const SHA2_512: u64 = 0x13;

/// Longest CID in binary form: a version, a codec and a multihash code of at most 9 bytes each, a length, and 64 bytes of digest.
pub(super) const CID_BYTES: usize = 3 * 9 + 1 + 64;

/// Takes a CID from the front. There is one way to write it: the library drops those bits of a number that are too many.
pub(crate) fn read_cid(bytes: &mut &[u8]) -> Result<Cid, cid::Error> {
    let given = *bytes;
    let cid = Cid::read_bytes(&mut *bytes)?;
    let mut written = [0; CID_BYTES];
    let length = cid.write_bytes(&mut written[..])?;
    if given[..given.len() - bytes.len()] == written[..length] { Ok(cid) } else { Err(cid::Error::VarIntDecodeError) }
}

/// Bytes that were checked against, or made, their CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

/// Why bytes are not the block of a CID.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes hash to something else.
    #[error("the bytes are not those of block {cid}")]
    Mismatch {
        /// What was asked for.
        cid: Cid,
    },
    /// The block is larger than [`limits::BLOCK_BYTES`].
    #[error("block {cid} has {size} bytes, more than {limit}", limit = limits::BLOCK_BYTES)]
    TooLarge {
        /// What was asked for.
        cid: Cid,
        /// Its size in bytes.
        size: usize,
    },
    /// The CID uses a hash function that is not accepted (SHA-256, SHA-512, identity up to 128 bytes).
    #[error("block {cid} uses hash function 0x{code:x}, which is not accepted")]
    UnknownHash {
        /// What was asked for.
        cid: Cid,
        /// The multihash code.
        code: u64,
    },
}

/// Whether a block can be asked of others by this CID: by its whole digest, of a hash function that is accepted. Identity CIDs carry
/// their bytes.
pub(crate) fn is_fetchable(cid: &Cid) -> bool {
    matches!((cid.hash().code(), cid.hash().digest().len()), (SHA2_256, 32) | (SHA2_512, 64))
}

impl Block {
    /// Checks that `data` is what `cid` names.
    pub fn verify(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        if data.len() > limits::BLOCK_BYTES {
            return Err(BlockError::TooLarge { cid, size: data.len() });
        }
        let hash = cid.hash();
        let same = match hash.code() {
            SHA2_256 => hash.digest() == Sha256::digest(&data).as_slice(),
            SHA2_512 => hash.digest() == Sha512::digest(&data).as_slice(),
            IDENTITY if hash.digest().len() <= limits::IDENTITY_BYTES => hash.digest() == data.as_ref(),
            code => return Err(BlockError::UnknownHash { cid, code }),
        };
        if same { Ok(Self { cid, data }) } else { Err(BlockError::Mismatch { cid }) }
    }

    /// A raw leaf (CIDv1, SHA-256).
    pub fn raw(data: Bytes) -> Self {
        Self { cid: Cid::new_v1(RAW, sha2_256(&data)), data }
    }

    /// A dag-pb node (CIDv1, SHA-256).
    pub fn dag_pb(data: Bytes) -> Self {
        Self { cid: Cid::new_v1(DAG_PB, sha2_256(&data)), data }
    }

    /// The block of a CID with this version, codec and hash function; `None` for what [`Block::verify`] refuses.
    pub fn made(version: Version, codec: u64, hash: u64, data: Bytes) -> Option<Self> {
        if data.len() > limits::BLOCK_BYTES {
            return None;
        }
        let hash = match hash {
            SHA2_256 => Multihash::wrap(SHA2_256, &Sha256::digest(&data)),
            SHA2_512 => Multihash::wrap(SHA2_512, &Sha512::digest(&data)),
            IDENTITY if data.len() <= limits::IDENTITY_BYTES => Multihash::wrap(IDENTITY, &data),
            _ => return None,
        };
        Some(Self { cid: Cid::new(version, codec, hash.ok()?).ok()?, data })
    }

    /// The same bytes under another CID of theirs; `None` if its multihash is another.
    #[must_use]
    pub fn named(self, cid: Cid) -> Option<Self> {
        (self.cid.hash() == cid.hash()).then_some(Self { cid, ..self })
    }

    /// The CID.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

/// The bytes inside an identity CID, if it is one of an accepted length.
pub fn identity_data(cid: &Cid) -> Option<Bytes> {
    let hash = cid.hash();
    (hash.code() == IDENTITY && hash.digest().len() <= limits::IDENTITY_BYTES)
        .then(|| Bytes::copy_from_slice(hash.digest()))
}

/// The bytes of a block that everybody knows: those inside an identity CID, and none, where the hash is that of nothing. Nobody has
/// to be asked for these, and some answer nothing when they are.
pub fn known_data(cid: &Cid) -> Option<Bytes> {
    static EMPTY: LazyLock<Multihash<64>> = LazyLock::new(|| sha2_256(b""));
    identity_data(cid).or_else(|| (*cid.hash() == *EMPTY).then(Bytes::new))
}

fn sha2_256(data: &[u8]) -> Multihash<64> {
    Multihash::wrap(SHA2_256, &Sha256::digest(data)).expect("32 bytes fit a multihash of 64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_digests_are_asked_for() {
        let whole = Block::raw(Bytes::from_static(b"x"));
        let cut = Cid::new_v1(RAW, Multihash::wrap(SHA2_256, &whole.cid().hash().digest()[..20]).unwrap());
        let inside = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"x").unwrap());
        assert!(is_fetchable(whole.cid()) && !is_fetchable(&cut) && !is_fetchable(&inside));
    }

    #[test]
    fn cids_equal_those_of_kubo() {
        // `printf 'hello\n' | ipfs add --cid-version=1 --raw-leaves`
        let block = Block::raw(Bytes::from_static(b"hello\n"));
        assert_eq!(block.cid().to_string(), "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am");
        // The empty UnixFS directory.
        let block = Block::dag_pb(Bytes::from_static(b"\x0a\x02\x08\x01"));
        assert_eq!(block.cid().to_string(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let block = Block::raw(Bytes::from_static(b"hello\n"));
        let refused = Block::verify(*block.cid(), Bytes::from_static(b"hellO\n"));
        assert!(matches!(refused, Err(BlockError::Mismatch { .. })));
        let large = Bytes::from(vec![0; limits::BLOCK_BYTES + 1]);
        let cid = *Block::raw(large.clone()).cid();
        assert!(matches!(Block::verify(cid, large), Err(BlockError::TooLarge { .. })));
        let whole = Bytes::from(vec![0; limits::BLOCK_BYTES]);
        assert!(Block::verify(*Block::raw(whole.clone()).cid(), whole).is_ok());
    }

    #[test]
    fn blocks_are_made_and_named_by_their_bytes_only() {
        let node = Block::dag_pb(Bytes::from_static(b"\x0a\x02\x08\x01"));
        let old = Cid::new_v0(*node.cid().hash()).unwrap();
        let made = |data: &Bytes| Block::made(Version::V0, DAG_PB, SHA2_256, data.clone());
        assert_eq!(made(node.data()).map(|block| *block.cid()), Some(old));
        assert_eq!(node.clone().named(old).map(|block| *block.cid()), Some(old));
        assert_eq!(node.clone().named(*Block::raw(Bytes::new()).cid()), None);
        // Version 0 has one codec, and MD5 nobody takes.
        assert_eq!(Block::made(Version::V0, RAW, SHA2_256, node.data().clone()), None);
        assert_eq!(Block::made(Version::V1, RAW, 0xd5, node.data().clone()), None);
        assert_eq!(made(&vec![0; limits::BLOCK_BYTES + 1].into()), None);
    }

    #[test]
    fn identity_cids_carry_their_bytes() {
        let cid = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"abc").unwrap());
        assert_eq!(identity_data(&cid).as_deref(), Some(&b"abc"[..]));
        assert!(Block::verify(cid, Bytes::from_static(b"abc")).is_ok());
        assert_eq!(known_data(&cid).as_deref(), Some(&b"abc"[..]));
        assert_eq!(known_data(Block::raw(Bytes::new()).cid()).as_deref(), Some(&b""[..]));
        assert_eq!(known_data(Block::raw(Bytes::from_static(b"abc")).cid()), None);
    }
}
