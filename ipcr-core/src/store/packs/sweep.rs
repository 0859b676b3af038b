//! Taking blocks away, and giving their space back.
//!
//! First, what nobody needs is given up ([`doom`]): it counts as not held, and whoever adds it writes it again. The blocks of open sessions are
//! never among it. What was written and never indexed is cut off, which needs no room, so that a full disk gets some. Then ([`remove_doomed`])
//! the rows of what was given up leave the index, in durable steps, between which others commit. Then packs that hold nothing are deleted, the dead ends of others cut off, and
//! their dead space in between given back where it lies, as holes, which copies nothing. Where the file system has no holes, or
//! much dead space is in pieces too small for them, what is alive is copied to the end of the last pack and the old one deleted.
//! Adding and reading go on all the while, committing from the second part on.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::append;
use super::record::{self, Key, Place};
use super::recover;
use super::shared::{Shared, io_error, lock, size_of, sync_folder};
use super::state::{self, State};
use crate::kind::ErrorKind;
use crate::port::blocks::{Live, StoreError, Swept};

/// Dead bytes in one pack that are worth copying the rest.
const WORTH: u64 = 2 << 20;
/// Bytes that are copied at once.
const COPY_BYTES: u64 = 8 << 20;
/// Blocks whose rows are removed in one durable step.
const STEP: usize = 1 << 13;

/// Gives up what nobody needs: from here on it counts as not held, until somebody adds it again. Says what went at once.
pub(super) fn doom(shared: &Shared, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
    let _sweeping = lock(&shared.sweeping);
    let _flush = shared.flush_last();
    let failed = |error| shared.index_error("reading the index", error);
    let rows = shared.index.sessions().map_err(failed)?;
    let (leasing, expired) = leases(shared, rows.into_iter(), keep_leases);
    let mut leased = shared.index.leased(&leasing).map_err(failed)?;
    let mut swept = Swept::default();
    {
        let mut guard = shared.state();
        let state = &mut *guard;
        state.spare_all();
        state.expired = expired;
        leased.extend(state.orphans.iter().flat_map(|orphan| orphan.keys.iter().copied()));
        let mut pending = std::mem::take(&mut state.pending);
        pending.retain(|key, place| {
            let kept = live.contains(&key.to_bytes()) || leased.contains(key) || state.in_session(key);
            if !kept {
                swept.blocks += 1;
                swept.bytes += u64::from(place.len);
            }
            kept
        });
        state.pending = pending;
    }
    swept.disk_bytes = trim(shared)?;
    let mut page = shared.index.page(None).map_err(failed)?;
    while let Some((last, _)) = page.last() {
        let dead = page.iter().map(|(key, _)| *key);
        let dead: Vec<Key> = dead.filter(|key| !live.contains(&key.to_bytes()) && !leased.contains(key)).collect();
        shared.state().doom(&dead, keep_leases);
        page = shared.index.page(Some(last)).map_err(failed)?;
    }
    Ok(swept)
}

/// Takes away what was given up, and gives its space back. Whoever commits meanwhile waits for one step of it at most,
/// or, where the file system has no holes, until one pack is copied.
pub(super) fn remove_doomed(shared: &Shared) -> Result<Swept, StoreError> {
    let _sweeping = lock(&shared.sweeping);
    let mut swept = Swept::default();
    loop {
        let _flush = shared.flush_last();
        let (keys, expired) = {
            let state = shared.state();
            (state.next_doomed(STEP), state.expired.clone())
        };
        if keys.is_empty() && expired.is_empty() {
            break;
        }
        let removed = shared.index.remove(&keys, &expired);
        let (blocks, bytes) = removed.map_err(|error| shared.index_error("removing blocks", error))?;
        let mut state = shared.state();
        state.expired.clear();
        for key in &keys {
            // Whoever added it meanwhile has mended it, too.
            if !state.pending.contains_key(key) {
                state.damaged.remove(key);
            }
            state.spare(key);
        }
        swept.blocks += blocks;
        swept.bytes += bytes;
    }
    swept.disk_bytes = compact(shared)?;
    Ok(swept)
}

/// Holds again what was given up and is still there. Nobody is removing it meanwhile.
pub(super) fn spare_doomed(shared: &Shared) {
    let _sweeping = lock(&shared.sweeping);
    shared.state().spare_all();
}

/// Counts what a sweep would take.
pub(super) fn weigh(shared: &Shared, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
    let failed = |error| shared.index_error("reading the index", error);
    let leased = leased(shared, keep_leases)?;
    let mut swept = Swept::default();
    let mut count = |key: &Key, place: &Place, state: &State| {
        if !live.contains(&key.to_bytes()) && !leased.contains(key) && !state.in_session(key) {
            swept.blocks += 1;
            swept.bytes += u64::from(place.len);
        }
    };
    let pending: HashSet<Key> = {
        let state = shared.state();
        state.pending.iter().for_each(|(key, place)| count(key, place, &state));
        state.pending.keys().copied().collect()
    };
    let mut page = shared.index.page(None).map_err(failed)?;
    while let Some((last, _)) = page.last() {
        let state = shared.state();
        page.iter().filter(|(key, _)| !pending.contains(key)).for_each(|(key, place)| count(key, place, &state));
        drop(state);
        page = shared.index.page(Some(last)).map_err(failed)?;
    }
    Ok(swept)
}

/// The blocks that ended sessions lease.
fn leased(shared: &Shared, keep_leases: bool) -> Result<HashSet<Key>, StoreError> {
    if !keep_leases {
        return Ok(HashSet::new());
    }
    let failed = |error| shared.index_error("reading the leases", error);
    let (now, mut leasing) = (state::millis(), shared.index.sessions().map_err(failed)?);
    let mut leased = HashSet::new();
    {
        let state = shared.state();
        leasing.retain(|session, until| {
            *until > now && !state.released.contains(session) && !state.sessions.contains_key(session)
        });
        for orphan in &state.orphans {
            leasing.remove(&orphan.session);
            leased.extend(orphan.keys.iter().filter(|_| orphan.until > now));
        }
    }
    let sessions = leasing.into_keys().collect();
    leased.extend(shared.index.leased(&sessions).map_err(failed)?);
    Ok(leased)
}

/// Cuts off what was written behind the indexed ends of packs and is in no session any more. Answers how many bytes that gave back to the
/// disk, as all that takes something away here does: how much more is used in the end says nothing, for others write meanwhile.
fn trim(shared: &Shared) -> Result<u64, StoreError> {
    let rows = shared.index.packs().map_err(|error| shared.index_error("reading the index", error))?;
    let files = recover::pack_files(&shared.folder)?;
    let mut appender = lock(&shared.appender);
    let in_use: HashSet<u32> = shared.state().pending.values().map(|place| place.pack).collect();
    let mut freed = 0;
    for pack in files.into_iter().filter(|pack| !in_use.contains(pack)) {
        let path = append::pack_path(&shared.folder, pack);
        let failed = |error| io_error(&path, "giving space back", error);
        let end = rows.get(&pack).map_or(0, |row| row.end).max(record::FILE_HEADER);
        if path.metadata().map_err(failed)?.len() > end {
            if appender.current() == Some(pack) {
                appender.roll();
            }
            appender.give_up(&[pack]);
            freed += shorten(&path, end).map_err(failed)?;
        }
    }
    Ok(freed)
}

/// Cuts a pack off; answers how many bytes that gave back.
fn shorten(path: &Path, end: u64) -> io::Result<u64> {
    let before = size_of(path);
    File::options().write(true).open(path)?.set_len(end)?;
    Ok(before.saturating_sub(size_of(path)))
}

/// The ended sessions whose leases hold, and those whose leases are over.
fn leases(shared: &Shared, rows: impl Iterator<Item = (u64, u64)>, keep_leases: bool) -> (HashSet<u64>, Vec<u64>) {
    let now = state::millis();
    let mut state = shared.state();
    state.orphans.retain(|orphan| keep_leases && orphan.until > now);
    let orphans: HashSet<u64> = state.orphans.iter().map(|orphan| orphan.session).collect();
    let (mut leasing, mut expired) = (HashSet::new(), Vec::new());
    for (session, until) in rows {
        // Memory knows more about these than their rows.
        if state.sessions.contains_key(&session) || orphans.contains(&session) {
            continue;
        }
        if keep_leases && until > now && !state.released.contains(&session) {
            leasing.insert(session);
        } else {
            expired.push(session);
        }
    }
    (leasing, expired)
}

/// A pack with space to give back.
struct Wasteful {
    pack: u32,
    /// Whether nothing in it is alive.
    empty: bool,
    /// Its length; nothing before it changes.
    size: u64,
    /// Bytes that it needs.
    needed: u64,
}

fn compact(shared: &Shared) -> Result<u64, StoreError> {
    let mut freed = 0;
    let wasteful = {
        let _flush = shared.flush_last();
        let wasteful = find_wasteful(shared)?;
        let empty: Vec<u32> = wasteful.iter().filter(|pack| pack.empty).map(|pack| pack.pack).collect();
        if !empty.is_empty() {
            shared.step(None, Vec::new(), empty.clone())?;
            freed += delete(shared, &empty)?;
        }
        wasteful
    };
    // From here on nothing is added to the others, and nobody but this sweep takes anything out of them.
    let mut living: BTreeMap<u32, Vec<(Key, Place)>> =
        wasteful.iter().filter(|pack| !pack.empty).map(|pack| (pack.pack, Vec::new())).collect();
    if living.is_empty() {
        return Ok(freed);
    }
    let failed = |error| shared.index_error("reading the index", error);
    let mut page = shared.index.page(None).map_err(failed)?;
    while let Some((last, _)) = page.last() {
        for (key, place) in &page {
            if let Some(blocks) = living.get_mut(&place.pack) {
                blocks.push((*key, *place));
            }
        }
        page = shared.index.page(Some(last)).map_err(failed)?;
    }
    for blocks in living.values_mut() {
        blocks.sort_by_key(|(_, place)| place.offset);
    }
    freed += cut(shared, &wasteful, &living)?;
    for pack in wasteful.iter().filter(|pack| !pack.empty) {
        let blocks = living.remove(&pack.pack).unwrap_or_default();
        let path = append::pack_path(&shared.folder, pack.pack);
        let before = size_of(&path);
        punch(&path, pack, &blocks).map_err(|error| io_error(&path, "giving space back", error))?;
        let left = size_of(&path);
        freed += before.saturating_sub(left);
        if !is_worth(left.saturating_sub(pack.needed), left) {
            continue;
        }
        match rewrite(shared, pack.pack, &blocks) {
            Ok(more) => freed += more,
            // Copying needs room first. What was deleted stays deleted, and the next sweep goes on.
            Err(error) if error.kind() == ErrorKind::DiskFull => {
                tracing::debug!(%error, "no room to copy what is alive in a pack");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(freed)
}

/// Cuts off the dead ends of packs. The index goes first: a pack that is shorter than it says is damaged, a longer one is not.
fn cut(shared: &Shared, wasteful: &[Wasteful], living: &BTreeMap<u32, Vec<(Key, Place)>>) -> Result<u64, StoreError> {
    let mut ends = BTreeMap::new();
    for pack in wasteful {
        let last = living.get(&pack.pack).and_then(|blocks| blocks.last());
        let Some(end) = last.map(|(_, place)| place.offset + u64::from(place.len)) else { continue };
        if end < pack.size {
            ends.insert(pack.pack, end);
        }
    }
    if ends.is_empty() {
        return Ok(0);
    }
    {
        let _flush = shared.flush_last();
        shared.index.cut(&ends).map_err(|error| shared.index_error("shortening packs", error))?;
    }
    let mut freed = 0;
    for (pack, end) in ends {
        let path = append::pack_path(&shared.folder, pack);
        freed += shorten(&path, end).map_err(|error| io_error(&path, "giving space back", error))?;
    }
    Ok(freed)
}

fn is_worth(dead: u64, taken: u64) -> bool {
    dead > WORTH || dead > taken / 4
}

fn find_wasteful(shared: &Shared) -> Result<Vec<Wasteful>, StoreError> {
    let rows = shared.index.packs().map_err(|error| shared.index_error("reading the index", error))?;
    let files = recover::pack_files(&shared.folder)?;
    // Nothing is appended between looking at a pack and rolling on from it.
    let mut appender = lock(&shared.appender);
    let in_use: HashSet<u32> = shared.state().pending.values().map(|place| place.pack).collect();
    let mut wasteful = Vec::new();
    for pack in files.into_iter().filter(|pack| !in_use.contains(pack)) {
        let path = append::pack_path(&shared.folder, pack);
        let metadata = path.metadata().map_err(|error| io_error(&path, "looking at", error))?;
        let row = rows.get(&pack).copied().unwrap_or_default();
        let (size, needed) = (metadata.len(), record::FILE_HEADER + row.live);
        let taken = size_of(&path);
        let empty = row.live == 0;
        if empty || is_worth(taken.saturating_sub(needed), taken) {
            // What is not indexed in it is dead, and from here on nothing is added to it, copies from others least of all.
            if appender.current() == Some(pack) {
                appender.roll();
            }
            appender.give_up(&[pack]);
            wasteful.push(Wasteful { pack, empty, size, needed });
        }
    }
    Ok(wasteful)
}

/// Gives the space between living records back.
fn punch(path: &Path, pack: &Wasteful, blocks: &[(Key, Place)]) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut from = record::FILE_HEADER;
    let begins = blocks.iter().map(|(key, place)| place.offset - record::overhead(key));
    let ends = blocks.iter().map(|(_, place)| place.offset + u64::from(place.len));
    for (begin, end) in begins.zip(ends).chain([(pack.size, pack.size)]) {
        if begin > from {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&file, flags, from, begin - from) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => break,
                Err(error) => return Err(error.into()),
            }
        }
        from = from.max(end);
    }
    Ok(())
}

/// Copies what is alive in a pack, then deletes it. Nobody else brings a part of the copies to the disk meanwhile, and learns of a failure that
/// this one should have learnt of.
pub(super) fn rewrite(shared: &Shared, pack: u32, blocks: &[(Key, Place)]) -> Result<u64, StoreError> {
    let _flush = shared.flush_last();
    let mut moved = Vec::with_capacity(blocks.len());
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(_, place): &&(Key, Place)| {
            bytes += u64::from(place.len);
            bytes <= COPY_BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (batch, behind) = rest.split_at(count);
        rest = behind;
        let mut data: Vec<(Key, Bytes)> = Vec::with_capacity(batch.len());
        let mut olds: Vec<Place> = Vec::with_capacity(batch.len());
        for (key, place) in batch {
            match shared.read(*place)?.and_then(|bytes| record::verified(key, bytes)) {
                Some(bytes) => {
                    data.push((*key, bytes));
                    olds.push(*place);
                }
                // Damage is for `check` to tell and for a repair to mend; the pack stays as it is.
                None if shared.note_damage(key, *place)? => return Ok(0),
                // It was, and has been added anew.
                None => {}
            }
        }
        while !data.is_empty() {
            let appended = lock(&shared.appender).append(&data);
            let places = appended.map_err(|error| io_error(&shared.folder, "copying blocks", error))?;
            data.drain(..places.len());
            let old = olds.drain(..places.len());
            moved.extend(places.iter().zip(old).map(|((key, new), old)| (*key, old, *new)));
        }
    }
    let copied: u64 = moved.iter().map(|(key, _, new)| record::overhead(key) + u64::from(new.len)).sum();
    shared.step(None, moved, vec![pack])?;
    Ok(delete(shared, &[pack])?.saturating_sub(copied))
}

/// Deletes the files of condemned packs.
fn delete(shared: &Shared, packs: &[u32]) -> Result<u64, StoreError> {
    let mut freed = 0;
    for pack in packs {
        lock(&shared.files).remove(pack);
        let path: PathBuf = append::pack_path(&shared.folder, *pack);
        freed += size_of(&path);
        std::fs::remove_file(&path).map_err(|error| io_error(&path, "deleting", error))?;
    }
    sync_folder(&shared.folder).map_err(|error| io_error(&shared.folder, "writing the directory", error))?;
    shared.index.forget(packs).map_err(|error| shared.index_error("forgetting packs", error))?;
    Ok(freed)
}
