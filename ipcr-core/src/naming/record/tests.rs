use multibase::Base;
use proptest::prelude::*;

use super::*;

/// Records of `/ipfs/bafkqaaa` with sequence 7 and a lifetime of a hundred years, written by Kubo 0.43: Ed25519, secp256k1, RSA.
const KUBO: [(&str, &str); 3] = [
    (
        "k51qzi5uqu5dize7ivj3g49u86ash0ldyc6fok9vtd2jazb4vsbgbg3uwmjqsw",
        concat!(
            "Cg4vaXBmcy9iYWZrcWFhYRJAkmhR7G2A+YameiZBVqSPlcrhPaRqyWtCMpEyMskUBiOKY5g/PDck89p7znDVDgCkIeEuWNrAoXtJ",
            "3M7oNrXWDRgAIh4yMTI2LTEwLTMwVDEzOjA2OjM1Ljc2OTAxNDU5NlooBzCA8JLL3QhCQMbmHr7ItJ4t4C59M6zt4R04JKoMstSl",
            "5uGhcfwjF1dMpTFbv02xBzT2OOYklnckdXGrdJu0ByR/w/rGm9J65AhKZKVjVFRMGwAAAEXZZLgAZVZhbHVlTi9pcGZzL2JhZmtx",
            "YWFhaFNlcXVlbmNlB2hWYWxpZGl0eVgeMjEyNi0xMC0zMFQxMzowNjozNS43NjkwMTQ1OTZabFZhbGlkaXR5VHlwZQA=",
        ),
    ),
    (
        "kzwfwjn5ji4puuhdkzmj05fjp56o0s18jiipp20e6r99aufvoz0fbfg257ox5gm",
        concat!(
            "Cg4vaXBmcy9iYWZrcWFhYRJGMEQCIBDkCXhqVVZtoKhKmLThAEVKrFfgthszlcPSUtxRIaf4AiAjsdllJBK2OQXpTvEUvC/63ITn",
            "gfY1TDA6suiDJX888RgAIh4yMTI2LTEwLTMwVDEzOjA2OjM2LjUwNjczMjE2M1ooBzCA8JLL3QhCRzBFAiEAybGbcF9ZHET/8to2",
            "sZJwZCJ/tN4DqN8kzc9BXhrEWx4CIHaDWf7HLA+SAebVyDgoc3HLKS5ZBFitO8yfapoZvHGjSmSlY1RUTBsAAABF2WS4AGVWYWx1",
            "ZU4vaXBmcy9iYWZrcWFhYWhTZXF1ZW5jZQdoVmFsaWRpdHlYHjIxMjYtMTAtMzBUMTM6MDY6MzYuNTA2NzMyMTYzWmxWYWxpZGl0",
            "eVR5cGUA",
        ),
    ),
    (
        "k2k4r8pron71yk2h4yn96rvtjshbxadnya19hojl3xh6pkxg6g7ti5wp",
        concat!(
            "Cg4vaXBmcy9iYWZrcWFhYRKAAi/hjyLCQYFRlms+tQqDKcdE2fMdNIwXUA4PmDvqbThH/g697xETc5bADJjqIuT/rcb1uucTccek",
            "ZCxLGdV6xQ7u65oywSke6JADqIL0yTq22pwxorFCev/jx0b5frv23phxjVKAddxVHVculluXwHOmgcqYbhCApnb0fmWkntUnEFKT",
            "EkC8Wf/2/V5ihhRJqNCxXzR7Maf+idY2JbgAlg6GCXfx0r2IxV6CR6DjTIsdHwQ3oeDHniiMcBcQO53EaQo9nSL6U+icpkl+6mQ0",
            "Nxk5NSjQ6y4aKkS+DieL9338nqKZwHfuXFcf5fS+0RAbTGYJa4v4gLrxdebTQ7j/IpoYACIeMjEyNi0xMC0zMFQxMzowNjozNy40",
            "NTcxMzg1MDhaKAcwgPCSy90IOqsCCAASpgIwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQDPGb/6PuNBuGNL+9H1Ek+I",
            "7oxdoI/f9NLM8dx8J8RKxZg+bphWMKKExJIS7sbH5fc+BeIews7fp/y+SCi/XGAVZ+jURvR7fSOl1NuYhqQ9V7yA4CJ9yZzNm94e",
            "ttTGSowvX2UPJYNUAgdEfX7wgPeXvLS4xalTB355HXnHAx9nUBn73wdPU6ubIliK5fnYpLCu/dLORkuEb/g6TTrQdQNLyKrUVg69",
            "ePC2XsJ2Rqmarw2xgs6tNng7x7/Wjl5UtIq8dbgzgExmy/7QbxKwnFztxBLYE6aELJc2ky89sqvWrmbYKI2nzF8MRRkdIZ4foPBx",
            "H9oVS82zJ0Mw+NFbfC5HAgMBAAFCgAIEAZ2Fy3+jlnAMyuCgMpLJuYtweoEe/6HllU83WmpvOYyzAI57GAzeCL568M0OPl6Yx48B",
            "ATsAIVEzomzHxSGr7wJKAxnZtPrwSehJFUwuG/oqyvB74tT4nLASy9Cgd6YaLL5u4BH870r/imgFWcM6+arO3GO2FHBaFr3kpqu6",
            "GykLpiQ4WUQcV32faBYPvYZ33CUcWNM+yfnCBeurh4SXS44/z6beY2lK8TDCndgUIb9y9lzyHI8GCiPAG92SmoOSXP78nJr4g3/j",
            "7A6hasfpCKqbrdKT4Binc8N8PvLJUgzXNlPIuroQX7vKcnUt1f6F/WbMho+AYbyReAIxi1gHSmSlY1RUTBsAAABF2WS4AGVWYWx1",
            "ZU4vaXBmcy9iYWZrcWFhYWhTZXF1ZW5jZQdoVmFsaWRpdHlYHjIxMjYtMTAtMzBUMTM6MDY6MzcuNDU3MTM4NTA4WmxWYWxpZGl0",
            "eVR5cGUA",
        ),
    ),
];

/// The first name's record of sequence 9, with the V2 signature only (`ipfs name publish --v1compat=false`).
const KUBO_V2: &str = concat!(
    "QkBmGuU8L6ihBWdSbVlpQEPhrwGY8ysTzHkMcO3suBvcfaMySm/t7jX72M44xC/phAiB4CUoA8UlncNBdmr9eEQMSpgBpWNUVEwb",
    "AAAARdlkuABlVmFsdWVYQS9pcGZzL2JhZmtyZWlleTVqeGU2aWxwZjYybG5oNzd0bTVlamJibWhidWd6anVmNnAydjNyZW1sdTcz",
    "Y2VkMzRxaFNlcXVlbmNlCWhWYWxpZGl0eVgeMjEyNi0xMC0zMFQxMzowNzowMi42Mzc3NTEyMDZabFZhbGlkaXR5VHlwZQA=",
);

const CID: &str = "bafkqaaa";

fn decode(text: &str) -> Bytes {
    Base::Base64Pad.decode(text).unwrap().into()
}

fn key() -> RegistryKey {
    RegistryKey::generate()
}

fn now() -> DateTime<Utc> {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn sign(key: &RegistryKey, value: &str, sequence: u64) -> SignedRecord {
    let week = limits::RECORD_LIFETIME;
    SignedRecord::sign(key, &value.parse().unwrap(), sequence, now(), week, limits::RECORD_TTL)
}

#[test]
fn records_of_kubo() {
    for (name, record) in KUBO {
        let name: IpnsName = name.parse().unwrap();
        let record = SignedRecord::verify(&name, decode(record)).unwrap();
        assert_eq!((record.target().to_string(), record.sequence()), (format!("/ipfs/{CID}"), 7));
        assert!(record.is_valid_at(now()) && record.ttl() == Duration::from_mins(5));
        for (other, _) in KUBO {
            let other: IpnsName = other.parse().unwrap();
            assert_eq!(SignedRecord::verify(&other, record.bytes().clone()).is_ok(), other == name);
        }
    }
}

#[test]
fn records_without_the_legacy_signature() {
    let name: IpnsName = KUBO[0].0.parse().unwrap();
    let bytes = decode(KUBO_V2);
    let record = SignedRecord::verify(&name, bytes.clone()).unwrap();
    assert_eq!(record.sequence(), 9);
    assert!(record.target().to_string().starts_with("/ipfs/bafkrei"));
    assert_eq!(record.bytes(), &bytes);
    for at in 0..bytes.len() {
        let mut broken = bytes.to_vec();
        broken[at] ^= 1;
        if let Ok(record) = SignedRecord::verify(&name, broken.into()) {
            assert_eq!(record.sequence(), 9, "byte {at}");
        }
    }
}

#[test]
fn signing() {
    let key = key();
    let record = sign(&key, "/ipfs/bafkqaaa/sub", 3);
    let read = SignedRecord::verify(&key.name(), record.bytes().clone()).unwrap();
    assert_eq!(read, record);
    assert_eq!((read.sequence(), read.ttl()), (3, limits::RECORD_TTL));
    assert_eq!(read.valid_until(), now() + TimeDelta::days(7));
    assert!(read.is_valid_at(now() + TimeDelta::days(6)) && !read.is_valid_at(now() + TimeDelta::days(7)));
    assert!(SignedRecord::verify(&RegistryKey::generate().name(), record.bytes().clone()).is_err());
}

#[test]
fn the_order_of_the_specification() {
    let key = key();
    let (low, high) = (sign(&key, "/ipfs/bafkqaaa", 3), sign(&key, "/ipfs/bafkqaaa", 4));
    assert_eq!(high.rank(&low), Ordering::Greater);
    let target = "/ipfs/bafkqaaa".parse().unwrap();
    let longer = SignedRecord::sign(&key, &target, 3, now(), 2 * limits::RECORD_LIFETIME, limits::RECORD_TTL);
    assert_eq!(longer.rank(&low), Ordering::Greater);
    assert_eq!(high.rank(&longer), Ordering::Greater);
    let other = sign(&key, "/ipfs/bafkqaaa/x", 3);
    assert_ne!(other.rank(&low), Ordering::Equal);
    assert_eq!(other.rank(&low), low.rank(&other).reverse());
}

#[test]
fn bad_records() {
    let key = key();
    let large = vec![0; limits::IPNS_RECORD_BYTES + 1];
    let error = SignedRecord::verify(&key.name(), large.into()).unwrap_err();
    assert!(matches!(error, RecordError::TooLarge { .. }) && error.kind() == ErrorKind::Integrity);
    for value in ["", "bafkqaaa", "/ipfs/nothing", "/ipfs/bafkqaaa/../x"] {
        let until = now() + TimeDelta::days(1);
        let record = Record::new(key.keypair(), value, until, 1, Duration::ZERO).unwrap().encode().unwrap();
        let error = SignedRecord::verify(&key.name(), record.into()).unwrap_err();
        assert!(matches!(error, RecordError::BadValue { .. }), "{value}: {error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let name: IpnsName = KUBO[0].0.parse().unwrap();
        prop_assert!(SignedRecord::verify(&name, bytes.into()).is_err());
    }

    #[test]
    fn changed_records_keep_their_meaning_or_are_refused(
        which in 0_usize..4, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let (name, text) = KUBO.get(which).copied().unwrap_or((KUBO[0].0, KUBO_V2));
        let name: IpnsName = name.parse().unwrap();
        let good = SignedRecord::verify(&name, decode(text)).unwrap();
        let mut bytes = good.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let cut = cut.index(bytes.len());
        for bytes in [bytes.clone(), bytes[..cut].to_vec()] {
            if let Ok(read) = SignedRecord::verify(&name, bytes.into()) {
                prop_assert_eq!(read.target(), good.target());
                prop_assert_eq!((read.sequence(), read.valid_until()), (good.sequence(), good.valid_until()));
            }
        }
    }
}
