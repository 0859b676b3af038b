//! Cutting layers into pieces, so that equal files in different layers become equal blocks: [`Cutter`], the rule
//! `aligned` version 1.
//!
//! The pieces are the input, in its order; none is empty or longer than [`PIECE_BYTES`]. Where a cut falls depends on
//! the bytes of the stream only, never on how they were pushed. In a tar stream (ustar, PAX, GNU, v7):
//!
//! * A content of at least [`LARGE_BYTES`] (padded to whole blocks of 512 bytes) starts a piece and ends one. It is cut
//!   inside by its bytes, by the gear rule below, but not in its last [`LARGE_BYTES`].
//! * Everything else - headers and small contents - is grouped. A group ends before a large content, and after an entry
//!   if it has at least [`GROUP_MIN`] bytes and the entry's name is chosen (with a probability of its bytes to
//!   [`GROUP_MEAN`]), or if it has at least [`GROUP_MAX`] bytes.
//! * What follows the first block of zeros, or anything that is no tar header, is cut by its bytes to the end.
//!
//! The gear rule: after [`CONTENT_MIN`] bytes of a piece, it ends behind a byte after which the upper 17 bits of `h` are
//! zero, where `h` starts at 0 behind the minimum and each byte `b` makes it `2 h + GEAR[b]`. A piece is 256 KiB on
//! average. `GEAR` holds the first 256 outputs of splitmix64 with the first 64 bits of the fraction of pi as its seed.
//!
//! The sizes are a compromise: on Debian's `/usr/share/doc` with every thirtieth file changed, groups of 32, 64 and 256
//! KiB (least, mean, most) send 2.4 times as much for the update and save 5 % of the first copy.
//!
//! Changing anything of this changes the CIDs of everything pushed afterwards: it needs a new version.

use bytes::{Bytes, BytesMut};

use super::splitmix::{STEP, mix};

/// Longest piece, in bytes.
pub const PIECE_BYTES: usize = 960 << 10;
/// Contents from this size on have pieces of their own.
pub const LARGE_BYTES: u64 = 32 << 10;
/// A group of small entries has at least this many bytes, unless a large content follows.
pub const GROUP_MIN: usize = 16 << 10;
/// Bytes between two entries that are chosen to end a group, on average.
pub const GROUP_MEAN: u64 = 16 << 10;
/// A group ends with the first entry that makes it this long.
pub const GROUP_MAX: usize = 64 << 10;
/// A piece that is cut by content has at least this many bytes.
pub const CONTENT_MIN: usize = 128 << 10;

const BLOCK: usize = 512;
/// One chance in 128 Ki at each byte.
const GEAR_MASK: u64 = !(u64::MAX >> 17);

const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0x243f_6a88_85a3_08d3_u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(STEP);
        table[i] = mix(state);
        i += 1;
    }
    table
};

/// Cuts a stream.
#[derive(Debug)]
pub struct Cutter {
    piece: BytesMut,
    state: State,
    /// The piece ends here, whatever follows.
    cut: bool,
    gear: u64,
    header: [u8; BLOCK],
    filled: usize,
    entry: Entry,
}

#[derive(Debug)]
enum State {
    /// In a header.
    Header,
    /// In a GNU sparse map that goes on.
    SparseMap,
    /// In a small content or the data of an extension header.
    Small { left: u64, extension: bool },
    /// In a large content or the data of a large extension header.
    Large { left: u64, extension: bool },
    /// Behind the end of the archive, or in something that is none.
    Bytes,
}

/// The entry that is being read.
#[derive(Debug, Default)]
struct Entry {
    /// Its bytes in the group: headers and small contents.
    bytes: u64,
    /// The size that a PAX header announced.
    pax_size: Option<u64>,
    /// The PAX header being read.
    pax: Option<Vec<u8>>,
    /// Length of the content, once its header was read.
    content: u64,
    name: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// A cutter at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            piece: BytesMut::new(),
            state: State::Header,
            cut: false,
            gear: 0,
            header: [0; BLOCK],
            filled: 0,
            entry: Entry::default(),
        }
    }

    /// Takes bytes from the front of `input`; a piece as soon as one ends. Call again until `input` is empty.
    pub fn push(&mut self, input: &mut &[u8]) -> Option<Bytes> {
        loop {
            if (self.cut && !self.piece.is_empty()) || self.piece.len() == PIECE_BYTES {
                return Some(self.take());
            }
            self.cut = false;
            if input.is_empty() {
                return None;
            }
            if self.piece.capacity() == 0 {
                self.piece.reserve(PIECE_BYTES);
            }
            let room = PIECE_BYTES - self.piece.len();
            match self.state {
                State::Header | State::SparseMap => {
                    let taken = self.append(input, room.min(BLOCK - self.filled));
                    self.header[self.filled..self.filled + taken.len()].copy_from_slice(taken);
                    self.filled += taken.len();
                    if self.filled == BLOCK {
                        self.filled = 0;
                        self.entry.bytes += 512;
                        if matches!(self.state, State::Header) { self.read_header() } else { self.read_sparse_map() }
                    }
                }
                State::Small { left, extension } => {
                    let taken = self.append(input, room.min(bounded(left)));
                    if let Some(pax) = &mut self.entry.pax {
                        pax.extend_from_slice(taken);
                    }
                    let length = length_of(taken);
                    self.entry.bytes += length;
                    self.state = State::Small { left: left - length, extension };
                    if left == length {
                        self.end_small(extension);
                    }
                }
                State::Large { left, extension } => {
                    let tail = left.saturating_sub(LARGE_BYTES);
                    // In front of the tail bytes are looked at, inside of it none.
                    let length = if tail > 0 {
                        self.scan(&input[..input.len().min(room).min(bounded(tail))])
                    } else {
                        input.len().min(room).min(bounded(left))
                    };
                    let taken = length_of(self.append(input, length));
                    self.state = State::Large { left: left - taken, extension };
                    if left == taken {
                        self.cut = true;
                        self.state = State::Header;
                        if !extension {
                            self.entry = Entry::default();
                        }
                    }
                }
                State::Bytes => {
                    let length = self.scan(&input[..input.len().min(room)]);
                    self.append(input, length);
                }
            }
        }
    }

    /// The last piece, if bytes are left.
    pub fn finish(mut self) -> Option<Bytes> {
        (!self.piece.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Bytes {
        self.cut = false;
        self.gear = 0;
        let piece = std::mem::take(&mut self.piece);
        // A small piece does not keep the memory of a large one.
        if piece.len() < PIECE_BYTES / 2 { Bytes::copy_from_slice(&piece) } else { piece.freeze() }
    }

    fn append<'a>(&mut self, input: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(length.min(input.len()));
        self.piece.extend_from_slice(taken);
        *input = rest;
        taken
    }

    /// How many of `bytes`, which come next, belong to this piece by the gear rule; sets `cut` where it ends.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let skipped = CONTENT_MIN.saturating_sub(self.piece.len()).min(bytes.len());
        let mut gear = self.gear;
        for (at, byte) in bytes.iter().enumerate().skip(skipped) {
            gear = (gear << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if gear & GEAR_MASK == 0 {
                self.cut = true;
                return at + 1;
            }
        }
        self.gear = gear;
        bytes.len()
    }

    fn read_header(&mut self) {
        let Some(header) = Header::parse(&self.header) else {
            self.state = State::Bytes;
            return;
        };
        let extension = header.is_extension();
        let mut size = header.size;
        if !extension {
            self.entry.name = header.name_hash();
            size = self.entry.pax_size.take().unwrap_or(size);
            if header.has_no_content() {
                size = 0;
            }
        }
        let Some(padded) = size.checked_next_multiple_of(512) else {
            self.state = State::Bytes;
            return;
        };
        self.entry.pax = (header.kind == b'x').then(Vec::new);
        if header.kind == b'S' && self.header[482] == 1 {
            self.entry.content = padded;
            self.state = State::SparseMap;
        } else {
            self.begin_content(padded, extension);
        }
    }

    fn read_sparse_map(&mut self) {
        if self.header[504] != 1 {
            self.begin_content(self.entry.content, false);
        }
    }

    fn begin_content(&mut self, padded: u64, extension: bool) {
        if padded >= LARGE_BYTES {
            // Nobody writes PAX headers of this size; their records are not looked at.
            self.entry.pax = None;
            self.cut = true;
            self.state = State::Large { left: padded, extension };
        } else if padded == 0 {
            self.end_small(extension);
        } else {
            self.state = State::Small { left: padded, extension };
        }
    }

    /// After the data of an extension header, or after an entry.
    fn end_small(&mut self, extension: bool) {
        self.state = State::Header;
        if extension {
            if let Some(pax) = self.entry.pax.take() {
                self.entry.pax_size = pax_size(&pax).or(self.entry.pax_size);
            }
            return;
        }
        let entry = std::mem::take(&mut self.entry);
        let chosen = entry.bytes >= GROUP_MEAN || entry.name < u64::MAX / GROUP_MEAN * entry.bytes;
        self.cut = (self.piece.len() >= GROUP_MIN && chosen) || self.piece.len() >= GROUP_MAX;
    }
}

/// What the cutter wants to know of a tar header.
struct Header<'a> {
    block: &'a [u8; BLOCK],
    kind: u8,
    size: u64,
}

impl<'a> Header<'a> {
    /// `None` for anything but a header with a right checksum: also for the zeros at the end.
    fn parse(block: &'a [u8; BLOCK]) -> Option<Self> {
        let claimed = octal(&block[148..156])?;
        let blank = u64::from(b' ') * 8;
        let others = || block[..148].iter().chain(&block[156..]);
        let unsigned = others().map(|byte| u64::from(*byte)).sum::<u64>() + blank;
        // Old tars summed signed bytes.
        let negative = others().filter(|byte| **byte >= 128).count();
        let signed = unsigned.checked_sub(256 * u64::try_from(negative).ok()?);
        if claimed != unsigned && Some(claimed) != signed {
            return None;
        }
        let size = &block[124..136];
        let size = if size[0] & 0x80 == 0 {
            octal(size)?
        } else {
            let (high, low) = size.split_at(4);
            let low = u64::from_be_bytes(low.try_into().ok()?);
            (high == [0x80, 0, 0, 0]).then_some(low)?
        };
        Some(Self { block, kind: block[156], size })
    }

    /// Whether it describes the header that follows.
    fn is_extension(&self) -> bool {
        matches!(self.kind, b'x' | b'X' | b'g' | b'L' | b'K')
    }

    /// Links, devices, directories and pipes, whose size field means nothing.
    fn has_no_content(&self) -> bool {
        matches!(self.kind, b'1'..=b'6')
    }

    /// A hash of the name, and of what stands before it in POSIX archives. (GNU keeps times there.)
    fn name_hash(&self) -> u64 {
        let prefix = if self.block[257..263] == *b"ustar\0" { &self.block[345..500] } else { &[][..] };
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in [prefix, &self.block[..100]] {
            for byte in part.iter().take_while(|byte| **byte != 0) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            hash = hash.wrapping_mul(0x0100_0000_01b3);
        }
        mix(hash)
    }
}

/// A number field: octal digits between blanks, ended by a blank or NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| !matches!(**byte, b' ' | 0));
    let mut value = None;
    for byte in digits {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        let before: u64 = value.unwrap_or(0);
        value = Some(before.checked_mul(8)? + u64::from(digit));
    }
    // An empty size is zero, an empty checksum is none: the caller's field tells.
    value.or((field.len() == 12).then_some(0))
}

/// The `size` record of a PAX header ("<length> size=<number>\n").
fn pax_size(mut records: &[u8]) -> Option<u64> {
    let mut size = None;
    while let Some(space) = records.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok()?.trim_end().parse().ok();
        }
        records = &records[length..];
    }
    size
}

fn bounded(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("lengths fit 64 bits")
}

#[cfg(test)]
pub(super) mod tests;
