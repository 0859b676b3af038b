//! The age X25519 identity: [`EncryptionIdentity`] and its public half, [`Recipient`].

use std::fmt;
use std::str::FromStr;

use age::secrecy::ExposeSecret;

use super::{IdentityError, SecretBytes};

/// The key that opens private images.
#[derive(Clone)]
pub struct EncryptionIdentity(age::x25519::Identity);

impl EncryptionIdentity {
    /// A new one.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// age's identity, for decrypting.
    pub fn age(&self) -> &age::x25519::Identity {
        &self.0
    }

    /// `AGE-SECRET-KEY-1…` and a line feed: what `age-keygen` writes.
    pub fn to_bytes(&self) -> SecretBytes {
        let mut bytes = self.0.to_string().expose_secret().as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.into()
    }

    /// Reads what [`EncryptionIdentity::to_bytes`] or `age-keygen` wrote; comments are skipped.
    pub fn from_bytes(bytes: &SecretBytes) -> Result<Self, IdentityError> {
        let malformed = |why: &str| IdentityError::Malformed { what: "encryption identity", source: why.into() };
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| malformed("it is no text"))?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().ok_or_else(|| malformed("it is empty"))?;
        if lines.next().is_some() {
            return Err(malformed("it holds more than one identity"));
        }
        line.parse().map(Self).map_err(malformed)
    }
}

impl fmt::Debug for EncryptionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionIdentity({})", self.recipient())
    }
}

/// Who can open a private image: `age1…`.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

impl Recipient {
    /// age's recipient, for encrypting.
    pub fn age(&self) -> &age::x25519::Recipient {
        &self.0
    }

    /// The X25519 key itself.
    pub fn public_bytes(&self) -> [u8; 32] {
        decode_bech32(&self.0.to_string()).expect("age writes 32 bytes as bech32")
    }
}

/// The 32 bytes of a bech32 text (BIP 173) that age has written; the checksum is age's business.
fn decode_bech32(text: &str) -> Option<[u8; 32]> {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const CHECKSUM: usize = 6;
    let (_, data) = text.rsplit_once('1')?;
    let data = data.as_bytes().get(..data.len().checked_sub(CHECKSUM)?)?;
    let (mut bytes, mut pending, mut bits) = (Vec::with_capacity(32), 0_u32, 0);
    for symbol in data {
        let value = ALPHABET.iter().position(|known| known == symbol)?;
        pending = (pending << 5 | u32::try_from(value).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(pending >> bits & 0xff).ok()?);
        }
    }
    bytes.try_into().ok()
}

impl PartialEq for Recipient {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Recipient {}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Recipient {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |_| IdentityError::BadRecipient { text: text.chars().take(160).collect() };
        text.parse().map(Self).map_err(refused)
    }
}

impl serde::Serialize for Recipient {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Recipient {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
