//! What one peer asks of this node: [`Ledger`], and the task that answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cid::Cid;
use ipcr_swarm::Hold;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::message::{Message, Payload, Prefix, Presence, Want};
use super::outbound::Outbound;
use super::wants::{CLAIMED, LINGER};
use super::{Bitswap, Peer, STREAM_IDLE, budget, lock};
use crate::limits;

/// Blocks that are read from the store at once. Two such batches (one being written, one being read) of the blocks that
/// this program writes are [`limits::QUEUED_BYTES_PER_PEER`].
const BATCH: usize = 4;
/// A peer that takes longer than this for a batch gets blocks one by one.
const SLOW_WRITE: Duration = Duration::from_secs(5);
/// Presences that are looked up at once.
const PRESENCES: usize = 512;
/// Largest message, except for one with a single larger block.
const MESSAGE_BYTES: usize = 2 << 20;
/// Every how many times also those are looked for that a peer only wants to hear of.
const PRESENCE_ROUNDS: u32 = 4;
/// How often wants that could not be answered are looked at again, when nobody says that blocks came.
const RECHECK: Duration = Duration::from_millis(500);

/// The wants of one peer, at most [`limits::WANTS_PER_PEER`].
#[derive(Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    wake: Notify,
    /// Woken for what must not be collected.
    hurry: Notify,
}

#[derive(Default)]
struct State {
    wants: HashMap<Cid, Entry>,
    /// Wants to look at, in the order in which they came.
    queue: VecDeque<Cid>,
    /// Wants that found no place, and of which the peer is told so; at most as many as there are places.
    denied: Vec<Cid>,
    /// Whether one of them is more than a question whether the block is here, or is waited for.
    urgent: bool,
    /// Whether a task answers them.
    answering: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    have: bool,
    send_dont_have: bool,
    /// Whether the peer says that it has asked somebody else for the block.
    claimed: bool,
    phase: Phase,
}

/// Where a want is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is to be looked at.
    Queued,
    /// It is being looked at. Whatever happens to it meanwhile gives it another phase, and the look is for nothing.
    Looking,
    /// It was looked at, and waits for the block to come.
    Waits,
}

impl State {
    /// Makes room for a want of a block, by forgetting one that only waits to hear of its block. Those that can be are looked for once.
    fn evict(&mut self, evictable: &mut Option<Vec<Cid>>) -> bool {
        let waiting = evictable.get_or_insert_with(|| {
            let waits = |(_, entry): &(&Cid, &Entry)| entry.have && entry.phase == Phase::Waits;
            self.wants.iter().filter(waits).map(|(cid, _)| *cid).collect()
        });
        waiting.pop().is_some_and(|cid| self.wants.remove(&cid).is_some())
    }
}

impl Ledger {
    /// Takes a wantlist; true if a task has to be started.
    pub(super) fn update(&self, full: bool, wants: Vec<Want>) -> bool {
        let mut state = lock(&self.state);
        if full {
            state.wants.clear();
            state.queue.clear();
        }
        let mut evictable = None;
        for Want { cid, priority, cancel, have, send_dont_have } in wants {
            if cancel {
                state.wants.remove(&cid);
                continue;
            }
            let full = state.wants.len() >= limits::WANTS_PER_PEER && !state.wants.contains_key(&cid);
            if full && (have || !state.evict(&mut evictable)) {
                if send_dont_have && state.denied.len() < limits::WANTS_PER_PEER {
                    state.denied.push(cid);
                    state.urgent = true;
                }
                continue;
            }
            let claimed = have && priority >= CLAIMED;
            state.urgent |= !have || send_dont_have;
            let before = state.wants.insert(cid, Entry { have, send_dont_have, claimed, phase: Phase::Queued });
            if before.is_none_or(|entry| entry.phase != Phase::Queued) {
                state.queue.push_back(cid);
            }
        }
        // Cancelled entries of the queue are stepped over; a peer that cancels all day must not grow it.
        if state.queue.len() > 2 * limits::WANTS_PER_PEER {
            let State { wants, queue, .. } = &mut *state;
            queue.retain(|cid| wants.get(cid).is_some_and(|entry| entry.phase == Phase::Queued));
            let mut seen = HashSet::new();
            queue.retain(|cid| seen.insert(*cid));
        }
        self.wake.notify_one();
        if state.urgent {
            self.hurry.notify_one();
        }
        let idle = state.queue.is_empty() && state.denied.is_empty();
        !idle && !std::mem::replace(&mut state.answering, true)
    }

    /// The peer is gone.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.wants.clear();
        state.queue.clear();
        state.denied.clear();
        self.wake.notify_one();
    }

    /// The wants that found no place since the last call.
    fn take_denied(&self) -> Vec<Cid> {
        std::mem::take(&mut lock(&self.state).denied)
    }

    /// The next wants to answer: as many blocks, and what comes before them. What becomes of each is to be said by
    /// [`Ledger::settle`] or [`Ledger::park`].
    fn take(&self, blocks: usize) -> Vec<(Cid, Entry)> {
        let mut state = lock(&self.state);
        let (mut taken, mut left) = (Vec::new(), blocks);
        while left > 0
            && taken.len() < PRESENCES
            && let Some(cid) = state.queue.pop_front()
        {
            if let Some(entry) = state.wants.get_mut(&cid).filter(|entry| entry.phase == Phase::Queued) {
                left -= usize::from(!entry.have);
                entry.phase = Phase::Looking;
                taken.push((cid, *entry));
            }
        }
        state.urgent &= !state.queue.is_empty();
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

    /// Whether the peer waits to hear of a block, and if so, whether it has asked somebody else for it.
    pub(super) fn interest(&self, cid: &Cid) -> Option<bool> {
        let state = lock(&self.state);
        state.wants.get(cid).filter(|entry| entry.have).map(|entry| entry.claimed)
    }

    /// A block came that the peer may wait for.
    pub(super) fn arrived(&self, cid: &Cid) {
        let mut state = lock(&self.state);
        let State { wants, queue, urgent, .. } = &mut *state;
        if let Some(entry) = wants.get_mut(cid).filter(|entry| entry.phase != Phase::Queued) {
            entry.phase = Phase::Queued;
            entry.send_dont_have = false;
            queue.push_back(*cid);
            let hurries = !entry.have;
            *urgent |= hurries;
            drop(state);
            self.wake.notify_one();
            if hurries {
                self.hurry.notify_one();
            }
        }
    }

    /// Ends a want whose block is here; false if the peer does not want that any more, or something else.
    fn settle(&self, cid: &Cid) -> bool {
        let mut state = lock(&self.state);
        let looking = state.wants.get(cid).is_some_and(|entry| entry.phase == Phase::Looking);
        if looking {
            state.wants.remove(cid);
        }
        looking
    }

    /// The block is not here; the want waits for it. False as for [`Ledger::settle`].
    fn park(&self, cid: &Cid) -> bool {
        let mut state = lock(&self.state);
        let entry = state.wants.get_mut(cid).filter(|entry| entry.phase == Phase::Looking);
        entry.map(|entry| entry.phase = Phase::Waits).is_some()
    }

    /// Wants for which the block has to come; those that only ask for it if `all`.
    fn waiting(&self, all: bool) -> Vec<Cid> {
        let state = lock(&self.state);
        let waits = |(_, entry): &(&Cid, &Entry)| entry.phase == Phase::Waits && (all || !entry.have);
        state.wants.iter().filter(waits).map(|(cid, _)| *cid).collect()
    }

    /// Whether the peer wants nothing.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.state).wants.is_empty()
    }

    /// The blocks came.
    fn unpark(&self, cids: impl Iterator<Item = Cid>) {
        let mut state = lock(&self.state);
        for cid in cids {
            if let Some(entry) = state.wants.get_mut(&cid)
                && entry.phase == Phase::Waits
            {
                entry.phase = Phase::Queued;
                entry.send_dont_have = false;
                state.urgent = true;
                state.queue.push_back(cid);
            }
        }
    }

    /// Ends the task, unless there is something to answer or to wait for.
    fn finish(&self) -> bool {
        let mut state = lock(&self.state);
        state.answering = !(state.wants.is_empty() && state.denied.is_empty());
        !state.answering
    }
}

/// Messages that are ready to be written, and their place in the budget.
struct Batch {
    messages: Vec<Message>,
    _budget: Option<OwnedSemaphorePermit>,
}

/// Answers a peer until it wants nothing any more.
pub(super) async fn answer(bitswap: Arc<Bitswap>, peer: Arc<Peer>) {
    let mut outbound = Outbound::default();
    let mut used = Instant::now();
    let mut hold: Option<Hold> = None;
    let mut rounds = 0_u32;
    let mut blocks = BATCH;
    let mut ready = prepare(&bitswap, &peer, blocks).await;
    loop {
        if let Some(batch) = ready.take() {
            hold.get_or_insert_with(|| bitswap.hub.hold(peer.id));
            let begun = Instant::now();
            let (written, next) =
                tokio::join!(write(&bitswap, &peer, &mut outbound, batch), prepare(&bitswap, &peer, blocks));
            ready = next;
            used = Instant::now();
            // What is ready for a peer that takes nothing is missing for all others.
            blocks = if begun.elapsed() > SLOW_WRITE { 1 } else { BATCH };
            if !written {
                // The peer cannot be reached; it will ask again when it can.
                peer.ledger.clear();
            }
            continue;
        }
        let added = bitswap.added.notified();
        if peer.ledger.is_idle() {
            hold = None;
        }
        // What this node fetches itself is told at once; only what others put into the store has to be looked for.
        rounds += 1;
        let waiting = peer.ledger.waiting(rounds.is_multiple_of(PRESENCE_ROUNDS));
        if !waiting.is_empty() {
            peer.ledger.unpark(bitswap.held(&waiting).await.into_iter());
        }
        ready = prepare(&bitswap, &peer, blocks).await;
        if ready.is_some() {
            continue;
        }
        tokio::select! {
            () = peer.ledger.wake.notified() => {}
            // Once more in the next round.
            () = added => rounds = PRESENCE_ROUNDS - 1,
            () = tokio::time::sleep(RECHECK) => {}
        }
        if used.elapsed() > STREAM_IDLE {
            outbound.close().await;
            if peer.ledger.finish() {
                return;
            }
        }
        peer.ledger.linger().await;
        ready = prepare(&bitswap, &peer, blocks).await;
    }
}

/// Reads the next blocks, so many of them; `None` if there is nothing to answer.
async fn prepare(bitswap: &Bitswap, peer: &Peer, blocks: usize) -> Option<Batch> {
    let (wants, denied) = (peer.ledger.take(blocks), peer.ledger.take_denied());
    if wants.is_empty() && denied.is_empty() {
        return None;
    }
    let (asked, blocks): (Vec<_>, Vec<_>) = wants.into_iter().partition(|(_, entry)| entry.have);
    // Only blocks cost anything; what they are smaller than they might be is given back at once.
    let mut most = match blocks.len() {
        0 => None,
        count => Some(budget(&bitswap.outbound, count * limits::BLOCK_BYTES).await.ok()?),
    };
    let cids: Vec<Cid> = asked.iter().map(|(cid, _)| *cid).collect();
    let held: HashSet<Cid> = bitswap.held(&cids).await.into_iter().collect();
    let cids: Vec<Cid> = blocks.iter().map(|(cid, _)| *cid).collect();
    let found = bitswap.blocks(&cids).await;
    let mut messages = vec![Message::default()];
    let presences = &mut messages[0].presences;
    presences.extend(denied.into_iter().map(|cid| Presence { cid, have: false }));
    for (cid, entry) in asked {
        let have = held.contains(&cid);
        let wanted = if have { peer.ledger.settle(&cid) } else { peer.ledger.park(&cid) };
        if wanted && (have || entry.send_dont_have) {
            presences.push(Presence { cid, have });
        }
    }
    let (mut size, mut total) = (0, 0);
    for ((cid, entry), found) in blocks.into_iter().zip(found) {
        let last = messages.len() - 1;
        match found {
            Some(data) if peer.ledger.settle(&cid) => {
                let payload = Payload { prefix: Prefix::of(&cid), data };
                // The data, and generously its prefix and headers.
                let bytes = payload.data.len() + 64;
                total += payload.data.len();
                if size > 0 && size + bytes > MESSAGE_BYTES {
                    messages.push(Message { blocks: vec![payload], ..Message::default() });
                    size = bytes;
                } else {
                    messages[last].blocks.push(payload);
                    size += bytes;
                }
            }
            None if peer.ledger.park(&cid) && entry.send_dont_have => {
                messages[last].presences.push(Presence { cid, have: false });
            }
            _ => {}
        }
    }
    let budget = most.as_mut().and_then(|most| most.split(total));
    messages.retain(|message| !message.is_empty());
    Some(Batch { messages, _budget: budget })
}

async fn write(bitswap: &Bitswap, peer: &Peer, outbound: &mut Outbound, batch: Batch) -> bool {
    for message in &batch.messages {
        let bytes: usize = message.blocks.iter().map(|block| block.data.len()).sum();
        bitswap.terms.upload.take(bytes).await;
        if !outbound.send(bitswap, peer, message).await {
            return false;
        }
        bitswap.counters.served(message.blocks.len() as u64, bytes as u64);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::Block;

    fn want(index: usize) -> Want {
        let cid = *Block::raw(index.to_string().into()).cid();
        Want { cid, priority: 1, cancel: false, have: false, send_dont_have: true }
    }

    #[test]
    fn wants_are_bounded() {
        let ledger = Ledger::default();
        assert!(ledger.update(false, (0..2 * limits::WANTS_PER_PEER).map(want).collect()));
        assert_eq!(lock(&ledger.state).wants.len(), limits::WANTS_PER_PEER);
        for _ in 0..8 {
            let cancels = (0..limits::WANTS_PER_PEER).map(|index| Want { cancel: true, ..want(index) });
            ledger.update(false, cancels.collect());
            ledger.update(false, (0..limits::WANTS_PER_PEER).map(want).collect());
        }
        assert!(lock(&ledger.state).queue.len() <= 3 * limits::WANTS_PER_PEER);
    }

    #[test]
    fn cancelled_wants_are_not_answered_and_parked_ones_come_back() {
        let ledger = Ledger::default();
        ledger.update(false, vec![want(0), want(1)]);
        ledger.update(false, vec![Want { cancel: true, ..want(0) }]);
        let taken = ledger.take(8);
        assert_eq!(taken.len(), 1);
        assert!(ledger.park(&taken[0].0));
        assert!(ledger.take(8).is_empty());
        assert!(!ledger.finish());
        assert_eq!(ledger.waiting(false), [want(1).cid]);
        ledger.unpark(ledger.waiting(true).into_iter());
        assert_eq!(ledger.take(8)[0].0, want(1).cid);
        assert!(ledger.settle(&want(1).cid));
        assert!(ledger.finish());
    }

    #[test]
    fn what_changes_during_a_look_counts() {
        let ledger = Ledger::default();
        let taken = |ledger: &Ledger| ledger.take(8).into_iter().map(|(cid, _)| cid).collect::<Vec<_>>();
        ledger.update(false, vec![want(0), want(1), want(2)]);
        assert_eq!(taken(&ledger).len(), 3);
        ledger.update(false, vec![Want { cancel: true, ..want(0) }]);
        ledger.arrived(&want(1).cid);
        assert!(!ledger.settle(&want(0).cid) && !ledger.park(&want(0).cid), "it was taken back");
        assert!(!ledger.park(&want(1).cid), "it has come meanwhile");
        assert!(ledger.park(&want(2).cid));
        assert_eq!(taken(&ledger), [want(1).cid]);
        assert!(ledger.settle(&want(1).cid));
        ledger.update(true, Vec::new());
        assert!(ledger.is_idle());
    }

    #[test]
    fn questions_make_room_for_blocks_and_the_rest_is_denied() {
        let ledger = Ledger::default();
        let question = |index| Want { have: true, send_dont_have: false, ..want(index) };
        ledger.update(false, (0..limits::WANTS_PER_PEER).map(question).collect());
        let taken = ledger.take(1).len() + ledger.take(1).len();
        (0..taken).for_each(|index| assert!(ledger.park(&want(index).cid)));
        let blocks = limits::WANTS_PER_PEER..2 * limits::WANTS_PER_PEER;
        ledger.update(false, blocks.map(want).collect());
        assert_eq!(ledger.take_denied().len(), limits::WANTS_PER_PEER - taken);
        let blocks = std::iter::from_fn(|| Some(ledger.take(limits::WANTS_PER_PEER)).filter(|taken| !taken.is_empty()));
        assert_eq!(blocks.flatten().filter(|(_, entry)| !entry.have).count(), taken);
        ledger.update(false, vec![want(0)]);
        assert_eq!(ledger.take_denied(), [want(0).cid]);
    }

    #[test]
    fn a_full_list_replaces_the_one_before() {
        let ledger = Ledger::default();
        ledger.update(false, vec![want(0)]);
        ledger.update(true, vec![want(1)]);
        let taken = ledger.take(8);
        assert_eq!(taken.iter().map(|(cid, _)| *cid).collect::<Vec<_>>(), [want(1).cid]);
    }
}
