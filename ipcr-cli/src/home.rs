//! From settings and environment to what the library is opened with.

use std::path::Path;

use ipcr_core::control::builder::Builder;
use ipcr_core::engine::discovery::Discovery;
use ipcr_core::media::registry::credentials::Credentials;
use ipcr_core::naming::dns::DnsServer;
use ipcr_core::net::addresses::{self, NetworkMode, SwarmKey};
use multiaddr::Multiaddr;

use crate::environment::Environment;
use crate::failure::Failure;
use crate::settings::Settings;

/// How the home is opened. With `remote`, docker's credentials are read for OCI registries.
pub(crate) fn builder(settings: &Settings, environment: &Environment, remote: bool) -> Result<Builder, Failure> {
    let dns = settings.dns.iter().map(|server| dns_server(server)).collect::<Result<Vec<_>, _>>()?;
    let anchors = settings.dns_anchor.iter().map(|file| read(file, "trust anchors")).collect::<Result<Vec<_>, _>>()?;
    let mut builder = Builder::new(&settings.home, mode(&settings.network)?)
        .listen(multiaddrs("--listen", &settings.listen)?)
        .peers(peers("--peer", &settings.peer)?)
        .dns(dns)
        .dns_anchors(anchors)
        .routers(urls("--router", &settings.router)?)
        .gateways(urls("--gateway", &settings.gateway)?)
        .offline(settings.offline)
        .allow_stale(settings.allow_stale)
        .stall(settings.timeout)
        .lock_wait(settings.lock_wait)
        .engines(engines(environment));
    if !settings.bootstrap.is_empty() {
        builder = builder.bootstrap(peers("--bootstrap", &settings.bootstrap)?);
    }
    if let (true, Some(folder)) = (remote, &environment.docker_config) {
        builder = builder.credentials(credentials(&folder.join("config.json"))?);
    }
    Ok(builder)
}

/// Where container engines may be.
fn engines(environment: &Environment) -> Discovery {
    let mut engines = Discovery::default();
    engines.docker_host.clone_from(&environment.docker_host);
    engines.docker_tls = environment.docker_tls;
    engines.docker_context.clone_from(&environment.docker_context);
    engines.docker_config.clone_from(&environment.docker_config);
    engines.container_host.clone_from(&environment.container_host);
    engines.runtime_dir.clone_from(&environment.runtime_dir);
    engines.uid = rustix::process::getuid().as_raw();
    engines
}

fn credentials(file: &Path) -> Result<Credentials, Failure> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Credentials::default()),
        Err(error) => return Err(Failure::io(format!("reading {} failed", file.display()), &error)),
    };
    Credentials::parse(&bytes).map_err(|error| {
        Failure::new(error.kind(), format!("reading the credentials in {} failed", file.display())).caused_by(&error)
    })
}

/// Addresses as `--announce` takes them.
pub(crate) fn multiaddrs(option: &str, texts: &[String]) -> Result<Vec<Multiaddr>, Failure> {
    texts.iter().map(|text| multiaddr(option, text)).collect()
}

fn multiaddr(option: &str, text: &str) -> Result<Multiaddr, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(format!("`{text}` is not a multiaddr"))
            .caused_by(&error)
            .with_hint(format!("{option} takes addresses such as /ip4/203.0.113.7/tcp/4001"))
    })
}

fn peers(option: &str, texts: &[String]) -> Result<Vec<Multiaddr>, Failure> {
    let peer = |text: &String| {
        let address = multiaddr(option, text)?;
        match addresses::peer(&address) {
            Some(_) => Ok(address),
            None => Err(Failure::usage(format!("`{text}` does not say which peer is there"))
                .with_hint(format!("{option} takes addresses that end in /p2p/12D3Koo…; `ipcr id` prints them"))),
        }
    };
    texts.iter().map(peer).collect()
}

fn urls(option: &str, texts: &[String]) -> Result<Vec<String>, Failure> {
    let good = |text: &&String| text.starts_with("https://") || text.starts_with("http://");
    match texts.iter().find(|text| !good(text)) {
        Some(bad) => Err(Failure::usage(format!("{option} takes an http or https URL, not `{bad}`"))),
        None => Ok(texts.to_vec()),
    }
}

fn dns_server(text: &str) -> Result<DnsServer, Failure> {
    text.parse().map_err(|error: ipcr_core::naming::dns::ParseServerError| Failure::usage(error.to_string()))
}

fn mode(text: &str) -> Result<NetworkMode, Failure> {
    match text.split_once(':') {
        None if text == "public" => Ok(NetworkMode::Public),
        None if text == "lan" => Ok(NetworkMode::Lan),
        None if text == "loopback" => Ok(NetworkMode::Loopback),
        Some(("private", file)) => {
            let key = SwarmKey::parse(&read(Path::new(file), "the swarm key")?);
            key.map(NetworkMode::Private).map_err(|error| Failure::usage(format!("{file}: {error}")))
        }
        _ => Err(Failure::usage(format!("`{text}` is not a network"))
            .with_hint("--network takes public, lan, loopback or private:KEYFILE")),
    }
}

fn read(file: &Path, what: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("reading {what} from {} failed", file.display()), &error);
    std::fs::read_to_string(file).map_err(failed)
}
