//! As much of the protobuf wire format as nodes, records and messages of peers need: [`Fields`], and what writes them.
//!
//! Reading is strict about structure (lengths, varints) and leaves content to the caller: which fields there are, and which of several
//! counts.

use super::varint;

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// They end inside a field.
    #[error("a protobuf message is cut short")]
    CutShort,
    /// They are none, however they go on.
    #[error("a protobuf message is malformed")]
    Wrong,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire types 1 and 5.
    Fixed(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed(_) => Err(Malformed::Wrong),
        }
    }

    /// The number of a scalar field, however it is written.
    pub(crate) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) | Self::Fixed(number) => Ok(number),
            Self::Bytes(_) => Err(Malformed::Wrong),
        }
    }
}

/// The fields of a message, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = varint::take(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Number(varint::take(&mut self.0)?),
            1 => Value::Fixed(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(varint::take(&mut self.0)?).map_err(|_| Malformed::CutShort)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed::CutShort)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed(u32::from_le_bytes(self.fixed()?).into()),
            _ => return Err(Malformed::Wrong),
        };
        Ok((key >> 3, value))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::CutShort)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends a scalar field.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint::put(out, field << 3);
    varint::put(out, value);
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_header(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the key and length of a length-delimited field whose bytes follow.
pub(crate) fn put_header(out: &mut Vec<u8>, field: u64, length: usize) {
    varint::put(out, field << 3 | 2);
    varint::put(out, length as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            for field in Fields::of(&bytes) {
                let _ = field;
            }
        }
    }

    #[test]
    fn fields_come_back() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_bytes(&mut message, 2, b"abc");
        let fields: Result<Vec<_>, _> = Fields::of(&message).collect();
        assert_eq!(fields.unwrap(), [(1, Value::Number(300)), (2, Value::Bytes(b"abc"))]);
    }

    #[test]
    fn short_fields_are_refused() {
        for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0x09, 1], &[0x0d, 1, 2, 3], &[0x08, 0xff]] {
            assert_eq!(Fields::of(bytes).next(), Some(Err(Malformed::CutShort)), "{bytes:?}");
        }
        for bytes in [&[0x0b][..], &[0xff; 11]] {
            assert_eq!(Fields::of(bytes).next(), Some(Err(Malformed::Wrong)), "{bytes:?}");
        }
    }
}
