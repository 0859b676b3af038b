//! The JSON files that ipcr defines: `registry.json`, catalogue shards and `_image.json` (docs/format.md, sections 4-6).
//!
//! Members that this version does not know are kept where they were found.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::TreeError;
use crate::digest::Digest;

/// The version of the tree that is written.
pub const FORMAT: u64 = 1;

/// `/_ipcr/registry.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryDocument {
    /// The version of the tree.
    pub format: u64,
    /// The registry's key as a DID.
    pub did: String,
    /// The same as an IPNS name.
    pub ipns: String,
    /// A title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The domain that the publisher gives to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Recipients of data for the owner.
    #[serde(default)]
    pub key_agreement: Vec<String>,
    /// How much there is.
    #[serde(default)]
    pub counts: Counts,
    /// First components of image names that other registries answer for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Multiaddrs of nodes that hold the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// What is in it of the homes that have its key, the one that changed it last at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub homes: Vec<HomeRow>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The last change of a home that a registry holds; all before it are in it, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeRow {
    /// The home's id, 16 hexadecimal digits.
    pub home: String,
    /// The number of the change, from 1.
    pub change: u64,
    /// What the change was, in short (8 hexadecimal digits): a copy of the home may have made another one of this number.
    pub mark: String,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `/_ipcr/handovers.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HandoversDocument {
    /// The version of the tree.
    pub format: u64,
    /// [`Handover`](crate::naming::handover::Handover)s, oldest first, each with what this version does not know of it.
    pub handovers: Vec<Value>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How much a registry holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Images.
    pub images: u64,
    /// Tags of all images.
    pub tags: u64,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `/_ipcr/catalogue/<xx>.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogueShard {
    /// The version of the tree.
    pub format: u64,
    /// One row per image.
    pub images: BTreeMap<String, CatalogueRow>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One image of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogueRow {
    /// The one line about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tag that was pushed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Bytes of all blobs of the newest tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When the newest tag was pushed.
    #[serde(default, with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub updated: Option<DateTime<Utc>>,
    /// How many tags there are.
    pub tags: u64,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `/<image>/_image.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// The version of the tree.
    pub format: u64,
    /// The image.
    pub name: String,
    /// The one line about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the tags name.
    pub tags: BTreeMap<String, TagRow>,
    /// All manifests and indexes that the image's folders reach.
    pub manifests: BTreeMap<Digest, ManifestRow>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TagRow {
    /// A manifest or an index.
    pub digest: Digest,
    /// When it was pushed.
    #[serde(with = "time")]
    pub pushed: DateTime<Utc>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A manifest or index of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestRow {
    /// A folder below the image that holds it.
    pub folder: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// Its type, if it is no container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platforms of the images that it reaches.
    pub platforms: Vec<String>,
    /// Bytes of itself and of everything that it reaches.
    pub total: u64,
    /// The manifests that it reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Digest>,
    /// The encoding of each layer; empty when all are opaque.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<String>,
    /// Bytes of the decompressed layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_size: Option<u64>,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// When it was pushed by digest.
    #[serde(default, with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub pushed: Option<DateTime<Utc>>,
    /// Tags that named it and were moved away or removed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ManifestRow {
    /// Whether it has a folder of its own among the manifests without a tag.
    pub fn has_own_folder(&self) -> bool {
        self.pushed.is_some() || !self.left.is_empty()
    }
}

/// `_layers.json` of a tag folder: what the manifests do not say about the layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayersDocument {
    /// Version of the format, 1.
    pub format: u64,
    /// Bytes of compressed layers once they are decompressed, by the digest under which they lie in the folder.
    pub plain_sizes: BTreeMap<Digest, u64>,
}

/// A tag that was moved away or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// Which.
    pub tag: String,
    /// When it had been pushed.
    #[serde(with = "time")]
    pub pushed: DateTime<Utc>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A JSON file with a version.
pub(super) trait Document: Serialize + DeserializeOwned {
    fn format(&self) -> u64;
}

macro_rules! documents {
    ($($type:ty),*) => {$(
        impl Document for $type {
            fn format(&self) -> u64 {
                self.format
            }
        }
    )*};
}

documents!(RegistryDocument, HandoversDocument, CatalogueShard, ImageDocument, LayersDocument);

/// Reads a document for reading only: newer formats are read as far as they are understood.
pub(super) fn parse<T: Document>(path: &str, bytes: &[u8]) -> Result<T, TreeError> {
    serde_json::from_slice(bytes).map_err(|source| TreeError::Json { path: path.to_owned(), source })
}

/// Reads a document that is going to be changed.
pub(super) fn parse_for_writing<T: Document>(path: &str, bytes: &[u8]) -> Result<T, TreeError> {
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let version: Version =
        serde_json::from_slice(bytes).map_err(|source| TreeError::Json { path: path.to_owned(), source })?;
    if version.format != FORMAT {
        return Err(TreeError::NewerFormat { path: path.to_owned(), found: version.format });
    }
    let document: T = parse(path, bytes)?;
    debug_assert_eq!(document.format(), FORMAT, "the version was read twice");
    Ok(document)
}

/// Writes a document without white space.
pub(super) fn write<T: Document>(document: &T) -> Bytes {
    serde_json::to_vec(document).expect("maps with text keys are written to memory without failing").into()
}

/// For `fuzzing`: the JSON files of a registry.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    fn round_trip<T: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        match parse::<T>("document", bytes) {
            Ok(document) => {
                let again: T = parse("document", &write(&document)).expect("what was written is a document");
                assert_eq!(again, document, "a document comes back");
            }
            Err(error) => assert_eq!(error.kind(), crate::kind::ErrorKind::Integrity, "{error}"),
        }
    }
    round_trip::<RegistryDocument>(bytes);
    round_trip::<HandoversDocument>(bytes);
    round_trip::<CatalogueShard>(bytes);
    round_trip::<ImageDocument>(bytes);
    round_trip::<LayersDocument>(bytes);
}

/// Times as the format spells them: `2026-11-23T12:00:00Z`.
pub(super) mod time {
    use std::borrow::Cow;

    use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::tree) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true))
    }

    pub(in crate::tree) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(time.to_utc().trunc_subsecs(0))
    }
}

mod optional_time {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super::time")] DateTime<Utc>);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_survive() {
        let text = concat!(
            r#"{"format":1,"name":"app","tags":{"1":{"digest":"#,
            r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","#,
            r#""pushed":"2026-11-23T12:00:00Z","lock":true}},"manifests":{},"future":{"a":[1]}}"#,
        );
        let document: ImageDocument = parse_for_writing("_image.json", text.as_bytes()).unwrap();
        assert_eq!(std::str::from_utf8(&write(&document)).unwrap(), text);
    }

    #[test]
    fn newer_formats_are_read_but_not_edited() {
        let text = br#"{"format":2,"images":{}}"#;
        assert!(parse::<CatalogueShard>("x", text).is_ok());
        let refused = parse_for_writing::<CatalogueShard>("x", text);
        assert!(matches!(refused, Err(TreeError::NewerFormat { found: 2, .. })));
        // A future format may look different altogether.
        let refused = parse_for_writing::<CatalogueShard>("x", br#"{"format":2,"images":[]}"#);
        assert!(matches!(refused, Err(TreeError::NewerFormat { found: 2, .. })));
    }
}
