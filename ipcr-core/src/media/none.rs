//! `none`: [`NoneSink`], for pulls that only fill the own store.

use std::collections::HashSet;

use async_trait::async_trait;

use crate::limits;
use crate::port::image::{Abilities, ByteStream, Delivered, Form, ImageError, ImageParts, ImageSink, Need};

/// Takes every blob, so that all of them are fetched and verified, and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoneSink;

#[async_trait]
impl ImageSink for NoneSink {
    fn describe(&self) -> String {
        "none".to_owned()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        Ok(Abilities { indexes: true, zstd: true, layers: limits::COPY_LAYERS, platform: None, keeps_digests: true })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        let mut seen = HashSet::new();
        let layers = parts
            .images
            .iter()
            .flat_map(|image| &image.layers)
            .filter(|layer| !parts.absent.contains(&layer.digest) && seen.insert(layer.digest));
        Ok(layers.map(|layer| Need { blob: layer.clone(), form: Form::Stored }).collect())
    }

    async fn write(&mut self, need: &Need, _size: u64, mut data: ByteStream) -> Result<(), ImageError> {
        let reading = |source| ImageError::Io { place: need.blob.digest.to_string(), doing: "reading", source };
        tokio::io::copy(&mut data, &mut tokio::io::sink()).await.map(drop).map_err(reading)
    }

    async fn finish(self: Box<Self>) -> Result<Delivered, ImageError> {
        Ok(Delivered { place: "none".to_owned(), image_id: None })
    }
}
