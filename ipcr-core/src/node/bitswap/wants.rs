//! What is asked of one peer: [`Wants`], and the task that writes it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cid::Cid;
use cid::multihash::Multihash;
use tokio::sync::Notify;

use super::message::{Message, Want};
use super::outbound::Outbound;
use super::{Bitswap, Peer, STREAM_IDLE, lock};

/// Most entries of one message.
const BATCH: usize = 512;
/// How long entries that nobody waits for are collected before they are written.
pub(super) const LINGER: Duration = Duration::from_millis(20);
/// The priority of a want for a block that the one who wants it has asked a holder for; of every other it is 1.
pub(super) const CLAIMED: i32 = 2;
/// Hashes of asked blocks that are remembered, to tell late answers from blocks that nobody asked for.
const REMEMBERED: usize = 16_384;

/// The wantlist for one peer.
#[derive(Default)]
pub(super) struct Wants {
    state: Mutex<State>,
    wake: Notify,
    /// Woken for what must not be collected.
    hurry: Notify,
}

#[derive(Default)]
struct State {
    /// How many sessions want a block from the peer.
    counts: HashMap<Cid, usize>,
    /// How many sessions want to know when the peer has a block.
    probes: HashMap<Cid, usize>,
    /// Blocks of `counts` that the peer was asked for: those are cancelled, the others only forgotten.
    sent: HashSet<Cid>,
    /// Entries that wait to be written.
    queue: VecDeque<Want>,
    /// Whether one of them must not be collected.
    urgent: bool,
    /// Whether a task writes them.
    writing: bool,
    wanted_any: bool,
    asked: HashSet<Multihash<64>>,
    asked_order: VecDeque<Multihash<64>>,
}

impl State {
    /// Queues an entry; true if a writer has to be started.
    fn push(&mut self, want: Want) -> bool {
        self.urgent |= !want.cancel && (!want.have || want.send_dont_have);
        self.queue.push_back(want);
        !std::mem::replace(&mut self.writing, true)
    }

    fn remember(&mut self, cid: &Cid) {
        if self.asked.insert(*cid.hash()) {
            self.asked_order.push_back(*cid.hash());
            if self.asked_order.len() > REMEMBERED
                && let Some(oldest) = self.asked_order.pop_front()
            {
                self.asked.remove(&oldest);
            }
        }
    }
}

fn watched(cid: &Cid, claimed: bool) -> Want {
    let priority = if claimed { CLAIMED } else { 1 };
    Want { have: true, send_dont_have: false, priority, ..entry(cid) }
}

fn cancelled(cid: &Cid) -> Want {
    Want { cancel: true, send_dont_have: false, ..entry(cid) }
}

fn entry(cid: &Cid) -> Want {
    Want { cid: *cid, priority: 1, cancel: false, have: false, send_dont_have: true }
}

impl Wants {
    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> bool {
        let mut state = lock(&self.state);
        let start = change(&mut state);
        let urgent = state.urgent;
        drop(state);
        self.wake.notify_one();
        if urgent {
            self.hurry.notify_one();
        }
        start
    }

    /// One session more wants the block. True (as below) if a writer has to be started.
    pub(super) fn add(&self, cid: &Cid) -> bool {
        self.change(|state| {
            state.remember(cid);
            state.wanted_any = true;
            let count = state.counts.entry(*cid).or_default();
            *count += 1;
            // Also when another session has asked: the peer may have forgotten since.
            state.push(entry(cid))
        })
    }

    /// The peer is asked once more.
    pub(super) fn repeat(&self, cid: &Cid) -> bool {
        self.change(|state| state.counts.contains_key(cid) && state.push(entry(cid)))
    }

    /// The peer is asked whether it has the block. It may send a small one instead of saying so (Bitswap specification, "Want-Have").
    pub(super) fn probe(&self, cid: &Cid) -> bool {
        self.change(|state| {
            state.remember(cid);
            !state.counts.contains_key(cid) && state.push(Want { have: true, ..entry(cid) })
        })
    }

    /// The peer need not say any more whether it has the block, unless a session still wants the block or to hear of it.
    pub(super) fn forget(&self, cid: &Cid) -> bool {
        self.change(|state| {
            let wanted = state.counts.contains_key(cid) || state.probes.contains_key(cid);
            !wanted && state.push(cancelled(cid))
        })
    }

    /// One session more wants to hear when the peer has the block; with `claimed` the peer learns that a holder was asked for it
    /// already.
    pub(super) fn watch(&self, cid: &Cid, claimed: bool) -> bool {
        self.change(|state| {
            state.remember(cid);
            *state.probes.entry(*cid).or_default() += 1;
            !state.counts.contains_key(cid) && state.push(watched(cid, claimed))
        })
    }

    /// The peer, which is watched for the block, learns that a holder was asked for it.
    pub(super) fn claim(&self, cid: &Cid) -> bool {
        self.change(|state| {
            state.probes.contains_key(cid) && !state.counts.contains_key(cid) && state.push(watched(cid, true))
        })
    }

    /// One session less wants to hear of the block; with `cancel` the peer is told when it was the last one.
    pub(super) fn unwatch(&self, cid: &Cid, cancel: bool) -> bool {
        self.change(|state| {
            match state.probes.get_mut(cid) {
                Some(1) => state.probes.remove(cid),
                Some(count) => {
                    *count -= 1;
                    return false;
                }
                None => return false,
            };
            state.queue.retain(|want| want.cid != *cid || want.cancel || !want.have);
            cancel && !state.counts.contains_key(cid) && state.push(cancelled(cid))
        })
    }

    /// One session less wants the block; with `cancel` the peer is told when it was the last one.
    pub(super) fn release(&self, cid: &Cid, cancel: bool) -> bool {
        self.change(|state| {
            match state.counts.get_mut(cid) {
                Some(1) => state.counts.remove(cid),
                Some(count) => {
                    *count -= 1;
                    return false;
                }
                None => return false,
            };
            state.queue.retain(|want| want.cid != *cid || want.cancel || want.have);
            state.sent.remove(cid) && cancel && !state.probes.contains_key(cid) && state.push(cancelled(cid))
        })
    }

    /// Whether the peer was ever asked for a block.
    pub(super) fn wanted_any(&self) -> bool {
        lock(&self.state).wanted_any
    }

    /// Whether the peer was asked for a block with this hash, not too long ago.
    pub(super) fn was_asked(&self, cid: &Cid) -> bool {
        lock(&self.state).asked.contains(cid.hash())
    }

    fn take(&self) -> Vec<Want> {
        let mut state = lock(&self.state);
        let count = state.queue.len().min(BATCH);
        state.urgent &= count < state.queue.len();
        let taken: Vec<Want> = state.queue.drain(..count).collect();
        state.sent.extend(taken.iter().filter(|want| !want.cancel && !want.have).map(|want| want.cid));
        taken
    }

    /// Waits a moment while there is only what can be collected.
    async fn linger(&self) {
        let lingers = {
            let state = lock(&self.state);
            !state.urgent && !state.queue.is_empty()
        };
        if lingers {
            let _ = tokio::time::timeout(LINGER, self.hurry.notified()).await;
        }
    }

    /// Ends the writer, unless there is something to write.
    fn finish(&self) -> bool {
        let mut state = lock(&self.state);
        state.writing = !state.queue.is_empty();
        !state.writing
    }

    fn give_up(&self) {
        let mut state = lock(&self.state);
        state.queue.clear();
        state.sent.clear();
        (state.writing, state.urgent) = (false, false);
    }
}

/// Writes what is queued until nothing comes for a while.
pub(super) async fn write(bitswap: Arc<Bitswap>, peer: Arc<Peer>) {
    let mut outbound = Outbound::default();
    loop {
        peer.wants.linger().await;
        let batch = peer.wants.take();
        if batch.is_empty() {
            let idle = tokio::time::timeout(STREAM_IDLE, peer.wants.wake.notified()).await.is_err();
            if idle && peer.wants.finish() {
                break;
            }
            continue;
        }
        let message = Message { wants: batch, ..Message::default() };
        if !outbound.send(&bitswap, &peer, &message).await {
            peer.wants.give_up();
            bitswap.failed(peer.id);
            break;
        }
    }
    outbound.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::Block;

    fn cid(text: &'static str) -> Cid {
        *Block::raw(text.as_bytes().into()).cid()
    }

    #[test]
    fn a_block_is_cancelled_when_the_last_session_lets_it_go() {
        let wants = Wants::default();
        assert!(wants.add(&cid("a")), "the first entry starts a writer");
        assert!(!wants.add(&cid("a")));
        assert_eq!(wants.take(), [entry(&cid("a")), entry(&cid("a"))]);
        wants.release(&cid("a"), true);
        assert!(wants.take().is_empty());
        wants.release(&cid("a"), true);
        assert!(wants.take()[0].cancel);
        assert!(wants.was_asked(&cid("a")) && !wants.was_asked(&cid("b")));
    }

    #[test]
    fn a_block_that_answers_a_question_was_asked_for() {
        let wants = Wants::default();
        assert!(wants.probe(&cid("a")));
        assert_eq!(wants.take(), [Want { have: true, ..entry(&cid("a")) }]);
        assert!(wants.was_asked(&cid("a")) && !wants.was_asked(&cid("b")));
    }

    #[test]
    fn what_was_not_sent_needs_no_cancel_and_what_was_does() {
        let wants = Wants::default();
        wants.add(&cid("a"));
        wants.release(&cid("a"), true);
        assert!(wants.take().is_empty());
        // Asked for, about to be asked for again, and not wanted any more.
        wants.add(&cid("b"));
        wants.take();
        wants.repeat(&cid("b"));
        wants.release(&cid("b"), true);
        assert_eq!(wants.take(), [cancelled(&cid("b"))]);
        // Two that want it, neither written.
        wants.add(&cid("c"));
        wants.add(&cid("c"));
        wants.release(&cid("c"), true);
        wants.release(&cid("c"), true);
        assert!(wants.take().is_empty());
    }

    #[test]
    fn questions_are_taken_back_unless_somebody_needs_the_answer() {
        let wants = Wants::default();
        wants.probe(&cid("a"));
        wants.take();
        wants.watch(&cid("a"), false);
        wants.take();
        wants.forget(&cid("a"));
        assert!(wants.take().is_empty());
        wants.unwatch(&cid("a"), false);
        wants.forget(&cid("a"));
        assert_eq!(wants.take(), [cancelled(&cid("a"))]);
    }

    #[test]
    fn a_writer_ends_only_with_nothing_to_write() {
        let wants = Wants::default();
        wants.add(&cid("a"));
        assert!(!wants.finish());
        wants.take();
        assert!(wants.finish());
        assert!(wants.add(&cid("b")), "the next entry starts another");
    }
}
