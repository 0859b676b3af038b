//! Fakes that the tests of this module share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use multiaddr::Multiaddr;

use super::Clock;
use super::target::Target;
use crate::port::records::{FoundRecord, NameRecords, RecordQuery, RecordsError};
use crate::reference::key::IpnsName;

/// A carrier that answers every question with the records that it was given or that were put.
#[derive(Clone, Debug, Default)]
pub(super) struct Carrier(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    records: Vec<Bytes>,
    offline: bool,
    queries: Vec<RecordQuery>,
    delay: std::time::Duration,
}

impl Carrier {
    pub(super) fn set(&self, records: Vec<Bytes>) {
        self.0.lock().unwrap().records = records;
    }

    pub(super) fn set_offline(&self, offline: bool) {
        self.0.lock().unwrap().offline = offline;
    }

    pub(super) fn set_delay(&self, delay: std::time::Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(super) fn queries(&self) -> Vec<RecordQuery> {
        self.0.lock().unwrap().queries.clone()
    }

    fn check(&self) -> Result<(), RecordsError> {
        if self.0.lock().unwrap().offline {
            return Err(RecordsError::Offline { reason: "switched off".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl NameRecords for Carrier {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        self.check()?;
        self.0.lock().unwrap().queries.push(query);
        let delay = self.0.lock().unwrap().delay;
        tokio::time::sleep(delay).await;
        let found = |record: &Bytes| FoundRecord { record: record.clone(), source: "carrier".into() };
        Ok(self.0.lock().unwrap().records.iter().map(found).collect())
    }

    async fn put(&self, _: &IpnsName, record: Bytes, _: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        self.check()?;
        self.0.lock().unwrap().records.push(record);
        Ok(vec!["carrier".into()])
    }
}

/// A clock that is set by hand.
#[derive(Clone, Debug)]
pub(super) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_790_000_000)))
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::Relaxed), 0).unwrap()
    }

    pub(super) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::new(move || clock.now())
    }
}

/// Content, by a path below an empty block.
pub(super) fn target(path: &str) -> Target {
    format!("/ipfs/bafkqaaa/{path}").parse().unwrap()
}
