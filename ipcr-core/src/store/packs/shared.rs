//! Reading, adding and the one durable step: [`Shared`].

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use tokio::sync::Semaphore;

use super::append::{self, Appender, Dirty};
use super::index::{Index, LeaseRows, Step};
use super::record::{self, Key, Place};
use super::state::{self, Members, State};
use crate::kind::ErrorKind;
use crate::port::blocks::{Put, StoreError, Usage};
use crate::store::database::Failure;
use crate::store::home;

/// Pack files that are kept open for reading.
const OPEN_FILES: usize = 64;
/// Readings that go on at once. The disk gains nothing by more, and each needs a thread, which takes half a megabyte.
pub(super) const READS: usize = 8;
/// Writings that go on at once: one appends, the others look up what is there already.
pub(super) const WRITES: usize = 4;

/// How long a sweep waits before it looks again whether somebody waits for its turn, and how long in all.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// What all handles of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The directory of the pack files.
    pub(super) folder: PathBuf,
    pub(super) index: Index,
    pub(super) appender: Mutex<Appender>,
    pub(super) state: Mutex<State>,
    /// Held by whoever changes the index.
    pub(super) flush: Mutex<()>,
    /// Held by whoever takes blocks away, or needs all that there are to stay where they are.
    pub(super) sweeping: Mutex<()>,
    /// How many wait for `flush` to make something durable. A sweep, which takes it again and again, lets them go first.
    pub(super) committing: AtomicUsize,
    pub(super) files: Mutex<HashMap<u32, Arc<File>>>,
    /// Places for readings, and for writings, which may wait for the disk while others read.
    pub(super) reads: Arc<Semaphore>,
    pub(super) writes: Arc<Semaphore>,
    /// Keeps the home locked for as long as anybody can write to it.
    pub(super) _lock: Option<Arc<home::Lock>>,
    /// Lets a test end without the last flush, as a killed process does.
    #[cfg(test)]
    pub(super) crashed: std::sync::atomic::AtomicBool,
}

/// What a `put` leaves to be done in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    /// A pack is full: so that a crash leaves little to scan, and a commit little to write.
    Flush,
    /// Much was written to the packs that the disk does not have.
    WriteAhead,
}

/// A lock that a panicking thread held is as good as any: no update is left half done across a call that can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Which blocks are held.
    pub(super) fn has(&self, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let mut held = vec![None; keys.len()];
        {
            let state = self.state();
            for (held, key) in held.iter_mut().zip(keys) {
                *held = known(&state, key);
            }
        }
        self.look_up(keys, &mut held)?;
        Ok(held.into_iter().map(|held| held == Some(true)).collect())
    }

    /// The sizes of those that are held.
    pub(super) fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u32>>, StoreError> {
        // Memory first: what a commit brings to the index meanwhile is in one of them.
        let remembered: Vec<(Option<bool>, Option<Place>)> = {
            let state = self.state();
            keys.iter().map(|key| (known(&state, key), state.pending.get(key).copied())).collect()
        };
        let places = self.index.places(keys).map_err(|error| self.index_error("looking up blocks", error))?;
        let size = |((held, pending), place): ((Option<bool>, Option<Place>), Option<Place>)| match held {
            Some(false) => None,
            Some(true) | None => pending.or(place).map(|place| place.len),
        };
        Ok(remembered.into_iter().zip(places).map(size).collect())
    }

    /// Asks the index for what memory does not know.
    fn look_up(&self, keys: &[Key], held: &mut [Option<bool>]) -> Result<(), StoreError> {
        let open: Vec<usize> = (0..keys.len()).filter(|at| held[*at].is_none()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let asked: Vec<Key> = open.iter().map(|at| keys[*at]).collect();
        let places = self.index.places(&asked).map_err(|error| self.index_error("looking up blocks", error))?;
        for (at, place) in open.into_iter().zip(places) {
            held[at] = Some(place.is_some());
        }
        Ok(())
    }

    fn place(&self, key: &Key) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.state().pending.get(key) {
            return Ok(Some(*place));
        }
        let places = self.index.places(&[*key]).map_err(|error| self.index_error("looking up a block", error))?;
        Ok(places[0])
    }

    /// Reads a block, and looks whether it is what was written.
    pub(super) fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        let key = cid.hash();
        let mut place = self.place(key)?;
        // A sweep may move a block between the look-up and the reading; nothing moves for ever.
        for _ in 0..8 {
            let Some(at) = place else { return Ok(None) };
            if let Some(data) = self.read(at)?.and_then(|data| record::intact(key, at, data)) {
                return Ok(Some(data));
            }
            if self.note_damage(key, at)? {
                break;
            }
            place = self.place(key)?;
        }
        Err(StoreError::Corrupt { cid: *cid })
    }

    /// Notes that a block is damaged where it was looked for; false if it lies elsewhere by now, because it was moved or added anew.
    pub(super) fn note_damage(&self, key: &Key, at: Place) -> Result<bool, StoreError> {
        // Twice: between a look at the index and one at what is pending, a commit may have moved it from one to the other.
        for noted in [false, true] {
            let places = self.index.places(&[*key]).map_err(|error| self.index_error("looking up a block", error))?;
            let mut state = self.state();
            if state.pending.get(key).copied().or(places[0]) != Some(at) {
                if noted {
                    state.damaged.remove(key);
                }
                return Ok(false);
            }
            state.damaged.insert(*key);
        }
        Ok(true)
    }

    /// The bytes at a place; `None` when they are not there.
    pub(super) fn read(&self, place: Place) -> Result<Option<Bytes>, StoreError> {
        let path = append::pack_path(&self.folder, place.pack);
        let file = match self.file(place.pack) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, "opening", error)),
        };
        record::read(&file, place).map_err(|error| io_error(&path, "reading", error))
    }

    pub(super) fn file(&self, pack: u32) -> io::Result<Arc<File>> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&pack) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(append::pack_path(&self.folder, pack))?);
        if files.len() >= OPEN_FILES {
            // Any will do: opening again is cheap.
            let any = files.keys().next().copied();
            any.and_then(|any| files.remove(&any));
        }
        files.insert(pack, file.clone());
        Ok(file)
    }

    /// Adds blocks to a session. The second value says what should be done in the background.
    pub(super) fn put(&self, session: u64, blocks: Vec<(Key, Bytes)>) -> Result<(Put, Option<Chore>), StoreError> {
        let keys: Vec<Key> = blocks.iter().map(|(key, _)| *key).collect();
        let held = self.join(session, &keys)?;
        let mut seen = HashSet::new();
        let wanted = blocks.into_iter().zip(held).filter(|(_, held)| !held).map(|(block, _)| block);
        let mut wanted: Vec<(Key, Bytes)> = wanted.filter(|(key, _)| seen.insert(*key)).collect();
        let mut put = Put::default();
        let mut chore = None;
        while !wanted.is_empty() {
            let mut appender = lock(&self.appender);
            {
                // Another session may have brought some of them meanwhile.
                let state = self.state();
                wanted.retain(|(key, _)| known(&state, key) != Some(true));
            }
            let places = appender.append(&wanted).map_err(|error| io_error(&self.folder, "storing blocks", error))?;
            if appender.current().is_none() {
                chore = Some(Chore::Flush);
            } else if appender.is_ahead() {
                chore = chore.or(Some(Chore::WriteAhead));
            }
            let mut state = self.state();
            for (key, place) in &places {
                put.new_blocks += 1;
                put.new_bytes += u64::from(place.len);
                state.damaged.remove(key);
                state.spare(key);
                state.pending.insert(*key, *place);
                if let Some(members) = state.sessions.get_mut(&session) {
                    members.add(key);
                }
            }
            wanted.drain(..places.len());
        }
        Ok((put, chore))
    }

    /// Does what a `put` left to be done.
    pub(super) fn attend(&self, chore: Chore) -> Result<(), StoreError> {
        match chore {
            Chore::Flush => self.flush(None),
            Chore::WriteAhead => self.write_ahead(),
        }
    }

    /// Lets the disk write while more is added, so that the commit finds little left to wait for. With `flush` held: of those
    /// who sync a file at the same time only one learns of a failure, and it must not be the one who does not commit.
    fn write_ahead(&self) -> Result<(), StoreError> {
        let _flush = match self.flush.try_lock() {
            Ok(flush) => flush,
            Err(TryLockError::Poisoned(flush)) => flush.into_inner(),
            // Somebody is at it.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let dirty = lock(&self.appender).write_ahead();
        self.sync(&dirty)
    }

    /// Makes those blocks that are held part of a session. Those that only the index knows are asked for first and then looked up, so that
    /// no sweep comes between.
    pub(super) fn hold(&self, session: u64, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let mut held = vec![None; keys.len()];
        {
            let mut state = self.state();
            for (held, key) in held.iter_mut().zip(keys) {
                *held = known(&state, key);
                if let Some(members) = state.sessions.get_mut(&session) {
                    match *held {
                        Some(true) => members.add(key),
                        Some(false) => {}
                        None => members.ask(key),
                    }
                }
            }
        }
        let asked: Vec<&Key> = keys.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(key, _)| key).collect();
        let found = self.look_up(keys, &mut held);
        let mut state = self.state();
        // One that was asked for by two at once may be asked for by nobody for a moment.
        let gone = |key| known(&state, key) == Some(false);
        held.iter_mut().zip(keys).filter(|(_, key)| gone(key)).for_each(|(held, _)| *held = Some(false));
        if let Some(members) = state.sessions.get_mut(&session) {
            let is_held = keys.iter().zip(&held).filter(|(_, held)| **held == Some(true));
            is_held.for_each(|(key, _)| members.add(key));
            asked.into_iter().for_each(|key| members.forget_asked(key));
        }
        drop(state);
        found?;
        Ok(held.into_iter().map(|held| held == Some(true)).collect())
    }

    /// Makes blocks part of a session first and then looks which are held, so that no sweep comes between.
    fn join(&self, session: u64, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let mut held = vec![None; keys.len()];
        {
            let mut state = self.state();
            for (held, key) in held.iter_mut().zip(keys) {
                *held = known(&state, key);
                if let Some(members) = state.sessions.get_mut(&session) {
                    members.add(key);
                }
            }
        }
        self.look_up(keys, &mut held)?;
        Ok(held.into_iter().map(|held| held == Some(true)).collect())
    }

    /// Makes everything that was written durable, in one step, and ends the leases of the session that commits.
    pub(super) fn flush(&self, commit: Option<u64>) -> Result<(), StoreError> {
        self.committing.fetch_add(1, Ordering::AcqRel);
        let flush = lock(&self.flush);
        self.committing.fetch_sub(1, Ordering::AcqRel);
        let done = self.step(commit, Vec::new(), Vec::new());
        drop(flush);
        done
    }

    /// The turn of a sweep to change the index, after all who wait for theirs; for so long at most, because there may always be somebody.
    pub(super) fn flush_last(&self) -> MutexGuard<'_, ()> {
        let begun = Instant::now();
        while self.committing.load(Ordering::Acquire) > 0 && begun.elapsed() < PATIENCE.1 {
            std::thread::sleep(PATIENCE.0);
        }
        lock(&self.flush)
    }

    /// The step itself, for whoever holds `flush`: with it, blocks that were copied move, and packs are condemned.
    /// Behind the end that the index knows of a pack, no row ever names anything.
    pub(super) fn step(
        &self,
        commit: Option<u64>,
        moved: Vec<(Key, Place, Place)>,
        condemned: Vec<u32>,
    ) -> Result<(), StoreError> {
        let (dirty, mut step, ended, orphans) = {
            let appender = lock(&self.appender);
            let mut state = self.state();
            check_whole(&state, commit)?;
            let mut step = leases(&state, commit);
            (step.moved, step.condemned) = (moved, condemned);
            step.places = state.pending.iter().map(|(key, place)| (*key, *place)).collect();
            let orphans: HashSet<u64> = state.orphans.iter().map(|orphan| orphan.session).collect();
            let ended: HashMap<u64, u32> =
                state.sessions.iter_mut().map(|(session, members)| (*session, members.end_step())).collect();
            (appender.dirty(), step, ended, orphans)
        };
        step.ends = dirty.packs.iter().map(|(pack, (_, end))| (*pack, *end)).collect();
        if !step.is_empty() {
            self.sync(&dirty)?;
            self.index.apply(&step).map_err(|error| self.index_error("indexing blocks", error))?;
            lock(&self.appender).flushed(&dirty);
        }
        let mut state = self.state();
        for (key, place) in &step.places {
            if state.pending.get(key) == Some(place) {
                state.pending.remove(key);
            }
        }
        // A session that ended meanwhile is an orphan now, and written once more with all its blocks.
        let mut tell = |session: u64, what: fn(&mut Members, u32)| {
            if let (Some(members), Some(step)) = (state.sessions.get_mut(&session), ended.get(&session)) {
                what(members, *step);
            }
        };
        step.leases.iter().for_each(|rows| tell(rows.session, Members::has_leased));
        commit.into_iter().for_each(|session| tell(session, Members::has_committed));
        state.orphans.retain(|orphan| !orphans.contains(&orphan.session));
        state.released.retain(|session| !step.released.contains(session));
        Ok(())
    }

    /// Brings the packs to the disk. What fails here may be lost, whatever a second attempt says: the sessions that
    /// rely on it cannot be committed any more, and the blocks no longer count as held.
    pub(super) fn sync(&self, dirty: &Dirty) -> Result<(), StoreError> {
        let outcome = dirty.packs.values().try_for_each(|(file, _)| file.sync_data());
        let outcome = outcome.and_then(|()| if dirty.new_files { sync_folder(&self.folder) } else { Ok(()) });
        let Err(error) = outcome else { return Ok(()) };
        let packs: Vec<u32> = dirty.packs.keys().copied().collect();
        lock(&self.appender).give_up(&packs);
        let mut guard = self.state();
        let state = &mut *guard;
        let lost: HashSet<Key> =
            state.pending.iter().filter(|(_, place)| packs.contains(&place.pack)).map(|(key, _)| *key).collect();
        state.pending.retain(|key, _| !lost.contains(key));
        for members in state.sessions.values_mut() {
            let has_lost = members.fresh().any(|key| lost.contains(&key));
            members.broken |= has_lost;
        }
        Err(io_error(&self.folder, "writing blocks to the disk", error))
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        let failed = |error| self.index_error("counting blocks", error);
        let pending: Vec<(Key, Place)> = self.state().pending.iter().map(|(key, place)| (*key, *place)).collect();
        let keys: Vec<Key> = pending.iter().map(|(key, _)| *key).collect();
        let indexed = self.index.places(&keys).map_err(failed)?;
        let new = pending.iter().zip(indexed).filter(|(_, indexed)| indexed.is_none()).map(|((_, place), _)| place);
        let (mut blocks, mut bytes) = new.fold((0, 0), |(n, sum), place| (n + 1, sum + u64::from(place.len)));
        blocks += self.index.count().map_err(failed)?;
        bytes += self.index.packs().map_err(failed)?.values().map(|pack| pack.data).sum::<u64>();
        Ok(Usage { blocks, bytes, disk_bytes: self.disk_bytes()?, index_bytes: size_of(self.index.path()) })
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let entries = self.folder.read_dir().map_err(|error| io_error(&self.folder, "listing", error))?;
        Ok(entries.flatten().map(|entry| size_of(&entry.path())).sum::<u64>() + size_of(self.index.path()))
    }

    pub(super) fn index_error(&self, doing: &'static str, error: Failure) -> StoreError {
        match error.kind() {
            ErrorKind::DiskFull => StoreError::Full { place: self.index.path().display().to_string(), doing },
            ErrorKind::Integrity => {
                let place = self.index.path().display().to_string();
                StoreError::DamagedIndex { place, source: Box::new(error) }
            }
            kind => StoreError::Backend { doing, kind, source: Box::new(error) },
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.crashed.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.flush(None) {
            tracing::debug!(%error, "the last flush of the store failed");
        }
    }
}

/// Bytes of a file on the disk. Packs have holes where blocks were taken away.
pub(super) fn size_of(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len().min(metadata.blocks() * 512))
}

/// Whether a block is held, as far as memory can tell; `None`: ask the index.
fn known(state: &State, key: &Key) -> Option<bool> {
    if state.damaged.contains(key) {
        Some(false)
    } else if state.pending.contains_key(key) {
        Some(true)
    } else if state.is_doomed(key) {
        Some(false)
    } else {
        None
    }
}

/// Refuses to commit a session whose blocks may be lost.
fn check_whole(state: &State, commit: Option<u64>) -> Result<(), StoreError> {
    match commit.and_then(|session| state.sessions.get(&session)) {
        Some(members) if members.broken => Err(StoreError::Backend {
            doing: "committing blocks",
            kind: ErrorKind::Failed,
            source: "an earlier write to the disk failed, and blocks of this session may be lost".into(),
        }),
        _ => Ok(()),
    }
}

/// The lease rows that the index lacks, and those that are to go.
fn leases(state: &State, commit: Option<u64>) -> Step {
    let mut step = Step { released: state.released.clone(), ..Step::default() };
    let now = state::millis();
    for (session, members) in &state.sessions {
        if Some(*session) == commit {
            if members.on_disk {
                step.released.push(*session);
            }
            continue;
        }
        let keys: Vec<Key> = members.unleased().collect();
        if !keys.is_empty() {
            let until = now.saturating_add(u64::try_from(members.lease.as_millis()).unwrap_or(u64::MAX));
            step.leases.push(LeaseRows { session: *session, until, keys });
        }
    }
    for orphan in &state.orphans {
        let keys = orphan.keys.clone();
        step.leases.push(LeaseRows { session: orphan.session, until: orphan.until, keys });
    }
    step
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn io_error(path: &Path, doing: &'static str, error: io::Error) -> StoreError {
    StoreError::io(path.display().to_string(), doing, error)
}
