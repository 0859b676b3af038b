//! Images without manifests: [`StreamExport`] reads an archive front to back, [`ListedExport`] picks files by name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;

use super::archive::header::{Member, MemberKind, checksum};
use super::archive::reader::ArchiveReader;
use super::docker_manifest::{self, Listed};
use super::files::Files;
use super::layout::{Chosen, Kept, Layout};
use super::place::Place;
use crate::dag::compression::Compression;
use crate::dag::decode::sniff;
use crate::digest::Digest;
use crate::image::layout::{ARCHIVE_FILE, INDEX_FILE, OCI_LAYOUT_FILE};
use crate::limits;
use crate::port::image::{Blobs, ByteStream, Export, ExportedImage, ExportedLayer, ImageError};

/// Bytes of all documents that are kept until the end of a stream.
const DOCUMENTS_BYTES: u64 = 64 << 20;
/// Bytes by which layers and documents are told apart.
const HEAD: usize = 512;

/// An archive that comes as a stream: `docker save`, `podman save` in both formats, an OCI archive.
///
/// Layers are handed out as they come. Which of them make up the image is known at the end, and so is whether there are
/// manifests whose digests can be kept.
#[derive(Debug)]
pub struct StreamExport {
    reader: ArchiveReader,
    want: Option<String>,
    hints: HashMap<String, Digest>,
    kept: Kept,
    kept_bytes: u64,
}

impl StreamExport {
    /// Begins to read; `want` is a name or digest in the archive, without it there must be one image. `hints` tells the
    /// uncompressed digests of layers by the names of their folders (Docker's v1 ids, hex).
    pub fn new(stream: ByteStream, place: Place, want: Option<String>, hints: HashMap<String, Digest>) -> Self {
        let reader = ArchiveReader::new(stream, place.clone());
        Self { reader, want, hints, kept: Kept::new(place), kept_bytes: 0 }
    }

    /// Goes on to the next file that is no document: its digest if its name tells one, and its uncompressed digest.
    async fn advance(&mut self) -> Result<Option<(Member, Option<Digest>, Option<Digest>)>, ImageError> {
        while let Some(member) = self.reader.next().await? {
            match &member.kind {
                MemberKind::Folder => continue,
                MemberKind::Link(target) => {
                    self.kept.links.insert(member.name.clone(), target.clone());
                    continue;
                }
                MemberKind::File => {}
            }
            if [ARCHIVE_FILE, INDEX_FILE, OCI_LAYOUT_FILE].contains(&member.name.as_str()) {
                let bytes = self.reader.document(&member, limits::ARCHIVE_JSON_BYTES).await?;
                self.kept.documents.insert(member.name, bytes);
                continue;
            }
            let head = self.reader.peek(HEAD).await?;
            let digest = blob_digest(&member.name);
            let content = Content::of(&head);
            let room = DOCUMENTS_BYTES - self.kept_bytes;
            if content == Content::Json && member.size <= limits::CONFIG_BYTES.min(room) {
                self.kept_bytes += member.size;
                let bytes = self.reader.document(&member, member.size).await?;
                self.kept.documents.insert(member.name, bytes);
                continue;
            }
            // What is neither a layer nor a blob is no part of an image (`VERSION`, a README beside it).
            if !matches!(content, Content::Layer(_)) && digest.is_none() {
                continue;
            }
            self.kept.passed.insert(member.name.clone(), member.size);
            let diff_id = self.hint(&member.name, digest, content);
            return Ok(Some((member, digest, diff_id)));
        }
        Ok(None)
    }

    /// The uncompressed digest of a layer, as far as its name tells it.
    fn hint(&self, name: &str, digest: Option<Digest>, content: Content) -> Option<Digest> {
        if let Some(folder) = name.strip_suffix("/layer.tar") {
            return self.hints.get(folder).copied();
        }
        if content != Content::Layer(Compression::None) {
            return None;
        }
        // Podman names layers by their digest.
        digest.or_else(|| format!("sha256:{}", name.strip_suffix(".tar")?).parse().ok())
    }
}

#[async_trait]
impl Export for StreamExport {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        let Some((member, digest, diff_id)) = self.advance().await? else { return Ok(None) };
        let (key, size) = (member.name, member.size);
        Ok(Some(ExportedLayer { key, diff_id, digest, size, data: Box::pin(self.reader.data()) }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        Ok(vec![docker_manifest::find(&self.kept, self.want.as_deref()).await?.image])
    }

    async fn manifests(&mut self) -> Result<Option<Arc<dyn Blobs>>, ImageError> {
        let Some(chosen) = with_manifests(&self.kept, self.want.as_deref()).await? else { return Ok(None) };
        let kept = std::mem::replace(&mut self.kept, Kept::new(self.reader.place().clone()));
        Ok(Some(Arc::new(Layout::new(kept, chosen))))
    }
}

/// The image among `files`, if its manifests are to be kept.
///
/// They are if every blob is there, and the archive was not made by a classic Docker store: that one puts a manifest with
/// uncompressed layers beside `manifest.json`, which nobody has ever pushed.
pub(crate) async fn with_manifests<F: Files>(files: &F, want: Option<&str>) -> Result<Option<Chosen>, ImageError> {
    for name in [INDEX_FILE, OCI_LAYOUT_FILE] {
        if files.find(name).await?.is_none() {
            return Ok(None);
        }
    }
    let docker = files.find(ARCHIVE_FILE).await?.is_some();
    let chosen = match Chosen::among(files, want).await {
        // It may be the name of an image in `manifest.json`.
        Err(ImageError::NoImage { .. }) if docker => return Ok(None),
        chosen => chosen?,
    };
    if docker {
        let survey = chosen.survey(files).await?;
        if survey.uncompressed || !survey.complete {
            return Ok(None);
        }
    }
    Ok(Some(chosen))
}

/// The digest that the name of a blob in a layout tells.
fn blob_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// What a file is, judged by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Layer(Compression),
    Json,
    Other,
}

impl Content {
    fn of(head: &[u8]) -> Self {
        if let Ok(compression @ (Compression::Gzip | Compression::Zstd)) = sniff(head) {
            return Self::Layer(compression);
        }
        if let Ok(block) = <&[u8; 512]>::try_from(head) {
            let header = tar::Header::from_byte_slice(block);
            // An empty layer is zeros only.
            if block.iter().all(|byte| *byte == 0) || header.cksum().ok() == Some(checksum(block)) {
                return Self::Layer(Compression::None);
            }
        }
        match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Images whose files are picked by name: a `docker save` archive in a file, or one that was unpacked into a folder.
#[derive(Debug)]
pub(crate) struct ListedExport<F> {
    files: F,
    listed: Listed,
    todo: VecDeque<(String, Digest)>,
}

impl<F: Files> ListedExport<F> {
    /// Reads the table of contents and chooses an image.
    pub(crate) async fn open(files: F, want: Option<&str>) -> Result<Self, ImageError> {
        let listed = docker_manifest::find(&files, want).await?;
        let mut seen = HashSet::new();
        let layers = listed.image.layers.iter().cloned().zip(listed.diff_ids.iter().copied());
        let todo = layers.filter(|(key, _)| seen.insert(key.clone())).collect();
        Ok(Self { files, listed, todo })
    }
}

#[async_trait]
impl<F: Files> Export for ListedExport<F> {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        let Some((key, diff_id)) = self.todo.pop_front() else { return Ok(None) };
        let gone = || self.files.place().malformed(format_args!("`{key}` is not there any more"));
        let (_, size) = self.files.find(&key).await?.ok_or_else(gone)?;
        let data = self.files.open(&key).await?.ok_or_else(gone)?;
        Ok(Some(ExportedLayer { key, diff_id: Some(diff_id), digest: None, size, data }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        Ok(vec![self.listed.image.clone()])
    }
}
