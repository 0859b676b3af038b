use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;

use super::file::{File, FileError};
use super::reader::Reader;
use super::window::Window;
use super::{directory, path, walk};
use crate::dag::block::{Block, IDENTITY, RAW};
use crate::dag::chunk::Chunker;
use crate::dag::directory::{Change, build};
use crate::dag::file::{FileBuilder, FileRoot};
use crate::dag::pb::{Kind, Link, Node, UnixFs};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::{BlockStore, Live, ReadBlocks};
use crate::port::exchange::{ExchangeError, FetchSession, PeerShare};
use crate::port::memory::blocks::MemoryBlocks;

/// A peer that holds blocks and takes its time.
#[derive(Debug)]
struct Peer {
    held: MemoryBlocks,
    delay: Duration,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// How many it says that it is.
    sources: AtomicUsize,
}

impl Peer {
    fn new(held: &MemoryBlocks, millis: u64) -> Arc<Self> {
        let (held, delay) = (held.clone(), Duration::from_millis(millis));
        let zero = || AtomicUsize::new(0);
        Arc::new(Self {
            held,
            delay,
            asked: zero(),
            at_once: zero(),
            most_at_once: zero(),
            sources: AtomicUsize::new(1),
        })
    }
}

#[async_trait]
impl FetchSession for Peer {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let waited = Duration::from_secs(1);
        let data = self.held.get(cid).await.unwrap().ok_or(ExchangeError::Stalled { cid: *cid, waited, peers: 1 })?;
        Ok(Block::verify(*cid, data).unwrap())
    }

    fn peers(&self) -> Vec<PeerShare> {
        Vec::new()
    }

    fn sources(&self) -> usize {
        self.sources.load(Ordering::SeqCst)
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn add_file(store: &MemoryBlocks, data: &[u8], chunk: usize, fan_out: usize) -> FileRoot {
    let mut chunker = Chunker::new(chunk);
    let mut builder = FileBuilder::new(fan_out);
    let mut rest = data;
    let mut add = |leaf: Bytes| {
        let block = Block::raw(leaf);
        for node in builder.push(*block.cid(), block.data().len() as u64) {
            store.insert(node);
        }
        store.insert(block);
    };
    while !rest.is_empty() {
        chunker.push(&mut rest).into_iter().for_each(&mut add);
    }
    chunker.finish().into_iter().for_each(&mut add);
    let (root, blocks) = builder.finish();
    blocks.into_iter().for_each(|block| store.insert(block));
    root
}

fn local(store: &MemoryBlocks) -> Arc<Reader> {
    Arc::new(Reader::local(Arc::new(store.clone())))
}

async fn fetching(store: &MemoryBlocks, peer: &Arc<Peer>) -> Reader {
    let session = store.begin(Duration::from_secs(60)).await.unwrap();
    Reader::new(Arc::new(store.clone()), Some(session.into()), Some(peer.clone()))
}

async fn read(reader: Arc<Reader>, root: Cid) -> Result<Vec<u8>, FileError> {
    let mut file = File::open(reader, root, &Window::default()).await?;
    let mut out = Vec::new();
    while let Some(part) = file.next().await {
        out.extend_from_slice(&part?);
    }
    assert_eq!(out.len() as u64, file.size());
    Ok(out)
}

#[tokio::test]
async fn files_are_fetched_wide_and_kept() {
    let theirs = MemoryBlocks::new();
    let data = noise(1_000_000);
    let root = add_file(&theirs, &data, 4096, 16);
    let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 10));
    let reader = fetching(&ours, &peer).await;
    let window = Window::new(64 * (16 << 10));
    let started = std::time::Instant::now();
    let mut file = File::open(Arc::new(reader.clone()), root.cid, &window).await.unwrap();
    assert_eq!(file.size(), 1_000_000);
    let mut out = Vec::new();
    file.read_to_end(&mut out).await.unwrap();
    assert!(out == data);
    assert!(peer.most_at_once.load(Ordering::SeqCst) >= 32);
    assert!(peer.most_at_once.load(Ordering::SeqCst) <= 65, "the window bounds what is in flight");
    assert!(started.elapsed() < Duration::from_millis(10 * 150), "262 blocks one after the other take 2.6 s");
    let traffic = reader.traffic();
    assert_eq!((traffic.local, traffic.fetched), (0, root.tsize));
    assert_eq!(traffic.fetched_blocks, ours.cids().len() as u64);
    drop(file);
    assert_eq!(window.used(), 0);
    // Now everything is here.
    assert_eq!(read(local(&ours), root.cid).await.unwrap(), data);
}

#[tokio::test]
async fn what_a_collection_has_given_up_need_not_be_fetched() {
    let store = MemoryBlocks::new();
    let block = Block::raw(Bytes::from_static(b"garbage until now"));
    store.insert(block.clone());
    let session = store.begin(Duration::from_secs(60)).await.unwrap();
    let reader = Reader::new(Arc::new(store.clone()), Some(session.into()), None);
    store.doom(&Live::default(), false).await.unwrap();
    assert_eq!(store.has(&[*block.cid()]).await.unwrap(), [false]);
    let data = read(Arc::new(reader), *block.cid()).await.unwrap();
    assert_eq!(&data, block.data());
    assert_eq!(store.remove_doomed().await.unwrap().blocks, 0);
    assert_eq!(store.has(&[*block.cid()]).await.unwrap(), [true], "whoever read it keeps it");
}

#[tokio::test]
async fn equal_blocks_are_fetched_once() {
    let theirs = MemoryBlocks::new();
    let data = vec![7; 100_000];
    let root = add_file(&theirs, &data, 1000, 200);
    let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 5));
    let reader = fetching(&ours, &peer).await;
    assert_eq!(read(Arc::new(reader.clone()), root.cid).await.unwrap(), data);
    assert_eq!(peer.asked.load(Ordering::SeqCst), 2);
    assert_eq!(reader.traffic().fetched, ours.usage().await.unwrap().bytes);
}

#[tokio::test]
async fn every_layout_is_read() {
    for fixture in [
        include_str!("../../tests/fixtures/dag/trickle-v0.txt"),
        include_str!("../../tests/fixtures/dag/trickle-v1.txt"),
        include_str!("../../tests/fixtures/dag/balanced-v0.txt"),
    ] {
        let store = MemoryBlocks::new();
        let mut lines = fixture.lines();
        let root: Cid = lines.next().unwrap().parse().unwrap();
        for line in lines {
            let (cid, hex) = line.split_once(' ').unwrap();
            store.insert(Block::verify(cid.parse().unwrap(), hex::decode(hex).unwrap().into()).unwrap());
        }
        let expected: Vec<u8> = (0..3000_u32).map(|i| (((i * i) >> 5) & 255) as u8).collect();
        assert_eq!(read(local(&store), root).await.unwrap(), expected);
        assert_eq!(path::stat(&*local(&store), &root).await.unwrap(), path::Stat::File { size: 3000 });
    }
    let store = MemoryBlocks::new();
    for size in [0, 1, 40] {
        let root = add_file(&store, &noise(size), 40, 4);
        assert_eq!(read(local(&store), root.cid).await.unwrap(), noise(size));
    }
    let mut data = UnixFs::new(Kind::File);
    data.data = Bytes::from_static(b"inline");
    let block = Block::dag_pb(Node { links: vec![], data }.encode());
    store.insert(block.clone());
    assert_eq!(read(local(&store), *block.cid()).await.unwrap(), b"inline");
}

/// A file node over one raw leaf of five bytes (twice), changed before it is written.
fn liar(store: &MemoryBlocks, change: impl FnOnce(&mut Node)) -> Cid {
    let leaf = Block::raw(Bytes::from_static(b"12345"));
    let link = Link { cid: *leaf.cid(), name: String::new(), tsize: 5 };
    let mut data = UnixFs::new(Kind::File);
    data.blocksizes = vec![5, 5];
    data.filesize = Some(10);
    let mut node = Node { links: vec![link.clone(), link], data };
    change(&mut node);
    let block = Block::dag_pb(node.encode());
    let cid = *block.cid();
    store.insert(leaf);
    store.insert(block);
    cid
}

#[tokio::test]
async fn lying_files_are_refused() {
    let store = MemoryBlocks::new();
    let honest = liar(&store, |_| {});
    assert_eq!(read(local(&store), honest).await.unwrap(), b"1234512345");
    let changes: [fn(&mut Node); 9] = [
        |node| node.data.filesize = Some(11),
        |node| node.data.filesize = Some(9),
        |node| node.data.blocksizes = vec![5],
        |node| node.data.blocksizes = vec![5, 5, 0],
        |node| (node.data.blocksizes, node.data.filesize) = (vec![4, 5], Some(9)),
        |node| (node.data.blocksizes, node.data.filesize) = (vec![5, 6], Some(11)),
        |node| (node.data.blocksizes, node.data.filesize) = (vec![5, u64::MAX], None),
        |node| (node.data.blocksizes, node.data.filesize) = (vec![5, u64::MAX - 5], None),
        |node| (node.data.blocksizes, node.data.filesize) = (vec![5, 1 << 60], Some((1 << 60) + 5)),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let root = liar(&store, change);
        let error = read(local(&store), root).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{i}: {error}");
    }
    // An inner node that is larger than the claim of its parent, and a directory inside of a file.
    for (tsize, kind) in [(1, Kind::File), (1000, Kind::Directory)] {
        let inner = liar(&store, |node| node.data.kind = kind);
        let outer = liar(&store, |node| {
            node.links[1] = Link { cid: inner, name: String::new(), tsize };
            (node.data.blocksizes, node.data.filesize) = (vec![5, 10], Some(15));
        });
        assert_eq!(read(local(&store), outer).await.unwrap_err().kind(), ErrorKind::Integrity);
    }
    for kind in [Kind::Directory, Kind::Symlink, Kind::Metadata] {
        let root = liar(&store, |node| node.data.kind = kind);
        assert!(matches!(read(local(&store), root).await, Err(FileError::NotAFile { .. })));
    }
    let missing = *Block::raw(Bytes::from_static(b"nowhere")).cid();
    let root = liar(&store, |node| {
        node.links[1].cid = missing;
        (node.data.blocksizes, node.data.filesize) = (vec![5, 7], Some(12));
    });
    assert_eq!(read(local(&store), root).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(read(local(&store), missing).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_file_of_exabytes_costs_little() {
    let store = MemoryBlocks::new();
    let leaf = Block::raw(vec![1; 1 << 20].into());
    store.insert(leaf.clone());
    let mut below = FileRoot::leaf(*leaf.cid(), 1 << 20);
    for _ in 0..4 {
        let mut data = UnixFs::new(Kind::File);
        data.blocksizes = vec![below.size; 1000];
        let links = vec![Link { cid: below.cid, name: String::new(), tsize: below.tsize }; 1000];
        let block = Block::dag_pb(Node { links, data }.encode());
        below = FileRoot { cid: *block.cid(), size: below.size * 1000, tsize: below.tsize * 1000 };
        store.insert(block);
    }
    let window = Window::default();
    let mut file = File::open(local(&store), below.cid, &window).await.unwrap();
    assert_eq!(file.size(), 1_000_000_000_000 << 20);
    for _ in 0..50 {
        assert_eq!(file.next().await.unwrap().unwrap().len(), 1 << 20);
    }
    assert!(window.used() <= 33 << 20);
    assert!(file.parts_known() < 60_000, "{}", file.parts_known());
    // Too deep is refused.
    for _ in 0..70 {
        let mut data = UnixFs::new(Kind::File);
        data.blocksizes = vec![below.size];
        let links = vec![Link { cid: below.cid, name: String::new(), tsize: 0 }];
        let block = Block::dag_pb(Node { links, data }.encode());
        below.cid = *block.cid();
        store.insert(block);
    }
    let mut file = File::open(local(&store), below.cid, &window).await.unwrap();
    assert!(matches!(file.next().await, Some(Err(FileError::TooDeep))));
    // So is what is wide on each level: leaves that are in their CIDs cost nothing to name.
    let leaf = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"x").unwrap());
    let mut wide = FileRoot::leaf(leaf, 1);
    for _ in 0..4 {
        let mut data = UnixFs::new(Kind::File);
        data.blocksizes = [vec![wide.size], vec![1; limits::NODE_LINKS - 1]].concat();
        let links = data.blocksizes.iter().map(|size| Link { cid: leaf, name: String::new(), tsize: *size });
        let mut links: Vec<Link> = links.collect();
        (links[0].cid, links[0].tsize) = (wide.cid, 0);
        wide.size = data.blocksizes.iter().sum();
        data.filesize = Some(wide.size);
        let block = Block::dag_pb(Node { links, data }.encode());
        wide.cid = *block.cid();
        store.insert(block);
    }
    let mut file = File::open(local(&store), wide.cid, &window).await.unwrap();
    let read = file.next().await;
    assert!(matches!(read, Some(Err(FileError::TooWide))), "{read:?}");
    assert!(file.next().await.is_none());
}

#[tokio::test]
async fn files_share_a_window_without_standstill() {
    let theirs = MemoryBlocks::new();
    let data: Vec<Vec<u8>> = (1..=6_usize).map(|i| noise(400_000 + i)).collect();
    let roots: Vec<_> = data.iter().enumerate().map(|(i, data)| add_file(&theirs, data, 9000 + i, 20)).collect();
    for backwards in [false, true] {
        let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 1));
        let reader = Arc::new(fetching(&ours, &peer).await);
        let window = Window::new(10 * (16 << 10));
        let mut files = Vec::new();
        for root in &roots {
            files.push(File::open(reader.clone(), root.cid, &window).await.unwrap());
        }
        let mut order: Vec<_> = (0..files.len()).collect();
        if backwards {
            order.reverse();
        }
        for i in order {
            let mut out = Vec::new();
            let read = files[i].read_to_end(&mut out);
            tokio::time::timeout(Duration::from_secs(20), read).await.expect("no standstill").unwrap();
            assert!(out == data[i]);
            // The budget, and the block that each file needs next: the largest claim is an inner node's of 20 leaves.
            assert!(window.used() <= 10 * (16 << 10) + 6 * 200_000, "{}", window.used());
        }
        drop(files);
        assert_eq!(window.used(), 0);
    }
}

#[tokio::test]
async fn several_sources_are_asked_for_twice_as_much() {
    let theirs = MemoryBlocks::new();
    let data = noise(4_000_001);
    let root = add_file(&theirs, &data, 16 << 10, 1024);
    for (sources, most) in [(1, 33), (2, 65)] {
        let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 5));
        peer.sources.store(sources, Ordering::SeqCst);
        let reader = fetching(&ours, &peer).await;
        let window = reader.window(32 * (16 << 10));
        let mut out = Vec::new();
        let mut file = File::open(Arc::new(reader), root.cid, &window).await.unwrap();
        file.read_to_end(&mut out).await.unwrap();
        assert!(out == data);
        let found = peer.most_at_once.load(Ordering::SeqCst);
        assert!((most - 16..=most).contains(&found), "{sources}: {found}");
        drop(file);
        assert_eq!(window.used(), 0);
    }
}

#[tokio::test]
async fn files_that_nobody_reads_yet_do_not_hold_up_the_one_that_is_read() {
    let theirs = MemoryBlocks::new();
    let (ahead, needed) = (noise(2_000_000), noise(1_000_001));
    let [ahead_root, root] = [&ahead, &needed].map(|data| add_file(&theirs, data, 16 << 10, 1024));
    let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 40));
    let reader = Arc::new(fetching(&ours, &peer).await);
    let window = Window::new(64 * (16 << 10));
    // Opened first, and read by nobody.
    let waiting = File::open(reader.clone(), ahead_root.cid, &window).await.unwrap();
    let mut file = File::open(reader.clone(), root.cid, &window).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = std::time::Instant::now();
    let mut out = Vec::new();
    file.read_to_end(&mut out).await.unwrap();
    assert!(out == needed);
    assert!(started.elapsed() < Duration::from_millis(1500), "62 blocks one after the other take 2.5 s");
    drop(waiting);
}

fn entry(i: usize) -> Link {
    let block = Block::raw(format!("{i}\n").into());
    Link { cid: *block.cid(), name: format!("entry-{i}"), tsize: block.data().len() as u64 }
}

#[tokio::test]
async fn paths_lead_through_flat_and_sharded_directories() {
    let theirs = MemoryBlocks::new();
    let big = build((0..6000).map(entry)).unwrap();
    let inner = Link { cid: big.cid, name: "big".into(), tsize: big.tsize };
    let root = build([inner, entry(1)]).unwrap();
    for block in big.blocks.iter().chain(&root.blocks) {
        theirs.insert(block.clone());
    }
    let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 0));
    let reader = fetching(&ours, &peer).await;
    let found = path::resolve(&reader, &root.cid, "/big//entry-5999").await.unwrap();
    assert_eq!(found, entry(5999).cid);
    assert!(peer.asked.load(Ordering::SeqCst) <= 4);
    let error = path::resolve(&reader, &root.cid, "big/entry-6000").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::NotFound, format!("{} has no entry `entry-6000`", big.cid))
    );
    let error = path::resolve(&reader, &root.cid, "entry-1/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "entry-1 itself is nowhere");
    theirs.insert(Block::raw("1\n".into()));
    assert_eq!(path::resolve(&reader, &root.cid, "entry-1/x").await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut expected: Vec<_> = (0..6000).map(entry).collect();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(path::list(&reader, &big.cid).await.unwrap() == expected);
    assert_eq!(path::list(&reader, &root.cid).await.unwrap().len(), 2);
    assert_eq!(path::stat(&reader, &big.cid).await.unwrap(), path::Stat::Directory);

    let changes = [Change::Put(entry(6000)), Change::Remove("entry-0".into())];
    let edited = directory::edit(&reader, Some(big.cid), changes).await.unwrap();
    assert_eq!(edited.cid, build((1..=6000).map(entry)).unwrap().cid);
    let new = directory::edit(&reader, None, [Change::Put(entry(1))]).await.unwrap();
    assert_eq!(new.cid, build([entry(1)]).unwrap().cid);
}

#[tokio::test]
async fn names_in_the_wrong_shard_are_refused() {
    let store = MemoryBlocks::new();
    let mut data = UnixFs::new(Kind::Shard);
    (data.fanout, data.hash_type) = (Some(256), Some(0x22));
    data.data = Bytes::from_static(b"\x01");
    let leaf = Link { name: "00nobody".into(), ..entry(1) };
    let block = Block::dag_pb(Node { links: vec![leaf], data: data.clone() }.encode());
    store.insert(block.clone());
    assert_eq!(path::list(&*local(&store), block.cid()).await.unwrap_err().kind(), ErrorKind::Integrity);
    // Shards over shards that lead to the same one everywhere would list without end.
    let mut below = *block.cid();
    data.data = Bytes::from(vec![0xff; 32]);
    for _ in 0..12 {
        let link = |slot| Link { cid: below, name: format!("{slot:02X}"), tsize: 0 };
        let block = Block::dag_pb(Node { links: (0..256).map(link).collect(), data: data.clone() }.encode());
        below = *block.cid();
        store.insert(block);
    }
    assert_eq!(path::list(&*local(&store), &below).await.unwrap_err().kind(), ErrorKind::Integrity);
    let error = path::lookup(&*local(&store), &below, "x").await;
    assert!(matches!(error, Ok(None)), "{error:?}");
}

#[tokio::test]
async fn walks_see_everything_once() {
    let theirs = MemoryBlocks::new();
    let file = add_file(&theirs, &noise(200_000), 1000, 10);
    let again = add_file(&theirs, &vec![3; 50_000], 1000, 10);
    let link = |name: &str, file: &FileRoot| Link { cid: file.cid, name: name.into(), tsize: file.tsize };
    let root = build([link("a", &file), link("b", &again), link("c", &file)]).unwrap();
    root.blocks.iter().for_each(|block| theirs.insert(block.clone()));
    let all = theirs.cids().len() as u64;

    let walked = walk::survey(&theirs, &root.cid).await.unwrap();
    assert!(walked.is_complete());
    assert_eq!(walked.blocks, all);
    let mut live = Live::default();
    walk::mark(&theirs, &root.cid, &mut live).await.unwrap();
    assert_eq!(live.len() as u64, all);
    assert_eq!(walk::mark(&theirs, &root.cid, &mut live).await.unwrap().blocks, 0);

    let (ours, peer) = (MemoryBlocks::new(), Peer::new(&theirs, 1));
    let walked = walk::survey(&ours, &root.cid).await.unwrap();
    assert_eq!((walked.blocks, walked.missing_cids), (0, vec![root.cid]));
    let reader = fetching(&ours, &peer).await;
    assert_eq!(walk::fetch_all(&reader, &root.cid, 1 << 20, u64::MAX).await.unwrap(), all);
    assert_eq!(peer.asked.load(Ordering::SeqCst) as u64, all);
    assert!(walk::survey(&ours, &root.cid).await.unwrap().is_complete());
    assert_eq!(walk::fetch_all(&reader, &root.cid, 1 << 20, u64::MAX).await.unwrap(), all);
    assert_eq!(peer.asked.load(Ordering::SeqCst) as u64, all);

    let gone = *Block::raw(Bytes::from_static(b"gone")).cid();
    let broken = build([link("a", &file), Link { cid: gone, name: "x".into(), tsize: 4 }]).unwrap();
    broken.blocks.iter().for_each(|block| ours.insert(block.clone()));
    assert_eq!(walk::survey(&ours, &broken.cid).await.unwrap().missing_cids, [gone]);
    let error = walk::fetch_all(&reader, &broken.cid, 1 << 20, u64::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(reader.read(&file.cid).await.is_ok());
    // Whoever says how much there is knows when it is enough.
    let reader = fetching(&MemoryBlocks::new(), &Peer::new(&theirs, 1)).await;
    let error = walk::fetch_all(&reader, &root.cid, 1 << 20, 1000).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("1000 bytes")), (ErrorKind::Integrity, true), "{error}");
}
