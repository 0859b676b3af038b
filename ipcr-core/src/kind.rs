//! What a failure means to a program: [`ErrorKind`].
//!
//! Every error enum of this crate has a `kind()` that answers one of these. Hints and exit codes are the command
//! line's business; a kind is the only thing that it needs to know for them.

use std::error::Error;
use std::io;

/// The machine-readable class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something failed that no other kind describes.
    Failed,
    /// The caller asked for something that makes no sense, or no registry has been made here yet.
    Usage,
    /// A name, tag, image or block that does not exist.
    NotFound,
    /// Nobody could be reached who would know or hold it; trying again later may help.
    Unavailable,
    /// Data, a record or a key is not what it claims to be, is too old, or is beyond a limit.
    Integrity,
    /// No permission, or no key to decrypt with.
    Access,
    /// The container engine refused or failed.
    Engine,
    /// Another process holds the home.
    Locked,
    /// No space left.
    DiskFull,
    /// The user or the caller stopped it.
    Interrupted,
}

impl ErrorKind {
    /// The kind of an I/O error of a local file.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Access,
            io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Self::Usage,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Integrity,
            io::ErrorKind::Interrupted => Self::Interrupted,
            io::ErrorKind::TimedOut => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

/// A cause of any type, kept as the `source` of an error.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// An error and its causes, the nearest first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (**error).source())
}

/// An error and its causes in one line. A cause that only repeats what has been said is left out.
pub(crate) fn in_one_line(error: &(dyn Error + 'static)) -> String {
    chain(error).fold(String::new(), |line, error| {
        let text = error.to_string();
        match line.as_str() {
            "" => text,
            said if said.ends_with(&text) => line,
            _ => format!("{line}: {text}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<Step>>);

    #[test]
    fn a_line_says_each_thing_once() {
        let cable = Step("the cable is cut", None);
        let read = Step("reading failed: the cable is cut", Some(cable.into()));
        let error = Step("no image", Some(read.into()));
        assert_eq!(in_one_line(&error), "no image: reading failed: the cable is cut");
        assert_eq!(chain(&error).count(), 3);
    }
}
