//! What a tag names: [`tag_digest`].

use cid::Cid;

use super::error::TreeError;
use super::read::{Wanted, find};
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::port::blocks::ReadBlocks;
use crate::reference::{ImageName, Tag};

/// The digest of what a tag names; `None` if there is no such tag, or if it is a folder of 2020.
pub async fn tag_digest(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    image: &ImageName,
    tag: &Tag,
) -> Result<Option<Digest>, TreeError> {
    match find(blocks, root, image, &Wanted::Tag(tag.clone())).await {
        Ok(found) => Ok(found.digest()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
