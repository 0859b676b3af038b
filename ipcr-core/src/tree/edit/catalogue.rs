//! What is derived from the images: catalogue, list of names, counts (docs/format.md, sections 4 and 5).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use cid::Cid;
use flate2::{Compression, GzBuilder};

use super::plan::Plan;
use crate::digest::Digest;
use crate::limits;
use crate::tree::blocks::{self, Overlay};
use crate::tree::document::{self, CatalogueRow, CatalogueShard, FORMAT, ImageDocument, RegistryDocument};
use crate::tree::error::TreeError;

/// Path of the list of names.
pub(in crate::tree) const NAMES: [&str; 3] = ["_ipcr", "catalogue", "names.txt.gz"];
/// Path of the registry's own document.
pub(in crate::tree) const REGISTRY: [&str; 2] = ["_ipcr", "registry.json"];
/// Largest list of names, compressed, in bytes.
const NAMES_BYTES: usize = 512 << 10;

/// The file name of the shard that lists an image.
pub(in crate::tree) fn shard_name(image: &str) -> String {
    format!("{:02x}.json", Digest::sha256(image.as_bytes()).as_bytes()[0])
}

/// The catalogue's row of an image.
pub(in crate::tree) fn row(document: &ImageDocument) -> CatalogueRow {
    let newest = document.tags.iter().max_by(|a, b| a.1.pushed.cmp(&b.1.pushed).then_with(|| a.0.cmp(b.0)));
    CatalogueRow {
        description: document.description.clone(),
        newest: newest.map(|(tag, _)| tag.clone()),
        size: newest.and_then(|(_, row)| document.manifests.get(&row.digest)).map(|manifest| manifest.total),
        updated: newest.map(|(_, row)| row.pushed),
        tags: u64::try_from(document.tags.len()).unwrap_or(u64::MAX),
        other: serde_json::Map::new(),
    }
}

/// Adds to `plan` what has to change when an image's document went from `old` to `new`; `None`: no such image.
pub(super) async fn update(
    overlay: &Overlay<'_>,
    root: &Cid,
    image: &str,
    old: Option<&ImageDocument>,
    new: Option<&ImageDocument>,
    plan: &mut Plan,
) -> Result<(), TreeError> {
    update_shard(overlay, root, image, new, plan).await?;
    let path = REGISTRY.join("/");
    let Some(link) = blocks::walk(overlay, root, REGISTRY).await? else { return Err(TreeError::not_found(path)) };
    let bytes = blocks::read_file(overlay, &path, &link.cid, limits::METADATA_BYTES).await?;
    let mut registry: RegistryDocument = document::parse_for_writing(&path, &bytes)?;
    let was_empty = registry.counts.images == 0;
    let tags = |document: Option<&ImageDocument>| document.map_or(0, |document| row(document).tags);
    let images = |document: Option<&ImageDocument>| u64::from(document.is_some());
    registry.counts.images = (registry.counts.images + images(new)).saturating_sub(images(old));
    registry.counts.tags = (registry.counts.tags + tags(new)).saturating_sub(tags(old));
    let written = document::write(&registry);
    if written != bytes {
        plan.set(REGISTRY, Some(overlay.add_file("", &written)));
    }
    let line = |document: Option<&ImageDocument>| document.map(|document| document.description.clone());
    if line(old) != line(new) {
        update_names(overlay, root, image, was_empty, line(new), plan).await?;
    }
    Ok(())
}

async fn update_shard(
    overlay: &Overlay<'_>,
    root: &Cid,
    image: &str,
    new: Option<&ImageDocument>,
    plan: &mut Plan,
) -> Result<(), TreeError> {
    let name = shard_name(image);
    let names = ["_ipcr", "catalogue", &name];
    let path = names.join("/");
    let mut shard = match blocks::walk(overlay, root, names).await? {
        Some(link) => {
            let bytes = blocks::read_file(overlay, &path, &link.cid, limits::METADATA_BYTES).await?;
            document::parse_for_writing(&path, &bytes)?
        }
        None => CatalogueShard { format: FORMAT, ..CatalogueShard::default() },
    };
    let before = shard.clone();
    match new {
        Some(new) => {
            let other = shard.images.remove(image).map(|row| row.other).unwrap_or_default();
            shard.images.insert(image.to_owned(), CatalogueRow { other, ..row(new) });
        }
        None => {
            shard.images.remove(image);
        }
    }
    if shard != before {
        let link = (!shard.images.is_empty()).then(|| overlay.add_file("", &document::write(&shard)));
        plan.set(names, link);
    }
    Ok(())
}

/// Changes one line of the list of names. A list that had become too large stays away.
async fn update_names(
    overlay: &Overlay<'_>,
    root: &Cid,
    image: &str,
    was_empty: bool,
    line: Option<Option<String>>,
    plan: &mut Plan,
) -> Result<(), TreeError> {
    let mut names = match read_names(overlay, root).await? {
        Some(names) => names,
        None if was_empty => BTreeMap::new(),
        None => return Ok(()),
    };
    match line {
        Some(description) => names.insert(image.to_owned(), description.unwrap_or_default()),
        None => names.remove(image),
    };
    let written = write_names(&names);
    plan.set(NAMES, written.map(|written| overlay.add_file("", &written)));
    Ok(())
}

/// The list of names, if the registry has one.
pub(in crate::tree) async fn read_names(
    blocks: &dyn crate::port::blocks::ReadBlocks,
    root: &Cid,
) -> Result<Option<BTreeMap<String, String>>, TreeError> {
    let path = NAMES.join("/");
    let Some(link) = blocks::walk(blocks, root, NAMES).await? else { return Ok(None) };
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::METADATA_BYTES).await?;
    let mut text = String::new();
    let mut reader = flate2::bufread::MultiGzDecoder::new(bytes.as_ref()).take(limits::METADATA_BYTES + 1);
    if reader.read_to_string(&mut text).is_err() {
        return Err(TreeError::disagree(path, "it is not a gzip file of text"));
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limits::METADATA_BYTES {
        return Err(TreeError::TooLarge { path, limit: limits::METADATA_BYTES });
    }
    let pairs = text.lines().map(|line| line.split_once('\t').unwrap_or((line, "")));
    Ok(Some(pairs.map(|(name, description)| (name.to_owned(), description.to_owned())).collect()))
}

/// The file with these names; `None` when there are none or too many.
pub(in crate::tree) fn write_names(names: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    if names.is_empty() {
        return None;
    }
    // No time and no file name, so that equal names give equal bytes.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    for (name, description) in names {
        let line = format!("{name}\t{description}\n");
        gzip.write_all(line.as_bytes()).expect("memory takes all that is written");
    }
    let bytes = gzip.finish().expect("memory takes all that is written");
    (bytes.len() <= NAMES_BYTES).then_some(bytes)
}
