//! The keys of a home: making, importing, exporting.

use std::path::Path;

use super::error::{RegistryError, Topic};
use super::options::InitOptions;
use super::outcome::Identity;
use super::profile::{self, Profile};
use crate::identity::bundle::{self, Bundle};
use crate::identity::did_document::DidDocument;
use crate::identity::{EncryptionIdentity, IdentityError, KeyStore, NodeKey, Passphrase, RegistryKey};
use crate::kind::ErrorKind;
use crate::publish::Keys;
use crate::reference::{Domain, IpnsName};
use crate::tree::edit::RegistryInfo;

/// Makes the keys of a home and notes what was chosen. No registry that is there is changed; one that has `lost` its key gets this key
/// only. Blocks the thread.
pub(super) fn create(home: &Path, options: &InitOptions, lost: Option<&IpnsName>) -> Result<(), RegistryError> {
    let making = |error| failed("making the keys", error);
    let keys = KeyStore::new(home);
    let (registry, former, encryption) = match options.import.clone() {
        Some(Bundle { registry, former, encryption }) => (registry, former, encryption),
        None => (RegistryKey::generate(), Vec::new(), None),
    };
    if let Some(lost) = lost.filter(|lost| **lost != registry.name()) {
        return Err(RegistryError::Step {
            doing: "making the keys",
            kind: ErrorKind::Integrity,
            topic: Topic::KeyLost,
            source: format!("the registry of this home belongs to the key {lost}, and registry.key is missing").into(),
        });
    }
    let domain = options.domain.as_deref().map(str::parse::<Domain>).transpose().map_err(RegistryError::from_name)?;
    let mut profile = Profile::load(home)?;
    profile.domain = domain.map(|domain| domain.to_string()).or(profile.domain);
    profile.title = options.title.clone().or(profile.title);
    if !options.announce.is_empty() {
        profile.announce.clone_from(&options.announce);
    }
    keys.node_or_new().map_err(making)?;
    match &encryption {
        Some(imported) => keys.import_encryption(imported).map_err(making)?,
        // A home that a crash left without its registry key is no registry, and is made anew with what is there.
        None if keys.encryption().map_err(making)?.is_some() => {}
        None => keys.create_encryption(&EncryptionIdentity::generate()).map_err(making)?,
    }
    for key in &former {
        keys.add_former(key).map_err(making)?;
    }
    // Not before: what fails earlier leaves the profile as it was.
    profile.save(home)?;
    keys.create_registry(&registry).map_err(making)
}

/// The registry key of a home and those before it; [`RegistryError::NoRegistry`] without one. Blocks the thread.
pub(super) fn of_registry(home: &Path) -> Result<Keys, RegistryError> {
    let reading = |error| failed("reading the keys", error);
    let keys = KeyStore::new(home);
    let key = keys.registry().map_err(reading)?.ok_or(RegistryError::NoRegistry)?;
    Ok(Keys { key, former: keys.former().map_err(reading)? })
}

/// Reads a file of keys. Blocks the thread for about a second.
pub fn unseal(bytes: &[u8], passphrase: Option<String>) -> Result<Bundle, RegistryError> {
    let passphrase = passphrase.map(Passphrase::from);
    bundle::import(bytes, passphrase.as_ref()).map_err(|error| failed("importing the keys", error))
}

/// The keys of a home under a passphrase. Blocks the thread for about a second.
pub fn export(home: &Path, passphrase: String) -> Result<Vec<u8>, RegistryError> {
    let exporting = |error| failed("exporting the keys", error);
    let keys = KeyStore::new(home);
    let registry = keys.registry().map_err(exporting)?.ok_or(RegistryError::NoRegistry)?;
    let former = keys.former().map_err(exporting)?;
    let encryption = keys.encryption().map_err(exporting)?;
    bundle::export(&Bundle { registry, former, encryption }, &Passphrase::from(passphrase)).map_err(exporting)
}

/// Replaces the node's transport key by a new one; returns the peer id before, if there was one.
pub fn rotate_node(home: &Path) -> Result<(Option<String>, Identity), RegistryError> {
    let rotating = |error| failed("replacing the node key", error);
    let keys = KeyStore::new(home);
    let before = keys.node().map_err(rotating)?.map(|key| key.peer_id().to_string());
    keys.save_node(&NodeKey::generate()).map_err(rotating)?;
    Ok((before, profile::identity(home)?))
}

/// What a new registry says about itself.
pub(super) fn registry_info(home: &Path, key: &RegistryKey) -> Result<RegistryInfo, RegistryError> {
    let profile = Profile::load(home)?;
    let keys = KeyStore::new(home);
    let encryption = keys.encryption().map_err(|error| failed("reading the keys", error))?;
    let recipients: Vec<_> = encryption.iter().map(EncryptionIdentity::recipient).collect();
    let domain = profile.domain.as_deref().map(str::parse::<Domain>).transpose().map_err(RegistryError::from_name)?;
    Ok(RegistryInfo {
        did: key.did(),
        ipns: key.name().to_string(),
        title: profile.title,
        domain: profile.domain,
        key_agreement: recipients.iter().map(ToString::to_string).collect(),
        mirrors: Vec::new(),
        did_document: DidDocument::new(domain.as_ref(), key, &recipients).to_json(),
    })
}

pub(super) fn failed(doing: &'static str, error: IdentityError) -> RegistryError {
    let kind = error.kind();
    RegistryError::Step { doing, kind, topic: Topic::Other, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn imports_replace_what_a_dead_init_left() {
        let [source, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        create(source.path(), &InitOptions::default(), None).unwrap();
        let recipient = |home: &Path| KeyStore::new(home).encryption().unwrap().unwrap().recipient();
        // An init that died left this, and no registry key.
        KeyStore::new(folder.path()).create_encryption(&EncryptionIdentity::generate()).unwrap();
        assert_ne!(recipient(folder.path()), recipient(source.path()));
        let bundle = export(source.path(), "secret".into()).unwrap();
        let options =
            InitOptions { import: Some(unseal(&bundle, Some("secret".into())).unwrap()), ..InitOptions::default() };
        create(folder.path(), &options, None).unwrap();
        assert_eq!(recipient(folder.path()), recipient(source.path()));
        let other = EncryptionIdentity::generate();
        let refused = KeyStore::new(folder.path()).import_encryption(&other).unwrap_err();
        assert!(matches!(refused, IdentityError::Exists { .. }), "{refused:?}");
        assert_eq!(recipient(folder.path()), recipient(source.path()), "a registry keeps its own");
    }

    #[test]
    fn a_registry_that_lost_its_key_gets_that_one_only() {
        let [source, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        create(source.path(), &InitOptions::default(), None).unwrap();
        let lost = KeyStore::new(source.path()).registry().unwrap().unwrap().name();
        let refused = create(folder.path(), &InitOptions::default(), Some(&lost)).unwrap_err();
        assert_eq!((refused.kind(), refused.topic()), (ErrorKind::Integrity, Topic::KeyLost));
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was made");
        let bundle = export(source.path(), "secret".into()).unwrap();
        let options =
            InitOptions { import: Some(unseal(&bundle, Some("secret".into())).unwrap()), ..InitOptions::default() };
        create(folder.path(), &options, Some(&lost)).unwrap();
        assert_eq!(KeyStore::new(folder.path()).registry().unwrap().unwrap().name(), lost);
    }

    #[test]
    fn inits_that_fail_leave_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node.key");
        fs::write(&node, "no key").unwrap();
        let options = InitOptions { title: Some("Images".into()), ..InitOptions::default() };
        create(folder.path(), &options, None).unwrap_err();
        assert_eq!(Profile::load(folder.path()).unwrap(), Profile::default());
        fs::remove_file(&node).unwrap();
        create(folder.path(), &options, None).unwrap();
        assert_eq!(Profile::load(folder.path()).unwrap().title, options.title);
    }
}
