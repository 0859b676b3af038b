//! A connection without anything around it, for `cargo xtask bench blocks`: how long bytes need that are neither read from a disk, hashed,
//! asked for nor stored. Nothing that comes over a connection like that can be faster.
//!
//! * `wire serve BYTES` prints the address at which it is reached, and writes so many bytes to each stream until its standard input ends.
//! * `wire fetch --peer ADDRESS` opens a stream, reads it to its end and forgets what comes.
//!
//! `fetch` prints one JSON object: `bytes`, `seconds`, `mb_per_s` (10^6 bytes), `cpu` (seconds of the processor); time and processor count
//! from the start of the program.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use ipcr_benches::{Result, cpu};
use ipcr_swarm::{Acceptor, Gate, Hub, Inbound, StreamProtocol, Swarm, SwarmConfig, Transports};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};
use serde_json::json;
use tikv_jemallocator::Jemalloc;

/// The one that `ipcr` has.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const USAGE: &str = "usage: wire serve BYTES | fetch --peer ADDRESS";
const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipcr-benches/bytes/1");
/// Bytes that are written at once, as the node's messages are.
const WRITE: usize = 14 << 10;
/// Bytes that are read at once, if they are there.
const READ: usize = 1 << 20;

/// Lets everything pass.
struct Open;

impl Gate for Open {
    fn allows(&self, _: &Multiaddr) -> bool {
        true
    }

    fn allows_learned(&self, _: &Multiaddr) -> bool {
        true
    }

    fn allows_ip(&self, _: IpAddr) -> bool {
        true
    }
}

#[tokio::main]
async fn main() -> Result {
    let start = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", bytes] => serve(bytes.parse()?).await,
        ["fetch", "--peer", address] => fetch(start, address.parse()?).await,
        _ => Err(USAGE.into()),
    }
}

/// A swarm that gives so many bytes to whoever opens a stream.
async fn swarm(bytes: u64) -> Result<(Hub, Swarm, PeerId)> {
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let accept: Acceptor = Box::new(move |inbound| {
        tokio::spawn(give(inbound, bytes));
    });
    let (hub, start) = Swarm::prepare(SwarmConfig {
        keypair,
        agent: "ipcr-benches".into(),
        transports: Transports::default(),
        gate: Arc::new(Open),
        acceptors: vec![(PROTOCOL, accept)],
    });
    Ok((hub, start.await?, id))
}

async fn give(mut inbound: Inbound, bytes: u64) -> std::io::Result<()> {
    let data = vec![0x5a; WRITE];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(WRITE, |left| left.min(WRITE));
        left -= inbound.stream.write(&data[..most]).await? as u64;
    }
    inbound.stream.close().await
}

async fn serve(bytes: u64) -> Result {
    let (_hub, swarm, id) = swarm(bytes).await?;
    swarm.listen("/ip4/127.0.0.1/tcp/0".parse()?).await?;
    let address = swarm.listening().await.into_iter().next().ok_or("it does not listen")?;
    println!("{}", address.with(Protocol::P2p(id)));
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    // Tokio's standard input would hold up the end of the runtime until something is typed.
    std::process::exit(0);
}

async fn fetch(start: Instant, mut address: Multiaddr) -> Result {
    let Some(Protocol::P2p(peer)) = address.pop() else { return Err(USAGE.into()) };
    let (hub, _swarm, _) = swarm(0).await?;
    hub.dial(peer, &[address]).await?;
    let mut stream = hub.open(&peer, &PROTOCOL).await?;
    let (mut buffer, mut bytes) = (vec![0; READ], 0_u64);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "nobody waits for as many bytes")]
    let rate = bytes as f64 / 1e6 / seconds;
    println!("{}", json!({"bytes": bytes, "seconds": seconds, "mb_per_s": rate, "cpu": cpu()?}));
    Ok(())
}
