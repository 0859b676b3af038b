//! Kubo (the program that `IPCR_TEST_KUBO` names, else `ipfs`) against a node of ours: blocks and names, both ways. Where it
//! is missing a test says `SKIPPED: why`, or fails when `IPCR_TEST_REQUIRE_PEERS` is set.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and tell like tests")]

use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use ipcr_core::dag::block::Block;
use ipcr_core::event::Emitter;
use ipcr_core::node::{NetworkMode, Node, NodeConfig};
use ipcr_core::port::announce::Announce as _;
use ipcr_core::port::dns::{Dns, DnsError, Security, TxtAnswer};
use ipcr_core::port::exchange::{Exchange as _, FetchRequest};
use ipcr_core::port::memory::blocks::MemoryBlocks;
use ipcr_core::port::memory::records::MemoryRecords;
use ipcr_core::port::records::{NameRecords as _, RecordQuery};
use ipcr_core::reference::key::IpnsName;
use libp2p_identity::{Keypair, PeerId};
use multiaddr::Multiaddr;

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

/// A Kubo daemon with a repository of its own, on loopback, with free ports and without bootstrap peers.
struct Kubo {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Drop for Kubo {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn program() -> String {
    std::env::var("IPCR_TEST_KUBO").unwrap_or_else(|_| "ipfs".into())
}

fn ipfs(repository: &Path) -> Command {
    let mut command = Command::new(program());
    command.env("IPFS_PATH", repository).stdin(Stdio::null());
    command
}

impl Kubo {
    /// `None` (and a word about it) if there is no Kubo.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repo");
        match ipfs(&repository).args(["init", "--profile=test"]).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => {
                assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "Kubo is needed by this run: {error}");
                println!("SKIPPED: {} does not run: {error}", program());
                return None;
            }
        }
        // The test profile listens on loopback TCP and has no bootstrap peers; a DHT server answers our questions.
        let routing = ipfs(&repository).args(["config", "Routing.Type", "dhtserver"]).output().unwrap();
        assert!(routing.status.success(), "{routing:?}");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let daemon = ipfs(&repository).arg("daemon").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let kubo = Self { folder, daemon };
        let started = Instant::now();
        while !std::fs::read_to_string(kubo.folder.path().join("log")).unwrap().contains("Daemon is ready") {
            assert!(started.elapsed() < Duration::from_secs(60), "Kubo does not become ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(kubo)
    }

    /// Runs a command; returns what it prints.
    async fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = tokio::process::Command::from(ipfs(&self.folder.path().join("repo")));
        let output = command.args(arguments).output().await.unwrap();
        assert!(output.status.success(), "ipfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    async fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments).await).unwrap().trim().to_owned()
    }

    async fn addresses(&self) -> Vec<Multiaddr> {
        let text = self.text(&["id", "-f", "<addrs>"]).await;
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Adds a file of random bytes; returns its root and all CIDs.
    async fn add(&self, size: usize, options: &[&str]) -> (cid::Cid, Vec<cid::Cid>, Vec<u8>) {
        let data = noise(size);
        let path = self.folder.path().join(format!("{size}-{}", options.len()));
        std::fs::write(&path, &data).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let arguments = [&["add", "-Q"], options, &[&path]].concat();
        let root = self.text(&arguments).await;
        let references = self.text(&["refs", "-r", "-u", &root]).await;
        let mut cids: Vec<cid::Cid> = references.lines().map(|line| line.parse().unwrap()).collect();
        let root = root.parse().unwrap();
        cids.insert(0, root);
        (root, cids, data)
    }
}

/// Bytes that do not repeat (xorshift64).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(|_| next()).take(size).collect()
}

struct Ours {
    node: Arc<Node>,
    store: MemoryBlocks,
}

async fn ours(peers: Vec<Multiaddr>) -> Ours {
    let store = MemoryBlocks::new();
    let mut config = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Loopback);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.peers = peers;
    let blocks = Arc::new(store.clone());
    let node = Node::start(config, blocks, Arc::new(MemoryRecords::new()), Arc::new(NoDns)).await.unwrap();
    Ours { node, store }
}

/// Fetches all blocks into the store; returns the longest time without one.
async fn fetch(ours: &Ours, kubo: &Kubo, cids: &[cid::Cid]) -> Duration {
    let hints = kubo.addresses().await;
    let events = Emitter::silent();
    let request = FetchRequest { root: cids[0], hints, stall: Duration::from_secs(20), share: true, events };
    let session = &ours.node.open(request).await.unwrap();
    let mut fetches =
        futures::stream::iter(cids).map(|cid| async move { session.fetch(cid).await.unwrap() }).buffer_unordered(64);
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while let Some(block) = fetches.next().await {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        ours.store.insert(block);
    }
    longest
}

/// There (Kubo to us) and back again (us to another Kubo).
async fn there_and_back(size: usize, options: &[&str]) {
    let Some(kubo) = Kubo::start().await else { return };
    let (root, cids, data) = kubo.add(size, options).await;
    let ours = ours(Vec::new()).await;
    let started = Instant::now();
    let longest = fetch(&ours, &kubo, &cids).await;
    let (blocks, took) = (cids.len(), started.elapsed());
    println!("from Kubo: {size} bytes in {blocks} blocks, {took:?}, longest pause {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    drop(kubo);

    let Some(other) = Kubo::start().await else { return };
    let address = ours.node.addresses().await[0].to_string();
    other.run(&["swarm", "connect", &address]).await;
    let started = Instant::now();
    let received = tokio::time::timeout(Duration::from_secs(120), other.run(&["cat", &root.to_string()])).await;
    println!("to Kubo: {size} bytes, {:?}", started.elapsed());
    assert!(received.expect("Kubo gets the file in time") == data, "Kubo got other bytes");
    assert!(ours.node.traffic().served_bytes >= size as u64);
    ours.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_blocks_there_and_back() {
    there_and_back(200_000_000, &["--cid-version=1", "--chunker=size-262144"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_mebibyte_there_and_back() {
    there_and_back(100_000_000, &["--cid-version=1", "--chunker=size-1048576", "--max-file-links=1024"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_dag_pb_leaves_there_and_back() {
    there_and_back(20_000_000, &["--cid-version=0", "--raw-leaves=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_block_there_and_back() {
    let Some(kubo) = Kubo::start().await else { return };
    let path = kubo.folder.path().join("block");
    let data = noise(ipcr_core::limits::BLOCK_BYTES);
    std::fs::write(&path, &data).unwrap();
    let cid = kubo.text(&["block", "put", "--allow-big-block", path.to_str().unwrap()]).await.parse().unwrap();
    let ours = ours(Vec::new()).await;
    fetch(&ours, &kubo, &[cid]).await;
    let Some(other) = Kubo::start().await else { return };
    other.run(&["swarm", "connect", &ours.node.addresses().await[0].to_string()]).await;
    let got = tokio::time::timeout(Duration::from_secs(30), other.run(&["block", "get", &cid.to_string()])).await;
    assert!(got.expect("Kubo gets the block in time") == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_both_ways() {
    let Some(kubo) = Kubo::start().await else { return };
    let (root, _, _) = kubo.add(1000, &[]).await;
    let hints = kubo.addresses().await;
    let ours = ours(Vec::new()).await;

    // Kubo publishes, we find.
    kubo.run(&["name", "publish", "--allow-offline", &format!("/ipfs/{root}")]).await;
    let peer: PeerId = kubo.text(&["id", "-f", "<id>"]).await.parse().unwrap();
    let name = IpnsName::from_peer_id(peer);
    let query = RecordQuery { name, hints: hints.clone(), timeout: Duration::from_secs(10) };
    let started = Instant::now();
    let found = ours.node.find(query).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let record = rust_ipns::Record::decode(&found.first().expect("Kubo has the record").record).unwrap();
    record.verify(peer).unwrap();
    assert_eq!(record.value(), format!("/ipfs/{root}").as_bytes());

    // We publish, Kubo finds.
    let keypair = Keypair::generate_ed25519();
    let name = IpnsName::from_peer_id(keypair.public().to_peer_id());
    let until = chrono::Utc::now() + chrono::TimeDelta::hours(48);
    let value = format!("/ipfs/{root}");
    let record = rust_ipns::Record::new(&keypair, &value, until, 1, Duration::from_secs(60)).unwrap();
    let taken = ours.node.put(&name, record.encode().unwrap().into(), &hints).await.unwrap();
    assert_eq!(taken, [format!("peer {peer}")]);
    assert_eq!(kubo.text(&["name", "resolve", "--nocache", &name.to_string()]).await, value);
    let stored = ours.node.find(RecordQuery { name, hints, timeout: Duration::from_secs(10) }).await.unwrap();
    assert_eq!(stored[0].record, Bytes::from(record.encode().unwrap()));

    // A record that is not valid is taken by nobody, and that is no error.
    let forged = ours.node.put(&name, "nonsense".into(), &kubo.addresses().await).await.unwrap();
    assert!(forged.is_empty(), "{forged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_both_ways() {
    let Some(kubo) = Kubo::start().await else { return };
    let (root, _, _) = kubo.add(1000, &[]).await;
    let kubo_id: PeerId = kubo.text(&["id", "-f", "<id>"]).await.parse().unwrap();
    let ours = ours(kubo.addresses().await).await;
    let block = Block::raw(Bytes::from_static(b"provided by ipcr"));
    ours.store.insert(block.clone());
    assert_eq!(ours.node.provide(&[*block.cid()]).await, [true]);
    let found = kubo.text(&["routing", "findprovs", "-n", "1", &block.cid().to_string()]).await;
    assert_eq!(found, ours.node.peer_id().to_string());
    let sought = ours.node.holders(&root, Duration::from_secs(5)).await;
    assert_eq!((sought.holders, sought.findable), (vec![kubo_id], Some(true)));
    let nobody = Block::raw(Bytes::from_static(b"held by nobody"));
    let sought = ours.node.holders(nobody.cid(), Duration::from_secs(5)).await;
    assert_eq!((sought.holders, sought.findable), (Vec::new(), Some(false)));
}
