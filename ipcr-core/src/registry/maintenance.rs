//! Upkeep of a home by the process that holds it: collecting, checking, measuring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cid::Cid;
use tokio::sync::OwnedRwLockWriteGuard;

use super::error::{RegistryError, Topic};
use super::holder::{Manner, RepairRequest};
use super::local::{CacheSize, LocalHolder, step};
use super::network::LazyExchange;
use super::options::GcOptions;
use super::outcome::{
    CacheUsed, CheckOutcome, DiskRoom, FilesUsed, GcOutcome, ImagesUsed, RepairOutcome, UsageOutcome, Used,
};
use super::profile;
use crate::event::Emitter;
use crate::kind::{ErrorKind, in_one_line};
use crate::pin::cache::CacheEntry;
use crate::port::blocks::StoreReport;
use crate::port::exchange::Exchange;
use crate::upkeep::collect::{Collected, Terms, UpkeepError, choose, is_full};
use crate::upkeep::inspect::check;
use crate::upkeep::repair::{Sources, plan};
use crate::upkeep::retain::CacheLimit;
use crate::upkeep::usage::{Share, measure};

/// Lacking blocks that are named one by one.
const NAMED: usize = 10;

/// What a collection has alone, in the order in which it is taken.
struct Alone {
    /// Until the last block is gone.
    collecting: OwnedRwLockWriteGuard<()>,
    /// Until it is chosen what goes.
    turn: OwnedRwLockWriteGuard<()>,
}

/// Something that is owed, and is owed again unless it is done.
struct Debt<'a>(Option<&'a AtomicBool>);

impl<'a> Debt<'a> {
    fn take(owed: &'a AtomicBool) -> Self {
        owed.store(false, Ordering::SeqCst);
        Self(Some(owed))
    }

    fn paid(mut self) {
        self.0 = None;
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        if let Some(owed) = self.0 {
            owed.store(true, Ordering::SeqCst);
        }
    }
}

impl LocalHolder {
    /// Lets go of pulled images beyond the limit of the cache. Nobody waits for a turn to do it: while there is a collection, it is done at
    /// the end of that, otherwise by whoever pulls or collects next.
    pub(super) async fn let_go_of_pulled(&self) -> Result<(), RegistryError> {
        self.trim_owed.store(true, Ordering::SeqCst);
        self.make_up_for_trims().await
    }

    /// Does it, if it was asked for and not done. Whoever has had a collection alone calls this afterwards, for those who asked meanwhile.
    async fn make_up_for_trims(&self) -> Result<(), RegistryError> {
        // Once more for those who asked while it was done. Whoever comes later does it for the others: nobody works for all there are.
        for _ in 0..2 {
            if !self.trim_owed.load(Ordering::SeqCst) {
                break;
            }
            let Some(alone) = self.try_alone() else { break };
            let debt = Debt::take(&self.trim_owed);
            self.trim_alone(alone).await?;
            debt.paid();
        }
        Ok(())
    }

    async fn trim_alone(&self, alone: Alone) -> Result<(), RegistryError> {
        let cached = CacheEntry::all(&self.own_tables()).await;
        let cached = cached.map_err(|error| RegistryError::from_table("looking at pulled images", error))?;
        // More than they take: what they share counts for each that no collection has counted yet.
        let bytes = cached.iter().fold(0_u64, |sum, (_, entry)| sum.saturating_add(entry.weight()));
        let limit = self.cache_limit().bytes;
        let full = is_full(&self.blocks, &self.tables.tables, CacheLimit { bytes: limit });
        if bytes > limit && full.await.map_err(|error| upkeep("looking at pulled images", error))? {
            // With some room for the next ones, because each collection looks at everything.
            let limit = CacheLimit { bytes: limit - limit / 10 };
            self.collect_alone(alone, Terms { limit, keep_leases: true, dry_run: false, careful: true }).await?;
        }
        Ok(())
    }

    /// Collects what nothing refers to.
    pub(super) async fn collect_all(&self, options: GcOptions) -> Result<GcOutcome, RegistryError> {
        let alone = self.alone().await;
        let GcOptions { dry_run, keep_leases, force } = options;
        let terms = Terms { limit: self.cache_limit(), keep_leases, dry_run, careful: !force };
        let done = self.collect_and_trim(alone, terms).await?;
        Ok(GcOutcome {
            kept_blocks: done.kept,
            removed_blocks: done.swept.blocks,
            removed_bytes: done.swept.bytes,
            freed_bytes: done.swept.disk_bytes,
        })
    }

    /// Looks for damage in the store, the registry and the keys.
    pub(super) async fn look_for_damage(&self, read_data: bool) -> Result<CheckOutcome, RegistryError> {
        let report = self.check_store(read_data).await?;
        // What a collection takes away meanwhile would be missing. Changes are no obstacle: what the root led to stays.
        let _whole = self.collecting.read().await;
        let _turn = self.turn.read().await;
        Ok(self.inspect(report).await?.0)
    }

    /// Looks at the store alone, which takes long and lets collections go on.
    async fn check_store(&self, read_data: bool) -> Result<StoreReport, RegistryError> {
        self.blocks.check(read_data).await.map_err(|error| upkeep("checking", error.into()))
    }

    /// Goes on from what a look at the store has found, for whoever has a turn; also the blocks that are damaged.
    async fn inspect(&self, report: StoreReport) -> Result<(CheckOutcome, Vec<Cid>), RegistryError> {
        let found = check(&self.blocks, &self.own_tables(), report).await.map_err(|error| upkeep("checking", error))?;
        let damaged = found.damaged;
        let (blocks, bytes_read, tags, mut problems) = (found.blocks, found.bytes_read, found.tags, found.problems);
        match profile::identity(&self.config.path) {
            Ok(_) => {}
            Err(RegistryError::NoRegistry) if self.state().await?.root.is_none() => {}
            Err(RegistryError::NoRegistry) => problems.push("registry.key is missing".into()),
            Err(error) => problems.push(in_one_line(&error)),
        }
        Ok((CheckOutcome { blocks, bytes_read, tags, problems }, damaged))
    }

    /// Looks for damage and mends it.
    pub(super) async fn mend(&self, request: RepairRequest, events: Emitter) -> Result<RepairOutcome, RegistryError> {
        let repairing = |error| upkeep("repairing", error);
        let report = self.check_store(request.read_data).await?;
        // No collection comes between: what is fetched for a folder must find the rest of it.
        let whole = self.collecting.read().await;
        let turn = self.turn.read().await;
        let (found, damaged) = self.inspect(report).await?;
        let plan = plan(&self.blocks, &self.own_tables(), damaged).await.map_err(repairing)?;
        let lacking = plan.lacking();
        let mut outcome = RepairOutcome {
            lacking: lacking.len() as u64,
            lacking_cids: lacking.iter().take(NAMED).map(ToString::to_string).collect(),
            problems: found.problems.clone(),
            found,
            ..RepairOutcome::default()
        };
        if request.dry_run {
            return Ok(outcome);
        }
        let Manner { mut hints, stall, share } = request.manner;
        hints.extend(self.config.node.peers.iter().cloned());
        let exchange: Arc<dyn Exchange> = Arc::new(LazyExchange(Arc::clone(&self.network)));
        let sources = Sources { exchange: &exchange, hints: &hints, stall, share, events };
        let done = plan.execute(&self.blocks, sources).await.map_err(repairing)?;
        drop((turn, whole));
        outcome.fetched = Used { blocks: done.fetched, bytes: done.fetched_bytes };
        (outcome.made, outcome.lost, outcome.unasked) = (done.made, done.lost.len() as u64, done.unasked);
        self.network.blocks_added().await;
        if done.garbage && done.lost.is_empty() {
            let alone = self.alone().await;
            let terms = Terms { limit: self.cache_limit(), keep_leases: true, dry_run: false, careful: true };
            outcome.removed = self.collect_and_trim(alone, terms).await?.swept.blocks;
        }
        outcome.problems = self.look_for_damage(false).await?.problems;
        Ok(outcome)
    }

    /// What the home uses.
    pub(super) async fn measure(&self) -> Result<UsageOutcome, RegistryError> {
        let _whole = self.collecting.read().await;
        let _turn = self.turn.read().await;
        let limit = self.cache_limit();
        let measured = measure(&self.blocks, &self.own_tables(), limit).await;
        let measured = measured.map_err(|error| upkeep("looking at what is stored", error))?;
        let used = |share: Share| Used { blocks: share.blocks, bytes: share.bytes };
        let (own, cache, store) = (measured.own, measured.cache, measured.store);
        let tables = self.config.path.join("tables.redb").metadata().map_or(0, |file| file.len());
        Ok(UsageOutcome {
            own: ImagesUsed { images: measured.images, tags: measured.tags, blocks: own.blocks, bytes: own.bytes },
            metadata: used(measured.metadata),
            cache: CacheUsed { images: measured.pulled, blocks: cache.blocks, bytes: cache.bytes, limit: limit.bytes },
            interrupted: used(measured.interrupted),
            reclaimable: Used { blocks: measured.reclaimable.blocks, bytes: measured.reclaimable.bytes },
            files: FilesUsed {
                packs: store.disk_bytes.saturating_sub(store.index_bytes),
                index: store.index_bytes,
                tables,
            },
            disk: self.disk().unwrap_or_default(),
        })
    }

    /// Waits until nobody else collects, looks at everything or makes a change.
    async fn alone(&self) -> Alone {
        let collecting = Arc::clone(&self.collecting).write_owned().await;
        Alone { collecting, turn: Arc::clone(&self.turn).write_owned().await }
    }

    fn try_alone(&self) -> Option<Alone> {
        let collecting = Arc::clone(&self.collecting).try_write_owned().ok()?;
        Some(Alone { collecting, turn: Arc::clone(&self.turn).try_write_owned().ok()? })
    }

    /// Collects, and then lets go of what was pulled beyond the limit meanwhile.
    async fn collect_and_trim(&self, alone: Alone, terms: Terms) -> Result<Collected, RegistryError> {
        let dry_run = terms.dry_run;
        let done = self.collect_alone(alone, terms).await;
        if !dry_run && let Err(error) = self.make_up_for_trims().await {
            tracing::debug!(%error, "pulled images beyond the limit of the cache are still there");
        }
        done
    }

    /// Collects. It goes on when nobody waits for it any more: what it has begun to remove must not be needed meanwhile.
    ///
    /// What a push is about to name is in its session until the change is made, and no change is made while it is chosen what goes. Whoever
    /// names some of it afterwards has found that it is not held, and added it again.
    async fn collect_alone(&self, alone: Alone, terms: Terms) -> Result<Collected, RegistryError> {
        let (home, blocks) = (Arc::clone(&self.home), Arc::clone(&self.blocks));
        let (tables, gate) = (Arc::clone(&self.tables.tables), Arc::clone(&self.tables.gate));
        let collection = tokio::spawn(async move {
            let Alone { collecting: _collecting, turn } = alone;
            let makes_room = |error: &UpkeepError| error.kind() == ErrorKind::DiskFull && home.release();
            let choosing = gate.write().await;
            let mut chosen = choose(&blocks, &tables, terms).await;
            if chosen.as_ref().is_err_and(makes_room) {
                chosen = choose(&blocks, &tables, terms).await;
            }
            drop((choosing, turn));
            let mut done = match &chosen {
                Ok(chosen) => chosen.remove(&blocks).await,
                Err(_) => Ok(Collected::default()),
            };
            // At once, before others take the room that was kept for it.
            if done.as_ref().is_err_and(makes_room)
                && let Ok(chosen) = &chosen
            {
                done = chosen.remove(&blocks).await;
            }
            home.reserve();
            let done = chosen.and(done);
            // It has failed for good: what is left counts as held again, and is for the next collection to find.
            if done.is_err()
                && let Err(error) = blocks.spare_doomed().await
            {
                tracing::debug!(%error, "what a collection has left does not count as held");
            }
            done
        });
        let done = collection.await.map_err(|error| step("collecting", error))?;
        done.map_err(|error| upkeep("collecting", error))
    }

    fn cache_limit(&self) -> CacheLimit {
        let disk = || self.disk().map_or(u64::MAX, |disk| disk.size);
        let bytes = match self.config.cache {
            CacheSize::Usual => (disk() / 10).min(10 << 30),
            CacheSize::Bytes(bytes) => bytes,
            CacheSize::Percent(percent) => (disk() / 100).saturating_mul(percent.into()),
        };
        CacheLimit { bytes }
    }

    fn disk(&self) -> Option<DiskRoom> {
        let stat = rustix::fs::statvfs(&self.config.path).ok()?;
        Some(DiskRoom { size: stat.f_frsize * stat.f_blocks, free: stat.f_frsize * stat.f_bavail })
    }
}

fn upkeep(doing: &'static str, error: UpkeepError) -> RegistryError {
    let topic = if matches!(error, UpkeepError::Torn) { Topic::Torn } else { Topic::Other };
    RegistryError::Step { doing, kind: error.kind(), topic, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use chrono::Utc;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::dag::block::Block;
    use crate::identity::NodeKey;
    use crate::limits;
    use crate::net::addresses::NetworkMode;
    use crate::node::NodeConfig;
    use crate::port::blocks::{BlockStore, Live, StoreError, StoreSession, Swept, Usage};
    use crate::registry::holder::Holder as _;
    use crate::registry::local::HomeConfig;
    use crate::store::home::Home;

    /// A store that removes nothing before it may, or fails to.
    #[derive(Debug)]
    struct Stubborn {
        blocks: Arc<dyn BlockStore>,
        fails: AtomicBool,
        /// One for each removal that has begun.
        begun: Semaphore,
        may: Semaphore,
    }

    #[async_trait]
    impl BlockStore for Stubborn {
        async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
            self.blocks.has(cids).await
        }

        async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError> {
            self.blocks.sizes(cids).await
        }

        async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
            self.blocks.get(cid).await
        }

        async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError> {
            self.blocks.begin(lease).await
        }

        async fn usage(&self) -> Result<Usage, StoreError> {
            self.blocks.usage().await
        }

        async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
            self.blocks.weigh(live, keep_leases).await
        }

        async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
            self.blocks.doom(live, keep_leases).await
        }

        async fn remove_doomed(&self) -> Result<Swept, StoreError> {
            self.begun.add_permits(1);
            self.may.acquire().await.unwrap().forget();
            if self.fails.load(Ordering::Relaxed) {
                Err(StoreError::io("the disk", "removing", std::io::ErrorKind::Other.into()))
            } else {
                self.blocks.remove_doomed().await
            }
        }

        async fn spare_doomed(&self) -> Result<(), StoreError> {
            self.blocks.spare_doomed().await
        }

        async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError> {
            self.blocks.check(read_data).await
        }
    }

    async fn holder(folder: &Path, cache: CacheSize) -> Arc<LocalHolder> {
        let node = NodeConfig::new(NodeKey::generate().keypair().clone(), NetworkMode::Loopback);
        let home = Home::open(folder, Duration::ZERO).unwrap();
        LocalHolder::open(home, HomeConfig { cache, ..HomeConfig::new(folder, node) }).await.unwrap()
    }

    async fn stubborn(folder: &Path, cache: CacheSize) -> (Arc<LocalHolder>, Arc<Stubborn>) {
        let mut holder = holder(folder, cache).await;
        let (begun, may) = (Semaphore::new(0), Semaphore::new(0));
        let blocks = Arc::clone(&holder.blocks);
        let stubborn = Arc::new(Stubborn { blocks, fails: AtomicBool::new(false), begun, may });
        Arc::get_mut(&mut holder).unwrap().blocks = stubborn.clone();
        (holder, stubborn)
    }

    async fn add(holder: &LocalHolder, seed: u8) -> Cid {
        let block = Block::raw(vec![seed; 2000].into());
        let session = holder.blocks.begin(limits::LEASE).await.unwrap();
        session.put(vec![block.clone()]).await.unwrap();
        session.commit().await.unwrap();
        *block.cid()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_failed_collection_has_left_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (holder, store) = stubborn(folder.path(), CacheSize::Usual).await;
        let garbage = add(&holder, 1).await;
        store.may.add_permits(2);
        store.fails.store(true, Ordering::Relaxed);
        assert!(holder.collect_all(GcOptions::default()).await.is_err());
        assert_eq!(holder.blocks.has(&[garbage]).await.unwrap(), [true]);
        store.fails.store(false, Ordering::Relaxed);
        assert_eq!(holder.collect_all(GcOptions::default()).await.unwrap().removed_blocks, 1);
        assert_eq!(holder.blocks.has(&[garbage]).await.unwrap(), [false]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_pulled_during_a_removal_is_trimmed_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (holder, store) = stubborn(folder.path(), CacheSize::Bytes(3000)).await;
        let pull = async |seed| {
            let root = add(&holder, seed).await;
            let entry = CacheEntry { root, size: 2000, used: Utc::now(), counted: None };
            entry.write(&holder.tables(), &root).await.unwrap();
            timeout(Duration::from_secs(10), holder.trim()).await.expect("nobody waits").unwrap();
            root
        };
        let cached = async || CacheEntry::all(&holder.own_tables()).await.unwrap().len();
        let (garbage, old) = (add(&holder, 1).await, pull(2).await);
        let collecting = tokio::spawn({
            let holder = Arc::clone(&holder);
            async move { holder.collect_all(GcOptions::default()).await.unwrap() }
        });
        store.begun.acquire().await.unwrap().forget();
        let new = pull(3).await;
        assert_eq!(cached().await, 2);
        store.may.add_permits(2);
        assert_eq!(collecting.await.unwrap().removed_blocks, 1);
        assert_eq!(cached().await, 1);
        assert_eq!(holder.blocks.has(&[garbage, old, new]).await.unwrap(), [false, false, true]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dry_run_makes_up_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let holder = holder(folder.path(), CacheSize::Bytes(1000)).await;
        let root = add(&holder, 1).await;
        let entry = CacheEntry { root, size: 2000, used: Utc::now(), counted: None };
        entry.write(&holder.own_tables(), &root).await.unwrap();
        let changing = holder.turn.read().await;
        holder.trim().await.unwrap();
        drop(changing);
        let options = |dry_run| GcOptions { dry_run, ..GcOptions::default() };
        holder.collect_all(options(true)).await.unwrap();
        assert_eq!(holder.blocks.has(&[root]).await.unwrap(), [true]);
        assert!(holder.trim_owed.load(Ordering::SeqCst));
        holder.collect_all(options(false)).await.unwrap();
        assert!(!holder.trim_owed.load(Ordering::SeqCst));
        drop(Debt::take(&holder.trim_owed));
        assert!(holder.trim_owed.load(Ordering::SeqCst), "what was not done is owed still");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_looks_waits_for_a_collection_and_not_for_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let holder = holder(folder.path(), CacheSize::Usual).await;
        let short = Duration::from_millis(200);
        let alone = holder.alone().await;
        assert!(holder.try_alone().is_none());
        let Alone { collecting, turn } = alone;
        drop(turn);
        // While it removes what it chose, changes go on, and others neither look nor collect.
        drop(holder.turn.read().await);
        assert!(holder.try_alone().is_none());
        assert!(timeout(short, holder.look_for_damage(false)).await.is_err());
        assert!(timeout(short, holder.measure()).await.is_err());
        drop(collecting);
        let _changing = holder.turn.read().await;
        assert!(holder.look_for_damage(true).await.unwrap().problems.is_empty());
        holder.measure().await.unwrap();
    }
}
