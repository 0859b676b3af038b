//! An in-memory exchange between stores of one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use tokio::time::Instant;

use crate::dag::block::{self, Block};
use crate::event::{Event, Warning};
use crate::port::blocks::BlockStore;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession, PeerShare};

/// How often holders are asked again for a block that none of them has.
const RETRY: Duration = Duration::from_millis(20);

/// Stores that can be reached by peer id. A session asks the hinted ones, then all others. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryExchange(Arc<Mutex<HashMap<PeerId, Arc<dyn BlockStore>>>>);

impl MemoryExchange {
    /// One that reaches nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a store reachable, and returns the address to hint at it.
    pub fn add(&self, peer: PeerId, store: Arc<dyn BlockStore>) -> Multiaddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, store);
        address_of(peer)
    }

    /// Takes a store away; sessions notice at once.
    pub fn remove(&self, peer: &PeerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    fn reachable(&self) -> Vec<(PeerId, Arc<dyn BlockStore>)> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.iter().map(|(peer, store)| (*peer, store.clone())).collect()
    }
}

fn address_of(peer: PeerId) -> Multiaddr {
    Multiaddr::from(Protocol::Memory(1)).with(Protocol::P2p(peer))
}

fn nothing_of(peer: PeerId) -> PeerShare {
    PeerShare { peer, address: None, relayed: false, blocks: 0, bytes: 0 }
}

#[derive(Debug)]
struct MemorySession {
    exchange: MemoryExchange,
    request: FetchRequest,
    hinted: Vec<PeerId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shares: HashMap<PeerId, PeerShare>,
    bad: Vec<PeerId>,
    progress: Instant,
}

#[async_trait]
impl Exchange for MemoryExchange {
    async fn open(&self, request: FetchRequest) -> Result<Arc<dyn FetchSession>, ExchangeError> {
        let last = |address: &Multiaddr| match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        let hinted = request.hints.iter().filter_map(last).collect();
        let state = State { shares: HashMap::new(), bad: Vec::new(), progress: Instant::now() };
        Ok(Arc::new(MemorySession { exchange: self.clone(), request, hinted, state: Mutex::new(state) }))
    }
}

impl MemorySession {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks everybody once.
    async fn ask(&self, cid: &Cid) -> Option<Block> {
        let mut holders = self.exchange.reachable();
        // The one that did least is asked first, hinted ones before others.
        holders.sort_by_key(|(peer, _)| {
            let blocks = self.state().shares.get(peer).map_or(0, |share| share.blocks);
            (!self.hinted.contains(peer), blocks)
        });
        for (peer, store) in holders {
            if self.state().bad.contains(&peer) {
                continue;
            }
            let Ok(Some(data)) = store.get(cid).await else { continue };
            let block = match Block::verify(*cid, data) {
                Ok(block) => block,
                Err(error) => {
                    self.state().bad.push(peer);
                    let warning = Warning::BadPeer { peer: peer.to_string(), reason: error.to_string() };
                    self.request.events.warn(warning).await;
                    continue;
                }
            };
            let (new, received) = self.count(peer, block.data().len() as u64);
            if new {
                let peer = peer.to_string();
                self.request.events.tell(Event::Peer { peer, address: String::new(), relayed: false }).await;
            }
            self.request.events.hint(received);
            return Some(block);
        }
        None
    }

    fn count(&self, peer: PeerId, bytes: u64) -> (bool, Event) {
        let mut state = self.state();
        state.progress = Instant::now();
        let new = !state.shares.contains_key(&peer);
        let share = state.shares.entry(peer).or_insert_with(|| nothing_of(peer));
        share.blocks += 1;
        share.bytes += bytes;
        let bytes = state.shares.values().map(|share| share.bytes).sum();
        (new, Event::Received { bytes, peers: state.shares.len() })
    }
}

#[async_trait]
impl FetchSession for MemorySession {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        if ![block::SHA2_256, block::SHA2_512].contains(&cid.hash().code()) {
            // It carries its bytes, or is too long.
            let inside = Block::verify(*cid, block::identity_data(cid).unwrap_or_default());
            return inside.map_err(|source| ExchangeError::Refused { cid: *cid, source });
        }
        let since = Instant::now();
        loop {
            if let Some(block) = self.ask(cid).await {
                return Ok(block);
            }
            let waited = since.max(self.state().progress).elapsed();
            if waited >= self.request.stall {
                let (peers, root) = (self.exchange.reachable().len(), self.request.root);
                return Err(match peers {
                    0 => ExchangeError::NoProvider { root, waited, tried: self.hinted.len() },
                    _ => ExchangeError::Stalled { cid: *cid, waited, peers },
                });
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn peers(&self) -> Vec<PeerShare> {
        let reachable = self.exchange.reachable();
        let state = self.state();
        let connected = |peer: PeerId| state.shares.get(&peer).cloned().unwrap_or_else(|| nothing_of(peer));
        reachable
            .into_iter()
            .map(|(peer, _)| PeerShare { address: Some(address_of(peer)), ..connected(peer) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::port::conformance::exchange::{Fixture, Holder, conforms};
    use crate::port::memory::blocks::MemoryBlocks;

    #[tokio::test]
    async fn the_twin_conforms() {
        let exchange = MemoryExchange::new();
        let holder = |_| {
            let store = MemoryBlocks::new();
            Holder { address: exchange.add(PeerId::random(), Arc::new(store.clone())), store }
        };
        let holders = (0..3).map(holder).collect();
        conforms(Fixture { exchange: Arc::new(exchange.clone()), lonely: Arc::new(MemoryExchange::new()), holders })
            .await;
    }

    #[tokio::test]
    async fn a_liar_is_dropped() {
        let (exchange, liar, honest) = (MemoryExchange::new(), MemoryBlocks::new(), MemoryBlocks::new());
        let block = Block::raw(Bytes::from_static(b"truth"));
        honest.insert(block.clone());
        liar.insert(block.clone());
        liar.damage(block.cid(), Bytes::from_static(b"lies!"));
        let hint = exchange.add(PeerId::random(), Arc::new(liar));
        exchange.add(PeerId::random(), Arc::new(honest));
        let request = FetchRequest {
            root: *block.cid(),
            hints: vec![hint],
            stall: Duration::from_secs(5),
            share: true,
            events: crate::event::Emitter::silent(),
        };
        let session = exchange.open(request).await.unwrap();
        assert_eq!(session.fetch(block.cid()).await.unwrap(), block);
    }
}
