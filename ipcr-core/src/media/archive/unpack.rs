//! Taking the compression off a stream on its way: [`unpacked`].
//!
//! What is read and where its bounds are is said in [`crate::dag::decode`]. There is neither a thread nor a queue: dropping
//! the stream ends everything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::dag::decode::{SNIFF_BYTES, Unpacker, sniff};
use crate::limits;
use crate::port::image::ByteStream;

/// Bytes that are read at once: a whole block, for layers are made of blocks that are a gzip member each.
const INPUT: usize = limits::LEAF_BYTES;

/// The plain bytes of `stream`, which may be compressed with gzip or zstd or not at all.
pub fn unpacked(stream: ByteStream) -> ByteStream {
    Box::pin(Unpack::new(stream))
}

struct Unpack {
    stream: ByteStream,
    /// Known once the first bytes are there.
    unpacker: Option<Unpacker>,
    input: Box<[u8]>,
    from: usize,
    to: usize,
    /// Whether what was read last has not been looked at yet. Looking for a whole member costs as much as reading one.
    fresh: bool,
    /// The plain bytes of a whole member: how many were given, of how many.
    plain: Vec<u8>,
    given: usize,
    held: usize,
    ended: bool,
}

impl Unpack {
    fn new(stream: ByteStream) -> Self {
        let input = vec![0; INPUT].into_boxed_slice();
        Self {
            stream,
            unpacker: None,
            input,
            from: 0,
            to: 0,
            fresh: false,
            plain: Vec::new(),
            given: 0,
            held: 0,
            ended: false,
        }
    }

    /// Reads more behind what is there.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut input = ReadBuf::new(&mut self.input[self.to..]);
        ready!(self.stream.as_mut().poll_read(cx, &mut input))?;
        let read = input.filled().len();
        self.ended = read == 0;
        self.to += read;
        self.fresh = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Unpack {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.given < this.held {
                let length = buf.remaining().min(this.held - this.given);
                buf.put_slice(&this.plain[this.given..this.given + length]);
                this.given += length;
                return Poll::Ready(Ok(()));
            }
            let Some(unpacker) = &mut this.unpacker else {
                if this.to < SNIFF_BYTES && !this.ended {
                    ready!(this.poll_fill(cx))?;
                } else {
                    this.unpacker = Some(Unpacker::new(sniff(&this.input[..this.to])?)?);
                }
                continue;
            };
            if this.from == this.to && !unpacker.holds_output() {
                if this.ended {
                    return Poll::Ready(unpacker.finish());
                }
                (this.from, this.to) = (0, 0);
                ready!(this.poll_fill(cx))?;
                continue;
            }
            if std::mem::take(&mut this.fresh)
                && let Some(length) = unpacker.take_member(&this.input[this.from..this.to], &mut this.plain)?
            {
                (this.given, this.held) = (0, length);
                this.from = this.to;
                continue;
            }
            let (taken, given) = unpacker.step(&this.input[this.from..this.to], buf.initialize_unfilled())?;
            this.from += taken;
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

    use tokio::io::AsyncReadExt;

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
        unpacked(stream).read_to_end(&mut plain).await?;
        Ok(plain)
    }

    /// Hands out one part after the other.
    struct Parts(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Parts {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(part) = self.0.pop_front() {
                let length = part.len().min(buf.remaining());
                buf.put_slice(&part[..length]);
                if length < part.len() {
                    self.0.push_front(part[length..].to_vec());
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// What parts hold, and how many of the members came whole.
    async fn count_whole(parts: Vec<Vec<u8>>) -> (Vec<u8>, usize) {
        let mut unpack = Unpack::new(Box::pin(Parts(parts.into())));
        let (mut found, mut whole) = (Vec::new(), 0);
        // With room for more than any member has.
        let mut plain = vec![0; 2 << 20];
        loop {
            let read = unpack.read(&mut plain).await.unwrap();
            if read == 0 {
                return (found, whole);
            }
            found.extend_from_slice(&plain[..read]);
            whole += usize::from(unpack.held > 0);
            assert_eq!(unpack.given, unpack.held);
            (unpack.given, unpack.held) = (0, 0);
        }
    }

    #[tokio::test]
    async fn members_come_whole_or_in_parts() {
        let plain =
            |seed: u32, count: u32| -> Vec<u8> { (0..count).flat_map(|i| (i * seed / 9).to_le_bytes()).collect() };
        let data = [plain(1, 10), plain(3, 200_000), Vec::new(), plain(5, 60_000), plain(7, 300_000), plain(2, 3)];
        let members: Vec<Vec<u8>> = data.iter().map(|data| gzip(data)).collect();
        let mut split = members.clone();
        let half = split[1].split_off(1000);
        split.insert(2, half);
        let joined = [members[..2].concat(), members[2..4].concat(), members[4..].concat()];
        // One has no bytes, and one has more than a piece.
        let forms = [(members.clone(), 4), (split, 3), (joined.to_vec(), 0), (vec![members.concat()], 0)];
        for (parts, expected) in forms {
            let (found, whole) = count_whole(parts).await;
            assert!(found == data.concat());
            assert_eq!(whole, expected);
        }
        let mut cut = members.clone();
        cut[5].pop();
        let mut sink = Vec::new();
        assert!(unpacked(Box::pin(Parts(cut.into()))).read_to_end(&mut sink).await.is_err());
        let behind = members.into_iter().chain([b"something".to_vec()]).collect();
        assert!(unpacked(Box::pin(Parts(behind))).read_to_end(&mut sink).await.is_err());
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

    #[tokio::test]
    async fn what_is_not_read_is_said() {
        for (head, name) in [(&b"\xfd7zXZ\0\0\0\0\0"[..], "xz"), (b"BZh91AY&SY\0", "bzip2")] {
            let error = unpack(head.to_vec(), true).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(name), "{error}");
        }
        for short in [&b""[..], b"a", b"BZh"] {
            assert_eq!(unpack(short.to_vec(), true).await.unwrap(), short);
        }
    }
}
