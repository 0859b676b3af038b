//! Noting what of a home a registry holds (docs/format.md, section 4).

use cid::Cid;

use super::catalogue::REGISTRY;
use super::plan::Plan;
use crate::limits;
use crate::tree::blocks::{self, Overlay};
use crate::tree::document::{self, HomeRow, RegistryDocument};
use crate::tree::error::TreeError;

/// What has to change so that the registry says that it holds a home's changes up to this one. The home moves to the end of the list; the one
/// that was heard of least recently goes when there are too many.
pub(super) async fn change(overlay: &Overlay<'_>, root: &Cid, row: &HomeRow) -> Result<Plan, TreeError> {
    let mut plan = Plan::default();
    let path = REGISTRY.join("/");
    let link = blocks::walk(overlay, root, REGISTRY).await?.ok_or_else(|| TreeError::not_found(path.clone()))?;
    let bytes = blocks::read_file(overlay, &path, &link.cid, limits::METADATA_BYTES).await?;
    let mut registry: RegistryDocument = document::parse_for_writing(&path, &bytes)?;
    let homes = &mut registry.homes;
    let other = match homes.iter().position(|known| known.home == row.home) {
        Some(at) => homes.remove(at).other,
        None => row.other.clone(),
    };
    homes.push(HomeRow { other, ..row.clone() });
    homes.drain(..homes.len().saturating_sub(limits::HOMES));
    let written = document::write(&registry);
    if written != bytes {
        plan.set(REGISTRY, Some(overlay.add_file("", &written)));
    }
    Ok(plan)
}
