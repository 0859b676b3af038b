//! Random access to an archive that is a plain file: [`ArchiveIndex`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::ArchiveError;
use super::header::{BLOCK, BLOCK_LEN, Framer, Member, MemberKind, Step};
use crate::dag::compression::Compression;
use crate::dag::decode::sniff;
use crate::media::place::{Place, on_disk};
use crate::port::image::{ByteStream, ImageError};

/// Where the files of an archive are. Made in one pass over the headers; data is not read.
#[derive(Debug)]
pub struct ArchiveIndex {
    path: PathBuf,
    place: Place,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

impl ArchiveIndex {
    /// Reads the headers; `None` if it is compressed or a pipe, so that there is no random access.
    pub async fn open(path: &Path, place: &Place) -> Result<Option<Self>, ImageError> {
        let (path, place) = (path.to_owned(), place.clone());
        on_disk(move || Self::scan(&path, &place)).await
    }

    fn scan(path: &Path, place: &Place) -> Result<Option<Self>, ImageError> {
        let opening = |error| place.io("opening", error);
        let meta = std::fs::metadata(path).map_err(opening)?;
        if meta.is_dir() {
            return Err(place.malformed("it is a folder, not an archive"));
        }
        // A pipe can be opened once only.
        if !meta.is_file() {
            return Ok(None);
        }
        let file = File::open(path).map_err(opening)?;
        let index = Self { path: path.to_owned(), place: place.clone(), files: HashMap::new(), links: HashMap::new() };
        index.filled(file, meta.len())
    }

    fn filled(mut self, file: impl Read + Seek, length: u64) -> Result<Option<Self>, ImageError> {
        let mut input = BufReader::with_capacity(16 << 10, file);
        let mut framer = Framer::default();
        let place = self.place.clone();
        let refuse = |error: ArchiveError| place.malformed(error);
        let read = |input: &mut BufReader<_>, buffer: &mut [u8]| {
            input.read_exact(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => refuse(ArchiveError::Truncated),
                _ => place.io("reading", error),
            })
        };
        let mut at = 0;
        loop {
            let mut block = [0; BLOCK_LEN];
            if at == 0 {
                let filled = fill(&mut input, &mut block).map_err(|error| place.io("reading", error))?;
                if !matches!(sniff(&block[..filled]), Ok(Compression::None)) {
                    return Ok(None);
                }
                if filled < block.len() {
                    return Err(refuse(ArchiveError::Truncated));
                }
            } else {
                read(&mut input, &mut block)?;
            }
            at += BLOCK;
            match framer.header(&block).map_err(refuse)? {
                Step::Extension(extension) => {
                    let mut data = vec![0; extension.size.next_multiple_of(BLOCK_LEN)];
                    read(&mut input, &mut data)?;
                    at += data.len() as u64;
                    data.truncate(extension.size);
                    framer.extension(extension, &data).map_err(refuse)?;
                }
                Step::Member(Member { name, kind, size }) => {
                    match kind {
                        MemberKind::File => drop(self.files.insert(name, (at, size))),
                        MemberKind::Link(target) => drop(self.links.insert(name, target)),
                        MemberKind::Folder => {}
                    }
                    let next = size.checked_next_multiple_of(BLOCK).and_then(|padded| at.checked_add(padded));
                    let next = next.filter(|next| *next < length).ok_or_else(|| refuse(ArchiveError::Truncated))?;
                    let step = i64::try_from(next - at).map_err(|_| refuse(ArchiveError::Truncated))?;
                    input.seek_relative(step).map_err(|error| place.io("reading", error))?;
                    at = next;
                }
                Step::End => break,
            }
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match input.read(&mut buffer).map_err(|error| place.io("reading", error))? {
                0 => return Ok(Some(self)),
                read if buffer[..read].iter().any(|byte| *byte != 0) => return Err(refuse(ArchiveError::Trailing)),
                _ => {}
            }
        }
    }

    /// What is indexed.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The name under which a file is kept and its size in bytes, if it is there. Links are followed one hop.
    pub fn find<'a>(&'a self, name: &'a str) -> Option<(&'a str, u64)> {
        let name = if self.files.contains_key(name) { name } else { self.links.get(name)? };
        self.files.get(name).map(|(_, size)| (name, *size))
    }

    /// Opens a file of the archive; `None` if it is not there.
    pub async fn open_member(&self, name: &str) -> Result<Option<ByteStream>, ImageError> {
        let Some((name, _)) = self.find(name) else { return Ok(None) };
        let Some((at, size)) = self.files.get(name).copied() else { return Ok(None) };
        let opening = |error| self.place.io("opening", error);
        let mut file = tokio::fs::File::open(&self.path).await.map_err(opening)?;
        file.seek(SeekFrom::Start(at)).await.map_err(opening)?;
        Ok(Some(Box::pin(file.take(size))))
    }
}

/// The index of an archive in memory: each file's name and where its data is, and each link's target. Compiled for what is fuzzed.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn tables(
    bytes: &[u8],
    place: &Place,
) -> Result<Option<(HashMap<String, (u64, u64)>, HashMap<String, String>)>, ImageError> {
    let index =
        ArchiveIndex { path: PathBuf::new(), place: place.clone(), files: HashMap::new(), links: HashMap::new() };
    let index = index.filled(io::Cursor::new(bytes), bytes.len() as u64)?;
    Ok(index.map(|index| (index.files, index.links)))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_compressed_file_has_no_index_and_a_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let place = Place::new("a");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0]).unwrap();
        assert!(ArchiveIndex::open(&path, &place).await.unwrap().is_none());
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(ArchiveIndex::open(&path, &place).await, Err(ImageError::Malformed { .. })));
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(ArchiveIndex::open(&path, &place).await, Err(ImageError::Malformed { .. })));
    }
}
