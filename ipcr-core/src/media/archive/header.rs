//! The framing of outer archives, without I/O: [`Framer`] turns 512-byte headers into [`Member`]s.
//!
//! Headers are parsed by the `tar` crate; what surrounds them is decided here, because an image archive comes from
//! strangers and two readers must never see different things in it. So whatever readers are known to disagree about is an
//! error: a size in a PAX record that contradicts the header, records that move data or names in ways that not everybody
//! knows, two members of one name, names that leave the archive, unusual kinds of members, bytes after the end.

use std::collections::HashSet;

use super::ArchiveError;
use crate::limits;

/// Bytes of a header, and what data is padded to.
pub(crate) const BLOCK: u64 = 512;
/// The same, of memory.
pub(crate) const BLOCK_LEN: usize = 512;
/// Largest extended header (PAX records, GNU long names), in bytes.
const EXTENSION_BYTES: usize = 64 << 10;
/// Longest name of a member, in bytes.
const NAME_BYTES: usize = 1024;
/// The first size that the header of a ustar archive cannot express.
const USTAR_LIMIT: u64 = 1 << 33;

/// One file, folder or link of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path: relative, without `.` and `..`, components joined by `/`; empty for the archive's root folder.
    pub name: String,
    /// What it is.
    pub kind: MemberKind,
    /// Bytes of data that follow; 0 for what is no file.
    pub size: u64,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A hard or symbolic link, with the path inside the archive that it stands for.
    Link(String),
}

/// What a header announces.
#[derive(Debug)]
pub(crate) enum Step {
    /// An extended header of so many bytes, to be handed to [`Framer::extension`].
    Extension(Extension),
    /// A member, followed by its data.
    Member(Member),
    /// The end of the archive; only zeros may follow.
    End,
}

/// An extended header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension {
    kind: ExtensionKind,
    /// Its size in bytes, bounded.
    pub(crate) size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionKind {
    LongName,
    LongLink,
    Local,
    Global,
}

/// Reads headers one after the other.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    headers: usize,
    seen: HashSet<String>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    local: bool,
}

impl Framer {
    /// Takes the next header.
    pub(crate) fn header(&mut self, block: &[u8; BLOCK_LEN]) -> Result<Step, ArchiveError> {
        if block.iter().all(|byte| *byte == 0) {
            return if self.name.is_some() || self.link.is_some() || self.local {
                Err(ArchiveError::Framing("an extended header is followed by no member"))
            } else {
                Ok(Step::End)
            };
        }
        self.headers += 1;
        if self.headers > limits::ARCHIVE_ENTRIES {
            return Err(ArchiveError::TooManyEntries);
        }
        let header = tar::Header::from_byte_slice(block);
        if header.cksum().ok() != Some(checksum(block)) {
            return Err(ArchiveError::NoArchive);
        }
        let size = header.entry_size().map_err(|_| ArchiveError::Framing("a header has no readable size"))?;
        let kind = header.entry_type();
        let extension = match kind {
            tar::EntryType::GNULongName => Some(ExtensionKind::LongName),
            tar::EntryType::GNULongLink => Some(ExtensionKind::LongLink),
            tar::EntryType::XHeader => Some(ExtensionKind::Local),
            tar::EntryType::XGlobalHeader => Some(ExtensionKind::Global),
            _ => None,
        };
        if let Some(kind) = extension {
            let size = usize::try_from(size).ok().filter(|size| *size <= EXTENSION_BYTES);
            let size = size.ok_or(ArchiveError::Framing("an extended header is too large"))?;
            return Ok(Step::Extension(Extension { kind, size }));
        }
        self.member(header, kind, size).map(Step::Member)
    }

    fn member(&mut self, header: &tar::Header, kind: tar::EntryType, size: u64) -> Result<Member, ArchiveError> {
        self.local = false;
        let raw = self.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self.link.take().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let size = match self.size.take() {
            None => size,
            Some(pax) if pax == size => size,
            // Sizes that ustar cannot express leave the field empty or full.
            Some(pax) if pax >= USTAR_LIMIT && (size == 0 || size == USTAR_LIMIT - 1) => pax,
            Some(_) => return Err(ArchiveError::Framing("a header and its extension disagree about a size")),
        };
        let text = text_of(&raw)?;
        let name = inside("", text).ok_or_else(|| ArchiveError::Leaves { name: text.to_owned() })?;
        let named = |kind| {
            if name.is_empty() { Err(ArchiveError::Framing("a member has no name")) } else { Ok(kind) }
        };
        let target = |base: &str| {
            let link = text_of(link.as_deref().unwrap_or_default())?;
            inside(base, link)
                .filter(|target| !target.is_empty() && !link.is_empty())
                .ok_or_else(|| ArchiveError::Leaves { name: format!("{name} -> {link}") })
        };
        let kind = match kind {
            // A file with a final slash is a folder to some readers.
            tar::EntryType::Regular if !text.ends_with('/') => named(MemberKind::File)?,
            tar::EntryType::Directory => MemberKind::Folder,
            tar::EntryType::Link => named(MemberKind::Link(target("")?))?,
            tar::EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                named(MemberKind::Link(target(folder)?))?
            }
            _ => return Err(ArchiveError::Kind { name }),
        };
        if kind != MemberKind::File && size != 0 {
            return Err(ArchiveError::Framing("a folder or link has data"));
        }
        if kind != MemberKind::Folder && !self.seen.insert(name.clone()) {
            return Err(ArchiveError::Twice { name });
        }
        Ok(Member { name, kind, size })
    }

    /// Takes the data of an extended header.
    pub(crate) fn extension(&mut self, extension: Extension, data: &[u8]) -> Result<(), ArchiveError> {
        let until_nul = || data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match extension.kind {
            ExtensionKind::LongName => once(&mut self.name, until_nul()),
            ExtensionKind::LongLink => once(&mut self.link, until_nul()),
            ExtensionKind::Local | ExtensionKind::Global => {
                let global = extension.kind == ExtensionKind::Global;
                if !global && std::mem::replace(&mut self.local, true) {
                    return Err(ArchiveError::Framing("two extended headers describe one member"));
                }
                for record in records(data) {
                    let (key, value) = record?;
                    self.record(key, value, global)?;
                }
                Ok(())
            }
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<(), ArchiveError> {
        // What these say has no bearing on which bytes belong to which name.
        const HARMLESS: [&[u8]; 11] = [
            b"mtime",
            b"atime",
            b"ctime",
            b"uid",
            b"gid",
            b"uname",
            b"gname",
            b"comment",
            b"charset",
            b"hdrcharset",
            b"LIBARCHIVE.creationtime",
        ];
        const HARMLESS_PREFIXES: [&[u8]; 7] = [
            b"SCHILY.xattr.",
            b"SCHILY.acl.",
            b"SCHILY.fflags",
            b"SCHILY.dev",
            b"SCHILY.ino",
            b"SCHILY.nlink",
            b"LIBARCHIVE.xattr.",
        ];
        match key {
            b"path" if !global => once(&mut self.name, value.to_vec()),
            b"linkpath" if !global => once(&mut self.link, value.to_vec()),
            b"size" if !global => {
                let size = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let size = size.and_then(|text| text.parse().ok());
                once(&mut self.size, size.ok_or(ArchiveError::Framing("an extension has no readable size"))?)
            }
            _ if HARMLESS.contains(&key) || HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => Ok(()),
            _ => Err(ArchiveError::Record { key: String::from_utf8_lossy(key).chars().take(80).collect() }),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ArchiveError::Framing("two extended headers describe one member")),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, ArchiveError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ArchiveError::Framing("a name is not UTF-8"))?;
    if text.len() > NAME_BYTES || text.contains('\0') {
        return Err(ArchiveError::Framing("a name is too long or has a zero byte"));
    }
    Ok(text)
}

/// The sum that a header must carry: all bytes, its own field counted as blanks.
pub(crate) fn checksum(block: &[u8; BLOCK_LEN]) -> u32 {
    let outside = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>();
    outside + 8 * u32::from(b' ')
}

/// PAX records: `<length> <key>=<value>\n`, where a value may hold line ends.
fn records(mut data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), ArchiveError>> {
    const BAD: ArchiveError = ArchiveError::Framing("an extended header cannot be parsed");
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let record = (|| {
            let blank = data.iter().take(8).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&data[..blank]).ok()?.parse().ok()?;
            let (record, rest) = data.split_at_checked(length)?;
            let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some(((&record[..equals], &record[equals + 1..]), rest))
        })();
        let (record, rest) = record.map_or((Err(BAD), &[][..]), |(record, rest)| (Ok(record), rest));
        data = rest;
        Some(record)
    })
}

/// The path that `path` means when it is looked up in `folder`, both inside an archive; `None` if it leaves the archive.
pub(crate) fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if folder.is_empty() => return None,
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
