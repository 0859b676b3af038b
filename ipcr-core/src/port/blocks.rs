//! Where blocks are kept.
//!
//! Blocks are keyed by multihash: the codec of a CID plays no part, so CIDv0 and CIDv1 of the same bytes are one entry.
//! Identity CIDs are never stored; every implementation answers them from the CID.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;

use super::exchange::ExchangeError;
use crate::dag::block::{Block, BlockError};
use crate::kind::{Cause, ErrorKind};
use crate::limits;

/// A keeper of blocks.
#[async_trait]
pub trait BlockStore: Debug + Send + Sync + 'static {
    /// Which of `cids` are held, in their order. Costs look-ups, no reads of block data. A block that was found damaged
    /// does not count, so that it is fetched and stored again.
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError>;

    /// How many bytes each of `cids` has, in their order; `None` where [`BlockStore::has`] says no. Costs what that costs.
    async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError>;

    /// The bytes of a block, checked against the CID; `None` if it is not held.
    ///
    /// A stored block whose bytes are wrong is [`StoreError::Corrupt`], never returned.
    async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError>;

    /// The same for each of `cids`, in their order. All of them are in memory at once: it is for a few, which cost a store whose work
    /// is done by other threads no more than one.
    async fn get_each(&self, cids: &[Cid]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let mut found = Vec::with_capacity(cids.len());
        for cid in cids {
            found.push(self.get(cid).await);
        }
        found
    }

    /// Begins to add blocks. While the session lives its blocks are never collected; afterwards, when it was not
    /// committed and not aborted, they stay for `lease`.
    async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError>;

    /// What is held and what it costs.
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Gives up what is not `live`: from here on it counts as not held, until somebody adds it again. Never a block of an open session, nor
    /// (with `keep_leases`) a leased one. Says what was removed at once. What an earlier call gave up and nobody removed is held again, unless
    /// this one gives it up, too.
    async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError>;

    /// Removes what was given up and has not been added again. Adding, committing and reading go on meanwhile. After an error what is left is
    /// given up still: call it again, or [`BlockStore::spare_doomed`].
    async fn remove_doomed(&self) -> Result<Swept, StoreError>;

    /// Holds again what was given up and has not been removed.
    async fn spare_doomed(&self) -> Result<(), StoreError>;

    /// Removes what is not `live`: [`BlockStore::doom`], then [`BlockStore::remove_doomed`].
    async fn sweep(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let at_once = self.doom(live, keep_leases).await?;
        Ok(at_once.and(self.remove_doomed().await?))
    }

    /// What [`BlockStore::sweep`] would remove; nothing is. Bytes given back to the disk are not known before.
    async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError>;

    /// Looks for damage; with `read_data` every block is read and hashed. No block is changed; those that are damaged do not
    /// count as held from now on, until somebody adds them again.
    async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError>;
}

/// Blocks being added. Readable through the store as soon as `put` returns; durable once `commit` returns.
///
/// Dropping a session without `commit` or `abort` leaves its blocks leased.
#[async_trait]
pub trait StoreSession: Debug + Send + Sync {
    /// Adds blocks; those that are held already cost a look-up and become part of the session all the same.
    async fn put(&self, blocks: Vec<Block>) -> Result<Put, StoreError>;

    /// Makes those of `cids` that are held part of the session, so that nothing collects them while it lives, and says
    /// which they are, in their order. Asking the store alone leaves time for a sweep between the answer and its use.
    async fn hold(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError>;

    /// Makes everything added so far durable, in one step. The session stays usable.
    ///
    /// Committed blocks that no pin reaches are collected once the session is gone.
    async fn commit(&self) -> Result<(), StoreError>;

    /// Gives up: what was added since the last commit loses its lease.
    async fn abort(&self) -> Result<(), StoreError>;
}

/// A way to read blocks, wherever they are.
#[async_trait]
pub trait ReadBlocks: Debug + Send + Sync {
    /// The bytes of a block, checked against the CID.
    async fn read(&self, cid: &Cid) -> Result<Bytes, ReadError>;
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The block is not held, and there is nobody to ask.
    #[error("block {cid} is not stored here")]
    Missing {
        /// Which.
        cid: Cid,
    },
    /// The store failed.
    #[error("block {cid} could not be read from the store")]
    Store {
        /// Which.
        cid: Cid,
        /// Why.
        source: StoreError,
    },
    /// Nobody sent the block.
    #[error("block {cid} could not be fetched")]
    Fetch {
        /// Which.
        cid: Cid,
        /// Why.
        source: ExchangeError,
    },
    /// The bytes are not those of the block.
    #[error("block {cid} is wrong")]
    Wrong {
        /// Which.
        cid: Cid,
        /// Why.
        source: BlockError,
    },
}

impl ReadError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Unavailable,
            Self::Store { source, .. } => source.kind(),
            Self::Fetch { source, .. } => source.kind(),
            Self::Wrong { .. } => ErrorKind::Integrity,
        }
    }
}

/// What a `put` changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Put {
    /// Blocks that were not held before.
    pub new_blocks: u64,
    /// Their bytes.
    pub new_bytes: u64,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes on disk, dead space included (0 for stores in memory).
    pub disk_bytes: u64,
    /// Those of them that only say where blocks are.
    pub index_bytes: u64,
}

/// The multihashes (in binary form) that a sweep keeps.
#[derive(Clone, Debug, Default)]
pub struct Live(std::collections::HashSet<Vec<u8>>);

impl Live {
    /// Adds the block of `cid`; false if it was there.
    pub fn insert(&mut self, cid: &Cid) -> bool {
        self.0.insert(cid.hash().to_bytes())
    }

    /// Takes a block out again.
    pub fn remove(&mut self, cid: &Cid) {
        self.0.remove(&cid.hash().to_bytes()[..]);
    }

    /// Whether the block with this binary multihash is kept.
    pub fn contains(&self, multihash: &[u8]) -> bool {
        self.0.contains(multihash)
    }

    /// The multihashes, in no order.
    pub fn multihashes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Number of blocks kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Swept {
    /// Blocks removed.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes given back to the disk.
    pub disk_bytes: u64,
}

impl Swept {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            bytes: self.bytes + other.bytes,
            disk_bytes: self.disk_bytes + other.disk_bytes,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Blocks whose bytes are wrong or gone.
    pub damaged: Vec<Cid>,
    /// Anything else that is wrong, for people.
    pub problems: Vec<String>,
}

/// A store's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A stored block is damaged.
    #[error("block {cid} is damaged in the store")]
    Corrupt {
        /// Which.
        cid: Cid,
    },
    /// A block that no store takes.
    #[error("block {cid} cannot be stored")]
    Refused {
        /// Which.
        cid: Cid,
        /// Why.
        source: BlockError,
    },
    /// The table of contents is damaged; the blocks themselves may be well.
    #[error("the index {place} is damaged")]
    DamagedIndex {
        /// Its file.
        place: String,
        /// Why it is thought so.
        source: Cause,
    },
    /// No space left.
    #[error("no space left in {place} while {doing}")]
    Full {
        /// A path.
        place: String,
        /// What was being done.
        doing: &'static str,
    },
    /// The store was written by a newer version.
    #[error("{place} has store format {found}; this version reads up to {known}")]
    NewerFormat {
        /// A path.
        place: String,
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// A file operation failed.
    #[error("{doing} in {place} failed")]
    Io {
        /// A path.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The table or the connection behind the store failed.
    #[error("{doing} failed")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// The class of the cause.
        kind: ErrorKind,
        /// Why.
        source: Cause,
    },
}

impl StoreError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } | Self::Refused { .. } | Self::DamagedIndex { .. } => ErrorKind::Integrity,
            Self::Full { .. } => ErrorKind::DiskFull,
            Self::NewerFormat { .. } => ErrorKind::Failed,
            Self::Io { source, .. } => match ErrorKind::of_io(source) {
                ErrorKind::NotFound => ErrorKind::Failed,
                kind => kind,
            },
            Self::Backend { kind, .. } => *kind,
        }
    }

    /// Refuses blocks above [`limits::BLOCK_BYTES`], which nobody could be sent.
    pub fn refuse_oversize(blocks: &[Block]) -> Result<(), Self> {
        match blocks.iter().find(|block| block.data().len() > limits::BLOCK_BYTES) {
            None => Ok(()),
            Some(block) => {
                let (cid, size) = (*block.cid(), block.data().len());
                Err(Self::Refused { cid, source: BlockError::TooLarge { cid, size } })
            }
        }
    }

    /// Wraps an I/O error; a full disk becomes [`StoreError::Full`].
    pub fn io(place: impl Into<String>, doing: &'static str, source: std::io::Error) -> Self {
        let place = place.into();
        match ErrorKind::of_io(&source) {
            ErrorKind::DiskFull => Self::Full { place, doing },
            _ => Self::Io { place, doing, source },
        }
    }
}
