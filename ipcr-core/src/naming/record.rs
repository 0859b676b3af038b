//! One IPNS record: [`SignedRecord`], which is verified or signed here and nowhere else.
//!
//! Source: IPNS specification, "IPNS Record" and "Record Verification". Records with V1 and V2 signatures and with V2
//! alone are read; V1 alone is not. Expiry is the caller's question, because an expired record may still be the best
//! there is.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rust_ipns::Record;

use super::target::{ParseTargetError, Target};
use crate::identity::RegistryKey;
use crate::kind::{Cause, ErrorKind};
use crate::limits;
use crate::reference::key::IpnsName;

/// A record whose signature belongs to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    name: IpnsName,
    bytes: Bytes,
    target: Target,
    sequence: u64,
    valid_until: DateTime<Utc>,
    ttl: Duration,
}

/// Why bytes are no record of a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More bytes than a record may have.
    #[error("the record has {size} bytes, more than {limit}", limit = limits::IPNS_RECORD_BYTES)]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The bytes are malformed, or not signed by the name's key.
    #[error("the record is not a valid one of {name}")]
    Invalid {
        /// The name.
        name: IpnsName,
        /// Why.
        source: Cause,
    },
    /// It leads nowhere.
    #[error("the record of {name} has a value that leads nowhere")]
    BadValue {
        /// The name.
        name: IpnsName,
        /// Why.
        source: ParseTargetError,
    },
}

impl RecordError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

impl SignedRecord {
    /// Reads a record and checks that the name's key has signed it.
    pub fn verify(name: &IpnsName, bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() > limits::IPNS_RECORD_BYTES {
            return Err(RecordError::TooLarge { size: bytes.len() });
        }
        let invalid = |source: Cause| RecordError::Invalid { name: *name, source };
        let wire = v2::with_legacy_fields(&bytes);
        let record = Record::decode(wire.as_deref().unwrap_or(&bytes)).map_err(|error| invalid(error.into()))?;
        record.verify_signature(name.peer_id()).map_err(|error| invalid(error.into()))?;
        Self::read(*name, &record, bytes)
    }

    /// Signs a record with both signatures, valid from `now` for `lifetime`.
    ///
    /// # Panics
    /// When `lifetime` is longer than 100 years.
    pub fn sign(
        key: &RegistryKey,
        target: &Target,
        sequence: u64,
        now: DateTime<Utc>,
        lifetime: Duration,
        ttl: Duration,
    ) -> Self {
        let until = now + TimeDelta::from_std(lifetime).expect("a lifetime of days");
        let record = Record::new(key.keypair(), target.to_string(), until, sequence, ttl).expect("Ed25519 signs");
        let bytes = record.encode().expect("a small record is encoded into memory");
        Self::read(key.name(), &record, bytes.into()).expect("what was signed can be read")
    }

    fn read(name: IpnsName, record: &Record, bytes: Bytes) -> Result<Self, RecordError> {
        let invalid = |source: Cause| RecordError::Invalid { name, source };
        let valid_until = record.validity().map_err(|error| invalid(error.into()))?.with_timezone(&Utc);
        let value = std::str::from_utf8(record.value()).map_err(|error| invalid(error.into()))?;
        let target = value.parse().map_err(|source| RecordError::BadValue { name, source })?;
        let ttl = Duration::from_nanos(record.ttl());
        Ok(Self { name, bytes, target, sequence: record.sequence(), valid_until, ttl })
    }

    /// Whose it is.
    pub fn name(&self) -> &IpnsName {
        &self.name
    }

    /// Its bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its sequence.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Until when it is valid.
    pub fn valid_until(&self) -> DateTime<Utc> {
        self.valid_until
    }

    /// How long it may be cached.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it has not expired.
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        now < self.valid_until
    }

    /// The order of the specification: by sequence, then validity, then bytes.
    pub fn rank(&self, other: &Self) -> Ordering {
        (self.sequence, self.valid_until, &self.bytes).cmp(&(other.sequence, other.valid_until, &other.bytes))
    }
}

/// Records that carry the V2 signature only. rust-ipns compares the legacy fields with the signed ones always, the
/// specification only where a record has any; so the legacy fields are filled in from the signed ones before it looks.
mod v2 {
    use crate::dag::cbor::{self, Items};
    use crate::dag::protobuf::{Fields, Value, put_bytes, put_number};

    /// Field numbers of `IpnsEntry`.
    const VALUE: u64 = 1;
    const SIGNATURE_V1: u64 = 2;
    const VALIDITY: u64 = 4;
    const SEQUENCE: u64 = 5;
    const TTL: u64 = 6;
    const DATA: u64 = 9;

    /// The same record with its legacy fields, if it has neither a legacy value nor a legacy signature.
    pub(super) fn with_legacy_fields(record: &[u8]) -> Option<Vec<u8>> {
        let mut data = None;
        for field in Fields::of(record) {
            match field.ok()? {
                (VALUE | SIGNATURE_V1, Value::Bytes(content)) if !content.is_empty() => return None,
                (DATA, Value::Bytes(content)) => data = Some(content),
                (_, Value::Bytes(_) | Value::Number(_)) => {}
                (_, Value::Fixed(_)) => return None,
            }
        }
        let mut items = Items::of(data?);
        let mut filled = record.to_vec();
        for _ in 0..items.expect(cbor::MAP)?.min(64) {
            let key = items.content(cbor::TEXT)?;
            match (key, items.head()?) {
                (b"Value", (cbor::BYTES, length)) => put_bytes(&mut filled, VALUE, items.take(length)?),
                (b"Validity", (cbor::BYTES, length)) => put_bytes(&mut filled, VALIDITY, items.take(length)?),
                (b"Sequence", (cbor::UNSIGNED, value)) => put_number(&mut filled, SEQUENCE, value),
                (b"TTL", (cbor::UNSIGNED, value)) => put_number(&mut filled, TTL, value),
                (_, (cbor::UNSIGNED | cbor::NEGATIVE, _)) => {}
                (_, (cbor::BYTES | cbor::TEXT, length)) => {
                    items.take(length)?;
                }
                // Nested extensions come after the short keys of the specification; what was found must do.
                _ => break,
            }
        }
        Some(filled)
    }
}

#[cfg(test)]
mod tests;
