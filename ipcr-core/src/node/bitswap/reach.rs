//! Who may hold the DAG of a session, and how they are reached.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use ipcr_swarm::DialError;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::lock;
use super::schedule::Standing;
use super::session::{FOUND_PEERS, Shared, TICK};
use crate::event::{Event, Warning};
use crate::net::addresses;
use crate::node::swarm::{AskError, Fellows};
use crate::port::routing::Provider;

/// How long to wait before a lost or unreachable peer is dialled again, at first and at most.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Dials of a found peer that was never reached.
const FOUND_DIALS: usize = 2;
/// Most found peers that are connected, dialled, or wait to be dialled.
const FOUND: usize = 256;
/// How long blocks must fail to come before providers are looked for although peers were hinted at.
const HINTED_FIRST: Duration = Duration::from_secs(2);
/// How long to wait between two searches for providers.
const SEARCH_AGAIN: Duration = Duration::from_secs(15);

/// Who may hold a DAG.
#[async_trait]
pub(in crate::node) trait Discovery: fmt::Debug + Send + Sync {
    /// Sends everyone who is said to hold `root`; returns when nobody else can be found.
    async fn discover(&self, root: &Cid, found: mpsc::Sender<Provider>);

    /// Asks a connected peer who else fetches `root`; with `announce` it, and whoever asks it, may know that this node does.
    async fn fellows(&self, peer: &PeerId, root: &Cid, announce: bool) -> Result<Fellows, AskError>;

    /// Replaces names in addresses.
    async fn resolve(&self, addresses: &[Multiaddr]) -> Vec<Multiaddr>;
}

/// Finds nobody.
#[derive(Debug)]
pub(super) struct Nobody;

#[async_trait]
impl Discovery for Nobody {
    async fn discover(&self, _: &Cid, _: mpsc::Sender<Provider>) {}

    async fn fellows(&self, _: &PeerId, _: &Cid, _: bool) -> Result<Fellows, AskError> {
        Ok(Fellows { fetching: false, peers: Vec::new() })
    }

    async fn resolve(&self, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
        addresses.to_vec()
    }
}

impl Shared {
    /// Dials the hinted peers, all at once.
    pub(super) async fn dial_hints(self: Arc<Self>) {
        let mut known: Vec<PeerId> = Vec::new();
        let mut open = self.request.hints.clone();
        while !open.is_empty() {
            let mut unresolved = Vec::new();
            let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
            for hint in open {
                let resolved = self.discovery.resolve(std::slice::from_ref(&hint)).await;
                if resolved.is_empty() {
                    unresolved.push(hint);
                }
                for address in resolved {
                    match addresses::peer(&address) {
                        Some(peer) => peers.entry(peer).or_default().push(address),
                        None => tracing::warn!(%address, "a hint without a peer id is ignored"),
                    }
                }
            }
            for (peer, addresses) in peers {
                if !known.contains(&peer) {
                    known.push(peer);
                    self.spawn(Self::keep_connected(self.clone(), Provider { peer, addresses }, usize::MAX));
                }
            }
            open = unresolved;
            tokio::time::sleep(REDIAL.1).await;
        }
    }

    /// Looks for providers, again and again while blocks fail to come.
    pub(super) async fn find_providers(self: Arc<Self>) {
        let mut known = HashMap::new();
        let places = Arc::new(Semaphore::new(FOUND_PEERS));
        loop {
            while !self.request.hints.is_empty() && self.since_progress() < HINTED_FIRST {
                tokio::time::sleep(TICK).await;
            }
            let (sender, mut found) = mpsc::channel(FOUND_PEERS);
            let search = self.discovery.discover(&self.request.root, sender);
            let take = async {
                while let Some(one) = found.recv().await {
                    known.retain(|_, place: &mut Weak<()>| place.strong_count() > 0);
                    if known.len() < FOUND && !known.contains_key(&one.peer) && one.peer != self.bitswap.hub.local() {
                        let place = Arc::new(());
                        known.insert(one.peer, Arc::downgrade(&place));
                        let (this, places) = (self.clone(), places.clone());
                        self.spawn(async move {
                            // Whoever is not reached makes room for the next: anybody may say of anybody that it is a holder.
                            let _turn = places.acquire().await;
                            this.keep_connected(one, FOUND_DIALS).await;
                            drop(place);
                        });
                    }
                }
            };
            tokio::join!(search, take);
            tokio::time::sleep(SEARCH_AGAIN).await;
            while self.since_progress() < SEARCH_AGAIN {
                tokio::time::sleep(SEARCH_AGAIN).await;
            }
        }
    }

    fn since_progress(&self) -> Duration {
        lock(&self.state).progress.elapsed()
    }

    /// Connects to a holder, and again whenever the connection is lost.
    async fn keep_connected(self: Arc<Self>, found: Provider, dials: usize) {
        let Provider { peer, addresses } = found;
        if self.bitswap.is_bad(peer) {
            let warning = Warning::BadPeer { peer: peer.to_string(), reason: "it sent wrong things before".into() };
            return self.request.events.warn(warning).await;
        }
        let hub = &self.bitswap.hub;
        let _hold = hub.hold(peer);
        self.tried.fetch_add(1, Ordering::AcqRel);
        let mut changes = hub.changes();
        let (mut pause, mut failures, mut told) = (REDIAL.0, 0, false);
        while !self.bitswap.is_bad(peer) {
            match hub.dial(peer, &addresses).await {
                Ok(()) => {
                    (pause, failures) = (REDIAL.0, 0);
                    self.join(peer);
                    if !std::mem::replace(&mut told, true) {
                        self.tell(peer).await;
                    }
                    while hub.epoch(&peer).is_some() && changes.changed().await.is_ok() {}
                    tracing::debug!(%peer, "a holder was lost");
                }
                Err(error @ (DialError::NoAddress | DialError::Oneself | DialError::Stopped)) => {
                    tracing::debug!(%peer, %error, "a holder cannot be dialled");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "a holder was not reached");
                    failures += 1;
                    if failures >= dials && !told {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REDIAL.1);
        }
    }

    /// Makes a connected peer a holder.
    fn join(&self, peer: PeerId) {
        let mut state = lock(&self.state);
        state.schedule.join(peer, Standing::Holder, self.bitswap.hub.epoch(&peer), Instant::now());
        self.follow_connections(&mut state);
        self.assign(&mut state);
    }

    pub(super) async fn tell(&self, peer: PeerId) {
        if let Some(link) = self.bitswap.hub.link(&peer) {
            tracing::debug!(%peer, after = ?self.opened.elapsed(), "a holder is connected");
            let address = addresses::with_peer(&link.address, peer).to_string();
            self.request.events.tell(Event::Peer { peer: peer.to_string(), address, relayed: link.relayed }).await;
        }
    }
}
