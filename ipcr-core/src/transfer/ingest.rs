//! From a source into the store: [`IngestOptions`] and what they lead to.
//!
//! A source that has manifests is kept byte for byte, as opaque files. For one that has none, the layers are encoded by
//! ipcr ([`crate::dag::cut`], [`crate::dag::encode`]) and a canonical manifest is written. What this home has stored before is
//! read past. Everything is verified: blobs against their descriptors, layers against the configuration's diff IDs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::AsyncRead;

use super::diff_ids::{Named, Surveys};
use super::error::{TransferError, check_platform};
use super::layer::{InWork, LAYERS, Workshop};
use super::ledger::{KnownLayer, Ledger};
use super::manifests::{read_blob, read_tree};
use super::pieces::NewPieces;
use super::progress::Progress;
use super::verify::Verified;
use super::write::PutTotals;
use super::{diff_ids, opaque};
use crate::dag::encode::Encoding;
use crate::digest::{Algorithm, Digest};
use crate::event::{BlobFate, Emitter, Stage};
use crate::exchange::file::{File, FileError};
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::canonical::{CanonicalLayer, canonical_manifest};
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::Parsed;
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::limits;
use crate::port::blocks::StoreSession;
use crate::port::image::{Blobs, ByteStream, Export, ExportedImage, ImageError, Opened};
use crate::tree::stored::{StoredBlob, StoredImage, StoredManifest};

/// Blobs of one image that are read at once.
const BLOBS_AT_ONCE: usize = 3;

/// How a source is to be taken in.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// How layers without a manifest are encoded.
    pub encoding: Encoding,
    /// Encodes layers anew although there is a manifest, which changes digests.
    pub recompress: bool,
    /// Keeps one platform of an index.
    pub platform: Option<Platform>,
}

/// An image that was taken in.
#[derive(Debug)]
pub struct Ingested {
    /// Its parts.
    pub image: StoredImage,
    /// The name that the source gives it.
    pub name: Option<String>,
    /// What tells it apart in the source (see [`Blobs::ref_name`]).
    pub ref_name: Option<String>,
    /// The configuration's digest, if it is a single container image.
    pub image_id: Option<Digest>,
    /// Bytes of the blobs that were read and stored, as they are stored.
    pub stored_bytes: u64,
    /// Of the bytes of layers that were kept as they came, about how many hold what layers of this home had before: what encoding all
    /// of them would have shared. `None` if no such layer was stored.
    pub repeated: Option<u64>,
    pub(crate) pending: Pending,
}

/// Ledger entries to be written once the blocks are durable.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(super) blobs: Vec<StoredBlob>,
    pub(super) layers: Vec<(KnownLayer, String)>,
    /// The ID of an image that has nothing but the manifest that ipcr wrote, and its encoding.
    pub(super) image: Option<(Digest, String)>,
    /// What layers unpack to that were kept byte for byte.
    pub(super) unpacked: Vec<KnownLayer>,
    /// What layers that were encoded consist of.
    pub(super) pieces: NewPieces,
}

/// Blobs of a source that are stored, and whether this operation stored them.
pub(super) type Kept = HashMap<Digest, (StoredBlob, bool)>;

impl Ingested {
    /// An image that was taken in before.
    pub(crate) fn known(image: StoredImage, image_id: Digest) -> Self {
        Self {
            image,
            name: None,
            ref_name: None,
            image_id: Some(image_id),
            stored_bytes: 0,
            repeated: None,
            pending: Pending::default(),
        }
    }

    /// Remembers what was stored, so that it is read past the next time. To be called when the session is committed.
    pub(crate) async fn remember(&self, ledger: &Ledger) -> Result<(), TransferError> {
        let image = self.pending.image.as_ref().map(|(id, encoding)| (id, encoding.as_str(), &self.image));
        ledger.remember_unpacked(&self.pending.unpacked).await?;
        ledger.remember(&self.pending.blobs, &self.pending.layers, image, &self.pending.pieces).await
    }
}

/// What a pipeline writes to and tells.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(super) ledger: Ledger,
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    pub(super) workshop: Workshop,
    pub(super) events: Emitter,
    pub(super) options: IngestOptions,
}

/// A layer that is being encoded.
pub(super) struct Taken {
    what: String,
    /// Its uncompressed digest, as far as the source tells it.
    expected: Option<Digest>,
    progress: Progress,
    work: InWork,
}

impl Taken {
    /// Whether it is stored, or failed.
    pub(super) fn is_done(&self) -> bool {
        self.work.is_done()
    }

    /// Waits until it is stored, and checks what it is.
    pub(super) async fn finish(self) -> Result<KnownLayer, TransferError> {
        let layer = self.work.finish().await?;
        if let Some(expected) = self.expected.filter(|expected| *expected != layer.diff_id) {
            return Err(mismatch(&self.what, &expected, &layer.diff_id));
        }
        self.progress.done(BlobFate::Stored).await;
        Ok(layer)
    }
}

impl Intake {
    /// An intake into an open session, which also takes what is known and used again.
    pub(crate) fn new(ledger: Ledger, session: Arc<dyn StoreSession>, events: Emitter, options: IngestOptions) -> Self {
        let (ledger, totals) = (ledger.within(&session), Arc::default());
        let workshop = Workshop::new(&ledger, Arc::clone(&session), Arc::clone(&totals), options.encoding);
        Self { ledger, session, totals, workshop, events, options }
    }

    /// Block bytes that were put and were not in the store before.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.totals.get().new_bytes
    }

    /// Takes an opened source in.
    pub(crate) async fn ingest(&self, opened: Opened) -> Result<Ingested, TransferError> {
        match opened {
            Opened::Blobs(blobs) => self.blobs(blobs, &Kept::new()).await,
            Opened::Export(export) => self.export(export).await,
        }
    }

    /// Keeps everything that the manifests name; `kept` holds blobs that are stored already.
    async fn blobs(&self, source: Arc<dyn Blobs>, kept: &Kept) -> Result<Ingested, TransferError> {
        self.events.stage(Stage::Storing).await;
        let tree = read_tree(source.as_ref(), self.options.platform.as_ref()).await?;
        for parsed in &tree.parsed {
            if let Parsed::Manifest(manifest) = parsed {
                check_layer_count(manifest.layers.len())?;
            }
        }
        if let (Some(_), [Parsed::Manifest(manifest)]) = (&self.options.platform, &tree.parsed[..])
            && manifest.is_image()
        {
            let config = read_blob(source.as_ref(), &manifest.config, limits::CONFIG_BYTES).await?;
            self.check_platform(config)?;
        }
        if self.options.recompress {
            return self.recompress(source.as_ref(), tree, kept).await;
        }
        let (named, surveys) = (diff_ids::named(source.as_ref(), &tree).await?, Surveys::default());
        let stored = self.keep(source.as_ref(), tree.blobs(), kept, Some((&named, &surveys))).await?;
        let new: Vec<StoredBlob> = stored.iter().filter(|(_, new)| *new).map(|(blob, _)| blob.clone()).collect();
        let image_id = tree.image_id(source.as_ref()).await?;
        let mut blobs: Vec<StoredBlob> = stored.into_iter().map(|(blob, _)| blob).collect();
        let pieces = self.workshop.pieces();
        let learnt = diff_ids::check(named, &blobs, &surveys, &self.ledger, Some(pieces)).await?;
        learnt.note(&mut blobs);
        Ok(Ingested {
            image: StoredImage { root: tree.root, manifests: tree.manifests, blobs },
            name: source.name(),
            ref_name: source.ref_name(),
            image_id,
            stored_bytes: new.iter().map(|blob| blob.size).sum(),
            repeated: learnt.repeated,
            pending: Pending { blobs: new, unpacked: learnt.layers, pieces: pieces.take_new(), ..Pending::default() },
        })
    }

    /// Refuses a single image that is for another platform than the one that was asked for.
    fn check_platform(&self, config: Bytes) -> Result<(), TransferError> {
        // What is wrong with a configuration is told where it is used.
        let Ok(config) = parse_config(config) else { return Ok(()) };
        check_platform(&config.platform, self.options.platform.as_ref())
    }

    /// Keeps blobs byte for byte, and gives them in the order of their digests; which of them had to be stored. Of those that must not be
    /// handed on, only what the source has. With `surveys` layers are unpacked on the way.
    pub(super) async fn keep(
        &self,
        source: &dyn Blobs,
        mut blobs: Vec<Descriptor>,
        kept: &Kept,
        surveys: Option<(&Named, &Surveys)>,
    ) -> Result<Vec<(StoredBlob, bool)>, TransferError> {
        let keep = |descriptor: Descriptor| async move {
            if let Some((blob, new)) = kept.get(&descriptor.digest).filter(|(blob, _)| blob.size == descriptor.size) {
                return Ok(Some((blob.clone(), *new)));
            }
            let optional = media_type::is_nondistributable(&descriptor.media_type);
            match self.blob(source, descriptor, surveys).await {
                Err(TransferError::Image(ImageError::NoBlob { .. })) if optional => Ok(None),
                stored => stored.map(Some),
            }
        };
        // The largest first: one that begins last would be alone in the end.
        blobs.sort_by_key(|blob| (Reverse(blob.size), blob.digest));
        let stored = stream::iter(blobs).map(keep).buffer_unordered(BLOBS_AT_ONCE);
        let mut stored: Vec<(StoredBlob, bool)> =
            stored.try_filter_map(|blob| async { Ok::<_, TransferError>(blob) }).try_collect().await?;
        stored.sort_by_key(|(blob, _)| blob.digest);
        Ok(stored)
    }

    /// Keeps one blob byte for byte; whether it had to be stored.
    async fn blob(
        &self,
        source: &dyn Blobs,
        descriptor: Descriptor,
        surveys: Option<(&Named, &Surveys)>,
    ) -> Result<(StoredBlob, bool), TransferError> {
        let label = descriptor.digest.to_string();
        let digest = descriptor.digest;
        let progress = Progress::start(&self.events, Some(digest), label.clone(), descriptor.size).await;
        if let Some(known) = self.ledger.blob(&digest).await?.filter(|known| known.size == descriptor.size) {
            progress.done(BlobFate::Known).await;
            return Ok((known, false));
        }
        let data = source.blob(&descriptor).await?;
        let mut data = Verified::new(data, digest, descriptor.size, progress.ticker());
        let tap = match surveys {
            Some((named, surveys)) => surveys.begin(&digest, named, &self.ledger).await?,
            None => None,
        };
        let (session, totals) = (Arc::clone(&self.session), Arc::clone(&self.totals));
        let file = opaque::store(session, totals, &label, &mut data, tap).await?;
        progress.done(BlobFate::Stored).await;
        let blob =
            StoredBlob { digest, size: file.size, cid: file.cid, tsize: file.tsize, encoding: None, plain_size: None };
        Ok((blob, true))
    }

    async fn export(&self, mut export: Box<dyn Export>) -> Result<Ingested, TransferError> {
        self.events.stage(Stage::Exporting).await;
        let mut layers: HashMap<String, (KnownLayer, bool)> = HashMap::new();
        let mut kept = Kept::new();
        let mut kept_keys: HashMap<String, Digest> = HashMap::new();
        let mut in_work: VecDeque<(String, Taken)> = VecDeque::new();
        let mut first = true;
        while let Some(mut exported) = export.next_layer().await? {
            if std::mem::take(&mut first) {
                self.events.stage(Stage::Storing).await;
            }
            let label = exported.diff_id.or(exported.digest).map_or_else(|| exported.key.clone(), |d| d.to_string());
            let told = exported.diff_id.or(exported.digest);
            let progress = Progress::start(&self.events, told, label.clone(), exported.size).await;
            if let Some(digest) = exported.digest {
                let (blob, fate) = match self.ledger.blob(&digest).await? {
                    Some(known) => ((known, false), BlobFate::Known),
                    None => {
                        let (session, totals) = (Arc::clone(&self.session), Arc::clone(&self.totals));
                        let mut data = Verified::new(exported.data, digest, exported.size, progress.ticker());
                        let file = opaque::store(session, totals, &label, &mut data, None).await?;
                        let (size, cid, tsize) = (file.size, file.cid, file.tsize);
                        (
                            (StoredBlob { digest, size, cid, tsize, encoding: None, plain_size: None }, true),
                            BlobFate::Stored,
                        )
                    }
                };
                kept_keys.insert(exported.key, digest);
                kept.insert(digest, blob);
                progress.done(fate).await;
                continue;
            }
            if let Some(diff_id) = exported.diff_id
                && let Some(known) = self.ledger.layer(&diff_id, &self.options.encoding.to_string()).await?
            {
                progress.done(BlobFate::Known).await;
                layers.insert(exported.key, (known, false));
                continue;
            }
            while in_work.len() >= LAYERS || in_work.front().is_some_and(|(_, taken)| taken.is_done()) {
                let Some((key, taken)) = in_work.pop_front() else { break };
                layers.insert(key, (taken.finish().await?, true));
            }
            let taken = self.take(label, exported.diff_id, &mut exported.data, progress).await?;
            in_work.push_back((exported.key, taken));
        }
        for (key, taken) in in_work {
            layers.insert(key, (taken.finish().await?, true));
        }
        if let Some(blobs) = export.manifests().await? {
            return self.blobs(blobs, &kept).await;
        }
        let mut images = export.images().await?;
        let image = match images.len() {
            0 => return Err(TransferError::Invalid { what: "the archive".into(), reason: "it holds no image".into() }),
            1 => images.remove(0),
            _ => {
                let names = images.iter().flat_map(|image| image.names.clone()).collect();
                return Err(ImageError::Ambiguous { place: "the archive".into(), names }.into());
            }
        };
        for key in &image.layers {
            if let (None, Some(digest)) = (layers.get(key), kept_keys.get(key)) {
                // Kept byte for byte because manifests might have come; they did not.
                let (blob, _) = kept.get(digest).expect("kept blobs have their digests");
                let mut data = self.open_kept(blob).await?;
                let known = self.workshop.encode(&blob.digest.to_string(), &mut data, |_| {}).await?;
                layers.insert(key.clone(), (known, true));
            }
        }
        self.assemble(image, layers).await
    }

    /// Puts an exported image together: finds its layers, checks them against the configuration, writes its manifest.
    async fn assemble(
        &self,
        image: ExportedImage,
        mut layers: HashMap<String, (KnownLayer, bool)>,
    ) -> Result<Ingested, TransferError> {
        check_layer_count(image.layers.len())?;
        self.check_platform(image.config.clone())?;
        let mut ordered = Vec::new();
        for key in &image.layers {
            let found = layers.get_mut(key).ok_or_else(|| TransferError::Invalid {
                what: "the archive".into(),
                reason: format!("layer {key} is missing"),
            })?;
            ordered.push(found.clone());
            found.1 = false; // the same layer twice is new once
        }
        let name = image.names.into_iter().next();
        self.written(image.config, ordered, name).await
    }

    /// Stores an image whose layers were encoded here.
    async fn written(
        &self,
        config: Bytes,
        layers: Vec<(KnownLayer, bool)>,
        name: Option<String>,
    ) -> Result<Ingested, TransferError> {
        let written = self.write_manifest(config, layers).await?;
        let (image_id, id) = (written.image_id, self.options.encoding.to_string());
        let root = written.manifest.descriptor.clone();
        Ok(Ingested {
            image: StoredImage { root, manifests: vec![written.manifest], blobs: written.blobs },
            name,
            ref_name: None,
            image_id: Some(image_id),
            stored_bytes: written.stored_bytes,
            repeated: None,
            pending: Pending {
                blobs: written.new_config.into_iter().collect(),
                layers: written.new_layers.into_iter().map(|layer| (layer, id.clone())).collect(),
                image: Some((image_id, id)),
                unpacked: Vec::new(),
                pieces: self.workshop.pieces().take_new(),
            },
        })
    }

    /// Writes the manifest of an image whose layers were encoded here, checked against its configuration; each layer with
    /// whether it was stored just now.
    pub(super) async fn write_manifest(
        &self,
        config: Bytes,
        layers: Vec<(KnownLayer, bool)>,
    ) -> Result<Written, TransferError> {
        let parsed = parse_config(config.clone()).map_err(|error| TransferError::Invalid {
            what: "the image configuration".into(),
            reason: error.to_string(),
        })?;
        let found: Vec<Digest> = layers.iter().map(|(layer, _)| layer.diff_id).collect();
        let expected = &parsed.diff_ids;
        if expected.len() != found.len() {
            let (expected, found) = (expected.len(), found.len());
            return Err(TransferError::Invalid {
                what: "the image".into(),
                reason: format!("its configuration names {expected} layers, and there are {found}"),
            });
        }
        if let Some((expected, found)) = expected.iter().zip(&found).find(|(expected, found)| expected != found) {
            return Err(mismatch("a layer", expected, found));
        }
        let image_id = Digest::sha256(&config);
        let compression = self.options.encoding.compression();
        let described = layers.iter().map(|(layer, _)| layer.blob.clone());
        let described = described.map(|blob| CanonicalLayer { compression, digest: blob.digest, size: blob.size });
        let (descriptor, bytes) = canonical_manifest(&config, &described.collect::<Vec<_>>());
        let (config_blob, new_config) = self.document(image_id, &config).await?;
        let mut seen = HashSet::new();
        let mut blobs = vec![config_blob.clone()];
        for (layer, _) in &layers {
            if seen.insert(layer.blob.digest) {
                blobs.push(layer.blob.clone());
            }
        }
        let new_layers: Vec<KnownLayer> = layers.into_iter().filter(|(_, new)| *new).map(|(layer, _)| layer).collect();
        let new_config = Some(config_blob).filter(|_| new_config);
        let stored_bytes = new_config.iter().chain(new_layers.iter().map(|layer| &layer.blob)).map(|blob| blob.size);
        let stored_bytes = stored_bytes.sum();
        let manifest = StoredManifest { descriptor, bytes };
        Ok(Written { manifest, image_id, blobs, new_config, new_layers, stored_bytes })
    }

    /// Keeps a document; whether it had to be stored.
    async fn document(&self, digest: Digest, bytes: &Bytes) -> Result<(StoredBlob, bool), TransferError> {
        if let Some(known) = self.ledger.blob(&digest).await? {
            return Ok((known, false));
        }
        let (session, totals) = (Arc::clone(&self.session), Arc::clone(&self.totals));
        let file = opaque::store(session, totals, &digest.to_string(), &mut bytes.as_ref(), None).await?;
        Ok((
            StoredBlob { digest, size: file.size, cid: file.cid, tsize: file.tsize, encoding: None, plain_size: None },
            true,
        ))
    }

    /// Reads one layer, which is encoded while others are read.
    pub(super) async fn take(
        &self,
        what: String,
        expected: Option<Digest>,
        data: &mut (dyn AsyncRead + Send + Unpin),
        progress: Progress,
    ) -> Result<Taken, TransferError> {
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let work = self.workshop.take(&what, algorithm, data, progress.ticker()).await?;
        Ok(Taken { what, expected, progress, work })
    }

    /// Opens a blob that was stored byte for byte.
    pub(super) async fn open_kept(&self, blob: &StoredBlob) -> Result<ByteStream, TransferError> {
        let what = blob.digest.to_string();
        let reader = Reader::local(self.ledger.blocks());
        let window = Window::new(limits::LEAF_BYTES);
        let data = File::open(Arc::new(reader), blob.cid, &window).await;
        let failed = |source: FileError| TransferError::Read { what, kind: source.kind(), source: Box::new(source) };
        Ok(Box::pin(data.map_err(failed)?))
    }
}

/// An image whose manifest ipcr wrote.
pub(super) struct Written {
    pub(super) manifest: StoredManifest,
    /// Its configuration's digest.
    pub(super) image_id: Digest,
    /// Configuration and layers, each once.
    pub(super) blobs: Vec<StoredBlob>,
    /// The configuration, if it was stored just now.
    pub(super) new_config: Option<StoredBlob>,
    /// Layers that were stored just now.
    pub(super) new_layers: Vec<KnownLayer>,
    /// Bytes of what was stored just now.
    pub(super) stored_bytes: u64,
}

fn check_layer_count(layers: usize) -> Result<(), TransferError> {
    if layers <= limits::COPY_LAYERS {
        return Ok(());
    }
    Err(TransferError::TooManyLayers { layers, limit: limits::COPY_LAYERS })
}

pub(super) fn mismatch(what: &str, expected: &Digest, found: &Digest) -> TransferError {
    TransferError::Invalid { what: what.to_owned(), reason: format!("its bytes are {found}, not {expected}") }
}
