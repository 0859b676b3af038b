//! A tag folder as a source: [`open_folder`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cid::Cid;

use super::error::TransferError;
use super::ingest::{IngestOptions, Intake};
use super::ledger::Ledger;
use super::legacy::LegacyFolder;
use super::stored::StoredSource;
use crate::dag::compression::Compression;
use crate::dag::encode::Encoding;
use crate::digest::Digest;
use crate::event::Emitter;
use crate::exchange::file::File;
use crate::exchange::reader::Reader;
use crate::exchange::window::Window;
use crate::image::descriptor::Descriptor;
use crate::kind::{Cause, ErrorKind};
use crate::port::blocks::StoreSession;
use crate::port::image::{Blobs, ByteStream, ImageError, Opened};
use crate::reference::ImageName;
use crate::tree::layout::Layout;
use crate::tree::read::{self, Contents, Found, Wanted};

/// Bytes that are fetched ahead of all readers of one folder together, from one source: what one peer is asked for at once.
const AHEAD_BYTES: usize = 16 << 20;

/// Where a folder was found, so that what refers to its manifests can be found too.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// The registry's root.
    pub(crate) root: Cid,
    /// The image.
    pub(crate) image: ImageName,
}

/// Opens a folder that was found. One of 2020 has no manifest: its layers are taken into the store as they are, and the
/// manifest that ipcr writes for them is served.
pub(crate) async fn open_folder(
    place: String,
    found: &Found,
    home: Option<Home>,
    reader: &Reader,
    session: &Arc<dyn StoreSession>,
    ledger: Ledger,
    events: &Emitter,
) -> Result<Arc<dyn Blobs>, TransferError> {
    let window = reader.window(AHEAD_BYTES);
    match &found.contents {
        Contents::Layout(layout) => {
            let root = found.descriptor.clone().unwrap_or_else(|| layout.root().clone());
            let layouts = Mutex::new(vec![layout.clone()]);
            Ok(Arc::new(FolderSource { place, root, layouts, home, reader: reader.clone(), window }))
        }
        Contents::Legacy(legacy) => {
            let export = LegacyFolder::open(place.clone(), legacy.clone(), reader.clone(), window).await?;
            let options =
                IngestOptions { encoding: Encoding::current(Compression::None), recompress: false, platform: None };
            let intake = Intake::new(ledger.clone(), Arc::clone(session), events.clone(), options);
            let taken = intake.ingest(Opened::Export(Box::new(export))).await?;
            // Until a collection takes it, for nothing refers to it, the next pull finds it.
            session.commit().await?;
            taken.remember(&ledger).await?;
            Ok(Arc::new(StoredSource::new(place, taken.image, reader.clone())))
        }
    }
}

/// An opened folder whose blocks come from the store or from others.
#[derive(Debug)]
struct FolderSource {
    place: String,
    root: Descriptor,
    /// The folder's layout, and those of the referrers that were asked for.
    layouts: Mutex<Vec<Layout>>,
    home: Option<Home>,
    reader: Reader,
    window: Window,
}

impl FolderSource {
    fn failed(&self, kind: ErrorKind, source: Cause) -> ImageError {
        ImageError::Remote { place: self.place.clone(), doing: "reading", kind, source }
    }

    fn layouts(&self) -> Vec<Layout> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Blobs for FolderSource {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    fn name(&self) -> Option<String> {
        None
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<ByteStream, ImageError> {
        for layout in self.layouts() {
            let found = layout.blob(&self.reader, &descriptor.digest).await;
            if let Some(file) = found.map_err(|error| self.failed(error.kind(), Box::new(error)))? {
                let opened = File::open(Arc::new(self.reader.clone()), file.cid, &self.window).await;
                return match opened {
                    Ok(data) => Ok(Box::pin(data)),
                    Err(error) => Err(self.failed(error.kind(), Box::new(error))),
                };
            }
        }
        Err(ImageError::NoBlob { place: self.place.clone(), digest: descriptor.digest })
    }

    async fn plain_sizes(&self) -> Result<HashMap<Digest, u64>, ImageError> {
        let Some(layout) = self.layouts().into_iter().next() else { return Ok(HashMap::new()) };
        let sizes = layout.plain_sizes(&self.reader).await;
        Ok(sizes.map_err(|error| self.failed(error.kind(), Box::new(error)))?.into_iter().collect())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let Some(home) = &self.home else { return Ok(Vec::new()) };
        let listed = read::referrers(&self.reader, &home.root, &home.image, subject).await;
        let listed = listed.map_err(|error| self.failed(error.kind(), Box::new(error)))?;
        for descriptor in &listed {
            let wanted = Wanted::Digest(descriptor.digest);
            let found = read::find(&self.reader, &home.root, &home.image, &wanted).await;
            let found = found.map_err(|error| self.failed(error.kind(), Box::new(error)))?;
            if let Contents::Layout(layout) = found.contents {
                self.layouts.lock().unwrap_or_else(PoisonError::into_inner).push(layout);
            }
        }
        Ok(listed)
    }
}
