//! Decompressing a stream on its way.

use std::io::Read;

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::dag::decode::Decoder;
use crate::port::image::ByteStream;

/// Bytes decompressed at once.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the reader.
const CHUNKS: usize = 4;

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
