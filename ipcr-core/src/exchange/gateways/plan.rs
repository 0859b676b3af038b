//! Who is asked for what next: [`State`]. Without any I/O.
//!
//! Sources have numbers: 0 is all peers together, the others are the gateways in their order. A want that nobody is asked for waits in a
//! queue; it goes to the source that will have sent it first, by what each was measured to send and has to do already. A gateway is asked
//! for runs of leaves in one request, with so many requests at once as it bears.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use cid::multihash::Multihash;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::kin::{Kin, Parent};
use super::pace::Pace;
use crate::dag::block::Block;
use crate::exchange::waiters::{Waiter, Waiters};
use crate::port::exchange::ExchangeError;

/// The source that all peers are together.
pub(super) const PEERS: usize = 0;
/// The size of a block of which nothing is known.
const FIRST_GUESS: u64 = 256 << 10;
/// Bytes that peers are asked for before it is known how fast they are.
const PEERS_TRIAL: u64 = 4 << 20;
/// Requests that a gateway has to answer at once, at first and at most.
const REQUESTS: (u32, u32) = (4, 16);
/// Most bytes that one request asks for, and how long it should take.
const RUN: u64 = 16 << 20;
const RUN_TIME: Duration = Duration::from_millis(500);
/// Wants that are looked at for the next requests.
const LOOK_AHEAD: usize = 512;
/// How long a block may take beyond what was expected, and at most, before others are asked, too.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How long a block that everybody refused is not asked for again.
const REFUSED: Duration = Duration::from_secs(2);
/// How much sooner, in seconds, somebody else must be expected to send a block that is asked for already.
const SOONER: f64 = 0.25;
/// Blocks that are asked of somebody else for being sooner, at a time.
const TAKEN_OVER: usize = 8;

/// A block that somebody waits for.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) cid: Cid,
    /// Its size, as far as is known.
    pub(super) size: u64,
    pub(super) waiters: Waiters,
    queued: bool,
    asked: Vec<Asked>,
    refused: Vec<usize>,
    /// What was said last by a source that does not send it.
    pub(super) error: Option<ExchangeError>,
}

/// That a source was asked for a block.
#[derive(Clone, Copy, Debug)]
struct Asked {
    source: usize,
    job: u64,
    since: Instant,
    patience: Duration,
}

/// One request.
#[derive(Debug)]
struct Job {
    source: usize,
    /// What has not come yet.
    open: Vec<Multihash<64>>,
    /// When the last of it came.
    progress: Instant,
    task: Option<AbortHandle>,
}

/// A source in a session.
#[derive(Debug)]
pub(super) struct Source {
    pace: Pace,
    pub(super) usable: bool,
    /// Whether one request can be for several blocks.
    pub(super) runs: bool,
    requests: u32,
    window: u32,
    /// Requests that were answered since the window changed.
    answered: u32,
    pub(super) asked: bool,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

/// A node of a file, and which of its leaves is meant.
type Place = (Arc<Parent>, usize);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Well,
    /// What has not come will not come from there.
    Refused,
    /// The source has to be asked in another way.
    Otherwise,
    Broken,
}

/// A request to make.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) job: u64,
    pub(super) source: usize,
    /// Whether the source was not asked for anything before.
    pub(super) first: bool,
    pub(super) what: What,
}

/// What to request.
#[derive(Debug)]
pub(super) enum What {
    One(Cid),
    Run { parent: Cid, range: Option<(u64, u64)>, leaves: Vec<Multihash<64>> },
}

/// The wants of a session and who is asked for them.
#[derive(Debug)]
pub(super) struct State {
    pub(super) wants: HashMap<Multihash<64>, Want>,
    queue: VecDeque<Multihash<64>>,
    /// Wants that everybody refused, with the time when they are asked for again.
    refused: VecDeque<(Instant, Multihash<64>)>,
    jobs: HashMap<u64, Job>,
    next: u64,
    pub(super) sources: Vec<Source>,
    kin: Kin,
    /// When the last block came.
    pub(super) progress: Instant,
    pub(super) reported: Instant,
    /// Which gateway failed last, and why.
    pub(super) said: Option<String>,
    blocks: u64,
    bytes: u64,
}

impl State {
    pub(super) fn new(gateways: usize, now: Instant) -> Self {
        let source = |at| Source {
            pace: Pace::new(if at == PEERS { PEERS_TRIAL } else { 1 }, now),
            usable: false,
            runs: at != PEERS,
            requests: 0,
            window: if at == PEERS { u32::MAX } else { REQUESTS.0 },
            answered: 0,
            asked: false,
            blocks: 0,
            bytes: 0,
        };
        Self {
            wants: HashMap::new(),
            queue: VecDeque::new(),
            refused: VecDeque::new(),
            jobs: HashMap::new(),
            next: 0,
            sources: (0..=gateways).map(source).collect(),
            kin: Kin::default(),
            progress: now,
            reported: now,
            said: None,
            blocks: 0,
            bytes: 0,
        }
    }

    /// Somebody waits for a block; true if nobody did before.
    pub(super) fn want(&mut self, cid: &Cid, waiter: Waiter) -> bool {
        let hash = *cid.hash();
        if let Some(want) = self.wants.get_mut(&hash) {
            want.waiters.add(waiter);
            return false;
        }
        let size = match self.kin.place(&hash) {
            Some((parent, index)) => parent.leaves[index].size.max(1),
            None => self.bytes.checked_div(self.blocks).unwrap_or(FIRST_GUESS).max(1),
        };
        let mut waiters = Waiters::default();
        waiters.add(waiter);
        let want = Want { cid: *cid, size, waiters, queued: true, asked: Vec::new(), refused: Vec::new(), error: None };
        self.wants.insert(hash, want);
        self.queue.push_back(hash);
        true
    }

    /// Somebody waits no more.
    pub(super) fn give_up(&mut self, hash: &Multihash<64>, now: Instant) {
        if self.wants.get_mut(hash).is_some_and(|want| !want.waiters.wait()) {
            self.take(hash, None, now);
        }
    }

    /// Takes a want out: nobody else than the request `by` goes on with it.
    pub(super) fn take(&mut self, hash: &Multihash<64>, by: Option<u64>, now: Instant) -> Option<Want> {
        let want = self.wants.remove(hash)?;
        for asked in &want.asked {
            self.sources[asked.source].pace.settled(want.size, now);
            let Some(job) = self.jobs.get_mut(&asked.job) else { continue };
            job.open.retain(|open| open != hash);
            if job.open.is_empty() && by != Some(asked.job) {
                self.drop_job(asked.job);
            }
        }
        Some(want)
    }

    /// A source sent a block; the want, if somebody still waits for it.
    pub(super) fn received(&mut self, source: usize, job: u64, block: &Block, now: Instant) -> Option<Want> {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.progress = now;
        }
        if !self.wants.contains_key(block.cid().hash()) {
            return None;
        }
        let bytes = u64::try_from(block.data().len()).expect("lengths fit 64 bits");
        let from = &mut self.sources[source];
        from.pace.received(bytes, now);
        (from.blocks, from.bytes) = (from.blocks + 1, from.bytes + bytes);
        (self.blocks, self.bytes) = (self.blocks + 1, self.bytes + bytes);
        self.progress = now;
        let want = self.take(block.cid().hash(), Some(job), now)?;
        self.kin.learn(&want.cid, block.data());
        Some(want)
    }

    /// A request has ended. What it did not bring is asked of others; of the same source again unless it refused.
    pub(super) fn ended(&mut self, job: u64, end: End, now: Instant) {
        let Some(Job { source, open, .. }) = self.jobs.remove(&job) else { return };
        let from = &mut self.sources[source];
        from.requests = from.requests.saturating_sub(1);
        match end {
            End::Well if source != PEERS => {
                from.answered += 1;
                if from.answered >= from.window {
                    (from.window, from.answered) = ((from.window + 1).min(REQUESTS.1), 0);
                }
            }
            End::Broken if source != PEERS => (from.window, from.answered) = ((from.window / 2).max(1), 0),
            _ => {}
        }
        for hash in open.into_iter().rev() {
            let Some(want) = self.wants.get_mut(&hash) else { continue };
            from_settled(&mut self.sources[source], want, job, now);
            if end == End::Refused {
                want.refused.push(source);
            }
            if want.asked.is_empty() && !want.queued {
                want.queued = true;
                self.queue.push_front(hash);
            }
        }
    }

    /// What a peer said of a block that it does not send.
    pub(super) fn note(&mut self, hash: &Multihash<64>, error: ExchangeError) {
        if let Some(want) = self.wants.get_mut(hash) {
            want.error = Some(error);
        }
    }

    /// A request runs in this task; ends it, if nobody waits for it any more.
    pub(super) fn runs_in(&mut self, job: u64, task: AbortHandle) {
        match self.jobs.get_mut(&job) {
            Some(job) => job.task = Some(task),
            None => task.abort(),
        }
    }

    fn drop_job(&mut self, id: u64) {
        if let Some(job) = self.jobs.remove(&id) {
            let from = &mut self.sources[job.source];
            from.requests = from.requests.saturating_sub(1);
            if let Some(task) = job.task {
                task.abort();
            }
        }
    }

    /// Looks at clocks.
    pub(super) fn tick(&mut self, now: Instant) {
        self.sources.iter_mut().for_each(|source| source.pace.tick(now));
        while self.refused.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, hash)) = self.refused.pop_front()
                && let Some(want) = self.wants.get_mut(&hash)
            {
                want.refused.clear();
                self.enqueue(hash);
            }
        }
        for hash in self.overdue(now) {
            self.enqueue(hash);
        }
        self.take_over();
    }

    fn enqueue(&mut self, hash: Multihash<64>) {
        if let Some(want) = self.wants.get_mut(&hash)
            && !std::mem::replace(&mut want.queued, true)
        {
            self.queue.push_front(hash);
        }
    }

    /// Wants that no source brings in time, and that others could be asked for.
    fn overdue(&self, now: Instant) -> Vec<Multihash<64>> {
        let late = |asked: &Asked| {
            // One request brings its blocks one after another.
            let progress = self.jobs.get(&asked.job).map_or(asked.since, |job| job.progress);
            let lost = asked.source == PEERS && !self.sources[PEERS].usable;
            lost || now.saturating_duration_since(asked.since.max(progress)) > asked.patience
        };
        let open = self.wants.iter().filter(|(_, want)| {
            !want.queued && want.asked.iter().all(late) && (0..self.sources.len()).any(|at| self.may_ask(at, want))
        });
        open.map(|(hash, _)| *hash).collect()
    }

    fn may_ask(&self, source: usize, want: &Want) -> bool {
        self.sources[source].usable
            && !want.refused.contains(&source)
            && !want.asked.iter().any(|asked| asked.source == source)
    }

    /// Asks somebody with nothing to do for what another has more to do with than it can in that time.
    fn take_over(&mut self) {
        if !self.queue.is_empty() {
            return;
        }
        for at in 0..self.sources.len() {
            let idle = &self.sources[at];
            if !idle.usable || idle.pace.rate().is_none() || idle.requests >= idle.window {
                continue;
            }
            let sooner = |other: &Source, size: u64| {
                let own = idle.pace.seconds(size);
                own.is_finite() && own.mul_add(2.0, SOONER) < other.pace.seconds(0)
            };
            let mut open: Vec<(u64, usize, Multihash<64>)> = Vec::new();
            for (hash, want) in &self.wants {
                if let [asked] = want.asked[..]
                    && asked.source != at
                    && !want.queued
                    && self.may_ask(at, want)
                    && sooner(&self.sources[asked.source], want.size)
                {
                    let index = self.kin.place(hash).map_or(0, |(_, index)| index);
                    open.push((asked.job, index, *hash));
                }
            }
            // What was asked for last will be last.
            open.sort_unstable_by_key(|(job, index, _)| std::cmp::Reverse((*job, *index)));
            open.truncate(TAKEN_OVER);
            for (_, _, hash) in open.into_iter().rev() {
                self.enqueue(hash);
            }
        }
    }

    /// The requests to make now.
    pub(super) fn plan(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        // Bytes that will be asked of a source that has enough to do at the moment.
        let mut planned = vec![0; self.sources.len()];
        let mut waiting = VecDeque::new();
        let mut left: u64 = self.queue.iter().filter_map(|hash| self.wants.get(hash)).map(|want| want.size).sum();
        while waiting.len() < LOOK_AHEAD
            && let Some(hash) = self.queue.pop_front()
        {
            let Some(want) = self.wants.get(&hash).filter(|want| want.queued) else { continue };
            let size = want.size;
            let seconds = |at: usize| self.sources[at].pace.seconds(size + planned[at]);
            let best = (0..self.sources.len()).filter(|at| self.may_ask(*at, want)).map(|at| (seconds(at), at));
            match best.min_by(|(a, at), (b, bt)| a.total_cmp(b).then(at.cmp(bt))) {
                None => {
                    let want = self.wants.get_mut(&hash).expect("it was there");
                    want.queued = false;
                    left = left.saturating_sub(size);
                    if want.asked.is_empty() {
                        self.refused.push_back((now + REFUSED, hash));
                    }
                }
                Some((seconds, at)) if self.sources[at].requests < self.sources[at].window && seconds.is_finite() => {
                    let (run, place) = self.run(at, &hash, left);
                    let bytes: u64 = run.iter().filter_map(|hash| self.wants.get(hash)).map(|want| want.size).sum();
                    left = left.saturating_sub(bytes);
                    asks.push(self.ask(at, run, place.as_ref(), now));
                }
                Some((_, at)) => {
                    planned[at] += size;
                    waiting.push_back(hash);
                }
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
        asks
    }

    /// A want and those beside it that the source should be asked for together with it, with so many bytes in the queue.
    /// Also where the first of them lies.
    fn run(&self, at: usize, first: &Multihash<64>, left: u64) -> (Vec<Multihash<64>>, Option<Place>) {
        let (source, mut run) = (&self.sources[at], vec![*first]);
        let Some((parent, index)) = self.kin.place(first).filter(|_| source.runs) else { return (run, None) };
        let rates = self.sources.iter().filter(|source| source.usable).filter_map(|source| source.pace.rate());
        let all: f64 = rates.sum();
        let share = source.pace.rate().map_or(0.0, |rate| rate / all.max(1.0));
        let free = source.window.saturating_sub(source.requests).max(1);
        let most = portion(left, share / f64::from(free)).min(source.pace.within(RUN_TIME)).min(RUN);
        let mut bytes = parent.leaves[index].size;
        for leaf in &parent.leaves[index + 1..] {
            bytes += leaf.size;
            let fits = |want: &Want| want.queued && want.asked.is_empty() && !want.refused.contains(&at);
            if bytes > most || !self.wants.get(&leaf.hash).is_some_and(fits) || run.contains(&leaf.hash) {
                break;
            }
            run.push(leaf.hash);
        }
        (run, Some((parent.clone(), index)))
    }

    fn ask(&mut self, at: usize, run: Vec<Multihash<64>>, place: Option<&Place>, now: Instant) -> Ask {
        let job = self.next;
        self.next += 1;
        let source = &mut self.sources[at];
        source.requests += 1;
        let first = !std::mem::replace(&mut source.asked, true);
        for hash in &run {
            let want = self.wants.get_mut(hash).expect("only wants are asked for");
            source.pace.asked(want.size, now);
            // Of one that was never measured nothing is expected.
            let expected = Some(source.pace.seconds(0)).filter(|seconds| seconds.is_finite()).unwrap_or_default();
            let expected = Duration::try_from_secs_f64(expected).unwrap_or(PATIENCE.1);
            let patience = PATIENCE.0.saturating_add(expected).min(PATIENCE.1);
            want.queued = false;
            want.asked.push(Asked { source: at, job, since: now, patience });
        }
        let what = match place {
            Some((parent, index)) if run.len() > 1 => {
                let (first, last) = (parent.leaves[*index], parent.leaves[index + run.len() - 1]);
                let (begin, end) = (first.offset, last.offset + last.size);
                let all = begin == parent.leaves[0].offset && end == parent.size;
                let range = (!all).then(|| (begin, end.saturating_sub(1)));
                What::Run { parent: parent.cid, range, leaves: run.clone() }
            }
            _ => What::One(self.wants[&run[0]].cid),
        };
        self.jobs.insert(job, Job { source: at, open: run, progress: now, task: None });
        Ask { job, source: at, first, what }
    }
}

fn from_settled(source: &mut Source, want: &mut Want, job: u64, now: Instant) {
    if want.asked.iter().any(|asked| asked.job == job) {
        source.pace.settled(want.size, now);
        want.asked.retain(|asked| asked.job != job);
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are between 0 and 1, and need not be exact"
)]
fn portion(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

#[cfg(test)]
mod tests;
