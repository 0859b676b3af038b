//! Which blocks lie beside each other in a file: [`Kin`]. One request can get a run of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use crate::dag::block::{DAG_PB, RAW};
use crate::dag::pb::{Kind, Node};
use crate::limits;

/// Most leaves whose place is remembered.
const LEAVES: usize = 1 << 17;

/// A node of a file whose children are leaves.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) cid: Cid,
    pub(super) leaves: Vec<Leaf>,
    /// Bytes of the file below the node.
    pub(super) size: u64,
}

/// A leaf and its place in the bytes of its parent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) hash: Multihash<64>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The leaves of the nodes that came last.
#[derive(Debug, Default)]
pub(super) struct Kin {
    places: HashMap<Multihash<64>, (Arc<Parent>, usize)>,
    parents: VecDeque<Arc<Parent>>,
    leaves: usize,
}

impl Kin {
    /// Learns from a block that came. What contradicts itself is left to those who read the file.
    pub(super) fn learn(&mut self, cid: &Cid, data: &Bytes) {
        if cid.codec() == DAG_PB
            && let Some(parent) = read(cid, data).map(Arc::new)
        {
            self.leaves += parent.leaves.len();
            for (index, leaf) in parent.leaves.iter().enumerate() {
                self.places.insert(leaf.hash, (parent.clone(), index));
            }
            self.parents.push_back(parent);
            while self.leaves > LEAVES
                && let Some(oldest) = self.parents.pop_front()
            {
                self.leaves -= oldest.leaves.len();
                for leaf in &oldest.leaves {
                    self.places.remove(&leaf.hash);
                }
            }
        }
    }

    /// The parent of a leaf, and which of its leaves it is.
    pub(super) fn place(&self, hash: &Multihash<64>) -> Option<(&Arc<Parent>, usize)> {
        self.places.get(hash).map(|(parent, index)| (parent, *index))
    }
}

fn read(cid: &Cid, data: &Bytes) -> Option<Parent> {
    let node = Node::decode(data).ok()?;
    let is_leaf = |size: u64, cid: &Cid| {
        cid.codec() == RAW || usize::try_from(size).is_ok_and(|size| size <= limits::BLOCK_BYTES)
    };
    let leaves = node.data.blocksizes.iter().zip(&node.links).all(|(size, link)| is_leaf(*size, &link.cid));
    if node.data.kind != Kind::File || node.links.len() < 2 || node.links.len() != node.data.blocksizes.len() || !leaves
    {
        return None;
    }
    let mut offset = u64::try_from(node.data.data.len()).ok()?;
    let mut leaves = Vec::with_capacity(node.links.len());
    for (link, size) in node.links.iter().zip(&node.data.blocksizes) {
        leaves.push(Leaf { hash: *link.cid.hash(), offset, size: *size });
        offset = offset.checked_add(*size)?;
    }
    Some(Parent { cid: *cid, leaves, size: offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::Block;
    use crate::dag::file::FileBuilder;

    /// A file of so many leaves of 10 bytes; its nodes, the root last.
    fn file(first: usize, leaves: usize) -> (Vec<Block>, Vec<Block>) {
        let leaves: Vec<_> = (first..first + leaves).map(|at| Block::raw(format!("{at:010}").into())).collect();
        let mut builder = FileBuilder::new(8);
        let mut nodes: Vec<_> = leaves.iter().flat_map(|leaf| builder.push(*leaf.cid(), 10)).collect();
        nodes.extend(builder.finish().1);
        (leaves, nodes)
    }

    #[test]
    fn leaves_know_their_place() {
        let (leaves, nodes) = file(0, 20);
        let mut kin = Kin::default();
        assert!(kin.place(leaves[0].cid().hash()).is_none());
        nodes.iter().for_each(|node| kin.learn(node.cid(), node.data()));
        for (at, leaf) in leaves.iter().enumerate() {
            let (parent, index) = kin.place(leaf.cid().hash()).unwrap();
            assert_eq!((index, parent.leaves[index].offset), (at % 8, 10 * (at as u64 % 8)));
            assert_eq!(parent.size, if at < 16 { 80 } else { 40 });
        }
        assert!(kin.place(nodes[0].cid().hash()).is_some_and(|(parent, _)| parent.cid == *nodes.last().unwrap().cid()));
    }

    #[test]
    fn nodes_of_large_parts_and_directories_have_no_leaves() {
        let mut builder = FileBuilder::new(2);
        let leaf = Block::raw(vec![1; 2 << 20].into());
        let mut nodes: Vec<_> = (0..4).flat_map(|_| builder.push(*leaf.cid(), 2 << 20)).collect();
        nodes.extend(builder.finish().1);
        let (root, mut kin) = (nodes.last().unwrap(), Kin::default());
        kin.learn(root.cid(), root.data());
        assert!(kin.place(nodes[0].cid().hash()).is_none(), "its children are no leaves");
        let folder = Block::dag_pb(Bytes::from_static(b"\x0a\x02\x08\x01"));
        kin.learn(folder.cid(), folder.data());
        kin.learn(leaf.cid(), leaf.data());
        assert!(kin.places.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut kin = Kin::default();
        for first in 0..LEAVES / 8 + 10 {
            let (_, nodes) = file(first * 8, 8);
            kin.learn(nodes[0].cid(), nodes[0].data());
        }
        assert!(kin.leaves <= LEAVES && kin.places.len() <= LEAVES && kin.parents.len() <= LEAVES / 8);
        assert!(kin.place(file(0, 8).0[0].cid().hash()).is_none());
    }
}
