//! Collecting what nothing refers to.

use std::sync::Arc;

use cid::Cid;

use crate::exchange::walk::{WalkError, mark};
use crate::kind::ErrorKind;
use crate::pin::cache::CacheEntry;
use crate::pin::state::State;
use crate::port::blocks::{BlockStore, Live, StoreError, Swept};
use crate::port::table::{Change, Space, Table, TableError};
use crate::tree::stored::{StoredBlob, StoredImage};

/// A collection's failure. What was removed until then was not referred to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A DAG could not be followed.
    #[error("following what is kept failed")]
    Walk(#[from] WalkError),
}

impl UpkeepError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Table(error) => error.kind(),
            Self::Walk(error) => error.kind(),
        }
    }
}

/// How much of what was pulled is kept.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimit {
    /// Bytes of pulled images; the least recently used go first.
    pub bytes: u64,
}

/// What a collection found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collected {
    /// Blocks that stay.
    pub kept: u64,
    /// What was removed; for a dry run, what would be.
    pub swept: Swept,
}

/// Collects. With `dry_run` nothing is removed, and leased blocks count as removed.
pub async fn collect(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    limit: CacheLimit,
    keep_leases: bool,
    dry_run: bool,
) -> Result<Collected, UpkeepError> {
    let mut live = Live::default();
    if let Some(root) = State::load(tables).await?.root {
        mark(blocks.as_ref(), &root, &mut live).await?;
    }
    let mut forgotten = Vec::new();
    let mut cached = CacheEntry::all(tables).await?;
    cached.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.used));
    let mut bytes = 0_u64;
    for (folder, entry) in cached {
        bytes = bytes.saturating_add(entry.size);
        if bytes > limit.bytes {
            forgotten.push(Change::Delete(Space::Cache, folder.to_bytes()));
            continue;
        }
        // The way from the registry's root to the folder is a handful of blocks; it is found again when it is needed.
        mark(blocks.as_ref(), &folder, &mut live).await?;
    }
    if dry_run {
        // What is live was marked by what is stored, so the difference is what would go; its bytes are not known per block.
        let usage = blocks.usage().await?;
        let kept = u64::try_from(live.len()).unwrap_or(u64::MAX).min(usage.blocks);
        let swept = Swept { blocks: usage.blocks - kept, ..Swept::default() };
        return Ok(Collected { kept, swept });
    }
    // Entries go before the blocks that they promise.
    forgotten.extend(stale_entries(tables, &live).await?);
    if !forgotten.is_empty() {
        tables.write(forgotten).await?;
    }
    let swept = blocks.sweep(&live, keep_leases).await?;
    let kept = blocks.usage().await?.blocks;
    Ok(Collected { kept, swept })
}

/// What the ledger says about files that will be gone, and pins of such folders.
async fn stale_entries(tables: &Arc<dyn Table>, live: &Live) -> Result<Vec<Change>, UpkeepError> {
    let held = |cid: &Cid| live.contains(&cid.hash().to_bytes());
    let mut stale = Vec::new();
    for (key, value) in tables.scan(Space::Layers, &[]).await? {
        let cid = match serde_json::from_slice::<Entry>(&value) {
            Ok(Entry::Layer { blob }) => Some(blob.cid),
            Ok(Entry::Blob(blob)) => Some(blob.cid),
            Err(_) => None,
        };
        if !cid.is_some_and(|cid| held(&cid)) {
            stale.push(Change::Delete(Space::Layers, key));
        }
    }
    for (key, value) in tables.scan(Space::Images, &[]).await? {
        let image = serde_json::from_slice::<StoredImage>(&value);
        if !image.is_ok_and(|image| image.blobs.iter().all(|blob| held(&blob.cid))) {
            stale.push(Change::Delete(Space::Images, key));
        }
    }
    for (folder, _) in tables.scan(Space::Pins, &[]).await? {
        if !Cid::try_from(folder.as_slice()).is_ok_and(|folder| held(&folder)) {
            stale.push(Change::Delete(Space::Pins, folder));
        }
    }
    Ok(stale)
}

/// A value of [`Space::Layers`].
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Entry {
    Layer { blob: StoredBlob },
    Blob(StoredBlob),
}
