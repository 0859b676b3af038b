//! Looking: resolve, list, inspect.

use std::collections::BTreeMap;

use super::Registry;
use super::error::RegistryError;
use super::open::Opened;
use super::options::ResolveOptions;
use super::outcome::{InspectedLayer, InspectedManifest, Inspection, ListedImage, ListedTag, Listing, ResolveOutcome};
use crate::digest::Digest;
use crate::event::Emitter;
use crate::image::config::parse_config;
use crate::image::manifest::{Manifest, Parsed};
use crate::limits;
use crate::port::image::Blobs;
use crate::reference::{Authority, ImageName, Reference};
use crate::transfer::adopt::layer_encodings;
use crate::transfer::manifests::{read_blob, read_tree};
use crate::tree::read::{self, Contents, Recognised};
use crate::tree::stored::StoredManifest;

/// See [`Registry::resolve`].
pub(super) async fn resolve(
    this: &Registry,
    reference: Reference,
    options: ResolveOptions,
    events: Emitter,
) -> Result<ResolveOutcome, RegistryError> {
    let whole = reference.image.is_none() && reference.tag.is_none() && reference.digest.is_none();
    if whole {
        let at = this.open_root(reference.authority.clone(), &options, &events).await?;
        let outcome = ResolveOutcome {
            reference: at.name(),
            chain: at.chain.clone(),
            root: at.root,
            cid: None,
            digest: None,
            trust: at.trust,
        };
        return Ok(outcome);
    }
    let opened = this.open(&reference, &options, &events).await?;
    Ok(ResolveOutcome {
        reference: opened.full_reference(opened.found.digest()),
        chain: opened.at.chain.clone(),
        root: opened.at.root,
        cid: Some(opened.found.folder),
        digest: opened.found.digest(),
        trust: opened.at.trust,
    })
}

/// See [`Registry::list`].
pub(super) async fn list(
    this: &Registry,
    registry: Option<Authority>,
    image: Option<ImageName>,
    options: ResolveOptions,
    events: Emitter,
) -> Result<Listing, RegistryError> {
    if registry.is_none() {
        let identity = this.holder.identity().await?;
        if this.own_root().await?.is_none() {
            let registry = identity.domain.unwrap_or(identity.ipns);
            return match image {
                Some(image) => Err(RegistryError::NotFound { registry, what: format!("image {image}"), source: None }),
                None => Ok(Listing { registry, root: None, images: Vec::new() }),
            };
        }
    }
    let at = this.open_root(registry, &options, &events).await?;
    let failed = |error: crate::tree::error::TreeError| match error.kind() {
        crate::kind::ErrorKind::NotFound => RegistryError::NotFound {
            registry: at.name(),
            what: image.as_ref().map_or_else(|| "catalogue".to_owned(), |image| format!("image {image}")),
            source: Some(Box::new(error)),
        },
        _ => RegistryError::from_tree("listing", error),
    };
    let images = match &image {
        Some(image) => {
            let tags = read::tags(&at.reader, &at.base, image).await.map_err(failed)?;
            let document = read::image(&at.reader, &at.base, image).await.map_err(failed)?;
            vec![ListedImage {
                name: image.to_string(),
                description: document.and_then(|document| document.description),
                newest: tags.first().map(|tag| tag.tag.clone()),
                size: tags.first().and_then(|tag| tag.size),
                updated: tags.first().and_then(|tag| tag.pushed),
                tags: tags
                    .into_iter()
                    .map(|tag| ListedTag {
                        tag: tag.tag,
                        digest: tag.digest,
                        size: tag.size,
                        platforms: tag.platforms,
                        pushed: tag.pushed,
                    })
                    .collect(),
            }]
        }
        None => {
            let summaries = read::images(&at.reader, &at.base).await.map_err(failed)?;
            if summaries.is_empty()
                && !matches!(read::recognise(&at.reader, &at.base).await.map_err(failed)?, Recognised::Registry)
            {
                let message = format!("{} is an image, not a registry whose images could be listed", at.name());
                return Err(RegistryError::Usage { message });
            }
            let listed = summaries.into_iter().map(|summary| ListedImage {
                name: summary.name,
                description: summary.description,
                newest: summary.newest,
                size: summary.size,
                updated: summary.updated,
                tags: Vec::new(),
            });
            listed.collect()
        }
    };
    Ok(Listing { registry: at.name(), root: Some(at.root), images })
}

/// See [`Registry::inspect`].
pub(super) async fn inspect(
    this: &Registry,
    reference: Reference,
    options: ResolveOptions,
    events: Emitter,
) -> Result<Inspection, RegistryError> {
    let opened = this.open(&reference, &options, &events).await?;
    if let Contents::Legacy(_) = &opened.found.contents {
        return Err(RegistryError::Usage {
            message: format!("{} is a folder of 2020 without a manifest; pull it instead", opened.full_reference(None)),
        });
    }
    let failed = |error| RegistryError::from_transfer("reading the image", error);
    let source = opened.source(this, &events).await?;
    let tree = read_tree(source.as_ref(), None).await.map_err(failed)?;
    let below = tree.below_root();
    let mut manifests = Vec::new();
    for (stored, parsed) in tree.manifests.iter().zip(&tree.parsed) {
        if let Parsed::Manifest(manifest) = parsed
            && below.contains(&stored.descriptor.digest)
        {
            manifests.push(inspect_manifest(source.as_ref(), stored, manifest, &opened).await?);
        }
    }
    let referrers = tree
        .manifests
        .iter()
        .zip(&tree.parsed)
        .filter(|(stored, parsed)| parsed.subject().is_some() && stored.descriptor.digest != tree.root.digest);
    let referrers = referrers.map(|(stored, _)| stored.descriptor.digest).collect();
    let raw = tree.manifests.first().map(|manifest| manifest.bytes.to_vec()).unwrap_or_default();
    Ok(Inspection {
        reference: opened.full_reference(Some(tree.root.digest)),
        digest: tree.root.digest,
        media_type: tree.root.media_type.clone(),
        cid: opened.found.folder,
        root: opened.at.root,
        chain: opened.at.chain.clone(),
        trust: opened.at.trust,
        manifests,
        referrers,
        raw,
    })
}

async fn inspect_manifest(
    source: &dyn Blobs,
    stored: &StoredManifest,
    manifest: &Manifest,
    opened: &Opened,
) -> Result<InspectedManifest, RegistryError> {
    let failed = |error| RegistryError::from_transfer("reading the image", error);
    let bytes = if manifest.is_image() {
        Some(read_blob(source, &manifest.config, limits::CONFIG_BYTES).await.map_err(failed)?)
    } else {
        None
    };
    let image_id = bytes.as_ref().map(|bytes| Digest::sha256(bytes));
    let config = bytes.and_then(|bytes| parse_config(bytes).ok());
    let encodings = match opened.home() {
        Some(home) => layer_encodings(&home, [(&stored.descriptor.digest, manifest)].into_iter(), &opened.at.reader)
            .await
            .map_err(|error| RegistryError::from_tree("reading the registry", error))?,
        None => BTreeMap::new(),
    };
    Ok(InspectedManifest {
        digest: stored.descriptor.digest,
        platform: config
            .as_ref()
            .map(|config| &config.platform)
            .filter(|found| found.is_known())
            .map(ToString::to_string),
        image_id,
        created: config.and_then(|config| config.created),
        layers: manifest
            .layers
            .iter()
            .map(|layer| InspectedLayer {
                digest: layer.digest,
                media_type: layer.media_type.clone(),
                size: layer.size,
                encoding: encodings.get(&layer.digest).cloned(),
            })
            .collect(),
    })
}
