//! The messages of Bitswap 1.2.0, without any I/O.
//!
//! Source: Bitswap specification, "Bitswap 1.2.0: Wire Format". A message with broken protobuf structure is refused as a
//! whole; an entry whose CID or prefix cannot be read is counted and left out, and the rest of the message stands.

use bytes::Bytes;
use cid::{Cid, Version};

use crate::dag::block::{Block, SHA2_256, SHA2_512};
use crate::dag::protobuf::{Fields, Malformed, put_bytes, put_header, put_number};
use crate::dag::varint;

/// Most entries of one kind that are read from one message; the rest is counted as skipped.
pub(super) const ENTRIES: usize = 8192;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Whether [`Message::wants`] replaces everything wanted before.
    pub(super) full: bool,
    /// What the sender wants, or wants no more.
    pub(super) wants: Vec<Want>,
    /// Blocks.
    pub(super) blocks: Vec<Payload>,
    /// What the sender has and has not.
    pub(super) presences: Vec<Presence>,
    /// Entries that could not be read.
    pub(super) skipped: usize,
}

/// An entry of a wantlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) cid: Cid,
    pub(super) priority: i32,
    /// Wanted no more.
    pub(super) cancel: bool,
    /// Only whether the peer has it, not the block.
    pub(super) have: bool,
    /// An answer is wanted also when the peer does not have it.
    pub(super) send_dont_have: bool,
}

/// A block and how its CID is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) prefix: Prefix,
    pub(super) data: Bytes,
}

/// A CID without its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: Version,
    pub(super) codec: u64,
    pub(super) hash: u64,
}

/// Whether a peer has a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) cid: Cid,
    pub(super) have: bool,
}

impl Prefix {
    /// The prefix of a CID.
    pub(super) fn of(cid: &Cid) -> Self {
        Self { version: cid.version(), codec: cid.codec(), hash: cid.hash().code() }
    }

    /// The block: hashing it is what verifies it. `None` for hash functions and sizes that are not accepted.
    pub(super) fn block(&self, data: Bytes) -> Option<Block> {
        Block::made(self.version, self.codec, self.hash, data)
    }

    fn encode(self) -> Vec<u8> {
        let length = match self.hash {
            SHA2_512 => 64,
            SHA2_256 => 32,
            // The digest of an identity hash is as long as the block; readers take the length from there.
            _ => u64::MAX,
        };
        let mut out = Vec::with_capacity(16);
        for number in [self.version.into(), self.codec, self.hash, length] {
            varint::put(&mut out, number);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let version = Version::try_from(varint::take(&mut bytes).ok()?).ok()?;
        let codec = varint::take(&mut bytes).ok()?;
        let hash = varint::take(&mut bytes).ok()?;
        let length = varint::take(&mut bytes).ok()?;
        let whole = match hash {
            SHA2_256 => length == 32,
            SHA2_512 => length == 64,
            _ => true,
        };
        // -1 (as an unsigned number of 64 or 32 bits) is "the whole digest".
        let whole = whole || length == u64::MAX || length == u64::from(u32::MAX);
        (bytes.is_empty() && whole).then_some(Self { version, codec, hash })
    }
}

/// Data of a block. It is copied where it is the smaller part of its message, because whoever keeps it would keep all of that.
fn part_of(message: &Bytes, data: &[u8]) -> Bytes {
    if data.len() < message.len() / 2 { Bytes::copy_from_slice(data) } else { message.slice_ref(data) }
}

impl Message {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.full && self.wants.is_empty() && self.blocks.is_empty() && self.presences.is_empty()
    }

    /// As parts that follow each other on the wire; block data is not copied.
    pub(super) fn encode(&self) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(2 * self.blocks.len() + 1);
        let mut out = Vec::new();
        if self.full || !self.wants.is_empty() {
            let mut wantlist = Vec::with_capacity(48 * self.wants.len());
            for want in &self.wants {
                put_bytes(&mut wantlist, 1, &want.encode());
            }
            if self.full {
                put_number(&mut wantlist, 2, 1);
            }
            put_bytes(&mut out, 1, &wantlist);
        }
        for presence in &self.presences {
            let mut entry = Vec::with_capacity(48);
            put_bytes(&mut entry, 1, &presence.cid.to_bytes());
            put_number(&mut entry, 2, u64::from(!presence.have));
            put_bytes(&mut out, 4, &entry);
        }
        for block in &self.blocks {
            let mut head = Vec::with_capacity(32);
            put_bytes(&mut head, 1, &block.prefix.encode());
            put_header(&mut head, 2, block.data.len());
            put_header(&mut out, 3, head.len() + block.data.len());
            out.append(&mut head);
            parts.push(Bytes::from(std::mem::take(&mut out)));
            parts.push(block.data.clone());
        }
        if !out.is_empty() {
            parts.push(out.into());
        }
        parts
    }

    /// Reads a message; the data of a block that makes up most of it shares its memory.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut message = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => message.read_wantlist(value.bytes()?)?,
                (2, value) => {
                    let prefix = Prefix { version: Version::V0, codec: crate::dag::block::DAG_PB, hash: SHA2_256 };
                    message.push_block(Some(prefix), part_of(bytes, value.bytes()?));
                }
                (3, value) => {
                    let (mut prefix, mut data) = (None, Bytes::new());
                    for field in Fields::of(value.bytes()?) {
                        match field? {
                            (1, value) => prefix = Prefix::decode(value.bytes()?),
                            (2, value) => data = part_of(bytes, value.bytes()?),
                            _ => {}
                        }
                    }
                    message.push_block(prefix, data);
                }
                (4, value) => message.read_presence(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(message)
    }

    fn push_block(&mut self, prefix: Option<Prefix>, data: Bytes) {
        match prefix {
            Some(prefix) if self.blocks.len() < ENTRIES => self.blocks.push(Payload { prefix, data }),
            _ => self.skipped += 1,
        }
    }

    fn read_wantlist(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => match Want::decode(value.bytes()?)? {
                    Some(want) if self.wants.len() < ENTRIES => self.wants.push(want),
                    _ => self.skipped += 1,
                },
                (2, value) => self.full = value.number()? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_presence(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let (mut cid, mut kind) = (None, 0);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => cid = Cid::try_from(value.bytes()?).ok(),
                (2, value) => kind = value.number()?,
                _ => {}
            }
        }
        match cid {
            Some(cid) if kind <= 1 && self.presences.len() < ENTRIES => {
                self.presences.push(Presence { cid, have: kind == 0 });
            }
            _ => self.skipped += 1,
        }
        Ok(())
    }
}

impl Want {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        put_bytes(&mut out, 1, &self.cid.to_bytes());
        put_number(&mut out, 2, i64::from(self.priority).cast_unsigned());
        for (field, flag) in [(3, self.cancel), (4, self.have), (5, self.send_dont_have)] {
            if flag {
                put_number(&mut out, field, 1);
            }
        }
        out
    }

    /// `None` if the CID or the kind of want is unknown.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let (mut cid, mut kind) = (None, 0);
        let (mut priority, mut cancel, mut send_dont_have) = (1, false, false);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => cid = Cid::try_from(value.bytes()?).ok(),
                (2, value) => priority = i32::try_from(value.number()?.cast_signed()).unwrap_or(0),
                (3, value) => cancel = value.number()? != 0,
                (4, value) => kind = value.number()?,
                (5, value) => send_dont_have = value.number()? != 0,
                _ => {}
            }
        }
        Ok(match cid {
            Some(cid) if kind <= 1 => Some(Self { cid, priority, cancel, have: kind == 1, send_dont_have }),
            _ => None,
        })
    }
}

/// For `fuzzing`: a message comes back, without what was stepped over.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(bytes)) {
        let again = Message::decode(&message.encode().concat().into());
        assert_eq!(again, Ok(Message { skipped: 0, ..message }), "a message comes back");
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
