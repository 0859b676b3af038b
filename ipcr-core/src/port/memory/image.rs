//! An image in memory: [`MemoryImage`] is the source, [`MemorySink`] fills one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::digest::{Algorithm, Digest};
use crate::image::descriptor::Descriptor;
use crate::image::manifest::parse_manifest;
use crate::limits;
use crate::port::image::{
    Abilities, Blobs, ByteStream, Delivered, Form, ImageError, ImageParts, ImageSink, ImageSource, Need, Opened,
};

#[derive(Clone, Debug, Default)]
struct Content {
    blobs: HashMap<Digest, Bytes>,
    root: Option<Descriptor>,
    name: Option<String>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

/// One image with its manifests. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryImage(Arc<Mutex<Content>>);

impl MemoryImage {
    /// No image yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a blob or manifest under the digest of its bytes.
    pub fn add(&self, media_type: &str, algorithm: Algorithm, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let digest = Digest::of(algorithm, &bytes);
        let size = bytes.len() as u64;
        self.content().blobs.insert(digest, bytes);
        Descriptor::new(media_type, digest, size)
    }

    /// Puts other bytes in the place of a blob, for tests of readers; `None` takes it away.
    pub fn replace(&self, digest: &Digest, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => self.content().blobs.insert(*digest, bytes),
            None => self.content().blobs.remove(digest),
        };
    }

    /// The blob's bytes, if it is there.
    pub fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        self.content().blobs.get(digest).cloned()
    }

    /// Says what the image's name stands for, and the name.
    pub fn set_root(&self, root: Descriptor, name: Option<String>) {
        let mut content = self.content();
        content.root = Some(root);
        content.name = name;
    }

    /// Adds a manifest that refers to `subject`.
    pub fn refer(&self, subject: Digest, referrer: Descriptor) {
        self.content().referrers.entry(subject).or_default().push(referrer);
    }
}

#[async_trait]
impl ImageSource for MemoryImage {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let content = self.content().clone();
        let none = || ImageError::NoImage { place: self.describe(), name: String::new() };
        let root = content.root.clone().ok_or_else(none)?;
        Ok(Opened::Blobs(Arc::new(Snapshot { content, root })))
    }
}

#[derive(Debug)]
struct Snapshot {
    content: Content,
    root: Descriptor,
}

#[async_trait]
impl Blobs for Snapshot {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    fn name(&self) -> Option<String> {
        self.content.name.clone()
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        let missing = || ImageError::NoBlob { place: "memory".to_owned(), digest: descriptor.digest };
        let bytes = self.content.blobs.get(&descriptor.digest).cloned().ok_or_else(missing)?;
        Ok(Box::pin(std::io::Cursor::new(bytes)))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        Ok(self.content.referrers.get(subject).cloned().unwrap_or_default())
    }
}

/// Fills a [`MemoryImage`] when it is finished.
#[derive(Debug)]
pub struct MemorySink {
    target: MemoryImage,
    content: Content,
}

impl MemorySink {
    /// Into `target`, whose image is replaced.
    pub fn new(target: MemoryImage) -> Self {
        Self { target, content: Content::default() }
    }
}

#[async_trait]
impl ImageSink for MemorySink {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        Ok(Abilities { indexes: true, zstd: true, layers: limits::COPY_LAYERS, platform: None, keeps_digests: true })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        let documents = parts.manifests.iter().chain(parts.images.iter().map(|image| &image.config));
        self.content.blobs = documents.map(|(descriptor, bytes)| (descriptor.digest, bytes.clone())).collect();
        self.content.root = Some(Descriptor { annotations: std::collections::BTreeMap::new(), ..parts.root.clone() });
        self.content.name.clone_from(&parts.name);
        for (descriptor, bytes) in &parts.manifests {
            let subject = parse_manifest(bytes.clone(), &descriptor.media_type).ok();
            let subject = subject.and_then(|parsed| Some(parsed.subject()?.digest));
            if let Some(subject) = subject {
                self.content.referrers.entry(subject).or_default().push(descriptor.clone());
            }
        }
        let mut seen: HashSet<Digest> = self.content.blobs.keys().copied().collect();
        let layers = parts.images.iter().flat_map(|image| &image.layers).filter(|layer| seen.insert(layer.digest));
        Ok(layers.map(|layer| Need { blob: layer.clone(), form: Form::Stored }).collect())
    }

    async fn write(&mut self, need: &Need, _size: u64, mut data: ByteStream) -> Result<(), ImageError> {
        let mut bytes = Vec::new();
        let reading = |source| ImageError::Io { place: "memory".to_owned(), doing: "reading", source };
        data.read_to_end(&mut bytes).await.map_err(reading)?;
        if !need.blob.digest.matches(&bytes) {
            let reason = format!("the bytes for {} are others", need.blob.digest);
            return Err(ImageError::Malformed { place: self.describe(), reason });
        }
        self.content.blobs.insert(need.blob.digest, bytes.into());
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Delivered, ImageError> {
        *self.target.content() = self.content;
        Ok(Delivered { place: "memory".to_owned(), image_id: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::conformance::image;

    #[tokio::test]
    async fn conforms() {
        image::run(async || {
            let target = MemoryImage::new();
            image::Fixture {
                sink: Box::new(MemorySink::new(target.clone())),
                source: Box::new(target),
                guard: Box::new(()),
                traces: Box::new(|| 0),
            }
        })
        .await;
    }
}
