use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use super::*;
use crate::dag::cut::tests::{cut, layer, text};
use crate::dag::decode::Decoder;
use crate::digest::Digest;
use crate::limits;

/// The encoders' bytes. When one of these changes, what is pushed next shares nothing with what was pushed before:
/// a new encoding id is needed, not a new value here.
const PINNED: [(Encoding, usize, usize, &str); 8] = [
    (Encoding::AlignedGzip1, 0, 23, "30e6fa98fb48c2b132824d1ac5e2243c"),
    (Encoding::AlignedGzip1, 1, 461, "0a619c6ceeab4dab54baeb49c70dce7f"),
    (Encoding::AlignedGzip1, 2, 69_545, "3cc3280dd1971e5df1ca77e535e17aba"),
    (Encoding::AlignedGzip1, 3, 983_143, "c2b401cdd15da03a004adc05f07a9bab"),
    (Encoding::AlignedZstd1, 0, 9, "6fb8543883dafcc2ed0934866b8b3f77"),
    (Encoding::AlignedZstd1, 1, 485, "f88eaba33b2f05655ef3fc02de3f7cb9"),
    (Encoding::AlignedZstd1, 2, 73_603, "5f189be33a2f82cbd8d325e34d474e2b"),
    (Encoding::AlignedZstd1, 3, 983_073, "0d9964318543cad03cca4d27012c07db"),
];

fn pieces() -> [Bytes; 4] {
    let mut noise = Vec::new();
    for i in 0..PIECE_BYTES as u64 / 32 {
        noise.extend_from_slice(Digest::sha256(&i.to_be_bytes()).as_bytes());
    }
    [Bytes::new(), text(1, 1000).into(), text(2, 200_000).into(), noise.into()]
}

#[test]
fn the_bytes_are_pinned() {
    let pieces = pieces();
    let mut found = Vec::new();
    for encoding in [Encoding::AlignedGzip1, Encoding::AlignedZstd1] {
        let mut encoder = Encoder::new(encoding).unwrap();
        for (i, piece) in pieces.iter().enumerate() {
            let data = encoder.encode(piece).unwrap();
            assert!(data.len() <= limits::LEAF_BYTES);
            found.push((encoding, i, data.len(), Digest::sha256(&data).hex()[..32].to_owned()));
            // What came before plays no part.
            assert_eq!(Encoder::new(encoding).unwrap().encode(piece).unwrap(), data);
        }
    }
    let pinned: Vec<_> = PINNED.iter().map(|(a, b, c, d)| (*a, *b, *c, (*d).to_owned())).collect();
    assert_eq!(found, pinned);
}

#[test]
fn members_and_frames_are_plain_and_without_times() {
    let piece = Bytes::from(text(3, 5000));
    let gzip = Encoder::new(Encoding::AlignedGzip1).unwrap().encode(&piece).unwrap();
    // Magic, deflate, no flags, time 0, no extra flags, unknown system (RFC 1952).
    assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let zstd = Encoder::new(Encoding::AlignedZstd1).unwrap().encode(&piece).unwrap();
    // Magic; single segment, two bytes of size, no checksum, no dictionary (RFC 8878).
    assert_eq!(zstd[..5], [0x28, 0xb5, 0x2f, 0xfd, 0b0110_0000]);
    let none = Encoder::new(Encoding::AlignedNone1).unwrap().encode(&piece).unwrap();
    assert_eq!(none, piece);
}

#[test]
fn encoded_layers_are_ordinary_layers() {
    let tar = layer(&[(1, 100), (2, 50_000), (3, 1_500_000), (4, 7), (5, 0)]);
    for encoding in Encoding::ALL {
        let mut encoder = Encoder::new(encoding).unwrap();
        let mut blob = Vec::new();
        for piece in cut(&tar) {
            blob.extend_from_slice(&encoder.encode(&piece).unwrap());
        }
        let mut decoder = Decoder::new(&blob[..]).unwrap();
        assert_eq!(decoder.compression(), encoding.compression());
        let mut plain = Vec::new();
        decoder.read_to_end(&mut plain).unwrap();
        assert!(plain == tar);
        if encoding == Encoding::AlignedGzip1 {
            let mut gzip = Command::new("gzip").arg("-t").stdin(Stdio::piped()).spawn().unwrap();
            gzip.stdin.take().unwrap().write_all(&blob).unwrap();
            assert!(gzip.wait().unwrap().success());
        }
    }
}

#[test]
fn leaves_are_recognised_by_what_they_decode_to() {
    for encoding in Encoding::ALL {
        let mut encoder = Encoder::new(encoding).unwrap();
        for piece in pieces() {
            let leaf = encoder.encode(&piece).unwrap();
            assert!(encoder.made(&leaf, &piece));
            let (shorter, longer) = (piece.slice(..piece.len().saturating_sub(1)), [&piece[..], b"x"].concat());
            assert!(!encoder.made(&leaf, &longer) && (piece.is_empty() || !encoder.made(&leaf, &shorter)));
            let mut other = piece.to_vec();
            if let Some(last) = other.last_mut() {
                *last ^= 1;
                assert!(!encoder.made(&leaf, &other));
                assert!(!encoder.made(&leaf[..leaf.len() - 1], &piece) && !encoder.made(b"", &piece));
                assert_ne!(hint(&other), hint(&piece));
            }
        }
    }
    // The check value of CRC-32.
    assert_eq!(hint(b"123456789"), [0xcb, 0xf4, 0x39, 0x26, 0, 0, 0, 9]);
}

#[test]
fn pieces_that_are_too_long_are_refused() {
    let piece = Bytes::from(vec![0; PIECE_BYTES + 1]);
    for encoding in Encoding::ALL {
        let refused = Encoder::new(encoding).unwrap().encode(&piece);
        assert!(matches!(refused, Err(EncodeError::TooLong { .. })));
    }
}

#[test]
fn ids_are_read_back() {
    for encoding in Encoding::ALL {
        assert_eq!(encoding.to_string().parse(), Ok(encoding));
        let json = serde_json::to_string(&encoding).unwrap();
        assert_eq!(json, format!("\"{encoding}\""));
        assert_eq!(serde_json::from_str::<Encoding>(&json).unwrap(), encoding);
        assert_eq!(Encoding::current(encoding.compression()), encoding);
    }
    assert!("aligned-gzip/2".parse::<Encoding>().is_err());
}
