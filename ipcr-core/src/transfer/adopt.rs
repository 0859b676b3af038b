//! Taking over an image of a registry as it lies there: [`adopt`].

use std::collections::BTreeMap;
use std::sync::Arc;

use cid::Cid;

use super::diff_ids::{self, Surveys};
use super::error::TransferError;
use super::folder::Home;
use super::ledger::{KnownLayer, Ledger};
use super::manifests::{ManifestTree, read_blob, read_tree};
use super::verify::Verified;
use crate::digest::Digest;
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::walk::fetch_all;
use crate::exchange::window::Window;
use crate::image::config::parse_config;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Manifest, Parsed};
use crate::image::media_type;
use crate::limits;
use crate::port::image::Blobs;
use crate::tree::error::TreeError;
use crate::tree::layout::Layout;
use crate::tree::read;
use crate::tree::stored::{StoredBlob, StoredImage};

/// Bytes of blocks in flight while an image is fetched.
const IN_FLIGHT: usize = 32 << 20;
/// What the nodes of a file may have beside an eighth of its bytes.
const NODES: u64 = 16 << 20;

/// The files of a folder, with everything below them, as an image of one's own. What is missing here is fetched and kept by the
/// reader. What this home has not verified before is held against its digests, for from now on it vouches for them; also what layers
/// unpack to that were not known.
///
/// `source` is the same folder as a source, from which the manifests are read.
pub(crate) async fn adopt(
    source: &dyn Blobs,
    layout: &Layout,
    home: Option<&Home>,
    reader: &Reader,
    ledger: &Ledger,
) -> Result<(StoredImage, Vec<KnownLayer>), TransferError> {
    let tree = read_tree(source, None).await?;
    // Referrers lie in folders of their own and stay where they are.
    let own = |digest: &Digest| {
        tree.parsed.iter().zip(&tree.manifests).all(|(parsed, stored)| {
            stored.descriptor.digest != *digest || parsed.subject().is_none() || *digest == tree.root.digest
        })
    };
    let own_layers = match home {
        Some(home) => own_layers(source, home, &tree, reader, ledger).await?,
        None => BTreeMap::new(),
    };
    let mut blobs: BTreeMap<Digest, StoredBlob> = BTreeMap::new();
    let mut manifests = Vec::new();
    for (stored, parsed) in tree.manifests.iter().zip(&tree.parsed) {
        if !own(&stored.descriptor.digest) {
            continue;
        }
        manifests.push(stored.clone());
        let Parsed::Manifest(manifest) = parsed else { continue };
        for descriptor in manifest.blobs() {
            if blobs.contains_key(&descriptor.digest) {
                continue;
            }
            let found =
                layout.blob(reader, &descriptor.digest).await.map_err(|error| failed(&descriptor.digest, error))?;
            let Some(file) = found else {
                if media_type::is_nondistributable(&descriptor.media_type) {
                    continue;
                }
                return Err(TransferError::Missing { digest: descriptor.digest });
            };
            let what = descriptor.digest.to_string();
            if file.size != descriptor.size {
                let reason = format!("its file has {} bytes, and its descriptor says {}", file.size, descriptor.size);
                return Err(TransferError::Invalid { what, reason });
            }
            // Nodes are a small part of a file, however small its leaves are.
            let most = file.size + file.size / 8 + NODES;
            fetch_all(reader, &file.cid, IN_FLIGHT, most).await.map_err(|error| TransferError::Read {
                what,
                kind: error.kind(),
                source: Box::new(error),
            })?;
            let own_layer = own_layers.get(&descriptor.digest).filter(|own| own.cid == file.cid);
            let known = match own_layer {
                Some(_) => true,
                None => ledger.blob(&descriptor.digest).await?.is_some_and(|known| known.cid == file.cid),
            };
            if !known {
                verify(reader, descriptor, &file.cid).await?;
            }
            let blob = StoredBlob {
                digest: descriptor.digest,
                size: descriptor.size,
                cid: file.cid,
                tsize: file.tsize,
                encoding: own_layer.and_then(|own| own.encoding.clone()),
                plain_size: None,
            };
            blobs.insert(descriptor.digest, blob);
        }
    }
    let mut blobs: Vec<StoredBlob> = blobs.into_values().collect();
    let named = diff_ids::named(source, &tree).await?;
    let unpacked = diff_ids::check(named, &blobs, &Surveys::default(), ledger, None).await?;
    unpacked.note(&mut blobs);
    Ok((StoredImage { root: tree.root.clone(), manifests, blobs }, unpacked.layers))
}

/// Reads a file that is stored and compares it with its descriptor.
async fn verify(reader: &Reader, descriptor: &Descriptor, file: &Cid) -> Result<(), TransferError> {
    let what = descriptor.digest.to_string();
    let data = File::open(Arc::new(reader.clone()), *file, &Window::new(IN_FLIGHT)).await;
    let data =
        data.map_err(|error| TransferError::Read { what: what.clone(), kind: error.kind(), source: Box::new(error) })?;
    let mut data = Verified::new(Box::pin(data), descriptor.digest, descriptor.size, |_| {});
    tokio::io::copy(&mut data, &mut tokio::io::sink()).await.map_err(|error| TransferError::from_io(what, error))?;
    Ok(())
}

/// What the registry says about how its layers are encoded, by layer.
pub(crate) async fn layer_encodings(
    home: &Home,
    manifests: impl Iterator<Item = (&Digest, &Manifest)>,
    reader: &Reader,
) -> Result<BTreeMap<Digest, String>, TreeError> {
    let mut encodings = BTreeMap::new();
    if let Some(document) = read::image(reader, &home.root, &home.image).await? {
        for (digest, manifest) in manifests {
            let row = document.manifests.get(digest).map_or(&[][..], |row| &row.encodings);
            for (layer, encoding) in manifest.layers.iter().zip(row) {
                encodings.insert(layer.digest, encoding.clone());
            }
        }
    }
    Ok(encodings)
}

/// The layers of the image that this home encoded itself: only their encodings are known for certain.
async fn own_layers(
    source: &dyn Blobs,
    home: &Home,
    tree: &ManifestTree,
    reader: &Reader,
    ledger: &Ledger,
) -> Result<BTreeMap<Digest, StoredBlob>, TransferError> {
    let manifests = || {
        tree.manifests.iter().zip(&tree.parsed).filter_map(|(stored, parsed)| match parsed {
            Parsed::Manifest(manifest) if manifest.is_image() => Some((&stored.descriptor.digest, manifest)),
            _ => None,
        })
    };
    let named = layer_encodings(home, manifests(), reader).await.map_err(|error| failed(&tree.root.digest, error))?;
    let mut own = BTreeMap::new();
    for (_, manifest) in
        manifests().filter(|(_, manifest)| manifest.layers.iter().any(|l| named.contains_key(&l.digest)))
    {
        let config = read_blob(source, &manifest.config, limits::CONFIG_BYTES).await?;
        let Ok(config) = parse_config(config) else { continue };
        for (layer, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            let Some(id) = named.get(&layer.digest) else { continue };
            if let Some(known) = ledger.layer(diff_id, id).await? {
                own.insert(layer.digest, known.blob);
            }
        }
    }
    Ok(own)
}

fn failed(digest: &Digest, error: TreeError) -> TransferError {
    TransferError::Read { what: digest.to_string(), kind: error.kind(), source: Box::new(error) }
}
