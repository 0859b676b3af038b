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
    /// Field numbers of `IpnsEntry`.
    const VALUE: u64 = 1;
    const SIGNATURE_V1: u64 = 2;
    const VALIDITY: u64 = 4;
    const SEQUENCE: u64 = 5;
    const TTL: u64 = 6;
    const DATA: u64 = 9;

    /// The same record with its legacy fields, if it has neither a legacy value nor a legacy signature.
    pub(super) fn with_legacy_fields(record: &[u8]) -> Option<Vec<u8>> {
        let (mut rest, mut data) = (record, None);
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            match (tag >> 3, tag & 7) {
                (_, 0) => {
                    varint(&mut rest)?;
                }
                (field, 2) => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let content = take(&mut rest, length)?;
                    match field {
                        VALUE | SIGNATURE_V1 if !content.is_empty() => return None,
                        DATA => data = Some(content),
                        _ => {}
                    }
                }
                _ => return None,
            }
        }
        let mut cbor = data?;
        let mut filled = record.to_vec();
        let (5, entries) = head(&mut cbor)? else { return None };
        for _ in 0..entries.min(64) {
            let (3, length) = head(&mut cbor)? else { return None };
            let key = take(&mut cbor, usize::try_from(length).ok()?)?;
            match (key, head(&mut cbor)?) {
                (b"Value", (2, length)) => push_bytes(&mut filled, VALUE, &mut cbor, length)?,
                (b"Validity", (2, length)) => push_bytes(&mut filled, VALIDITY, &mut cbor, length)?,
                (b"Sequence", (0, value)) => push_number(&mut filled, SEQUENCE, value),
                (b"TTL", (0, value)) => push_number(&mut filled, TTL, value),
                (_, (0 | 1, _)) => {}
                (_, (2 | 3, length)) => {
                    take(&mut cbor, usize::try_from(length).ok()?)?;
                }
                // Nested extensions come after the short keys of the specification; what was found must do.
                _ => break,
            }
        }
        Some(filled)
    }

    fn push_number(out: &mut Vec<u8>, field: u64, value: u64) {
        push_varint(out, field << 3);
        push_varint(out, value);
    }

    fn push_bytes(out: &mut Vec<u8>, field: u64, cbor: &mut &[u8], length: u64) -> Option<()> {
        let content = take(cbor, usize::try_from(length).ok()?)?;
        push_varint(out, field << 3 | 2);
        push_varint(out, length);
        out.extend_from_slice(content);
        Some(())
    }

    fn push_varint(out: &mut Vec<u8>, mut value: u64) {
        loop {
            let low = u8::try_from(value & 0x7f).expect("seven bits");
            value >>= 7;
            if value == 0 {
                return out.push(low);
            }
            out.push(low | 0x80);
        }
    }

    fn varint(rest: &mut &[u8]) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, tail) = rest.split_first()?;
            *rest = tail;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (content, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        Some(content)
    }

    /// The major type and argument of a CBOR item (RFC 8949, section 3), definite lengths only.
    fn head(cbor: &mut &[u8]) -> Option<(u8, u64)> {
        let (first, tail) = cbor.split_first()?;
        *cbor = tail;
        let argument = match first & 0x1f {
            small @ 0..24 => u64::from(small),
            size @ 24..28 => {
                let bytes = take(cbor, 1 << (size - 24))?;
                bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            _ => return None,
        };
        Some((first >> 5, argument))
    }
}

#[cfg(test)]
mod tests;
