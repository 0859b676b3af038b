//! Unsigned varints: seven bits a byte, the lowest first.
//!
//! Two rules are about. Protobuf's, for [`take`]: 64 bits in at most ten bytes. That of multiformats ("unsigned-varint"), for
//! [`Arriving`]: at most nine bytes, and as few as can be. [`put`] writes what both read.

use super::protobuf::Malformed;

/// Most bytes of one by the rule of multiformats.
const BYTES: u32 = 9;

/// Takes one from the front, by the rule of protobuf.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed::CutShort)?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::Wrong)
}

/// Appends one.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a length.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    put(out, u64::try_from(length).expect("lengths fit 64 bits"));
}

/// How many bytes [`put`] writes.
pub(crate) fn length(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten")
}

/// One of which the bytes come one by one, by the rule of multiformats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arriving {
    value: u64,
    bytes: u32,
}

/// A number that is written with too many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number is written with more bytes than it may have")]
pub(crate) struct TooLong;

impl Arriving {
    /// Takes the next byte; the number, if it is the last.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<u64>, TooLong> {
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        match byte {
            0 if self.bytes > 1 => Err(TooLong),
            0..0x80 => Ok(Some(self.value)),
            _ if self.bytes == BYTES => Err(TooLong),
            _ => Ok(None),
        }
    }

    /// Whether no byte has come yet.
    pub(crate) fn is_new(self) -> bool {
        self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrive(bytes: &[u8]) -> Result<Option<u64>, TooLong> {
        let mut arriving = Arriving::default();
        for byte in bytes {
            if let Some(value) = arriving.push(*byte)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn they_come_back(value: u64, bits in 0_u32..64) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), length(value));
            prop_assert_eq!(arrive(&bytes), if value >> 63 == 0 { Ok(Some(value)) } else { Err(TooLong) });
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn long_and_cut_off_ones_are_refused() {
        assert_eq!(take(&mut &[0xff; 9][..]), Err(Malformed::CutShort));
        assert_eq!(take(&mut &[0xff; 10][..]), Err(Malformed::Wrong));
        assert_eq!(take(&mut &[0x80, 0][..]), Ok(0), "protobuf minds no needless bytes");
        assert_eq!(arrive(&[0x80, 0]), Err(TooLong));
        assert_eq!(arrive(&[0xff; 8]), Ok(None));
        assert_eq!(arrive(&[0xff; 9]), Err(TooLong));
    }
}
