//! Edits of a registry: [`Edit`].

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::stored::StoredImage;
use crate::digest::Digest;
use crate::reference::{ImageName, Tag};

/// One change of a registry. Edits are plain data: they are kept until they are published, and applied again when another
/// home published in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Edit {
    /// Lets a tag name an image.
    SetTag {
        /// The image's name.
        image: ImageName,
        /// The tag.
        tag: Tag,
        /// What it is to name; its blobs' blocks are stored.
        stored: Box<StoredImage>,
        /// A one-line description to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// A README to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        readme: Option<String>,
        /// The time of the push; written only if the tag changes.
        pushed: DateTime<Utc>,
    },
    /// Removes a tag. Its manifest stays pullable by digest like that of a moved tag.
    RemoveTag {
        /// The image's name.
        image: ImageName,
        /// The tag.
        tag: Tag,
    },
    /// Removes a manifest by digest, with every tag that names it.
    RemoveDigest {
        /// The image's name.
        image: ImageName,
        /// The manifest.
        digest: Digest,
    },
    /// Removes an image with all its tags and manifests.
    RemoveImage {
        /// The image's name.
        image: ImageName,
    },
}
