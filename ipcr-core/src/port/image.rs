//! Where images come from and go to: [`ImageSource`] and [`ImageSink`].
//!
//! There are two families of sources, and [`Opened`] says which one is at hand:
//! * [`Blobs`]: a source that has manifests *and* the compressed bytes that they name (OCI layouts, registries, ipcr itself).
//!   Everything is fetched by digest and kept byte for byte.
//! * [`Export`]: a source that has only configurations and layers, in an order of its own (engines, `docker save` archives).
//!   Manifests for it are written by ipcr.
//!
//! Nobody on this side of the port has verified a byte: whoever reads checks digests and sizes.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::platform::Platform;
use crate::kind::{Cause, ErrorKind};

/// Bytes, as they come.
pub type ByteStream = Pin<Box<dyn AsyncRead + Send>>;

/// A place from which one image can be read.
#[async_trait]
pub trait ImageSource: Debug + Send + Sync {
    /// What it is, for people: `docker-daemon:app:1`, `oci:./dir`.
    fn describe(&self) -> String;

    /// Opens it. An [`Export`] can be read once; opening again starts anew where the medium allows it.
    async fn open(&self) -> Result<Opened, ImageError>;
}

/// An opened source.
#[derive(Debug)]
pub enum Opened {
    /// It has manifests.
    Blobs(Arc<dyn Blobs>),
    /// It has configurations and layers only.
    Export(Box<dyn Export>),
}

/// An image whose parts are found by digest.
#[async_trait]
pub trait Blobs: Debug + Send + Sync {
    /// What the image's name stands for: a manifest or an index.
    fn root(&self) -> &Descriptor;

    /// The name and tag that the medium gives the image (an annotation), if any.
    fn name(&self) -> Option<String>;

    /// What tells the image apart from others in the same medium, often a tag alone (`org.opencontainers.image.ref.name`).
    fn ref_name(&self) -> Option<String> {
        None
    }

    /// Opens a blob or manifest. Absent: [`ImageError::NoBlob`].
    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError>;

    /// Descriptors of manifests that refer to `subject` (OCI image-spec, `subject`).
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError>;

    /// Bytes of compressed layers once they are decompressed, by digest, as far as the medium says so. Whoever decompresses one sees
    /// whether it is true.
    async fn plain_sizes(&self) -> Result<HashMap<Digest, u64>, ImageError> {
        Ok(HashMap::new())
    }
}

/// Layers and configurations as they come out of an engine or a `docker save` archive.
#[async_trait]
pub trait Export: Debug + Send {
    /// The next layer, in the order of the medium; the one before it need not have been read to its end.
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError>;

    /// The images that the archive describes; to be called once `next_layer` has returned `None`.
    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError>;

    /// The manifests that came along, if the medium turned out to have some that its blobs fulfil (an OCI archive read from
    /// a stream); to be called once `next_layer` has returned `None`. Then digests are kept: the image is what these
    /// [`Blobs`] say, not what `images` says. They serve the documents that came along (index, manifests, configurations
    /// and other small JSON); every other blob was yielded as a layer with its [`ExportedLayer::digest`], is not kept here
    /// and answers [`ImageError::NoBlob`].
    async fn manifests(&mut self) -> Result<Option<Arc<dyn Blobs>>, ImageError> {
        Ok(None)
    }
}

/// One layer of an export.
pub struct ExportedLayer<'a> {
    /// By which [`ExportedImage::layers`] refers to it.
    pub key: String,
    /// Its uncompressed digest if the medium tells it before the bytes (not verified).
    pub diff_id: Option<Digest>,
    /// The digest of the bytes as they are in the medium, if it tells one (not verified). Then [`Export::manifests`] may
    /// name these bytes in the end, so they have to be kept in a form that gives them back byte for byte; and they need not
    /// be a tar stream at all (other artifacts' blobs).
    pub digest: Option<Digest>,
    /// Bytes in the medium.
    pub size: u64,
    /// The layer: a tar stream, or a gzip or zstd stream of one. `next_layer` skips what was not read.
    pub data: Pin<Box<dyn AsyncRead + Send + 'a>>,
}

impl Debug for ExportedLayer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportedLayer")
            .field("key", &self.key)
            .field("diff_id", &self.diff_id)
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// One image of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedImage {
    /// The configuration, byte for byte.
    pub config: Bytes,
    /// Keys of its layers, lowest first. Links inside the archive are resolved.
    pub layers: Vec<String>,
    /// Names that the medium gives it.
    pub names: Vec<String>,
}

/// A place to which one image can be written.
///
/// Calls come in this order: `plan`, then one `write` for each blob that the plan names, in its order, then `finish`. A sink
/// that is dropped before `finish` leaves nothing behind that looks like an image.
#[async_trait]
pub trait ImageSink: Debug + Send + Sync {
    /// What it is, for people.
    fn describe(&self) -> String;

    /// What it can take; asked before the manifests are chosen.
    async fn abilities(&mut self) -> Result<Abilities, ImageError>;

    /// Learns what is to come, and says which blobs it needs, in which order and form.
    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError>;

    /// Takes one needed blob, `size` bytes long in the form that was asked for. Bytes have been verified when the stream
    /// ends; a stream that ends with an error must not leave the blob behind.
    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError>;

    /// Goes over to another way of taking the image, after a `write` has failed in this one; false if there is none. Then it is planned once
    /// more, and everything is written anew.
    fn take_another_way(&mut self) -> bool {
        false
    }

    /// Completes the image and says what it is called there.
    async fn finish(self: Box<Self>) -> Result<Delivered, ImageError>;
}

/// What a sink can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whole indexes; otherwise one platform's image.
    pub indexes: bool,
    /// zstd layers.
    pub zstd: bool,
    /// Most layers of an image.
    pub layers: usize,
    /// The platform that it would run, if it runs images.
    pub platform: Option<Platform>,
    /// Whether it keeps manifests and compressed bytes, so that digests survive.
    pub keeps_digests: bool,
}

/// An image as a sink sees it before any layer comes.
#[derive(Clone, Debug)]
pub struct ImageParts {
    /// What the name stands for.
    pub root: Descriptor,
    /// The name that the image is to get in the sink (`hub.test/app:1`), if any.
    pub name: Option<String>,
    /// All manifests and indexes from the root down, the root first, with their bytes; referrers at the end.
    pub manifests: Vec<(Descriptor, Bytes)>,
    /// One entry per image manifest that is delivered.
    pub images: Vec<ImagePart>,
    /// Layers that must not be handed on and that the source does not have; nobody can ask for them.
    pub absent: HashSet<Digest>,
    /// Bytes of compressed layers once they are decompressed, as far as it is known; never for sinks that keep digests.
    pub plain_sizes: HashMap<Digest, u64>,
}

/// One platform's image inside [`ImageParts`].
#[derive(Clone, Debug)]
pub struct ImagePart {
    /// Its manifest's digest.
    pub manifest: Digest,
    /// Its configuration.
    pub config: (Descriptor, Bytes),
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Digests of the uncompressed layers, lowest first; empty for what is no container image.
    pub diff_ids: Vec<Digest>,
}

/// A blob that a sink asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which.
    pub blob: Descriptor,
    /// In which form.
    pub form: Form,
}

/// In which form a layer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Byte for byte.
    Stored,
    /// Decompressed.
    Plain,
}

/// What a sink made of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Where and under which name it is found now, for people: the engine's name, a path.
    pub place: String,
    /// Image ID that the engine reports (a digest), where the sink is an engine.
    pub image_id: Option<Digest>,
}

/// A source's or sink's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The source has no such image.
    #[error("{place} has no image {name}")]
    NoImage {
        /// The source.
        place: String,
        /// What was asked for.
        name: String,
    },
    /// The source holds several images and none was chosen.
    #[error("{place} holds {} images: {}", names.len(), some(names))]
    Ambiguous {
        /// The source.
        place: String,
        /// Their names.
        names: Vec<String>,
    },
    /// A blob that a manifest names is not there.
    #[error("{place} does not hold {digest}")]
    NoBlob {
        /// The source.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// What was read is not what it claims to be, or beyond a limit.
    #[error("{place} is not a valid image: {reason}")]
    Malformed {
        /// The source.
        place: String,
        /// What is wrong, for people.
        reason: String,
    },
    /// The sink cannot take this image.
    #[error("{place} cannot take this image: {reason}")]
    Unfit {
        /// The sink.
        place: String,
        /// Why, for people.
        reason: String,
        /// The class: usage or integrity.
        kind: ErrorKind,
    },
    /// The sink took something else than was sent.
    #[error("{place} holds {found} instead of {expected}")]
    Mismatch {
        /// The sink.
        place: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] super::engine::EngineError),
    /// A registry or another server failed.
    #[error("{doing} {place} failed")]
    Remote {
        /// The server.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// The class of the cause.
        kind: ErrorKind,
        /// Why.
        source: Cause,
    },
    /// A file operation failed.
    #[error("{doing} {place} failed")]
    Io {
        /// The file.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The first of many names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 40;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl ImageError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoImage { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Usage,
            // An image that names a blob without having it is damaged.
            Self::NoBlob { .. } | Self::Malformed { .. } => ErrorKind::Integrity,
            Self::Mismatch { .. } => ErrorKind::Engine,
            Self::Engine(error) => error.kind(),
            Self::Unfit { kind, .. } | Self::Remote { kind, .. } => *kind,
            Self::Io { source, .. } => ErrorKind::of_io(source),
        }
    }
}
