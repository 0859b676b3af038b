//! An in-memory block store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use crate::dag::block::{Block, identity_data};
use crate::port::blocks::{BlockStore, Live, Put, StoreError, StoreReport, StoreSession, Swept, Usage};

type Key = Multihash<64>;

/// A [`BlockStore`] in memory. Clones share their blocks; nothing outlives the last of them.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlocks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<Key, (Cid, Bytes)>,
    sessions: HashMap<u64, Members>,
    leases: Vec<(Instant, HashSet<Key>)>,
    next_session: u64,
    damaged: HashSet<Key>,
    doomed: HashSet<Key>,
}

/// The blocks of a session: all of them, and those added since the last commit.
#[derive(Debug, Default)]
struct Members {
    all: HashSet<Key>,
    fresh: HashSet<Key>,
}

impl Members {
    fn add(&mut self, key: Key) {
        self.all.insert(key);
        self.fresh.insert(key);
    }
}

impl MemoryBlocks {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block outside any session: the next sweep that does not find it live takes it.
    pub fn insert(&self, block: Block) {
        let (cid, data) = block.into_parts();
        let mut state = self.state();
        state.doomed.remove(cid.hash());
        state.blocks.insert(*cid.hash(), (cid, data));
    }

    /// Replaces the bytes of a held block without any check, to show what damage does.
    pub fn damage(&self, cid: &Cid, data: Bytes) {
        if let Some((_, held)) = self.state().blocks.get_mut(cid.hash()) {
            *held = data;
        }
    }

    /// The blocks held.
    pub fn cids(&self) -> Vec<Cid> {
        self.state().blocks.values().map(|(cid, _)| *cid).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn holds(&self, cid: &Cid) -> bool {
        let key = cid.hash();
        let stored = self.blocks.contains_key(key) && !self.damaged.contains(key) && !self.doomed.contains(key);
        identity_data(cid).is_some() || stored
    }
}

#[async_trait]
impl BlockStore for MemoryBlocks {
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let state = self.state();
        Ok(cids.iter().map(|cid| state.holds(cid)).collect())
    }

    async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError> {
        let state = self.state();
        let size = |cid: &Cid| {
            let stored = state.blocks.get(cid.hash()).map(|(_, data)| data.len());
            let size = identity_data(cid).map(|data| data.len()).or(stored)?;
            state.holds(cid).then(|| u32::try_from(size).unwrap_or(u32::MAX))
        };
        Ok(cids.iter().map(size).collect())
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        let Some((_, data)) = self.state().blocks.get(cid.hash()).cloned() else { return Ok(None) };
        match Block::verify(*cid, data) {
            Ok(block) => Ok(Some(block.into_parts().1)),
            Err(_) => {
                self.state().damaged.insert(*cid.hash());
                Err(StoreError::Corrupt { cid: *cid })
            }
        }
    }

    async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError> {
        let mut state = self.state();
        let id = state.next_session;
        state.next_session += 1;
        state.sessions.insert(id, Members::default());
        Ok(Box::new(MemorySession { store: self.clone(), id, lease }))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.state();
        let bytes = state.blocks.values().map(|(_, data)| data.len() as u64).sum();
        Ok(Usage { blocks: state.blocks.len() as u64, bytes, disk_bytes: 0, index_bytes: 0 })
    }

    async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let state = self.state();
        let now = Instant::now();
        let leased = |key: &Key| state.leases.iter().any(|(until, keys)| *until > now && keys.contains(key));
        let held = |key: &Key| {
            state.sessions.values().any(|members| members.all.contains(key)) || (keep_leases && leased(key))
        };
        let dead = state.blocks.iter().filter(|(key, _)| !live.contains(&key.to_bytes()) && !held(key));
        let add = |swept: Swept, data: &Bytes| Swept {
            blocks: swept.blocks + 1,
            bytes: swept.bytes + data.len() as u64,
            ..swept
        };
        Ok(dead.fold(Swept::default(), |swept, (_, (_, data))| add(swept, data)))
    }

    async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        state.leases.retain(|(until, _)| keep_leases && *until > now);
        let (sessions, leases) = (&state.sessions, &state.leases);
        let dead = |key: &&Key| {
            !(live.contains(&key.to_bytes())
                || sessions.values().any(|members| members.all.contains(*key))
                || leases.iter().any(|(_, keys)| keys.contains(*key)))
        };
        state.doomed = state.blocks.keys().filter(dead).copied().collect();
        Ok(Swept::default())
    }

    async fn remove_doomed(&self) -> Result<Swept, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut swept = Swept::default();
        for key in state.doomed.drain() {
            state.damaged.remove(&key);
            if let Some((_, data)) = state.blocks.remove(&key) {
                swept.blocks += 1;
                swept.bytes += data.len() as u64;
            }
        }
        Ok(swept)
    }

    async fn spare_doomed(&self) -> Result<(), StoreError> {
        self.state().doomed.clear();
        Ok(())
    }

    async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut report = StoreReport { blocks: state.blocks.len() as u64, ..StoreReport::default() };
        for (key, (cid, data)) in state.blocks.iter().filter(|_| read_data) {
            report.bytes_read += data.len() as u64;
            if Block::verify(*cid, data.clone()).is_err() {
                report.damaged.push(*cid);
                state.damaged.insert(*key);
            }
        }
        Ok(report)
    }
}

#[derive(Debug)]
struct MemorySession {
    store: MemoryBlocks,
    id: u64,
    lease: Duration,
}

#[async_trait]
impl StoreSession for MemorySession {
    async fn put(&self, blocks: Vec<Block>) -> Result<Put, StoreError> {
        StoreError::refuse_oversize(&blocks)?;
        let mut guard = self.store.state();
        let state = &mut *guard;
        let members = state.sessions.entry(self.id).or_default();
        let mut put = Put::default();
        for block in blocks.into_iter().filter(|block| identity_data(block.cid()).is_none()) {
            let (cid, data) = block.into_parts();
            members.add(*cid.hash());
            let lost = state.damaged.remove(cid.hash()) | state.doomed.remove(cid.hash());
            if lost || !state.blocks.contains_key(cid.hash()) {
                put.new_blocks += 1;
                put.new_bytes += data.len() as u64;
                state.blocks.insert(*cid.hash(), (cid, data));
            }
        }
        Ok(put)
    }

    async fn hold(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let mut state = self.store.state();
        let held: Vec<bool> = cids.iter().map(|cid| state.holds(cid)).collect();
        let members = state.sessions.entry(self.id).or_default();
        for (cid, _) in cids.iter().zip(&held).filter(|(cid, held)| **held && identity_data(cid).is_none()) {
            members.add(*cid.hash());
        }
        Ok(held)
    }

    async fn commit(&self) -> Result<(), StoreError> {
        self.store.state().sessions.entry(self.id).or_default().fresh.clear();
        Ok(())
    }

    async fn abort(&self) -> Result<(), StoreError> {
        self.store.state().sessions.remove(&self.id);
        Ok(())
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        let mut state = self.store.state();
        if let Some(members) = state.sessions.remove(&self.id)
            && !members.fresh.is_empty()
        {
            state.leases.push((Instant::now() + self.lease, members.fresh));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::blocks::{self, Fixture};

    #[tokio::test]
    async fn conforms() {
        blocks::run(async || {
            let store = MemoryBlocks::new();
            Fixture {
                store: Arc::new(store.clone()),
                damage: Box::new(move |cid, data| store.damage(cid, data)),
                guard: Box::new(()),
            }
        })
        .await;
    }
}
