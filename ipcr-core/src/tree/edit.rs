//! Edits of a registry: [`Edit`], made by [`apply`]; [`empty`], the registry to begin with.
//!
//! Edits are made path by path: what an edit does not touch keeps its CID, and entries and members that this version does
//! not know stay where they are. The new registry is a function of the old one and the edits; nothing is read but the nodes
//! on the way. The blocks of the result are returned, not stored.

mod catalogue;
mod folder;
mod home;
mod image;
mod key;
mod plan;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use self::folder::Checked;
use self::image::ImageEdit;
use self::plan::Plan;
use super::blocks::{self, Overlay};
use super::document::{self, Counts, FORMAT, HomeRow, RegistryDocument};
use super::error::TreeError;
use super::stored::StoredImage;
use crate::dag::block::Block;
use crate::digest::Digest;
use crate::limits;
use crate::naming::handover::Handover;
use crate::port::blocks::{ReadBlocks, ReadError};
use crate::reference::{ImageName, Tag};

pub(super) use self::catalogue::{read_names, row as catalogue_row, shard_name, write_names};
pub(super) use self::image::folders;

/// One change of a registry. Edits are plain data: they are kept until they are published, and applied again when another
/// home published in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Edit {
    /// Lets a tag name an image.
    SetTag {
        /// The image's name.
        image: ImageName,
        /// The tag.
        tag: Tag,
        /// What it is to name; its blobs' blocks are stored.
        stored: Box<StoredImage>,
        /// A one-line description to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// A README to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        readme: Option<String>,
        /// The time of the push; written only if the tag changes.
        pushed: DateTime<Utc>,
    },
    /// Removes a tag. Its manifest stays pullable by digest like that of a moved tag.
    RemoveTag {
        /// The image's name.
        image: ImageName,
        /// The tag.
        tag: Tag,
    },
    /// Removes a manifest by digest, with every tag that names it.
    RemoveDigest {
        /// The image's name.
        image: ImageName,
        /// The manifest.
        digest: Digest,
    },
    /// Removes an image with all its tags and manifests.
    RemoveImage {
        /// The image's name.
        image: ImageName,
    },
    /// Stores a manifest without a tag, pullable by digest until it is removed.
    PutManifest {
        /// The image's name.
        image: ImageName,
        /// The manifest; its blobs' blocks are stored.
        stored: Box<StoredImage>,
        /// The time of the push.
        pushed: DateTime<Utc>,
    },
    /// Describes an image that exists; an empty text removes.
    Describe {
        /// The image's name.
        image: ImageName,
        /// A one-line description to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// A README to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        readme: Option<String>,
    },
    /// Gives the registry another key.
    HandOver {
        /// The key, and the old one's word for it.
        key: Box<NewKey>,
    },
}

/// Another key for a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The key as `did:key:…`.
    pub did: String,
    /// The key as an IPNS name (`k51…`).
    pub ipns: String,
    /// The DID document of the key, as JSON.
    pub did_document: String,
    /// What the old key has signed.
    pub handover: Handover,
}

impl Edit {
    /// The image that it changes; `None` for the registry itself.
    pub fn image(&self) -> Option<&ImageName> {
        match self {
            Self::SetTag { image, .. }
            | Self::RemoveTag { image, .. }
            | Self::RemoveDigest { image, .. }
            | Self::RemoveImage { image }
            | Self::PutManifest { image, .. }
            | Self::Describe { image, .. } => Some(image),
            Self::HandOver { .. } => None,
        }
    }
}

/// An edited registry.
#[derive(Clone, Debug)]
pub struct Edited {
    /// Its root.
    pub root: Cid,
    /// Blocks that are new or may be, children before parents.
    pub blocks: Vec<Block>,
    /// Whether the root is the one that was given.
    pub unchanged: bool,
    /// For each edit the folder that it made or found: that of the tag, for [`Edit::SetTag`].
    pub folders: Vec<Option<Cid>>,
}

/// Applies edits to the registry `root`, in their order, all or none. If they change it and are a home's change, that is noted in it.
///
/// Fails with [`TreeError::NotFound`] when something is to be removed that is not there, with [`TreeError::NewerFormat`] when a
/// file that has to be changed is of a newer format, and with [`TreeError::Incomplete`] when an image lacks a part.
pub async fn apply(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    edits: &[Edit],
    of: Option<&HomeRow>,
) -> Result<Edited, TreeError> {
    let overlay = Overlay::new(blocks);
    let mut now = *root;
    let mut folders = Vec::new();
    for edit in edits {
        let (next, folder) = apply_one(&overlay, &now, edit).await?;
        now = next;
        folders.push(folder);
    }
    if let Some(row) = of.filter(|_| now != *root) {
        now = note(&overlay, &now, row).await?;
    }
    Ok(Edited { root: now, blocks: overlay.into_reachable(&now), unchanged: now == *root, folders })
}

/// Notes what of a home the registry holds, whether or not anything else changes.
pub async fn note_home(blocks: &dyn ReadBlocks, root: &Cid, row: &HomeRow) -> Result<Edited, TreeError> {
    let overlay = Overlay::new(blocks);
    let now = note(&overlay, root, row).await?;
    Ok(Edited { root: now, blocks: overlay.into_reachable(&now), unchanged: now == *root, folders: Vec::new() })
}

async fn note(overlay: &Overlay<'_>, root: &Cid, row: &HomeRow) -> Result<Cid, TreeError> {
    let plan = home::change(overlay, root, row).await?;
    finish(overlay, root, plan).await
}

/// The blocks of the tag folders that edits make, which are the same in every registry: what is damaged of a folder that is there
/// already is whole again for whoever stores them first.
pub async fn folders_of(blocks: &dyn ReadBlocks, edits: &[Edit]) -> Result<Vec<Block>, TreeError> {
    let mut parts = Vec::new();
    for edit in edits {
        if let Edit::SetTag { image, tag, stored, .. } = edit {
            let overlay = Overlay::new(blocks);
            let folder = Checked::new(stored)?.folder(&overlay, &stored.root, Some((image, tag))).await?;
            parts.extend(overlay.into_reachable(&folder.link.cid));
        }
    }
    Ok(parts)
}

async fn apply_one(overlay: &Overlay<'_>, root: &Cid, edit: &Edit) -> Result<(Cid, Option<Cid>), TreeError> {
    check_registry(overlay, root).await?;
    if let Edit::HandOver { key } = edit {
        let plan = key::change(overlay, root, key).await?;
        return Ok((finish(overlay, root, plan).await?, None));
    }
    let name = edit.image().expect("every other edit is one of an image");
    let mut image = ImageEdit::open(overlay, root, name).await?;
    let mut folder = None;
    match edit {
        Edit::SetTag { tag, stored, description, readme, pushed, .. } => {
            folder = Some(image.set_tag(tag, stored, *pushed).await?);
            image.describe(description.as_deref(), readme.as_deref())?;
        }
        Edit::PutManifest { stored, pushed, .. } => image.put_manifest(stored, *pushed).await?,
        Edit::RemoveTag { tag, .. } => image.remove_tag(tag.as_str()).await?,
        Edit::RemoveDigest { digest, .. } => image.remove_digest(digest)?,
        Edit::RemoveImage { .. } => image.remove_image().await?,
        Edit::Describe { description, readme, .. } => {
            image.require()?;
            image.describe(description.as_deref(), readme.as_deref())?;
        }
        Edit::HandOver { .. } => {}
    }
    let mut change = image.finish().await?;
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    if before != after {
        catalogue::update(overlay, root, name.as_str(), before, after, &mut change.plan).await?;
    }
    Ok((finish(overlay, root, change.plan).await?, folder))
}

/// Makes the planned changes; the root afterwards.
async fn finish(overlay: &Overlay<'_>, root: &Cid, plan: Plan) -> Result<Cid, TreeError> {
    if plan.is_empty() {
        return Ok(*root);
    }
    let next = plan.apply(overlay, String::new(), Some(*root)).await?;
    Ok(next.ok_or_else(|| TreeError::disagree("/", "nothing would be left of the registry"))?.cid)
}

/// Refuses to write into what is no registry, or a newer one.
async fn check_registry(blocks: &dyn ReadBlocks, root: &Cid) -> Result<(), TreeError> {
    let path = catalogue::REGISTRY.join("/");
    let Some(link) = blocks::walk(blocks, root, catalogue::REGISTRY).await? else {
        return Err(TreeError::not_found(path));
    };
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await?;
    document::parse_for_writing::<RegistryDocument>(&path, &bytes).map(|_| ())
}

/// What a new registry says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryInfo {
    /// Its key as `did:key:…`.
    pub did: String,
    /// Its key as an IPNS name (`k51…`).
    pub ipns: String,
    /// A title for people.
    pub title: Option<String>,
    /// The domain that will point at it.
    pub domain: Option<String>,
    /// Recipients of data for the owner (`age1…`).
    pub key_agreement: Vec<String>,
    /// Multiaddrs of nodes that hold it.
    pub mirrors: Vec<String>,
    /// The DID document of its key, as JSON.
    pub did_document: String,
}

/// A registry without images.
pub async fn empty(info: &RegistryInfo) -> Result<Edited, TreeError> {
    let overlay = Overlay::new(&NoBlocks);
    let registry = RegistryDocument {
        format: FORMAT,
        did: info.did.clone(),
        ipns: info.ipns.clone(),
        title: info.title.clone(),
        domain: info.domain.clone(),
        key_agreement: info.key_agreement.clone(),
        counts: Counts::default(),
        namespaces: BTreeMap::new(),
        mirrors: info.mirrors.clone(),
        homes: Vec::new(),
        other: Map::new(),
    };
    let mut plan = Plan::default();
    plan.set(catalogue::REGISTRY, Some(overlay.add_file("", &document::write(&registry))));
    plan.set(key::DID_DOCUMENT, Some(overlay.add_file("", info.did_document.as_bytes())));
    let root = plan.apply(&overlay, String::new(), None).await?;
    let root = root.ok_or_else(|| TreeError::disagree("/", "a new registry has files"))?.cid;
    Ok(Edited { root, blocks: overlay.into_reachable(&root), unchanged: false, folders: Vec::new() })
}

/// Where a new registry comes from.
#[derive(Debug)]
struct NoBlocks;

#[async_trait::async_trait]
impl ReadBlocks for NoBlocks {
    async fn read(&self, cid: &Cid) -> Result<bytes::Bytes, ReadError> {
        Err(ReadError::Missing { cid: *cid })
    }
}
