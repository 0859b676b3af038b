//! A reader that checks what passes through it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::digest::{Digest, Hasher};
/// What is wrong with what passed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Longer,
    Shorter,
    Bytes,
}

/// A reader whose end will be checked.
type Inner<'a> = Pin<Box<dyn AsyncRead + Send + 'a>>;

/// Passes bytes on and fails, in place of the end of the stream, unless they are exactly `size` bytes with `digest`.
///
/// The consumer sees the bytes before the verdict: it must not take anything for complete before the stream has ended well.
pub(crate) struct Verified<'a> {
    inner: Inner<'a>,
    left: u64,
    expected: Digest,
    hasher: Option<Hasher>,
    progress: Box<dyn FnMut(u64) + Send + 'a>,
    /// The layer that is decompressed, if one is.
    layer: Option<Digest>,
}

impl<'a> Verified<'a> {
    /// A reader of `inner` that calls `progress` with the number of bytes that have just passed.
    pub(crate) fn new(inner: Inner<'a>, digest: Digest, size: u64, progress: impl FnMut(u64) + Send + 'a) -> Self {
        let hasher = Some(Hasher::new(digest.algorithm()));
        Self { inner, left: size, expected: digest, hasher, progress: Box::new(progress), layer: None }
    }

    /// A reader of what a layer is decompressed to, with the size that the tag folder's `_layers.json` says.
    pub(crate) fn plain(inner: Inner<'a>, layer: &Digest, diff_id: Digest, size: u64) -> Self {
        Self { layer: Some(*layer), ..Self::new(inner, diff_id, size, |_| {}) }
    }

    fn refuse(&self, wrong: Wrong) -> io::Error {
        let (expected, says) = (&self.expected, if wrong == Wrong::Longer { "more" } else { "fewer" });
        let reason = match (&self.layer, wrong) {
            (Some(layer), Wrong::Bytes) => {
                format!("layer {layer} does not unpack to {expected}, as its configuration says")
            }
            (Some(layer), _) => format!("layer {layer} unpacks to {says} bytes than _layers.json of its folder says"),
            (None, Wrong::Bytes) => format!("{expected} does not match its bytes"),
            (None, _) => format!("{expected} has {says} bytes than its descriptor says"),
        };
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

impl AsyncRead for Verified<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match this.inner.as_mut().poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let new = &buf.filled()[before..];
        let count = u64::try_from(new.len()).expect("buffer sizes fit 64 bits");
        if count > this.left {
            buf.set_filled(before);
            return Poll::Ready(Err(this.refuse(Wrong::Longer)));
        }
        if count > 0 {
            this.left -= count;
            if let Some(hasher) = &mut this.hasher {
                hasher.update(new);
            }
            (this.progress)(count);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.left > 0 {
            return Poll::Ready(Err(this.refuse(Wrong::Shorter)));
        }
        match this.hasher.take() {
            Some(hasher) if hasher.clone().finish() != this.expected => {
                this.hasher = Some(hasher);
                Poll::Ready(Err(this.refuse(Wrong::Bytes)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn read(data: &'static [u8], digest: Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Verified::new(Box::pin(data), digest, size, |_| {}).read_to_end(&mut out).await.map(|_| out)
    }

    #[tokio::test]
    async fn passes_what_is_right_and_nothing_else() {
        let digest = Digest::sha256(b"abc");
        assert_eq!(read(b"abc", digest, 3).await.unwrap(), b"abc");
        assert_eq!(read(b"", Digest::sha256(b""), 0).await.unwrap(), b"");
        for (data, size) in [(&b"abd"[..], 3), (b"ab", 3), (b"abcd", 3), (b"abc", 2), (b"abc", 4), (b"", 3)] {
            let error = read(data, digest, size).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{data:?} {size}");
        }
    }
}
