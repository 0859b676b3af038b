//! An image that was just taken in, as a source: [`StoredSource`].

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::parse_manifest;
use crate::port::image::{Blobs, ByteStream, ImageError};
use crate::tree::stored::{StoredBlob, StoredImage};

/// Bytes that are read ahead.
const AHEAD_BYTES: usize = 16 << 20;

/// The parts of a [`StoredImage`], read from the store.
#[derive(Debug)]
pub(crate) struct StoredSource {
    place: String,
    image: StoredImage,
    blobs: HashMap<Digest, StoredBlob>,
    reader: Reader,
    window: Window,
}

impl StoredSource {
    /// The image as a source; `place` is for messages.
    pub(crate) fn new(place: String, image: StoredImage, reader: Reader) -> Self {
        let blobs = image.blobs.iter().map(|blob| (blob.digest, blob.clone())).collect();
        Self { place, image, blobs, reader, window: Window::new(AHEAD_BYTES) }
    }
}

#[async_trait]
impl Blobs for StoredSource {
    fn root(&self) -> &Descriptor {
        &self.image.root
    }

    fn name(&self) -> Option<String> {
        None
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        if let Some(found) = self.image.manifests.iter().find(|m| m.descriptor.digest == descriptor.digest) {
            return Ok(Box::pin(std::io::Cursor::new(found.bytes.clone())));
        }
        let Some(blob) = self.blobs.get(&descriptor.digest) else {
            return Err(ImageError::NoBlob { place: self.place.clone(), digest: descriptor.digest });
        };
        match File::open(Arc::new(self.reader.clone()), blob.cid, &self.window).await {
            Ok(file) => Ok(Box::pin(file)),
            Err(error) => Err(ImageError::Remote {
                place: self.place.clone(),
                doing: "reading",
                kind: error.kind(),
                source: Box::new(error),
            }),
        }
    }

    async fn plain_sizes(&self) -> Result<HashMap<Digest, u64>, ImageError> {
        Ok(self.blobs.iter().filter_map(|(digest, blob)| Some((*digest, blob.plain()?))).collect())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let refers = |bytes: &bytes::Bytes, media_type: &str| {
            parse_manifest(bytes.clone(), media_type)
                .is_ok_and(|parsed| parsed.subject().is_some_and(|found| found.digest == *subject))
        };
        let all = self.image.manifests.iter();
        let referring = all.filter(|manifest| refers(&manifest.bytes, &manifest.descriptor.media_type));
        Ok(referring.map(|manifest| manifest.descriptor.clone()).collect())
    }
}
