//! Files that this home has whole and keeps, because it tagged them, and the folders of their tags: entries of [`Space::Pins`], by root.
//!
//! What else a registry refers to may be incomplete here, for another home with the same key may have pushed it.

use std::sync::Arc;

use cid::Cid;

use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};
use crate::tree::edit::Edit;

/// The changes that pin what edits bring, and the tag folders that they made.
pub fn pin(edits: &[Edit], folders: &[Option<Cid>]) -> Vec<Change> {
    let stored = edits.iter().filter_map(|edit| match edit {
        Edit::SetTag { stored, .. } | Edit::PutManifest { stored, .. } => Some(stored),
        _ => None,
    });
    let blobs = stored.flat_map(|image| &image.blobs).map(|blob| &blob.cid);
    blobs.chain(folders.iter().flatten()).map(|cid| Change::Put(Space::Pins, cid.to_bytes(), Vec::new())).collect()
}

/// The change that lets go of a file.
pub fn unpin(file: &Cid) -> Change {
    Change::Delete(Space::Pins, file.to_bytes())
}

/// All pinned files.
pub async fn all(tables: &Arc<dyn Table>) -> Result<Vec<Cid>, TableError> {
    let damaged = |source| TableError {
        place: Space::Pins.name().into(),
        doing: "reading",
        kind: ErrorKind::Integrity,
        source: Box::new(source),
    };
    let rows = tables.scan(Space::Pins, &[]).await?;
    rows.into_iter().map(|(key, _)| Cid::try_from(key.as_slice()).map_err(damaged)).collect()
}
