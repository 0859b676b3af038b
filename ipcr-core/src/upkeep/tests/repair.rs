use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use cid::Cid;
use libp2p_identity::PeerId;

use super::{Home, data, folder, hub, layer};
use crate::event::Emitter;
use crate::pin::cache::CacheEntry;
use crate::pin::state::State;
use crate::port::exchange::Exchange;
use crate::port::memory::exchange::MemoryExchange;
use crate::tree::remake;
use crate::tree::tests::Hub;
use crate::upkeep::repair::{Plan, Repaired, Sources, plan};

async fn plan_of(home: &Home, damaged: &[Cid]) -> Plan {
    plan(&home.blocks, &home.tables, damaged.iter().copied()).await.unwrap()
}

/// Repairs with the help of `others`.
async fn repair(home: &Home, damaged: &[Cid], others: &[&Home]) -> Repaired {
    let exchange = MemoryExchange::new();
    for other in others {
        exchange.add(PeerId::random(), other.blocks.clone());
    }
    let exchange: Arc<dyn Exchange> = Arc::new(exchange);
    let sources = Sources {
        exchange: &exchange,
        hints: &[],
        stall: Duration::from_millis(50),
        share: true,
        events: Emitter::silent(),
    };
    plan_of(home, damaged).await.execute(&home.blocks, sources).await.unwrap()
}

async fn bytes(hub: &Hub, cids: &[Cid]) -> u64 {
    let mut bytes = 0;
    for cid in cids {
        bytes += data(hub, cid).await.len() as u64;
    }
    bytes
}

#[tokio::test]
async fn lost_blocks_come_from_another_holder_and_so_does_what_is_lost_below_them() {
    let hub = hub().await;
    let lost = [folder(&hub, "app", "1").await, layer(&hub, "app 1"), layer(&hub, "lib 1")];
    let (home, other) = (Home::of(&hub, &lost).await, Home::of(&hub, &[]).await);
    let mut lacking = plan_of(&home, &[]).await.lacking();
    lacking.sort();
    let mut known = [lost[0], lost[2]];
    known.sort();
    assert_eq!(lacking, known, "what is below the folder is not known yet");
    let repaired = repair(&home, &[], &[&other]).await;
    let fetched_bytes = bytes(&hub, &lost).await;
    assert_eq!(repaired, Repaired { fetched: 3, fetched_bytes, ..Repaired::default() });
    assert_eq!(home.lacks(&hub).await, []);
    assert_eq!(plan_of(&home, &[]).await.lacking(), []);
}

#[tokio::test]
async fn damaged_blocks_are_replaced() {
    let hub = hub().await;
    let (home, other) = (Home::of(&hub, &[]).await, Home::of(&hub, &[]).await);
    let hurt = layer(&hub, "app 2");
    home.damage(&hurt);
    let garbage = crate::dag::block::Block::raw(bytes::Bytes::from_static(b"garbage"));
    home.store.insert(garbage.clone());
    home.damage(garbage.cid());
    let repaired = repair(&home, &home.damaged().await, &[&other]).await;
    let fetched_bytes = bytes(&hub, &[hurt]).await;
    assert_eq!(repaired, Repaired { fetched: 1, fetched_bytes, garbage: true, ..Repaired::default() });
    assert_eq!(home.lacks(&hub).await, []);
}

#[tokio::test]
async fn derived_documents_are_made_again_without_anybody() {
    let hub = hub().await;
    let derived = remake::derived(&hub.reader, &hub.root).await.unwrap();
    let derived: Vec<Cid> = derived.iter().map(|block| *block.cid()).collect();
    assert!(derived.len() >= 3, "catalogue, names and layout files");
    let home = Home::of(&hub, &derived).await;
    let lost = home.lacks(&hub).await.len() as u64;
    let repaired = repair(&home, &[], &[]).await;
    assert_eq!(repaired, Repaired { made: lost, ..Repaired::default() });
    assert_eq!(home.lacks(&hub).await, []);
}

#[tokio::test]
async fn what_nobody_has_is_named() {
    let hub = hub().await;
    let lost = layer(&hub, "app 1");
    let (home, other) = (Home::of(&hub, &[lost]).await, Home::of(&hub, &[lost]).await);
    let repaired = repair(&home, &[], &[&other]).await;
    assert_eq!(repaired, Repaired { lost: vec![lost], ..Repaired::default() });
    let repaired = repair(&home, &[], &[]).await;
    assert_eq!(repaired, Repaired { lost: vec![lost], unasked: true, ..Repaired::default() });
}

#[tokio::test]
async fn of_what_others_pushed_only_what_is_damaged_is_lacking() {
    let hub = hub().await;
    let (missing, hurt, pinned) = (layer(&hub, "app 1"), layer(&hub, "app 2"), layer(&hub, "lib 1"));
    let home = Home::of(&hub, &[missing, pinned]).await;
    home.write(State { root: Some(hub.root), shared: true, ..State::default() }).await;
    assert_eq!(plan_of(&home, &[]).await.lacking(), []);
    home.damage(&hurt);
    assert_eq!(plan_of(&home, &home.damaged().await).await.lacking(), [hurt]);
    home.pin(&pinned).await;
    let mut lacking = plan_of(&home, &[hurt]).await.lacking();
    lacking.sort();
    let mut both = [hurt, pinned];
    both.sort();
    assert_eq!(lacking, both, "what this home tagged has to be here");
}

#[tokio::test]
async fn of_a_pulled_image_only_what_is_damaged_is_lacking() {
    let hub = hub().await;
    let (missing, hurt) = (layer(&hub, "app 1"), layer(&hub, "app 2"));
    let (home, other) = (Home::of(&hub, &[missing]).await, Home::of(&hub, &[]).await);
    home.write(State::default()).await;
    for tag in ["1", "2"] {
        let entry = CacheEntry { root: hub.root, size: 1, used: Utc::now(), counted: None };
        entry.write(&home.tables, &folder(&hub, "app", tag).await).await.unwrap();
    }
    home.damage(&hurt);
    let repaired = repair(&home, &home.damaged().await, &[&other]).await;
    assert_eq!((repaired.fetched, repaired.lost), (1, Vec::new()));
    assert_eq!(home.lacks(&hub).await, [missing]);
}
