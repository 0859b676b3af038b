//! Keys as files of one directory: [`KeyStore`].
//!
//! `registry.key` and `node.key` hold libp2p's protobuf (what `ipfs key export` and `import` speak), `encryption.key` what
//! `age-keygen` writes. A file is mode 0600 from its first byte, and a key is durable when the call that saved it returns:
//! a temporary file is written and synced, then renamed or linked into place, then the directory is synced. All calls
//! block on local files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{EncryptionIdentity, IdentityError, NodeKey, RegistryKey, SecretBytes};
use crate::limits;

const REGISTRY: &str = "registry.key";
const NODE: &str = "node.key";
const ENCRYPTION: &str = "encryption.key";

/// The keys of a home.
#[derive(Clone, Debug)]
pub struct KeyStore {
    directory: PathBuf,
}

impl KeyStore {
    /// The keys in this directory, which must exist when one is saved.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The registry key, if there is one.
    pub fn registry(&self) -> Result<Option<RegistryKey>, IdentityError> {
        self.load(REGISTRY)?.map(|bytes| RegistryKey::from_bytes(&bytes)).transpose()
    }

    /// Saves the registry key. One that is there is never overwritten.
    pub fn create_registry(&self, key: &RegistryKey) -> Result<(), IdentityError> {
        self.save(REGISTRY, &key.to_bytes(), false)
    }

    /// Saves the registry key in place of the one that is there.
    pub fn replace_registry(&self, key: &RegistryKey) -> Result<(), IdentityError> {
        self.save(REGISTRY, &key.to_bytes(), true)
    }

    /// The node key, if there is one.
    pub fn node(&self) -> Result<Option<NodeKey>, IdentityError> {
        self.load(NODE)?.map(|bytes| NodeKey::from_bytes(&bytes)).transpose()
    }

    /// Saves the node key, in place of the one that is there.
    pub fn save_node(&self, key: &NodeKey) -> Result<(), IdentityError> {
        self.save(NODE, &key.to_bytes(), true)
    }

    /// The node key; a new one, saved, if there was none.
    pub fn node_or_new(&self) -> Result<NodeKey, IdentityError> {
        if let Some(key) = self.node()? {
            return Ok(key);
        }
        let key = NodeKey::generate();
        self.save(NODE, &key.to_bytes(), false)?;
        Ok(key)
    }

    /// The encryption identity, if there is one.
    pub fn encryption(&self) -> Result<Option<EncryptionIdentity>, IdentityError> {
        self.load(ENCRYPTION)?.map(|bytes| EncryptionIdentity::from_bytes(&bytes)).transpose()
    }

    /// Saves the encryption identity. One that is there is never overwritten.
    pub fn create_encryption(&self, identity: &EncryptionIdentity) -> Result<(), IdentityError> {
        self.save(ENCRYPTION, &identity.to_bytes(), false)
    }

    fn load(&self, name: &str) -> Result<Option<SecretBytes>, IdentityError> {
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { doing: "opening", path, source }),
        };
        // Never reallocated, so that no copy of the secret stays behind.
        let mut bytes = Vec::with_capacity(limits::KEY_FILE_BYTES + 1);
        let bound = u64::try_from(limits::KEY_FILE_BYTES).expect("a small constant") + 1;
        if let Err(source) = file.take(bound).read_to_end(&mut bytes) {
            return Err(IdentityError::Io { doing: "reading", path, source });
        }
        if bytes.len() > limits::KEY_FILE_BYTES {
            return Err(IdentityError::TooLarge { what: path.display().to_string(), limit: limits::KEY_FILE_BYTES });
        }
        Ok(Some(bytes.into()))
    }

    fn save(&self, name: &str, bytes: &SecretBytes, replace: bool) -> Result<(), IdentityError> {
        let path = self.directory.join(name);
        let temporary = self.directory.join(format!("{name}.{}.new", std::process::id()));
        let outcome = write_and_place(&temporary, &path, bytes.expose(), replace);
        if outcome.is_err() || !replace {
            // A link leaves the temporary name behind; a failure may. Absent is as good as removed.
            let _ = fs::remove_file(&temporary);
        }
        let outcome = outcome.and_then(|()| File::open(&self.directory)?.sync_all());
        outcome.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists if !replace => IdentityError::Exists { path },
            _ => IdentityError::Io { doing: "writing", path, source },
        })
    }
}

fn write_and_place(temporary: &Path, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    // Left behind by a crash of a process with the same id.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if replace {
        fs::rename(temporary, path)
    } else {
        // Unlike a rename, a link fails when the name is taken.
        fs::hard_link(temporary, path)
    }
}
