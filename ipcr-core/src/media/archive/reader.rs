//! Reading an archive front to back: [`ArchiveReader`].
//!
//! Nothing is copied to disk and nothing but the current header is held: the data of a member flows from the stream to
//! whoever reads it, at the reader's pace. Going on to the next member reads past what is left of the current one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, ReadBuf};

use super::ArchiveError;
use super::header::{BLOCK, BLOCK_LEN, Framer, Member, Step};
use super::unpack;
use crate::media::place::Place;
use crate::port::image::{ByteStream, ImageError};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;

/// An archive that is being read.
pub struct ArchiveReader {
    input: BufReader<ByteStream>,
    place: Place,
    framer: Framer,
    /// What [`ArchiveReader::peek`] took from the current member's data and nobody has read.
    head: Bytes,
    /// Bytes of the current member's data that are still in `input`.
    left: u64,
    padding: u64,
    ended: bool,
}

impl std::fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveReader").field("place", &self.place).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl ArchiveReader {
    /// Begins to read; the archive may be compressed with gzip or zstd.
    pub fn new(stream: ByteStream, place: Place) -> Self {
        let input = BufReader::with_capacity(BUFFER, unpack::unpacked(stream));
        let framer = Framer::default();
        Self { input, place, framer, head: Bytes::new(), left: 0, padding: 0, ended: false }
    }

    /// What is being read.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Goes on to the next member, past what is left of the current one; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Member>, ImageError> {
        if self.ended {
            return Ok(None);
        }
        self.head = Bytes::new();
        let rest = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        self.pass(rest).await?;
        loop {
            let mut block = [0; BLOCK_LEN];
            self.fill(&mut block).await?;
            match self.framer.header(&block).map_err(|error| self.place.malformed(error))? {
                Step::Extension(extension) => {
                    let mut data = vec![0; extension.size];
                    self.fill(&mut data).await?;
                    self.pass(padding(extension.size as u64)).await?;
                    self.framer.extension(extension, &data).map_err(|error| self.place.malformed(error))?;
                }
                Step::Member(member) => {
                    self.left = member.size;
                    self.padding = padding(member.size);
                    return Ok(Some(member));
                }
                Step::End => {
                    self.ended = true;
                    self.drain().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// The first bytes of the current member's data, at most `most`; they will be read again. To be called before anything
    /// was read.
    pub async fn peek(&mut self, most: usize) -> Result<Bytes, ImageError> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        let mut head = vec![0; wanted];
        self.fill(&mut head).await?;
        self.left -= wanted as u64;
        self.head = head.into();
        Ok(self.head.clone())
    }

    /// The data of the current member.
    pub fn data(&mut self) -> MemberData<'_> {
        MemberData(self)
    }

    /// The data of the current member in one piece, if it is not larger than `limit`.
    pub async fn document(&mut self, member: &Member, limit: u64) -> Result<Bytes, ImageError> {
        if member.size > limit {
            let error = ArchiveError::TooLarge { name: member.name.clone(), size: member.size, limit };
            return Err(self.place.malformed(error));
        }
        let mut bytes = Vec::new();
        self.data().read_to_end(&mut bytes).await.map_err(|error| self.place.reading(error))?;
        Ok(bytes.into())
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ImageError> {
        match self.input.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.place.malformed(ArchiveError::Truncated))
            }
            Err(error) => Err(self.place.reading(error)),
        }
    }

    /// Reads past `count` bytes.
    async fn pass(&mut self, mut count: u64) -> Result<(), ImageError> {
        while count > 0 {
            let buffered = self.input.fill_buf().await.map_err(|error| self.place.reading(error))?.len();
            if buffered == 0 {
                return Err(self.place.malformed(ArchiveError::Truncated));
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(buffered);
            self.input.consume(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Reads the padding after the end, so that whoever writes into a pipe is not cut off.
    async fn drain(&mut self) -> Result<(), ImageError> {
        loop {
            let buffered = self.input.fill_buf().await.map_err(|error| self.place.reading(error))?;
            let length = buffered.len();
            if length == 0 {
                return Ok(());
            }
            if buffered.iter().any(|byte| *byte != 0) {
                return Err(self.place.malformed(ArchiveError::Trailing));
            }
            self.input.consume(length);
        }
    }
}

/// Zeros after data of `size` bytes.
pub(crate) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The data of one member.
#[derive(Debug)]
pub struct MemberData<'a>(&'a mut ArchiveReader);

impl AsyncRead for MemberData<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let reader = &mut *self.get_mut().0;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !reader.head.is_empty() {
            let part = reader.head.split_to(reader.head.len().min(buf.remaining()));
            buf.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        if reader.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = usize::try_from(reader.left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut reader.input).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, ArchiveError::Truncated)));
        }
        buf.advance(read);
        reader.left -= read as u64;
        Poll::Ready(Ok(()))
    }
}
