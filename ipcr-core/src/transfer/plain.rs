//! Decompressing a stream on its way.

use std::io::Read;

use bytes::Bytes;
use futures::stream;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::error::TransferError;
use crate::dag::decode::Decoder;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::port::image::ByteStream;

/// Bytes decompressed at once.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the reader.
const CHUNKS: usize = 4;

/// The size and digest of a layer's plain bytes; `what` is the layer, for people.
pub(crate) async fn measure(
    what: &str,
    data: ByteStream,
    algorithm: Algorithm,
) -> Result<(u64, Digest), TransferError> {
    let mut plain = decompressed(data);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = plain.read(&mut buffer).await.map_err(|error| TransferError::from_io(what, error))?;
        if count == 0 {
            return Ok((size, hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        size += u64::try_from(count).expect("buffer sizes fit 64 bits");
    }
}

/// The plain bytes of a gzip, zstd or plain stream, with the decompression limits applied. Decompresses on a blocking thread,
/// which ends when the result is dropped.
pub(crate) fn decompressed(data: ByteStream) -> ByteStream {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS);
    let bridge = SyncIoBridge::new(data);
    tokio::task::spawn_blocking(move || {
        let mut decoder = match Decoder::new(bridge) {
            Ok(decoder) => decoder,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let mut chunk = vec![0; CHUNK];
            let sent = match decoder.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    sender.blocking_send(Ok(chunk.into()))
                }
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let chunks = stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    Box::pin(StreamReader::new(Box::pin(chunks)))
}
