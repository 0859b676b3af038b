//! ipcr's store and exchange without anything around them, for `cargo xtask bench blocks`; the same operations as
//! `benches/stock` has for rust-ipfs.
//!
//! * `blocks add FILE --home DIR` adds a file as opaque blobs are added: leaves of 1 MiB, one session, one commit.
//! * `blocks serve --home DIR` prints the address at which it is reached and serves until its standard input ends.
//! * `blocks fetch CID --peer ADDRESS… --home DIR` gets a whole file from these peers into its own store.
//!
//! `add` and `fetch` print one JSON object: `cid`, `bytes`, `new` (bytes that were not stored before), `seconds`,
//! `mb_per_s` (10^6 bytes), `cpu` (seconds of the processor); time and processor count from the start of the program. They
//! end after the commit, so what is reported is durable.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipcr_benches::{Result, cpu};
use ipcr_core::event::Emitter;
use ipcr_core::exchange::file::File;
use ipcr_core::exchange::reader::Reader;
use ipcr_core::exchange::walk;
use ipcr_core::exchange::window::Window;
use ipcr_core::limits;
use ipcr_core::node::{NetworkMode, Node, NodeConfig};
use ipcr_core::port::announce::Announce as _;
use ipcr_core::port::blocks::{BlockStore, StoreSession};
use ipcr_core::port::dns::NoDns;
use ipcr_core::port::exchange::{Exchange as _, FetchRequest};
use ipcr_core::port::memory::records::MemoryRecords;
use ipcr_core::store::Home;
use ipcr_core::transfer::opaque;
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use serde_json::{Value, json};
use tikv_jemallocator::Jemalloc;

/// The one that `ipcr` has.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const USAGE: &str =
    "usage: blocks add FILE --home DIR | serve --home DIR | fetch CID --peer ADDRESS [--peer ADDRESS]... --home DIR";
/// A fetch without a block for so long has failed.
const STALL: Duration = Duration::from_secs(60);
/// Bytes of blocks that are fetched at once, as a pull does.
const IN_FLIGHT: usize = 32 << 20;

#[tokio::main]
async fn main() -> Result {
    let start = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["add", file, "--home", home] => add(start, Path::new(file), home).await,
        ["serve", "--home", home] => serve(home).await,
        ["fetch", cid, ref peers @ .., "--home", home] => {
            let mut hints: Vec<Multiaddr> = Vec::new();
            for pair in peers.chunks(2) {
                let ["--peer", address] = pair else { return Err(USAGE.into()) };
                hints.push(address.parse()?);
            }
            fetch(start, cid, hints, home).await
        }
        _ => Err(USAGE.into()),
    }
}

fn store(home: &str) -> Result<Arc<dyn BlockStore>> {
    Ok(Arc::new(Home::open(Path::new(home), Duration::ZERO)?.blocks()?))
}

async fn session(store: &dyn BlockStore) -> Result<Arc<dyn StoreSession>> {
    Ok(store.begin(limits::LEASE).await?.into())
}

/// A node on loopback that listens by TCP only.
async fn node(store: Arc<dyn BlockStore>) -> Result<Arc<Node>> {
    let mut config = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Loopback);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    Ok(Node::start(config, store, Arc::new(MemoryRecords::new()), Arc::new(NoDns)).await?)
}

async fn add(start: Instant, file: &Path, home: &str) -> Result {
    let store = store(home)?;
    let session = session(&*store).await?;
    let mut data = tokio::fs::File::open(file).await?;
    let (root, put) = opaque::store_file(session.clone(), &file.display().to_string(), &mut data).await?;
    session.commit().await?;
    println!("{}", result(root.cid, root.size, put.new_bytes, start)?);
    Ok(())
}

async fn serve(home: &str) -> Result {
    let node = node(store(home)?).await?;
    println!("{}", node.addresses().await.first().ok_or("it does not listen")?);
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    node.shutdown().await;
    // Tokio's standard input would hold up the end of the runtime until something is typed.
    std::process::exit(0);
}

async fn fetch(start: Instant, cid: &str, hints: Vec<Multiaddr>, home: &str) -> Result {
    let root = cid.parse()?;
    let store = store(home)?;
    let keep = session(&*store).await?;
    let node = node(store.clone()).await?;
    let fetch = node.open(FetchRequest { root, hints, stall: STALL, share: true, events: Emitter::silent() }).await?;
    let reader = Reader::new(store.clone(), Some(keep.clone()), Some(fetch));
    walk::fetch_all(&reader, &root, IN_FLIGHT, u64::MAX).await?;
    keep.commit().await?;
    let file = File::open(Arc::new(Reader::local(store.clone())), root, &Window::new(IN_FLIGHT)).await?;
    let result = result(root, file.size(), reader.traffic().fetched, start)?;
    drop(file);
    // What it has now without anybody's help must be all of it.
    let walked = walk::survey(&*store, &root).await?;
    if !walked.is_complete() {
        return Err(format!("{} blocks are missing", walked.missing).into());
    }
    println!("{result}");
    node.shutdown().await;
    Ok(())
}

/// What is printed about an operation that ends now.
fn result(cid: impl std::fmt::Display, bytes: u64, new: u64, start: Instant) -> Result<Value> {
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "files are small enough")]
    let rate = bytes as f64 / 1e6 / seconds;
    let cid = cid.to_string();
    Ok(json!({"cid": cid, "bytes": bytes, "new": new, "seconds": seconds, "mb_per_s": rate, "cpu": cpu()?}))
}
