//! Why a text is no name.

use crate::digest::ParseDigestError;
use crate::kind::ErrorKind;

/// Text that is not the name it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}: {problem}")]
pub struct NameError {
    /// What was wanted, with its article: `a tag`.
    pub wanted: &'static str,
    /// What was given, cut after 160 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl NameError {
    pub(super) fn new(wanted: &'static str, text: &str, problem: Problem) -> Self {
        Self { wanted, text: super::clip(text), problem }
    }

    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// It is longer than allowed.
    #[error("it is longer than {limit} characters")]
    TooLong {
        /// The limit, in characters.
        limit: usize,
    },
    /// Names are lower case.
    #[error("upper-case letters are not allowed in image names (`{lower}` would be)")]
    UpperCase {
        /// The same in lower case.
        lower: String,
    },
    /// A character that may not occur there.
    #[error("the character {character:?} is not allowed")]
    BadCharacter {
        /// Which.
        character: char,
    },
    /// Components are letters and digits, with single `.`, one or two `_`, or any number of `-` between them.
    #[error("in `{component}` each of . _ __ - must stand between letters or digits")]
    BadSeparator {
        /// Where.
        component: String,
    },
    /// Two slashes in a row, or one at an end.
    #[error("a component between slashes is empty")]
    EmptyComponent,
    /// Used by the registry tree itself.
    #[error("`{component}` is reserved")]
    Reserved {
        /// Which.
        component: String,
    },
    /// Would be confused with the folder that holds tags.
    #[error("no component may be `tags` (write `image:tag`, not `image/tags/tag`)")]
    TagsComponent,
    /// Would be read as a host.
    #[error("the first of several components, `{component}`, looks like a host")]
    HostLike {
        /// Which.
        component: String,
    },
    /// `ipfs/<CID>` or `ipns/<key>` names an authority, not an image.
    #[error("`{text}` is an authority, not an image name")]
    AuthorityLike {
        /// Which.
        text: String,
    },
    /// An image is needed.
    #[error("the name of an image is missing")]
    MissingImage,
    /// A registry is meant, and something follows it.
    #[error("a path follows the registry")]
    UnexpectedPath,
    /// The text after `@`.
    #[error(transparent)]
    Digest(ParseDigestError),
    /// A domain has at least two labels.
    #[error("a domain needs a dot")]
    NoDot,
    /// Authorities have no port.
    #[error("an authority has no port (another registry is written `docker://{host}:PORT/NAME`)")]
    Port {
        /// The text before the port.
        host: String,
    },
    /// An address is no domain.
    #[error("an IP address is not a domain")]
    IpAddress,
    /// International names are written in their ASCII form.
    #[error("write an international domain in its ASCII form (xn--…)")]
    NotAscii,
    /// A label that DNS does not allow in host names.
    #[error("`{label}` is not a valid label of a host name")]
    BadLabel {
        /// Which.
        label: String,
    },
    /// After `/ipfs/`.
    #[error("`{text}` is not a CID")]
    NotACid {
        /// What stands there.
        text: String,
    },
    /// No spelling of a key.
    #[error("it is no spelling of a public key (k51…, k2k4…, 12D3Koo…, 16Uiu2…, Qm…, did:key:z…)")]
    NotAKey,
    /// A DID of another method.
    #[error("only did:key and did:web are understood")]
    DidMethod,
    /// A `did:key` of a kind that signs no names.
    #[error("the key in this did:key cannot sign names ({what})")]
    DidKey {
        /// What it is, or what is wrong with it.
        what: String,
    },
    /// `did:web` with a port, a path, a query or a fragment.
    #[error("only did:web:<domain> is understood, without port or path")]
    DidWeb,
}
