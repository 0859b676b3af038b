//! The one HTTP client of the crate, with its guards: where it may connect, how much it reads, where credentials go.
//!
//! * [`addresses`]: which addresses a network mode may touch.
//! * [`HttpPolicy`] and [`Reach`]: where requests may go.
//! * [`HttpClient`]: makes requests; [`RequestBuilder`], [`Response`], [`BodyReader`].
//! * [`HostLookup`]: how host names become addresses; the addresses are checked after that, and those are connected to.
//! * [`Rate`] and [`Charge`]: how fast bytes may go one way, by whatever they come; `bucket`: what it counts with.
//!
//! Guarantees: no connection outside the policy, also by redirect or by a name that changes its address; no credentials to
//! another origin than the one that they were given for; no body read without a bound, no wait without a limit on the time
//! without progress; TLS by rustls with `ring`; no proxy and no other environment.

pub mod addresses;
pub(crate) mod bucket;
mod client;
mod policy;
mod rate;
mod response;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

pub use client::{HttpClient, RequestBuilder};
pub use policy::{HttpPolicy, Reach, is_global};
pub use rate::{Charge, Rate};
pub use reqwest::{Method, StatusCode};
pub use response::{BodyReader, Response};

use crate::kind::{Cause, ErrorKind};

/// How host names become addresses.
#[async_trait]
pub trait HostLookup: Debug + Send + Sync + 'static {
    /// All addresses of a host name.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause>;
}

/// A failed request. A status that tells of an error is none; see [`Response::success`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not a URL that can be asked.
    #[error("`{url}` cannot be requested: {reason}")]
    BadUrl {
        /// What was given, without what stands after `?`.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// A header that cannot be sent.
    #[error("the header {name} cannot be sent")]
    BadHeader {
        /// Its name.
        name: String,
    },
    /// `http:` to a host that the user did not name.
    #[error("{host} is asked over https only")]
    Insecure {
        /// The host.
        host: String,
    },
    /// The host has no address that the policy permits.
    #[error("{host} is at {address}, where this network mode does not go")]
    Forbidden {
        /// The host.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// A stranger's redirect to a host that the user named, or out of https.
    #[error("{from} redirects to {to}, which it may not")]
    BadRedirect {
        /// Who redirects.
        from: String,
        /// Where to.
        to: String,
    },
    /// More redirects than the policy permits.
    #[error("{url} redirects more than {limit} times")]
    Redirects {
        /// The first URL.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// The host name has no address.
    #[error("no address of {host} could be found")]
    Unresolved {
        /// The host.
        host: String,
        /// Why; `None` when the name has none.
        source: Option<Cause>,
    },
    /// The connection failed or broke.
    #[error("the connection to {url} failed")]
    Connection {
        /// The URL.
        url: String,
        /// Why.
        source: Cause,
    },
    /// Nothing moved for too long.
    #[error("{url} made no progress for {} seconds", limit.as_secs())]
    Stalled {
        /// The URL.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The body is larger than its bound.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// The body is not the JSON that it should be.
    #[error("the answer of {url} is not the JSON that it should be")]
    BadJson {
        /// The URL.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The client could not be made.
    #[error("the HTTP client could not be set up")]
    Setup {
        /// Why.
        source: Cause,
    },
}

impl HttpError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadUrl { .. } | Self::BadHeader { .. } | Self::Insecure { .. } => ErrorKind::Usage,
            Self::Forbidden { .. } | Self::BadRedirect { .. } | Self::Redirects { .. } => ErrorKind::Access,
            Self::Unresolved { .. } | Self::Connection { .. } | Self::Stalled { .. } => ErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::BadJson { .. } => ErrorKind::Integrity,
            Self::Status { status, .. } => match *status {
                StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Access,
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
                _ => ErrorKind::Failed,
            },
            Self::Setup { .. } => ErrorKind::Failed,
        }
    }
}

/// A URL as it may be shown: without user, password, query and fragment.
fn shown(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[cfg(test)]
mod tests;
