//! rust-ipfs as its users get it: default features, the builder's defaults, its file repository. The baseline that ipcr's
//! own blocks are measured against.
//!
//! * `stock add FILE --repo DIR [--chunk SIZE]` adds a file, in chunks of 1 MiB unless told otherwise.
//! * `stock serve --repo DIR` prints the address at which it is reached and serves until its standard input ends.
//! * `stock fetch CID --peer ADDRESS --repo DIR` gets a whole file from a peer by bitswap into its own repository.
//!
//! `add` and `fetch` print one JSON object: `cid`, `bytes`, `seconds`, `mb_per_s` (10^6 bytes), `cpu` (seconds of the
//! processor); time and processor count from the start of the program. The repository writes, syncs and links every block
//! before it goes on to the next one, so what is reported is durable.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use rust_ipfs::builder::DefaultIpfsBuilder;
use rust_ipfs::unixfs::{UnixfsAdd, ll::file::adder::Chunker};
use rust_ipfs::{Ipfs, IpfsPath, Multiaddr, PeerId, Protocol};
use serde_json::{Value, json};
use tokio::time::timeout;

const USAGE: &str =
    "usage: stock add FILE --repo DIR [--chunk SIZE] | serve --repo DIR | fetch CID --peer ADDRESS --repo DIR";
/// Chunk size unless told otherwise: that of ipcr.
const CHUNK: usize = 1 << 20;
/// A fetch without a byte for so long has failed.
const STALL: Duration = Duration::from_mins(1);
/// Parts of a second in which the kernel counts processor time.
const TICKS: u32 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let start = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["add", file, "--repo", repo] => add(start, file.into(), repo, CHUNK).await,
        ["add", file, "--repo", repo, "--chunk", size] => add(start, file.into(), repo, size.parse()?).await,
        ["serve", "--repo", repo] => serve(repo).await,
        ["fetch", cid, "--peer", peer, "--repo", repo] => fetch(start, cid, peer.parse()?, repo).await,
        _ => bail!(USAGE),
    }
}

/// A node with everything that the crate calls default, and TCP.
async fn node(repo: &str) -> Result<Ipfs> {
    DefaultIpfsBuilder::new().with_default().enable_tcp().set_path(repo).start().await
}

async fn add(start: Instant, file: PathBuf, repo: &str, chunk: usize) -> Result<()> {
    let ipfs = node(repo).await?;
    let bytes = file.metadata().with_context(|| format!("{} cannot be read", file.display()))?.len();
    let path = UnixfsAdd::with_ipfs(&ipfs, file).chunk(Chunker::Size(chunk)).raw_leaves(true).await?;
    println!("{}", result(path.root().cid().context("a file was added under a CID")?, bytes, start)?);
    ipfs.exit_daemon().await;
    Ok(())
}

async fn serve(repo: &str) -> Result<()> {
    let ipfs = node(repo).await?;
    ipfs.add_listening_address("/ip4/127.0.0.1/tcp/0".parse()?).await?;
    let addresses = ipfs.listening_addresses().await?;
    let address = addresses.into_iter().next().context("it listens")?;
    println!("{}", with_peer(address, ipfs.keypair().public().to_peer_id()));
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    ipfs.exit_daemon().await;
    // Tokio's standard input would hold up the end of the runtime until something is typed.
    std::process::exit(0);
}

async fn fetch(start: Instant, cid: &str, peer: Multiaddr, repo: &str) -> Result<()> {
    let Some(Protocol::P2p(id)) = peer.iter().last() else { bail!("{peer} does not end in /p2p/<peer>") };
    let path: IpfsPath = cid.parse()?;
    let ipfs = node(repo).await?;
    ipfs.connect(peer).await?;
    // The fastest way that it has: it asks for sixteen blocks ahead, where fetching for the repository alone walks one
    // after the other. The blocks are in the repository before they are handed out.
    let mut parts = ipfs.cat_unixfs(path.clone()).provider(id);
    let mut bytes = 0;
    while let Some(part) = timeout(STALL, parts.try_next()).await.context("nothing came any more")?? {
        bytes += u64::try_from(part.len())?;
    }
    let result = result(cid, bytes, start)?;
    // What it has now without anybody's help must be all of it.
    let mut stored = 0;
    let mut parts = ipfs.cat_unixfs(path).local();
    while let Some(part) = parts.try_next().await? {
        stored += u64::try_from(part.len())?;
    }
    ensure!(stored == bytes, "{bytes} bytes were fetched and {stored} are stored");
    println!("{result}");
    ipfs.exit_daemon().await;
    Ok(())
}

fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) { address } else { address.with(Protocol::P2p(peer)) }
}

/// What is printed about an operation that ends now.
fn result(cid: impl std::fmt::Display, bytes: u64, start: Instant) -> Result<Value> {
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "files are small enough")]
    let rate = bytes as f64 / 1e6 / seconds;
    Ok(json!({"cid": cid.to_string(), "bytes": bytes, "seconds": seconds, "mb_per_s": rate, "cpu": cpu()?}))
}

/// Processor seconds of this process (proc(5), `stat`).
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').context("a stat line names the program")?.1;
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Ok(f64::from(ticks) / f64::from(TICKS))
}
