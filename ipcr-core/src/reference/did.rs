//! `did:key` and `did:web`, as spellings of names.
//!
//! A `did:key` is a multicodec-tagged public key in base58btc; an IPNS name is the (possibly identity) multihash of
//! libp2p's protobuf of the same key. Ed25519 and secp256k1 keys can be told from either; names of RSA and P-256 keys
//! are hashes, so that a DID leads to the name but not back. Sources: did:key method v0.9 with its test vectors, libp2p
//! peer-ids specification.

use libp2p_identity::{KeyType, PublicKey, ecdsa, ed25519, rsa, secp256k1};
use multibase::Base;

use super::domain::Domain;
use super::key::IpnsName;
use super::{Problem, clip};

/// Multicodec tags as varints.
const ED25519: [u8; 2] = [0xed, 0x01];
const SECP256K1: [u8; 2] = [0xe7, 0x01];
const X25519: [u8; 2] = [0xec, 0x01];
const P256: [u8; 2] = [0x80, 0x24];
const RSA: [u8; 2] = [0x85, 0x24];

/// Longest `did:key` that is read: an RSA key of 8192 bits.
const DID_BYTES: usize = 1536;

/// Multihash code of the identity function, with which short keys are inlined into names.
const IDENTITY: u64 = 0;

/// The name whose key a `did:key` spells.
pub(super) fn from_did_key(text: &str) -> Result<IpnsName, Problem> {
    let bad = |what: &str| Problem::DidKey { what: what.to_owned() };
    let encoded = text.strip_prefix("did:key:").ok_or(Problem::DidMethod)?;
    if encoded.len() > DID_BYTES {
        return Err(Problem::TooLong { limit: DID_BYTES });
    }
    let (base, bytes) = multibase::decode(encoded).map_err(|_| bad("it is no multibase text"))?;
    if base != Base::Base58Btc {
        return Err(bad("it is not base58btc, which begins with z"));
    }
    let (tag, key) = bytes.split_at_checked(2).ok_or_else(|| bad("it is too short"))?;
    let tag: [u8; 2] = tag.try_into().expect("split at two");
    let public: PublicKey = match tag {
        ED25519 => ed25519::PublicKey::try_from_bytes(key).map_err(|_| bad("it is no point on Ed25519"))?.into(),
        SECP256K1 if key.len() == 33 => {
            secp256k1::PublicKey::try_from_bytes(key).map_err(|_| bad("it is no point on secp256k1"))?.into()
        }
        P256 if key.len() == 33 => {
            ecdsa::PublicKey::try_from_bytes(key).map_err(|_| bad("it is no point on P-256"))?.into()
        }
        RSA => rsa::PublicKey::try_decode_x509(&spki(key)).map_err(|_| bad("it is no RSA key"))?.into(),
        X25519 => return Err(bad("it is an X25519 key, for encryption")),
        _ => return Err(bad("its kind is not Ed25519, secp256k1, P-256 or RSA")),
    };
    Ok(IpnsName::from_peer_id(public.to_peer_id()))
}

/// The `did:key` of a public key; `None` for kinds that have none.
pub fn did_key(public: &PublicKey) -> Option<String> {
    multikey(public).map(|text| format!("did:key:{text}"))
}

/// The multibase part of a `did:key`, which DID documents call `publicKeyMultibase`.
pub fn multikey(public: &PublicKey) -> Option<String> {
    let tagged = match public.key_type() {
        KeyType::Ed25519 => [&ED25519[..], &public.clone().try_into_ed25519().ok()?.to_bytes()].concat(),
        KeyType::Secp256k1 => [&SECP256K1[..], &public.clone().try_into_secp256k1().ok()?.to_bytes()].concat(),
        KeyType::RSA => [&RSA[..], &public.clone().try_into_rsa().ok()?.encode_pkcs1()].concat(),
        KeyType::Ecdsa => {
            let point = public.clone().try_into_ecdsa().ok()?.to_bytes();
            let (x, y) = point.get(1..)?.split_at_checked(32)?;
            // SEC1 compression: the parity of y, then x.
            let parity = 2 + (y.last()? & 1);
            [&P256[..], &[parity], x].concat()
        }
    };
    Some(multibase::encode(Base::Base58Btc, tagged))
}

/// The multibase text of an X25519 key, which DID documents list under `keyAgreement`.
pub fn x25519_multikey(public: &[u8; 32]) -> String {
    multibase::encode(Base::Base58Btc, [&X25519[..], public].concat())
}

impl IpnsName {
    /// The key itself, where the name contains it (Ed25519 and secp256k1).
    pub fn public_key(&self) -> Option<PublicKey> {
        let cid = self.cid();
        let hash = cid.hash();
        (hash.code() == IDENTITY).then(|| PublicKey::try_decode_protobuf(hash.digest()).ok()).flatten()
    }

    /// The same key as a `did:key`, where the name contains the key (Ed25519 and secp256k1).
    pub fn did(&self) -> Option<String> {
        did_key(&self.public_key()?)
    }
}

/// The domain of what follows `did:web:`.
pub(super) fn web_domain(text: &str) -> Result<Domain, Problem> {
    if text.contains([':', '%', '#', '?', ';']) {
        return Err(Problem::DidWeb);
    }
    text.parse::<Domain>().map_err(|error| match error.problem {
        Problem::BadLabel { label } => Problem::BadLabel { label: clip(&label) },
        problem => problem,
    })
}

/// A `PKCS#1` RSA key as a `SubjectPublicKeyInfo` (RFC 8017, appendix A.1; RFC 5280, section 4.1).
fn spki(pkcs1: &[u8]) -> Vec<u8> {
    const ALGORITHM: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = der(0x03, &[&[0], pkcs1].concat());
    der(0x30, &[&ALGORITHM, bits.as_slice()].concat())
}

/// One DER element of at most 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head = match content.len() {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head.as_slice(), content].concat()
}
