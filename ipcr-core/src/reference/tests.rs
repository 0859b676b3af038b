use proptest::prelude::*;

use super::*;

/// One key each, as `ipfs key list -l` of Kubo 0.43 spells it with `--ipns-base` base36, b58mh and base32.
const KUBO: [[&str; 3]; 3] = [
    [
        "k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb",
        "12D3KooWEqTTp5n78FnDxHQnLRDiWtPPpVG37zEg4ewdhGmzYn38",
        "bafzaajaiaejcasusabxwzxlysdofbfxovubppuu6kw3wwim3tnylalmiyxzvlgdx",
    ],
    [
        "kzwfwjn5ji4pul27pid0opor4lwiquz009s9t8apwo3lgfr5ohf045u05kr7dhp",
        "16Uiu2HAkyBCdSyk7GLDN3bNSzERFpUDfQDu7TBZFXEk5EF96B8Pv",
        "bafzaajiiaijccarxxgynlpnyemqvyo27pmmil6nqybrusyygpalpbeoosvir4g23bu",
    ],
    [
        "k2k4r8kqtrlt9agpu5kbqkxdz6hm9ukogtqv9o7r477dl9cf3r1cfo6d",
        "QmRvfEvp8KedrbHCa2BLoEqQHAnJsmusFUncDQ5Bbco7Ac",
        "bafzbeibvjful5h3w7rnnbolbfgo6taztsohq6457f7rylfjrfoukr2oieu",
    ],
];

/// From the did:key method's test vectors (ed25519-x25519.json, secp256k1.json, nist-curves.json).
const DID_ED25519: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const ED25519_HEX: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
const DID_SECP256K1: &str = "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
const DID_P256: &str = "did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169";
const DID_X25519: &str = "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";

const CID_V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const CID_V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn problem(text: &str) -> Problem {
    match text.parse::<Reference>() {
        Ok(reference) => panic!("{text} parsed as {reference:?}"),
        Err(error) => error.problem,
    }
}

#[test]
fn keys_in_all_spellings() {
    for spellings in KUBO {
        let name: IpnsName = spellings[0].parse().unwrap();
        for spelling in spellings {
            assert_eq!(spelling.parse::<IpnsName>().unwrap(), name, "{spelling}");
            let reference: Reference = format!("{spelling}/team/app:1").parse().unwrap();
            assert_eq!(reference.authority, Some(Authority::Key(name)));
            assert_eq!(reference.to_string(), format!("{}/team/app:1", spellings[0]));
        }
        assert_eq!(name.to_string(), spellings[0]);
        assert_eq!(name.peer_id().to_base58(), spellings[1]);
    }
}

#[test]
fn dids_to_names_and_back() {
    let name: IpnsName = DID_ED25519.parse().unwrap();
    assert_eq!(hex::encode(name.public_key().unwrap().try_into_ed25519().unwrap().to_bytes()), ED25519_HEX);
    for did in [DID_ED25519, DID_SECP256K1] {
        let name: IpnsName = did.parse().unwrap();
        assert_eq!(name.did().as_deref(), Some(did));
        assert_eq!(name.to_string().parse::<IpnsName>().unwrap(), name);
    }
    // A P-256 name is a hash: the DID leads to it, and the key back to the DID.
    let name: IpnsName = DID_P256.parse().unwrap();
    assert_eq!((name.did(), name.public_key()), (None, None));
    let key = libp2p_identity::Keypair::generate_ecdsa().public();
    let did = did::did_key(&key).unwrap();
    assert!(did.starts_with("did:key:zDn"), "{did}");
    assert_eq!(did.parse::<IpnsName>().unwrap().peer_id(), key.to_peer_id());
}

#[test]
fn rsa_dids() {
    // `openssl genrsa 2048 | openssl rsa -pubout -outform DER`
    let key = libp2p_identity::rsa::PublicKey::try_decode_x509(&hex::decode(RSA_SPKI).unwrap()).unwrap();
    let key = libp2p_identity::PublicKey::from(key);
    let did = did::did_key(&key).unwrap();
    assert!(did.starts_with("did:key:z4MX"), "{did}");
    assert_eq!(did.parse::<IpnsName>().unwrap().peer_id(), key.to_peer_id());
    let reference: Reference = format!("{did}/app").parse().unwrap();
    assert!(reference.to_string().starts_with("k2k4"));
}

#[test]
fn references_that_parse() {
    let key = KUBO[0][0];
    let key_did = DID_ED25519.parse::<IpnsName>().unwrap();
    for (text, shown) in [
        ("app".to_owned(), "app".to_owned()),
        ("app:1".into(), "app:1".into()),
        ("team/app:1".into(), "team/app:1".into()),
        ("hub.test".into(), "hub.test".into()),
        ("ipfs/go-ipfs:v0.4".into(), "ipfs/go-ipfs:v0.4".into()),
        (format!("app@{SHA}"), format!("app@{SHA}")),
        (format!("hub.test/app:1@{SHA}"), format!("hub.test/app:1@{SHA}")),
        ("Hub.Test/team/app".into(), "hub.test/team/app".into()),
        ("/ipns/hub.test/app:1".into(), "hub.test/app:1".into()),
        ("ipns://hub.test/app:1".into(), "hub.test/app:1".into()),
        ("ipns://hub.test".into(), "hub.test/".into()),
        ("hub.test/".into(), "hub.test/".into()),
        ("xn--mnchen-3ya.example/app".into(), "xn--mnchen-3ya.example/app".into()),
        (key.into(), key.into()),
        (format!("{key}/app"), format!("{key}/app")),
        (format!("/ipns/{key}/app:1"), format!("{key}/app:1")),
        (format!("{DID_ED25519}/app:1"), format!("{key_did}/app:1")),
        ("did:web:hub.test/app:1".into(), "did:web:hub.test/app:1".into()),
        ("did:web:Hub.Test".into(), "did:web:hub.test".into()),
        (format!("ipfs/{CID_V1}"), format!("ipfs/{CID_V1}")),
        (format!("ipfs/{CID_V1}:1"), format!("ipfs/{CID_V1}:1")),
        (format!("/ipfs/{CID_V0}/app:1"), format!("ipfs/{CID_V0}/app:1")),
        (format!("ipfs://{CID_V1}/team/app@{SHA}"), format!("ipfs/{CID_V1}/team/app@{SHA}")),
    ] {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reference.to_string(), shown, "{text}");
        assert_eq!(shown.parse::<Reference>().unwrap(), reference, "{text}");
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
    }
}

#[test]
fn parts_of_references() {
    let reference: Reference = "hub.test/team/app".parse().unwrap();
    assert_eq!(reference.authority.as_ref().and_then(Authority::domain).map(Domain::as_str), Some("hub.test"));
    assert_eq!(reference.require_image().unwrap().components().collect::<Vec<_>>(), ["team", "app"]);
    assert_eq!((&reference.tag, reference.tag_or_latest()), (&None, Some(Tag::latest())));
    let by_digest: Reference = format!("app@{SHA}").parse().unwrap();
    assert_eq!(by_digest.tag_or_latest(), None);
    let root: Reference = "/ipns/hub.test".parse().unwrap();
    assert_eq!(root.require_image().unwrap_err().problem, Problem::MissingImage);
    // The own domain, key and did:web are the same as none.
    let domain: Domain = "hub.test".parse().unwrap();
    let key: IpnsName = KUBO[0][0].parse().unwrap();
    for text in ["hub.test/app:1", "did:web:hub.test/app:1", &format!("{}/app:1", KUBO[0][1]), "app:1"] {
        let reference = text.parse::<Reference>().unwrap().relative_to(Some(&domain), Some(&key));
        assert_eq!(reference.to_string(), "app:1");
    }
    let other: Reference = "other.test/app:1".parse().unwrap();
    assert_eq!(other.clone().relative_to(Some(&domain), Some(&key)), other);
    assert_eq!(
        Authority::Cid(CID_V0.parse().unwrap()).oci(),
        format!("ipfs/{}", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
    );
}

#[test]
fn references_that_do_not_parse() {
    let key = KUBO[0][0];
    for (text, expected) in [
        (String::new(), Problem::Empty),
        (":1".into(), Problem::MissingImage),
        (format!("@{SHA}"), Problem::MissingImage),
        ("App".into(), Problem::UpperCase { lower: "app".into() }),
        ("hub.test/App:1".into(), Problem::UpperCase { lower: "app".into() }),
        ("app:".into(), Problem::Empty),
        ("app:.1".into(), Problem::BadCharacter { character: '.' }),
        ("app:1 ".into(), Problem::BadCharacter { character: ' ' }),
        ("app\u{1b}[2J".into(), Problem::BadCharacter { character: '\u{1b}' }),
        ("team//app".into(), Problem::EmptyComponent),
        ("/app".into(), Problem::EmptyComponent),
        ("app/".into(), Problem::EmptyComponent),
        ("../app".into(), Problem::Reserved { component: "..".into() }),
        ("team/../app".into(), Problem::Reserved { component: "..".into() }),
        ("_ipcr".into(), Problem::Reserved { component: "_ipcr".into() }),
        (".well-known/app".into(), Problem::Reserved { component: ".well-known".into() }),
        ("v2".into(), Problem::Reserved { component: "v2".into() }),
        ("v2/app".into(), Problem::Reserved { component: "v2".into() }),
        ("index.html".into(), Problem::Reserved { component: "index.html".into() }),
        ("app/tags/1".into(), Problem::TagsComponent),
        ("hub.test/tags".into(), Problem::TagsComponent),
        ("a..b".into(), Problem::BadSeparator { component: "a..b".into() }),
        ("a___b".into(), Problem::BadSeparator { component: "a___b".into() }),
        ("a-".into(), Problem::BadSeparator { component: "a-".into() }),
        ("-a".into(), Problem::BadSeparator { component: "-a".into() }),
        ("a-_b".into(), Problem::BadSeparator { component: "a-_b".into() }),
        ("hub.test/other.test/app".into(), Problem::HostLike { component: "other.test".into() }),
        ("localhost/app".into(), Problem::NoDot),
        ("localhost:5000/app".into(), Problem::Port { host: "localhost".into() }),
        ("hub.test:5000/app:1".into(), Problem::Port { host: "hub.test".into() }),
        ("127.0.0.1/app".into(), Problem::IpAddress),
        ("127.1/app".into(), Problem::IpAddress),
        ("hub..test/app".into(), Problem::BadLabel { label: String::new() }),
        ("-hub.test/app".into(), Problem::BadLabel { label: "-hub".into() }),
        ("hub_.test/app".into(), Problem::BadLabel { label: "hub_".into() }),
        ("münchen.example/app".into(), Problem::NotAscii),
        (format!("{}.test/app", "a".repeat(64)), Problem::BadLabel { label: "a".repeat(64) }),
        (format!("ipns/{key}"), Problem::AuthorityLike { text: format!("ipns/{key}") }),
        (format!("hub.test/ipfs/{CID_V1}"), Problem::AuthorityLike { text: format!("ipfs/{CID_V1}") }),
        ("/ipfs/hub.test/app".into(), Problem::NotACid { text: "hub.test".into() }),
        (format!("/ipfs/{key}/app"), Problem::NotACid { text: key.into() }),
        ("hub.test/:1".into(), Problem::MissingImage),
        (format!("/ipns/hub.test@{SHA}"), Problem::MissingImage),
        ("did:plc:abc/app".into(), Problem::DidMethod),
        ("did:web:hub.test:user/app".into(), Problem::DidWeb),
        ("did:web:hub.test%3A80/app".into(), Problem::DidWeb),
        (format!("{DID_X25519}/app"), Problem::DidKey { what: "it is an X25519 key, for encryption".into() }),
        ("a".repeat(3000), Problem::TooLong { limit: REFERENCE_BYTES }),
        ("a".repeat(ImageName::CHARS + 1), Problem::TooLong { limit: ImageName::CHARS }),
        (
            format!("{}.test/{}", ["a".repeat(60), "b".repeat(60)].join("."), "c".repeat(140)),
            Problem::TooLong { limit: limits::NAME_CHARS },
        ),
    ] {
        assert_eq!(problem(&text), expected, "{text}");
    }
    assert!(matches!(problem("app@sha256:00"), Problem::Digest(_)));
    assert!(matches!(problem(&format!("did:key:z{}/app", "1".repeat(9))), Problem::DidKey { .. }));
}

#[test]
fn target_names() {
    for (text, shown) in [("app", "app:latest"), ("team/app:1", "team/app:1"), ("hub.test:1", "hub.test:1")] {
        assert_eq!(text.parse::<TargetName>().unwrap().to_string(), shown);
    }
    for bad in KUBO.map(|spellings| format!("{}/app:1", spellings[0])) {
        assert!(matches!(bad.parse::<TargetName>().unwrap_err().problem, Problem::AuthorityLike { .. }), "{bad}");
    }
    // A word that decodes as a very short peer id is a word.
    assert_eq!("161aa1/a".parse::<Reference>().unwrap().authority, None);
    for bad in ["", "app:", "hub.test/app:1", "localhost:5000/app", "v2/app", "app@sha256:00", "App:1"] {
        assert!(bad.parse::<TargetName>().is_err(), "{bad}");
    }
    for (engine, shown) in [
        ("app:1", "app:1"),
        ("docker.io/library/alpine:3.20", "alpine:3.20"),
        ("docker.io/team/app:1", "team/app:1"),
        ("localhost:5000/team/app", "team/app:latest"),
        ("localhost/app:1", "app:1"),
        ("hub.test/app:1@sha256:00", "app:1"),
    ] {
        assert_eq!(TargetName::from_engine(engine).unwrap().to_string(), shown, "{engine}");
    }
    assert!(TargetName::from_engine("hub.test/v2/app:1").is_err());
    for (text, shown) in [
        ("app", "app:latest"),
        ("localhost:5000/team/app:1", "localhost:5000/team/app:1"),
        ("localhost:5000/team/app", "localhost:5000/team/app:latest"),
        ("hub.test/v2/app:1", "hub.test/v2/app:1"),
    ] {
        assert_eq!(text.parse::<EngineName>().unwrap().as_str(), shown);
    }
    for bad in ["", "App", "a b", "-x.test/app", "host:99999/app", "team/../app", "app:1/2:3 "] {
        assert!(bad.parse::<EngineName>().is_err(), "{bad}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let error = "hub.test/App:1".parse::<Reference>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`hub.test/App:1` is not a reference: upper-case letters are not allowed in image names (`app` would be)"
    );
    assert_eq!(error.kind(), crate::kind::ErrorKind::Usage);
    let error = "hub.test:5000/app".parse::<Reference>().unwrap_err();
    assert!(error.to_string().ends_with("(another registry is written `docker://hub.test:PORT/NAME`)"), "{error}");
}

#[test]
fn authorities_alone() {
    for (text, shown) in [
        ("hub.test", "hub.test".to_owned()),
        ("/ipns/hub.test", "hub.test".into()),
        ("did:web:hub.test", "did:web:hub.test".into()),
        (DID_ED25519, DID_ED25519.parse::<IpnsName>().unwrap().to_string()),
        (KUBO[2][1], KUBO[2][0].into()),
        ("hub.test/", "hub.test".into()),
    ] {
        assert_eq!(text.parse::<Authority>().unwrap().to_string(), shown);
    }
    for bad in ["", "app", "hub.test/app", "localhost", "ipfs/nothing", "hub.test:1"] {
        assert!(bad.parse::<Authority>().is_err(), "{bad}");
    }
}

fn component() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}"
}

fn image() -> impl Strategy<Value = ImageName> {
    prop::collection::vec(component(), 1..4).prop_filter_map("reserved", |parts| parts.join("/").parse().ok())
}

fn authority() -> impl Strategy<Value = Authority> {
    let domain = "([a-z0-9]{1,9}(-[a-z0-9]{1,3})?\\.){1,3}[a-z]{2,5}";
    let domain = domain.prop_map(|text: String| text.parse::<Domain>().unwrap());
    let key = any::<[u8; 32]>().prop_map(|seed| {
        let pair = libp2p_identity::Keypair::ed25519_from_bytes(seed).unwrap();
        Authority::Key(IpnsName::from_peer_id(pair.public().to_peer_id()))
    });
    let cid = any::<[u8; 32]>()
        .prop_map(|hash| Authority::Cid(Cid::new_v1(0x70, cid::multihash::Multihash::wrap(0x12, &hash).unwrap())));
    prop_oneof![domain.clone().prop_map(Authority::Domain), domain.prop_map(Authority::DidWeb), key, cid]
}

proptest! {
    #[test]
    fn display_parses_back(
        authority in prop::option::of(authority()),
        image in image(),
        tag in prop::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"),
        digest in prop::option::of(any::<Vec<u8>>()),
    ) {
        let reference = Reference {
            authority,
            image: Some(image),
            tag: tag.map(|tag| tag.parse().unwrap()),
            digest: digest.map(|data| Digest::sha256(&data)),
        };
        prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }

    #[test]
    fn any_text_is_refused_or_round_trips(text in "\\PC{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn likely_text_is_refused_or_round_trips(
        text in "(/ipfs/|ipns://|ipfs/|did:web:|did:key:z|k51|Qm)?[a-zA-Z0-9._/:@-]{0,40}"
    ) {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}

const RSA_SPKI: &str = concat!(
    "30820122300d06092a864886f70d01010105000382010f003082010a02820101009a05abb6a9ec63264bd0f6c137b3160114",
    "5373a91e29ccf830adc2d23d1335a0cf6b3111d7ce7ee6efe0b9045b6cab2298218439a43f7631f4a056748a7b7e6a55231d",
    "d11ce1e9bba09bce953fc1ed9a2789345c7ff89c53d1240dc322e3e23f87cf9fa923c1206f50f6d9ed0e013ffd2e1beecaca",
    "b12135cdc2633a1ce3a33e4bd1d7f6985f7693c9e2c4f9ec06fa37d5fc8504230b17ac6b7bb00be0b889a45fefba33e0a3de",
    "2359067a496e1e42d569dbf3d526d06b646d84014aabf4df812e3d12de8def3cc234e218e16cc7f072ebf6d019a04e659b9b",
    "27962b5c52a8be7670834512b5ce7a26a57d5c71dce7919f20a2e35a9d177da42bc871d4f82a5d0203010001",
);
