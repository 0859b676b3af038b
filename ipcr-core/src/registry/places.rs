//! Sources and sinks of images, by spelling or of one's own.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use multiaddr::Multiaddr;
use tokio::io::AsyncWrite;
use tokio_util::task::TaskTracker;

use super::Registry;
use super::error::{RegistryError, Topic};
use super::open::Opened;
use super::options::ResolveOptions;
use crate::digest::Digest;
use crate::engine::discovery::Discovery;
use crate::event::Emitter;
use crate::limits;
use crate::media::archive_file::ArchiveFileSink;
use crate::media::archive_sink::{ArchiveOptions, ArchiveSink};
use crate::media::docker_archive::{ArchiveFile, ArchiveStream};
use crate::media::docker_manifest::is_same_name;
use crate::media::none::NoneSink;
use crate::media::oci_layout::LayoutFolder;
use crate::media::oci_layout::LayoutSink;
use crate::media::registry::RegistryOptions;
use crate::media::registry::credentials::Credentials;
use crate::media::registry::sink::RegistrySink;
use crate::media::registry::source::RegistrySource;
use crate::media::spec::{ImageSpec, RegistryRef};
use crate::net::HttpClient;
use crate::port::engine::{Engine, EngineImage, EngineKind, EngineStore};
use crate::port::image::{Blobs, ByteStream, ImageSink, ImageSource, Opened as Contents};
use crate::reference::{EngineName, Reference};
use crate::transfer::engine::sink::EngineSink;
use crate::transfer::engine::source::EngineSource;
use crate::transfer::error::TransferError;
use crate::transfer::ingest::{Ingested, Intake};

/// What the library needs to know of the process and machine that it runs in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Surroundings {
    /// Where container engines may be.
    pub engines: Discovery,
    /// Peers to ask first when a name is resolved, each address ending in `/p2p/<peer>`.
    pub peers: Vec<Multiaddr>,
    /// The HTTP client for `docker://`; without one these sources and sinks are refused.
    pub http: Option<HttpClient>,
    /// Who to be at OCI registries.
    pub credentials: Credentials,
    /// The longest time without progress in one stage.
    pub stall: Duration,
    /// Whether others may know what is fetched and get blocks of it meanwhile.
    pub share: bool,
    /// Uses a kept record although it has expired, also where an operation has no option for that: sources of a copy, of a tag.
    pub allow_stale: bool,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            engines: Discovery::default(),
            peers: Vec::new(),
            http: None,
            credentials: Credentials::default(),
            stall: limits::STALL,
            share: true,
            allow_stale: false,
        }
    }
}

/// Where an image comes from.
#[non_exhaustive]
pub enum Source {
    /// Anything that has a spelling.
    Spec(ImageSpec),
    /// An image archive that the caller reads, under a name for people.
    Stream(ByteStream, String),
    /// A source of the caller's own.
    Custom(Arc<dyn ImageSource>),
}

/// Where an image goes.
#[non_exhaustive]
pub enum Sink {
    /// Anything that has a spelling.
    Spec(ImageSpec),
    /// An image archive that the caller takes, under a name for people.
    Stream(Output, String),
    /// A sink of the caller's own.
    Custom(Box<dyn ImageSink>),
}

/// A writer of any kind.
pub struct Output(Pin<Box<dyn AsyncWrite + Send + Sync>>);

impl Output {
    /// The writer.
    pub fn new(writer: impl AsyncWrite + Send + Sync + 'static) -> Self {
        Self(Box::pin(writer))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output")
    }
}

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.as_mut().poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

impl From<ImageSpec> for Source {
    fn from(spec: ImageSpec) -> Self {
        Self::Spec(spec)
    }
}

impl From<Arc<dyn ImageSource>> for Source {
    fn from(source: Arc<dyn ImageSource>) -> Self {
        Self::Custom(source)
    }
}

impl From<ImageSpec> for Sink {
    fn from(spec: ImageSpec) -> Self {
        Self::Spec(spec)
    }
}

impl From<Box<dyn ImageSink>> for Sink {
    fn from(sink: Box<dyn ImageSink>) -> Self {
        Self::Custom(sink)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(spec) => spec.fmt(f),
            Self::Stream(_, name) => f.debug_tuple("Stream").field(name).finish(),
            Self::Custom(source) => source.fmt(f),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(spec) => spec.fmt(f),
            Self::Stream(_, name) => f.debug_tuple("Stream").field(name).finish(),
            Self::Custom(sink) => sink.fmt(f),
        }
    }
}

/// A source that has been looked at, but not read.
#[derive(Debug)]
pub(super) struct OpenedSource {
    describe: String,
    name: Option<String>,
    delivered_name: Option<String>,
    from: From_,
}

#[derive(Debug)]
enum From_ {
    Engine {
        source: EngineSource,
        image: EngineImage,
        store: EngineStore,
    },
    Medium(Arc<dyn ImageSource>),
    /// An image of a registry, and what keeps its blocks.
    Registry {
        blobs: Arc<dyn Blobs>,
        _opened: Box<Opened>,
    },
}

impl OpenedSource {
    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        self.describe.clone()
    }

    /// The name that the image has there, as far as it is known before it is read.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name that the image gets in a sink, as far as it is known before it is read.
    pub(super) fn delivered_name(&self) -> Option<&str> {
        self.delivered_name.as_deref()
    }

    /// What an engine says about the image.
    pub(super) fn engine_image(&self) -> Option<&EngineImage> {
        match &self.from {
            From_::Engine { image, .. } => Some(image),
            _ => None,
        }
    }

    /// The configuration's digest, where the source tells it.
    pub(super) fn image_id(&self) -> Option<Digest> {
        match &self.from {
            From_::Engine { image, store, .. } if *store != EngineStore::Containerd => Some(image.id),
            _ => None,
        }
    }

    /// Repository digests that the engine knows and that its export cannot keep, as the registries know them.
    pub(super) fn lost_digests(&self) -> Vec<RegistryRef> {
        match &self.from {
            From_::Engine { image, store, .. } if *store != EngineStore::Containerd => {
                image.repo_digests.iter().filter_map(|name| RegistryRef::of_engine(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes an engine's image in where the engine keeps it. `None` where that is not possible, or where something is not as it should be:
    /// then it is for [`OpenedSource::open`].
    pub(super) async fn take_in_place(&self, intake: &Intake) -> Option<Result<Ingested, TransferError>> {
        let From_::Engine { source, image, .. } = &self.from else { return None };
        let export = source.open_in_place(image).await?;
        match intake.ingest(Contents::Export(export)).await {
            Err(error @ (TransferError::Source { .. } | TransferError::Invalid { .. } | TransferError::Image(_))) => {
                tracing::debug!(%error, "the image is exported instead");
                None
            }
            taken => Some(taken),
        }
    }

    /// Opens it for reading.
    pub(super) async fn open(&self) -> Result<Contents, TransferError> {
        Ok(match &self.from {
            From_::Engine { source, .. } => source.open().await?,
            From_::Medium(source) => source.open().await?,
            From_::Registry { blobs, .. } => Contents::Blobs(Arc::clone(blobs)),
        })
    }
}

/// A sink that has been looked for; it is made once the image's name is known.
#[derive(Debug)]
pub(super) enum PreparedSink {
    Engine { engine: Arc<dyn Engine>, name: Option<String>, scheme: &'static str },
    OciLayout(PathBuf, Option<String>),
    Archive(PathBuf, ArchiveOptions),
    Nowhere,
    Ready(Box<dyn ImageSink>),
}

impl Registry {
    /// Looks at a source.
    pub(super) async fn open_source(&self, source: Source, events: &Emitter) -> Result<OpenedSource, RegistryError> {
        let medium = |source: Arc<dyn ImageSource>| OpenedSource {
            describe: source.describe(),
            name: None,
            delivered_name: None,
            from: From_::Medium(source),
        };
        let spec = match source {
            Source::Custom(source) => return Ok(medium(source)),
            Source::Stream(stream, name) => return Ok(medium(Arc::new(ArchiveStream::new(stream, name)))),
            Source::Spec(spec) => spec,
        };
        match spec {
            ImageSpec::Engine { kind, name } => {
                let name = name.ok_or_else(|| usage("the engine's image is not named"))?;
                self.engine_source(kind, name).await
            }
            ImageSpec::OciLayout { dir, name } => Ok(medium(Arc::new(LayoutFolder::new(dir, name)))),
            ImageSpec::OciArchive { file, name } | ImageSpec::DockerArchive { file, name } => {
                Ok(medium(Arc::new(ArchiveFile::new(file, name))))
            }
            ImageSpec::Ipcr(text) => {
                let reference: Reference = text.parse().map_err(RegistryError::from_name)?;
                let opened = self.open(&reference, &ResolveOptions::default(), events).await?;
                let blobs = opened.source(self, events).await?;
                let name = reference.image.as_ref().map(|image| {
                    reference.tag_or_latest().map_or_else(|| image.to_string(), |tag| format!("{image}:{tag}"))
                });
                let describe = opened.full_reference(opened.found.digest());
                let delivered_name = opened.engine_name();
                let from = From_::Registry { blobs, _opened: Box::new(opened) };
                Ok(OpenedSource { describe, name, delivered_name, from })
            }
            ImageSpec::Registry(image) => {
                let (http, options) = self.remote(&image)?;
                Ok(medium(Arc::new(RegistrySource::new(http, image, options))))
            }
            ImageSpec::Stream => Err(usage("a stream has to be handed in by the caller")),
            ImageSpec::Nowhere => Err(usage("`none` is no source")),
        }
    }

    async fn engine_source(&self, kind: EngineKind, name: String) -> Result<OpenedSource, RegistryError> {
        let looking = |error| RegistryError::from_image("looking for the image", error);
        let engine = self.engine(kind).await?;
        let describe = format!("{}:{name}", scheme(kind));
        let info = engine.info().await.map_err(|error| looking(error.into()))?;
        let source = EngineSource::new(engine, name.clone(), describe.clone());
        let image = source.inspect().await.map_err(looking)?;
        let known = name_of(&image, &name);
        let delivered_name = known.clone();
        Ok(OpenedSource {
            describe,
            name: known,
            delivered_name,
            from: From_::Engine { source, image, store: info.store },
        })
    }

    async fn engine(&self, kind: EngineKind) -> Result<Arc<dyn Engine>, RegistryError> {
        let found = self.surroundings.engines.discover(kind).await;
        found.map_err(|error| RegistryError::from_image("looking for a container engine", error.into()))
    }

    /// Looks for a sink, so that what is absent is noticed before anything is fetched.
    pub(super) async fn prepare_sink(&self, sink: Sink) -> Result<PreparedSink, RegistryError> {
        let spec = match sink {
            Sink::Custom(sink) => return Ok(PreparedSink::Ready(sink)),
            Sink::Stream(stream, name) => {
                return Ok(PreparedSink::Ready(Box::new(ArchiveSink::new(stream, name, ArchiveOptions::docker()))));
            }
            Sink::Spec(spec) => spec,
        };
        Ok(match spec {
            ImageSpec::Engine { kind, name } => {
                let name = name.as_deref().map(engine_name).transpose()?;
                PreparedSink::Engine { engine: self.engine(kind).await?, name, scheme: scheme(kind) }
            }
            ImageSpec::OciLayout { dir, name } => PreparedSink::OciLayout(dir, name),
            ImageSpec::OciArchive { file, name } => {
                let mut options = ArchiveOptions::oci();
                options.ref_name = name;
                PreparedSink::Archive(file, options)
            }
            ImageSpec::DockerArchive { file, name } => {
                let mut options = ArchiveOptions::docker();
                options.repo_tags = name.as_deref().map(engine_name).transpose()?.into_iter().collect();
                PreparedSink::Archive(file, options)
            }
            ImageSpec::Nowhere => PreparedSink::Nowhere,
            ImageSpec::Ipcr(text) => {
                let message = format!("{text} cannot be written to; use `push` or `tag` for this registry");
                return Err(RegistryError::Usage { message });
            }
            ImageSpec::Registry(image) => {
                let (http, options) = self.remote(&image)?;
                PreparedSink::Ready(Box::new(RegistrySink::new(http, image, options)))
            }
            ImageSpec::Stream => return Err(usage("a stream has to be handed in by the caller")),
        })
    }

    /// How an OCI registry is talked to.
    fn remote(&self, image: &RegistryRef) -> Result<(HttpClient, RegistryOptions), RegistryError> {
        let http = self.surroundings.http.clone().ok_or_else(|| RegistryError::Step {
            doing: "reaching an OCI registry",
            kind: crate::kind::ErrorKind::Unavailable,
            topic: Topic::Offline,
            source: "there is no network for it".into(),
        })?;
        let login = self.surroundings.credentials.login(&image.host, &image.repository).cloned();
        let options = RegistryOptions { login, ..RegistryOptions::default() };
        let http = http.naming(&image.host).map_err(|error| RegistryError::Step {
            doing: "setting up HTTP",
            kind: error.kind(),
            topic: Topic::Other,
            source: Box::new(error),
        })?;
        Ok((http, options))
    }
}

impl PreparedSink {
    /// Makes the sink for an image with this name, which in its source is told apart by `ref_name`.
    pub(super) fn open(
        self,
        name: Option<&str>,
        ref_name: Option<String>,
        tidying: &TaskTracker,
    ) -> Box<dyn ImageSink> {
        // In a layout an image is known by its tag alone.
        let tag = name.and_then(|name| name.rsplit_once(':')).map(|(_, tag)| tag.to_owned());
        let tag = tag.filter(|tag| !tag.contains('/')).or(ref_name);
        match self {
            Self::Engine { engine, name: chosen, scheme } => {
                let shown = chosen.as_deref().or(name).unwrap_or_default();
                let place = format!("{scheme}:{shown}");
                Box::new(EngineSink::new(engine, chosen, place).tidying(tidying.clone()))
            }
            Self::OciLayout(dir, chosen) => {
                let is_chosen = chosen.is_some();
                Box::new(LayoutSink::new(dir, chosen.or(tag)).keeping_others(!is_chosen))
            }
            Self::Archive(file, mut options) => {
                options.ref_name = options.ref_name.or(tag);
                Box::new(ArchiveFileSink::new(file, options))
            }
            Self::Nowhere => Box::new(NoneSink),
            Self::Ready(sink) => sink,
        }
    }
}

/// The name of an engine's image that was asked for: one that is named by its ID goes by any of its names, another by no other
/// than that, whatever else it is called.
fn name_of(image: &EngineImage, asked: &str) -> Option<String> {
    let plain = asked.split('@').next().unwrap_or_default();
    let listed = image.names.iter().find(|listed| is_same_name(listed, plain));
    let by_id = image.id.hex().starts_with(plain.trim_start_matches("sha256:"));
    let first = if by_id { image.names.first() } else { None };
    listed.or(first).cloned().or_else(|| Some(plain.to_owned()).filter(|_| !by_id))
}

fn scheme(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Docker => "docker-daemon",
        EngineKind::Podman => "podman",
    }
}

/// A name for an image in an engine, with its tag.
pub(super) fn engine_name(text: &str) -> Result<String, RegistryError> {
    text.parse().map(|name: EngineName| name.to_string()).map_err(RegistryError::from_name)
}

fn usage(message: &str) -> RegistryError {
    RegistryError::Usage { message: message.to_owned() }
}

#[cfg(test)]
mod in_place_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::platform::Platform;

    #[test]
    fn an_image_goes_by_the_name_that_was_asked_for() {
        let image = EngineImage {
            id: Digest::sha256(b"image"),
            names: ["localhost/foo:1", "localhost/app:latest", "docker.io/library/web:2"].map(str::to_owned).into(),
            repo_digests: Vec::new(),
            diff_ids: Vec::new(),
            platform: Platform::host(),
            size: 0,
            labels: std::collections::BTreeMap::new(),
        };
        let name = |asked: &str| name_of(&image, asked);
        let id = image.id.to_string();
        for (asked, known) in [
            ("app", "localhost/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("web:2", "docker.io/library/web:2"),
            // The engine found it by rules of its own.
            ("short:1", "short:1"),
            (&id, "localhost/foo:1"),
            (&image.id.hex()[..12], "localhost/foo:1"),
        ] {
            assert_eq!(name(asked).as_deref(), Some(known), "{asked}");
        }
        let nameless = EngineImage { names: Vec::new(), ..image.clone() };
        assert_eq!(name_of(&nameless, &id), None);
    }
}
