//! What one peer asks of this node: [`Ledger`], and the task that answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::AsyncWriteExt as _;
use ipcr_swarm::{Hold, Stream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::message::{Message, Payload, Prefix, Presence, Want};
use super::wants::{CLAIMED, LINGER, send};
use super::{Bitswap, Peer, STREAM_IDLE, budget, lock};
use crate::limits;

/// Blocks that are read from the store at once. Two such batches (one being written, one being read) of the blocks that
/// this program writes are [`limits::QUEUED_BYTES_PER_PEER`].
const BATCH: usize = 4;
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
    /// Whether one of them is more than a question whether the block is here, or is waited for.
    urgent: bool,
    /// Whether a task answers them.
    answering: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "three flags of a Bitswap want, and whether it waits")]
#[derive(Clone, Copy)]
struct Entry {
    have: bool,
    send_dont_have: bool,
    /// Whether the peer says that it has asked somebody else for the block.
    claimed: bool,
    /// Whether it was looked at, and waits for the block to come.
    waits: bool,
}

impl Ledger {
    /// Takes a wantlist; true if a task has to be started.
    pub(super) fn update(&self, full: bool, wants: Vec<Want>) -> bool {
        let mut state = lock(&self.state);
        if full {
            state.wants.clear();
            state.queue.clear();
        }
        for Want { cid, priority, cancel, have, send_dont_have } in wants {
            if cancel {
                state.wants.remove(&cid);
            } else if state.wants.len() < limits::WANTS_PER_PEER || state.wants.contains_key(&cid) {
                let claimed = have && priority >= CLAIMED;
                let entry = Entry { have, send_dont_have, claimed, waits: false };
                state.urgent |= !have || send_dont_have;
                let before = state.wants.insert(cid, entry);
                if before.is_none_or(|entry| entry.waits) {
                    state.queue.push_back(cid);
                }
            }
        }
        // Cancelled entries of the queue are stepped over; a peer that cancels all day must not grow it.
        if state.queue.len() > 2 * limits::WANTS_PER_PEER {
            let State { wants, queue, .. } = &mut *state;
            queue.retain(|cid| wants.get(cid).is_some_and(|entry| !entry.waits));
            let mut seen = std::collections::HashSet::new();
            queue.retain(|cid| seen.insert(*cid));
        }
        self.wake.notify_one();
        if state.urgent {
            self.hurry.notify_one();
        }
        !state.queue.is_empty() && !std::mem::replace(&mut state.answering, true)
    }

    /// The peer is gone.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.wants.clear();
        state.queue.clear();
        self.wake.notify_one();
    }

    /// The next wants to answer: as many blocks, and what comes before them. They count as answered unless [`Ledger::park`] says
    /// otherwise.
    fn take(&self, blocks: usize) -> Vec<(Cid, Entry)> {
        let mut state = lock(&self.state);
        let (mut taken, mut left) = (Vec::new(), blocks);
        while left > 0
            && taken.len() < PRESENCES
            && let Some(cid) = state.queue.pop_front()
        {
            match state.wants.get_mut(&cid) {
                Some(entry) if !entry.waits && entry.have => {
                    taken.push((cid, *entry));
                    // It stays known what the peer wants while it is looked up.
                    entry.waits = true;
                }
                Some(entry) if !entry.waits => {
                    left -= 1;
                    taken.push((cid, *entry));
                    state.wants.remove(&cid);
                }
                _ => {}
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
        if let Some(entry) = wants.get_mut(cid).filter(|entry| entry.waits) {
            entry.waits = false;
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

    /// The peer was told that the block is here.
    fn told(&self, cid: &Cid) {
        let mut state = lock(&self.state);
        if state.wants.get(cid).is_some_and(|entry| entry.have && entry.waits) {
            state.wants.remove(cid);
        }
    }

    /// The block is not here; the want is remembered.
    fn park(&self, cid: Cid, entry: Entry) {
        let mut state = lock(&self.state);
        if state.wants.len() < limits::WANTS_PER_PEER {
            state.wants.entry(cid).or_insert(Entry { waits: true, ..entry });
        }
    }

    /// Wants for which the block has to come; those that only ask for it if `all`.
    fn waiting(&self, all: bool) -> Vec<Cid> {
        let state = lock(&self.state);
        state.wants.iter().filter(|(_, entry)| entry.waits && (all || !entry.have)).map(|(cid, _)| *cid).collect()
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
                && entry.waits
            {
                entry.waits = false;
                entry.send_dont_have = false;
                state.urgent = true;
                state.queue.push_back(cid);
            }
        }
    }

    /// Ends the task, unless there is something to answer or to wait for.
    fn finish(&self) -> bool {
        let mut state = lock(&self.state);
        state.answering = !state.wants.is_empty();
        !state.answering
    }
}

/// Messages that are ready to be written, and their place in the budget.
struct Batch {
    messages: Vec<Message>,
    _budget: OwnedSemaphorePermit,
}

/// Answers a peer until it wants nothing any more.
pub(super) async fn answer(bitswap: Arc<Bitswap>, peer: Arc<Peer>) {
    let mut stream: Option<Stream> = None;
    let mut used = Instant::now();
    let mut hold: Option<Hold> = None;
    let mut rounds = 0_u32;
    let mut ready = prepare(&bitswap, &peer).await;
    loop {
        if let Some(batch) = ready.take() {
            hold.get_or_insert_with(|| bitswap.hub.hold(peer.id));
            let (written, next) = tokio::join!(write(&bitswap, &peer, &mut stream, batch), prepare(&bitswap, &peer));
            ready = next;
            used = Instant::now();
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
        ready = prepare(&bitswap, &peer).await;
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
            if let Some(mut idle) = stream.take() {
                let _ = tokio::time::timeout(STREAM_IDLE, idle.close()).await;
            }
            if peer.ledger.finish() {
                return;
            }
        }
        peer.ledger.linger().await;
        ready = prepare(&bitswap, &peer).await;
    }
}

/// Reads the next blocks; `None` if there is nothing to answer.
async fn prepare(bitswap: &Bitswap, peer: &Peer) -> Option<Batch> {
    let wants = peer.ledger.take(BATCH);
    if wants.is_empty() {
        return None;
    }
    let budget = budget(&bitswap.outbound, BATCH * limits::BLOCK_BYTES).await.ok()?;
    let asked: Vec<Cid> = wants.iter().filter(|(_, entry)| entry.have).map(|(cid, _)| *cid).collect();
    let held: HashSet<Cid> = bitswap.held(&asked).await.into_iter().collect();
    let held = &held;
    let lookups = wants.iter().map(|(cid, entry)| async move {
        if entry.have { held.contains(cid).then(Bytes::new) } else { bitswap.block(cid).await }
    });
    let found = futures::future::join_all(lookups).await;
    let mut messages = vec![Message::default()];
    let mut size = 0;
    for ((cid, entry), found) in wants.into_iter().zip(found) {
        let last = messages.len() - 1;
        match found {
            Some(_) if entry.have => {
                peer.ledger.told(&cid);
                messages[last].presences.push(Presence { cid, have: true });
            }
            Some(data) => {
                let payload = Payload { prefix: Prefix::of(&cid), data };
                // The data, and generously its prefix and headers.
                let bytes = payload.data.len() + 64;
                if size > 0 && size + bytes > MESSAGE_BYTES {
                    messages.push(Message { blocks: vec![payload], ..Message::default() });
                    size = bytes;
                } else {
                    messages[last].blocks.push(payload);
                    size += bytes;
                }
            }
            None => {
                if entry.send_dont_have {
                    messages[last].presences.push(Presence { cid, have: false });
                }
                peer.ledger.park(cid, entry);
            }
        }
    }
    messages.retain(|message| !message.is_empty());
    Some(Batch { messages, _budget: budget })
}

async fn write(bitswap: &Bitswap, peer: &Peer, stream: &mut Option<Stream>, batch: Batch) -> bool {
    for message in &batch.messages {
        let bytes: usize = message.blocks.iter().map(|block| block.data.len()).sum();
        bitswap.terms.upload.take(bytes).await;
        if !send(bitswap, peer, stream, message).await {
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
        ledger.park(taken[0].0, taken[0].1);
        assert!(ledger.take(8).is_empty());
        assert!(!ledger.finish());
        assert_eq!(ledger.waiting(false), [want(1).cid]);
        ledger.unpark(ledger.waiting(true).into_iter());
        assert_eq!(ledger.take(8)[0].0, want(1).cid);
        assert!(ledger.finish());
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
