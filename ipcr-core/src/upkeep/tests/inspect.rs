use bytes::Bytes;

use super::{Home, folder, hub, layer};
use crate::dag::block::Block;
use crate::pin::state::State;
use crate::upkeep::inspect::{Findings, check};

async fn findings(home: &Home, read_data: bool) -> Findings {
    let report = home.blocks.check(read_data).await.unwrap();
    check(&home.blocks, &home.tables, report).await.unwrap()
}

#[tokio::test]
async fn nothing_is_wrong_with_a_whole_registry() {
    let hub = hub().await;
    let home = Home::of(&hub, &[]).await;
    let usage = home.blocks.usage().await.unwrap();
    let found = findings(&home, true).await;
    assert_eq!(found.problems, [""; 0]);
    assert_eq!((found.tags, found.blocks, found.bytes_read), (3, usage.blocks, usage.bytes));
    assert_eq!(findings(&home, false).await.bytes_read, 0);
}

#[tokio::test]
async fn a_missing_block_is_reported_with_its_tag() {
    let hub = hub().await;
    let lost = layer(&hub, "app 1");
    let home = Home::of(&hub, &[lost]).await;
    home.pin(&lost).await;
    home.pin(&layer(&hub, "app 2")).await;
    let found = findings(&home, true).await;
    assert_eq!(found.problems, ["app:1 is not complete: 1 of its blocks are missing"]);
    assert_eq!((found.tags, found.damaged), (3, Vec::new()));
}

#[tokio::test]
async fn a_corrupt_block_is_reported_with_its_tag() {
    let hub = hub().await;
    let home = Home::of(&hub, &[]).await;
    let hurt = layer(&hub, "lib 1");
    home.damage(&hurt);
    let found = findings(&home, true).await;
    assert_eq!(
        found.problems,
        [format!("block {hurt} is damaged"), format!("lib:1 is damaged: 1 of its blocks, {hurt}")]
    );
    assert_eq!(found.damaged, [hurt]);
    assert!(!home.blocks.has(&[hurt]).await.unwrap()[0], "whoever brings it again stores it anew");
}

#[tokio::test]
async fn a_missing_folder_is_reported_unless_it_is_elsewhere() {
    let hub = hub().await;
    let home = Home::of(&hub, &[folder(&hub, "app", "1").await]).await;
    let found = findings(&home, true).await;
    let [problem] = &found.problems[..] else { panic!("{:?}", found.problems) };
    assert!(problem.starts_with("app:1 cannot be read: "), "{problem}");
    home.write(State { root: Some(hub.root), shared: true, ..State::default() }).await;
    assert_eq!(findings(&home, true).await.problems, [""; 0], "another home may have it");
}

#[tokio::test]
async fn a_registry_without_its_root_cannot_be_read() {
    let hub = hub().await;
    let found = findings(&Home::of(&hub, &[hub.root]).await, true).await;
    let [problem] = &found.problems[..] else { panic!("{:?}", found.problems) };
    assert!(problem.starts_with(&format!("the registry {} cannot be read: ", hub.root)), "{problem}");
}

#[tokio::test]
async fn many_damaged_blocks_are_counted() {
    let hub = hub().await;
    let home = Home::of(&hub, &[]).await;
    for number in 0..12_u8 {
        let block = Block::raw(Bytes::from(vec![number; 9]));
        home.store.insert(block.clone());
        home.damage(block.cid());
    }
    let found = findings(&home, true).await;
    assert_eq!((found.damaged.len(), found.problems.len()), (12, 11));
    assert_eq!(found.problems[10], "2 more blocks are damaged");
}
