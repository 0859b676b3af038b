//! UnixFS files read in order: [`File`].
//!
//! Any layout is read: a raw leaf, data inside dag-pb nodes, balanced and trickle DAGs, CIDv0. Blocks are asked for ahead
//! of the reading, in the order of the file, as wide as the [`Window`] allows; inner nodes count like any other block.
//!
//! What nodes declare is checked: the sizes of a node's children and its own data must add up to what its parent said,
//! and a leaf has exactly the declared size. So a file delivers its [`File::size`] or an error, whoever wrote it. The
//! size itself may be anything: callers compare it with what they expect before they read.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use cid::Cid;
use futures::{Stream, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinSet;

use super::window::{Seat, Share, Window};
use crate::dag::block::RAW;
use crate::dag::pb::{Content, Kind, Node, NodeError};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::{ReadBlocks, ReadError};

/// What a block costs of the window at least, so that small blocks cannot make it boundless.
const SMALLEST_SHARE: usize = 16 << 10;
/// While a file knows of more parts than this, inner nodes that are not needed next have to wait.
const MANY_PARTS: usize = 1 << 13;
/// Most parts that are known at once.
const MOST_PARTS: usize = 2 * limits::NODE_LINKS;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A block cannot be had.
    #[error("a part of file {root} cannot be read")]
    Read {
        /// The file.
        root: Cid,
        /// Why.
        source: ReadError,
    },
    /// A node of it is no UnixFS.
    #[error("block {cid} of a file is malformed")]
    Node {
        /// The block.
        cid: Cid,
        /// Why.
        source: NodeError,
    },
    /// It is a directory, a link or something else.
    #[error("{cid} is not a file")]
    NotAFile {
        /// Which.
        cid: Cid,
    },
    /// A node says something that is not true.
    #[error("block {cid} of a file declares wrong sizes: {what}")]
    WrongSize {
        /// The block.
        cid: Cid,
        /// What is wrong.
        what: &'static str,
    },
    /// It nests deeper than [`limits::DAG_DEPTH`].
    #[error("the file nests deeper than {limit} levels", limit = limits::DAG_DEPTH)]
    TooDeep,
    /// Its nodes have more links than those of any sensible file.
    #[error("the file has too many parts side by side")]
    TooWide,
}

impl FileError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => source.kind(),
            Self::NotAFile { .. } => ErrorKind::NotFound,
            Self::Node { .. } | Self::WrongSize { .. } | Self::TooDeep | Self::TooWide => ErrorKind::Integrity,
        }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Integrity => io::ErrorKind::InvalidData,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::DiskFull => io::ErrorKind::StorageFull,
            ErrorKind::Unavailable => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// A file being read from its beginning: a [`Stream`] of its parts, or an [`AsyncRead`], whose errors hold a [`FileError`].
///
/// Reads that are under way go on in the background; dropping the file cancels them.
pub struct File {
    root: Cid,
    size: u64,
    position: u64,
    blocks: Arc<dyn ReadBlocks>,
    seat: Seat,
    /// What is not delivered yet, by offset. No two parts overlap, and none is empty.
    parts: BTreeMap<u64, Part>,
    /// Every part before this offset has been asked for.
    asked_to: u64,
    reads: JoinSet<(u64, Result<Bytes, ReadError>)>,
    chunk: Bytes,
    failed: bool,
}

struct Part {
    cid: Cid,
    length: u64,
    depth: usize,
    /// Bytes that its block has at most, as its parent says.
    share: usize,
    state: PartState,
}

enum PartState {
    Known,
    Asked { _share: Share },
    Here { data: Bytes, share: Option<Share> },
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, size, position, .. } = self;
        f.debug_struct("File")
            .field("root", root)
            .field("size", size)
            .field("position", position)
            .finish_non_exhaustive()
    }
}

impl File {
    /// Opens a file: reads its root and begins to read ahead.
    pub async fn open(blocks: Arc<dyn ReadBlocks>, root: Cid, window: &Window) -> Result<Self, FileError> {
        let data = blocks.read(&root).await.map_err(|source| FileError::Read { root, source })?;
        let mut file = Self {
            root,
            size: 0,
            position: 0,
            blocks,
            seat: window.enter(),
            parts: BTreeMap::new(),
            asked_to: 0,
            reads: JoinSet::new(),
            chunk: Bytes::new(),
            failed: false,
        };
        file.size = match Content::decode(&root, &data).map_err(|source| FileError::Node { cid: root, source })? {
            Content::Leaf(data) => {
                let length = length_of(&data);
                file.place_data(0, root, 0, data, None);
                length
            }
            Content::Node(node) => {
                let length = declared_size(&root, &node)?;
                file.place_node(0, root, 0, length, node, None)?;
                length
            }
        };
        file.ask(None);
        Ok(file)
    }

    /// Its size in bytes, as its root declares; the reading ends there or with an error.
    pub fn size(&self) -> u64 {
        self.size
    }

    #[cfg(test)]
    pub(super) fn parts_known(&self) -> usize {
        self.parts.len()
    }

    /// Asks for parts in order, while the window allows.
    fn ask(&mut self, context: Option<&Context<'_>>) {
        let waker = context.map(Context::waker);
        let many = self.parts.len() > MANY_PARTS;
        for (offset, part) in self.parts.range_mut(self.asked_to..) {
            let next = *offset == self.position;
            if !matches!(part.state, PartState::Known) {
                self.asked_to = offset + part.length;
                continue;
            }
            let inner = part.length > u64::try_from(limits::BLOCK_BYTES).expect("fits 64 bits");
            if many && inner && !next {
                return;
            }
            let Some(share) = self.seat.take(part.share.max(SMALLEST_SHARE), next, waker) else { return };
            part.state = PartState::Asked { _share: share };
            self.asked_to = offset + part.length;
            let (blocks, cid, offset) = (self.blocks.clone(), part.cid, *offset);
            self.reads.spawn(async move { (offset, blocks.read(&cid).await) });
        }
    }

    /// Puts a block that came in its place.
    fn arrive(&mut self, offset: u64, data: Bytes) -> Result<(), FileError> {
        let part = self.parts.remove(&offset).expect("a part stays until its block is here");
        let Part { cid, length, depth, share, state } = part;
        let PartState::Asked { _share: taken } = state else { unreachable!("only parts that were asked for arrive") };
        if data.len() > share {
            return Err(FileError::WrongSize { cid, what: "the block is larger than its parent says" });
        }
        match Content::decode(&cid, &data).map_err(|source| FileError::Node { cid, source })? {
            Content::Leaf(data) if length_of(&data) == length => self.place_data(offset, cid, depth, data, Some(taken)),
            Content::Leaf(_) => return Err(FileError::WrongSize { cid, what: "a leaf has another size" }),
            Content::Node(node) => self.place_node(offset, cid, depth, length, node, Some(taken))?,
        }
        Ok(())
    }

    fn place_data(&mut self, offset: u64, cid: Cid, depth: usize, data: Bytes, share: Option<Share>) {
        if !data.is_empty() {
            let length = length_of(&data);
            let part = Part { cid, length, depth, share: data.len(), state: PartState::Here { data, share } };
            self.parts.insert(offset, part);
        }
    }

    /// Puts a node's own data and its children in place of the node.
    fn place_node(
        &mut self,
        mut offset: u64,
        cid: Cid,
        depth: usize,
        length: u64,
        node: Node,
        share: Option<Share>,
    ) -> Result<(), FileError> {
        if depth >= limits::DAG_DEPTH {
            return Err(FileError::TooDeep);
        }
        if !matches!(node.data.kind, Kind::File | Kind::Raw) {
            return Err(FileError::Node { cid, source: NodeError::Malformed { what: "a part of a file is no file" } });
        }
        if declared_size(&cid, &node)? != length {
            return Err(FileError::WrongSize { cid, what: "its parent declares another size" });
        }
        let own = length_of(&node.data.data);
        self.place_data(offset, cid, depth, node.data.data, share);
        offset += own;
        self.asked_to = self.asked_to.min(offset);
        // Of a balanced file not even the widest nodes of all levels come near it.
        if self.parts.len() + node.links.len() > MOST_PARTS {
            return Err(FileError::TooWide);
        }
        for (link, length) in node.links.iter().zip(node.data.blocksizes) {
            if length == 0 {
                continue;
            }
            // A raw leaf is its bytes; what a dag-pb child has on top of them only `Tsize` tells.
            let claimed = if link.cid.codec() == RAW { length } else { link.tsize };
            let share = usize::try_from(claimed).ok().filter(|share| (1..limits::BLOCK_BYTES).contains(share));
            let share = share.unwrap_or(limits::BLOCK_BYTES);
            self.parts.insert(offset, Part { cid: link.cid, length, depth: depth + 1, share, state: PartState::Known });
            offset += length;
        }
        Ok(())
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, FileError>> {
        loop {
            if self.position == self.size {
                return Poll::Ready(Ok(None));
            }
            let head = self.parts.first_entry().expect("parts cover the file up to its end");
            if matches!(head.get().state, PartState::Here { .. })
                && let PartState::Here { data, share } = head.remove().state
            {
                self.position += length_of(&data);
                drop(share);
                self.ask(Some(context));
                return Poll::Ready(Ok(Some(data)));
            }
            // The part that is needed next may have been passed over while the window was full.
            self.asked_to = self.asked_to.max(self.position);
            self.ask(Some(context));
            match ready!(self.reads.poll_join_next(context)) {
                Some(Ok((offset, Ok(data)))) => self.arrive(offset, data)?,
                Some(Ok((_, Err(source)))) => return Poll::Ready(Err(FileError::Read { root: self.root, source })),
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => unreachable!("reads are cancelled by dropping the file only"),
                },
                None => unreachable!("the part that is needed next has been asked for"),
            }
        }
    }
}

impl Stream for File {
    type Item = Result<Bytes, FileError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.chunk.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.chunk))));
        }
        if self.failed {
            return Poll::Ready(None);
        }
        let part = ready!(self.poll_part(context));
        if part.is_err() {
            self.failed = true;
            self.reads.abort_all();
        }
        Poll::Ready(part.transpose())
    }
}

impl AsyncRead for File {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            if self.failed {
                return Poll::Ready(Err(io::Error::other("reading goes on after it failed")));
            }
            match ready!(self.as_mut().poll_next(context)) {
                None => return Poll::Ready(Ok(())),
                Some(part) => self.chunk = part?,
            }
        }
        let length = self.chunk.len().min(out.remaining());
        out.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// What a node says that it holds, if it agrees with itself.
pub(super) fn declared_size(cid: &Cid, node: &Node) -> Result<u64, FileError> {
    let wrong = |what| FileError::WrongSize { cid: *cid, what };
    if !matches!(node.data.kind, Kind::File | Kind::Raw) {
        return Err(FileError::NotAFile { cid: *cid });
    }
    if node.links.len() != node.data.blocksizes.len() {
        return Err(wrong("not one size per link"));
    }
    let own = length_of(&node.data.data);
    let sum = node.data.blocksizes.iter().try_fold(own, |sum, size| sum.checked_add(*size));
    let sum = sum.ok_or(wrong("they exceed 64 bits"))?;
    if node.data.filesize.is_some_and(|size| size != sum) {
        return Err(wrong("the whole is not the sum of its parts"));
    }
    Ok(sum)
}

fn length_of(data: &Bytes) -> u64 {
    u64::try_from(data.len()).expect("lengths fit 64 bits")
}
