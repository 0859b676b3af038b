//! Taking the compression off a stream: [`sniff`] and [`unpacked`].
//!
//! Bombs are bounded: after [`limits::DECOMPRESSION_FREE_BYTES`] plain bytes the ratio must stay below
//! [`limits::DECOMPRESSION_RATIO`], and zstd windows below [`limits::ZSTD_WINDOW_LOG`]. A compressed stream must end where
//! its last member or frame ends; zeros may follow, since tapes are padded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use flate2::{Decompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::limits;
use crate::port::image::ByteStream;

/// Bytes that are read at once.
const INPUT: usize = 64 << 10;

/// What a stream of bytes is, judged by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not compressed, or unknown.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2, which is not read.
    Bzip2,
    /// xz, which is not read.
    Xz,
}

/// How bytes that begin with `head` are compressed.
pub fn sniff(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, 8, ..] => Packing::Gzip,
        // A frame, or a skippable frame.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        [b'B', b'Z', b'h', ..] => Packing::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        _ => Packing::None,
    }
}

/// The plain bytes of `stream`, which may be compressed with gzip or zstd or not at all.
pub async fn unpacked(mut stream: ByteStream) -> io::Result<ByteStream> {
    let mut head = [0; 6];
    let mut filled = 0;
    while filled < head.len() {
        match stream.read(&mut head[filled..]).await? {
            0 => break,
            read => filled += read,
        }
    }
    let packing = sniff(&head[..filled]);
    let whole: ByteStream = Box::pin(io::Cursor::new(head).take(filled as u64).chain(stream));
    decompressed(whole, packing)
}

/// The plain bytes of `stream`, which is compressed with `packing`.
pub fn decompressed(stream: ByteStream, packing: Packing) -> io::Result<ByteStream> {
    let codec = match packing {
        Packing::None => return Ok(stream),
        Packing::Gzip => Codec::Gzip(gzip()),
        Packing::Zstd => Codec::Zstd(zstd()?),
        Packing::Bzip2 => return Err(invalid("it is compressed with bzip2, which is not read; give it decompressed")),
        Packing::Xz => return Err(invalid("it is compressed with xz, which is not read; give it decompressed")),
    };
    let input = vec![0; INPUT].into_boxed_slice();
    Ok(Box::pin(Unpack {
        stream,
        codec,
        input,
        from: 0,
        to: 0,
        state: State::Running,
        more: false,
        taken: 0,
        given: 0,
    }))
}

fn gzip() -> Box<Decompress> {
    Box::new(Decompress::new_gzip(15))
}

fn zstd() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG))?;
    Ok(decoder)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

enum Codec {
    Gzip(Box<Decompress>),
    Zstd(Decoder<'static>),
}

#[derive(PartialEq, Eq)]
enum State {
    /// Inside a member or frame.
    Running,
    /// Between two: another one, zeros or the end may come.
    Between,
    /// Zeros have come; only more of them may.
    Padding,
}

struct Unpack {
    stream: ByteStream,
    codec: Codec,
    input: Box<[u8]>,
    from: usize,
    to: usize,
    state: State,
    /// Whether the codec may hold plain bytes for which there was no room.
    more: bool,
    taken: u64,
    given: u64,
}

impl Unpack {
    /// Decompresses from `input` into `output`: bytes given.
    fn step(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let (input, room) = (&self.input[self.from..self.to], output.len());
        let (taken, given, ended) = match &mut self.codec {
            Codec::Gzip(inflate) => {
                let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None).map_err(invalid)?;
                let taken = usize::try_from(inflate.total_in() - before_in).expect("at most the input's length");
                let given = usize::try_from(inflate.total_out() - before_out).expect("at most the output's length");
                let ended = status == Status::StreamEnd;
                if ended {
                    *inflate = gzip();
                }
                (taken, given, ended)
            }
            Codec::Zstd(decoder) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let hint = decoder.run(&mut input, &mut output).map_err(invalid)?;
                (input.pos(), output.pos(), hint == 0)
            }
        };
        self.from += taken;
        self.taken += taken as u64;
        self.given += given as u64;
        self.more = given == room;
        if ended {
            self.state = State::Between;
        }
        if self.given > limits::DECOMPRESSION_FREE_BYTES && self.given / limits::DECOMPRESSION_RATIO > self.taken {
            return Err(invalid("it decompresses to an implausible size"));
        }
        Ok(given)
    }

    /// Passes over zeros between members; what follows zeros must be zeros.
    fn between(&mut self) -> io::Result<()> {
        let input = &self.input[self.from..self.to];
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        self.from += zeros;
        if zeros > 0 {
            self.state = State::Padding;
        }
        match (&self.state, self.from < self.to) {
            (State::Padding, true) => Err(invalid("the compressed data is followed by other data")),
            (State::Between, true) => {
                self.state = State::Running;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Unpack {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.from == this.to {
                if this.state == State::Running && this.more {
                    let given = this.step(buf.initialize_unfilled())?;
                    if given > 0 {
                        buf.advance(given);
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                let mut input = ReadBuf::new(&mut this.input);
                ready!(this.stream.as_mut().poll_read(cx, &mut input))?;
                (this.from, this.to) = (0, input.filled().len());
                if this.to == 0 {
                    return Poll::Ready(match this.state {
                        State::Running => Err(io::ErrorKind::UnexpectedEof.into()),
                        State::Between | State::Padding => Ok(()),
                    });
                }
            }
            if this.state != State::Running {
                this.between()?;
                if this.state != State::Running {
                    continue;
                }
            }
            let given = this.step(buf.initialize_unfilled())?;
            if given > 0 {
                buf.advance(given);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Hands out one byte at a time, and wakes its reader in vain before each.
    struct Slow(Vec<u8>, usize, usize);

    impl AsyncRead for Slow {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.2 += 1;
            if !self.2.is_multiple_of(40) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let at = self.1;
            let end = (at + 1).min(self.0.len());
            buf.put_slice(&self.0[at..end]);
            self.1 = end;
            Poll::Ready(Ok(()))
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpack(packed: Vec<u8>, slow: bool) -> io::Result<Vec<u8>> {
        let stream: ByteStream =
            if slow { Box::pin(Slow(packed, 0, 0)) } else { Box::pin(std::io::Cursor::new(packed)) };
        let mut plain = Vec::new();
        unpacked(stream).await?.read_to_end(&mut plain).await?;
        Ok(plain)
    }

    #[tokio::test]
    async fn members_and_frames_follow_one_another() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|number| (number % 977).to_le_bytes()).collect();
        let small = b"a few bytes of text, a few bytes of text".to_vec();
        for (data, slow) in [(&plain, false), (&small, false), (&small, true)] {
            let twice = [&data[..], &data[..]].concat();
            assert_eq!(unpack(data.clone(), slow).await.unwrap(), *data);
            let gzipped = [gzip(data), gzip(data)].concat();
            assert_eq!(unpack(gzipped.clone(), slow).await.unwrap(), twice);
            let frame = zstd::encode_all(&data[..], 3).unwrap();
            assert_eq!(unpack([frame.clone(), frame.clone()].concat(), slow).await.unwrap(), twice);
            for packed in [gzipped, frame] {
                let padded = [&packed[..], &[0; 600]].concat();
                assert!(unpack(padded, slow).await.is_ok());
                let trailing = [&packed[..], b"more"].concat();
                assert_eq!(unpack(trailing, slow).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
                let short = packed[..packed.len() - 1].to_vec();
                assert_eq!(unpack(short, slow).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[tokio::test]
    async fn bombs_are_defused() {
        let zeros = vec![0; 128 << 20];
        let packed = zstd::encode_all(&zeros[..], 1).unwrap();
        assert_eq!(unpack(packed, false).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // Below the free bytes nothing is suspicious.
        let packed = zstd::encode_all(&zeros[..32 << 20], 1).unwrap();
        assert_eq!(unpack(packed, false).await.unwrap().len(), 32 << 20);
        let mut encoder = zstd::Encoder::new(Vec::new(), 19).unwrap();
        encoder.window_log(28).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&[1; 1000]).unwrap();
        assert!(unpack(encoder.finish().unwrap(), false).await.is_err(), "the window is too large");
    }
}
