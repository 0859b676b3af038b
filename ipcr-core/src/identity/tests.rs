use std::os::unix::fs::PermissionsExt;

use super::bundle::Bundle;
use super::did_document::DidDocument;
use super::*;

/// RFC 8032, section 7.1, TEST 1, as libp2p's protobuf: type Ed25519, then the seed and the public key.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn known_key() -> RegistryKey {
    let bytes = hex::decode(format!("08011240{SEED}{PUBLIC}")).unwrap();
    RegistryKey::from_bytes(&bytes.into()).unwrap()
}

#[test]
fn one_key_three_spellings() {
    let key = known_key();
    assert_eq!(key.did(), "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw");
    assert_eq!(key.name(), key.did().parse().unwrap());
    assert_eq!(key.name(), key.name().peer_id().to_string().parse().unwrap());
    assert_eq!(key.name().did(), Some(key.did()));
    assert!(key.public().verify(b"message", &key.sign(b"message")));
    let again = RegistryKey::from_bytes(&key.to_bytes()).unwrap();
    assert_eq!(again.name(), key.name());
    assert_ne!(RegistryKey::generate().name(), RegistryKey::generate().name());
}

#[test]
fn nothing_shows_a_secret() {
    let key = known_key();
    let identity = EncryptionIdentity::generate();
    let secret = String::from_utf8(identity.to_bytes().expose().to_vec()).unwrap();
    assert!(secret.starts_with("AGE-SECRET-KEY-1"));
    let passphrase = Passphrase::from("hunter2".to_owned());
    let shown = format!("{key:?} {:?} {identity:?} {passphrase:?} {:?}", key.to_bytes(), NodeKey(key.0.clone()));
    for leak in [SEED, &SEED[..16], secret.trim(), "hunter2", "AGE-SECRET"] {
        assert!(!shown.contains(leak), "{shown}");
    }
}

#[test]
fn other_key_types_are_refused() {
    let bytes = Keypair::generate_secp256k1().to_protobuf_encoding().unwrap();
    let error = RegistryKey::from_bytes(&bytes.into()).unwrap_err();
    assert!(matches!(&error, IdentityError::KeyType { found, .. } if found == "Secp256k1"), "{error}");
    assert!(matches!(RegistryKey::from_bytes(&vec![1, 2, 3].into()), Err(IdentityError::Malformed { .. })));
}

#[test]
fn recipients() {
    // age's own test vector (x25519.rs) and its key.
    let secret = b"# made by age-keygen\nAGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n";
    let identity = EncryptionIdentity::from_bytes(&secret.to_vec().into()).unwrap();
    let recipient: Recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".parse().unwrap();
    assert_eq!(identity.recipient(), recipient);
    assert_eq!(recipient.public_bytes().len(), 32);
    // Encoding the bytes again gives the text: 52 symbols after `age1`, then the checksum.
    let alphabet = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let bits = recipient.public_bytes().map(|b| format!("{b:08b}")).concat();
    let symbols: String = format!("{bits:0<260}")
        .as_bytes()
        .chunks(5)
        .map(|five| usize::from_str_radix(std::str::from_utf8(five).unwrap(), 2).unwrap())
        .map(|value| char::from(alphabet[value]))
        .collect();
    assert!(recipient.to_string().starts_with(&format!("age1{symbols}")));
    assert!("age1qqqq".parse::<Recipient>().is_err());
    let two = [&secret[..], &secret[..]].concat();
    assert!(EncryptionIdentity::from_bytes(&two.into()).is_err());
}

#[test]
fn bundles_open_with_their_passphrase_only() {
    let former = vec![RegistryKey::generate()];
    let bundle = Bundle { registry: known_key(), former, encryption: Some(EncryptionIdentity::generate()) };
    let passphrase = Passphrase::from("correct horse".to_owned());
    // As `export` does, with less work.
    let mut recipient = age::scrypt::Recipient::new(passphrase.0.clone());
    recipient.set_work_factor(8);
    let file = bundle::seal(&bundle, &recipient).unwrap();
    assert!(bundle::is_encrypted(&file));
    let opened = bundle::import(&file, Some(&passphrase)).unwrap();
    assert_eq!(opened.registry.name(), bundle.registry.name());
    assert_eq!(opened.former[0].name(), bundle.former[0].name());
    assert_eq!(opened.encryption.unwrap().recipient(), bundle.encryption.unwrap().recipient());
    let wrong = bundle::import(&file, Some(&Passphrase::from("battery".to_owned()))).unwrap_err();
    assert!(matches!(wrong, IdentityError::WrongPassphrase));
    assert_eq!(wrong.kind(), ErrorKind::Access);
    assert!(matches!(bundle::import(&file, None), Err(IdentityError::NoPassphrase)));
    let mut broken = file.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert!(bundle::import(&broken, Some(&passphrase)).is_err());
    assert!(matches!(bundle::import(&vec![0; 70_000], None), Err(IdentityError::TooLarge { .. })));
}

#[test]
fn exports_are_encrypted() {
    let bundle = Bundle { registry: known_key(), former: Vec::new(), encryption: None };
    let file = bundle::export(&bundle, &Passphrase::from("correct horse".to_owned())).unwrap();
    assert!(bundle::is_encrypted(&file));
    let seed = hex::decode(SEED).unwrap();
    assert!(!file.windows(seed.len()).any(|window| window == seed));
}

#[test]
fn a_bare_key_of_kubo_is_imported() {
    let key = known_key();
    let bundle = bundle::import(key.to_bytes().expose(), None).unwrap();
    assert_eq!(bundle.registry.name(), key.name());
    assert!(bundle.encryption.is_none());
}

#[test]
fn did_documents() {
    let key = known_key();
    let identity = EncryptionIdentity::generate();
    let domain = "hub.test".parse().unwrap();
    let document = DidDocument::new(Some(&domain), &key, &[identity.recipient()]);
    let json: serde_json::Value = serde_json::from_str(&document.to_json()).unwrap();
    assert_eq!(json["id"], "did:web:hub.test");
    assert_eq!(json["alsoKnownAs"], serde_json::json!([key.did(), format!("ipns://{}", key.name())]));
    let multikey = "z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
    assert_eq!(json["verificationMethod"][0]["publicKeyMultibase"], multikey);
    assert_eq!(json["verificationMethod"][0]["type"], "Multikey");
    assert_eq!(json["assertionMethod"][0], format!("did:web:hub.test#{multikey}"));
    let agreement = json["keyAgreement"][0]["publicKeyMultibase"].as_str().unwrap();
    assert!(agreement.starts_with("z6LS"), "{agreement}");
    assert_eq!(serde_json::from_value::<DidDocument>(json).unwrap(), document);
    let alone = DidDocument::new(None, &key, &[]);
    assert_eq!(alone.id, key.did());
    assert_eq!(alone.also_known_as, [format!("ipns://{}", key.name())]);
}

#[test]
fn key_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::new(directory.path());
    assert!(store.registry().unwrap().is_none() && store.encryption().unwrap().is_none());
    let key = known_key();
    store.create_registry(&key).unwrap();
    assert_eq!(store.registry().unwrap().unwrap().name(), key.name());
    let error = store.create_registry(&RegistryKey::generate()).unwrap_err();
    assert!(matches!(error, IdentityError::Exists { .. }));
    assert_eq!(store.registry().unwrap().unwrap().name(), key.name());
    let node = store.node_or_new().unwrap();
    assert_eq!(store.node_or_new().unwrap().peer_id(), node.peer_id());
    store.save_node(&NodeKey::generate()).unwrap();
    assert_ne!(store.node().unwrap().unwrap().peer_id(), node.peer_id());
    let identity = EncryptionIdentity::generate();
    store.create_encryption(&identity).unwrap();
    assert_eq!(store.encryption().unwrap().unwrap().recipient(), identity.recipient());

    let mut names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap()).collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    let listed: Vec<_> = names.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(listed, ["encryption.key", "node.key", "registry.key"]);
    for entry in names {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Rotation: what was begun is ended, and doing it again changes nothing.
    store.rotate().unwrap();
    assert_eq!((store.registry().unwrap().unwrap().name(), store.former().unwrap().len()), (key.name(), 0));
    let next = store.next_or_new().unwrap();
    assert_eq!(store.next_or_new().unwrap().name(), next.name());
    for _ in 0..2 {
        store.rotate().unwrap();
        assert_eq!(store.registry().unwrap().unwrap().name(), next.name());
        assert_eq!(store.former().unwrap().iter().map(RegistryKey::name).collect::<Vec<_>>(), [key.name()]);
    }
    let former = directory.path().join(format!("former-{}.key", key.name()));
    assert_eq!(former.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!directory.path().join("next.key").exists());

    std::fs::write(directory.path().join("registry.key"), vec![0; crate::limits::KEY_FILE_BYTES + 1]).unwrap();
    assert!(matches!(store.registry(), Err(IdentityError::TooLarge { .. })));
}
