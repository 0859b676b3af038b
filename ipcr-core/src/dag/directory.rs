//! UnixFS directories, flat or sharded, looked up and edited path by path without I/O.
//!
//! * [`step`]: one step of a look-up.
//! * [`Editor`]: applies [`Change`]s; it asks for the nodes that it needs and gives back only nodes that changed.
//! * [`build`]: a directory from scratch.
//!
//! One set of entries has one form, whatever the order of the edits, and it is the one that Kubo writes with the
//! profile `unixfs-v1-2025`: flat while the serialized node has at most [`FLAT_BYTES`], sharded beyond, no shard with a
//! single entry below the root. Directories of other writers are put into this form along the edited paths only.
//! Modes and times of foreign directories are not kept.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cid::Cid;

use super::block::Block;
use super::hamt::{NameHash, Shard, Slot};
use super::pb::{Content, Kind, Link, Node, NodeError, UnixFs, is_component, link_bytes};
use crate::kind::ErrorKind;
use crate::limits;

/// Largest flat directory that is written, in bytes of its block.
pub const FLAT_BYTES: usize = 256 << 10;
/// Bytes of a flat directory's block without links.
const EMPTY_BYTES: usize = 4;
/// Most nodes that an [`Editor`] asks for at once to find out whether a directory became flat.
const NEED_AT_ONCE: usize = 64;

/// Why a directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A node is no dag-pb.
    #[error("block {cid} of a directory cannot be read")]
    Node {
        /// Which.
        cid: Cid,
        /// Why.
        source: NodeError,
    },
    /// A node is no directory.
    #[error("{cid} is not a directory")]
    NotADirectory {
        /// Which.
        cid: Cid,
    },
    /// A directory is not built as the specification says.
    #[error("the directory is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A name that cannot be a component of a path.
    #[error("{name:?} cannot be a name in a directory")]
    Name {
        /// The name.
        name: String,
    },
    /// Two names have the same hash, or shards nest deeper than a hash has bits.
    #[error("the sharded directory is too deep")]
    TooDeep,
    /// More than [`limits::DIRECTORY_ENTRIES`] entries.
    #[error("the directory has more than {limit} entries", limit = limits::DIRECTORY_ENTRIES)]
    TooLarge,
}

impl DirectoryError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotADirectory { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Integrity,
        }
    }
}

/// A node of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole directory, by name.
    Flat(BTreeMap<String, Link>),
    /// A shard.
    Shard(Shard),
}

impl Part {
    /// Reads the block of `cid` as a directory.
    pub fn decode(cid: &Cid, data: &Bytes) -> Result<Self, DirectoryError> {
        let content = Content::decode(cid, data).map_err(|source| DirectoryError::Node { cid: *cid, source })?;
        match content {
            Content::Node(node) if node.data.kind == Kind::Directory => {
                let mut entries = BTreeMap::new();
                for link in node.links {
                    if !is_component(&link.name) {
                        return Err(DirectoryError::Name { name: link.name });
                    }
                    if entries.insert(link.name.clone(), link).is_some() {
                        return Err(DirectoryError::Malformed { what: "a name occurs twice" });
                    }
                }
                Ok(Self::Flat(entries))
            }
            Content::Node(node) if node.data.kind == Kind::Shard => Ok(Self::Shard(Shard::decode(&node)?)),
            _ => Err(DirectoryError::NotADirectory { cid: *cid }),
        }
    }
}

/// Where a look-up stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The entry.
    Found(Link),
    /// There is none of that name.
    Absent,
    /// Go on with this node, one level further.
    Descend(Cid),
}

/// Looks for `name` in a node of a directory; `level` counts the nodes above it.
pub fn step(part: &Part, name: &str, level: u32) -> Step {
    match part {
        Part::Flat(entries) => entries.get(name).map_or(Step::Absent, |link| Step::Found(link.clone())),
        Part::Shard(shard) => match shard.find(NameHash::of(name), level) {
            Some(Slot::Entry(link)) if link.name == name => Step::Found(link.clone()),
            Some(Slot::Shard(link)) => Step::Descend(link.cid),
            _ => Step::Absent,
        },
    }
}

/// A change to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts an entry in, in place of one of the same name.
    Put(Link),
    /// Takes an entry out; nothing happens when there is none.
    Remove(String),
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Put(link) => &link.name,
            Self::Remove(name) => name,
        }
    }
}

/// An edited or new directory.
#[derive(Clone, Debug)]
pub struct Edited {
    /// Its root.
    pub cid: Cid,
    /// Bytes of all its blocks and of what is below, what a link to it says as `Tsize`.
    pub tsize: u64,
    /// The nodes that were written, the root last. Some may have existed before.
    pub blocks: Vec<Block>,
}

/// What an [`Editor`] wants.
#[derive(Debug)]
pub enum Progress {
    /// These nodes, by [`Editor::supply`]; then go on.
    Need(Vec<Cid>),
    /// Nothing more.
    Done(Edited),
}

/// Applies changes to a directory whose nodes come from elsewhere.
#[derive(Debug)]
pub struct Editor {
    root: Option<Cid>,
    changes: Vec<(NameHash, Change)>,
    loaded: HashMap<Cid, Part>,
}

impl Editor {
    /// Edits the directory `root`, or a new one. Of several changes to one name the last counts.
    pub fn new(root: Option<Cid>, changes: impl IntoIterator<Item = Change>) -> Result<Self, DirectoryError> {
        let mut last = BTreeMap::new();
        for change in changes {
            if !is_component(change.name()) {
                return Err(DirectoryError::Name { name: change.name().to_owned() });
            }
            last.insert((NameHash::of(change.name()), change.name().to_owned()), change);
        }
        let changes = last.into_iter().map(|((hash, _), change)| (hash, change)).collect();
        Ok(Self { root, changes, loaded: HashMap::new() })
    }

    /// Hands in a node that was asked for.
    pub fn supply(&mut self, cid: Cid, data: &Bytes) -> Result<(), DirectoryError> {
        let part = Part::decode(&cid, data)?;
        self.loaded.insert(cid, part);
        Ok(())
    }

    /// Goes as far as the nodes at hand allow.
    pub fn advance(&self) -> Result<Progress, DirectoryError> {
        let empty = Part::Flat(BTreeMap::new());
        let part = match self.root {
            None => &empty,
            Some(root) => match self.loaded.get(&root) {
                Some(part) => part,
                None => return Ok(Progress::Need(vec![root])),
            },
        };
        match part {
            Part::Flat(entries) => {
                let mut entries = entries.clone();
                for (_, change) in &self.changes {
                    match change {
                        Change::Put(link) => entries.insert(link.name.clone(), link.clone()),
                        Change::Remove(name) => entries.remove(name),
                    };
                }
                build(entries.into_values()).map(Progress::Done)
            }
            Part::Shard(shard) => self.edit_sharded(shard),
        }
    }

    fn edit_sharded(&self, shard: &Shard) -> Result<Progress, DirectoryError> {
        let mut work = Work::new(&self.loaded);
        let shard = work.apply(shard, 0, &self.changes)?;
        if work.need.is_empty()
            && work.shrunk
            && let Some(entries) = work.flat_entries(&shard)?
        {
            return build(entries.into_values()).map(Progress::Done);
        }
        if !work.need.is_empty() {
            return Ok(Progress::Need(work.need));
        }
        let (link, block) = shard.encode();
        let mut blocks = work.order;
        blocks.push(block);
        Ok(Progress::Done(Edited { cid: link.cid, tsize: link.tsize, blocks }))
    }
}

/// A directory of these entries; names must differ.
pub fn build(entries: impl IntoIterator<Item = Link>) -> Result<Edited, DirectoryError> {
    let mut flat = BTreeMap::new();
    for link in entries {
        if !is_component(&link.name) {
            return Err(DirectoryError::Name { name: link.name });
        }
        if flat.insert(link.name.clone(), link).is_some() {
            return Err(DirectoryError::Malformed { what: "a name occurs twice" });
        }
    }
    if EMPTY_BYTES + flat.values().map(link_bytes).sum::<usize>() <= FLAT_BYTES {
        let (link, block) = seal(Node { links: flat.into_values().collect(), data: UnixFs::new(Kind::Directory) });
        return Ok(Edited { cid: link.cid, tsize: link.tsize, blocks: vec![block] });
    }
    let mut changes: Vec<_> = flat.into_values().map(|link| (NameHash::of(&link.name), Change::Put(link))).collect();
    changes.sort_by_key(|(hash, _)| *hash);
    let loaded = HashMap::new();
    let mut work = Work::new(&loaded);
    let shard = work.apply(&Shard::default(), 0, &changes)?;
    let (link, block) = shard.encode();
    work.order.push(block);
    Ok(Edited { cid: link.cid, tsize: link.tsize, blocks: work.order })
}

/// The block of a node, and a link without a name to it.
pub(super) fn seal(node: Node) -> (Link, Block) {
    let block = Block::dag_pb(node.encode());
    let own = u64::try_from(block.data().len()).expect("block sizes fit 64 bits");
    let tsize = node.links.iter().fold(own, |sum, link| sum.saturating_add(link.tsize));
    (Link { cid: *block.cid(), name: String::new(), tsize }, block)
}

/// One pass over a sharded directory.
struct Work<'a> {
    loaded: &'a HashMap<Cid, Part>,
    written: HashMap<Cid, Shard>,
    order: Vec<Block>,
    need: Vec<Cid>,
    /// Whether an entry went away or became smaller, so that the directory may have become flat.
    shrunk: bool,
}

impl<'a> Work<'a> {
    fn new(loaded: &'a HashMap<Cid, Part>) -> Self {
        Self { loaded, written: HashMap::new(), order: Vec::new(), need: Vec::new(), shrunk: false }
    }

    /// The shard with `changes` (in the order of their hashes) made to it and to what is below; incomplete when
    /// something was needed.
    fn apply(&mut self, shard: &Shard, level: u32, changes: &[(NameHash, Change)]) -> Result<Shard, DirectoryError> {
        let mut out = shard.clone();
        let mut rest = changes;
        while let Some((hash, _)) = rest.first() {
            let slot = shard.slot_of(*hash, level)?;
            let mut count = 1;
            while count < rest.len() && shard.slot_of(rest[count].0, level)? == slot {
                count += 1;
            }
            let (here, others) = rest.split_at(count);
            rest = others;
            let content = match shard.get(slot) {
                None => self.fill(None, level, here)?,
                Some(Slot::Entry(link)) => self.fill(Some(link), level, here)?,
                Some(Slot::Shard(link)) => match self.loaded.get(&link.cid) {
                    None => {
                        self.need.push(link.cid);
                        continue;
                    }
                    Some(Part::Flat(_)) => return Err(DirectoryError::Malformed { what: "a shard was expected" }),
                    Some(Part::Shard(below)) => {
                        let below = self.apply(below, level + 1, here)?;
                        self.collapse(below)
                    }
                },
            };
            out.set(slot, content);
        }
        Ok(out)
    }

    /// What a slot without a shard holds after `changes`.
    fn fill(
        &mut self,
        old: Option<&Link>,
        level: u32,
        changes: &[(NameHash, Change)],
    ) -> Result<Option<Slot>, DirectoryError> {
        let mut puts: Vec<_> = changes.iter().filter(|(_, change)| matches!(change, Change::Put(_))).cloned().collect();
        if let Some(old) = old {
            match changes.iter().find(|(_, change)| change.name() == old.name) {
                Some((_, Change::Put(new))) => self.shrunk |= link_bytes(new) < link_bytes(old),
                Some((_, Change::Remove(_))) => self.shrunk = true,
                None => {
                    puts.push((NameHash::of(&old.name), Change::Put(old.clone())));
                    puts.sort_by_key(|(hash, _)| *hash);
                }
            }
        }
        match puts.as_slice() {
            [] => Ok(None),
            [(_, Change::Put(link))] => Ok(Some(Slot::Entry(link.clone()))),
            _ => {
                let below = self.apply(&Shard::default(), level + 1, &puts)?;
                Ok(self.collapse(below))
            }
        }
    }

    /// What stands for a shard in the slot above it: nothing, its only entry, or a link to it.
    fn collapse(&mut self, shard: Shard) -> Option<Slot> {
        let mut slots = shard.slots();
        match (slots.next(), slots.next()) {
            (None, _) => return None,
            (Some((_, Slot::Entry(link))), None) => return Some(Slot::Entry(link.clone())),
            _ => drop(slots),
        }
        let (link, block) = shard.encode();
        if self.written.insert(link.cid, shard).is_none() {
            self.order.push(block);
        }
        Some(Slot::Shard(link))
    }

    /// All entries if they fit a flat directory; `None` if they do not, or when nodes are needed to know.
    fn flat_entries(&mut self, root: &Shard) -> Result<Option<BTreeMap<String, Link>>, DirectoryError> {
        let mut size = EMPTY_BYTES;
        let mut entries = BTreeMap::new();
        let mut todo = vec![(root, 0)];
        let mut need = Vec::new();
        while let Some((shard, level)) = todo.pop() {
            for (_, slot) in shard.slots() {
                match slot {
                    Slot::Entry(link) => {
                        size += link_bytes(link);
                        if size > FLAT_BYTES {
                            return Ok(None);
                        }
                        entries.insert(link.name.clone(), link.clone());
                    }
                    Slot::Shard(_) if level >= limits::DAG_DEPTH => return Err(DirectoryError::TooDeep),
                    Slot::Shard(link) => match (self.written.get(&link.cid), self.loaded.get(&link.cid)) {
                        (Some(shard), _) | (None, Some(Part::Shard(shard))) => todo.push((shard, level + 1)),
                        (None, Some(Part::Flat(_))) => {
                            return Err(DirectoryError::Malformed { what: "a shard was expected" });
                        }
                        (None, None) => {
                            if need.len() < NEED_AT_ONCE {
                                need.push(link.cid);
                            }
                        }
                    },
                }
            }
        }
        if need.is_empty() {
            return Ok(Some(entries));
        }
        self.need = need;
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
