//! What a home uses, and for what.

use std::sync::Arc;

use super::collect::{UpkeepError, mark_rest};
use super::retain::{CacheLimit, retain};
use crate::exchange::reader::Reader;
use crate::exchange::walk::{Walked, mark};
use crate::pin::state::State;
use crate::port::blocks::{BlockStore, Live, Swept, Usage};
use crate::port::table::Table;
use crate::tree::parts;

/// Blocks and their bytes. Each block counts for the first of `own`, `metadata` and `cache` that needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Blocks that are here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Share {
    fn add(&mut self, walked: &Walked) {
        self.blocks += walked.blocks;
        self.bytes = self.bytes.saturating_add(walked.bytes);
    }
}

/// What a home uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Own images.
    pub images: u64,
    /// Their tags.
    pub tags: u64,
    /// What is in the folders of tags and manifests.
    pub own: Share,
    /// What else the registry has.
    pub metadata: Share,
    /// Pulled images.
    pub pulled: u64,
    /// What they have that is not the registry's own.
    pub cache: Share,
    /// What interrupted pulls and pushes left and nothing else needs.
    pub interrupted: Share,
    /// What a collection would remove.
    pub reclaimable: Swept,
    /// The store.
    pub store: Usage,
}

/// Measures. Blocks that are damaged do not count.
pub async fn measure(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    limit: CacheLimit,
) -> Result<Measured, UpkeepError> {
    let mut measured = Measured::default();
    let mut live = Live::default();
    let state = State::load(tables).await?;
    if let Some(root) = state.root {
        // Where the registry cannot be read, it is for a check to say so.
        let images = parts::images(&Reader::local(Arc::clone(blocks)), &root).await.unwrap_or_default();
        let mut walks = Vec::new();
        for image in &images {
            measured.tags += image.tags;
            for folder in &image.folders {
                walks.push(mark(blocks.as_ref(), folder, &mut live).await?);
            }
        }
        walks.iter().for_each(|walked| measured.own.add(walked));
        measured.images = u64::try_from(images.len()).unwrap_or(u64::MAX);
        let rest = mark(blocks.as_ref(), &root, &mut live).await?;
        measured.metadata.add(&rest);
        walks.push(rest);
        mark_rest(blocks, tables, &mut live, &walks, &state).await?;
    }
    let retained = retain(blocks, tables, limit, &mut live).await?;
    measured.pulled = u64::try_from(retained.kept.len() + retained.forgotten.len()).unwrap_or(u64::MAX);
    measured.cache = Share { blocks: retained.blocks, bytes: retained.bytes };
    measured.reclaimable = blocks.weigh(&live, false).await?;
    let unleased = blocks.weigh(&live, true).await?;
    measured.interrupted = Share {
        blocks: measured.reclaimable.blocks.saturating_sub(unleased.blocks),
        bytes: measured.reclaimable.bytes.saturating_sub(unleased.bytes),
    };
    measured.store = blocks.usage().await?;
    Ok(measured)
}
