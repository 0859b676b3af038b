//! What Docker notes of a layer's tar stream, so that it can put it together again bit for bit: [`Parts`].
//!
//! One JSON document after the other, compressed by gzip (github.com/vbatts/tar-split, `tar/storage`): segments with all bytes of the stream that
//! are not contents of files, and names and sizes of files where their contents belong. The CRC-64 of each file is not looked at: whoever
//! reads a layer compares a better sum of all of it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};

use flate2::read::MultiGzDecoder;
use multibase::Base;
use serde::Deserialize;

/// The longest line, in bytes. The longest parts are headers and the zeros at the end of a stream, of which Docker notes a megabyte at once; names
/// of files that are longer than anything else may be left to the engine.
const LINE_BYTES: u64 = 4 << 20;

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

/// `storage.Entry`, as far as it is needed. Docker writes one in a line.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    /// Instead of the name, where that is no UTF-8.
    #[serde(default, borrow)]
    name_raw: Option<Cow<'a, str>>,
    #[serde(default)]
    size: u64,
    #[serde(default, borrow)]
    payload: Option<Cow<'a, str>>,
}

/// The parts of a layer, in the order of its stream. Holds one line.
pub(super) struct Parts {
    json: BufReader<MultiGzDecoder<BufReader<File>>>,
    line: Vec<u8>,
}

impl Parts {
    pub(super) fn new(record: File) -> Self {
        Self { json: BufReader::new(MultiGzDecoder::new(BufReader::new(record))), line: Vec::new() }
    }

    /// The next one; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Part>> {
        while let Some(entry) = self.entry()? {
            match entry {
                // Folders, links and empty files have names only.
                Entry { kind: 1, size: 0, .. } => {}
                Entry { kind: 1, name, name_raw, size, .. } => {
                    let name = name_raw.map_or_else(|| Ok(name.into_owned().into_bytes()), |raw| decoded(&raw))?;
                    return Ok(Some(Part::File { name, size }));
                }
                Entry { payload, .. } => return Ok(Some(Part::Bytes(decoded(&payload.unwrap_or_default())?))),
            }
        }
        Ok(None)
    }

    /// Bytes of the whole stream, without putting it together.
    pub(super) fn size(mut self) -> io::Result<u64> {
        let mut sum: u64 = 0;
        while let Some(entry) = self.entry()? {
            let size = match entry {
                Entry { kind: 1, size, .. } => size,
                Entry { payload, .. } => decoded_length(&payload.unwrap_or_default()),
            };
            sum = sum.checked_add(size).ok_or_else(|| wrong("a layer is longer than there are numbers"))?;
        }
        Ok(sum)
    }

    fn entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        self.line.clear();
        (&mut self.json).take(LINE_BYTES + 1).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if length(&self.line) > LINE_BYTES {
            return Err(wrong("a layer has a part that is too long"));
        }
        match serde_json::from_slice(&self.line)? {
            entry @ Entry { kind: 1 | 2, .. } => Ok(Some(entry)),
            Entry { .. } => Err(wrong("a layer has a part of an unknown kind")),
        }
    }
}

fn decoded(text: &str) -> io::Result<Vec<u8>> {
    Base::Base64Pad.decode(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What [`decoded`] will give, of as many bytes.
fn decoded_length(text: &str) -> u64 {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (length(text.as_bytes()) / 4 * 3).saturating_sub(u64::try_from(padding).expect("a line's length"))
}

pub(super) fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A length as the number that sizes are.
pub(super) fn length<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).expect("sizes in memory fit 64 bits")
}
