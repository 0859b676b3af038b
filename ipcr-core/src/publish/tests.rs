use async_trait::async_trait;
use bytes::Bytes;
use libp2p_identity::PeerId;

use super::*;
use crate::kind::ErrorKind;
use crate::naming::handover::Handover;
use crate::port::announce::Sought;
use crate::port::memory::exchange::MemoryExchange;
use crate::port::memory::records::MemoryRecords;
use crate::port::memory::table::MemoryTable;
use crate::port::records::{FoundRecord, NameRecords, RecordQuery, RecordsError};
use crate::reference::IpnsName;
use crate::tree::document::HomeRow;
use crate::tree::edit::NewKey;
use crate::tree::handover::handovers;
use crate::tree::tags::tag_digest;
use crate::tree::tests::{Hub, info, remove_image, remove_tag, set_tag};

/// A network in which nobody is told and nobody answers.
#[derive(Debug)]
struct Alone;

#[async_trait]
impl Announce for Alone {
    fn peer_id(&self) -> PeerId {
        PeerId::random()
    }

    async fn addresses(&self) -> Vec<Multiaddr> {
        Vec::new()
    }

    async fn provide(&self, keys: &[Cid]) -> Vec<bool> {
        vec![false; keys.len()]
    }

    async fn holders(&self, _: &Cid, _: Duration) -> Sought {
        Sought::default()
    }
}

/// Records that are found, where nobody takes new ones.
#[derive(Debug)]
struct Deaf(MemoryRecords);

#[async_trait]
impl NameRecords for Deaf {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        self.0.find(query).await
    }

    async fn put(&self, _: &IpnsName, _: Bytes, _: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        Ok(Vec::new())
    }
}

/// A home with a key that others may have, too.
struct Home {
    hub: Hub,
    tables: Arc<dyn Table>,
    publisher: Publisher,
    exchange: MemoryExchange,
    peer: PeerId,
}

impl Home {
    async fn new(keys: Keys, exchange: &MemoryExchange) -> Self {
        let (hub, peer) = (Hub::new().await, PeerId::random());
        let tables: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let publisher = publisher(&hub, &tables, exchange, keys);
        publisher.begin(false).await.unwrap();
        exchange.add(peer, Arc::new(hub.store.clone()));
        Self { hub, tables, publisher, exchange: exchange.clone(), peer }
    }

    fn network(&self, records: Arc<dyn NameRecords>) -> Network {
        Network {
            records: RecordTable::new(records, Arc::clone(&self.tables), Clock::default()),
            announce: Arc::new(Alone),
            exchange: Arc::new(self.exchange.clone()),
            hints: Vec::new(),
            stall: Duration::from_millis(200),
        }
    }

    fn set(&self, tag: &str, seed: &str) -> Edit {
        set_tag("app", tag, &self.hub.image("linux/amd64", seed), 0)
    }

    async fn change(&self, edits: Vec<Edit>, records: &MemoryRecords) -> Result<Publication, PublishError> {
        let network = self.network(Arc::new(records.clone()));
        self.publisher.change(edits, false, Some(&network), &Emitter::silent()).await
    }

    async fn tags(&self) -> String {
        let state = State::load(&self.tables).await.unwrap();
        let (root, reader) = (state.root.unwrap(), self.publisher.reader(&state, None, &[]).await);
        let tags = crate::tree::read::tags(&reader, &root, &"app".parse().unwrap()).await.unwrap();
        let mut tags: Vec<_> = tags.into_iter().map(|tag| tag.tag).collect();
        tags.sort();
        tags.join(" ")
    }
}

fn publisher(hub: &Hub, tables: &Arc<dyn Table>, exchange: &MemoryExchange, keys: Keys) -> Publisher {
    let stores: (Arc<dyn BlockStore>, _, Arc<dyn Exchange>) =
        (Arc::new(hub.store.clone()), Arc::clone(tables), Arc::new(exchange.clone()));
    Publisher::new(stores, keys, info(), RecordPolicy::default())
}

fn keys() -> Keys {
    Keys { key: RegistryKey::generate(), former: Vec::new() }
}

async fn pair() -> (Home, Home) {
    let (keys, exchange) = (keys(), MemoryExchange::new());
    (Home::new(keys.clone(), &exchange).await, Home::new(keys, &exchange).await)
}

#[tokio::test]
async fn sequences() {
    let (home, other) = pair().await;
    let records = MemoryRecords::new();
    assert_eq!(home.change(vec![home.set("1", "one")], &records).await.unwrap().sequence, 1);
    let again = home.change(vec![home.set("1", "one")], &records).await.unwrap();
    assert_eq!((again.sequence, again.unchanged), (1, true));
    assert_eq!(home.change(vec![home.set("2", "two")], &records).await.unwrap().sequence, 2);
    // A home without a tree takes over the network's, and what it publishes then is the same.
    let adopted = other.change(Vec::new(), &records).await.unwrap();
    assert_eq!((adopted.sequence, other.tags().await.as_str()), (2, "1 2"));
    assert_eq!(other.change(vec![other.set("3", "three")], &records).await.unwrap().sequence, 3);
    assert_eq!(home.change(vec![home.set("4", "four")], &records).await.unwrap().sequence, 4);
    assert_eq!(home.tags().await, "1 2 3 4");
}

#[tokio::test]
async fn a_record_is_renewed_while_something_waits_to_be_published() {
    let home = Home::new(keys(), &MemoryExchange::new()).await;
    let first = home.change(vec![home.set("1", "one")], &MemoryRecords::new()).await.unwrap();
    home.publisher.change(vec![home.set("2", "two")], false, None, &Emitter::silent()).await.unwrap();
    let state = State::load(&home.tables).await.unwrap();
    let published = state.published.unwrap();
    assert_ne!(Some(published.root), state.root);
    let (name, later) = (home.publisher.keys.key.name(), MemoryRecords::new());
    let network = home.network(Arc::new(later.clone()));
    assert!(home.publisher.renew(&published, &network).await.unwrap());
    let query = RecordQuery { name, hints: Vec::new(), timeout: Duration::from_secs(1) };
    let found = later.find(query).await.unwrap();
    let record = SignedRecord::verify(&name, found[0].record.clone()).unwrap();
    assert_eq!((record.sequence(), root_of(&record)), (1, Some(first.root)));
}

#[tokio::test]
async fn homes_that_did_not_see_each_other_lose_nothing() {
    let (one, other) = pair().await;
    let (here, there, both) = (MemoryRecords::new(), MemoryRecords::new(), MemoryRecords::new());
    for (home, records, tags) in [(&one, &here, ["a", "b", "c"]), (&other, &there, ["x", "y", "z"])] {
        for tag in tags {
            home.change(vec![home.set(tag, tag)], records).await.unwrap();
            let kept = home.network(Arc::new(both.clone())).records;
            let record = kept.kept(&home.publisher.keys.key.name()).await.unwrap().unwrap().record;
            both.insert(record.name(), record.bytes().clone());
        }
    }
    // Each sequence has two values now, all of them accepted by somebody.
    let settled = one.change(vec![one.set("d", "d")], &both).await.unwrap();
    assert_eq!((settled.sequence, one.tags().await.as_str()), (4, "a b c d x y z"));
    other.change(Vec::new(), &both).await.unwrap();
    assert_eq!(other.tags().await, "a b c d x y z");
    // Old answers are old from now on.
    let same = one.change(Vec::new(), &both).await.unwrap();
    assert_eq!((same.sequence, same.root), (4, settled.root));
}

#[tokio::test]
async fn what_nobody_took_is_published_with_the_next() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    for tag in ["a", "b"] {
        let network = one.network(Arc::new(Deaf(records.clone())));
        let alone = one.publisher.change(vec![one.set(tag, tag)], false, Some(&network), &Emitter::silent()).await;
        assert!(alone.unwrap().accepted.is_empty());
    }
    // The other home signs the same sequences in the meantime.
    other.change(vec![other.set("x", "x")], &records).await.unwrap();
    let merged = one.change(vec![one.set("c", "c")], &records).await.unwrap();
    assert_eq!((merged.sequence, one.tags().await.as_str()), (3, "a b c x"));
    other.change(Vec::new(), &records).await.unwrap();
    other.change(vec![remove_tag("app", "a")], &records).await.unwrap();
    one.change(Vec::new(), &records).await.unwrap();
    assert_eq!(one.tags().await, "b c x");
}

#[tokio::test]
async fn a_tag_changed_on_both_sides() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    one.change(vec![one.set("1", "old")], &records).await.unwrap();
    other.change(Vec::new(), &records).await.unwrap();
    one.publisher.change(vec![one.set("1", "ours")], false, None, &Emitter::silent()).await.unwrap();
    other.change(vec![other.set("1", "theirs"), other.set("2", "theirs")], &records).await.unwrap();
    let error = one.change(vec![one.set("3", "ours")], &records).await.unwrap_err();
    assert!(matches!(&error, PublishError::Conflict { tag, .. } if tag == "app:1"), "{error}");
    assert_eq!((error.kind(), one.tags().await.as_str()), (ErrorKind::Integrity, "1"));
    let network = one.network(Arc::new(records.clone()));
    one.publisher.change(Vec::new(), true, Some(&network), &Emitter::silent()).await.unwrap();
    assert_eq!(one.tags().await, "1 2");
    let ours = one.hub.image("linux/amd64", "ours").root.digest;
    let named = |root: Cid| {
        let reader = one.hub.reader.clone();
        async move { tag_digest(&reader, &root, &"app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap() }
    };
    assert_eq!(named(State::load(&one.tables).await.unwrap().root.unwrap()).await, Some(ours));
    // Both sides changing it to the same is none, nor is a change that was seen.
    other.change(Vec::new(), &records).await.unwrap();
    other.change(vec![other.set("1", "newer")], &records).await.unwrap();
    one.publisher.change(vec![one.set("1", "newer")], false, None, &Emitter::silent()).await.unwrap();
    one.change(Vec::new(), &records).await.unwrap();
}

#[tokio::test]
async fn an_image_that_is_removed_here_and_pushed_to_there() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    one.change(vec![one.set("1", "old"), one.set("2", "old")], &records).await.unwrap();
    other.change(Vec::new(), &records).await.unwrap();
    let removal = remove_image("app");
    one.publisher.change(vec![removal.clone()], false, None, &Emitter::silent()).await.unwrap();
    other.change(vec![other.set("3", "new")], &records).await.unwrap();
    // What nobody here has seen stays.
    one.change(Vec::new(), &records).await.unwrap();
    assert_eq!(one.tags().await, "3");
    // What was moved meanwhile is nobody's to remove.
    other.change(Vec::new(), &records).await.unwrap();
    one.publisher.change(vec![removal], false, None, &Emitter::silent()).await.unwrap();
    other.change(vec![other.set("3", "newer")], &records).await.unwrap();
    let error = one.change(Vec::new(), &records).await.unwrap_err();
    assert!(matches!(&error, PublishError::Conflict { tag, .. } if tag == "app:3"), "{error}");
    let network = one.network(Arc::new(records.clone()));
    one.publisher.change(Vec::new(), true, Some(&network), &Emitter::silent()).await.unwrap();
    assert_eq!(one.tags().await, "");
}

#[tokio::test]
async fn an_image_that_is_removed_with_tags_that_nobody_here_has_seen() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    one.change(vec![one.set("1", "old")], &records).await.unwrap();
    other.change(vec![other.set("2", "new")], &records).await.unwrap();
    let error = one.change(vec![remove_image("app")], &records).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Conflict { tag, ours, .. } if tag == "app:2" && ours == "nothing"),
        "{error}"
    );
    assert_eq!(one.tags().await, "1");
    // Once they have been seen, they go.
    one.change(Vec::new(), &records).await.unwrap();
    let removed = one.change(vec![remove_image("app")], &records).await.unwrap();
    assert!(!is_there(&one, &removed.root).await);
    other.change(vec![other.set("3", "new")], &records).await.unwrap();
    // What is set and removed here before anybody sees it is no conflict.
    one.publisher.change(vec![one.set("4", "four")], false, None, &Emitter::silent()).await.unwrap();
    one.publisher.change(vec![remove_image("app")], false, None, &Emitter::silent()).await.unwrap();
    one.change(Vec::new(), &records).await.unwrap();
    assert_eq!(one.tags().await, "3");
    let network = one.network(Arc::new(records.clone()));
    other.change(vec![other.set("5", "new")], &records).await.unwrap();
    let forced = one.publisher.change(vec![remove_image("app")], true, Some(&network), &Emitter::silent()).await;
    assert!(!is_there(&one, &forced.unwrap().root).await);
}

/// Whether a registry has the image `app`.
async fn is_there(home: &Home, root: &Cid) -> bool {
    crate::tree::read::image(&home.hub.reader, root, &"app".parse().unwrap()).await.unwrap().is_some()
}

#[tokio::test]
async fn force_is_for_what_is_changed_with_it() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    one.change(vec![one.set("1", "old"), one.set("2", "old")], &records).await.unwrap();
    other.change(Vec::new(), &records).await.unwrap();
    one.publisher.change(vec![one.set("1", "ours")], false, None, &Emitter::silent()).await.unwrap();
    other.change(vec![other.set("1", "theirs"), other.set("2", "theirs")], &records).await.unwrap();
    let network = one.network(Arc::new(records.clone()));
    let forced = one.publisher.change(vec![one.set("2", "ours")], true, Some(&network), &Emitter::silent()).await;
    let error = forced.unwrap_err();
    assert!(matches!(&error, PublishError::Conflict { tag, .. } if tag == "app:1"), "{error}");
    let forced = one.publisher.change(vec![one.set("1", "mine")], true, Some(&network), &Emitter::silent()).await;
    forced.unwrap();
}

/// What a home says of a record that it did not find.
#[tokio::test]
async fn a_key_that_was_imported() {
    let keys = keys();
    for imported in [true, false] {
        let (hub, exchange) = (Hub::new().await, MemoryExchange::new());
        let tables: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let home = Home {
            publisher: publisher(&hub, &tables, &exchange, keys.clone()),
            hub,
            tables,
            exchange,
            peer: PeerId::random(),
        };
        home.publisher.begin(imported).await.unwrap();
        let records = MemoryRecords::new();
        let network = home.network(Arc::new(records.clone()));
        for first in [true, false] {
            let (events, mut heard) = Emitter::watched();
            let tag = if first { "1" } else { "2" };
            home.publisher.change(vec![home.set(tag, "one")], false, Some(&network), &events).await.unwrap();
            drop(events);
            let mut warned = false;
            while let Some(event) = heard.recv().await {
                warned |= matches!(event, crate::event::Event::Warning(Warning::NoEarlierRecord { .. }));
            }
            assert_eq!(warned, imported && first);
        }
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_fetched() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    other.change(vec![other.set("x", "x")], &records).await.unwrap();
    one.exchange.remove(&other.peer);
    let error = one.change(vec![one.set("a", "a")], &records).await.unwrap_err();
    assert!(matches!(error, PublishError::NotMerged { .. }) && error.kind() == ErrorKind::Unavailable, "{error}");
    assert_eq!(one.tags().await, "a");
    one.exchange.add(other.peer, Arc::new(other.hub.store.clone()));
    one.change(Vec::new(), &records).await.unwrap();
    assert_eq!(one.tags().await, "a x");
}

#[tokio::test]
async fn a_key_hands_over() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    one.change(vec![one.set("a", "a")], &records).await.unwrap();
    other.change(Vec::new(), &records).await.unwrap();
    let (old, new) = (one.publisher.keys.key.clone(), RegistryKey::generate());
    let handover = Handover::sign(&old, new.name(), Clock::default().now());
    let (did, ipns) = (new.did(), new.name().to_string());
    let key = NewKey { did, ipns, did_document: "{}".into(), handover: handover.clone() };
    let edit = Edit::HandOver { key: Box::new(key) };
    one.change(vec![edit.clone()], &records).await.unwrap();
    assert!(one.change(vec![edit], &records).await.unwrap().unchanged);

    let keys = Keys { key: new.clone(), former: vec![old.clone()] };
    let one = Home { publisher: publisher(&one.hub, &one.tables, &one.exchange, keys), ..one };
    let published = one.change(vec![one.set("b", "b")], &records).await.unwrap();
    let document = crate::tree::read::registry(&one.hub.reader, &published.root).await.unwrap().unwrap();
    assert_eq!(document.ipns, new.name().to_string());
    assert_eq!(handovers(&one.hub.reader, &published.root).await.unwrap(), [handover]);
    one.hub.assert_sound_at(&published.root).await;
    // The old name leads to the new one, also after it was signed again, and the old key publishes nothing any more.
    for _ in 0..2 {
        let network = one.network(Arc::new(records.clone()));
        let last = network.records.valid(&old.name(), &[], RESOLVE, &Emitter::silent()).await.unwrap().remove(0);
        assert_eq!((last.target().to_string(), last.sequence()), (format!("/ipns/{}", new.name()), 3));
        one.change(Vec::new(), &records).await.unwrap();
    }
    let error = other.change(vec![other.set("c", "c")], &records).await.unwrap_err();
    assert!(matches!(&error, PublishError::HandedOver { to, .. } if *to == new.name()), "{error}");
}

/// Publishes for others to hear, without having heard anything.
async fn publish_apart(home: &Home, edits: Vec<Edit>, both: &MemoryRecords) {
    home.change(edits, &MemoryRecords::new()).await.unwrap();
    hand_on(home, both).await;
}

/// Lets others hear the newest record of a home.
async fn hand_on(home: &Home, both: &MemoryRecords) {
    let kept = home.network(Arc::new(both.clone())).records;
    let record = kept.kept(&home.publisher.keys.key.name()).await.unwrap().unwrap().record;
    both.insert(record.name(), record.bytes().clone());
}

#[tokio::test]
async fn homes_apart_that_published_unequally_often() {
    for first in [true, false] {
        let (one, other) = pair().await;
        let both = MemoryRecords::new();
        // Others have heard all of it, and tell of the newest only.
        for tag in ["a", "b"] {
            one.change(vec![one.set(tag, tag)], &MemoryRecords::new()).await.unwrap();
        }
        for tag in ["v", "w", "x", "y", "z"] {
            other.change(vec![other.set(tag, tag)], &MemoryRecords::new()).await.unwrap();
        }
        hand_on(&other, &both).await;
        if first {
            one.change(vec![one.set("c", "c")], &both).await.unwrap();
            assert_eq!(one.tags().await, "a b c v w x y z");
        } else {
            // The one that is ahead finds the other's, which is older and none of its own.
            let behind = MemoryRecords::new();
            hand_on(&one, &behind).await;
            other.change(vec![other.set("c", "c")], &behind).await.unwrap();
            assert_eq!(other.tags().await, "a b c v w x y z");
        }
    }
}

#[tokio::test]
async fn what_another_home_removed_does_not_come_back() {
    let (one, other) = pair().await;
    let records = MemoryRecords::new();
    for tag in ["a", "b", "c"] {
        one.change(vec![one.set(tag, tag)], &records).await.unwrap();
    }
    other.change(Vec::new(), &records).await.unwrap();
    other.change(vec![remove_image("app")], &records).await.unwrap();
    one.change(vec![one.set("d", "d")], &records).await.unwrap();
    assert_eq!(one.tags().await, "d");
    // Nor what both had pushed the same.
    other.change(Vec::new(), &records).await.unwrap();
    one.publisher.change(vec![one.set("e", "e")], false, None, &Emitter::silent()).await.unwrap();
    other.change(vec![set_tag("app", "e", &one.hub.image("linux/amd64", "e"), 0)], &records).await.unwrap();
    one.change(Vec::new(), &records).await.unwrap();
    other.change(vec![remove_tag("app", "e")], &records).await.unwrap();
    one.change(vec![one.set("f", "f")], &records).await.unwrap();
    assert_eq!(one.tags().await, "d f");
}

/// A copy of a home, with a store of its own.
async fn copy(home: &Home) -> Home {
    let copy = Home::new(home.publisher.keys.clone(), &home.exchange).await;
    let rows = home.tables.scan(crate::port::table::Space::Registry, &[]).await.unwrap();
    let rows = rows.into_iter().map(|(key, value)| Change::Put(crate::port::table::Space::Registry, key, value));
    copy.tables.write(rows.collect()).await.unwrap();
    let state = State::load(&home.tables).await.unwrap();
    let state = State { shared: true, ..state };
    copy.tables.write(vec![state.write()]).await.unwrap();
    copy
}

#[tokio::test]
async fn a_copied_home_is_another_home() {
    let records = MemoryRecords::new();
    let one = Home::new(keys(), &MemoryExchange::new()).await;
    one.change(vec![one.set("a", "a")], &records).await.unwrap();
    let backup = copy(&one).await;
    // The copy lags behind.
    for tag in ["b", "c"] {
        one.change(vec![one.set(tag, tag)], &records).await.unwrap();
    }
    backup.publisher.change(vec![backup.set("x", "x")], false, None, &Emitter::silent()).await.unwrap();
    backup.change(vec![backup.set("y", "y")], &records).await.unwrap();
    assert_eq!(backup.tags().await, "a b c x y");
    one.change(vec![one.set("d", "d")], &records).await.unwrap();
    assert_eq!(one.tags().await, "a b c d x y");
    // Copy and home make a change of the same number, apart.
    let twin = copy(&one).await;
    publish_apart(&one, vec![one.set("e", "e")], &records).await;
    twin.publisher.change(vec![twin.set("z", "z")], false, None, &Emitter::silent()).await.unwrap();
    twin.change(Vec::new(), &records).await.unwrap();
    assert_eq!(twin.tags().await, "a b c d e x y z");
    let names = [&one, &backup, &twin].map(|home| State::load(&home.tables));
    let [one, backup, twin] = futures::future::join_all(names).await.try_into().unwrap();
    assert!(one.as_ref().unwrap().home != backup.as_ref().unwrap().home);
    assert!(one.unwrap().home != twin.unwrap().home);
}

#[tokio::test]
async fn changes_that_are_not_remembered_any_more() {
    let (one, other) = pair().await;
    let both = MemoryRecords::new();
    for tag in ["a", "b"] {
        one.change(vec![one.set(tag, tag)], &MemoryRecords::new()).await.unwrap();
    }
    publish_apart(&other, vec![other.set("x", "x"), other.set("y", "y")], &both).await;
    one.tables.write(vec![crate::pin::changes::forget(1)]).await.unwrap();
    let error = one.change(vec![one.set("c", "c")], &both).await.unwrap_err();
    assert!(matches!(error, PublishError::Forgotten { lost: 1 }), "{error}");
    assert_eq!(one.tags().await, "a b");
    let network = one.network(Arc::new(both.clone()));
    one.publisher.change(Vec::new(), true, Some(&network), &Emitter::silent()).await.unwrap();
    assert_eq!(one.tags().await, "b x y");
}

#[tokio::test]
async fn the_registry_remembers_so_many_homes() {
    let one = Home::new(keys(), &MemoryExchange::new()).await;
    one.change(vec![one.set("a", "a")], &MemoryRecords::new()).await.unwrap();
    let mut root = State::load(&one.tables).await.unwrap().root.unwrap();
    for number in 0..limits::HOMES {
        let row = HomeRow { home: format!("{number:016x}"), change: 1, mark: "00000000".into(), ..HomeRow::default() };
        let edited = note_home(&one.hub.reader, &root, &row).await.unwrap();
        let session = one.hub.store.begin(limits::LEASE).await.unwrap();
        session.put(edited.blocks).await.unwrap();
        session.commit().await.unwrap();
        root = edited.root;
    }
    let homes = crate::tree::read::registry(&one.hub.reader, &root).await.unwrap().unwrap().homes;
    assert_eq!((homes.len(), homes[0].home.as_str()), (limits::HOMES, "0000000000000000"));
}
