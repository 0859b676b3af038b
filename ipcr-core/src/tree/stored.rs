//! An image whose parts are stored as files: what a push hands to the tree.

use bytes::Bytes;
use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::descriptor::Descriptor;

/// A blob stored as a UnixFS file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    /// The blob's digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The file.
    #[serde(with = "crate::dag::text::cid")]
    pub cid: Cid,
    /// Bytes of all blocks of the file, its `Tsize` in a directory.
    pub tsize: u64,
    /// How the file's leaves were cut and, for layers that ipcr encoded, what was encoded; `None` for opaque files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<LayerEncoding>,
    /// Bytes of a layer that is kept as it came once it is decompressed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_size: Option<u64>,
}

impl StoredBlob {
    /// Bytes of a layer once it is decompressed, if that is known.
    pub fn plain(&self) -> Option<u64> {
        self.encoding.as_ref().map(|encoding| encoding.plain_size).or(self.plain_size)
    }
}

/// How ipcr encoded a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEncoding {
    /// The encoding's id: `aligned-gzip/1`, …
    pub id: String,
    /// The uncompressed digest.
    pub diff_id: Digest,
    /// The uncompressed size, in bytes.
    pub plain_size: u64,
}

/// A manifest or index with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredManifest {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes. Manifests are JSON and so UTF-8.
    #[serde(with = "text")]
    pub bytes: Bytes,
}

/// An image, its manifests in memory and its blobs stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// What the tag is to name.
    pub root: Descriptor,
    /// All manifests and indexes below the root, the root first; then the manifests that refer to one of them.
    pub manifests: Vec<StoredManifest>,
    /// Configurations, layers and other blobs that the manifests name, each once.
    pub blobs: Vec<StoredBlob>,
}

impl StoredImage {
    /// Bytes of all manifests and blobs.
    pub fn size(&self) -> u64 {
        let manifests = self.manifests.iter().map(|manifest| manifest.descriptor.size);
        manifests.chain(self.blobs.iter().map(|blob| blob.size)).fold(0, u64::saturating_add)
    }
}

mod text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, ser};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(bytes).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(Bytes::from(String::deserialize(deserializer)?))
    }
}
