//! Looking for damage.

use std::sync::Arc;

use cid::Cid;

use super::collect::UpkeepError;
use crate::exchange::reader::Reader;
use crate::exchange::walk::survey;
use crate::kind::ErrorKind;
use crate::pin::state::State;
use crate::port::blocks::BlockStore;
use crate::port::table::{Space, Table};
use crate::tree::read;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes read and hashed.
    pub bytes_read: u64,
    /// Tags of this registry that were walked.
    pub tags: u64,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// Checks the store and this registry; with `read_data` every block is read and hashed. Changes nothing.
pub async fn check(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    read_data: bool,
) -> Result<Findings, UpkeepError> {
    let report = blocks.check(read_data).await?;
    let mut found = Findings { blocks: report.blocks, bytes_read: report.bytes_read, ..Findings::default() };
    found.problems.extend(report.damaged.iter().map(|cid| format!("block {cid} is damaged")));
    found.problems.extend(report.problems);
    let state = State::load(tables).await?;
    let Some(root) = state.root else { return Ok(found) };
    // Published by another home with this key, and never fetched.
    let elsewhere = |kind| state.shared && kind == ErrorKind::Unavailable;
    let reader = Reader::local(Arc::clone(blocks));
    let images = match read::images(&reader, &root).await {
        Ok(images) => images,
        Err(error) if elsewhere(error.kind()) => return pinned_only(blocks, tables, found).await,
        Err(error) => {
            found.problems.push(format!("the registry {root} cannot be read: {error}"));
            return Ok(found);
        }
    };
    for image in images {
        let Ok(name) = image.name.parse() else {
            found.problems.push(format!("the catalogue lists an image with a bad name: {}", image.name));
            continue;
        };
        let tags = match read::tags(&reader, &root, &name).await {
            Ok(tags) => tags,
            Err(error) if elsewhere(error.kind()) => continue,
            Err(error) => {
                found.problems.push(format!("image {name} cannot be read: {error}"));
                continue;
            }
        };
        for tag in tags {
            found.tags += 1;
            let Ok(wanted) = tag.tag.parse().map(read::Wanted::Tag) else {
                found.problems.push(format!("image {name} has a bad tag: {}", tag.tag));
                continue;
            };
            let folder = match read::find(&reader, &root, &name, &wanted).await {
                Ok(found) => found.folder,
                Err(error) if elsewhere(error.kind()) => continue,
                Err(error) => {
                    found.problems.push(format!("{name}:{} cannot be read: {error}", tag.tag));
                    continue;
                }
            };
            let pinned = tables.get(Space::Pins, &folder.to_bytes()).await?.is_some();
            let walked = survey(blocks.as_ref(), &folder).await?;
            if pinned && !walked.is_complete() {
                found
                    .problems
                    .push(format!("{name}:{} is not complete: {} blocks are missing", tag.tag, walked.missing));
            }
        }
    }
    Ok(found)
}

/// Checks what this home has whole, where the list of images is not among it.
async fn pinned_only(
    blocks: &Arc<dyn BlockStore>,
    tables: &Arc<dyn Table>,
    mut found: Findings,
) -> Result<Findings, UpkeepError> {
    for (folder, _) in tables.scan(Space::Pins, &[]).await? {
        let Ok(folder) = Cid::try_from(folder.as_slice()) else { continue };
        // A tag that was moved or removed since may have been collected.
        let walked = survey(blocks.as_ref(), &folder).await?;
        if walked.blocks > 0 && !walked.is_complete() {
            found.problems.push(format!("folder {folder} is not complete: {} blocks are missing", walked.missing));
        }
    }
    Ok(found)
}
