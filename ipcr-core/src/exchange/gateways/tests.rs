use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use libp2p_identity::PeerId;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::dag::block::Block;
use crate::dag::car;
use crate::dag::file::FileBuilder;
use crate::dag::pb::Node;
use crate::event::{Emitter, Event, Warning};
use crate::naming::dns::DnsHosts;
use crate::net::{HttpPolicy, Reach};
use crate::port::blocks::BlockStore as _;
use crate::port::conformance::exchange::{Fixture, Holder, conforms};
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::dns::MemoryDns;
use crate::port::memory::exchange::MemoryExchange;

const RAW: &str = "application/vnd.ipld.raw";
const CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";

/// How a gateway behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Honest,
    /// It knows no other form than raw.
    RawOnly,
    /// It sends whole files, whatever part was asked for.
    WholeFiles,
    /// It has nothing.
    Empty,
    /// It sends other bytes.
    Wrong,
    /// It sends another block, under its own CID where the form has one.
    Other,
    /// It sends without an end.
    Endless,
    /// It takes requests and says nothing.
    Silent,
    /// It dies after so many bytes.
    Dying(usize),
    /// It asks to be left alone at first.
    Busy,
    /// It sends so many bytes in a second, by each connection.
    Slow(usize),
}

/// A gateway on loopback.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Server {
    async fn start(blocks: &MemoryBlocks, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = Self { url, asked: Arc::default(), sent: Arc::default() };
        let (asked, sent, blocks) = (server.asked.clone(), server.sent.clone(), blocks.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (asked, sent, blocks) = (asked.clone(), sent.clone(), blocks.clone());
                tokio::spawn(async move { serve(socket, &blocks, manner, &asked, &sent).await });
            }
        });
        server
    }

    fn asked(&self, form: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(form)).count()
    }
}

/// Answers the requests of one connection.
async fn serve(
    socket: TcpStream,
    blocks: &MemoryBlocks,
    manner: Manner,
    asked: &Mutex<Vec<String>>,
    sent: &AtomicUsize,
) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut first = String::new();
        if socket.read_line(&mut first).await.ok()? == 0 {
            return None;
        }
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.ok()? <= 2 {
                break;
            }
        }
        let path = first.split(' ').nth(1)?.to_owned();
        let count = {
            let mut asked = asked.lock().unwrap();
            asked.push(path.clone());
            asked.len()
        };
        let (cid, query) = path.strip_prefix("/ipfs/")?.split_once('?')?;
        let cid: Cid = cid.parse().unwrap();
        let found = blocks.get(&cid).await.unwrap();
        let (mut status, mut kind, mut more) = ("200 OK", RAW, "");
        let body: Vec<u8> = match (manner, found) {
            (Manner::Silent, _) => std::future::pending().await,
            (Manner::Busy, _) if count < 3 => {
                (status, more) = ("429 Too Many Requests", "retry-after: 1\r\n");
                Vec::new()
            }
            (Manner::Empty, _) | (_, None) => {
                status = "404 Not Found";
                Vec::new()
            }
            (Manner::RawOnly, _) if query.contains("format=car") => {
                status = "406 Not Acceptable";
                Vec::new()
            }
            (manner, Some(data)) if query.contains("format=car") => {
                kind = CAR;
                run(blocks, cid, &data, query, manner).await
            }
            (Manner::Wrong, Some(data)) => data.iter().map(|byte| byte ^ 1).collect(),
            (Manner::Other, _) => b"another block".to_vec(),
            (Manner::Endless, _) => vec![7; 64 << 20],
            (_, Some(data)) => data.to_vec(),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}content-length: {length}\r\n\r\n");
        socket.get_mut().write_all(head.as_bytes()).await.ok()?;
        for piece in body.chunks(if let Manner::Slow(rate) = manner { rate / 10 } else { 16 << 10 }) {
            if let Manner::Slow(_) = manner {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            socket.get_mut().write_all(piece).await.ok()?;
            let sent = sent.fetch_add(piece.len(), Ordering::AcqRel) + piece.len();
            if matches!(manner, Manner::Dying(after) if sent >= after) {
                return None;
            }
        }
    }
}

/// A file, or a part of it, as a CAR.
async fn run(blocks: &MemoryBlocks, cid: Cid, data: &Bytes, query: &str, manner: Manner) -> Vec<u8> {
    let mut out = Vec::new();
    car::put_header(&mut out, &[cid]);
    car::put_section(&mut out, &cid, data);
    let range = query.split("entity-bytes=").nth(1).filter(|_| manner != Manner::WholeFiles);
    let (first, last) = range.map_or((0, u64::MAX), |range| {
        let (first, last) = range.split_once(':').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    });
    let (node, mut offset) = (Node::decode(data).unwrap(), 0);
    for (link, size) in node.links.iter().zip(&node.data.blocksizes) {
        if offset <= last && offset + size > first {
            let mut leaf = blocks.get(&link.cid).await.unwrap().unwrap().to_vec();
            match manner {
                Manner::Wrong => leaf[0] ^= 1,
                Manner::Other => {
                    let other = Block::raw(Bytes::from_static(b"another block"));
                    car::put_section(&mut out, other.cid(), other.data());
                    continue;
                }
                _ => {}
            }
            car::put_section(&mut out, &link.cid, &leaf);
        }
        offset += size;
    }
    if manner == Manner::Endless {
        for at in 0..200_u64 {
            let mut data = vec![7; 64 << 10];
            data[..8].copy_from_slice(&at.to_le_bytes());
            let block = Block::raw(data.into());
            car::put_section(&mut out, block.cid(), block.data());
        }
    }
    out
}

/// A file of so many leaves in one node.
struct File {
    root: Cid,
    leaves: Vec<Block>,
    blocks: MemoryBlocks,
}

fn file(leaves: usize, size: usize) -> File {
    let blocks = MemoryBlocks::new();
    let mut builder = FileBuilder::new(leaves.max(2));
    let leaf = |at: usize| {
        let mut data = vec![7; size];
        data[..8].copy_from_slice(&(at as u64).to_le_bytes());
        Block::raw(data.into())
    };
    let leaves: Vec<Block> = (0..leaves).map(leaf).collect();
    let mut nodes = Vec::new();
    for leaf in &leaves {
        nodes.extend(builder.push(*leaf.cid(), size as u64));
        blocks.insert(leaf.clone());
    }
    let (root, rest) = builder.finish();
    nodes.into_iter().chain(rest).for_each(|node| blocks.insert(node));
    File { root: root.cid, leaves, blocks }
}

fn exchange(peers: &MemoryExchange, gateways: &[&Server]) -> GatewayExchange {
    let urls: Vec<String> = gateways.iter().map(|server| server.url.clone()).collect();
    over(peers, &urls)
}

fn over(peers: &MemoryExchange, urls: &[String]) -> GatewayExchange {
    limited(peers, urls, None)
}

fn limited(peers: &MemoryExchange, urls: &[String], download: Option<NonZeroU64>) -> GatewayExchange {
    let policy = HttpPolicy::new(Reach::Loopback).naming("127.0.0.1");
    let client = HttpClient::new(policy, Arc::new(DnsHosts(Arc::new(MemoryDns::new())))).unwrap();
    GatewayExchange::new(Arc::new(peers.clone()), &client, urls, &Arc::new(Rate::new(download)))
}

fn request(root: &Cid) -> FetchRequest {
    FetchRequest {
        root: *root,
        hints: Vec::new(),
        stall: Duration::from_secs(20),
        share: true,
        events: Emitter::silent(),
    }
}

/// Reads the whole file, its root first.
async fn read(session: &dyn FetchSession, file: &File) {
    session.fetch(&file.root).await.unwrap();
    let all = futures::future::join_all(file.leaves.iter().map(|leaf| session.fetch(leaf.cid()))).await;
    for (fetched, leaf) in all.into_iter().zip(&file.leaves) {
        assert_eq!(fetched.unwrap(), *leaf);
    }
}

fn bytes(file: &File) -> u64 {
    file.leaves.iter().map(|leaf| leaf.data().len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_are_of_no_use_change_nothing() {
    let nowhere = || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        format!("http://127.0.0.1:{port}")
    };
    let empty = Server::start(&MemoryBlocks::new(), Manner::Empty).await;
    for urls in [vec![nowhere()], vec![empty.url.clone(), nowhere()]] {
        let peers = MemoryExchange::new();
        let holder = |_| {
            let store = MemoryBlocks::new();
            Holder { address: peers.add(PeerId::random(), Arc::new(store.clone())), store }
        };
        let holders = (0..3).map(holder).collect();
        let lonely = Arc::new(over(&MemoryExchange::new(), &[]));
        conforms(Fixture { exchange: Arc::new(over(&peers, &urls)), lonely, holders }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_alone_gives_everything_in_few_requests() {
    let file = file(200, 20_000);
    let server = Server::start(&file.blocks, Manner::Honest).await;
    let (events, mut watcher) = Emitter::watched();
    let exchange = exchange(&MemoryExchange::new(), &[&server]);
    let session = exchange.open(FetchRequest { events, ..request(&file.root) }).await.unwrap();
    read(session.as_ref(), &file).await;
    let requests = server.asked.lock().unwrap().len();
    assert!(server.asked("format=car") > 0 && requests < 100, "{requests} requests");
    let [share] = &session.gateways()[..] else { panic!("{:?}", session.gateways()) };
    assert_eq!((share.blocks, session.peers().len()), (201, 0));
    assert!(share.bytes > bytes(&file) && share.url == server.url.trim_end_matches('/'));
    drop(session);
    let (mut told, mut most) = (0, 0);
    while let Ok(event) = watcher.try_recv() {
        match event {
            Event::Gateway { .. } => told += 1,
            Event::Received { bytes, peers } => {
                assert_eq!(peers, 1);
                most = bytes.max(most);
            }
            _ => {}
        }
    }
    assert!(told == 1 && most <= share.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gateways_send_counts_against_the_limit() {
    // 3 MiB at 1 MiB a second. What comes at once, at the beginning and of the last requests, which nothing has to wait for, and what a
    // busy machine adds, is within the bounds.
    for manner in [Manner::Honest, Manner::RawOnly] {
        let file = file(48, 64 << 10);
        let server = Server::start(&file.blocks, manner).await;
        let exchange = limited(&MemoryExchange::new(), std::slice::from_ref(&server.url), NonZeroU64::new(1 << 20));
        let session = exchange.open(request(&file.root)).await.unwrap();
        let begin = Instant::now();
        read(session.as_ref(), &file).await;
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(12), "{manner:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_by_the_limit_is_not_fetched_elsewhere() {
    // The last has to wait for four seconds, longer than anybody's patience.
    let file = file(16, 256 << 10);
    let servers =
        [Server::start(&file.blocks, Manner::RawOnly).await, Server::start(&file.blocks, Manner::RawOnly).await];
    let urls = servers.each_ref().map(|server| server.url.clone());
    let exchange = limited(&MemoryExchange::new(), &urls, NonZeroU64::new(1 << 20));
    let session = exchange.open(request(&file.root)).await.unwrap();
    read(session.as_ref(), &file).await;
    let asked: usize = servers.iter().map(|server| server.asked("format=raw")).sum();
    assert!(asked <= file.leaves.len() + 1 + 2, "{asked} requests for {} blocks", file.leaves.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_are_not_spoken_are_done_without() {
    for manner in [Manner::RawOnly, Manner::WholeFiles] {
        // Larger than what a gateway may send besides.
        let file = file(100, 100_000);
        let server = Server::start(&file.blocks, manner).await;
        let session = exchange(&MemoryExchange::new(), &[&server]).open(request(&file.root)).await.unwrap();
        read(session.as_ref(), &file).await;
        assert!(server.asked("format=raw") > 10, "{manner:?}");
        if manner == Manner::RawOnly {
            // So many may be under way before the first of them is answered.
            assert!(server.asked("format=car") <= 16, "it is asked again and again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_are_found_out_and_dropped() {
    for manner in [Manner::Wrong, Manner::Other, Manner::Endless] {
        let file = file(100, 30_000);
        let (liar, honest) =
            (Server::start(&file.blocks, manner).await, Server::start(&file.blocks, Manner::Honest).await);
        let exchange = exchange(&MemoryExchange::new(), &[&liar, &honest]);
        let (events, mut watcher) = Emitter::watched();
        // What one session has learned the next knows.
        for _ in 0..4 {
            let request = FetchRequest { events: events.clone(), ..request(&file.root) };
            let session = exchange.open(request).await.unwrap();
            read(session.as_ref(), &file).await;
            let of = |url: &str| session.gateways().into_iter().find(|share| share.url == url.trim_end_matches('/'));
            assert!(of(&liar.url).is_none_or(|share| share.blocks == 0), "{manner:?}");
            assert_eq!(of(&honest.url).unwrap().blocks, 101, "{manner:?}");
        }
        assert!(!exchange.gateways[0].is_usable(Instant::now()) && exchange.gateways[1].is_usable(Instant::now()));
        let lies = liar.asked.lock().unwrap().len();
        assert!((3..=8).contains(&lies), "{manner:?}: asked {lies} times");
        let mut warned = 0;
        while let Ok(event) = watcher.try_recv() {
            warned += usize::from(matches!(event, Event::Warning(Warning::BadPeer { .. })));
        }
        assert_eq!(warned, 1, "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_does_not_send_peers_do() {
    for manner in [Manner::Empty, Manner::Silent, Manner::Dying(300_000), Manner::Wrong, Manner::Slow(10_000)] {
        let file = file(60, 20_000);
        let (server, peers) = (Server::start(&file.blocks, manner).await, MemoryExchange::new());
        peers.add(PeerId::random(), Arc::new(file.blocks.clone()));
        let began = Instant::now();
        let session = exchange(&peers, &[&server]).open(request(&file.root)).await.unwrap();
        read(session.as_ref(), &file).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{manner:?} {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_do_not_send_a_gateway_does() {
    let file = file(60, 20_000);
    let (server, peers) = (Server::start(&file.blocks, Manner::Honest).await, MemoryExchange::new());
    // They have half of it.
    let half = MemoryBlocks::new();
    half.insert(file.blocks.get(&file.root).await.unwrap().map(Block::dag_pb).unwrap());
    file.leaves.iter().step_by(2).for_each(|leaf| half.insert(leaf.clone()));
    peers.add(PeerId::random(), Arc::new(half));
    let session = exchange(&peers, &[&server]).open(request(&file.root)).await.unwrap();
    read(session.as_ref(), &file).await;
    let (from_peers, from_gateways) = (session.peers()[0].blocks, session.gateways()[0].blocks);
    assert!(from_peers > 0 && from_gateways >= 30, "{from_peers} and {from_gateways}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faster_gateway_sends_more() {
    let file = file(200, 50_000);
    let [slow, fast] =
        [Manner::Slow(200_000), Manner::Slow(2_000_000)].map(|manner| Server::start(&file.blocks, manner));
    let (slow, fast) = (slow.await, fast.await);
    let session = exchange(&MemoryExchange::new(), &[&slow, &fast]).open(request(&file.root)).await.unwrap();
    let began = Instant::now();
    read(session.as_ref(), &file).await;
    let shares: Vec<u64> = session.gateways().iter().map(|share| share.bytes).collect();
    assert!(shares[1] > 3 * shares[0], "{shares:?} in {:?}", began.elapsed());
    assert!(shares[0] > 0, "both are used: {shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_to_wait_is_left_alone_for_so_long() {
    let file = file(10, 5_000);
    let server = Server::start(&file.blocks, Manner::Busy).await;
    let session = exchange(&MemoryExchange::new(), &[&server]).open(request(&file.root)).await.unwrap();
    let began = Instant::now();
    read(session.as_ref(), &file).await;
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(10));
    assert!(server.asked.lock().unwrap().len() < 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for_longer_than_the_stall() {
    let file = file(2, 100);
    let server = Server::start(&file.blocks, Manner::Silent).await;
    let stall = Duration::from_secs(1);
    let session = exchange(&MemoryExchange::new(), &[&server]);
    let session = session.open(FetchRequest { stall, ..request(&file.root) }).await.unwrap();
    let began = Instant::now();
    let error = session.fetch(&file.root).await.unwrap_err();
    assert!(matches!(error, ExchangeError::NotSent { peers: 0, gateways: 1, .. }), "{error:?}");
    assert!(began.elapsed() >= stall && began.elapsed() < 3 * stall);
}
