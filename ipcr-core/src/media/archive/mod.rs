//! Archives (tar) that hold images: [`reader`] and [`index`] read them, [`writer`] writes them, [`unpack`] takes the
//! compression off.
//!
//! The archive is the outer one, as `docker save` writes it; the layers inside are opaque bytes here. A reader takes
//! memory for headers, names and small documents only, never for layers, and bounds all of it by [`crate::limits`].

#[cfg(any(test, feature = "fuzzing"))]
mod fuzzed;
pub mod header;
pub mod index;
pub mod reader;
pub mod unpack;
pub mod writer;

#[cfg(any(test, feature = "fuzzing"))]
pub use self::fuzzed::fuzz;

/// Why an archive is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It does not begin like one, or a header is damaged.
    #[error("no archive, or a damaged one")]
    NoArchive,
    /// It ends in the middle.
    #[error("the archive ends too early")]
    Truncated,
    /// There are bytes after its end.
    #[error("the archive is followed by other data")]
    Trailing,
    /// More than [`crate::limits::ARCHIVE_ENTRIES`].
    #[error("the archive has more than {} entries", crate::limits::ARCHIVE_ENTRIES)]
    TooManyEntries,
    /// Something about it that readers understand differently.
    #[error("{0}")]
    Framing(&'static str),
    /// A name or link that leads out of it.
    #[error("`{name}` leads out of the archive")]
    Leaves {
        /// Which.
        name: String,
    },
    /// A member that is neither file nor folder nor link.
    #[error("`{name}` is neither a file nor a folder nor a link")]
    Kind {
        /// Which.
        name: String,
    },
    /// Two members of one name.
    #[error("`{name}` is there twice")]
    Twice {
        /// Which.
        name: String,
    },
    /// An extended header that this reader does not know.
    #[error("the extended header `{key}` is not known")]
    Record {
        /// Its key.
        key: String,
    },
    /// A document that is too large.
    #[error("`{name}` has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// How many are accepted.
        limit: u64,
    },
}

impl ArchiveError {
    /// Its class.
    pub fn kind(&self) -> crate::kind::ErrorKind {
        crate::kind::ErrorKind::Integrity
    }
}
