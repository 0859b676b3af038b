//! From a source with manifests into a sink: [`Delivery`].
//!
//! Manifests come first and decide what is needed; then every blob that the sink asks for passes once, in the sink's order,
//! verified on the way, while the next ones are being opened. A sink never sees the end of a blob whose bytes are wrong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio_util::task::AbortOnDropHandle;

use super::error::{TransferError, check_platform, unpacks_to};
use super::manifests::{ManifestTree, for_platform, parse, read_blob, read_tree, too_large};
use super::plain::measure;
use super::progress::Progress;
use super::verify::Verified;
use crate::dag::compression::Compression;
use crate::digest::{Algorithm, Digest};
use crate::event::{BlobFate, Emitter, Stage, Warning};
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Manifest, Parsed};
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::kind::ErrorKind;
use crate::limits;
use crate::media::archive::unpack::unpacked;
use crate::port::blocks::StoreSession;
use crate::port::engine::EngineError;
use crate::port::image::{
    Abilities, Blobs, ByteStream, Delivered, Form, ImageError, ImagePart, ImageParts, ImageSink, Need,
};
use crate::tree::stored::StoredManifest;

/// Blobs that are opened ahead of the one that is being written.
const AHEAD: usize = 3;
/// How long it is waited for what a source says of the sizes of its layers, which can be done without.
const SIZES: Duration = Duration::from_secs(5);
/// How many times its compressed size a layer is believed to have at most, and the size up to which every claim is.
const RATIO: u64 = 1 << 14;
const SMALL: u64 = 1 << 30;

/// What is to be delivered, and how.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) source: Arc<dyn Blobs>,
    pub(crate) sink: Box<dyn ImageSink>,
    /// The platform that was asked for.
    pub(crate) platform: Option<Platform>,
    /// How much of an index.
    pub(crate) extent: Extent,
    /// The image's name in the sink.
    pub(crate) name: Option<String>,
    /// Where what is fetched on the way is kept.
    pub(crate) keep: Option<Arc<dyn StoreSession>>,
    pub(crate) events: Emitter,
}

/// How much of what the source's name stands for is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// One platform's manifest.
    One,
    /// Everything below the root, and what refers to it; an index is refused by a sink that takes one platform only.
    Everything,
    /// Everything, or one platform's manifest where the sink takes no more.
    AsMuchAsFits,
}

/// What was delivered.
#[derive(Clone, Debug)]
pub(crate) struct DeliverySummary {
    /// What was delivered: the source's root, or one platform's manifest below it.
    pub(crate) delivered_digest: Digest,
    /// What the source's name stands for.
    pub(crate) root: Descriptor,
    /// The manifest, when one was delivered.
    pub(crate) manifest: Option<Digest>,
    /// Its platform.
    pub(crate) platform: Option<String>,
    /// The configuration's digest, when one container image was delivered.
    pub(crate) image_id: Option<Digest>,
    /// Bytes of all blobs and manifests of what was delivered, whether the sink had them or not.
    pub(crate) image_bytes: u64,
    /// What the sink says.
    pub(crate) delivered: Delivered,
}

impl Delivery {
    /// Does it.
    pub(crate) async fn run(mut self) -> Result<DeliverySummary, TransferError> {
        let abilities = self.sink.abilities().await?;
        let root = self.source.root().clone();
        let tree = self.tree(&abilities).await?;
        // Side by side: over a long line each is a way there and back.
        let sizes = async { Ok(self.plain_sizes().await) };
        let ((images, absent), mut plain_sizes) = tokio::try_join!(self.images(&tree, &abilities), sizes)?;
        if abilities.keeps_digests {
            plain_sizes.clear();
        }
        retain_credible(&mut plain_sizes, &images);
        let single = match &tree.parsed[..] {
            [Parsed::Manifest(manifest)] => Some((manifest.is_image(), images[0].config.clone())),
            _ => None,
        };
        let platform = match &single {
            Some((true, (_, config))) => {
                parse_config(config.clone()).ok().map(|config| config.platform).filter(Platform::is_known)
            }
            _ => None,
        };
        self.check_platform(platform.as_ref(), &abilities).await?;
        let parts = ImageParts {
            root: tree.root.clone(),
            name: self.name.clone(),
            manifests: tree.manifests.iter().map(|m| (m.descriptor.clone(), m.bytes.clone())).collect(),
            images,
            absent,
            plain_sizes,
        };
        let blobs = all_blobs(&parts);
        let manifest_bytes: u64 = tree.manifests.iter().map(|manifest| manifest.descriptor.size).sum();
        let needs = self.sink.plan(&parts).await?;
        let mut handed = Vec::new();
        let source = Arc::clone(&self.source);
        let handed_over = async {
            match self.write(&parts, needs, &blobs, &mut handed).await {
                Err(error) if error.kind() == ErrorKind::Engine && self.sink.take_another_way() => {
                    tracing::debug!(%error, "the engine is handed the image in another way");
                    handed.clear();
                    let needs = self.sink.plan(&parts).await?;
                    self.write(&parts, needs, &blobs, &mut handed).await?;
                }
                written => written?,
            }
            self.events.stage(Stage::Loading).await;
            // An engine looks at what it got only now, for seconds; meanwhile the disk works for what was fetched.
            let keep = self.keep.take();
            let commit = async {
                match &keep {
                    Some(session) => session.commit().await,
                    None => Ok(()),
                }
            };
            let (delivered, committed) = tokio::join!(self.sink.finish(), commit);
            let delivered = delivered?;
            committed?;
            Ok(delivered)
        };
        let delivered = match handed_over.await {
            Err(error) if is_refusal(&error) => {
                return Err(reason(source.as_ref(), &handed, &parts).await.unwrap_or(error));
            }
            delivered => delivered?,
        };
        Ok(DeliverySummary {
            delivered_digest: tree.root.digest,
            root,
            manifest: (tree.manifests.len() == 1).then_some(tree.root.digest),
            platform: platform.map(|platform| platform.to_string()),
            image_id: single.filter(|(image, _)| *image).map(|(_, (_, config))| Digest::sha256(&config)),
            image_bytes: manifest_bytes
                .saturating_add(blobs.values().fold(0, |sum: u64, blob| sum.saturating_add(blob.size))),
            delivered,
        })
    }

    /// How large the layers are once they are decompressed, as far as the source says so. Also read for sinks that do not need it: so
    /// whoever gets the image from here gets that, too.
    async fn plain_sizes(&self) -> HashMap<Digest, u64> {
        match tokio::time::timeout(SIZES, self.source.plain_sizes()).await {
            Ok(Ok(sizes)) => sizes,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the sizes of the layers could not be read");
                HashMap::new()
            }
            Err(_) => {
                tracing::debug!("the sizes of the layers did not come in time");
                HashMap::new()
            }
        }
    }

    /// The images of the manifests, and their layers that must not be handed on and that the source does not have.
    async fn images(
        &self,
        tree: &ManifestTree,
        abilities: &Abilities,
    ) -> Result<(Vec<ImagePart>, HashSet<Digest>), TransferError> {
        let (mut images, mut absent) = (Vec::new(), HashSet::new());
        let mut documents: u64 = tree.manifests.iter().map(|manifest| manifest.descriptor.size).sum();
        for (manifest, parsed) in tree.manifests.iter().zip(&tree.parsed) {
            if let Parsed::Manifest(image) = parsed {
                documents = documents.saturating_add(image.config.size);
                if documents > limits::IMAGE_DOCUMENT_BYTES {
                    return Err(too_large(&tree.root));
                }
                images.push(self.part(manifest, image, abilities).await?);
                self.look_for(&image.layers, &mut absent).await?;
            }
        }
        Ok((images, absent))
    }

    async fn tree(&self, abilities: &Abilities) -> Result<ManifestTree, TransferError> {
        match self.extent {
            Extent::One => self.one(abilities).await,
            Extent::Everything | Extent::AsMuchAsFits if abilities.indexes => {
                read_tree(self.source.as_ref(), None).await
            }
            Extent::Everything if media_type::is_index(&self.source.root().media_type) => Err(ImageError::Unfit {
                place: self.sink.describe(),
                reason: "it takes one platform only".into(),
                kind: ErrorKind::Usage,
            }
            .into()),
            Extent::Everything | Extent::AsMuchAsFits => self.one(abilities).await,
        }
    }

    /// The manifest of one platform, without referrers.
    async fn one(&self, abilities: &Abilities) -> Result<ManifestTree, TransferError> {
        let wanted = self.platform.clone().or_else(|| abilities.platform.clone()).unwrap_or_else(Platform::host);
        let root = for_platform(self.source.as_ref(), &wanted).await?;
        let bytes = read_blob(self.source.as_ref(), &root, limits::MANIFEST_BYTES).await?;
        let parsed = parse(&root, bytes.clone())?;
        let manifests = vec![StoredManifest { descriptor: root.clone(), bytes }];
        Ok(ManifestTree { root, manifests, parsed: vec![parsed] })
    }

    /// Finds out which layers that must not be handed on the source does not have.
    async fn look_for(&self, layers: &[Descriptor], absent: &mut HashSet<Digest>) -> Result<(), TransferError> {
        for layer in layers.iter().filter(|layer| media_type::is_nondistributable(&layer.media_type)) {
            match self.source.blob(layer).await {
                Ok(_) => {}
                Err(ImageError::NoBlob { .. }) => drop(absent.insert(layer.digest)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn part(
        &self,
        stored: &StoredManifest,
        manifest: &Manifest,
        abilities: &Abilities,
    ) -> Result<ImagePart, TransferError> {
        if manifest.layers.len() > abilities.layers {
            return Err(TransferError::TooManyLayers { layers: manifest.layers.len(), limit: abilities.layers });
        }
        let config = read_blob(self.source.as_ref(), &manifest.config, limits::CONFIG_BYTES).await?;
        let diff_ids = if manifest.is_image() {
            let parsed = parse_config(config.clone()).map_err(|error| TransferError::Invalid {
                what: manifest.config.digest.to_string(),
                reason: error.to_string(),
            })?;
            if parsed.diff_ids.len() != manifest.layers.len() {
                return Err(TransferError::Invalid {
                    what: stored.descriptor.digest.to_string(),
                    reason: format!(
                        "it lists {} layers, and its configuration {}",
                        manifest.layers.len(),
                        parsed.diff_ids.len()
                    ),
                });
            }
            parsed.diff_ids
        } else if abilities.keeps_digests {
            Vec::new()
        } else {
            return Err(ImageError::Unfit {
                place: self.sink.describe(),
                reason: "this is no container image but another artifact".into(),
                kind: ErrorKind::Usage,
            }
            .into());
        };
        Ok(ImagePart {
            manifest: stored.descriptor.digest,
            config: (manifest.config.clone(), config),
            layers: manifest.layers.clone(),
            diff_ids,
        })
    }

    /// A single image is delivered whatever its platform is, unless one was asked for.
    async fn check_platform(&self, found: Option<&Platform>, abilities: &Abilities) -> Result<(), TransferError> {
        let Some(found) = found else { return Ok(()) };
        if let Some(wanted) = &self.platform {
            if self.extent != Extent::Everything {
                check_platform(found, Some(wanted))?;
            }
        } else if let Some(runs) = &abilities.platform
            && (found.os != runs.os || found.architecture != runs.architecture)
        {
            let message = format!("the image is for {found}, and {} runs {runs}", self.sink.describe());
            self.events.warn(Warning::Other { message }).await;
        }
        Ok(())
    }

    /// Hands over what is needed, in order, and notes what the sink has got.
    async fn write(
        &mut self,
        parts: &ImageParts,
        needs: Vec<Need>,
        blobs: &HashMap<Digest, Descriptor>,
        handed: &mut Vec<Descriptor>,
    ) -> Result<(), TransferError> {
        self.events.stage(Stage::Fetching).await;
        let needed: HashSet<Digest> = needs.iter().map(|need| need.blob.digest).collect();
        for (digest, blob) in blobs.iter().filter(|(digest, _)| !needed.contains(digest)) {
            let progress = Progress::start(&self.events, Some(*digest), digest.to_string(), blob.size).await;
            progress.done(BlobFate::Present).await;
        }
        let diff_ids = diff_ids(parts);
        let mut waiting: VecDeque<Need> = needs.into();
        let mut opened: FuturesOrdered<AbortOnDropHandle<_>> = FuturesOrdered::new();
        let mut passing = Vec::new();
        loop {
            while opened.len() <= AHEAD {
                let Some(need) = waiting.pop_front() else { break };
                let source = Arc::clone(&self.source);
                // In tasks of their own: nobody asks after them while a blob is being written.
                opened.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    let data = source.blob(&need.blob).await;
                    (need, data)
                })));
            }
            let Some(next) = opened.next().await else {
                told(&mut passing, true).await;
                return Ok(());
            };
            let (need, data) = next.map_err(|_| TransferError::Worker { doing: "opening blobs" })?;
            let (digest, size) = (need.blob.digest, need.blob.size);
            let progress = Progress::start(&self.events, Some(digest), digest.to_string(), size).await;
            let ticks = progress.ticker();
            let data: ByteStream = Box::pin(Verified::new(data?, digest, size, ticks));
            let (size, data): (u64, ByteStream) = match need.form {
                Form::Plain if !is_plain(&need.blob.media_type) => {
                    // Archives need the size before the bytes, so layers of unknown size are read twice.
                    if let Some((size, diff_id)) = parts.plain_sizes.get(&digest).zip(diff_ids.get(&digest)) {
                        (*size, Box::pin(Verified::plain(unpacked(data), &digest, *diff_id, *size)))
                    } else {
                        let algorithm = diff_ids.get(&digest).map_or(Algorithm::Sha256, Digest::algorithm);
                        let (size, check) = measure(&digest.to_string(), data, algorithm).await?;
                        if let Some(expected) = diff_ids.get(&digest).filter(|expected| **expected != check) {
                            return Err(unpacks_to(&digest, &check, expected));
                        }
                        let again = self.source.blob(&need.blob).await?;
                        (size, Box::pin(Verified::new(unpacked(again), check, size, |_| {})))
                    }
                }
                _ => (size, data),
            };
            let (data, ended) = Ending::of(data);
            self.sink.write(&need, size, data).await?;
            passing.push((progress, ended));
            told(&mut passing, false).await;
            handed.push(need.blob);
        }
    }
}

/// A blob on its way that says when its end has been read: sinks may go on with the next one before.
struct Ending {
    data: ByteStream,
    ended: Option<oneshot::Sender<()>>,
}

impl Ending {
    fn of(data: ByteStream) -> (ByteStream, oneshot::Receiver<()>) {
        let (ended, told) = oneshot::channel();
        (Box::pin(Self { data, ended: Some(ended) }), told)
    }
}

impl AsyncRead for Ending {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.data.as_mut().poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            let _ = self.ended.take().map(|ended| ended.send(()));
        }
        Poll::Ready(Ok(()))
    }
}

/// Tells of the blobs that nobody reads any more; with `all`, once that is so of all.
async fn told(passing: &mut Vec<(Progress, oneshot::Receiver<()>)>, all: bool) {
    let mut left = Vec::new();
    for (progress, mut ended) in passing.drain(..) {
        // A sink that had the blob already need not have read it to its end.
        if all {
            let _ = (&mut ended).await;
        } else if ended.try_recv() == Err(TryRecvError::Empty) {
            left.push((progress, ended));
            continue;
        }
        progress.done(BlobFate::Delivered).await;
    }
    *passing = left;
}

/// Leaves only sizes that layers of the images can have. What an archive cannot express is no such size.
fn retain_credible(plain_sizes: &mut HashMap<Digest, u64>, images: &[ImagePart]) {
    let layers = images.iter().flat_map(|image| &image.layers);
    let sizes: HashMap<Digest, u64> = layers.map(|layer| (layer.digest, layer.size)).collect();
    let most = |size: &u64| size.saturating_mul(RATIO).clamp(SMALL, i64::MAX.unsigned_abs());
    plain_sizes.retain(|layer, plain| sizes.get(layer).is_some_and(|size| *plain <= most(size)));
}

/// Whether an engine took everything and then did not want it.
fn is_refusal(error: &TransferError) -> bool {
    matches!(error, TransferError::Image(ImageError::Mismatch { .. } | ImageError::Engine(EngineError::Refused { .. })))
}

/// Why an engine refused what it was handed, if the image itself is to blame: engines are the first to unpack layers that are
/// passed on as they are.
async fn reason(source: &dyn Blobs, handed: &[Descriptor], parts: &ImageParts) -> Option<TransferError> {
    let diff_ids = diff_ids(parts);
    for layer in handed {
        let Some(expected) = diff_ids.get(&layer.digest) else { continue };
        let data = source.blob(layer).await.ok()?;
        match measure(&layer.digest.to_string(), data, expected.algorithm()).await {
            Ok((_, found)) if found == *expected => {}
            Ok((_, found)) => return Some(unpacks_to(&layer.digest, &found, expected)),
            Err(error) if error.kind() == ErrorKind::Integrity => return Some(error),
            Err(_) => return None,
        }
    }
    None
}

/// Whether a layer of this type is not compressed.
fn is_plain(media_type: &str) -> bool {
    media_type::layer_compression(media_type) == Some(Compression::None)
}

/// Every blob of what is delivered, once.
fn all_blobs(parts: &ImageParts) -> HashMap<Digest, Descriptor> {
    let blobs = parts.images.iter().flat_map(|image| image.layers.iter().chain([&image.config.0]));
    let present = blobs.filter(|blob| !parts.absent.contains(&blob.digest));
    present.map(|blob| (blob.digest, blob.clone())).collect()
}

/// The uncompressed digest of each layer.
fn diff_ids(parts: &ImageParts) -> HashMap<Digest, Digest> {
    let pairs = parts.images.iter().flat_map(|image| image.layers.iter().zip(&image.diff_ids));
    pairs.map(|(layer, diff_id)| (layer.digest, *diff_id)).collect()
}

#[cfg(test)]
mod tests;
