//! Keys and what is derived from them: the registry key, the node key, the encryption identity, DIDs.
//!
//! * [`RegistryKey`]: Ed25519, one key with three spellings (IPNS name, peer id, `did:key`); it signs records.
//! * [`NodeKey`]: Ed25519, another and disposable one, for the transport.
//! * [`EncryptionIdentity`] and [`Recipient`]: age X25519, for private images.
//! * [`KeyStore`]: the three as files of one directory. [`bundle`]: all of them in one file under a passphrase.
//! * [`did_document`]: what `/.well-known/did.json` says.
//!
//! No secret has a `Display`, and `Debug` shows public halves only. Secrets are zeroised when dropped as far as the
//! libraries underneath do so: age and ed25519-dalek do, and every buffer of this module is a [`SecretBytes`].

pub mod bundle;
pub mod did_document;
mod encryption;
mod key_store;

use std::fmt;
use std::path::PathBuf;

use age::secrecy::{ExposeSecret, SecretSlice, SecretString};
use libp2p_identity::{KeyType, Keypair, PeerId, PublicKey};

pub use encryption::{EncryptionIdentity, Recipient};
pub use key_store::KeyStore;

use crate::kind::{Cause, ErrorKind};
use crate::reference::did;
use crate::reference::key::IpnsName;

/// Bytes that are zeroised when dropped and never shown.
#[derive(Clone)]
pub struct SecretBytes(SecretSlice<u8>);

impl SecretBytes {
    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(SecretSlice::from(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// A passphrase, zeroised when dropped and never shown.
#[derive(Clone)]
pub struct Passphrase(SecretString);

impl From<String> for Passphrase {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// The key of a registry: it signs the records of its IPNS name.
#[derive(Clone)]
pub struct RegistryKey(Keypair);

impl RegistryKey {
    /// A new one.
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// Its name.
    pub fn name(&self) -> IpnsName {
        IpnsName::from_peer_id(self.0.public().to_peer_id())
    }

    /// Its `did:key`.
    pub fn did(&self) -> String {
        did::did_key(&self.0.public()).expect("Ed25519 keys have a did:key")
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// The pair, for signing records.
    pub fn keypair(&self) -> &Keypair {
        &self.0
    }

    /// Signs a message. The caller puts a domain-separating prefix before it.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("Ed25519 signs any message")
    }

    /// libp2p's protobuf of the private key: what `ipfs key export` writes.
    pub fn to_bytes(&self) -> SecretBytes {
        encode(&self.0)
    }

    /// Reads what [`RegistryKey::to_bytes`] or `ipfs key export` of an Ed25519 key wrote.
    pub fn from_bytes(bytes: &SecretBytes) -> Result<Self, IdentityError> {
        decode(bytes, "registry key").map(Self)
    }
}

impl fmt::Debug for RegistryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryKey({})", self.name())
    }
}

/// The key of a node, which names it to its peers and nothing else.
#[derive(Clone)]
pub struct NodeKey(Keypair);

impl NodeKey {
    /// A new one.
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// Its peer id.
    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    /// The pair, for the transport.
    pub fn keypair(&self) -> &Keypair {
        &self.0
    }

    /// libp2p's protobuf of the private key.
    pub fn to_bytes(&self) -> SecretBytes {
        encode(&self.0)
    }

    /// Reads what [`NodeKey::to_bytes`] wrote.
    pub fn from_bytes(bytes: &SecretBytes) -> Result<Self, IdentityError> {
        decode(bytes, "node key").map(Self)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.peer_id())
    }
}

fn encode(pair: &Keypair) -> SecretBytes {
    pair.to_protobuf_encoding().expect("Ed25519 keys can be encoded").into()
}

fn decode(bytes: &SecretBytes, what: &'static str) -> Result<Keypair, IdentityError> {
    let pair = Keypair::from_protobuf_encoding(bytes.expose())
        .map_err(|source| IdentityError::Malformed { what, source: source.into() })?;
    match pair.key_type() {
        KeyType::Ed25519 => Ok(pair),
        other => Err(IdentityError::KeyType { what, found: other.to_string() }),
    }
}

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are no key.
    #[error("the {what} cannot be read")]
    Malformed {
        /// Which key.
        what: &'static str,
        /// Why.
        source: Cause,
    },
    /// A key of another type.
    #[error("the {what} is of type {found}, and only Ed25519 keys can be used")]
    KeyType {
        /// Which key.
        what: &'static str,
        /// Its type.
        found: String,
    },
    /// Text that is no age recipient.
    #[error("`{text}` is not a recipient (age1…)")]
    BadRecipient {
        /// What was given.
        text: String,
    },
    /// The passphrase does not open the bundle.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The bundle is encrypted, and there is no passphrase.
    #[error("the keys are encrypted, and no passphrase was given")]
    NoPassphrase,
    /// More bytes than a key file can have.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// The key is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A key file could not be read or written.
    #[error("{doing} {path} failed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl IdentityError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } | Self::KeyType { .. } | Self::TooLarge { .. } => ErrorKind::Integrity,
            Self::BadRecipient { .. } => ErrorKind::Usage,
            Self::WrongPassphrase | Self::NoPassphrase => ErrorKind::Access,
            Self::Exists { .. } => ErrorKind::Failed,
            Self::Io { source, .. } => ErrorKind::of_io(source),
        }
    }
}

#[cfg(test)]
mod tests;
