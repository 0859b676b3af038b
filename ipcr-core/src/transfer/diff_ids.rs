//! Whether stored layers are those that their configurations name.
//!
//! A layer that is kept byte for byte says nothing about what it unpacks to, and no registry would notice: the first to do so
//! would be an engine that refuses the image, long after it was published. So it is unpacked once, while it is stored
//! ([`Surveys`]) or, if that was long ago, from the store; what came out is remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::error::{TransferError, unpacks_to};
use super::ledger::{KnownLayer, Ledger};
use super::manifests::{ManifestTree, read_blob};
use super::pieces::Pieces;
use super::plain::{Plain, survey};
use crate::digest::{Algorithm, Digest};
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Manifest, Parsed};
use crate::image::media_type;
use crate::limits;
use crate::port::image::Blobs;
use crate::tree::stored::StoredBlob;

/// Layers that are unpacked at once.
const AT_ONCE: usize = 2;
/// Leaves of a layer that wait to be unpacked while it is stored.
const WAITING: usize = 2;

/// What was not known before.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// The layers that were unpacked.
    pub(super) layers: Vec<KnownLayer>,
    /// How many of their bytes, as they are stored, hold what layers had before; `None` if none of them is new.
    pub(super) repeated: Option<u64>,
    /// Bytes of every layer that was looked at once it is decompressed, whether that was known or not.
    plain: HashMap<Digest, u64>,
}

impl Learnt {
    /// Notes at the layers how large they are once they are decompressed.
    pub(super) fn note(&self, blobs: &mut [StoredBlob]) {
        for blob in blobs.iter_mut().filter(|blob| blob.plain().is_none()) {
            blob.plain_size = self.plain.get(&blob.digest).copied();
        }
    }
}

/// The layers of container images, and what their configurations say that they unpack to.
#[derive(Debug)]
pub(super) struct Named(BTreeMap<Digest, (Descriptor, Digest)>);

/// Layers that are being unpacked, by digest.
#[derive(Debug, Default)]
pub(super) struct Surveys(Mutex<HashMap<Digest, AbortOnDropHandle<Result<Plain, TransferError>>>>);

impl Surveys {
    /// Unpacks the blob while it is stored, if it is a layer and nobody knows what it unpacks to. Whoever stores it hands its bytes to the
    /// channel, and verifies them.
    pub(super) async fn begin(
        &self,
        blob: &Digest,
        named: &Named,
        ledger: &Ledger,
    ) -> Result<Option<mpsc::Sender<Bytes>>, TransferError> {
        let Some((_, diff_id)) = named.0.get(blob) else { return Ok(None) };
        if ledger.unpacked(blob).await?.is_some_and(|known| known.blob.plain().is_some()) {
            return Ok(None);
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING);
        let data = stream::unfold(receiver, |mut receiver| async {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(bytes), receiver))
        });
        let (what, algorithm) = (blob.to_string(), diff_id.algorithm());
        // In a task of its own, beside the one that stores.
        let surveyed =
            tokio::spawn(async move { survey(&what, Box::pin(StreamReader::new(Box::pin(data))), algorithm).await });
        let surveyed = AbortOnDropHandle::new(surveyed);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob, surveyed);
        Ok(Some(sender))
    }

    async fn end(&self, blob: &Digest) -> Option<Result<Plain, TransferError>> {
        let surveyed = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(blob)?;
        Some(surveyed.await.unwrap_or(Err(TransferError::Worker { doing: "unpacking layers" })))
    }
}

/// What the configurations of all container images below a root say of their layers.
pub(super) async fn named(source: &dyn Blobs, tree: &ManifestTree) -> Result<Named, TransferError> {
    let mut named: BTreeMap<Digest, (Descriptor, Digest)> = BTreeMap::new();
    for (manifest, parsed) in tree.manifests.iter().zip(&tree.parsed) {
        let Parsed::Manifest(manifest_parsed) = parsed else { continue };
        if !is_unpacked(manifest_parsed) {
            continue;
        }
        for (layer, diff_id) in pairs(source, &manifest.descriptor.digest, manifest_parsed).await? {
            match named.get(&layer.digest) {
                Some((_, other)) if *other != diff_id => return Err(unpacks_to(&layer.digest, other, &diff_id)),
                _ => drop(named.insert(layer.digest, (layer, diff_id))),
            }
        }
    }
    Ok(Named(named))
}

/// Checks layers that are stored. With `pieces` those that are unpacked are compared with what there was before.
pub(super) async fn check(
    named: Named,
    stored: &[StoredBlob],
    surveys: &Surveys,
    ledger: &Ledger,
    pieces: Option<&Pieces>,
) -> Result<Learnt, TransferError> {
    let layers = named.0.into_values().filter_map(|(layer, diff_id)| {
        let blob = stored.iter().find(|blob| blob.digest == layer.digest)?;
        Some((layer, diff_id, blob.clone()))
    });
    let checked = stream::iter(layers).map(|(layer, diff_id, blob)| one(layer, diff_id, blob, surveys, ledger));
    let checked: Vec<Checked> = checked.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut learnt = Learnt::default();
    for checked in checked {
        let Unpacked { layer, plain, again } = match checked {
            Checked::Known(known) => {
                learnt.plain.extend(known.blob.plain().map(|plain| (known.blob.digest, plain)));
                continue;
            }
            Checked::Unpacked(unpacked) => unpacked,
        };
        learnt.plain.insert(layer.blob.digest, plain.size);
        if let (Some(pieces), false) = (pieces, again) {
            // What repeats compresses as well as the rest, for want of better knowledge.
            let repeated = u128::from(pieces.survey(&plain.pieces, &layer.blob.cid).await?);
            let share = repeated * u128::from(layer.blob.size) / u128::from(plain.size.max(1));
            *learnt.repeated.get_or_insert(0) += u64::try_from(share).unwrap_or(layer.blob.size);
        }
        learnt.layers.push(layer);
    }
    Ok(learnt)
}

/// A layer that unpacks to what its configuration names.
enum Checked {
    Known(KnownLayer),
    Unpacked(Unpacked),
}

/// A layer that was unpacked.
struct Unpacked {
    layer: KnownLayer,
    plain: Plain,
    /// Whether that was known, but not how large it is.
    again: bool,
}

/// Whether it is an image that an engine would unpack, and not something else in the clothes of one (a signature, an attestation).
fn is_unpacked(manifest: &Manifest) -> bool {
    let is_layer = |layer: &Descriptor| media_type::layer_compression(&layer.media_type).is_some();
    manifest.is_image() && !manifest.layers.is_empty() && manifest.layers.iter().all(is_layer)
}

/// The layers with their uncompressed digests.
async fn pairs(
    source: &dyn Blobs,
    manifest: &Digest,
    parsed: &Manifest,
) -> Result<Vec<(Descriptor, Digest)>, TransferError> {
    let bytes = read_blob(source, &parsed.config, limits::CONFIG_BYTES).await?;
    let config = parse_config(bytes).map_err(|error| TransferError::Invalid {
        what: parsed.config.digest.to_string(),
        reason: error.to_string(),
    })?;
    let (layers, named) = (parsed.layers.len(), config.diff_ids.len());
    if layers != named {
        let reason = format!("it lists {layers} layers, and its configuration {named}");
        return Err(TransferError::Invalid { what: manifest.to_string(), reason });
    }
    Ok(parsed.layers.iter().cloned().zip(config.diff_ids).collect())
}

/// Unpacks a layer that is stored.
async fn unpack(
    layer: &Digest,
    blob: &StoredBlob,
    algorithm: Algorithm,
    ledger: &Ledger,
) -> Result<Plain, TransferError> {
    let what = layer.to_string();
    let window = Window::new(4 * limits::LEAF_BYTES);
    let data = File::open(Arc::new(Reader::local(ledger.blocks())), blob.cid, &window).await;
    let data =
        data.map_err(|error| TransferError::Read { what: what.clone(), kind: error.kind(), source: Box::new(error) })?;
    survey(&what, Box::pin(data), algorithm).await
}

/// Checks one layer.
async fn one(
    layer: Descriptor,
    diff_id: Digest,
    mut blob: StoredBlob,
    surveys: &Surveys,
    ledger: &Ledger,
) -> Result<Checked, TransferError> {
    let known = ledger.unpacked(&layer.digest).await?;
    let again = known.is_some();
    match known {
        Some(known) if known.diff_id != diff_id => {
            return Err(unpacks_to(&layer.digest, &known.diff_id, &diff_id));
        }
        Some(known) if known.blob.plain().is_some() => return Ok(Checked::Known(known)),
        _ => {}
    }
    let plain = match surveys.end(&layer.digest).await {
        Some(surveyed) => surveyed?,
        None => unpack(&layer.digest, &blob, diff_id.algorithm(), ledger).await?,
    };
    if plain.digest != diff_id {
        return Err(unpacks_to(&layer.digest, &plain.digest, &diff_id));
    }
    blob.plain_size = blob.encoding.is_none().then_some(plain.size);
    let layer = KnownLayer { blob, media_type: layer.media_type, diff_id };
    Ok(Checked::Unpacked(Unpacked { layer, plain, again }))
}
