//! A load that is under way: [`Loading`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::pipe::{Writer, pipe};
use super::steps::{self, Sent, Step};
use crate::digest::Digest;
use crate::image::config::{chain_ids, parse_config};
use crate::image::descriptor::Descriptor;
use crate::image::media_type;
use crate::image::platform::Platform;
use crate::media::archive_sink::{ArchiveOptions, ArchiveSink};
use crate::media::place::Place;
use crate::port::engine::{Engine, EngineError, Loaded};
use crate::port::image::{ByteStream, ImageError, ImagePart, ImageParts, ImageSink, Need};

/// Bytes that wait between the writer of the archive and the engine.
const PIPE: usize = 1 << 20;
/// Bytes of a layer that are passed on at once.
const PIECE: usize = 256 << 10;
/// Bytes at the end of a layer that are held back until it is known to be right. Engines may take a tar stream for complete when they see its end
/// marker, whatever comes of the request afterwards.
const HELD_BACK: usize = 64 << 10;
/// How long an engine may take to say why it has stopped to read.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long taking back a load that was given up may take.
const TIDYING: Duration = Duration::from_secs(2);

/// What goes where.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) engine: Arc<dyn Engine>,
    /// What people call the engine.
    pub(super) place: String,
    /// The one image.
    pub(super) parts: ImageParts,
    pub(super) options: ArchiveOptions,
    /// Whether it may go in steps.
    pub(super) in_steps: bool,
    /// Where that which tidies up after a load that was given up is waited for.
    pub(super) tidying: TaskTracker,
}

/// One image on its way into an engine: in steps if that is worth it and the engine is made for it.
///
/// One call to the engine takes what is written; the one before may still be at work. The end of a call's data is held back until then, because the
/// engine needs the layers below. The lowest layer, which the engine takes as slowly as it unpacks it, passes by itself while the next ones are written.
///
/// Dropping it gives the load up, and takes away what its steps have made.
#[derive(Debug)]
pub(super) struct Loading {
    order: Order,
    begun: DateTime<Utc>,
    needs: Vec<Need>,
    /// What has not begun.
    steps: VecDeque<Step>,
    current: Option<Current>,
    before: Option<Before>,
    /// Images that its steps have made.
    made: Vec<String>,
    written: usize,
    /// How many of the image's layers the engine has after the steps that have begun.
    layers: usize,
    is_stepwise: bool,
}

type Call = AbortOnDropHandle<Result<Loaded, EngineError>>;

/// The step before the one that is being written.
#[derive(Debug)]
struct Before {
    call: Call,
    /// Its layer, while it passes.
    passing: Option<AbortOnDropHandle<Result<(), ImageError>>>,
}

impl Before {
    /// Whether nothing of it has to be waited for.
    fn is_over(&self) -> bool {
        // It ends when its layer breaks off, too.
        self.call.is_finished()
    }
}

/// The step that is being written.
#[derive(Debug)]
struct Current {
    call: Call,
    output: Output,
    /// Where its layers end.
    end: usize,
}

#[derive(Debug)]
enum Output {
    Archive(Box<ArchiveSink<Writer>>),
    /// For the one layer of an import; `None` once it has been taken.
    Layer(Option<Writer>),
    Passing(AbortOnDropHandle<Result<(), ImageError>>),
}

impl Loading {
    /// Begins, and says which layers are needed, in order.
    pub(super) async fn begin(order: Order) -> Result<(Self, Vec<Need>), ImageError> {
        let part = &order.parts.images[0];
        let mut whole = ArchiveSink::new(tokio::io::sink(), order.place.clone(), order.options.clone());
        let needs = whole.plan(&order.parts).await?;
        let sent: Vec<Sent> = needs.iter().filter_map(|need| sent(need, part, &order)).collect();
        let whole = Step { sent: 0..needs.len(), layers: part.layers.len(), import: false };
        let steps = if order.in_steps && sent.len() == needs.len() {
            steps::cut(&sent, part.layers.len())
        } else {
            vec![whole]
        };
        let mut loading = Self {
            order,
            begun: Utc::now(),
            needs: needs.clone(),
            is_stepwise: steps.len() > 1,
            steps: steps.into(),
            current: None,
            before: None,
            made: Vec::new(),
            written: 0,
            layers: 0,
        };
        loading.next_step().await?;
        Ok((loading, needs))
    }

    /// Whether it goes in several steps.
    pub(super) fn is_stepwise(&self) -> bool {
        self.is_stepwise
    }

    /// The next layer.
    pub(super) async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        if self.before.as_ref().is_some_and(Before::is_over) {
            self.settle_step().await?;
        }
        while self.current.as_ref().is_some_and(|current| current.end == self.written) && !self.steps.is_empty() {
            self.close_step().await?;
            self.next_step().await?;
        }
        let place = Place::new(self.order.place.clone());
        let broken = place.io("writing", std::io::Error::other("the load broke off before"));
        let written = match self.current.as_mut().map(|current| &mut current.output) {
            Some(Output::Archive(archive)) => archive.write(need, size, data).await,
            Some(output) => match std::mem::replace(output, Output::Layer(None)) {
                Output::Layer(Some(writer)) => {
                    let passing = tokio::spawn(pass(writer, size, data, place));
                    *output = Output::Passing(AbortOnDropHandle::new(passing));
                    Ok(())
                }
                _ => Err(broken),
            },
            None => Err(broken),
        };
        match written {
            Err(error @ ImageError::Io { .. }) => return Err(self.or_engines_words(error).await),
            Err(error) => return Err(error),
            Ok(()) => self.written += 1,
        }
        if self.written < self.needs.len() || !self.is_stepwise {
            return Ok(());
        }
        // Only the image itself is left for the end: what the engine refuses of the steps is told while there is another way.
        while !self.steps.is_empty() {
            self.close_step().await?;
            self.next_step().await?;
        }
        self.settle_step().await
    }

    /// Ends it: what the engine says of the image itself.
    pub(super) async fn finish(&mut self) -> Result<Loaded, ImageError> {
        loop {
            self.close_step().await?;
            if self.steps.is_empty() {
                return self.settled().await;
            }
            self.next_step().await?;
        }
    }

    /// Takes away what the steps have made, once the image itself holds the layers.
    pub(super) async fn tidy_up(mut self) {
        remove_all(self.order.engine.as_ref(), &std::mem::take(&mut self.made)).await;
        self.is_stepwise = false;
    }

    async fn next_step(&mut self) -> Result<(), ImageError> {
        let Some(step) = self.steps.pop_front() else { return Ok(()) };
        let below = std::mem::replace(&mut self.layers, step.layers);
        let (writer, reader) = pipe(PIPE);
        let engine = Arc::clone(&self.order.engine);
        let labels = steps::labels(self.begun);
        let import = step.import;
        let call = async move {
            if import {
                let id = engine.import(Box::pin(reader), &labels).await?;
                return Ok(Loaded { ids: vec![id], names: Vec::new() });
            }
            engine.load(Box::pin(reader)).await
        };
        let call = AbortOnDropHandle::new(tokio::spawn(call));
        if step.import {
            self.current = Some(Current { call, output: Output::Layer(Some(writer)), end: step.sent.end });
            return Ok(());
        }
        let mut options = self.order.options.clone();
        options.skip_chains.extend(&chain_ids(&self.order.parts.images[0].diff_ids)[..below]);
        let parts = if self.steps.is_empty() {
            self.order.parts.clone()
        } else {
            lowest(&self.order.parts, step.layers, self.begun)
        };
        let mut archive = Box::new(ArchiveSink::new(writer, self.order.place.clone(), options));
        let planned = archive.plan(&parts).await;
        self.current = Some(Current { call, output: Output::Archive(archive), end: step.sent.end });
        match planned {
            Ok(needs) => {
                debug_assert_eq!(needs, self.needs[step.sent], "the steps have what the image needs");
                Ok(())
            }
            Err(error @ ImageError::Io { .. }) => Err(self.or_engines_words(error).await),
            Err(error) => Err(error),
        }
    }

    /// Ends the data of the current step, once the engine has the layers below.
    async fn close_step(&mut self) -> Result<(), ImageError> {
        self.settle_step().await?;
        let Some(Current { call, output, .. }) = self.current.take() else { return Ok(()) };
        let passing = match output {
            Output::Archive(archive) => match archive.finish().await {
                Ok(_) => None,
                Err(error @ ImageError::Io { .. }) => return Err(words(call, error).await),
                Err(error) => return Err(error),
            },
            Output::Passing(passing) => Some(passing),
            Output::Layer(_) => None,
        };
        self.before = Some(Before { call, passing });
        Ok(())
    }

    /// Waits until the layer that passes by itself has passed.
    async fn passed(&mut self) -> Result<(), ImageError> {
        let Some(Before { passing: Some(passing), .. }) = &mut self.before else { return Ok(()) };
        let ended = passing.await.unwrap_or_else(|stopped| Err(gone(stopped)));
        let Some(before) = &mut self.before else { return ended };
        before.passing = None;
        match ended {
            Err(error @ ImageError::Io { .. }) => match self.before.take() {
                Some(before) => Err(words(before.call, error).await),
                None => Err(error),
            },
            ended => ended,
        }
    }

    /// Waits for the step before, and notes what it has made.
    async fn settle_step(&mut self) -> Result<(), ImageError> {
        let below = self.settled().await?;
        self.made.extend(below.ids);
        Ok(())
    }

    /// What came of the call before.
    async fn settled(&mut self) -> Result<Loaded, ImageError> {
        self.passed().await?;
        // It stays where it is until it has ended: who gives up waiting still has to tidy up after it.
        let Some(before) = &mut self.before else { return Ok(Loaded::default()) };
        let ended = (&mut before.call).await;
        self.before = None;
        Ok(ended.map_err(gone)??)
    }

    /// What the engine had to say when the pipe to it broke; else `error`.
    async fn or_engines_words(&mut self, error: ImageError) -> ImageError {
        match self.current.take() {
            Some(Current { call, output, .. }) => {
                drop(output);
                words(call, error).await
            }
            None => error,
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if !self.is_stepwise || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // What is being sent is given up, and leaves nothing. What has been sent may be at work in the engine.
        let before = self.before.take().map(|before| before.call);
        let passing = match self.current.take() {
            Some(Current { call, output: Output::Passing(_), .. }) => Some(call),
            _ => None,
        };
        let engine = Arc::clone(&self.order.engine);
        let begun = self.begun;
        self.order.tidying.spawn(tokio::time::timeout(TIDYING, async move {
            remove_steps(engine.as_ref(), begun).await;
            for call in before.into_iter().chain(passing) {
                let _ = call.await;
                remove_steps(engine.as_ref(), begun).await;
            }
        }));
    }
}

/// Takes away what the steps of the load have made that began then, also what they were not heard of. The image itself is none of them.
async fn remove_steps(engine: &dyn Engine, begun: DateTime<Utc>) {
    match engine.images().await {
        Ok(images) => {
            let steps = images.iter().filter(|image| steps::is_step_of(image, begun));
            let ids: Vec<String> = steps.map(|image| image.id.to_string()).collect();
            remove_all(engine, &ids).await;
        }
        Err(error) => tracing::debug!(%error, "what the steps of a load made may stay in the engine"),
    }
}

/// Takes images away. Those that are gone, or that somebody uses, are none of our business.
pub(super) async fn remove_all(engine: &dyn Engine, ids: &[String]) {
    let removals = ids.iter().map(|id| async move {
        if let Err(error) = engine.remove(id).await {
            tracing::debug!(%error, id, "what a step of a load made stays in the engine");
        }
    });
    futures::future::join_all(removals).await;
}

async fn words(call: Call, error: ImageError) -> ImageError {
    match tokio::time::timeout(LAST_WORDS, call).await {
        Ok(Ok(Err(
            engine @ (EngineError::Refused { .. } | EngineError::Broken { .. } | EngineError::Absent { .. }),
        ))) => engine.into(),
        _ => error,
    }
}

/// A task that panicked or was stopped.
fn gone(stopped: tokio::task::JoinError) -> ImageError {
    EngineError::Broken { doing: "load an image", source: stopped.into() }.into()
}

/// Passes a layer on as it is, to its end.
async fn pass(mut writer: Writer, size: u64, mut data: ByteStream, place: Place) -> Result<(), ImageError> {
    let mut held = BytesMut::with_capacity(PIECE + HELD_BACK);
    let mut passed: u64 = 0;
    loop {
        held.reserve(PIECE);
        let read = data.read_buf(&mut held).await.map_err(|error| place.reading(error))?;
        if read == 0 {
            break;
        }
        passed += read as u64;
        if held.len() >= PIECE + HELD_BACK {
            let piece = held.split_to(held.len() - HELD_BACK);
            writer.write_all(&piece).await.map_err(|error| place.io("writing", error))?;
        }
    }
    if passed != size {
        return Err(place.malformed(format!("a layer has {passed} bytes instead of {size}")));
    }
    let ended = async {
        writer.write_all(&held).await?;
        writer.shutdown().await
    };
    ended.await.map_err(|error| place.io("writing", error))
}

/// How a layer is sent.
fn sent(need: &Need, part: &ImagePart, order: &Order) -> Option<Sent> {
    let digest = need.blob.digest;
    let at = part.layers.iter().position(|layer| layer.digest == digest)?;
    let same = |other: &usize| part.layers[*other].digest == digest || part.diff_ids[*other] == part.diff_ids[at];
    // One whose size is not known is taken to be twice as large decompressed.
    let plain = || need.blob.size.saturating_mul(2);
    let bytes = order.parts.plain_sizes.get(&digest).copied().unwrap_or_else(plain);
    Some(Sent { at, last: (at..part.layers.len()).rfind(same)?, bytes })
}

/// The lowest layers of an image, as an image.
fn lowest(parts: &ImageParts, layers: usize, begun: DateTime<Utc>) -> ImageParts {
    let part = &parts.images[0];
    let platform = parse_config(part.config.1.clone()).map_or_else(|_| Platform::host(), |config| config.platform);
    let config = steps::config(&platform, &part.diff_ids[..layers], begun);
    let size = config.len() as u64;
    let descriptor = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(&config), size);
    let image = ImagePart {
        config: (descriptor.clone(), config),
        layers: part.layers[..layers].to_vec(),
        diff_ids: part.diff_ids[..layers].to_vec(),
        ..part.clone()
    };
    ImageParts { root: descriptor, name: None, manifests: Vec::new(), images: vec![image], ..parts.clone() }
}
