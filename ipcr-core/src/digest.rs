//! Content digests as OCI spells them: [`Digest`], and a [`Hasher`] that makes them.
//!
//! A digest is parsed once, at the edge; inside the crate no digest is a string, and no unparsed text becomes part
//! of a path. Source: OCI image-spec, "Digests"; the registered algorithms `sha256` and `sha512` only.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// A registered digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name in a digest string and the folder under `blobs/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Digest length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no digest is empty")]
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

/// Text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)")]
pub struct ParseDigestError {
    /// What was given.
    pub text: String,
}

impl Digest {
    /// The SHA-256 digest of `data`.
    pub fn sha256(data: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, data)
    }

    /// The digest of `data`.
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    /// The digest made of these bytes.
    ///
    /// # Panics
    /// When `bytes` has not the length of `algorithm`.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), algorithm.len(), "a digest has the length of its algorithm");
        let mut all = [0; 64];
        all[..bytes.len()].copy_from_slice(bytes);
        Self { algorithm, bytes: all }
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its raw bytes: 32 or 64.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }

    /// Its lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// Where an OCI image layout keeps this blob: `blobs/<algorithm>/<hex>`.
    pub fn layout_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex())
    }

    /// Whether `data` has this digest.
    pub fn matches(&self, data: &[u8]) -> bool {
        Self::of(self.algorithm, data) == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseDigestError { text: text.chars().take(160).collect() };
        let (name, digits) = text.split_once(':').ok_or_else(refuse)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(refuse()),
        };
        let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != algorithm.len() * 2 || !lower {
            return Err(refuse());
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(digits, &mut bytes[..algorithm.len()]).map_err(|_| refuse())?;
        Ok(Self { algorithm, bytes })
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// An empty hasher.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(data),
            State::Sha512(state) => state.update(data),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_bytes(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_bytes(Algorithm::Sha512, &state.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::sha256(b""));
        let abc = Digest::of(Algorithm::Sha512, b"abc");
        assert!(abc.to_string().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert!(abc.matches(b"abc") && !abc.matches(b"abd"));
    }

    #[test]
    fn refusals() {
        let good = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for bad in [
            String::new(),
            good.into(),
            format!("md5:{good}"),
            format!("sha256:{}", &good[1..]),
            format!("sha256:{good}0"),
            format!("sha256:{}", good.to_uppercase()),
            format!("SHA256:{good}"),
            format!("sha512:{good}"),
            format!("sha256:../{}", &good[3..]),
            format!(" sha256:{good}"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
