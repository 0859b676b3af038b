//! An in-memory table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::port::table::{Change, Space, Table, TableError};

type Pairs = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A [`Table`] in memory. Clones share their pairs; nothing outlives the last of them.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable(Arc<Mutex<Pairs>>);

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Table for MemoryTable {
    async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.pairs().get(&(space, key.to_vec())).cloned())
    }

    async fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TableError> {
        let pairs = self.pairs();
        let from = pairs.range((space, prefix.to_vec())..);
        let matching = from.take_while(|((of, key), _)| *of == space && key.starts_with(prefix));
        Ok(matching.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn write(&self, batch: Vec<Change>) -> Result<(), TableError> {
        let mut pairs = self.pairs();
        for change in batch {
            match change {
                Change::Put(space, key, value) => pairs.insert((space, key), value),
                Change::Delete(space, key) => pairs.remove(&(space, key)),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::table;

    #[tokio::test]
    async fn conforms() {
        table::run(&MemoryTable::new()).await;
    }
}
