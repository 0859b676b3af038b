//! Encoding layers: decompress, cut, compress, hash and store, all at once and with bounded memory.
//!
//! A [`Workshop`] belongs to one operation. The source is read by the async task, one blocking thread decompresses, hashes the plain
//! bytes and cuts, the pieces of all layers are compressed on all cores, and the members of each layer are hashed and stored in order
//! while the next ones are made. A layer is left to itself once it was read ([`InWork`]): the next one is read and cut while the last
//! pieces of the one before are compressed. What was encoded before is not encoded again. Nothing is written to a temporary file.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::error::TransferError;
use super::ledger::{KnownLayer, Ledger};
use super::pieces::Pieces;
use super::write::{FileWriter, PutTotals};
use crate::dag::block::Block;
use crate::dag::compression::Compression;
use crate::dag::cut::Cutter;
use crate::dag::decode::Decoder;
use crate::dag::encode::{EncodeError, Encoder, Encoding, hint};
use crate::dag::file::FileRoot;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::port::blocks::StoreSession;
use crate::tree::stored::{LayerEncoding, StoredBlob};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Reads that wait to be cut.
const READS: usize = 8;
/// Pieces of a layer that wait to be compressed.
const PIECES: usize = 4;
/// Layers that are being encoded at once, the one that is read included.
pub(super) const LAYERS: usize = 3;

/// What all layers of an operation share.
#[derive(Debug)]
pub(super) struct Workshop {
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    encoders: Arc<Encoders>,
    /// One for each piece that is being encoded or waits for those before it to be stored.
    places: Arc<Semaphore>,
}

/// A layer that was read, and of which the last pieces are being encoded. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct InWork {
    what: String,
    encoding: Encoding,
    cutter: JoinHandle<io::Result<(Digest, u64)>>,
    rest: AbortOnDropHandle<Result<Encoded, TransferError>>,
}

/// A blob made of members.
#[derive(Debug)]
struct Encoded {
    digest: Digest,
    size: u64,
    file: FileRoot,
}

impl Workshop {
    /// A workshop that puts into `session`, and knows the pieces that the ledger's home knows.
    pub(super) fn new(
        ledger: &Ledger,
        session: Arc<dyn StoreSession>,
        totals: Arc<PutTotals>,
        encoding: Encoding,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let pieces = Pieces::new(ledger.tables(), ledger.blocks(), encoding);
        let encoders = Arc::new(Encoders { idle: Mutex::default(), pieces });
        Self { session, totals, encoders, places: Arc::new(Semaphore::new(2 * cores + 2)) }
    }

    /// The pieces that it knows, and those that it has made.
    pub(super) fn pieces(&self) -> &Pieces {
        &self.encoders.pieces
    }

    /// Reads a layer, called `what` in errors, to its end: a tar stream, or a gzip or zstd stream of one.
    pub(super) async fn take(
        &self,
        what: &str,
        algorithm: Algorithm,
        data: &mut (dyn AsyncRead + Send + Unpin),
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<InWork, TransferError> {
        let (reads, cutter_input) = mpsc::channel::<Bytes>(READS);
        let (cutter_output, pieces) = mpsc::channel::<Bytes>(PIECES);
        let is_compressed = self.encoders.pieces.encoding().compression() != Compression::None;
        let cutter = tokio::task::spawn_blocking(move || {
            let (diff_id, size) = cut(ChannelReader::new(cutter_input), algorithm, &cutter_output)?;
            if size == 0 && is_compressed {
                // No bytes at all are neither gzip nor zstd.
                send(&cutter_output, Bytes::new())?;
            }
            Ok((diff_id, size))
        });
        // It owns the receiver: when it fails, the cutter and the reader must not wait for it.
        let writer = FileWriter::new(Arc::clone(&self.session), Arc::clone(&self.totals));
        let rest = encode(pieces, Arc::clone(&self.encoders), Arc::clone(&self.places), writer);
        let rest = AbortOnDropHandle::new(tokio::spawn(rest));
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
        Ok(InWork { what: what.to_owned(), encoding: self.encoders.pieces.encoding(), cutter, rest })
    }

    /// The same for a layer that has to be there before anything else goes on.
    pub(super) async fn encode(
        &self,
        what: &str,
        data: &mut (dyn AsyncRead + Send + Unpin),
        progress: impl FnMut(u64) + Send,
    ) -> Result<KnownLayer, TransferError> {
        self.take(what, Algorithm::Sha256, data, progress).await?.finish().await
    }
}

impl InWork {
    /// Whether nothing is left to do but to ask what came out.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_finished()
    }

    /// Waits until the layer is stored.
    pub(super) async fn finish(self) -> Result<KnownLayer, TransferError> {
        // Whoever fails first lets the others fail too: a full disk is seen by the cutter as pieces that nobody wants.
        let Encoded { digest, size, file } =
            self.rest.await.map_err(|_| TransferError::Worker { doing: "compressing a layer" })??;
        let (diff_id, plain_size) = self
            .cutter
            .await
            .map_err(|_| TransferError::Worker { doing: "cutting a layer" })?
            .map_err(|source| TransferError::Source { what: self.what, source })?;
        let encoding = Some(LayerEncoding { id: self.encoding.to_string(), diff_id, plain_size });
        let blob = StoredBlob { digest, size, cid: file.cid, tsize: file.tsize, encoding, plain_size: None };
        Ok(KnownLayer { blob, media_type: self.encoding.media_type().to_owned(), diff_id })
    }
}

/// Encodes pieces as they come, and hashes and stores the members in their order.
async fn encode(
    mut pieces: mpsc::Receiver<Bytes>,
    encoders: Arc<Encoders>,
    places: Arc<Semaphore>,
    mut writer: FileWriter,
) -> Result<Encoded, TransferError> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut size = 0;
    let mut members: FuturesOrdered<AbortOnDropHandle<Result<(Block, OwnedSemaphorePermit), TransferError>>> =
        FuturesOrdered::new();
    let (mut open, mut waiting) = (true, None);
    while open || waiting.is_some() || !members.is_empty() {
        tokio::select! {
            biased;
            Some(member) = members.next(), if !members.is_empty() => {
                let (member, place) = member.map_err(|_| TransferError::Worker { doing: "compressing a layer" })??;
                hasher.update(member.data());
                size += u64::try_from(member.data().len()).expect("block sizes fit 64 bits");
                writer.push(member).await?;
                drop(place);
            }
            piece = pieces.recv(), if open && waiting.is_none() => {
                open = piece.is_some();
                waiting = piece;
            }
            // In the order of the pieces: a layer that has any place has one for the piece that all others of it wait for.
            place = Arc::clone(&places).acquire_owned(), if waiting.is_some() => {
                let place = place.expect("nobody closes the semaphore");
                let (encoders, piece) = (Arc::clone(&encoders), waiting.take().expect("it waits for its place"));
                members.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    Ok((encoders.encode(piece).await?, place))
                })));
            }
        }
    }
    Ok(Encoded { digest: hasher.finish(), size, file: writer.finish().await? })
}

/// Decompresses, hashes and cuts; returns the digest and the number of the plain bytes.
fn cut(input: ChannelReader, algorithm: Algorithm, output: &mpsc::Sender<Bytes>) -> io::Result<(Digest, u64)> {
    let mut plain = Decoder::new(input)?;
    let mut hasher = Hasher::new(algorithm);
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

/// Encoders that wait for work, each used by one piece at a time, and what they made before.
#[derive(Debug)]
struct Encoders {
    idle: Mutex<Vec<Encoder>>,
    pieces: Pieces,
}

impl Encoders {
    /// The leaf of a piece: the one that it had before, if that is still there.
    async fn encode(self: Arc<Self>, piece: Bytes) -> Result<Block, TransferError> {
        let hint = hint(&piece);
        self.pieces.make_room().await?;
        let known = self.pieces.leaf(&hint).await?;
        let work = move || {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut encoder = idle.map_or_else(|| Encoder::new(self.pieces.encoding()), Ok)?;
            let known = known.filter(|leaf| encoder.made(leaf, &piece));
            let new = known.is_none();
            let leaf = Block::raw(known.map_or_else(|| encoder.encode(&piece), Ok)?);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
            if new {
                self.pieces.learn(hint, leaf.cid());
            }
            Ok::<_, EncodeError>(leaf)
        };
        let made = tokio::task::spawn_blocking(work).await;
        Ok(made.map_err(|_| TransferError::Worker { doing: "compressing a layer" })??)
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
    use crate::dag::decode::sniff;
    use crate::kind::ErrorKind;
    use crate::port::blocks::{BlockStore as _, Put, StoreError};
    use crate::port::memory::blocks::MemoryBlocks;
    use crate::port::memory::table::MemoryTable;
    use crate::port::table::{Change, Space, Table};

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

    fn workshop(blocks: &MemoryBlocks, tables: &Arc<MemoryTable>, session: Arc<dyn StoreSession>) -> Workshop {
        let ledger = Ledger::new(Arc::clone(tables) as Arc<dyn Table>, Arc::new(blocks.clone()));
        Workshop::new(&ledger, session, Arc::default(), Encoding::AlignedGzip1)
    }

    async fn within<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), work).await.expect("it does not hang")
    }

    async fn store(session: Arc<dyn StoreSession>, mut data: impl AsyncRead + Send + Unpin) -> TransferError {
        let workshop = workshop(&MemoryBlocks::new(), &Arc::default(), session);
        within(workshop.encode("a layer", &mut data, |_| {})).await.unwrap_err()
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

    /// A layer of nothing is no blob of nothing, which no decompressor takes.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_layer_without_bytes_can_be_decompressed() {
        for (encoding, compression) in [
            (Encoding::AlignedGzip1, Compression::Gzip),
            (Encoding::AlignedZstd1, Compression::Zstd),
            (Encoding::AlignedNone1, Compression::None),
        ] {
            let blocks = MemoryBlocks::new();
            let session = blocks.begin(Duration::from_secs(60)).await.unwrap();
            let ledger = Ledger::new(Arc::new(MemoryTable::new()), Arc::new(blocks.clone()));
            let workshop = Workshop::new(&ledger, session.into(), Arc::default(), encoding);
            let made = within(workshop.encode("a layer", &mut &b""[..], |_| {})).await.unwrap();
            assert_eq!(made.diff_id, Digest::sha256(b""));
            if compression == Compression::None {
                assert_eq!(made.blob.size, 0);
                continue;
            }
            let bytes = blocks.get(&made.blob.cid).await.unwrap().unwrap();
            assert_eq!((bytes.len() as u64, sniff(&bytes).unwrap()), (made.blob.size, compression));
            let mut plain = Vec::new();
            Decoder::new(&bytes[..]).unwrap().read_to_end(&mut plain).unwrap();
            assert!(plain.is_empty(), "{encoding}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn layers_are_named_as_their_configuration_does() {
        let blocks = MemoryBlocks::new();
        let session = blocks.begin(Duration::from_secs(60)).await.unwrap();
        let workshop = workshop(&blocks, &Arc::default(), session.into());
        let made = within(workshop.take("a layer", Algorithm::Sha512, &mut &b"bytes"[..], |_| {})).await.unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"bytes");
        assert_eq!(within(made.finish()).await.unwrap().diff_id, hasher.finish());
    }

    /// What the encoder would have to make is there already: it is not made.
    #[tokio::test(flavor = "multi_thread")]
    async fn known_pieces_are_used_again() {
        let (blocks, tables) = (MemoryBlocks::new(), Arc::new(MemoryTable::new()));
        let session: Arc<dyn StoreSession> = blocks.begin(Duration::from_secs(60)).await.unwrap().into();
        let mut tar = tar::Builder::new(Vec::new());
        for (at, size) in [(1_u8, 50_000), (2, 100_000), (3, 40), (4, 2_000_000)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            let text = (0..size).map(|i| ((i * i) >> 7).to_le_bytes()[0] ^ at).collect::<Vec<_>>();
            tar.append_data(&mut header, format!("file-{at}"), &text[..]).unwrap();
        }
        let plain = tar.into_inner().unwrap();
        let first = workshop(&blocks, &tables, Arc::clone(&session));
        let made = within(first.encode("a layer", &mut &plain[..], |_| {})).await.unwrap();
        first.pieces().take_new().write(&(Arc::clone(&tables) as Arc<dyn Table>)).await.unwrap();
        let rows = tables.scan(Space::Pieces, &[]).await.unwrap();
        assert!(rows.len() > 4, "{}", rows.len());
        // Two at a time, and in both orders the same.
        let second = workshop(&blocks, &tables, Arc::clone(&session));
        let one = within(second.take("one", Algorithm::Sha256, &mut &plain[..], |_| {})).await.unwrap();
        let two = within(second.take("two", Algorithm::Sha256, &mut &plain[..], |_| {})).await.unwrap();
        assert_eq!(within(two.finish()).await.unwrap(), made);
        assert_eq!(within(one.finish()).await.unwrap(), made);
        assert_eq!(second.totals.get(), Put::default(), "nothing was new");
        // Rows that lead elsewhere, or nowhere, are not believed.
        let elsewhere = rows[0].1.clone();
        let wrong = rows.iter().enumerate().map(|(i, (key, _))| {
            Change::Put(Space::Pieces, key.clone(), if i % 2 == 0 { elsewhere.clone() } else { vec![7; 32] })
        });
        tables.write(wrong.collect()).await.unwrap();
        let third = workshop(&blocks, &tables, session);
        assert_eq!(within(third.encode("a layer", &mut &plain[..], |_| {})).await.unwrap(), made);
        third.pieces().take_new().write(&(Arc::clone(&tables) as Arc<dyn Table>)).await.unwrap();
        assert_eq!(tables.scan(Space::Pieces, &[]).await.unwrap(), rows, "they are put right");
    }

    /// Fails at once.
    fn broken_off() -> impl AsyncRead + Send + Unpin {
        tokio_util::io::StreamReader::new(futures::stream::iter([Err::<Bytes, _>(io::Error::from(
            io::ErrorKind::ConnectionReset,
        ))]))
    }
}
