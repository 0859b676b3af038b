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
}

impl CacheEntry {
    /// Keeps the image of a tag folder.
    pub async fn write(&self, tables: &Arc<dyn Table>, folder: &Cid) -> Result<(), TableError> {
        let value = serde_json::to_vec(self).expect("a cache entry is plain data");
        tables.write(vec![Change::Put(Space::Cache, folder.to_bytes(), value)]).await
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
