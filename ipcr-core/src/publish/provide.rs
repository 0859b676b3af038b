//! Providing the tag folders of a registry: [`newest_folders`] says which, [`provide_due`] does it.
//!
//! The root and the rendezvous key are provided with every record. Folders come after them, the newest first and
//! [`PROVIDED_FOLDERS`](crate::limits::PROVIDED_FOLDERS) at most, so that who knows nothing but the CID of an image finds a holder, too. What was provided when is
//! written down ([`Space::Provided`]): a restart goes on where the last process stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cid::Cid;

use crate::exchange::reader::Reader;
use crate::kind::ErrorKind;
use crate::port::announce::Announce;
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::{ImageName, Tag};
use crate::tree::error::TreeError;
use crate::tree::read::{self, Wanted};

/// Provider records last 48 hours (libp2p Kademlia DHT specification, "Content provider advertisement"), and are made again before.
const AGAIN: Duration = Duration::from_secs(22 * 3600);
/// Keys that are provided between two looks at the registry.
const BATCH: usize = 16;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// Folders that others took a provider record of.
    pub taken: usize,
    /// Folders that are due.
    pub left: usize,
}

/// Provides those of a registry's folders that are due, some of them at most.
pub async fn provide_due(
    folders: &[Cid],
    tables: &Arc<dyn Table>,
    announce: &dyn Announce,
    now: DateTime<Utc>,
) -> Result<Provided, TableError> {
    let mut known = BTreeMap::new();
    for (key, value) in tables.scan(Space::Provided, &[]).await? {
        let millis = value.try_into().map_or(0, i64::from_le_bytes);
        known.insert(key, DateTime::from_timestamp_millis(millis).unwrap_or_default());
    }
    let wanted: BTreeSet<Vec<u8>> = folders.iter().map(Cid::to_bytes).collect();
    let is_due = |folder: &Cid| {
        let last = known.get(&folder.to_bytes());
        last.is_none_or(|last| (now - *last).to_std().is_ok_and(|since| since >= AGAIN) || *last > now)
    };
    let due: Vec<Cid> = folders.iter().copied().filter(|folder| is_due(folder)).collect();
    let batch = &due[..due.len().min(BATCH)];
    let taken = announce.provide(batch).await;
    let taken: Vec<&Cid> = batch.iter().zip(taken).filter(|(_, taken)| *taken).map(|(folder, _)| folder).collect();
    let stamp = now.timestamp_millis().to_le_bytes().to_vec();
    let noted = taken.iter().map(|folder| Change::Put(Space::Provided, folder.to_bytes(), stamp.clone()));
    let gone = known.into_keys().filter(|key| !wanted.contains(key)).map(|key| Change::Delete(Space::Provided, key));
    let changes: Vec<Change> = noted.chain(gone).collect();
    if !changes.is_empty() {
        tables.write(changes).await?;
    }
    Ok(Provided { taken: taken.len(), left: due.len() - taken.len() })
}

/// The folders of the tags that were pushed last, the newest first, each once. What is not here is left out.
pub async fn newest_folders(reader: &Reader, root: &Cid, most: usize) -> Result<Vec<Cid>, TreeError> {
    let mut images = here(read::images(reader, root).await)?.unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.updated));
    let mut tags: Vec<(Option<DateTime<Utc>>, ImageName, Tag)> = Vec::new();
    for image in images {
        let is_newer = |(pushed, ..): &&(Option<DateTime<Utc>>, ImageName, Tag)| *pushed >= image.updated;
        if tags.iter().filter(is_newer).count() >= most {
            break;
        }
        let Ok(name) = image.name.parse::<ImageName>() else { continue };
        let listed = here(read::tags(reader, root, &name).await)?.unwrap_or_default();
        tags.extend(listed.iter().filter_map(|tag| Some((tag.pushed, name.clone(), tag.tag.parse().ok()?))));
    }
    tags.sort_by_key(|(pushed, ..)| std::cmp::Reverse(*pushed));
    let mut folders = Vec::new();
    for (_, image, tag) in tags.into_iter().take(most) {
        if let Some(found) = here(read::find(reader, root, &image, &Wanted::Tag(tag)).await)?
            && !folders.contains(&found.folder)
        {
            folders.push(found.folder);
        }
    }
    Ok(folders)
}

/// What was found, unless it is somewhere else.
fn here<T>(found: Result<T, TreeError>) -> Result<Option<T>, TreeError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use libp2p_identity::PeerId;
    use multiaddr::Multiaddr;

    use super::*;
    use crate::port::announce::Sought;
    use crate::port::memory::table::MemoryTable;
    use crate::tree::tests::Hub;

    /// Takes so many records.
    #[derive(Debug)]
    struct Takes(Mutex<usize>, Mutex<Vec<Cid>>);

    #[async_trait]
    impl Announce for Takes {
        fn peer_id(&self) -> PeerId {
            PeerId::random()
        }

        async fn addresses(&self) -> Vec<Multiaddr> {
            Vec::new()
        }

        async fn provide(&self, keys: &[Cid]) -> Vec<bool> {
            let mut left = self.0.lock().unwrap();
            let take = |key: &Cid| {
                let takes = *left > 0;
                *left -= usize::from(takes);
                self.1.lock().unwrap().extend(takes.then_some(*key));
                takes
            };
            keys.iter().map(take).collect()
        }

        async fn holders(&self, _: &Cid, _: Duration) -> Sought {
            Sought::default()
        }
    }

    #[tokio::test]
    async fn the_newest_come_first_and_each_again_in_time() {
        let mut hub = Hub::new().await;
        for (image, tag, at) in [("a", "1", 10), ("b", "1", 40), ("a", "2", 30), ("c", "1", 20), ("c", "same", 50)] {
            let seed = if tag == "same" { "b1".to_owned() } else { format!("{image}{tag}") };
            let stored = hub.image("linux/amd64", &seed);
            hub.push(image, tag, &stored, at).await;
        }
        let folder = async |image: &str, tag: &str| hub.find(image, tag).await.unwrap().folder;
        let order = [folder("c", "same").await, folder("b", "1").await, folder("a", "2").await, folder("c", "1").await];
        assert_eq!(newest_folders(&hub.reader, &hub.root, 2).await.unwrap()[0], order[0]);
        let tables: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let network = Takes(Mutex::new(3), Mutex::default());
        let start = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let all = newest_folders(&hub.reader, &hub.root, 100).await.unwrap();
        let round = async |hours: i64| {
            provide_due(&all, &tables, &network, start + chrono::TimeDelta::hours(hours)).await.unwrap()
        };
        assert_eq!(round(0).await, Provided { taken: 3, left: all.len() - 3 });
        assert_eq!(*network.1.lock().unwrap(), all[..3]);
        // Nobody takes more, and then somebody does again.
        assert_eq!(round(1).await.taken, 0);
        *network.0.lock().unwrap() = 100;
        assert_eq!(round(2).await, Provided { taken: all.len() - 3, left: 0 });
        assert_eq!(round(3).await, Provided::default());
        // The first ones again.
        assert_eq!(round(22).await, Provided { taken: 3, left: 0 });
        assert_eq!(network.1.lock().unwrap()[all.len()..], all[..3]);
        // A clock that was wrong does not stop it for ever.
        assert_eq!(round(-1000).await.taken, all.len());
        // What is not in the registry any more is forgotten.
        assert_eq!(provide_due(&[], &tables, &network, start).await.unwrap(), Provided::default());
        assert!(tables.scan(Space::Provided, &[]).await.unwrap().is_empty());
    }
}
