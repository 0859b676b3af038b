//! A registry as a sink: [`RegistrySink`].

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;

use super::client::{ReferrersIndex, Repository, UploadError, referrers_tag};
use super::source::remote;
use super::{RegistryError, RegistryOptions};
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::manifest::{Parsed, parse_manifest};
use crate::image::media_type;
use crate::kind::ErrorKind;
use crate::limits;
use crate::media::parts;
use crate::media::place::Place;
use crate::media::spec::{RegistryRef, Version};
use crate::net::HttpClient;
use crate::port::image::{Abilities, ByteStream, Delivered, Form, ImageError, ImageParts, ImageSink, Need};

/// `docker://HOST/NAME[:TAG|@DIGEST]` as a sink.
///
/// Blobs that the repository has are not asked for. Manifests go in when all blobs are there, those that are named by others
/// first and the one under the tag last, so that whoever pulls finds the old image or the new one. Where the registry has no
/// referrers API, the tag that stands in for it is kept up to date.
#[derive(Debug)]
pub struct RegistrySink {
    http: HttpClient,
    image: RegistryRef,
    options: RegistryOptions,
    place: Place,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    repository: Repository,
    manifests: Vec<(Descriptor, Bytes)>,
    missing: HashSet<Digest>,
}

impl RegistrySink {
    /// To where `image` says, with `http`, to whose policy its host is added.
    pub fn new(http: HttpClient, image: RegistryRef, options: RegistryOptions) -> Self {
        let place = Place::new(format!("docker://{image}"));
        Self { http, image, options, place, begun: None }
    }

    fn unplanned(&self) -> ImageError {
        let (place, reason) = (self.place.to_string(), "nothing was planned".to_owned());
        ImageError::Unfit { place, reason, kind: ErrorKind::Failed }
    }
}

#[async_trait]
impl ImageSink for RegistrySink {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        Ok(Abilities { indexes: true, zstd: true, layers: limits::COPY_LAYERS, platform: None, keeps_digests: true })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        parts::check(parts, limits::COPY_LAYERS, &self.place)?;
        if let Version::Digest(digest) = self.image.version
            && digest != parts.root.digest
        {
            let reason = format!("the image has the digest {}", parts.root.digest);
            return Err(ImageError::Unfit { place: self.place.to_string(), reason, kind: ErrorKind::Usage });
        }
        let failed = |error| remote(&self.place, "writing to", error);
        let repository = Repository::new(&self.http, &self.image, "pull,push", self.options.clone()).map_err(failed)?;
        let mut needs = Vec::new();
        let mut seen = HashSet::new();
        for image in &parts.images {
            let (config, bytes) = &image.config;
            if seen.insert(config.digest) && !repository.has_blob(&config.digest).await.map_err(failed)? {
                let data = Box::pin(std::io::Cursor::new(bytes.clone()));
                let uploaded = repository.upload(&config.digest, config.size, data).await;
                uploaded.map_err(|error| of_upload(&self.place, error))?;
            }
            for layer in &image.layers {
                // What must not be distributed is found where its publisher put it.
                if media_type::is_nondistributable(&layer.media_type) || !seen.insert(layer.digest) {
                    continue;
                }
                if !repository.has_blob(&layer.digest).await.map_err(failed)? {
                    needs.push(Need { blob: layer.clone(), form: Form::Stored });
                }
            }
        }
        let missing = needs.iter().map(|need| need.blob.digest).collect();
        self.begun = Some(Begun { repository, manifests: parts.manifests.clone(), missing });
        Ok(needs)
    }

    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        if size != need.blob.size {
            let reason = format!("{} has {size} bytes instead of {}", need.blob.digest, need.blob.size);
            return Err(self.place.malformed(reason));
        }
        let unplanned = self.unplanned();
        let begun = self.begun.as_mut().ok_or(unplanned)?;
        let uploaded = begun.repository.upload(&need.blob.digest, size, data).await;
        uploaded.map_err(|error| of_upload(&self.place, error))?;
        begun.missing.remove(&need.blob.digest);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Delivered, ImageError> {
        let begun = self.begun.take().ok_or_else(|| self.unplanned())?;
        if let Some(digest) = begun.missing.iter().next() {
            return Err(ImageError::NoBlob { place: self.place.to_string(), digest: *digest });
        }
        let mut orphans: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        // The root comes first in the list; here it is the last.
        for (place, (descriptor, bytes)) in begun.manifests.iter().enumerate().rev() {
            let name = if place == 0 { self.image.version.clone() } else { Version::Digest(descriptor.digest) };
            let put = begun.repository.put_manifest(&name, &descriptor.media_type, bytes.clone()).await;
            let accepted = put.map_err(|error| remote(&self.place, "writing to", error))?;
            if let Some(found) = accepted.digest.filter(|found| *found != descriptor.digest) {
                let (place, expected) = (self.place.to_string(), descriptor.digest.to_string());
                return Err(ImageError::Mismatch { place, expected, found: found.to_string() });
            }
            let parsed = parse_manifest(bytes.clone(), &descriptor.media_type);
            let parsed = parsed.map_err(|error| self.place.refused(&error))?;
            if let Some(subject) = parsed.subject().filter(|_| !accepted.subject) {
                orphans.entry(subject.digest).or_default().push(referrer(descriptor, &parsed));
            }
        }
        for (subject, referrers) in orphans {
            let told = tell(&begun.repository, &subject, referrers).await;
            told.map_err(|error| remote(&self.place, "writing referrers to", error))?;
        }
        Ok(Delivered { place: self.place.to_string(), image_id: None })
    }
}

/// A manifest as an index of referrers lists it (distribution-spec, "Listing Referrers").
fn referrer(descriptor: &Descriptor, parsed: &Parsed) -> Descriptor {
    let mut referrer = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
    referrer.artifact_type = parsed.artifact_type().map(str::to_owned);
    referrer.annotations = parsed.annotations().clone();
    referrer
}

/// Adds referrers to the tag that stands in for the API.
async fn tell(repository: &Repository, subject: &Digest, referrers: Vec<Descriptor>) -> Result<(), RegistryError> {
    let mut manifests = repository.referrers_tag(subject).await?.unwrap_or_default();
    let before = manifests.len();
    for referrer in referrers {
        if manifests.iter().all(|known| known.digest != referrer.digest) {
            manifests.push(referrer);
        }
    }
    if manifests.len() == before {
        return Ok(());
    }
    let index = ReferrersIndex { schema_version: 2, media_type: media_type::OCI_INDEX.into(), manifests };
    let bytes = serde_json::to_vec(&index).expect("descriptors become JSON");
    let tag = Version::Tag(referrers_tag(subject));
    repository.put_manifest(&tag, media_type::OCI_INDEX, bytes.into()).await.map(|_| ())
}

fn of_upload(place: &Place, error: UploadError) -> ImageError {
    match error {
        UploadError::Registry(error) => remote(place, "writing to", error),
        UploadError::Data(error) => place.reading(error),
    }
}
