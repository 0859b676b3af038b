//! `oci:DIR[:REF]`: images in a folder, as skopeo, buildah, umoci, oras and `ipfs get` leave them. Source: [`LayoutFolder`]; sink:
//! [`LayoutSink`].

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::export::{ListedExport, with_manifests};
use super::files::{Files, Folder};
use super::layout::Layout;
use super::place::Place;
use crate::image::layout::ARCHIVE_FILE;
use crate::port::image::{ImageError, ImageSource, Opened};

pub use super::layout_sink::LayoutSink;

/// An image in a folder: an OCI image layout, or an unpacked `docker save` archive (as registries of 2020 hold them).
#[derive(Debug)]
pub struct LayoutFolder {
    path: PathBuf,
    want: Option<String>,
    place: Place,
}

impl LayoutFolder {
    /// The image `want` (an annotation or a digest) of the folder at `path`; without `want` there must be exactly one.
    pub fn new(path: impl Into<PathBuf>, want: Option<String>) -> Self {
        let path = path.into();
        let place = Place::new(path.display().to_string());
        Self { path, want, place }
    }
}

#[async_trait]
impl ImageSource for LayoutFolder {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let want = self.want.as_deref();
        let folder = Folder::open(&self.path, &self.place).await?;
        if let Some(chosen) = with_manifests(&folder, want).await? {
            return Ok(Opened::Blobs(Arc::new(Layout::new(folder, chosen))));
        }
        if folder.find(ARCHIVE_FILE).await?.is_none() {
            return Err(self.place.malformed("it is neither an OCI image layout nor an unpacked docker archive"));
        }
        Ok(Opened::Export(Box::new(ListedExport::open(folder, want).await?)))
    }
}
