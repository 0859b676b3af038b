use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cid::Cid;
use proptest::prelude::*;

use super::*;

/// Blocks by CID, and how many were read.
#[derive(Default)]
struct Blocks {
    held: HashMap<Cid, Bytes>,
    read: usize,
}

impl Blocks {
    fn add(&mut self, edited: &Edited) {
        self.held.extend(edited.blocks.iter().map(|block| (*block.cid(), block.data().clone())));
        assert_eq!(edited.blocks.last().map(Block::cid), Some(&edited.cid));
    }

    fn edit(&mut self, root: Option<Cid>, changes: Vec<Change>) -> Edited {
        let mut editor = Editor::new(root, changes).unwrap();
        loop {
            match editor.advance().unwrap() {
                Progress::Done(edited) => {
                    self.add(&edited);
                    return edited;
                }
                Progress::Need(cids) => {
                    for cid in cids {
                        self.read += 1;
                        editor.supply(cid, &self.held[&cid]).unwrap();
                    }
                }
            }
        }
    }

    fn find(&self, root: Cid, name: &str) -> Option<Link> {
        let mut at = root;
        for level in 0.. {
            match step(&Part::decode(&at, &self.held[&at]).unwrap(), name, level) {
                Step::Found(link) => return Some(link),
                Step::Absent => return None,
                Step::Descend(cid) => at = cid,
            }
        }
        unreachable!()
    }
}

/// The file `entry-<i>` holding `<i>` and a newline.
fn entry(i: usize) -> Link {
    let text = format!("{i}\n");
    let tsize = text.len() as u64;
    Link { cid: *Block::raw(text.into()).cid(), name: format!("entry-{i}"), tsize }
}

/// Files `entry-0` … holding their number and a newline: `ipfs add -Q -r` of Kubo 0.43 with the profile
/// unixfs-v1-2025. 4875 entries are exactly 256 KiB.
const KUBO: [(usize, &str); 6] = [
    (0, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
    (5, "bafybeifcuhup2qsfgkl7yfwvkdh35lw2xjdisxl5nbwb627imqdi2jb5pe"),
    (1000, "bafybeiafmqukpwqkwzc4doradrvvtoagvny24r3jbezyqrnwp6patmznom"),
    (4875, "bafybeigmqefgs2cev3f7gznq73qpqgfy6dibbhboek6cjs57xkw7fncbhq"),
    (4876, "bafybeid7wd2ljstmgqwj5psqmjdnvzlj6wrwau4tadwngok56yefayp4ya"),
    (20_000, "bafybeicmqmvkxl52tkdbfbd2iitpcfy4wfxpxaemtfz7fwkwrwmbep2i5u"),
];

#[test]
fn built_directories_equal_those_of_kubo() {
    for (count, expected) in KUBO {
        let edited = build((0..count).map(entry)).unwrap();
        assert_eq!(edited.cid.to_string(), expected, "{count}");
        let own: u64 = edited.blocks.iter().map(|block| block.data().len() as u64).sum();
        assert_eq!(edited.tsize, own + (0..count).map(|i| entry(i).tsize).sum::<u64>());
    }
}

#[test]
fn edited_directories_equal_those_of_kubo() {
    let mut blocks = Blocks::default();
    let mut root = None;
    let mut at = 0;
    // Up, with a hundred changes at a time near the threshold, and down again.
    for (count, expected) in KUBO.into_iter().chain(KUBO.into_iter().rev().skip(1)) {
        while at != count {
            let next = if at < count { count.min(at + 500) } else { count.max(at.saturating_sub(500)) };
            let changes = if at < next {
                (at..next).map(|i| Change::Put(entry(i))).collect()
            } else {
                (next..at).map(|i| Change::Remove(format!("entry-{i}"))).collect()
            };
            root = Some(blocks.edit(root, changes).cid);
            at = next;
        }
        let root = *root.get_or_insert_with(|| blocks.edit(None, vec![]).cid);
        assert_eq!(root.to_string(), expected, "{count}");
    }
}

#[test]
fn one_change_reads_and_writes_one_path() {
    let mut blocks = Blocks::default();
    let root = build((0..20_000).map(entry)).unwrap();
    blocks.add(&root);
    let edited = blocks.edit(Some(root.cid), vec![Change::Put(entry(20_000))]);
    assert!(edited.blocks.len() <= 4 && blocks.read <= 3, "{} written, {} read", edited.blocks.len(), blocks.read);
    assert_eq!(blocks.find(edited.cid, "entry-20000"), Some(entry(20_000)));
    assert_eq!(blocks.find(edited.cid, "entry-777"), Some(entry(777)));
    assert_eq!(blocks.find(edited.cid, "entry-20001"), None);
    blocks.read = 0;
    let back = blocks.edit(Some(edited.cid), vec![Change::Remove("entry-20000".into())]);
    assert_eq!(back.cid, root.cid);
    // To see that it stays sharded, at most 256 KiB of entries are looked at, and a batch more.
    assert!(blocks.read <= 4 + 4 * NEED_AT_ONCE, "{} read", blocks.read);
    let same = blocks.edit(Some(root.cid), vec![Change::Remove("nothing".into()), Change::Put(entry(3))]);
    assert_eq!(same.cid, root.cid);
}

#[test]
fn refusals() {
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let link = Link { name: name.into(), ..entry(0) };
        assert!(matches!(Editor::new(None, [Change::Put(link.clone())]), Err(DirectoryError::Name { .. })));
        assert!(matches!(build([link.clone()]), Err(DirectoryError::Name { .. })));
        let (found, block) = seal(Node { links: vec![link], data: UnixFs::new(Kind::Directory) });
        assert!(matches!(Part::decode(&found.cid, block.data()), Err(DirectoryError::Name { .. })));
    }
    assert!(build([entry(1), entry(1)]).is_err());
    let (link, block) = seal(Node { links: vec![entry(1), entry(1)], data: UnixFs::new(Kind::Directory) });
    assert!(matches!(Part::decode(&link.cid, block.data()), Err(DirectoryError::Malformed { .. })));
    let (link, block) = seal(Node { links: vec![], data: UnixFs::new(Kind::File) });
    assert!(matches!(Part::decode(&link.cid, block.data()), Err(DirectoryError::NotADirectory { .. })));
    let leaf = Block::raw(Bytes::from_static(b"x"));
    assert!(matches!(Part::decode(leaf.cid(), leaf.data()), Err(DirectoryError::NotADirectory { .. })));
}

#[test]
fn lying_shards_are_refused() {
    let good = |names: &[&str], change: &dyn Fn(&mut UnixFs)| {
        let mut data = UnixFs::new(Kind::Shard);
        data.fanout = Some(256);
        data.hash_type = Some(0x22);
        data.data = Bytes::from_static(b"\x06");
        change(&mut data);
        let links = names.iter().map(|name| Link { name: (*name).into(), ..entry(0) }).collect();
        Shard::decode(&Node { links, data })
    };
    let shard = good(&["01a", "02"], &|_| {}).unwrap();
    assert!(matches!(shard.slots().nth(1), Some((2, Slot::Shard(_)))));
    assert!(!shard.is_placed(&[]), "no name with this hash");
    for names in [&["01a"][..], &["02", "01a"], &["01a", "01b"], &["0"], &["+1a", "02"], &["ä", "02"], &["01a/", "02"]]
    {
        assert!(good(names, &|_| {}).is_err(), "{names:?}");
    }
    let changes: [&dyn Fn(&mut UnixFs); 5] = [
        &|data| data.fanout = Some(100),
        &|data| data.fanout = Some(1 << 20),
        &|data| data.fanout = None,
        &|data| data.hash_type = Some(0x12),
        &|data| data.data = Bytes::from_static(b"\x07"),
    ];
    for change in changes {
        assert!(good(&["01a", "02"], change).is_err());
    }
    assert!(good(&["01a", "02"], &|data| data.data = Bytes::from_static(b"\0\0\x06")).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Long names make small directories sharded.
    #[test]
    fn edits_and_builds_agree(
        steps in proptest::collection::vec(proptest::collection::vec((0_usize..300, any::<bool>(), 0_u64..1 << 40), 1..120), 1..12)
    ) {
        let mut blocks = Blocks::default();
        let mut root = None;
        let mut model = BTreeMap::new();
        for step in steps {
            let mut changes = Vec::new();
            for (i, put, tsize) in step {
                let mut link = entry(i);
                link.name = format!("{i}-{}", "x".repeat(1500));
                link.tsize = tsize;
                if put {
                    model.insert(link.name.clone(), link.clone());
                    changes.push(Change::Put(link));
                } else {
                    model.remove(&link.name);
                    changes.push(Change::Remove(link.name));
                }
            }
            let edited = blocks.edit(root, changes);
            let built = build(model.values().cloned()).unwrap();
            prop_assert_eq!(edited.cid, built.cid);
            prop_assert_eq!(edited.tsize, built.tsize);
            root = Some(edited.cid);
            for link in model.values() {
                let found = blocks.find(edited.cid, &link.name);
                prop_assert_eq!(found.as_ref(), Some(link));
            }
        }
    }
}
