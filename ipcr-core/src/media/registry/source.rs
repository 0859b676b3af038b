//! An image in a registry as a source: [`RegistrySource`].

use std::sync::Arc;

use async_trait::async_trait;

use super::client::{Repository, Served};
use super::{RegistryError, RegistryOptions};
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::parse_manifest;
use crate::image::media_type;
use crate::media::place::Place;
use crate::media::spec::{RegistryRef, Version};
use crate::net::HttpClient;
use crate::port::image::{Blobs, ByteStream, ImageError, ImageSource, Opened};

/// `docker://HOST/NAME[:TAG|@DIGEST]` as a source.
#[derive(Debug)]
pub struct RegistrySource {
    http: HttpClient,
    image: RegistryRef,
    options: RegistryOptions,
    place: Place,
}

impl RegistrySource {
    /// The image, asked for with `http`, to whose policy its host is added.
    pub fn new(http: HttpClient, image: RegistryRef, options: RegistryOptions) -> Self {
        let place = Place::new(format!("docker://{image}"));
        Self { http, image, options, place }
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let failed = |error| remote(&self.place, "reading", error);
        let repository = Repository::new(&self.http, &self.image, "pull", self.options.clone()).map_err(failed)?;
        let found = repository.manifest(&self.image.version).await.map_err(failed)?;
        let root = found.ok_or_else(|| ImageError::NoImage {
            place: format!("docker://{}/{}", self.image.host, self.image.repository),
            name: self.image.version.to_string(),
        })?;
        parse_manifest(root.bytes.clone(), &root.descriptor.media_type).map_err(|error| self.place.refused(&error))?;
        let image = self.image.clone();
        Ok(Opened::Blobs(Arc::new(RegistryBlobs { repository, root, image, place: self.place.clone() })))
    }
}

/// The blobs of a repository.
#[derive(Debug)]
struct RegistryBlobs {
    repository: Repository,
    root: Served,
    image: RegistryRef,
    place: Place,
}

#[async_trait]
impl Blobs for RegistryBlobs {
    fn root(&self) -> &Descriptor {
        &self.root.descriptor
    }

    fn name(&self) -> Option<String> {
        match &self.image.version {
            Version::Tag(tag) => Some(format!("{}/{}:{tag}", self.image.host, self.image.repository)),
            Version::Digest(_) => None,
        }
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        if descriptor.digest == self.root.descriptor.digest {
            return Ok(Box::pin(std::io::Cursor::new(self.root.bytes.clone())));
        }
        let kind = &descriptor.media_type;
        let found = if media_type::is_manifest(kind) || media_type::is_index(kind) {
            let served = self.repository.manifest(&Version::Digest(descriptor.digest)).await;
            served.map(|served| served.map(|served| Box::pin(std::io::Cursor::new(served.bytes)) as ByteStream))
        } else {
            self.repository.blob(descriptor).await
        };
        let found = found.map_err(|error| remote(&self.place, "reading", error))?;
        found.ok_or_else(|| ImageError::NoBlob { place: self.place.to_string(), digest: descriptor.digest })
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let found = self.repository.referrers(subject).await;
        found.map_err(|error| remote(&self.place, "reading the referrers in", error))
    }
}

/// A registry's failure as that of a source or sink.
pub(super) fn remote(place: &Place, doing: &'static str, error: RegistryError) -> ImageError {
    match error {
        RegistryError::Protocol { reason } => place.malformed(reason),
        error => {
            let place = place.to_string();
            ImageError::Remote { place, doing, kind: error.kind(), source: error.into() }
        }
    }
}
