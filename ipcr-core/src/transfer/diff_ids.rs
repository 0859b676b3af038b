//! Whether stored layers are those that their configurations name.
//!
//! A layer that is kept byte for byte says nothing about what it unpacks to, and no registry would notice: the first to do so
//! would be an engine that refuses the image, long after it was published. So it is unpacked once, when it is stored; what came
//! out is remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::error::{TransferError, unpacks_to};
use super::ledger::{KnownLayer, Ledger};
use super::manifests::{ManifestTree, read_blob};
use super::pieces::Pieces;
use super::plain::{Plain, survey};
use crate::digest::Digest;
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

/// What was not known before.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// The layers that were unpacked.
    pub(super) layers: Vec<KnownLayer>,
    /// How many of their bytes, as they are stored, hold what layers had before.
    pub(super) repeated: u64,
}

/// Checks the layers of all container images below a root. With `pieces` those that are unpacked are compared with what there was
/// before.
pub(super) async fn check(
    source: &dyn Blobs,
    tree: &ManifestTree,
    stored: &[StoredBlob],
    ledger: &Ledger,
    pieces: Option<&Pieces>,
) -> Result<Learnt, TransferError> {
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
    let layers = named.into_values().filter_map(|(layer, diff_id)| {
        let blob = stored.iter().find(|blob| blob.digest == layer.digest)?;
        Some((layer, diff_id, blob.clone()))
    });
    let checked = stream::iter(layers).map(|(layer, diff_id, blob)| one(layer, diff_id, blob, ledger));
    let checked: Vec<Option<Unpacked>> = checked.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut learnt = Learnt::default();
    for Unpacked { layer, plain } in checked.into_iter().flatten() {
        if let Some(pieces) = pieces {
            // What repeats compresses as well as the rest, for want of better knowledge.
            let repeated = u128::from(pieces.survey(&plain.pieces, &layer.blob.cid).await?);
            let share = repeated * u128::from(layer.blob.size) / u128::from(plain.size.max(1));
            learnt.repeated += u64::try_from(share).unwrap_or(layer.blob.size);
        }
        learnt.layers.push(layer);
    }
    Ok(learnt)
}

/// A layer that was unpacked.
struct Unpacked {
    layer: KnownLayer,
    plain: Plain,
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

/// Checks one layer; what it is, if that was not known.
async fn one(
    layer: Descriptor,
    diff_id: Digest,
    blob: StoredBlob,
    ledger: &Ledger,
) -> Result<Option<Unpacked>, TransferError> {
    if let Some(known) = ledger.unpacked(&layer.digest).await? {
        return if known == diff_id { Ok(None) } else { Err(unpacks_to(&layer.digest, &known, &diff_id)) };
    }
    let what = layer.digest.to_string();
    let window = Window::new(4 * limits::LEAF_BYTES);
    let data = File::open(Arc::new(Reader::local(ledger.blocks())), blob.cid, &window).await;
    let data =
        data.map_err(|error| TransferError::Read { what: what.clone(), kind: error.kind(), source: Box::new(error) })?;
    let plain = survey(&what, Box::pin(data), diff_id.algorithm()).await?;
    if plain.digest != diff_id {
        return Err(unpacks_to(&layer.digest, &plain.digest, &diff_id));
    }
    Ok(Some(Unpacked { layer: KnownLayer { blob, media_type: layer.media_type, diff_id }, plain }))
}
