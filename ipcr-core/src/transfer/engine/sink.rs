//! An engine as a sink: [`EngineSink`].

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use tokio_util::task::TaskTracker;

use super::loading::{Loading, Order, remove_all};
use super::steps;
use crate::digest::Digest;
use crate::image::config::parse_config;
use crate::image::media_type;
use crate::kind::ErrorKind;
use crate::limits;
use crate::media::archive_sink::ArchiveOptions;
use crate::port::engine::{Engine, EngineImage, EngineInfo, EngineStore, Loaded, known_chains};
use crate::port::image::{Abilities, ByteStream, Delivered, ImageError, ImagePart, ImageParts, ImageSink, Need};

/// Loads one image into an engine.
///
/// The layers flow into the engine while they come, only those that it lacks, in steps where that is worth it ([`super::steps`]), and without
/// a name: a name is given when the engine holds what was sent, so that no name ever stands for something else and
/// none but the one asked for appears. (A containerd store forgets what has no name: there the name travels with the
/// image, and is taken away again if it turns out to be another one.) An image that the engine holds already is only named.
///
/// Dropping the sink before the end gives the load up, and the engine is as before once [`EngineSink::tidying`] has ended.
#[derive(Debug)]
pub struct EngineSink {
    engine: Arc<dyn Engine>,
    name: Option<String>,
    place: String,
    info: Option<EngineInfo>,
    loading: Option<Loading>,
    in_steps: bool,
    expected: Option<Expected>,
    /// Images that earlier loads have left behind and that nobody will need once this image is there.
    left_over: Vec<String>,
    tidying: TaskTracker,
}

/// What the engine must hold in the end.
#[derive(Clone, Debug)]
struct Expected {
    id: Digest,
    diff_ids: Vec<Digest>,
    name: Option<String>,
    /// What it held of this before.
    before: Option<EngineImage>,
}

impl EngineSink {
    /// Into `engine`, which people call `place`; `name` goes before the name that comes with the image.
    pub fn new(engine: Arc<dyn Engine>, name: Option<String>, place: impl Into<String>) -> Self {
        Self {
            engine,
            name,
            place: place.into(),
            info: None,
            loading: None,
            in_steps: true,
            expected: None,
            left_over: Vec::new(),
            tidying: TaskTracker::new(),
        }
    }

    /// Lets `tidying` know of what goes on when the sink is dropped before its end: for seconds at most, something is taken out of the
    /// engine again.
    #[must_use]
    pub fn tidying(mut self, tidying: TaskTracker) -> Self {
        self.tidying = tidying;
        self
    }

    async fn info(&mut self) -> Result<EngineInfo, ImageError> {
        if self.info.is_none() {
            self.info = Some(self.engine.info().await?);
        }
        Ok(self.info.clone().expect("it was just asked for"))
    }

    fn unfit(&self, reason: &str, kind: ErrorKind) -> ImageError {
        ImageError::Unfit { place: self.place.clone(), reason: reason.to_owned(), kind }
    }

    /// The one image of `parts` that goes into the engine, as if there were no other.
    fn single(&self, parts: &ImageParts, info: &EngineInfo) -> Result<(ImageParts, ImagePart), ImageError> {
        let runnable = parts.images.iter().filter(|part| media_type::is_config(&part.config.0.media_type));
        let runnable: Vec<&ImagePart> = runnable.collect();
        let serves = |part: &&&ImagePart| {
            parse_config(part.config.1.clone()).is_ok_and(|config| config.platform.serves(&info.platform))
        };
        let part = match &runnable[..] {
            [] => return Err(self.unfit("it is no container image", ErrorKind::Usage)),
            [only] => *only,
            several => several
                .iter()
                .find(serves)
                .copied()
                .ok_or_else(|| self.unfit(&format!("it has no image for {}", info.platform), ErrorKind::Usage))?,
        };
        let manifests: Vec<_> =
            parts.manifests.iter().filter(|(manifest, _)| manifest.digest == part.manifest).cloned().collect();
        let root = manifests.first().map_or_else(|| parts.root.clone(), |(manifest, _)| manifest.clone());
        let images = vec![part.clone()];
        let (absent, plain_sizes) = (parts.absent.clone(), parts.plain_sizes.clone());
        let single = ImageParts { root, name: None, manifests, images, absent, plain_sizes };
        Ok((single, part.clone()))
    }

    /// Whether the engine holds what was sent; what else it holds of it is taken away again.
    async fn verify(&self, expected: &Expected, loaded: &Loaded) -> Result<EngineImage, ImageError> {
        let containerd = self.info.as_ref().is_some_and(|info| info.store == EngineStore::Containerd);
        let asked = match &expected.name {
            Some(name) if containerd => name.clone(),
            _ if containerd => loaded.ids.first().cloned().unwrap_or_default(),
            _ => expected.id.to_string(),
        };
        let layers = |count: usize| format!("an image of {count} layers");
        let (wanted, found) = match self.engine.image(&asked).await? {
            Some(image) if !containerd && image.id != expected.id => (expected.id.to_string(), image.id.to_string()),
            Some(image) if image.diff_ids.len() != expected.diff_ids.len() => {
                (layers(expected.diff_ids.len()), layers(image.diff_ids.len()))
            }
            Some(image) if image.diff_ids != expected.diff_ids => {
                (format!("the layers of {}", expected.id), "other layers".into())
            }
            Some(image) => return Ok(image),
            None => (
                expected.id.to_string(),
                loaded.ids.iter().chain(&loaded.names).cloned().collect::<Vec<_>>().join(", "),
            ),
        };
        if expected.before.is_none() {
            for name in loaded.names.iter().chain(&loaded.ids) {
                let _ = self.engine.remove(name).await;
            }
        }
        Err(ImageError::Mismatch { place: self.place.clone(), expected: wanted, found })
    }

    /// Gives the image its name, and takes away those that came with the load.
    async fn name(&self, expected: &Expected, image: &EngineImage, loaded: &Loaded) -> Result<(), ImageError> {
        let id = image.id.to_string();
        let Some(name) = &expected.name else { return Ok(()) };
        if image.names.iter().any(|own| own == name) {
            return Ok(());
        }
        if let Err(error) = self.engine.tag(&id, name).await {
            if expected.before.is_none() {
                let _ = self.engine.remove(&id).await;
            }
            return Err(error.into());
        }
        // Others may have named it meanwhile: their names stay.
        let had = |own: &String| expected.before.as_ref().is_some_and(|before| before.names.contains(own));
        for own in image.names.iter().filter(|own| loaded.names.contains(own) && !had(own)) {
            self.engine.remove(own).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ImageSink for EngineSink {
    fn describe(&self) -> String {
        self.place.clone()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        let info = self.info().await?;
        Ok(Abilities {
            indexes: false,
            zstd: info.reads_zstd,
            layers: limits::ENGINE_LAYERS,
            platform: Some(info.platform),
            keeps_digests: info.store == EngineStore::Containerd,
        })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        self.loading = None;
        let info = self.info().await?;
        let (mut single, part) = self.single(parts, &info)?;
        let id = Digest::sha256(&part.config.1);
        let containerd = info.store == EngineStore::Containerd;
        let before = if containerd { None } else { self.engine.image(&id.to_string()).await? };
        let name = self.name.clone().or_else(|| parts.name.clone());
        let expected = Expected { id, diff_ids: part.diff_ids.clone(), name: name.clone(), before };
        let held = expected.before.as_ref().is_some_and(|image| image.id == id && image.diff_ids == part.diff_ids);
        self.expected = Some(expected);
        if held {
            return Ok(Vec::new());
        }
        if containerd {
            single.name = name;
        }
        let mut options = ArchiveOptions::docker();
        let classic = info.store == EngineStore::Classic;
        if classic {
            let images = self.engine.images().await?;
            // Those of loads that are under way may go away again.
            options.skip_chains = known_chains(images.iter().filter(|image| !steps::is_step(image)));
            let now = Utc::now();
            let left_over = images.iter().filter(|image| steps::is_left_over(image, &part.diff_ids, now));
            self.left_over = left_over.map(|image| image.id.to_string()).collect();
        }
        options.zstd = info.reads_zstd;
        // It would decompress them itself, and take much longer for it; but on a line they shall not take more room.
        options.plain = classic && info.local;
        options.layers = limits::ENGINE_LAYERS;
        let linux = info.platform.os == "linux";
        options.platform = Some(info.platform);
        let order = Order {
            engine: Arc::clone(&self.engine),
            place: self.place.clone(),
            parts: single,
            options,
            in_steps: self.in_steps && classic && linux,
            tidying: self.tidying.clone(),
        };
        let (loading, needs) = Loading::begin(order).await?;
        self.loading = Some(loading);
        Ok(needs)
    }

    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        let unplanned = self.unfit("nothing was planned", ErrorKind::Failed);
        self.loading.as_mut().ok_or(unplanned)?.write(need, size, data).await
    }

    fn take_another_way(&mut self) -> bool {
        std::mem::take(&mut self.in_steps) && self.loading.take().is_some_and(|loading| loading.is_stepwise())
    }

    async fn finish(mut self: Box<Self>) -> Result<Delivered, ImageError> {
        let unplanned = self.unfit("nothing was planned", ErrorKind::Failed);
        let Some(expected) = self.expected.take() else { return Err(unplanned) };
        let mut loaded = Loaded::default();
        if let Some(loading) = &mut self.loading {
            loaded = loading.finish().await?;
        }
        let image = self.verify(&expected, &loaded).await?;
        self.name(&expected, &image, &loaded).await?;
        if let Some(loading) = self.loading.take() {
            loading.tidy_up().await;
        }
        remove_all(self.engine.as_ref(), &self.left_over).await;
        Ok(Delivered { place: expected.name.unwrap_or_else(|| image.id.to_string()), image_id: Some(image.id) })
    }
}

#[cfg(test)]
mod tests;
