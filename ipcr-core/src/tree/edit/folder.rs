//! Making image folders (docs/format.md, section 3).

use std::collections::{BTreeMap, BTreeSet};

use crate::dag::compression::Compression;
use crate::dag::pb::Link;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::layout::{
    ARCHIVE_FILE, INDEX_FILE, OCI_LAYOUT, OCI_LAYOUT_FILE, tag_descriptor, untagged_descriptor, write_archive,
    write_layout_index,
};
use crate::image::manifest::{Parsed, parse_manifest};
use crate::image::media_type;
use crate::reference::{ImageName, Tag};
use crate::tree::blocks::{self, Overlay};
use crate::tree::document::{self, FORMAT, LayersDocument, ManifestRow};
use crate::tree::error::TreeError;
use crate::tree::layout::{LAYERS_FILE, Layout};
use crate::tree::stored::{StoredBlob, StoredImage};

/// A stored image, checked: every manifest parsed, and of the digest and size that its descriptor says.
pub(super) struct Checked<'a> {
    stored: &'a StoredImage,
    manifests: BTreeMap<Digest, (&'a Descriptor, Parsed)>,
    blobs: BTreeMap<Digest, &'a StoredBlob>,
}

/// A folder that was made, and what `_image.json` says about its manifests.
pub(super) struct Folder {
    pub(super) link: Link,
    pub(super) rows: BTreeMap<Digest, ManifestRow>,
    /// Descriptors of the folder's manifests that have a subject, as the referrers API lists them.
    pub(super) referrers: Vec<(Digest, Descriptor)>,
    /// What its `_layers.json` says.
    pub(super) plain_sizes: BTreeMap<Digest, u64>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(stored: &'a StoredImage) -> Result<Self, TreeError> {
        let mut manifests = BTreeMap::new();
        for manifest in &stored.manifests {
            let descriptor = &manifest.descriptor;
            let digest = descriptor.digest;
            let path = digest.layout_path();
            if u64::try_from(manifest.bytes.len()).ok() != Some(descriptor.size) {
                return Err(TreeError::disagree(path, "the manifest has another size than its descriptor says"));
            }
            if !digest.matches(&manifest.bytes) {
                return Err(TreeError::disagree(path, "the manifest has another digest than its descriptor says"));
            }
            let parsed = parse_manifest(manifest.bytes.clone(), &descriptor.media_type)
                .map_err(|source| TreeError::Manifest { digest, source })?;
            manifests.insert(digest, (descriptor, parsed));
        }
        let blobs = stored.blobs.iter().map(|blob| (blob.digest, blob)).collect();
        Ok(Self { stored, manifests, blobs })
    }

    /// Manifests outside of what the root reaches that refer to something.
    pub(super) fn referrers(&self) -> Vec<&'a Descriptor> {
        let own: BTreeSet<Digest> = self.closure(&self.stored.root.digest).into_iter().collect();
        let others = self.manifests.values().filter(|(descriptor, _)| !own.contains(&descriptor.digest));
        others.filter(|(_, parsed)| parsed.subject().is_some()).map(|(descriptor, _)| *descriptor).collect()
    }

    /// A manifest and all that it reaches and that are here.
    fn closure(&self, root: &Digest) -> Vec<Digest> {
        let mut out = Vec::new();
        let mut todo = vec![*root];
        while let Some(digest) = todo.pop() {
            let Some((_, parsed)) = self.manifests.get(&digest).filter(|_| !out.contains(&digest)) else { continue };
            out.push(digest);
            if let Parsed::Index(index) = parsed {
                todo.extend(index.manifests.iter().map(|child| child.digest));
            }
        }
        out
    }

    /// Makes the folder of one of the manifests: for a tag with its name, else without.
    pub(super) async fn folder(
        &self,
        overlay: &Overlay<'_>,
        root: &Descriptor,
        name: Option<(&ImageName, &Tag)>,
    ) -> Result<Folder, TreeError> {
        if !self.manifests.contains_key(&root.digest) {
            return Err(TreeError::Incomplete { digest: root.digest });
        }
        let mut files: BTreeMap<&str, BTreeMap<String, Link>> = BTreeMap::new();
        let mut referrers = Vec::new();
        for digest in self.closure(&root.digest) {
            let (descriptor, parsed) = &self.manifests[&digest];
            let hex = digest.hex();
            let link = overlay.add_file(&hex, parsed.bytes());
            files.entry(digest.algorithm().name()).or_default().insert(hex, link);
            if let Parsed::Manifest(manifest) = parsed {
                for blob in manifest.blobs() {
                    if let Some(link) = self.blob(blob)? {
                        files.entry(blob.digest.algorithm().name()).or_default().insert(link.name.clone(), link);
                    }
                }
            }
            if let Some(subject) = parsed.subject() {
                let mut referrer = untagged_descriptor(descriptor);
                referrer.annotations = parsed.annotations().clone();
                referrer.artifact_type = parsed.artifact_type().map(str::to_owned);
                referrers.push((subject.digest, referrer));
            }
        }
        let mut blobs = Vec::new();
        for (algorithm, files) in files {
            blobs.push(overlay.add_directory(algorithm, files.into_values().collect())?);
        }
        let index = match name {
            Some((image, tag)) => tag_descriptor(root, image.as_str(), tag.as_str()),
            None => untagged_descriptor(root),
        };
        let mut entries = vec![
            overlay.add_file(OCI_LAYOUT_FILE, OCI_LAYOUT.as_bytes()),
            overlay.add_file(INDEX_FILE, &write_layout_index(&[index])),
            overlay.add_directory("blobs", blobs)?,
        ];
        let without = overlay.add_directory("", entries.clone())?;
        let layout = Layout::open_unchecked(overlay, "", &without.cid).await?;
        if let Some(mut archive) = layout.expected_archive(overlay).await? {
            archive.repo_tags.extend(name.map(|(image, tag)| format!("{image}:{tag}")));
            entries.push(overlay.add_file(ARCHIVE_FILE, &write_archive(&[archive])));
        }
        let layers = self.layers(&root.digest);
        let plain_sizes = layers.as_ref().map(|layers| layers.plain_sizes.clone()).unwrap_or_default();
        if let Some(layers) = layers {
            entries.push(overlay.add_file(LAYERS_FILE, &document::write(&layers)));
        }
        let mut rows = layout.rows(overlay).await?;
        for (digest, row) in &mut rows {
            self.add_encodings(digest, row);
        }
        Ok(Folder { link: overlay.add_directory("", entries)?, rows, referrers, plain_sizes })
    }

    /// The link to a blob; `None` for one that is not meant to be handed on and was not stored.
    fn blob(&self, blob: &Descriptor) -> Result<Option<Link>, TreeError> {
        match self.blobs.get(&blob.digest) {
            Some(stored) if stored.size != blob.size => Err(TreeError::disagree(
                blob.digest.layout_path(),
                format!("it has {} bytes, its manifest says {}", stored.size, blob.size),
            )),
            Some(stored) => Ok(Some(Link { cid: stored.cid, name: blob.digest.hex(), tsize: stored.tsize })),
            None if media_type::is_nondistributable(&blob.media_type) => Ok(None),
            None => match self.manifests.get(&blob.digest) {
                // An artifact may carry a manifest as a blob.
                Some(_) => Ok(None),
                None => Err(TreeError::Incomplete { digest: blob.digest }),
            },
        }
    }

    /// What is known of the compressed layers that a manifest reaches.
    fn layers(&self, root: &Digest) -> Option<LayersDocument> {
        let mut plain_sizes = BTreeMap::new();
        for digest in self.closure(root) {
            let Parsed::Manifest(manifest) = &self.manifests[&digest].1 else { continue };
            for layer in &manifest.layers {
                match media_type::layer_compression(&layer.media_type) {
                    None | Some(Compression::None) => {}
                    Some(_) => {
                        let plain = self.blobs.get(&layer.digest).and_then(|blob| blob.plain());
                        plain_sizes.extend(plain.map(|plain| (layer.digest, plain)));
                    }
                }
            }
        }
        let some = !plain_sizes.is_empty();
        some.then_some(LayersDocument { format: FORMAT, plain_sizes })
    }

    fn add_encodings(&self, digest: &Digest, row: &mut ManifestRow) {
        let Some((_, Parsed::Manifest(manifest))) = self.manifests.get(digest) else { return };
        let encodings: Vec<_> = manifest
            .layers
            .iter()
            .map(|layer| self.blobs.get(&layer.digest).and_then(|blob| blob.encoding.as_ref()))
            .collect();
        if encodings.iter().any(Option::is_some) {
            let id = |encoding: Option<&crate::tree::stored::LayerEncoding>| {
                encoding.map_or_else(|| "opaque".to_owned(), |encoding| encoding.id.clone())
            };
            row.encodings = encodings.iter().copied().map(id).collect();
            row.plain_size = encodings.iter().map(|encoding| encoding.map(|encoding| encoding.plain_size)).sum();
        }
    }
}

/// The folder of a manifest without a tag, made from a folder that a tag had: the same blobs.
pub(super) async fn untagged(overlay: &Overlay<'_>, path: &str, folder: &Link) -> Result<Link, TreeError> {
    let layout = Layout::open_unchecked(overlay, path, &folder.cid).await?;
    let mut entries = blocks::list(overlay, path, &folder.cid).await?;
    let index = write_layout_index(&[untagged_descriptor(layout.root())]);
    entries.insert(INDEX_FILE.to_owned(), overlay.add_file(INDEX_FILE, &index));
    if let Some(archive) = layout.archive() {
        let mut archive = archive.clone();
        archive.repo_tags.clear();
        entries.insert(ARCHIVE_FILE.to_owned(), overlay.add_file(ARCHIVE_FILE, &write_archive(&[archive])));
    }
    overlay.add_directory("", entries.into_values().collect())
}
