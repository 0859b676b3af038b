use proptest::prelude::*;

use super::*;
use crate::dag::block::{Block, DAG_PB, RAW, SHA2_256, SHA2_512};

/// `printf 'hello\n' | ipfs add --cid-version=1; ipfs dag export`, of Kubo 0.43.
const KUBO: &str = "3aa265726f6f747381d82a582500015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\
    6776657273696f6e012a015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be0368656c6c6f0a";
/// How every CAR of version 2 begins.
const PRAGMA: &str = "0aa16776657273696f6e02";

fn read(bytes: &[u8], step: usize) -> Result<(Vec<Cid>, Vec<Section>), CarError> {
    let (mut decoder, mut sections) = (Decoder::new(), Vec::new());
    for mut part in bytes.chunks(step) {
        while let Some(section) = decoder.push(&mut part)? {
            sections.push(section);
        }
    }
    let roots = decoder.roots().map(<[Cid]>::to_vec);
    decoder.finish()?;
    Ok((roots.expect("a finished stream has a header"), sections))
}

fn write(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out, roots);
    blocks.iter().for_each(|block| put_section(&mut out, block.cid(), block.data()));
    out
}

#[test]
fn what_kubo_writes_is_read_and_written() {
    let bytes = hex::decode(KUBO).unwrap();
    let block = Block::raw(Bytes::from_static(b"hello\n"));
    for step in [1, 7, bytes.len()] {
        let (roots, sections) = read(&bytes, step).unwrap();
        assert_eq!(roots, [*block.cid()]);
        let [Section { cid, data }] = &sections[..] else { panic!("{sections:?}") };
        assert_eq!(Block::verify(*cid, data.clone()).unwrap(), block);
    }
    assert_eq!(write(&[*block.cid()], &[block]), bytes);
}

#[test]
fn another_version_is_refused() {
    let refused = read(&hex::decode(PRAGMA).unwrap(), 64).unwrap_err();
    assert!(matches!(refused, CarError::Version { version: 2 }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Integrity);
}

#[test]
fn the_largest_block_is_read_and_no_larger_one() {
    let block = Block::raw(vec![7; limits::BLOCK_BYTES].into());
    let (_, sections) = read(&write(&[], std::slice::from_ref(&block)), 64 << 10).unwrap();
    assert_eq!(sections[0].data, block.data());
    let mut larger = write(&[], &[]);
    put_section(&mut larger, block.cid(), &vec![7; limits::BLOCK_BYTES + 1]);
    assert!(matches!(read(&larger, 64 << 10), Err(CarError::SectionTooLarge { .. })));
    // Far too large: refused as soon as its length is known.
    let mut claimed = write(&[], &[]);
    varint::put_length(&mut claimed, 1 << 40);
    assert!(matches!(read(&claimed, 1), Err(CarError::SectionTooLarge { .. })));
    let mut claimed = Vec::new();
    varint::put_length(&mut claimed, limits::CAR_HEADER_BYTES + 1);
    assert!(matches!(read(&claimed, 1), Err(CarError::HeaderTooLarge { .. })));
}

#[test]
fn what_is_wrong_is_refused_as_what_it_is() {
    let header = |hex: &str| {
        let content = hex::decode(hex.replace(' ', "")).unwrap();
        let mut out = Vec::new();
        varint::put_length(&mut out, content.len());
        out.extend(content);
        read(&out, 1024).unwrap_err()
    };
    for wrong in [
        "80",                                                 // no map
        "a1 6776657273696f6e 01",                             // no roots
        "a1 65726f6f7473 80",                                 // no version
        "a2 6776657273696f6e 01 6776657273696f6e 01",         // a member twice
        "a2 64726f6f74 80 6776657273696f6e 01",               // another member
        "a2 65726f6f7473 80 6776657273696f6e 01 00",          // something behind it
        "a2 65726f6f7473 9800 6776657273696f6e 01",           // a length longer than need be
        "a2 65726f6f7473 81 d82a 420001 6776657273696f6e 01", // a root that is no CID
        "a2 65726f6f7473 9bffffffffffffffff",                 // more roots than there are bytes
    ] {
        assert!(matches!(header(wrong), CarError::Header { .. }), "{wrong}");
    }
    let after = |bytes: &[u8]| read(&[write(&[], &[]), bytes.to_vec()].concat(), 1024).unwrap_err();
    assert!(matches!(after(&[0]), CarError::Length));
    assert!(matches!(after(&[0x81, 0]), CarError::Length));
    assert!(matches!(after(&[0xff; 10]), CarError::Length));
    assert!(matches!(after(&[3, 1, 2, 3]), CarError::Cid { .. }));
    assert!(matches!(after(&[3, 1]), CarError::CutOff));
    assert!(matches!(read(&[], 1), Err(CarError::CutOff)));
}

fn block() -> impl Strategy<Value = Block> {
    let data = proptest::collection::vec(any::<u8>(), 0..300);
    let codec = prop_oneof![Just(RAW), Just(DAG_PB)];
    let hash = prop_oneof![Just(SHA2_256), Just(SHA2_512)];
    (data, codec, hash)
        .prop_map(|(data, codec, hash)| Block::made(cid::Version::V1, codec, hash, data.into()).expect("accepted"))
}

proptest! {
    #[test]
    fn blocks_come_back(blocks in proptest::collection::vec(block(), 0..20), step in 1_usize..500) {
        let roots: Vec<Cid> = blocks.iter().step_by(2).map(|block| *block.cid()).collect();
        let (found, sections) = read(&write(&roots, &blocks), step).unwrap();
        prop_assert_eq!(found, roots);
        prop_assert_eq!(sections.len(), blocks.len());
        for (Section { cid, data }, block) in sections.into_iter().zip(&blocks) {
            prop_assert_eq!(&Block::verify(cid, data).unwrap(), block);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[write(&[], &[]), bytes.clone()].concat(), 13);
        let _ = read(&bytes, 13);
    }
}
