//! Pullers of one root, on real nodes.

use std::num::NonZeroU64;

use cid::Cid;

use super::*;
use crate::exchange::reader::Reader;
use crate::exchange::walk::reachable;
use crate::limits;
use crate::node::swarm::{self, AskError};
use crate::port::blocks::ReadBlocks as _;

/// A reader that fetches from `hint`, and keeps what comes in the node's store.
async fn reader(node: &Arc<Node>, store: &MemoryBlocks, root: &Cid, hint: Multiaddr, share: bool) -> Reader {
    let mut request = request(root, vec![hint]);
    request.share = share;
    let fetch = node.open(request).await.unwrap();
    let keep = store.begin(limits::LEASE).await.unwrap();
    Reader::new(Arc::new(store.clone()), Some(Arc::from(keep)), Some(fetch))
}

/// Reads all blocks as a file would be: in order, a window of them at a time.
async fn read_all(reader: &Reader, blocks: &[Block]) {
    use futures::StreamExt as _;
    let cids: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let reads = futures::stream::iter(cids).map(|cid| {
        let reader = reader.clone();
        async move { reader.read(&cid).await }
    });
    let mut reads = reads.buffered(48);
    let mut count = 0;
    while let Some(read) = reads.next().await {
        assert_eq!(read.unwrap(), *blocks[count].data());
        count += 1;
    }
    assert_eq!(count, blocks.len());
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pullers_of_one_root_trade_what_they_have() {
    const PULLERS: usize = 4;
    // Bytes in a second. A holder that gives as fast as it is asked is asked for everything: it is its uplink that is scarce.
    const UPLINK: NonZeroU64 = NonZeroU64::new(16 << 20).unwrap();
    let mut scarce = config(&[TCP]);
    scarce.upload = Some(UPLINK);
    let (origin, store) = start(scarce).await;
    let all = blocks(400, 128 << 10);
    all.iter().for_each(|block| store.insert(block.clone()));
    let root = *all[0].cid();
    let hint = address(&origin).await;
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..PULLERS {
        let (all, hint) = (all.clone(), hint.clone());
        pulls.spawn(async move {
            let (node, store) = start(config(&[TCP])).await;
            let reader = reader(&node, &store, &root, hint, true).await;
            read_all(&reader, &all).await;
            (node, reader)
        });
    }
    let pulled = pulls.join_all().await;
    let bytes: u64 = all.iter().map(|block| block.data().len() as u64).sum();
    let traded: u64 = pulled.iter().map(|(node, _)| node.traffic().served_bytes).sum();
    let uploaded = origin.traffic().served_bytes;
    assert!(uploaded < 2 * bytes, "the holder uploaded {uploaded} bytes of {bytes}");
    assert!(traded > 2 * bytes, "only {traded} bytes came from each other");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_an_unfinished_session_are_served() {
    let (origin, store) = start(config(&[TCP])).await;
    let all = blocks(2, 1000);
    store.insert(all[0].clone());
    let root = *all[0].cid();
    let (between, between_store) = start(config(&[TCP])).await;
    let (last, last_store) = start(config(&[TCP])).await;
    let hint = address(&origin).await;
    let first = reader(&between, &between_store, &root, hint, true).await;
    first.read(&root).await.unwrap();
    // It knows nobody but the one that fetches itself, and asks for what that does not have yet.
    let second = reader(&last, &last_store, &root, address(&between).await, true).await;
    let later = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        store.insert(all[1].clone());
        origin.blocks_added();
    };
    let (one, other, ()) = tokio::join!(first.read(all[1].cid()), second.read(all[1].cid()), later);
    assert_eq!((one.unwrap(), other.unwrap()), (all[1].data().clone(), all[1].data().clone()));
    assert_eq!(last.traffic().peers, 1);
    assert_eq!(second.read(&root).await.unwrap(), *all[0].data());
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_tell_who_fetches_as_long_as_they_are_there() {
    let (origin, store) = start(config(&[TCP])).await;
    let block = blocks(1, 1000).remove(0);
    store.insert(block.clone());
    let (asker, _) = start(config(&[TCP])).await;
    let (fetcher, _) = start(config(&[TCP, "/ip6/::1/tcp/0"])).await;
    let hub = |node: &Arc<Node>| node.online.as_ref().unwrap().hub.clone();
    for node in [&asker, &fetcher] {
        hub(node).dial(origin.peer_id(), &origin.addresses().await).await.unwrap();
    }
    let ask = async |root: &Cid| swarm::ask(&hub(&asker), &origin.peer_id(), root, None).await;
    assert!(ask(block.cid()).await.unwrap().peers.is_empty());
    let strange = *blocks(1, 77)[0].cid();
    assert!(matches!(ask(&strange).await, Err(AskError::Unknown)));

    let elsewhere: Multiaddr = "/ip4/127.0.0.9/tcp/4001".parse().unwrap();
    let said = [fetcher.addresses().await, vec![elsewhere]].concat();
    let told = swarm::ask(&hub(&fetcher), &origin.peer_id(), block.cid(), Some(&said)).await.unwrap();
    assert!(told.peers.is_empty() && !told.fetching, "{told:?}");
    let told = ask(block.cid()).await.unwrap().peers;
    let expected: Vec<Multiaddr> = fetcher.addresses().await.iter().map(addresses::without_peer).collect();
    let expected: Vec<Multiaddr> = expected.into_iter().filter(|one| one.to_string().contains("127.0.0.1")).collect();
    assert_eq!(told, [Provider { peer: fetcher.peer_id(), addresses: expected }]);

    let gone = fetcher.peer_id();
    fetcher.shutdown().await;
    drop(fetcher);
    let origin_hub = hub(&origin);
    until("the fetcher is disconnected", || origin_hub.epoch(&gone).is_none()).await;
    assert!(ask(block.cid()).await.unwrap().peers.is_empty());

    // Whoever asks all the time is put off.
    let mut busy = false;
    for _ in 0..200 {
        busy |= matches!(ask(block.cid()).await, Err(AskError::Busy));
    }
    assert!(busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_share_is_not_told_of_and_serves_nothing_that_it_fetched() {
    let (origin, store) = start(config(&[TCP])).await;
    let all = blocks(3, 1000);
    all[..2].iter().for_each(|block| store.insert(block.clone()));
    let root = *all[0].cid();
    let (quiet, quiet_store) = start(config(&[TCP])).await;
    quiet_store.insert(all[2].clone());
    let hint = address(&origin).await;
    let reader = reader(&quiet, &quiet_store, &root, hint, false).await;
    reader.read(all[1].cid()).await.unwrap();
    let origin_bitswap = origin.online.as_ref().unwrap().bitswap.clone();
    let quiet_hub = quiet.online.as_ref().unwrap().hub.clone();
    until("both speak the protocol", || !quiet_hub.speakers(&swarm::PROTOCOL).is_empty()).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (asker, _) = start(config(&[TCP])).await;
    let hub = &asker.online.as_ref().unwrap().hub;
    hub.dial(origin.peer_id(), &origin.addresses().await).await.unwrap();
    let told = swarm::ask(hub, &origin.peer_id(), &root, None).await.unwrap();
    assert!(told.peers.is_empty(), "{told:?}");
    assert!(origin_bitswap.hub().epoch(&quiet.peer_id()).is_some());

    // What it held before, it serves.
    let session = asker.open(request(all[2].cid(), vec![address(&quiet).await])).await.unwrap();
    assert_eq!(session.fetch(all[2].cid()).await.unwrap(), all[2]);
    assert!(quiet_store.has(&[*all[1].cid()]).await.unwrap()[0]);
    let fetched = tokio::time::timeout(Duration::from_secs(1), session.fetch(all[1].cid())).await;
    assert!(fetched.is_err(), "what it fetched was served");
    // Nor does it say that it holds it, until it is its registry's own.
    let ask = async || swarm::ask(hub, &quiet.peer_id(), all[1].cid(), None).await;
    assert!(matches!(ask().await, Err(AskError::Unknown)));
    assert!(quiet.withholds());
    quiet.release_own(&reachable(&quiet_store, &[*all[1].cid()]).await.unwrap());
    assert!(!quiet.withholds() && ask().await.is_ok());
    quiet.blocks_added();
    assert_eq!(session.fetch(all[1].cid()).await.unwrap(), all[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_drips_does_not_set_the_pace() {
    // A message of four blocks each 0.8 s: never so long without any that it is given up.
    const DRIP: NonZeroU64 = NonZeroU64::new(160 << 10).unwrap();
    let mut dripping = config(&[TCP]);
    dripping.upload = Some(DRIP);
    let all = blocks(480, 32 << 10);
    let (slow, slow_store) = start(dripping).await;
    let (fast, fast_store) = start(config(&[TCP])).await;
    all.iter().for_each(|block| slow_store.insert(block.clone()));
    all.iter().for_each(|block| fast_store.insert(block.clone()));
    let (node, store) = start(config(&[TCP])).await;
    let began = Instant::now();
    let session = node.open(request(all[0].cid(), vec![address(&slow).await, address(&fast).await])).await.unwrap();
    let keep = store.begin(limits::LEASE).await.unwrap();
    read_all(&Reader::new(Arc::new(store), Some(Arc::from(keep)), Some(session)), &all).await;
    // Whoever reads in order would wait for it all the time: half of all are asked of it.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn fellows_that_fail_are_not_waited_for_for_ever() {
    let (origin, store) = start(config(&[TCP])).await;
    let all = blocks(200, 64 << 10);
    all.iter().for_each(|block| store.insert(block.clone()));
    let root = *all[0].cid();
    let hint = address(&origin).await;
    // One that wants everything, says that it has asked for it already, and never gets anything.
    let (idle, idle_store) = start(config(&[TCP])).await;
    let idle_session = idle.open(request(&root, vec![])).await.unwrap();
    let wishes = all.clone();
    let wishing = tokio::spawn(async move {
        futures::future::join_all(wishes.iter().map(|block| idle_session.fetch(block.cid()))).await
    });
    let (node, store) = start(config(&[TCP])).await;
    let reader = reader(&node, &store, &root, hint, true).await;
    let hub = &node.online.as_ref().unwrap().hub;
    hub.dial(idle.peer_id(), &idle.addresses().await).await.unwrap();
    let idle_hub = &idle.online.as_ref().unwrap().hub;
    let addresses = idle.addresses().await;
    until("they speak the protocol", || !idle_hub.speakers(&swarm::PROTOCOL).is_empty()).await;
    // The other is told that this is a fellow, and this that the other is.
    swarm::ask(idle_hub, &node.peer_id(), &root, Some(&addresses)).await.unwrap();
    let started = Instant::now();
    read_all(&reader, &all).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // What came meanwhile the other got from this one.
    let got = wishing.await.unwrap();
    assert!(got.iter().all(Result::is_ok));
    drop(idle_store);
}
