//! Collecting what nothing refers to.

use std::sync::Arc;

use cid::Cid;

use super::retain::{CacheLimit, retain};
use crate::exchange::walk::{WalkError, Walked, mark};
use crate::kind::ErrorKind;
use crate::pin::files;
use crate::pin::state::State;
use crate::port::blocks::{BlockStore, Live, StoreError, Swept};
use crate::port::table::{Change, Table, TableError};
use crate::transfer::{ledger, pieces};

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
    /// Part of the registry is damaged or missing, and this collection was told to be careful.
    #[error("part of the registry is damaged or missing; nothing was removed")]
    Torn,
}

impl UpkeepError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Table(error) => error.kind(),
            Self::Walk(error) => error.kind(),
            Self::Torn => ErrorKind::Integrity,
        }
    }
}

/// What a collection found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collected {
    /// Blocks that stay.
    pub kept: u64,
    /// What was removed; for a dry run, what would be.
    pub swept: Swept,
}

/// How a collection is made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What is kept of what was pulled.
    pub limit: CacheLimit,
    /// The blocks of interrupted pulls and pushes stay.
    pub keep_leases: bool,
    /// Nothing is removed, and leased blocks count as removed.
    pub dry_run: bool,
    /// Nothing is removed, and this is an error, when part of the registry is damaged or missing: what only that leads to is not known.
    pub careful: bool,
}

/// What a collection gave up, and has not removed yet.
#[derive(Debug)]
#[must_use]
pub struct Chosen {
    at_once: Swept,
    dry_run: bool,
}

impl Chosen {
    /// Removes it. Changes of the registry, and all that adds blocks, may go on meanwhile.
    ///
    /// After an error it can be tried again: what is left is given up still, until [`BlockStore::spare_doomed`].
    pub async fn remove(&self, blocks: &Arc<dyn BlockStore>) -> Result<Collected, UpkeepError> {
        let Self { at_once, dry_run } = *self;
        let held = async || Ok::<_, StoreError>(blocks.usage().await?.blocks);
        if dry_run {
            return Ok(Collected { kept: held().await?.saturating_sub(at_once.blocks), swept: at_once });
        }
        let swept = at_once.and(blocks.remove_doomed().await?);
        Ok(Collected { kept: held().await?, swept })
    }
}

/// Chooses what goes, and gives it up. Nothing may change meanwhile what is needed: not the registry, and not the tables.
pub async fn choose(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    terms: Terms,
) -> Result<Chosen, UpkeepError> {
    let Terms { limit, keep_leases, dry_run, careful } = terms;
    let mut live = Live::default();
    if !mark_own(blocks, tables, &mut live).await? && careful {
        return Err(UpkeepError::Torn);
    }
    let retained = retain(blocks, tables, limit, &mut live).await?;
    if dry_run {
        return Ok(Chosen { at_once: blocks.weigh(&live, false).await?, dry_run });
    }
    // Entries go before the blocks that they promise.
    let mut forgotten = retained.changes();
    forgotten.extend(stale_entries(tables, &live).await?);
    let pinned = files::all(tables).await?;
    forgotten.extend(pinned.iter().filter(|file| !live.contains(&file.hash().to_bytes())).map(files::unpin));
    if !forgotten.is_empty() {
        tables.write(forgotten).await?;
    }
    pieces::forget_stale(tables, &live).await?;
    let at_once = blocks.doom(&live, keep_leases).await?;
    Ok(Chosen { at_once, dry_run })
}

/// Counts what pulled images take, and says whether they are beyond the limit. Nothing is removed.
pub async fn is_full(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    limit: CacheLimit,
) -> Result<bool, UpkeepError> {
    let mut live = Live::default();
    mark_own(blocks, tables, &mut live).await?;
    let retained = retain(blocks, tables, limit, &mut live).await?;
    if !retained.over {
        tables.write(retained.changes()).await?;
    }
    Ok(retained.over)
}

/// Marks what this registry needs; false if part of it is damaged or missing.
pub(super) async fn mark_own(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    live: &mut Live,
) -> Result<bool, UpkeepError> {
    let state = State::load(tables).await?;
    let Some(root) = state.root else { return Ok(true) };
    let walked = mark(blocks.as_ref(), &root, live).await?;
    mark_rest(blocks, tables, live, &[walked], &state).await
}

/// Marks what this registry needs beside what these walks, which were over all that its root leads to, have marked: what its record names
/// and, where they found something damaged or missing, what was pushed here. False if anything is lacking that has to be here.
pub(super) async fn mark_rest(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    live: &mut Live,
    walks: &[Walked],
    state: &State,
) -> Result<bool, UpkeepError> {
    // Others ask for it until the next one is published.
    if let Some(published) = &state.published {
        mark(blocks.as_ref(), &published.root, live).await?;
    }
    if walks.iter().all(Walked::is_complete) {
        return Ok(true);
    }
    // What is below such a block is not known; what was pushed here is. In particular when another home has published since: the
    // folders that it changed lead to this home's images, and have not all been fetched.
    for file in files::all(tables).await? {
        mark(blocks.as_ref(), &file, live).await?;
    }
    // Of what another home put into it, not all has to be here.
    Ok(walks.iter().all(|walked| walked.damaged == 0 && (walked.missing == 0 || state.shared)))
}

/// What the ledger says about files that will be gone, and pins of such folders.
async fn stale_entries(tables: &Arc<dyn Table>, live: &Live) -> Result<Vec<Change>, UpkeepError> {
    let held = |cid: &Cid| live.contains(&cid.hash().to_bytes());
    let entries = ledger::entries(tables).await?;
    let stale = entries.into_iter().filter(|entry| entry.files.is_empty() || !entry.files.iter().all(held));
    Ok(stale.map(|entry| entry.forget).collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::Utc;

    use super::*;
    use crate::dag::block::{Block, DAG_PB};
    use crate::dag::pb::{Kind, Link, Node, UnixFs};
    use crate::pin::cache::CacheEntry;
    use crate::pin::state::Published;
    use crate::port::memory::blocks::MemoryBlocks;
    use crate::port::memory::table::MemoryTable;
    use crate::port::table::Space;

    async fn collect(blocks: &Arc<dyn BlockStore>, tables: &Arc<dyn Table>, terms: Terms) -> Collected {
        choose(blocks, tables, terms).await.unwrap().remove(blocks).await.unwrap()
    }

    fn home(blocks: &[&Block]) -> (Arc<dyn BlockStore>, Arc<dyn Table>) {
        let store = MemoryBlocks::new();
        blocks.iter().for_each(|block| store.insert((*block).clone()));
        (Arc::new(store), Arc::new(MemoryTable::new()))
    }

    /// Another home has published since: the root leads to this home's image by a folder that was never fetched.
    #[tokio::test]
    async fn what_was_pushed_here_stays_when_others_changed_the_way_to_it() {
        let layer = Block::raw(Bytes::from_static(b"layer"));
        let garbage = Block::raw(Bytes::from_static(b"garbage"));
        let link = |name: &str, block: &Block| Link { cid: *block.cid(), name: name.into(), tsize: 5 };
        let folder = |links: Vec<Link>| Block::dag_pb(Node { links, data: UnixFs::new(Kind::Directory) }.encode());
        let elsewhere = folder(vec![link("1", &layer), link("2", &garbage)]);
        let root = folder(vec![link("app", &elsewhere)]);
        let old = folder(vec![link("old", &layer)]);
        let (blocks, tables) = home(&[&layer, &garbage, &root, &old]);
        let published = Some(Published { root: *old.cid(), sequence: 1 });
        let state = State { root: Some(*root.cid()), published, shared: true, ..State::default() };
        let pin = Change::Put(Space::Pins, layer.cid().to_bytes(), Vec::new());
        tables.write(vec![state.write(), pin]).await.unwrap();
        let terms = Terms { limit: CacheLimit { bytes: 0 }, keep_leases: false, dry_run: false, careful: true };
        collect(&blocks, &tables, terms).await;
        let held = blocks.has(&[*layer.cid(), *root.cid(), *old.cid(), *garbage.cid()]).await.unwrap();
        assert_eq!(held, [true, true, true, false]);
        assert_eq!(files::all(&tables).await.unwrap(), [*layer.cid()]);
    }

    #[tokio::test]
    async fn a_pulled_folder_that_nobody_can_follow_is_let_go_of() {
        let good = Block::raw(Bytes::from_static(b"good"));
        let raw = Block::raw(Bytes::from_static(b"\xff is no dag-pb"));
        let bad = Block::verify(Cid::new_v1(DAG_PB, *raw.cid().hash()), raw.data().clone()).unwrap();
        let (blocks, tables) = home(&[&good, &bad]);
        for folder in [good.cid(), bad.cid()] {
            let entry = CacheEntry { root: *folder, size: 4, used: Utc::now(), counted: None };
            entry.write(&tables, folder).await.unwrap();
        }
        let limit = CacheLimit { bytes: 1 << 20 };
        let terms = Terms { limit, keep_leases: false, dry_run: false, careful: true };
        let collected = collect(&blocks, &tables, terms).await;
        let kept: Vec<Cid> = CacheEntry::all(&tables).await.unwrap().into_iter().map(|(folder, _)| folder).collect();
        assert_eq!(kept, [*good.cid()]);
        assert!(blocks.has(&[*good.cid()]).await.unwrap()[0]);
        assert_eq!((collected.swept.blocks, collected.kept), (1, 1));
    }
}
