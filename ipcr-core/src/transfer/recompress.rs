//! Encoding the layers of a source with manifests anew: `push --recompress`.
//!
//! Every container image below the root gets the manifest that ipcr would write for it, and every index above one the new
//! digests; nothing else about an index changes. What says something about a manifest whose digest is no longer there
//! (referrers, attestations beside an image in its index) is left out, because it would speak of nothing. What holds no
//! layers of a file system, or layers that must not be handed on, stays as it is.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::error::TransferError;
use super::ingest::{Ingested, Intake, Kept, Pending, Taken};
use super::layer::LAYERS;
use super::ledger::KnownLayer;
use super::manifests::{ManifestTree, read_blob};
use super::progress::Progress;
use super::verify::Verified;
use crate::digest::Digest;
use crate::event::{BlobFate, Warning};
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Index, Manifest, Parsed};
use crate::image::media_type::{self, OCI_INDEX};
use crate::limits;
use crate::port::image::Blobs;
use crate::tree::stored::{StoredBlob, StoredImage, StoredManifest};

/// The annotation by which build tools bind an attestation to an image beside it in an index (`BuildKit`, "Image attestation
/// storage").
const ATTESTED: &str = "vnd.docker.reference.digest";

/// Whether all layers of a manifest are ones that can be encoded anew.
pub(crate) fn is_recompressible(manifest: &Manifest) -> bool {
    let layer = |kind: &str| media_type::layer_compression(kind).is_some() && !media_type::is_nondistributable(kind);
    manifest.is_image() && manifest.layers.iter().all(|descriptor| layer(&descriptor.media_type))
}

/// Manifests by their digests.
type Documents<'a> = HashMap<Digest, (&'a StoredManifest, &'a Parsed)>;

/// What becomes of the manifests.
#[derive(Default)]
struct Rewritten {
    /// By the digest that it had.
    manifests: HashMap<Digest, StoredManifest>,
    blobs: BTreeMap<Digest, StoredBlob>,
    new_blobs: Vec<StoredBlob>,
    new_layers: Vec<KnownLayer>,
    stored_bytes: u64,
    /// Manifests that were left out.
    left_out: u64,
}

impl Rewritten {
    fn changed(&self, digest: &Digest) -> bool {
        self.manifests.get(digest).is_some_and(|now| now.descriptor.digest != *digest)
    }
}

impl Intake {
    /// Takes a source in with all layers encoded as the options say.
    pub(super) async fn recompress(
        &self,
        source: &dyn Blobs,
        tree: ManifestTree,
        kept: &Kept,
    ) -> Result<Ingested, TransferError> {
        let below = tree.below_root();
        let parsed: Documents<'_> = tree
            .manifests
            .iter()
            .zip(&tree.parsed)
            .map(|(stored, parsed)| (stored.descriptor.digest, (stored, parsed)))
            .collect();
        let mut now = Rewritten::default();
        for (stored, parsed) in tree.manifests.iter().zip(&tree.parsed) {
            if let Parsed::Manifest(manifest) = parsed
                && below.contains(&stored.descriptor.digest)
                && is_recompressible(manifest)
            {
                self.image(source, stored, manifest, kept, &mut now).await?;
            }
        }
        rewrite_below(&tree.root.digest, &parsed, &mut HashSet::new(), &mut now)?;
        let gone = |subject: &Digest| now.changed(subject);
        let mut remaining = reachable(&tree, &parsed, &now);
        let mut referrers = Vec::new();
        for (stored, parsed) in tree.manifests.iter().zip(&tree.parsed) {
            let digest = stored.descriptor.digest;
            if below.contains(&digest) || remaining.contains(&digest) {
                continue;
            }
            let Some(subject) = parsed.subject() else { continue };
            if !gone(&subject.digest) && remaining.contains(&subject.digest) {
                remaining.insert(digest);
                if let Parsed::Index(index) = parsed {
                    remaining.extend(index.manifests.iter().map(|child| child.digest));
                }
            } else {
                referrers.push(digest);
            }
        }
        now.left_out += u64::try_from(referrers.len()).unwrap_or(u64::MAX);
        self.assembled(source, &tree, remaining, now, kept).await
    }

    /// Encodes the layers of one image.
    async fn image(
        &self,
        source: &dyn Blobs,
        stored: &StoredManifest,
        manifest: &Manifest,
        kept: &Kept,
        now: &mut Rewritten,
    ) -> Result<(), TransferError> {
        let config = read_blob(source, &manifest.config, limits::CONFIG_BYTES).await?;
        let diff_ids = parse_config(config.clone()).map(|config| config.diff_ids).unwrap_or_default();
        let encoding = self.options.encoding.to_string();
        let (mut layers, mut in_work) = (Vec::new(), VecDeque::new());
        for (at, descriptor) in manifest.layers.iter().enumerate() {
            let label = descriptor.digest.to_string();
            let progress = Progress::start(&self.events, Some(descriptor.digest), label.clone(), descriptor.size).await;
            let earlier = now.new_layers.iter().find(|layer| diff_ids.get(at) == Some(&layer.diff_id)).cloned();
            let known = match (earlier, diff_ids.get(at)) {
                (None, Some(diff_id)) => self.ledger.layer(diff_id, &encoding).await?,
                (earlier, _) => earlier,
            };
            if let Some(known) = known {
                progress.done(BlobFate::Known).await;
                layers.push(Some((known, false)));
                continue;
            }
            let mut data = match kept.get(&descriptor.digest) {
                Some((blob, _)) => self.open_kept(blob).await?,
                None => {
                    let data = source.blob(descriptor).await?;
                    Box::pin(Verified::new(data, descriptor.digest, descriptor.size, |_| {}))
                }
            };
            in_work.push_back((layers.len(), self.take(label, diff_ids.get(at).copied(), &mut data, progress).await?));
            layers.push(None);
            while in_work.len() >= LAYERS || in_work.front().is_some_and(|(_, taken)| taken.is_done()) {
                settle(&mut in_work, &mut layers, now).await?;
            }
        }
        while !in_work.is_empty() {
            settle(&mut in_work, &mut layers, now).await?;
        }
        let layers = layers.into_iter().flatten().collect();
        let mut written = self.write_manifest(config, layers).await?;
        now.stored_bytes += written.stored_bytes;
        now.new_blobs.extend(written.new_config);
        now.blobs.extend(written.blobs.into_iter().map(|blob| (blob.digest, blob)));
        let descriptor = &mut written.manifest.descriptor;
        descriptor.platform.clone_from(&stored.descriptor.platform);
        descriptor.annotations.clone_from(&stored.descriptor.annotations);
        now.manifests.insert(stored.descriptor.digest, written.manifest);
        Ok(())
    }

    /// Puts the image together, with what stays as it is.
    async fn assembled(
        &self,
        source: &dyn Blobs,
        tree: &ManifestTree,
        remaining: HashSet<Digest>,
        mut now: Rewritten,
        kept: &Kept,
    ) -> Result<Ingested, TransferError> {
        let root = now.manifests.get(&tree.root.digest).map_or(&tree.root, |manifest| &manifest.descriptor).clone();
        if root.digest != tree.root.digest {
            let (from, to) = (tree.root.digest, root.digest);
            self.events.warn(Warning::Recompressed { from, to, left_out: now.left_out }).await;
        }
        let mut manifests = Vec::new();
        let mut unchanged = BTreeMap::new();
        for (stored, parsed) in tree.manifests.iter().zip(&tree.parsed) {
            if !remaining.contains(&stored.descriptor.digest) {
                continue;
            }
            if let Some(manifest) = now.manifests.remove(&stored.descriptor.digest) {
                manifests.push(manifest);
                continue;
            }
            manifests.push(stored.clone());
            if let Parsed::Manifest(manifest) = parsed {
                unchanged.extend(manifest.blobs().map(|blob| (blob.digest, blob.clone())));
            }
        }
        unchanged.retain(|digest, _| !now.blobs.contains_key(digest));
        for (blob, new) in self.keep(source, unchanged.into_values().collect(), kept, None).await? {
            if new {
                now.stored_bytes += blob.size;
                now.new_blobs.push(blob.clone());
            }
            now.blobs.insert(blob.digest, blob);
        }
        let image_id = tree.image_id(source).await?;
        let id = self.options.encoding.to_string();
        let alone =
            manifests.len() == 1 && matches!(&tree.parsed[0], Parsed::Manifest(image) if is_recompressible(image));
        Ok(Ingested {
            image: StoredImage { root, manifests, blobs: now.blobs.into_values().collect() },
            name: source.name(),
            ref_name: source.ref_name(),
            image_id,
            stored_bytes: now.stored_bytes,
            repeated: None,
            pending: Pending {
                blobs: now.new_blobs,
                layers: now.new_layers.into_iter().map(|layer| (layer, id.clone())).collect(),
                image: image_id.filter(|_| alone).map(|image_id| (image_id, id)),
                unpacked: Vec::new(),
                pieces: self.workshop.pieces().take_new(),
            },
        })
    }
}

/// Waits for the layer that was begun first.
async fn settle(
    in_work: &mut VecDeque<(usize, Taken)>,
    layers: &mut [Option<(KnownLayer, bool)>],
    now: &mut Rewritten,
) -> Result<(), TransferError> {
    if let Some((at, taken)) = in_work.pop_front() {
        let layer = taken.finish().await?;
        now.new_layers.push(layer.clone());
        layers[at] = Some((layer, true));
    }
    Ok(())
}

/// What the new root leads to, by the digests that it had.
fn reachable(tree: &ManifestTree, parsed: &Documents<'_>, now: &Rewritten) -> HashSet<Digest> {
    let mut reached = HashSet::new();
    let mut todo = vec![tree.root.digest];
    while let Some(digest) = todo.pop() {
        if reached.insert(digest)
            && let Some((_, Parsed::Index(index))) = parsed.get(&digest)
        {
            todo.extend(index.manifests.iter().filter(|child| stays(child, now)).map(|child| child.digest));
        }
    }
    reached
}

/// Whether an entry of an index stays: not if it attests to what is no longer there.
fn stays(entry: &Descriptor, now: &Rewritten) -> bool {
    let attested = entry.annotations.get(ATTESTED).and_then(|text| text.parse().ok());
    attested.is_none_or(|digest: Digest| !now.changed(&digest))
}

/// Puts new digests into an index and those below it, the lowest first.
fn rewrite_below(
    digest: &Digest,
    documents: &Documents<'_>,
    done: &mut HashSet<Digest>,
    now: &mut Rewritten,
) -> Result<(), TransferError> {
    if let Some((stored, Parsed::Index(index))) = documents.get(digest)
        && done.insert(*digest)
    {
        for child in &index.manifests {
            rewrite_below(&child.digest, documents, done, now)?;
        }
        rewrite(stored, index, now)?;
    }
    Ok(())
}

/// Puts new digests into an index, and keeps everything else about it.
fn rewrite(stored: &StoredManifest, index: &Index, now: &mut Rewritten) -> Result<(), TransferError> {
    if index.manifests.iter().all(|child| stays(child, now) && !now.changed(&child.digest)) {
        return Ok(());
    }
    let invalid = |error: serde_json::Error| TransferError::Invalid {
        what: stored.descriptor.digest.to_string(),
        reason: error.to_string(),
    };
    let mut document: Value = serde_json::from_slice(&stored.bytes).map_err(invalid)?;
    if document.get("mediaType").is_some() {
        document["mediaType"] = OCI_INDEX.into();
    }
    let entries = document["manifests"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let before = entries.len();
    let entries: Vec<Value> = entries
        .into_iter()
        .zip(&index.manifests)
        .filter(|(_, child)| stays(child, now))
        .map(|(mut entry, child)| {
            if let Some(changed) = now.manifests.get(&child.digest) {
                let descriptor = &changed.descriptor;
                entry["mediaType"] = descriptor.media_type.clone().into();
                entry["digest"] = descriptor.digest.to_string().into();
                entry["size"] = descriptor.size.into();
                // A copy of the manifest that it had.
                entry.as_object_mut().and_then(|entry| entry.remove("data"));
            }
            entry
        })
        .collect();
    now.left_out += u64::try_from(before - entries.len()).unwrap_or(u64::MAX);
    document["manifests"] = entries.into();
    let bytes = serde_json::to_vec(&document).map_err(invalid)?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let descriptor = Descriptor {
        media_type: OCI_INDEX.to_owned(),
        digest: Digest::sha256(&bytes),
        size,
        ..stored.descriptor.clone()
    };
    now.manifests.insert(stored.descriptor.digest, StoredManifest { descriptor, bytes: bytes.into() });
    Ok(())
}
