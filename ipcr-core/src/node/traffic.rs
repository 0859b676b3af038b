//! What a node has sent and received: [`Traffic`].

use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks exchanged since the node started, and who is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Blocks sent to others.
    pub served_blocks: u64,
    /// Their bytes.
    pub served_bytes: u64,
    /// Blocks that others sent and that were wanted.
    pub received_blocks: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Connected peers.
    pub peers: usize,
}

/// The running counts behind a [`Traffic`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    served: Counter,
    received: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn add(&self, blocks: u64, bytes: u64) {
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn served(&self, blocks: u64, bytes: u64) {
        self.served.add(blocks, bytes);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.add(1, bytes);
    }

    pub(super) fn traffic(&self, peers: usize) -> Traffic {
        Traffic {
            served_blocks: self.served.blocks.load(Ordering::Relaxed),
            served_bytes: self.served.bytes.load(Ordering::Relaxed),
            received_blocks: self.received.blocks.load(Ordering::Relaxed),
            received_bytes: self.received.bytes.load(Ordering::Relaxed),
            peers,
        }
    }
}
