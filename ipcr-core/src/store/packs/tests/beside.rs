//! What is done beside commits, sweeps and checks.

use super::*;

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
