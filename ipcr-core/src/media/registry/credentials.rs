//! Who one is at a registry: [`Login`], and [`Credentials`] from Docker's `config.json`.

use std::collections::BTreeMap;
use std::fmt;

use multibase::Base;

/// Docker's name for its own registry in `config.json`.
const HUB: &str = "https://index.docker.io/v1/";

/// A user of a registry. Shows nothing but the user's name.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    secret: Secret,
}

#[derive(Clone, PartialEq, Eq)]
enum Secret {
    Password(String),
    /// A refresh token (RFC 6749).
    Identity(String),
}

impl Login {
    /// A user with a password or access token.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), secret: Secret::Password(password.into()) }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The value of an `Authorization` header, unless there is no password.
    pub(super) fn basic(&self) -> Option<String> {
        match &self.secret {
            Secret::Password(password) => {
                Some(format!("Basic {}", Base::Base64Pad.encode(format!("{}:{password}", self.user))))
            }
            Secret::Identity(_) => None,
        }
    }

    /// The refresh token, if that is what there is.
    pub(super) fn identity_token(&self) -> Option<&str> {
        match &self.secret {
            Secret::Identity(token) => Some(token),
            Secret::Password(_) => None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The `auths` of Docker's or Podman's configuration file.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    auths: BTreeMap<String, Login>,
    helpers: BTreeMap<String, String>,
    helper: Option<String>,
}

/// A configuration file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the file with registry credentials is not the JSON that Docker writes")]
pub struct BadCredentials {
    #[source]
    source: serde_json::Error,
}

impl BadCredentials {
    /// Its class.
    pub fn kind(&self) -> crate::kind::ErrorKind {
        crate::kind::ErrorKind::Usage
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Credentials {
    /// Reads `config.json` (Docker) or `auth.json` (Podman). Entries that hold nothing usable are passed over.
    pub fn parse(file: &[u8]) -> Result<Self, BadCredentials> {
        let file: File = serde_json::from_slice(file).map_err(|source| BadCredentials { source })?;
        let auths = file.auths.into_iter().filter_map(|(key, entry)| Some((key, login(entry)?)));
        Ok(Self { auths: auths.collect(), helpers: file.cred_helpers, helper: file.creds_store })
    }

    /// The user for a registry, by its host as in [`crate::media::spec::RegistryRef::host`], and for a repository there:
    /// Podman's entries may name a path.
    pub fn login(&self, host: &str, repository: &str) -> Option<&Login> {
        let mut path = format!("{host}/{repository}");
        loop {
            if let Some(login) = self.at(&path) {
                return Some(login);
            }
            path.truncate(path.rfind('/')?);
        }
    }

    fn at(&self, path: &str) -> Option<&Login> {
        let spelled = |key: &String| {
            if path == "docker.io" && key == HUB {
                return true;
            }
            let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
            bare.trim_end_matches("/v1/").trim_end_matches("/v2/").trim_end_matches('/') == path
        };
        self.auths.get(path).or_else(|| self.auths.iter().find(|(key, _)| spelled(key)).map(|(_, login)| login))
    }

    /// The program `docker-credential-<name>` that keeps the credentials of a registry, if the file says so. It is not run
    /// here.
    pub fn helper(&self, host: &str) -> Option<&str> {
        let key = if host == "docker.io" { HUB } else { host };
        self.helpers.get(key).or(self.helper.as_ref()).map(String::as_str)
    }
}

fn login(entry: Entry) -> Option<Login> {
    let (mut user, mut password) = (entry.username, entry.password);
    if !entry.auth.is_empty() {
        let text = String::from_utf8(Base::Base64Pad.decode(entry.auth.trim()).ok()?).ok()?;
        let (name, secret) = text.split_once(':')?;
        (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    if !entry.identitytoken.is_empty() {
        return Some(Login { user, secret: Secret::Identity(entry.identitytoken) });
    }
    (!user.is_empty() && !password.is_empty()).then(|| Login::new(user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnNlY3JldDE=" },
            "r.test:5000": { "auth": "bWU6YTpi", "email": "x" },
            "https://old.test/v2/": { "username": "u", "password": "p" },
            "p.test/team": { "auth": "dGVhbTp4" },
            "id.test": { "auth": "PHRva2VuPjo=", "identitytoken": "refresh" },
            "empty.test": {},
            "bad.test": { "auth": "%%%" }
        },
        "credHelpers": { "h.test": "pass" },
        "HttpHeaders": { "User-Agent": "Docker-Client" }
    }"#;

    #[test]
    fn entries_as_docker_and_podman_write_them() {
        let all = Credentials::parse(FILE.as_bytes()).unwrap();
        let basic = |host: &str, repository: &str| {
            let login = all.login(host, repository)?;
            let basic = login.basic()?;
            Some(String::from_utf8(Base::Base64Pad.decode(basic.strip_prefix("Basic ")?).unwrap()).unwrap())
        };
        assert_eq!(basic("docker.io", "library/alpine").as_deref(), Some("hub:secret1"));
        assert_eq!(basic("r.test:5000", "a").as_deref(), Some("me:a:b"));
        assert_eq!(basic("old.test", "a/b/c").as_deref(), Some("u:p"));
        assert_eq!(basic("p.test", "team/app").as_deref(), Some("team:x"));
        for (host, repository) in [("p.test", "teams/app"), ("r.test", "a"), ("empty.test", "a"), ("bad.test", "a")] {
            assert_eq!(basic(host, repository), None, "{host}/{repository}");
        }
        assert_eq!(all.login("id.test", "a").unwrap().identity_token(), Some("refresh"));
        assert_eq!((all.helper("h.test"), all.helper("r.test:5000")), (Some("pass"), None));
        assert_eq!(Credentials::parse(br#"{"credsStore":"desktop"}"#).unwrap().helper("x.test"), Some("desktop"));
        assert!(Credentials::parse(br#"{"auths":1}"#).is_err() && Credentials::parse(b"{}").is_ok());
    }

    #[test]
    fn secrets_are_not_shown() {
        let all = Credentials::parse(FILE.as_bytes()).unwrap();
        let shown = format!("{all:?} {all:#?}");
        for secret in ["secret1", "a:b", "refresh", "c2VjcmV0"] {
            assert!(!shown.contains(secret), "{secret}");
        }
        assert!(shown.contains("\"hub\""));
    }
}
