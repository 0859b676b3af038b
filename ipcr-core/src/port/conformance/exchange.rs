//! What every implementation of `port::exchange` must do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use multiaddr::Multiaddr;

use crate::dag::block::{Block, DAG_PB, IDENTITY, RAW};
use crate::event::{Emitter, Event};
use crate::kind::ErrorKind;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession};
use crate::port::memory::blocks::MemoryBlocks;

/// What the suite works on.
pub(crate) struct Fixture {
    /// The exchange under test.
    pub(crate) exchange: Arc<dyn Exchange>,
    /// Another of the same kind that can reach nobody.
    pub(crate) lonely: Arc<dyn Exchange>,
    /// Three others that can be reached, each with an empty store.
    pub(crate) holders: Vec<Holder>,
}

/// Somebody who may have blocks.
pub(crate) struct Holder {
    /// What it serves.
    pub(crate) store: MemoryBlocks,
    /// Where it is.
    pub(crate) address: Multiaddr,
}

/// Runs all checks.
pub(crate) async fn conforms(fixture: Fixture) {
    delivers_from_several(&fixture).await;
    delivers_either_cid_version(&fixture).await;
    answers_what_needs_no_network(&fixture).await;
    delivers_what_comes_later(&fixture).await;
    cancels_what_is_dropped(&fixture).await;
    gives_up_after_the_stall(&fixture).await;
    says_when_there_is_nobody(&fixture).await;
}

/// A block of this size that no other call makes.
fn block(size: usize) -> Block {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut data = vec![7; size];
    data[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Block::raw(data.into())
}

async fn open(fixture: &Fixture, root: &Cid, stall: Duration) -> Arc<dyn FetchSession> {
    let hints = fixture.holders.iter().map(|holder| holder.address.clone()).collect();
    let request = FetchRequest { root: *root, hints, stall, share: true, events: Emitter::silent() };
    fixture.exchange.open(request).await.unwrap()
}

const STALL: Duration = Duration::from_secs(20);

async fn delivers_from_several(fixture: &Fixture) {
    let blocks: Vec<_> = (0..300).map(|index| block(1000 + 97 * index)).collect();
    for (index, block) in blocks.iter().enumerate() {
        // Each block has one holder only.
        fixture.holders[index % 3].store.insert(block.clone());
    }
    let (events, mut watcher) = Emitter::watched();
    let hints = fixture.holders.iter().map(|holder| holder.address.clone()).collect();
    let request = FetchRequest { root: *blocks[0].cid(), hints, stall: STALL, share: true, events };
    let session = fixture.exchange.open(request).await.unwrap();
    let fetches = blocks.iter().map(|block| session.fetch(block.cid()));
    for (block, fetched) in blocks.iter().zip(futures::future::join_all(fetches).await) {
        assert_eq!(fetched.unwrap(), *block);
    }
    let shares = session.peers();
    let bytes: u64 = blocks.iter().map(|block| block.data().len() as u64).sum();
    assert_eq!(shares.iter().map(|share| share.blocks).sum::<u64>(), 300);
    assert_eq!(shares.iter().map(|share| share.bytes).sum::<u64>(), bytes);
    assert_eq!(shares.iter().filter(|share| share.blocks > 0).count(), 3);
    drop(session);
    let mut peers = 0;
    while let Ok(event) = watcher.try_recv() {
        peers += usize::from(matches!(event, Event::Peer { .. }));
    }
    assert_eq!(peers, 3, "every peer is told once");
}

async fn delivers_either_cid_version(fixture: &Fixture) {
    let block = Block::dag_pb(Bytes::from_static(b"\x0a\x02\x08\x01"));
    fixture.holders[0].store.insert(block.clone());
    let old = Cid::new_v0(*block.cid().hash()).unwrap();
    let raw = Cid::new_v1(RAW, *block.cid().hash());
    for cid in [old, raw, *block.cid()] {
        let session = open(fixture, &cid, STALL).await;
        assert_eq!(session.fetch(&cid).await.unwrap().into_parts(), (cid, block.data().clone()));
    }
    let session = open(fixture, &old, STALL).await;
    let (first, second) = tokio::join!(session.fetch(&old), session.fetch(block.cid()));
    assert_eq!((Some(first.unwrap()), second.unwrap()), (block.clone().named(old), block));
}

async fn answers_what_needs_no_network(fixture: &Fixture) {
    let identity = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"abc").unwrap());
    let unknown = Cid::new_v1(DAG_PB, Multihash::wrap(0xb220, &[1; 32]).unwrap());
    let request = FetchRequest { root: identity, hints: vec![], stall: STALL, share: true, events: Emitter::silent() };
    let session = fixture.lonely.open(request).await.unwrap();
    assert_eq!(session.fetch(&identity).await.unwrap().data(), "abc");
    let refused = session.fetch(&unknown).await.unwrap_err();
    assert!(matches!(&refused, ExchangeError::Refused { cid, .. } if *cid == unknown), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Integrity);
}

async fn delivers_what_comes_later(fixture: &Fixture) {
    let block = block(100);
    let session = open(fixture, block.cid(), STALL).await;
    let store = fixture.holders[1].store.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        store.insert(block.clone());
    };
    let (fetched, ()) = tokio::join!(session.fetch(block.cid()), later);
    assert_eq!(fetched.unwrap(), block);
}

async fn cancels_what_is_dropped(fixture: &Fixture) {
    let (missing, present) = (block(100), block(100));
    fixture.holders[2].store.insert(present.clone());
    let session = open(fixture, present.cid(), STALL).await;
    for _ in 0..3 {
        let fetch = session.fetch(missing.cid());
        assert!(tokio::time::timeout(Duration::from_millis(50), fetch).await.is_err());
    }
    assert_eq!(session.fetch(present.cid()).await.unwrap(), present);
    fixture.holders[2].store.insert(missing.clone());
    assert_eq!(session.fetch(missing.cid()).await.unwrap(), missing);
}

async fn gives_up_after_the_stall(fixture: &Fixture) {
    let (missing, present) = (block(100), block(100));
    fixture.holders[0].store.insert(present.clone());
    let stall = Duration::from_secs(1);
    let session = open(fixture, present.cid(), stall).await;
    session.fetch(present.cid()).await.unwrap();
    let started = Instant::now();
    let error = session.fetch(missing.cid()).await.unwrap_err();
    let (ExchangeError::Stalled { cid, peers, .. } | ExchangeError::NotSent { cid, peers, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(cid == missing.cid() && *peers > 0, "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(started.elapsed() >= stall && started.elapsed() < stall * 3, "{:?}", started.elapsed());
    assert_eq!(session.fetch(present.cid()).await.unwrap(), present, "the session goes on");
}

async fn says_when_there_is_nobody(fixture: &Fixture) {
    let block = block(100);
    let stall = Duration::from_secs(1);
    let request = FetchRequest { root: *block.cid(), hints: vec![], stall, share: true, events: Emitter::silent() };
    let session = fixture.lonely.open(request).await.unwrap();
    let error = session.fetch(block.cid()).await.unwrap_err();
    assert!(matches!(&error, ExchangeError::NoProvider { root, .. } if root == block.cid()), "{error:?}");
}
