//! The tables of a home: [`DiskTable`].

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{TableDefinition, TableError as RedbTableError};

use super::database::{Access, Database, Failure};
use super::{blocking, home};
use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};

/// Bytes of pages that are kept in memory, few because the system keeps them as well.
const CACHE_BYTES: usize = 256 << 10;

/// A [`Table`] in one redb file, with one redb table per [`Space`]. Clones share the file.
#[derive(Clone, Debug)]
pub struct DiskTable {
    database: Arc<Database>,
    /// Keeps the home locked for as long as anybody can write to it.
    _lock: Option<Arc<home::Lock>>,
}

impl DiskTable {
    /// Opens the file at `path`, or makes it. Only one process at a time can.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        Self::open_locked(path, Access::Write, None)
    }

    pub(super) fn open_locked(path: &Path, access: Access, lock: Option<Arc<home::Lock>>) -> Result<Self, TableError> {
        let database = Database::open(path, CACHE_BYTES, access).map_err(|error| failed(path, "opening", error))?;
        Ok(Self { database: Arc::new(database), _lock: lock })
    }

    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, TableError> {
        let database = self.database.clone();
        match blocking(move || work(&database)).await {
            Some(outcome) => outcome.map_err(|error| failed(self.database.path(), doing, error)),
            None => Err(TableError {
                place: self.database.path().display().to_string(),
                doing,
                kind: ErrorKind::Interrupted,
                source: "the program is shutting down".into(),
            }),
        }
    }
}

fn failed(path: &Path, doing: &'static str, error: Failure) -> TableError {
    TableError { place: path.display().to_string(), doing, kind: error.kind(), source: Box::new(error) }
}

fn definition(space: Space) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(space.name())
}

#[async_trait]
impl Table for DiskTable {
    async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let mut found = self.get_each(space, vec![key.to_vec()]).await?;
        Ok(found.pop().flatten())
    }

    async fn get_each(&self, space: Space, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, TableError> {
        self.run("reading", move |database| {
            database.read(|transaction| {
                let table = match transaction.open_table(definition(space)) {
                    Ok(table) => table,
                    Err(RedbTableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
                    Err(error) => return Err(error.into()),
                };
                let mut found = Vec::with_capacity(keys.len());
                for key in &keys {
                    found.push(table.get(&key[..])?.map(|value| value.value().to_vec()));
                }
                Ok(found)
            })
        })
        .await
    }

    async fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TableError> {
        let prefix = prefix.to_vec();
        self.run("reading", move |database| {
            database.read(|transaction| {
                let table = match transaction.open_table(definition(space)) {
                    Ok(table) => table,
                    Err(RedbTableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                    Err(error) => return Err(error.into()),
                };
                let mut pairs = Vec::new();
                for pair in table.range(&prefix[..]..)? {
                    let (key, value) = pair?;
                    if !key.value().starts_with(&prefix) {
                        break;
                    }
                    pairs.push((key.value().to_vec(), value.value().to_vec()));
                }
                Ok(pairs)
            })
        })
        .await
    }

    async fn write(&self, batch: Vec<Change>) -> Result<(), TableError> {
        self.run("writing", move |database| {
            database.write(|transaction| {
                for change in &batch {
                    match change {
                        Change::Put(space, key, value) => {
                            transaction.open_table(definition(*space))?.insert(&key[..], &value[..])?;
                        }
                        Change::Delete(space, key) => {
                            transaction.open_table(definition(*space))?.remove(&key[..])?;
                        }
                    }
                }
                Ok(())
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::table;

    #[tokio::test]
    async fn conforms_and_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.redb");
        let disk = DiskTable::open(&path).unwrap();
        table::run(&disk).await;
        let pairs = disk.scan(Space::Images, b"").await.unwrap();
        assert!(!pairs.is_empty());
        drop(disk);
        let disk = DiskTable::open(&path).unwrap();
        assert_eq!(disk.scan(Space::Images, b"").await.unwrap(), pairs);
        let second = DiskTable::open(&path).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Locked);
    }
}
