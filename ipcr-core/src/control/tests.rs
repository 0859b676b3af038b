//! The socket, with both ends in one process.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::dag::block::Block;
use crate::event::{Emitter, Event, Stage};
use crate::port::blocks::{BlockStore, Live, StoreError};
use crate::port::conformance::{blocks, exchange, table};
use crate::port::exchange::{Exchange, FetchRequest};
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::exchange::MemoryExchange;
use crate::port::memory::table::MemoryTable;
use crate::port::table::{Change, Space, Table};
use crate::registry::error::{RegistryError, Topic};
use crate::registry::holder::{Activity, ChangeRequest, Changed, Manner, RepairRequest, ResolveRequest, ResolvedRoot};
use crate::registry::options::GcOptions;
use crate::registry::outcome::{
    CheckOutcome, GcOutcome, Identity, ImagesUsed, RepairOutcome, TrustEntry, UsageOutcome,
};
use crate::registry::remote::RemoteHolder;

/// A holder with given parts, whose operations are simple enough to be recognised.
#[derive(Debug)]
struct Parts {
    blocks: Arc<dyn BlockStore>,
    tables: MemoryTable,
    exchange: Arc<dyn Exchange>,
}

fn later() -> RegistryError {
    RegistryError::Usage { message: "not in this test".into() }
}

#[async_trait]
impl Holder for Parts {
    fn blocks(&self) -> Arc<dyn BlockStore> {
        self.blocks.clone()
    }

    fn tables(&self) -> Arc<dyn Table> {
        Arc::new(self.tables.clone())
    }

    fn exchange(&self) -> Arc<dyn Exchange> {
        self.exchange.clone()
    }

    async fn identity(&self) -> Result<Identity, RegistryError> {
        Err(RegistryError::NoRegistry)
    }

    /// Tells as many events as the authority says, and never ends without one.
    async fn resolve(&self, request: ResolveRequest, events: Emitter) -> Result<ResolvedRoot, RegistryError> {
        let Some(count) = request.authority.and_then(|count| count.parse::<usize>().ok()) else {
            return std::future::pending().await;
        };
        for _ in 0..count {
            events.stage(Stage::Resolving).await;
            events.hint(Event::Received { bytes: 1, peers: 1 });
        }
        let source = Box::new(std::io::Error::other("nobody answered"));
        let (doing, kind, topic) = ("resolving", ErrorKind::Unavailable, Topic::NoRecord);
        Err(RegistryError::Step { doing, kind, topic, source })
    }

    async fn change(&self, _: ChangeRequest, _: Emitter) -> Result<Changed, RegistryError> {
        Err(later())
    }

    async fn trust_list(&self) -> Result<Vec<TrustEntry>, RegistryError> {
        Ok(Vec::new())
    }

    async fn trust_add(&self, _: &str, _: &str) -> Result<TrustEntry, RegistryError> {
        Err(later())
    }

    async fn trust_remove(&self, domain: &str) -> Result<bool, RegistryError> {
        Ok(domain == "hub.test")
    }

    async fn trim(&self) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn collect(&self, _: GcOptions) -> Result<GcOutcome, RegistryError> {
        let swept = self.blocks.sweep(&Live::default(), false).await;
        let swept = swept.map_err(|_| later())?;
        Ok(GcOutcome { removed_blocks: swept.blocks, ..GcOutcome::default() })
    }

    async fn check(&self, _: bool) -> Result<CheckOutcome, RegistryError> {
        Ok(CheckOutcome::default())
    }

    async fn repair(&self, _: RepairRequest, _: Emitter) -> Result<RepairOutcome, RegistryError> {
        Err(later())
    }

    async fn usage(&self) -> Result<UsageOutcome, RegistryError> {
        let usage = self.blocks.usage().await.map_err(|_| later())?;
        let own = ImagesUsed { blocks: usage.blocks, bytes: usage.bytes, ..ImagesUsed::default() };
        Ok(UsageOutcome { own, ..UsageOutcome::default() })
    }

    async fn activity(&self) -> Result<Activity, RegistryError> {
        Ok(Activity { running: true, peers: 3, ..Activity::default() })
    }

    async fn start_node(&self) -> Result<Vec<Multiaddr>, RegistryError> {
        Ok(vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()])
    }

    async fn shutdown(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

struct Served {
    folder: TempDir,
    blocks: MemoryBlocks,
    control: Option<Control>,
}

impl Served {
    fn new() -> Self {
        Self::with(Arc::new(MemoryExchange::new()))
    }

    fn with(exchange: Arc<dyn Exchange>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blocks = MemoryBlocks::new();
        let parts = Parts { blocks: Arc::new(blocks.clone()), tables: MemoryTable::new(), exchange };
        let control = Some(Control::serve(folder.path(), Arc::new(parts)).unwrap());
        Self { folder, blocks, control }
    }

    async fn connect(&self) -> RemoteHolder {
        RemoteHolder::connect(self.folder.path()).await.unwrap().expect("the socket is served")
    }

    fn clients(&self) -> usize {
        self.control.as_ref().map_or(0, Control::clients)
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn request(authority: &str) -> ResolveRequest {
    ResolveRequest { authority: Some(authority.into()), allow_stale: false, manner: Manner::default() }
}

#[tokio::test]
async fn blocks_conform_over_the_socket() {
    blocks::run(async || {
        let served = Served::new();
        let client = served.connect().await;
        let store = served.blocks.clone();
        blocks::Fixture {
            store: client.blocks(),
            damage: Box::new(move |cid, data| store.damage(cid, data)),
            guard: Box::new((served, client)),
        }
    })
    .await;
}

#[tokio::test]
async fn tables_conform_over_the_socket() {
    let served = Served::new();
    table::run(&*served.connect().await.tables()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_conform_over_the_socket() {
    let memory = MemoryExchange::new();
    let holder = |_| {
        let store = MemoryBlocks::new();
        exchange::Holder { address: memory.add(PeerId::random(), Arc::new(store.clone())), store }
    };
    let holders = (0..3).map(holder).collect();
    let (near, far) = (Served::with(Arc::new(memory.clone())), Served::new());
    let (client, lonely) = (near.connect().await, far.connect().await);
    let fixture = exchange::Fixture { exchange: client.exchange(), lonely: lonely.exchange(), holders };
    exchange::conforms(fixture).await;
}

#[tokio::test]
async fn operations_and_their_errors_arrive() {
    let served = Served::new();
    let client = served.connect().await;
    assert_eq!(client.pid(), std::process::id());
    assert!(matches!(client.identity().await, Err(RegistryError::NoRegistry)));
    assert!(client.trust_remove("hub.test").await.unwrap());
    assert!(!client.trust_remove("other.test").await.unwrap());
    assert_eq!(client.activity().await.unwrap().peers, 3);
    assert_eq!(client.start_node().await.unwrap().len(), 1);
    let error = client.resolve(request("1"), Emitter::silent()).await.unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Unavailable, Topic::NoRecord));
    let source = std::error::Error::source(&error).expect("the cause travels too");
    assert_eq!((error.to_string().as_str(), source.to_string().as_str()), ("resolving failed", "nobody answered"));
}

#[tokio::test]
async fn slow_watchers_hold_back_their_own_operation_only() {
    let served = Served::new();
    let client = Arc::new(served.connect().await);
    let (events, mut watcher) = Emitter::watched();
    let resolving = tokio::spawn({
        let client = client.clone();
        async move { client.resolve(request("3000"), events).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!resolving.is_finished(), "nobody reads its events");
    assert_eq!(client.activity().await.unwrap().peers, 3);
    let mut stages = 0;
    while let Some(event) = watcher.recv().await {
        stages += usize::from(matches!(event, Event::Stage { .. }));
    }
    assert_eq!(stages, 3000, "guaranteed events arrive, all of them");
    assert_eq!(resolving.await.unwrap().unwrap_err().topic(), Topic::NoRecord);
}

#[tokio::test]
async fn dropped_calls_end_and_others_go_on() {
    let served = Served::new();
    let client = served.connect().await;
    let (events, watcher) = Emitter::watched();
    for _ in 0..2000 {
        let call = client.resolve(request("never"), events.clone());
        assert!(tokio::time::timeout(Duration::from_micros(200), call).await.is_err());
    }
    drop(watcher);
    assert_eq!(client.activity().await.unwrap().peers, 3);
}

#[tokio::test]
async fn vanished_clients_leave_leases() {
    let served = Served::new();
    let (leaving, staying) = (served.connect().await, served.connect().await);
    let block = Block::raw(Bytes::from_static(b"begun"));
    let dropped = Block::raw(Bytes::from_static(b"dropped"));
    let session = leaving.blocks().begin(Duration::from_secs(3600)).await.unwrap();
    session.put(vec![block.clone()]).await.unwrap();
    assert_eq!(staying.blocks().has(&[*block.cid()]).await.unwrap(), [true], "readable by others at once");
    // Still open: not even a sweep without leases takes it.
    served.blocks.sweep(&Live::default(), false).await.unwrap();
    assert_eq!(served.blocks.cids().len(), 1);
    // A session that is dropped on a living connection ends too.
    let other = staying.blocks().begin(Duration::ZERO).await.unwrap();
    other.put(vec![dropped.clone()]).await.unwrap();
    drop(other);
    let store = served.blocks.clone();
    let begun = Instant::now();
    while store.has(&[*dropped.cid()]).await.unwrap()[0] {
        assert!(begun.elapsed() < Duration::from_secs(20), "a dropped session ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
        store.sweep(&Live::default(), true).await.unwrap();
    }
    drop((session, leaving));
    eventually("the client is gone", || served.clients() == 1).await;
    store.sweep(&Live::default(), true).await.unwrap();
    assert_eq!(store.has(&[*block.cid()]).await.unwrap(), [true], "leased");
    store.sweep(&Live::default(), false).await.unwrap();
    assert_eq!(store.has(&[*block.cid()]).await.unwrap(), [false], "and no longer part of a session");
}

#[tokio::test]
async fn holders_that_end_are_noticed() {
    let mut served = Served::new();
    let client = Arc::new(served.connect().await);
    let session = client.blocks().begin(Duration::ZERO).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.resolve(request("never"), Emitter::silent()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    served.control = None;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Unavailable, Topic::HolderGone));
    client.gone().await;
    assert!(client.is_gone());
    let error = session.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Backend { kind: ErrorKind::Unavailable, .. }), "{error:?}");
    assert!(RemoteHolder::connect(served.folder.path()).await.unwrap().is_none());
    // A new holder replaces whatever was left.
    let leftover = socket::path(served.folder.path()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&leftover).unwrap());
    assert!(RemoteHolder::connect(served.folder.path()).await.unwrap().is_none(), "nobody listens there");
    let parts = Parts {
        blocks: Arc::new(MemoryBlocks::new()),
        tables: MemoryTable::new(),
        exchange: Arc::new(MemoryExchange::new()),
    };
    served.control = Some(Control::serve(served.folder.path(), Arc::new(parts)).unwrap());
    assert_eq!(leftover.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    served.connect().await;
}

#[tokio::test]
async fn stopping_lets_clients_finish_and_takes_no_new_ones() {
    let mut served = Served::new();
    let client = served.connect().await;
    client.activity().await.unwrap();
    let stopping = tokio::spawn(served.control.take().unwrap().stop());
    let path = socket::path(served.folder.path()).unwrap();
    eventually("the socket is gone", || !path.exists()).await;
    assert!(RemoteHolder::connect(served.folder.path()).await.unwrap().is_none());
    client.activity().await.unwrap();
    assert!(!stopping.is_finished());
    client.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), stopping).await.expect("the last client is gone").unwrap();
}

#[tokio::test]
async fn draining_takes_new_clients_until_none_is_left() {
    let mut served = Served::new();
    let first = served.connect().await;
    first.activity().await.unwrap();
    let draining = tokio::spawn(served.control.take().unwrap().drain());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = served.connect().await;
    second.activity().await.unwrap();
    first.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    second.activity().await.unwrap();
    assert!(!draining.is_finished());
    second.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), draining).await.expect("the last client is gone").unwrap();
    assert!(RemoteHolder::connect(served.folder.path()).await.unwrap().is_none());
    let unused = Served::new().control.take().unwrap();
    tokio::time::timeout(Duration::from_secs(20), unused.drain()).await.expect("there never was a client");
}

#[tokio::test]
async fn nonsense_ends_its_connection_and_no_other() {
    let served = Served::new();
    let client = served.connect().await;
    let path = socket::path(served.folder.path()).unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], b""] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It says hello and hangs up.
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    }
    assert_eq!(client.activity().await.unwrap().peers, 3);
    eventually("they are gone", || served.clients() == 1).await;
}

#[tokio::test]
async fn calls_and_answers_that_are_too_large_fail_alone() {
    let served = Served::new();
    let client = served.connect().await;
    let put = |key: u8, len: usize| vec![Change::Put(Space::Cache, vec![key], vec![key; len])];
    let error = client.tables().write(put(0, crate::limits::CONTROL_FRAME_BYTES)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let source = std::error::Error::source(&error).expect("it says why").to_string();
    assert!(source.contains("larger than"), "{source}");
    assert!(!client.is_gone(), "the connection lives");
    // Each is small enough; both are no answer.
    let half = crate::limits::CONTROL_FRAME_BYTES / 2;
    client.tables().write(put(1, half)).await.unwrap();
    client.tables().write(put(2, half)).await.unwrap();
    let error = client.tables().scan(Space::Cache, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(client.tables().get(Space::Cache, &[2]).await.unwrap().map(|value| value.len()), Some(half));
}

#[tokio::test]
async fn many_calls_at_once_are_answered_each_with_its_own() {
    let served = Served::new();
    let client = served.connect().await;
    let session = client.blocks().begin(Duration::ZERO).await.unwrap();
    let all: Vec<Block> = (0..400).map(|extra| Block::raw(vec![7; 10_000 + extra].into())).collect();
    session.put(all.clone()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for block in all {
        let store = client.blocks();
        tasks.spawn(async move { assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data())) });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let request = FetchRequest {
        root: *Block::raw(Bytes::from_static(b"nowhere")).cid(),
        hints: Vec::new(),
        stall: Duration::from_millis(50),
        share: true,
        events: Emitter::silent(),
    };
    let fetch = client.exchange().open(request.clone()).await.unwrap();
    assert_eq!(fetch.fetch(&request.root).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_are_held_by_the_first_and_worked_on_by_all() {
    use super::open::Purpose;
    use crate::identity::NodeKey;
    use crate::net::addresses::NetworkMode;
    use crate::node::NodeConfig;
    use crate::registry::local::HomeConfig;
    use crate::registry::options::InitOptions;
    use crate::registry::places::Surroundings;

    let folder = tempfile::tempdir().unwrap();
    let config = || {
        let node = NodeConfig::new(NodeKey::generate().keypair().clone(), NetworkMode::Loopback);
        HomeConfig::new(folder.path().join("home"), node)
    };
    let open = |config, command, wait| open::open(config, Surroundings::default(), command, wait, Purpose::Work);
    let first = open(config(), "first", Duration::ZERO).await.unwrap();
    let mut other = config();
    other.gateways.push("https://gateway.test".into());
    other.stall = Duration::from_secs(1);
    let second = open(other, "second", Duration::ZERO).await.unwrap();
    assert!(first.overruled.is_empty());
    assert_eq!(second.overruled, ["gateway"], "the rest is the same, or goes with each request");
    assert!(first.holder.is_some() && first.control.is_some() && first.remote.is_none());
    assert!(second.holder.is_none() && second.control.is_none() && second.remote.is_some());
    let error = open::hold(config(), Surroundings::default(), "third", Duration::ZERO).await.unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Locked, Topic::Locked));

    assert!(matches!(second.registry.identity().await, Err(RegistryError::NoRegistry)));
    first.holder.as_ref().unwrap().init(InitOptions::default()).await.unwrap();
    assert_eq!(second.registry.identity().await.unwrap(), first.registry.identity().await.unwrap());
    let block = Block::raw(Bytes::from_static(b"by the second"));
    let session = second.registry.holder().blocks().begin(Duration::ZERO).await.unwrap();
    session.put(vec![block.clone()]).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    assert_eq!(first.registry.holder().blocks().get(block.cid()).await.unwrap().as_ref(), Some(block.data()));

    // The first is done; the second goes on through it, a third joins them, and a fourth takes over when all are gone.
    let closing = tokio::spawn(first.close());
    let third = open(config(), "third", Duration::from_secs(30)).await.unwrap();
    assert!(third.remote.is_some());
    second.close().await.unwrap();
    assert!(third.registry.identity().await.is_ok() && !closing.is_finished());
    third.close().await.unwrap();
    closing.await.unwrap().unwrap();
    let fourth = open(config(), "fourth", Duration::from_secs(30)).await.unwrap();
    assert!(fourth.holder.is_some());
    assert_eq!(fourth.registry.holder().blocks().get(block.cid()).await.unwrap().as_ref(), Some(block.data()));
    fourth.close().await.unwrap();
}
