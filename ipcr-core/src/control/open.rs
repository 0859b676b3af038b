//! Opening a home: [`open`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use multiaddr::Multiaddr;

use super::Control;
use crate::kind::ErrorKind;
use crate::naming::dns::{DnsHosts, Resolver};
use crate::net::{HttpClient, HttpPolicy};
use crate::registry::Registry;
use crate::registry::error::{RegistryError, Topic};
use crate::registry::holder::Holder as _;
use crate::registry::local::{HomeConfig, LocalHolder};
use crate::registry::options::InitOptions;
use crate::registry::outcome::Identity;
use crate::registry::places::Surroundings;
use crate::registry::remote::RemoteHolder;
use crate::store::home::{Home, HomeError};

/// How often a home that is held and not served is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a home may be held without being served before that counts as a holder that lets nobody work through it: one
/// that has just begun is still opening its store.
const BEGINNING: Duration = Duration::from_secs(3);

/// A home that is open.
#[must_use = "dropping it turns those away who work through it"]
#[derive(Debug)]
pub struct OpenHome {
    /// Where it is.
    pub path: PathBuf,
    /// Its registry.
    pub registry: Registry,
    /// The holder, if it is this process.
    pub holder: Option<Arc<LocalHolder>>,
    /// The holder, if it is another process.
    pub remote: Option<Arc<RemoteHolder>>,
    /// The socket, if this process holds the home and could serve it.
    pub control: Option<Control>,
    /// By the names of settings: what this process was to do otherwise than the one that holds the home does, and so cannot.
    pub overruled: Vec<String>,
}

impl OpenHome {
    /// Makes the keys and an empty registry; nothing that is there is overwritten. Only the home's holder can.
    pub async fn init(&self, options: InitOptions) -> Result<Identity, RegistryError> {
        self.held()?.init(options).await
    }

    /// Starts the node and says that this process goes on serving, so that others can fetch what it publishes. Returns where
    /// it is reached. Only the home's holder can.
    pub async fn serve(&self) -> Result<Vec<Multiaddr>, RegistryError> {
        let holder = self.held()?;
        holder.set_serving();
        holder.start_node().await
    }

    /// The holder, which this process has to be.
    fn held(&self) -> Result<&Arc<LocalHolder>, RegistryError> {
        self.holder.as_ref().ok_or_else(|| locked(&self.path))
    }

    /// Ends gracefully: first those finish who work through this process, those included who come meanwhile; then the node stops.
    pub async fn close(self) -> Result<(), RegistryError> {
        if let Some(control) = self.control {
            control.drain().await;
        }
        self.registry.shutdown().await
    }

    /// Ends as soon as those are done who work through this process now; then the node stops.
    pub async fn stop(self) -> Result<(), RegistryError> {
        if let Some(control) = self.control {
            control.stop().await;
        }
        self.registry.shutdown().await
    }
}

/// What a home is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Anything.
    #[default]
    Work,
    /// To look at what is in it: one that cannot be written to will do.
    Look,
}

/// Opens a home: holds it and serves its socket, or works through the process that does.
///
/// `command` is what others are told about who holds it. Waits up to `wait` for a holder that lets nobody work through it.
pub async fn open(
    config: HomeConfig,
    surroundings: Surroundings,
    command: &str,
    wait: Duration,
    purpose: Purpose,
) -> Result<OpenHome, RegistryError> {
    let until = Instant::now() + wait.min(crate::limits::LONGEST_WAIT).max(BEGINNING);
    loop {
        match try_lock(&config, command).await {
            Ok(Some(home)) => return held(home, config, surroundings).await,
            Ok(None) => {}
            Err(error) if purpose == Purpose::Look && error.kind() == ErrorKind::Access => {
                match try_read(&config).await {
                    Ok(Some(home)) => return looked_at(home, config, surroundings).await,
                    Ok(None) => {}
                    // Why it cannot be written to matters more.
                    Err(_) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        let left = until.saturating_duration_since(Instant::now());
        let reason = match tokio::time::timeout(left, RemoteHolder::connect(&config.path)).await {
            Ok(Ok(Some(remote))) => {
                let surroundings = equip(surroundings, &config).await?;
                let remote = Arc::new(remote);
                let registry = Registry::new(Arc::clone(&remote) as _, surroundings);
                let overruled = overruled(&config, remote.as_ref());
                let (path, remote) = (config.path, Some(remote));
                return Ok(OpenHome { path, registry, holder: None, remote, control: None, overruled });
            }
            // It may be gone, or let us in, at the next attempt.
            Ok(Err(error)) => Some(error),
            Ok(Ok(None)) | Err(_) => None,
        };
        if Instant::now() >= until {
            return Err(reason.map_or_else(|| locked(&config.path), not_attached));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the holder does otherwise than this configuration says.
fn overruled(config: &HomeConfig, holder: &RemoteHolder) -> Vec<String> {
    let theirs = holder.settings();
    let ours = config.settings().into_iter();
    ours.filter(|(name, value)| theirs.get(name) != Some(value)).map(|(name, _)| name).collect()
}

/// The process that holds the home does not let us work through it.
fn not_attached(source: std::io::Error) -> RegistryError {
    let doing = "working through the process that holds the home";
    RegistryError::Step { doing, kind: ErrorKind::Locked, topic: Topic::Locked, source: Box::new(source) }
}

/// Opens a home as its holder, and serves its socket. Waits up to `wait` for another holder to let go.
pub async fn hold(
    config: HomeConfig,
    surroundings: Surroundings,
    command: &str,
    wait: Duration,
) -> Result<OpenHome, RegistryError> {
    let begun = Instant::now();
    loop {
        if let Some(home) = try_lock(&config, command).await? {
            return held(home, config, surroundings).await;
        }
        if begun.elapsed() >= wait {
            return Err(locked(&config.path));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_lock(config: &HomeConfig, command: &str) -> Result<Option<Home>, RegistryError> {
    let (path, command) = (config.path.clone(), command.to_owned());
    let locked = tokio::task::spawn_blocking(move || Home::try_lock(&path, &command)).await;
    locked.map_err(|error| step("opening the home", error))?.map_err(not_opened)
}

async fn try_read(config: &HomeConfig) -> Result<Option<Home>, RegistryError> {
    let path = config.path.clone();
    let opened = tokio::task::spawn_blocking(move || Home::try_read(&path)).await;
    opened.map_err(|error| step("opening the home", error))?.map_err(not_opened)
}

/// A home that cannot be written to. Others look at it themselves: it has no socket.
async fn looked_at(home: Home, config: HomeConfig, surroundings: Surroundings) -> Result<OpenHome, RegistryError> {
    let surroundings = equip(surroundings, &config).await?;
    let path = config.path.clone();
    let holder = LocalHolder::open(home, config).await?;
    let registry = Registry::new(Arc::clone(&holder) as _, surroundings);
    Ok(OpenHome { path, registry, holder: Some(holder), remote: None, control: None, overruled: Vec::new() })
}

async fn held(home: Home, config: HomeConfig, surroundings: Surroundings) -> Result<OpenHome, RegistryError> {
    let surroundings = equip(surroundings, &config).await?;
    let path = config.path.clone();
    let holder = LocalHolder::open(home, config).await?;
    // A file system without sockets costs others the wait for the lock, and this command nothing.
    let control = Control::serve(&path, Arc::clone(&holder) as _);
    let control = control.inspect_err(|error| tracing::warn!(%error, "others cannot work on this home meanwhile")).ok();
    let registry = Registry::new(Arc::clone(&holder) as _, surroundings);
    Ok(OpenHome { path, registry, holder: Some(holder), remote: None, control, overruled: Vec::new() })
}

async fn equip(mut surroundings: Surroundings, config: &HomeConfig) -> Result<Surroundings, RegistryError> {
    if surroundings.http.is_none() && !config.node.offline {
        // What needs no registry must not fail for want of a resolver; what does says so.
        surroundings.http = http(config).await.inspect_err(|error| tracing::warn!(%error, "no HTTP client")).ok();
    }
    surroundings.stall = config.stall;
    Ok(surroundings)
}

fn locked(path: &Path) -> RegistryError {
    let holder = Home::holder(path).ok().flatten().unwrap_or_default();
    not_opened(HomeError::Locked { place: path.display().to_string(), holder })
}

/// The HTTP client of sources and sinks, within the reach of the network mode.
async fn http(config: &HomeConfig) -> Result<HttpClient, RegistryError> {
    let dns = Resolver::new(config.dns.clone()).await.map_err(|error| RegistryError::Step {
        doing: "setting up DNS",
        kind: error.kind(),
        topic: Topic::DnsDown,
        source: Box::new(error),
    })?;
    let hosts = Arc::new(DnsHosts(Arc::new(dns)));
    let mut policy = HttpPolicy::new((&config.node.mode).into());
    policy.stall = config.stall;
    HttpClient::new(policy, hosts).map_err(|error| RegistryError::Step {
        doing: "setting up HTTP",
        kind: error.kind(),
        topic: Topic::Other,
        source: Box::new(error),
    })
}

fn not_opened(error: HomeError) -> RegistryError {
    let topic = match &error {
        HomeError::Locked { .. } => Topic::Locked,
        HomeError::NoFolder { .. } | HomeError::NoHome { .. } => Topic::BadHome,
        error if error.kind() == ErrorKind::Access => Topic::ClosedHome,
        _ => Topic::Other,
    };
    RegistryError::Step { doing: "opening the home", kind: error.kind(), topic, source: Box::new(error) }
}

fn step(doing: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Step { doing, kind: ErrorKind::Failed, topic: Topic::Other, source: Box::new(source) }
}
