use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use super::*;
use crate::media::archive_sink::{ArchiveOptions, ArchiveSink};
use crate::port::conformance::engine::Sample;
use crate::port::conformance::image::gzip;
use crate::port::engine::Engine;
use crate::port::image::{ImageSource, Opened};
use crate::port::memory::engine::MemoryEngine;
use crate::port::memory::image::MemoryImage;
use crate::transfer::engine::sink::EngineSink;

/// A source that claims how large its layers are, and counts how often one is opened.
#[derive(Debug)]
struct Claims {
    image: Arc<dyn Blobs>,
    sizes: HashMap<Digest, u64>,
    /// Whether it fails to say so.
    broken: bool,
    opened: AtomicUsize,
}

impl Claims {
    async fn new(sample: &Sample, size: impl Fn(u64) -> u64) -> Arc<Self> {
        let (image, parts) = (MemoryImage::new(), sample.parts(None));
        let (manifest, bytes) = &parts.manifests[0];
        for (media_type, bytes) in [(&manifest.media_type, bytes), (&manifest.media_type, &parts.images[0].config.1)] {
            image.add(media_type, Algorithm::Sha256, bytes.clone());
        }
        let mut sizes = HashMap::new();
        for (layer, plain) in parts.images[0].layers.iter().zip(&sample.layers) {
            image.add(&layer.media_type, Algorithm::Sha256, gzip(plain));
            sizes.insert(layer.digest, size(plain.len() as u64));
        }
        image.set_root(manifest.clone(), None);
        let Opened::Blobs(image) = image.open().await.unwrap() else { panic!("it has manifests") };
        Arc::new(Self { image, sizes, broken: false, opened: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Blobs for Claims {
    fn root(&self) -> &Descriptor {
        self.image.root()
    }

    fn name(&self) -> Option<String> {
        None
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        if self.sizes.contains_key(&descriptor.digest) {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.image.blob(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        self.image.referrers(subject).await
    }

    async fn plain_sizes(&self) -> Result<HashMap<Digest, u64>, ImageError> {
        let broken = ImageError::Unfit { place: "memory".into(), reason: "broken".into(), kind: ErrorKind::Integrity };
        if self.broken { Err(broken) } else { Ok(self.sizes.clone()) }
    }
}

async fn deliver(source: &Arc<Claims>, sink: Box<dyn ImageSink>) -> Result<DeliverySummary, TransferError> {
    let source: Arc<dyn Blobs> = source.clone();
    let (extent, events) = (Extent::AsMuchAsFits, Emitter::silent());
    Delivery { source, sink, platform: None, extent, name: None, keep: None, events }.run().await
}

#[tokio::test]
async fn layers_of_known_size_are_decompressed_on_the_way() {
    let sample = Sample::new("plain");
    for plain in [false, true] {
        let source = Claims::new(&sample, |size| size).await;
        let (writer, mut reader) = tokio::io::duplex(1 << 20);
        let options = ArchiveOptions { plain, ..ArchiveOptions::docker() };
        let sink = Box::new(ArchiveSink::new(writer, "archive", options));
        let mut archive = Vec::new();
        let (delivered, read) = tokio::join!(deliver(&source, sink), reader.read_to_end(&mut archive));
        read.unwrap();
        assert_eq!(delivered.unwrap().image_id, Some(sample.id()));
        assert_eq!(source.opened.load(Ordering::Relaxed), sample.layers.len(), "each is read once");
        for layer in &sample.layers {
            let found = archive.windows(layer.len()).any(|window| window == &layer[..]);
            assert_eq!(found, plain);
        }
    }
}

#[tokio::test]
async fn a_wrong_size_is_seen_before_the_engine_has_the_image() {
    let sample = Sample::new("lies");
    for wrong in [|size| size - 1, |size| size + 1, |_| 0] as [fn(u64) -> u64; 3] {
        let engine = Arc::new(MemoryEngine::new());
        let sink = Box::new(EngineSink::new(engine.clone(), Some("lies:1".into()), "memory"));
        let error = deliver(&Claims::new(&sample, wrong).await, sink).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
        let said = crate::kind::in_one_line(&error);
        let layer = sample.parts(None).images[0].layers[0].digest.to_string();
        assert!(said.contains("_layers.json") && said.contains(&layer), "{said}");
        assert!(engine.image(&sample.id().to_string()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn sizes_that_cannot_be_read_or_believed_are_done_without() {
    let sample = Sample::new("without");
    for broken in [true, false] {
        let mut claims = Arc::into_inner(Claims::new(&sample, |_| u64::MAX).await).unwrap();
        claims.broken = broken;
        let engine = Arc::new(MemoryEngine::new());
        let sink = Box::new(EngineSink::new(engine.clone(), Some("app:1".into()), "memory"));
        let delivered = deliver(&Arc::new(claims), sink).await.unwrap();
        assert_eq!(delivered.delivered.image_id, Some(sample.id()));
        assert!(engine.image(&sample.id().to_string()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_engine_that_refuses_the_steps_gets_the_image_at_once() {
    let sample = Sample::sized("gate", &[25, 1, 25]);
    let engine = Arc::new(MemoryEngine::new());
    engine.refuse_imports();
    let source = Claims::new(&sample, |size| size).await;
    let sink = Box::new(EngineSink::new(engine.clone(), Some("app:1".into()), "memory"));
    let delivered = deliver(&source, sink).await.unwrap();
    assert_eq!((delivered.delivered.image_id, engine.calls()), (Some(sample.id()), (1, 0)));
    assert_eq!(engine.images().await.unwrap().len(), 1);
}
