//! The block exchange: Bitswap 1.2.0, client and server, as plain tasks around the [`Hub`].
//!
//! * [`message`]: the wire format.
//! * [`wants`]: what is asked of one peer, written in batches over a stream that is opened on demand, opened again after
//!   failures and closed when idle.
//! * [`ledger`]: what one peer asks of this node, and the task that answers it.
//! * [`session`]: blocks of one DAG from several peers; [`schedule`]: which peer is asked for what;
//!   [`reach`]: how they are found and kept connected; [`fellows`]: others who fetch the same, and what is left to whom.
//! * [`fresh`]: blocks that have just come, for others who wait for them.
//! * [`outbound`]: the streams by which this node sends.
//!
//! Any number of inbound streams per connection is read at once (Kubo opens one per message). Blocks are hashed on the
//! blocking pool and delivered from there; until a block is hashed its frame counts against the budgets of its peer and of
//! the node, so that foreign bytes never pile up.

mod fellows;
mod fresh;
mod ledger;
mod message;
mod outbound;
mod reach;
mod schedule;
mod session;
mod wants;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use ipcr_swarm::{Hub, Inbound, StreamProtocol};
use libp2p_identity::PeerId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::fresh::Fresh;
use self::ledger::Ledger;
#[cfg(any(test, feature = "fuzzing"))]
pub use self::message::fuzz;
use self::message::{Message, Payload};
pub(super) use self::reach::Discovery;
pub(super) use self::session::Session;
use self::session::Shared as SessionShared;
use self::wants::Wants;
use super::config::Share;
use super::frame;
use super::traffic::Counters;
use crate::dag::block::{Block, RAW};
use crate::exchange::walk::Seen;
use crate::limits;
use crate::net::Rate;
use crate::port::blocks::BlockStore;

/// The protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");

/// How long an outbound stream without messages stays open. Helia resets streams after 10 s without one.
const STREAM_IDLE: Duration = Duration::from_secs(5);
/// Most bytes of frames of one peer that are being read or hashed.
const INBOUND_BYTES_PER_PEER: usize = 4 * (limits::BITSWAP_FRAME_BYTES + MESSAGE_COST);
/// Most bytes of a message of a peer that was asked for no block: wantlists, and blocks that come when nobody waits any more.
const UNASKED_BYTES: usize = 512 << 10;
/// What a message counts beside its bytes.
const MESSAGE_COST: usize = 1 << 10;
/// Most bytes of frames of all peers that are being read or hashed.
const INBOUND_BYTES: usize = 112 << 20;
/// The same for those who were asked for no block.
const INBOUND_UNASKED_BYTES: usize = 16 << 20;
/// Most bytes of blocks that are read from the store and not yet written to their peers.
const OUTBOUND_BYTES: usize = 32 * limits::QUEUED_BYTES_PER_PEER;
/// How long a connection may take to become known after a stream of it.
const LINK: Duration = Duration::from_secs(5);
/// Wrong things that a peer may send before it is dropped.
const STRIKES: u32 = 3;
/// How long such a peer is remembered when it has gone.
const BAD_TIME: Duration = Duration::from_secs(3600);
/// How many of them are.
const BAD_PEERS: usize = 1024;

/// The exchange of one node.
pub(super) struct Bitswap {
    hub: Hub,
    store: Arc<dyn BlockStore>,
    counters: Arc<Counters>,
    terms: Terms,
    peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    /// Peers that were dropped, and when; the oldest first.
    bad: Mutex<VecDeque<(Instant, PeerId)>>,
    sessions: Mutex<Sessions>,
    inbound: Arc<Semaphore>,
    /// The same as `inbound` for those who were asked for no block.
    unasked: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
    /// What comes of all peers that were asked for something.
    download: Arc<Rate>,
    /// Messages whose blocks are verified at the same time: as many as there are processors.
    hashing: Arc<Semaphore>,
    /// Blocks that sessions have just received.
    fresh: Mutex<Fresh>,
    /// Blocks that are served to nobody: sessions fetched them that do not share.
    withheld: Mutex<HashSet<Multihash<64>>>,
    /// Woken when blocks were added to the store.
    added: Notify,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    this: Weak<Self>,
}

/// What is served, and how fast.
#[derive(Debug)]
pub(super) struct Terms {
    /// What others get.
    pub(super) share: Share,
    upload: Rate,
}

impl Terms {
    /// The rate is in bytes per second.
    pub(super) fn new(share: Share, upload: Option<NonZeroU64>) -> Self {
        Self { share, upload: Rate::new(upload) }
    }
}

#[derive(Default)]
struct Sessions {
    next: u64,
    open: HashMap<u64, Weak<SessionShared>>,
}

/// What the exchange knows about one peer.
struct Peer {
    id: PeerId,
    wants: Wants,
    ledger: Ledger,
    inbound: Arc<Semaphore>,
    strikes: std::sync::atomic::AtomicU32,
}

impl Peer {
    fn is_bad(&self) -> bool {
        self.strikes.load(std::sync::atomic::Ordering::Acquire) >= STRIKES
    }
}

impl fmt::Debug for Bitswap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitswap").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// Locks a mutex; a panic of another holder leaves nothing half-done here that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bitswap {
    /// To be called inside of a runtime.
    pub(super) fn new(
        hub: Hub,
        store: Arc<dyn BlockStore>,
        counters: Arc<Counters>,
        terms: Terms,
        download: Arc<Rate>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let bitswap = Arc::new_cyclic(|this| Self {
            hub,
            store,
            counters,
            download,
            terms,
            peers: Mutex::default(),
            bad: Mutex::default(),
            sessions: Mutex::default(),
            inbound: Arc::new(Semaphore::new(INBOUND_BYTES)),
            unasked: Arc::new(Semaphore::new(INBOUND_UNASKED_BYTES)),
            outbound: Arc::new(Semaphore::new(OUTBOUND_BYTES)),
            hashing: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, NonZeroUsize::get))),
            fresh: Mutex::default(),
            withheld: Mutex::default(),
            added: Notify::new(),
            runtime: Handle::current(),
            tasks,
            stop,
            this: this.clone(),
        });
        bitswap.spawn(Self::watch(bitswap.clone()));
        bitswap
    }

    /// Says that the store has blocks that it did not have before; peers that wait for them get them at once.
    pub(super) fn blocks_added(&self) {
        self.added.notify_waiters();
    }

    /// The hub of the node.
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Whether a session fetches this root and shares what it has.
    pub(super) fn shares(&self, root: &Cid) -> bool {
        self.open_sessions().iter().any(|session| session.shares(root))
    }

    /// A connected peer says that it fetches this root.
    pub(super) fn on_fellow(&self, root: &Cid, peer: PeerId) {
        for session in self.open_sessions() {
            session.on_fellow(root, peer);
        }
    }

    /// Nobody else gets these blocks, unless they become a registry's own.
    fn withhold(&self, cids: &[Cid]) {
        // Otherwise it is said which blocks are served, and these are not among them.
        if matches!(self.terms.share, Share::All) {
            lock(&self.withheld).extend(cids.iter().map(|cid| *cid.hash()));
        }
    }

    /// Whether any block is held that is served to nobody.
    pub(super) fn withholds(&self) -> bool {
        !lock(&self.withheld).is_empty()
    }

    /// Blocks that a registry has made its own are served again.
    pub(super) fn release_own(&self, own: &Seen) {
        lock(&self.withheld).retain(|hash| !own.contains(&Cid::new_v1(RAW, *hash)));
    }

    /// A session received a block; others who wait for it get it at once, with `keep` also if they ask for it only then.
    fn arrived(&self, block: &Block, keep: bool) {
        if keep {
            lock(&self.fresh).add(block);
        }
        let peers: Vec<Arc<Peer>> = lock(&self.peers).values().cloned().collect();
        for peer in peers {
            peer.ledger.arrived(block.cid());
        }
    }

    /// A session has ended; its members need not say any more whether they have its root.
    fn closed(&self, root: &Cid, members: &[PeerId]) {
        let open = self.open_sessions();
        if !open.iter().any(|session| !session.is_closed() && session.fetches(root)) {
            members.iter().for_each(|member| self.adjust(member, |wants| wants.forget(root)));
        }
        if open.iter().all(|session| session.is_closed()) {
            *lock(&self.fresh) = Fresh::default();
        }
    }

    /// Which of these blocks are served.
    pub(super) async fn held(&self, cids: &[Cid]) -> Vec<Cid> {
        let (mut held, mut open) = (Vec::new(), Vec::new());
        {
            let (fresh, withheld) = (lock(&self.fresh), lock(&self.withheld));
            let served = |cid: &&Cid| !withheld.contains(cid.hash()) && self.terms.share.allows(cid);
            for cid in cids.iter().filter(served) {
                if fresh.get(cid).is_some() { held.push(*cid) } else { open.push(*cid) }
            }
        }
        if !open.is_empty() {
            let stored = self.store.has(&open).await.unwrap_or_default();
            held.extend(open.into_iter().zip(stored).filter(|(_, stored)| *stored).map(|(cid, _)| cid));
        }
        held
    }

    /// These blocks, as far as they are here and served.
    async fn blocks(&self, cids: &[Cid]) -> Vec<Option<Bytes>> {
        let mut found: Vec<Option<Bytes>> = vec![None; cids.len()];
        let (mut places, mut stored) = (Vec::new(), Vec::new());
        {
            let (fresh, withheld) = (lock(&self.fresh), lock(&self.withheld));
            for (place, cid) in cids.iter().enumerate().filter(|(_, cid)| self.terms.share.allows(cid)) {
                found[place] = fresh.get(cid);
                if found[place].is_none() && !withheld.contains(cid.hash()) {
                    places.push(place);
                    stored.push(*cid);
                }
            }
        }
        if !stored.is_empty() {
            let got = self.store.get_each(&stored).await;
            for ((place, cid), got) in places.into_iter().zip(stored).zip(got) {
                found[place] = got.unwrap_or_else(|error| {
                    tracing::warn!(%cid, %error, "a wanted block cannot be read");
                    None
                });
            }
        }
        found
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task => {}
                }
            },
            &self.runtime,
        );
    }

    /// A strong handle of itself, for tasks.
    fn this(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    fn peer(&self, id: PeerId) -> Arc<Peer> {
        let mut peers = lock(&self.peers);
        peers
            .entry(id)
            .or_insert_with(|| {
                Arc::new(Peer {
                    id,
                    wants: Wants::default(),
                    ledger: Ledger::default(),
                    inbound: Arc::new(Semaphore::new(INBOUND_BYTES_PER_PEER)),
                    strikes: 0.into(),
                })
            })
            .clone()
    }

    fn open_sessions(&self) -> Vec<Arc<SessionShared>> {
        let mut sessions = lock(&self.sessions);
        sessions.open.retain(|_, session| session.strong_count() > 0);
        sessions.open.values().filter_map(Weak::upgrade).collect()
    }

    fn register(&self, session: &Arc<SessionShared>) {
        let mut sessions = lock(&self.sessions);
        let id = sessions.next;
        sessions.next += 1;
        sessions.open.insert(id, Arc::downgrade(session));
    }

    /// Forgets peers that are gone: what they wanted, and what they were asked; but not who misbehaved, for a while.
    async fn watch(self: Arc<Self>) {
        let mut changes = self.hub.changes();
        while changes.changed().await.is_ok() {
            let connected: HashSet<_> = self.hub.connected().into_iter().collect();
            let gone: Vec<Arc<Peer>> = {
                let peers = lock(&self.peers);
                peers.values().filter(|peer| !connected.contains(&peer.id)).cloned().collect()
            };
            let bad = self.remembered();
            for peer in gone {
                peer.ledger.clear();
                if bad.contains(&peer.id) {
                    continue;
                }
                let mut peers = lock(&self.peers);
                // One is this task's, one the table's; a peer in use by a stream or a session stays.
                if Arc::strong_count(&peer) == 2 {
                    peers.remove(&peer.id);
                }
            }
        }
    }

    /// The peers that were dropped lately.
    fn remembered(&self) -> HashSet<PeerId> {
        let mut bad = lock(&self.bad);
        let surplus = bad.len().saturating_sub(BAD_PEERS);
        bad.drain(..surplus);
        while bad.front().is_some_and(|(since, _)| since.elapsed() > BAD_TIME) {
            bad.pop_front();
        }
        bad.iter().map(|(_, peer)| *peer).collect()
    }

    /// Takes an inbound stream.
    pub(super) fn accept(&self, inbound: Inbound) {
        if let Some(this) = self.this() {
            self.spawn(async move {
                let peer = inbound.peer;
                if let Err(error) = this.receive(inbound).await {
                    tracing::debug!(%peer, %error, "an inbound bitswap stream ended");
                }
            });
        }
    }

    async fn receive(self: Arc<Self>, inbound: Inbound) -> std::io::Result<()> {
        let Inbound { peer, mut stream, slot: _slot } = inbound;
        // Otherwise what is asked first could not be answered, and would be forgotten.
        self.hub.await_link(&peer, LINK).await;
        let peer = self.peer(peer);
        // Nothing of a peer that misbehaved too often is looked at any more.
        while !peer.is_bad()
            && let Some(length) = frame::read_length(&mut stream, limits::BITSWAP_FRAME_BYTES).await?
        {
            // Whoever was asked for no block has no reason to send any, and must not be in the way of those who were.
            let asked = peer.wants.wanted_any();
            if !asked && length > UNASKED_BYTES {
                return Err(std::io::Error::other("a long message of a peer that was asked for nothing"));
            }
            let (all, cost) = (if asked { &self.inbound } else { &self.unasked }, length + MESSAGE_COST);
            let budget = (budget(&peer.inbound, cost).await?, budget(all, cost).await?);
            // What nobody asked for is no download, and must not use up what others may send.
            let rate = asked.then_some(&*self.download);
            let body = Bytes::from(frame::read_body(&mut stream, length, rate).await?);
            let Ok(message) = Message::decode(&body) else {
                self.strike(&peer, "it sent a message that is not Bitswap");
                return Ok(());
            };
            self.handle(&peer, message, budget).await;
        }
        Ok(())
    }

    async fn handle(&self, peer: &Arc<Peer>, message: Message, budget: (OwnedSemaphorePermit, OwnedSemaphorePermit)) {
        let Message { full, wants, blocks, presences, skipped } = message;
        if skipped > 0 {
            tracing::debug!(peer = %peer.id, skipped, "entries of a message could not be read");
        }
        if (full || !wants.is_empty()) && peer.ledger.update(full, wants) {
            self.answer(peer);
        }
        if !presences.is_empty() {
            for session in self.open_sessions() {
                session.on_presences(peer.id, &presences);
            }
        }
        if !blocks.is_empty()
            && let Some(this) = self.this()
        {
            let peer = peer.clone();
            let turn = Arc::clone(&self.hashing).acquire_owned().await;
            self.runtime.spawn_blocking(move || {
                let _turn = turn;
                for block in blocks {
                    if peer.is_bad() {
                        break;
                    }
                    this.deliver(&peer, block);
                }
                drop(budget);
            });
        }
    }

    /// Verifies a block, by making its CID, and hands it to those who want it. Blocking.
    fn deliver(&self, peer: &Arc<Peer>, payload: Payload) {
        let Payload { prefix, data } = payload;
        let Some(block) = prefix.block(data) else {
            self.strike(peer, "it sent a block with an unacceptable hash or size");
            return;
        };
        let asked = peer.wants.was_asked(block.cid());
        let mut wanted = false;
        for session in self.open_sessions() {
            // Counted for the first only, and before anybody can see the block.
            wanted |= session.on_block(peer.id, &block, !wanted);
        }
        if !wanted && !asked {
            self.strike(peer, "it sent a block that nobody asked for");
        }
    }

    fn strike(&self, peer: &Arc<Peer>, reason: &'static str) {
        let strikes = 1 + peer.strikes.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        tracing::debug!(peer = %peer.id, strikes, reason, "a peer misbehaved");
        if strikes == STRIKES {
            peer.ledger.clear();
            lock(&self.bad).push_back((Instant::now(), peer.id));
            for session in self.open_sessions() {
                session.on_bad_peer(peer.id, reason);
            }
        }
    }

    /// Whether a peer misbehaved too often.
    pub(super) fn is_bad(&self, peer: PeerId) -> bool {
        self.known(&peer).is_some_and(|peer| peer.is_bad())
    }

    /// Asks a peer for a block; every call is to be followed by one of [`Bitswap::release`].
    fn want(&self, peer: PeerId, cid: &Cid) {
        let peer = self.peer(peer);
        if peer.wants.add(cid) {
            self.write_wants(&peer);
        }
    }

    /// Asks a peer for a block that it has been asked for before.
    fn ask_again(&self, peer: PeerId, cid: &Cid) {
        let peer = self.peer(peer);
        if peer.wants.repeat(cid) {
            self.write_wants(&peer);
        }
    }

    /// Asks a peer whether it has a block.
    fn probe(&self, peer: PeerId, cid: &Cid) {
        let peer = self.peer(peer);
        if peer.wants.probe(cid) {
            self.write_wants(&peer);
        }
    }

    /// Asks a peer to say when it has a block; every call is to be followed by one of [`Bitswap::unwatch`].
    fn watch_for(&self, peer: PeerId, cid: &Cid, claimed: bool) {
        let peer = self.peer(peer);
        if peer.wants.watch(cid, claimed) {
            self.write_wants(&peer);
        }
    }

    /// Tells a peer that is watched for a block that a holder was asked for it.
    fn claim(&self, peer: PeerId, cid: &Cid) {
        self.adjust(&peer, |wants| wants.claim(cid));
    }

    /// Need not hear any more of a block; with `cancel` the peer is told.
    fn unwatch(&self, peer: PeerId, cid: &Cid, cancel: bool) {
        self.adjust(&peer, |wants| wants.unwatch(cid, cancel));
    }

    /// Whether a peer wants anything.
    fn is_asking(&self, peer: &PeerId) -> bool {
        self.known(peer).is_some_and(|peer| !peer.ledger.is_idle())
    }

    /// Whether a peer waits to hear of a block, and if so, whether it has asked a holder for it.
    fn interest(&self, peer: &PeerId, cid: &Cid) -> Option<bool> {
        self.known(peer).and_then(|peer| peer.ledger.interest(cid))
    }

    /// Wants a block of a peer no more; with `cancel` the peer is told.
    fn release(&self, peer: PeerId, cid: &Cid, cancel: bool) {
        self.adjust(&peer, |wants| wants.release(cid, cancel));
    }

    fn known(&self, peer: &PeerId) -> Option<Arc<Peer>> {
        lock(&self.peers).get(peer).cloned()
    }

    /// Changes what a peer is asked for, if there is such a peer; `change` says whether a writer has to be started.
    fn adjust(&self, peer: &PeerId, change: impl FnOnce(&Wants) -> bool) {
        if let Some(peer) = self.known(peer)
            && change(&peer.wants)
        {
            self.write_wants(&peer);
        }
    }

    fn write_wants(&self, peer: &Arc<Peer>) {
        if let Some(this) = self.this() {
            self.spawn(wants::write(this, peer.clone()));
        }
    }

    fn answer(&self, peer: &Arc<Peer>) {
        if let Some(this) = self.this() {
            self.spawn(ledger::answer(this, peer.clone()));
        }
    }

    /// Wants could not be written to a peer.
    fn failed(&self, peer: PeerId) {
        for session in self.open_sessions() {
            session.on_failure(peer);
        }
    }
}

/// Takes `bytes` from a budget; a frame of nothing costs one byte.
async fn budget(semaphore: &Arc<Semaphore>, bytes: usize) -> std::io::Result<OwnedSemaphorePermit> {
    let count = u32::try_from(bytes.max(1)).map_err(std::io::Error::other)?;
    semaphore.clone().acquire_many_owned(count).await.map_err(std::io::Error::other)
}
