//! An in-memory carrier of IPNS records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use multiaddr::Multiaddr;

use crate::limits;
use crate::port::records::{FoundRecord, NameRecords, RecordQuery, RecordShelf, RecordsError};
use crate::reference::key::IpnsName;

/// Records by binary routing key; verifies nothing. As a [`NameRecords`] it is a network of one peer, which keeps every
/// different record that was put; as a [`RecordShelf`] it answers with the newest. Clones share their records.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords(Arc<Mutex<HashMap<Vec<u8>, Vec<Bytes>>>>);

impl MemoryRecords {
    /// One without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    pub fn insert(&self, name: &IpnsName, record: Bytes) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = records.entry(name.routing_key()).or_default();
        list.retain(|known| *known != record);
        list.push(record);
    }

    fn all(&self, routing_key: &[u8]) -> Vec<Bytes> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(routing_key).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl NameRecords for MemoryRecords {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        let records = self.all(&query.name.routing_key()).into_iter();
        let small = records.filter(|record| record.len() <= limits::IPNS_RECORD_BYTES);
        Ok(small.map(|record| FoundRecord { record, source: "memory".into() }).collect())
    }

    async fn put(&self, name: &IpnsName, record: Bytes, _: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        self.insert(name, record);
        Ok(vec!["memory".into()])
    }
}

#[async_trait]
impl RecordShelf for MemoryRecords {
    async fn record(&self, routing_key: &[u8]) -> Option<Bytes> {
        self.all(routing_key).pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::records::{Fixture, conforms};

    #[tokio::test]
    async fn the_twin_conforms() {
        let records = MemoryRecords::new();
        conforms(Fixture { records: Arc::new(records.clone()), shelf: records, hints: vec![] }).await;
    }
}
