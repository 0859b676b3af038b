//! The hand-overs that a registry shows: [`handovers`].

use cid::Cid;

use super::blocks;
use super::document::{self, HandoversDocument};
use super::error::TreeError;
use crate::limits;
use crate::naming::handover::Handover;
use crate::port::blocks::ReadBlocks;

/// Path of the list.
pub(super) const HANDOVERS: [&str; 2] = ["_ipcr", "handovers.json"];

/// All hand-overs that a registry lists and that can be read; none of them is verified. `base` is the registry's folder.
pub async fn handovers(blocks: &dyn ReadBlocks, base: &Cid) -> Result<Vec<Handover>, TreeError> {
    let path = HANDOVERS.join("/");
    let Some(link) = blocks::walk(blocks, base, HANDOVERS).await? else { return Ok(Vec::new()) };
    let bytes = blocks::read_file(blocks, &path, &link.cid, limits::HANDOVERS_BYTES).await?;
    let list: HandoversDocument = document::parse(&path, &bytes)?;
    Ok(list.handovers.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}
