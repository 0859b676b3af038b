//! What the store remembers between flushes: [`State`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::{Key, Place};
use crate::dag::block::SHA2_256;

/// Sessions, leases and blocks that the index does not know yet. Never locked across file work.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Written and readable, not yet indexed.
    pub(super) pending: HashMap<Key, Place>,
    pub(super) sessions: HashMap<u64, Members>,
    /// Sessions that ended without commit or abort, until their leases are in the index.
    pub(super) orphans: Vec<Orphan>,
    /// Ended sessions whose lease rows have to go.
    pub(super) released: Vec<u64>,
    /// Blocks that a sweep is taking out of the index: whoever adds one now writes it again. In the order of the index.
    pub(super) doomed: BTreeSet<Short>,
    /// Sessions whose leases are over, and whose rows the sweep takes.
    pub(super) expired: Vec<u64>,
    /// Blocks that were read and are wrong: whoever adds one writes it again.
    pub(super) damaged: HashSet<Key>,
    pub(super) next_session: u64,
}

/// The step of what a session only asks for. It is over before the first, so that such blocks are never leased.
const ASKED: u32 = 0;

/// The blocks of an open session. Each has the number of the step in which it was added, so that what a flush has done for all of
/// them is one number, too.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// How long the blocks stay when the session just ends.
    pub(super) lease: Duration,
    /// Ordered, because a table that doubles needs three times as much while it does. [`ASKED`] are those that may not be held.
    added: BTreeMap<Short, u32>,
    /// The step that is going on; the first is 1.
    step: u32,
    /// Up to this step, all are durable and belong to whoever pins them.
    committed: u32,
    /// Up to this step, all have lease rows, unless they are committed.
    leased: u32,
    /// Whether the index has lease rows of this session.
    pub(super) on_disk: bool,
    /// Blocks of it did not reach the disk: it cannot be committed any more.
    pub(super) broken: bool,
}

/// A key in as little memory as it needs: a session may have a million of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Short {
    Sha256([u8; 32]),
    Other(Box<Key>),
}

impl From<&Key> for Short {
    fn from(key: &Key) -> Self {
        match key.digest().try_into() {
            Ok(digest) if key.code() == SHA2_256 => Self::Sha256(digest),
            _ => Self::Other(Box::new(*key)),
        }
    }
}

impl From<&Short> for Key {
    fn from(short: &Short) -> Self {
        match short {
            Short::Sha256(digest) => Self::wrap(SHA2_256, digest).expect("a digest of 32 bytes fits"),
            Short::Other(key) => **key,
        }
    }
}

/// The leases of a session that has ended.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) session: u64,
    /// Milliseconds since 1970.
    pub(super) until: u64,
    /// All its leased blocks.
    pub(super) keys: Vec<Key>,
}

impl Members {
    fn new(lease: Duration) -> Self {
        Self { lease, step: 1, ..Self::default() }
    }

    /// Adds a block; one that was committed before counts as new.
    pub(super) fn add(&mut self, key: &Key) {
        let added = self.added.entry(key.into()).or_insert(self.step);
        if *added <= self.committed {
            *added = self.step;
        }
    }

    /// Keeps a block, if there is one, until it is known whether it is held. Those that belong to the session stay what they are.
    pub(super) fn ask(&mut self, key: &Key) {
        self.added.entry(key.into()).or_insert(ASKED);
    }

    /// Ends that for a block that nobody has added meanwhile.
    pub(super) fn forget_asked(&mut self, key: &Key) {
        let key = key.into();
        if self.added.get(&key) == Some(&ASKED) {
            self.added.remove(&key);
        }
    }

    /// Those added since the last commit.
    pub(super) fn fresh(&self) -> impl Iterator<Item = Key> {
        self.since(self.committed)
    }

    /// Those of [`fresh`](Self::fresh) that have no lease row yet.
    pub(super) fn unleased(&self) -> impl Iterator<Item = Key> {
        self.since(self.committed.max(self.leased))
    }

    fn since(&self, step: u32) -> impl Iterator<Item = Key> {
        self.added.iter().filter(move |(_, added)| **added > step).map(|(key, _)| key.into())
    }

    /// Ends a step, and begins the next. Its number is for [`has_committed`](Self::has_committed) and [`has_leased`](Self::has_leased).
    pub(super) fn end_step(&mut self) -> u32 {
        self.step += 1;
        self.step - 1
    }

    /// All blocks up to the end of this step are durable, and their lease rows are gone.
    pub(super) fn has_committed(&mut self, step: u32) {
        self.committed = step;
        self.on_disk = false;
    }

    /// All blocks up to the end of this step have lease rows.
    pub(super) fn has_leased(&mut self, step: u32) {
        self.leased = step;
        self.on_disk = true;
    }
}

impl State {
    pub(super) fn begin(&mut self, lease: Duration) -> u64 {
        let session = self.next_session;
        self.next_session += 1;
        self.sessions.insert(session, Members::new(lease));
        session
    }

    /// Ends a session; its fresh blocks stay leased. Says whether there is anything to write down.
    pub(super) fn orphan(&mut self, session: u64) -> bool {
        let Some(members) = self.sessions.remove(&session) else { return false };
        let keys: Vec<Key> = members.fresh().collect();
        if keys.is_empty() {
            return false;
        }
        let until = millis().saturating_add(u64::try_from(members.lease.as_millis()).unwrap_or(u64::MAX));
        self.orphans.push(Orphan { session, until, keys });
        true
    }

    /// Ends a session; its blocks lose their leases. Says whether there may be leases on the disk.
    pub(super) fn abort(&mut self, session: u64) -> bool {
        // Even without rows: a flush under way may be about to write some.
        let released = self.sessions.remove(&session).is_some_and(|members| !members.added.is_empty());
        if released {
            self.released.push(session);
        }
        released
    }

    /// Gives these up, but for those that an open session or (with `keep_leases`) one that ended lately has.
    pub(super) fn doom(&mut self, keys: &[Key], keep_leases: bool) {
        let orphans = self.orphans.iter().filter(|_| keep_leases);
        let leased: HashSet<Key> = orphans.flat_map(|orphan| orphan.keys.iter().copied()).collect();
        let free = |key: &&Key| !self.in_session(key) && !self.pending.contains_key(key) && !leased.contains(key);
        let doomed: Vec<Short> = keys.iter().filter(free).map(Short::from).collect();
        self.doomed.extend(doomed);
    }

    /// Whether it is given up.
    pub(super) fn is_doomed(&self, key: &Key) -> bool {
        !self.doomed.is_empty() && self.doomed.contains(&key.into())
    }

    /// Some of those that are given up; the same ones until they are spared.
    pub(super) fn next_doomed(&self, most: usize) -> Vec<Key> {
        self.doomed.iter().take(most).map(Key::from).collect()
    }

    /// It is given up no longer: it was added again, or is gone.
    pub(super) fn spare(&mut self, key: &Key) {
        if !self.doomed.is_empty() {
            self.doomed.remove(&key.into());
        }
    }

    /// Forgets what an unfinished sweep gave up.
    pub(super) fn spare_all(&mut self) {
        self.doomed.clear();
        self.expired.clear();
    }

    /// Whether an open session has this block.
    pub(super) fn in_session(&self, key: &Key) -> bool {
        let key = key.into();
        self.sessions.values().any(|members| members.added.contains_key(&key))
    }
}

/// Milliseconds since 1970.
pub(super) fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::Block;

    #[test]
    fn what_is_only_asked_for_goes_and_what_was_added_stays() {
        let [asked, before, meanwhile] = [1, 2, 3].map(|seed| *Block::raw(vec![seed].into()).cid().hash());
        let mut members = Members::new(Duration::ZERO);
        members.add(&before);
        for key in [&asked, &before, &meanwhile] {
            members.ask(key);
        }
        assert_eq!(members.added.len(), 3);
        assert_eq!(members.fresh().collect::<Vec<_>>(), [before]);
        members.add(&meanwhile);
        let step = members.end_step();
        members.has_committed(step);
        for key in [&asked, &before, &meanwhile] {
            members.forget_asked(key);
        }
        let kept: HashSet<Key> = members.added.keys().map(Key::from).collect();
        assert_eq!(kept, HashSet::from([before, meanwhile]));
    }
}
