//! Decompressing layers of any origin: [`Decoder`], bounded against bombs.
//!
//! gzip (any number of members), zstd (any number of frames) and plain bytes are told apart by their first bytes. After
//! [`limits::DECOMPRESSION_FREE_BYTES`] of output the ratio to the input may be [`limits::DECOMPRESSION_RATIO`] at most,
//! and a zstd window has at most 2^[`limits::ZSTD_WINDOW_LOG`] bytes. A stream that is cut short is an error.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::compression::Compression;
use crate::kind::ErrorKind;
use crate::limits;

const BUFFER: usize = 128 << 10;

/// Why decompressing ended; the inner error of an [`io::Error`] that a [`Decoder`] returns.
///
/// Errors of the compressed data itself are those of the decompressors, with the kinds `InvalidData`, `InvalidInput`
/// and `UnexpectedEof`.
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
    /// A compression that layers cannot have.
    #[error("{name} is not a compression of layers")]
    Unsupported {
        /// Its name.
        name: &'static str,
    },
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

type Input<R> = BufReader<Counted<io::Chain<Cursor<Vec<u8>>, R>>>;

/// Reads what a compressed stream holds.
pub struct Decoder<R: Read> {
    machine: Machine<R>,
    plain: u64,
}

enum Machine<R: Read> {
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Plain(Input<R>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression()).finish_non_exhaustive()
    }
}

/// The compression whose magic number `start` begins with; at least ten bytes tell all.
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

impl<R: Read> Decoder<R> {
    /// Reads the first bytes and begins.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(10);
        input.by_ref().take(10).read_to_end(&mut start)?;
        let compression = sniff(&start)?;
        let counted = Counted { input: Cursor::new(start).chain(input), count: 0 };
        let buffered = BufReader::with_capacity(BUFFER, counted);
        let machine = match compression {
            Compression::Gzip => Machine::Gzip(Box::new(MultiGzDecoder::new(buffered))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
                decoder.window_log_max(limits::ZSTD_WINDOW_LOG)?;
                Machine::Zstd(decoder)
            }
            Compression::None => Machine::Plain(buffered),
        };
        Ok(Self { machine, plain: 0 })
    }

    /// What the stream turned out to be.
    pub fn compression(&self) -> Compression {
        match &self.machine {
            Machine::Gzip(_) => Compression::Gzip,
            Machine::Zstd(_) => Compression::Zstd,
            Machine::Plain(_) => Compression::None,
        }
    }

    /// Bytes that were decompressed; those that wait in the buffer do not count.
    fn compressed(&self) -> u64 {
        let input = match &self.machine {
            Machine::Gzip(decoder) => decoder.get_ref(),
            Machine::Zstd(decoder) => decoder.get_ref(),
            Machine::Plain(input) => input,
        };
        input.get_ref().count - u64::try_from(input.buffer().len()).expect("lengths fit 64 bits")
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.machine {
            Machine::Gzip(decoder) => decoder.read(out),
            Machine::Zstd(decoder) => decoder.read(out),
            Machine::Plain(input) => input.read(out),
        }?;
        self.plain += u64::try_from(length).expect("lengths fit 64 bits");
        if self.plain > limits::DECOMPRESSION_FREE_BYTES {
            let compressed = self.compressed();
            if self.plain / limits::DECOMPRESSION_RATIO > compressed {
                return Err(DecodeError::Bomb { compressed, plain: self.plain }.into());
            }
        }
        Ok(length)
    }
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(out)?;
        self.count += u64::try_from(length).expect("lengths fit 64 bits");
        Ok(length)
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
        }
        let mut flipped = gzip(&plain, 6);
        let crc = flipped.len() - 8;
        flipped[crc] ^= 1;
        assert!(decode(&flipped).is_err());
        assert!(decode(b"\xfd7zXZ\0\0\0\0\0").is_err());
        assert!(decode(b"BZh91AY&SY\0").is_err());
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
