//! Which compression a layer that ipcr encodes itself gets.

use std::fmt;
use std::str::FromStr;

/// A compression of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip: every engine ever shipped reads it.
    #[default]
    Gzip,
    /// zstd: smaller and faster; Docker 23 and later, Podman, containerd.
    Zstd,
    /// None.
    None,
}

/// Text that names no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a compression (gzip, zstd or none)")]
pub struct ParseCompressionError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        })
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            _ => Err(ParseCompressionError { text: text.chars().take(40).collect() }),
        }
    }
}
