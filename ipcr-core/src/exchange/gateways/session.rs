//! One fetch session with peers and gateways: [`Session`].

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::gateway::{Gateway, Question};
use super::plan::{Ask, End, PEERS, Source, State, What};
use crate::dag::block::{self, Block};
use crate::event::{Elsewhere, Event, Warning};
use crate::exchange::waiters::{Waiter, Waiting};
use crate::kind::in_one_line;
use crate::port::exchange::{Exchange, ExchangeError, FetchRequest, FetchSession, GatewayShare, PeerShare};

/// How often clocks are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long peers that were hinted at have to be reached before a gateway is asked.
const HEAD_START: Duration = Duration::from_millis(500);
/// Shortest time between two [`Event::Received`].
const REPORT: Duration = Duration::from_millis(50);

/// A session in use. Dropping it cancels everything.
pub(super) struct Session {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

struct Shared {
    request: FetchRequest,
    peers: Arc<dyn FetchSession>,
    gateways: Vec<Arc<Gateway>>,
    opened: Instant,
    /// What gateways sent, for the events of the peers' session.
    elsewhere: Arc<Elsewhere>,
    state: Mutex<State>,
    wake: Notify,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("root", &self.shared.request.root).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The requests are its own, and end with it.
        self.driver.abort();
    }
}

impl Session {
    pub(super) async fn open(
        peers: &dyn Exchange,
        gateways: Vec<Arc<Gateway>>,
        request: FetchRequest,
    ) -> Result<Self, ExchangeError> {
        let elsewhere = Arc::new(Elsewhere::default());
        let events = request.events.adding(elsewhere.clone());
        let peers = peers.open(FetchRequest { events, ..request.clone() }).await?;
        let now = Instant::now();
        let state = Mutex::new(State::new(gateways.len(), now));
        let shared = Arc::new(Shared { request, peers, gateways, opened: now, elsewhere, state, wake: Notify::new() });
        let driver = tokio::spawn(Shared::drive(shared.clone())).abort_handle();
        Ok(Self { shared, driver })
    }
}

#[async_trait]
impl FetchSession for Session {
    async fn fetch(&self, cid: &Cid) -> Result<Block, ExchangeError> {
        if !block::is_fetchable(cid) {
            // It carries its bytes, or nobody may be asked for it.
            return self.shared.peers.fetch(cid).await;
        }
        let (waiter, answer) = Waiter::new(Instant::now());
        if self.shared.state().want(cid, waiter) {
            self.shared.wake.notify_one();
        }
        let waiting = Waiting::new(answer, || self.shared.state().give_up(cid.hash(), Instant::now()));
        let ended = || ExchangeError::Offline { reason: "the session has ended".into() };
        let block = waiting.await.unwrap_or_else(|| Err(ended()))?;
        Ok(block.named(*cid).expect("wants are found by their multihash"))
    }

    fn peers(&self) -> Vec<PeerShare> {
        self.shared.peers.peers()
    }

    fn gateways(&self) -> Vec<GatewayShare> {
        let state = self.shared.state();
        let shares = state.sources[PEERS + 1..].iter().zip(&self.shared.gateways).filter(|(source, _)| source.asked);
        let share = |(source, gateway): (&Source, &Arc<Gateway>)| GatewayShare {
            url: gateway.url().to_owned(),
            blocks: source.blocks,
            bytes: source.bytes,
        };
        shares.map(share).collect()
    }

    fn sources(&self) -> usize {
        let state = self.shared.state();
        let gateways = state.sources[PEERS + 1..].iter().filter(|source| source.blocks > 0).count();
        drop(state);
        self.shared.peers.sources() + gateways
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes requests as blocks are wanted and come.
    async fn drive(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut looked = self.opened;
        loop {
            let now = Instant::now();
            let tick = now.saturating_duration_since(looked) >= TICK;
            if tick {
                looked = now;
            }
            self.turn(now, tick, &mut tasks);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(looked + TICK) => {}
            }
            while let Some(ended) = tasks.try_join_next() {
                if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Asks for what is to be asked for now.
    fn turn(self: &Arc<Self>, now: Instant, tick: bool, tasks: &mut JoinSet<()>) {
        let reached = self.peers.peers().iter().any(|peer| peer.address.is_some());
        let mut state = self.state();
        let mut usable = false;
        for (source, gateway) in state.sources[PEERS + 1..].iter_mut().zip(&self.gateways) {
            (source.usable, source.runs) = (gateway.is_usable(now), gateway.gives_runs());
            usable |= source.usable;
        }
        // Where nobody can be asked, the peers' session finds somebody, or says that it does not.
        state.sources[PEERS].usable = reached || !usable;
        if tick {
            state.tick(now);
            self.fail_stalled(&mut state, now);
        }
        let awaited = !self.request.hints.is_empty() && now.saturating_duration_since(self.opened) < HEAD_START;
        if awaited && !reached {
            return;
        }
        for Ask { job, source, first, what } in state.plan(now) {
            let this = self.clone();
            let task = match (what, source.checked_sub(PEERS + 1)) {
                (What::One(cid), None) => tasks.spawn(this.ask_peers(job, cid)),
                (What::Run { .. }, None) => unreachable!("peers are asked for single blocks"),
                (What::One(cid), Some(at)) => tasks.spawn(this.ask_gateway(job, at, first, Question::Block(cid))),
                (What::Run { parent, range, leaves }, Some(at)) => {
                    let leaves = leaves.into_iter().collect();
                    tasks.spawn(this.ask_gateway(job, at, first, Question::Run { parent, range, leaves }))
                }
            };
            state.runs_in(job, task);
        }
    }

    async fn ask_peers(self: Arc<Self>, job: u64, cid: Cid) {
        let fetched = self.peers.fetch(&cid).await;
        let well = fetched.is_ok();
        match fetched {
            Ok(block) => self.deliver(PEERS, job, &block),
            Err(error @ (ExchangeError::Offline { .. } | ExchangeError::HolderGone { .. })) => {
                self.fail(&cid, job, error);
            }
            Err(error) => self.state().note(cid.hash(), error),
        }
        self.state().ended(job, if well { End::Well } else { End::Refused }, Instant::now());
        self.wake.notify_one();
    }

    async fn ask_gateway(self: Arc<Self>, job: u64, at: usize, first: bool, question: Question) {
        let (gateway, source) = (&self.gateways[at], at + PEERS + 1);
        if first {
            self.request.events.tell(Event::Gateway { url: gateway.url().to_owned() }).await;
        }
        let deliver = |block: Block| self.deliver(source, job, &block);
        let answer = gateway.ask(&question, self.request.stall, deliver).await;
        let now = Instant::now();
        match answer {
            Ok(()) => {
                gateway.delivered();
                self.state().ended(job, End::Well, now);
            }
            Err(error) => {
                let reason = in_one_line(&error);
                tracing::debug!(gateway = gateway.url(), ?question, error = %reason, "a gateway did not give all");
                let dropped = gateway.failed(&error, now);
                {
                    let mut state = self.state();
                    state.said = Some(format!("{}: {reason}", gateway.url()));
                    state.ended(job, error.end(), now);
                }
                if dropped {
                    let peer = gateway.url().to_owned();
                    self.request.events.warn(Warning::BadPeer { peer, reason }).await;
                }
            }
        }
        self.wake.notify_one();
    }

    /// Hands out a block that came.
    fn deliver(&self, source: usize, job: u64, block: &Block) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(want) = state.received(source, job, block, now) else { return };
        if source != PEERS {
            let bytes = u64::try_from(block.data().len()).expect("lengths fit 64 bits");
            self.elsewhere.bytes.fetch_add(bytes, Ordering::Relaxed);
            if state.sources[source].blocks == 1 {
                self.elsewhere.senders.fetch_add(1, Ordering::Relaxed);
            }
        }
        let report = source != PEERS && now.duration_since(state.reported) > REPORT && self.request.events.is_watched();
        if report {
            state.reported = now;
        }
        drop(state);
        want.waiters.answer(block);
        if report {
            let peers = self.peers.peers();
            let bytes = peers.iter().map(|peer| peer.bytes).sum();
            let peers = peers.iter().filter(|peer| peer.blocks > 0).count();
            self.request.events.adding(self.elsewhere.clone()).hint(Event::Received { bytes, peers });
        }
        self.wake.notify_one();
    }

    /// Ends a fetch that nobody will answer.
    fn fail(&self, cid: &Cid, job: u64, error: ExchangeError) {
        let want = self.state().take(cid.hash(), Some(job), Instant::now());
        if let Some(want) = want {
            want.waiters.fail(error);
        }
    }

    /// Ends fetches that have waited for too long.
    fn fail_stalled(&self, state: &mut State, now: Instant) {
        let (stall, progress, root) = (self.request.stall, state.progress, self.request.root);
        let waited = |since: Instant| now.saturating_duration_since(since.max(progress));
        let gateways = state.sources[PEERS + 1..].iter().filter(|source| source.asked).count();
        let reached = self.peers.peers().iter().filter(|peer| peer.address.is_some()).count();
        let last = state.said.clone();
        let mut done = Vec::new();
        for (hash, want) in &mut state.wants {
            for waiter in want.waiters.take_late(|since| waited(since) >= stall) {
                let (cid, waited) = (want.cid, waited(waiter.since));
                waiter.fail(match want.error.take() {
                    _ if gateways > 0 => {
                        ExchangeError::NotSent { cid, waited, peers: reached, gateways, said: last.clone() }
                    }
                    Some(error) => error,
                    None if reached == 0 => ExchangeError::NoProvider { root, waited, tried: 0 },
                    None => ExchangeError::Stalled { cid, waited, peers: reached },
                });
            }
            if !want.waiters.wait() {
                done.push(*hash);
            }
        }
        for hash in done {
            state.take(&hash, None, now);
        }
    }
}
