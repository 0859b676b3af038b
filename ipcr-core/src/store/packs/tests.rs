//! What only a store on disk has to show: crashes, damage, full disks, space given back.

mod beside;

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::limits;
use crate::port::conformance::blocks::{self, Fixture};

fn block(seed: u32, len: usize) -> Block {
    let data: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(len.max(4)).collect();
    Block::raw(data.into())
}

fn open(folder: &Path, pack_bytes: u64) -> DiskStore {
    DiskStore { shared: Arc::new(recover::open(folder, pack_bytes, Access::Write, None).unwrap()) }
}

/// Ends a store as a killed process does: nothing more is written.
fn crash(store: DiskStore) {
    store.shared.crashed.store(true, Ordering::Relaxed);
    close(store);
}

/// Ends a store in order.
fn close(store: DiskStore) {
    let mut shared = store.shared;
    // Flushes in the background that still hold it end soon.
    for _ in 0..500 {
        match Arc::try_unwrap(shared) {
            Ok(only) => return drop(only),
            Err(used) => shared = used,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("somebody keeps the store open");
}

fn packs(folder: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> = fs::read_dir(folder.join("blocks")).unwrap().map(|e| e.unwrap().path()).collect();
    packs.sort();
    packs
}

fn live<'b>(blocks: impl IntoIterator<Item = &'b Block>) -> Live {
    let mut live = Live::default();
    for block in blocks {
        live.insert(block.cid());
    }
    live
}

/// Writes other bytes where a block lies.
fn damage(store: &DiskStore, cid: &Cid, data: &[u8]) {
    let place = store.shared.index.places(&[*cid.hash()]).unwrap()[0].expect("the block is committed");
    let path = append::pack_path(&store.shared.folder, place.pack);
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(data, place.offset).unwrap();
}

#[tokio::test]
async fn conforms() {
    for pack_bytes in [PACK_BYTES, 10_000] {
        blocks::run(async || {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path(), pack_bytes);
            Fixture {
                store: Arc::new(store.clone()),
                damage: Box::new(move |cid, data| damage(&store, cid, &data)),
                guard: Box::new(folder),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn committed_blocks_survive_and_others_are_leased() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    let (committed, open_one, torn) = (block(1, 5000), block(2, 5000), block(3, 5000));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![committed.clone()]).await.unwrap();
    session.commit().await.unwrap();
    session.put(vec![open_one.clone(), torn.clone()]).await.unwrap();
    std::mem::forget(session);
    let size = packs(folder.path())[0].metadata().unwrap().len();
    // The session was leaked, so the store is still referenced: close its files the hard way.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("blocks")).unwrap();
    fs::copy(folder.path().join("index.redb"), copy.path().join("index.redb")).unwrap();
    fs::copy(&packs(folder.path())[0], copy.path().join("blocks/00000001.pack")).unwrap();
    let pack = copy.path().join("blocks/00000001.pack");
    OpenOptions::new().write(true).open(&pack).unwrap().set_len(size - 1).unwrap();
    let store = open(copy.path(), PACK_BYTES);
    let cids = [*committed.cid(), *open_one.cid(), *torn.cid()];
    assert_eq!(store.has(&cids).await.unwrap(), [true, true, false]);
    assert_eq!(store.get(open_one.cid()).await.unwrap().unwrap(), open_one.data());
    assert!(pack.metadata().unwrap().len() < size - 4000, "the torn record is cut off");
    store.sweep(&live([&committed]), true).await.unwrap();
    assert_eq!(store.has(&cids).await.unwrap(), [true, true, false], "what was not committed is leased");
    // The lease is still known after another opening, and ends with `keep_leases` off.
    drop(store);
    let store = open(copy.path(), PACK_BYTES);
    store.sweep(&live([&committed]), true).await.unwrap();
    assert_eq!(store.has(&cids).await.unwrap(), [true, true, false]);
    store.sweep(&live([&committed]), false).await.unwrap();
    assert_eq!(store.has(&cids).await.unwrap(), [true, false, false]);
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.put(vec![torn.clone(), open_one.clone()]).await.unwrap().new_blocks, 2);
    session.commit().await.unwrap();
    assert_eq!(store.get(torn.cid()).await.unwrap().unwrap(), torn.data());
    let report = store.check(true).await.unwrap();
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    let stored = block(1, 60);
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![stored.clone()]).await.unwrap();
    session.commit().await.unwrap();
    for bit in 0..stored.data().len() * 8 {
        let mut data = stored.data().to_vec();
        data[bit / 8] ^= 1 << (bit % 8);
        damage(&store, stored.cid(), &data);
        assert!(matches!(store.get(stored.cid()).await, Err(StoreError::Corrupt { .. })), "bit {bit}");
        assert_eq!(store.check(true).await.unwrap().damaged.len(), 1);
    }
    damage(&store, stored.cid(), stored.data());
    assert_eq!(store.get(stored.cid()).await.unwrap().unwrap(), stored.data());
}

#[tokio::test]
async fn much_that_was_added_goes_to_the_disk_before_the_commit() {
    use shared::Chore;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    let session = store.begin(limits::LEASE).await.unwrap();
    let id = store.shared.state().next_session - 1;
    let put = |seeds: std::ops::Range<u32>| {
        let blocks = seeds.map(|seed| block(seed, 1 << 20).into_parts()).map(|(cid, data)| (*cid.hash(), data));
        store.shared.put(id, blocks.collect()).unwrap().1
    };
    assert_eq!(put(0..31), None);
    // Until somebody does it.
    assert_eq!(put(31..33), Some(Chore::WriteAhead));
    assert_eq!(put(33..34), Some(Chore::WriteAhead));
    store.shared.attend(Chore::WriteAhead).unwrap();
    assert_eq!(put(34..35), None);
    // It makes nothing durable by itself.
    assert_eq!(store.shared.index.count().unwrap(), 0);
    session.commit().await.unwrap();
    assert_eq!(store.shared.index.count().unwrap(), 35);
}

#[tokio::test]
async fn lost_packs_and_ends_are_told_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 20_000);
    let blocks: Vec<Block> = (0..10).map(|seed| block(seed, 9000)).collect();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(blocks.clone()).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    drop(store);
    let files = packs(folder.path());
    assert_eq!(files.len(), 4, "packs are rolled");
    fs::remove_file(&files[1]).unwrap();
    OpenOptions::new().write(true).open(&files[3]).unwrap().set_len(100).unwrap();
    fs::write(folder.path().join("blocks/leftover.tmp"), b"x").unwrap();
    let store = open(folder.path(), 20_000);
    for read_data in [false, true] {
        let report = store.check(read_data).await.unwrap();
        assert_eq!(report.damaged.len(), 4, "{report:?}");
        assert_eq!(report.problems.len(), 3, "{report:?}");
    }
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.put(blocks.clone()).await.unwrap().new_blocks, 4);
    session.commit().await.unwrap();
    for block in &blocks {
        assert_eq!(store.get(block.cid()).await.unwrap().unwrap(), block.data());
    }
    assert!(store.check(true).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn sweeping_gives_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 4 << 20);
    let blocks: Vec<Block> = (0..200).map(|seed| block(seed, 100_000)).collect();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(blocks.clone()).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let full = store.usage().await.unwrap();
    assert_eq!(full.bytes, 20_000_000);
    let kept: Vec<&Block> = blocks.iter().skip(50).step_by(3).collect();
    let swept = store.sweep(&live(kept.iter().copied()), true).await.unwrap();
    assert_eq!(swept.blocks, 150);
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.blocks, usage.bytes), (50, 5_000_000));
    assert!(swept.disk_bytes > 13_000_000 && usage.disk_bytes < 7_000_000, "{swept:?} {usage:?}");
    drop(store);
    let store = open(folder.path(), 4 << 20);
    for block in &kept {
        assert_eq!(store.get(block.cid()).await.unwrap().unwrap(), block.data());
    }
    let report = store.check(true).await.unwrap();
    assert!(report.blocks == 50 && report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
    store.sweep(&Live::default(), true).await.unwrap();
    assert!(packs(folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sweeping_goes_on_beside_adding_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 200_000);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sweeper = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut swept = 0;
            while !done.load(Ordering::Relaxed) {
                swept += store.sweep(&Live::default(), false).await.unwrap().blocks;
            }
            swept
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0..20 {
                let session = store.begin(limits::LEASE).await.unwrap();
                // Overlapping between tasks and rounds, so that known blocks are about to be swept.
                let mine: Vec<Block> = (0..10).map(|at| block((task + round + at) % 16, 20_000)).collect();
                session.put(mine.clone()).await.unwrap();
                session.commit().await.unwrap();
                for block in &mine {
                    assert_eq!(store.get(block.cid()).await.unwrap().unwrap(), block.data());
                    assert_eq!(session.hold(&[*block.cid()]).await.unwrap(), [true]);
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(sweeper.await.unwrap() > 0);
    let report = store.check(true).await.unwrap();
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn newer_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), PACK_BYTES));
    {
        let database = redb::Database::open(folder.path().join("index.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("format", 3).unwrap();
        transaction.commit().unwrap();
    }
    let refused = DiskStore::open(folder.path()).unwrap_err();
    assert!(matches!(refused, StoreError::NewerFormat { found: 3, known: 2, .. }), "{refused}");
}

/// What was stored before there were sums is found, and read by its hash.
#[tokio::test]
async fn an_index_of_format_1_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let [old, hurt, new] = [1, 2, 3].map(|seed| block(seed, 1000));
    let store = open(folder.path(), PACK_BYTES);
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![old.clone(), hurt.clone()]).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    close(store);
    {
        let database = redb::Database::open(folder.path().join("index.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let places = redb::TableDefinition::<&[u8], (u32, u64, u32, u32)>::new("places");
        let blocks = redb::TableDefinition::<&[u8], (u32, u64, u32)>::new("blocks");
        {
            use redb::ReadableTable as _;
            let mut rows = transaction.open_table(blocks).unwrap();
            for row in transaction.open_table(places).unwrap().iter().unwrap() {
                let (key, place) = row.unwrap();
                let (pack, offset, len, sum) = place.value();
                assert_ne!(sum, record::UNKNOWN);
                rows.insert(key.value(), (pack, offset, len)).unwrap();
            }
            let meta = redb::TableDefinition::<&str, u64>::new("meta");
            transaction.open_table(meta).unwrap().insert("format", 1).unwrap();
        }
        transaction.delete_table(places).unwrap();
        transaction.commit().unwrap();
    }
    for _ in 0..2 {
        let store = open(folder.path(), PACK_BYTES);
        assert_eq!(store.get(old.cid()).await.unwrap().unwrap(), *old.data());
        let session = store.begin(limits::LEASE).await.unwrap();
        session.put(vec![new.clone()]).await.unwrap();
        session.commit().await.unwrap();
        drop(session);
        close(store);
    }
    let store = open(folder.path(), PACK_BYTES);
    for lost in [&hurt, &new] {
        damage(&store, lost.cid(), b"other");
        assert!(matches!(store.get(lost.cid()).await.unwrap_err(), StoreError::Corrupt { .. }));
    }
    assert_eq!(store.get(old.cid()).await.unwrap().unwrap(), *old.data());
}

#[derive(Clone, Debug)]
enum Act {
    Put(Vec<u32>),
    Commit,
    Drop,
    Abort,
    /// Ends without any warning, and loses this many bytes of the last pack's unindexed end.
    Crash(u16),
    Reopen,
    Sweep(bool),
    /// The two halves of a sweep, with others between them.
    Doom(bool),
    RemoveDoomed,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => prop::collection::vec(0..40_u32, 1..8).prop_map(Act::Put),
        3 => Just(Act::Commit),
        1 => Just(Act::Drop),
        1 => Just(Act::Abort),
        2 => any::<u16>().prop_map(Act::Crash),
        1 => Just(Act::Reopen),
        2 => any::<bool>().prop_map(Act::Sweep),
        2 => any::<bool>().prop_map(Act::Doom),
        2 => Just(Act::RemoveDoomed),
    ];
    prop::collection::vec(act, 1..40)
}

/// What must be there, by seed.
#[derive(Debug, Default)]
struct Model {
    /// Committed and not swept: the blocks that pins reach, as far as a sweep is concerned.
    durable: HashSet<u32>,
    /// Leased for sure: the session ended on its own, or the store was closed in order.
    leased: HashSet<u32>,
    /// Part of the open session since its last commit, and all of it.
    fresh: HashSet<u32>,
    all: HashSet<u32>,
}

fn sized(seed: u32) -> Block {
    block(seed, 4 + 97 * seed as usize)
}

async fn act_out(acts: Vec<Act>) {
    let folder = tempfile::tempdir().unwrap();
    let pack_bytes = 20_000;
    let mut store = open(folder.path(), pack_bytes);
    let mut session = Some(store.begin(limits::LEASE).await.unwrap());
    let mut model = Model::default();
    for act in acts {
        match act {
            Act::Put(seeds) => {
                let session = session.as_ref().unwrap();
                session.put(seeds.iter().map(|seed| sized(*seed)).collect()).await.unwrap();
                model.fresh.extend(&seeds);
                model.all.extend(&seeds);
            }
            Act::Commit => {
                session.as_ref().unwrap().commit().await.unwrap();
                model.durable.extend(model.fresh.drain());
            }
            Act::Drop => {
                session = None;
                model.leased.extend(model.fresh.drain());
                model.all.clear();
            }
            Act::Abort => {
                session.take().unwrap().abort().await.unwrap();
                model.fresh.clear();
                model.all.clear();
            }
            Act::Crash(lost) => {
                store.shared.crashed.store(true, Ordering::Relaxed);
                session = None;
                crash(store);
                let ends: HashMap<u32, u64> = {
                    let (index, _) = index::Index::open(&folder.path().join("index.redb"), Access::Write).unwrap();
                    index.packs().unwrap().into_iter().map(|(pack, row)| (pack, row.end)).collect()
                };
                if let Some(last) = packs(folder.path()).last() {
                    let size = last.metadata().unwrap().len();
                    let pack = append::pack_number(last.file_name().unwrap().to_str().unwrap()).unwrap();
                    let kept = size.saturating_sub(u64::from(lost) % 6000).max(ends.get(&pack).copied().unwrap_or(0));
                    OpenOptions::new().write(true).open(last).unwrap().set_len(kept).unwrap();
                }
                model.fresh.clear();
                model.all.clear();
                store = open(folder.path(), pack_bytes);
            }
            Act::Reopen => {
                session = None;
                model.leased.extend(model.fresh.drain());
                model.all.clear();
                close(store);
                store = open(folder.path(), pack_bytes);
            }
            Act::RemoveDoomed => drop(store.remove_doomed().await.unwrap()),
            Act::Sweep(keep_leases) | Act::Doom(keep_leases) => {
                // Every other committed block is still pinned.
                model.durable.retain(|seed| seed % 2 == 0 || model.all.contains(seed));
                if !keep_leases {
                    model.leased.clear();
                }
                let pinned: Vec<Block> = (0..40).filter(|seed| seed % 2 == 0).map(sized).collect();
                store.doom(&live(&pinned), keep_leases).await.unwrap();
                if matches!(act, Act::Sweep(_)) {
                    store.remove_doomed().await.unwrap();
                }
                if session.is_none() {
                    let odd: Vec<Cid> = (0..40).filter(|seed| seed % 2 == 1).map(|seed| *sized(seed).cid()).collect();
                    let held = store.has(&odd).await.unwrap();
                    assert!(keep_leases || !held.contains(&true), "nothing dead is left");
                }
            }
        }
        if session.is_none() {
            session = Some(store.begin(limits::LEASE).await.unwrap());
        }
        for seed in model.durable.iter().chain(&model.leased).chain(&model.all) {
            let block = sized(*seed);
            assert_eq!(store.has(&[*block.cid()]).await.unwrap(), [true], "{seed} of {model:?}");
            assert_eq!(store.get(block.cid()).await.unwrap().unwrap(), block.data());
        }
    }
    let report = store.check(true).await.unwrap();
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
    // Whatever happened: every block can be added and read.
    let session = session.unwrap();
    session.put((0..40).map(sized).collect()).await.unwrap();
    session.commit().await.unwrap();
    for seed in 0..40 {
        assert_eq!(store.get(sized(seed).cid()).await.unwrap().unwrap(), sized(seed).data());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_committed_is_lost_and_nothing_is_poisoned(acts in acts()) {
        Runtime::new().unwrap().block_on(act_out(acts));
    }
}

#[tokio::test]
async fn what_is_given_up_is_so_on_the_disk_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 20_000);
    let (given_up, kept) = (block(1, 100), block(2, 100));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![given_up.clone()]).await.unwrap();
    let other = store.begin(limits::LEASE).await.unwrap();
    other.put(vec![kept.clone()]).await.unwrap();
    // Writes the leases of all sessions.
    other.commit().await.unwrap();
    session.abort().await.unwrap();
    drop((session, other));
    crash(store);
    let store = open(folder.path(), 20_000);
    store.doom(&live(std::slice::from_ref(&kept)), true).await.unwrap();
    store.remove_doomed().await.unwrap();
    assert_eq!(store.has(&[*given_up.cid(), *kept.cid()]).await.unwrap(), [false, true]);
}

#[test]
fn copies_never_go_where_a_sweep_cleans_up() {
    let acts = vec![
        Act::Put(vec![27, 35, 5, 9]),
        Act::Put(vec![10, 6, 36]),
        Act::Commit,
        Act::Put(vec![3, 33, 16, 20, 11]),
        Act::Crash(0),
        Act::Sweep(true),
    ];
    Runtime::new().unwrap().block_on(act_out(acts));
}
