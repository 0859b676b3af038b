//! Merging with what another home with the same key published.

use cid::Cid;

use super::error::PublishError;
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::port::blocks::ReadBlocks;
use crate::reference::{ImageName, Tag};
use crate::tree::edit::Edit;
use crate::tree::read::{Wanted, find};
use crate::tree::tags::tag_digest;

/// Refuses edits of tags that the other side changed too, to something else than we do.
///
/// `ancestor` is the root that both sides started from (the last one that this home published), if there is one; `theirs` is the
/// published root.
pub(super) async fn refuse_conflicts(
    blocks: &dyn ReadBlocks,
    ancestor: Option<&Cid>,
    theirs: &Cid,
    edits: &[Edit],
) -> Result<(), PublishError> {
    for edit in edits {
        let (image, tag, ours) = match edit {
            Edit::SetTag { image, tag, stored, .. } => (image, tag, Some(stored.root.digest)),
            Edit::RemoveTag { image, tag } => (image, tag, None),
            // What is removed by digest or as a whole is meant to go, whatever it is now; a description is the newest one.
            Edit::RemoveDigest { .. } | Edit::RemoveImage { .. } | Edit::PutManifest { .. } | Edit::Describe { .. } => {
                continue;
            }
        };
        let there = tag_digest(blocks, theirs, image, tag).await?;
        let before = match ancestor {
            Some(ancestor) => tag_digest(blocks, ancestor, image, tag).await?,
            None => None,
        };
        if there != before && there != ours {
            return Err(conflict(image, tag, there, ours));
        }
    }
    Ok(())
}

fn conflict(image: &ImageName, tag: &Tag, theirs: Option<Digest>, ours: Option<Digest>) -> PublishError {
    let say = |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
    PublishError::Conflict { tag: format!("{image}:{tag}"), theirs: say(theirs), ours: say(ours) }
}

/// The pending edits that still make sense on the published root: what is gone there need not be removed again.
pub(super) async fn still_possible(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    pending: &[Edit],
) -> Result<Vec<Edit>, PublishError> {
    let mut possible: Vec<Edit> = Vec::new();
    for edit in pending {
        let set_before = possible.iter().any(|earlier| earlier.image() == edit.image());
        let there = match edit {
            Edit::RemoveTag { image, tag } => tag_digest(blocks, theirs, image, tag).await?.is_some(),
            Edit::RemoveDigest { image, digest } => match find(blocks, theirs, image, &Wanted::Digest(*digest)).await {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error.into()),
            },
            Edit::RemoveImage { image } | Edit::Describe { image, .. } => {
                crate::tree::read::image(blocks, theirs, image).await?.is_some()
            }
            _ => true,
        };
        if there || set_before {
            possible.push(edit.clone());
        }
    }
    Ok(possible)
}
