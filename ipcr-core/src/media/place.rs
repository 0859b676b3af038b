//! What errors of this module call the medium: [`Place`].

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::kind::in_one_line;
use crate::port::image::ImageError;

/// A file, folder or stream, by the name that people gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Arc<str>);

impl Place {
    /// The place called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into().into())
    }

    /// What was read is not what it claims to be.
    pub(crate) fn malformed(&self, reason: impl fmt::Display) -> ImageError {
        ImageError::Malformed { place: self.to_string(), reason: reason.to_string() }
    }

    /// What was read is not what it claims to be, as its parser says, with all causes.
    pub(crate) fn refused(&self, error: &(dyn std::error::Error + 'static)) -> ImageError {
        self.malformed(in_one_line(error))
    }

    /// A file operation failed.
    pub(crate) fn io(&self, doing: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { place: self.to_string(), doing, source }
    }

    /// Reading failed: what the data says about itself is told as such, the rest as the system's fault.
    pub(crate) fn reading(&self, source: io::Error) -> ImageError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed("it ends too early"),
            // What is wrong with what was to be written, and not with this place, has a cause of its own.
            io::ErrorKind::InvalidData if source.source().is_some() => self.io("filling", source),
            io::ErrorKind::InvalidData => self.malformed(source),
            _ => self.io("reading", source),
        }
    }
}

/// Does work that blocks (files, hashing) where it holds up nobody.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
