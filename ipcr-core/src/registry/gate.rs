//! Tables that tell whether a write is under way.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::RwLock;

use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};

/// Tables with a gate that each write shares, and holds to its end when nobody waits for it any more: whoever has the gate alone knows
/// that no write is under way.
#[derive(Debug)]
pub(super) struct GatedTable {
    pub(super) tables: Arc<dyn Table>,
    pub(super) gate: Arc<RwLock<()>>,
}

#[async_trait]
impl Table for GatedTable {
    async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.tables.get(space, key).await
    }

    async fn get_each(&self, space: Space, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, TableError> {
        self.tables.get_each(space, keys).await
    }

    async fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TableError> {
        self.tables.scan(space, prefix).await
    }

    async fn write(&self, batch: Vec<Change>) -> Result<(), TableError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        let tables = Arc::clone(&self.tables);
        let writing = tokio::spawn(async move {
            let _gate = gate;
            tables.write(batch).await
        });
        writing.await.unwrap_or_else(|error| {
            let (place, source) = ("the tables".to_owned(), Box::new(error));
            Err(TableError { place, doing: "writing", kind: ErrorKind::Interrupted, source })
        })
    }
}
