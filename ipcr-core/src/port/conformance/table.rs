//! What every implementation of `port::table` must do.

use crate::port::table::{Change, Space, Table};

fn put(space: Space, key: &[u8], value: &[u8]) -> Change {
    Change::Put(space, key.to_vec(), value.to_vec())
}

/// Runs the whole suite on an empty table.
pub(crate) async fn run(table: &dyn Table) {
    spaces_are_apart(table).await;
    scans_are_ordered_and_bounded(table).await;
    batches_apply_in_order(table).await;
}

async fn spaces_are_apart(table: &dyn Table) {
    for space in Space::ALL {
        assert_eq!(table.get(space, b"key").await.unwrap(), None);
    }
    let batch = Space::ALL.iter().map(|space| put(*space, b"key", space.name().as_bytes())).collect();
    table.write(batch).await.unwrap();
    for space in Space::ALL {
        assert_eq!(table.get(space, b"key").await.unwrap().unwrap(), space.name().as_bytes());
        assert_eq!(table.scan(space, b"").await.unwrap().len(), 1);
    }
    table.write(vec![Change::Delete(Space::Pins, b"key".to_vec())]).await.unwrap();
    assert_eq!(table.get(Space::Pins, b"key").await.unwrap(), None);
    assert!(table.get(Space::Cache, b"key").await.unwrap().is_some());
}

async fn scans_are_ordered_and_bounded(table: &dyn Table) {
    let keys: [&[u8]; 7] = [b"b", b"a/2", b"a/10", b"a", b"a/", b"\xff\xff", b"\xff"];
    table.write(keys.iter().map(|key| put(Space::Trust, key, key)).collect()).await.unwrap();
    table.write(vec![Change::Delete(Space::Trust, b"key".to_vec())]).await.unwrap();
    let scan = async |prefix: &[u8]| -> Vec<Vec<u8>> {
        let pairs = table.scan(Space::Trust, prefix).await.unwrap();
        assert!(pairs.iter().all(|(key, value)| key == value));
        pairs.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(scan(b"a/").await, [&b"a/"[..], b"a/10", b"a/2"]);
    assert_eq!(scan(b"\xff").await, [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!(scan(b"").await, [&b"a"[..], b"a/", b"a/10", b"a/2", b"b", b"\xff", b"\xff\xff"]);
    assert!(scan(b"c").await.is_empty());
}

async fn batches_apply_in_order(table: &dyn Table) {
    let batch = vec![
        put(Space::Images, b"x", b"1"),
        put(Space::Images, b"x", b"2"),
        put(Space::Images, b"gone", b"1"),
        Change::Delete(Space::Images, b"gone".to_vec()),
        Change::Delete(Space::Images, b"never".to_vec()),
        put(Space::Images, b"empty", b""),
    ];
    table.write(batch).await.unwrap();
    assert_eq!(table.get(Space::Images, b"x").await.unwrap().unwrap(), b"2");
    assert_eq!(table.get(Space::Images, b"gone").await.unwrap(), None);
    assert_eq!(table.get(Space::Images, b"empty").await.unwrap().unwrap(), b"");
    let keys = [&b"x"[..], b"gone", b"empty", b"never", b"x"].map(<[u8]>::to_vec).to_vec();
    let each = table.get_each(Space::Images, keys).await.unwrap();
    assert_eq!(each, [Some(b"2".to_vec()), None, Some(Vec::new()), None, Some(b"2".to_vec())]);
    assert!(table.get_each(Space::Images, Vec::new()).await.unwrap().is_empty());
    let large = vec![7; 3 << 20];
    table.write(vec![put(Space::Images, b"large", &large)]).await.unwrap();
    assert_eq!(table.get(Space::Images, b"large").await.unwrap().unwrap(), large);
}
