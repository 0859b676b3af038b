//! Looking for contradictions in a registry: [`check`].
//!
//! Every document is read and every manifest hashed; of blobs only the first block is looked at. What is derived is derived
//! again and compared. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};

use cid::Cid;

use super::blocks;
use super::document::{self, CatalogueShard, FORMAT, ImageDocument, ManifestRow, RegistryDocument};
use super::edit::{catalogue_row, folders, read_names, shard_name};
use super::error::TreeError;
use super::handover::{HANDOVERS, handovers};
use super::layout::Layout;
use super::legacy::Legacy;
use super::read::{self, MANIFESTS, REFERRERS, TAGS};
use crate::digest::Digest;
use crate::image::layout::{IMAGE_NAME, OCI_LAYOUT_FILE, REF_NAME, tag_descriptor, untagged_descriptor};
use crate::image::manifest::Parsed;
use crate::image::media_type;
use crate::kind::in_one_line;
use crate::limits;
use crate::naming::handover::leads;
use crate::port::blocks::ReadBlocks;
use crate::reference::ImageName;

/// So many images have a list of names that is small enough to be there, whatever their descriptions are.
const FEW_IMAGES: usize = 256;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    /// Images looked at.
    pub images: u64,
    /// Tags looked at.
    pub tags: u64,
    /// Manifests and indexes looked at, each folder's own.
    pub manifests: u64,
    /// What is wrong; empty in a sound registry.
    pub problems: Vec<TreeProblem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProblem {
    /// Where.
    pub path: String,
    /// What, for people.
    pub reason: String,
}

impl TreeReport {
    fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(TreeProblem { path: path.into(), reason: reason.into() });
    }

    /// Takes a failure down; the value of a success.
    fn note<T>(&mut self, path: &str, result: Result<T, TreeError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(path, in_one_line(&error));
                None
            }
        }
    }
}

/// Looks at the whole registry `root`. Fails only when the root itself cannot be read; everything else is in the report.
pub async fn check(blocks: &dyn ReadBlocks, root: &Cid) -> Result<TreeReport, TreeError> {
    let mut report = TreeReport::default();
    let registry = read::registry(blocks, root).await?;
    let mut documents = BTreeMap::new();
    for (image, folder) in read::walk_images(blocks, root).await? {
        report.images += 1;
        if let Some(document) = check_image(blocks, &image, &folder, registry.is_some(), &mut report).await {
            report.tags += u64::try_from(document.tags.len()).unwrap_or(u64::MAX);
            documents.insert(image.to_string(), document);
        }
    }
    let Some(registry) = registry else { return Ok(report) };
    if registry.counts.images != report.images || registry.counts.tags != report.tags {
        let counts = &registry.counts;
        report.add(
            "_ipcr/registry.json",
            format!(
                "it counts {} images and {} tags; there are {} and {}",
                counts.images, counts.tags, report.images, report.tags
            ),
        );
    }
    check_handovers(blocks, root, &registry, &mut report).await;
    check_catalogue(blocks, root, &documents, &mut report).await;
    Ok(report)
}

/// Hand-overs must be signed, and lead from each key to the registry's.
async fn check_handovers(blocks: &dyn ReadBlocks, root: &Cid, registry: &RegistryDocument, report: &mut TreeReport) {
    let path = HANDOVERS.join("/");
    let Some(list) = report.note(&path, handovers(blocks, root).await) else { return };
    for handover in &list {
        if !handover.is_valid() {
            report.add(&path, format!("{} has not signed that it hands over to {}", handover.from, handover.to));
        } else if registry.ipns.parse().is_ok_and(|key| handover.from != key && !leads(&list, handover.from, key)) {
            report.add(&path, format!("{} does not lead to the registry's key {}", handover.from, registry.ipns));
        }
    }
}

async fn check_image(
    blocks: &dyn ReadBlocks,
    image: &ImageName,
    folder: &Cid,
    strict: bool,
    report: &mut TreeReport,
) -> Option<ImageDocument> {
    let name = image.as_str();
    let document = report.note(name, read::image_document(blocks, folder, name).await)?;
    if document.is_none() && strict {
        report.add(name, "it has no _image.json");
    }
    let tags = match report.note(name, blocks::walk(blocks, folder, [TAGS]).await)? {
        Some(link) => report.note(name, blocks::list(blocks, name, &link.cid).await)?,
        None => BTreeMap::new(),
    };
    let mut derived: BTreeMap<Digest, ManifestRow> = BTreeMap::new();
    for (tag, link) in &tags {
        let path = format!("{name}/{TAGS}/{tag}");
        let root = check_folder(blocks, &path, &link.cid, Some((name, tag)), &mut derived, report).await;
        let row = document.as_ref().and_then(|document| document.tags.get(tag));
        match (root, row) {
            (Some(root), Some(row)) if row.digest != root => {
                report.add(&path, format!("it holds {root}, _image.json says {}", row.digest));
            }
            (Some(_), None) if document.is_some() => report.add(&path, "_image.json does not list it"),
            _ => {}
        }
    }
    let document = document?;
    for tag in document.tags.keys().filter(|tag| !tags.contains_key(*tag)) {
        report.add(format!("{name}/{TAGS}/{tag}"), "_image.json lists it and it is not there");
    }
    let own: BTreeSet<Digest> =
        document.manifests.iter().filter(|(_, row)| row.has_own_folder()).map(|(digest, _)| *digest).collect();
    let found = by_digest(blocks, folder, name, MANIFESTS, report).await;
    for (digest, cid) in &found {
        let path = format!("{name}/{MANIFESTS}/{}/{}", digest.algorithm().name(), digest.hex());
        let root = check_folder(blocks, &path, cid, None, &mut derived, report).await;
        if root.is_some_and(|root| root != *digest) {
            report.add(&path, "it holds another manifest");
        }
        if !own.contains(digest) {
            report.add(&path, "_image.json does not list it");
        }
    }
    for digest in own.iter().filter(|digest| !found.contains_key(*digest)) {
        report.add(name, format!("_image.json gives {digest} a folder that is not there"));
    }
    check_rows(name, &document, &derived, report);
    check_referrers(blocks, folder, name, &document, report).await;
    Some(document)
}

/// Checks an image folder; returns the digest of what it holds and adds what `_image.json` should say about it.
async fn check_folder(
    blocks: &dyn ReadBlocks,
    path: &str,
    folder: &Cid,
    tag: Option<(&str, &str)>,
    derived: &mut BTreeMap<Digest, ManifestRow>,
    report: &mut TreeReport,
) -> Option<Digest> {
    let modern = report.note(path, blocks::lookup(blocks, path, folder, OCI_LAYOUT_FILE).await)?;
    if modern.is_none() {
        let legacy = report.note(path, Legacy::open(blocks, path, folder).await)?;
        for file in std::iter::once(&legacy.archive().config).chain(&legacy.archive().layers) {
            let _ = report.note(path, legacy.file(blocks, file).await);
        }
        return None;
    }
    let layout = report.note(path, Layout::open(blocks, path, folder).await)?;
    let root = layout.root();
    let expected = match tag {
        Some((image, tag)) => tag_descriptor(root, image, tag),
        None => untagged_descriptor(root),
    };
    if *root != expected {
        report.add(path, format!("index.json has other annotations than {REF_NAME} and {IMAGE_NAME} with its name"));
    }
    if let Some(expected) = report.note(path, layout.expected_archive(blocks).await)? {
        let names: Vec<String> = tag.iter().map(|(image, tag)| format!("{image}:{tag}")).collect();
        match layout.archive() {
            None => report.add(path, "manifest.json is missing"),
            Some(archive) if archive.repo_tags != names => report.add(path, "manifest.json has another name"),
            Some(archive) if archive.layers != expected.layers => report.add(path, "manifest.json has other layers"),
            Some(_) => {}
        }
    }
    let _ = report.note(path, layout.plain_sizes(blocks).await);
    for (descriptor, parsed) in report.note(path, layout.manifests(blocks).await)? {
        report.manifests += 1;
        let Parsed::Manifest(manifest) = parsed else { continue };
        for blob in manifest.blobs() {
            let place = format!("{path}/{}", blob.digest.layout_path());
            match report.note(&place, layout.blob(blocks, &blob.digest).await) {
                Some(None) if !media_type::is_nondistributable(&blob.media_type) => {
                    report.add(&place, format!("{} names it and it is not there", descriptor.digest));
                }
                Some(Some(file)) if file.size != blob.size => {
                    report.add(&place, format!("it has {} bytes instead of {}", file.size, blob.size));
                }
                _ => {}
            }
        }
    }
    derived.extend(report.note(path, layout.rows(blocks).await)?);
    Some(root.digest)
}

/// The entries of `_manifests` or `_referrers`, by digest.
async fn by_digest(
    blocks: &dyn ReadBlocks,
    folder: &Cid,
    name: &str,
    part: &str,
    report: &mut TreeReport,
) -> BTreeMap<Digest, Cid> {
    let mut out = BTreeMap::new();
    let path = format!("{name}/{part}");
    let Some(Some(link)) = report.note(&path, blocks::lookup(blocks, &path, folder, part).await) else { return out };
    let algorithms = report.note(&path, blocks::list(blocks, &path, &link.cid).await).unwrap_or_default();
    for (algorithm, link) in algorithms {
        for (hex, link) in report.note(&path, blocks::list(blocks, &path, &link.cid).await).unwrap_or_default() {
            match format!("{algorithm}:{hex}").parse() {
                Ok(digest) => {
                    out.insert(digest, link.cid);
                }
                Err(_) => report.add(&path, format!("{algorithm}/{hex} is no digest")),
            }
        }
    }
    out
}

fn check_rows(name: &str, document: &ImageDocument, derived: &BTreeMap<Digest, ManifestRow>, report: &mut TreeReport) {
    let folders = folders(document);
    let path = format!("{name}/_image.json");
    if document.format != FORMAT || document.name != name {
        report.add(&path, "it is of another format or image");
    }
    for (digest, row) in &document.manifests {
        let Some(expected) = derived.get(digest) else {
            report.add(&path, format!("it lists {digest}, which no folder holds"));
            continue;
        };
        let same = row.media_type == expected.media_type
            && row.size == expected.size
            && row.artifact_type == expected.artifact_type
            && row.platforms == expected.platforms
            && row.total == expected.total
            && row.children == expected.children
            && row.subject == expected.subject
            && folders.get(digest) == Some(&row.folder);
        if !same {
            report.add(&path, format!("what it says about {digest} is not what its folder holds"));
        }
    }
    for digest in derived.keys().filter(|digest| !document.manifests.contains_key(*digest)) {
        report.add(&path, format!("it does not list {digest}"));
    }
}

async fn check_referrers(
    blocks: &dyn ReadBlocks,
    folder: &Cid,
    name: &str,
    document: &ImageDocument,
    report: &mut TreeReport,
) {
    let mut expected: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
    for (digest, row) in &document.manifests {
        if let Some(subject) = row.subject {
            expected.entry(subject).or_default().insert(*digest);
        }
    }
    for subject in by_digest(blocks, folder, name, REFERRERS, report).await.into_keys() {
        let list = read::referrers_in_image(blocks, folder, name, &subject).await;
        let path = format!("{name}/{REFERRERS}/{}/{}", subject.algorithm().name(), subject.hex());
        let Some(list) = report.note(&path, list) else { continue };
        let found: BTreeSet<Digest> = list.iter().map(|descriptor| descriptor.digest).collect();
        if expected.remove(&subject).unwrap_or_default() != found || found.is_empty() {
            report.add(&path, "it does not list the manifests that refer to this one");
        }
    }
    for subject in expected.keys() {
        report.add(name, format!("{REFERRERS} lacks a list for {subject}"));
    }
}

async fn check_catalogue(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    documents: &BTreeMap<String, ImageDocument>,
    report: &mut TreeReport,
) {
    let path = "_ipcr/catalogue";
    let mut expected: BTreeMap<String, BTreeMap<&str, &ImageDocument>> = BTreeMap::new();
    for (name, document) in documents {
        expected.entry(shard_name(name)).or_default().insert(name, document);
    }
    let found = match report.note(path, blocks::walk(blocks, root, ["_ipcr", "catalogue"]).await).flatten() {
        Some(link) => report.note(path, blocks::list(blocks, path, &link.cid).await).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    for name in expected.keys().filter(|name| !found.contains_key(*name)) {
        report.add(format!("{path}/{name}"), "it is missing");
    }
    for (name, link) in found.iter().filter(|(name, _)| read::is_shard(name)) {
        let path = format!("{path}/{name}");
        let bytes = report.note(&path, blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await);
        let Some(bytes) = bytes else { continue };
        let Some(shard) = report.note(&path, document::parse::<CatalogueShard>(&path, &bytes)) else { continue };
        let rows: BTreeMap<&str, _> = shard
            .images
            .iter()
            .map(|(name, row)| {
                let mut row = row.clone();
                row.other.clear();
                (name.as_str(), row)
            })
            .collect();
        let expected = expected.get(name).cloned().unwrap_or_default();
        let expected: BTreeMap<&str, _> =
            expected.into_iter().map(|(name, image)| (name, catalogue_row(image))).collect();
        if rows != expected || rows.is_empty() {
            report.add(&path, "it does not say what the images' own documents say");
        }
    }
    if let Some(Some(names)) = report.note("_ipcr/catalogue/names.txt.gz", read_names(blocks, root).await) {
        let line = |document: &ImageDocument| document.description.clone().unwrap_or_default();
        let expected: BTreeMap<_, _> = documents.iter().map(|(name, image)| (name.clone(), line(image))).collect();
        if names != expected {
            report.add("_ipcr/catalogue/names.txt.gz", "it does not list the images that there are");
        }
    } else if !documents.is_empty() && documents.len() < FEW_IMAGES {
        report.add("_ipcr/catalogue/names.txt.gz", "it is missing");
    }
}
