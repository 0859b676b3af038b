//! Homes in memory of which something is lost or damaged.

mod inspect;
mod repair;
mod usage;

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;

use crate::dag::block::{Block, RAW};
use crate::digest::Digest;
use crate::pin::state::State;
use crate::port::blocks::BlockStore;
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::table::MemoryTable;
use crate::port::table::{Change, Space, Table};
use crate::tree::tests::Hub;

/// A home with this key.
struct Home {
    store: MemoryBlocks,
    blocks: Arc<dyn BlockStore>,
    tables: Arc<dyn Table>,
}

impl Home {
    /// One that holds everything of `hub` but these.
    async fn of(hub: &Hub, lost: &[Cid]) -> Self {
        let store = MemoryBlocks::new();
        for cid in hub.store.cids().iter().filter(|cid| !lost.contains(cid)) {
            store.insert(Block::verify(*cid, data(hub, cid).await).unwrap());
        }
        let home = Self { blocks: Arc::new(store.clone()), store, tables: Arc::new(MemoryTable::new()) };
        home.write(State { root: Some(hub.root), ..State::default() }).await;
        home
    }

    async fn write(&self, state: State) {
        self.tables.write(vec![state.write()]).await.unwrap();
    }

    /// Notes that this home tagged it, so that it has to be here.
    async fn pin(&self, file: &Cid) {
        self.tables.write(vec![Change::Put(Space::Pins, file.to_bytes(), Vec::new())]).await.unwrap();
    }

    fn damage(&self, cid: &Cid) {
        self.store.damage(cid, Bytes::from_static(b"damaged"));
    }

    /// The damaged blocks, as a check of the store finds them.
    async fn damaged(&self) -> Vec<Cid> {
        self.blocks.check(true).await.unwrap().damaged
    }

    /// Those of the blocks of `hub` that are not here as they should be.
    async fn lacks(&self, hub: &Hub) -> Vec<Cid> {
        let mut lacks = Vec::new();
        for cid in hub.store.cids() {
            if !matches!(self.blocks.get(&cid).await, Ok(Some(_))) {
                lacks.push(cid);
            }
        }
        lacks
    }
}

async fn data(hub: &Hub, cid: &Cid) -> Bytes {
    hub.store.get(cid).await.unwrap().unwrap()
}

/// A registry with the images `app:1`, `app:2` and `lib:1`. Each has a layer of its own.
async fn hub() -> Hub {
    let mut hub = Hub::new().await;
    for (at, (image, tag)) in [("app", "1"), ("app", "2"), ("lib", "1")].into_iter().enumerate() {
        let stored = hub.image("linux/amd64", &format!("{image} {tag}"));
        hub.push(image, tag, &stored, i64::try_from(at).unwrap()).await;
    }
    hub
}

/// The layer that only this tag has; it is one block.
fn layer(hub: &Hub, name: &str) -> Cid {
    let digest = Digest::sha256(format!("layer {name}").as_bytes());
    let is_it = |cid: &Cid| cid.codec() == RAW && cid.hash().digest() == hex::decode(digest.hex()).unwrap();
    hub.store.cids().into_iter().find(is_it).expect("it was pushed")
}

async fn folder(hub: &Hub, image: &str, tag: &str) -> Cid {
    hub.find(image, tag).await.unwrap().folder
}
