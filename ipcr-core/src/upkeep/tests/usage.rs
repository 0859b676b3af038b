use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;

use super::{Home, folder, hub, layer};
use crate::dag::block::Block;
use crate::pin::cache::CacheEntry;
use crate::pin::state::State;
use crate::port::blocks::Swept;
use crate::tree::tests::remove_image;
use crate::upkeep::retain::CacheLimit;
use crate::upkeep::usage::{Measured, Share, measure};

async fn measured(home: &Home) -> Measured {
    measure(&home.blocks, &home.tables, CacheLimit { bytes: 1 << 30 }).await.unwrap()
}

#[tokio::test]
async fn a_registry_is_counted_once() {
    let hub = hub().await;
    let whole = measured(&Home::of(&hub, &[]).await).await;
    assert_eq!((whole.images, whole.tags, whole.pulled), (2, 3, 0));
    assert!(whole.own.blocks > 0 && whole.metadata.blocks > 0);
    let (own, metadata, garbage) = (whole.own, whole.metadata, whole.reclaimable);
    assert_eq!(own.blocks + metadata.blocks + garbage.blocks, whole.store.blocks);
    assert_eq!(own.bytes + metadata.bytes + garbage.bytes, whole.store.bytes);
    // A layer that only one tag has.
    let lost = layer(&hub, "app 1");
    let less = measured(&Home::of(&hub, &[lost]).await).await;
    let size = super::data(&hub, &lost).await.len() as u64;
    assert_eq!(less.own, Share { blocks: own.blocks - 1, bytes: own.bytes - size });
    assert_eq!((less.metadata, less.tags), (metadata, 3));
}

#[tokio::test]
async fn garbage_and_what_was_interrupted_are_counted_apart() {
    let hub = hub().await;
    let home = Home::of(&hub, &[]).await;
    let before = measured(&home).await;
    home.store.insert(Block::raw(Bytes::from_static(b"garbage")));
    let session = home.blocks.begin(Duration::from_secs(3600)).await.unwrap();
    session.put(vec![Block::raw(Bytes::from_static(b"interrupted"))]).await.unwrap();
    drop(session);
    let after = measured(&home).await;
    assert_eq!((after.own, after.metadata, after.cache), (before.own, before.metadata, Share::default()));
    assert_eq!(after.interrupted, Share { blocks: 1, bytes: 11 });
    let Swept { blocks, bytes, .. } = after.reclaimable;
    assert_eq!((blocks, bytes), (before.reclaimable.blocks + 2, before.reclaimable.bytes + 7 + 11));
}

#[tokio::test]
async fn a_pulled_image_counts_for_what_the_registry_has_not() {
    let mut hub = hub().await;
    let (pulled, root) = (folder(&hub, "lib", "1").await, hub.root);
    hub.edit(&[remove_image("lib")]).await.unwrap();
    let home = Home::of(&hub, &[]).await;
    let before = measured(&home).await;
    assert_eq!((before.images, before.tags, before.cache), (1, 2, Share::default()));
    let entry = CacheEntry { root, size: 1, used: Utc::now(), counted: None };
    entry.write(&home.tables, &pulled).await.unwrap();
    let after = measured(&home).await;
    assert_eq!((after.pulled, after.own), (1, before.own));
    assert_eq!(after.cache.blocks, before.reclaimable.blocks - after.reclaimable.blocks);
    assert_eq!(after.cache.bytes, before.reclaimable.bytes - after.reclaimable.bytes);
    // The base layer is the registry's own; without a registry it is the image's.
    home.write(State::default()).await;
    let alone = measured(&home).await;
    assert_eq!((alone.images, alone.tags, alone.own), (0, 0, Share::default()));
    assert!(alone.cache.bytes >= after.cache.bytes + b"base".len() as u64, "{alone:?} {after:?}");
}
