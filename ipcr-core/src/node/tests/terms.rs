//! What is served, and how fast.

use std::num::NonZeroU64;

use super::*;
use crate::exchange::walk::reachable;

/// Bytes of each block.
const SIZE: usize = 64 << 10;

/// Fetches so many blocks from a node with `server` by one with `client`, and says how long it took.
async fn fetched(server: NodeConfig, client: NodeConfig, count: usize) -> Duration {
    let (server, store) = start(server).await;
    let (client, _) = start(client).await;
    let all = blocks(count, SIZE);
    all.iter().for_each(|block| store.insert(block.clone()));
    let session = client.open(request(all[0].cid(), vec![address(&server).await])).await.unwrap();
    let begin = Instant::now();
    for got in futures::future::join_all(all.iter().map(|block| session.fetch(block.cid()))).await {
        assert_eq!(got.unwrap().data().len(), SIZE);
    }
    let took = begin.elapsed();
    client.shutdown().await;
    server.shutdown().await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_keeps_to_its_limits() {
    // 3 MiB at 1 MiB a second. What goes at once at the beginning, and what a busy machine adds, is within the bounds.
    let limited = |limit: fn(&mut NodeConfig, Option<NonZeroU64>)| {
        let mut config = config(&[TCP]);
        limit(&mut config, NonZeroU64::new(1 << 20));
        config
    };
    let (least, most) = (Duration::from_millis(2300), Duration::from_secs(12));
    let upload = fetched(limited(|config, rate| config.upload = rate), config(&[TCP]), 48).await;
    assert!(upload > least && upload < most, "{upload:?} with a limit of what is sent");
    let download = fetched(config(&[TCP]), limited(|config, rate| config.download = rate), 48).await;
    assert!(download > least && download < most, "{download:?} with a limit of what is taken");
    let free = fetched(config(&[TCP]), config(&[TCP]), 48).await;
    assert!(free < least, "{free:?} without one");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_shared_is_served() {
    let own = OwnBlocks::default();
    let mut server = config(&[TCP]);
    server.share = Share::Own(own.clone());
    let (server, store) = start(server).await;
    let (client, _) = start(config(&[TCP])).await;
    let all = blocks(2, 1000);
    all.iter().for_each(|block| store.insert(block.clone()));
    own.set(reachable(&store, &[*all[0].cid()]).await.unwrap());
    let mut asked = request(all[0].cid(), vec![address(&server).await]);
    asked.stall = Duration::from_secs(2);
    let session = client.open(asked).await.unwrap();
    assert_eq!(session.fetch(all[0].cid()).await.unwrap().data(), all[0].data());
    assert_eq!(session.fetch(all[1].cid()).await.unwrap_err().kind(), crate::kind::ErrorKind::Unavailable);
    // It may be the registry's from now on.
    own.set(reachable(&store, &[*all[1].cid()]).await.unwrap());
    assert_eq!(session.fetch(all[1].cid()).await.unwrap().data(), all[1].data());
}
