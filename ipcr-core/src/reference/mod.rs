//! Names: references to images, authorities, image names, tags, domains and keys.
//!
//! ```text
//! reference = [authority "/"] image [":" tag] ["@" digest]        prefixes /ipfs/ /ipns/ ipfs:// ipns:// accepted
//! authority = domain | key | "ipfs/" CID
//! ```
//!
//! * [`Reference`], what a user writes; [`Authority`], whose registry it speaks of.
//! * [`name`]: [`ImageName`], [`Tag`], [`TargetName`] (`--as`), [`EngineName`].
//! * [`domain`]: [`Domain`]. [`key`]: [`IpnsName`] in all its spellings. [`did`]: `did:key` and `did:web`.
//!
//! Everything here is a parsed type: once made it is well-formed, and its `Display` parses back to the same value. No
//! text that is not one of these becomes part of a path. All parse errors are [`NameError`]s: the text, what it should
//! have been, and the exact [`Problem`].

pub mod did;
pub mod domain;
mod error;
pub mod key;
pub mod name;

use std::fmt;
use std::str::FromStr;

use cid::Cid;

pub use domain::Domain;
pub use error::{NameError, Problem};
pub use key::IpnsName;
pub use name::{EngineName, ImageName, Tag, TargetName};

use crate::dag::block::LIBP2P_KEY;
use crate::digest::Digest;
use crate::limits;

/// Longest reference, in bytes: the name, a tag and a digest, and a `did:key` of an RSA key.
const REFERENCE_BYTES: usize = 2048;

/// Whose registry a reference speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Authority {
    /// A domain with a DNSLink.
    Domain(Domain),
    /// A key: the IPNS name itself.
    Key(IpnsName),
    /// `did:web:<domain>`: the same as the domain, spelt as a DID.
    DidWeb(Domain),
    /// `ipfs/<CID>`: immutable content.
    Cid(Cid),
}

impl Authority {
    /// The domain, for [`Authority::Domain`] and [`Authority::DidWeb`].
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) | Self::DidWeb(domain) => Some(domain),
            _ => None,
        }
    }

    /// The key, for [`Authority::Key`].
    pub fn key(&self) -> Option<&IpnsName> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }

    /// The spelling that the OCI API takes: lower case only (the domain, `k51…`, `ipfs/` and a CIDv1 in base32).
    pub fn oci(&self) -> String {
        match self {
            Self::Domain(domain) | Self::DidWeb(domain) => domain.to_string(),
            Self::Key(key) => key.to_string(),
            Self::Cid(cid) => format!("ipfs/{}", lower_case(cid)),
        }
    }
}

/// The CIDv1 of the same content in base32, which has no upper-case letters.
fn lower_case(cid: &Cid) -> Cid {
    match cid.version() {
        cid::Version::V0 => Cid::new_v1(cid.codec(), *cid.hash()),
        cid::Version::V1 => *cid,
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Key(key) => key.fmt(f),
            Self::DidWeb(domain) => write!(f, "did:web:{domain}"),
            Self::Cid(cid) => write!(f, "ipfs/{cid}"),
        }
    }
}

impl FromStr for Authority {
    type Err = NameError;

    /// A domain, a key in any spelling, a `did:web`, `ipfs/<CID>`, each with the prefixes of a reference.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrap = |problem| NameError::new("a registry", text, problem);
        let (prefix, rest) = split_prefix(text);
        let (authority, rest) = take_authority(prefix, rest).map_err(wrap)?;
        match authority {
            Some(authority) if rest.is_none_or(str::is_empty) => Ok(authority),
            Some(_) => Err(wrap(Problem::UnexpectedPath)),
            None => text.parse::<Domain>().map(Self::Domain).map_err(|error| wrap(error.problem)),
        }
    }
}

/// The name of an image, a tag folder or a whole registry, here or anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Whose registry; `None` is this one.
    pub authority: Option<Authority>,
    /// Which image. `None` only with an authority: the registry itself, or what the CID is.
    pub image: Option<ImageName>,
    /// The tag as written. See [`Reference::tag_or_latest`].
    pub tag: Option<Tag>,
    /// The digest as written; it wins over the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// An image of this registry.
    pub fn local(image: ImageName, tag: Tag) -> Self {
        Self { authority: None, image: Some(image), tag: Some(tag), digest: None }
    }

    /// The tag that is meant: the one written, `latest` when there is neither tag nor digest, `None` with a digest alone.
    pub fn tag_or_latest(&self) -> Option<Tag> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag.clone()),
            (None, None) => Some(Tag::latest()),
            (None, Some(_)) => None,
        }
    }

    /// The image, or the error that one is needed.
    pub fn require_image(&self) -> Result<&ImageName, NameError> {
        self.image
            .as_ref()
            .ok_or_else(|| NameError::new("a reference to an image", &self.to_string(), Problem::MissingImage))
    }

    /// The same reference without its authority if that is one of these, which makes `own.domain/app` and `app` equal.
    #[must_use]
    pub fn relative_to(mut self, own_domain: Option<&Domain>, own_key: Option<&IpnsName>) -> Self {
        let own = match &self.authority {
            Some(Authority::Domain(domain) | Authority::DidWeb(domain)) => Some(domain) == own_domain,
            Some(Authority::Key(key)) => Some(key) == own_key,
            _ => false,
        };
        if own && self.image.is_some() {
            self.authority = None;
        }
        self
    }
}

impl From<TargetName> for Reference {
    fn from(name: TargetName) -> Self {
        Self::local(name.image, name.tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(authority) = &self.authority {
            authority.fmt(f)?;
            if self.image.is_some() || matches!(authority, Authority::Domain(_)) {
                f.write_str("/")?;
            }
        }
        if let Some(image) = &self.image {
            image.fmt(f)?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| NameError::new("a reference", text, problem))
    }
}

/// A leading `/ipfs/` or the like, which says what comes after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Ipfs,
    Ipns,
}

fn split_prefix(text: &str) -> (Prefix, &str) {
    let prefixes =
        [("/ipfs/", Prefix::Ipfs), ("ipfs://", Prefix::Ipfs), ("/ipns/", Prefix::Ipns), ("ipns://", Prefix::Ipns)];
    for (spelling, prefix) in prefixes {
        if let Some(rest) = text.strip_prefix(spelling) {
            return (prefix, rest);
        }
    }
    (Prefix::None, text)
}

/// Takes an authority from the front; what follows its slash, if there was one.
fn take_authority(prefix: Prefix, text: &str) -> Result<(Option<Authority>, Option<&str>), Problem> {
    let (first, rest) = match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    match prefix {
        Prefix::Ipfs => {
            let (cid, rest) = take_cid(text).ok_or_else(|| Problem::NotACid { text: clip(first) })?;
            return Ok((Some(cid), rest));
        }
        Prefix::Ipns => {
            if let Some((key, rest)) = take_key(first, rest)? {
                return Ok((Some(key), rest));
            }
            let (first, rest) = cut_suffix(first, rest);
            let domain = first.parse::<Domain>().map_err(|error| error.problem)?;
            return Ok((Some(Authority::Domain(domain)), rest));
        }
        Prefix::None => {}
    }
    if first == "ipfs"
        && let Some(after) = rest
        && let Some((cid, rest)) = take_cid(after)
    {
        return Ok((Some(cid), rest));
    }
    if let Some((key, rest)) = take_key(first, rest)? {
        return Ok((Some(key), rest));
    }
    let Some(rest) = rest else { return Ok((None, Some(text))) };
    if first == "localhost" {
        return Err(Problem::NoDot);
    }
    if let Some((host, _)) = first.split_once(':') {
        return Err(Problem::Port { host: clip(host) });
    }
    if first.contains('.') && !first.starts_with('.') {
        let domain = first.parse::<Domain>().map_err(|error| error.problem)?;
        return Ok((Some(Authority::Domain(domain)), Some(rest)));
    }
    Ok((None, Some(text)))
}

/// What an authority without a slash is followed by: nothing, or a tag or digest.
fn cut_suffix<'a>(first: &'a str, rest: Option<&'a str>) -> (&'a str, Option<&'a str>) {
    match (rest, first.find([':', '@'])) {
        (None, Some(at)) => (&first[..at], Some(&first[at..])),
        _ => (first, rest),
    }
}

fn take_cid(text: &str) -> Option<(Authority, Option<&str>)> {
    let end = text.find(['/', ':', '@']).unwrap_or(text.len());
    let cid = Cid::try_from(&text[..end]).ok()?;
    if cid.codec() == LIBP2P_KEY {
        return None;
    }
    let rest = &text[end..];
    Some((Authority::Cid(cid), (!rest.is_empty()).then(|| rest.strip_prefix('/').unwrap_or(rest))))
}

fn take_key<'a>(first: &'a str, rest: Option<&'a str>) -> Result<Option<(Authority, Option<&'a str>)>, Problem> {
    if let Some(method) = first.strip_prefix("did:") {
        let authority = if let Some(host) = method.strip_prefix("web:") {
            Authority::DidWeb(did::web_domain(host)?)
        } else {
            Authority::Key(did::from_did_key(first)?)
        };
        return Ok(Some((authority, rest)));
    }
    Ok(key::parse(first).map(|key| (Authority::Key(key), rest)))
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > REFERENCE_BYTES {
        return Err(Problem::TooLong { limit: REFERENCE_BYTES });
    }
    let (prefix, rest) = split_prefix(text);
    let (authority, rest) = take_authority(prefix, rest)?;
    let (rest, digest) = match rest.unwrap_or_default().split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(Problem::Digest)?)),
        None => (rest.unwrap_or_default(), None),
    };
    // A colon before the last slash is no tag.
    let colon = rest.rfind(':').filter(|at| !rest[*at..].contains('/'));
    let (path, tag) = match colon {
        Some(at) => (&rest[..at], Some(rest[at + 1..].parse::<Tag>().map_err(|error| error.problem)?)),
        None => (rest, None),
    };
    let image = match (&authority, path) {
        (None, "") => return Err(Problem::MissingImage),
        (Some(_), "") => None,
        (_, path) => Some(path.parse::<ImageName>().map_err(|error| error.problem)?),
    };
    if let Some(authority) = &authority {
        let whole = authority.oci().len() + image.as_ref().map_or(0, |image| 1 + image.as_str().len());
        if whole > limits::NAME_CHARS {
            return Err(Problem::TooLong { limit: limits::NAME_CHARS });
        }
        if image.is_none() && !matches!(authority, Authority::Cid(_)) && (tag.is_some() || digest.is_some()) {
            return Err(Problem::MissingImage);
        }
    }
    Ok(Reference { authority, image, tag, digest })
}

/// The beginning of foreign text, for messages.
fn clip(text: &str) -> String {
    text.chars().take(160).collect()
}

/// Serialises a type as its text and reads it back through its parser.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Authority, Domain, EngineName, ImageName, IpnsName, Reference, Tag, TargetName);

#[cfg(test)]
mod tests;
