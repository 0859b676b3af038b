//! What the options, the environment and `config.toml` say together: flag before environment before file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::args::{Color, Global, Output, Progress};
use crate::environment::Environment;
use crate::failure::Failure;

/// The name of the configuration file.
const FILE: &str = "config.toml";
/// How long to wait for a held home, unless told otherwise.
const LOCK_WAIT: u64 = 10;
/// The longest time without progress, unless told otherwise; the same as [`ipcr_core::limits::STALL`].
const TIMEOUT: u64 = 60;
/// Where `serve` answers, unless told otherwise.
pub(crate) const HTTP: &str = "127.0.0.1:5050";

/// One source of settings: all options that it has something to say about. The names are those of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Layer {
    home: Option<PathBuf>,
    quiet: Option<bool>,
    verbose: Option<u8>,
    output: Option<Output>,
    progress: Option<Progress>,
    color: Option<Color>,
    network: Option<String>,
    listen: Option<Vec<String>>,
    peer: Option<Vec<String>>,
    bootstrap: Option<Vec<String>>,
    router: Option<Vec<String>>,
    gateway: Option<Vec<String>>,
    dns: Option<Vec<String>>,
    dns_anchor: Option<Vec<PathBuf>>,
    offline: Option<bool>,
    no_share: Option<bool>,
    lock_wait: Option<u64>,
    #[serde(deserialize_with = "timeout")]
    timeout: Option<u64>,
    allow_stale: Option<bool>,
    cache_limit: Option<String>,
    upload_limit: Option<String>,
    download_limit: Option<String>,
    share: Option<String>,
    http: Option<String>,
}

/// Reads a timeout.
fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::deserialize(deserializer)? {
        Some(0) => Err(D::Error::custom("a timeout needs at least 1 second")),
        seconds => Ok(seconds),
    }
}

/// All keys, in the order in which they are listed.
pub(crate) const KEYS: [&str; 24] = [
    "home",
    "quiet",
    "verbose",
    "output",
    "progress",
    "color",
    "network",
    "listen",
    "peer",
    "bootstrap",
    "router",
    "gateway",
    "dns",
    "dns-anchor",
    "offline",
    "no-share",
    "lock-wait",
    "timeout",
    "allow-stale",
    "cache-limit",
    "upload-limit",
    "download-limit",
    "share",
    "http",
];

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

/// The settings of this run.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
pub(crate) struct Settings {
    /// Where the home is.
    pub(crate) home: PathBuf,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    pub(crate) output: Output,
    pub(crate) progress: Progress,
    pub(crate) color: Color,
    pub(crate) network: String,
    pub(crate) listen: Vec<String>,
    pub(crate) peer: Vec<String>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) router: Vec<String>,
    pub(crate) gateway: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_anchor: Vec<PathBuf>,
    pub(crate) offline: bool,
    pub(crate) no_share: bool,
    pub(crate) lock_wait: Duration,
    pub(crate) timeout: Duration,
    pub(crate) allow_stale: bool,
    pub(crate) cache_limit: Option<String>,
    pub(crate) upload_limit: Option<String>,
    pub(crate) download_limit: Option<String>,
    pub(crate) share: String,
    pub(crate) http: String,
    /// The configuration file, which need not exist.
    pub(crate) file: PathBuf,
    origins: BTreeMap<&'static str, Origin>,
}

impl Settings {
    /// Merges the three sources. `http` is the option of `serve`. With `repairing`, what makes no sense in the file is passed over.
    pub(crate) fn gather(
        global: &Global,
        http: Option<&str>,
        matches: &ArgMatches,
        environment: &Environment,
        repairing: bool,
    ) -> Result<Self, Failure> {
        let (mut given, mut origins) = Layer::of_options(global, http, matches);
        if given.http.is_none() && environment.http.is_some() {
            given.http.clone_from(&environment.http);
            origins.insert("http", Origin::Environment);
        }
        let file = match (&given.home, &environment.config_dir) {
            (Some(home), _) => home.join(FILE),
            (None, Some(config)) => config.join("ipcr").join(FILE),
            (None, None) => return Err(Failure::no_home()),
        };
        let mut written = if repairing { Layer::salvage(&file) } else { Layer::read(&file)? };
        if repairing && given.home.is_some() {
            written.home = None;
        }
        if given.home.is_some() && written.home.is_some() {
            let message = format!("`home` makes no sense in {}, which belongs to a home", file.display());
            return Err(Failure::usage(message).with_hint("remove the line"));
        }
        for key in KEYS {
            let from_file = || if written.value(key).is_some() { Origin::File } else { Origin::Default };
            origins.entry(key).or_insert_with(from_file);
        }
        let default_home = environment.data_dir.as_ref().map(|data| data.join("ipcr"));
        let home = given.home.take().or(written.home.take()).or(default_home).ok_or_else(Failure::no_home)?;
        Ok(Self::merge(given, written, std::path::absolute(&home).unwrap_or(home), file, origins))
    }

    /// The settings that the configuration file alone would make, if it said this.
    pub(crate) fn of_file(&self, written: Layer) -> Self {
        Self::merge(Layer::default(), written, self.home.clone(), self.file.clone(), BTreeMap::new())
    }

    fn merge(
        given: Layer,
        written: Layer,
        home: PathBuf,
        file: PathBuf,
        origins: BTreeMap<&'static str, Origin>,
    ) -> Self {
        Self {
            home,
            quiet: given.quiet.or(written.quiet).unwrap_or_default(),
            verbose: given.verbose.or(written.verbose).unwrap_or_default(),
            output: given.output.or(written.output).unwrap_or_default(),
            progress: given.progress.or(written.progress).unwrap_or_default(),
            color: given.color.or(written.color).unwrap_or_default(),
            network: given.network.or(written.network).unwrap_or_else(|| "public".into()),
            listen: given.listen.or(written.listen).unwrap_or_default(),
            peer: given.peer.or(written.peer).unwrap_or_default(),
            bootstrap: given.bootstrap.or(written.bootstrap).unwrap_or_default(),
            router: given.router.or(written.router).unwrap_or_default(),
            gateway: given.gateway.or(written.gateway).unwrap_or_default(),
            dns: given.dns.or(written.dns).unwrap_or_default(),
            dns_anchor: given.dns_anchor.or(written.dns_anchor).unwrap_or_default(),
            offline: given.offline.or(written.offline).unwrap_or_default(),
            no_share: given.no_share.or(written.no_share).unwrap_or_default(),
            lock_wait: Duration::from_secs(given.lock_wait.or(written.lock_wait).unwrap_or(LOCK_WAIT)),
            timeout: Duration::from_secs(given.timeout.or(written.timeout).unwrap_or(TIMEOUT)),
            allow_stale: given.allow_stale.or(written.allow_stale).unwrap_or_default(),
            cache_limit: given.cache_limit.or(written.cache_limit),
            upload_limit: given.upload_limit.or(written.upload_limit),
            download_limit: given.download_limit.or(written.download_limit),
            share: given.share.or(written.share).unwrap_or_else(|| "all".into()),
            http: given.http.or(written.http).unwrap_or_else(|| HTTP.into()),
            file,
            origins,
        }
    }

    /// Whether anybody has said something about it.
    pub(crate) fn is_chosen(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| *origin != Origin::Default)
    }

    /// Whether the configuration file belongs to a home, and so cannot say where that is.
    pub(crate) fn is_of_home(&self) -> bool {
        matches!(self.origins.get("home"), Some(Origin::Flag | Origin::Environment))
    }

    /// Where a setting was made, for messages: its option, its variable or its line in the file.
    pub(crate) fn place(&self, key: &str) -> String {
        match self.origins.get(key) {
            Some(Origin::Flag | Origin::Default) => format!("--{key}"),
            Some(Origin::Environment) => format!("IPCR_{}", key.to_uppercase().replace('-', "_")),
            Some(Origin::File) => format!("`{key}` in {}", self.file.display()),
            None => format!("`{key}`"),
        }
    }

    /// The value of a key and where it comes from; `None` if there is no such key.
    pub(crate) fn lookup(&self, key: &str) -> Option<(serde_json::Value, Origin)> {
        let layer = Layer {
            home: Some(readable(&self.home)),
            quiet: Some(self.quiet),
            verbose: Some(self.verbose),
            output: Some(self.output),
            progress: Some(self.progress),
            color: Some(self.color),
            network: Some(self.network.clone()),
            listen: Some(self.listen.clone()),
            peer: Some(self.peer.clone()),
            bootstrap: Some(self.bootstrap.clone()),
            router: Some(self.router.clone()),
            gateway: Some(self.gateway.clone()),
            dns: Some(self.dns.clone()),
            dns_anchor: Some(self.dns_anchor.iter().map(|file| readable(file)).collect()),
            offline: Some(self.offline),
            no_share: Some(self.no_share),
            lock_wait: Some(self.lock_wait.as_secs()),
            timeout: Some(self.timeout.as_secs()),
            allow_stale: Some(self.allow_stale),
            cache_limit: self.cache_limit.clone(),
            upload_limit: self.upload_limit.clone(),
            download_limit: self.download_limit.clone(),
            share: Some(self.share.clone()),
            http: Some(self.http.clone()),
        };
        Some((layer.value(key).unwrap_or_default(), *self.origins.get(key)?))
    }
}

impl Layer {
    /// Splits what the argument parser found, which is flags and variables merged, and says which is which.
    fn of_options(global: &Global, http: Option<&str>, matches: &ArgMatches) -> (Self, BTreeMap<&'static str, Origin>) {
        let mut origins = BTreeMap::new();
        for key in KEYS {
            match source(matches, key) {
                Some(ValueSource::CommandLine) => origins.insert(key, Origin::Flag),
                Some(ValueSource::EnvVariable) => origins.insert(key, Origin::Environment),
                _ => None,
            };
        }
        let given = |key: &str| origins.contains_key(key);
        let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
        let layer = Self {
            home: global.home.clone(),
            quiet: given("quiet").then_some(global.quiet),
            verbose: given("verbose").then_some(global.verbose),
            output: global.output,
            progress: global.progress,
            color: global.color,
            network: global.network.clone(),
            listen: list(&global.listen),
            peer: list(&global.peer),
            bootstrap: list(&global.bootstrap),
            router: list(&global.router),
            gateway: list(&global.gateway),
            dns: list(&global.dns),
            dns_anchor: (!global.dns_anchor.is_empty()).then(|| global.dns_anchor.clone()),
            offline: given("offline").then_some(global.offline),
            no_share: given("no-share").then_some(global.no_share),
            lock_wait: global.lock_wait,
            timeout: global.timeout,
            allow_stale: given("allow-stale").then_some(global.allow_stale),
            cache_limit: global.cache_limit.clone(),
            upload_limit: global.upload_limit.clone(),
            download_limit: global.download_limit.clone(),
            share: global.share.clone(),
            http: http.map(str::to_owned),
        };
        (layer, origins)
    }

    /// Reads a configuration file; one that does not exist says nothing.
    fn read(file: &Path) -> Result<Self, Failure> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            // A home that is no folder is told by whoever opens it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Self::default()),
            Err(error) => Err(Failure::io(format!("reading {} failed", file.display()), &error)),
        }
    }

    /// Reads the text of a configuration file.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            let message = format!("{}, line {line}: {}", file.display(), error.message());
            Failure::usage(message).with_hint("mend the file, or take the line away; docs/operating.md lists all keys")
        })
    }

    /// Reads one setting of a configuration file.
    pub(crate) fn single(key: &str, value: &toml::Value) -> Result<Self, Failure> {
        let table: toml::Table = std::iter::once((key.to_owned(), value.clone())).collect();
        table.try_into().map_err(|error: toml::de::Error| {
            Failure::usage(format!("`{key}` cannot be `{value}`: {}", error.message().trim()))
        })
    }

    /// What makes sense in a configuration file that is about to be repaired.
    fn salvage(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let table: toml::Table = toml::from_str(&text).unwrap_or_default();
        let good: toml::Table = table.into_iter().filter(|(key, value)| Self::single(key, value).is_ok()).collect();
        good.try_into().unwrap_or_default()
    }

    /// The value of a key, if this source says something about it.
    fn value(&self, key: &str) -> Option<serde_json::Value> {
        let all = serde_json::to_value(self).expect("settings are plain data");
        all.get(key).filter(|value| !value.is_null()).cloned()
    }
}

/// A path for people and JSON, which have no place for bytes that are no text.
fn readable(path: &Path) -> PathBuf {
    path.to_string_lossy().into_owned().into()
}

/// Who set the option with this long name; options of a command are looked for in it.
fn source(matches: &ArgMatches, key: &str) -> Option<ValueSource> {
    let id = key.replace('-', "_");
    let mut level = Some(matches);
    let mut found = None;
    while let Some(matches) = level {
        if matches.try_contains_id(&id).is_ok() {
            found = matches.value_source(&id).or(found);
        }
        level = matches.subcommand().map(|(_, matches)| matches);
    }
    found
}

#[cfg(test)]
mod tests {
    use ipcr_core::identity::NodeKey;
    use ipcr_core::net::addresses::NetworkMode;
    use ipcr_core::node::NodeConfig;
    use ipcr_core::registry::local::HomeConfig;

    use super::*;

    /// What counts in a process that works through the one that holds the home: there, or because it goes with what is asked.
    const CARRIED: [&str; 12] = [
        "home",
        "quiet",
        "verbose",
        "output",
        "progress",
        "color",
        "peer",
        "no-share",
        "lock-wait",
        "timeout",
        "allow-stale",
        "http",
    ];

    #[test]
    fn every_setting_counts_beside_a_holder_or_is_warned_of() {
        let node = NodeConfig::new(NodeKey::generate().keypair().clone(), NetworkMode::Loopback);
        let overruled = HomeConfig::new("home", node).settings();
        for key in KEYS {
            assert!(CARRIED.contains(&key) != overruled.contains_key(key), "{key}");
        }
        assert_eq!(CARRIED.len() + overruled.len(), KEYS.len());
    }
}
