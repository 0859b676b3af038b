use cid::multihash::Multihash;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits;

fn whole(message: &Message) -> Bytes {
    message.encode().concat().into()
}

fn cid(text: &str) -> Cid {
    text.parse().unwrap()
}

const HELLO: &str = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";

fn want(cid: Cid) -> Want {
    Want { cid, priority: 1, cancel: false, have: false, send_dont_have: true }
}

#[test]
fn a_want_is_encoded_as_the_specification_says() {
    let message = Message { wants: vec![want(cid(HELLO))], ..Message::default() };
    // wantlist { entries { block: 36 bytes, priority: 1, sendDontHave: true } }
    let expected =
        [&[0x0a, 0x2c, 0x0a, 0x2a, 0x0a, 0x24][..], &cid(HELLO).to_bytes(), &[0x10, 0x01, 0x28, 0x01]].concat();
    assert_eq!(whole(&message), expected);
    assert_eq!(Message::decode(&expected.into()).unwrap(), message);
}

#[test]
fn a_block_is_encoded_as_the_specification_says() {
    let block = Block::raw(Bytes::from_static(b"hello\n"));
    let payload = Payload { prefix: Prefix::of(block.cid()), data: block.data().clone() };
    let message = Message { blocks: vec![payload.clone()], ..Message::default() };
    let expected = b"\x1a\x0e\x0a\x04\x01\x55\x12\x20\x12\x06hello\n";
    assert_eq!(whole(&message), &expected[..]);
    assert_eq!(Message::decode(&Bytes::from_static(expected)).unwrap(), message);
    assert_eq!(payload.prefix.block(payload.data.clone()), Some(block));
}

#[test]
fn presences_and_cancels_come_back() {
    let message = Message {
        full: true,
        wants: vec![
            Want { cancel: true, priority: -3, ..want(cid(HELLO)) },
            Want { have: true, ..want(cid("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n")) },
        ],
        presences: vec![Presence { cid: cid(HELLO), have: true }, Presence { cid: cid(HELLO), have: false }],
        ..Message::default()
    };
    assert_eq!(Message::decode(&whole(&message)).unwrap(), message);
}

#[test]
fn one_bad_entry_does_not_discard_the_rest() {
    let good = Message {
        wants: vec![want(cid(HELLO))],
        blocks: vec![Payload { prefix: Prefix::of(&cid(HELLO)), data: Bytes::from_static(b"hello\n") }],
        presences: vec![Presence { cid: cid(HELLO), have: true }],
        ..Message::default()
    };
    // A want, a block prefix and a presence whose CIDs are nonsense; a want of an unknown kind.
    let mut bytes = b"\x0a\x07\x0a\x05\x0a\x03\xff\xff\xff".to_vec();
    bytes.extend_from_slice(b"\x1a\x06\x0a\x01\xff\x12\x01x");
    bytes.extend_from_slice(b"\x22\x03\x0a\x01\xff");
    bytes.extend_from_slice(&whole(&good));
    let read = Message::decode(&bytes.into()).unwrap();
    assert_eq!(read, Message { skipped: 3, ..good });
}

#[test]
fn unknown_hashes_and_large_blocks_have_no_cid() {
    let blake = Prefix { version: Version::V1, codec: 0x55, hash: 0xb220 };
    assert_eq!(blake.block(Bytes::from_static(b"x")), None);
    assert_eq!(Prefix::of(&cid(HELLO)).block(vec![0; limits::BLOCK_BYTES + 1].into()), None);
    let short = Prefix::decode(&[1, 0x55, 0x12, 20]);
    assert_eq!(short, None, "truncated digests are not accepted");
}

#[test]
fn broken_structure_is_refused() {
    for bytes in [&[0x0a, 5, 1][..], &[0x08, 1], &[0x1a, 2, 0x0a, 9], &[0x22, 1, 0xff]] {
        assert!(Message::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
}

fn cids() -> impl Strategy<Value = Cid> {
    (any::<[u8; 32]>(), any::<bool>()).prop_map(|(digest, old)| {
        let hash = Multihash::wrap(SHA2_256, &digest).unwrap();
        if old { Cid::new_v0(hash).unwrap() } else { Cid::new_v1(0x55, hash) }
    })
}

fn wants() -> impl Strategy<Value = Want> {
    (cids(), any::<i32>(), any::<[bool; 3]>()).prop_map(|(cid, priority, [cancel, have, send_dont_have])| Want {
        cid,
        priority,
        cancel,
        have,
        send_dont_have,
    })
}

proptest! {
    #[test]
    fn messages_come_back(
        full: bool,
        wants in vec(wants(), 0..8),
        blocks in vec((cids(), vec(any::<u8>(), 0..300)), 0..4),
        presences in vec((cids(), any::<bool>()), 0..8),
    ) {
        let blocks = blocks.into_iter().map(|(cid, data)| Payload { prefix: Prefix::of(&cid), data: data.into() });
        let presences = presences.into_iter().map(|(cid, have)| Presence { cid, have });
        let message = Message { full, wants, blocks: blocks.collect(), presences: presences.collect(), skipped: 0 };
        prop_assert_eq!(Message::decode(&whole(&message)), Ok(message));
    }

    #[test]
    fn any_bytes_come_back_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::decode(&bytes.into()) {
            let again = Message::decode(&whole(&message));
            prop_assert_eq!(again, Ok(Message { skipped: 0, ..message }));
        }
    }
}
