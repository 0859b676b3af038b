//! `docker-archive:FILE[:REF]`, and archives on standard input: [`ArchiveFile`], [`ArchiveStream`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::archive::index::ArchiveIndex;
use super::export::{ListedExport, StreamExport, with_manifests};
use super::layout::Layout;
use super::place::Place;
use crate::port::image::{ByteStream, ImageError, ImageSource, Opened};

/// An image in an archive that is a file: as `docker save` (legacy or with an OCI layout inside), `podman save` and
/// `skopeo copy` write them, plain or compressed with gzip or zstd. Both `docker-archive:` and `oci-archive:` mean this;
/// what is inside decides.
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    want: Option<String>,
    place: Place,
}

impl ArchiveFile {
    /// The image `want` (a name or digest in the archive) of the file at `path`; without `want` there must be exactly one.
    pub fn new(path: impl Into<PathBuf>, want: Option<String>) -> Self {
        let path = path.into();
        let place = Place::new(path.display().to_string());
        Self { path, want, place }
    }
}

#[async_trait]
impl ImageSource for ArchiveFile {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let want = self.want.as_deref();
        let Some(index) = ArchiveIndex::open(&self.path, &self.place).await? else {
            let opening = |error| self.place.io("opening", error);
            let file = tokio::fs::File::open(&self.path).await.map_err(opening)?;
            let export = StreamExport::new(Box::pin(file), self.place.clone(), self.want.clone(), HashMap::new());
            return Ok(Opened::Export(Box::new(export)));
        };
        Ok(match with_manifests(&index, want).await? {
            Some(chosen) => Opened::Blobs(Arc::new(Layout::new(index, chosen))),
            None => Opened::Export(Box::new(ListedExport::open(index, want).await?)),
        })
    }
}

/// An image in an archive that can be read only once, front to back: standard input.
pub struct ArchiveStream {
    stream: Mutex<Option<ByteStream>>,
    place: Place,
}

impl std::fmt::Debug for ArchiveStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveStream").field("place", &self.place).finish_non_exhaustive()
    }
}

impl ArchiveStream {
    /// The only image in `stream`, which people know as `name`.
    pub fn new(stream: ByteStream, name: impl Into<String>) -> Self {
        Self { stream: Mutex::new(Some(stream)), place: Place::new(name) }
    }
}

#[async_trait]
impl ImageSource for ArchiveStream {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let stream = self.stream.lock().expect("nothing panics while it is held").take();
        let read = || self.place.io("reading again", std::io::Error::other("a stream can be read only once"));
        let export = StreamExport::new(stream.ok_or_else(read)?, self.place.clone(), None, HashMap::new());
        Ok(Opened::Export(Box::new(export)))
    }
}
