//! A container engine: [`Engine`].

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::image::config::chain_ids;
use crate::image::platform::Platform;
use crate::kind::{Cause, ErrorKind};
use crate::port::image::{ByteStream, Export};

/// Docker or Podman, behind its API socket.
#[async_trait]
pub trait Engine: Debug + Send + Sync + 'static {
    /// What it is; asked anew at each call, so that a restarted engine is noticed.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// The image that a name or image ID stands for; `None` if there is none.
    async fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError>;

    /// All images, also those without a name. Those that go away meanwhile are left out.
    async fn images(&self) -> Result<Vec<EngineImage>, EngineError>;

    /// The image as an archive (`docker save`). Failures in the middle end the stream with an error.
    async fn export(&self, name: &str) -> Result<ByteStream, EngineError>;

    /// The image as it lies in the engine's own folders, if this process can read them: without the engine's work, and of each layer only
    /// what is read. `None` otherwise, for whatever reason; [`Engine::export`] is always there. What is wrong with a layer shows when
    /// it is read.
    async fn in_place(&self, image: &EngineImage) -> Option<Box<dyn Export>> {
        let _ = image;
        None
    }

    /// Loads an archive (`docker load`) and returns the image IDs and names that the engine says it loaded. Errors inside
    /// the engine's answer stream are errors; an error of `archive` itself is returned as [`EngineError::Archive`].
    async fn load(&self, archive: ByteStream) -> Result<Loaded, EngineError>;

    /// Makes an image without a name of one layer, which is unpacked while it comes (`docker import`): a tar stream, plain or
    /// compressed like those of archives. Returns the image's ID. The image has these labels, whose names and values are of the
    /// characters `A-Za-z0-9.:+-`. Errors as with [`Engine::load`]; after one, nothing is left of it.
    async fn import(&self, layer: ByteStream, labels: &BTreeMap<String, String>) -> Result<String, EngineError>;

    /// Gives an image (by ID) a further name.
    async fn tag(&self, image_id: &str, name: &str) -> Result<(), EngineError>;

    /// Takes a name away, and the image with its last name.
    async fn remove(&self, name: &str) -> Result<(), EngineError>;
}

/// Which engine is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// The one that a user of `docker` works with, whatever program answers there.
    Docker,
    /// Podman.
    Podman,
}

/// How an engine keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineStore {
    /// Docker's layer store: uncompressed, addressed by chain ID.
    Classic,
    /// containerd's content store: compressed blobs and manifests are kept.
    Containerd,
    /// Podman's (containers/storage).
    Podman,
}

/// What an engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// `Docker` or `Podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The API version in use.
    pub api: String,
    /// How it keeps images.
    pub store: EngineStore,
    /// The platform that it runs.
    pub platform: Platform,
    /// Whether it reads zstd layers.
    pub reads_zstd: bool,
    /// Where it listens, for people.
    pub endpoint: String,
    /// Whether it runs on this machine, so that bytes cost little on their way to it.
    pub local: bool,
}

/// An image in an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineImage {
    /// `sha256:…`: the configuration's digest, except in a containerd store, where it is the manifest's or index's.
    pub id: Digest,
    /// Its names.
    pub names: Vec<String>,
    /// `repository@digest` names.
    pub repo_digests: Vec<String>,
    /// Digests of its uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Its platform.
    pub platform: Platform,
    /// Bytes, as the engine counts them.
    pub size: u64,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
}

/// Chain IDs of all layers of the images: those that an archive for [`Engine::load`] may leave out, where the store is
/// [`EngineStore::Classic`]. Others need complete archives.
pub fn known_chains<'a>(images: impl IntoIterator<Item = &'a EngineImage>) -> HashSet<Digest> {
    images.into_iter().flat_map(|image| chain_ids(&image.diff_ids)).collect()
}

/// What a load brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Image IDs (`sha256:…`) that the engine reported.
    pub ids: Vec<String>,
    /// Names that the engine reported.
    pub names: Vec<String>,
}

/// An engine's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No engine answers.
    #[error("no container engine answers at {}", tried.join(", "))]
    Absent {
        /// Where it was looked for.
        tried: Vec<String>,
        /// Why the last attempt failed.
        source: Option<Cause>,
    },
    /// The engine knows no such image.
    #[error("the engine has no image {name}")]
    NoImage {
        /// What was asked for.
        name: String,
    },
    /// The engine answered with an error.
    #[error("the engine refused to {doing}: {message}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to the engine broke while it was to {doing}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// The archive that was being loaded could not be read.
    #[error("the archive for the engine could not be read")]
    Archive {
        /// Why.
        source: io::Error,
    },
}

impl EngineError {
    /// As an I/O error, for a stream that an engine writes or reads; [`EngineError::from_io`] is the way back.
    pub fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, self)
    }

    /// The engine's failure inside an I/O error, if that is what it holds.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }

    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoImage { .. } => ErrorKind::NotFound,
            Self::Archive { source } => ErrorKind::of_io(source),
            _ => ErrorKind::Engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_stream() {
        let error = EngineError::NoImage { name: "x".into() };
        assert!(matches!(EngineError::from_io(error.into_io()), Ok(EngineError::NoImage { .. })));
        assert!(EngineError::from_io(io::Error::other("else")).is_err());
    }
}
