//! Merging with what another home with the same key published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cid::Cid;

use super::error::PublishError;
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::pin::changes::{self, Made, Pending};
use crate::pin::state::State;
use crate::port::blocks::ReadBlocks;
use crate::port::table::{Change, Table};
use crate::reference::{ImageName, Tag};
use crate::tree::document::HomeRow;
use crate::tree::edit::Edit;
use crate::tree::read::{self, Wanted, find};
use crate::tree::tags::tag_digest;

/// What this home changed and a published root lacks.
#[derive(Debug)]
pub(super) struct Unseen {
    /// The changes, oldest first.
    pub(super) made: Vec<Made>,
    /// Changes that are not needed any more.
    pub(super) forgotten: Vec<Change>,
}

/// What a published root lacks of this home's changes, by what it says of the homes in it. `since` is the sequence of its record.
///
/// When it says something of this home that this home never did, a copy of the home did it: then this one gets another name in `state`, and
/// what it changed since it last published is taken for unseen. Fails when changes are lacking that are not remembered any more, unless
/// told to go on.
pub(super) async fn unseen(
    state: &mut State,
    tables: &Arc<dyn Table>,
    homes: &[HomeRow],
    since: u64,
    force: bool,
) -> Result<Unseen, PublishError> {
    let mut made = changes::all(tables).await?;
    let oldest = made.first().map_or(state.change + 1, |made| made.number);
    let row = homes.iter().find(|row| row.home == state.home);
    let is_copied = row.is_some_and(|row| match made.iter().find(|made| made.number == row.change) {
        Some(made) => made.mark != row.mark,
        None => row.change >= oldest,
    });
    let seen = match row {
        None => state.first.saturating_sub(1),
        Some(_) if is_copied => state.seen_by(since),
        Some(row) => row.change,
    };
    let lost = oldest.saturating_sub(seen.max(state.first.saturating_sub(1)) + 1);
    if lost > 0 && !force {
        return Err(PublishError::Forgotten { lost });
    }
    made.retain(|made| made.number > seen);
    let mut forgotten = Vec::new();
    if is_copied {
        let first = made.first().map_or(state.change + 1, |made| made.number);
        state.rename(first);
        forgotten.extend((oldest..first).map(changes::forget));
    }
    Ok(Unseen { made, forgotten })
}

/// What writes changes down anew, with their edits as they are upon the published root.
pub(super) fn rewritten(made: Vec<Made>, edits: &[Pending]) -> Vec<Change> {
    let rewrite = |before: Made| {
        let edits = edits.iter().filter(|pending| pending.change == before.number).cloned().collect();
        Made { edits, ..before }.write()
    };
    made.into_iter().flat_map(rewrite).collect()
}

/// The tag that an edit changes by name.
pub(super) fn tag_of(edit: &Edit) -> Option<(&ImageName, &Tag)> {
    match edit {
        Edit::SetTag { image, tag, .. } | Edit::RemoveTag { image, tag } => Some((image, tag)),
        // What is removed by digest is meant to go; a description is the newest one. Whole images: see `still_possible`.
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

/// The edits that win over what the other side did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Forced<'a> {
    /// None.
    None,
    /// Those of the same tags as these.
    Only(&'a [Pending]),
    /// All.
    All,
}

impl Forced<'_> {
    fn wins(self, image: &ImageName, tag: &Tag) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(edits) => edits.iter().any(|pending| match &pending.edit {
                Edit::RemoveImage { image: removed } => removed == image,
                edit => tag_of(edit) == Some((image, tag)),
            }),
        }
    }
}

/// Refuses edits of tags that the other side changed too, to something else than we do. `theirs` is the published root.
pub(super) async fn refuse_conflicts(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    edits: &[Pending],
    forced: Forced<'_>,
) -> Result<(), PublishError> {
    // What each tag named before all edits of it, and names after them.
    let mut changes: BTreeMap<(ImageName, Tag), (Option<Digest>, Option<Digest>)> = BTreeMap::new();
    for Pending { edit, before, tags, .. } in edits {
        if let Some((image, tag)) = tag_of(edit) {
            changes.entry((image.clone(), tag.clone())).or_insert((*before, None)).1 = wanted_by(edit);
        } else if let Edit::RemoveImage { image } = edit {
            let set_before = changes.keys().filter(|(of, _)| of == image).map(|(_, tag)| tag.clone());
            let mut gone: BTreeSet<Tag> = set_before.collect();
            // Those too that whoever removed the image has never seen.
            gone.extend(tags_of(blocks, theirs, image).await?.into_keys());
            for tag in gone {
                let before = tags.get(&tag).copied();
                changes.entry((image.clone(), tag)).or_insert((before, None)).1 = None;
            }
        }
    }
    changes.retain(|(image, tag), _| !forced.wins(image, tag));
    for ((image, tag), (before, ours)) in changes {
        let there = tag_digest(blocks, theirs, &image, &tag).await?;
        if there != before && there != ours {
            let say = |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
            let tag = format!("{image}:{tag}");
            return Err(PublishError::Conflict { tag, theirs: say(there), ours: say(ours) });
        }
    }
    Ok(())
}

/// The edits that still make sense on the published root: what is gone there need not be removed again, and of an image that got
/// other tags meanwhile only those go that were there when it was removed.
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
            Edit::RemoveImage { image } => {
                let tags = tags_of(blocks, theirs, image).await?;
                if tags.iter().any(|(tag, digest)| pending.tags.get(tag) != Some(digest)) {
                    possible.extend(removals(image, &pending.tags, &tags, &possible, pending.change));
                    continue;
                }
                read::image(blocks, theirs, image).await?.is_some()
            }
            Edit::Describe { image, .. } => read::image(blocks, theirs, image).await?.is_some(),
            _ => true,
        };
        if there || set_before {
            possible.push(pending);
        }
    }
    Ok(possible)
}

/// The tags of an image, one by one, as far as they are there or an earlier edit sets them.
fn removals(
    image: &ImageName,
    removed: &BTreeMap<Tag, Digest>,
    there: &BTreeMap<Tag, Digest>,
    earlier: &[Pending],
    change: u64,
) -> Vec<Pending> {
    let is_set = |tag: &Tag| {
        let sets = |edit: &Edit| matches!(edit, Edit::SetTag { image: of, tag: set, .. } if of == image && set == tag);
        earlier.iter().any(|pending| sets(&pending.edit))
    };
    let gone = removed.iter().filter(|(tag, _)| there.contains_key(tag) || is_set(tag));
    let remove = gone.map(|(tag, digest)| {
        let edit = Edit::RemoveTag { image: image.clone(), tag: tag.clone() };
        Pending { before: Some(*digest), change, ..Pending::new(edit) }
    });
    remove.collect()
}

/// What the tags of an image name.
async fn tags_of(
    blocks: &dyn ReadBlocks,
    root: &Cid,
    image: &ImageName,
) -> Result<BTreeMap<Tag, Digest>, PublishError> {
    let Some(document) = read::image(blocks, root, image).await? else { return Ok(BTreeMap::new()) };
    let tags = document.tags.iter().filter_map(|(tag, row)| Some((tag.parse().ok()?, row.digest)));
    Ok(tags.collect())
}

/// An edit with what it is made upon.
pub(super) async fn noted(blocks: &dyn ReadBlocks, root: Option<&Cid>, edit: Edit) -> Result<Pending, PublishError> {
    let (mut before, mut tags) = (None, BTreeMap::new());
    match (root, &edit) {
        (Some(root), Edit::RemoveImage { image }) => tags = tags_of(blocks, root, image).await?,
        (Some(root), edit) => {
            if let Some((image, tag)) = tag_of(edit) {
                before = tag_digest(blocks, root, image, tag).await?;
            }
        }
        (None, _) => {}
    }
    Ok(Pending { edit, before, tags, change: 0 })
}

/// The same edits as made upon the published root.
pub(super) async fn upon(
    blocks: &dyn ReadBlocks,
    theirs: &Cid,
    edits: Vec<Pending>,
) -> Result<Vec<Pending>, PublishError> {
    let mut moved = Vec::with_capacity(edits.len());
    for pending in edits {
        let Pending { edit, change, .. } = pending;
        moved.push(Pending { change, ..noted(blocks, Some(theirs), edit).await? });
    }
    Ok(moved)
}
