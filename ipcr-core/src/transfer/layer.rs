//! Encoding a layer: decompress, cut, compress, hash and store, all at once and with bounded memory.
//!
//! The source is read by the async task, one blocking thread decompresses, hashes the plain bytes and cuts, the pieces are
//! compressed on all cores, and the members are hashed and stored in order while the next ones are made. Nothing is written
//! to a temporary file.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::TransferError;
use super::ledger::KnownLayer;
use super::write::{FileWriter, PutTotals};
use crate::dag::block::Block;
use crate::dag::cut::Cutter;
use crate::dag::decode::Decoder;
use crate::dag::encode::{EncodeError, Encoder, Encoding};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::port::blocks::StoreSession;
use crate::tree::stored::{LayerEncoding, StoredBlob};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Reads that wait to be cut.
const READS: usize = 8;
/// Pieces that wait to be compressed.
const PIECES: usize = 4;

/// Stores a layer in `encoding`. `data` is a tar stream, or a gzip or zstd stream of one; it is read to its end.
pub(crate) async fn encode(
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    what: &str,
    data: &mut (dyn AsyncRead + Send + Unpin),
    encoding: Encoding,
    mut progress: impl FnMut(u64) + Send,
) -> Result<KnownLayer, TransferError> {
    let (reads, cutter_input) = mpsc::channel::<Bytes>(READS);
    let (cutter_output, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let cutter: JoinHandle<io::Result<(Digest, u64)>> =
        tokio::task::spawn_blocking(move || cut(ChannelReader::new(cutter_input), &cutter_output));

    let read_all = async {
        loop {
            let mut buffer = Vec::with_capacity(READ_BYTES);
            let limit = u64::try_from(READ_BYTES).expect("a constant fits");
            data.take(limit).read_to_end(&mut buffer).await.map_err(|error| TransferError::from_io(what, error))?;
            let count = buffer.len();
            if count == 0 || reads.send(buffer.into()).await.is_err() {
                break; // the end, or the cutter has failed and says why itself
            }
            progress(u64::try_from(count).expect("buffer sizes fit 64 bits"));
        }
        drop(reads);
        Ok::<(), TransferError>(())
    };
    // It owns the receiver: when it fails, the cutter and the reader must not wait for it.
    let encode_all = async move {
        let jobs = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        let mut writer = FileWriter::new(session, totals);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut size = 0;
        let encoders = Arc::new(Encoders { encoding, idle: Mutex::default() });
        let mut encoding_now: FuturesOrdered<JoinHandle<Result<Block, EncodeError>>> = FuturesOrdered::new();
        let mut open = true;
        while open || !encoding_now.is_empty() {
            tokio::select! {
                biased;
                Some(member) = encoding_now.next(), if !encoding_now.is_empty() => {
                    let member = member.map_err(|_| TransferError::Worker { doing: "compressing a layer" })??;
                    hasher.update(member.data());
                    size += u64::try_from(member.data().len()).expect("block sizes fit 64 bits");
                    writer.push(member).await?;
                }
                piece = pieces.recv(), if open && encoding_now.len() < jobs => match piece {
                    Some(piece) => {
                        let encoders = Arc::clone(&encoders);
                        encoding_now.push_back(tokio::task::spawn_blocking(move || encoders.encode(&piece)));
                    }
                    None => open = false,
                },
            }
        }
        Ok::<_, TransferError>((hasher.finish(), size, writer.finish().await?))
    };
    let (read, encoded) = tokio::join!(read_all, encode_all);
    // Whoever fails first lets the others fail too: the cutter sees a source that broke off as one that ended too early, and a
    // full disk as pieces that nobody wants.
    read?;
    let (digest, size, file) = encoded?;
    let (diff_id, plain_size) = cutter
        .await
        .map_err(|_| TransferError::Worker { doing: "cutting a layer" })?
        .map_err(|source| TransferError::Source { what: what.to_owned(), source })?;
    let blob = StoredBlob {
        digest,
        size,
        cid: file.cid,
        tsize: file.tsize,
        encoding: Some(LayerEncoding { id: encoding.to_string(), diff_id, plain_size }),
    };
    Ok(KnownLayer { blob, media_type: encoding.media_type().to_owned(), diff_id })
}

/// Decompresses, hashes and cuts; returns the digest and the number of the plain bytes.
fn cut(input: ChannelReader, output: &mpsc::Sender<Bytes>) -> io::Result<(Digest, u64)> {
    let mut plain = Decoder::new(input)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut cutter = Cutter::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut size = 0;
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        size += u64::try_from(count).expect("buffer sizes fit 64 bits");
        hasher.update(&buffer[..count]);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            if let Some(piece) = cutter.push(&mut rest) {
                send(output, piece)?;
            }
        }
    }
    if let Some(piece) = cutter.finish() {
        send(output, piece)?;
    }
    Ok((hasher.finish(), size))
}

fn send(output: &mpsc::Sender<Bytes>, piece: Bytes) -> io::Result<()> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the layer is no longer wanted");
    output.blocking_send(piece).map_err(gone)
}

/// Encoders that wait for work; each is used by one piece at a time.
struct Encoders {
    encoding: Encoding,
    idle: Mutex<Vec<Encoder>>,
}

impl Encoders {
    fn encode(&self, piece: &Bytes) -> Result<Block, EncodeError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut encoder = idle.map_or_else(|| Encoder::new(self.encoding), Ok)?;
        let member = encoder.encode(piece)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
        Ok(Block::raw(member))
    }
}

/// Reads, on a blocking thread, what an async task sends.
struct ChannelReader {
    reads: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl ChannelReader {
    fn new(reads: mpsc::Receiver<Bytes>) -> Self {
        Self { reads, current: Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.reads.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use cid::Cid;

    use super::*;
    use crate::kind::ErrorKind;
    use crate::port::blocks::{BlockStore as _, Put, StoreError};
    use crate::port::memory::blocks::MemoryBlocks;

    /// A store that is full from the start.
    #[derive(Debug)]
    struct Full;

    #[async_trait]
    impl StoreSession for Full {
        async fn put(&self, _: Vec<Block>) -> Result<Put, StoreError> {
            Err(StoreError::Full { place: "here".into(), doing: "putting blocks" })
        }

        async fn hold(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
            Ok(vec![false; cids.len()])
        }

        async fn commit(&self) -> Result<(), StoreError> {
            Ok(())
        }

        async fn abort(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    async fn store(session: Arc<dyn StoreSession>, mut data: impl AsyncRead + Send + Unpin) -> TransferError {
        let stored = encode(session, Arc::default(), "a layer", &mut data, Encoding::AlignedGzip1, |_| {});
        let stored = tokio::time::timeout(Duration::from_secs(60), stored).await.expect("it does not hang");
        stored.unwrap_err()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_ends_a_long_layer() {
        let noise = std::fs::File::open("/dev/urandom").unwrap();
        let noise = tokio::fs::File::from_std(noise).take(64 << 20);
        assert_eq!(store(Arc::new(Full), noise).await.kind(), ErrorKind::DiskFull);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_breaks_off_says_so_itself() {
        let blocks = MemoryBlocks::new();
        // The head of a gzip stream, and then the connection is gone.
        let head = std::io::Cursor::new(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let broken = broken_off();
        let session = blocks.begin(Duration::from_secs(60)).await.unwrap();
        let error = store(session.into(), AsyncReadExt::chain(head, broken)).await;
        assert!(
            matches!(&error, TransferError::Source { source, .. } if source.kind() == io::ErrorKind::ConnectionReset),
            "{error:?}"
        );
    }

    /// Fails at once.
    fn broken_off() -> impl AsyncRead + Send + Unpin {
        tokio_util::io::StreamReader::new(futures::stream::iter([Err::<Bytes, _>(io::Error::from(
            io::ErrorKind::ConnectionReset,
        ))]))
    }
}
