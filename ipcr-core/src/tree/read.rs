//! Finding things in a registry: [`find`], [`recognise`], and the listings [`images`] and [`tags`].

use chrono::{DateTime, Utc};
use cid::Cid;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::blocks::{self, Stat};
use super::document::{self, CatalogueShard, ImageDocument, RegistryDocument};
use super::error::TreeError;
use super::layout::Layout;
use super::legacy::Legacy;
use crate::dag::pb::Link;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::layout::{ARCHIVE_FILE, INDEX_FILE, OCI_LAYOUT_FILE};
use crate::limits;
use crate::port::blocks::ReadBlocks;
use crate::reference::{ImageName, Tag};

/// The file in an image folder that lists its tags.
pub(super) const IMAGE_FILE: &str = "_image.json";
/// The folder of tags in an image folder.
pub(super) const TAGS: &str = "tags";
/// The folder of manifests without a tag.
pub(super) const MANIFESTS: &str = "_manifests";
/// The folder of referrers.
pub(super) const REFERRERS: &str = "_referrers";
/// Deepest image name.
const NAME_DEPTH: usize = 32;
/// Catalogue shards that are read at once.
const SHARDS_AT_ONCE: usize = 16;

/// What is asked of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What a tag names.
    Tag(Tag),
    /// A manifest or index of the image.
    Digest(Digest),
}

/// A folder that holds an image.
#[derive(Clone, Debug)]
pub struct Found {
    /// The folder.
    pub folder: Cid,
    /// What was asked for, as a descriptor: the tag's root, or the manifest with the digest that was asked for, which may be
    /// a part of the folder's root. `None` in folders of 2020.
    pub descriptor: Option<Descriptor>,
    /// The folder's content.
    pub contents: Contents,
}

/// The two kinds of image folders.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Contents {
    /// An OCI image layout.
    Layout(Layout),
    /// An unpacked `docker save` archive.
    Legacy(Legacy),
}

impl Found {
    /// The digest of what was asked for; `None` in folders of 2020.
    pub fn digest(&self) -> Option<Digest> {
        self.descriptor.as_ref().map(|descriptor| descriptor.digest)
    }
}

/// What a CID turned out to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Recognised {
    /// A registry.
    Registry,
    /// One image's folder.
    Image,
    /// A tag folder.
    Folder(Box<Found>),
    /// A file with an OCI descriptor, as nerdctl and stargz publish images. Its blobs are named by CIDs in annotations and
    /// `urls`, which ipcr does not follow.
    Descriptor(Box<Descriptor>),
}

/// One image of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its name.
    pub name: String,
    /// The one line about it.
    pub description: Option<String>,
    /// The tag that was pushed last.
    pub newest: Option<String>,
    /// Bytes of all blobs of the newest tag.
    pub size: Option<u64>,
    /// When the newest tag was pushed.
    pub updated: Option<DateTime<Utc>>,
    /// How many tags there are.
    pub tags: u64,
}

/// One tag of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagSummary {
    /// The tag.
    pub tag: String,
    /// What it names; `None` in folders of 2020.
    pub digest: Option<Digest>,
    /// Bytes of all blobs.
    pub size: Option<u64>,
    /// Platforms.
    pub platforms: Vec<String>,
    /// When it was pushed.
    pub pushed: Option<DateTime<Utc>>,
}

/// Says what `cid` is, by a few blocks.
pub async fn recognise(blocks: &dyn ReadBlocks, cid: &Cid) -> Result<Recognised, TreeError> {
    let path = format!("/ipfs/{cid}");
    match blocks::stat(blocks, &path, cid).await? {
        Stat::File { size } if size <= limits::MANIFEST_BYTES => {
            let bytes = blocks::read_file(blocks, &path, cid, limits::MANIFEST_BYTES).await?;
            match serde_json::from_slice::<Descriptor>(&bytes) {
                Ok(descriptor) => Ok(Recognised::Descriptor(Box::new(descriptor))),
                Err(_) => Err(TreeError::Kind { cid: *cid, found: "a file", wanted: "an image or a registry" }),
            }
        }
        Stat::File { .. } => Err(TreeError::Kind { cid: *cid, found: "a file", wanted: "an image or a registry" }),
        Stat::Symlink { .. } => Err(TreeError::Kind { cid: *cid, found: "a link", wanted: "an image or a registry" }),
        Stat::Directory => {
            for marker in [OCI_LAYOUT_FILE, ARCHIVE_FILE] {
                if blocks::lookup(blocks, &path, cid, marker).await?.is_some() {
                    let found = open(blocks, &path, cid).await?;
                    return Ok(Recognised::Folder(Box::new(found)));
                }
            }
            let registry = blocks::walk(blocks, cid, ["_ipcr", "registry.json"]).await?.is_some();
            Ok(if !registry && is_image(blocks, &path, cid).await? { Recognised::Image } else { Recognised::Registry })
        }
    }
}

async fn is_image(blocks: &dyn ReadBlocks, path: &str, cid: &Cid) -> Result<bool, TreeError> {
    for marker in [IMAGE_FILE, TAGS, MANIFESTS] {
        if blocks::lookup(blocks, path, cid, marker).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds an image below the root of a registry.
pub async fn find(blocks: &dyn ReadBlocks, root: &Cid, image: &ImageName, wanted: &Wanted) -> Result<Found, TreeError> {
    let Some(folder) = image_folder(blocks, root, image).await? else {
        return Err(TreeError::not_found(format!("image {image}")));
    };
    find_in_image(blocks, &folder.cid, image.as_str(), wanted).await
}

/// Finds a tag or digest in an image's folder; `name` is for messages.
pub async fn find_in_image(
    blocks: &dyn ReadBlocks,
    image: &Cid,
    name: &str,
    wanted: &Wanted,
) -> Result<Found, TreeError> {
    match wanted {
        Wanted::Tag(tag) => match blocks::walk(blocks, image, [TAGS, tag.as_str()]).await? {
            Some(link) => open(blocks, &format!("{name}/{TAGS}/{tag}"), &link.cid).await,
            None => Err(TreeError::not_found(format!("tag {name}:{tag}"))),
        },
        Wanted::Digest(digest) => {
            let missing = || TreeError::not_found(format!("manifest {name}@{digest}"));
            let own = [MANIFESTS, digest.algorithm().name(), &digest.hex()];
            if let Some(link) = blocks::walk(blocks, image, own).await? {
                let path = format!("{name}/{}", own.join("/"));
                return part(open(blocks, &path, &link.cid).await?, blocks, digest, &path).await;
            }
            let document = image_document(blocks, image, name).await?.ok_or_else(missing)?;
            let row = document.manifests.get(digest).ok_or_else(missing)?;
            let path = format!("{name}/{}", row.folder);
            let link = blocks::walk(blocks, image, row.folder.split('/')).await?;
            let link = link.ok_or_else(|| {
                TreeError::disagree(format!("{name}/{IMAGE_FILE}"), "it names a folder that is not there")
            })?;
            part(open(blocks, &path, &link.cid).await?, blocks, digest, &path).await
        }
    }
}

/// Opens an image folder of either kind.
pub async fn open(blocks: &dyn ReadBlocks, path: &str, folder: &Cid) -> Result<Found, TreeError> {
    let modern = blocks::lookup(blocks, path, folder, OCI_LAYOUT_FILE).await?.is_some()
        || blocks::lookup(blocks, path, folder, INDEX_FILE).await?.is_some();
    if modern {
        let layout = Layout::open(blocks, path, folder).await?;
        return Ok(Found {
            folder: *folder,
            descriptor: Some(layout.root().clone()),
            contents: Contents::Layout(layout),
        });
    }
    let legacy = Legacy::open(blocks, path, folder).await?;
    Ok(Found { folder: *folder, descriptor: None, contents: Contents::Legacy(legacy) })
}

/// Narrows a folder to one of its manifests.
async fn part(mut found: Found, blocks: &dyn ReadBlocks, digest: &Digest, path: &str) -> Result<Found, TreeError> {
    if found.digest() == Some(*digest) {
        return Ok(found);
    }
    if let Contents::Layout(layout) = &found.contents {
        let manifests = layout.manifests(blocks).await?;
        if let Some((descriptor, _)) = manifests.into_iter().find(|(descriptor, _)| descriptor.digest == *digest) {
            found.descriptor = Some(descriptor);
            return Ok(found);
        }
    }
    Err(TreeError::disagree(path, format!("it should hold {digest}")))
}

async fn image_folder(blocks: &dyn ReadBlocks, root: &Cid, image: &ImageName) -> Result<Option<Link>, TreeError> {
    let Some(link) = blocks::walk(blocks, root, image.components()).await? else { return Ok(None) };
    match blocks::stat(blocks, image.as_str(), &link.cid).await? {
        Stat::Directory if is_image(blocks, image.as_str(), &link.cid).await? => Ok(Some(link)),
        _ => Ok(None),
    }
}

/// `_image.json` of an image's folder, if there is one.
pub(super) async fn image_document(
    blocks: &dyn ReadBlocks,
    image: &Cid,
    name: &str,
) -> Result<Option<ImageDocument>, TreeError> {
    let path = format!("{name}/{IMAGE_FILE}");
    let Some(link) = blocks::lookup(blocks, &path, image, IMAGE_FILE).await? else { return Ok(None) };
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await?;
    document::parse(&path, &bytes).map(Some)
}

/// `registry.json` of a registry; `None` in registries of 2020.
pub async fn registry(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Option<RegistryDocument>, TreeError> {
    let path = "_ipcr/registry.json";
    let Some(link) = blocks::walk(blocks, root, path.split('/')).await? else { return Ok(None) };
    let bytes = blocks::read_file(blocks, path, &link.cid, limits::METADATA_BYTES).await?;
    document::parse(path, &bytes).map(Some)
}

/// `_image.json` of an image; `None` when there is no such image or it has none (2020).
pub async fn image(blocks: &dyn ReadBlocks, root: &Cid, image: &ImageName) -> Result<Option<ImageDocument>, TreeError> {
    match image_folder(blocks, root, image).await? {
        Some(folder) => image_document(blocks, &folder.cid, image.as_str()).await,
        None => Ok(None),
    }
}

/// The referrers of a manifest, from the image's folder: descriptors as the referrers API answers them.
pub async fn referrers(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    image: &ImageName,
    subject: &Digest,
) -> Result<Vec<Descriptor>, TreeError> {
    let Some(folder) = image_folder(blocks, root, image).await? else {
        return Err(TreeError::not_found(format!("image {image}")));
    };
    referrers_in_image(blocks, &folder.cid, image.as_str(), subject).await
}

pub(super) async fn referrers_in_image(
    blocks: &dyn ReadBlocks,
    image: &Cid,
    name: &str,
    subject: &Digest,
) -> Result<Vec<Descriptor>, TreeError> {
    let names = [REFERRERS, subject.algorithm().name(), &subject.hex()];
    let Some(link) = blocks::walk(blocks, image, names).await? else { return Ok(Vec::new()) };
    let path = format!("{name}/{}", names.join("/"));
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await?;
    crate::image::layout::parse_layout_index(&bytes).map_err(|source| TreeError::Layout { path, source })
}

/// The images of a registry, by name: from its catalogue or, where there is none (2020), from its folders.
pub async fn images(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Vec<ImageSummary>, TreeError> {
    if registry(blocks, root).await?.is_none() {
        return images_by_walking(blocks, root).await;
    }
    let Some(catalogue) = blocks::walk(blocks, root, ["_ipcr", "catalogue"]).await? else { return Ok(Vec::new()) };
    let shards = blocks::list(blocks, "_ipcr/catalogue", &catalogue.cid).await?;
    let shards = stream::iter(shards.into_values().filter(|link| is_shard(&link.name)))
        .map(async |link| {
            let path = format!("_ipcr/catalogue/{}", link.name);
            let bytes = blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await?;
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            Ok::<_, TreeError>((size, document::parse::<CatalogueShard>(&path, &bytes)?))
        })
        .buffer_unordered(SHARDS_AT_ONCE);
    let mut shards = std::pin::pin!(shards);
    let mut images = Vec::new();
    let mut total = 0;
    while let Some((size, shard)) = shards.try_next().await? {
        total += size;
        if total > limits::CATALOGUE_BYTES {
            return Err(TreeError::TooLarge { path: "_ipcr/catalogue".into(), limit: limits::CATALOGUE_BYTES });
        }
        images.extend(shard.images.into_iter().map(|(name, row)| ImageSummary {
            name,
            description: row.description,
            newest: row.newest,
            size: row.size,
            updated: row.updated,
            tags: row.tags,
        }));
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

pub(super) fn is_shard(name: &str) -> bool {
    name.strip_suffix(".json")
        .is_some_and(|stem| matches!(stem.as_bytes(), [b'0'..=b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f']))
}

/// The names of all image folders below a root, in byte order.
pub(super) async fn walk_images(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Vec<(ImageName, Cid)>, TreeError> {
    let mut images = Vec::new();
    let mut todo = vec![(String::new(), *root)];
    let mut folders = 0_usize;
    while let Some((prefix, directory)) = todo.pop() {
        for (name, link) in blocks::list(blocks, &prefix, &directory).await? {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let reserved = name.starts_with(['_', '.']) || name == TAGS;
            if reserved || path.split('/').count() > NAME_DEPTH {
                continue;
            }
            if blocks::stat(blocks, &path, &link.cid).await? != Stat::Directory {
                continue;
            }
            folders += 1;
            if folders > limits::LISTED_FOLDERS {
                let reason = format!("it has more than {} folders", limits::LISTED_FOLDERS);
                return Err(TreeError::disagree("the registry", reason));
            }
            if is_image(blocks, &path, &link.cid).await?
                && let Ok(image) = path.parse::<ImageName>()
            {
                images.push((image, link.cid));
            }
            todo.push((path, link.cid));
        }
    }
    images.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(images)
}

async fn images_by_walking(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Vec<ImageSummary>, TreeError> {
    let mut out = Vec::new();
    for (image, folder) in walk_images(blocks, root).await? {
        let tags = match blocks::lookup(blocks, image.as_str(), &folder, TAGS).await? {
            Some(link) => blocks::list(blocks, image.as_str(), &link.cid).await?.len(),
            None => 0,
        };
        out.push(ImageSummary {
            description: description(blocks, &folder, image.as_str()).await?,
            name: image.to_string(),
            newest: None,
            size: None,
            updated: None,
            tags: u64::try_from(tags).unwrap_or(u64::MAX),
        });
    }
    Ok(out)
}

/// The first line of `README-short.txt`.
async fn description(blocks: &dyn ReadBlocks, image: &Cid, name: &str) -> Result<Option<String>, TreeError> {
    let path = format!("{name}/README-short.txt");
    let Some(link) = blocks::lookup(blocks, &path, image, "README-short.txt").await? else { return Ok(None) };
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::README_BYTES).await?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

/// The tags of an image, newest first, those without a time last.
pub async fn tags(blocks: &dyn ReadBlocks, root: &Cid, image: &ImageName) -> Result<Vec<TagSummary>, TreeError> {
    let Some(folder) = image_folder(blocks, root, image).await? else {
        return Err(TreeError::not_found(format!("image {image}")));
    };
    tags_in_image(blocks, &folder.cid, image.as_str()).await
}

/// The tags of an image's folder; `name` is for messages.
pub async fn tags_in_image(blocks: &dyn ReadBlocks, image: &Cid, name: &str) -> Result<Vec<TagSummary>, TreeError> {
    let Some(document) = image_document(blocks, image, name).await? else {
        let Some(link) = blocks::lookup(blocks, name, image, TAGS).await? else { return Ok(Vec::new()) };
        let tags = blocks::list(blocks, name, &link.cid).await?.into_keys();
        let bare = |tag| TagSummary { tag, digest: None, size: None, platforms: Vec::new(), pushed: None };
        return Ok(tags.map(bare).collect());
    };
    let mut tags: Vec<_> = document
        .tags
        .iter()
        .map(|(tag, row)| {
            let manifest = document.manifests.get(&row.digest);
            TagSummary {
                tag: tag.clone(),
                digest: Some(row.digest),
                size: manifest.map(|manifest| manifest.total),
                platforms: manifest.map(|manifest| manifest.platforms.clone()).unwrap_or_default(),
                pushed: Some(row.pushed),
            }
        })
        .collect();
    tags.sort_by(|a, b| b.pushed.cmp(&a.pushed).then_with(|| b.tag.cmp(&a.tag)));
    Ok(tags)
}
