//! dag-pb nodes and the UnixFS data inside them: a bounded reader for bytes of any origin and a canonical writer.
//!
//! Sources: the DAG-PB specification (ipld.io, "DAG-PB") and the UnixFS specification (specs.ipfs.tech, "UnixFS").
//!
//! * [`Node::decode`] never panics and allocates in proportion to its input at most. Unknown dag-pb fields, wrong wire
//!   types, second `Data` fields and trailing bytes are refused, as Go does; `Data` before `Links`, a missing name or
//!   size, packed `blocksizes` and unknown UnixFS fields (also mode and time, which are not kept) are accepted.
//! * [`Node::encode`] writes the bytes that Go writes: links first, fields in the order of their numbers, every link
//!   with hash, name and size. The order of links is the caller's.

use bytes::Bytes;
use cid::Cid;

use super::block::{DAG_PB, RAW, read_cid};
use super::protobuf::{Fields, Malformed, Value, put_bytes, put_number};
use super::varint;
use crate::kind::ErrorKind;
use crate::limits;

/// Multihash code of the hash that sharded directories use (`murmur3-x64-64`).
pub const MURMUR3_X64_64: u64 = 0x22;

/// A link of a dag-pb node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it points to.
    pub cid: Cid,
    /// Its name: empty in files, prefixed in sharded directories. May be anything in foreign nodes: see [`is_component`].
    pub name: String,
    /// Bytes of all blocks below, as the writer claims (`Tsize`); 0 if it does not say.
    pub tsize: u64,
}

/// What a UnixFS node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A piece of a file (written by old versions).
    Raw,
    /// A directory in one block.
    Directory,
    /// A file, or an inner node of one.
    File,
    /// Metadata of a file (unused by anybody).
    Metadata,
    /// A symbolic link; the data is its target.
    Symlink,
    /// A node of a sharded directory (HAMT); the data is its bit field.
    Shard,
}

/// The UnixFS message in a dag-pb node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the file in this very node, a link's target, or a shard's bit field.
    pub data: Bytes,
    /// Bytes of the file below this node, its own data included, as the writer claims.
    pub filesize: Option<u64>,
    /// Bytes of the file below each link, as the writer claims.
    pub blocksizes: Vec<u64>,
    /// The multihash code of a shard's hash.
    pub hash_type: Option<u64>,
    /// The width of a shard.
    pub fanout: Option<u64>,
}

impl UnixFs {
    /// A message that says nothing but what the node is.
    pub fn new(kind: Kind) -> Self {
        Self { kind, data: Bytes::new(), filesize: None, blocksizes: Vec::new(), hash_type: None, fanout: None }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.data.len() + self.blocksizes.len() * 4);
        put_number(
            &mut out,
            1,
            match self.kind {
                Kind::Raw => 0,
                Kind::Directory => 1,
                Kind::File => 2,
                Kind::Metadata => 3,
                Kind::Symlink => 4,
                Kind::Shard => 5,
            },
        );
        if !self.data.is_empty() {
            put_bytes(&mut out, 2, &self.data);
        }
        for (field, value) in [(3, self.filesize)] {
            if let Some(value) = value {
                put_number(&mut out, field, value);
            }
        }
        for size in &self.blocksizes {
            put_number(&mut out, 4, *size);
        }
        for (field, value) in [(5, self.hash_type), (6, self.fanout)] {
            if let Some(value) = value {
                put_number(&mut out, field, value);
            }
        }
        out
    }

    fn decode(data: &Bytes) -> Result<Self, NodeError> {
        let mut kind = None;
        let mut out = Self::new(Kind::Raw);
        for field in Fields::of(data) {
            let (field, value) = field?;
            match (field, value) {
                (1, Value::Number(number)) => {
                    kind = Some(match number {
                        0 => Kind::Raw,
                        1 => Kind::Directory,
                        2 => Kind::File,
                        3 => Kind::Metadata,
                        4 => Kind::Symlink,
                        5 => Kind::Shard,
                        _ => return Err(NodeError::Malformed { what: "UnixFS type" }),
                    });
                }
                (2, Value::Bytes(bytes)) => out.data = data.slice_ref(bytes),
                (3, Value::Number(number)) => out.filesize = Some(number),
                (4, Value::Number(number)) => push_bounded(&mut out.blocksizes, number)?,
                (4, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        push_bounded(&mut out.blocksizes, varint::take(&mut packed)?)?;
                    }
                }
                (5, Value::Number(number)) => out.hash_type = Some(number),
                (6, Value::Number(number)) => out.fanout = Some(number),
                (1..=6, _) => return Err(NodeError::Malformed { what: "wire type of a UnixFS field" }),
                _ => {}
            }
        }
        out.kind = kind.ok_or(NodeError::Malformed { what: "UnixFS message without a type" })?;
        Ok(out)
    }
}

/// A dag-pb node that carries UnixFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its links, in their order.
    pub links: Vec<Link>,
    /// Its UnixFS message.
    pub data: UnixFs,
}

/// Why bytes are not a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The bytes end inside a field.
    #[error("the node is cut short")]
    Truncated,
    /// The bytes are no dag-pb or UnixFS.
    #[error("the node is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A link's target is no CID.
    #[error("a link of the node has no valid CID")]
    Cid {
        /// Why.
        source: cid::Error,
    },
    /// The node has more than [`limits::NODE_LINKS`] links.
    #[error("the node has more than {limit} links", limit = limits::NODE_LINKS)]
    TooManyLinks,
    /// The block is neither raw nor dag-pb.
    #[error("block {cid} has codec 0x{codec:x}, which is not part of UnixFS", codec = cid.codec())]
    Codec {
        /// Which.
        cid: Cid,
    },
}

impl From<Malformed> for NodeError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::CutShort => Self::Truncated,
            Malformed::Wrong => Self::Malformed { what: "it is no protobuf" },
        }
    }
}

impl NodeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

/// A block as UnixFS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A raw leaf: bytes of a file.
    Leaf(Bytes),
    /// A node.
    Node(Node),
}

impl Content {
    /// Reads a block by the codec of its CID.
    pub fn decode(cid: &Cid, data: &Bytes) -> Result<Self, NodeError> {
        match cid.codec() {
            RAW => Ok(Self::Leaf(data.clone())),
            DAG_PB => Ok(Self::Node(Node::decode(data)?)),
            _ => Err(NodeError::Codec { cid: *cid }),
        }
    }
}

impl Node {
    /// The bytes that Go writes for this node.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.links.len() * 56);
        let mut inner = Vec::with_capacity(128);
        for link in &self.links {
            inner.clear();
            put_bytes(&mut inner, 1, &link.cid.to_bytes());
            put_bytes(&mut inner, 2, link.name.as_bytes());
            put_number(&mut inner, 3, link.tsize);
            put_bytes(&mut out, 2, &inner);
        }
        put_bytes(&mut out, 1, &self.data.encode());
        out.into()
    }

    /// Reads a node.
    pub fn decode(data: &Bytes) -> Result<Self, NodeError> {
        let (links, message) = split(data)?;
        let message = message.ok_or(NodeError::Malformed { what: "no UnixFS data" })?;
        Ok(Self { links, data: UnixFs::decode(&message)? })
    }

    /// Reads the links of a dag-pb node, whatever its data is.
    pub fn decode_links(data: &Bytes) -> Result<Vec<Link>, NodeError> {
        split(data).map(|(links, _)| links)
    }
}

/// The links and the data of a dag-pb node.
fn split(data: &Bytes) -> Result<(Vec<Link>, Option<Bytes>), NodeError> {
    let mut links = Vec::new();
    let mut message = None;
    for field in Fields::of(data) {
        let (field, value) = field?;
        match (field, value) {
            (2, Value::Bytes(bytes)) => push_bounded(&mut links, decode_link(bytes)?)?,
            (1, Value::Bytes(bytes)) if message.is_none() => message = Some(data.slice_ref(bytes)),
            (1, Value::Bytes(_)) => return Err(NodeError::Malformed { what: "two data fields" }),
            _ => return Err(NodeError::Malformed { what: "unknown dag-pb field" }),
        }
    }
    Ok((links, message))
}

/// Whether a name can be one component of a path: not empty, not `.` or `..`, without `/` and NUL.
pub fn is_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.bytes().any(|byte| byte == b'/' || byte == 0)
}

/// Bytes that a link adds to the node that holds it.
pub fn link_bytes(link: &Link) -> usize {
    let inner =
        1 + bytes_length(link.cid.encoded_len()) + 1 + bytes_length(link.name.len()) + 1 + varint::length(link.tsize);
    1 + bytes_length(inner)
}

fn bytes_length(length: usize) -> usize {
    varint::length(u64::try_from(length).unwrap_or(u64::MAX)) + length
}

fn decode_link(data: &[u8]) -> Result<Link, NodeError> {
    let mut cid = None;
    let mut name = None;
    let mut tsize = None;
    for field in Fields::of(data) {
        let (field, value) = field?;
        match (field, value) {
            (1, Value::Bytes(mut rest)) if cid.is_none() => {
                cid = Some(read_cid(&mut rest).map_err(|source| NodeError::Cid { source })?);
                if !rest.is_empty() {
                    return Err(NodeError::Malformed { what: "bytes after a CID" });
                }
            }
            (2, Value::Bytes(bytes)) if name.is_none() => {
                let text = std::str::from_utf8(bytes);
                name = Some(text.map_err(|_| NodeError::Malformed { what: "a link name is not UTF-8" })?.to_owned());
            }
            (3, Value::Number(number)) if tsize.is_none() => tsize = Some(number),
            _ => return Err(NodeError::Malformed { what: "unknown or repeated field of a link" }),
        }
    }
    let cid = cid.ok_or(NodeError::Malformed { what: "a link without a CID" })?;
    Ok(Link { cid, name: name.unwrap_or_default(), tsize: tsize.unwrap_or(0) })
}

fn push_bounded<T>(list: &mut Vec<T>, item: T) -> Result<(), NodeError> {
    if list.len() == limits::NODE_LINKS {
        return Err(NodeError::TooManyLinks);
    }
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dag::block::Block;

    fn link(name: &str) -> Link {
        Link { cid: *Block::raw(Bytes::from_static(b"x")).cid(), name: name.into(), tsize: 300 }
    }

    #[test]
    fn written_nodes_are_read_back() {
        let mut data = UnixFs::new(Kind::File);
        data.filesize = Some(1 << 40);
        data.blocksizes = vec![0, 127, 128, u64::MAX];
        let node = Node { links: vec![link(""), link("ä"), link("")], data };
        assert_eq!(Node::decode(&node.encode()).unwrap(), node);
        let empty = Node { links: vec![], data: UnixFs::new(Kind::File) };
        let total: usize = node.links.iter().map(link_bytes).sum();
        let mut without = node.clone();
        without.links.clear();
        assert_eq!(node.encode().len(), without.encode().len() + total);
        assert_eq!(empty.encode().as_ref(), b"\x0a\x02\x08\x02");
    }

    #[test]
    fn data_before_links_and_packed_sizes_are_read() {
        let bytes = Bytes::from_static(b"\x0a\x07\x08\x02\x18\x03\x22\x01\x03");
        let node = Node::decode(&bytes).unwrap();
        assert_eq!((node.data.filesize, node.data.blocksizes), (Some(3), vec![3]));
        let mut swapped = b"\x0a\x02\x08\x01".to_vec();
        let mut inner = Vec::new();
        put_bytes(&mut inner, 1, &link("").cid.to_bytes());
        put_bytes(&mut swapped, 2, &inner);
        let node = Node::decode(&swapped.into()).unwrap();
        assert_eq!((node.links[0].name.as_str(), node.links[0].tsize), ("", 0));
    }

    #[test]
    fn refusals() {
        for bad in [
            &b""[..],
            b"\x0a",
            b"\x0a\x05\x08\x01",
            b"\x0a\x02\x08\x09",
            b"\x0a\x02\x08\x01\x0a\x02\x08\x01",
            b"\x0a\x02\x08\x01\x18\x01",
            b"\x0a\x02\x08\x01\x12\x02\x0a\x00",
            b"\x0a\x02\x08\x01\x12\x00",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x0a\x02\x18\x01",
        ] {
            assert!(Node::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:x?}");
        }
        let many = vec![0x22, 0x00];
        assert!(Node::decode(&many.into()).is_err());
    }

    #[test]
    fn links_are_counted() {
        let node = Node { links: vec![link(""); limits::NODE_LINKS + 1], data: UnixFs::new(Kind::Directory) };
        assert!(matches!(Node::decode(&node.encode()), Err(NodeError::TooManyLinks)));
    }

    #[test]
    fn components() {
        for bad in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_component(bad), "{bad:?}");
        }
        for good in ["a", "...", "a b", "ä"] {
            assert!(is_component(good), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Node::decode(&bytes.into());
        }

        #[test]
        fn damaged_nodes_do_not_panic(at in 0_usize..180, bit in 0_u8..8) {
            let mut data = UnixFs::new(Kind::File);
            data.blocksizes = vec![1, 2, 3];
            let node = Node { links: vec![link("a"), link("b"), link("c")], data };
            let mut bytes = node.encode().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(node) = Node::decode(&bytes.into()) {
                prop_assert_eq!(Node::decode(&node.encode()).unwrap(), node);
            }
        }
    }
}
