//! What every implementation of `port::records` must do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::limits;
use crate::port::memory::records::MemoryRecords;
use crate::port::records::{NameRecords, RecordQuery, RecordShelf as _};
use crate::reference::key::IpnsName;

/// What the suite works on.
pub(crate) struct Fixture {
    /// The implementation under test.
    pub(crate) records: Arc<dyn NameRecords>,
    /// The records of one peer that it can ask.
    pub(crate) shelf: MemoryRecords,
    /// Where that peer is.
    pub(crate) hints: Vec<Multiaddr>,
}

/// Runs all checks.
pub(crate) async fn conforms(fixture: Fixture) {
    finds_what_a_peer_has(&fixture).await;
    finds_nothing_in_time(&fixture).await;
    leaves_large_records_out(&fixture).await;
    putting_alone_is_no_error(&fixture).await;
}

const TIMEOUT: Duration = Duration::from_secs(3);

fn name() -> IpnsName {
    IpnsName::from_peer_id(PeerId::random())
}

async fn find(fixture: &Fixture, name: IpnsName) -> Vec<Bytes> {
    let query = RecordQuery { name, hints: fixture.hints.clone(), timeout: TIMEOUT };
    let found = fixture.records.find(query).await.unwrap();
    assert!(found.iter().all(|found| !found.source.is_empty()));
    found.into_iter().map(|found| found.record).collect()
}

async fn finds_what_a_peer_has(fixture: &Fixture) {
    let (ours, other) = (name(), name());
    fixture.shelf.insert(&ours, "ours".into());
    fixture.shelf.insert(&other, "other".into());
    assert_eq!(fixture.shelf.record(&ours.routing_key()).await.as_deref(), Some(&b"ours"[..]));
    assert_eq!(find(fixture, ours).await, ["ours"]);
    assert_eq!(find(fixture, other).await, ["other"]);
}

async fn finds_nothing_in_time(fixture: &Fixture) {
    let started = Instant::now();
    assert!(find(fixture, name()).await.is_empty());
    assert!(started.elapsed() < TIMEOUT * 2);
}

async fn leaves_large_records_out(fixture: &Fixture) {
    let (small, large) = (name(), name());
    fixture.shelf.insert(&small, vec![1; limits::IPNS_RECORD_BYTES].into());
    fixture.shelf.insert(&large, vec![1; limits::IPNS_RECORD_BYTES + 1].into());
    assert_eq!(find(fixture, small).await.len(), 1);
    assert!(find(fixture, large).await.is_empty());
}

async fn putting_alone_is_no_error(fixture: &Fixture) {
    fixture.records.put(&name(), "record".into(), &[]).await.unwrap();
}
