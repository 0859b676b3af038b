//! Proving who one is: [`Auth`] keeps what is needed for a registry and asks token servers.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::challenge::{Challenge, Origin, choose, split_port, trusted};
use super::{RegistryError, RegistryOptions};
use crate::limits;
use crate::net::{HttpClient, Method, Response};

/// How long a token lasts that does not say (distribution, "Token Authentication Specification").
const TOKEN_LIFE: Duration = Duration::from_mins(1);
/// How long before its end a token is not used any more.
const TOKEN_REST: Duration = Duration::from_secs(10);

/// The authorization for one registry and one scope.
#[derive(Debug)]
pub(super) struct Auth {
    options: RegistryOptions,
    host: String,
    scope: String,
    held: Mutex<Option<Held>>,
}

/// The value of an `Authorization` header.
struct Held {
    header: String,
    until: Option<Instant>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(serde::Deserialize)]
struct Issued {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    /// For the registry at `host` (with its port) and a scope such as `repository:team/app:pull`.
    pub(super) fn new(host: &str, scope: String, options: RegistryOptions) -> Self {
        let host = split_port(host).map_or(host, |(host, _)| host).to_owned();
        Self { options, host, scope, held: Mutex::new(None) }
    }

    /// What to send as `Authorization`, as far as it is known.
    pub(super) fn header(&self) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = held.as_ref().filter(|held| held.until.is_none_or(|until| Instant::now() < until));
        valid.map(|held| held.header.clone())
    }

    /// Does what a 401 asks for; afterwards [`Auth::header`] has another answer.
    pub(super) async fn answer(&self, http: &HttpClient, refused: &Response) -> Result<(), RegistryError> {
        let challenges = || refused.headers("www-authenticate");
        let unknown = || RegistryError::Challenge {
            challenge: challenges().next().unwrap_or("nothing").chars().take(200).collect(),
        };
        let held = match choose(challenges()).ok_or_else(unknown)? {
            Challenge::Basic => {
                let header = self.options.login.as_ref().and_then(super::Login::basic);
                Held { header: header.ok_or_else(|| denied("a name and a password are needed"))?, until: None }
            }
            Challenge::Bearer { realm, service, scope } => {
                self.token(http, &realm, service.as_deref(), scope.as_deref()).await?
            }
        };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(())
    }

    async fn token(
        &self,
        http: &HttpClient,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Held, RegistryError> {
        let shown = || realm.split('?').next().unwrap_or_default().chars().take(200).collect::<String>();
        if !trusted(realm, &self.host, &self.options.realms) {
            return Err(RegistryError::Realm { realm: shown() });
        }
        let origin = Origin::of(realm).ok_or_else(|| RegistryError::Realm { realm: shown() })?;
        let http = http.naming(origin.host)?;
        let mut query = String::new();
        let mut add = |name: &str, value: &str| {
            let separator = if query.is_empty() { "" } else { "&" };
            let _ = write!(query, "{separator}{name}={}", escaped(value));
        };
        if let Some(service) = service {
            add("service", service);
        }
        add("scope", scope.unwrap_or(&self.scope));
        let login = self.options.login.as_ref();
        let request = if let Some(token) = login.and_then(super::Login::identity_token) {
            add("grant_type", "refresh_token");
            add("client_id", "ipcr");
            add("refresh_token", token);
            let form = http.request(Method::POST, realm).header("content-type", "application/x-www-form-urlencoded");
            form.body(query)
        } else {
            if let Some(login) = login {
                add("account", login.user());
            }
            let separator = if realm.contains('?') { '&' } else { '?' };
            let request = http.get(&format!("{realm}{separator}{query}")).without_redirects();
            match login.and_then(super::Login::basic) {
                Some(basic) => request.header("authorization", &basic),
                None => request,
            }
        };
        let answer = request.send().await?;
        if !answer.status().is_success() {
            return Err(super::client::refused(answer).await);
        }
        let issued: Issued = answer.json_at_most(limits::TOKEN_BYTES).await?;
        let life = issued.expires_in.map_or(TOKEN_LIFE, Duration::from_secs).max(TOKEN_LIFE);
        let value = issued.token.or(issued.access_token).filter(|token| !token.is_empty());
        let value = value.ok_or(RegistryError::Protocol { reason: "the token server sends no token" })?;
        Ok(Held {
            header: format!("Bearer {value}"),
            until: Instant::now().checked_add(life.saturating_sub(TOKEN_REST)),
        })
    }
}

fn denied(message: &str) -> RegistryError {
    RegistryError::Answer { status: 401, message: format!(": {message}") }
}

/// Percent-encoding of everything but unreserved characters (RFC 3986).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
