//! Making again what is derived: [`derived`].

use std::collections::BTreeMap;

use cid::Cid;

use super::blocks::{Overlay, small_file};
use super::document::{self, CatalogueShard, FORMAT};
use super::edit::{catalogue_row, shard_name, write_names};
use super::error::TreeError;
use super::read;
use crate::dag::block::Block;
use crate::image::layout::OCI_LAYOUT;
use crate::port::blocks::ReadBlocks;

/// The blocks of the catalogue, of the list of names and of the small files that are the same in every folder, as this version would
/// write them. Documents that somebody added unknown fields to come out otherwise, under other CIDs.
pub async fn derived(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Vec<Block>, TreeError> {
    let overlay = Overlay::new(blocks);
    let mut shards: BTreeMap<String, CatalogueShard> = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut made = small_file(OCI_LAYOUT.as_bytes()).1;
    for (image, folder) in read::walk_images(&overlay, root).await? {
        let Ok(Some(document)) = read::image_document(&overlay, &folder, image.as_str()).await else { continue };
        let shard = shards.entry(shard_name(image.as_str()));
        let shard = shard.or_insert_with(|| CatalogueShard { format: FORMAT, ..CatalogueShard::default() });
        shard.images.insert(image.to_string(), catalogue_row(&document));
        names.insert(image.to_string(), document.description.unwrap_or_default());
    }
    let files = shards.values().map(document::write).chain(write_names(&names).map(Into::into));
    made.extend(files.flat_map(|file| small_file(&file).1));
    Ok(made)
}
