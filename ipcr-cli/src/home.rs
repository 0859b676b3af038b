//! From settings and environment to what the library is opened with.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use ipcr_core::control::builder::Builder;
use ipcr_core::engine::discovery::Discovery;
use ipcr_core::limits;
use ipcr_core::media::registry::credentials::Credentials;
use ipcr_core::naming::dns::DnsServer;
use ipcr_core::net::addresses::{self, NetworkMode, SwarmKey};
use ipcr_core::node::{OwnBlocks, Share};
use ipcr_core::registry::local::CacheSize;
use multiaddr::{Multiaddr, Protocol};

use crate::environment::Environment;
use crate::failure::Failure;
use crate::settings::Settings;

/// How the home is opened. With `remote`, docker's credentials are read for OCI registries.
pub(crate) fn builder(settings: &Settings, environment: &Environment, remote: bool) -> Result<Builder, Failure> {
    let place = |key| settings.place(key);
    let mut builder = Builder::new(&settings.home, mode(&place("network"), &settings.network)?)
        .listen(multiaddrs(&place("listen"), &settings.listen)?)
        .peers(peers(&place("peer"), &settings.peer)?)
        .dns(dns_servers(&place("dns"), &settings.dns)?)
        .dns_anchors(anchors(&settings.dns_anchor)?)
        .routers(urls(&place("router"), &settings.router)?)
        .gateways(urls(&place("gateway"), &settings.gateway)?)
        .offline(settings.offline)
        .allow_stale(settings.allow_stale)
        .stall(settings.timeout)
        .cache(cache_limit(&place("cache-limit"), settings.cache_limit.as_deref())?)
        .rates(
            rate(&place("upload-limit"), settings.upload_limit.as_deref())?,
            rate(&place("download-limit"), settings.download_limit.as_deref())?,
        )
        .share(share(&place("share"), &settings.share, settings.no_share)?)
        .lock_wait(settings.lock_wait)
        .engines(engines(environment));
    if !settings.bootstrap.is_empty() {
        builder = builder.bootstrap(peers(&place("bootstrap"), &settings.bootstrap)?);
    }
    if let (true, Some(folder)) = (remote, &environment.docker_config) {
        builder = builder.credentials(credentials(&folder.join("config.json"))?);
    }
    Ok(builder)
}

/// Checks settings without opening anything. Of the first that makes no sense: its key, and why.
pub(crate) fn check(settings: &Settings) -> Result<(), (&'static str, Failure)> {
    let place = |key| settings.place(key);
    let outcomes = [
        ("network", mode(&place("network"), &settings.network).map(drop)),
        ("listen", multiaddrs(&place("listen"), &settings.listen).map(drop)),
        ("peer", peers(&place("peer"), &settings.peer).map(drop)),
        ("bootstrap", peers(&place("bootstrap"), &settings.bootstrap).map(drop)),
        ("router", urls(&place("router"), &settings.router).map(drop)),
        ("gateway", urls(&place("gateway"), &settings.gateway).map(drop)),
        ("dns", dns_servers(&place("dns"), &settings.dns).map(drop)),
        ("dns-anchor", anchors(&settings.dns_anchor).map(drop)),
        ("cache-limit", cache_limit(&place("cache-limit"), settings.cache_limit.as_deref()).map(drop)),
        ("upload-limit", rate(&place("upload-limit"), settings.upload_limit.as_deref()).map(drop)),
        ("download-limit", rate(&place("download-limit"), settings.download_limit.as_deref()).map(drop)),
        ("share", share(&place("share"), &settings.share, false).map(drop)),
        ("http", http(&place("http"), &settings.http).map(drop)),
    ];
    outcomes.into_iter().try_for_each(|(key, outcome)| outcome.map_err(|failure| (key, failure)))
}

/// Where the service answers.
pub(crate) fn http(option: &str, text: &str) -> Result<SocketAddr, Failure> {
    let hint = format!("{option} takes an address and a port, such as 127.0.0.1:5050");
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(Failure::usage(format!("`{text}` is no loopback address"))
            .with_hint("the service is for this machine alone: use a loopback address")),
        Err(_) => Err(Failure::usage(format!("`{text}` is not an address and a port")).with_hint(hint)),
    }
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

/// Addresses that others are to be told: those that can be dialled, without the node's own name.
pub(crate) fn announced(option: &str, texts: &[String]) -> Result<Vec<Multiaddr>, Failure> {
    let addresses = multiaddrs(option, texts)?;
    for (text, address) in texts.iter().zip(&addresses) {
        let refuse = |why: &str| Failure::usage(format!("`{text}` {why}"));
        // A relay before it is a peer, too, and belongs there.
        if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            let hint = format!("leave out /p2p/… at the end in {option}: the node's own peer id is added");
            return Err(refuse("names a peer").with_hint(hint));
        }
        if let Some(problem) = undialable(address) {
            return Err(refuse(problem).with_hint(example(option)));
        }
    }
    Ok(addresses)
}

/// Why nobody can dial an address, if it shows.
fn undialable(address: &Multiaddr) -> Option<&'static str> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => return Some("is no address that others can dial"),
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => return Some("is no address that others can dial"),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => {}
        // Its ports are in DNS.
        Some(Protocol::Dnsaddr(_)) => return None,
        _ => return Some("does not begin with an IP address or a domain"),
    }
    let port = |part: Protocol<'_>| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0);
    (!address.iter().any(port)).then_some("has no TCP or UDP port")
}

fn example(option: &str) -> String {
    format!("{option} takes addresses such as /ip4/203.0.113.7/tcp/4001")
}

fn multiaddrs(option: &str, texts: &[String]) -> Result<Vec<Multiaddr>, Failure> {
    texts.iter().map(|text| multiaddr(option, text)).collect()
}

fn multiaddr(option: &str, text: &str) -> Result<Multiaddr, Failure> {
    let refused = || Failure::usage(format!("`{text}` is not a multiaddr")).with_hint(example(option));
    match text.parse::<Multiaddr>() {
        Ok(address) if address.is_empty() => Err(refused()),
        Ok(address) => Ok(address),
        Err(error) => Err(refused().caused_by(&error)),
    }
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
    let good = |text: &str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_alphanumeric() || first == '['))
    };
    match texts.iter().find(|text| !good(text)) {
        Some(bad) => Err(Failure::usage(format!("{option} takes an http or https URL, not `{bad}`"))),
        None => Ok(texts.to_vec()),
    }
}

fn dns_servers(option: &str, texts: &[String]) -> Result<Vec<DnsServer>, Failure> {
    let server = |text: &String| {
        let hint = || format!("{option} takes servers such as 9.9.9.9");
        text.parse::<DnsServer>().map_err(|error| Failure::usage(error.to_string()).with_hint(hint()))
    };
    texts.iter().map(server).collect()
}

/// Units of sizes.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
];

/// A number of bytes, with or without a unit.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(known, _)| *known == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn cache_limit(option: &str, text: Option<&str>) -> Result<CacheSize, Failure> {
    let Some(text) = text else { return Ok(CacheSize::Usual) };
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|percent| *percent <= 100);
    let found = percent.map(CacheSize::Percent).or_else(|| size(text).map(CacheSize::Bytes));
    found.ok_or_else(|| {
        Failure::usage(format!("`{text}` is no size")).with_hint(format!("{option} takes sizes such as 20GiB or 10%"))
    })
}

fn rate(option: &str, text: Option<&str>) -> Result<Option<NonZeroU64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let rate = size(text).and_then(NonZeroU64::new).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no number of bytes in a second"))
            .with_hint(format!("{option} takes rates such as 500KiB or 2M; leave it out for none"))
    })?;
    if rate.get() < limits::LEAST_RATE {
        let least = limits::LEAST_RATE >> 10;
        return Err(Failure::usage(format!("`{text}` in a second is too little: others take it for a standstill"))
            .with_hint(format!("{option} takes {least}KiB and more; leave it out for none")));
    }
    Ok(Some(rate))
}

fn share(option: &str, text: &str, no_share: bool) -> Result<Share, Failure> {
    match text {
        "all" if no_share => Ok(Share::Own(OwnBlocks::default())),
        "all" => Ok(Share::All),
        "own" => Ok(Share::Own(OwnBlocks::default())),
        "nothing" => Ok(Share::Nothing),
        _ => Err(Failure::usage(format!("`{text}` is not a choice of what is shared"))
            .with_hint(format!("{option} takes all, own or nothing"))),
    }
}

fn anchors(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    files.iter().map(|file| read(file, "trust anchors")).collect()
}

fn mode(option: &str, text: &str) -> Result<NetworkMode, Failure> {
    match text.split_once(':') {
        None if text == "public" => Ok(NetworkMode::Public),
        None if text == "lan" => Ok(NetworkMode::Lan),
        None if text == "loopback" => Ok(NetworkMode::Loopback),
        Some(("private", file)) => {
            let key = SwarmKey::parse(&read(Path::new(file), "the swarm key")?);
            key.map(NetworkMode::Private).map_err(|error| Failure::usage(format!("{file}: {error}")))
        }
        _ => Err(Failure::usage(format!("`{text}` is not a network"))
            .with_hint(format!("{option} takes public, lan, loopback or private:KEYFILE"))),
    }
}

fn read(file: &Path, what: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("reading {what} from {} failed", file.display()), &error);
    std::fs::read_to_string(file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["0", "1500", "500KiB", "500 KiB", "2M", "3GB", "1T"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [0, 1500, 512_000, 512_000, 2 << 20, 3_000_000_000, 1 << 40]);
        for bad in ["", "KiB", "-1", "1.5G", "1 XB", "99999999999T"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(cache_limit("x", Some("15%")).unwrap(), CacheSize::Percent(15));
        assert!(
            cache_limit("x", Some("101%")).is_err()
                && rate("x", Some("0")).is_err()
                && rate("x", Some("63KiB")).is_err()
                && rate("x", Some("64KiB")).is_ok()
                && share("x", "some", false).is_err()
        );
    }

    #[test]
    fn only_what_can_be_dialled_is_announced() {
        for good in ["/ip4/192.0.2.1/tcp/4001", "/dns4/hub.test/udp/4001/quic-v1", "/dnsaddr/hub.test"] {
            assert!(announced("--announce", &[good.to_owned()]).is_ok(), "{good}");
        }
        for bad in
            ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/1", "/ip4/192.0.2.1", "/ip4/192.0.2.1/tcp/0", "/tcp/4001", "", "x"]
        {
            assert!(announced("--announce", &[bad.to_owned()]).is_err(), "{bad}");
        }
        let other = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let refused = announced("--announce", &[other.to_owned()]).unwrap_err();
        assert!(refused.hint().unwrap().contains("added"));
    }
}
