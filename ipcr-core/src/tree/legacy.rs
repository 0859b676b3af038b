//! Tag folders of 2020: unpacked `docker save` archives (docs/format.md, "Folders of 2020").

use cid::Cid;

use super::blocks::{self, Stat};
use super::error::TreeError;
use super::layout::BlobFile;
use crate::image::layout::{ARCHIVE_FILE, ArchiveImage, inner_path, parse_archive};
use crate::limits;
use crate::port::blocks::ReadBlocks;

/// An opened folder of 2020.
#[derive(Clone, Debug)]
pub struct Legacy {
    path: String,
    folder: Cid,
    archive: ArchiveImage,
}

impl Legacy {
    /// Opens a folder: reads `manifest.json`, which must list exactly one image.
    pub async fn open(blocks: &dyn ReadBlocks, path: &str, folder: &Cid) -> Result<Self, TreeError> {
        let file = format!("{path}/{ARCHIVE_FILE}");
        let Some(link) = blocks::lookup(blocks, &file, folder, ARCHIVE_FILE).await? else {
            return Err(TreeError::not_found(file));
        };
        let bytes = blocks::read_file(blocks, &file, &link.cid, limits::ARCHIVE_JSON_BYTES).await?;
        let images = parse_archive(&bytes).map_err(|source| TreeError::Layout { path: path.to_owned(), source })?;
        let [archive] = <[ArchiveImage; 1]>::try_from(images)
            .map_err(|found| TreeError::disagree(file, format!("it lists {} images instead of one", found.len())))?;
        Ok(Self { path: path.to_owned(), folder: *folder, archive })
    }

    /// The folder's CID.
    pub fn folder(&self) -> &Cid {
        &self.folder
    }

    /// What `manifest.json` says: paths of the configuration and the layers, for [`Legacy::file`].
    pub fn archive(&self) -> &ArchiveImage {
        &self.archive
    }

    /// A file of the folder by its path in `manifest.json`. A symbolic link is followed for one step, inside the folder. The
    /// bytes are not checked: nothing but the configuration says what they should be.
    pub async fn file(&self, blocks: &dyn ReadBlocks, path: &str) -> Result<BlobFile, TreeError> {
        let full = format!("{}/{path}", self.path);
        let missing = |path: &str| TreeError::disagree(path, "manifest.json names it, and the folder does not have it");
        let wanted = inner_path(path).ok_or_else(|| missing(&full))?;
        let link = blocks::walk(blocks, &self.folder, wanted.split('/')).await?;
        let link = link.ok_or_else(|| missing(&full))?;
        let link = match blocks::stat(blocks, &full, &link.cid).await? {
            Stat::Symlink { target } => {
                let outside = || TreeError::disagree(&full, "its link leads out of the folder");
                let target = follow(&wanted, &target).ok_or_else(outside)?;
                let found = blocks::walk(blocks, &self.folder, target.split('/')).await?;
                found.ok_or_else(|| missing(&format!("{}/{target}", self.path)))?
            }
            _ => link,
        };
        match blocks::stat(blocks, &full, &link.cid).await? {
            Stat::File { size } => Ok(BlobFile { cid: link.cid, size, tsize: link.tsize }),
            Stat::Symlink { .. } => Err(TreeError::disagree(full, "it is a link to a link")),
            _ => Err(TreeError::disagree(full, "it is not a file")),
        }
    }
}

/// Where a link at `path` with this target leads, if it stays inside.
fn follow(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    inner_path(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        assert_eq!(follow("ab/layer.tar", "../cd/layer.tar").as_deref(), Some("cd/layer.tar"));
        assert_eq!(follow("ab/layer.tar", "x").as_deref(), Some("ab/x"));
        assert_eq!(follow("ab/layer.tar", "../../cd/layer.tar"), None);
        assert_eq!(follow("ab/layer.tar", "/etc/passwd"), None);
        assert_eq!(follow("ab/layer.tar", ".."), None);
    }
}
