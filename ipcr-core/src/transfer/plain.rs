//! What a layer is without its compression.

use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::error::TransferError;
use crate::dag::cut::Cutter;
use crate::dag::encode::{PieceHint, hint};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::media::archive::unpack::unpacked;
use crate::port::image::ByteStream;

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;
/// Such chunks that wait to be looked at.
const AHEAD: usize = 2;

/// What a layer's plain bytes are.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// The pieces into which it would be cut.
    pub(crate) pieces: Vec<PieceHint>,
}

/// The size and digest of a layer's plain bytes; `what` is the layer, for people.
pub(crate) async fn measure(
    what: &str,
    data: ByteStream,
    algorithm: Algorithm,
) -> Result<(u64, Digest), TransferError> {
    let (mut hasher, mut size) = (Hasher::new(algorithm), 0);
    let mut plain = unpacked(data);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = plain.read(&mut buffer).await.map_err(|error| TransferError::from_io(what, error))?;
        if count == 0 {
            return Ok((size, hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        size += length(&buffer[..count]);
    }
}

/// The same, and of which pieces they consist. What has been decompressed is looked at by another thread while more is: a stream has to be
/// decompressed by one, which takes two thirds of the work.
pub(crate) async fn survey(what: &str, data: ByteStream, algorithm: Algorithm) -> Result<Plain, TransferError> {
    let (filled, mut received) = mpsc::channel::<(Vec<u8>, usize)>(AHEAD);
    let (emptied, mut spare) = mpsc::channel::<Vec<u8>>(AHEAD);
    let looking = tokio::task::spawn_blocking(move || {
        let (mut hasher, mut cutter, mut pieces) = (Hasher::new(algorithm), Cutter::new(), Vec::new());
        let mut size = 0;
        while let Some((chunk, count)) = received.blocking_recv() {
            let mut bytes = &chunk[..count];
            size += length(bytes);
            hasher.update(bytes);
            while !bytes.is_empty() {
                pieces.extend(cutter.push(&mut bytes).map(|piece| hint(&piece)));
            }
            // Whoever decompresses takes another one if there is no room.
            let _ = emptied.try_send(chunk);
        }
        pieces.extend(cutter.finish().map(|piece| hint(&piece)));
        Plain { size, digest: hasher.finish(), pieces }
    });
    let mut plain = unpacked(data);
    loop {
        let mut chunk = spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        let mut count = 0;
        while count < CHUNK {
            match plain.read(&mut chunk[count..]).await.map_err(|error| TransferError::from_io(what, error))? {
                0 => break,
                read => count += read,
            }
        }
        if filled.send((chunk, count)).await.is_err() || count < CHUNK {
            break;
        }
    }
    drop(filled);
    looking.await.map_err(|_| TransferError::Worker { doing: "looking at layers" })
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("buffer sizes fit 64 bits")
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::kind::ErrorKind;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn what_is_surveyed_is_what_was_packed() {
        let mut plain = Vec::new();
        for number in 0..300_000_u32 {
            plain.extend_from_slice(Digest::sha256(&(number % 90_000).to_le_bytes()).as_bytes());
        }
        assert!(plain.len() > 2 * (AHEAD + 1) * CHUNK && plain.len() % CHUNK != 0);
        let (mut cutter, mut rest, mut pieces) = (Cutter::new(), &plain[..], Vec::new());
        while !rest.is_empty() {
            pieces.extend(cutter.push(&mut rest).map(|piece| hint(&piece)));
        }
        pieces.extend(cutter.finish().map(|piece| hint(&piece)));
        for packed in [gzip(&plain), plain.clone()] {
            let found = survey("a layer", Box::pin(Cursor::new(packed)), Algorithm::Sha256).await.unwrap();
            assert_eq!((found.size, found.digest), (length(&plain), Digest::sha256(&plain)));
            assert_eq!(found.pieces, pieces);
        }
        let nothing = survey("a layer", Box::pin(Cursor::new(Vec::new())), Algorithm::Sha256).await.unwrap();
        assert_eq!((nothing.size, nothing.digest, nothing.pieces.len()), (0, Digest::sha256(b""), 0));
    }

    #[tokio::test]
    async fn a_layer_that_breaks_off_is_an_error() {
        let mut packed = gzip(&vec![7; 3 << 20]);
        packed.truncate(packed.len() - 9);
        let error = survey("a layer", Box::pin(Cursor::new(packed)), Algorithm::Sha256).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    }
}
