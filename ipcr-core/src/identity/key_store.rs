//! Keys as files of one directory: [`KeyStore`].
//!
//! `registry.key`, `former-<name>.key` (the registry's keys before it), `next.key` (while it is being replaced) and `node.key` hold libp2p's protobuf (what `ipfs key export` and `import` speak), `encryption.key` what
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
const NEXT: &str = "next.key";
/// What the files of former keys begin with; their names and `.key` follow.
const FORMER: &str = "former-";
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

    /// The key that is to replace the registry key; a new one, saved, unless a rotation was begun and not ended.
    pub fn next_or_new(&self) -> Result<RegistryKey, IdentityError> {
        if let Some(bytes) = self.load(NEXT)? {
            return RegistryKey::from_bytes(&bytes);
        }
        let key = RegistryKey::generate();
        self.save(NEXT, &key.to_bytes(), false)?;
        Ok(key)
    }

    /// Makes the next key the registry key. The one before becomes a former one. After a crash it may be done again.
    pub fn rotate(&self) -> Result<(), IdentityError> {
        let (Some(next), Some(now)) = (self.load(NEXT)?, self.registry()?) else { return Ok(()) };
        let next = RegistryKey::from_bytes(&next)?;
        if next.name() != now.name() {
            self.add_former(&now)?;
            self.save(REGISTRY, &next.to_bytes(), true)?;
        }
        let path = self.directory.join(NEXT);
        let removed = fs::remove_file(&path).and_then(|()| File::open(&self.directory)?.sync_all());
        removed.map_err(|source| IdentityError::Io { doing: "removing", path, source })
    }

    /// The keys that the registry had before, in order of their names.
    pub fn former(&self) -> Result<Vec<RegistryKey>, IdentityError> {
        let failed = |source| IdentityError::Io { doing: "reading", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(FORMER).is_some_and(|name| name.strip_suffix(".key").is_some()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let keys = names.iter().map(|name| self.load(name)?.map(|bytes| RegistryKey::from_bytes(&bytes)).transpose());
        keys.filter_map(Result::transpose).collect()
    }

    /// Keeps a key that the registry had before. One that is there stays.
    pub fn add_former(&self, key: &RegistryKey) -> Result<(), IdentityError> {
        self.save(&format!("{FORMER}{}.key", key.name()), &key.to_bytes(), true)
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

    /// Saves the encryption identity that belongs to keys about to be imported, in place of one that is there: that was of an `init` that
    /// failed, unless there is a registry key, which is [`IdentityError::Exists`].
    pub fn import_encryption(&self, identity: &EncryptionIdentity) -> Result<(), IdentityError> {
        if self.registry()?.is_some() {
            return Err(IdentityError::Exists { path: self.directory.join(REGISTRY) });
        }
        self.save(ENCRYPTION, &identity.to_bytes(), true)
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
