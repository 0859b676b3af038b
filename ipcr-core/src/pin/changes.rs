//! The changes that a home made of its registry, in their order: rows of [`Space::Registry`], one per change.
//!
//! A registry says which change of a home was the last that it holds ([`HomeRow`]). What a home made after it is made again upon a
//! root of another home, so that no publish loses what another home with the same key did. The last [`limits::CHANGES`] are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::Tag;
use crate::tree::document::HomeRow;
use crate::tree::edit::Edit;

/// What the keys of the rows begin with; the number follows, big-endian.
const PREFIX: &[u8] = b"change/";

/// An edit, and what it was made upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The edit.
    #[serde(flatten)]
    pub edit: Edit,
    /// What the tag that it changes named before, if it changes one that named anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// What the tags of an image named that is removed as a whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Tag, Digest>,
    /// The number of the change that it is part of.
    #[serde(skip)]
    pub change: u64,
}

impl Pending {
    /// An edit made upon nothing that it could conflict with.
    pub fn new(edit: Edit) -> Self {
        Self { edit, before: None, tags: BTreeMap::new(), change: 0 }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its number, from 1.
    #[serde(skip)]
    pub number: u64,
    /// See [`HomeRow::mark`].
    pub mark: String,
    /// Its edits.
    pub edits: Vec<Pending>,
}

impl Made {
    /// A change of these edits, each of which learns its number.
    pub fn new(number: u64, mut edits: Vec<Pending>) -> Self {
        let plain: Vec<&Edit> = edits.iter().map(|pending| &pending.edit).collect();
        let json = serde_json::to_vec(&plain).expect("edits are plain data");
        let mark = hex::encode(&Digest::sha256(&json).as_bytes()[..4]);
        edits.iter_mut().for_each(|pending| pending.change = number);
        Self { number, mark, edits }
    }

    /// What a registry says that holds it.
    pub fn row(&self, home: String) -> HomeRow {
        HomeRow { home, change: self.number, mark: self.mark.clone(), other: serde_json::Map::new() }
    }

    /// What writes it, and forgets the one that is too old.
    pub fn write(&self) -> Vec<Change> {
        let bytes = serde_json::to_vec(self).expect("a change is plain data");
        let mut changes = vec![Change::Put(Space::Registry, key(self.number), bytes)];
        changes.extend(self.number.checked_sub(limits::CHANGES).map(forget));
        changes
    }
}

/// What forgets a change.
pub fn forget(number: u64) -> Change {
    Change::Delete(Space::Registry, key(number))
}

/// All that are remembered, oldest first.
pub async fn all(tables: &Arc<dyn Table>) -> Result<Vec<Made>, TableError> {
    let rows = tables.scan(Space::Registry, PREFIX).await?;
    rows.iter().map(|(key, bytes)| read(key, bytes)).collect()
}

fn key(number: u64) -> Vec<u8> {
    [PREFIX, &number.to_be_bytes()].concat()
}

fn read(key: &[u8], bytes: &[u8]) -> Result<Made, TableError> {
    let damaged = |source| TableError {
        place: Space::Registry.name().into(),
        doing: "reading",
        kind: ErrorKind::Integrity,
        source,
    };
    let number = key.strip_prefix(PREFIX).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    let number = number.ok_or_else(|| damaged("a change without a number".into()))?;
    let mut made: Made = serde_json::from_slice(bytes).map_err(|error| damaged(Box::new(error)))?;
    made.number = number;
    made.edits.iter_mut().for_each(|pending| pending.change = number);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::table::MemoryTable;

    fn removal(tag: &str) -> Pending {
        let (image, tag) = ("app".parse().unwrap(), tag.parse().unwrap());
        Pending { before: Some(Digest::sha256(b"before")), ..Pending::new(Edit::RemoveTag { image, tag }) }
    }

    #[tokio::test]
    async fn changes_come_back_in_their_order_and_the_oldest_go() {
        let tables: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let made: Vec<Made> = [1, 2, 256, limits::CHANGES + 1]
            .into_iter()
            .map(|number| Made::new(number, vec![removal("a"), removal(&format!("n{number}"))]))
            .collect();
        for made in &made {
            tables.write(made.write()).await.unwrap();
        }
        assert_eq!(all(&tables).await.unwrap(), made[1..]);
        assert_ne!(made[1].mark, made[2].mark);
        assert_eq!((made[1].mark.len(), made[1].edits[1].change), (8, 2));
    }
}
