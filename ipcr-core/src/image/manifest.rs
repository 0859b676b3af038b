//! Manifests and indexes of foreign origin: [`parse_manifest`].
//!
//! A document has one meaning or is refused: the media type under which it was offered, the one that it may carry inside
//! and its shape must agree, no member may occur twice in any spelling, and no member of the other kind may be there
//! (CVE-2021-41190: one digest, two meanings). The bytes are kept as they came, because the digest is theirs.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::descriptor::{Descriptor, null_is_default};
use super::media_type;
use crate::kind::ErrorKind;
use crate::limits;

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// One image, or one artifact.
    Manifest(Manifest),
    /// A list of manifests.
    Index(Index),
}

/// One image or artifact (OCI image-spec, "Image Manifest"; Docker schema 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What it says something about.
    pub subject: Option<Descriptor>,
    /// Its type, if it is an artifact.
    pub artifact_type: Option<String>,
    /// Notes of the publisher.
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests (OCI image-spec, "Image Index"; Docker manifest list).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// What it says something about.
    pub subject: Option<Descriptor>,
    /// Its type, if it is an artifact.
    pub artifact_type: Option<String>,
    /// Notes of the publisher.
    pub annotations: BTreeMap<String, String>,
}

/// Why a document is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The document is larger than [`limits::MANIFEST_BYTES`].
    #[error("the manifest has {size} bytes, more than {limit}", limit = limits::MANIFEST_BYTES)]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The document lists more than is accepted.
    #[error("the manifest lists {found} {what}, more than {limit}")]
    TooMany {
        /// Layers or manifests.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are accepted.
        limit: usize,
    },
    /// Nobody here knows this kind of document.
    #[error("`{media_type}` is not a kind of manifest that ipcr reads")]
    Unsupported {
        /// As declared.
        media_type: String,
    },
    /// A manifest of Docker's first schema.
    #[error("the manifest is of Docker's schema 1, which is not read")]
    Schema1,
    /// The media type inside is not the one outside.
    #[error("the manifest is declared as `{declared}` and calls itself `{found}`")]
    MediaType {
        /// As declared.
        declared: String,
        /// As found inside.
        found: String,
    },
    /// A member that makes the document ambiguous.
    #[error("a manifest of type `{media_type}` must not have a member `{member}`")]
    Ambiguous {
        /// As declared.
        media_type: String,
        /// Which.
        member: String,
    },
    /// A member occurs twice, or in another case than the specification's.
    #[error("the member `{member}` of the manifest is repeated or misspelt")]
    Repeated {
        /// Which.
        member: String,
    },
    /// It is not of the declared shape.
    #[error("the manifest is not a valid `{media_type}`")]
    Malformed {
        /// As declared.
        media_type: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Another version of the schema.
    #[error("the manifest has schema version {found} instead of 2")]
    Version {
        /// As found.
        found: u64,
    },
}

impl ManifestError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

impl Parsed {
    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => &manifest.media_type,
            Self::Index(index) => &index.media_type,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Manifest(manifest) => &manifest.bytes,
            Self::Index(index) => &index.bytes,
        }
    }

    /// What it says something about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// Notes of the publisher.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Manifest(manifest) => &manifest.annotations,
            Self::Index(index) => &index.annotations,
        }
    }

    /// The artifact type as the referrers API reports it: the manifest's own, else its configuration's media type (OCI
    /// distribution-spec, "Listing Referrers").
    pub fn artifact_type(&self) -> Option<&str> {
        match self {
            Self::Manifest(manifest) => {
                Some(manifest.artifact_type.as_deref().unwrap_or(manifest.config.media_type.as_str()))
            }
            Self::Index(index) => index.artifact_type.as_deref(),
        }
    }

    /// Everything that it points at and that belongs to it: configuration and layers, or the manifests listed. The subject
    /// does not belong to it.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.blobs().collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }
}

impl Manifest {
    /// Whether it is a container image, not another kind of artifact.
    pub fn is_image(&self) -> bool {
        media_type::is_config(&self.config.media_type)
    }

    /// Configuration and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// Reads a manifest or index that was offered as `declared` (a media type; parameters behind `;` are ignored).
///
/// Which of the two it is follows from `declared` alone; see the module for what is refused.
pub fn parse_manifest(bytes: Bytes, declared: &str) -> Result<Parsed, ManifestError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > limits::MANIFEST_BYTES {
        return Err(ManifestError::TooLarge { size });
    }
    let declared = declared.split(';').next().unwrap_or_default().trim();
    let forbidden: &[&str] = if media_type::is_manifest(declared) {
        &["manifests"]
    } else if media_type::is_index(declared) {
        &["config", "layers"]
    } else {
        if media_type::is_schema1(declared) {
            return Err(ManifestError::Schema1);
        }
        return Err(ManifestError::Unsupported { media_type: declared.chars().take(255).collect() });
    };
    let malformed = |source| ManifestError::Malformed { media_type: declared.to_owned(), source };
    let Members(members) = serde_json::from_slice(&bytes).map_err(malformed)?;
    check_members(&members, forbidden, declared)?;
    if media_type::is_manifest(declared) {
        let wire: WireManifest = serde_json::from_slice(&bytes).map_err(malformed)?;
        check_head(wire.schema_version, wire.media_type.as_deref(), declared)?;
        check_count("layers", wire.layers.len(), limits::COPY_LAYERS)?;
        Ok(Parsed::Manifest(Manifest {
            media_type: declared.to_owned(),
            bytes,
            config: wire.config,
            layers: wire.layers,
            subject: wire.subject,
            artifact_type: wire.artifact_type.filter(|text| !text.is_empty()),
            annotations: wire.annotations,
        }))
    } else {
        let wire: WireIndex = serde_json::from_slice(&bytes).map_err(malformed)?;
        check_head(wire.schema_version, wire.media_type.as_deref(), declared)?;
        check_count("manifests", wire.manifests.len(), limits::INDEX_NODES)?;
        Ok(Parsed::Index(Index {
            media_type: declared.to_owned(),
            bytes,
            manifests: wire.manifests,
            subject: wire.subject,
            artifact_type: wire.artifact_type.filter(|text| !text.is_empty()),
            annotations: wire.annotations,
        }))
    }
}

/// Members whose meaning is fixed. Go's JSON reader takes them in any case, so other spellings are ambiguous.
const KNOWN: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
];

fn check_members(members: &[String], forbidden: &[&str], declared: &str) -> Result<(), ManifestError> {
    let mut seen = Vec::new();
    for member in members {
        let Some(known) = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(member)) else { continue };
        if known != member || seen.contains(known) {
            return Err(ManifestError::Repeated { member: member.clone() });
        }
        seen.push(known);
        if *known == "fsLayers" {
            return Err(ManifestError::Schema1);
        }
        if forbidden.contains(known) {
            return Err(ManifestError::Ambiguous { media_type: declared.to_owned(), member: member.clone() });
        }
    }
    Ok(())
}

fn check_head(version: u64, found: Option<&str>, declared: &str) -> Result<(), ManifestError> {
    match found {
        Some(found) if found != declared => {
            let found = found.chars().take(255).collect();
            return Err(ManifestError::MediaType { declared: declared.to_owned(), found });
        }
        _ => {}
    }
    if version == 2 { Ok(()) } else { Err(ManifestError::Version { found: version }) }
}

fn check_count(what: &'static str, found: usize, limit: usize) -> Result<(), ManifestError> {
    if found <= limit { Ok(()) } else { Err(ManifestError::TooMany { what, found, limit }) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManifest {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(deserialize_with = "null_is_default")]
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIndex {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

/// The names of an object's members, in their order, repetitions included.
struct Members(Vec<String>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Members(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests;
