//! The calls of the distribution API: [`Repository`].

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::auth::{Auth, escaped};
use super::challenge::{Origin, is_loopback, split_port};
use super::{RegistryError, RegistryOptions};
use crate::digest::{Algorithm, Digest};
use crate::image::descriptor::Descriptor;
use crate::image::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::limits;
use crate::media::spec::{RegistryRef, Version};
use crate::net::{HttpClient, HttpError, Method, Response, StatusCode};
use crate::port::image::ByteStream;

/// Most error text of a registry that is shown, in characters.
const MESSAGE: usize = 300;
/// Bytes of an upload that travel in one piece.
const PIECE: usize = 256 << 10;

/// One repository of a registry.
#[derive(Debug)]
pub(super) struct Repository {
    http: HttpClient,
    auth: Auth,
    /// `https://host/v2/name`, without a slash at its end.
    base: String,
}

/// A manifest as it was served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Bytes,
}

/// What a manifest was put under.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The digest that the registry computed, if it says so.
    pub(super) digest: Option<Digest>,
    /// Whether it knows about subjects.
    pub(super) subject: bool,
}

impl Repository {
    /// The repository of `image`; `actions` are `pull` or `pull,push`.
    pub(super) fn new(
        http: &HttpClient,
        image: &RegistryRef,
        actions: &str,
        options: RegistryOptions,
    ) -> Result<Self, RegistryError> {
        let host = if image.host == "docker.io" { "registry-1.docker.io" } else { &image.host };
        let bare = split_port(host).map_or(host, |(host, _)| host);
        let scheme = if is_loopback(bare) { "http" } else { "https" };
        Ok(Self {
            http: http.naming(host)?,
            auth: Auth::new(host, format!("repository:{}:{actions}", image.repository), options),
            base: format!("{scheme}://{host}/v2/{}", image.repository),
        })
    }

    /// The manifest of a version; `None` if there is none. Its digest is checked.
    pub(super) async fn manifest(&self, version: &Version) -> Result<Option<Served>, RegistryError> {
        let name = match version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        };
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let headers = [("accept", accepted.as_str())];
        let answer = self.ask(Method::GET, &format!("{}/manifests/{name}", self.base), &headers, None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = succeeded(answer).await?;
        let unclear = RegistryError::Protocol { reason: "a manifest comes without its media type" };
        let media_type = answer.header("content-type").ok_or(unclear)?;
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let told = answer.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let bytes = answer.bytes_at_most(limits::MANIFEST_BYTES).await?;
        let digest = match version {
            Version::Digest(digest) => *digest,
            Version::Tag(_) => told.unwrap_or_else(|| Digest::sha256(&bytes)),
        };
        if !digest.matches(&bytes) {
            return Err(RegistryError::Protocol { reason: "a manifest does not have its digest" });
        }
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok(Some(Served { descriptor, bytes }))
    }

    /// Opens a blob; `None` if there is none. Never gives more than one byte more than the descriptor tells.
    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<Option<ByteStream>, RegistryError> {
        let answer = self.ask(Method::GET, &self.blob_url(&blob.digest), &[], None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reader = succeeded(answer).await?.reader();
        Ok(Some(Box::pin(reader.take(blob.size.saturating_add(1)))))
    }

    /// Whether the repository has a blob.
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let answer = self.ask(Method::HEAD, &self.blob_url(digest), &[], None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        succeeded(answer).await.map(|_| true)
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    /// The referrers of a manifest: from the API, else from the tag that stands in for it.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let mut url = format!("{}/referrers/{subject}", self.base);
        let mut all = Vec::new();
        let mut seen = 0;
        loop {
            let answer = self.ask(Method::GET, &url, &[("accept", OCI_INDEX)], None).await?;
            let is_index = answer.header("content-type").is_some_and(|kind| kind.starts_with(OCI_INDEX));
            if seen == 0 && (answer.status() == StatusCode::NOT_FOUND || answer.status().is_success() && !is_index) {
                return Ok(self.referrers_tag(subject).await?.unwrap_or_default());
            }
            let answer = succeeded(answer).await?;
            let next = answer.header("link").and_then(|link| next_page(link, &self.base));
            let page: ReferrersIndex = answer.json_at_most(limits::MANIFEST_BYTES).await?;
            all.extend(page.manifests);
            seen += 1;
            match next {
                Some(next) if all.len() < limits::INDEX_NODES && seen < limits::INDEX_NODES => url = next,
                _ => break,
            }
        }
        all.truncate(limits::INDEX_NODES);
        Ok(all)
    }

    /// The index under the referrers tag (distribution-spec, "Referrers Tag Schema"); `None` if there is none.
    pub(super) async fn referrers_tag(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let Some(served) = self.manifest(&Version::Tag(referrers_tag(subject))).await? else { return Ok(None) };
        let index = serde_json::from_slice::<ReferrersIndex>(&served.bytes);
        let bad = |_| RegistryError::Protocol { reason: "the referrers tag names no index" };
        Ok(Some(index.map_err(bad)?.manifests))
    }

    /// Uploads a blob of `size` bytes. When `data` fails, its own error is in `failure`.
    pub(super) async fn upload(&self, digest: &Digest, size: u64, data: ByteStream) -> Result<(), UploadError> {
        let begun = self.ask(Method::POST, &format!("{}/blobs/uploads/", self.base), &[], Some(Bytes::new())).await?;
        let begun = succeeded(begun).await?;
        let lost = RegistryError::Protocol { reason: "an upload has no place" };
        let place = begun.location().ok_or(lost)?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{separator}digest={}", escaped(&digest.to_string()));
        let failure = Arc::new(Mutex::new(None));
        let aside = Arc::clone(&failure);
        let pieces = ReaderStream::with_capacity(data, PIECE).map_err(move |error| {
            let told = std::io::Error::from(error.kind());
            *aside.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        });
        let mut request = self.http.request(Method::PUT, &url).header("content-type", "application/octet-stream");
        // The place may be a store that the registry names: it gets the bytes, never the credentials.
        if let Some(header) = self.auth.header().filter(|_| self.is_own(&url)) {
            request = request.header("authorization", &header);
        }
        let answer = request.stream(pieces, Some(size)).send().await;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(UploadError::Data(error));
        }
        succeeded(answer.map_err(RegistryError::from)?).await?;
        Ok(())
    }

    /// Puts a manifest under a tag or its digest.
    pub(super) async fn put_manifest(
        &self,
        name: &Version,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Accepted, RegistryError> {
        let name = match name {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        };
        let url = format!("{}/manifests/{name}", self.base);
        let answer = self.ask(Method::PUT, &url, &[("content-type", media_type)], Some(bytes)).await?;
        let answer = succeeded(answer).await?;
        Ok(Accepted {
            digest: answer.header("docker-content-digest").and_then(|digest| digest.parse().ok()),
            subject: answer.header("oci-subject").is_some(),
        })
    }

    fn is_own(&self, url: &str) -> bool {
        let origins = (Origin::of(url), Origin::of(&self.base));
        matches!(origins, (Some(a), Some(b)) if a.same(&b))
    }

    /// One request; a 401 is answered once.
    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Response, RegistryError> {
        let mut answered = false;
        loop {
            let mut request = self.http.request(method.clone(), url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if let Some(header) = self.auth.header().filter(|_| self.is_own(url)) {
                request = request.header("authorization", &header);
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let answer = request.send().await?;
            // Only the registry itself may ask, not somebody behind a redirect.
            if answer.status() != StatusCode::UNAUTHORIZED || answered || !self.is_own(answer.full_url()) {
                return Ok(answer);
            }
            answered = true;
            self.auth.answer(&self.http, &answer).await?;
        }
    }
}

/// Why an upload failed.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The bytes could not be read.
    Data(std::io::Error),
    /// The registry failed.
    Registry(RegistryError),
}

impl From<RegistryError> for UploadError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// An index of referrers. Those in fallback tags are read leniently: other tools write them.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReferrersIndex {
    pub(super) schema_version: u64,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) manifests: Vec<Descriptor>,
}

/// The tag that stands in for the referrers API.
pub(super) fn referrers_tag(subject: &Digest) -> String {
    let name = match subject.algorithm() {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    };
    let mut tag = format!("{name}-{}", subject.hex());
    tag.truncate(limits::TAG_CHARS);
    tag
}

/// The URL in `<…>; rel="next"`, if it is of the same registry.
fn next_page(link: &str, base: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let path = base.find("/v2/")?;
    let url = if target.starts_with('/') { format!("{}{target}", &base[..path]) } else { target.to_owned() };
    Origin::of(&url)?.same(&Origin::of(base)?).then_some(url)
}

async fn succeeded(answer: Response) -> Result<Response, RegistryError> {
    if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
}

/// What a registry says about its refusal (distribution-spec, "Error Codes").
pub(super) async fn refused(answer: Response) -> RegistryError {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Item {
        code: String,
        message: String,
    }
    let status = answer.status().as_u16();
    let said = match answer.bytes_at_most(limits::TOKEN_BYTES).await {
        Ok(bytes) => serde_json::from_slice::<Errors>(&bytes).map(|errors| errors.errors).unwrap_or_default(),
        Err(error @ HttpError::Connection { .. }) => return error.into(),
        Err(_) => Vec::new(),
    };
    let said = said.into_iter().map(|item| if item.message.is_empty() { item.code } else { item.message });
    let said = said.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(MESSAGE).collect();
    RegistryError::Answer { status, message: if said.is_empty() { said } else { format!(": {said}") } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_with_the_registry() {
        let base = "https://r.test/v2/a/b";
        let next = |link| next_page(link, base);
        assert_eq!(next("</v2/a/b/x?n=1>; rel=\"next\"").as_deref(), Some("https://r.test/v2/a/b/x?n=1"));
        assert_eq!(next("<https://r.test/v2/y>; rel=next").as_deref(), Some("https://r.test/v2/y"));
        for bad in ["<https://evil.test/v2/y>; rel=next", "<//evil.test/y>; rel=next", "</x>; rel=\"prev\"", "x", "</x"]
        {
            let next = next(bad);
            assert!(next.as_deref().is_none_or(|url| url.starts_with("https://r.test//evil.test")), "{bad}: {next:?}");
        }
    }

    #[test]
    fn tags_for_referrers() {
        let tag = referrers_tag(&Digest::sha256(b""));
        assert!(tag.starts_with("sha256-e3b0c442") && tag.len() == 71);
        let long = referrers_tag(&Digest::of(Algorithm::Sha512, b""));
        assert!(long.starts_with("sha512-cf83e135") && long.len() == limits::TAG_CHARS);
    }
}
