//! Spellings of sources and sinks on a command line: [`ImageSpec`].
//!
//! ```text
//! docker-daemon:NAME  docker:NAME       the container engine (its discovery is `engine`'s affair)
//! podman:NAME                           Podman
//! oci:DIR[:REF]                         an OCI image layout
//! oci-archive:FILE[:REF]                the same as a tar file
//! docker-archive:FILE[:REF]             what `docker save` writes
//! docker://HOST/NAME[:TAG|@DIGEST]      an OCI registry
//! -                                     an archive on standard input or output
//! ipcr:REF                              an ipcr reference
//! none                                  nowhere: only into the own store (sinks only)
//! ```
//! **A bare name is an engine image as the source of a push, and an ipcr reference everywhere else**: hence three
//! functions, one per position. A known prefix always wins, so that an engine image called `oci` is `docker:oci:1`.
//!
//! Paths end at their first colon, as in containers-transports(5): a path with a colon in it cannot be spelled. Nothing
//! is looked up here, and whether a reference is a good one is for the module to say that follows it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::engine::EngineKind;

/// A source or sink as the user spelled it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageSpec {
    /// `docker-daemon:NAME`, `docker:NAME`, `podman:NAME`.
    Engine {
        /// Which engine.
        kind: EngineKind,
        /// The image's name or ID there. Always present in a source; a sink may leave it open.
        name: Option<String>,
    },
    /// `oci:DIR[:REF]`.
    OciLayout {
        /// The folder.
        dir: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:REF]`.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:REF]`.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `docker://HOST/NAME[:TAG|@DIGEST]`.
    Registry(RegistryRef),
    /// `-`: an archive on standard input or output.
    Stream,
    /// `ipcr:REF` or a bare reference, not parsed yet.
    Ipcr(String),
    /// `none`: only into the own store.
    Nowhere,
}

/// An image in an OCI registry: `HOST/NAME[:TAG|@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRef {
    /// Host name or address, with its port if one was given; `docker.io` for Docker Hub.
    pub host: String,
    /// The repository, without host; `library/` has been added to Docker Hub's one-component names.
    pub repository: String,
    /// The tag or digest.
    pub version: Version,
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that a tag names; `latest` when nothing was given.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

/// A spelling that is no source or sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{spec}`: {reason}")]
pub struct SpecError {
    /// What was given, shortened.
    pub spec: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SpecError {
    /// Its class: always [`ErrorKind::Usage`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

/// Where on the command line a spelling stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    PushSource,
    Source,
    Sink,
}

impl ImageSpec {
    /// The source of a push: a bare name is an engine image.
    pub fn push_source(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, Position::PushSource)
    }

    /// Any other source: a bare name is an ipcr reference.
    pub fn source(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, Position::Source)
    }

    /// A sink: a bare name is an ipcr reference, an engine's image name may be missing (`podman:`), and `none` is allowed.
    pub fn sink(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, Position::Sink)
    }

    fn parse(text: &str, position: Position) -> Result<Self, SpecError> {
        let refuse = |reason| SpecError { spec: text.chars().take(200).collect(), reason };
        if text.is_empty() {
            return Err(refuse("nothing is given"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("control characters are not allowed"));
        }
        if let Some(rest) = text.strip_prefix("docker://") {
            return rest.parse().map(Self::Registry).map_err(|error: SpecError| refuse(error.reason));
        }
        let engine = |kind, name: &str| match (name, position) {
            ("", Position::Sink) => Ok(Self::Engine { kind, name: None }),
            ("", _) => Err(refuse("the name of an image is missing after the prefix")),
            _ if is_engine_name(name) => Ok(Self::Engine { kind, name: Some(name.into()) }),
            _ => Err(refuse("this is not the name or ID of an image in a container engine")),
        };
        let file = |rest: &str| {
            let (path, name) = rest.split_once(':').unwrap_or((rest, ""));
            match (path, name) {
                ("", _) => Err(refuse("a path is missing after the prefix")),
                (_, "") => Ok((PathBuf::from(path), None)),
                _ if is_layout_name(name) => Ok((PathBuf::from(path), Some(name.to_owned()))),
                _ => Err(refuse("what follows the second colon is no reference (paths cannot contain colons)")),
            }
        };
        match text.split_once(':') {
            Some(("docker-daemon" | "docker", name)) => return engine(EngineKind::Docker, name),
            Some(("podman", name)) => return engine(EngineKind::Podman, name),
            Some(("oci", rest)) => return file(rest).map(|(dir, name)| Self::OciLayout { dir, name }),
            Some(("oci-archive", rest)) => return file(rest).map(|(file, name)| Self::OciArchive { file, name }),
            Some(("docker-archive", rest)) => return file(rest).map(|(file, name)| Self::DockerArchive { file, name }),
            Some(("ipcr", "")) => return Err(refuse("a reference is missing after the prefix")),
            Some(("ipcr", rest)) => return Ok(Self::Ipcr(rest.into())),
            Some((scheme, rest)) if rest.starts_with("//") && !matches!(scheme, "ipfs" | "ipns") => {
                return Err(refuse("an unknown prefix (registries are written docker://HOST/NAME)"));
            }
            _ => {}
        }
        match (text, position) {
            ("-", _) => Ok(Self::Stream),
            ("none", Position::Sink) => Ok(Self::Nowhere),
            ("none", _) => Err(refuse("`none` can only be a sink")),
            (_, Position::PushSource) => engine(EngineKind::Docker, text),
            _ => Ok(Self::Ipcr(text.into())),
        }
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut with_name = |prefix: &str, path: &PathBuf, name: &Option<String>| {
            write!(f, "{prefix}:{}", path.display())?;
            name.iter().try_for_each(|name| write!(f, ":{name}"))
        };
        match self {
            Self::OciLayout { dir, name } => with_name("oci", dir, name),
            Self::OciArchive { file, name } => with_name("oci-archive", file, name),
            Self::DockerArchive { file, name } => with_name("docker-archive", file, name),
            Self::Engine { kind: EngineKind::Podman, name } => write!(f, "podman:{}", name.as_deref().unwrap_or("")),
            Self::Engine { name, .. } => write!(f, "docker-daemon:{}", name.as_deref().unwrap_or("")),
            Self::Registry(registry) => write!(f, "docker://{registry}"),
            Self::Stream => f.write_str("-"),
            Self::Ipcr(reference) => write!(f, "ipcr:{reference}"),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

impl RegistryRef {
    /// What an engine's name for an image stands for in a registry. Names without a host are Docker Hub's; those under
    /// `localhost/` are how Podman calls images that are in no registry.
    pub fn of_engine(name: &str) -> Option<Self> {
        match name.split_once('/') {
            Some(("localhost", _)) => None,
            Some((host, _)) if host.contains(['.', ':']) => name.parse().ok(),
            _ => format!("docker.io/{name}").parse().ok(),
        }
    }
}

impl FromStr for RegistryRef {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| SpecError { spec: text.chars().take(200).collect(), reason };
        let no_host =
            || refuse("a registry image is written docker://HOST/NAME, e.g. docker://docker.io/library/alpine");
        let (host, rest) = text.split_once('/').ok_or_else(no_host)?;
        if !(host.contains('.') || host.contains(':') || host == "localhost") || !is_host(host) {
            return Err(no_host());
        }
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let (name, version) = if let Some((name, digest)) = rest.split_once('@') {
            let digest = digest.parse().map_err(|_| refuse("what follows `@` is not a digest"))?;
            (name, Version::Digest(digest))
        } else if let Some((name, tag)) = rest.split_once(':') {
            if !is_tag(tag) {
                return Err(refuse("what follows the last colon is not a tag"));
            }
            (name, Version::Tag(tag.into()))
        } else {
            (rest, Version::Tag("latest".into()))
        };
        if name.contains(':') {
            return Err(refuse("give a tag or a digest, not both"));
        }
        if !is_repository(name) || host.len() + 1 + name.len() > limits::NAME_CHARS {
            return Err(refuse(
                "the repository's name is not valid (lower-case letters, digits, `.`, `_`, `-` and `/`)",
            ));
        }
        let hub_official = host == "docker.io" && !name.contains('/');
        let repository = if hub_official { format!("library/{name}") } else { name.into() };
        Ok(Self { host: host.into(), repository, version })
    }
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.repository, self.version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// A name or ID that can stand in an engine's URL: no empty or `..` component, no character with a meaning there.
pub(crate) fn is_engine_name(name: &str) -> bool {
    let character = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    name.bytes().all(character)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.split('/').all(|component| !component.is_empty() && !component.starts_with('.'))
        && name.len() <= limits::NAME_CHARS + 2 * limits::TAG_CHARS
}

/// A `org.opencontainers.image.ref.name` (OCI image-spec, "Pre-Defined Annotation Keys"): components of letters and digits
/// with separators between them.
fn is_layout_name(name: &str) -> bool {
    let component = |component: &str| {
        let ends = [component.bytes().next(), component.bytes().last()];
        ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
            && component.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:@+".contains(&b))
    };
    name.split('/').all(component)
}

fn is_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// OCI distribution-spec, "Pulling manifests": `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.len() <= limits::TAG_CHARS
}

/// OCI distribution-spec, "Pulling manifests": `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`.
fn is_repository(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |component: &str| {
        let bytes = component.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let separators = component.split(|c: char| alnum(u8::try_from(c).unwrap_or(b'!'))).filter(|s| !s.is_empty());
        ends.iter().all(|end| end.is_some_and(|b| alnum(*b)))
            && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
    };
    name.split('/').all(component)
}

#[cfg(test)]
mod tests;
