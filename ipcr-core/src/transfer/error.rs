//! What can fail on the way of an image: [`TransferError`].

use crate::dag::encode::EncodeError;
use crate::digest::Digest;
use crate::image::platform::Platform;
use crate::kind::{Cause, ErrorKind};
use crate::port::blocks::StoreError;
use crate::port::engine::EngineError;
use crate::port::image::ImageError;
use crate::port::table::TableError;

/// A pipeline's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The source or the sink failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A block, file or folder could not be read.
    #[error("reading {what} failed")]
    Read {
        /// What was being read: a digest, a path.
        what: String,
        /// The class of the cause.
        kind: ErrorKind,
        /// Why.
        source: Cause,
    },
    /// Bytes, sizes or documents do not fit each other.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// What: a digest, a layer, a manifest.
        what: String,
        /// What is wrong, for people.
        reason: String,
    },
    /// Reading the source's bytes failed.
    #[error("reading {what} from the source failed")]
    Source {
        /// Which part.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The image has nothing for the platform.
    #[error("the image has no manifest for {wanted}; it has {}", if available.is_empty() { "none".to_owned() } else { available.join(", ") })]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// An image has more layers than its destination takes.
    #[error("the image has {layers} layers, more than {limit}")]
    TooManyLayers {
        /// How many it has.
        layers: usize,
        /// How many are taken.
        limit: usize,
    },
    /// A blob that the tag folder should hold is not in it.
    #[error("the tag folder does not hold {digest}")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// A piece of a layer could not be compressed.
    #[error("compressing a layer failed")]
    Encode(#[from] EncodeError),
    /// A task ended unexpectedly.
    #[error("a worker ended unexpectedly while {doing}")]
    Worker {
        /// What it was doing.
        doing: &'static str,
    },
}

/// Refuses what is certainly for another platform than the one that was asked for.
pub(crate) fn check_platform(found: &Platform, wanted: Option<&Platform>) -> Result<(), TransferError> {
    match wanted.filter(|wanted| found.is_other_than(wanted)) {
        None => Ok(()),
        Some(wanted) => {
            Err(TransferError::NoPlatform { wanted: wanted.to_string(), available: vec![found.to_string()] })
        }
    }
}

/// A layer that unpacks to other bytes than its configuration names.
pub(crate) fn unpacks_to(layer: &Digest, found: &Digest, expected: &Digest) -> TransferError {
    let reason = format!("its uncompressed bytes are {found}, and the configuration names {expected}");
    TransferError::Invalid { what: layer.to_string(), reason }
}

/// The class of what broke a source's stream: an engine says so itself, anything else by the class of I/O error.
fn source_kind(error: &std::io::Error) -> ErrorKind {
    if let Some(engine) = error.get_ref().and_then(|inner| inner.downcast_ref::<EngineError>()) {
        return engine.kind();
    }
    match ErrorKind::of_io(error) {
        ErrorKind::NotFound => ErrorKind::Failed,
        kind => kind,
    }
}

impl TransferError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Table(error) => error.kind(),
            Self::Read { kind, .. } => *kind,
            Self::Invalid { .. } | Self::TooManyLayers { .. } | Self::Missing { .. } => ErrorKind::Integrity,
            Self::Source { source, .. } => source_kind(source),
            Self::Encode(error) => error.kind(),
            Self::NoPlatform { .. } => ErrorKind::NotFound,
            Self::Worker { .. } => ErrorKind::Failed,
        }
    }

    /// The error inside an [`std::io::Error`] that a pipeline of this module made, if there is one.
    pub(crate) fn from_io(what: impl Into<String>, error: std::io::Error) -> Self {
        let what = what.into();
        match error.downcast::<TransferError>() {
            Ok(inner) => inner,
            Err(source) => Self::Source { what, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_breaks_off_is_an_engine_failure() {
        let broken = EngineError::Broken { doing: "export an image", source: "end of file".into() };
        let error = TransferError::from_io("a layer", broken.into_io());
        assert_eq!(error.kind(), ErrorKind::Engine);
        let gone = TransferError::from_io("a layer", std::io::ErrorKind::NotFound.into());
        assert_eq!(gone.kind(), ErrorKind::Failed);
    }
}
