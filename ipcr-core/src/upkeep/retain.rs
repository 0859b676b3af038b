//! Which pulled images are kept, and what they take.

use std::cmp::Reverse;
use std::sync::Arc;

use cid::Cid;

use super::collect::UpkeepError;
use crate::exchange::walk::mark_new;
use crate::kind::ErrorKind;
use crate::pin::cache::CacheEntry;
use crate::port::blocks::{BlockStore, Live};
use crate::port::table::{Change, Space, Table};

/// How much of what was pulled is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimit {
    /// Bytes of blocks of pulled images, each counted once; the least recently used images go first.
    pub bytes: u64,
}

/// The pulled images.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// What each of them adds to those used after it. None that are to be forgotten.
    pub(super) kept: Vec<(Cid, CacheEntry)>,
    /// Those beyond the limit, or that nobody can follow.
    pub(super) forgotten: Vec<Cid>,
    /// All blocks of pulled images that nothing else needs, those beyond the limit included.
    pub(super) blocks: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Whether some are beyond the limit.
    pub(super) over: bool,
}

impl Retained {
    /// The changes that forget what is forgotten, and write down what was counted.
    pub(super) fn changes(&self) -> Vec<Change> {
        let forget = self.forgotten.iter().map(|folder| Change::Delete(Space::Cache, folder.to_bytes()));
        forget.chain(self.kept.iter().map(|(folder, entry)| entry.change(folder))).collect()
    }
}

/// Marks the pulled images that the limit lets stay, the most recently used first. What is live already takes no room.
pub(super) async fn retain(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    limit: CacheLimit,
    live: &mut Live,
) -> Result<Retained, UpkeepError> {
    let mut cached = CacheEntry::all(tables).await?;
    cached.sort_by_key(|(_, entry)| Reverse(entry.used));
    let mut done = Retained::default();
    let (mut taken, mut beyond) = (0_u64, Vec::new());
    for (index, (folder, mut entry)) in cached.into_iter().enumerate() {
        let mut new = Vec::new();
        // The way from the registry's root to the folder is a handful of blocks; it is found again when it is needed.
        let walked = match mark_new(blocks.as_ref(), &folder, live, &mut new).await {
            Ok(walked) => walked,
            // Strangers can put anything below a folder; what cannot be followed is of no use to anybody.
            Err(error) if error.kind() == ErrorKind::Integrity => {
                tracing::debug!(%folder, %error, "a pulled image cannot be kept");
                new.iter().for_each(|cid| live.remove(cid));
                done.forgotten.push(folder);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        done.blocks += walked.blocks;
        done.bytes = done.bytes.saturating_add(walked.bytes);
        // The last one is kept, and takes no room from others, even if it is larger than all that may be kept.
        let too_large = walked.bytes > limit.bytes;
        taken = taken.saturating_add(if too_large && index == 0 { 0 } else { walked.bytes });
        if taken > limit.bytes {
            // Marked to the end, so that those after it are not charged for what they share with it.
            beyond.append(&mut new);
            done.forgotten.push(folder);
            done.over = true;
        } else {
            entry.counted = Some(walked.bytes);
            done.kept.push((folder, entry));
        }
    }
    beyond.iter().for_each(|cid| live.remove(cid));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::dag::block::Block;
    use crate::dag::directory;
    use crate::dag::pb::Link;
    use crate::port::memory::blocks::MemoryBlocks;
    use crate::port::memory::table::MemoryTable;

    /// A folder of leaves of 1,000 bytes each.
    fn folder(store: &MemoryBlocks, leaves: &[u8]) -> (Cid, u64) {
        let leaves: Vec<Block> = leaves.iter().map(|leaf| Block::raw(vec![*leaf; 1000].into())).collect();
        let link = |(index, leaf): (usize, &Block)| Link { name: index.to_string(), tsize: 1000, cid: *leaf.cid() };
        let built = directory::build(leaves.iter().enumerate().map(link)).unwrap();
        let size = built.blocks.iter().map(|block| block.data().len() as u64).sum();
        let cid = built.cid;
        leaves.into_iter().chain(built.blocks).for_each(|block| store.insert(block));
        (cid, size)
    }

    #[tokio::test]
    async fn shared_layers_count_once() {
        let store = MemoryBlocks::new();
        let (blocks, tables): (Arc<dyn BlockStore>, Arc<dyn Table>) =
            (Arc::new(store.clone()), Arc::new(MemoryTable::new()));
        let (own, _) = folder(&store, &[1]);
        let mut nodes = 0;
        // Ten tags of nine common leaves, one of them in an own image, and one of their own.
        let mut folders = Vec::new();
        for tag in 0..10_u8 {
            let (cid, size) = folder(&store, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 100 + tag]);
            let used = DateTime::<Utc>::from_timestamp(i64::from(tag), 0).unwrap();
            let entry = CacheEntry { root: cid, size: 10_000, used, counted: None };
            entry.write(&tables, &cid).await.unwrap();
            nodes = size;
            folders.push(cid);
        }
        let marked = async |limit: u64| {
            let mut live = Live::default();
            crate::exchange::walk::mark(blocks.as_ref(), &own, &mut live).await.unwrap();
            let own = live.len();
            let done = retain(&blocks, &tables, CacheLimit { bytes: limit }, &mut live).await.unwrap();
            (done, live.len() - own)
        };
        let all = 8_000 + 10 * (1_000 + nodes);
        let (done, live) = marked(all).await;
        assert_eq!((done.bytes, done.blocks, done.kept.len(), done.over), (all, 28, 10, false));
        assert_eq!(live, 28);
        assert_eq!(done.kept.iter().map(|(_, entry)| entry.counted.unwrap()).sum::<u64>(), all);
        // One byte less: the least recently used goes, and what it shares stays.
        let (done, live) = marked(all - 1).await;
        assert_eq!((done.bytes, done.forgotten, live), (all, vec![folders[0]], 26));
        // The last one stays, however large it is.
        let (done, live) = marked(10).await;
        assert_eq!((done.kept.len(), done.kept[0].0, live), (1, folders[9], 10));
    }
}
