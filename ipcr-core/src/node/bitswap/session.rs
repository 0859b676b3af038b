//! Blocks of one DAG from several peers: [`Session`].
//!
//! Who is asked: hinted peers (dialled first, all at once, and dialled again whenever they are lost), providers that the
//! [`Discovery`] finds meanwhile, and connected peers that say they have the root. Holders are sent wants for blocks
//! straight away; each block is asked of one peer, and of another when that one refuses, leaves or makes no progress.
//! Who fetches the same is a fellow (`fellows`), and asked for what it says that it has.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use cid::multihash::Multihash;
use libp2p_identity::PeerId;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fellows::{self, Among, Company};
use super::message::Presence;
use super::reach::{Discovery, Nobody};
use super::schedule::{Choice, Member, Schedule, Standing};
use super::{Bitswap, PROTOCOL, lock};
use crate::dag::block::{self, Block};
use crate::event::{Event, Warning};
use crate::exchange::waiters::{Waiter, Waiters, Waiting};
use crate::net::addresses;
use crate::port::exchange::{ExchangeError, FetchRequest, FetchSession, PeerShare};

/// How often clocks are looked at.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// The same while others fetch the same.
const SHARED_TICK: Duration = Duration::from_millis(30);
/// How long one of the next blocks may take before an idle peer is asked for it, too.
const LATE: Duration = Duration::from_secs(2);
/// How long a block that everybody refused is not asked for again.
pub(super) const REFUSED: Duration = Duration::from_secs(2);
/// Blocks that are looked at for one free place.
const LOOK_AHEAD: usize = 64;
/// Most peers at once that a session finds by itself, and that it waits to hear from.
pub(super) const FOUND_PEERS: usize = 32;
/// Shortest time between two [`Event::Received`].
const REPORT: Duration = Duration::from_millis(50);

/// A session in use. Dropping it cancels everything.
pub(in crate::node) struct Session(Arc<Shared>);

/// What a session and its tasks share.
pub(super) struct Shared {
    pub(super) bitswap: Arc<Bitswap>,
    pub(super) discovery: Arc<dyn Discovery>,
    pub(super) request: FetchRequest,
    pub(super) opened: Instant,
    pub(super) state: Mutex<State>,
    closed: CancellationToken,
    pub(super) tried: AtomicUsize,
    /// Whether nothing is fetched, and only asked who has the root.
    pub(super) only_asks: bool,
    pub(super) this: Weak<Self>,
}

pub(super) struct State {
    pub(super) wants: HashMap<Multihash<64>, Want>,
    /// Wants that nobody is asked for.
    pub(super) queue: VecDeque<Multihash<64>>,
    /// Wants that everybody refused, with the time when they are asked for again.
    pub(super) refused: VecDeque<(Instant, Multihash<64>)>,
    pub(super) schedule: Schedule,
    /// When the last block came.
    pub(super) progress: Instant,
    /// Smoothed time between two blocks.
    pub(super) gap: Duration,
    /// Block bytes that came.
    pub(super) bytes: u64,
    /// Blocks that were ever wanted.
    wanted: u64,
    pub(super) company: Company,
    reported: Instant,
}

pub(super) struct Want {
    pub(super) cid: Cid,
    /// Which one it is, counted from the first.
    pub(super) number: u64,
    pub(super) since: Instant,
    waiters: Waiters,
    pub(super) asked: Vec<PeerId>,
    /// When somebody was asked last.
    pub(super) asked_at: Instant,
    pub(super) refused: Vec<PeerId>,
    pub(super) among: Among,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("root", &self.0.request.root).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.closed.cancel();
        let mut state = lock(&self.0.state);
        state.queue.clear();
        for (_, want) in std::mem::take(&mut state.wants) {
            for peer in &want.asked {
                self.0.bitswap.release(*peer, &want.cid, true);
            }
            self.0.forget_among(&mut state.schedule, &want);
        }
        let members: Vec<PeerId> = state.schedule.members().map(|(peer, _)| *peer).collect();
        drop(state);
        self.0.bitswap.closed(&self.0.request.root, &members);
    }
}

#[async_trait]
impl FetchSession for Session {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        if !block::is_fetchable(cid) {
            // It carries its bytes, or is of no use.
            let inside = Block::verify(*cid, block::identity_data(cid).unwrap_or_default());
            return inside.map_err(|source| ExchangeError::Refused { cid: *cid, source });
        }
        let waiting = Waiting::new(self.0.want(cid), || self.0.give_up(cid.hash()));
        tokio::select! {
            () = self.0.bitswap.stop.cancelled() => Err(stopped()),
            answer = waiting => {
                let block = answer.unwrap_or_else(|| Err(stopped()))?;
                Ok(block.named(*cid).expect("wants are found by their multihash"))
            }
        }
    }

    fn peers(&self) -> Vec<PeerShare> {
        let state = lock(&self.0.state);
        let part = |member: &Member| {
            member.standing == Standing::Holder || (member.standing == Standing::Fellow && member.blocks > 0)
        };
        let members = state.schedule.members().filter(|(_, member)| part(member));
        let shares = members.map(|(peer, member)| {
            let link = self.0.bitswap.hub.link(peer);
            PeerShare {
                peer: *peer,
                relayed: link.as_ref().is_some_and(|link| link.relayed),
                address: link.map(|link| addresses::with_peer(&link.address, *peer)),
                blocks: member.blocks,
                bytes: member.bytes,
            }
        });
        shares.collect()
    }

    fn sources(&self) -> usize {
        lock(&self.0.state).schedule.members().filter(|(_, member)| member.blocks > 0).count()
    }
}

fn stopped() -> ExchangeError {
    ExchangeError::Offline { reason: "the node has stopped".into() }
}

impl Session {
    /// Begins to fetch a DAG.
    pub(in crate::node) fn open(bitswap: Arc<Bitswap>, discovery: Arc<dyn Discovery>, request: FetchRequest) -> Self {
        let session = Self::new(bitswap, discovery, request, false);
        let Self(shared) = &session;
        shared.spawn(Shared::dial_hints(shared.clone()));
        shared.spawn(Shared::find_providers(shared.clone()));
        shared.spawn(Shared::find_fellows(shared.clone()));
        session
    }

    /// Only asks connected peers whether they have the root.
    pub(in crate::node) fn ask_connected(bitswap: Arc<Bitswap>, request: FetchRequest) -> Self {
        Self::new(bitswap, Arc::new(Nobody), request, true)
    }

    /// Whether no connected peer's answer about the root is missing.
    pub(in crate::node) fn all_answered(&self) -> bool {
        self.0.tick();
        lock(&self.0.state).schedule.members().all(|(_, member)| member.standing != Standing::Asked)
    }

    /// Members that have the root or sent blocks.
    pub(in crate::node) fn holders(&self) -> Vec<PeerId> {
        let state = lock(&self.0.state);
        let members = state.schedule.members().filter(|(_, member)| member.standing == Standing::Holder);
        members.map(|(peer, _)| *peer).collect()
    }

    fn new(bitswap: Arc<Bitswap>, discovery: Arc<dyn Discovery>, request: FetchRequest, only_asks: bool) -> Self {
        let now = Instant::now();
        let shared = Arc::new_cyclic(|this| Shared {
            bitswap,
            discovery,
            request,
            opened: now,
            state: Mutex::new(State {
                wants: HashMap::new(),
                queue: VecDeque::new(),
                refused: VecDeque::new(),
                schedule: Schedule::default(),
                progress: now,
                gap: Duration::ZERO,
                bytes: 0,
                wanted: 0,
                company: Company::default(),
                reported: now,
            }),
            closed: CancellationToken::new(),
            tried: AtomicUsize::new(0),
            only_asks,
            this: this.clone(),
        });
        shared.bitswap.register(&shared);
        shared.spawn(Shared::drive(shared.clone()));
        Self(shared)
    }
}

impl Shared {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.bitswap.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Whether nobody uses it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn want(&self, cid: &Cid) -> oneshot::Receiver<Result<Block, ExchangeError>> {
        let now = Instant::now();
        let (waiter, answer) = Waiter::new(now);
        let mut state = lock(&self.state);
        let hash = *cid.hash();
        match state.wants.get_mut(&hash) {
            Some(want) => want.waiters.add(waiter),
            None => {
                state.wanted += 1;
                let mut want = Want {
                    cid: *cid,
                    number: state.wanted,
                    since: now,
                    waiters: Waiters::default(),
                    asked: Vec::new(),
                    asked_at: self.opened,
                    refused: Vec::new(),
                    among: Among::default(),
                };
                want.waiters.add(waiter);
                self.watch_fellows(&mut state.schedule, &mut want);
                state.wants.insert(hash, want);
                state.queue.push_back(hash);
                self.assign(&mut state);
            }
        }
        answer
    }

    fn give_up(&self, hash: &Multihash<64>) {
        let mut state = lock(&self.state);
        let Some(want) = state.wants.get_mut(hash) else { return };
        if !want.waiters.wait()
            && let Some(want) = state.wants.remove(hash)
        {
            for peer in &want.asked {
                state.schedule.settled(peer);
                self.bitswap.release(*peer, &want.cid, true);
            }
            self.forget_among(&mut state.schedule, &want);
            self.assign(&mut state);
        }
    }

    /// Asks for what nobody is asked for, as far as peers have room.
    pub(super) fn assign(&self, state: &mut State) {
        let now = Instant::now();
        let unknown = state.company.is_unknown(self.opened, now);
        // In the beginning, all of them read names and folders and are about to want the same.
        let begins = state.bytes < fellows::BEGINNING.1;
        let young = now.saturating_duration_since(self.opened) < fellows::YOUNG;
        state.schedule.set_crowd((unknown || young, young), now, |peer| begins || self.bitswap.is_asking(peer));
        if state.schedule.is_shared() {
            return self.assign_among(state, now);
        }
        let mut later = Vec::new();
        while later.len() < LOOK_AHEAD
            && state.schedule.has_room(now)
            && let Some(hash) = state.queue.pop_front()
        {
            let Some(want) = state.wants.get_mut(&hash).filter(|want| want.asked.is_empty()) else { continue };
            match state.schedule.choose(&want.refused, now) {
                Choice::Ask(peer) => {
                    want.asked.push(peer);
                    want.asked_at = now;
                    state.schedule.asked(&peer, now);
                    self.bitswap.want(peer, &want.cid);
                }
                Choice::Later => later.push(hash),
                Choice::Nobody => state.refused.push_back((now + REFUSED, hash)),
            }
        }
        for hash in later.into_iter().rev() {
            state.queue.push_front(hash);
        }
    }

    /// A block came; true if it was wanted here. With `count` it is added to the node's counters then.
    pub(super) fn on_block(&self, peer: PeerId, block: &Block, count: bool) -> bool {
        let now = Instant::now();
        let (cid, size) = (block.cid(), block.data().len());
        let mut state = lock(&self.state);
        if cid.hash() == self.request.root.hash() {
            // A small root is sent by those who were only asked whether they have it.
            state.schedule.learn(&peer, true);
        }
        let Some(want) = state.wants.remove(cid.hash()) else { return false };
        if count {
            self.bitswap.counters.received(size as u64);
        }
        for asked in &want.asked {
            state.schedule.settled(asked);
            self.bitswap.release(*asked, &want.cid, *asked != peer);
        }
        self.forget_among(&mut state.schedule, &want);
        state.schedule.received(&peer, size, now);
        state.gap = (state.gap * 7 + now.saturating_duration_since(state.progress)) / 8;
        state.progress = now;
        state.bytes += size as u64;
        if self.request.share {
            self.bitswap.arrived(block, state.schedule.is_shared());
        } else {
            self.bitswap.withhold(&[*block.cid()]);
        }
        want.waiters.answer(block);
        self.assign(&mut state);
        if now.duration_since(state.reported) > REPORT && self.request.events.is_watched() {
            state.reported = now;
            let senders = state.schedule.members().filter(|(_, member)| member.blocks > 0);
            let (peers, bytes) = senders.fold((0, 0), |(peers, bytes), (_, member)| (peers + 1, bytes + member.bytes));
            drop(state);
            self.request.events.hint(Event::Received { bytes, peers });
        }
        true
    }

    /// A peer said what it has and has not.
    pub(super) fn on_presences(&self, peer: PeerId, presences: &[Presence]) {
        let mut state = lock(&self.state);
        if !state.schedule.contains(&peer) {
            return;
        }
        for Presence { cid, have } in presences {
            if cid.hash() == self.request.root.hash() {
                state.schedule.learn(&peer, *have);
            }
            let State { wants, queue, refused, schedule, .. } = &mut *state;
            if *have {
                if let Some(want) = wants.get_mut(cid.hash()) {
                    self.on_have(schedule, want, peer);
                    // Nobody else had it a moment ago.
                    if let Some(index) = refused.iter().position(|(_, hash)| hash == cid.hash()) {
                        refused.remove(index);
                        queue.push_back(*cid.hash());
                    }
                }
                continue;
            }
            if let Some(want) = wants.get_mut(cid.hash()) {
                want.among.forget(&peer);
            }
            if let Some(want) = wants.get_mut(cid.hash())
                && let Some(index) = want.asked.iter().position(|asked| *asked == peer)
            {
                want.asked.swap_remove(index);
                want.refused.push(peer);
                schedule.settled(&peer);
                self.bitswap.release(peer, &want.cid, true);
                if want.asked.is_empty() {
                    queue.push_front(*cid.hash());
                }
            }
        }
        self.assign(&mut state);
    }

    /// A peer has sent too many wrong things.
    pub(super) fn on_bad_peer(&self, peer: PeerId, reason: &str) {
        let mut state = lock(&self.state);
        if state.schedule.ban(&peer) {
            self.take_back(&mut state, peer, true);
            self.assign(&mut state);
            drop(state);
            let events = self.request.events.clone();
            let warning = Warning::BadPeer { peer: peer.to_string(), reason: reason.into() };
            self.spawn(async move { events.warn(warning).await });
        }
    }

    /// A peer could not be written to.
    pub(super) fn on_failure(&self, peer: PeerId) {
        let mut state = lock(&self.state);
        state.schedule.fail(&peer, Instant::now());
        self.take_back(&mut state, peer, false);
        self.forget_fellow(&mut state, peer);
        // What it was asked has not arrived: it is asked again.
        state.schedule.forget(&peer);
        self.assign(&mut state);
    }

    /// Asks others for what a peer was asked for.
    pub(super) fn take_back(&self, state: &mut State, peer: PeerId, cancel: bool) {
        let State { wants, queue, schedule, .. } = state;
        for (hash, want) in wants {
            let Some(index) = want.asked.iter().position(|asked| *asked == peer) else { continue };
            want.asked.swap_remove(index);
            schedule.settled(&peer);
            self.bitswap.release(peer, &want.cid, cancel);
            if want.asked.is_empty() {
                queue.push_front(*hash);
            }
        }
    }

    /// Watches connections and clocks.
    async fn drive(self: Arc<Self>) {
        let mut changes = self.bitswap.hub.changes();
        loop {
            self.tick();
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(if self.is_shared() { SHARED_TICK } else { TICK }) => {}
            }
        }
    }

    fn is_shared(&self) -> bool {
        lock(&self.state).schedule.is_shared()
    }

    fn tick(&self) {
        let now = Instant::now();
        let speakers = self.bitswap.hub.speakers(&PROTOCOL);
        let mut state = lock(&self.state);
        self.follow_connections(&mut state);
        self.probe_connected(&mut state, &speakers, now);
        for (peer, others) in state.schedule.overdue(now) {
            tracing::debug!(%peer, others, "a peer makes no progress");
            if others {
                Self::distrust(&mut state, peer, now);
                self.take_back(&mut state, peer, true);
            } else {
                let asked = state.wants.values().filter(|want| want.asked.contains(&peer));
                asked.for_each(|want| self.bitswap.ask_again(peer, &want.cid));
            }
        }
        while state.refused.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, hash)) = state.refused.pop_front() {
                let State { wants, queue, .. } = &mut *state;
                if let Some(want) = wants.get_mut(&hash) {
                    want.refused.clear();
                    queue.push_back(hash);
                }
            }
        }
        self.watch_more(&mut state, now);
        self.assign(&mut state);
        self.ask_idle(&mut state, now);
        self.fail_stalled(&mut state, now);
    }

    /// Asks holders that have nothing to do for what is needed next and does not come: whoever sends one block now and then makes
    /// progress, and everybody waits. So do the last blocks of a slow peer.
    fn ask_idle(&self, state: &mut State, now: Instant) {
        let State { wants, schedule, .. } = state;
        let Some(first) = wants.values().map(|want| want.number).min() else { return };
        let late = |want: &&mut Want| {
            want.number < first + fellows::NEXT
                && !want.asked.is_empty()
                && now.saturating_duration_since(want.asked_at) > LATE
        };
        for want in wants.values_mut().filter(late) {
            let Some(peer) = schedule.idle_holder(&[&want.asked, &want.refused], now) else { continue };
            tracing::debug!(cid = %want.cid, %peer, "a block is late, and another peer is asked for it, too");
            schedule.pass_over(&want.asked, now);
            want.asked.push(peer);
            want.asked_at = now;
            schedule.asked(&peer, now);
            self.bitswap.want(peer, &want.cid);
        }
    }

    /// Notices peers that came, went, or went and came back.
    pub(super) fn follow_connections(&self, state: &mut State) {
        let members: Vec<PeerId> = state.schedule.members().map(|(peer, _)| *peer).collect();
        for peer in members {
            let hub = &self.bitswap.hub;
            let multiplexed = || hub.link(&peer).map(|link| !link.is_quic());
            if state.schedule.follow(&peer, hub.epoch(&peer), multiplexed) {
                self.take_back(state, peer, false);
                self.forget_fellow(state, peer);
                // Whoever comes back is asked again: it has forgotten the question.
                state.schedule.forget(&peer);
            }
        }
    }

    /// Asks connected peers that are no members yet whether they have the root.
    fn probe_connected(&self, state: &mut State, speakers: &[PeerId], now: Instant) {
        for peer in speakers {
            if (self.only_asks || state.schedule.unanswered() < FOUND_PEERS)
                && !state.schedule.contains(peer)
                && !self.bitswap.is_bad(*peer)
            {
                state.schedule.join(*peer, Standing::Asked, self.bitswap.hub.epoch(peer), now);
                self.bitswap.probe(*peer, &self.request.root);
            }
        }
    }

    /// Ends fetches that have waited for too long.
    fn fail_stalled(&self, state: &mut State, now: Instant) {
        let stall = self.request.stall;
        let progress = state.progress;
        let waited = |since: Instant| now.saturating_duration_since(since.max(progress));
        let peers = state.schedule.connected();
        let mut done = Vec::new();
        for (hash, want) in &mut state.wants {
            for waiter in want.waiters.take_late(|since| waited(since) >= stall) {
                let waited = waited(waiter.since);
                waiter.fail(if peers == 0 {
                    ExchangeError::NoProvider {
                        root: self.request.root,
                        waited,
                        tried: self.tried.load(Ordering::Acquire),
                    }
                } else {
                    ExchangeError::Stalled { cid: want.cid, waited, peers }
                });
            }
            if !want.waiters.wait() {
                done.push(*hash);
            }
        }
        for hash in done {
            if let Some(want) = state.wants.remove(&hash) {
                for peer in &want.asked {
                    state.schedule.settled(peer);
                    self.bitswap.release(*peer, &want.cid, true);
                }
                self.forget_among(&mut state.schedule, &want);
            }
        }
    }
}
