//! UnixFS files in the balanced layout: [`FileBuilder`] turns leaves into a DAG while they come.
//!
//! The CIDs are those of Kubo for the same leaves: every leaf is equally deep, inner nodes are full but for the last one
//! of each level, a single leaf is the file itself, and the empty file is the empty raw leaf. Memory: at most `fan-out`
//! links per level.

use bytes::Bytes;
use cid::Cid;

use super::block::Block;
use super::pb::{Kind, Link, Node, UnixFs};

/// Links per node in the profile `unixfs-v1-2025`.
pub const FAN_OUT: usize = 1024;
/// Links per node as Kubo writes without a profile.
pub const KUBO_FAN_OUT: usize = 174;

/// A finished file, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRoot {
    /// The root.
    pub cid: Cid,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of all blocks, what a link to it says as `Tsize`.
    pub tsize: u64,
}

impl FileRoot {
    /// A raw leaf as a file.
    pub fn leaf(cid: Cid, size: u64) -> Self {
        Self { cid, size, tsize: size }
    }
}

/// Builds the inner nodes of a file.
#[derive(Debug)]
pub struct FileBuilder {
    fan_out: usize,
    levels: Vec<Vec<FileRoot>>,
}

impl Default for FileBuilder {
    fn default() -> Self {
        Self::new(FAN_OUT)
    }
}

impl FileBuilder {
    /// A builder of nodes with at most `fan_out` links.
    ///
    /// # Panics
    /// When `fan_out` is less than 2.
    pub fn new(fan_out: usize) -> Self {
        assert!(fan_out >= 2, "a tree needs two links per node");
        Self { fan_out, levels: Vec::new() }
    }

    /// Adds the next leaf, a raw block of `size` bytes; nodes that are full by it.
    pub fn push(&mut self, cid: Cid, size: u64) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.add(0, FileRoot::leaf(cid, size), &mut blocks);
        blocks
    }

    /// The file and the nodes that were missing.
    ///
    /// The empty raw leaf is among them when nothing was pushed.
    pub fn finish(mut self) -> (FileRoot, Vec<Block>) {
        let mut blocks = Vec::new();
        let mut level = 0;
        while level < self.levels.len() {
            let last = level + 1 == self.levels.len();
            match self.levels[level].as_slice() {
                [] => {}
                [root] if last => return (*root, blocks),
                _ => {
                    let node = self.seal(level, &mut blocks);
                    self.add(level + 1, node, &mut blocks);
                }
            }
            level += 1;
        }
        let empty = Block::raw(Bytes::new());
        let root = FileRoot::leaf(*empty.cid(), 0);
        blocks.push(empty);
        (root, blocks)
    }

    fn add(&mut self, mut level: usize, mut child: FileRoot, blocks: &mut Vec<Block>) {
        loop {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(child);
            if self.levels[level].len() < self.fan_out {
                return;
            }
            child = self.seal(level, blocks);
            level += 1;
        }
    }

    /// Makes a node of everything that waits at `level`.
    fn seal(&mut self, level: usize, blocks: &mut Vec<Block>) -> FileRoot {
        let children = std::mem::take(&mut self.levels[level]);
        let size = children.iter().map(|child| child.size).sum();
        let mut data = UnixFs::new(Kind::File);
        data.filesize = Some(size);
        data.blocksizes = children.iter().map(|child| child.size).collect();
        let below: u64 = children.iter().map(|child| child.tsize).sum();
        let link = |child: &FileRoot| Link { cid: child.cid, name: String::new(), tsize: child.tsize };
        let node = Node { links: children.iter().map(link).collect(), data };
        let block = Block::dag_pb(node.encode());
        let own = u64::try_from(block.data().len()).expect("block sizes fit 64 bits");
        let root = FileRoot { cid: *block.cid(), size, tsize: below + own };
        blocks.push(block);
        root
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::chunk::Chunker;

    /// The CID of `data` with chunks of `size` and `fan_out` links, and that of all blocks that were emitted.
    fn add(data: &[u8], size: usize, fan_out: usize) -> (FileRoot, Vec<Block>) {
        let mut chunker = Chunker::new(size);
        let mut builder = FileBuilder::new(fan_out);
        let mut blocks = Vec::new();
        let mut rest = data;
        let mut leaves = Vec::new();
        while !rest.is_empty() {
            leaves.extend(chunker.push(&mut rest));
        }
        leaves.extend(chunker.finish());
        for leaf in leaves {
            let block = Block::raw(leaf);
            blocks.extend(builder.push(*block.cid(), block.data().len() as u64));
            blocks.push(block);
        }
        let (root, more) = builder.finish();
        blocks.extend(more);
        (root, blocks)
    }

    /// `head -c SIZE /dev/zero | ipfs add -Q -n --cid-version=1 --chunker=… --max-file-links=…`, Kubo 0.43: size, defaults
    /// (262144, 174), profile `unixfs-v1-2025` (1048576, 1024).
    const ZEROS: [(usize, &str, &str); 7] = [
        (
            0,
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        ),
        (
            1,
            "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
            "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
        ),
        (
            262_144,
            "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa",
            "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa",
        ),
        (
            262_145,
            "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki",
            "bafkreifspibstbhkrjv6y4amhvxwh6h47p4p7dxyp2lsrep63jhousvnbq",
        ),
        (
            1_048_576,
            "bafybeiggzq4ryi7hscq5hzvzcnk4urnxt3asp37dhgvnjilf7exskximla",
            "bafkreibq4fevl27rgurgnxbp7adh42aqiyd6ouflxhj3gzmcxcxzbh6lla",
        ),
        (
            1_048_577,
            "bafybeihhq4imxfkfucfxjbnqvrvzdknmfbzvxaivz7jzdnumfkabdbq3yq",
            "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq",
        ),
        (
            3_145_728,
            "bafybeid6cfsaebdlldcfoaqszmw4k2qtxh6swwzw4tyf43e7seylmat3hy",
            "bafybeigdsjup7aizxrrjn7yqtcmqg6ffksaugwr7is2ind3cf7esaqrz4m",
        ),
    ];

    #[test]
    fn cids_equal_those_of_kubo() {
        for (size, kubo, profile) in ZEROS {
            let data = vec![0; size];
            assert_eq!(add(&data, 262_144, KUBO_FAN_OUT).0.cid.to_string(), kubo, "{size}");
            assert_eq!(add(&data, 1 << 20, FAN_OUT).0.cid.to_string(), profile, "{size}");
        }
        let mixed: Vec<u8> = (0..3000_u32).map(|i| (((i * i) >> 5) & 255) as u8).collect();
        let (root, blocks) = add(&mixed, 16, 4);
        assert_eq!(root.cid.to_string(), "bafybeigxtbqknsxl7gh6d4bguvximmwir3ushnvymtt74xvqpgiqw3ckwm");
        assert_eq!(root.size, 3000);
        assert_eq!(root.tsize, blocks.iter().map(|block| block.data().len() as u64).sum::<u64>());
    }

    #[test]
    fn several_levels_equal_those_of_kubo() {
        for (size, fan_out, full, rest, expected) in [
            (262_144, KUBO_FAN_OUT, 174, 0, "bafybeibxsa3ioclowpaq7b6gxl65gzqneopfr3fnhedak6sqr4bjz5lnyq"),
            (262_144, KUBO_FAN_OUT, 174, 1, "bafybeihqwzd3o6q6v3pmwhzjy22vokhr767burokmqemg63hptx2nqd7ym"),
            (262_144, KUBO_FAN_OUT, 175, 0, "bafybeigfps5vzivfspwgm3uwsfyl5s6bn3ysh7uqidgauxgopw4yi66lse"),
            (1 << 20, FAN_OUT, 1024, 0, "bafybeibqawkaltgjfdebq4no6nmfcvkcw7k52xqzclkwfmrkn6oxw7srmy"),
            (1 << 20, FAN_OUT, 1024, 1, "bafybeigx4uyebjbq65346xh6cjrt6yshbdudzudhnqecwbzvymslxj7gje"),
            (1 << 20, FAN_OUT, 1025, 0, "bafybeigt7wofv4vnxbg3titijasuw4ptg5kfztec4smsk7opdt7z6djoxq"),
        ] {
            let leaf = *Block::raw(Bytes::from(vec![0; size])).cid();
            let mut builder = FileBuilder::new(fan_out);
            let mut nodes = 0;
            for _ in 0..full {
                nodes += builder.push(leaf, size as u64).len();
            }
            if rest > 0 {
                let last = *Block::raw(Bytes::from(vec![0; rest])).cid();
                nodes += builder.push(last, rest as u64).len();
            }
            let (root, blocks) = builder.finish();
            assert_eq!(root.cid.to_string(), expected, "{full} leaves of {size} and {rest}");
            assert_eq!(root.size, (full * size + rest) as u64);
            let levels = if full + rest.min(1) > fan_out { 3 } else { 1 };
            assert_eq!(nodes + blocks.len(), levels);
        }
    }
}
