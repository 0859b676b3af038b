use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::identity::SecretBytes;

/// docs/golden/handovers.json: what every reader has to accept and to refuse.
#[derive(Deserialize)]
struct Vectors {
    /// libp2p's protobuf of the private keys, in multibase.
    keys: Vec<String>,
    handovers: Vec<Handover>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    what: String,
    handovers: Vec<serde_json::Value>,
    from: IpnsName,
    to: IpnsName,
    accepted: bool,
}

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/golden/handovers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn key(text: &str) -> RegistryKey {
    RegistryKey::from_bytes(&SecretBytes::from(multibase::decode(text).unwrap().1)).unwrap()
}

#[test]
fn vectors_are_what_is_signed() {
    let vectors = vectors();
    let keys: Vec<_> = vectors.keys.iter().map(|text| key(text)).collect();
    for (number, handover) in vectors.handovers.iter().enumerate() {
        let date = handover.date + chrono::TimeDelta::milliseconds(700);
        assert_eq!(&Handover::sign(&keys[number], keys[number + 1].name(), date), handover);
    }
}

#[test]
fn vectors_are_accepted_and_refused() {
    let cases = vectors().cases;
    assert!(cases.iter().any(|case| case.accepted) && cases.iter().any(|case| !case.accepted));
    for Case { what, handovers, from, to, accepted } in cases {
        let read = |value: serde_json::Value| serde_json::from_value::<Handover>(value).ok();
        let handovers: Vec<_> = handovers.into_iter().filter_map(read).collect();
        assert_eq!(leads(&handovers, from, to), accepted, "{what}");
    }
}

#[test]
fn long_lines_end() {
    let keys: Vec<_> = (0..=limits::HANDOVERS + 1).map(|_| RegistryKey::generate()).collect();
    let date = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let all: Vec<_> = keys.windows(2).rev().map(|pair| Handover::sign(&pair[0], pair[1].name(), date)).collect();
    assert!(leads(&all, keys[0].name(), keys[limits::HANDOVERS].name()));
    assert!(!leads(&all, keys[0].name(), keys[limits::HANDOVERS + 1].name()));
}
