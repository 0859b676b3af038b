//! What is done beside commits, sweeps and checks.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use super::*;
use crate::store::packs::record::Place;
use crate::store::packs::shared::lock;

/// A store with these blocks, committed, and its folder.
async fn stored(blocks: &[Block]) -> (DiskStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    add(&store, blocks).await;
    (store, folder)
}

async fn add(store: &DiskStore, blocks: &[Block]) {
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(blocks.to_vec()).await.unwrap();
    session.commit().await.unwrap();
}

#[test]
fn sizes_are_known_while_blocks_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    let shared = &store.shared;
    let session = shared.state().begin(limits::LEASE);
    let mut asked = 0;
    for seed in 0..100 {
        let (cid, data) = block(seed, 1000).into_parts();
        shared.put(session, vec![(*cid.hash(), data)]).unwrap();
        std::thread::scope(|scope| {
            let committing = scope.spawn(|| shared.flush(Some(session)).unwrap());
            while !committing.is_finished() {
                assert_eq!(shared.sizes(&[*cid.hash()]).unwrap(), [Some(1000)], "block {seed}");
                asked += 1;
            }
        });
    }
    assert!(asked >= 100, "asked {asked} times");
}

#[tokio::test]
async fn asking_for_a_block_takes_it_out_of_no_session() {
    let kept = block(1, 1000);
    let (store, _folder) = stored(&[]).await;
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(vec![kept.clone()]).await.unwrap();
    session.commit().await.unwrap();
    damage(&store, kept.cid(), b"other");
    assert!(matches!(store.get(kept.cid()).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(session.hold(&[*kept.cid(), *block(2, 1000).cid()]).await.unwrap(), [false, false]);
    assert_eq!(store.sweep(&Live::default(), false).await.unwrap().blocks, 0);
    drop(session);
    assert_eq!(store.sweep(&Live::default(), false).await.unwrap().blocks, 1);
}

/// Where the file system has no holes, what is alive in a pack is copied: by a list that was made before.
#[tokio::test]
async fn copying_a_pack_finds_what_was_added_anew_and_takes_it_for_well() {
    for committed in [true, false] {
        let [well, mended, hurt] = [1, 2, 3].map(|seed| block(seed, 1000));
        let (store, folder) = stored(&[well.clone(), mended.clone()]).await;
        let shared = &store.shared;
        lock(&shared.appender).roll();
        add(&store, std::slice::from_ref(&hurt)).await;
        lock(&shared.appender).roll();
        let keys = [&well, &mended, &hurt].map(|block| *block.cid().hash());
        let places = shared.index.places(&keys).unwrap();
        let places: Vec<(Key, Place)> = keys.into_iter().zip(places.into_iter().flatten()).collect();
        assert_eq!(places.iter().map(|(_, place)| place.pack).collect::<Vec<_>>(), [1, 1, 2]);
        for lost in [&mended, &hurt] {
            damage(&store, lost.cid(), b"other");
            assert!(matches!(store.get(lost.cid()).await, Err(StoreError::Corrupt { .. })));
        }
        let session = store.begin(limits::LEASE).await.unwrap();
        assert_eq!(session.put(vec![mended.clone()]).await.unwrap().new_blocks, 1);
        if committed {
            session.commit().await.unwrap();
        }
        sweep::rewrite(shared, 1, &places[..2]).unwrap();
        sweep::rewrite(shared, 2, &places[2..]).unwrap();
        assert_eq!(store.has(&[*well.cid(), *mended.cid(), *hurt.cid()]).await.unwrap(), [true, true, false]);
        for block in [&well, &mended] {
            assert_eq!(store.get(block.cid()).await.unwrap().unwrap(), block.data());
        }
        let names: Vec<_> = packs(folder.path()).iter().map(|pack| pack.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["00000002.pack", "00000003.pack"], "what is damaged stays where it is");
        assert_eq!(store.check(true).await.unwrap().damaged, [*hurt.cid()]);
    }
}

#[test]
fn a_check_finds_nothing_wrong_with_what_others_do_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    // A pack for each block, so that packs come and go all the time.
    let store = open(folder.path(), 100);
    let shared = &store.shared;
    let done = AtomicBool::new(false);
    let (added, swept) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut reports = Vec::new();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let session = shared.state().begin(limits::LEASE);
                let blocks = (0..8).map(|seed| block(seed, 100).into_parts()).map(|(cid, data)| (*cid.hash(), data));
                let put = shared.put(session, blocks.collect()).unwrap().0;
                shared.flush(Some(session)).unwrap();
                shared.state().abort(session);
                added.fetch_add(put.new_blocks, Ordering::Relaxed);
            }
        });
        let sweeping = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sweep::doom(shared, &Live::default(), false).unwrap();
                swept.fetch_add(sweep::remove_doomed(shared).unwrap().blocks, Ordering::Relaxed);
            }
        });
        let busy = |count: &AtomicU64| count.load(Ordering::Relaxed) >= 400;
        let begun = Instant::now();
        let stopped = || adding.is_finished() || sweeping.is_finished() || begun.elapsed() > Duration::from_secs(60);
        while !(busy(&added) && busy(&swept) && reports.len() > 50 || stopped()) {
            reports.push(check::check(shared, reports.len().is_multiple_of(10)));
        }
        done.store(true, Ordering::Relaxed);
    });
    let done = [reports.len() as u64, added.into_inner(), swept.into_inner()];
    let enough = done.iter().zip([10, 100, 100]).all(|(done, least)| *done > least);
    assert!(enough, "{done:?} checks, blocks added and swept");
    for report in reports {
        let report = report.unwrap();
        assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn what_is_added_anew_while_a_check_reads_on_is_not_noted() {
    let [mended, hurt] = [1, 2].map(|seed| block(seed, 1000));
    let (store, folder) = stored(&[mended.clone(), hurt.clone()]).await;
    let cids = [*mended.cid(), *hurt.cid()];
    for cid in &cids {
        damage(&store, cid, b"other");
        assert!(matches!(store.get(cid).await, Err(StoreError::Corrupt { .. })));
    }
    add(&store, std::slice::from_ref(&mended)).await;
    let mut found = cids.map(|cid| *cid.hash()).to_vec();
    check::note(&store.shared, &mut found, true);
    assert_eq!(found, [*hurt.cid().hash()]);
    assert_eq!(store.has(&cids).await.unwrap(), [true, false]);
    close(store);
    assert_eq!(open(folder.path(), PACK_BYTES).has(&cids).await.unwrap(), [true, false]);
}

#[test]
fn what_is_written_meanwhile_hides_nothing_of_what_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), PACK_BYTES);
    let shared = &store.shared;
    let put = |session: u64, seeds: std::ops::Range<u32>| {
        let blocks = seeds.map(|seed| block(seed, 1 << 20).into_parts()).map(|(cid, data)| (*cid.hash(), data));
        shared.put(session, blocks.collect()).unwrap();
    };
    let session = shared.state().begin(limits::LEASE);
    put(session, 0..8);
    shared.flush(Some(session)).unwrap();
    shared.state().abort(session);
    lock(&shared.appender).roll();
    sweep::doom(shared, &Live::default(), false).unwrap();
    let session = shared.state().begin(limits::LEASE);
    let swept = std::thread::scope(|scope| {
        let flush = lock(&shared.flush);
        let removing = scope.spawn(|| sweep::remove_doomed(shared).unwrap());
        // It has begun, and waits for its turn.
        while shared.sweeping.try_lock().is_ok() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(50));
        put(session, 10..22);
        drop(flush);
        removing.join().unwrap()
    });
    assert_eq!((swept.blocks, swept.bytes), (8, 8 << 20));
    assert!((8 << 20..9 << 20).contains(&swept.disk_bytes), "{swept:?}");
}
