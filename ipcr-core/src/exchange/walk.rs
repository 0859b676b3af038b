//! Every block below a root: [`walk`] over what is stored here, [`fetch_all`] for getting what is not.
//!
//! Both go over links, not over files and directories, so they see whatever a writer put into the DAG. Raw leaves are
//! never read. Memory: 16 bytes for each block seen (or what the caller's `visit` keeps) and the links of the nodes on
//! the way down.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::reader::Reader;
use crate::dag::block::{DAG_PB, IDENTITY, RAW};
use crate::dag::pb::{Link, Node, NodeError};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::{BlockStore, Live, ReadBlocks as _, ReadError, StoreError, StoreSession};

/// Most blocks of a walk that are known and not yet asked for.
const WAITING: usize = 1 << 20;
/// Most reads of one [`fetch_all`] at a time.
const READS_AT_ONCE: usize = 256;
/// What a read counts at least towards the bytes in flight.
const SMALLEST_SHARE: usize = 16 << 10;
/// Most missing blocks that a [`Walked`] names.
pub const MISSING_NAMED: usize = 1024;

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The store failed.
    #[error("block {cid} could not be looked up")]
    Store {
        /// Which.
        cid: Cid,
        /// Why.
        source: StoreError,
    },
    /// A block cannot be had.
    #[error("a block below {root} cannot be read")]
    Read {
        /// The root.
        root: Cid,
        /// Why.
        source: ReadError,
    },
    /// A block's links cannot be read.
    #[error("block {cid} cannot be read")]
    Node {
        /// Which.
        cid: Cid,
        /// Why.
        source: NodeError,
    },
    /// There is more below the root than there may be.
    #[error("there is more below {root} than {most} bytes")]
    TooLarge {
        /// The root.
        root: Cid,
        /// Bytes of blocks that there may be.
        most: u64,
    },
}

impl WalkError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => source.kind(),
            Self::Read { source, .. } => source.kind(),
            Self::Node { source, .. } => source.kind(),
            Self::TooLarge { .. } => ErrorKind::Integrity,
        }
    }
}

/// What a walk saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Blocks that were visited and are stored here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that are not. What is below them is not known.
    pub missing: u64,
    /// The first [`MISSING_NAMED`] of them.
    pub missing_cids: Vec<Cid>,
    /// How many of them are stored, and damaged.
    pub damaged: u64,
}

impl Walked {
    /// Whether everything is stored here.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    fn holds(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes += bytes;
    }

    fn lacks(&mut self, cid: Cid) {
        self.missing += 1;
        if self.missing_cids.len() < MISSING_NAMED {
            self.missing_cids.push(cid);
        }
    }
}

/// Calls `visit` with every CID reachable from `root` by blocks that are stored here, missing ones included. Where it
/// says false, the walk does not go on: it is for the caller to know what was visited before. It ends at a damaged block.
pub async fn walk(
    store: &dyn BlockStore,
    root: &Cid,
    visit: impl FnMut(&Cid) -> bool + Send,
) -> Result<Walked, WalkError> {
    walk_over(store, root, false, visit, |_, _| {}).await
}

/// A block that a walk looked for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which.
    pub cid: Cid,
    /// Whether it is stored, and was found damaged by this walk.
    pub damaged: bool,
}

/// Every block that is missing or damaged below `root`, as far as `visit` lets the walk go on. What is below such a block is not known.
pub async fn gaps(
    store: &dyn BlockStore,
    root: &Cid,
    visit: impl FnMut(&Cid) -> bool + Send,
) -> Result<Vec<Gap>, WalkError> {
    let mut gaps = Vec::new();
    walk_over(store, root, true, visit, |cid, damaged| gaps.push(Gap { cid: *cid, damaged })).await?;
    Ok(gaps)
}

/// The same; with `damage` a damaged block is one that is missing. `lacks` is told which are, and whether they are damaged.
async fn walk_over(
    store: &dyn BlockStore,
    root: &Cid,
    damage: bool,
    mut visit: impl FnMut(&Cid) -> bool + Send,
    mut lacks: impl FnMut(&Cid, bool) + Send,
) -> Result<Walked, WalkError> {
    let mut walked = Walked::default();
    let mut stack = if visit(root) { vec![*root] } else { vec![] };
    let mut leaves = Vec::new();
    while let Some(cid) = stack.pop() {
        if cid.codec() == RAW {
            leaves.push(cid);
        } else {
            match store.get(&cid).await {
                Err(StoreError::Corrupt { .. }) if damage => {
                    walked.damaged += 1;
                    walked.lacks(cid);
                    lacks(&cid, true);
                }
                Err(source) => return Err(WalkError::Store { cid, source }),
                Ok(None) => {
                    walked.lacks(cid);
                    lacks(&cid, false);
                }
                Ok(Some(data)) => {
                    walked.holds(data.len() as u64);
                    for link in links(&cid, &data)? {
                        if visit(&link.cid) {
                            stack.push(link.cid);
                        }
                    }
                }
            }
        }
        if leaves.len() >= READS_AT_ONCE || (stack.is_empty() && !leaves.is_empty()) {
            let sizes = store.sizes(&leaves).await.map_err(|source| WalkError::Store { cid, source })?;
            for (leaf, size) in leaves.drain(..).zip(sizes) {
                match size {
                    Some(size) => walked.holds(size.into()),
                    None => {
                        walked.lacks(leaf);
                        lacks(&leaf, false);
                    }
                }
            }
        }
    }
    Ok(walked)
}

/// Adds everything reachable from `root` to `live`; what is in `live` already is taken to be complete. A damaged block counts as
/// missing: what is below it is not known.
pub async fn mark(store: &dyn BlockStore, root: &Cid, live: &mut Live) -> Result<Walked, WalkError> {
    walk_over(store, root, true, |cid| live.insert(cid), |_, _| {}).await
}

/// The same; what was not in `live` before is added to `new` as well.
pub async fn mark_new(
    store: &dyn BlockStore,
    root: &Cid,
    live: &mut Live,
    new: &mut Vec<Cid>,
) -> Result<Walked, WalkError> {
    let visit = |cid: &Cid| {
        let first = live.insert(cid);
        new.extend(first.then_some(*cid));
        first
    };
    walk_over(store, root, true, visit, |_, _| {}).await
}

/// Whether everything below `root` is stored here.
pub async fn survey(store: &dyn BlockStore, root: &Cid) -> Result<Walked, WalkError> {
    let mut seen = Seen::default();
    walk(store, root, |cid| seen.insert(cid)).await
}

/// Everything below these roots that is stored here. What is damaged, or below that, is left out.
pub async fn reachable(store: &dyn BlockStore, roots: &[Cid]) -> Result<Seen, WalkError> {
    let mut seen = Seen::default();
    for root in roots {
        walk_over(store, root, true, |cid| seen.insert(cid), |_, _| {}).await?;
    }
    Ok(seen)
}

/// Makes everything below `root` part of a session, so that no sweep takes it; false unless all of it is stored here, and whole
/// as far as its links are needed.
pub async fn hold_all(store: &dyn BlockStore, session: &dyn StoreSession, root: &Cid) -> Result<bool, StoreError> {
    let (mut seen, mut cids) = (Seen::default(), Vec::new());
    let walked = walk(store, root, |cid| {
        let first = seen.insert(cid);
        if first {
            cids.push(*cid);
        }
        first
    });
    match walked.await {
        // What was there a moment ago may be gone before it is held.
        Ok(walked) if walked.is_complete() => Ok(session.hold(&cids).await?.into_iter().all(|held| held)),
        Ok(_) | Err(WalkError::Node { .. } | WalkError::Store { source: StoreError::Corrupt { .. }, .. }) => Ok(false),
        Err(WalkError::Store { source, .. }) => Err(source),
        Err(WalkError::Read { .. } | WalkError::TooLarge { .. }) => unreachable!("only the store is read, all of it"),
    }
}

/// Reads everything below `root` through `reader`, which fetches and keeps what is missing, as long as it is at most `most` bytes of
/// blocks. At most `bytes` of them are in flight, as far as links tell. Answers how many blocks there are.
pub async fn fetch_all(reader: &Reader, root: &Cid, bytes: usize, most: u64) -> Result<u64, WalkError> {
    let too_large = || WalkError::TooLarge { root: *root, most };
    let mut read: u64 = 0;
    let budget = Arc::new(Semaphore::new(bytes.max(limits::BLOCK_BYTES)));
    let mut seen = Seen::default();
    seen.insert(root);
    let mut count = 0;
    let mut waiting = vec![(*root, limits::BLOCK_BYTES)];
    let mut reads = JoinSet::new();
    loop {
        while reads.len() < READS_AT_ONCE
            && let Some((cid, share)) = waiting.last().copied()
        {
            let share = u32::try_from(share).expect("a block's size fits 32 bits");
            let Ok(permit) = budget.clone().try_acquire_many_owned(share) else { break };
            waiting.pop();
            let reader = reader.clone();
            reads.spawn(async move {
                let data = reader.read(&cid).await;
                drop(permit);
                (cid, data.map(|data| (data.len() as u64, if cid.codec() == RAW { Bytes::new() } else { data })))
            });
        }
        let Some(done) = reads.join_next().await else { return Ok(count) };
        let (cid, data) = match done {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let (size, data) = data.map_err(|source| WalkError::Read { root: *root, source })?;
        count += 1;
        read += size;
        if read > most {
            return Err(too_large());
        }
        if cid.codec() == RAW {
            continue;
        }
        let below: Vec<_> = links(&cid, &data)?.into_iter().filter(|link| seen.insert(&link.cid)).collect();
        let cids: Vec<_> = below.iter().map(|link| link.cid).collect();
        let held = reader.has(&cids).await.map_err(|source| WalkError::Read { root: *root, source })?;
        for (link, held) in below.into_iter().zip(held) {
            if held && link.cid.codec() == RAW {
                count += 1;
            } else {
                let claimed = usize::try_from(link.tsize).unwrap_or(usize::MAX);
                let share =
                    if claimed == 0 { limits::BLOCK_BYTES } else { claimed.clamp(SMALLEST_SHARE, limits::BLOCK_BYTES) };
                if waiting.len() >= WAITING {
                    return Err(too_large());
                }
                waiting.push((link.cid, share));
            }
        }
    }
}

fn links(cid: &Cid, data: &Bytes) -> Result<Vec<Link>, WalkError> {
    let failed = |source| WalkError::Node { cid: *cid, source };
    match cid.codec() {
        DAG_PB => Node::decode_links(data).map_err(failed),
        _ => Err(failed(NodeError::Codec { cid: *cid })),
    }
}

/// Which blocks were seen, by the last 16 bytes of their digests.
#[derive(Debug, Default)]
pub struct Seen(HashSet<[u8; 16]>);

impl Seen {
    /// Whether a block was seen.
    pub fn contains(&self, cid: &Cid) -> bool {
        cid.hash().digest().last_chunk().is_some_and(|tail| cid.hash().code() != IDENTITY && self.0.contains(tail))
    }

    fn insert(&mut self, cid: &Cid) -> bool {
        let digest = cid.hash().digest();
        match digest.last_chunk() {
            // An identity CID could be made to look like another block.
            Some(tail) if cid.hash().code() != IDENTITY => self.0.insert(*tail),
            _ => true,
        }
    }
}
