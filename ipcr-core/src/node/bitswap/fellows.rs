//! Others who fetch the same DAG: how they are found, and what is asked of them or left to them.
//!
//! Holders and fellows are asked who else fetches the root (`/ipcr/swarm/1`), again every few seconds, and what they name is
//! dialled. A fellow is asked to say when it has a block (`WANT_HAVE`, which stays open), so that this node knows what is where,
//! and what the fellow wants itself it says with the same question. From that:
//!
//! * what fellows have is asked of them, the rarest first, and only of them as long as they deliver;
//! * what nobody has yet is asked of a holder by one of those who want it: the one that has done so already (it says so by the
//!   priority of its want), else the one whose peer id and the block's hash mix to the largest number; so holders send each block
//!   about once, whenever who begins. The others wait for it, as long as blocks come at all;
//! * the few blocks that whoever reads in order needs next come before everything else, and nodes of a DAG, which are small and
//!   hold up what is below them, are asked of holders straight away.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use ipcr_swarm::DialError;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use tokio::time::Instant;

use super::lock;
use super::schedule::{Choice, Schedule, Standing};
use super::session::{Shared, State, TICK, Want};
use crate::dag::block::RAW;
use crate::net::addresses;
use crate::node::swarm::{PROTOCOL, digest, mix};
use crate::port::routing::Provider;

/// Most fellows of a session.
const FELLOWS: usize = 32;
/// Most blocks that one fellow is watched for.
const WATCHED: usize = 512;
/// Blocks, in the order in which they were wanted first, that are asked for before rarer ones.
pub(super) const NEXT: u64 = 4;
/// How long it is waited for holders to say who else fetches before much is asked of them.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// How long after its begin a session asks holders for little at once: whoever begins at the same time is not known at once.
pub(super) const YOUNG: Duration = Duration::from_millis(1500);
/// How long a peer is waited for that may dial, too, before it is dialled.
const ITS_TURN: Duration = Duration::from_millis(500);
/// How long after a question the same peer is asked again, at first and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Wants below which, and bytes before which, a session is reading names and folders.
pub(super) const BEGINNING: (usize, u64) = (4, 4 << 20);
/// How long it takes until it shows that it does so no more, because much is wanted at once.
const SHOWS: Duration = Duration::from_millis(20);
/// How long fellows have to say that they want a block, too, before a holder is asked for it, and how much longer for each of them.
const PRUDENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(10));
/// How long an opinion about whose turn it is lasts.
const OPINION: Duration = Duration::from_millis(50);
/// The shortest time without any block after which what was left to others is asked for, and the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));
/// How often the patience with fellows is halved.
const LETDOWNS: u32 = 6;
/// Most fellows that are waited for one after the other.
const WAITED_FOR: u8 = 2;

/// What a session knows about its fellows as such.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Those that are dialled, or connected and held.
    known: HashSet<PeerId>,
    dialling: usize,
    /// Whether somebody has answered, and those whom it named have been dialled.
    answered: bool,
    /// How often what was left to others did not come.
    letdowns: u32,
}

impl Company {
    /// How long it is waited without any block, `gap` apart until now, for what was left to others: half as long after each time that
    /// it was for nothing.
    fn patience(&self, gap: Duration) -> Duration {
        (gap * 4).clamp(PATIENCE.0, PATIENCE.1) / (1 << self.letdowns.min(LETDOWNS))
    }

    /// Whether it may still turn out that others fetch, too.
    pub(super) fn is_unknown(&self, opened: Instant, now: Instant) -> bool {
        !self.answered && now.saturating_duration_since(opened) < FIRST_ANSWER
    }
}

/// What fellows have to do with one want.
#[derive(Debug, Default)]
pub(super) struct Among {
    /// Who is to say when it has the block.
    watched: Vec<PeerId>,
    /// Who said that it has it.
    have: Vec<PeerId>,
    /// Whether this node has said that it asks a holder for it. It is believed, also when it had to be taken back.
    claimed: bool,
    /// Who is to ask a holder for it before this node does, as of a moment.
    before: Vec<PeerId>,
    judged: Option<Instant>,
}

impl Among {
    /// A peer does not have the block after all.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.have.retain(|have| have != peer);
    }
}

impl Shared {
    /// Runs a task of this session's with it, unless it has ended.
    fn spawn_with<F>(&self, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(this) = self.this.upgrade() {
            self.spawn(task(this));
        }
    }

    /// Whether this session fetches `root` and others may know.
    pub(super) fn shares(&self, root: &Cid) -> bool {
        self.request.share && self.fetches(root) && !self.only_asks
    }

    /// Whether this session fetches `root`.
    pub(super) fn fetches(&self, root: &Cid) -> bool {
        self.request.root.hash() == root.hash()
    }

    /// A connected peer says that it fetches `root`.
    pub(super) fn on_fellow(&self, root: &Cid, peer: PeerId) {
        if self.fetches(root) && !self.only_asks {
            self.meet(Provider { peer, addresses: Vec::new() });
        }
    }

    /// Asks for fellows, again and again.
    pub(super) async fn find_fellows(self: Arc<Self>) {
        let mut asked: HashMap<PeerId, (Instant, Duration)> = HashMap::new();
        let mut changes = self.bitswap.hub.changes();
        loop {
            let now = Instant::now();
            for peer in self.tellers() {
                let (due, pause) = asked.entry(peer).or_insert((now, ASK_AGAIN.0));
                if *due <= now {
                    *due = now + *pause;
                    *pause = (*pause * 2).min(ASK_AGAIN.1);
                    self.spawn(Self::ask_for_fellows(self.clone(), peer));
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Members that may know of fellows.
    fn tellers(&self) -> Vec<PeerId> {
        let mut speakers = self.bitswap.hub.speakers(&PROTOCOL);
        let identified = self.bitswap.hub.speakers(&super::PROTOCOL);
        let mut state = lock(&self.state);
        let members: HashMap<PeerId, Standing> =
            state.schedule.members().map(|(peer, member)| (*peer, member.standing)).collect();
        speakers.retain(|peer| matches!(members.get(peer), Some(Standing::Holder | Standing::Fellow)));
        // Holders that are something else than ipcr know of nobody.
        if speakers.is_empty() && identified.iter().any(|peer| members.get(peer) == Some(&Standing::Holder)) {
            state.company.answered = true;
        }
        speakers
    }

    async fn ask_for_fellows(self: Arc<Self>, peer: PeerId) {
        let answer = self.discovery.fellows(&peer, &self.request.root, self.request.share).await;
        match answer {
            Ok(fellows) => {
                tracing::debug!(%peer, count = fellows.peers.len(), fetching = fellows.fetching, "a peer told of fellows");
                if fellows.fetching {
                    self.meet(Provider { peer, addresses: Vec::new() });
                }
                for found in fellows.peers {
                    self.meet(found);
                }
            }
            Err(error) => tracing::debug!(%peer, %error, "a peer told of no fellows"),
        }
        let mut state = lock(&self.state);
        if state.company.dialling == 0 {
            state.company.answered = true;
        }
    }

    /// Connects to a fellow, unless there are enough.
    fn meet(&self, found: Provider) {
        let peer = found.peer;
        if peer == self.bitswap.hub.local() || self.bitswap.is_bad(peer) {
            return;
        }
        let dials = !found.addresses.is_empty();
        let mut state = lock(&self.state);
        let company = &mut state.company;
        if company.known.len() >= FELLOWS || !company.known.insert(peer) {
            return;
        }
        company.dialling += usize::from(dials);
        drop(state);
        self.spawn_with(|this| Self::accompany(this, found));
    }

    /// Keeps a fellow for as long as it is connected.
    async fn accompany(self: Arc<Self>, found: Provider) {
        let Provider { peer, addresses } = found;
        let hub = &self.bitswap.hub;
        let _hold = hub.hold(peer);
        let dialled = match addresses.as_slice() {
            [] => Ok(()),
            addresses => self.dial_fellow(peer, addresses).await,
        };
        let mut changes = hub.changes();
        {
            let mut state = lock(&self.state);
            state.company.dialling -= usize::from(!addresses.is_empty());
            if state.company.dialling == 0 {
                state.company.answered = true;
            }
        }
        match dialled {
            Ok(()) if hub.epoch(&peer).is_some() => {
                self.join_fellow(peer);
                self.tell(peer).await;
                while hub.epoch(&peer).is_some() {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                tracing::debug!(%peer, "a fellow has gone");
            }
            Ok(()) => {}
            Err(error) => tracing::debug!(%peer, %error, "a fellow was not reached"),
        }
        // It may come back, or be named again.
        lock(&self.state).company.known.remove(&peer);
    }

    /// Connects to a fellow. Both are told of each other at about the same time, and one connection is enough: the one with the
    /// smaller peer id dials first. Connections of different kinds are not tried at once either, because what is sent by the one
    /// that is not kept is lost. TCP comes first: bytes cost half as much of the processor as with QUIC.
    async fn dial_fellow(&self, peer: PeerId, addresses: &[Multiaddr]) -> Result<(), DialError> {
        let hub = &self.bitswap.hub;
        if hub.local() > peer {
            let mut changes = hub.changes();
            let comes = async { while hub.epoch(&peer).is_none() && changes.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(ITS_TURN, comes).await;
        }
        let (quic, tcp): (Vec<_>, Vec<_>) = addresses.iter().cloned().partition(addresses::is_quic);
        match hub.dial(peer, &tcp).await {
            Err(DialError::NoAddress | DialError::Failed(_) | DialError::Timeout) => hub.dial(peer, &quic).await,
            done => done,
        }
    }

    fn join_fellow(&self, peer: PeerId) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        // What it was asked for as a holder, it is asked for when it has it.
        self.take_back(&mut state, peer, true);
        state.schedule.join(peer, Standing::Fellow, self.bitswap.hub.epoch(&peer), now);
        self.follow_connections(&mut state);
        self.watch_more(&mut state, now);
        self.assign(&mut state);
    }

    /// Watches all fellows for a new want.
    pub(super) fn watch_fellows(&self, schedule: &mut Schedule, want: &mut Want) {
        let room = |(peer, member): (&PeerId, &super::schedule::Member)| (member.probes < WATCHED).then_some(*peer);
        let fellows: Vec<PeerId> = schedule.fellows(Instant::now()).filter_map(room).collect();
        for peer in fellows {
            self.watch(schedule, want, peer, false);
        }
    }

    fn watch(&self, schedule: &mut Schedule, want: &mut Want, peer: PeerId, claimed: bool) {
        if !want.among.watched.contains(&peer) && !want.among.have.contains(&peer) {
            want.among.watched.push(peer);
            schedule.probing(&peer, true);
            self.bitswap.watch_for(peer, &want.cid, claimed);
        }
    }

    /// Watches fellows for older wants, as far as they have room.
    pub(super) fn watch_more(&self, state: &mut State, now: Instant) {
        let fellows: Vec<PeerId> = state.schedule.fellows(now).map(|(peer, _)| *peer).collect();
        for peer in fellows {
            let probes = |schedule: &Schedule| schedule.member(&peer).map_or(WATCHED, |member| member.probes);
            if probes(&state.schedule) >= WATCHED {
                continue;
            }
            let State { wants, schedule, .. } = state;
            let unwatched = |want: &&mut Want| {
                !want.among.watched.contains(&peer) && !want.among.have.contains(&peer) && !want.asked.contains(&peer)
            };
            let mut open: Vec<&mut Want> = wants.values_mut().filter(unwatched).collect();
            open.sort_unstable_by_key(|want| want.number);
            for want in open {
                if probes(schedule) >= WATCHED {
                    break;
                }
                // What was asked for while nobody else was known counts, too.
                want.among.claimed |= want.asked.iter().any(|asked| !schedule.is_fellow(asked));
                let claimed = want.among.claimed;
                self.watch(schedule, want, peer, claimed);
            }
        }
    }

    /// A want is one no more.
    pub(super) fn forget_among(&self, schedule: &mut Schedule, want: &Want) {
        for peer in &want.among.watched {
            schedule.probing(peer, false);
            self.bitswap.unwatch(*peer, &want.cid, true);
        }
    }

    /// A fellow may have forgotten what it is watched for.
    pub(super) fn forget_fellow(&self, state: &mut State, peer: PeerId) {
        let State { wants, schedule, .. } = state;
        if !schedule.is_fellow(&peer) {
            return;
        }
        for want in wants.values_mut() {
            want.among.have.retain(|have| *have != peer);
            if let Some(index) = want.among.watched.iter().position(|watched| *watched == peer) {
                want.among.watched.swap_remove(index);
                self.bitswap.unwatch(peer, &want.cid, false);
            }
        }
        schedule.forget_probes(&peer);
    }

    /// A peer has a block that is wanted.
    pub(super) fn on_have(&self, schedule: &mut Schedule, want: &mut Want, peer: PeerId) {
        if let Some(index) = want.among.watched.iter().position(|watched| *watched == peer) {
            want.among.watched.swap_remove(index);
            schedule.probing(&peer, false);
            self.bitswap.unwatch(peer, &want.cid, false);
        }
        if schedule.is_fellow(&peer) && !want.among.have.contains(&peer) {
            want.among.have.push(peer);
            want.refused.retain(|refused| *refused != peer);
        }
    }

    /// Asks for what nobody is asked for, when others fetch the same.
    pub(super) fn assign_among(&self, state: &mut State, now: Instant) {
        let patience = state.company.patience(state.gap);
        let State { wants, queue, schedule, company, .. } = state;
        queue.retain(|hash| wants.get(hash).is_some_and(|want| want.asked.is_empty()));
        let Some(first) = wants.values().map(|want| want.number).min() else { return };
        let mut order: Vec<_> =
            queue.iter().filter_map(|hash| wants.get(hash).map(|want| (rank(want, first), *hash))).collect();
        order.sort_unstable_by_key(|(rank, _)| *rank);
        let newest = wants.values().map(|want| want.since).max();
        let shows = newest.is_some_and(|since| now.saturating_duration_since(since) >= SHOWS);
        let beginning = wants.len() < BEGINNING.0 && state.bytes < BEGINNING.1;
        let unknown = company.is_unknown(self.opened, now);
        let quiet = |want: &Want| now.saturating_duration_since(want.since.max(state.progress));
        let much_faster = schedule.holders_are_much_faster(now);
        let mut asked = Vec::new();
        let mut nobody = Vec::new();
        for (_, hash) in order {
            let Some(want) = wants.get_mut(&hash) else { continue };
            let have: Vec<PeerId> =
                want.among.have.iter().copied().filter(|peer| !want.refused.contains(peer)).collect();
            let choice = match schedule.choose_fellow(&have, now) {
                Choice::Ask(peer) => Choice::Ask(peer),
                Choice::Later if !much_faster => Choice::Later,
                fellow if schedule.has_room(now) => {
                    let alone = if beginning { shows } else { much_faster || fellow == Choice::Later };
                    let direct = alone || want.cid.codec() != RAW;
                    let waited = quiet(want);
                    if direct || !unknown && self.is_mine(schedule, company, want, (waited, patience), now) {
                        schedule.choose(&want.refused, now)
                    } else {
                        Choice::Later
                    }
                }
                _ => Choice::Later,
            };
            match choice {
                Choice::Ask(peer) => {
                    want.asked.push(peer);
                    want.asked_at = now;
                    schedule.asked(&peer, now);
                    self.bitswap.want(peer, &want.cid);
                    if !schedule.is_fellow(&peer) {
                        want.among.claimed = true;
                        want.among.watched.iter().for_each(|fellow| self.bitswap.claim(*fellow, &want.cid));
                    }
                    asked.push(hash);
                }
                Choice::Later => {}
                Choice::Nobody => nobody.push(hash),
            }
        }
        queue.retain(|hash| !asked.contains(hash) && !nobody.contains(hash));
        state.refused.extend(nobody.into_iter().map(|hash| (now + super::session::REFUSED, hash)));
    }

    /// Whether it is for this node to ask a holder for what no fellow has.
    fn is_mine(
        &self,
        schedule: &mut Schedule,
        company: &mut Company,
        want: &mut Want,
        (quiet, patience): (Duration, Duration),
        now: Instant,
    ) -> bool {
        if now.saturating_duration_since(want.since) < PRUDENCE.0 + PRUDENCE.1 * schedule.busy_fellows() {
            return false;
        }
        if want.among.judged.is_none_or(|judged| now.saturating_duration_since(judged) > OPINION) {
            want.among.judged = Some(now);
            want.among.before = self.before(schedule, want, now);
        }
        let before = u8::try_from(want.among.before.len()).unwrap_or(WAITED_FOR).min(WAITED_FOR);
        if before == 0 {
            return true;
        }
        // As long as holders owe this node something, they are what is slow.
        if quiet < patience * u32::from(before) || schedule.waits_for_holders(now) {
            return false;
        }
        tracing::debug!(cid = %want.cid, before, ?quiet, "what was left to fellows did not come");
        company.letdowns += 1;
        want.among.before.drain(..usize::from(before)).for_each(|peer| schedule.doubt(&peer, now));
        true
    }

    /// Fellows that make no progress are not believed any more that they have what they were asked for.
    pub(super) fn distrust(state: &mut State, peer: PeerId, now: Instant) {
        let State { wants, schedule, .. } = state;
        if !schedule.is_fellow(&peer) {
            return;
        }
        schedule.doubt(&peer, now);
        for want in wants.values_mut().filter(|want| want.asked.contains(&peer)) {
            want.among.forget(&peer);
            want.refused.push(peer);
        }
    }

    /// The fellows that are to ask a holder for a block before this node does; the first of all at the beginning.
    fn before(&self, schedule: &Schedule, want: &Want, now: Instant) -> Vec<PeerId> {
        // What this node has said counts like what others say: if it waited for somebody who believes it, both would wait for ever.
        let own = (want.among.claimed, turn(&self.bitswap.hub.local(), &want.cid));
        let place = |peer: &PeerId| {
            let place = (self.bitswap.interest(peer, &want.cid)?, turn(peer, &want.cid));
            (place > own).then_some((place, *peer))
        };
        let mut before: Vec<_> = schedule.reliable(now).filter_map(place).collect();
        before.sort_unstable_by_key(|(place, _)| Reverse(*place));
        before.into_iter().map(|(_, peer)| peer).collect()
    }
}

/// The place of a want among those that nobody is asked for: what is needed next, then what few have, then the order in which it is
/// wanted. What no fellow has is the rarest, but asked of others than the rest.
fn rank(want: &Want, first: u64) -> (Reverse<bool>, usize, u64) {
    (Reverse(want.number < first + NEXT), want.among.have.len(), want.number)
}

/// The larger it is, the sooner it is a peer's turn to ask a holder for a block; the same at every node.
fn turn(peer: &PeerId, cid: &Cid) -> u64 {
    let hash = cid.hash().digest().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    mix(hash ^ mix(digest(peer)))
}
