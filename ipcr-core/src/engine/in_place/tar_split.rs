//! What Docker notes of a layer's tar stream, so that it can put it together again bit for bit: [`Parts`].
//!
//! One JSON document after the other, compressed by gzip (github.com/vbatts/tar-split, `tar/storage`): segments with all bytes of the stream that
//! are not contents of files, and names and sizes of files where their contents belong. The CRC-64 of each file is not looked at: whoever
//! reads a layer compares a better sum of all of it.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use multibase::Base;
use serde::Deserialize;

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// The contents of a file.
    File {
        /// Its path below the layer's folder.
        name: Vec<u8>,
        /// Bytes; never none.
        size: u64,
    },
}

impl Part {
    /// Bytes that it stands for.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => length(bytes),
            Self::File { size, .. } => *size,
        }
    }
}

/// `storage.Entry`, as far as it is needed.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    /// Instead of the name, where that is no UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

/// The parts of a layer, in the order of its stream.
pub(super) struct Parts(serde_json::StreamDeserializer<'static, serde_json::de::IoRead<Json>, Entry>);

type Json = BufReader<MultiGzDecoder<BufReader<File>>>;

impl Parts {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let json = BufReader::new(MultiGzDecoder::new(BufReader::new(File::open(path)?)));
        Ok(Self(serde_json::Deserializer::from_reader(json).into_iter()))
    }
}

impl Iterator for Parts {
    type Item = io::Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            match entry {
                // Folders, links and empty files have names only.
                Entry { kind: 1, size: 0, .. } => {}
                Entry { kind: 1, name, name_raw, size, .. } => {
                    let name = name_raw.map_or_else(|| Ok(name.into_bytes()), |raw| decoded(&raw));
                    return Some(name.map(|name| Part::File { name, size }));
                }
                Entry { kind: 2, payload, .. } => {
                    return Some(decoded(&payload.unwrap_or_default()).map(Part::Bytes));
                }
                Entry { kind, .. } => {
                    let what = format!("a layer has a part of an unknown kind, {kind}");
                    return Some(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
                }
            }
        }
    }
}

fn decoded(text: &str) -> io::Result<Vec<u8>> {
    Base::Base64Pad.decode(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A length as the number that sizes are.
pub(super) fn length<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).expect("sizes in memory fit 64 bits")
}
