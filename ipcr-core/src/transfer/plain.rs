//! What a layer is without its compression.

use tokio::io::AsyncReadExt as _;

use super::error::TransferError;
use crate::dag::cut::Cutter;
use crate::dag::encode::{PieceHint, hint};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::media::archive::unpack::unpacked;
use crate::port::image::ByteStream;

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

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
    let mut hasher = Hasher::new(algorithm);
    let size = each(what, data, |bytes| hasher.update(bytes)).await?;
    Ok((size, hasher.finish()))
}

/// The same, and of which pieces they consist.
pub(crate) async fn survey(what: &str, data: ByteStream, algorithm: Algorithm) -> Result<Plain, TransferError> {
    let (mut hasher, mut cutter, mut pieces) = (Hasher::new(algorithm), Cutter::new(), Vec::new());
    let size = each(what, data, |mut bytes| {
        hasher.update(bytes);
        while !bytes.is_empty() {
            pieces.extend(cutter.push(&mut bytes).map(|piece| hint(&piece)));
        }
    });
    let size = size.await?;
    pieces.extend(cutter.finish().map(|piece| hint(&piece)));
    Ok(Plain { size, digest: hasher.finish(), pieces })
}

/// Reads plain bytes to their end; how many there are.
async fn each(what: &str, data: ByteStream, mut take: impl FnMut(&[u8])) -> Result<u64, TransferError> {
    let mut plain = unpacked(data);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = plain.read(&mut buffer).await.map_err(|error| TransferError::from_io(what, error))?;
        if count == 0 {
            return Ok(size);
        }
        take(&buffer[..count]);
        size += u64::try_from(count).expect("buffer sizes fit 64 bits");
    }
}
