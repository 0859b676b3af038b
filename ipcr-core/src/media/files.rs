//! What layouts and archives have in common: named files, found by name ([`Files`]).

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::archive::ArchiveError;
use super::archive::header::inside;
use super::archive::index::ArchiveIndex;
use super::place::Place;
use crate::port::image::{ByteStream, ImageError};

/// Files that are found by name. Names are relative paths that were checked by [`inside`] or made of a digest.
#[async_trait]
pub(crate) trait Files: Debug + Send + Sync {
    /// What holds them.
    fn place(&self) -> &Place;

    /// The name under which a file is really kept, links followed, and its size in bytes; `None` if it is not there.
    async fn find(&self, name: &str) -> Result<Option<(String, u64)>, ImageError>;

    /// Opens a file; `None` if it is not there.
    async fn open(&self, name: &str) -> Result<Option<ByteStream>, ImageError>;
}

/// A file in one piece; `None` if it is not there. A larger one than `limit` is refused.
pub(crate) async fn document(files: &dyn Files, name: &str, limit: u64) -> Result<Option<Bytes>, ImageError> {
    let Some((_, size)) = files.find(name).await? else { return Ok(None) };
    let refuse = |size| {
        let error = ArchiveError::TooLarge { name: name.to_owned(), size, limit };
        files.place().malformed(error)
    };
    if size > limit {
        return Err(refuse(size));
    }
    let Some(stream) = files.open(name).await? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = stream.take(limit + 1).read_to_end(&mut bytes).await.map_err(|error| files.place().reading(error))?;
    if read as u64 > limit {
        return Err(refuse(read as u64));
    }
    Ok(Some(bytes.into()))
}

#[async_trait]
impl Files for ArchiveIndex {
    fn place(&self) -> &Place {
        self.place()
    }

    async fn find(&self, name: &str) -> Result<Option<(String, u64)>, ImageError> {
        Ok(self.find(name).map(|(name, size)| (name.to_owned(), size)))
    }

    async fn open(&self, name: &str) -> Result<Option<ByteStream>, ImageError> {
        self.open_member(name).await
    }
}

/// A folder. Links in it are followed as long as they stay inside.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Without links.
    root: PathBuf,
    place: Place,
}

impl Folder {
    /// The folder at `path`.
    pub(crate) async fn open(path: &Path, place: &Place) -> Result<Self, ImageError> {
        let opening = |error| place.io("opening", error);
        let root = tokio::fs::canonicalize(path).await.map_err(opening)?;
        if !tokio::fs::metadata(&root).await.map_err(opening)?.is_dir() {
            return Err(place.malformed("it is no folder"));
        }
        Ok(Self { root, place: place.clone() })
    }

    /// The file's real path and size; `None` if it is not there.
    async fn locate(&self, name: &str) -> Result<Option<(PathBuf, u64)>, ImageError> {
        let name = inside("", name).ok_or_else(|| self.leaves(name))?;
        let real = match tokio::fs::canonicalize(self.root.join(&name)).await {
            Ok(real) => real,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(self.place.io("opening", error)),
        };
        if !real.starts_with(&self.root) {
            return Err(self.leaves(&name));
        }
        let meta = tokio::fs::metadata(&real).await.map_err(|error| self.place.io("opening", error))?;
        if meta.is_file() { Ok(Some((real, meta.len()))) } else { Ok(None) }
    }

    fn leaves(&self, name: &str) -> ImageError {
        self.place.malformed(format_args!("`{name}` leads out of the folder"))
    }
}

#[async_trait]
impl Files for Folder {
    fn place(&self) -> &Place {
        &self.place
    }

    async fn find(&self, name: &str) -> Result<Option<(String, u64)>, ImageError> {
        let Some((real, size)) = self.locate(name).await? else { return Ok(None) };
        let inner = real.strip_prefix(&self.root).ok().and_then(Path::to_str);
        Ok(inner.map(|inner| (inner.to_owned(), size)))
    }

    async fn open(&self, name: &str) -> Result<Option<ByteStream>, ImageError> {
        let Some((real, _)) = self.locate(name).await? else { return Ok(None) };
        let file = tokio::fs::File::open(real).await.map_err(|error| self.place.io("opening", error))?;
        Ok(Some(Box::pin(file)))
    }
}
