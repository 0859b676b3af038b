use std::time::Duration;

use super::*;
use crate::dag::block::Block;
use crate::dag::encode::{Encoder, hint};
use crate::port::blocks::StoreSession;
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::table::MemoryTable;

struct World {
    tables: Arc<dyn Table>,
    blocks: Arc<dyn BlockStore>,
}

impl World {
    fn new() -> Self {
        Self { tables: Arc::new(MemoryTable::new()), blocks: Arc::new(MemoryBlocks::new()) }
    }

    fn pieces(&self, encoding: Encoding) -> Pieces {
        Pieces::new(Arc::clone(&self.tables), Arc::clone(&self.blocks), encoding)
    }

    async fn put(&self, leaf: &Block) -> Box<dyn StoreSession> {
        let session = self.blocks.begin(Duration::from_secs(60)).await.unwrap();
        session.put(vec![leaf.clone()]).await.unwrap();
        session.commit().await.unwrap();
        session
    }
}

fn leaf(encoding: Encoding, piece: &'static [u8]) -> Block {
    Block::raw(Encoder::new(encoding).unwrap().encode(&Bytes::from_static(piece)).unwrap())
}

#[tokio::test]
async fn a_leaf_is_found_by_its_piece_in_its_encoding() {
    let world = World::new();
    let (gzip, zstd) = (Encoding::AlignedGzip1, Encoding::AlignedZstd1);
    let (piece, made) = (b"a piece", leaf(gzip, b"a piece"));
    world.put(&made).await;
    let pieces = world.pieces(gzip);
    assert_eq!(pieces.leaf(&hint(piece)).await.unwrap(), None);
    pieces.learn(hint(piece), made.cid());
    // At once for this operation, and for others when it is written.
    assert_eq!(pieces.leaf(&hint(piece)).await.unwrap().as_ref(), Some(made.data()));
    assert_eq!(world.pieces(gzip).leaf(&hint(piece)).await.unwrap(), None);
    pieces.take_new().write(&world.tables).await.unwrap();
    assert!(pieces.take_new().0.is_empty());
    assert_eq!(world.pieces(gzip).leaf(&hint(piece)).await.unwrap().as_ref(), Some(made.data()));
    assert_eq!(world.pieces(gzip).leaf(&hint(b"another")).await.unwrap(), None);
    assert_eq!(world.pieces(zstd).leaf(&hint(piece)).await.unwrap(), None);
    // Nothing is remembered where nothing is encoded.
    let none = world.pieces(Encoding::AlignedNone1);
    none.learn(hint(piece), made.cid());
    assert!(none.take_new().0.is_empty());
    assert_eq!(none.leaf(&hint(piece)).await.unwrap(), None);
}

#[tokio::test]
async fn rows_go_with_what_they_lead_to() {
    let world = World::new();
    let gzip = Encoding::AlignedGzip1;
    let (gone, stays) = (leaf(gzip, b"gone"), leaf(gzip, b"stays"));
    world.put(&stays).await;
    let pieces = world.pieces(gzip);
    pieces.learn(hint(b"gone"), gone.cid());
    pieces.learn(hint(b"stays"), stays.cid());
    pieces.survey(&[hint(b"opaque")], gone.cid()).await.unwrap();
    pieces.take_new().write(&world.tables).await.unwrap();
    world.tables.write(vec![Change::Put(Space::Pieces, vec![1, 2], b"no hash".to_vec())]).await.unwrap();
    // A row whose leaf is not there is as good as none.
    assert_eq!(world.pieces(gzip).leaf(&hint(b"gone")).await.unwrap(), None);
    let mut live = Live::default();
    live.insert(stays.cid());
    forget_stale(&world.tables, &live).await.unwrap();
    let rows = world.tables.scan(Space::Pieces, &[]).await.unwrap();
    assert_eq!(rows, [(Kind::Gzip1.key(hint(b"stays")), stays.cid().hash().digest().to_vec())]);
}

#[tokio::test]
async fn what_opaque_layers_repeat_is_known() {
    let world = World::new();
    let gzip = Encoding::AlignedGzip1;
    let file = leaf(gzip, b"a file");
    let known = world.pieces(gzip);
    known.learn(hint(b"encoded"), file.cid());
    known.learn(hint(b"not opaque"), file.cid());
    known.take_new().write(&world.tables).await.unwrap();
    let layer = [hint(b"encoded"), hint(b"first"), hint(b"first")];
    // Within one layer nothing is shared that counts.
    let pieces = world.pieces(gzip);
    assert_eq!(pieces.survey(&layer, file.cid()).await.unwrap(), 7);
    pieces.take_new().write(&world.tables).await.unwrap();
    let pieces = world.pieces(gzip);
    assert_eq!(pieces.survey(&[hint(b"first"), hint(b"second")], file.cid()).await.unwrap(), 5);
    // Opaque pieces have no leaves.
    pieces.take_new().write(&world.tables).await.unwrap();
    assert_eq!(pieces.leaf(&hint(b"second")).await.unwrap(), None);
    assert_eq!(world.pieces(Encoding::AlignedZstd1).survey(&[hint(b"not opaque")], file.cid()).await.unwrap(), 0);
}
