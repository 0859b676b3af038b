//! Names: following a path through directories, listing a directory, telling what a CID is.

use std::collections::BTreeMap;
use std::sync::Arc;

use cid::Cid;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::file::{FileError, declared_size};
use crate::dag::directory::{DirectoryError, Part, Step, step};
use crate::dag::hamt::Slot;
use crate::dag::pb::{Content, Kind, Link, NodeError};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::{ReadBlocks, ReadError};

/// Most nodes of one directory that are read at once.
const NODES_AT_ONCE: usize = 32;

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A directory has no entry of that name.
    #[error("{directory} has no entry `{name}`")]
    NotFound {
        /// The directory.
        directory: Cid,
        /// The name.
        name: String,
    },
    /// A block cannot be had.
    #[error("directory {directory} cannot be read")]
    Read {
        /// The directory.
        directory: Cid,
        /// Why.
        source: ReadError,
    },
    /// A directory is malformed, or none.
    #[error("directory {directory} cannot be used")]
    Directory {
        /// The directory.
        directory: Cid,
        /// Why.
        source: DirectoryError,
    },
    /// A node is no UnixFS.
    #[error("block {cid} cannot be read")]
    Node {
        /// Which.
        cid: Cid,
        /// Why.
        source: NodeError,
    },
    /// A file's root contradicts itself.
    #[error("file {cid} cannot be read")]
    File {
        /// Which.
        cid: Cid,
        /// Why.
        source: FileError,
    },
}

impl PathError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Read { source, .. } => source.kind(),
            Self::Directory { source, .. } => source.kind(),
            Self::Node { source, .. } => source.kind(),
            Self::File { source, .. } => source.kind(),
        }
    }
}

/// The entry `name` of a directory, if there is one.
pub async fn lookup(blocks: &dyn ReadBlocks, directory: &Cid, name: &str) -> Result<Option<Link>, PathError> {
    let mut at = *directory;
    for level in 0..u32::try_from(limits::DAG_DEPTH).expect("a small number") {
        match step(&part(blocks, directory, at, level > 0).await?, name, level) {
            Step::Found(link) => return Ok(Some(link)),
            Step::Absent => return Ok(None),
            Step::Descend(cid) => at = cid,
        }
    }
    Err(PathError::Directory { directory: *directory, source: DirectoryError::TooDeep })
}

/// Where `path` leads from `root`: names separated by slashes; empty components are passed over.
pub async fn resolve(blocks: &dyn ReadBlocks, root: &Cid, path: &str) -> Result<Cid, PathError> {
    let mut at = *root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let missing = || PathError::NotFound { directory: at, name: name.to_owned() };
        at = lookup(blocks, &at, name).await?.ok_or_else(missing)?.cid;
    }
    Ok(at)
}

/// All entries of a directory, by name. At most [`limits::DIRECTORY_ENTRIES`]; names that a sharded directory keeps in
/// the wrong place, where no look-up would find them, are an error.
pub async fn list(blocks: &dyn ReadBlocks, directory: &Cid) -> Result<Vec<Link>, PathError> {
    let refuse = |source| PathError::Directory { directory: *directory, source };
    let mut entries = BTreeMap::new();
    let mut waiting = vec![(*directory, Vec::new())];
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < NODES_AT_ONCE
            && let Some((cid, path)) = waiting.pop()
        {
            reading.push(async move { (part(blocks, directory, cid, !path.is_empty()).await, path) });
        }
        let Some((part, path)) = reading.next().await else { break };
        let shard = match part? {
            Part::Flat(flat) if flat.len() > limits::DIRECTORY_ENTRIES => return Err(refuse(DirectoryError::TooLarge)),
            Part::Flat(flat) => return Ok(flat.into_values().collect()),
            Part::Shard(shard) => shard,
        };
        if !shard.is_placed(&path) {
            return Err(refuse(DirectoryError::Malformed { what: "a name is in the wrong shard" }));
        }
        if shard.slots().len() == 0 && !path.is_empty() {
            return Err(refuse(DirectoryError::Malformed { what: "an empty shard" }));
        }
        for (slot, content) in shard.slots() {
            match content {
                Slot::Entry(link) => {
                    entries.insert(link.name.clone(), link.clone());
                }
                Slot::Shard(link) => {
                    let mut path: Vec<u32> = path.clone();
                    path.push(slot);
                    waiting.push((link.cid, path));
                }
            }
            if entries.len() + waiting.len() > limits::DIRECTORY_ENTRIES {
                return Err(refuse(DirectoryError::TooLarge));
            }
        }
    }
    Ok(entries.into_values().collect())
}

/// What a CID is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stat {
    /// A file of this many bytes, as its root declares.
    File {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, not followed.
        target: String,
    },
}

/// Looks at the root of `cid`.
pub async fn stat(blocks: &dyn ReadBlocks, cid: &Cid) -> Result<Stat, PathError> {
    let data = blocks.read(cid).await.map_err(|source| PathError::Read { directory: *cid, source })?;
    let node = match Content::decode(cid, &data).map_err(|source| PathError::Node { cid: *cid, source })? {
        Content::Leaf(data) => return Ok(Stat::File { size: u64::try_from(data.len()).expect("fits 64 bits") }),
        Content::Node(node) => node,
    };
    match node.data.kind {
        Kind::Directory | Kind::Shard => Ok(Stat::Directory),
        Kind::Symlink => match std::str::from_utf8(&node.data.data) {
            Ok(target) => Ok(Stat::Symlink { target: target.to_owned() }),
            Err(_) => {
                let source = NodeError::Malformed { what: "a link's target is not UTF-8" };
                Err(PathError::Node { cid: *cid, source })
            }
        },
        _ => match declared_size(cid, &node) {
            Ok(size) => Ok(Stat::File { size }),
            Err(source) => Err(PathError::File { cid: *cid, source }),
        },
    }
}

/// Resolves a path and opens the file there, in one go.
pub async fn open(
    blocks: Arc<dyn ReadBlocks>,
    root: &Cid,
    path: &str,
    window: &super::window::Window,
) -> Result<super::file::File, PathError> {
    let cid = resolve(blocks.as_ref(), root, path).await?;
    super::file::File::open(blocks, cid, window).await.map_err(|source| PathError::File { cid, source })
}

/// One node of a directory; `inner` ones are shards.
pub(super) async fn part(blocks: &dyn ReadBlocks, directory: &Cid, cid: Cid, inner: bool) -> Result<Part, PathError> {
    let data = blocks.read(&cid).await.map_err(|source| PathError::Read { directory: *directory, source })?;
    match Part::decode(&cid, &data) {
        Ok(Part::Flat(_)) if inner => {
            let source = DirectoryError::Malformed { what: "a shard was expected" };
            Err(PathError::Directory { directory: *directory, source })
        }
        Ok(part) => Ok(part),
        Err(source) => Err(PathError::Directory { directory: *directory, source }),
    }
}
