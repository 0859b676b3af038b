//! Editing directories whose nodes are read through a port.
//!
//! The rules are [`crate::dag::directory`]'s; this drives its editor.

use cid::Cid;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::path::PathError;
use crate::dag::directory::{Change, Edited, Editor, Progress};
use crate::port::blocks::ReadBlocks;

/// Most nodes that are read at once.
const NODES_AT_ONCE: usize = 32;

/// Applies `changes` to the directory `root`, or to a new one. Only nodes on the paths to what changed are read and
/// written; the new blocks are the caller's to store.
pub async fn edit(
    blocks: &dyn ReadBlocks,
    root: Option<Cid>,
    changes: impl IntoIterator<Item = Change>,
) -> Result<Edited, PathError> {
    let directory = root.unwrap_or_default();
    let refuse = |source| PathError::Directory { directory, source };
    let mut editor = Editor::new(root, changes).map_err(refuse)?;
    loop {
        match editor.advance().map_err(refuse)? {
            Progress::Done(edited) => return Ok(edited),
            Progress::Need(cids) => {
                let mut nodes = stream::iter(cids)
                    .map(|cid| async move { blocks.read(&cid).await.map(|data| (cid, data)) })
                    .buffer_unordered(NODES_AT_ONCE);
                let failed = |source| PathError::Read { directory, source };
                while let Some((cid, data)) = nodes.try_next().await.map_err(failed)? {
                    editor.supply(cid, &data).map_err(refuse)?;
                }
            }
        }
    }
}
