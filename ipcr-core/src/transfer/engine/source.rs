//! An image in an engine as a source: [`EngineSource`].

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::image::config::parse_config;
use crate::image::v1_ids::v1_ids;
use crate::media::export::StreamExport;
use crate::media::place::Place;
use crate::port::engine::{Engine, EngineError, EngineImage, EngineStore};
use crate::port::image::{Blobs, Export, ExportedImage, ExportedLayer, ImageError, ImageSource, Opened};

/// One image of an engine.
///
/// [`ImageSource::open`] reads the engine's archive as it comes; [`EngineSource::open_in_place`] does without it. Layers that the
/// engine has listed by their uncompressed digests are recognised before they are read wherever the engine's names for them can be
/// foretold. An engine that keeps compressed blobs gives
/// them out with its manifests (see [`Export::manifests`]).
#[derive(Debug)]
pub struct EngineSource {
    engine: Arc<dyn Engine>,
    place: Place,
    name: String,
}

impl EngineSource {
    /// The image that `engine` knows as `name` or by this ID; people call the source `place`.
    pub fn new(engine: Arc<dyn Engine>, name: impl Into<String>, place: impl Into<String>) -> Self {
        Self { engine, place: Place::new(place), name: name.into() }
    }

    /// What the engine tells about the image, without exporting it.
    pub async fn inspect(&self) -> Result<EngineImage, ImageError> {
        let image = self.engine.image(&self.name).await?;
        image.ok_or_else(|| ImageError::NoImage { place: self.place.to_string(), name: self.name.clone() })
    }
}

#[async_trait]
impl ImageSource for EngineSource {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let image = self.inspect().await?;
        let by_manifest = self.engine.info().await?.store == EngineStore::Containerd;
        // By its ID, so that a name that moves in the meantime does no harm. In a containerd store an ID may be an index of
        // many platforms, of which the engine chooses only by name.
        let exported = if by_manifest { self.name.clone() } else { image.id.to_string() };
        let stream = self.engine.export(&exported).await?;
        let hints = Self::hints(&image);
        let inner = Box::new(StreamExport::new(stream, self.place.clone(), None, hints));
        Ok(Opened::Export(Box::new(EngineExport { inner, image, by_manifest, place: self.place.clone() })))
    }
}

impl EngineSource {
    /// The image where the engine keeps it; `None` where it has to be exported (see [`Engine::in_place`]).
    /// `image` is what [`EngineSource::inspect`] said.
    pub async fn open_in_place(&self, image: &EngineImage) -> Option<Box<dyn Export>> {
        let inner = self.engine.in_place(image).await?;
        let exported = EngineExport { inner, image: image.clone(), by_manifest: false, place: self.place.clone() };
        Some(Box::new(StillThere { exported, engine: Arc::clone(&self.engine) }))
    }

    /// Uncompressed digests by the names of the folders in which Docker up to 24 puts layers. Below the top layer these
    /// depend on nothing but the digests; for the top one the configuration would be needed.
    fn hints(image: &EngineImage) -> HashMap<String, Digest> {
        let rootfs = serde_json::json!({ "type": "layers", "diff_ids": image.diff_ids });
        let config = serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs });
        let names = parse_config(config.to_string().into()).and_then(|config| v1_ids(&config)).unwrap_or_default();
        let below = names.len().saturating_sub(1);
        names.into_iter().take(below).zip(image.diff_ids.iter().copied()).collect()
    }
}

/// An image as it comes out of an engine. Failures of the engine come out as such.
#[derive(Debug)]
struct EngineExport {
    inner: Box<dyn Export>,
    image: EngineImage,
    by_manifest: bool,
    place: Place,
}

#[async_trait]
impl Export for EngineExport {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        self.inner.next_layer().await.map_err(of_engine)
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        let mut images = self.inner.images().await.map_err(of_engine)?;
        for image in &mut images {
            let id = Digest::sha256(&image.config);
            if !self.by_manifest && id != self.image.id {
                let (place, expected) = (self.place.to_string(), self.image.id.to_string());
                return Err(ImageError::Mismatch { place, expected, found: id.to_string() });
            }
            image.names.clone_from(&self.image.names);
        }
        Ok(images)
    }

    async fn manifests(&mut self) -> Result<Option<Arc<dyn Blobs>>, ImageError> {
        self.inner.manifests().await.map_err(of_engine)
    }
}

/// An image that was read without the engine, which has to be there at the end, and the image in it: one that dies or loses the image
/// meanwhile is as much a failure as in an export.
#[derive(Debug)]
struct StillThere {
    exported: EngineExport,
    engine: Arc<dyn Engine>,
}

#[async_trait]
impl Export for StillThere {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        self.exported.next_layer().await
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        let id = self.exported.image.id.to_string();
        match self.engine.image(&id).await? {
            Some(_) => self.exported.images().await,
            None => Err(ImageError::NoImage { place: self.exported.place.to_string(), name: id }),
        }
    }
}

/// The engine's own failure inside what a reader of its stream reports.
pub(crate) fn of_engine(error: ImageError) -> ImageError {
    match error {
        ImageError::Io { place, doing, source } => match EngineError::from_io(source) {
            Ok(engine) => engine.into(),
            Err(source) => ImageError::Io { place, doing, source },
        },
        other => other,
    }
}
