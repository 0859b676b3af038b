//! Looking for damage.

use std::collections::HashSet;
use std::sync::Arc;

use cid::Cid;
use cid::multihash::Multihash;

use super::collect::UpkeepError;
use crate::exchange::reader::Reader;
use crate::exchange::walk::{WalkError, survey, walk};
use crate::kind::ErrorKind;
use crate::pin::files;
use crate::pin::state::State;
use crate::port::blocks::{BlockStore, StoreError, StoreReport};
use crate::port::table::{Change, Table};
use crate::reference::ImageName;
use crate::transfer::ledger;
use crate::tree::{self, read};

/// Damaged blocks that are named one by one.
const NAMED: usize = 10;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes read and hashed.
    pub bytes_read: u64,
    /// Tags of this registry that were walked.
    pub tags: u64,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// Blocks that are stored and damaged.
    pub damaged: Vec<Cid>,
}

/// Checks this registry, after a check of the store has found this. What is damaged does not count as stored any more, so that
/// whoever pushes or pulls it again stores it anew. No collection may take place meanwhile.
pub async fn check(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    mut report: StoreReport,
) -> Result<Findings, UpkeepError> {
    report.damaged = damaged_still(blocks, report.damaged).await?;
    let mut found = Findings { blocks: report.blocks, bytes_read: report.bytes_read, ..Findings::default() };
    let damaged: HashSet<Multihash<64>> = report.damaged.iter().map(|cid| *cid.hash()).collect();
    found.problems.extend(report.damaged.iter().take(NAMED).map(|cid| format!("block {cid} is damaged")));
    if report.damaged.len() > NAMED {
        found.problems.push(format!("{} more blocks are damaged", report.damaged.len() - NAMED));
    }
    found.problems.extend(report.problems);
    found.damaged = report.damaged;
    if !damaged.is_empty() {
        forget_incomplete(blocks, tables).await?;
    }
    let state = State::load(tables).await?;
    if let Some(root) = state.root {
        let (reader, pinned) = (Reader::local(Arc::clone(blocks)), files::all(tables).await?);
        let (shared, complete) = (state.shared, HashSet::new());
        let mut registry = Registry { blocks, root, shared, reader, damaged: &damaged, pinned, complete };
        registry.check(&mut found).await?;
    }
    Ok(found)
}

/// Which of these are damaged by now: since the store was looked at, some may have been stored anew or taken away.
async fn damaged_still(blocks: &Arc<dyn BlockStore>, found: Vec<Cid>) -> Result<Vec<Cid>, UpkeepError> {
    let mut still = Vec::new();
    for cid in found {
        let gone = match blocks.get(&cid).await {
            Ok(data) => data.is_none(),
            Err(StoreError::Corrupt { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if !gone && !blocks.has(&[cid]).await?[0] {
            still.push(cid);
        }
    }
    Ok(still)
}

/// Takes out of the ledger what is not complete any more, so that it is not taken for stored.
async fn forget_incomplete(blocks: &Arc<dyn BlockStore>, tables: &Arc<dyn Table>) -> Result<(), UpkeepError> {
    let mut complete: HashSet<Cid> = HashSet::new();
    let mut stale: Vec<Change> = Vec::new();
    'entries: for entry in ledger::entries(tables).await? {
        for file in &entry.files {
            if complete.contains(file) {
                continue;
            }
            if !is_complete(blocks, file).await? {
                stale.push(entry.forget);
                continue 'entries;
            }
            complete.insert(*file);
        }
    }
    if stale.is_empty() { Ok(()) } else { Ok(tables.write(stale).await?) }
}

async fn is_complete(blocks: &Arc<dyn BlockStore>, root: &Cid) -> Result<bool, UpkeepError> {
    match survey(blocks.as_ref(), root).await {
        Ok(walked) => Ok(walked.is_complete()),
        Err(error) if error.kind() == ErrorKind::Integrity => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// This home's registry, being checked.
struct Registry<'a> {
    blocks: &'a Arc<dyn BlockStore>,
    root: Cid,
    /// Whether another home with this key has published parts of it, which may never have been fetched.
    shared: bool,
    reader: Reader,
    damaged: &'a HashSet<Multihash<64>>,
    /// Files that have to be whole here.
    pinned: Vec<Cid>,
    /// Those that are.
    complete: HashSet<Cid>,
}

impl Registry<'_> {
    async fn check(&mut self, found: &mut Findings) -> Result<(), UpkeepError> {
        // Whoever takes over another home's registry stores these, whatever else of it is elsewhere.
        if let Err(error) = read::registry(&self.reader, &self.root).await {
            found.problems.push(unreadable(&format!("the registry {}", self.root), &error));
            return Ok(());
        }
        let images = match read::images(&self.reader, &self.root).await {
            Ok(images) => images,
            Err(error) if self.is_elsewhere(error.kind()) => return Ok(()),
            Err(error) => {
                found.problems.push(unreadable(&format!("the registry {}", self.root), &error));
                return Ok(());
            }
        };
        for image in images {
            match image.name.parse() {
                Ok(name) => self.image(&name, found).await?,
                Err(_) => found.problems.push(format!("the catalogue lists an image with a bad name: {}", image.name)),
            }
        }
        if found.problems.is_empty() && !self.shared {
            self.contradictions(found).await;
        }
        Ok(())
    }

    /// Where the documents of a registry that is whole here are not what they should be.
    async fn contradictions(&self, found: &mut Findings) {
        match tree::check::check(&self.reader, &self.root).await {
            Ok(report) => {
                let problems = report.problems.into_iter();
                found.problems.extend(problems.map(|problem| format!("{}: {}", problem.path, problem.reason)));
            }
            Err(error) => found.problems.push(unreadable(&format!("the registry {}", self.root), &error)),
        }
    }

    /// Whether something is missing because another home published it, and it was never fetched.
    fn is_elsewhere(&self, kind: ErrorKind) -> bool {
        self.shared && matches!(kind, ErrorKind::NotFound | ErrorKind::Unavailable)
    }

    async fn image(&mut self, name: &ImageName, found: &mut Findings) -> Result<(), UpkeepError> {
        let tags = match read::tags(&self.reader, &self.root, name).await {
            Ok(tags) => tags,
            Err(error) if self.is_elsewhere(error.kind()) => return Ok(()),
            Err(error) => {
                found.problems.push(unreadable(&format!("image {name}"), &error));
                return Ok(());
            }
        };
        for tag in tags {
            found.tags += 1;
            let Ok(wanted) = tag.tag.parse().map(read::Wanted::Tag) else {
                found.problems.push(format!("image {name} has a bad tag: {}", tag.tag));
                continue;
            };
            match read::find(&self.reader, &self.root, name, &wanted).await {
                Ok(place) => found.problems.extend(self.folder(&format!("{name}:{}", tag.tag), &place.folder).await?),
                Err(error) if self.is_elsewhere(error.kind()) => {}
                Err(error) => found.problems.push(unreadable(&format!("{name}:{}", tag.tag), &error)),
            }
        }
        Ok(())
    }

    /// What is wrong with a tag folder.
    async fn folder(&mut self, tag: &str, folder: &Cid) -> Result<Option<String>, UpkeepError> {
        let mut seen = HashSet::new();
        let mut hurt = Vec::new();
        let walked = walk(self.blocks.as_ref(), folder, |cid| {
            let new = seen.insert(*cid.hash());
            if new && self.damaged.contains(cid.hash()) {
                hurt.push(*cid);
            }
            new
        });
        match walked.await {
            // The first one is enough to find out more.
            Ok(_) if !hurt.is_empty() => {
                Ok(Some(format!("{tag} is damaged: {} of its blocks, {}", hurt.len(), hurt[0])))
            }
            Ok(walked) if walked.is_complete() => Ok(None),
            Ok(_) => self.lacks(tag, &seen).await,
            Err(error @ (WalkError::Store { .. } | WalkError::Node { .. })) if error.kind() == ErrorKind::Integrity => {
                Ok(Some(unreadable(tag, &error)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Registry<'_> {
    /// What a tag folder with these blocks lacks of what has to be here.
    async fn lacks(&mut self, tag: &str, seen: &HashSet<Multihash<64>>) -> Result<Option<String>, UpkeepError> {
        let mut missing = 0;
        for file in self.pinned.iter().filter(|file| seen.contains(file.hash())) {
            if self.complete.contains(file) {
                continue;
            }
            let walked = survey(self.blocks.as_ref(), file).await?;
            missing += walked.missing;
            if walked.is_complete() {
                self.complete.insert(*file);
            }
        }
        Ok((missing > 0).then(|| format!("{tag} is not complete: {missing} of its blocks are missing")))
    }
}

/// That something cannot be read, and why, in one sentence.
fn unreadable(what: &str, error: &dyn std::error::Error) -> String {
    let mut sentence = format!("{what} cannot be read: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.ends_with(&text) {
            sentence.push_str(": ");
            sentence.push_str(&text);
        }
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::dag::block::Block;
    use crate::port::blocks::Live;
    use crate::port::memory::blocks::MemoryBlocks;
    use crate::port::memory::table::MemoryTable;
    use crate::tree::tests::Hub;

    #[tokio::test]
    async fn what_was_stored_anew_or_taken_away_since_is_no_damage() {
        let store = MemoryBlocks::new();
        let all = [&b"anew"[..], b"away", b"still"].map(|data| Block::raw(Bytes::from_static(data)));
        for block in &all {
            store.insert(block.clone());
            store.damage(block.cid(), Bytes::from_static(b"?"));
        }
        let report = store.check(true).await.unwrap();
        assert_eq!(report.damaged.len(), 3);
        let session = store.begin(Duration::ZERO).await.unwrap();
        session.put(vec![all[0].clone()]).await.unwrap();
        session.commit().await.unwrap();
        let mut live = Live::default();
        live.insert(all[0].cid());
        live.insert(all[2].cid());
        store.sweep(&live, false).await.unwrap();
        let (blocks, tables) = (Arc::new(store) as Arc<dyn BlockStore>, Arc::new(MemoryTable::new()) as Arc<dyn Table>);
        let found = check(&blocks, &tables, report).await.unwrap();
        assert_eq!(found.damaged, [*all[2].cid()]);
        assert_eq!(found.problems.len(), 1);
    }

    /// Whether another home has published part of it or not: what this one stored of it has to be there.
    #[tokio::test]
    async fn a_registry_whose_root_is_gone_is_not_sound() {
        for shared in [false, true] {
            let mut hub = Hub::new().await;
            let stored = hub.image("linux/amd64", "one");
            hub.push("app", "1", &stored, 0).await;
            let torn = MemoryBlocks::new();
            for cid in hub.store.cids().iter().filter(|cid| **cid != hub.root) {
                torn.insert(Block::verify(*cid, hub.store.get(cid).await.unwrap().unwrap()).unwrap());
            }
            let tables: Arc<dyn Table> = Arc::new(MemoryTable::new());
            let state = State { root: Some(hub.root), shared, ..State::default() };
            tables.write(vec![state.write()]).await.unwrap();
            let checked = async |store: MemoryBlocks| {
                let blocks: Arc<dyn BlockStore> = Arc::new(store);
                let report = blocks.check(false).await.unwrap();
                check(&blocks, &tables, report).await.unwrap()
            };
            let found = checked(hub.store.clone()).await;
            assert_eq!((found.tags, &found.problems), (1, &Vec::new()));
            let found = checked(torn).await;
            assert_eq!((found.tags, found.problems.len()), (0, 1));
            assert!(found.problems[0].contains(&hub.root.to_string()), "{:?}", found.problems);
        }
    }
}
