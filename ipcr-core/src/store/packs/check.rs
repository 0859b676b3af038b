//! Looking for damage. No block is changed; what is damaged is noted.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cid::Cid;

use super::append;
use super::record::{self, Key, Place};
use super::shared::{Shared, io_error, lock};
use crate::dag::block::RAW;
use crate::port::blocks::{StoreError, StoreReport};

pub(super) fn check(shared: &Shared, read_data: bool) -> Result<StoreReport, StoreError> {
    let (blocks, (mut problems, sizes)) = {
        // Nobody takes away what was just listed.
        let _sweeping = lock(&shared.sweeping);
        let blocks = blocks(shared)?;
        let files = files(shared, &blocks)?;
        (blocks, files)
    };
    let bytes_read = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = blocks.len().div_ceil(threads).max(1);
    let outcomes: Vec<Result<Vec<Key>, StoreError>> = thread::scope(|scope| {
        let read = read_data.then_some(&bytes_read);
        let sizes = &sizes;
        let workers: Vec<_> =
            blocks.chunks(share).map(|part| scope.spawn(move || damaged(shared, part, sizes, read))).collect();
        workers.into_iter().map(|worker| worker.join().expect("checking does not panic")).collect()
    });
    let mut report = StoreReport { blocks: blocks.len() as u64, ..StoreReport::default() };
    let mut found = Vec::new();
    for outcome in outcomes {
        found.extend(outcome?);
    }
    note(shared, &mut found, read_data);
    report.damaged.extend(found.into_iter().map(|key| Cid::new_v1(RAW, key)));
    report.bytes_read = bytes_read.into_inner();
    report.problems.append(&mut problems);
    Ok(report)
}

/// Notes what was found, so that it does not count as held by those who open the store later. Without reading, what was known
/// to be damaged still is.
pub(super) fn note(shared: &Shared, found: &mut Vec<Key>, read_data: bool) {
    let _flush = lock(&shared.flush);
    let mut well: Vec<Key> = {
        let state = shared.state();
        // Since it was read, which noted it, somebody may have added it anew.
        found.retain(|key| state.damaged.contains(key));
        let seen: HashSet<Key> = found.iter().copied().collect();
        state.damaged.difference(&seen).copied().collect()
    };
    if !read_data {
        found.append(&mut well);
    }
    if found.is_empty() && well.is_empty() {
        return;
    }
    if let Err(error) = shared.index.note_damaged(found, &well) {
        // A full disk, most likely. This process knows, and the next check finds it again.
        tracing::debug!(%error, "what is damaged could not be noted");
    }
    shared.state().damaged.retain(|key| !well.contains(key));
}

/// All blocks, in the order in which they lie.
fn blocks(shared: &Shared) -> Result<Vec<(Key, Place)>, StoreError> {
    let mut blocks: BTreeMap<Vec<u8>, (Key, Place)> = BTreeMap::new();
    let failed = |error| shared.index_error("reading the index", error);
    let pending: Vec<(Key, Place)> = shared.state().pending.iter().map(|(key, place)| (*key, *place)).collect();
    let mut page = shared.index.page(None).map_err(failed)?;
    while let Some((last, _)) = page.last() {
        blocks.extend(page.iter().map(|(key, place)| (key.to_bytes(), (*key, *place))));
        page = shared.index.page(Some(last)).map_err(failed)?;
    }
    blocks.extend(pending.into_iter().map(|(key, place)| (key.to_bytes(), (key, place))));
    let mut blocks: Vec<(Key, Place)> = blocks.into_values().collect();
    blocks.sort_by_key(|(_, place)| (place.pack, place.offset));
    Ok(blocks)
}

fn damaged(
    shared: &Shared,
    blocks: &[(Key, Place)],
    sizes: &BTreeMap<u32, u64>,
    read: Option<&AtomicU64>,
) -> Result<Vec<Key>, StoreError> {
    let mut damaged = Vec::new();
    for (key, place) in blocks {
        let end = place.offset + u64::from(place.len);
        let mut well = sizes.get(&place.pack).is_some_and(|size| end <= *size);
        if let Some(bytes_read) = read.filter(|_| well) {
            let data = shared.read(*place)?;
            bytes_read.fetch_add(u64::from(place.len), Ordering::Relaxed);
            well = data.and_then(|data| record::verified(key, data)).is_some();
        }
        if !well {
            // It may have been moved or taken away meanwhile: only what cannot be read now is damaged.
            let cid = Cid::new_v1(RAW, *key);
            match shared.get(&cid) {
                Err(StoreError::Corrupt { .. }) => damaged.push(*key),
                outcome => drop(outcome?),
            }
        }
    }
    Ok(damaged)
}

/// What is wrong with the files, and their sizes.
fn files(shared: &Shared, blocks: &[(Key, Place)]) -> Result<(Vec<String>, BTreeMap<u32, u64>), StoreError> {
    let mut problems = Vec::new();
    let mut sizes = BTreeMap::new();
    // Before the files: a commit may make more of both meanwhile.
    let rows = shared.index.packs().map_err(|error| shared.index_error("reading the index", error))?;
    let entries = shared.folder.read_dir().map_err(|error| io_error(&shared.folder, "listing", error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io_error(&shared.folder, "listing", error))?;
        let name = entry.file_name();
        match name.to_str().and_then(append::pack_number) {
            // A file that a sweep deletes right now has no size and no blocks.
            Some(pack) => drop(entry.metadata().map(|metadata| sizes.insert(pack, metadata.len()))),
            None => problems.push(format!("{} is no pack file", entry.path().display())),
        }
    }
    let ends: BTreeMap<u32, u64> =
        blocks.iter().map(|(_, place)| (place.pack, place.offset + u64::from(place.len))).collect();
    for (pack, _) in rows.iter().filter(|(_, row)| row.live > 0 && !row.condemned) {
        let name = append::pack_path(&shared.folder, *pack).display().to_string();
        match sizes.get(pack) {
            None => problems.push(format!("{name} is missing")),
            Some(size) if ends.get(pack).is_some_and(|end| end > size) => {
                problems.push(format!("{name} has lost its end"));
            }
            Some(_) => {}
        }
    }
    Ok((problems, sizes))
}
