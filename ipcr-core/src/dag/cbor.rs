//! As much of DAG-CBOR as headers of CARs and the data of IPNS records need: [`Items`], and [`put_head`] to write.
//!
//! Source: RFC 8949, section 3; "DAG-CBOR Specification" (ipld.io), "Strictness": definite lengths only, arguments as short as can be.

use cid::Cid;

use super::block::read_cid;

/// Major types.
pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;
/// Floats, and values such as `true`, of which the argument is no number.
const SIMPLE: u8 = 7;
/// The tag of a CID ("Links").
const CID_TAG: u8 = 42;

/// What is left of items that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes behind the head of a text or of bytes.
    pub(crate) fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The major type and the argument of the next item.
    pub(crate) fn head(&mut self) -> Option<(u8, u64)> {
        let first = *self.take(1)?.first()?;
        let major = first >> 5;
        let argument = match first & 0x1f {
            small @ 0..24 => u64::from(small),
            size @ 24..28 => {
                let bytes = self.take(1 << (size - 24))?;
                let argument = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                let least = if size == 24 { 24 } else { 1 << (4 << (size - 24)) };
                Some(argument).filter(|argument| *argument >= least || major == SIMPLE)?
            }
            _ => return None,
        };
        Some((major, argument))
    }

    /// The argument of the next item, which has to be of this major type.
    pub(crate) fn expect(&mut self, major: u8) -> Option<u64> {
        self.head().filter(|(found, _)| *found == major).map(|(_, argument)| argument)
    }

    /// The text or the bytes that come next.
    pub(crate) fn content(&mut self, major: u8) -> Option<&'a [u8]> {
        let length = self.expect(major)?;
        self.take(length)
    }

    /// The CID that comes next.
    pub(crate) fn cid(&mut self) -> Option<Cid> {
        self.expect(TAG).filter(|tag| *tag == u64::from(CID_TAG))?;
        // The prefix is what remains of multibase.
        let mut bytes = self.content(BYTES)?.strip_prefix(&[0])?;
        read_cid(&mut bytes).ok().filter(|_| bytes.is_empty())
    }
}

/// Appends the head of an item.
pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, argument: usize) {
    let major = major << 5;
    let bytes = u64::try_from(argument).expect("lengths fit 64 bits").to_be_bytes();
    match argument {
        0..24 => out.push(major | bytes[7]),
        24..0x100 => out.extend_from_slice(&[major | 0x18, bytes[7]]),
        0x100..0x1_0000 => {
            out.push(major | 0x19);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 0x1a);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 0x1b);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a CID.
pub(crate) fn put_cid(out: &mut Vec<u8>, cid: &Cid) {
    let cid = cid.to_bytes();
    put_head(out, TAG, CID_TAG.into());
    put_head(out, BYTES, cid.len() + 1);
    out.push(0);
    out.extend_from_slice(&cid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back() {
        for argument in [0, 23, 24, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, usize::MAX] {
            let mut bytes = Vec::new();
            put_head(&mut bytes, MAP, argument);
            let mut items = Items::of(&bytes);
            assert_eq!((items.head(), items.is_empty()), (Some((MAP, argument as u64)), true));
        }
    }

    #[test]
    fn only_the_shortest_head_is_read() {
        for bytes in
            [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(Items::of(bytes).head(), None, "{bytes:?}");
        }
        // Of indefinite length, and cut off.
        for bytes in [&[0x5f][..], &[0x19, 1], &[]] {
            assert_eq!(Items::of(bytes).head(), None, "{bytes:?}");
        }
        // 1.0: the bits of a float are no number.
        assert_eq!(Items::of(&[0xf9, 0x00, 0x01]).head(), Some((SIMPLE, 1)));
    }
}
