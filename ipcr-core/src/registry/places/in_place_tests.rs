//! Images that are read where an engine keeps them, and what happens when that goes wrong.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::dag::block::Block;
use crate::dag::encode::Encoding;
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::port::blocks::{BlockStore as _, Put, StoreError, StoreSession};
use crate::port::conformance::engine::{Sample, failing};
use crate::port::engine::{EngineError, EngineInfo, Loaded};
use crate::port::image::{Export, ExportedImage, ExportedLayer, ImageError};
use crate::port::memory::blocks::MemoryBlocks;
use crate::port::memory::engine::MemoryEngine;
use crate::port::memory::table::MemoryTable;
use crate::transfer::ingest::IngestOptions;
use crate::transfer::ledger::Ledger;

/// What is wrong with the folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The second layer breaks off.
    Broken,
    /// The second layer has other bytes.
    Wrong,
    /// The engine dies while they are read.
    Dies,
    /// It loses the image while they are read.
    Loses,
}

/// An engine whose folders can be read.
#[derive(Debug)]
struct Near {
    inner: MemoryEngine,
    sample: Sample,
    fault: Fault,
    read: AtomicBool,
}

#[async_trait]
impl Engine for Near {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.inner.info().await
    }

    async fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        match self.fault {
            Fault::Dies if self.read.load(Ordering::Relaxed) => {
                Err(EngineError::Broken { doing: "describe an image", source: "it has died".into() })
            }
            Fault::Loses if self.read.load(Ordering::Relaxed) => Ok(None),
            _ => self.inner.image(name).await,
        }
    }

    async fn images(&self) -> Result<Vec<EngineImage>, EngineError> {
        self.inner.images().await
    }

    async fn export(&self, name: &str) -> Result<ByteStream, EngineError> {
        self.inner.export(name).await
    }

    async fn in_place(&self, _: &EngineImage) -> Option<Box<dyn Export>> {
        self.read.store(true, Ordering::Relaxed);
        let layers = self.sample.diff_ids().into_iter().zip(self.sample.layers.clone()).collect();
        Some(Box::new(Folders { config: self.sample.config.clone().into(), layers, given: 0, fault: self.fault }))
    }

    async fn load(&self, archive: ByteStream) -> Result<Loaded, EngineError> {
        self.inner.load(archive).await
    }

    async fn import(&self, layer: ByteStream, labels: &BTreeMap<String, String>) -> Result<String, EngineError> {
        self.inner.import(layer, labels).await
    }

    async fn tag(&self, image_id: &str, name: &str) -> Result<(), EngineError> {
        self.inner.tag(image_id, name).await
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.inner.remove(name).await
    }
}

#[derive(Debug)]
struct Folders {
    config: Bytes,
    layers: Vec<(Digest, Vec<u8>)>,
    given: usize,
    fault: Fault,
}

#[async_trait]
impl Export for Folders {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        let Some((diff_id, mut bytes)) = self.layers.get(self.given).cloned() else { return Ok(None) };
        self.given += 1;
        let fault = if self.given == 2 { self.fault } else { Fault::None };
        let data: ByteStream = match fault {
            Fault::Broken => failing(bytes[..bytes.len() / 2].to_vec(), std::io::ErrorKind::NotFound.into()),
            Fault::Wrong => {
                bytes[0] ^= 1;
                Box::pin(Cursor::new(bytes))
            }
            _ => Box::pin(Cursor::new(bytes)),
        };
        Ok(Some(ExportedLayer { key: diff_id.to_string(), diff_id: Some(diff_id), digest: None, size: 0, data }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        let layers = self.layers.iter().map(|(diff_id, _)| diff_id.to_string()).collect();
        Ok(vec![ExportedImage { config: self.config.clone(), layers, names: Vec::new() }])
    }
}

/// A store that is full.
#[derive(Debug)]
struct Full;

#[async_trait]
impl StoreSession for Full {
    async fn put(&self, _: Vec<Block>) -> Result<Put, StoreError> {
        Err(StoreError::Full { place: "here".into(), doing: "putting blocks" })
    }

    async fn hold(&self, cids: &[cid::Cid]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; cids.len()])
    }

    async fn commit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn abort(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a push takes in, and how often the engine had to export for it.
async fn take(fault: Fault, full: bool) -> (Result<Ingested, TransferError>, usize) {
    let sample = Sample::exactly("in place");
    let engine = Near { inner: MemoryEngine::new(), sample, fault, read: AtomicBool::new(false) };
    engine.load(engine.sample.archive(&["app:1"], &[])).await.unwrap();
    let engine = Arc::new(engine);
    let source = EngineSource::new(Arc::clone(&engine) as Arc<dyn Engine>, "app:1", "the engine");
    let image = source.inspect().await.unwrap();
    let from = From_::Engine { source, image, store: EngineStore::Classic };
    let source = OpenedSource { describe: "app:1".into(), name: None, delivered_name: None, from };
    let blocks = MemoryBlocks::new();
    let session: Arc<dyn StoreSession> =
        if full { Arc::new(Full) } else { blocks.begin(Duration::from_secs(60)).await.unwrap().into() };
    let ledger = Ledger::new(Arc::new(MemoryTable::new()), Arc::new(blocks));
    let options = IngestOptions { encoding: Encoding::AlignedGzip1, recompress: false, platform: None };
    let intake = Intake::new(ledger, session, Emitter::default(), options);
    let taken = match source.take_in_place(&intake).await {
        Some(taken) => taken,
        None => match source.open().await {
            Ok(opened) => intake.ingest(opened).await,
            Err(error) => Err(error),
        },
    };
    (taken, engine.inner.exports())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_folders_is_exported() {
    let (right, exports) = take(Fault::None, false).await;
    let right = right.unwrap();
    assert_eq!((exports, right.image_id), (0, Some(Sample::exactly("in place").id())));
    for fault in [Fault::Broken, Fault::Wrong] {
        let (taken, exports) = take(fault, false).await;
        assert_eq!((exports, taken.unwrap().image.root), (1, right.image.root.clone()), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_away_is_a_failure_all_the_same() {
    let (taken, exports) = take(Fault::Dies, false).await;
    assert_eq!((exports, taken.unwrap_err().kind()), (0, ErrorKind::Engine));
    let (taken, exports) = take(Fault::Loses, false).await;
    assert_eq!((exports, taken.unwrap_err().kind()), (0, ErrorKind::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_tried_twice() {
    let (taken, exports) = take(Fault::None, true).await;
    assert_eq!((exports, taken.unwrap_err().kind()), (0, ErrorKind::DiskFull));
}
