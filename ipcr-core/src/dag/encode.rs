//! Layer encodings: how pieces of a layer become leaf blocks of the compressed blob.
//!
//! Each piece that [`super::cut`] makes is encoded alone: as one gzip member (libdeflate level 6, no name, time 0, system
//! 255), as one zstd frame (level 3, with its size, without a checksum), or not at all. The encoded pieces, one after
//! the other, are an ordinary `tar+gzip`, `tar+zstd` or `tar` layer, and each is one leaf of at most
//! [`crate::limits::LEAF_BYTES`].
//!
//! An [`Encoding`] names the cutting rule, the encoder and its output: whatever changes one byte of it, be it a new
//! version of the encoder, needs a new id. The tests pin the bytes.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor, Decompressor, crc32};

use super::compression::Compression;
use super::cut::PIECE_BYTES;
use crate::kind::ErrorKind;

const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// CRC-32 and length of a piece, by which it is looked for: others may have the same. A better hash would have to be computed beside
/// those that are needed anyway, and proves no more than a look at the leaf ([`Encoder::made`]) does.
pub type PieceHint = [u8; 8];

/// The hint of a piece.
pub fn hint(piece: &[u8]) -> PieceHint {
    let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
    let mut hint = [0; 8];
    hint[..4].copy_from_slice(&crc32(piece).to_be_bytes());
    hint[4..].copy_from_slice(&length.to_be_bytes());
    hint
}

/// How a layer that ipcr encoded was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Encoding {
    /// Pieces as gzip members.
    AlignedGzip1,
    /// Pieces as zstd frames.
    AlignedZstd1,
    /// Pieces as they are.
    AlignedNone1,
}

/// An id that no encoding of this version has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is not an encoding that this version knows")]
pub struct UnknownEncoding {
    /// What was given.
    pub id: String,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AlignedGzip1, Self::AlignedZstd1, Self::AlignedNone1];

    /// The encoding that new layers get with this compression.
    pub fn current(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::AlignedGzip1,
            Compression::Zstd => Self::AlignedZstd1,
            Compression::None => Self::AlignedNone1,
        }
    }

    /// Its id, as it is recorded.
    pub fn id(self) -> &'static str {
        match self {
            Self::AlignedGzip1 => "aligned-gzip/1",
            Self::AlignedZstd1 => "aligned-zstd/1",
            Self::AlignedNone1 => "aligned-none/1",
        }
    }

    /// How its layers are compressed.
    pub fn compression(self) -> Compression {
        match self {
            Self::AlignedGzip1 => Compression::Gzip,
            Self::AlignedZstd1 => Compression::Zstd,
            Self::AlignedNone1 => Compression::None,
        }
    }

    /// The OCI media type of its layers.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::AlignedGzip1 => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::AlignedZstd1 => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::AlignedNone1 => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|encoding| encoding.id() == id);
        known.ok_or_else(|| UnknownEncoding { id: id.chars().take(40).collect() })
    }
}

impl serde::Serialize for Encoding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> serde::Deserialize<'de> for Encoding {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        id.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a piece cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It is longer than a piece may be.
    #[error("a piece has {length} bytes, more than {limit}", limit = PIECE_BYTES)]
    TooLong {
        /// Its bytes.
        length: usize,
    },
    /// The compressor failed, which only a lack of memory explains.
    #[error("a piece could not be compressed")]
    Compressor {
        /// Why.
        source: std::io::Error,
    },
}

impl EncodeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }
}

/// Encodes pieces, one after the other; keeps its working memory. One per thread.
pub struct Encoder {
    encoding: Encoding,
    machine: Machine,
    /// What is written to before its length is known. New zeros for each piece would be pages that the kernel clears.
    out: Vec<u8>,
}

enum Machine {
    Gzip(Box<(Compressor, Decompressor)>),
    Zstd(Box<(zstd::bulk::Compressor<'static>, zstd::bulk::Decompressor<'static>)>),
    None,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder.
    pub fn new(encoding: Encoding) -> Result<Self, EncodeError> {
        let machine = match encoding.compression() {
            Compression::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).expect("libdeflate has levels 1 to 12");
                Machine::Gzip(Box::new((Compressor::new(level), Decompressor::new())))
            }
            Compression::Zstd => {
                let failed = |source| EncodeError::Compressor { source };
                let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?;
                Machine::Zstd(Box::new((compressor, zstd::bulk::Decompressor::new().map_err(failed)?)))
            }
            Compression::None => Machine::None,
        };
        Ok(Self { encoding, machine, out: Vec::new() })
    }

    /// Its encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Encodes one piece; a leaf block's bytes. Without compression the piece is returned, not copied.
    pub fn encode(&mut self, piece: &Bytes) -> Result<Bytes, EncodeError> {
        if piece.len() > PIECE_BYTES {
            return Err(EncodeError::TooLong { length: piece.len() });
        }
        match &mut self.machine {
            Machine::Gzip(machine) => {
                let compressor = &mut machine.0;
                let out = at_least(&mut self.out, compressor.gzip_compress_bound(piece.len()));
                let length = compressor.gzip_compress(piece, out).expect("the bound of the output is enough");
                Ok(Bytes::copy_from_slice(&out[..length]))
            }
            Machine::Zstd(machine) => {
                let mut out = machine.0.compress(piece).map_err(|source| EncodeError::Compressor { source })?;
                out.shrink_to_fit();
                Ok(out.into())
            }
            Machine::None => Ok(piece.clone()),
        }
    }

    /// Whether `leaf` is what this encoding made of `piece`: whether it decodes to it. Ten times as fast as encoding.
    pub fn made(&mut self, leaf: &[u8], piece: &[u8]) -> bool {
        // One byte more, so that a longer piece is not taken for this one.
        let out = &mut at_least(&mut self.out, piece.len() + 1)[..=piece.len()];
        let length = match &mut self.machine {
            Machine::Gzip(machine) => machine.1.gzip_decompress(leaf, out).ok(),
            Machine::Zstd(machine) => machine.1.decompress_to_buffer(leaf, out).ok(),
            Machine::None => return leaf == piece,
        };
        length == Some(piece.len()) && out[..piece.len()] == *piece
    }
}

/// A buffer with so many bytes or more.
fn at_least(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    buffer
}

#[cfg(test)]
mod tests;
