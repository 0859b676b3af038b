//! Giving the registry another key (docs/format.md, sections 4 and 4a).

use cid::Cid;

use super::NewKey;
use super::catalogue::REGISTRY;
use super::plan::Plan;
use crate::limits;
use crate::tree::blocks::{self, Overlay};
use crate::tree::document::{self, FORMAT, HandoversDocument, RegistryDocument};
use crate::tree::error::TreeError;
use crate::tree::handover::HANDOVERS;

/// Path of the DID document.
pub(super) const DID_DOCUMENT: [&str; 2] = [".well-known", "did.json"];

/// What has to change so that the registry has the new key, and shows that the old one wants that.
pub(super) async fn change(overlay: &Overlay<'_>, root: &Cid, key: &NewKey) -> Result<Plan, TreeError> {
    let mut plan = Plan::default();
    let path = REGISTRY.join("/");
    let link = blocks::walk(overlay, root, REGISTRY).await?.ok_or_else(|| TreeError::not_found(path.clone()))?;
    let bytes = blocks::read_file(overlay, &path, &link.cid, limits::METADATA_BYTES).await?;
    let mut registry: RegistryDocument = document::parse_for_writing(&path, &bytes)?;
    registry.did.clone_from(&key.did);
    registry.ipns.clone_from(&key.ipns);
    let written = document::write(&registry);
    if written != bytes {
        plan.set(REGISTRY, Some(overlay.add_file("", &written)));
        plan.set(DID_DOCUMENT, Some(overlay.add_file("", key.did_document.as_bytes())));
    }

    let path = HANDOVERS.join("/");
    let mut list = match blocks::walk(overlay, root, HANDOVERS).await? {
        Some(link) => {
            let bytes = blocks::read_file(overlay, &path, &link.cid, limits::HANDOVERS_BYTES).await?;
            document::parse_for_writing(&path, &bytes)?
        }
        None => HandoversDocument { format: FORMAT, ..HandoversDocument::default() },
    };
    let entry = serde_json::to_value(&key.handover).expect("a hand-over is plain data");
    if !list.handovers.contains(&entry) {
        list.handovers.push(entry);
        let written = document::write(&list);
        let limit = limits::HANDOVERS_BYTES;
        if u64::try_from(written.len()).unwrap_or(u64::MAX) > limit {
            return Err(TreeError::TooLarge { path, limit });
        }
        plan.set(HANDOVERS, Some(overlay.add_file("", &written)));
    }
    Ok(plan)
}
