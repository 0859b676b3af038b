//! Opening a home: [`open`].

use std::sync::Arc;
use std::time::Duration;

use crate::naming::dns::{DnsHosts, Resolver};
use crate::net::{HttpClient, HttpPolicy};
use crate::registry::Registry;
use crate::registry::error::{RegistryError, Topic};
use crate::registry::local::{HomeConfig, LocalHolder};
use crate::registry::places::Surroundings;
use crate::store::home::{Home, HomeError};

/// A home that is open.
#[derive(Debug)]
pub struct OpenHome {
    /// Its registry.
    pub registry: Registry,
    /// The holder, if it is this process.
    pub holder: Option<Arc<LocalHolder>>,
}

/// Opens a home: holds it, or works through the process that does.
///
/// `command` is what others are told about who holds it. Waits up to `wait` for a holder that lets nobody work through it.
pub async fn open(
    config: HomeConfig,
    mut surroundings: Surroundings,
    command: &str,
    wait: Duration,
) -> Result<OpenHome, RegistryError> {
    if surroundings.http.is_none() {
        surroundings.http = Some(http(&config).await?);
    }
    surroundings.stall = config.stall;
    let (path, command) = (config.path.clone(), command.to_owned());
    let locked = tokio::task::spawn_blocking(move || Home::open_as(&path, wait, &command)).await;
    let home = locked.map_err(|error| step("opening the home", Topic::Other, error))?.map_err(not_opened)?;
    let holder = LocalHolder::open(home, config).await?;
    Ok(OpenHome { registry: Registry::new(Arc::clone(&holder) as _, surroundings), holder: Some(holder) })
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
    HttpClient::new(HttpPolicy::new((&config.node.mode).into()), hosts).map_err(|error| RegistryError::Step {
        doing: "setting up HTTP",
        kind: error.kind(),
        topic: Topic::Other,
        source: Box::new(error),
    })
}

fn not_opened(error: HomeError) -> RegistryError {
    let topic = match &error {
        HomeError::Locked { .. } => Topic::Locked,
        _ => Topic::Other,
    };
    RegistryError::Step { doing: "opening the home", kind: error.kind(), topic, source: Box::new(error) }
}

fn step(doing: &'static str, topic: Topic, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Step { doing, kind: crate::kind::ErrorKind::Failed, topic, source: Box::new(source) }
}
