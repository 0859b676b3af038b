//! Directories and small files of a registry, read and written block by block.
//!
//! [`Overlay`] puts blocks that were made but not yet stored in front of those that can be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cid::Cid;

use super::error::TreeError;
use crate::dag::block::{Block, identity_data};
use crate::dag::chunk::Chunker;
use crate::dag::directory::{self, Change, DirectoryError};
use crate::dag::file::{FileBuilder, FileRoot};
use crate::dag::pb::{Content, Kind, Link, NodeError};
use crate::exchange;
use crate::exchange::path::PathError;
pub(super) use crate::exchange::path::Stat;
use crate::limits;
use crate::port::blocks::{ReadBlocks, ReadError};

/// New blocks over others.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    under: &'a dyn ReadBlocks,
    fresh: Mutex<HashMap<Cid, Block>>,
}

#[async_trait]
impl ReadBlocks for Overlay<'_> {
    async fn read(&self, cid: &Cid) -> Result<Bytes, ReadError> {
        let fresh =
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(cid).map(|block| block.data().clone());
        match fresh {
            Some(data) => Ok(data),
            None => self.under.read(cid).await,
        }
    }
}

impl<'a> Overlay<'a> {
    pub(super) fn new(under: &'a dyn ReadBlocks) -> Self {
        Self { under, fresh: Mutex::default() }
    }

    pub(super) fn add(&self, blocks: impl IntoIterator<Item = Block>) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.extend(blocks.into_iter().map(|block| (*block.cid(), block)));
    }

    /// Stores a file of a few blocks and returns a link to it.
    pub(super) fn add_file(&self, name: &str, data: &[u8]) -> Link {
        let (root, blocks) = small_file(data);
        self.add(blocks);
        Link { cid: root.cid, name: name.to_owned(), tsize: root.tsize }
    }

    /// Stores a directory and returns a link to it.
    pub(super) fn add_directory(&self, name: &str, entries: Vec<Link>) -> Result<Link, TreeError> {
        let edited = directory::build(entries).map_err(at(name))?;
        self.add(edited.blocks);
        Ok(Link { cid: edited.cid, name: name.to_owned(), tsize: edited.tsize })
    }

    /// Edits a directory, or a new one, and returns a link to it.
    pub(super) async fn edit(&self, path: &str, root: Option<Cid>, changes: Vec<Change>) -> Result<Link, TreeError> {
        let edited = exchange::directory::edit(self, root, changes).await.map_err(on_path(path))?;
        self.add(edited.blocks);
        Ok(Link { cid: edited.cid, name: String::new(), tsize: edited.tsize })
    }

    /// The new blocks that `root` reaches, children before parents.
    pub(super) fn into_reachable(self, root: &Cid) -> Vec<Block> {
        let fresh = self.fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![*root];
        while let Some(cid) = todo.pop() {
            let Some(block) = fresh.get(&cid).filter(|_| seen.insert(cid)) else { continue };
            if let Ok(Content::Node(node)) = Content::decode(&cid, block.data()) {
                todo.extend(node.links.iter().map(|link| link.cid));
            }
            order.push(block.clone());
        }
        order.reverse();
        order
    }
}

/// The blocks of a file that fits into memory.
pub(super) fn small_file(mut data: &[u8]) -> (FileRoot, Vec<Block>) {
    let mut chunker = Chunker::default();
    let mut builder = FileBuilder::default();
    let mut blocks = Vec::new();
    let mut add = |leaf: Bytes, blocks: &mut Vec<Block>| {
        let block = Block::raw(leaf);
        let size = u64::try_from(block.data().len()).expect("block sizes fit 64 bits");
        blocks.extend(builder.push(*block.cid(), size));
        blocks.push(block);
    };
    while !data.is_empty() {
        if let Some(leaf) = chunker.push(&mut data) {
            add(leaf, &mut blocks);
        }
    }
    if let Some(leaf) = chunker.finish() {
        add(leaf, &mut blocks);
    }
    let (root, rest) = builder.finish();
    blocks.extend(rest);
    (root, blocks)
}

fn at(path: &str) -> impl FnOnce(DirectoryError) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError::Directory { path, source }
}

fn on_path(path: &str) -> impl FnOnce(PathError) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError::Path { path, source }
}

fn in_file(path: &str) -> impl FnOnce(NodeError) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError::File { path, source }
}

async fn block(blocks: &dyn ReadBlocks, cid: &Cid) -> Result<Bytes, TreeError> {
    match identity_data(cid) {
        Some(data) => Ok(data),
        None => blocks.read(cid).await.map_err(|source| TreeError::Block { cid: *cid, source }),
    }
}

/// Looks at the first block of `cid`.
pub(super) async fn stat(blocks: &dyn ReadBlocks, path: &str, cid: &Cid) -> Result<Stat, TreeError> {
    exchange::path::stat(blocks, cid).await.map_err(on_path(path))
}

/// The entry `name` of a directory.
pub(super) async fn lookup(
    blocks: &dyn ReadBlocks,
    path: &str,
    directory: &Cid,
    name: &str,
) -> Result<Option<Link>, TreeError> {
    exchange::path::lookup(blocks, directory, name).await.map_err(on_path(path))
}

/// The entry at `path` (components without slashes) below a directory; `None` also when a file is in the way.
pub(super) async fn walk<'n>(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    path: impl IntoIterator<Item = &'n str>,
) -> Result<Option<Link>, TreeError> {
    let mut found = Link { cid: *root, name: String::new(), tsize: 0 };
    let mut so_far = String::new();
    for name in path {
        so_far.push('/');
        so_far.push_str(name);
        match exchange::path::lookup(blocks, &found.cid, name).await {
            Ok(Some(link)) => found = link,
            Ok(None) | Err(PathError::Directory { source: DirectoryError::NotADirectory { .. }, .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(on_path(&so_far)(error)),
        }
    }
    Ok(Some(found))
}

/// All entries of a directory, by name.
pub(super) async fn list(
    blocks: &dyn ReadBlocks,
    path: &str,
    directory: &Cid,
) -> Result<BTreeMap<String, Link>, TreeError> {
    let entries = exchange::path::list(blocks, directory).await.map_err(on_path(path))?;
    Ok(entries.into_iter().map(|link| (link.name.clone(), link)).collect())
}

/// A whole file of at most `limit` bytes.
pub(super) async fn read_file(blocks: &dyn ReadBlocks, path: &str, cid: &Cid, limit: u64) -> Result<Bytes, TreeError> {
    let too_large = || TreeError::TooLarge { path: path.to_owned(), limit };
    let mut out = BytesMut::new();
    let mut single = None;
    let mut todo = vec![(*cid, 0_usize)];
    let mut nodes = 0;
    while let Some((cid, depth)) = todo.pop() {
        nodes += 1;
        if nodes > MOST_NODES {
            return Err(too_large());
        }
        let data = block(blocks, &cid).await?;
        let data = match Content::decode(&cid, &data).map_err(in_file(path))? {
            Content::Leaf(data) => data,
            Content::Node(node) => {
                if !matches!(node.data.kind, Kind::File | Kind::Raw) {
                    return Err(TreeError::disagree(path, "it is not a file"));
                }
                if depth >= limits::DAG_DEPTH {
                    return Err(TreeError::disagree(path, "the file is too deep"));
                }
                if node.data.filesize.is_some_and(|size| size > limit) {
                    return Err(too_large());
                }
                if nodes + todo.len() + node.links.len() > MOST_NODES {
                    return Err(too_large());
                }
                todo.extend(node.links.iter().rev().map(|link| (link.cid, depth + 1)));
                node.data.data
            }
        };
        if length(&out) + length(&data) > limit {
            return Err(too_large());
        }
        if depth == 0 && todo.is_empty() {
            single = Some(data);
        } else {
            out.extend_from_slice(&data);
        }
    }
    Ok(single.unwrap_or_else(|| out.freeze()))
}

/// Most nodes of one small file or directory: a few nodes without content could be linked to each other so that walking
/// them never ends.
const MOST_NODES: usize = 1 << 17;

fn length(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
