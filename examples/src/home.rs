//! Opening homes: [`open()`] and [`publisher`] reach this machine only, [`at_large`] the public network.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipcr_core::control::open::{self, OpenHome};
use ipcr_core::engine::discovery::Discovery;
use ipcr_core::naming::dns::DnsServer;
use ipcr_core::node::{NetworkMode, NodeConfig};
use ipcr_core::registry::Registry;
use ipcr_core::registry::local::{HomeConfig, LocalHolder};
use ipcr_core::registry::options::InitOptions;
use ipcr_core::registry::outcome::Identity;
use ipcr_core::registry::places::Surroundings;
use libp2p_identity::Keypair;

use crate::Failure;
use crate::zone::Zone;

/// Opens the home at `path`, which is made if need be, with the system's DNS and the public network.
pub async fn at_large(path: &Path) -> Result<OpenHome, Failure> {
    let node = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Public);
    start(HomeConfig::new(path, node)).await
}

/// Opens the home at `path`, which is made if need be. It talks to `zone` and to peers on loopback only.
pub async fn open(path: &Path, zone: &Zone) -> Result<Registry, Failure> {
    Ok(opened(path, zone).await?.registry)
}

/// A home with a registry for `domain`, serving, and its DNS records in `zone`.
pub async fn publisher(path: &Path, domain: &str, zone: &Zone) -> Result<(Registry, Identity), Failure> {
    let home = opened(path, zone).await?;
    let holder: Arc<LocalHolder> = home.holder.ok_or("another process holds the home")?;
    let mut options = InitOptions::default();
    options.domain = Some(domain.to_owned());
    holder.init(options).await?;
    // From now on others can fetch from this process; the records need the addresses that the node got.
    holder.set_serving();
    home.registry.holder().start_node().await?;
    let identity = home.registry.identity().await?;
    zone.set(&identity.txt);
    Ok((home.registry, identity))
}

async fn opened(path: &Path, zone: &Zone) -> Result<OpenHome, Failure> {
    // The key here is a placeholder: the home keeps its own.
    let mut node = NodeConfig::new(Keypair::generate_ed25519(), NetworkMode::Loopback);
    node.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?, "/ip4/127.0.0.1/udp/0/quic-v1".parse()?];
    let mut config = HomeConfig::new(path, node);
    config.dns.servers = vec![DnsServer::Plain(zone.address())];
    config.dns.mode = NetworkMode::Loopback;
    config.stall = Duration::from_secs(20);
    start(config).await
}

async fn start(config: HomeConfig) -> Result<OpenHome, Failure> {
    let mut surroundings = Surroundings::default();
    surroundings.engines = engines();
    Ok(open::open(config, surroundings, "example", Duration::from_secs(5)).await?)
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
