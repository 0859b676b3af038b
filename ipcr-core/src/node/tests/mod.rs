mod terms;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use libp2p_identity::Keypair;

use super::*;
use crate::dag::block::Block;
use crate::event::{Emitter, Event, Warning};
use crate::identity::RegistryKey;
use crate::naming::record::SignedRecord;
use crate::port::announce::Announce as _;
use crate::port::blocks::{Live, StoreError, StoreReport, StoreSession, Swept, Usage};
use crate::port::conformance;
use crate::port::dns::{DnsError, Security, TxtAnswer};
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::records::MemoryRecords;
use crate::port::memory::routing::MemoryRouting;
use crate::port::records::{NameRecords as _, RecordQuery};

/// A resolver that knows nothing.
#[derive(Debug)]
struct NoDns;

#[async_trait]
impl Dns for NoDns {
    async fn txt(&self, _: &str) -> Result<TxtAnswer, DnsError> {
        Ok(TxtAnswer { records: Vec::new(), security: Security::Insecure, ttl: 0 })
    }

    async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, DnsError> {
        Ok(Vec::new())
    }
}

/// A shelf with nothing on it.
#[derive(Debug)]
struct NoRecords;

#[async_trait]
impl RecordShelf for NoRecords {
    async fn record(&self, _: &[u8]) -> Option<Bytes> {
        None
    }
}

fn config(listen: &[&str]) -> NodeConfig {
    let mut config = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Loopback);
    config.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    config
}

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

async fn start(config: NodeConfig) -> (Arc<Node>, MemoryBlocks) {
    let store = MemoryBlocks::new();
    let node = Node::start(config, Arc::new(store.clone()), Arc::new(NoRecords), Arc::new(NoDns)).await.unwrap();
    (node, store)
}

async fn address(node: &Node) -> Multiaddr {
    node.addresses().await.first().cloned().expect("the node listens")
}

fn blocks(count: usize, size: usize) -> Vec<Block> {
    let block = |index: usize| {
        let mut data = vec![u8::try_from(index % 251).unwrap(); size];
        data[..8].copy_from_slice(&(index as u64).to_le_bytes());
        Block::raw(data.into())
    };
    (0..count).map(block).collect()
}

fn request(root: &Cid, hints: Vec<Multiaddr>) -> FetchRequest {
    FetchRequest { root: *root, hints, stall: Duration::from_secs(20), share: true, events: Emitter::silent() }
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_that_routers_know_are_found() {
    let (server, store) = start(config(&[TCP])).await;
    let (client, _) = start(config(&[TCP])).await;
    let all = blocks(3, 1000);
    all.iter().for_each(|block| store.insert(block.clone()));
    let root = *all[0].cid();
    let routing = MemoryRouting::new();
    // Nobody is where the first are said to be, more than are dialled at once; and nothing is known of the last but one.
    for _ in 0..50 {
        let addresses = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        routing.add(&root, Provider { peer: PeerId::random(), addresses });
    }
    routing.add(&root, Provider { peer: PeerId::random(), addresses: Vec::new() });
    routing.add(&root, Provider { peer: server.peer_id(), addresses: server.addresses().await });
    client.ask_also(Arc::new(routing.clone()));
    let session = client.open(request(&root, Vec::new())).await.unwrap();
    fetch_all(&session, &all).await;
    drop(session);
    let sought = client.holders(&root, Duration::from_secs(10)).await;
    assert_eq!((sought.holders, sought.findable), (vec![server.peer_id()], Some(true)));
    let unknown = *blocks(1, 77)[0].cid();
    assert_eq!(client.holders(&unknown, Duration::from_secs(2)).await.findable, Some(false));
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_routers_say_is_bounded_by_the_mode() {
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", door.local_addr().unwrap().port()).parse().unwrap();
    let mut config = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Public);
    (config.listen, config.bootstrap) = (vec![TCP.parse().unwrap()], Vec::new());
    let (client, _) = start(config).await;
    let root = *blocks(1, 1000)[0].cid();
    let routing = MemoryRouting::new();
    routing.add(&root, Provider { peer: PeerId::random(), addresses: vec![address] });
    client.ask_also(Arc::new(routing));
    let session = client.open(request(&root, Vec::new())).await.unwrap();
    let (knocked, _) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(2), door.accept()),
        tokio::time::timeout(Duration::from_secs(2), session.fetch(&root)),
    );
    assert!(knocked.is_err(), "a router led to loopback");
    client.holders(&root, Duration::from_secs(1)).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), door.accept()).await.is_err());
    client.shutdown().await;
}

/// Fetches all, 64 at a time; returns the longest time without a block.
async fn fetch_all(session: &Arc<dyn FetchSession>, blocks: &[Block]) -> Duration {
    use futures::StreamExt as _;
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    let mut fetches = futures::stream::iter(blocks)
        .map(|block| async move { (block, session.fetch(block.cid()).await) })
        .buffer_unordered(64);
    while let Some((block, fetched)) = fetches.next().await {
        assert_eq!(fetched.unwrap(), *block);
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// A transfer that pauses for so long waits for a time-out; a busy machine alone stops nothing for half of it.
const STALL: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn the_node_conforms_as_an_exchange() {
    let (node, _) = start(config(&[TCP])).await;
    let (lonely, _) = start(config(&[TCP])).await;
    let mut holders = Vec::new();
    let mut nodes = Vec::new();
    for listen in [TCP, QUIC, TCP] {
        let (node, store) = start(config(&[listen])).await;
        holders.push(conformance::exchange::Holder { store, address: address(&node).await });
        nodes.push(node);
    }
    conformance::exchange::conforms(conformance::exchange::Fixture { exchange: node, lonely, holders }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blocks_cross_tcp_and_quic() {
    for listen in [TCP, QUIC] {
        let (server, store) = start(config(&[listen])).await;
        let (client, _) = start(config(&[listen])).await;
        let mut all = blocks(100, 1 << 20);
        all.extend(blocks(3, crate::limits::BLOCK_BYTES));
        all.iter().for_each(|block| store.insert(block.clone()));
        let session = client.open(request(all[0].cid(), vec![address(&server).await])).await.unwrap();
        let started = Instant::now();
        let longest = fetch_all(&session, &all).await;
        let bytes: usize = all.iter().map(|block| block.data().len()).sum();
        println!("{listen}: {} MB in {:?}, longest pause {longest:?}", bytes / 1_000_000, started.elapsed());
        assert!(longest < STALL, "{longest:?}");
        assert_eq!(client.traffic().received_bytes, bytes as u64);
        // What was read may be counted as written a moment later.
        let counted = async {
            while server.traffic().served_bytes < bytes as u64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(STALL, counted).await.expect("what was served is counted");
        client.shutdown().await;
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_says_so() {
    for listen in [TCP, QUIC] {
        let (server, store) = start(config(&[listen])).await;
        let (client, _) = start(config(&[listen])).await;
        let all = blocks(2, 1000);
        all.iter().for_each(|block| store.insert(block.clone()));
        let session = client.open(request(all[0].cid(), vec![address(&server).await])).await.unwrap();
        fetch_all(&session, &all).await;
        let hub = |node: &Node| node.online.as_ref().unwrap().hub.clone();
        let (ours, theirs) = (hub(&client), hub(&server));
        let mut changes = ours.changes();
        assert!(ours.epoch(&theirs.local()).is_some() && theirs.epoch(&ours.local()).is_some());
        server.shutdown().await;
        assert!(theirs.connected().is_empty(), "{listen}: all are closed before the node is gone");
        let noticed = async { while ours.epoch(&theirs.local()).is_some() && changes.changed().await.is_ok() {} };
        tokio::time::timeout(STALL, noticed).await.unwrap_or_else(|_| panic!("{listen}: the other end is told"));
        let refused = theirs.dial(ours.local(), &["/ip4/127.0.0.1/tcp/1".parse().unwrap()]).await;
        assert!(matches!(refused, Err(ipcr_swarm::DialError::Stopped)), "{listen}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_does_not_stall_the_others() {
    let (client, _) = start(config(&[TCP])).await;
    let all = blocks(400, 256 << 10);
    let (mut nodes, mut hints) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (node, store) = start(config(&[TCP])).await;
        all.iter().for_each(|block| store.insert(block.clone()));
        hints.push(address(&node).await);
        nodes.push(node);
    }
    let session = client.open(request(all[0].cid(), hints)).await.unwrap();
    fetch_all(&session, &all[..100]).await;
    let killed = nodes.remove(0);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(killed);
    };
    let (longest, ()) = tokio::join!(fetch_all(&session, &all[100..]), kill);
    assert!(longest < STALL, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_holder_is_dialled_again() {
    let keypair = Keypair::generate_ed25519();
    let mut first = config(&[TCP]);
    first.keypair = keypair.clone();
    let (server, store) = start(first).await;
    let all = blocks(8, 1000);
    all.iter().for_each(|block| store.insert(block.clone()));
    let hint = address(&server).await;
    let (client, _) = start(config(&[TCP])).await;
    let session = client.open(request(all[0].cid(), vec![hint.clone()])).await.unwrap();
    fetch_all(&session, &all[..4]).await;
    server.shutdown().await;
    drop(server);
    let fetch = fetch_all(&session, &all[4..]);
    let restart = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut again = config(&[]);
        again.keypair = keypair;
        again.listen = vec![addresses::without_peer(&hint)];
        let (server, store) = start(again).await;
        all.iter().for_each(|block| store.insert(block.clone()));
        server
    };
    let (_, _server) = tokio::join!(fetch, restart);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_nodes_say_so() {
    let mut config = config(&[]);
    config.offline = true;
    let (node, _) = start(config).await;
    let block = &blocks(1, 8)[0];
    let error = node.open(request(block.cid(), vec![])).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Offline { .. }), "{error:?}");
    assert_eq!((node.port(), node.addresses().await), (None, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_bound_listening_and_dialling() {
    let everywhere = config(&["/ip4/0.0.0.0/tcp/0"]);
    let refused = Node::start(everywhere, Arc::new(MemoryBlocks::new()), Arc::new(NoRecords), Arc::new(NoDns)).await;
    assert!(matches!(refused, Err(NodeError::BadAddress { .. })));
    let (node, _) = start(config(&[TCP])).await;
    let hub = &node.online.as_ref().unwrap().hub;
    let outside: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
    let denied = hub.dial(PeerId::random(), &[outside]).await;
    assert!(matches!(denied, Err(ipcr_swarm::DialError::NoAddress)), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_replaced_and_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wanted = config(&[]);
    wanted.port = Some(taken.local_addr().unwrap().port());
    let (node, _) = start(wanted.clone()).await;
    let port = node.port().expect("TCP and UDP share a port");
    assert_ne!(Some(port), wanted.port);
    node.shutdown().await;
    drop(node);
    tokio::time::sleep(Duration::from_millis(300)).await;
    wanted.port = Some(port);
    let (again, _) = start(wanted).await;
    assert_eq!(again.port(), Some(port));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    let (node, _) = start(config(&[TCP])).await;
    let taken = node.addresses().await.into_iter().map(|address| addresses::without_peer(&address)).next().unwrap();
    let mut second = config(&[]);
    second.listen = vec![taken];
    let refused = Node::start(second, Arc::new(MemoryBlocks::new()), Arc::new(NoRecords), Arc::new(NoDns)).await;
    assert!(matches!(refused, Err(NodeError::Listen { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_conforms_as_a_carrier_of_records() {
    let (records, _) = start(config(&[TCP])).await;
    let shelf = MemoryRecords::new();
    let store = Arc::new(MemoryBlocks::new());
    let holder = Node::start(config(&[TCP]), store, Arc::new(shelf.clone()), Arc::new(NoDns)).await.unwrap();
    let hints = holder.addresses().await;
    conformance::records::conforms(conformance::records::Fixture { records, shelf, hints }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hinted_record_does_not_wait_for_anybody_else() {
    // A bootstrap peer that takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut slow = config(&[TCP]);
    let port = silent.local_addr().unwrap().port();
    slow.bootstrap = vec![format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random()).parse().unwrap()];
    let (node, _) = start(slow).await;
    let shelf = MemoryRecords::new();
    let key = RegistryKey::generate();
    let target = format!("/ipfs/{}", Block::raw("root".into()).cid()).parse().unwrap();
    let day = Duration::from_secs(86_400);
    let record = SignedRecord::sign(&key, &target, 1, chrono::Utc::now(), day, Duration::from_secs(60));
    let name = *record.name();
    shelf.insert(&name, record.bytes().clone());
    let store = Arc::new(MemoryBlocks::new());
    let holder = Node::start(config(&[TCP]), store, Arc::new(shelf), Arc::new(NoDns)).await.unwrap();
    let hints = vec![holder.addresses().await[0].clone()];
    let started = Instant::now();
    let found = node.find(RecordQuery { name, hints, timeout: Duration::from_secs(30) }).await.unwrap();
    assert_eq!(found[0].record, *record.bytes());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_are_connected_peers_that_say_so() {
    let (node, _) = start(config(&[TCP])).await;
    let (holder, store) = start(config(&[TCP])).await;
    let (other, _) = start(config(&[TCP])).await;
    let block = blocks(1, 100).remove(0);
    store.insert(block.clone());
    let hub = &node.online.as_ref().unwrap().hub;
    for peer in [&holder, &other] {
        hub.dial(peer.peer_id(), &peer.addresses().await).await.unwrap();
    }
    let identified = async {
        while hub.speakers(&bitswap::PROTOCOL).len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), identified).await.expect("both say what they speak");
    let sought = node.holders(block.cid(), Duration::from_secs(6)).await;
    assert_eq!((sought.holders, sought.findable), (vec![holder.peer_id()], Some(true)));
}

/// A store that has every block, and always the wrong one.
#[derive(Debug)]
struct Liar(MemoryBlocks);

#[async_trait]
impl BlockStore for Liar {
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; cids.len()])
    }

    async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError> {
        Ok(vec![Some(1); cids.len()])
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        Ok(Some(cid.to_string().into()))
    }

    async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError> {
        self.0.begin(lease).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.usage().await
    }

    async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        self.0.weigh(live, keep_leases).await
    }

    async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        self.0.doom(live, keep_leases).await
    }

    async fn remove_doomed(&self) -> Result<Swept, StoreError> {
        self.0.remove_doomed().await
    }

    async fn spare_doomed(&self) -> Result<(), StoreError> {
        self.0.spare_doomed().await
    }

    async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError> {
        self.0.check(read_data).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_dropped_and_told() {
    let (client, _) = start(config(&[TCP])).await;
    let lies = Arc::new(Liar(MemoryBlocks::new()));
    let liar = Node::start(config(&[TCP]), lies, Arc::new(NoRecords), Arc::new(NoDns)).await.unwrap();
    let (honest, truth) = start(config(&[TCP])).await;
    let all = blocks(32, 1000);
    all.iter().for_each(|block| truth.insert(block.clone()));
    let (events, mut watcher) = Emitter::watched();
    let mut request = request(all[0].cid(), vec![address(&liar).await]);
    request.events = events;
    // The honest one is only connected, and found by asking it.
    let hub = &client.online.as_ref().unwrap().hub;
    hub.dial(honest.peer_id(), &honest.addresses().await).await.unwrap();
    // A session that does not know its peers yet asks for little; strikes count across sessions.
    for part in all.chunks(12) {
        let session = client.open(request.clone()).await.unwrap();
        fetch_all(&session, part).await;
    }
    let mut bad = Vec::new();
    while let Ok(event) = watcher.try_recv() {
        if let Event::Warning(Warning::BadPeer { peer, .. }) = event {
            bad.push(peer);
        }
    }
    // Each session tells of it.
    bad.dedup();
    assert_eq!(bad, [liar.peer_id().to_string()]);

    // It is known when it comes back.
    let mut changes = hub.changes();
    liar.shutdown().await;
    let gone = async {
        while hub.connected().contains(&liar.peer_id()) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it has gone");
    // Whoever has gone is forgotten with the next change.
    let (another, _) = start(config(&[TCP])).await;
    hub.dial(another.peer_id(), &another.addresses().await).await.unwrap();
    assert!(client.online.as_ref().unwrap().bitswap.is_bad(liar.peer_id()));
    assert!(!client.online.as_ref().unwrap().bitswap.is_bad(honest.peer_id()));
}

mod fellows;
