//! Image folders: what a tag names, as an OCI image layout (docs/format.md, section 3).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cid::Cid;

use super::blocks::{self, Stat};
use super::document::{self, LayersDocument, ManifestRow};
use super::error::TreeError;
use crate::dag::pb::Link;
use crate::digest::Digest;
use crate::image::config::{ImageConfig, parse_config};
use crate::image::descriptor::{Descriptor, PlatformField};
use crate::image::layout::{
    ARCHIVE_FILE, ArchiveImage, INDEX_FILE, OCI_LAYOUT_FILE, check_oci_layout, parse_archive, parse_layout_index,
};
use crate::image::manifest::{Manifest, Parsed, parse_manifest};
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::limits;
use crate::port::blocks::ReadBlocks;

/// The file in a tag folder that says how large its layers are once they are decompressed.
pub(super) const LAYERS_FILE: &str = "_layers.json";

/// An opened image folder.
///
/// Everything that it returns has been checked: manifests and configurations against their digests, `manifest.json` against
/// what `index.json` leads to. Blobs are returned as files; who reads one checks its digest and size.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where it lies, for messages.
    path: String,
    /// The folder.
    folder: Cid,
    /// What it holds: the only descriptor of `index.json`.
    root: Descriptor,
    /// Docker's `manifest.json`, if there is one.
    archive: Option<ArchiveImage>,
}

/// A blob in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFile {
    /// Its UnixFS file.
    pub cid: Cid,
    /// Bytes of the file, as its first block says.
    pub size: u64,
    /// Bytes of all of its blocks, as the folder says.
    pub tsize: u64,
}

impl Layout {
    /// Opens a folder: reads `oci-layout`, `index.json` and, if it is there, `manifest.json`, and checks the latter.
    ///
    /// `path` is for messages. A folder without `index.json` is [`TreeError::NotFound`].
    pub async fn open(blocks: &dyn ReadBlocks, path: &str, folder: &Cid) -> Result<Self, TreeError> {
        let layout = Self::open_unchecked(blocks, path, folder).await?;
        layout.check_archive(blocks).await?;
        Ok(layout)
    }

    /// Opens a folder without looking at what it holds.
    pub(super) async fn open_unchecked(blocks: &dyn ReadBlocks, path: &str, folder: &Cid) -> Result<Self, TreeError> {
        let wrap = |source| TreeError::Layout { path: path.to_owned(), source };
        let file = async |name: &str| {
            let path = format!("{path}/{name}");
            match blocks::lookup(blocks, &path, folder, name).await? {
                Some(link) => blocks::read_file(blocks, &path, &link.cid, limits::ARCHIVE_JSON_BYTES).await.map(Some),
                None => Ok(None),
            }
        };
        let missing = |name: &str| TreeError::not_found(format!("{path}/{name}"));
        let marker = file(OCI_LAYOUT_FILE).await?.ok_or_else(|| missing(OCI_LAYOUT_FILE))?;
        check_oci_layout(&marker).map_err(wrap)?;
        let index = file(INDEX_FILE).await?.ok_or_else(|| missing(INDEX_FILE))?;
        let descriptors = parse_layout_index(&index).map_err(wrap)?;
        let [root] = <[Descriptor; 1]>::try_from(descriptors).map_err(|found| {
            TreeError::disagree(
                format!("{path}/{INDEX_FILE}"),
                format!("it has {} descriptors instead of one", found.len()),
            )
        })?;
        let archive = match file(ARCHIVE_FILE).await? {
            None => None,
            Some(bytes) => {
                let images = parse_archive(&bytes).map_err(wrap)?;
                let [image] = <[ArchiveImage; 1]>::try_from(images).map_err(|found| {
                    let reason = format!("it lists {} images instead of one", found.len());
                    TreeError::disagree(format!("{path}/{ARCHIVE_FILE}"), reason)
                })?;
                Some(image)
            }
        };
        Ok(Self { path: path.to_owned(), folder: *folder, root, archive })
    }

    /// The folder's CID.
    pub fn folder(&self) -> &Cid {
        &self.folder
    }

    /// What the folder holds: a manifest or an index. Annotations are those of `index.json`.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// The image of `manifest.json`, if there is one.
    pub fn archive(&self) -> Option<&ArchiveImage> {
        self.archive.as_ref()
    }

    /// The file of a blob or manifest; `None` if the folder does not have it.
    pub async fn blob(&self, blocks: &dyn ReadBlocks, digest: &Digest) -> Result<Option<BlobFile>, TreeError> {
        let Some(link) = self.link(blocks, digest).await? else { return Ok(None) };
        let path = self.blob_path(digest);
        match blocks::stat(blocks, &path, &link.cid).await? {
            Stat::File { size } => Ok(Some(BlobFile { cid: link.cid, size, tsize: link.tsize })),
            _ => Err(TreeError::disagree(path, "it is not a file")),
        }
    }

    /// Bytes of the compressed layers once they are decompressed, by digest, as far as the publisher knew. That is a claim: who
    /// decompresses a layer sees whether it is true.
    pub async fn plain_sizes(&self, blocks: &dyn ReadBlocks) -> Result<BTreeMap<Digest, u64>, TreeError> {
        let path = format!("{}/{LAYERS_FILE}", self.path);
        let Some(link) = blocks::lookup(blocks, &path, &self.folder, LAYERS_FILE).await? else {
            return Ok(BTreeMap::new());
        };
        let bytes = blocks::read_file(blocks, &path, &link.cid, limits::LAYERS_JSON_BYTES).await?;
        Ok(document::parse::<LayersDocument>(&path, &bytes)?.plain_sizes)
    }

    /// The link to a blob.
    pub(super) async fn link(&self, blocks: &dyn ReadBlocks, digest: &Digest) -> Result<Option<Link>, TreeError> {
        blocks::walk(blocks, &self.folder, ["blobs", digest.algorithm().name(), &digest.hex()]).await
    }

    fn blob_path(&self, digest: &Digest) -> String {
        format!("{}/{}", self.path, digest.layout_path())
    }

    /// The verified bytes of a blob of at most `limit` bytes.
    async fn bytes(
        &self,
        blocks: &dyn ReadBlocks,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Option<Bytes>, TreeError> {
        let path = self.blob_path(&descriptor.digest);
        if descriptor.size > limit {
            return Err(TreeError::TooLarge { path, limit });
        }
        let Some(link) = self.link(blocks, &descriptor.digest).await? else { return Ok(None) };
        let bytes = blocks::read_file(blocks, &path, &link.cid, limit).await?;
        if u64::try_from(bytes.len()).ok() != Some(descriptor.size) {
            let reason = format!("it has {} bytes instead of {}", bytes.len(), descriptor.size);
            return Err(TreeError::disagree(path, reason));
        }
        if !descriptor.digest.matches(&bytes) {
            return Err(TreeError::disagree(path, "its bytes have another digest"));
        }
        Ok(Some(bytes))
    }

    /// A manifest or index of the folder, verified; `None` if the folder does not have it.
    pub async fn manifest(
        &self,
        blocks: &dyn ReadBlocks,
        descriptor: &Descriptor,
    ) -> Result<Option<Parsed>, TreeError> {
        let Some(bytes) = self.bytes(blocks, descriptor, limits::MANIFEST_BYTES).await? else { return Ok(None) };
        let parsed = parse_manifest(bytes, &descriptor.media_type);
        parsed.map(Some).map_err(|source| TreeError::Manifest { digest: descriptor.digest, source })
    }

    /// The configuration of a container image, verified; `None` if the folder does not have it.
    pub async fn config(
        &self,
        blocks: &dyn ReadBlocks,
        descriptor: &Descriptor,
    ) -> Result<Option<ImageConfig>, TreeError> {
        let Some(bytes) = self.bytes(blocks, descriptor, limits::CONFIG_BYTES).await? else { return Ok(None) };
        let parsed = parse_config(bytes);
        parsed.map(Some).map_err(|source| TreeError::Config { digest: descriptor.digest, source })
    }

    /// All manifests and indexes of the folder with the descriptors that lead to them, the root first, each once, in the order
    /// of the indexes (nested ones in place). Manifests that an index lists and the folder does not have are left out.
    pub async fn manifests(&self, blocks: &dyn ReadBlocks) -> Result<Vec<(Descriptor, Parsed)>, TreeError> {
        let mut out = Vec::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![(self.root.clone(), 0_usize)];
        while let Some((descriptor, depth)) = todo.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            if depth > limits::INDEX_DEPTH || seen.len() > limits::INDEX_NODES {
                return Err(TreeError::disagree(&self.path, "it has too many or too deeply nested indexes"));
            }
            let Some(parsed) = self.manifest(blocks, &descriptor).await? else {
                if depth == 0 {
                    return Err(TreeError::not_found(self.blob_path(&descriptor.digest)));
                }
                continue;
            };
            if let Parsed::Index(index) = &parsed {
                let children = index.manifests.iter().rev().filter(|child| {
                    media_type::is_manifest(&child.media_type) || media_type::is_index(&child.media_type)
                });
                todo.extend(children.map(|child| (child.clone(), depth + 1)));
            }
            out.push((descriptor, parsed));
        }
        Ok(out)
    }

    /// The platform of an image: what the descriptor says, else its configuration; `None` for what is no image.
    async fn platform(
        &self,
        blocks: &dyn ReadBlocks,
        descriptor: &Descriptor,
        manifest: &Manifest,
    ) -> Result<Option<Platform>, TreeError> {
        if let Some(platform) = descriptor.platform.as_ref().map(PlatformField::platform).filter(Platform::is_known) {
            return Ok(Some(platform).filter(|platform| platform.os != "unknown"));
        }
        if !manifest.is_image() {
            return Ok(None);
        }
        Ok(self.config(blocks, &manifest.config).await?.map(|config| config.platform))
    }

    /// What `manifest.json` has to say besides names: that of `linux/amd64`, else the first linux image; `None` if there is no
    /// linux image, or if one of its blobs is missing.
    pub(super) async fn expected_archive(&self, blocks: &dyn ReadBlocks) -> Result<Option<ArchiveImage>, TreeError> {
        let mut first: Option<Manifest> = None;
        for (descriptor, parsed) in self.manifests_until_amd64(blocks).await? {
            let Parsed::Manifest(manifest) = parsed else { continue };
            match self.platform(blocks, &descriptor, &manifest).await? {
                Some(platform) if manifest.is_image() && platform.os == "linux" => {
                    let best = platform.architecture == "amd64";
                    if best || first.is_none() {
                        first = Some(manifest);
                    }
                    if best {
                        break;
                    }
                }
                _ => {}
            }
        }
        let Some(manifest) = first else { return Ok(None) };
        for blob in manifest.blobs() {
            if self.link(blocks, &blob.digest).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(ArchiveImage {
            config: manifest.config.digest.layout_path(),
            repo_tags: Vec::new(),
            layers: manifest.layers.iter().map(|layer| layer.digest.layout_path()).collect(),
        }))
    }

    /// All manifests; if an index says which one is for `linux/amd64`, that one alone, to spare a pull the others.
    async fn manifests_until_amd64(&self, blocks: &dyn ReadBlocks) -> Result<Vec<(Descriptor, Parsed)>, TreeError> {
        if media_type::is_index(&self.root.media_type)
            && let Some(Parsed::Index(index)) = self.manifest(blocks, &self.root).await?
            && index
                .manifests
                .iter()
                .all(|entry| entry.platform.is_some() && media_type::is_manifest(&entry.media_type))
        {
            let amd64 = |entry: &&Descriptor| {
                entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
            };
            for entry in index.manifests.iter().filter(amd64) {
                match self.manifest(blocks, entry).await? {
                    Some(Parsed::Manifest(manifest)) if manifest.is_image() => {
                        return Ok(vec![(entry.clone(), Parsed::Manifest(manifest))]);
                    }
                    _ => {}
                }
            }
        }
        self.manifests(blocks).await
    }

    async fn check_archive(&self, blocks: &dyn ReadBlocks) -> Result<(), TreeError> {
        let Some(found) = &self.archive else { return Ok(()) };
        let path = || format!("{}/{ARCHIVE_FILE}", self.path);
        let Some(expected) = self.expected_archive(blocks).await? else {
            return Err(TreeError::disagree(path(), "index.json leads to no complete linux image"));
        };
        if found.config != expected.config || found.layers != expected.layers {
            return Err(TreeError::disagree(path(), "it names another image than index.json leads to"));
        }
        Ok(())
    }

    /// What `_image.json` says about the folder's manifests, but for what only the writer knows (encodings, times).
    pub(super) async fn rows(&self, blocks: &dyn ReadBlocks) -> Result<BTreeMap<Digest, ManifestRow>, TreeError> {
        let all = self.manifests(blocks).await?;
        let parsed: BTreeMap<Digest, &Parsed> =
            all.iter().map(|(descriptor, parsed)| (descriptor.digest, parsed)).collect();
        let mut platforms = BTreeMap::new();
        let mut present = BTreeSet::new();
        for (descriptor, document) in &all {
            if let Parsed::Manifest(manifest) = document {
                if let Some(platform) = self.platform(blocks, descriptor, manifest).await?
                    && platform.is_known()
                {
                    platforms.insert(descriptor.digest, platform.to_string());
                }
                for blob in manifest.blobs() {
                    if self.link(blocks, &blob.digest).await?.is_some() {
                        present.insert(blob.digest);
                    }
                }
            }
        }
        let mut rows = BTreeMap::new();
        for (descriptor, document) in &all {
            let reached = reach(&descriptor.digest, &parsed);
            let mut row = ManifestRow {
                media_type: descriptor.media_type.clone(),
                size: descriptor.size,
                artifact_type: match document {
                    Parsed::Manifest(manifest) if manifest.is_image() && manifest.artifact_type.is_none() => None,
                    document => document.artifact_type().map(str::to_owned),
                },
                subject: document.subject().map(|subject| subject.digest),
                ..ManifestRow::default()
            };
            let mut blobs = BTreeMap::new();
            for digest in &reached {
                let document = parsed[digest];
                blobs.insert(*digest, u64::try_from(document.bytes().len()).unwrap_or(u64::MAX));
                if let Parsed::Manifest(manifest) = document {
                    let held = manifest.blobs().filter(|blob| present.contains(&blob.digest));
                    blobs.extend(held.map(|blob| (blob.digest, blob.size)));
                }
                if let Some(platform) = platforms.get(digest)
                    && !row.platforms.contains(platform)
                {
                    row.platforms.push(platform.clone());
                }
            }
            row.total = blobs.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
            row.children = reached.into_iter().skip(1).collect();
            rows.insert(descriptor.digest, row);
        }
        Ok(rows)
    }
}

/// A manifest and what it reaches, in the order of the indexes, each once.
fn reach(root: &Digest, parsed: &BTreeMap<Digest, &Parsed>) -> Vec<Digest> {
    let mut out = Vec::new();
    let mut todo = vec![*root];
    while let Some(digest) = todo.pop() {
        let Some(document) = parsed.get(&digest).filter(|_| !out.contains(&digest)) else { continue };
        out.push(digest);
        if let Parsed::Index(index) = document {
            todo.extend(index.manifests.iter().rev().map(|child| child.digest));
        }
    }
    out
}
