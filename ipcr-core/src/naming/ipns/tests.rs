use super::*;
use crate::event::Event;
use crate::identity::RegistryKey;
use crate::limits;
use crate::naming::tests::{Carrier, TestClock, target};
use crate::port::memory::table::MemoryTable;

const TIMEOUT: Duration = Duration::from_secs(1);

/// One name, its network, its table and its time.
struct World {
    key: RegistryKey,
    network: Carrier,
    table: MemoryTable,
    clock: TestClock,
    records: RecordTable,
}

impl World {
    fn new() -> Self {
        let (network, table, clock) = (Carrier::default(), MemoryTable::new(), TestClock::new());
        let records = RecordTable::new(Arc::new(network.clone()), Arc::new(table.clone()), clock.clock());
        Self { key: RegistryKey::generate(), network, table, clock, records }
    }

    /// A record signed now.
    fn record(&self, path: &str, sequence: u64) -> SignedRecord {
        let (lifetime, ttl) = (limits::RECORD_LIFETIME, limits::RECORD_TTL);
        SignedRecord::sign(&self.key, &target(path), sequence, self.clock.now(), lifetime, ttl)
    }

    fn on_network(&self, records: &[&SignedRecord]) {
        self.network.set(records.iter().map(|record| record.bytes().clone()).collect());
    }

    async fn follow(&self) -> (Result<Followed, IpnsError>, Vec<Event>) {
        self.follow_with(false).await
    }

    async fn follow_with(&self, allow_stale: bool) -> (Result<Followed, IpnsError>, Vec<Event>) {
        let (events, mut watcher) = Emitter::watched();
        let outcome = self.records.follow(&self.key.name(), &[], TIMEOUT, allow_stale, &events).await;
        drop(events);
        let mut seen = Vec::new();
        while let Some(event) = watcher.recv().await {
            seen.push(event);
        }
        (outcome, seen)
    }

    async fn seen(&self) -> u64 {
        self.records.kept(&self.key.name()).await.unwrap().unwrap().record.sequence()
    }
}

#[tokio::test]
async fn the_best_valid_record_wins() {
    let world = World::new();
    let (old, new) = (world.record("old", 3), world.record("new", 4));
    let forged = SignedRecord::sign(
        &RegistryKey::generate(),
        &target("forged"),
        9,
        world.clock.now(),
        limits::RECORD_LIFETIME,
        limits::RECORD_TTL,
    );
    world.network.set(vec![
        old.bytes().clone(),
        forged.bytes().clone(),
        Bytes::from_static(b"garbage"),
        new.bytes().clone(),
        vec![0; limits::IPNS_RECORD_BYTES + 1].into(),
    ]);
    let (outcome, events) = world.follow().await;
    let followed = outcome.unwrap();
    assert_eq!((&followed.record, followed.age), (&new, 0));
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| matches!(event, Event::Warning(Warning::BadPeer { .. }))));
    assert_eq!(world.seen().await, 4);
}

#[tokio::test]
async fn older_than_seen_with_a_valid_kept_record() {
    let world = World::new();
    let (old, new) = (world.record("old", 3), world.record("new", 4));
    world.on_network(&[&new]);
    world.follow().await.0.unwrap();
    world.clock.advance(3600);
    world.on_network(&[&old]);
    let (outcome, events) = world.follow().await;
    let followed = outcome.unwrap();
    assert_eq!((&followed.record, followed.age, followed.source.as_str()), (&new, 3600, "kept"));
    let name = world.key.name().to_string();
    assert_eq!(events, [Event::Warning(Warning::StaleAnswer { name, found: 3, used: 4 })]);
    assert_eq!(world.seen().await, 4);
}

#[tokio::test]
async fn only_older_ones_with_an_expired_kept_record() {
    let world = World::new();
    world.on_network(&[&world.record("new", 4)]);
    world.follow().await.0.unwrap();
    world.clock.advance(8 * 86400);
    // Signed later with a lower sequence: valid, and still a roll-back.
    world.on_network(&[&world.record("old", 3)]);
    for allow_stale in [false, true] {
        let error = world.follow_with(allow_stale).await.0.unwrap_err();
        assert!(matches!(error, IpnsError::Rollback { found: 3, seen: 4, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
    assert_eq!(world.seen().await, 4);
}

#[tokio::test]
async fn nothing_found_with_a_valid_kept_record() {
    let world = World::new();
    world.on_network(&[&world.record("new", 4)]);
    world.follow().await.0.unwrap();
    world.clock.advance(7200);
    for offline in [false, true] {
        world.network.set(vec![]);
        world.network.set_offline(offline);
        let (outcome, events) = world.follow().await;
        assert_eq!(outcome.unwrap().age, 7200);
        let name = world.key.name().to_string();
        assert_eq!(events, [Event::Warning(Warning::KeptRecord { name, age: 7200 })]);
    }
}

#[tokio::test]
async fn nothing_found_with_an_expired_kept_record() {
    let world = World::new();
    let record = world.record("new", 4);
    world.on_network(&[&record]);
    world.follow().await.0.unwrap();
    world.clock.advance(8 * 86400);
    // The network still has the same record, which has expired: that is nothing valid.
    for records in [vec![], vec![record.bytes().clone()]] {
        world.network.set(records);
        let error = world.follow().await.0.unwrap_err();
        assert!(matches!(error, IpnsError::Expired { .. }) && error.kind() == ErrorKind::Unavailable, "{error}");
        let (outcome, events) = world.follow_with(true).await;
        assert_eq!(outcome.unwrap().record, record);
        assert!(matches!(events[..], [Event::Warning(Warning::KeptRecord { .. })]));
    }
}

#[tokio::test]
async fn nothing_found_and_none_kept() {
    let world = World::new();
    let error = world.follow().await.0.unwrap_err();
    assert!(matches!(error, IpnsError::NotFound { source: None, .. }) && error.kind() == ErrorKind::Unavailable);
    world.network.set_offline(true);
    let error = world.follow_with(true).await.0.unwrap_err();
    assert!(matches!(error, IpnsError::NotFound { source: Some(_), .. }));
    world.network.set_offline(false);
    let record = world.record("new", 4);
    world.clock.advance(8 * 86400);
    world.on_network(&[&record]);
    assert!(matches!(world.follow().await.0, Err(IpnsError::NotFound { .. })));
}

#[tokio::test]
async fn same_value_for_longer_is_accepted() {
    let world = World::new();
    let first = world.record("new", 4);
    world.on_network(&[&first]);
    world.follow().await.0.unwrap();
    world.clock.advance(86400);
    let resigned = world.record("new", 4);
    world.on_network(&[&first, &resigned]);
    let followed = world.follow().await.0.unwrap();
    assert_eq!((&followed.record, followed.age), (&resigned, 0));
    // The shorter one does not come back, and confirms all the same.
    world.clock.advance(3600);
    world.on_network(&[&first]);
    let followed = world.follow().await.0.unwrap();
    assert_eq!((&followed.record, followed.age), (&resigned, 0));
    assert_eq!(world.records.kept(&world.key.name()).await.unwrap().unwrap().confirmed, world.clock.now());
    // After the kept one expired, a re-signed one is accepted too.
    world.clock.advance(30 * 86400);
    world.on_network(&[&world.record("new", 4)]);
    assert_eq!(world.follow().await.0.unwrap().age, 0);
}

#[tokio::test]
async fn a_fork_lasts_until_a_higher_sequence() {
    let world = World::new();
    let (one, other) = (world.record("one", 4), world.record("other", 4));
    // Both at once.
    world.on_network(&[&one, &other]);
    let error = world.follow().await.0.unwrap_err();
    assert!(matches!(error, IpnsError::Fork { sequence: 4, .. }) && error.kind() == ErrorKind::Integrity);
    // One of them alone, nothing, or an older one does not heal it.
    for records in [vec![&one], vec![&other], vec![], vec![&world.record("old", 3)]] {
        world.on_network(&records);
        let error = world.follow_with(true).await.0.unwrap_err();
        assert!(matches!(error, IpnsError::Fork { sequence: 4, .. }), "{error}");
    }
    let shelf = KeptShelf::new(Arc::new(world.table.clone()), world.clock.clock());
    assert_eq!(shelf.record(&world.key.name().routing_key()).await, None);
    let healed = world.record("healed", 5);
    world.on_network(&[&one, &other, &healed]);
    assert_eq!(world.follow().await.0.unwrap().record, healed);
    // One after the other.
    world.on_network(&[&world.record("rival", 5)]);
    assert!(matches!(world.follow().await.0, Err(IpnsError::Fork { sequence: 5, .. })));
    world.on_network(&[&healed]);
    assert!(matches!(world.follow().await.0, Err(IpnsError::Fork { sequence: 5, .. })));
}

#[tokio::test]
async fn own_records_are_kept_once_per_sequence() {
    let world = World::new();
    let record = world.record("one", 4);
    world.records.keep(&record).await.unwrap();
    world.records.keep(&record).await.unwrap();
    assert!(matches!(world.records.keep(&world.record("two", 4)).await, Err(IpnsError::Fork { .. })));
    assert!(matches!(world.records.keep(&world.record("one", 3)).await, Err(IpnsError::Rollback { .. })));
    world.clock.advance(60);
    let resigned = world.record("one", 4);
    world.records.keep(&resigned).await.unwrap();
    world.records.keep(&record).await.unwrap();
    assert_eq!(world.records.kept(&world.key.name()).await.unwrap().unwrap().record, resigned);
    assert_eq!(world.records.put(&resigned, &[]).await.unwrap(), ["carrier"]);
    let events = Emitter::silent();
    let valid = || async { world.records.valid(&world.key.name(), &[], TIMEOUT, &events).await.unwrap() };
    assert_eq!(valid().await, std::slice::from_ref(&resigned));
    // A rival, an older one, the same in two places, and one that has expired.
    let (rival, older) = (world.record("rival", 4), world.record("older", 2));
    world.on_network(&[&older, &rival, &resigned]);
    let found = valid().await;
    assert_eq!(found.iter().map(SignedRecord::sequence).collect::<Vec<_>>(), [4, 4, 2]);
    assert!(found.contains(&rival) && found.contains(&resigned));
    world.clock.advance(8 * 86400);
    assert!(valid().await.is_empty());
}

#[tokio::test]
async fn the_shelf_gives_out_what_is_valid() {
    let world = World::new();
    let shelf = KeptShelf::new(Arc::new(world.table.clone()), world.clock.clock());
    let key = world.key.name().routing_key();
    assert_eq!(shelf.record(&key).await, None);
    let record = world.record("one", 4);
    world.records.keep(&record).await.unwrap();
    assert_eq!(shelf.record(&key).await.as_ref(), Some(record.bytes()));
    assert_eq!(shelf.record(b"/ipns/garbage").await, None);
    assert_eq!(shelf.record(b"/pk/").await, None);
    world.clock.advance(8 * 86400);
    assert_eq!(shelf.record(&key).await, None);
}

#[tokio::test]
async fn damage_is_told() {
    let world = World::new();
    let name = world.key.name();
    world.table.write(vec![Change::Put(Space::Records, name.routing_key(), b"{}".to_vec())]).await.unwrap();
    let error = world.follow().await.0.unwrap_err();
    assert!(matches!(error, IpnsError::Damaged { .. }) && error.kind() == ErrorKind::Integrity);
}
