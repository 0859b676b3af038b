//! A pipe whose end has to be declared: [`pipe`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// A pipe that holds at most `bytes`. When the writer goes away without a shutdown, the reader gets an error and no end: who
/// reads an archive then cannot take what has come so far for all of it.
pub(super) fn pipe(bytes: usize) -> (Writer, impl AsyncRead + Send + 'static) {
    let (writer, reader) = tokio::io::duplex(bytes);
    let complete = Arc::new(AtomicBool::new(false));
    (Writer { inner: writer, complete: Arc::clone(&complete) }, Reader { inner: reader, complete })
}

#[derive(Debug)]
pub(super) struct Writer {
    inner: DuplexStream,
    complete: Arc<AtomicBool>,
}

struct Reader {
    inner: DuplexStream,
    complete: Arc<AtomicBool>,
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.complete.store(true, Ordering::Release);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 && !self.complete.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the image was given up")));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_a_shutdown_is_an_end() {
        let (mut writer, mut reader) = pipe(16);
        writer.write_all(b"some").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"some");

        let (mut writer, mut reader) = pipe(16);
        writer.write_all(b"some").await.unwrap();
        drop(writer);
        // An error of the kind `Interrupted` would be read past, for ever.
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut bytes)).await.unwrap();
        assert!(ended.is_err());
        assert_eq!(bytes, b"some");
    }
}
