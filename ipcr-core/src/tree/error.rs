//! What can go wrong with a registry directory: [`TreeError`].

use cid::Cid;

use crate::dag::directory::DirectoryError;
use crate::dag::pb::NodeError;
use crate::digest::Digest;
use crate::exchange::path::PathError;
use crate::image::config::ConfigError;
use crate::image::layout::LayoutError;
use crate::image::manifest::ManifestError;
use crate::kind::ErrorKind;
use crate::port::blocks::ReadError;

/// Why a registry directory cannot be read or edited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// There is no such image, tag, digest or file.
    #[error("there is no {what}")]
    NotFound {
        /// `image app`, `tag app:1`, `app@sha256:…`, a path.
        what: String,
    },
    /// A block could not be had.
    #[error("a part of the registry could not be read")]
    Block {
        /// Which.
        cid: Cid,
        /// Why.
        source: ReadError,
    },
    /// A path could not be followed.
    #[error("{path} cannot be read")]
    Path {
        /// Which.
        path: String,
        /// Why.
        source: PathError,
    },
    /// A directory could not be made.
    #[error("the directory {path} cannot be made")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: DirectoryError,
    },
    /// A file is not what it should be.
    #[error("the file {path} cannot be read")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: NodeError,
    },
    /// A file is larger than its limit.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        path: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A JSON file of the registry is malformed.
    #[error("{path} is malformed")]
    Json {
        /// Which.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is in a newer format, which is not edited here.
    #[error("{path} has format {found}; this version writes format {known}", known = super::document::FORMAT)]
    NewerFormat {
        /// Which.
        path: String,
        /// Its format.
        found: u64,
    },
    /// `oci-layout`, `index.json` or `manifest.json` of a folder is malformed.
    #[error("the image folder {path} is malformed")]
    Layout {
        /// The folder.
        path: String,
        /// Why.
        source: LayoutError,
    },
    /// A manifest is malformed or ambiguous.
    #[error("manifest {digest} cannot be used")]
    Manifest {
        /// Which.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// A configuration is malformed.
    #[error("configuration {digest} cannot be used")]
    Config {
        /// Which.
        digest: Digest,
        /// Why.
        source: ConfigError,
    },
    /// Something is not what something else says.
    #[error("{path} is wrong: {reason}")]
    Disagree {
        /// Which.
        path: String,
        /// What is wrong, for people.
        reason: String,
    },
    /// What was handed in to be stored is not complete.
    #[error("the image is not complete: {digest} is missing")]
    Incomplete {
        /// What is missing.
        digest: Digest,
    },
    /// The manifest cannot be removed alone.
    #[error("{digest} is part of {of}, which has to be removed first")]
    InUse {
        /// What was to be removed.
        digest: Digest,
        /// What holds it.
        of: Digest,
    },
    /// The content that was named is something else than was asked for.
    #[error("{cid} is {found}, not {wanted}")]
    Kind {
        /// What was named.
        cid: Cid,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A name in the directory does not follow the rules.
    #[error("{path} has a name that no image or tag can have")]
    Name {
        /// Which.
        path: String,
    },
}

impl TreeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Block { source, .. } => source.kind(),
            Self::Path { source, .. } => source.kind(),
            Self::NewerFormat { .. } => ErrorKind::Failed,
            Self::InUse { .. } | Self::Kind { .. } | Self::Incomplete { .. } => ErrorKind::Usage,
            _ => ErrorKind::Integrity,
        }
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(super) fn disagree(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Disagree { path: path.into(), reason: reason.into() }
    }
}
