//! Names of images: [`ImageName`], [`Tag`], both together in [`TargetName`], and names inside engines, [`EngineName`].
//!
//! Source: OCI distribution-spec, "Pulling manifests" (`<name>` and `<reference>`), narrowed by what the registry tree
//! reserves.

use std::fmt;
use std::str::FromStr;

use cid::Cid;

use super::key;
use super::{NameError, Problem, clip};
use crate::limits;

/// `ipfs/<CID>/` before a name takes this much of [`limits::NAME_CHARS`], and no other authority but a long domain more.
const AUTHORITY_CHARS: usize = 65;

/// The name of an image in a registry: one or more components of lower-case letters and digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(String);

impl ImageName {
    /// Longest name, in characters, that can be asked for with any authority before it.
    pub const CHARS: usize = limits::NAME_CHARS - AUTHORITY_CHARS;

    /// Whether a text may name an image. The one rule, for push, tag and the OCI API.
    pub fn check(text: &str) -> Result<(), NameError> {
        check_image(text).map_err(|problem| NameError::new("an image name", text, problem))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

fn check_image(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > ImageName::CHARS {
        return Err(Problem::TooLong { limit: ImageName::CHARS });
    }
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    if !rest.is_empty() && (first == "localhost" || first.contains(['.', ':'])) && !first.starts_with('.') {
        return Err(Problem::HostLike { component: clip(first) });
    }
    let second = rest.split('/').next().unwrap_or_default();
    let is_authority = match first {
        "ipfs" => Cid::try_from(second).is_ok(),
        "ipns" => key::parse(second).is_some(),
        _ => false,
    };
    if key::parse(first).is_some() {
        return Err(Problem::AuthorityLike { text: first.to_owned() });
    }
    if is_authority {
        return Err(Problem::AuthorityLike { text: format!("{first}/{second}") });
    }
    for component in text.split('/') {
        check_component(component)?;
        if component == "tags" {
            return Err(Problem::TagsComponent);
        }
    }
    if matches!(first, "index.html" | "v2") {
        return Err(Problem::Reserved { component: first.to_owned() });
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(component: &str) -> Result<(), Problem> {
    if component.is_empty() {
        return Err(Problem::EmptyComponent);
    }
    if component.starts_with(['_', '.']) {
        return Err(Problem::Reserved { component: clip(component) });
    }
    for character in component.chars() {
        match character {
            'a'..='z' | '0'..='9' | '.' | '_' | '-' => {}
            'A'..='Z' => return Err(Problem::UpperCase { lower: component.to_ascii_lowercase() }),
            character => return Err(Problem::BadCharacter { character }),
        }
    }
    let mut separator = String::new();
    for character in component.chars() {
        if character.is_ascii_alphanumeric() {
            separator.clear();
            continue;
        }
        separator.push(character);
        let good = matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
        if !good {
            return Err(Problem::BadSeparator { component: clip(component) });
        }
    }
    if component.starts_with('-') || !separator.is_empty() {
        return Err(Problem::BadSeparator { component: clip(component) });
    }
    Ok(())
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::check(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// `latest`.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_tag(text).map_err(|problem| NameError::new("a tag", text, problem))?;
        Ok(Self(text.to_owned()))
    }
}

fn check_tag(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    for (at, character) in text.chars().enumerate() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => {}
            '.' | '-' if at > 0 => {}
            character => return Err(Problem::BadCharacter { character }),
        }
    }
    if text.len() > limits::TAG_CHARS {
        return Err(Problem::TooLong { limit: limits::TAG_CHARS });
    }
    Ok(())
}

/// An image of this registry with its tag (`latest` when absent): what `--as NAME:TAG` takes on a push.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName {
    /// The image.
    pub image: ImageName,
    /// The tag.
    pub tag: Tag,
}

impl TargetName {
    /// What an image that an engine or an archive calls `text` is called in this registry: the name without its
    /// registry host and digest, and without what Docker Hub puts before names of one component.
    pub fn from_engine(text: &str) -> Result<Self, NameError> {
        let name = text.split_once('@').map_or(text, |(name, _)| name);
        let bare = match name.split_once('/') {
            Some(("docker.io", path)) => path.strip_prefix("library/").unwrap_or(path),
            Some((host, path)) if is_host(host) => path,
            _ => name,
        };
        bare.parse().map_err(|error: NameError| NameError { text: clip(text), ..error })
    }
}

/// Whether the first component of a Docker name is a registry host.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

impl FromStr for TargetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrap = |error: NameError| NameError::new("a name for an image of this registry", text, error.problem);
        let (image, tag) = match text.rsplit_once(':') {
            Some((image, tag)) if !tag.contains('/') => (image, tag.parse().map_err(wrap)?),
            _ => (text, Tag::latest()),
        };
        Ok(Self { image: image.parse().map_err(wrap)?, tag })
    }
}

/// A name inside a container engine: `[HOST[:PORT]/]path[:tag]`, with `latest` filled in. It is not resolved by anyone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineName(String);

impl EngineName {
    /// Its text, always with a tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EngineName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrap = |problem| NameError::new("a name for an image in an engine", text, problem);
        if text.len() > limits::NAME_CHARS + 1 + limits::TAG_CHARS {
            return Err(wrap(Problem::TooLong { limit: limits::NAME_CHARS }));
        }
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag.parse().map_err(|e: NameError| wrap(e.problem))?),
            _ => (text, Tag::latest()),
        };
        let path = match name.split_once('/') {
            Some((host, path)) if is_host(host) => {
                check_host(host).map_err(wrap)?;
                path
            }
            _ => name,
        };
        for component in path.split('/') {
            check_component(component).map_err(wrap)?;
        }
        Ok(Self(format!("{name}:{tag}")))
    }
}

fn check_host(text: &str) -> Result<(), Problem> {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err(Problem::BadLabel { label: clip(text) });
    }
    for label in host.split('.') {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if label.is_empty() || !inner || label.starts_with('-') || label.ends_with('-') {
            return Err(Problem::BadLabel { label: clip(label) });
        }
    }
    Ok(())
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.image, self.tag)
    }
}

macro_rules! shown_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

shown_as_text!(EngineName, ImageName, Tag);
