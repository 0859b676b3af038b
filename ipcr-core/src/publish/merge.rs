//! Merging with what another home with the same key published.

use std::collections::BTreeMap;

use cid::Cid;

use super::error::PublishError;
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::pin::state::Pending;
use crate::port::blocks::ReadBlocks;
use crate::reference::{ImageName, Tag};
use crate::tree::edit::Edit;
use crate::tree::read::{Wanted, find, image};
use crate::tree::tags::tag_digest;

/// The tag that an edit changes by name.
pub(super) fn tag_of(edit: &Edit) -> Option<(&ImageName, &Tag)> {
    match edit {
        Edit::SetTag { image, tag, .. } | Edit::RemoveTag { image, tag } => Some((image, tag)),
        // What is removed by digest or as a whole is meant to go, whatever it is now; a description is the newest one.
        _ => None,
    }
}

/// What an edit lets its tag name.
fn wanted_by(edit: &Edit) -> Option<Digest> {
    match edit {
        Edit::SetTag { stored, .. } => Some(stored.root.digest),
        _ => None,
    }
}

/// Refuses edits of tags that the other side changed too, to something else than we do. `theirs` is the published root.
pub(super) async fn refuse_conflicts(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    edits: &[Pending],
) -> Result<(), PublishError> {
    // What each tag named before all edits of it, and names after them.
    let mut changes: BTreeMap<(&ImageName, &Tag), (Option<Digest>, Option<Digest>)> = BTreeMap::new();
    for Pending { edit, before } in edits {
        if let Some(tag) = tag_of(edit) {
            changes.entry(tag).or_insert((*before, None)).1 = wanted_by(edit);
        }
    }
    for ((image, tag), (before, ours)) in changes {
        let there = tag_digest(blocks, theirs, image, tag).await?;
        if there != before && there != ours {
            let say = |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
            let tag = format!("{image}:{tag}");
            return Err(PublishError::Conflict { tag, theirs: say(there), ours: say(ours) });
        }
    }
    Ok(())
}

/// The edits that still make sense on the published root: what is gone there need not be removed again.
pub(super) async fn still_possible(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    edits: Vec<Pending>,
) -> Result<Vec<Pending>, PublishError> {
    let mut possible: Vec<Pending> = Vec::new();
    for pending in edits {
        let edit = &pending.edit;
        let set_before = possible.iter().any(|earlier| earlier.edit.image() == edit.image());
        let there = match edit {
            Edit::RemoveTag { image, tag } => tag_digest(blocks, theirs, image, tag).await?.is_some(),
            Edit::RemoveDigest { image, digest } => match find(blocks, theirs, image, &Wanted::Digest(*digest)).await {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error.into()),
            },
            Edit::RemoveImage { image: name } | Edit::Describe { image: name, .. } => {
                image(blocks, theirs, name).await?.is_some()
            }
            _ => true,
        };
        if there || set_before {
            possible.push(pending);
        }
    }
    Ok(possible)
}

/// The same edits as made upon the published root.
pub(super) async fn upon(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    edits: Vec<Pending>,
) -> Result<Vec<Pending>, PublishError> {
    let mut moved = Vec::with_capacity(edits.len());
    for Pending { edit, .. } in edits {
        let before = match tag_of(&edit) {
            Some((image, tag)) => tag_digest(blocks, theirs, image, tag).await?,
            None => None,
        };
        moved.push(Pending { edit, before });
    }
    Ok(moved)
}
