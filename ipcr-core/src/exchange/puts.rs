//! Blocks that come together, stored together: [`Puts`].
//!
//! Each call of a store that keeps blocks on a disk is work for another thread, and waking that one costs as much as writing a small
//! block does. So one task stores, and what comes meanwhile is stored by its next call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::dag::block::Block;
use crate::kind::ErrorKind;
use crate::port::blocks::{StoreError, StoreSession};

/// Most bytes, but for one block, that are stored by one call.
const BYTES: usize = 4 << 20;

/// Stores blocks with a session.
#[derive(Debug)]
pub(super) struct Puts {
    keep: Arc<dyn StoreSession>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    at_work: bool,
}

#[derive(Debug)]
struct Waiting {
    block: Block,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Puts {
    pub(super) fn new(keep: Arc<dyn StoreSession>) -> Self {
        Self { keep, queue: Arc::default() }
    }

    /// The session.
    pub(super) fn session(&self) -> &dyn StoreSession {
        &*self.keep
    }

    /// Stores a block; it can be read when this returns. It is stored also when nobody waits for that any more.
    pub(super) async fn put(&self, block: Block) -> Result<(), StoreError> {
        let (done, stored) = oneshot::channel();
        let begins = {
            let mut queue = lock(&self.queue);
            queue.waiting.push(Waiting { block, done });
            !std::mem::replace(&mut queue.at_work, true)
        };
        if begins {
            tokio::spawn(work(self.keep.clone(), AtWork { queue: self.queue.clone(), ended: false }));
        }
        stored.await.unwrap_or_else(|_| {
            let source = "storing blocks was cut short".into();
            Err(StoreError::Backend { doing: "adding blocks", kind: ErrorKind::Interrupted, source })
        })
    }
}

/// Who stores. However that ends, others can begin again, and nobody waits for ever.
struct AtWork {
    queue: Arc<Mutex<Queue>>,
    ended: bool,
}

impl AtWork {
    /// The next blocks; none when the work has ended.
    fn next(&mut self) -> Vec<Waiting> {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let within = |waiting: &&Waiting| {
            let first = bytes == 0;
            bytes += waiting.block.data().len().max(1);
            first || bytes <= BYTES
        };
        let count = queue.waiting.iter().take_while(within).count();
        queue.at_work = count > 0;
        self.ended = count == 0;
        queue.waiting.drain(..count).collect()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.ended {
            *lock(&self.queue) = Queue::default();
        }
    }
}

async fn work(keep: Arc<dyn StoreSession>, mut at_work: AtWork) {
    loop {
        let (blocks, waiting): (Vec<_>, Vec<_>) =
            at_work.next().into_iter().map(|Waiting { block, done }| (block, done)).unzip();
        if blocks.is_empty() {
            return;
        }
        let several = blocks.len() > 1;
        match keep.put(blocks.clone()).await {
            Ok(_) => waiting.into_iter().for_each(|done| drop(done.send(Ok(())))),
            // Whose fault it is, each hears for itself.
            Err(_) if several => {
                for (block, done) in blocks.into_iter().zip(waiting) {
                    let _ = done.send(keep.put(vec![block]).await.map(drop));
                }
            }
            Err(error) => {
                if let Some(done) = waiting.into_iter().next() {
                    let _ = done.send(Err(error));
                }
            }
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::limits;
    use crate::port::blocks::BlockStore as _;
    use crate::port::memory::blocks::MemoryBlocks;

    fn block(number: u32, length: usize) -> Block {
        let mut data = vec![0; length];
        data[..4].copy_from_slice(&number.to_le_bytes());
        Block::raw(Bytes::from(data))
    }

    #[tokio::test]
    async fn all_are_stored_and_a_wrong_one_hurts_nobody_else() {
        let store = MemoryBlocks::new();
        let puts = Arc::new(Puts::new(store.begin(Duration::ZERO).await.unwrap().into()));
        let blocks: Vec<Block> = (0..100).map(|number| block(number, 100_000)).collect();
        let outcomes = futures::future::join_all(blocks.iter().map(|block| puts.put(block.clone()))).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        for block in &blocks {
            assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data()));
        }
        let oversize = block(7, limits::BLOCK_BYTES + 1);
        let several = [block(200, 10), oversize.clone(), block(201, 10)];
        let outcomes = futures::future::join_all(several.into_iter().map(|block| puts.put(block))).await;
        let refused: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
        assert_eq!(refused, [false, true, false]);
        puts.put(block(202, 10)).await.unwrap();
    }

    #[test]
    fn a_runtime_that_ends_holds_nobody_up() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = MemoryBlocks::new();
        let first = runtime();
        let puts = Puts::new(first.block_on(store.begin(Duration::ZERO)).unwrap().into());
        let mut abandoned = Box::pin(puts.put(block(1, 10)));
        // Begun, and left before anything was done.
        assert!(first.block_on(async { futures::poll!(&mut abandoned) }).is_pending());
        drop(first);
        let second = runtime();
        let error = second.block_on(abandoned).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        second.block_on(puts.put(block(2, 10))).unwrap();
    }
}
