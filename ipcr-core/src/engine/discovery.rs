//! Finding the engine: [`Discovery`].
//!
//! The order is that of the `docker` command, followed by what it does not know: the host given (`DOCKER_HOST`), the current
//! docker context, and then the sockets at which Docker, Docker Desktop, rootless Docker, Podman and rootless Podman listen.
//! As there, a host that is given or a context that is chosen is the only candidate. When Podman is asked for, only an
//! answer by Podman counts, at the host given to it (`CONTAINER_HOST`), at `DOCKER_HOST`, or at its own sockets.
//!
//! Nothing is read from the environment: the caller hands in what it found there. Hosts are `unix://` sockets or `tcp://`
//! without encryption; whatever needs TLS or SSH is refused in so many words, never tried without.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::docker::DockerEngine;
use crate::digest::Digest;
use crate::kind::Cause;
use crate::limits;
use crate::port::engine::{Engine, EngineError, EngineKind, EngineStore};

/// How long a candidate may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Discovery {
    /// The value of `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set to something.
    pub docker_tls: bool,
    /// The value of `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// Docker's configuration folder (`DOCKER_CONFIG`, else `~/.docker`).
    pub docker_config: Option<PathBuf>,
    /// The value of `CONTAINER_HOST`, Podman's counterpart of `DOCKER_HOST`.
    pub container_host: Option<String>,
    /// The folder of this user's sockets (`XDG_RUNTIME_DIR`); `/run/user/<uid>` if it is not known.
    pub runtime_dir: Option<PathBuf>,
    /// The user.
    pub uid: u32,
}

/// Why an address was not even tried.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0} needs TLS, which is not supported; use a unix:// socket or forward one over SSH")]
    Tls(String),
    #[error("{0} is not supported; use unix:///path/to.sock or tcp://host:port")]
    Scheme(String),
    #[error("docker context {0} does not exist or cannot be read")]
    Context(String, #[source] Option<Cause>),
    #[error("{0} answers, but is not Podman")]
    NotPodman(String),
}

impl Discovery {
    /// The first engine that answers.
    pub async fn discover(&self, kind: EngineKind) -> Result<Arc<dyn Engine>, EngineError> {
        let mut tried = Vec::new();
        let mut last: Option<Cause> = None;
        let candidates = match self.candidates(kind).await {
            Ok(candidates) => candidates,
            Err(unusable) => {
                return Err(EngineError::Absent {
                    tried: vec![self.docker_host.clone().unwrap_or_else(|| "the docker context".into())],
                    source: Some(unusable.into()),
                });
            }
        };
        for candidate in candidates {
            match attempt(&candidate, kind).await {
                Ok(engine) => return Ok(Arc::new(engine)),
                // A socket that is not there says less than one that refuses.
                Err(EngineError::Absent { source, .. }) => last = last.or(source),
                Err(error) => last = Some(error.into()),
            }
            tried.push(candidate);
        }
        Err(EngineError::Absent { tried, source: last })
    }

    /// Addresses in the order in which they are tried.
    async fn candidates(&self, kind: EngineKind) -> Result<Vec<String>, Unusable> {
        let given = |host: &Option<String>| host.as_deref().filter(|host| !host.is_empty()).map(str::to_owned);
        if kind == EngineKind::Podman {
            if let Some(host) = given(&self.container_host) {
                return Ok(vec![usable(&host, false)?]);
            }
            let docker_host = given(&self.docker_host).and_then(|host| usable(&host, self.docker_tls).ok());
            return Ok(docker_host.into_iter().chain(self.podman_sockets()).collect());
        }
        if let Some(host) = given(&self.docker_host) {
            return Ok(vec![usable(&host, self.docker_tls)?]);
        }
        if let Some(host) = self.context_host().await? {
            return Ok(vec![host]);
        }
        let desktop = self.docker_config.as_ref().map(|config| socket(&config.join("run/docker.sock")));
        let rootless = socket(&self.runtime_dir().join("docker.sock"));
        let mut all = vec![socket(&PathBuf::from("/var/run/docker.sock"))];
        all.extend(desktop);
        all.push(rootless);
        all.extend(self.podman_sockets());
        Ok(all)
    }

    fn podman_sockets(&self) -> Vec<String> {
        let own = socket(&self.runtime_dir().join("podman/podman.sock"));
        let system = socket(&PathBuf::from("/run/podman/podman.sock"));
        if self.uid == 0 { vec![system, own] } else { vec![own, system] }
    }

    fn runtime_dir(&self) -> PathBuf {
        self.runtime_dir.clone().unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", self.uid)))
    }

    /// The host of the current docker context; `None` for the default one.
    async fn context_host(&self) -> Result<Option<String>, Unusable> {
        #[derive(serde::Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Config {
            current_context: String,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Meta {
            endpoints: Endpoints,
        }
        #[derive(serde::Deserialize)]
        struct Endpoints {
            docker: Endpoint,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Endpoint {
            host: String,
        }

        let Some(folder) = &self.docker_config else { return Ok(None) };
        let name = match self.docker_context.clone().filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => match small_file(&folder.join("config.json")).await {
                Ok(bytes) => serde_json::from_slice::<Config>(&bytes).unwrap_or_default().current_context,
                Err(_) => String::new(),
            },
        };
        if name.is_empty() || name == "default" {
            return Ok(None);
        }
        let id = Digest::sha256(name.as_bytes()).hex();
        let unreadable = |cause: Cause| Unusable::Context(name.clone(), Some(cause));
        let bytes = small_file(&folder.join("contexts/meta").join(&id).join("meta.json")).await;
        let meta: Meta = serde_json::from_slice(&bytes.map_err(|error| unreadable(error.into()))?)
            .map_err(|error| unreadable(error.into()))?;
        let tls = tokio::fs::try_exists(folder.join("contexts/tls").join(&id)).await.unwrap_or(false);
        usable(&meta.endpoints.docker.host, tls).map(Some)
    }
}

async fn attempt(endpoint: &str, kind: EngineKind) -> Result<DockerEngine, EngineError> {
    let absent = |source: Cause| EngineError::Absent { tried: vec![endpoint.into()], source: Some(source) };
    let engine =
        tokio::time::timeout(ANSWER, DockerEngine::connect(endpoint)).await.map_err(|e| absent(e.into()))??;
    match kind {
        EngineKind::Podman if engine.store() != EngineStore::Podman => {
            Err(absent(Unusable::NotPodman(endpoint.into()).into()))
        }
        _ => Ok(engine),
    }
}

fn socket(path: &std::path::Path) -> String {
    format!("unix://{}", path.display())
}

/// The host in the spelling of [`DockerEngine::connect`], if it can be used.
fn usable(host: &str, tls: bool) -> Result<String, Unusable> {
    let plain = match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => return Ok(host.to_owned()),
        Some(("tcp" | "http", address)) if !address.is_empty() => address.trim_end_matches('/'),
        Some(("https", _)) => return Err(Unusable::Tls(host.into())),
        None if host.starts_with('/') => return Ok(format!("unix://{host}")),
        _ => return Err(Unusable::Scheme(host.into())),
    };
    // 2376 is the port that Docker assigns to TLS.
    if tls || plain.ends_with(":2376") {
        return Err(Unusable::Tls(host.into()));
    }
    let has_port = plain.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(format!("tcp://{plain}{}", if has_port { "" } else { ":2375" }))
}

async fn small_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(limits::METADATA_BYTES + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > limits::METADATA_BYTES {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Discovery {
        Discovery { runtime_dir: Some("/run/user/7".into()), uid: 7, ..Discovery::default() }
    }

    async fn docker(discovery: &Discovery) -> Vec<String> {
        discovery.candidates(EngineKind::Docker).await.unwrap()
    }

    #[tokio::test]
    async fn the_order_of_candidates() {
        let config = tempfile::tempdir().unwrap();
        let mut discovery = nothing();
        let podman = ["unix:///run/user/7/podman/podman.sock", "unix:///run/podman/podman.sock"];
        let rootless = "unix:///run/user/7/docker.sock";
        assert_eq!(docker(&discovery).await, ["unix:///var/run/docker.sock", rootless, podman[0], podman[1]]);
        assert_eq!(discovery.candidates(EngineKind::Podman).await.unwrap(), podman);

        discovery.docker_config = Some(config.path().into());
        assert_eq!(docker(&discovery).await.len(), 5, "Docker Desktop's socket");
        std::fs::write(config.path().join("config.json"), r#"{"auths":{},"currentContext":"work"}"#).unwrap();
        let error = discovery.candidates(EngineKind::Docker).await.unwrap_err();
        assert!(matches!(error, Unusable::Context(name, Some(_)) if name == "work"));

        let id = Digest::sha256(b"work").hex();
        let meta = config.path().join("contexts/meta").join(&id);
        std::fs::create_dir_all(&meta).unwrap();
        let text =
            r#"{"Name":"work","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///w.sock","SkipTLSVerify":false}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        assert_eq!(docker(&discovery).await, ["unix:///w.sock"]);
        discovery.docker_context = Some("default".into());
        assert_eq!(docker(&discovery).await.len(), 5);
        discovery.docker_context = Some("work".into());
        std::fs::write(meta.join("meta.json"), text.replace("unix:///w.sock", "tcp://10.0.0.1:2375")).unwrap();
        assert_eq!(docker(&discovery).await, ["tcp://10.0.0.1:2375"]);
        std::fs::create_dir_all(config.path().join("contexts/tls").join(&id)).unwrap();
        assert!(matches!(discovery.candidates(EngineKind::Docker).await, Err(Unusable::Tls(_))));

        discovery.docker_host = Some("unix:///h.sock".into());
        assert_eq!(docker(&discovery).await, ["unix:///h.sock"]);
        assert_eq!(discovery.candidates(EngineKind::Podman).await.unwrap()[0], "unix:///h.sock");
        discovery.container_host = Some("unix:///c.sock".into());
        assert_eq!(discovery.candidates(EngineKind::Podman).await.unwrap(), ["unix:///c.sock"]);
    }

    #[test]
    fn hosts() {
        assert_eq!(usable("tcp://127.0.0.1", false).unwrap(), "tcp://127.0.0.1:2375");
        assert_eq!(usable("http://[::1]:9/", false).unwrap(), "tcp://[::1]:9");
        assert_eq!(usable("/x.sock", false).unwrap(), "unix:///x.sock");
        for (host, tls) in [("tcp://h:2375", true), ("tcp://h:2376", false), ("https://h", false)] {
            assert!(matches!(usable(host, tls), Err(Unusable::Tls(_))), "{host}");
        }
        for host in ["ssh://me@h", "npipe:////./pipe/docker_engine", "unix://x", "tcp://", "h:2375", ""] {
            assert!(matches!(usable(host, false), Err(Unusable::Scheme(_))), "{host}");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let mut discovery = nothing();
        discovery.docker_host = Some("unix:///nonexistent/ipcr.sock".into());
        let error = discovery.discover(EngineKind::Docker).await.unwrap_err();
        assert!(matches!(&error, EngineError::Absent { tried, source: Some(_) } if tried.len() == 1), "{error:?}");
        discovery.docker_host = Some("ssh://host".into());
        let error = discovery.discover(EngineKind::Docker).await.unwrap_err();
        let EngineError::Absent { source: Some(source), .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("ssh://host is not supported"));
    }
}
