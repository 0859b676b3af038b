//! Reading manifests from a source: [`read_tree`], and the one for a platform: [`for_platform`].

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::error::TransferError;
use super::verify::Verified;
use crate::digest::{Algorithm, Digest};
use crate::image::config::parse_config;
use crate::image::descriptor::{Descriptor, PlatformField};
use crate::image::manifest::{Parsed, parse_manifest};
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::image::select::{Candidate, select_platform};
use crate::limits;
use crate::port::image::Blobs;
use crate::tree::stored::StoredManifest;

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

    /// Digests of the configurations.
    pub(crate) fn configs(&self) -> HashSet<Digest> {
        let manifests = self.parsed.iter().filter_map(|parsed| match parsed {
            Parsed::Manifest(manifest) => Some(manifest.config.digest),
            Parsed::Index(_) => None,
        });
        manifests.collect()
    }

    /// Digests of the root and of everything below it; the other manifests refer to one of them.
    pub(crate) fn below_root(&self) -> HashSet<Digest> {
        let parsed: BTreeMap<Digest, &Parsed> =
            self.manifests.iter().map(|manifest| manifest.descriptor.digest).zip(&self.parsed).collect();
        let mut below = HashSet::new();
        let mut todo = vec![self.root.digest];
        while let Some(digest) = todo.pop() {
            if below.insert(digest)
                && let Some(Parsed::Index(index)) = parsed.get(&digest)
            {
                todo.extend(index.manifests.iter().map(|child| child.digest));
            }
        }
        below
    }

    /// The image ID if the root is one container image.
    pub(crate) async fn image_id(&self, source: &dyn Blobs) -> Result<Option<Digest>, TransferError> {
        match self.parsed.first() {
            Some(Parsed::Manifest(manifest)) if manifest.is_image() => {
                image_id(source, &manifest.config).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Reads all manifests below a source's root, and those that refer to them.
pub(crate) async fn read_tree(source: &dyn Blobs, platform: Option<&Platform>) -> Result<ManifestTree, TransferError> {
    let root = match platform {
        Some(wanted) => for_platform(source, wanted).await?,
        None => source.root().clone(),
    };
    let mut seen = HashSet::from([root.digest]);
    let mut queue = VecDeque::from([(root.clone(), 0_usize)]);
    let mut tree = ManifestTree { root, manifests: Vec::new(), parsed: Vec::new() };
    let mut referring = Vec::new();
    let mut total = 0_u64;
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
            return Err(too_large(&tree.root));
        }
        let bytes = read_blob(source, &descriptor, limits::MANIFEST_BYTES).await?;
        total = total.saturating_add(descriptor.size);
        if total > limits::IMAGE_DOCUMENT_BYTES {
            return Err(too_large(&tree.root));
        }
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

/// The ID by which engines know an image: always the SHA-256 of its configuration.
async fn image_id(source: &dyn Blobs, config: &Descriptor) -> Result<Digest, TransferError> {
    if config.digest.algorithm() == Algorithm::Sha256 {
        return Ok(config.digest);
    }
    read_blob(source, config, limits::CONFIG_BYTES).await.map(|bytes| Digest::sha256(&bytes))
}

/// Reads a manifest's meaning.
pub(crate) fn parse(descriptor: &Descriptor, bytes: Bytes) -> Result<Parsed, TransferError> {
    parse_manifest(bytes, &descriptor.media_type)
        .map_err(|error| TransferError::Invalid { what: descriptor.digest.to_string(), reason: error.to_string() })
}

/// The manifest below a source's root that serves a platform best, nested indexes in place.
///
/// What an index does not say about a manifest's platform is looked up in its configuration, if nothing else fits.
pub(crate) async fn for_platform(source: &dyn Blobs, wanted: &Platform) -> Result<Descriptor, TransferError> {
    let root = source.root();
    if media_type::is_manifest(&root.media_type) {
        return Ok(root.clone());
    }
    let mut candidates = below(source, root).await?;
    if let Some(found) = select_platform(&candidates, wanted) {
        return Ok(found.clone());
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.platform.is_none()) {
        candidate.platform = platform_of(source, &candidate.descriptor).await?;
    }
    select_platform(&candidates, wanted).cloned().ok_or_else(|| {
        let known = candidates.iter().filter_map(|candidate| candidate.platform.as_ref());
        let mut available: Vec<String> = Vec::new();
        for platform in known.filter(|platform| platform.os != "unknown").map(ToString::to_string) {
            if !available.contains(&platform) {
                available.push(platform);
            }
        }
        TransferError::NoPlatform { wanted: wanted.to_string(), available }
    })
}

/// The manifests below an index, in their order.
async fn below(source: &dyn Blobs, root: &Descriptor) -> Result<Vec<Candidate>, TransferError> {
    let mut found = Vec::new();
    let mut indexes = 0;
    let mut todo = vec![(root.clone(), None, 0)];
    while let Some((descriptor, inherited, depth)) = todo.pop() {
        if depth > limits::INDEX_DEPTH || indexes + found.len() >= limits::INDEX_NODES {
            return Err(too_large(root));
        }
        let own = descriptor.platform.as_ref().map(PlatformField::platform).filter(Platform::is_known);
        let platform = own.or(inherited);
        if !media_type::is_index(&descriptor.media_type) {
            found.push(Candidate { descriptor, platform });
            continue;
        }
        indexes += 1;
        let bytes = read_blob(source, &descriptor, limits::MANIFEST_BYTES).await?;
        if let Parsed::Index(index) = parse(&descriptor, bytes)? {
            todo.extend(index.manifests.into_iter().rev().map(|child| (child, platform.clone(), depth + 1)));
        }
    }
    Ok(found)
}

/// What an image's configuration says about its platform.
async fn platform_of(source: &dyn Blobs, descriptor: &Descriptor) -> Result<Option<Platform>, TransferError> {
    if !media_type::is_manifest(&descriptor.media_type) {
        return Ok(None);
    }
    let bytes = read_blob(source, descriptor, limits::MANIFEST_BYTES).await?;
    let Parsed::Manifest(manifest) = parse(descriptor, bytes)? else { return Ok(None) };
    if !manifest.is_image() {
        return Ok(None);
    }
    let config = read_blob(source, &manifest.config, limits::CONFIG_BYTES).await?;
    Ok(parse_config(config).ok().map(|config| config.platform).filter(Platform::is_known))
}

pub(super) fn too_large(root: &Descriptor) -> TransferError {
    let (nodes, depth, bytes) = (limits::INDEX_NODES, limits::INDEX_DEPTH, limits::IMAGE_DOCUMENT_BYTES);
    let reason = format!(
        "it has more than {nodes} manifests, is nested deeper than {depth}, or its manifests and configurations have more than {bytes} bytes"
    );
    TransferError::Invalid { what: root.digest.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
    use crate::port::conformance::image::{blobs, config, manifest};
    use crate::port::memory::image::MemoryImage;

    fn image(content: &MemoryImage, architecture: &str) -> Value {
        let config = content.add(OCI_CONFIG, Algorithm::Sha256, config(&[], architecture));
        serde_json::to_value(manifest(content, &config, &[], None)).unwrap()
    }

    fn on(mut descriptor: Value, platform: &str) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        descriptor["platform"] = json!({ "os": os, "architecture": architecture });
        descriptor
    }

    fn index(content: &MemoryImage, members: &[Value]) -> Value {
        let document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members });
        serde_json::to_value(content.add(OCI_INDEX, Algorithm::Sha256, document.to_string())).unwrap()
    }

    async fn find(content: &MemoryImage, root: &Value, wanted: &str) -> Result<Value, TransferError> {
        content.set_root(serde_json::from_value(root.clone()).unwrap(), None);
        let found = for_platform(&*blobs(content).await, &wanted.parse().unwrap()).await?;
        Ok(json!(found.digest.to_string()))
    }

    #[tokio::test]
    async fn a_platform_is_found_in_nested_indexes() {
        let content = MemoryImage::new();
        let [amd64, arm64, riscv64] = ["amd64", "arm64", "riscv64"].map(|name| image(&content, name));
        let inner = index(&content, &[on(arm64.clone(), "linux/arm64")]);
        // The platform of an index is that of what it lists.
        let other = on(index(&content, std::slice::from_ref(&riscv64)), "linux/riscv64");
        let root = index(&content, &[inner, on(amd64.clone(), "linux/amd64"), other]);
        for (wanted, expected) in [("linux/amd64", &amd64), ("linux/arm64", &arm64), ("linux/riscv64", &riscv64)] {
            assert_eq!(find(&content, &root, wanted).await.unwrap(), expected["digest"], "{wanted}");
        }
        let error = find(&content, &root, "linux/s390x").await.unwrap_err();
        let TransferError::NoPlatform { available, .. } = &error else { panic!("{error}") };
        assert_eq!(available[..], ["linux/arm64", "linux/amd64", "linux/riscv64"]);
    }

    #[tokio::test]
    async fn a_configuration_tells_what_the_index_does_not() {
        let content = MemoryImage::new();
        let [amd64, arm64] = ["amd64", "arm64"].map(|name| image(&content, name));
        let root = index(&content, &[arm64.clone(), amd64.clone()]);
        assert_eq!(find(&content, &root, "linux/amd64").await.unwrap(), amd64["digest"]);
        assert_eq!(find(&content, &root, "linux/arm64").await.unwrap(), arm64["digest"]);
        // What the index does say is not doubted.
        let root = index(&content, &[on(arm64.clone(), "linux/amd64"), amd64]);
        assert_eq!(find(&content, &root, "linux/amd64").await.unwrap(), arm64["digest"]);
        assert_eq!(find(&content, &arm64, "linux/s390x").await.unwrap(), arm64["digest"], "an image is what it is");
        assert!(arm64["mediaType"] == OCI_MANIFEST);
    }

    #[tokio::test]
    async fn nesting_has_an_end() {
        let content = MemoryImage::new();
        let mut root = index(&content, &[image(&content, "amd64")]);
        for _ in 1..limits::INDEX_DEPTH {
            root = index(&content, &[root]);
        }
        assert!(find(&content, &root, "linux/amd64").await.is_ok());
        root = index(&content, &[root]);
        assert!(matches!(find(&content, &root, "linux/amd64").await, Err(TransferError::Invalid { .. })));
    }
}
