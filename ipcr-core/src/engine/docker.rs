//! [`DockerEngine`]: an engine behind a Docker API socket. The only file that names `bollard`.
//!
//! * **Versions.** The client library sends requests without a version. [`DockerEngine::connect`] asks the engine for its own
//!   (20.10 speaks 1.41, 29 refuses everything below 1.44) and from then on every request names the older of that one and the
//!   library's.
//! * **Time.** Short calls end after [`limits::STALL`]. An export or a load takes as long as it takes: `docker save` is
//!   silent for minutes. Dropping the future or stream closes the connection, and with it the work in the engine.
//! * **Failures.** Answers with status 200 may end in an error line, in an export even behind bytes of the archive: both are
//!   [`EngineError::Refused`]. When the engine dies, [`EngineError::Broken`]; inside an export's stream either travels as
//!   [`EngineError::into_io`]. When the archive itself fails while it is being loaded, its own error is returned, and the
//!   engine, which sees an unfinished request, discards what it has got.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::errors::Error as ClientError;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptions, ImportImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;
use tokio_util::io::{ReaderStream, StreamReader};

use super::answer;
use super::in_place::{self, InPlace};
use crate::digest::Digest;
use crate::image::platform::Platform;
use crate::limits;
use crate::port::engine::{Engine, EngineError, EngineImage, EngineInfo, EngineStore, Loaded};
use crate::port::image::{ByteStream, Export};

/// Bytes of an archive that travel to an engine in one piece.
const PIECE: usize = 256 << 10;
/// Images that are looked at at once.
const INSPECTIONS: usize = 4;
/// More seconds than a program runs: the library has no way to say "never".
const NO_TIMEOUT: u64 = u64::MAX / 4;

/// Docker, or anything that speaks its API, at one address.
#[derive(Clone, Debug)]
pub struct DockerEngine {
    client: Docker,
    endpoint: String,
    api: String,
    store: EngineStore,
}

impl DockerEngine {
    /// Connects to `unix:///path/to.sock`, or without encryption to `tcp://host:port`, and settles the API version.
    pub async fn connect(endpoint: &str) -> Result<Self, EngineError> {
        let client = match endpoint.strip_prefix("unix://") {
            Some(path) => Docker::connect_with_unix(path, NO_TIMEOUT, API_DEFAULT_VERSION),
            None => Docker::connect_with_http(endpoint, NO_TIMEOUT, API_DEFAULT_VERSION),
        };
        let client = client.map_err(|error| failed("connect", endpoint, error))?;
        let mut engine = Self { client, endpoint: endpoint.into(), api: String::new(), store: EngineStore::Classic };
        let info = engine.info().await?;
        let api = info.api.clone();
        engine.client = engine.client.with_request_modifier(move |mut request| {
            if let Some(versioned) = versioned(&request.uri().to_string(), &api).and_then(|uri| uri.parse().ok()) {
                *request.uri_mut() = versioned;
            }
            request
        });
        engine.api = info.api;
        engine.store = info.store;
        Ok(engine)
    }

    /// How the engine kept images when the connection was made.
    pub fn store(&self) -> EngineStore {
        self.store
    }

    /// Whether it runs on this machine, as far as its address tells.
    fn is_local(&self) -> bool {
        self.endpoint.starts_with("unix://")
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(limits::STALL, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failed(doing, &self.endpoint, error)),
            Err(elapsed) => Err(EngineError::Broken { doing, source: elapsed.into() }),
        }
    }

    /// Listens to an answer of many lines until its end or its first error.
    async fn hear<T>(
        &self,
        doing: &'static str,
        lines: impl Stream<Item = Result<T, ClientError>>,
        mut line: impl FnMut(T),
    ) -> Result<(), EngineError> {
        let mut lines = std::pin::pin!(lines);
        while let Some(next) = lines.next().await {
            line(next.map_err(|error| failed(doing, &self.endpoint, error))?);
        }
        Ok(())
    }

    /// The name as this engine would write it itself.
    fn own_name(&self, name: &str) -> String {
        match self.store {
            EngineStore::Podman => answer::podman_name(name),
            _ => name.into(),
        }
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        const DOING: &str = "tell its version";
        let version = self.call(DOING, self.client.version()).await?;
        let components = version.components.unwrap_or_default();
        let store = if components.iter().any(|component| answer::is_podman(&component.name)) {
            EngineStore::Podman
        } else {
            let info = self.call(DOING, self.client.info()).await?;
            let status = info.driver_status.unwrap_or_default();
            let pairs = status.iter().filter_map(|line| Some((line.first()?.as_str(), line.get(1)?.as_str())));
            answer::docker_store(pairs)
        };
        let newest = API_DEFAULT_VERSION.to_string();
        let unclear = || EngineError::Refused { doing: DOING, message: "it names no API version".into() };
        let offered = version.api_version.ok_or_else(unclear)?;
        let api = answer::older(&offered, &newest).ok_or_else(unclear)?.to_owned();
        let version_text = version.version.unwrap_or_default();
        Ok(EngineInfo {
            local: self.is_local(),
            name: if store == EngineStore::Podman { "Podman".into() } else { "Docker".into() },
            api,
            store,
            platform: Platform {
                os: version.os.unwrap_or_else(|| "linux".into()),
                architecture: version.arch.unwrap_or_else(|| Platform::host().architecture),
                variant: None,
            },
            reads_zstd: answer::reads_zstd(store, &version_text),
            version: version_text,
            endpoint: self.endpoint.clone(),
        })
    }

    async fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        const DOING: &str = "describe an image";
        refuse_bad_name(name)?;
        let found = match tokio::time::timeout(limits::STALL, self.client.inspect_image(name)).await {
            Err(elapsed) => return Err(EngineError::Broken { doing: DOING, source: elapsed.into() }),
            Ok(Err(ClientError::DockerResponseServerError { status_code: 404, .. })) => return Ok(None),
            Ok(Err(error)) => return Err(failed(DOING, &self.endpoint, error)),
            Ok(Ok(found)) => found,
        };
        described(found).map(Some)
    }

    async fn images(&self) -> Result<Vec<EngineImage>, EngineError> {
        let all = ListImagesOptions { all: true, ..ListImagesOptions::default() };
        let images = self.call("list its images", self.client.list_images(Some(all))).await?;
        let ids = images.into_iter().map(|image| async move { self.image(&image.id).await });
        let described = stream::iter(ids).buffer_unordered(INSPECTIONS);
        described.try_filter_map(|image| std::future::ready(Ok(image))).try_collect().await
    }

    async fn export(&self, name: &str) -> Result<ByteStream, EngineError> {
        const DOING: &str = "export an image";
        refuse_bad_name(name)?;
        let endpoint = self.endpoint.clone();
        let chunks = self.client.export_image(name).map(move |chunk| match chunk {
            Ok(chunk) => match answer::export_error(&chunk) {
                Some(message) => Err(EngineError::Refused { doing: DOING, message }),
                None => Ok(chunk),
            },
            Err(error) => Err(failed(DOING, &endpoint, error)),
        });
        let mut chunks = Box::pin(chunks);
        // The engine answers with its first byte, so that an image that is not there is known now.
        let first = match chunks.next().await {
            Some(Ok(first)) => first,
            Some(Err(EngineError::NoImage { .. })) => return Err(EngineError::NoImage { name: name.into() }),
            // Docker 20.10 answers 500 for an ID that it does not know.
            Some(Err(error @ EngineError::Refused { .. })) => {
                return Err(match self.image(name).await? {
                    None => EngineError::NoImage { name: name.into() },
                    Some(_) => error,
                });
            }
            Some(Err(error)) => return Err(error),
            None => return Err(EngineError::Refused { doing: DOING, message: "it sent nothing".into() }),
        };
        let chunks = stream::iter([Ok(first)]).chain(chunks).map_err(EngineError::into_io);
        Ok(Box::pin(StreamReader::new(chunks)))
    }

    async fn in_place(&self, image: &EngineImage) -> Option<Box<dyn Export>> {
        if self.store != EngineStore::Classic || !self.is_local() || !in_place::is_possible() {
            tracing::debug!(
                "the engine's folders are for root on the same machine, and those of another store are not known"
            );
            return None;
        }
        // The engine may be in a container or behind a tunnel, where its folders are others: what is there says what it is.
        let info = self.call("tell its folders", self.client.info()).await.ok()?;
        let (root, driver, image) = (PathBuf::from(info.docker_root_dir?), info.driver?, image.clone());
        match tokio::task::spawn_blocking(move || InPlace::open(&root, &driver, &image)).await.ok()? {
            Ok(found) => Some(Box::new(found)),
            Err(error) => {
                tracing::debug!(%error, "the engine's folders are not read");
                None
            }
        }
    }

    async fn load(&self, archive: ByteStream) -> Result<Loaded, EngineError> {
        const DOING: &str = "load an image";
        let (body, sending) = Sending::begin(archive);
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let lines = self.client.import_image(options, bollard::body_try_stream(body), None);
        let mut loaded = Loaded::default();
        let heard = self.hear(DOING, lines, |line| answer::loaded(line.stream.as_deref().unwrap_or(""), &mut loaded));
        sending.end(heard.await)?;
        if loaded.ids.is_empty() && loaded.names.is_empty() {
            return Err(EngineError::Refused { doing: DOING, message: "it names no image that it loaded".into() });
        }
        Ok(loaded)
    }

    async fn import(&self, layer: ByteStream, labels: &BTreeMap<String, String>) -> Result<String, EngineError> {
        const DOING: &str = "import a layer";
        let (body, sending) = Sending::begin(layer);
        let options = CreateImageOptions {
            from_src: Some("-".into()),
            changes: labels.iter().map(|(name, value)| format!("LABEL {name}={value}")).collect(),
            ..CreateImageOptions::default()
        };
        let lines = self.client.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        let mut id = None;
        let heard = self.hear(DOING, lines, |line| {
            id = line.status.filter(|status| status.starts_with("sha256:")).or_else(|| id.take());
        });
        sending.end(heard.await)?;
        id.ok_or_else(|| EngineError::Refused { doing: DOING, message: "it names no image that it made".into() })
    }

    async fn tag(&self, image_id: &str, name: &str) -> Result<(), EngineError> {
        refuse_bad_name(image_id)?;
        refuse_bad_name(name)?;
        let name = self.own_name(name);
        let (repository, tag) = answer::repository_and_tag(&name);
        let options = TagImageOptions { repo: Some(repository.into()), tag: Some(tag.into()) };
        let tagged = self.call("name an image", self.client.tag_image(image_id, Some(options))).await;
        tagged.map_err(|error| of_image(error, image_id))
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        refuse_bad_name(name)?;
        let options = RemoveImageOptions::default();
        let removed = self.call("remove an image", self.client.remove_image(name, Some(options), None)).await;
        removed.map(|_| ()).map_err(|error| of_image(error, name))
    }
}

/// A body that is being sent.
struct Sending {
    failure: Arc<Mutex<Option<std::io::Error>>>,
    /// Dropped with the future that sends: the body then ends with an error instead of going on by itself.
    _alive: oneshot::Sender<()>,
}

impl Sending {
    fn begin(data: ByteStream) -> (impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Self) {
        let failure = Arc::new(Mutex::new(None));
        let (alive, gone) = oneshot::channel();
        (body(data, gone, Arc::clone(&failure)), Self { failure, _alive: alive })
    }

    /// What came of it: what is wrong with the data itself goes before what the engine says of it.
    fn end(self, heard: Result<(), EngineError>) -> Result<(), EngineError> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(source) => Err(EngineError::Archive { source }),
            None => heard,
        }
    }
}

/// The archive as the body of a request. Its own failure is put aside, because the client library tells only that there was
/// one.
fn body(
    archive: impl AsyncRead + Send + 'static,
    gone: oneshot::Receiver<()>,
    failure: Arc<Mutex<Option<std::io::Error>>>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let pieces = ReaderStream::with_capacity(archive, PIECE).map_err(move |error| {
        let told = std::io::Error::from(error.kind());
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    });
    let given_up = stream::once(async move {
        let _ = gone.await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    // Ends with the archive, or with the error of whichever ends first.
    stream::select(pieces.map(Some).chain(stream::once(async { None })), given_up.map(Some))
        .take_while(|piece| std::future::ready(piece.is_some()))
        .filter_map(std::future::ready)
}

/// The same address with the API version in its path; `None` when it has one.
fn versioned(uri: &str, api: &str) -> Option<String> {
    let scheme = uri.find("://")? + 3;
    let path = scheme + uri[scheme..].find('/')?;
    (!uri[path..].starts_with("/v1.")).then(|| format!("{}/v{api}{}", &uri[..path], &uri[path..]))
}

fn described(image: ImageInspect) -> Result<EngineImage, EngineError> {
    let unclear = |message: String| EngineError::Refused { doing: "describe an image", message };
    let digest = |text: &str| text.parse::<Digest>().map_err(|error| unclear(error.to_string()));
    let id = image.id.unwrap_or_default();
    let id = digest(if id.contains(':') { id } else { format!("sha256:{id}") }.as_str())?;
    let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
    let named = |names: Option<Vec<String>>| {
        names.unwrap_or_default().into_iter().filter(|name| !name.starts_with("<none>")).collect()
    };
    Ok(EngineImage {
        id,
        names: named(image.repo_tags),
        repo_digests: named(image.repo_digests),
        diff_ids: layers.iter().map(|layer| digest(layer)).collect::<Result<_, _>>()?,
        platform: Platform {
            os: image.os.filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".into()),
            architecture: image.architecture.unwrap_or_default(),
            variant: image.variant.filter(|variant| !variant.is_empty()),
        },
        size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        labels: image.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
    })
}

/// Names become part of a path, so that only what can be a name goes further.
fn refuse_bad_name(name: &str) -> Result<(), EngineError> {
    let character = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let component = |component: &str| !component.is_empty() && !component.starts_with('.');
    if name.bytes().all(character) && name.split('/').all(component) {
        Ok(())
    } else {
        Err(EngineError::NoImage { name: name.chars().take(200).collect() })
    }
}

fn of_image(error: EngineError, name: &str) -> EngineError {
    match error {
        EngineError::NoImage { .. } => EngineError::NoImage { name: name.into() },
        other => other,
    }
}

fn failed(doing: &'static str, endpoint: &str, error: ClientError) -> EngineError {
    match error {
        ClientError::DockerResponseServerError { status_code: 404, message } if doing != "connect" => {
            EngineError::NoImage { name: message }
        }
        ClientError::DockerResponseServerError { message, .. } | ClientError::DockerStreamError { error: message } => {
            EngineError::Refused { doing, message: message.trim().to_owned() }
        }
        ClientError::SocketNotFoundError(_) => {
            EngineError::Absent { tried: vec![endpoint.into()], source: Some(error.into()) }
        }
        ClientError::HyperLegacyError { err } if err.is_connect() => {
            EngineError::Absent { tried: vec![endpoint.into()], source: Some(err.into()) }
        }
        other => EngineError::Broken { doing, source: other.into() },
    }
}

#[cfg(test)]
mod tests;
