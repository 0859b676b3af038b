//! Blocks from the store first, then from others: [`Reader`].

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;

use super::puts::Puts;
use super::window::Window;
use crate::dag::block::{Block, identity_data, known_data};
use crate::port::blocks::{BlockStore, ReadBlocks, ReadError, StoreError, StoreSession};
use crate::port::exchange::FetchSession;

/// Reads blocks locally, and fetches those that are missing when it has a session to fetch with.
///
/// Fetched blocks are in the store session before they are returned, and so are blocks that were there already: nothing that was
/// read is collected while the session lives. Several reads of one missing block fetch it once.
/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn BlockStore>,
    keep: Option<Puts>,
    fetch: Option<Arc<dyn FetchSession>>,
    local: AtomicU64,
    fetched: AtomicU64,
    fetched_blocks: AtomicU64,
    /// The first bytes of the digests that were counted.
    counted: Mutex<HashSet<[u8; 8]>>,
    /// Fetches under way; those who want the same block wait for the lock.
    pending: Mutex<HashMap<Cid, Arc<tokio::sync::Mutex<()>>>>,
}

/// Where the bytes came from; each block counts once, with what it was when it was first read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Block bytes that were in the store.
    pub local: u64,
    /// Block bytes that others sent.
    pub fetched: u64,
    /// Blocks that others sent.
    pub fetched_blocks: u64,
}

impl Reader {
    /// A reader of what is stored here.
    pub fn local(store: Arc<dyn BlockStore>) -> Self {
        Self::new(store, None, None)
    }

    /// A reader that fetches with `fetch` what `store` lacks, and keeps it by `keep`.
    pub fn new(
        store: Arc<dyn BlockStore>,
        keep: Option<Arc<dyn StoreSession>>,
        fetch: Option<Arc<dyn FetchSession>>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            keep: keep.map(Puts::new),
            fetch,
            local: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            fetched_blocks: AtomicU64::new(0),
            counted: Mutex::default(),
            pending: Mutex::default(),
        }))
    }

    /// What was read so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            local: self.0.local.load(Ordering::Relaxed),
            fetched: self.0.fetched.load(Ordering::Relaxed),
            fetched_blocks: self.0.fetched_blocks.load(Ordering::Relaxed),
        }
    }

    /// Whether it can fetch.
    pub fn fetches(&self) -> bool {
        self.0.fetch.is_some()
    }

    /// A window for files that are read with it: of `bytes`, and of twice as many once blocks come from several.
    pub fn window(&self, bytes: usize) -> Window {
        Window::of(self.0.fetch.clone(), bytes)
    }

    /// Which of `cids` are stored here. They stay so as long as the store session lives, if there is one.
    pub async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, ReadError> {
        let failed = |source| ReadError::Store { cid: cids.first().copied().unwrap_or_default(), source };
        let held = match &self.0.keep {
            Some(keep) => keep.session().hold(cids).await,
            None => self.0.store.has(cids).await,
        };
        held.map_err(failed)
    }

    async fn stored(&self, cid: &Cid) -> Result<Option<Bytes>, ReadError> {
        let data = self.0.store.get(cid).await.map_err(|source| ReadError::Store { cid: *cid, source })?;
        if let Some(data) = &data {
            if let Some(keep) = &self.0.keep
                && !self.has(&[*cid]).await?[0]
            {
                // A collection has given it up. Whoever needs it adds it again, and it need not come from anywhere.
                let Ok(block) = Block::verify(*cid, data.clone()) else { return Ok(None) };
                let put = keep.session().put(vec![block]).await;
                put.map_err(|source| ReadError::Store { cid: *cid, source })?;
            }
            self.count(cid, data.len(), &self.0.local);
        }
        Ok(data)
    }

    /// Counts a block the first time that it is seen.
    fn count(&self, cid: &Cid, bytes: usize, counter: &AtomicU64) -> bool {
        let digest = cid.hash().digest();
        let mut key = [0; 8];
        let length = digest.len().min(8);
        key[..length].copy_from_slice(&digest[..length]);
        let first = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        if first {
            counter.fetch_add(u64::try_from(bytes).expect("block sizes fit 64 bits"), Ordering::Relaxed);
        }
        first
    }

    /// Fetches what is not stored; to be called by one at a time for each block.
    async fn fetch(&self, session: &dyn FetchSession, cid: &Cid) -> Result<Bytes, ReadError> {
        let block = match known_data(cid) {
            Some(data) => Block::verify(*cid, data).map_err(|source| ReadError::Wrong { cid: *cid, source })?,
            None => session.fetch(cid).await.map_err(|source| ReadError::Fetch { cid: *cid, source })?,
        };
        let data = block.data().clone();
        if let Some(keep) = &self.0.keep {
            keep.put(block).await.map_err(|source| ReadError::Store { cid: *cid, source })?;
        }
        if self.count(cid, data.len(), &self.0.fetched) {
            self.0.fetched_blocks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(data)
    }
}

#[async_trait]
impl ReadBlocks for Reader {
    async fn read(&self, cid: &Cid) -> Result<Bytes, ReadError> {
        if let Some(data) = identity_data(cid) {
            return Ok(data);
        }
        let Some(session) = &self.0.fetch else {
            return self.stored(cid).await?.ok_or(ReadError::Missing { cid: *cid });
        };
        // Whoever waits for its turn finds stored what the one before has fetched.
        let turn = Turn::new(&self.0.pending, *cid);
        let _first = turn.lock.lock().await;
        let stored = self.stored(cid).await;
        let damaged = match stored {
            Ok(Some(data)) => return Ok(data),
            Ok(None) => None,
            // Others may have it whole; it is stored anew then.
            Err(error) if is_corrupt(&error) => Some(error),
            Err(error) => return Err(error),
        };
        self.fetch(session.as_ref(), cid).await.map_err(|error| match (damaged, &error) {
            (Some(damaged), ReadError::Fetch { .. }) => damaged,
            _ => error,
        })
    }
}

/// Whether a block is stored and damaged.
fn is_corrupt(error: &ReadError) -> bool {
    matches!(error, ReadError::Store { source: StoreError::Corrupt { .. }, .. })
}

/// A place in the queue of those who want one block; the last to leave removes the queue.
struct Turn<'a> {
    pending: &'a Mutex<HashMap<Cid, Arc<tokio::sync::Mutex<()>>>>,
    cid: Cid,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn new(pending: &'a Mutex<HashMap<Cid, Arc<tokio::sync::Mutex<()>>>>, cid: Cid) -> Self {
        let lock = pending.lock().unwrap_or_else(PoisonError::into_inner).entry(cid).or_default().clone();
        Self { pending, cid, lock }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // The map holds one reference, this one the other.
        if Arc::strong_count(&self.lock) == 2 {
            pending.remove(&self.cid);
        }
    }
}
