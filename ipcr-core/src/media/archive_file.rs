//! Writing an image as an archive into a file: [`ArchiveFileSink`].

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::archive_sink::{ArchiveOptions, ArchiveSink};
use super::place::{Place, on_disk};
use super::temporary::Temporary;
use crate::kind::ErrorKind;
use crate::port::image::{Abilities, ByteStream, Delivered, ImageError, ImageParts, ImageSink, Need};

/// `docker-archive:FILE[:REF]` and `oci-archive:FILE[:REF]` as sinks.
///
/// The archive is written beside the file under a temporary name and renamed when it is complete and durable. A file that
/// is there already is replaced then, as `docker save -o` and `skopeo copy … oci-archive:` do.
#[derive(Debug)]
pub struct ArchiveFileSink {
    path: PathBuf,
    place: Place,
    options: ArchiveOptions,
    begun: Option<(Temporary, ArchiveSink<tokio::fs::File>)>,
}

impl ArchiveFileSink {
    /// Into the file at `path`.
    pub fn new(path: impl Into<PathBuf>, options: ArchiveOptions) -> Self {
        let path = path.into();
        let place = Place::new(path.display().to_string());
        Self { path, place, options, begun: None }
    }

    fn begun(&mut self) -> Result<&mut ArchiveSink<tokio::fs::File>, ImageError> {
        let unplanned = || self.place.io("writing", std::io::Error::other("nothing was planned"));
        self.begun.as_mut().map(|(_, sink)| sink).ok_or_else(unplanned)
    }
}

#[async_trait]
impl ImageSink for ArchiveFileSink {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        ArchiveSink::new(tokio::io::sink(), self.describe(), self.options.clone()).abilities().await
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        self.begun = None;
        if self.path.is_dir() {
            let reason = "it is a folder".to_owned();
            return Err(ImageError::Unfit { place: self.describe(), reason, kind: ErrorKind::Usage });
        }
        // Through links to where the file is or will be; what is no file cannot be replaced by one.
        if let Ok(real) = self.path.canonicalize() {
            if !real.is_file() {
                let reason = "it is no file; `-` writes to standard output".to_owned();
                return Err(ImageError::Unfit { place: self.describe(), reason, kind: ErrorKind::Usage });
            }
            self.path = real;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let writing = |error| self.place.io("writing", error);
        let temporary = Temporary::create(folder).map_err(writing)?;
        let file = tokio::fs::File::from_std(temporary.file.try_clone().map_err(writing)?);
        let sink = ArchiveSink::new(file, self.describe(), self.options.clone());
        let (_, sink) = self.begun.insert((temporary, sink));
        sink.plan(parts).await
    }

    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        self.begun()?.write(need, size, data).await
    }

    async fn finish(mut self: Box<Self>) -> Result<Delivered, ImageError> {
        let unplanned = || self.place.io("writing", std::io::Error::other("nothing was planned"));
        let (mut temporary, sink) = self.begun.take().ok_or_else(unplanned)?;
        drop(sink.into_output().await?);
        let path = self.path.clone();
        let persisted = on_disk(move || temporary.persist(&path)).await;
        persisted.map_err(|error| self.place.io("writing", error))?;
        Ok(Delivered { place: self.describe(), image_id: None })
    }
}
