//! From a source into the store: [`IngestOptions`] and what they lead to.
//!
//! A source that has manifests is kept byte for byte, as opaque files. For one that has none, the layers are encoded by
//! ipcr ([`crate::dag::cut`], [`crate::dag::encode`]) and a canonical manifest is written. What this home has stored before is
//! read past. Everything is verified: blobs against their descriptors, layers against the configuration's diff IDs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::TransferError;
use super::ledger::{KnownLayer, Ledger};
use super::progress::Progress;
use super::verify::Verified;
use super::write::PutTotals;
use super::{diff_ids, layer, opaque};
use crate::dag::encode::Encoding;
use crate::digest::Digest;
use crate::event::{BlobFate, Emitter, Stage};
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::canonical::{CanonicalLayer, canonical_manifest};
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Index, Parsed, parse_manifest};
use crate::image::platform::Platform;
use crate::image::select::select_platform;
use crate::limits;
use crate::port::blocks::StoreSession;
use crate::port::image::{Blobs, Export, ExportedImage, ImageError, Opened};
use crate::tree::stored::{StoredBlob, StoredImage, StoredManifest};

/// Blobs of one image that are read at once.
const BLOBS_AT_ONCE: usize = 3;

/// How a source is to be taken in.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// How layers without a manifest are encoded.
    pub encoding: Encoding,
    /// Encodes layers anew although there is a manifest.
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
    /// The configuration's digest, if it is a single container image.
    pub image_id: Option<Digest>,
    /// Bytes of blobs that were read and stored.
    pub stored_bytes: u64,
    pub(crate) pending: Pending,
}

/// Ledger entries to be written once the blocks are durable.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    blobs: Vec<StoredBlob>,
    layers: Vec<(KnownLayer, String)>,
    image: Option<(Digest, String)>,
    /// What layers unpack to that were kept byte for byte.
    unpacked: Vec<KnownLayer>,
}

impl Ingested {
    /// An image that was taken in before.
    pub(crate) fn known(image: StoredImage, image_id: Digest) -> Self {
        Self { image, name: None, image_id: Some(image_id), stored_bytes: 0, pending: Pending::default() }
    }

    /// Remembers what was stored, so that it is read past the next time. To be called when the session is committed.
    pub(crate) async fn remember(&self, ledger: &Ledger) -> Result<(), TransferError> {
        let image = self.pending.image.as_ref().map(|(id, encoding)| (id, encoding.as_str(), &self.image));
        ledger.remember_unpacked(&self.pending.unpacked).await?;
        ledger.remember(&self.pending.blobs, &self.pending.layers, image).await
    }
}

/// What a pipeline writes to and tells.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    ledger: Ledger,
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    events: Emitter,
    options: IngestOptions,
}

impl Intake {
    /// An intake into an open session.
    pub(crate) fn new(ledger: Ledger, session: Arc<dyn StoreSession>, events: Emitter, options: IngestOptions) -> Self {
        Self { ledger, session, totals: Arc::default(), events, options }
    }

    /// Block bytes that were put and were not in the store before.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.totals.get().new_bytes
    }

    /// Takes an opened source in.
    pub(crate) async fn ingest(&self, opened: Opened) -> Result<Ingested, TransferError> {
        match opened {
            Opened::Blobs(blobs) => self.blobs(blobs, &HashMap::new()).await,
            Opened::Export(export) => self.export(export).await,
        }
    }

    /// Keeps everything that the manifests name; `kept` holds blobs that are stored already.
    async fn blobs(
        &self,
        source: Arc<dyn Blobs>,
        kept: &HashMap<Digest, StoredBlob>,
    ) -> Result<Ingested, TransferError> {
        self.events.stage(Stage::Storing).await;
        let tree = read_tree(source.as_ref(), self.options.platform.as_ref()).await?;
        if self.options.recompress {
            return self.recompress(source, tree).await;
        }
        for parsed in &tree.parsed {
            if let Parsed::Manifest(manifest) = parsed {
                check_layer_count(manifest.layers.len())?;
            }
        }
        let stored: Vec<(StoredBlob, bool)> = stream::iter(tree.blobs())
            .map(|descriptor| {
                let source = Arc::clone(&source);
                async move {
                    match kept.get(&descriptor.digest) {
                        Some(blob) if blob.size == descriptor.size => Ok((blob.clone(), true)),
                        _ => self.blob(source.as_ref(), descriptor).await,
                    }
                }
            })
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect()
            .await?;
        let new: Vec<StoredBlob> = stored.iter().filter(|(_, new)| *new).map(|(blob, _)| blob.clone()).collect();
        let image_id = tree.image_id();
        let mut blobs: Vec<StoredBlob> = stored.into_iter().map(|(blob, _)| blob).collect();
        blobs.sort_by_key(|blob| blob.digest);
        let unpacked = diff_ids::check(source.as_ref(), &tree, &blobs, &self.ledger).await?;
        Ok(Ingested {
            image: StoredImage { root: tree.root, manifests: tree.manifests, blobs },
            name: source.name(),
            image_id,
            stored_bytes: new.iter().map(|blob| blob.size).sum(),
            pending: Pending { blobs: new, unpacked, ..Pending::default() },
        })
    }

    /// Keeps one blob byte for byte; whether it had to be stored.
    async fn blob(&self, source: &dyn Blobs, descriptor: Descriptor) -> Result<(StoredBlob, bool), TransferError> {
        let label = descriptor.digest.to_string();
        let digest = descriptor.digest;
        let progress = Progress::start(&self.events, Some(digest), label.clone(), descriptor.size).await;
        if let Some(known) = self.ledger.blob(&digest).await?.filter(|known| known.size == descriptor.size) {
            progress.done(BlobFate::Known).await;
            return Ok((known, false));
        }
        let data = source.blob(&descriptor).await?;
        let mut data = Verified::new(data, digest, descriptor.size, progress.ticker());
        let file = opaque::store(Arc::clone(&self.session), Arc::clone(&self.totals), &label, &mut data).await?;
        progress.done(BlobFate::Stored).await;
        let blob = StoredBlob { digest, size: file.size, cid: file.cid, tsize: file.tsize, encoding: None };
        Ok((blob, true))
    }

    /// Encodes the layers of a single image anew and writes its manifest.
    async fn recompress(&self, source: Arc<dyn Blobs>, tree: ManifestTree) -> Result<Ingested, TransferError> {
        let Some(Parsed::Manifest(manifest)) = tree.parsed.first() else {
            return Err(TransferError::Invalid {
                what: tree.root.digest.to_string(),
                reason: "only one platform can be recompressed; choose it".into(),
            });
        };
        check_layer_count(manifest.layers.len())?;
        let config = read_blob(source.as_ref(), &manifest.config, limits::CONFIG_BYTES).await?;
        let mut layers = Vec::new();
        for descriptor in &manifest.layers {
            let label = descriptor.digest.to_string();
            let progress = Progress::start(&self.events, Some(descriptor.digest), label.clone(), descriptor.size).await;
            let data = source.blob(descriptor).await?;
            let mut data = Verified::new(data, descriptor.digest, descriptor.size, |_| {});
            layers.push((self.encode(&label, &mut data, progress.ticker()).await?, true));
            progress.done(BlobFate::Stored).await;
        }
        self.written(config, layers, source.name()).await
    }

    async fn export(&self, mut export: Box<dyn Export>) -> Result<Ingested, TransferError> {
        self.events.stage(Stage::Exporting).await;
        let mut layers: HashMap<String, (KnownLayer, bool)> = HashMap::new();
        let mut kept: HashMap<Digest, StoredBlob> = HashMap::new();
        let mut kept_keys: HashMap<String, Digest> = HashMap::new();
        let mut first = true;
        while let Some(mut exported) = export.next_layer().await? {
            if std::mem::take(&mut first) {
                self.events.stage(Stage::Storing).await;
            }
            let label = exported.diff_id.or(exported.digest).map_or_else(|| exported.key.clone(), |d| d.to_string());
            let told = exported.diff_id.or(exported.digest);
            let progress = Progress::start(&self.events, told, label.clone(), exported.size).await;
            if let Some(digest) = exported.digest {
                let blob = match self.ledger.blob(&digest).await? {
                    Some(known) => known,
                    None => {
                        let (session, totals) = (Arc::clone(&self.session), Arc::clone(&self.totals));
                        let mut data = Verified::new(exported.data, digest, exported.size, progress.ticker());
                        let file = opaque::store(session, totals, &label, &mut data).await?;
                        StoredBlob { digest, size: file.size, cid: file.cid, tsize: file.tsize, encoding: None }
                    }
                };
                kept_keys.insert(exported.key, digest);
                kept.insert(digest, blob);
                progress.done(BlobFate::Stored).await;
                continue;
            }
            if let Some(diff_id) = exported.diff_id
                && let Some(known) = self.ledger.layer(&diff_id, &self.options.encoding.to_string()).await?
            {
                progress.done(BlobFate::Known).await;
                layers.insert(exported.key, (known, false));
                continue;
            }
            let known = self.encode(&label, &mut exported.data, progress.ticker()).await?;
            if let Some(diff_id) = exported.diff_id.filter(|diff_id| *diff_id != known.diff_id) {
                return Err(mismatch(&label, &diff_id, &known.diff_id));
            }
            progress.done(BlobFate::Stored).await;
            layers.insert(exported.key, (known, true));
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
                let blob = kept.get(digest).expect("kept blobs have their digests");
                let known = self.encode_kept(blob).await?;
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

    /// Writes the manifest of an image whose layers were encoded here.
    async fn written(
        &self,
        config: Bytes,
        layers: Vec<(KnownLayer, bool)>,
        name: Option<String>,
    ) -> Result<Ingested, TransferError> {
        let parsed = parse_config(config.clone()).map_err(|error| TransferError::Invalid {
            what: "the image configuration".into(),
            reason: error.to_string(),
        })?;
        let found: Vec<Digest> = layers.iter().map(|(layer, _)| layer.diff_id).collect();
        if parsed.diff_ids.len() != found.len() {
            return Err(TransferError::Invalid {
                what: "the image".into(),
                reason: format!(
                    "its configuration names {} layers, and there are {}",
                    parsed.diff_ids.len(),
                    found.len()
                ),
            });
        }
        if let Some((expected, found)) = parsed.diff_ids.iter().zip(&found).find(|(expected, found)| expected != found)
        {
            return Err(mismatch("a layer", expected, found));
        }
        let image_id = Digest::sha256(&config);
        let encoding = self.options.encoding;
        let compression = encoding.compression();
        let described = layers.iter().map(|(layer, _)| layer.blob.clone());
        let described = described.map(|blob| CanonicalLayer { compression, digest: blob.digest, size: blob.size });
        let (descriptor, bytes) = canonical_manifest(&config, &described.collect::<Vec<_>>());
        let what = image_id.to_string();
        let mut reader = config.as_ref();
        let file = opaque::store(Arc::clone(&self.session), Arc::clone(&self.totals), &what, &mut reader).await?;
        let config_blob =
            StoredBlob { digest: image_id, size: file.size, cid: file.cid, tsize: file.tsize, encoding: None };
        let mut seen = HashSet::new();
        let mut blobs = vec![config_blob.clone()];
        for (layer, _) in &layers {
            if seen.insert(layer.blob.digest) {
                blobs.push(layer.blob.clone());
            }
        }
        let new: Vec<KnownLayer> = layers.into_iter().filter(|(_, new)| *new).map(|(layer, _)| layer).collect();
        let stored_bytes = config_blob.size + new.iter().map(|layer| layer.blob.size).sum::<u64>();
        let id = encoding.to_string();
        Ok(Ingested {
            image: StoredImage {
                root: descriptor.clone(),
                manifests: vec![StoredManifest { descriptor, bytes }],
                blobs,
            },
            name,
            image_id: Some(image_id),
            stored_bytes,
            pending: Pending {
                blobs: Vec::new(),
                layers: new.into_iter().map(|layer| (layer, id.clone())).collect(),
                image: Some((image_id, id)),
                unpacked: Vec::new(),
            },
        })
    }

    /// Encodes one layer.
    async fn encode(
        &self,
        label: &str,
        data: &mut (dyn AsyncRead + Send + Unpin),
        progress: impl FnMut(u64) + Send,
    ) -> Result<KnownLayer, TransferError> {
        let (session, totals) = (Arc::clone(&self.session), Arc::clone(&self.totals));
        layer::encode(session, totals, label, data, self.options.encoding, progress).await
    }

    /// Encodes a layer that was stored byte for byte.
    async fn encode_kept(&self, blob: &StoredBlob) -> Result<KnownLayer, TransferError> {
        let what = blob.digest.to_string();
        let reader = Reader::local(self.ledger.blocks());
        let window = Window::new(limits::LEAF_BYTES);
        let mut data = File::open(Arc::new(reader), blob.cid, &window).await.map_err(|source| TransferError::Read {
            what: what.clone(),
            kind: source.kind(),
            source: Box::new(source),
        })?;
        self.encode(&what, &mut data, |_| {}).await
    }
}

/// Manifests as they were read from a source.
pub(crate) struct ManifestTree {
    pub(crate) root: Descriptor,
    pub(crate) manifests: Vec<StoredManifest>,
    pub(crate) parsed: Vec<Parsed>,
}

impl ManifestTree {
    /// Every blob that the manifests name, once, by digest.
    pub(crate) fn blobs(&self) -> Vec<Descriptor> {
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for parsed in &self.parsed {
            if let Parsed::Manifest(manifest) = parsed {
                for blob in manifest.blobs() {
                    blobs.entry(blob.digest).or_insert_with(|| blob.clone());
                }
            }
        }
        blobs.into_values().collect()
    }

    /// The configuration's digest if the root is one container image.
    pub(crate) fn image_id(&self) -> Option<Digest> {
        match self.parsed.first() {
            Some(Parsed::Manifest(manifest)) if manifest.is_image() => Some(manifest.config.digest),
            _ => None,
        }
    }
}

/// Reads all manifests below a source's root, and those that refer to them.
pub(crate) async fn read_tree(source: &dyn Blobs, platform: Option<&Platform>) -> Result<ManifestTree, TransferError> {
    let mut root = source.root().clone();
    if let Some(wanted) = platform {
        for _ in 0..limits::INDEX_DEPTH {
            let bytes = read_blob(source, &root, limits::MANIFEST_BYTES).await?;
            match parse(&root, bytes)? {
                Parsed::Manifest(_) => break,
                Parsed::Index(index) => root = choose(&index, wanted)?.clone(),
            }
        }
    }
    let mut seen = HashSet::from([root.digest]);
    let mut queue = std::collections::VecDeque::from([(root.clone(), 0_usize)]);
    let mut tree = ManifestTree { root, manifests: Vec::new(), parsed: Vec::new() };
    let mut referring = Vec::new();
    loop {
        let Some((descriptor, depth)) = queue.pop_front() else {
            // Everything below the root is read; now what refers to it, and what is below that.
            let Some(subject) = referring.pop() else { break };
            for descriptor in source.referrers(&subject).await? {
                if seen.insert(descriptor.digest) {
                    queue.push_back((descriptor, 0));
                }
            }
            continue;
        };
        if depth > limits::INDEX_DEPTH || tree.manifests.len() >= limits::INDEX_NODES {
            let reason = format!(
                "it has more than {} manifests, or is nested deeper than {}",
                limits::INDEX_NODES,
                limits::INDEX_DEPTH
            );
            return Err(TransferError::Invalid { what: tree.root.digest.to_string(), reason });
        }
        let bytes = read_blob(source, &descriptor, limits::MANIFEST_BYTES).await?;
        let parsed = parse(&descriptor, bytes.clone())?;
        if let Parsed::Index(index) = &parsed {
            for child in &index.manifests {
                if seen.insert(child.digest) {
                    queue.push_back((child.clone(), depth + 1));
                }
            }
        }
        referring.push(descriptor.digest);
        tree.manifests.push(StoredManifest { descriptor, bytes });
        tree.parsed.push(parsed);
    }
    Ok(tree)
}

/// Reads a small blob and checks it.
pub(crate) async fn read_blob(source: &dyn Blobs, descriptor: &Descriptor, limit: u64) -> Result<Bytes, TransferError> {
    let what = descriptor.digest.to_string();
    if descriptor.size > limit {
        let reason = format!("it has {} bytes, more than {limit}", descriptor.size);
        return Err(TransferError::Invalid { what, reason });
    }
    let data = source.blob(descriptor).await?;
    let mut out = Vec::new();
    Verified::new(data, descriptor.digest, descriptor.size, |_| {})
        .read_to_end(&mut out)
        .await
        .map_err(|error| TransferError::from_io(what, error))?;
    Ok(out.into())
}

/// Reads a manifest's meaning.
pub(crate) fn parse(descriptor: &Descriptor, bytes: Bytes) -> Result<Parsed, TransferError> {
    parse_manifest(bytes, &descriptor.media_type)
        .map_err(|error| TransferError::Invalid { what: descriptor.digest.to_string(), reason: error.to_string() })
}

/// The entry of an index for a platform.
pub(crate) fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, TransferError> {
    select_platform(index, wanted).ok_or_else(|| TransferError::NoPlatform {
        wanted: wanted.to_string(),
        available: index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref().map(|platform| platform.platform().to_string()))
            .collect(),
    })
}

fn check_layer_count(layers: usize) -> Result<(), TransferError> {
    if layers <= limits::COPY_LAYERS {
        return Ok(());
    }
    Err(TransferError::TooManyLayers { layers, limit: limits::COPY_LAYERS })
}

fn mismatch(what: &str, expected: &Digest, found: &Digest) -> TransferError {
    TransferError::Invalid { what: what.to_owned(), reason: format!("its bytes are {found}, not {expected}") }
}
