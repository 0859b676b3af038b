//! The rules of OCI image layouts, wherever their files are: [`Layout`] (image-spec, "OCI Image Layout").

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::files::{Files, document};
use super::place::Place;
use crate::dag::compression::Compression;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::layout::{IMAGE_NAME, INDEX_FILE, OCI_LAYOUT_FILE, REF_NAME, check_oci_layout, parse_layout_index};
use crate::image::manifest::{Parsed, parse_manifest};
use crate::image::media_type;
use crate::limits;
use crate::port::image::{Blobs, ByteStream, ImageError};

/// Most images and referrers of one layout.
const ENTRIES: usize = 4096;

/// Which image of a layout is meant, and what refers to its manifests.
#[derive(Debug)]
pub(crate) struct Chosen {
    root: Descriptor,
    name: Option<String>,
    ref_name: Option<String>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

impl Chosen {
    /// The image that `want` names: an annotation or a digest; without it the layout must have exactly one.
    pub(crate) async fn among<F: Files>(files: &F, want: Option<&str>) -> Result<Self, ImageError> {
        let place = files.place();
        let Some(marker) = document(files, OCI_LAYOUT_FILE, limits::METADATA_BYTES).await? else {
            return Err(place.malformed("it has no oci-layout file"));
        };
        check_oci_layout(&marker).map_err(|error| place.refused(&error))?;
        let Some(index) = document(files, INDEX_FILE, limits::ARCHIVE_JSON_BYTES).await? else {
            return Err(place.malformed("it has no index.json"));
        };
        let entries = parse_layout_index(&index).map_err(|error| place.refused(&error))?;
        let known = Known::learn(files, &entries).await?;
        let root = known.select(files, entries, want).await?;
        let (name, ref_name) = (name(&root), root.annotations.get(REF_NAME).cloned());
        let root = narrowed(files, root).await?;
        Ok(Self { root, name, ref_name, referrers: known.referrers })
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
            match document {
                Parsed::Index(index) => todo.extend(index.manifests),
                Parsed::Manifest(manifest) => {
                    for blob in manifest.blobs() {
                        survey.complete &= media_type::is_nondistributable(&blob.media_type)
                            || files.find(&blob.digest.layout_path()).await?.is_some();
                        survey.uncompressed |=
                            media_type::layer_compression(&blob.media_type) == Some(Compression::None);
                    }
                }
            }
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
    /// What refers to other entries, and so is no image of its own.
    referring: BTreeSet<Digest>,
    /// Members of indexes, which are images of their own only if they have a name.
    members: BTreeSet<Digest>,
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
            // What cannot be read is nobody's referrer; whoever asks for it will be told why.
            let document = match manifest(files, entry).await {
                Err(ImageError::Malformed { .. }) => None,
                document => document?,
            };
            let Some(document) = document else { continue };
            let tagged = entry.annotations.get(REF_NAME).and_then(|name| subject_of_tag(name));
            match (document.subject(), tagged, &document) {
                (Some(subject), _, _) => known.refer(subject.digest, entry.clone(), Some(&document)),
                (None, Some(subject), Parsed::Index(list)) => {
                    known.referring.insert(entry.digest);
                    for member in &list.manifests {
                        known.refer(subject, member.clone(), None);
                    }
                }
                (None, _, Parsed::Index(index)) => known.members.extend(index.manifests.iter().map(|part| part.digest)),
                (None, _, Parsed::Manifest(_)) => {}
            }
        }
        Ok(known)
    }

    fn refer(&mut self, subject: Digest, mut referrer: Descriptor, document: Option<&Parsed>) {
        self.referring.insert(referrer.digest);
        if let Some(document) = document {
            referrer.artifact_type = referrer.artifact_type.or(document.artifact_type().map(str::to_owned));
            if referrer.annotations.is_empty() {
                referrer.annotations.clone_from(document.annotations());
            }
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
        let listed = listed(&entries);
        let mut found: Vec<Descriptor> = entries.into_iter().filter(named).collect();
        found.dedup_by_key(|entry| entry.digest);
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            _ => return Err(ImageError::Ambiguous { place: place.to_string(), names: listed }),
        }
        if let Some(digest) = digest
            && let Some((_, size)) = files.find(&digest.layout_path()).await?
            && size <= limits::MANIFEST_BYTES
            && let Some(media_type) = type_of(files, digest).await?
        {
            return Ok(Descriptor::new(media_type, digest, size));
        }
        Err(ImageError::NoImage { place: place.to_string(), name: want.to_owned() })
    }

    fn only(&self, place: &Place, mut entries: Vec<Descriptor>) -> Result<Descriptor, ImageError> {
        entries.retain(|entry| {
            let named = entry.annotations.contains_key(REF_NAME) || entry.annotations.contains_key(IMAGE_NAME);
            !self.referring.contains(&entry.digest) && (named || !self.members.contains(&entry.digest))
        });
        let distinct: BTreeSet<Digest> = entries.iter().map(|entry| entry.digest).collect();
        match distinct.len() {
            0 => Err(place.malformed("it holds no image")),
            1 => Ok(entries.remove(0)),
            _ => Err(ImageError::Ambiguous { place: place.to_string(), names: listed(&entries) }),
        }
    }
}

/// Of an index whose other members were not saved, the only one that was.
async fn narrowed<F: Files>(files: &F, root: Descriptor) -> Result<Descriptor, ImageError> {
    let Some(Parsed::Index(index)) = manifest(files, &root).await? else { return Ok(root) };
    let mut present = Vec::new();
    for member in &index.manifests {
        if files.find(&member.digest.layout_path()).await?.is_some() {
            present.push(member.clone());
        }
    }
    let all = present.len() == index.manifests.len();
    present.retain(|member| !member.annotations.contains_key("vnd.docker.reference.type"));
    match present.len() {
        1 if !all => Ok(present.remove(0)),
        _ => Ok(root),
    }
}

/// The manifest or index that `descriptor` names; `None` if it is not there or of a kind that nobody here reads.
async fn manifest<F: Files>(files: &F, descriptor: &Descriptor) -> Result<Option<Parsed>, ImageError> {
    if !media_type::is_manifest(&descriptor.media_type) && !media_type::is_index(&descriptor.media_type) {
        return Ok(None);
    }
    let path = descriptor.digest.layout_path();
    let Some(bytes) = document(files, &path, limits::MANIFEST_BYTES).await? else { return Ok(None) };
    if !descriptor.digest.matches(&bytes) {
        return Err(files.place().malformed(format_args!("the bytes under {} have another digest", descriptor.digest)));
    }
    parse_manifest(bytes, &descriptor.media_type).map(Some).map_err(|error| files.place().refused(&error))
}

/// The media type of a manifest that no descriptor of the layout names: its own word, or its shape.
async fn type_of<F: Files>(files: &F, digest: Digest) -> Result<Option<String>, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let bytes = document(files, &digest.layout_path(), limits::MANIFEST_BYTES).await?.unwrap_or_default();
    let Ok(shape) = serde_json::from_slice::<Shape>(&bytes) else { return Ok(None) };
    Ok(match (shape.media_type, shape.manifests, shape.layers) {
        (Some(own), _, _) => Some(own),
        (None, Some(_), None) => Some(media_type::OCI_INDEX.to_owned()),
        (None, None, Some(_)) => Some(media_type::OCI_MANIFEST.to_owned()),
        _ => None,
    })
}

/// `sha256-<hex>`: the tag under which registries without a referrers API keep the list of a manifest's referrers
/// (distribution-spec, "Referrers Tag Schema").
fn subject_of_tag(tag: &str) -> Option<Digest> {
    tag.split_once('-').and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok())
}

/// The full name of an image. A reference name is one if it is more than a tag.
fn name(descriptor: &Descriptor) -> Option<String> {
    let reference = || descriptor.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    descriptor.annotations.get(IMAGE_NAME).or_else(reference).cloned()
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

    fn ref_name(&self) -> Option<String> {
        self.chosen.ref_name.clone()
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
