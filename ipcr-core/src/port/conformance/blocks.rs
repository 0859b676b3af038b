//! What every implementation of `port::blocks` must do.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use crate::dag::block::{Block, DAG_PB, IDENTITY, RAW};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::{BlockStore, Live, Put, StoreError};

/// An empty store under test.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn BlockStore>,
    /// Replaces the bytes of a committed block by others of the same length, behind the store's back.
    pub(crate) damage: Box<dyn Fn(&Cid, Bytes) + Send + Sync>,
    /// What has to live as long as the store.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) guard: Box<dyn Any + Send + Sync>,
}

/// Runs the whole suite, each case on a store of its own.
pub(crate) async fn run(make: impl AsyncFn() -> Fixture) {
    blocks_are_readable_at_once(&*make().await.store).await;
    codecs_play_no_part(&*make().await.store).await;
    identity_is_never_stored(&*make().await.store).await;
    known_blocks_are_not_new(&*make().await.store).await;
    limits_hold(&*make().await.store).await;
    sweeping_keeps_what_is_live(&*make().await.store).await;
    sweeping_spares_open_sessions(&*make().await.store).await;
    what_is_given_up_can_be_added_again(&*make().await.store).await;
    leases_outlive_dropped_sessions(&*make().await.store).await;
    aborting_drops_leases(&*make().await.store).await;
    holding_keeps_garbage(&*make().await.store).await;
    sessions_run_side_by_side(make().await.store).await;
    damage_is_found_and_mended(make().await).await;
}

fn block(seed: u32, len: usize) -> Block {
    let data: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(len).collect();
    Block::raw(data.into())
}

fn live(blocks: &[&Block]) -> Live {
    let mut live = Live::default();
    for block in blocks {
        live.insert(block.cid());
    }
    live
}

async fn holds(store: &dyn BlockStore, block: &Block) -> bool {
    let has = store.has(&[*block.cid()]).await.unwrap()[0];
    let size = u32::try_from(block.data().len()).unwrap();
    assert_eq!(store.sizes(&[*block.cid()]).await.unwrap(), [has.then_some(size)]);
    let got = store.get(block.cid()).await.unwrap();
    assert_eq!(has, got.is_some());
    assert!(got.is_none_or(|data| data == block.data()));
    has
}

async fn blocks_are_readable_at_once(store: &dyn BlockStore) {
    let (a, b, c) = (block(1, 10), block(2, 1 << 20), block(3, 0));
    assert!(!holds(store, &a).await);
    let session = store.begin(limits::LEASE).await.unwrap();
    let put = session.put(vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!(put, Put { new_blocks: 2, new_bytes: 10 + (1 << 20) });
    assert!(holds(store, &a).await && holds(store, &b).await && !holds(store, &c).await);
    session.commit().await.unwrap();
    session.put(vec![c.clone()]).await.unwrap();
    session.commit().await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let cids = [*c.cid(), *block(9, 9).cid(), *a.cid()];
    assert_eq!(store.has(&cids).await.unwrap(), [true, false, true]);
    assert!(store.has(&[]).await.unwrap().is_empty());
    let each = store.get_each(&cids).await.into_iter().map(|found| found.unwrap());
    assert_eq!(each.collect::<Vec<_>>(), [Some(c.data().clone()), None, Some(a.data().clone())]);
    assert!(store.get_each(&[]).await.is_empty());
    assert!(holds(store, &a).await && holds(store, &b).await && holds(store, &c).await);
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.blocks, usage.bytes), (3, 10 + (1 << 20)));
    let report = store.check(true).await.unwrap();
    assert_eq!((report.blocks, report.bytes_read), (3, 10 + (1 << 20)));
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
}

async fn codecs_play_no_part(store: &dyn BlockStore) {
    let node = Block::dag_pb(Bytes::from_static(b"\x0a\x02\x08\x01"));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![node.clone()]).await.unwrap();
    session.commit().await.unwrap();
    let hash = *node.cid().hash();
    let spellings = [Cid::new_v0(hash).unwrap(), Cid::new_v1(DAG_PB, hash), Cid::new_v1(RAW, hash)];
    assert_eq!(store.has(&spellings).await.unwrap(), [true; 3]);
    for cid in spellings {
        assert_eq!(store.get(&cid).await.unwrap().unwrap(), node.data());
    }
    let again = Block::verify(spellings[0], node.data().clone()).unwrap();
    assert_eq!(session.put(vec![again]).await.unwrap(), Put::default());
}

async fn identity_is_never_stored(store: &dyn BlockStore) {
    let cid = |bytes: &[u8]| Cid::new_v1(RAW, Multihash::wrap(IDENTITY, bytes).unwrap());
    let inline = cid(b"inline");
    assert_eq!(store.has(&[inline]).await.unwrap(), [true]);
    assert_eq!(store.sizes(&[inline]).await.unwrap(), [Some(6)]);
    assert_eq!(store.get(&inline).await.unwrap().unwrap(), &b"inline"[..]);
    assert_eq!(store.get_each(&[inline]).await.remove(0).unwrap().unwrap(), &b"inline"[..]);
    let session = store.begin(limits::LEASE).await.unwrap();
    let block = Block::verify(inline, Bytes::from_static(b"inline")).unwrap();
    assert_eq!(session.put(vec![block]).await.unwrap(), Put::default());
    assert_eq!(session.hold(&[inline]).await.unwrap(), [true]);
    session.commit().await.unwrap();
    assert_eq!(store.usage().await.unwrap().blocks, 0);
}

async fn known_blocks_are_not_new(store: &dyn BlockStore) {
    let (a, b) = (block(1, 100), block(2, 100));
    let one = store.begin(limits::LEASE).await.unwrap();
    let two = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(one.put(vec![a.clone(), a.clone()]).await.unwrap(), Put { new_blocks: 1, new_bytes: 100 });
    assert_eq!(two.put(vec![a.clone(), b.clone()]).await.unwrap(), Put { new_blocks: 1, new_bytes: 100 });
    one.commit().await.unwrap();
    two.commit().await.unwrap();
    assert_eq!(one.put(vec![a, b]).await.unwrap(), Put::default());
    assert_eq!(store.usage().await.unwrap().bytes, 200);
}

async fn limits_hold(store: &dyn BlockStore) {
    let session = store.begin(limits::LEASE).await.unwrap();
    let largest = block(1, limits::BLOCK_BYTES);
    session.put(vec![largest.clone()]).await.unwrap();
    session.commit().await.unwrap();
    assert!(holds(store, &largest).await);
    // `Block::raw` does not look at sizes: the store has to.
    let larger = block(2, limits::BLOCK_BYTES + 1);
    let refused = session.put(vec![larger.clone()]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused:?}");
    assert_eq!(store.has(&[*larger.cid()]).await.unwrap(), [false]);
}

async fn sweeping_keeps_what_is_live(store: &dyn BlockStore) {
    let blocks: Vec<Block> = (0..50).map(|seed| block(seed, 1000)).collect();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(blocks.clone()).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let kept: Vec<&Block> = blocks.iter().step_by(5).collect();
    let swept = store.sweep(&live(&kept), true).await.unwrap();
    assert_eq!((swept.blocks, swept.bytes), (40, 40_000));
    for (at, block) in blocks.iter().enumerate() {
        assert_eq!(holds(store, block).await, at % 5 == 0);
    }
    assert_eq!(store.usage().await.unwrap().blocks, 10);
    // What was swept can come back.
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.put(blocks.clone()).await.unwrap().new_blocks, 40);
    session.commit().await.unwrap();
    drop(session);
    for block in &blocks {
        assert!(holds(store, block).await);
    }
    let swept = store.sweep(&Live::default(), false).await.unwrap();
    assert_eq!(swept.blocks, 50);
    assert_eq!(store.usage().await.unwrap().blocks, 0);
    assert_eq!(store.sweep(&Live::default(), false).await.unwrap().blocks, 0);
}

async fn sweeping_spares_open_sessions(store: &dyn BlockStore) {
    let (committed, open) = (block(1, 100), block(2, 100));
    let session = store.begin(Duration::ZERO).await.unwrap();
    session.put(vec![committed.clone()]).await.unwrap();
    session.commit().await.unwrap();
    session.put(vec![open.clone()]).await.unwrap();
    assert_eq!(store.sweep(&Live::default(), false).await.unwrap().blocks, 0);
    assert!(holds(store, &committed).await && holds(store, &open).await);
    session.commit().await.unwrap();
    assert_eq!(store.sweep(&Live::default(), false).await.unwrap().blocks, 0);
    drop(session);
    assert_eq!(store.sweep(&Live::default(), true).await.unwrap().blocks, 2);
}

async fn what_is_given_up_can_be_added_again(store: &dyn BlockStore) {
    let blocks: Vec<Block> = (0..4).map(|seed| block(seed, 1000)).collect();
    let cids: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(blocks.clone()).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let open = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(open.hold(&cids[3..]).await.unwrap(), [true]);
    store.doom(&live(&[&blocks[2]]), false).await.unwrap();
    assert_eq!(store.has(&cids).await.unwrap(), [false, false, true, true]);
    assert_eq!(store.sizes(&cids).await.unwrap(), [None, None, Some(1000), Some(1000)]);
    // Whoever adds one of them now, and is done before it would have gone, keeps it.
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.hold(&cids[..1]).await.unwrap(), [false]);
    assert_eq!(session.put(vec![blocks[0].clone()]).await.unwrap().new_blocks, 1);
    session.commit().await.unwrap();
    drop((session, open));
    let swept = store.remove_doomed().await.unwrap();
    assert_eq!((swept.blocks, swept.bytes), (1, 1000));
    assert_eq!(store.has(&cids).await.unwrap(), [true, false, true, true]);
    assert_eq!(store.get(&cids[0]).await.unwrap().unwrap(), blocks[0].data());
    assert_eq!(store.remove_doomed().await.unwrap().blocks, 0);
    // What is given up and not removed is held again, unless it is given up again.
    store.doom(&Live::default(), false).await.unwrap();
    store.doom(&live(&[&blocks[0]]), false).await.unwrap();
    assert_eq!(store.remove_doomed().await.unwrap().blocks, 2);
    assert_eq!(store.has(&cids).await.unwrap(), [true, false, false, false]);
    // So it is when nobody is going to remove it.
    store.doom(&Live::default(), false).await.unwrap();
    assert_eq!(store.has(&cids[..1]).await.unwrap(), [false]);
    store.spare_doomed().await.unwrap();
    assert_eq!(store.has(&cids[..1]).await.unwrap(), [true]);
    assert_eq!(store.remove_doomed().await.unwrap().blocks, 0);
    assert_eq!(store.get(&cids[0]).await.unwrap().unwrap(), blocks[0].data());
}

async fn leases_outlive_dropped_sessions(store: &dyn BlockStore) {
    let (committed, leased, expired) = (block(1, 100), block(2, 100), block(3, 100));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![committed.clone()]).await.unwrap();
    session.commit().await.unwrap();
    session.put(vec![leased.clone()]).await.unwrap();
    drop(session);
    let session = store.begin(Duration::ZERO).await.unwrap();
    session.put(vec![expired.clone()]).await.unwrap();
    drop(session);
    assert!(holds(store, &leased).await && holds(store, &expired).await);
    let without = store.weigh(&live(&[&committed]), false).await.unwrap();
    let with = store.weigh(&live(&[&committed]), true).await.unwrap();
    assert_eq!(((without.blocks, without.bytes), (with.blocks, with.bytes)), ((2, 200), (1, 100)));
    store.sweep(&Live::default(), true).await.unwrap();
    assert!(!holds(store, &committed).await, "the lease covers what was added after the commit");
    assert!(holds(store, &leased).await, "the lease still runs");
    assert!(!holds(store, &expired).await, "the lease is over");
    store.sweep(&Live::default(), false).await.unwrap();
    assert!(!holds(store, &leased).await);
}

async fn aborting_drops_leases(store: &dyn BlockStore) {
    let (committed, given_up, shared) = (block(1, 100), block(2, 100), block(3, 100));
    let other = store.begin(limits::LEASE).await.unwrap();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![committed.clone()]).await.unwrap();
    session.commit().await.unwrap();
    session.put(vec![given_up.clone(), shared.clone()]).await.unwrap();
    other.put(vec![shared.clone()]).await.unwrap();
    session.abort().await.unwrap();
    store.sweep(&live(&[&committed]), true).await.unwrap();
    assert!(holds(store, &committed).await && holds(store, &shared).await);
    assert!(!holds(store, &given_up).await);
    other.commit().await.unwrap();
    drop(other);
    assert!(holds(store, &shared).await);
}

async fn holding_keeps_garbage(store: &dyn BlockStore) {
    let (held, garbage, missing) = (block(1, 100), block(2, 100), block(3, 100));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![held.clone(), garbage.clone()]).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.hold(&[*missing.cid(), *held.cid()]).await.unwrap(), [false, true]);
    store.sweep(&Live::default(), false).await.unwrap();
    assert!(holds(store, &held).await && !holds(store, &garbage).await && !holds(store, &missing).await);
    drop(session);
    store.sweep(&Live::default(), true).await.unwrap();
    assert!(holds(store, &held).await, "what a dropped session held is leased like what it put");
}

async fn sessions_run_side_by_side(store: Arc<dyn BlockStore>) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let session = store.begin(limits::LEASE).await.unwrap();
            for batch in 0..5 {
                // Half of the blocks are those of every task.
                let mine = (0..4).map(|at| block(1000 * (task + 1) + 10 * batch + at, 2000));
                let common = (0..4).map(|at| block(10 * batch + at, 3000));
                session.put(mine.chain(common).collect()).await.unwrap();
                if batch % 2 == task % 2 {
                    session.commit().await.unwrap();
                }
            }
            session.commit().await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.blocks, usage.bytes), (8 * 20 + 20, 8 * 20 * 2000 + 20 * 3000));
    let report = store.check(true).await.unwrap();
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
}

async fn damage_is_found_and_mended(fixture: Fixture) {
    let store = &*fixture.store;
    let (hurt, well) = (block(1, 5000), block(2, 5000));
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![hurt.clone(), well.clone()]).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    let mut bytes = hurt.data().to_vec();
    bytes[4321] ^= 1;
    (fixture.damage)(hurt.cid(), bytes.into());
    let report = store.check(true).await.unwrap();
    assert_eq!(report.damaged.iter().map(Cid::hash).collect::<Vec<_>>(), [hurt.cid().hash()]);
    let refused = store.get(hurt.cid()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }) && refused.kind() == ErrorKind::Integrity);
    assert_eq!(store.get(well.cid()).await.unwrap().unwrap(), well.data());
    // A damaged block does not count as held, so that it is fetched and stored again.
    assert_eq!(store.has(&[*hurt.cid(), *well.cid()]).await.unwrap(), [false, true]);
    assert_eq!(store.sizes(&[*hurt.cid(), *well.cid()]).await.unwrap(), [None, Some(5000)]);
    let session = store.begin(limits::LEASE).await.unwrap();
    assert_eq!(session.hold(&[*hurt.cid()]).await.unwrap(), [false]);
    assert_eq!(session.put(vec![hurt.clone()]).await.unwrap().new_blocks, 1);
    session.commit().await.unwrap();
    assert_eq!(store.get(hurt.cid()).await.unwrap().unwrap(), hurt.data());
    assert_eq!(store.has(&[*hurt.cid()]).await.unwrap(), [true]);
    assert!(store.check(true).await.unwrap().damaged.is_empty());
}
