//! `docker://`: images in OCI registries (OCI distribution-spec 1.1).
//!
//! * [`credentials`]: what Docker's configuration says about a registry's user.
//! * [`source`]: [`source::RegistrySource`]. [`sink`]: [`sink::RegistrySink`].
//! * `client`: the calls; `auth`: challenges, realms and tokens.
//!
//! Guarantees: registries are asked over https, those on this machine over http. Credentials go to the registry for
//! which they were given and to a token server of the same site, over https (on loopback also http); never behind a redirect,
//! never to a host that an answer merely names (CVE-2020-15157 and its successors). Every document is bounded, and so
//! is every blob, by the size that its descriptor tells. Whether a blob is what its digest says is checked by whoever reads it;
//! manifests are checked here.

pub mod credentials;
pub mod sink;
pub mod source;

mod auth;
mod challenge;
mod client;

use credentials::Login;

/// How a registry is talked to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Who to be there; anonymous if `None`.
    pub login: Option<Login>,
    /// Hosts of token servers that are trusted with the credentials although they are of another site than the registry.
    pub realms: Vec<String>,
}

/// A registry's failure, as the cause of [`crate::port::image::ImageError::Remote`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The request failed before there was an answer.
    #[error(transparent)]
    Http(#[from] crate::net::HttpError),
    /// The registry answered with an error.
    #[error("the registry answered {status}{message}")]
    Answer {
        /// The status.
        status: u16,
        /// What it said, in front of it `: `.
        message: String,
    },
    /// The token server is none that gets credentials for this registry.
    #[error("the registry sends to {realm} for a token, which is not of its site")]
    Realm {
        /// The URL.
        realm: String,
    },
    /// The registry asks for a way to log in that is not known.
    #[error("the registry asks for a way to log in that is not supported: {challenge}")]
    Challenge {
        /// What it asks for.
        challenge: String,
    },
    /// The answer is not one of a registry.
    #[error("the answer is not one of a registry: {reason}")]
    Protocol {
        /// What is wrong.
        reason: &'static str,
    },
}

impl RegistryError {
    /// Its class.
    pub fn kind(&self) -> crate::kind::ErrorKind {
        use crate::kind::ErrorKind;
        match self {
            Self::Http(error) => error.kind(),
            Self::Answer { status: 401 | 403, .. } | Self::Realm { .. } | Self::Challenge { .. } => ErrorKind::Access,
            Self::Answer { status: 404 | 410, .. } => ErrorKind::NotFound,
            Self::Answer { status: 429 | 500.., .. } => ErrorKind::Unavailable,
            Self::Answer { .. } => ErrorKind::Failed,
            Self::Protocol { .. } => ErrorKind::Integrity,
        }
    }
}
