//! Writing files into a store session: leaves in, a [`FileRoot`] out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cid::Cid;
use tokio::task::JoinSet;

use super::error::TransferError;
use crate::dag::block::Block;
use crate::dag::file::{FileBuilder, FileRoot};
use crate::port::blocks::{Put, StoreError, StoreSession};

/// Bytes of blocks that are put in one go.
const BATCH_BYTES: usize = 2 << 20;
/// Puts of one file that are under way at once.
const PUTS: usize = 2;

/// What a whole operation has put so far.
#[derive(Debug, Default)]
pub(crate) struct PutTotals {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl PutTotals {
    /// Adds one put.
    pub(crate) fn add(&self, put: Put) {
        self.blocks.fetch_add(put.new_blocks, Ordering::Relaxed);
        self.bytes.fetch_add(put.new_bytes, Ordering::Relaxed);
    }

    /// The sum.
    pub(crate) fn get(&self) -> Put {
        Put { new_blocks: self.blocks.load(Ordering::Relaxed), new_bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Collects blocks into batches and puts them while the next ones are made. Holds at most three batches.
#[derive(Debug)]
pub(crate) struct FileWriter {
    session: Arc<dyn StoreSession>,
    totals: Arc<PutTotals>,
    builder: FileBuilder,
    batch: Vec<Block>,
    batch_bytes: usize,
    puts: JoinSet<Result<Put, StoreError>>,
}

impl FileWriter {
    /// A writer of one file.
    pub(crate) fn new(session: Arc<dyn StoreSession>, totals: Arc<PutTotals>) -> Self {
        let builder = FileBuilder::default();
        Self { session, totals, builder, batch: Vec::new(), batch_bytes: 0, puts: JoinSet::new() }
    }

    /// Adds the next leaf.
    pub(crate) async fn push(&mut self, leaf: Block) -> Result<(), TransferError> {
        let (cid, size): (Cid, usize) = (*leaf.cid(), leaf.data().len());
        let nodes = self.builder.push(cid, u64::try_from(size).expect("block sizes fit 64 bits"));
        self.add(leaf).await?;
        for node in nodes {
            self.add(node).await?;
        }
        Ok(())
    }

    /// Puts what is left. The file is readable when this returns, and durable once the session is committed.
    pub(crate) async fn finish(mut self) -> Result<FileRoot, TransferError> {
        let builder = std::mem::take(&mut self.builder);
        let (root, nodes) = builder.finish();
        for node in nodes {
            self.add(node).await?;
        }
        self.flush().await?;
        while !self.puts.is_empty() {
            self.settle().await?;
        }
        Ok(root)
    }

    async fn add(&mut self, block: Block) -> Result<(), TransferError> {
        self.batch_bytes += block.data().len();
        self.batch.push(block);
        if self.batch_bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.puts.len() >= PUTS {
            self.settle().await?;
        }
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let session = Arc::clone(&self.session);
        self.puts.spawn(async move { session.put(batch).await });
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), TransferError> {
        match self.puts.join_next().await {
            Some(Ok(put)) => self.totals.add(put?),
            Some(Err(_)) => return Err(TransferError::Worker { doing: "storing blocks" }),
            None => {}
        }
        Ok(())
    }
}
