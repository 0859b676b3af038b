//! How operations are asked for. All options have defaults and may grow.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::dag::compression::Compression;
use crate::digest::Digest;
use crate::identity::bundle::Bundle;
use crate::image::platform::Platform;
use crate::reference::{ImageName, TargetName};

/// Options of a push.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PushOptions {
    /// The name and tag to publish under; else what the source says.
    pub target: Option<TargetName>,
    /// A one-line description of the image, at most 1,024 bytes.
    pub description: Option<String>,
    /// The image's README (Markdown), at most 256 KiB.
    pub readme: Option<String>,
    /// Keeps one platform of an index only.
    pub platform: Option<Platform>,
    /// How layers are compressed that have no manifest to keep.
    pub compression: Compression,
    /// Compresses layers anew although there is a manifest; the digest changes.
    pub recompress: bool,
    /// Options of the change to the registry.
    pub publish: PublishOptions,
}

/// Options of every change to the registry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishOptions {
    /// Signs a record and hands it out; otherwise the change waits for the next publish.
    pub publish: bool,
    /// Overwrites a tag that another home with this key changed too.
    pub force: bool,
    /// How long to wait, at most, until another node holds what was published. Zero: not at all.
    pub wait: Duration,
    /// The time to write into the registry instead of now.
    pub time: Option<DateTime<Utc>>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self { publish: true, force: false, wait: Duration::ZERO, time: None }
    }
}

/// Options of a pull.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// The platform to deliver; else the sink's.
    pub platform: Option<Platform>,
    /// Delivers all platforms and what refers to them; refused by sinks that take one platform only.
    pub all_platforms: bool,
    /// The image's name in the sink.
    pub name: Option<String>,
    /// How names are resolved.
    pub resolve: ResolveOptions,
}

/// Options of name resolution.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ResolveOptions {
    /// Uses a kept record although it has expired.
    pub allow_stale: bool,
}

/// Options of a new registry.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct InitOptions {
    /// The domain that will point at it.
    pub domain: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Addresses for the `_dnsaddr` records.
    pub announce: Vec<multiaddr::Multiaddr>,
    /// Keys exported from another home, as [`super::keys::unseal`] reads them.
    pub import: Option<Bundle>,
}

/// Options of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GcOptions {
    /// Only counts what would be removed.
    pub dry_run: bool,
    /// The blocks of interrupted pulls and pushes stay.
    pub keep_leases: bool,
    /// Goes on although part of the registry is damaged or missing, and takes what only that led to.
    pub force: bool,
}

/// Options of a copy.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Copies one platform of an index; else the sink's, unless `all_platforms`.
    pub platform: Option<Platform>,
    /// Copies all platforms and referrers, where the sink can take them.
    pub all_platforms: bool,
    /// The image's name in the sink.
    pub name: Option<String>,
    /// How layers are compressed that have no manifest to keep.
    pub compression: Compression,
}

/// What to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveTarget {
    /// One tag; the manifest stays pullable by digest.
    Tag(TargetName),
    /// One manifest, and every tag that names it.
    Digest(ImageName, Digest),
    /// An image with everything.
    Image(ImageName),
}
