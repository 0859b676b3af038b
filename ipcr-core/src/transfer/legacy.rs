//! A tag folder of 2020 as a source: an unpacked `docker save` archive ([`LegacyFolder`]).
//!
//! There is no OCI manifest in it, and nothing but the configuration's diff IDs says what the layers should be.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::digest::Digest;
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::config::parse_config;
use crate::kind::{Cause, ErrorKind};
use crate::limits;
use crate::port::image::{Export, ExportedImage, ExportedLayer, ImageError};
use crate::tree::legacy::Legacy;

/// The layers of an unpacked archive, lowest first.
#[derive(Debug)]
pub(super) struct LegacyFolder {
    place: String,
    legacy: Legacy,
    reader: Reader,
    window: Window,
    image: ExportedImage,
    /// Layers that are still to come, each file once.
    coming: std::vec::IntoIter<(String, Digest)>,
}

impl LegacyFolder {
    /// Reads the configuration of a folder; `place` is for messages.
    pub(super) async fn open(
        place: String,
        legacy: Legacy,
        reader: Reader,
        window: Window,
    ) -> Result<Self, ImageError> {
        let archive = legacy.archive().clone();
        let image = ExportedImage { config: Bytes::new(), layers: archive.layers, names: archive.repo_tags };
        let mut this = Self { place, legacy, reader, window, image, coming: Vec::new().into_iter() };
        let (mut file, size) = this.file(&archive.config).await?;
        if size > limits::CONFIG_BYTES {
            return Err(this.malformed(format!("{} has {size} bytes", archive.config)));
        }
        let mut config = Vec::new();
        file.read_to_end(&mut config).await.map_err(|source| ImageError::Io {
            place: format!("{}/{}", this.place, archive.config),
            doing: "reading",
            source,
        })?;
        this.image.config = config.into();
        let parsed = parse_config(this.image.config.clone()).map_err(|error| this.malformed(error.to_string()))?;
        if parsed.diff_ids.len() != this.image.layers.len() {
            return Err(this.malformed("manifest.json and the configuration name different numbers of layers".into()));
        }
        let mut seen = HashSet::new();
        let pairs = this.image.layers.iter().cloned().zip(parsed.diff_ids);
        this.coming = pairs.filter(|(key, _)| seen.insert(key.clone())).collect::<Vec<_>>().into_iter();
        Ok(this)
    }

    async fn file(&self, name: &str) -> Result<(File, u64), ImageError> {
        let failed = |kind: ErrorKind, source: Cause| ImageError::Remote {
            place: format!("{}/{name}", self.place),
            doing: "reading",
            kind,
            source,
        };
        let found = self.legacy.file(&self.reader, name).await.map_err(|e| failed(e.kind(), Box::new(e)))?;
        let opened = File::open(Arc::new(self.reader.clone()), found.cid, &self.window).await;
        let file = opened.map_err(|error| failed(error.kind(), Box::new(error)))?;
        let size = file.size();
        Ok((file, size))
    }

    fn malformed(&self, reason: String) -> ImageError {
        ImageError::Malformed { place: self.place.clone(), reason }
    }
}

#[async_trait]
impl Export for LegacyFolder {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        let Some((key, diff_id)) = self.coming.next() else { return Ok(None) };
        let (file, size) = self.file(&key).await?;
        Ok(Some(ExportedLayer { key, diff_id: Some(diff_id), digest: None, size, data: Box::pin(file) }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        Ok(vec![self.image.clone()])
    }
}
