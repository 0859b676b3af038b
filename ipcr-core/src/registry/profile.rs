//! What a home knows about itself without any lock: [`Profile`], and who it is: [`identity`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::error::{RegistryError, Topic};
use super::outcome::{Identity, NodeIdentity, TxtRecord};
use crate::identity::KeyStore;
use crate::kind::ErrorKind;
use crate::net::addresses::with_peer;
use crate::store::home::Home;

/// The file, in the home.
const FILE: &str = "profile.json";
/// Where the addresses of a running node are kept while it runs.
const RUNNING: &str = "node.json";

/// What was chosen for a home. Kept in a file of its own, so that it can be read while another process holds the home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// The domain that points at the registry.
    pub domain: Option<String>,
    /// The registry's title.
    pub title: Option<String>,
    /// Addresses at which others reach the node.
    pub announce: Vec<Multiaddr>,
    /// The port that the node got, to be asked for again.
    pub port: Option<u16>,
}

impl Profile {
    /// Reads it; the default where there is none.
    pub fn load(home: &Path) -> Result<Self, RegistryError> {
        read(&home.join(FILE)).map(Option::unwrap_or_default)
    }

    /// Writes it; durable when it returns.
    pub fn save(&self, home: &Path) -> Result<(), RegistryError> {
        write(&home.join(FILE), self)
    }
}

/// The note of a node that runs. It outlives a process that is killed.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    /// The process that it runs in.
    pid: u32,
    addresses: Vec<Multiaddr>,
}

/// Notes the addresses of the node that runs in this process, for those who ask without a lock.
pub(super) fn note_running(home: &Path, addresses: &[Multiaddr]) -> Result<(), RegistryError> {
    write(&home.join(RUNNING), &Running { pid: std::process::id(), addresses: addresses.to_vec() })
}

/// The addresses of the node that runs in the process that holds the home; a note of any other process is worth nothing, nor is
/// one that cannot be read.
fn running(home: &Path) -> Option<Vec<Multiaddr>> {
    let noted: Running = read(&home.join(RUNNING)).ok()??;
    let holder = Home::holder(home).ok()??;
    (holder.pid == noted.pid).then_some(noted.addresses)
}

/// Takes the note back.
pub(super) fn forget_running(home: &Path) {
    let _ = fs::remove_file(home.join(RUNNING));
}

/// Who the registry of a home is; [`RegistryError::NoRegistry`] before `init`. Reads small files only, takes no lock.
pub fn identity(home: &Path) -> Result<Identity, RegistryError> {
    let keys = KeyStore::new(home);
    let failed = |error: crate::identity::IdentityError| RegistryError::Step {
        doing: "reading the keys",
        kind: error.kind(),
        topic: Topic::Other,
        source: Box::new(error),
    };
    let registry = keys.registry().map_err(failed)?.ok_or(RegistryError::NoRegistry)?;
    let lost = || RegistryError::Step {
        doing: "reading the keys",
        kind: ErrorKind::Integrity,
        topic: Topic::Other,
        source: "encryption.key is missing; restore it from a backup, or by `init --import` into a new home".into(),
    };
    let encryption = keys.encryption().map_err(failed)?.ok_or_else(lost)?;
    // Without it the node is another peer, and everything else stays as it is.
    let node = keys.node_or_new().map_err(failed)?;
    let profile = Profile::load(home)?;
    let peer = node.peer_id();
    let running = running(home);
    let announced: Vec<Multiaddr> = profile.announce.iter().map(|address| with_peer(address, peer)).collect();
    let hints = if announced.is_empty() { running.clone().unwrap_or_default() } else { announced.clone() };
    let addresses = running.unwrap_or(announced);
    let ipns = registry.name().to_string();
    let mut txt = Vec::new();
    if let Some(domain) = &profile.domain {
        txt.push(TxtRecord { name: format!("_dnslink.{domain}"), value: format!("dnslink=/ipns/{ipns}") });
        let name = format!("_dnsaddr.{domain}");
        txt.extend(hints.iter().map(|hint| TxtRecord { name: name.clone(), value: format!("dnsaddr={hint}") }));
    }
    Ok(Identity {
        ipns,
        did: registry.did(),
        recipient: encryption.recipient().to_string(),
        node: NodeIdentity { peer_id: peer.to_string(), addresses },
        txt,
        domain: profile.domain,
        title: profile.title,
    })
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, RegistryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("reading the home's profile", ErrorKind::of_io(&error), error)),
    };
    // An empty file is what a crash can leave of one that is not kept durably.
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| failed("reading the home's profile", ErrorKind::Integrity, error))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), RegistryError> {
    let bytes = serde_json::to_vec_pretty(value).expect("profiles are plain data");
    let temporary: PathBuf = path.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        fs::write(&temporary, bytes)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed("writing the home's profile", ErrorKind::of_io(&error), error)
    })
}

fn failed(
    doing: &'static str,
    kind: ErrorKind,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RegistryError {
    RegistryError::Step { doing, kind, topic: Topic::Other, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::{EncryptionIdentity, RegistryKey};

    #[test]
    fn only_the_note_of_the_holder_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let keys = KeyStore::new(path);
        keys.node_or_new().unwrap();
        keys.create_encryption(&EncryptionIdentity::generate()).unwrap();
        keys.create_registry(&RegistryKey::generate()).unwrap();
        let addresses: Vec<Multiaddr> = vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
        let shown = || identity(path).unwrap().node.addresses;
        note_running(path, &addresses).unwrap();
        assert!(shown().is_empty(), "nobody holds the home");
        let _held = Home::open(path, Duration::ZERO).unwrap();
        assert_eq!(shown(), addresses);
        write(&path.join(RUNNING), &Running { pid: std::process::id() + 1, addresses: addresses.clone() }).unwrap();
        assert!(shown().is_empty(), "another process left it");
        write(&path.join(RUNNING), &addresses).unwrap();
        assert!(shown().is_empty(), "it does not say whose it is");
    }
}
