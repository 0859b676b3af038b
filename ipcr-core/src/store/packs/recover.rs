//! Opening a store, after whatever ended its last use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::append::{self, Appender};
use super::index::{self, Index, PackRow};
use super::record::{self, Key, Tail};
use super::shared::{self, Shared, io_error};
use super::state::{self, Orphan, State};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::StoreError;
use crate::store::database::{Access, Failure};
use crate::store::home;

pub(super) fn open(
    folder: &Path,
    pack_bytes: u64,
    access: Access,
    lock: Option<Arc<home::Lock>>,
) -> Result<Shared, StoreError> {
    let packs = folder.join("blocks");
    if access == Access::Write {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&packs);
        made.map_err(|error| io_error(&packs, "making the directory", error))?;
    }
    let path = folder.join("index.redb");
    let (index, found) = Index::open(&path, access).map_err(|error| index_error(&path, "opening the index", error))?;
    if found > index::FORMAT {
        let place = folder.display().to_string();
        return Err(StoreError::NewerFormat { place, found, known: index::FORMAT });
    }
    let failed = |error| index_error(&path, "reading the index", error);
    let rows = index.packs().map_err(failed)?;
    let sessions = index.sessions().map_err(failed)?;
    let damaged = index.damaged().map_err(failed)?;
    let files = pack_files(&packs)?;
    let known = files.iter().chain(rows.keys()).max();
    let next = known.map_or(1, |last| last + 1);
    let mut opening = Opening {
        index: &index,
        index_path: &path,
        appender: Appender::new(&packs, pack_bytes, next),
        state: State { damaged, next_session: sessions.keys().max().map_or(0, |last| last + 1), ..State::default() },
        folder: packs.clone(),
        leased: HashSet::new(),
    };
    // What was written and not committed is left to those who may write: nothing durable needs it.
    if access == Access::Write {
        opening.remove_condemned(&rows, &files);
        for pack in &files {
            let row = rows.get(pack).copied();
            if row.is_none_or(|row| !row.condemned) {
                opening.recover(*pack, row, files.last() == Some(pack))?;
            }
        }
    }
    let Opening { appender, mut state, leased, .. } = opening;
    if !leased.is_empty() {
        let lease = u64::try_from(limits::LEASE.as_millis()).unwrap_or(u64::MAX);
        let session = state.next_session;
        state.next_session += 1;
        state.orphans.push(Orphan { session, until: state::millis() + lease, keys: leased.into_iter().collect() });
    }
    Ok(Shared {
        folder: packs,
        index,
        appender: Mutex::new(appender),
        state: Mutex::new(state),
        flush: Mutex::new(()),
        sweeping: Mutex::new(()),
        committing: AtomicUsize::new(0),
        files: Mutex::new(HashMap::new()),
        reads: Arc::new(Semaphore::new(shared::READS)),
        writes: Arc::new(Semaphore::new(shared::WRITES)),
        _lock: lock,
        #[cfg(test)]
        crashed: std::sync::atomic::AtomicBool::new(false),
    })
}

/// The numbers of the pack files.
pub(super) fn pack_files(folder: &Path) -> Result<BTreeSet<u32>, StoreError> {
    let entries = folder.read_dir().map_err(|error| io_error(folder, "listing", error))?;
    let mut packs = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(|error| io_error(folder, "listing", error))?.file_name();
        packs.extend(name.to_str().and_then(append::pack_number));
    }
    Ok(packs)
}

fn index_error(path: &Path, doing: &'static str, error: Failure) -> StoreError {
    match error.kind() {
        ErrorKind::DiskFull => StoreError::Full { place: path.display().to_string(), doing },
        ErrorKind::Integrity => StoreError::DamagedIndex { place: path.display().to_string(), source: Box::new(error) },
        kind => StoreError::Backend { doing, kind, source: Box::new(error) },
    }
}

struct Opening<'i> {
    index: &'i Index,
    index_path: &'i Path,
    appender: Appender,
    state: State,
    folder: PathBuf,
    /// What was written and not committed.
    leased: HashSet<Key>,
}

impl Opening<'_> {
    /// Ends what a sweep had begun.
    fn remove_condemned(&self, rows: &BTreeMap<u32, PackRow>, files: &BTreeSet<u32>) {
        let condemned = rows.iter().filter(|(_, row)| row.condemned).map(|(pack, _)| *pack);
        let gone =
            |pack: &u32| !files.contains(pack) || std::fs::remove_file(append::pack_path(&self.folder, *pack)).is_ok();
        let gone: Vec<u32> = condemned.filter(gone).collect();
        // On a full disk the rows stay for the next time.
        if !gone.is_empty()
            && let Err(error) = self.index.forget(&gone)
        {
            tracing::debug!(%error, "packs that are gone could not be taken off the index yet");
        }
    }

    /// Reads what follows the indexed part of a pack, and goes on with it if it is the last.
    fn recover(&mut self, pack: u32, row: Option<PackRow>, last: bool) -> Result<(), StoreError> {
        let path = append::pack_path(&self.folder, pack);
        let failed = |error| io_error(&path, "opening", error);
        let size = path.metadata().map_err(failed)?.len();
        if row.is_none() && size < record::FILE_HEADER {
            // Made, and nothing written.
            return std::fs::remove_file(&path).map_err(|error| io_error(&path, "removing", error));
        }
        let indexed = row.map_or(record::FILE_HEADER, |row| row.end.max(record::FILE_HEADER));
        // A pack that lost bytes that were durable is damaged; nothing is appended to it.
        if size < indexed || (size == indexed && !last) {
            return Ok(());
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let mut end = indexed;
        if size > indexed {
            end = self.adopt(&file, &path, pack, indexed, size)?;
        }
        let file = Arc::new(file);
        if size > indexed {
            self.appender.note_dirty(pack, file.clone(), end);
        }
        if last {
            self.appender.resume(pack, file, end);
        }
        Ok(())
    }

    /// Keeps the whole records behind the indexed part and cuts off the rest; answers where the pack ends now.
    fn adopt(&mut self, file: &File, path: &Path, pack: u32, indexed: u64, size: u64) -> Result<u64, StoreError> {
        let scanned: io::Result<Tail> = record::scan(file, pack, indexed);
        let tail = scanned.map_err(|error| io_error(path, "reading", error))?;
        if tail.end < size {
            file.set_len(tail.end).map_err(|error| io_error(path, "cutting off a torn record", error))?;
        }
        let keys: Vec<Key> = tail.records.iter().map(|(key, _)| *key).collect();
        let places = self.index.places(&keys);
        let places = places.map_err(|error| index_error(self.index_path, "reading the index", error))?;
        let new = tail.records.into_iter().zip(places).filter(|(_, indexed)| indexed.is_none());
        for ((key, place), _) in new {
            self.leased.insert(key);
            self.state.pending.insert(key, place);
        }
        Ok(tail.end)
    }
}
