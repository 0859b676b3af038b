//! CAR version 1, blocks one after another in a stream: [`Decoder`], and [`put_header`] and [`put_section`] to write one.
//!
//! Source: "Content Addressable aRchives (CAR) Specification", version 1 (ipld.io). Version 2 wraps such a stream with an index; gateways
//! are asked for version 1, and another is refused.
//!
//! A section is what the writer says it is: whether bytes are those of their CID, [`super::block::Block::verify`] tells. The decoder holds
//! one section at most, and asks for its memory when it begins.

use bytes::Bytes;
use cid::Cid;

use super::block::{CID_BYTES, read_cid};
use super::cbor::{ARRAY, Items, MAP, TEXT, UNSIGNED, put_cid, put_head};
use super::varint;
use crate::kind::ErrorKind;
use crate::limits;

/// The version that is read.
const VERSION: u64 = 1;

/// A block as the stream has it, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is said to be.
    pub cid: Cid,
    /// Its bytes. They share one allocation with the CID.
    pub data: Bytes,
}

/// Why bytes are no CAR.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// A length is not written as it has to be.
    #[error("a length in a CAR is malformed")]
    Length,
    /// The header is larger than [`limits::CAR_HEADER_BYTES`].
    #[error("a CAR has a header of {size} bytes, more than {limit}", limit = limits::CAR_HEADER_BYTES)]
    HeaderTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The header is not what it has to be.
    #[error("the header of a CAR is malformed: {what}")]
    Header {
        /// What is wrong.
        what: &'static str,
    },
    /// It is of another version than 1.
    #[error("a CAR has version {version}, and only version 1 is read")]
    Version {
        /// Which.
        version: u64,
    },
    /// A section is larger than any block ([`limits::BLOCK_BYTES`]).
    #[error("a section of a CAR has {size} bytes")]
    SectionTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// A section does not begin with a CID.
    #[error("a section of a CAR does not begin with a CID")]
    Cid {
        /// Why.
        source: cid::Error,
    },
    /// The stream ends before its end.
    #[error("a CAR is cut off")]
    CutOff,
}

impl CarError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

/// Reads a stream as it comes.
#[derive(Debug, Default)]
pub struct Decoder {
    roots: Option<Vec<Cid>>,
    part: Part,
}

/// What is being read.
#[derive(Debug)]
enum Part {
    Length(varint::Arriving),
    Content { need: usize, have: Vec<u8> },
}

impl Default for Part {
    fn default() -> Self {
        Self::Length(varint::Arriving::default())
    }
}

impl Decoder {
    /// Begins a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The roots that the header names; `None` before it has come.
    pub fn roots(&self) -> Option<&[Cid]> {
        self.roots.as_deref()
    }

    /// Takes from the front of `bytes` until a section is complete; `None` once they are used up. After an error the stream is of no use.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Section>, CarError> {
        loop {
            match &mut self.part {
                Part::Length(length) => {
                    let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
                    *bytes = rest;
                    if let Some(size) = length.push(*byte).map_err(|_| CarError::Length)? {
                        let need = self.check_length(size)?;
                        self.part = Part::Content { need, have: Vec::with_capacity(need) };
                    }
                }
                Part::Content { need, have } => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(*need - have.len()));
                    have.extend_from_slice(taken);
                    *bytes = rest;
                    if have.len() < *need {
                        return Ok(None);
                    }
                    let content = std::mem::take(have);
                    self.part = Part::default();
                    if self.roots.is_none() {
                        self.roots = Some(read_header(&content)?);
                    } else {
                        return section(content.into()).map(Some);
                    }
                }
            }
        }
    }

    /// Sees that the stream ends where it may.
    pub fn finish(self) -> Result<(), CarError> {
        match self.part {
            Part::Length(length) if length.is_new() && self.roots.is_some() => Ok(()),
            _ => Err(CarError::CutOff),
        }
    }

    /// The length, if what follows may be so long.
    fn check_length(&self, size: u64) -> Result<usize, CarError> {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        match self.roots {
            None if length > limits::CAR_HEADER_BYTES => Err(CarError::HeaderTooLarge { size }),
            None if length == 0 => Err(CarError::Header { what: "it is empty" }),
            Some(_) if length > limits::BLOCK_BYTES + CID_BYTES => Err(CarError::SectionTooLarge { size }),
            // Padding by zeros is for files on disks.
            Some(_) if length == 0 => Err(CarError::Length),
            _ => Ok(length),
        }
    }
}

fn section(content: Bytes) -> Result<Section, CarError> {
    let mut rest = &content[..];
    let cid = read_cid(&mut rest).map_err(|source| CarError::Cid { source })?;
    if rest.len() > limits::BLOCK_BYTES {
        return Err(CarError::SectionTooLarge { size: u64::try_from(content.len()).expect("lengths fit 64 bits") });
    }
    let data = content.slice_ref(rest);
    Ok(Section { cid, data })
}

/// Reads `{"roots": […], "version": 1}`.
fn read_header(content: &[u8]) -> Result<Vec<Cid>, CarError> {
    let bad = |what| CarError::Header { what };
    let mut cbor = Items::of(content);
    let (mut roots, mut version) = (None, None);
    let members = cbor.expect(MAP).ok_or(bad("it is no map"))?;
    if members > 2 {
        return Err(bad("it has more than two members"));
    }
    for _ in 0..members {
        match cbor.content(TEXT).ok_or(bad("a member has no name"))? {
            b"version" if version.is_none() => {
                version = Some(cbor.expect(UNSIGNED).ok_or(bad("the version is no number"))?);
            }
            b"roots" if roots.is_none() => {
                let count = cbor.expect(ARRAY).ok_or(bad("the roots are no list"))?;
                let read: Option<Vec<Cid>> = (0..count).map(|_| cbor.cid()).collect();
                roots = Some(read.ok_or(bad("a root is no CID"))?);
            }
            _ => return Err(bad("it has a member that is not known, or twice")),
        }
    }
    match (version.ok_or(bad("it has no version"))?, roots) {
        (VERSION, _) if !cbor.is_empty() => Err(bad("something follows it")),
        (VERSION, roots) => roots.ok_or(bad("it has no roots")),
        (version, _) => Err(CarError::Version { version }),
    }
}

/// Writes the header of a stream.
pub fn put_header(out: &mut Vec<u8>, roots: &[Cid]) {
    let mut header = Vec::new();
    put_head(&mut header, MAP, 2);
    put_head(&mut header, TEXT, 5);
    header.extend_from_slice(b"roots");
    put_head(&mut header, ARRAY, roots.len());
    for root in roots {
        put_cid(&mut header, root);
    }
    put_head(&mut header, TEXT, 7);
    header.extend_from_slice(b"version\x01");
    varint::put_length(out, header.len());
    out.extend_from_slice(&header);
}

/// Writes a block.
pub fn put_section(out: &mut Vec<u8>, cid: &Cid, data: &[u8]) {
    let cid = cid.to_bytes();
    varint::put_length(out, cid.len() + data.len());
    out.extend_from_slice(&cid);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests;
