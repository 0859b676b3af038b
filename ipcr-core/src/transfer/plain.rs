//! What a layer is without its compression.

use tokio::io::AsyncReadExt as _;

use super::error::TransferError;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::media::archive::unpack::unpacked;
use crate::port::image::ByteStream;

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

/// The size and digest of a layer's plain bytes; `what` is the layer, for people.
pub(crate) async fn measure(
    what: &str,
    data: ByteStream,
    algorithm: Algorithm,
) -> Result<(u64, Digest), TransferError> {
    let mut plain = unpacked(data);
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
