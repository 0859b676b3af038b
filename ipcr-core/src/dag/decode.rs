//! Decompressing layers and archives of any origin, bounded against bombs: [`Unpacker`] without I/O, [`Decoder`] over a reader.
//!
//! gzip (any number of members), zstd (any number of frames) and plain bytes are told apart by their first bytes. After
//! [`limits::DECOMPRESSION_FREE_BYTES`] of output the ratio to the input may be [`limits::DECOMPRESSION_RATIO`] at most,
//! and a zstd window has at most 2^[`limits::ZSTD_WINDOW_LOG`] bytes. A stream that is cut short is an error, and so is
//! anything but zeros after its last member or frame: tapes are padded.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use memchr::memmem;
use zstd::stream::raw::{DParameter, Decoder as Frames, InBuffer, Operation, OutBuffer};

use super::compression::Compression;
use super::cut::PIECE_BYTES;
use crate::kind::ErrorKind;
use crate::limits;

const BUFFER: usize = 128 << 10;
/// Bytes that tell all compressions apart.
pub const SNIFF_BYTES: usize = 10;

/// Why decompressing ended; the inner error of an [`io::Error`] of the kind `InvalidData`.
///
/// Errors of the compressed data itself are those of the decompressors, with the kinds `InvalidData` and `UnexpectedEof`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The output is out of all proportion to the input.
    #[error("the data grows more than {ratio} times when decompressed", ratio = limits::DECOMPRESSION_RATIO)]
    Bomb {
        /// Bytes read.
        compressed: u64,
        /// Bytes that came out of them.
        plain: u64,
    },
    /// A compression that nothing here reads.
    #[error("it is compressed with {name}, which is not read; give it decompressed")]
    Unsupported {
        /// Its name.
        name: &'static str,
    },
    /// Something follows the last member or frame.
    #[error("the compressed data is followed by other data")]
    Trailing,
}

impl DecodeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The compression whose magic number `start` begins with; [`SNIFF_BYTES`] bytes tell all.
pub fn sniff(start: &[u8]) -> Result<Compression, DecodeError> {
    // zstd frames may follow a skippable one, 0x184D2A50 to 0x184D2A5F.
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Compression::Gzip)
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
        Ok(Compression::Zstd)
    } else if start.starts_with(b"\xfd7zXZ\0") {
        Err(DecodeError::Unsupported { name: "xz" })
    } else if start.starts_with(b"BZh") && start.get(4..10) == Some(b"1AY&SY") {
        Err(DecodeError::Unsupported { name: "bzip2" })
    } else {
        Ok(Compression::None)
    }
}

/// Bytes of what every gzip member ends with: the CRC-32 and the length of its plain bytes (RFC 1952, section 2.3).
const TRAILER: usize = 8;
/// The shortest gzip member: a header, an empty block, and the trailer.
const SHORTEST_MEMBER: usize = 10 + 2 + TRAILER;

/// Decompresses step by step, or piece by piece.
pub struct Unpacker {
    codec: Codec,
    /// For whole members.
    whole: Option<Decompressor>,
    state: State,
    /// Whether the codec may hold plain bytes for which there was no room.
    more: bool,
    taken: u64,
    given: u64,
}

enum Codec {
    Plain,
    Gzip(Box<Decompress>),
    Zstd(Frames<'static>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a member or frame.
    Running,
    /// Between two: another one, zeros or the end may come.
    Between,
    /// Zeros have come; only more of them may.
    Padding,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("compression", &self.compression()).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// For data that is compressed like this.
    pub fn new(compression: Compression) -> io::Result<Self> {
        let codec = match compression {
            Compression::None => Codec::Plain,
            Compression::Gzip => Codec::Gzip(member()),
            Compression::Zstd => {
                let mut frames = Frames::new()?;
                frames.set_parameter(DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG))?;
                Codec::Zstd(frames)
            }
        };
        Ok(Self { codec, whole: None, state: State::Running, more: false, taken: 0, given: 0 })
    }

    /// What it takes off.
    pub fn compression(&self) -> Compression {
        match &self.codec {
            Codec::Plain => Compression::None,
            Codec::Gzip(_) => Compression::Gzip,
            Codec::Zstd(_) => Compression::Zstd,
        }
    }

    /// Whether there may be output without further input.
    pub fn holds_output(&self) -> bool {
        self.more && self.state == State::Running
    }

    /// Takes bytes from the front of `input` and gives bytes to the front of `output`: how many of each. What it gives is
    /// nothing only when it has taken everything and needs more.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<(usize, usize)> {
        let mut taken = 0;
        loop {
            taken += self.between(&input[taken..])?;
            if self.state != State::Running {
                return Ok((taken, 0));
            }
            let (took, gave) = self.run(&input[taken..], output)?;
            taken += took;
            if gave > 0 || took == 0 {
                return Ok((taken, gave));
            }
        }
    }

    /// Takes `input`, if it is the next gzip member of the stream from its first byte to its last and has no more plain bytes than a piece:
    /// how many there are at the front of `plain`, which grows as far as is needed. `None` if it is anything else; then nothing was taken.
    ///
    /// Pieces are such members, and this is half as fast again as [`step`](Self::step). A checksum of the header itself (FHCRC) is passed over.
    pub fn take_member(&mut self, input: &[u8], plain: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let begins = match &self.codec {
            Codec::Gzip(inflate) => match self.state {
                State::Running => inflate.total_in() == 0,
                State::Between => true,
                State::Padding => false,
            },
            Codec::Plain | Codec::Zstd(_) => false,
        };
        if !begins || input.len() < SHORTEST_MEMBER {
            return Ok(None);
        }
        let (_, trailer) = input.split_at(input.len() - TRAILER);
        let length = trailer.last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= PIECE_BYTES) else {
            return Ok(None);
        };
        if plain.len() < length {
            plain.resize(length, 0);
        }
        let whole = self.whole.get_or_insert_with(Decompressor::new);
        // A member that ends earlier has the same plain bytes, hence the same trailer there, or is not this long.
        let is_whole = whole.gzip_decompress(input, &mut plain[..length]) == Ok(length)
            && trailer[..4] == libdeflater::crc32(&plain[..length]).to_le_bytes()
            && memmem::find(input, trailer) == Some(input.len() - TRAILER);
        if !is_whole {
            return Ok(None);
        }
        self.more = false;
        self.state = State::Between;
        self.account(input.len(), length)?;
        Ok(Some(length))
    }

    /// Whether the input may end here.
    pub fn finish(&self) -> io::Result<()> {
        match (self.state, &self.codec) {
            (State::Running, Codec::Gzip(_) | Codec::Zstd(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Passes over zeros between members; how many there were.
    fn between(&mut self, input: &[u8]) -> io::Result<usize> {
        if self.state == State::Running || input.is_empty() {
            return Ok(0);
        }
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        if zeros > 0 {
            self.state = State::Padding;
        }
        match (self.state, zeros < input.len()) {
            (State::Padding, true) => return Err(DecodeError::Trailing.into()),
            (State::Between, true) => self.state = State::Running,
            _ => {}
        }
        Ok(zeros)
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<(usize, usize)> {
        let room = output.len();
        let (taken, given, ended) = match &mut self.codec {
            Codec::Plain => {
                let count = input.len().min(room);
                output[..count].copy_from_slice(&input[..count]);
                (count, count, false)
            }
            Codec::Gzip(inflate) => {
                let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None).map_err(invalid)?;
                let taken = usize::try_from(inflate.total_in() - before_in).expect("at most the input's length");
                let given = usize::try_from(inflate.total_out() - before_out).expect("at most the output's length");
                let ended = status == Status::StreamEnd;
                if ended {
                    *inflate = member();
                }
                (taken, given, ended)
            }
            Codec::Zstd(frames) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let hint = frames.run(&mut input, &mut output).map_err(invalid)?;
                (input.pos(), output.pos(), hint == 0)
            }
        };
        self.more = given == room;
        if ended {
            self.state = State::Between;
        }
        self.account(taken, given)?;
        Ok((taken, given))
    }

    /// Counts, against bombs.
    fn account(&mut self, taken: usize, given: usize) -> io::Result<()> {
        self.taken += count(taken);
        self.given += count(given);
        if self.given > limits::DECOMPRESSION_FREE_BYTES && self.given / limits::DECOMPRESSION_RATIO > self.taken {
            return Err(DecodeError::Bomb { compressed: self.taken, plain: self.given }.into());
        }
        Ok(())
    }
}

fn member() -> Box<Decompress> {
    Box::new(Decompress::new_gzip(15))
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("lengths fit 64 bits")
}

/// Reads what a compressed stream holds.
pub struct Decoder<R: Read> {
    input: R,
    unpacker: Unpacker,
    buffer: Vec<u8>,
    from: usize,
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression()).finish_non_exhaustive()
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the first bytes and begins.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER);
        input.by_ref().take(count(SNIFF_BYTES)).read_to_end(&mut buffer)?;
        let unpacker = Unpacker::new(sniff(&buffer)?)?;
        Ok(Self { input, unpacker, buffer, from: 0 })
    }

    /// What the stream turned out to be.
    pub fn compression(&self) -> Compression {
        self.unpacker.compression()
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.from == self.buffer.len() && !self.unpacker.holds_output() {
                if self.compression() == Compression::None {
                    return self.input.read(out);
                }
                self.buffer.resize(BUFFER, 0);
                self.from = 0;
                // Nothing is left over should reading fail.
                let read = self.input.read(&mut self.buffer).inspect_err(|_| self.buffer.clear())?;
                self.buffer.truncate(read);
                if read == 0 {
                    return self.unpacker.finish().map(|()| 0);
                }
            }
            let (taken, given) = self.unpacker.step(&self.buffer[self.from..], out)?;
            self.from += taken;
            if given > 0 {
                return Ok(given);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(data)?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_form_is_read() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let zstd = zstd::bulk::compress(&plain, 3).unwrap();
        let mut skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
        skippable.extend_from_slice(&zstd);
        for (data, form, times) in [
            (plain.clone(), Compression::None, 1),
            (gzip(&plain, 6), Compression::Gzip, 1),
            ([gzip(&plain, 6), gzip(&plain, 1)].concat(), Compression::Gzip, 2),
            (zstd.clone(), Compression::Zstd, 1),
            ([zstd.clone(), zstd.clone()].concat(), Compression::Zstd, 2),
            (skippable, Compression::Zstd, 1),
        ] {
            assert_eq!(Decoder::new(&data[..]).unwrap().compression(), form);
            assert!(decode(&data).unwrap() == plain.repeat(times));
        }
        for short in [&b""[..], b"a", b"BZh"] {
            assert_eq!(decode(short).unwrap(), short);
        }
    }

    #[test]
    fn damaged_streams_are_errors() {
        let plain = vec![5; 100_000];
        for data in [gzip(&plain, 6), zstd::bulk::compress(&plain, 3).unwrap()] {
            assert!(decode(&data[..data.len() - 3]).is_err(), "cut short");
            assert!(decode(&[&data[..], b"garbage"].concat()).is_err(), "something behind");
            assert!(decode(&[&data[..], &[0; 600]].concat()).is_ok(), "padding");
            assert!(decode(&[&data[..], &[0; 600], &data[..]].concat()).is_err(), "something behind the padding");
        }
        let mut flipped = gzip(&plain, 6);
        let crc = flipped.len() - 8;
        flipped[crc] ^= 1;
        assert!(decode(&flipped).is_err());
        assert!(decode(b"\xfd7zXZ\0\0\0\0\0").is_err());
        assert!(decode(b"BZh91AY&SY\0").is_err());
    }

    #[test]
    fn whole_members_are_taken_and_nothing_else() {
        let text = b"a few bytes of text, a few bytes of text".to_vec();
        let taken = |before: &[u8], input: &[u8]| {
            let mut unpacker = Unpacker::new(Compression::Gzip).unwrap();
            let mut out = vec![0; 1 << 20];
            assert!(before.is_empty() || unpacker.step(before, &mut out).unwrap().0 == before.len());
            let mut plain = vec![7; 3];
            let length = unpacker.take_member(input, &mut plain).unwrap();
            length.map(|length| {
                unpacker.finish().unwrap();
                plain[..length].to_vec()
            })
        };
        let noise: Vec<u8> =
            (0..PIECE_BYTES as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        for data in [text[..1].to_vec(), text.clone(), vec![0; PIECE_BYTES], noise] {
            for level in [0, 1, 6] {
                let member = gzip(&data, level);
                assert_eq!(taken(b"", &member), Some(data.clone()), "{} bytes, level {level}", data.len());
                assert_eq!(taken(&gzip(&text, 6), &member), Some(data.clone()));
                // Not from its first byte to its last.
                assert_eq!(taken(&member[..12], &member[12..]), None);
                assert_eq!(taken(b"", &member[..member.len() - 1]), None);
                assert_eq!(taken(b"", &[&member[..], b"\0"].concat()), None);
                assert_eq!(taken(b"", &[&member[..], &member[..]].concat()), None, "two alike");
                assert_eq!(taken(b"", &[&member[..], &gzip(&text, 6)[..]].concat()), None);
                let mut wrong = member.clone();
                wrong[member.len() - 8] ^= 1;
                assert_eq!(taken(b"", &wrong), None);
            }
        }
        assert_eq!(taken(b"", &gzip(&vec![0; PIECE_BYTES + 1], 6)), None, "larger than a piece");
        assert_eq!(taken(b"", &[0; 100]), None);
        let mut zstd = Unpacker::new(Compression::Zstd).unwrap();
        assert_eq!(zstd.take_member(&gzip(&text, 6), &mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn bombs_are_stopped() {
        // gzip cannot exceed 1032:1, zstd can by far.
        let zeros = vec![0; 8 << 20];
        for data in [gzip(&zeros, 9).repeat(64), zstd::bulk::compress(&zeros, 3).unwrap().repeat(64)] {
            let mut decoder = Decoder::new(&data[..]).unwrap();
            let mut out = vec![0; 1 << 20];
            let mut total = 0_u64;
            let error = loop {
                match decoder.read(&mut out) {
                    Ok(0) => panic!("{total} bytes came out"),
                    Ok(length) => total += length as u64,
                    Err(error) => break error,
                }
            };
            let inner = error.into_inner().and_then(|error| error.downcast::<DecodeError>().ok());
            assert!(matches!(inner.as_deref(), Some(DecodeError::Bomb { .. })));
            let free = limits::DECOMPRESSION_FREE_BYTES;
            assert!((free..free + (2 << 20)).contains(&total));
        }
        // Small ones may be as dense as they like.
        assert_eq!(decode(&zstd::bulk::compress(&zeros, 3).unwrap()).unwrap().len(), 8 << 20);
    }

    #[test]
    fn large_windows_are_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&vec![1; 1000]).unwrap();
        let data = encoder.finish().unwrap();
        assert!(decode(&data).is_err());
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![1; 1000]).unwrap();
        assert!(decode(&encoder.finish().unwrap()).is_ok());
    }
}
