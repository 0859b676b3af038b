//! Two versions of an image, made of this machine's own files: an update replaces some, as a package manager does.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lab::{Lab, pick};
use crate::shell::{Result, output, run};

/// One of this many folders is replaced by an update, and one of this many is new or gone.
const CHANGED: usize = 9;

/// The layers of the two versions, as archives, and one of what the update brings.
pub(crate) struct Versions {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
    /// The files that are new in the second version, or others than in the first.
    pub(crate) changed: PathBuf,
    dir: PathBuf,
}

impl Versions {
    /// Makes them, of about so many megabytes.
    pub(crate) fn make(lab: &Lab, name: &str, megabytes: u64) -> Result<Self> {
        let dir = lab.path(name);
        let (old, new, changed) = (dir.join("1"), dir.join("2"), dir.join("changed"));
        for folder in [&old, &new, &changed] {
            fs::create_dir_all(folder)?;
        }
        let bytes = megabytes << 20;
        // Programs, many small texts, data and code: what images have. Packages change as a whole, and so do folders here.
        for (from, share) in [("/usr/lib", 3), ("/usr/share/doc", 6), ("/usr/share", 6), ("/usr/bin", 3)] {
            for file in &pick(Path::new(from), bytes / share)? {
                let inside = file.strip_prefix("/")?;
                let unit = if from == "/usr/bin" { inside } else { inside.parent().unwrap_or(inside) };
                let unit = digest(unit.as_os_str().as_encoded_bytes());
                match usize::from(u16::from_be_bytes([unit[0], unit[1]])) % (3 * CHANGED) {
                    0 => copy(file, &old, inside)?,
                    1 => {
                        copy(file, &new, inside)?;
                        copy(file, &changed, inside)?;
                    }
                    unit => {
                        copy(file, &old, inside)?;
                        if unit % CHANGED == 2 {
                            let bytes = next_version(&fs::read(file)?);
                            for folder in [&new, &changed] {
                                place(folder, inside)?;
                                fs::write(folder.join(inside), &bytes)?;
                            }
                        } else {
                            copy(file, &new, inside)?;
                        }
                    }
                }
            }
        }
        // So that it can be run, and says which version it is. Behind everything else: the layers are to differ from the beginning.
        for (folder, version) in [(&old, "1"), (&new, "2"), (&changed, "2")] {
            fs::write(folder.join("version"), version)?;
        }
        for folder in [&old, &new] {
            copy(&lab.peer("busybox")?, folder, Path::new("var/busybox"))?;
        }
        let versions = Self {
            old: old.with_extension("tar"),
            new: new.with_extension("tar"),
            changed: changed.with_extension("tar"),
            dir,
        };
        for (folder, archive) in [(&old, &versions.old), (&new, &versions.new), (&changed, &versions.changed)] {
            let mut tar = Command::new("tar");
            tar.args(["--sort=name", "--numeric-owner", "--mtime=@1700000000", "-C"]).arg(folder);
            run(tar.arg("-cf").arg(archive).arg("."))?;
            fs::remove_dir_all(folder)?;
        }
        Ok(versions)
    }

    /// Two that there are already; what changed between them is not known.
    pub(crate) fn of(lab: &Lab, old: &Path, new: &Path) -> Self {
        let dir = lab.path("given-versions");
        Self { old: old.to_owned(), new: new.to_owned(), changed: dir.join("changed.tar"), dir }
    }

    /// What the container of an image says of its version.
    pub(crate) fn run(lab: &Lab, name: &str) -> Result<String> {
        lab.docker_output(&["run", "--rm", "--network", "none", name, "/var/busybox", "cat", "/version"])
    }

    /// Imports a version into the engine; its image ID.
    pub(crate) fn import(lab: &Lab, archive: &Path, name: &str) -> Result<String> {
        output(lab.docker(&["import"])?.arg(archive).arg(name))
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn place(folder: &Path, inside: &Path) -> Result {
    let parent = inside.parent().ok_or("files are in a folder")?;
    Ok(fs::create_dir_all(folder.join(parent))?)
}

fn copy(file: &Path, folder: &Path, inside: &Path) -> Result {
    place(folder, inside)?;
    fs::copy(file, folder.join(inside))?;
    Ok(())
}

/// What a new version of a file has: most of the old one, moved about, with changes everywhere, as in a program that was compiled
/// again. The same file always gets the same.
fn next_version(bytes: &[u8]) -> Vec<u8> {
    let mut state = bytes.len() as u64 | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(200 + usize::try_from(next() % 2000).unwrap_or_default()));
        out.extend_from_slice(now);
        if let Some(last) = out.last_mut() {
            *last = last.wrapping_add(1);
        }
        out.extend_from_slice(&next().to_le_bytes()[..usize::try_from(next() % 8).unwrap_or_default()]);
        rest = later;
    }
    out
}

/// What content-defined chunks of 256 KiB on average, each a `gzip -6` of its own, would send of `new` to who has `old`.
pub(crate) fn chunked(old: &[u8], new: &[u8], mut compress: impl FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
    let mut known: HashSet<Vec<u8>> = chunks(old).into_iter().map(digest).collect();
    let mut sent = 0;
    for chunk in chunks(new) {
        if known.insert(digest(chunk)) {
            sent += compress(chunk)?;
        }
    }
    Ok(sent)
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

/// Least, and most bytes of a chunk; between them one ends at each byte with a chance of one in 192 Ki.
const CHUNK: (usize, usize) = (64 << 10, 1 << 20);

/// A chunker of its own: rolling sums of the last 64 bytes, not the rule of ipcr.
fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let mut hash = 0_u64;
        let end = bytes.iter().take(CHUNK.1).enumerate().skip(CHUNK.0 - 64).find_map(|(at, byte)| {
            let value = (u64::from(*byte) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash = (hash << 1).wrapping_add(value ^ (value >> 31));
            (at >= CHUNK.0 && hash % (192 << 10) == 7).then_some(at + 1)
        });
        let (chunk, rest) = bytes.split_at(end.unwrap_or(bytes.len().min(CHUNK.1)));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}
