//! How blocks lie in a pack file.
//!
//! ```text
//! file    "ipcrpack" version:u32 reserved:u32 record*
//! record  "ipcrblk1" length:u32 hash-length:u8 multihash check:4 data
//! ```
//!
//! Numbers are little-endian; `check` is the beginning of the SHA-256 of the header before it. A record can be told from
//! anything else without an index: its header by `check`, its data by the multihash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use rustix::buffer::spare_capacity;
use sha2::{Digest as _, Sha256};

use crate::dag::block::{Block, RAW};
use crate::limits;

/// What blocks are kept by.
pub(super) type Key = Multihash<64>;

/// Where a block's data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u32,
    /// Of the data, behind the header.
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Of the data when it was verified, see [`sum`]; [`UNKNOWN`] where nobody kept it.
    pub(super) sum: u32,
}

/// No sum.
pub(super) const UNKNOWN: u32 = 0;

/// Bytes before the first record.
pub(super) const FILE_HEADER: u64 = 16;
const FILE_HEADER_BYTES: usize = 16;
const FILE_MAGIC: &[u8; 8] = b"ipcrpack";
const FILE_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"ipcrblk1";
/// Header bytes before the multihash.
const FIXED: usize = 13;
const CHECK: usize = 4;
/// The longest header: a multihash of 64 bytes, its code and its length.
const LONGEST: usize = FIXED + 64 + 20 + CHECK;

/// The beginning of a new pack file.
pub(super) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    header
}

/// Bytes of a record that are not data.
pub(super) fn overhead(key: &Key) -> u64 {
    (FIXED + key.encoded_len() + CHECK) as u64
}

/// Appends the header of a record.
pub(super) fn write_header(key: &Key, len: u32, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&len.to_le_bytes());
    let hash = key.to_bytes();
    out.push(u8::try_from(hash.len()).expect("a multihash of at most 64 bytes has a short encoding"));
    out.extend_from_slice(&hash);
    let check = Sha256::digest(&out[begin..]);
    out.extend_from_slice(&check[..CHECK]);
}

/// The key and data length that a header names, and the header's own length.
fn read_header(bytes: &[u8]) -> Option<(Key, u32, u64)> {
    let fixed = bytes.get(..FIXED)?;
    if &fixed[..8] != MAGIC {
        return None;
    }
    let len = u32::from_le_bytes(fixed[8..12].try_into().expect("four bytes"));
    let end = FIXED + usize::from(fixed[12]);
    let hash = bytes.get(FIXED..end)?;
    let check = bytes.get(end..end + CHECK)?;
    if Sha256::digest(&bytes[..end])[..CHECK] != *check || len as usize > limits::BLOCK_BYTES {
        return None;
    }
    let key = Key::from_bytes(hash).ok()?;
    Some((key, len, (end + CHECK) as u64))
}

/// The block of `key` with these bytes, if they are its bytes.
pub(super) fn verified(key: &Key, data: Bytes) -> Option<Bytes> {
    Block::verify(Cid::new_v1(RAW, *key), data).ok().map(|block| block.into_parts().1)
}

/// The sum of a block's data: its CRC-32 (IEEE 802.3). It tells what the disk has damaged at a tenth of the cost of the hash.
pub(super) fn sum(data: &[u8]) -> u32 {
    libdeflater::crc32(data)
}

/// The data that was read at the place of `key`, if it is what was written there.
pub(super) fn intact(key: &Key, place: Place, data: Bytes) -> Option<Bytes> {
    if place.sum != UNKNOWN && sum(&data) == place.sum { Some(data) } else { verified(key, data) }
}

/// Reads the data at a place; `None` when the file ends before it does.
pub(super) fn read(file: &File, place: Place) -> io::Result<Option<Bytes>> {
    if place.len as usize > limits::BLOCK_BYTES {
        return Ok(None);
    }
    // Into memory that was not zeroed before: zeros cost more than the reading does.
    let len = place.len as usize;
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        let at = place.offset + data.len() as u64;
        if rustix::io::retry_on_intr(|| rustix::io::pread(file, spare_capacity(&mut data), at))? == 0 {
            return Ok(None);
        }
    }
    data.truncate(len);
    Ok(Some(data.into()))
}

/// What the unindexed end of a pack holds.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Complete records whose data was verified.
    pub(super) records: Vec<(Key, Place)>,
    /// Where the last complete record ends; what follows is torn.
    pub(super) end: u64,
}

/// Reads the records from `from` to the end of a pack. What is no record - a hole that a sweep has left, a header that is damaged -
/// is passed over: whoever lost the index must not lose what lies behind, too.
pub(super) fn scan(file: &File, pack: u32, from: u64) -> io::Result<Tail> {
    let size = file.metadata()?.len();
    let mut tail = Tail { records: Vec::new(), end: from };
    let mut at = from;
    let mut header = [0; LONGEST];
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(LONGEST).min(LONGEST);
        file.read_exact_at(&mut header[..wanted], at)?;
        let place = read_header(&header[..wanted]).map(|(key, len, header_len)| {
            let offset = at + header_len;
            (key, Place { pack, offset, len, sum: UNKNOWN })
        });
        let data = match place {
            Some((_, place)) => read(file, place)?,
            None => None,
        };
        let (Some((key, mut place)), Some(data)) = (place, data) else {
            match find_magic(file, at + 1, size)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        // After a power loss a header may have reached the disk and its data not: what follows may still be whole.
        if let Some(data) = verified(&key, data) {
            place.sum = sum(&data);
            tail.records.push((key, place));
        }
        at = place.offset + u64::from(place.len);
        tail.end = at;
    }
    Ok(tail)
}

/// Where the next record may begin.
fn find_magic(file: &File, from: u64, size: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; 1 << 20];
    let mut at = from;
    while at + (MAGIC.len() as u64) <= size {
        let wanted = usize::try_from(size - at).unwrap_or(chunk.len()).min(chunk.len());
        file.read_exact_at(&mut chunk[..wanted], at)?;
        if let Some(found) = chunk[..wanted].windows(MAGIC.len()).position(|window| window == MAGIC) {
            return Ok(Some(at + found as u64));
        }
        // One that lies across two chunks begins in the next.
        at += (wanted - (MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(data: &'static [u8]) -> Key {
        *Block::raw(Bytes::from_static(data)).cid().hash()
    }

    #[test]
    fn headers_are_recognised_whole_or_not_at_all() {
        let mut header = Vec::new();
        write_header(&key(b"x"), 77, &mut header);
        assert_eq!(header.len() as u64, overhead(&key(b"x")));
        assert_eq!(read_header(&header), Some((key(b"x"), 77, header.len() as u64)));
        for cut in 0..header.len() {
            assert_eq!(read_header(&header[..cut]), None);
        }
        for at in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(read_header(&flipped), None, "bit {at}");
        }
        let mut huge = Vec::new();
        write_header(&key(b"x"), u32::MAX, &mut huge);
        assert_eq!(read_header(&huge), None);
    }

    #[test]
    fn torn_tails_end_where_the_last_record_ends() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = file_header().to_vec();
        let mut ends = vec![bytes.len()];
        for data in [&b"one"[..], b"", b"three"] {
            write_header(&key(data), u32::try_from(data.len()).unwrap(), &mut bytes);
            bytes.extend_from_slice(data);
            ends.push(bytes.len());
        }
        for cut in ends[0]..=bytes.len() {
            file.set_len(0).unwrap();
            file.write_all_at(&bytes[..cut], 0).unwrap();
            let tail = scan(&file, 1, FILE_HEADER).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(tail.records.len(), whole, "cut at {cut}");
            assert_eq!(tail.end, ends[whole] as u64);
        }
        // Data that never arrived between two records that did.
        let hurt = ends[1] - 1;
        file.write_all_at(&[bytes[hurt] ^ 1], hurt as u64).unwrap();
        let tail = scan(&file, 1, FILE_HEADER).unwrap();
        assert_eq!(tail.records.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(b""), key(b"three")]);
        assert_eq!(tail.end, bytes.len() as u64);
        // Holes, and headers that are damaged.
        for begin in [ends[0], ends[1]] {
            for at in begin..ends[2] {
                let mut hurt = bytes.clone();
                hurt[begin..=at].fill(0);
                file.write_all_at(&hurt, 0).unwrap();
                let tail = scan(&file, 1, FILE_HEADER).unwrap();
                assert_eq!(tail.records.last().map(|(key, _)| *key), Some(key(b"three")), "{begin} to {at}");
                assert_eq!(tail.end, bytes.len() as u64);
            }
        }
        let mut across = vec![0; (1 << 20) - 3];
        across.extend_from_slice(&bytes[ends[0]..]);
        file.write_all_at(&across, FILE_HEADER).unwrap();
        assert_eq!(scan(&file, 1, FILE_HEADER).unwrap().records.len(), 3, "across two chunks");
    }
}
