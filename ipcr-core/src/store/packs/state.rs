//! What the store remembers between flushes: [`State`].

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::{Key, Place};

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
    /// Blocks that a sweep is taking out of the index: whoever adds one now writes it again.
    pub(super) doomed: HashSet<Key>,
    /// Blocks that were read and are wrong: whoever adds one writes it again.
    pub(super) damaged: HashSet<Key>,
    pub(super) next_session: u64,
}

/// The blocks of an open session.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// How long the blocks stay when the session just ends.
    pub(super) lease: Duration,
    /// All of them.
    pub(super) all: HashSet<Key>,
    /// Those added since the last commit.
    pub(super) fresh: HashSet<Key>,
    /// Those of `fresh` that have no lease row yet.
    pub(super) unleased: HashSet<Key>,
    /// Whether the index has lease rows of this session.
    pub(super) on_disk: bool,
    /// Blocks of it did not reach the disk: it cannot be committed any more.
    pub(super) broken: bool,
}

/// The leases of a session that has ended.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) session: u64,
    /// Milliseconds since 1970.
    pub(super) until: u64,
    /// All its leased blocks.
    pub(super) keys: HashSet<Key>,
}

impl Members {
    pub(super) fn add(&mut self, key: Key) {
        self.all.insert(key);
        if self.fresh.insert(key) {
            self.unleased.insert(key);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.all.remove(key);
        self.fresh.remove(key);
        self.unleased.remove(key);
    }
}

impl State {
    pub(super) fn begin(&mut self, lease: Duration) -> u64 {
        let session = self.next_session;
        self.next_session += 1;
        self.sessions.insert(session, Members { lease, ..Members::default() });
        session
    }

    /// Ends a session; its fresh blocks stay leased. Says whether there is anything to write down.
    pub(super) fn orphan(&mut self, session: u64) -> bool {
        let Some(members) = self.sessions.remove(&session) else { return false };
        if members.fresh.is_empty() {
            return false;
        }
        let until = millis().saturating_add(u64::try_from(members.lease.as_millis()).unwrap_or(u64::MAX));
        self.orphans.push(Orphan { session, until, keys: members.fresh });
        true
    }

    /// Ends a session; its blocks lose their leases.
    pub(super) fn abort(&mut self, session: u64) {
        // Even without rows: a flush under way may be about to write some.
        if self.sessions.remove(&session).is_some_and(|members| !members.all.is_empty()) {
            self.released.push(session);
        }
    }

    /// Whether an open session has this block.
    pub(super) fn in_session(&self, key: &Key) -> bool {
        self.sessions.values().any(|members| members.all.contains(key))
    }
}

/// Milliseconds since 1970.
pub(super) fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
