//! Answers: [`Response`], and [`BodyReader`] for bodies of any size.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use reqwest::header::LOCATION;
use reqwest::{StatusCode, Url};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use super::{HttpError, client, shown};

/// The head of an answer, and its body to come.
pub struct Response {
    inner: reqwest::Response,
    url: Url,
    stall: Duration,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("url", &shown(&self.url))
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(super) fn new(inner: reqwest::Response, url: Url, stall: Duration) -> Self {
        Self { inner, url, stall }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The URL that answered, after redirects, as it may be shown.
    pub fn url(&self) -> String {
        shown(&self.url)
    }

    /// The URL that answered, after redirects, whole: for another request, not for showing.
    pub fn full_url(&self) -> &str {
        self.url.as_str()
    }

    /// A header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The `Location` header as an absolute URL.
    pub fn location(&self) -> Option<String> {
        let to = self.inner.headers().get(LOCATION)?.to_str().ok()?;
        self.url.join(to).ok().map(String::from)
    }

    /// The length that the server announced, in bytes.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Itself if the status is 2xx, else [`HttpError::Status`].
    pub fn success(self) -> Result<Self, HttpError> {
        if self.status().is_success() {
            return Ok(self);
        }
        Err(HttpError::Status { url: self.url(), status: self.status() })
    }

    /// The whole body, of at most `limit` bytes.
    pub async fn bytes_at_most(self, limit: u64) -> Result<Bytes, HttpError> {
        let url = self.url.clone();
        let too_large = || HttpError::TooLarge { url: shown(&url), limit };
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut chunks = std::pin::pin!(self.chunks());
        let mut all = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            let size = u64::try_from(all.len() + chunk.len()).unwrap_or(u64::MAX);
            if size > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The body as JSON of at most `limit` bytes.
    pub async fn json_at_most<T: serde::de::DeserializeOwned>(self, limit: u64) -> Result<T, HttpError> {
        let url = self.url();
        let bytes = self.bytes_at_most(limit).await?;
        serde_json::from_slice(&bytes).map_err(|source| HttpError::BadJson { url, source })
    }

    /// The body piece by piece. It is not bounded in size: the reader counts.
    pub fn chunks(self) -> impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static {
        let Self { inner, url, stall } = self;
        let body = Box::pin(inner.bytes_stream());
        futures::stream::unfold(Some((body, url)), move |state| async move {
            let (mut body, url) = state?;
            match tokio::time::timeout(stall, body.next()).await {
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some((body, url)))),
                Ok(Some(Err(error))) => Some((Err(client::failure(error, &url)), None)),
                Ok(None) => None,
                Err(_) => Some((Err(HttpError::Stalled { url: shown(&url), limit: stall }), None)),
            }
        })
    }

    /// The body as a reader. It is not bounded in size: whoever reads it counts.
    pub fn reader(self) -> BodyReader {
        let chunks = self.chunks().map(|chunk| {
            chunk.map_err(|error| match error {
                HttpError::Stalled { .. } => io::Error::new(io::ErrorKind::TimedOut, error),
                error => io::Error::other(error),
            })
        });
        BodyReader(StreamReader::new(Box::pin(chunks)))
    }
}

/// A body as [`AsyncRead`]. Its errors carry an [`HttpError`] inside.
pub struct BodyReader(StreamReader<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Bytes>);

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyReader")
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}
