//! Writing records at the end of the packs: [`Appender`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, Key, Place};

/// Records below this size are gathered before they are written, in bytes.
const GATHER: usize = 64 << 10;
/// Bytes after which what was appended is sent to the disk, without waiting for a commit.
const WRITE_AHEAD: u64 = 32 << 20;

/// The pack that grows, and those that have grown since the last flush.
#[derive(Debug)]
pub(super) struct Appender {
    folder: PathBuf,
    /// A pack that reaches this size is followed by a new one.
    pack_bytes: u64,
    current: Option<Growing>,
    next: u32,
    /// Packs with records that are not indexed yet, and where they end.
    dirty: BTreeMap<u32, (Arc<File>, u64)>,
    /// Whether the directory has entries that may not be durable.
    new_files: bool,
    /// Bytes appended since the disk was last told to write.
    unwritten: u64,
}

#[derive(Debug)]
struct Growing {
    pack: u32,
    file: Arc<File>,
    end: u64,
}

/// What has to be made durable before the index may name it.
#[derive(Debug)]
pub(super) struct Dirty {
    pub(super) packs: BTreeMap<u32, (Arc<File>, u64)>,
    pub(super) new_files: bool,
}

pub(super) fn pack_path(folder: &Path, pack: u32) -> PathBuf {
    folder.join(format!("{pack:08}.pack"))
}

/// The number of a pack file, if the name is one.
pub(super) fn pack_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".pack")?;
    (digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

impl Appender {
    pub(super) fn new(folder: &Path, pack_bytes: u64, next: u32) -> Self {
        let folder = folder.to_owned();
        Self { folder, pack_bytes, current: None, next, dirty: BTreeMap::new(), new_files: false, unwritten: 0 }
    }

    /// Goes on with a pack that has room.
    pub(super) fn resume(&mut self, pack: u32, file: Arc<File>, end: u64) {
        if end < self.pack_bytes {
            self.current = Some(Growing { pack, file, end });
        }
    }

    /// Notes that a pack has records that are not indexed.
    pub(super) fn note_dirty(&mut self, pack: u32, file: Arc<File>, end: u64) {
        self.dirty.insert(pack, (file, end));
        self.new_files = true;
    }

    /// The pack that grows.
    pub(super) fn current(&self) -> Option<u32> {
        self.current.as_ref().map(|growing| growing.pack)
    }

    /// Lets the next record begin a new pack.
    pub(super) fn roll(&mut self) {
        self.current = None;
    }

    /// Whether so much was appended that the disk should begin to write.
    pub(super) fn is_ahead(&self) -> bool {
        self.unwritten >= WRITE_AHEAD
    }

    /// The packs for the disk to write now.
    pub(super) fn write_ahead(&mut self) -> Dirty {
        self.unwritten = 0;
        Dirty { packs: self.dirty.clone(), new_files: false }
    }

    pub(super) fn dirty(&self) -> Dirty {
        Dirty { packs: self.dirty.clone(), new_files: self.new_files }
    }

    /// Forgets what was flushed, unless it has grown further.
    pub(super) fn flushed(&mut self, flushed: &Dirty) {
        for (pack, (_, end)) in &flushed.packs {
            if self.dirty.get(pack).is_some_and(|(_, now)| now == end) {
                self.dirty.remove(pack);
            }
        }
        self.new_files &= !self.dirty.is_empty();
    }

    /// Forgets packs that could not be made durable: nothing is appended to them any more.
    pub(super) fn give_up(&mut self, packs: &[u32]) {
        for pack in packs {
            self.dirty.remove(pack);
        }
        if self.current().is_some_and(|pack| packs.contains(&pack)) {
            self.roll();
        }
    }

    /// Appends records, as many as the current pack takes; answers where they are. Less than all only when a pack is
    /// full; after an error nothing was appended.
    pub(super) fn append(&mut self, blocks: &[(Key, Bytes)]) -> io::Result<Vec<(Key, Place)>> {
        let pack_bytes = self.pack_bytes;
        let mut growing = match self.current.take() {
            Some(growing) => growing,
            None => self.create()?,
        };
        let mut places = Vec::with_capacity(blocks.len());
        let mut at = growing.end;
        let outcome = write(&growing.file, growing.pack, &mut at, pack_bytes, blocks, &mut places);
        if let Err(error) = outcome {
            // Half a record must not stay in the way of the next one. If even that fails, nobody appends here again,
            // and the next open cuts the tail.
            if growing.file.set_len(growing.end).is_ok() {
                self.current = Some(growing);
            }
            return Err(error);
        }
        self.unwritten += at - growing.end;
        growing.end = at;
        self.dirty.insert(growing.pack, (growing.file.clone(), at));
        if at < pack_bytes {
            self.current = Some(growing);
        }
        Ok(places)
    }

    fn create(&mut self) -> io::Result<Growing> {
        let pack = self.next;
        let path = pack_path(&self.folder, pack);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if let Err(error) = file.write_all_at(&record::file_header(), 0) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.next += 1;
        self.new_files = true;
        Ok(Growing { pack, file: Arc::new(file), end: record::FILE_HEADER })
    }
}

fn write(
    file: &File,
    pack: u32,
    at: &mut u64,
    pack_bytes: u64,
    blocks: &[(Key, Bytes)],
    places: &mut Vec<(Key, Place)>,
) -> io::Result<()> {
    let mut gathered = Vec::with_capacity(2 * GATHER);
    // Where the gathered bytes go.
    let mut begin = *at;
    for (key, data) in blocks {
        if *at >= pack_bytes {
            break;
        }
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        record::write_header(key, len, &mut gathered);
        let offset = begin + gathered.len() as u64;
        if data.len() < GATHER {
            gathered.extend_from_slice(data);
        }
        if gathered.len() >= GATHER || data.len() >= GATHER {
            file.write_all_at(&gathered, begin)?;
            gathered.clear();
            begin = offset + data.len() as u64;
            if data.len() >= GATHER {
                file.write_all_at(data, offset)?;
            }
        }
        places.push((*key, Place { pack, offset, len, sum: record::sum(data) }));
        *at = offset + data.len() as u64;
    }
    file.write_all_at(&gathered, begin)
}
