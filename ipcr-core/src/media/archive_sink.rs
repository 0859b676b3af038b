//! Writing an image as an archive, into any stream: [`ArchiveSink`].

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::archive::writer::ArchiveWriter;
use super::parts;
use super::place::Place;
use crate::dag::compression::Compression;
use crate::digest::Digest;
use crate::image::config::chain_ids;
use crate::image::descriptor::Descriptor;
use crate::image::layout::{
    ARCHIVE_FILE, ArchiveImage, IMAGE_NAME, INDEX_FILE, OCI_LAYOUT, OCI_LAYOUT_FILE, REF_NAME, write_archive,
    write_layout_index,
};
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::image::{Abilities, ByteStream, Delivered, Form, ImageError, ImagePart, ImageParts, ImageSink, Need};

/// What kind of archive is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArchiveOptions {
    /// Whether there is a `manifest.json`, so that `docker load` of every version takes it. Then it holds one image, of one
    /// platform. Otherwise it is a plain OCI archive.
    pub docker: bool,
    /// Names in `manifest.json`; when empty, the name that comes with the image.
    pub repo_tags: Vec<String>,
    /// The reference name in `index.json`; when `None`, the tag of the name that comes with the image.
    pub ref_name: Option<String>,
    /// Chain IDs of layers that are left out, because whoever reads the archive has them. Only for Docker.
    pub skip_chains: HashSet<Digest>,
    /// Whether layers may be zstd; otherwise they are written uncompressed.
    pub zstd: bool,
    /// Whether layers whose plain size is known beforehand are written uncompressed. Only for Docker.
    pub plain: bool,
    /// Most layers of an image.
    pub layers: usize,
    /// The platform that is asked for when there are several.
    pub platform: Option<Platform>,
}

impl ArchiveOptions {
    /// For `docker load`, `podman load` and `ctr images import`: complete, without zstd.
    pub fn docker() -> Self {
        Self {
            docker: true,
            repo_tags: Vec::new(),
            ref_name: None,
            skip_chains: HashSet::new(),
            zstd: false,
            plain: false,
            layers: limits::COPY_LAYERS,
            platform: None,
        }
    }

    /// For whoever reads OCI archives.
    pub fn oci() -> Self {
        Self { docker: false, zstd: true, ..Self::docker() }
    }
}

/// Writes one image as an archive.
///
/// The archive is an OCI image layout. With [`ArchiveOptions::docker`] it also has a `manifest.json` that names the blobs
/// where they are, which every engine since Docker 1.10 loads; and where layers are left out or decompressed, it has that one
/// only, so that no reader finds a manifest whose blobs are missing. All documents come before the layers, so that a reader
/// knows from the start what comes.
///
/// The output is ended by a shutdown after the last byte. A sink dropped before leaves an archive without end, which
/// readers refuse.
#[derive(Debug)]
pub struct ArchiveSink<W> {
    writer: Option<ArchiveWriter<W>>,
    options: ArchiveOptions,
    place: Place,
    planned: Vec<Planned>,
}

/// A layer that is to come.
#[derive(Debug)]
struct Planned {
    need: Need,
    path: String,
    written: bool,
}

impl<W: AsyncWrite + Unpin + Send + std::fmt::Debug> ArchiveSink<W> {
    /// Into `writer`, which people know as `name`.
    pub fn new(writer: W, name: impl Into<String>, options: ArchiveOptions) -> Self {
        Self { writer: Some(ArchiveWriter::new(writer)), options, place: Place::new(name), planned: Vec::new() }
    }

    /// Completes the archive and hands the output back: everything is written and flushed, but not shut down.
    pub async fn into_output(mut self) -> Result<W, ImageError> {
        if let Some(missing) = self.planned.iter().find(|planned| !planned.written) {
            return Err(ImageError::NoBlob { place: self.place.to_string(), digest: missing.need.blob.digest });
        }
        let writer = self.writer.take().ok_or_else(|| self.broken())?;
        writer.finish().await.map_err(|error| self.place.io("writing", error))
    }

    fn broken(&self) -> ImageError {
        self.place.io("writing", std::io::Error::other("the archive broke off before"))
    }

    fn unfit(&self, reason: &str, kind: ErrorKind) -> ImageError {
        ImageError::Unfit { place: self.place.to_string(), reason: reason.to_owned(), kind }
    }

    /// The image that goes into `manifest.json`: the only one, else linux/amd64 or what was asked for, else any of linux.
    fn runnable<'a>(&self, parts: &'a ImageParts) -> Result<&'a ImagePart, ImageError> {
        let platform = |part: &ImagePart| {
            let config = crate::image::config::parse_config(part.config.1.clone()).ok()?;
            Some(config.platform)
        };
        let images: Vec<(&ImagePart, Platform)> = parts
            .images
            .iter()
            .filter(|part| media_type::is_config(&part.config.0.media_type))
            .filter_map(|part| Some((part, platform(part)?)))
            .collect();
        let wanted = self.options.platform.clone().unwrap_or_else(|| Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
        });
        let exact = images.iter().find(|(_, platform)| platform.serves(&wanted));
        let linux = || images.iter().find(|(_, platform)| platform.os == "linux");
        let chosen = match &images[..] {
            [only] => Some(only),
            _ => exact.or_else(linux),
        };
        chosen.map(|(part, _)| *part).ok_or_else(|| self.unfit("it is no container image", ErrorKind::Usage))
    }

    /// In which form a layer is written.
    fn form(&self, layer: &Descriptor, parts: &ImageParts) -> Form {
        match media_type::layer_compression(&layer.media_type) {
            None | Some(Compression::None) => Form::Stored,
            Some(_) if self.options.plain && parts.plain_sizes.contains_key(&layer.digest) => Form::Plain,
            Some(Compression::Zstd) if !self.options.zstd => Form::Plain,
            Some(_) => Form::Stored,
        }
    }

    fn expect(&mut self, layer: &Descriptor, form: Form, path: String) {
        if self.planned.iter().all(|planned| planned.path != path) {
            self.planned.push(Planned { need: Need { blob: layer.clone(), form }, path, written: false });
        }
    }

    /// Plans for `manifest.json` and returns it with the configuration, and whether the archive is a complete layout too.
    fn plan_docker(&mut self, parts: &ImageParts) -> Result<(Vec<(String, Bytes)>, bool), ImageError> {
        let part = self.runnable(parts)?;
        let (config, bytes) = &part.config;
        let chains = chain_ids(&part.diff_ids);
        // Without a manifest it can be none.
        let mut whole = parts.images.len() == 1 && !parts.manifests.is_empty();
        let mut layers = Vec::with_capacity(part.layers.len());
        if chains.len() != part.layers.len() {
            return Err(self.unfit("its configuration does not list its layers", ErrorKind::Integrity));
        }
        for ((layer, diff_id), chain) in part.layers.iter().zip(&part.diff_ids).zip(&chains) {
            // Under the digest of the form in which it is written.
            let form = self.form(layer, parts);
            let path = if form == Form::Plain { diff_id.layout_path() } else { layer.digest.layout_path() };
            let skipped = self.options.skip_chains.contains(chain);
            if !skipped && parts.absent.contains(&layer.digest) {
                return Err(self.unfit("one of its layers must not be handed on and is not there", ErrorKind::Usage));
            }
            whole &= !skipped && form == Form::Stored;
            layers.push(path.clone());
            if !skipped {
                self.expect(layer, form, path);
            }
        }
        let mut repo_tags = self.options.repo_tags.clone();
        if repo_tags.is_empty() {
            repo_tags.extend(parts.name.clone());
        }
        let image = ArchiveImage { config: config.digest.layout_path(), repo_tags, layers };
        let documents =
            vec![(ARCHIVE_FILE.to_owned(), write_archive(&[image])), (config.digest.layout_path(), bytes.clone())];
        Ok((documents, whole))
    }

    /// The files of the layout apart from the layers.
    fn layout(&self, parts: &ImageParts) -> Vec<(String, Bytes)> {
        let mut root = Descriptor { annotations: BTreeMap::new(), ..parts.root.clone() };
        let name = self.options.repo_tags.first().or(parts.name.as_ref());
        let tag = name.and_then(|name| name.rsplit_once(':')).map(|(_, tag)| tag.to_owned());
        let tag = self.options.ref_name.clone().or(tag.filter(|tag| !tag.contains('/')));
        root.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag)));
        root.annotations.extend(name.map(|name| (IMAGE_NAME.to_owned(), name.clone())));
        let mut entries = vec![root];
        entries.extend(parts::referrers(parts));
        let mut documents = vec![
            (OCI_LAYOUT_FILE.to_owned(), OCI_LAYOUT.into()),
            (INDEX_FILE.to_owned(), write_layout_index(&entries)),
        ];
        let configs = parts.images.iter().map(|image| &image.config);
        let blobs = parts.manifests.iter().chain(configs);
        documents.extend(blobs.map(|(descriptor, bytes)| (descriptor.digest.layout_path(), bytes.clone())));
        documents
    }

    async fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let Some(writer) = &mut self.writer else { return Err(self.broken()) };
        let written = writer.file(name, bytes).await;
        self.failed(written)
    }

    /// After a failure nothing more can be added.
    fn failed(&mut self, result: std::io::Result<()>) -> Result<(), ImageError> {
        result.map_err(|error| {
            self.writer = None;
            match error.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => self.place.malformed(error),
                _ => self.place.io("writing", error),
            }
        })
    }

    /// Folders come before what is in them.
    async fn folders<'a>(&mut self, paths: impl Iterator<Item = &'a String>) -> Result<(), ImageError> {
        let mut folders = vec!["blobs".to_owned()];
        folders.extend(paths.filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned())));
        folders.sort();
        folders.dedup();
        for folder in folders {
            let Some(writer) = &mut self.writer else { return Err(self.broken()) };
            let written = writer.folder(&folder).await;
            self.failed(written)?;
        }
        Ok(())
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> ImageSink for ArchiveSink<W> {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        Ok(Abilities {
            indexes: !self.options.docker,
            zstd: self.options.zstd,
            layers: self.options.layers,
            platform: self.options.platform.clone(),
            keeps_digests: self.options.zstd && self.options.skip_chains.is_empty() && !self.options.plain,
        })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        parts::check(parts, self.options.layers, &self.place)?;
        self.planned.clear();
        let (mut documents, whole) = if self.options.docker {
            self.plan_docker(parts)?
        } else {
            let layers = parts.images.iter().flat_map(|image| &image.layers);
            for layer in layers.filter(|layer| !parts.absent.contains(&layer.digest)) {
                self.expect(layer, Form::Stored, layer.digest.layout_path());
            }
            (Vec::new(), true)
        };
        if whole {
            documents.splice(0..0, self.layout(parts));
        }
        let mut names = HashSet::new();
        documents.retain(|(name, _)| names.insert(name.clone()));
        // An artifact's empty configuration may be its layer at the same time.
        self.planned.retain(|planned| !names.contains(&planned.path));
        let paths: Vec<String> = self.planned.iter().map(|planned| planned.path.clone()).collect();
        self.folders(names.iter().chain(&paths)).await?;
        for (name, bytes) in documents {
            self.document(&name, &bytes).await?;
        }
        Ok(self.planned.iter().map(|planned| planned.need.clone()).collect())
    }

    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        if need.form == Form::Stored && size != need.blob.size {
            let reason = format!("{} has {size} bytes instead of {}", need.blob.digest, need.blob.size);
            return Err(self.place.malformed(reason));
        }
        let unplanned = || self.place.io("writing", std::io::Error::other("a blob that nobody asked for"));
        let planned = self.planned.iter_mut().find(|planned| planned.need == *need && !planned.written);
        let planned = planned.ok_or_else(unplanned)?;
        planned.written = true;
        let path = planned.path.clone();
        let Some(writer) = &mut self.writer else { return Err(self.broken()) };
        let written = writer.stream(&path, size, data).await;
        self.failed(written)
    }

    async fn finish(self: Box<Self>) -> Result<Delivered, ImageError> {
        let place = self.place.clone();
        let mut output = self.into_output().await?;
        output.shutdown().await.map_err(|error| place.io("writing", error))?;
        Ok(Delivered { place: place.to_string(), image_id: None })
    }
}
