//! Nodes of sharded directories (HAMT) as Kubo writes them: [`Shard`] and the [`NameHash`] that places names.
//!
//! A name belongs into the slot that the next bits of its hash (murmur3, the low 64 bits of the x64 variant, most
//! significant bit first) select. A slot holds one entry, or a shard of the next level when several names select it.
//! Written shards have 256 slots; widths of 8 to 1024 are read. Source: UnixFS specification, "dag-pb HAMTDirectory".

use std::collections::BTreeMap;

use bytes::Bytes;

use super::block::Block;
use super::directory::DirectoryError;
use super::pb::{Kind, Link, MURMUR3_X64_64, Node, UnixFs, is_component};

/// Binary logarithm of the width that is written.
const WIDTH_LOG: u32 = 8;

/// The hash of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u64);

impl NameHash {
    /// Hashes a name.
    pub fn of(name: &str) -> Self {
        Self(murmur3_x64_64(name.as_bytes()))
    }

    /// The slot at `level` (0 is the root) of shards with 2^`log` slots; `None` when the hash is used up.
    fn slot(self, level: u32, log: u32) -> Option<u32> {
        let end = log.checked_mul(level + 1).filter(|end| *end <= 64)?;
        let bits = (self.0 >> (64 - end)) & ((1 << log) - 1);
        Some(u32::try_from(bits).expect("a slot has ten bits at most"))
    }
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// One entry, under its own name.
    Entry(Link),
    /// A shard of the next level; the link has no name.
    Shard(Link),
}

/// A node of a sharded directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    log: u32,
    slots: BTreeMap<u32, Slot>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { log: WIDTH_LOG, slots: BTreeMap::new() }
    }
}

impl Shard {
    /// Reads a shard. Names are components of a path; prefixes ascend and agree with the bit field.
    pub fn decode(node: &Node) -> Result<Self, DirectoryError> {
        let malformed = |what| DirectoryError::Malformed { what };
        if node.data.kind != Kind::Shard {
            return Err(malformed("a shard was expected"));
        }
        if node.data.hash_type.is_some_and(|code| code != MURMUR3_X64_64) {
            return Err(malformed("unknown hash of a shard"));
        }
        let width = node.data.fanout.filter(|width| width.is_power_of_two() && (8..=1024).contains(width));
        let log = width.ok_or(malformed("width of a shard"))?.trailing_zeros();
        let digits = prefix_digits(log);
        let mut slots = BTreeMap::new();
        let mut before = None;
        for link in &node.links {
            let (prefix, name) =
                link.name.split_at_checked(digits).ok_or(malformed("a link of a shard has no prefix"))?;
            let hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
            let slot = u32::from_str_radix(prefix, 16).ok().filter(|slot| hex && *slot < 1 << log);
            let slot = slot.ok_or(malformed("prefix of a shard's link"))?;
            if before.is_some_and(|before| before >= slot) {
                return Err(malformed("prefixes of a shard do not ascend"));
            }
            before = Some(slot);
            let link = Link { cid: link.cid, name: name.to_owned(), tsize: link.tsize };
            if !name.is_empty() && !is_component(name) {
                return Err(DirectoryError::Name { name: name.to_owned() });
            }
            slots.insert(slot, if name.is_empty() { Slot::Shard(link) } else { Slot::Entry(link) });
        }
        let shard = Self { log, slots };
        let start = node.data.data.iter().position(|byte| *byte != 0).unwrap_or(node.data.data.len());
        if node.data.data[start..] != shard.bit_field()[..] {
            return Err(malformed("the bit field of a shard does not match its links"));
        }
        Ok(shard)
    }

    /// The shard as a block, and a link to it.
    pub fn encode(&self) -> (Link, Block) {
        let digits = prefix_digits(self.log);
        let links = self.slots.iter().map(|(slot, content)| {
            let (Slot::Entry(link) | Slot::Shard(link)) = content;
            Link { cid: link.cid, name: format!("{slot:0digits$X}{}", link.name), tsize: link.tsize }
        });
        let mut data = UnixFs::new(Kind::Shard);
        data.data = Bytes::from(self.bit_field());
        data.hash_type = Some(MURMUR3_X64_64);
        data.fanout = Some(1 << self.log);
        super::directory::seal(Node { links: links.collect(), data })
    }

    /// What the slot of `hash` at `level` holds.
    pub fn find(&self, hash: NameHash, level: u32) -> Option<&Slot> {
        self.slots.get(&hash.slot(level, self.log)?)
    }

    /// The number of the slot of `hash` at `level`.
    pub(super) fn slot_of(&self, hash: NameHash, level: u32) -> Result<u32, DirectoryError> {
        hash.slot(level, self.log).ok_or(DirectoryError::TooDeep)
    }

    /// What is in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(&slot)
    }

    /// Fills or clears a slot.
    pub(super) fn set(&mut self, slot: u32, content: Option<Slot>) {
        match content {
            Some(content) => self.slots.insert(slot, content),
            None => self.slots.remove(&slot),
        };
    }

    /// All slots that hold something, in their order.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = (u32, &Slot)> {
        self.slots.iter().map(|(slot, content)| (*slot, content))
    }

    /// Whether every name in it selects, at `level` and below the slots of `path`, the slot in which it is.
    pub fn is_placed(&self, path: &[u32]) -> bool {
        let level = u32::try_from(path.len()).unwrap_or(u32::MAX);
        self.slots.iter().all(|(slot, content)| match content {
            Slot::Entry(link) => {
                let hash = NameHash::of(&link.name);
                hash.slot(level, self.log) == Some(*slot)
                    && path.iter().zip(0..).all(|(slot, level)| hash.slot(level, self.log) == Some(*slot))
            }
            Slot::Shard(_) => level < 64 / self.log,
        })
    }

    /// One bit per slot, the first slot in the last byte's lowest bit; zero bytes at the front are left out.
    fn bit_field(&self) -> Vec<u8> {
        let bytes = self.slots.last_key_value().map_or(0, |(last, _)| last / 8 + 1);
        let mut field = vec![0; usize::try_from(bytes).expect("at most 128")];
        let length = field.len();
        for slot in self.slots.keys() {
            let from_end = usize::try_from(slot / 8).expect("at most 127");
            field[length - 1 - from_end] |= 1 << (slot % 8);
        }
        field
    }
}

fn prefix_digits(log: u32) -> usize {
    match log {
        0..=4 => 1,
        5..=8 => 2,
        _ => 3,
    }
}

/// The first 64 bits of MurmurHash3 x64 128 with seed 0 (Austin Appleby, public domain).
fn murmur3_x64_64(data: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let finish = |mut k: u64| {
        k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ (k >> 33)
    };
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= mix1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    h2 ^= mix2(word(tail.get(8..).unwrap_or_default()));
    h1 ^= mix1(word(&tail[..tail.len().min(8)]));
    let length = u64::try_from(data.len()).expect("lengths fit 64 bits");
    h1 ^= length;
    h2 ^= length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}
