//! Messages on a stream: an unsigned varint (multiformats) with the length, then the bytes.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::dag::varint;
use crate::net::Rate;

/// How long one read or write may make no progress.
pub(super) const PROGRESS: Duration = Duration::from_secs(30);

/// Bytes of a message that have to pass in a second, once [`PROGRESS`] is over.
const SLOWEST: usize = 16 << 10;

/// Bytes that are written at once. The multiplexer makes one frame of them, for which the one at the other end allocates zeros:
/// jemalloc has these at hand up to 14 KiB, and for more goes to the kernel each time.
const WRITE: usize = 14 << 10;

/// How many zeros are written at once.
const ZEROS: usize = 64 << 10;

/// A buffer of zeros, which are written: for zeros that are only asked for jemalloc goes to the kernel, which clears page after page
/// when they are first touched. That was a fifth of what a fetch cost.
fn zeros(length: usize) -> Vec<u8> {
    let mut zeros = Vec::with_capacity(length);
    // In steps, so that no compiler takes it for the same.
    while zeros.len() < length {
        zeros.resize(length.min(zeros.len() + ZEROS), 0);
    }
    zeros
}

/// Reads the length of the next message; `None` if the stream ends before it. Waits for ever for its first byte.
pub(super) async fn read_length<R: AsyncRead + Unpin>(reader: &mut R, limit: usize) -> io::Result<Option<usize>> {
    let mut length = varint::Arriving::default();
    loop {
        let mut byte = [0];
        let first = length.is_new();
        let count = if first { reader.read(&mut byte).await? } else { read_some(reader, &mut byte).await? };
        if count == 0 {
            return if first { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let Some(length) = length.push(byte[0]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        else {
            continue;
        };
        return match usize::try_from(length) {
            Ok(length) if length <= limit => Ok(Some(length)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than its limit")),
        };
    }
}

/// How much is read at once, so that whoever is held back is so for a moment each time; everything, where nothing holds back.
fn step(rate: Option<&Rate>) -> usize {
    let quarter = |rate: NonZeroU64| usize::try_from(rate.get().div_ceil(4)).unwrap_or(usize::MAX);
    rate.and_then(Rate::per_second).map_or(usize::MAX, quarter)
}

/// Reads the bytes of a message, held back as they come: whoever sends more than may be taken sees progress all the same. A sender that pauses
/// longer than [`PROGRESS`], or is slower than [`SLOWEST`], is an error.
pub(super) async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    length: usize,
    rate: Option<&Rate>,
) -> io::Result<Vec<u8>> {
    read_body_within(longest(length), reader, length, rate).await
}

async fn read_body_within<R: AsyncRead + Unpin>(
    limit: Duration,
    reader: &mut R,
    length: usize,
    rate: Option<&Rate>,
) -> io::Result<Vec<u8>> {
    // All of it is offered to each reading: yamux gives more leave to send to whoever reads in steps, see docs/design/007.
    let mut body = zeros(length);
    let (mut filled, mut until) = (0, Instant::now() + limit);
    let step = step(rate);
    while filled < body.len() {
        let end = body.len().min(filled.saturating_add(step));
        let read = timeout_at(until.min(Instant::now() + PROGRESS), reader.read(&mut body[filled..end])).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                filled += count;
                if let Some(rate) = rate {
                    let waiting = Instant::now();
                    rate.take(count).await;
                    // That is not the sender's fault.
                    until += waiting.elapsed();
                }
            }
        }
    }
    Ok(body)
}

/// How long a message of this length may take: as long as it does, it holds up others by the budgets that it is counted against.
fn longest(length: usize) -> Duration {
    PROGRESS + Duration::from_secs((length / SLOWEST) as u64)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Reads one message of at most `limit` bytes.
pub(super) async fn read<R: AsyncRead + Unpin>(reader: &mut R, limit: usize) -> io::Result<Option<Vec<u8>>> {
    match read_length(reader, limit).await? {
        Some(length) => Ok(Some(read_body(reader, length, None).await?)),
        None => Ok(None),
    }
}

/// Writes one message, given in parts that follow each other, and flushes it. A reader that takes nothing for longer
/// than [`PROGRESS`], or is slower than [`SLOWEST`], is an error.
pub(super) async fn write<W: AsyncWrite + Unpin>(writer: &mut W, parts: &[&[u8]]) -> io::Result<()> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    let mut length = Vec::with_capacity(10);
    varint::put_length(&mut length, whole);
    within(longest(whole), async {
        write_all(writer, &length).await?;
        for part in parts {
            write_all(writer, part).await?;
        }
        within(PROGRESS, writer.flush()).await
    })
    .await
}

async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(PROGRESS, writer.write(&bytes[..bytes.len().min(WRITE)])).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(count)) => bytes = &bytes[count..],
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}

async fn read_some<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    within(PROGRESS, reader.read(buffer)).await
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn frames_come_back() {
        for size in [0, 1, 127, 128, 300, 70_000] {
            let data = vec![7; size];
            let mut wire = Vec::new();
            write(&mut wire, &[&data[..size / 2], &data[size / 2..]]).await.unwrap();
            let mut reader = Cursor::new(wire);
            assert_eq!(read(&mut reader, 70_000).await.unwrap(), Some(data));
            assert_eq!(read(&mut reader, 70_000).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn long_lengths_and_short_bodies_are_refused() {
        assert!(read(&mut Cursor::new(vec![0x81, 0x01]), 128).await.is_err());
        assert!(read(&mut Cursor::new(vec![0x80]), 128).await.is_err());
        assert!(read(&mut Cursor::new(vec![3, 1, 2]), 128).await.is_err());
        assert!(read(&mut Cursor::new(vec![0xff; 12]), 128).await.is_err());
    }

    #[tokio::test]
    async fn whoever_sends_drop_by_drop_is_left() {
        // A byte each 29 seconds is progress, and would hold a message of 4 MiB for years.
        assert_eq!(longest(4 << 20), PROGRESS + Duration::from_secs(256));
        let (ours, mut theirs) = tokio::io::duplex(64);
        let dripping = async {
            while tokio::io::AsyncWriteExt::write_all(&mut theirs, &[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut reader = tokio_util::compat::TokioAsyncReadCompatExt::compat(ours);
        let reading = async {
            let read = read_body_within(Duration::from_millis(100), &mut reader, 4 << 20, None).await;
            drop(reader);
            read
        };
        let (read, ()) = tokio::join!(reading, dripping);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn whoever_is_held_back_sees_progress_and_is_not_late() {
        // Half a second for what may take a tenth of one.
        let rate = Rate::new(NonZeroU64::new(128 << 10));
        let (ours, mut theirs) = tokio::io::duplex(4 << 10);
        let begin = Instant::now();
        let writing = async {
            let mut steps = Vec::new();
            for _ in 0..24 {
                tokio::io::AsyncWriteExt::write_all(&mut theirs, &[7; 4 << 10]).await.unwrap();
                steps.push(begin.elapsed().as_millis() / 10);
            }
            steps.dedup();
            steps
        };
        let mut reader = tokio_util::compat::TokioAsyncReadCompatExt::compat(ours);
        let reading = read_body_within(Duration::from_millis(100), &mut reader, 96 << 10, Some(&rate));
        let (read, steps) = tokio::join!(reading, writing);
        assert_eq!(read.unwrap(), vec![7; 96 << 10]);
        assert!(begin.elapsed() > Duration::from_millis(400), "{:?}", begin.elapsed());
        assert!(steps.len() > 2, "it comes in steps: {steps:?}");
    }
}
