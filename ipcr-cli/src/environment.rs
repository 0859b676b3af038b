//! The environment, read once: nothing else of ipcr looks at it, apart from the `IPCR_…` variables of global options, which
//! the argument parser takes.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use etcetera::BaseStrategy;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `DOCKER_HOST`.
    pub(crate) docker_host: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set.
    pub(crate) docker_tls: bool,
    /// `CONTAINER_HOST`, Podman's counterpart.
    pub(crate) container_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub(crate) docker_context: Option<String>,
    /// Where docker keeps contexts and credentials: `DOCKER_CONFIG`, else `.docker` in the user's home.
    pub(crate) docker_config: Option<PathBuf>,
    /// `DOCKER_DEFAULT_PLATFORM`.
    pub(crate) docker_platform: Option<String>,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub(crate) source_date_epoch: Option<String>,
    /// `XDG_RUNTIME_DIR`, where rootless engines listen.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `IPCR_HTTP`, which is no global option.
    pub(crate) http: Option<String>,
    /// The XDG data directory.
    pub(crate) data_dir: Option<PathBuf>,
    /// The XDG configuration directory.
    pub(crate) config_dir: Option<PathBuf>,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let strategy = etcetera::choose_base_strategy().ok();
        let home = strategy.as_ref().map(|strategy| strategy.home_dir().to_owned());
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_tls: set("DOCKER_TLS_VERIFY").is_some(),
            container_host: text("CONTAINER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: path("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker"))),
            docker_platform: text("DOCKER_DEFAULT_PLATFORM"),
            source_date_epoch: text("SOURCE_DATE_EPOCH"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            http: text("IPCR_HTTP"),
            data_dir: strategy.as_ref().map(BaseStrategy::data_dir),
            config_dir: strategy.as_ref().map(BaseStrategy::config_dir),
        }
    }

    /// `IPCR_PASSPHRASE`, read when it is needed and kept by nobody.
    pub(crate) fn passphrase() -> Option<String> {
        text("IPCR_PASSPHRASE")
    }

    /// Whether a variable is set to nothing, which is the same as not being set.
    pub(crate) fn is_empty(variable: &OsStr) -> bool {
        std::env::var_os(variable).is_some_and(|value| value.is_empty())
    }

    /// Whether `IPCR_OUTPUT` asks for JSON; for errors that occur before the options are known.
    pub(crate) fn wants_json() -> bool {
        text("IPCR_OUTPUT").is_some_and(|output| output == "json")
    }
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Option<String> {
    set(name)?.into_string().ok()
}

fn path(name: &str) -> Option<PathBuf> {
    set(name).map(PathBuf::from)
}
