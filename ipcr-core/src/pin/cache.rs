//! What was pulled and is kept: entries of [`Space::Cache`], by tag folder.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};

/// A pulled image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// The registry root through which it was found.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Bytes of what was delivered.
    pub size: u64,
    /// When it was last pulled.
    pub used: DateTime<Utc>,
    /// Bytes of its blocks that no own image and no image pulled after it has, as a collection has counted them; `None` until one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
}

impl CacheEntry {
    /// Keeps the image of a tag folder.
    pub async fn write(&self, tables: &Arc<dyn Table>, folder: &Cid) -> Result<(), TableError> {
        tables.write(vec![self.change(folder)]).await
    }

    /// The change that writes it.
    pub fn change(&self, folder: &Cid) -> Change {
        let value = serde_json::to_vec(self).expect("a cache entry is plain data");
        Change::Put(Space::Cache, folder.to_bytes(), value)
    }

    /// The most bytes that it adds to all others.
    pub fn weight(&self) -> u64 {
        self.counted.unwrap_or(self.size)
    }

    /// All images that are kept, with their tag folders.
    pub async fn all(tables: &Arc<dyn Table>) -> Result<Vec<(Cid, Self)>, TableError> {
        let damaged = |source| TableError {
            place: Space::Cache.name().into(),
            doing: "reading",
            kind: ErrorKind::Integrity,
            source,
        };
        let mut entries = Vec::new();
        for (key, value) in tables.scan(Space::Cache, &[]).await? {
            let folder = Cid::try_from(key.as_slice()).map_err(|error| damaged(Box::new(error)))?;
            let entry = serde_json::from_slice(&value).map_err(|error| damaged(Box::new(error)))?;
            entries.push((folder, entry));
        }
        Ok(entries)
    }
}
