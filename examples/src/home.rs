//! Opening homes: [`open()`] and [`publisher`] reach this machine only, [`at_large`] the public network.

use std::path::Path;
use std::time::Duration;

use ipcr_core::control::builder::Builder;
use ipcr_core::control::open::OpenHome;
use ipcr_core::engine::discovery::Discovery;
use ipcr_core::naming::dns::DnsServer;
use ipcr_core::node::NetworkMode;
use ipcr_core::registry::Registry;
use ipcr_core::registry::options::InitOptions;
use ipcr_core::registry::outcome::Identity;

use crate::Failure;
use crate::zone::Zone;

/// Opens the home at `path`, which is made if need be, with the system's DNS and the public network.
pub async fn at_large(path: &Path) -> Result<OpenHome, Failure> {
    start(Builder::new(path, NetworkMode::Public)).await
}

/// Opens the home at `path`, which is made if need be. It talks to `zone` and to peers on loopback only.
pub async fn open(path: &Path, zone: &Zone) -> Result<Registry, Failure> {
    Ok(on_loopback(path, zone).await?.registry)
}

/// A home with a registry for `domain`, serving, and its DNS records in `zone`.
pub async fn publisher(path: &Path, domain: &str, zone: &Zone) -> Result<(Registry, Identity), Failure> {
    let home = on_loopback(path, zone).await?;
    let mut options = InitOptions::default();
    options.domain = Some(domain.to_owned());
    home.init(options).await?;
    // The records need the addresses that the node gets.
    home.serve().await?;
    let identity = home.registry.identity().await?;
    zone.set(&identity.txt);
    Ok((home.registry, identity))
}

async fn on_loopback(path: &Path, zone: &Zone) -> Result<OpenHome, Failure> {
    let builder = Builder::new(path, NetworkMode::Loopback)
        .listen(["/ip4/127.0.0.1/tcp/0".parse()?, "/ip4/127.0.0.1/udp/0/quic-v1".parse()?])
        .dns([DnsServer::Plain(zone.address())])
        .stall(Duration::from_secs(20));
    start(builder).await
}

async fn start(builder: Builder) -> Result<OpenHome, Failure> {
    Ok(builder.command("an example of ipcr").engines(engines()).open().await?)
}

/// Where container engines may be: what the environment says. The library itself does not read it.
pub fn engines() -> Discovery {
    let variable = |name| std::env::var(name).ok();
    let mut engines = Discovery::default();
    engines.docker_host = variable("DOCKER_HOST");
    engines.docker_tls = variable("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
    engines.docker_context = variable("DOCKER_CONTEXT");
    engines.docker_config = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")? + "/.docker")).map(Into::into);
    engines.container_host = variable("CONTAINER_HOST");
    engines.runtime_dir = variable("XDG_RUNTIME_DIR").map(Into::into);
    engines
}
