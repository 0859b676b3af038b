//! What of a registry is images, and what is about them: [`images`].

use cid::Cid;

use super::blocks;
use super::error::TreeError;
use super::read::{self, MANIFESTS, TAGS};
use crate::port::blocks::ReadBlocks;

/// An image's folders of tags and manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// How many tags there are.
    pub tags: u64,
    /// The folder of tags and that of manifests without one, as far as there are such.
    pub folders: Vec<Cid>,
}

/// All images of a registry. Of one whose folder cannot be read, the parts are empty.
pub async fn images(blocks: &dyn ReadBlocks, root: &Cid) -> Result<Vec<Parts>, TreeError> {
    let mut images = Vec::new();
    for (name, folder) in read::walk_images(blocks, root).await? {
        let mut parts = Parts { tags: 0, folders: Vec::new() };
        for part in [TAGS, MANIFESTS] {
            let Ok(Some(link)) = blocks::lookup(blocks, name.as_str(), &folder, part).await else { continue };
            parts.folders.push(link.cid);
            if part == TAGS {
                let tags = blocks::list(blocks, name.as_str(), &link.cid).await.map_or(0, |tags| tags.len());
                parts.tags = u64::try_from(tags).unwrap_or(u64::MAX);
            }
        }
        images.push(parts);
    }
    Ok(images)
}
