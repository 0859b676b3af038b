//! All keys of a home in one file under a passphrase: `ipcr key export` and `import`.
//!
//! The file is an age file with a scrypt recipient (so that `age -d` opens it too), and inside it one JSON object:
//!
//! ```json
//! {"format": "ipcr-keys", "version": 1, "registry": "m…", "former": ["m…"], "encryption": "AGE-SECRET-KEY-1…"}
//! ```
//!
//! `registry` and `former` (the keys before it, absent when there are none) are libp2p's protobuf in multibase. The node key is disposable and stays where it is. A file that is not
//! encrypted is read as what `ipfs key export` writes: a registry key alone.

use std::io;

use age::secrecy::ExposeSecret;
use age::{DecryptError, scrypt};
use multibase::Base;
use serde::{Deserialize, Serialize};

use super::{EncryptionIdentity, IdentityError, Passphrase, RegistryKey, SecretBytes};
use crate::limits;

const FORMAT: &str = "ipcr-keys";
const VERSION: u32 = 1;
const MAGIC: &[u8] = b"age-encryption.org/";

/// What a bundle holds.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The registry key.
    pub registry: RegistryKey,
    /// The keys that the registry had before.
    pub former: Vec<RegistryKey>,
    /// The encryption identity; `None` when the file was not written by ipcr.
    pub encryption: Option<EncryptionIdentity>,
}

/// The JSON inside. Its strings are short-lived; [`SecretBytes`] holds the whole before and after.
#[derive(Serialize, Deserialize)]
struct Inside {
    format: String,
    version: u32,
    registry: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
}

/// Writes a bundle. Takes about a second, by design of scrypt: call it where blocking is fine.
pub fn export(bundle: &Bundle, passphrase: &Passphrase) -> Result<Vec<u8>, IdentityError> {
    seal(bundle, &scrypt::Recipient::new(passphrase.0.clone()))
}

pub(super) fn seal(bundle: &Bundle, recipient: &scrypt::Recipient) -> Result<Vec<u8>, IdentityError> {
    let encryption = bundle.encryption.as_ref().map(|identity| {
        let text = identity.age().to_string();
        text.expose_secret().to_owned()
    });
    let text = |key: &RegistryKey| multibase::encode(Base::Base64, key.to_bytes().expose());
    let inside = Inside {
        format: FORMAT.to_owned(),
        version: VERSION,
        registry: text(&bundle.registry),
        former: bundle.former.iter().map(text).collect(),
        encryption,
    };
    let plain = SecretBytes::from(serde_json::to_vec(&inside).map_err(|source| malformed(source.into()))?);
    age::encrypt(recipient, plain.expose()).map_err(|source| malformed(source.into()))
}

/// Whether these bytes need a passphrase.
pub fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a bundle, or a bare registry key as `ipfs key export` writes it. Takes about a second when it is encrypted.
pub fn import(bytes: &[u8], passphrase: Option<&Passphrase>) -> Result<Bundle, IdentityError> {
    if bytes.len() > limits::KEY_FILE_BYTES {
        return Err(IdentityError::TooLarge { what: "the key file".to_owned(), limit: limits::KEY_FILE_BYTES });
    }
    if !is_encrypted(bytes) {
        let registry = RegistryKey::from_bytes(&bytes.to_vec().into())?;
        return Ok(Bundle { registry, former: Vec::new(), encryption: None });
    }
    let passphrase = passphrase.ok_or(IdentityError::NoPassphrase)?;
    let plain = age::decrypt(&scrypt::Identity::new(passphrase.0.clone()), bytes).map_err(|error| match error {
        DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed | DecryptError::NoMatchingKeys => {
            IdentityError::WrongPassphrase
        }
        error => malformed(error.into()),
    })?;
    let plain = SecretBytes::from(plain);
    let inside: Inside = serde_json::from_slice(plain.expose()).map_err(|source| malformed(source.into()))?;
    if inside.format != FORMAT || inside.version != VERSION {
        let found = format!("{} version {}", inside.format, inside.version);
        return Err(malformed(io::Error::new(io::ErrorKind::InvalidData, format!("its format is {found}")).into()));
    }
    let key = |text: &String| {
        let (_, bytes) = multibase::decode(text).map_err(|source| malformed(source.into()))?;
        RegistryKey::from_bytes(&bytes.into())
    };
    let former = inside.former.iter().map(key).collect::<Result<_, _>>()?;
    let encryption = match inside.encryption {
        Some(text) => Some(EncryptionIdentity::from_bytes(&text.into_bytes().into())?),
        None => None,
    };
    Ok(Bundle { registry: key(&inside.registry)?, former, encryption })
}

fn malformed(source: crate::kind::Cause) -> IdentityError {
    IdentityError::Malformed { what: "key file", source }
}
