//! Blocks that have just come: [`Fresh`].

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use crate::dag::block::Block;

/// Most bytes of all of them.
const BYTES: usize = 16 << 20;

/// The last blocks that sessions received, which others who wait for them get without a way through the store: whoever fetches
/// the same wants them now, or not at all.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    blocks: HashMap<Multihash<64>, Bytes>,
    order: VecDeque<Multihash<64>>,
    bytes: usize,
}

impl Fresh {
    pub(super) fn add(&mut self, block: &Block) {
        let (hash, data) = (*block.cid().hash(), block.data().clone());
        self.bytes += data.len();
        match self.blocks.insert(hash, data) {
            Some(before) => self.bytes -= before.len(),
            None => self.order.push_back(hash),
        }
        while self.bytes > BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.blocks.remove(&oldest).map_or(0, |data| data.len());
        }
    }

    pub(super) fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.blocks.get(cid.hash()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let mut fresh = Fresh::default();
        let blocks: Vec<Block> = (0..40_u8).map(|byte| Block::raw(vec![byte; 1 << 20].into())).collect();
        for block in blocks.iter().chain(&blocks[39..]) {
            fresh.add(block);
            assert!(fresh.bytes <= BYTES && fresh.order.len() == fresh.blocks.len());
        }
        let kept = blocks.iter().filter(|block| fresh.get(block.cid()).as_ref() == Some(block.data())).count();
        assert_eq!(kept, 16);
        assert!(fresh.get(blocks[39].cid()).is_some() && fresh.get(blocks[0].cid()).is_none());
    }
}
