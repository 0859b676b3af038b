//! Storing bytes as they come: one file of fixed chunks (profile `unixfs-v1-2025`).

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::TransferError;
use super::write::{FileWriter, PutTotals};
use crate::dag::block::Block;
use crate::dag::file::FileRoot;
use crate::limits;
use crate::port::blocks::{Put, StoreSession};

/// Chunks of one file that are hashed at once.
const HASHES: usize = 4;

/// Stores everything that `data` gives as one file, called `what` in errors; what it changed. The file is readable when this
/// returns, and durable once the session is committed.
pub async fn store_file(
    session: Arc<dyn StoreSession>,
    what: &str,
    data: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<(FileRoot, Put), TransferError> {
    let totals = Arc::new(PutTotals::default());
    let root = store(session, totals.clone(), what, data, None).await?;
    Ok((root, totals.get()))
}

/// Stores everything that `data` gives, and hands it to `tap` as well. Errors of `data` are passed on as they are.
pub(crate) async fn store(
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    what: &str,
    data: &mut (dyn AsyncRead + Send + Unpin),
    tap: Option<mpsc::Sender<Bytes>>,
) -> Result<FileRoot, TransferError> {
    let mut writer = FileWriter::new(session, totals);
    let mut hashing: FuturesOrdered<JoinHandle<Block>> = FuturesOrdered::new();
    loop {
        let chunk = read_chunk(data).await.map_err(|error| TransferError::from_io(what, error))?;
        let last = chunk.len() < limits::LEAF_BYTES;
        if !chunk.is_empty() {
            if let Some(tap) = &tap {
                // Whoever wants no more has its reasons, and tells them.
                let _ = tap.send(chunk.clone()).await;
            }
            hashing.push_back(tokio::task::spawn_blocking(move || Block::raw(chunk)));
        }
        while hashing.len() >= HASHES || (last && !hashing.is_empty()) {
            if let Some(block) = hashing.next().await {
                writer.push(block.map_err(|_| TransferError::Worker { doing: "hashing blocks" })?).await?;
            }
        }
        if last {
            return writer.finish().await;
        }
    }
}

/// A whole leaf, or what is left of the stream.
async fn read_chunk(data: &mut (dyn AsyncRead + Send + Unpin)) -> std::io::Result<Bytes> {
    let limit = u64::try_from(limits::LEAF_BYTES).expect("a leaf's size fits 64 bits");
    let mut chunk = Vec::with_capacity(limits::LEAF_BYTES);
    data.take(limit).read_to_end(&mut chunk).await?;
    Ok(chunk.into())
}
