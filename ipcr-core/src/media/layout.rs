//! The rules of OCI image layouts, wherever their files are: [`Layout`] (image-spec, "OCI Image Layout").

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::files::{Files, document};
use super::place::Place;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::limits;
use crate::port::image::{Blobs, ByteStream, ImageError};

/// The annotation that names an image inside a layout: a tag, or any other text.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which containerd, Docker and Podman keep the full name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The file that says that a folder is a layout.
pub const MARKER: &str = "oci-layout";
/// What it says.
pub const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The list of a layout's images.
pub const INDEX: &str = "index.json";

/// Most images and referrers of one layout.
const ENTRIES: usize = 4096;

/// A manifest or index of any kind, as far as layouts need to know it; whoever reads it for its content parses it strictly.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) media_type: Option<String>,
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<Descriptor>>,
    pub(crate) subject: Option<Descriptor>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn children(&self) -> &[Descriptor] {
        self.manifests.as_deref().unwrap_or_default()
    }
}

/// Which image of a layout is meant, and what refers to its manifests.
#[derive(Debug)]
pub(crate) struct Chosen {
    root: Descriptor,
    name: Option<String>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

impl Chosen {
    /// The image that `want` names: an annotation or a digest; without it the layout must have exactly one.
    pub(crate) async fn among<F: Files>(files: &F, want: Option<&str>) -> Result<Self, ImageError> {
        let place = files.place();
        check_marker(files).await?;
        let Some(bytes) = document(files, INDEX, limits::MANIFEST_BYTES).await? else {
            return Err(place.malformed("it has no index.json"));
        };
        let index = Document::parse(&bytes).map_err(|error| place.malformed(format_args!("index.json: {error}")))?;
        let entries = index.manifests.ok_or_else(|| place.malformed("index.json lists no manifests"))?;
        let known = Known::learn(files, &entries).await?;
        let root = known.select(files, entries, want).await?;
        let name = name(&root);
        let root = narrowed(files, root).await?;
        Ok(Self { root, name, referrers: known.referrers })
    }

    /// Whether every blob of the image is there; and whether a layer is uncompressed.
    pub(crate) async fn survey<F: Files>(&self, files: &F) -> Result<Survey, ImageError> {
        let mut survey = Survey { complete: true, uncompressed: false };
        let mut todo = vec![self.root.clone()];
        let mut nodes = 0;
        while let Some(descriptor) = todo.pop() {
            nodes += 1;
            if nodes > limits::INDEX_NODES {
                return Err(files.place().malformed("it lists too many manifests"));
            }
            let Some(document) = manifest(files, &descriptor).await? else {
                survey.complete = false;
                continue;
            };
            for blob in document.config.iter().chain(document.layers.iter().flatten()) {
                survey.complete &= files.find(&blob.digest.layout_path()).await?.is_some();
                survey.uncompressed |= blob.media_type.ends_with(".tar");
            }
            todo.extend(document.manifests.into_iter().flatten());
        }
        Ok(survey)
    }
}

/// One image of a layout.
#[derive(Debug)]
pub(crate) struct Layout<F> {
    files: F,
    chosen: Chosen,
}

impl<F: Files> Layout<F> {
    /// The image that was chosen among `files`.
    pub(crate) fn new(files: F, chosen: Chosen) -> Self {
        Self { files, chosen }
    }
}

/// What [`Chosen::survey`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survey {
    pub(crate) complete: bool,
    pub(crate) uncompressed: bool,
}

/// What the manifests of a layout say about one another.
#[derive(Debug, Default)]
struct Known {
    /// By subject.
    referrers: HashMap<Digest, Vec<Descriptor>>,
    /// Whatever is part of another entry: referrers, and the members of indexes.
    parts: BTreeSet<Digest>,
}

impl Known {
    async fn learn<F: Files>(files: &F, entries: &[Descriptor]) -> Result<Self, ImageError> {
        let mut known = Self::default();
        if entries.len() < 2 {
            return Ok(known);
        }
        if entries.len() > ENTRIES {
            return Err(files.place().malformed(format_args!("index.json lists more than {ENTRIES} manifests")));
        }
        for entry in entries {
            let Some(mut document) = manifest(files, entry).await? else { continue };
            let members = document.manifests.take().unwrap_or_default();
            if let Some(subject) = &document.subject {
                known.refer(subject.digest, entry.clone(), document);
            } else if let Some(subject) = entry.annotations.get(REF_NAME).and_then(|name| subject_of_tag(name)) {
                known.parts.insert(entry.digest);
                for member in members {
                    let document = manifest(files, &member).await?.unwrap_or_default();
                    known.refer(subject, member, document);
                }
            } else {
                known.parts.extend(members.iter().map(|member| member.digest).filter(|part| *part != entry.digest));
            }
        }
        Ok(known)
    }

    fn refer(&mut self, subject: Digest, mut referrer: Descriptor, document: Document) {
        self.parts.insert(referrer.digest);
        if referrer.artifact_type.is_none() {
            referrer.artifact_type = document.artifact_type.or(document.config.map(|config| config.media_type));
        }
        if referrer.annotations.is_empty() {
            referrer.annotations = document.annotations.unwrap_or_default();
        }
        let list = self.referrers.entry(subject).or_default();
        if list.iter().all(|other| other.digest != referrer.digest) {
            list.push(referrer);
        }
    }

    async fn select<F: Files>(
        &self,
        files: &F,
        entries: Vec<Descriptor>,
        want: Option<&str>,
    ) -> Result<Descriptor, ImageError> {
        let place = files.place();
        let Some(want) = want else { return self.only(place, entries) };
        let digest = want.parse::<Digest>().ok();
        let named = |entry: &Descriptor| {
            digest == Some(entry.digest)
                || [REF_NAME, IMAGE_NAME].iter().any(|key| entry.annotations.get(*key).is_some_and(|name| name == want))
        };
        let names = listed(&entries);
        let mut found: Vec<Descriptor> = entries.into_iter().filter(named).collect();
        found.dedup_by_key(|entry| entry.digest);
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            _ => return Err(ImageError::Ambiguous { place: place.to_string(), names }),
        }
        if let Some(digest) = digest
            && let Some((_, size)) = files.find(&digest.layout_path()).await?
            && size <= limits::MANIFEST_BYTES
            && let Some(media_type) = media_type(files, digest, size).await?
        {
            return Ok(Descriptor::new(media_type, digest, size));
        }
        Err(ImageError::NoImage { place: place.to_string(), name: want.to_owned() })
    }

    fn only(&self, place: &Place, entries: Vec<Descriptor>) -> Result<Descriptor, ImageError> {
        let mut whole: Vec<Descriptor> = Vec::new();
        for entry in entries {
            if !self.parts.contains(&entry.digest) && whole.iter().all(|other| other.digest != entry.digest) {
                whole.push(entry);
            }
        }
        match whole.len() {
            0 => Err(place.malformed("it holds no image")),
            1 => Ok(whole.remove(0)),
            _ => Err(ImageError::Ambiguous { place: place.to_string(), names: listed(&whole) }),
        }
    }
}

/// A folder or archive is a layout of a version that this reader knows, or an error.
async fn check_marker<F: Files>(files: &F) -> Result<(), ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let place = files.place();
    let Some(bytes) = document(files, MARKER, limits::METADATA_BYTES).await? else {
        return Err(place.malformed("it has no oci-layout file"));
    };
    let marker: Marker =
        serde_json::from_slice(&bytes).map_err(|error| place.malformed(format_args!("oci-layout: {error}")))?;
    if marker.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(place.malformed(format_args!("layout version {} is not known", marker.image_layout_version)))
    }
}

/// Of an index whose other members were not saved, the only one that was.
async fn narrowed<F: Files>(files: &F, root: Descriptor) -> Result<Descriptor, ImageError> {
    let Some(document) = manifest(files, &root).await? else { return Ok(root) };
    let mut present = Vec::new();
    for member in document.children() {
        if files.find(&member.digest.layout_path()).await?.is_some() {
            present.push(member.clone());
        }
    }
    let all = present.len() == document.children().len();
    present.retain(|member| !member.annotations.contains_key("vnd.docker.reference.type"));
    match present.len() {
        1 if !all => Ok(present.remove(0)),
        _ => Ok(root),
    }
}

/// The manifest or index that `descriptor` names, if it is one and is there.
pub(crate) async fn manifest<F: Files>(files: &F, descriptor: &Descriptor) -> Result<Option<Document>, ImageError> {
    let path = descriptor.digest.layout_path();
    let Some(bytes) = document(files, &path, limits::MANIFEST_BYTES).await? else { return Ok(None) };
    if !descriptor.digest.matches(&bytes) {
        return Err(wrong(files.place(), &descriptor.digest));
    }
    let document = Document::parse(&bytes);
    document.map(Some).map_err(|error| files.place().malformed(format_args!("{}: {error}", descriptor.digest)))
}

/// A blob's bytes are not those that its name promises.
pub(crate) fn wrong(place: &Place, digest: &Digest) -> ImageError {
    place.malformed(format_args!("the bytes under {digest} have another digest"))
}

async fn media_type<F: Files>(files: &F, digest: Digest, size: u64) -> Result<Option<String>, ImageError> {
    let document = manifest(files, &Descriptor::new("", digest, size)).await?.unwrap_or_default();
    let by_shape = match (&document.manifests, &document.layers) {
        (Some(_), None) => Some("application/vnd.oci.image.index.v1+json".to_owned()),
        (None, Some(_)) => Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        _ => None,
    };
    Ok(by_shape.map(|by_shape| document.media_type.unwrap_or(by_shape)))
}

/// `sha256-<hex>`: the tag under which registries without a referrers API keep the list of a manifest's referrers
/// (distribution-spec, "Referrers Tag Schema").
fn subject_of_tag(tag: &str) -> Option<Digest> {
    tag.split_once('-').and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok())
}

fn name(descriptor: &Descriptor) -> Option<String> {
    [IMAGE_NAME, REF_NAME].iter().find_map(|key| descriptor.annotations.get(*key).cloned())
}

fn listed(entries: &[Descriptor]) -> Vec<String> {
    let short = |entry: &Descriptor| entry.annotations.get(REF_NAME).or(entry.annotations.get(IMAGE_NAME)).cloned();
    entries.iter().map(|entry| short(entry).unwrap_or_else(|| entry.digest.to_string())).collect()
}

#[async_trait]
impl<F: Files> Blobs for Layout<F> {
    fn root(&self) -> &Descriptor {
        &self.chosen.root
    }

    fn name(&self) -> Option<String> {
        self.chosen.name.clone()
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        let digest = descriptor.digest;
        let path = digest.layout_path();
        let missing = || ImageError::NoBlob { place: self.files.place().to_string(), digest };
        let (_, size) = self.files.find(&path).await?.ok_or_else(missing)?;
        if size != descriptor.size {
            let reason = format_args!("{digest} has {size} bytes instead of {}", descriptor.size).to_string();
            return Err(self.files.place().malformed(reason));
        }
        self.files.open(&path).await?.ok_or_else(missing)
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        Ok(self.chosen.referrers.get(subject).cloned().unwrap_or_default())
    }
}

/// Documents in memory, and the names and sizes of files that went by.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    pub(crate) documents: HashMap<String, Bytes>,
    pub(crate) passed: HashMap<String, u64>,
    pub(crate) links: HashMap<String, String>,
}

impl Kept {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, documents: HashMap::new(), passed: HashMap::new(), links: HashMap::new() }
    }

    fn real<'a>(&'a self, name: &'a str) -> &'a str {
        self.links.get(name).map_or(name, String::as_str)
    }
}

#[async_trait]
impl Files for Kept {
    fn place(&self) -> &Place {
        &self.place
    }

    async fn find(&self, name: &str) -> Result<Option<(String, u64)>, ImageError> {
        let name = self.real(name);
        let kept = self.documents.get(name).map(|bytes| bytes.len() as u64);
        Ok(kept.or(self.passed.get(name).copied()).map(|size| (name.to_owned(), size)))
    }

    async fn open(&self, name: &str) -> Result<Option<ByteStream>, ImageError> {
        let bytes = self.documents.get(self.real(name)).cloned();
        Ok(bytes.map(|bytes| Box::pin(std::io::Cursor::new(bytes)) as ByteStream))
    }
}
