//! Blocks on disk: [`DiskStore`].
//!
//! Blocks are appended to pack files, and one index says where each lies. A block can be read as soon as `put` returns;
//! a commit makes everything written so far durable in one step: the data of the packs that have grown, then one
//! transaction of the index. Parts:
//!
//! * [`record`]: how a block lies in a pack; every record can be recognised and checked without the index.
//! * [`append`]: writing at the end of the packs, one batch at a time.
//! * [`index`]: the redb file, with the leases.
//! * [`state`]: what only memory knows: open sessions, blocks not yet indexed.
//! * [`shared`]: reading, adding and the durable step. [`recover`]: opening. [`sweep`]: taking away. [`check`]: looking
//!   for damage.
//!
//! Guarantees. A block is hashed whenever it is read, so wrong bytes are never returned. At open, what was written but
//! not committed is read from the packs' ends: whole records are kept, leased for [`crate::limits::LEASE`], torn ones
//! are cut off; no state of the files makes a block unreadable and at the same time impossible to add. A failed write
//! leaves the store as before it. Several sessions run side by side; a sweep takes nothing that one of them has.
//!
//! Locks are taken in this order: `sweeping` (who takes blocks away), `flush` (who changes the index), `appender`, `state`.

mod append;
mod check;
mod index;
mod record;
mod recover;
mod shared;
mod state;
mod sweep;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use tokio::sync::Semaphore;

use super::database::Access;
use super::{blocking, home};
use crate::dag::block::{Block, identity_data};
use crate::kind::ErrorKind;
use crate::port::blocks::{BlockStore, Live, Put, StoreError, StoreReport, StoreSession, Swept, Usage};
use record::Key;
use shared::Shared;

/// A pack that reaches this size is followed by a new one, in bytes.
const PACK_BYTES: u64 = 256 << 20;

/// A [`BlockStore`] in a directory: pack files under `blocks/` and the index `index.redb`. Clones share everything.
#[derive(Clone, Debug)]
pub struct DiskStore {
    shared: Arc<Shared>,
}

impl DiskStore {
    /// Opens the store in this directory, or makes it. Only one process at a time can. Blocks the thread.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_locked(folder, Access::Write, None)
    }

    pub(super) fn open_locked(
        folder: &Path,
        access: Access,
        lock: Option<Arc<home::Lock>>,
    ) -> Result<Self, StoreError> {
        Ok(Self { shared: Arc::new(recover::open(folder, PACK_BYTES, access, lock)?) })
    }

    /// Runs work that only reads.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.queue(&self.shared.reads, work).await
    }

    /// Runs work that adds blocks.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.queue(&self.shared.writes, work).await
    }

    /// Runs work when there is a place for it. It keeps the place to its end, also when nobody waits for it any more.
    async fn queue<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
        self.run(move |shared| {
            let _place = place;
            work(shared)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        blocking(move || work(&shared)).await.unwrap_or_else(|| Err(shutting_down()))
    }
}

fn shutting_down() -> StoreError {
    let source = "the program is shutting down".into();
    StoreError::Backend { doing: "working on the store", kind: ErrorKind::Interrupted, source }
}

#[async_trait]
impl BlockStore for DiskStore {
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let keys = keys(cids);
        let stored: Vec<Key> = keys.iter().copied().flatten().collect();
        if stored.is_empty() {
            return Ok(vec![true; cids.len()]);
        }
        let held = self.read(move |shared| shared.has(&stored)).await?;
        Ok(spread(&keys, held))
    }

    async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError> {
        let cids = cids.to_vec();
        self.read(move |shared| {
            let keys = keys(&cids);
            let stored: Vec<Key> = keys.iter().copied().flatten().collect();
            let mut sizes = shared.sizes(&stored)?.into_iter();
            let size = |(cid, key): (&Cid, &Option<Key>)| match key {
                Some(_) => sizes.next().flatten(),
                None => identity_data(cid).and_then(|data| u32::try_from(data.len()).ok()),
            };
            Ok(cids.iter().zip(&keys).map(size).collect())
        })
        .await
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        let cid = *cid;
        self.read(move |shared| shared.get(&cid)).await
    }

    async fn get_each(&self, cids: &[Cid]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let wanted = cids.to_vec();
        let get = |shared: &Arc<Shared>, cid: &Cid| match identity_data(cid) {
            Some(data) => Ok(Some(data)),
            None => shared.get(cid),
        };
        let found = self.read(move |shared| Ok(wanted.iter().map(|cid| get(shared, cid)).collect())).await;
        found.unwrap_or_else(|_| cids.iter().map(|_| Err(shutting_down())).collect())
    }

    async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError> {
        let id = self.shared.state().begin(lease);
        Ok(Box::new(DiskSession { store: self.clone(), id }))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.run(|shared| shared.usage()).await
    }

    async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let live = live.clone();
        self.run(move |shared| sweep::weigh(shared, &live, keep_leases)).await
    }

    async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let live = live.clone();
        self.run(move |shared| sweep::doom(shared, &live, keep_leases)).await
    }

    async fn remove_doomed(&self) -> Result<Swept, StoreError> {
        self.run(|shared| sweep::remove_doomed(shared)).await
    }

    async fn spare_doomed(&self) -> Result<(), StoreError> {
        let spare = |shared: &Arc<Shared>| {
            sweep::spare_doomed(shared);
            Ok(())
        };
        self.run(spare).await
    }

    async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError> {
        self.run(move |shared| check::check(shared, read_data)).await
    }
}

/// Blocks being added to a [`DiskStore`].
#[derive(Debug)]
struct DiskSession {
    store: DiskStore,
    id: u64,
}

#[async_trait]
impl StoreSession for DiskSession {
    async fn put(&self, blocks: Vec<Block>) -> Result<Put, StoreError> {
        StoreError::refuse_oversize(&blocks)?;
        let blocks = blocks.into_iter().filter(|block| identity_data(block.cid()).is_none());
        let blocks: Vec<(Key, Bytes)> = blocks.map(Block::into_parts).map(|(cid, data)| (*cid.hash(), data)).collect();
        let id = self.id;
        let (put, chore) = self.store.write(move |shared| shared.put(id, blocks)).await?;
        if let Some(chore) = chore {
            let shared = self.store.shared.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = shared.attend(chore) {
                    tracing::debug!(%error, "what was added could not be brought to the disk yet");
                }
            });
        }
        Ok(put)
    }

    async fn hold(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let keys = keys(cids);
        let stored: Vec<Key> = keys.iter().copied().flatten().collect();
        let id = self.id;
        let held = self.store.write(move |shared| shared.hold(id, &stored)).await?;
        Ok(spread(&keys, held))
    }

    async fn commit(&self) -> Result<(), StoreError> {
        let id = self.id;
        self.store.run(move |shared| shared.flush(Some(id))).await
    }

    async fn abort(&self) -> Result<(), StoreError> {
        // At once, also on the disk: the program may be about to end without waiting for anything.
        if self.store.shared.state().abort(self.id) {
            self.store.run(|shared| shared.flush(None)).await?;
        }
        Ok(())
    }
}

impl Drop for DiskSession {
    fn drop(&mut self) {
        if self.store.shared.state().orphan(self.id)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = self.store.shared.clone();
            runtime.spawn_blocking(move || {
                if let Err(error) = shared.flush(None) {
                    tracing::debug!(%error, "leases could not be written yet");
                }
            });
        }
    }
}

/// What each CID is kept by; `None` for identity CIDs, which are not kept.
fn keys(cids: &[Cid]) -> Vec<Option<Key>> {
    cids.iter().map(|cid| identity_data(cid).is_none().then(|| *cid.hash())).collect()
}

/// Answers for all from answers for those that are kept.
fn spread(keys: &[Option<Key>], held: Vec<bool>) -> Vec<bool> {
    let mut held = held.into_iter();
    keys.iter().map(|key| key.is_none() || held.next().unwrap_or(false)).collect()
}
