use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::digest::{Algorithm, Digest, Hasher};

/// Bytes that look like text to a compressor and are the same everywhere.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    let words = ["lib", "usr", "share", "version", "copyright", "the", "of", "\n", " ", "0x", "=", "license"];
    let mut state = seed;
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        state = mix(state.wrapping_add(STEP));
        out.extend_from_slice(words[(state % 12) as usize].as_bytes());
        if state.is_multiple_of(5) {
            out.extend_from_slice(format!("{:x}", state >> 40).as_bytes());
        }
    }
    out.truncate(length);
    out
}

fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, mtime: u64, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(mtime);
    builder.append_data(&mut header, name, data).unwrap();
}

/// A layer of files of these sizes.
pub(crate) fn layer(files: &[(u64, usize)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (seed, size) in files {
        add(&mut builder, &format!("usr/share/doc/package-{seed}/file"), 1_700_000_000, &text(*seed, *size));
    }
    builder.into_inner().unwrap()
}

fn cut_by(data: &[u8], steps: &[usize]) -> Vec<Bytes> {
    let mut cutter = Cutter::new();
    let mut pieces = Vec::new();
    let mut rest = data;
    let mut steps = steps.iter().cycle();
    while !rest.is_empty() {
        let (mut now, later) = rest.split_at(rest.len().min(*steps.next().unwrap()));
        rest = later;
        while !now.is_empty() {
            pieces.extend(cutter.push(&mut now));
        }
    }
    pieces.extend(cutter.finish());
    pieces
}

pub(crate) fn cut(data: &[u8]) -> Vec<Bytes> {
    let pieces = cut_by(data, &[1 << 20]);
    assert!(pieces.concat() == data, "the pieces are the input");
    assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES));
    pieces
}

/// Sizes as layers have them: many small files, some large.
fn mixed(count: u64) -> Vec<(u64, usize)> {
    let size = |i: u64| match mix(i) % 40 {
        0 => 40_000 + (mix(i + 1) % 900_000) as usize,
        1..=30 => (mix(i + 2) % 3000) as usize,
        _ => (mix(i + 3) % 30_000) as usize,
    };
    (0..count).map(|i| (i, size(i))).collect()
}

fn set(pieces: &[Bytes]) -> HashSet<Bytes> {
    pieces.iter().cloned().collect()
}

/// The bytes of `new` that are in no piece of `old`.
fn changed(old: &[Bytes], new: &[Bytes]) -> usize {
    let old = set(old);
    new.iter().filter(|piece| !old.contains(*piece)).map(Bytes::len).sum()
}

#[test]
fn the_rule_is_pinned() {
    let pinned = |data: &[u8]| {
        let pieces = cut(data);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for piece in &pieces {
            hasher.update(&(piece.len() as u64).to_be_bytes());
        }
        format!("{} {}", pieces.len(), &hasher.finish().hex()[..16])
    };
    let tar = layer(&mixed(600));
    let found = vec![
        Digest::sha256(&tar).hex()[..16].to_owned(),
        pinned(&tar),
        pinned(&text(1, 5_000_000)),
        pinned(&vec![0; 3_000_000]),
        format!("{:x} {:x}", GEAR[0], GEAR[255]),
    ];
    // The digest of the tar, then pieces and a digest of their lengths for it, for text and for zeros; the table's ends,
    // which an independent splitmix64 gives too.
    let pins =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dag/aligned-1.txt")).unwrap();
    let pins: Vec<_> = pins.lines().map(str::to_owned).collect();
    assert_eq!(found, pins);
}

#[test]
fn large_contents_have_pieces_of_their_own() {
    let sizes = [(1, 100), (2, 32_768), (3, 2_000_000), (4, 32_767), (5, 10), (6, 100_000)];
    let pieces = cut(&layer(&sizes));
    for (seed, size) in sizes {
        let mut content = text(seed, size);
        content.resize(size.next_multiple_of(512), 0);
        let starts = pieces.iter().position(|piece| piece.starts_with(&content[..500.min(size)]));
        assert_eq!(starts.is_some(), size > 32_256, "{size}");
        if let Some(first) = starts {
            let mut joined = Vec::new();
            for piece in &pieces[first..] {
                joined.extend_from_slice(piece);
                if joined.len() >= content.len() {
                    break;
                }
            }
            assert!(joined == content, "{size}: a piece ends with the content");
        }
    }
    // Whatever the headers say, the pieces of the contents are the same.
    let mut other = tar::Builder::new(Vec::new());
    for (seed, size) in sizes {
        add(&mut other, &format!("elsewhere/{seed}"), 1_800_000_000, &text(seed, size));
    }
    let other = cut(&other.into_inner().unwrap());
    assert!(changed(&pieces, &other) < 40_000);
}

#[test]
fn changes_stay_where_they_are() {
    let files = mixed(1500);
    let old = cut(&layer(&files));
    let total: usize = old.iter().map(Bytes::len).sum();
    assert!(total > 10_000_000);
    let mut inserted = files.clone();
    inserted.insert(700, (9_000_000, 1234));
    assert!(changed(&old, &cut(&layer(&inserted))) < 400_000);
    let mut removed = files.clone();
    removed.remove(300);
    assert!(changed(&old, &cut(&layer(&removed))) < 400_000);
    let mut grown = files.clone();
    grown[10].1 += 5000;
    assert!(changed(&old, &cut(&layer(&grown))) < 400_000);
    // In the middle of something that is no tar.
    let data: Vec<u8> = text(7, 20_000_000);
    let old = cut(&data);
    let mean = data.len() / old.len();
    assert!((150_000..400_000).contains(&mean), "{mean}");
    let edited = [&data[..9_000_000], b"inserted", &data[9_000_000..]].concat();
    assert!(changed(&old, &cut(&edited)) < 2_500_000);
}

/// A header by hand.
fn header(kind: u8, name: &str, size: u64, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    change(header.as_mut_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// How many bytes the cutter reads as a tar: a large content at the end has its own piece only if all before was understood.
fn understands(front: &[u8]) -> bool {
    let content = text(99, 65_536);
    let data = [front, &header(b'0', "last", 65_536, |_| {}), &content, &[0; 1024]].concat();
    cut(&data).iter().any(|piece| piece[..] == content[..])
}

#[test]
fn every_kind_of_tar_is_understood() {
    let block = |data: &[u8]| {
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(512), 0);
        padded
    };
    assert!(understands(&[]));
    assert!(understands(&header(b'5', "dir/", 0, |_| {})));
    assert!(understands(&[header(b'0', "a", 3, |_| {}), block(b"abc")].concat()));
    assert!(understands(&[header(b'\0', "v7", 3, |bytes| bytes[257..265].fill(0)), block(b"abc")].concat()));
    // Hard links with a size but without content.
    assert!(understands(&header(b'1', "link", 4000, |_| {})));
    // GNU long names, also very long ones.
    for length in [300, 100_000] {
        let name = vec![b'n'; length];
        let front =
            [header(b'L', "././@LongLink", length as u64, |_| {}), block(&name), header(b'0', "nnn", 0, |_| {})];
        assert!(understands(&front.concat()));
    }
    // PAX: the size counts, for the next header only.
    let pax = b"18 path=whatever\n\n14 size=40000\n".to_vec();
    let pax = [b"17 path=whatever\n".to_vec(), pax[18..].to_vec()].concat();
    let data = text(3, 40_448);
    let front =
        [header(b'x', "PaxHeaders/a", pax.len() as u64, |_| {}), block(&pax), header(b'0', "a", 0, |_| {}), data];
    assert!(understands(&front.concat()));
    assert!(understands(&[header(b'g', "global", pax.len() as u64, |_| {}), block(&pax)].concat()));
    // Sizes in base 256.
    let binary = |bytes: &mut [u8; 512]| {
        bytes[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\x02\0");
    };
    assert!(understands(&[header(b'0', "b", 0, binary), vec![1; 512]].concat()));
    // GNU sparse files with two more blocks of map.
    let sparse = header(b'S', "sparse", 512, |bytes| bytes[482] = 1);
    let mut more = vec![7; 512];
    more[504] = 1;
    assert!(understands(&[sparse, more, vec![0; 512], text(5, 512)].concat()));

    // What is none ends the understanding, never the bytes.
    for wrong in [
        header(b'0', "x", 0, |bytes| bytes[124] = b'9'),
        header(b'0', "x", 0, |bytes| bytes[124..136].copy_from_slice(&[0xff; 12])),
        header(b'0', "x", 0, |bytes| bytes[124..136].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")),
        vec![0; 512],
        vec![b'a'; 512],
        text(1, 700),
    ] {
        assert!(!understands(&wrong));
    }
    let mut broken = header(b'0', "x", 0, |_| {});
    broken[0] ^= 1;
    assert!(!understands(&broken));
    // A size beyond everything: the rest is its content.
    let huge =
        header(b'0', "x", 0, |bytes| bytes[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"));
    cut(&[huge, text(1, 3_000_000)].concat());
    assert!(cut(&[]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn cuts_do_not_depend_on_the_pushes(
        files in proptest::collection::vec((any::<u64>(), prop_oneof![0_usize..2000, 30_000_usize..40_000, 100_000_usize..1_500_000]), 0..30),
        steps in proptest::collection::vec(1_usize..200_000, 1..20),
        damage in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut data = layer(&files);
        if let Some(at) = damage {
            let at = at.index(data.len());
            data[at] ^= 0x55;
        }
        let whole = cut(&data);
        prop_assert!(cut_by(&data, &steps) == whole);
    }
}
