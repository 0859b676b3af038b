//! What goes wrong, and what it leaves behind: nothing.
//!
//! Every case is the same: something is made wrong, a command ends with the right exit code, a reason and a hint, [`Calm`]
//! sees that everything is as it was before, and the same command without the fault succeeds.

pub(super) mod archives;
pub(super) mod damage;
pub(super) mod disk;
pub(super) mod registries;
pub(super) mod repair;
pub(super) mod signals;
pub(super) mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::lab::{Home, disk_usage};
use super::site::require;
use crate::shell::Result;

/// How much larger a home may be after something has gone wrong and `gc`, in bytes.
const GROWTH: u64 = 8 << 20;
/// What the first use of the network makes in a home.
const MADE_LATER: [&str; 3] = ["node.json", "node.key", "profile.json"];

/// A home and what is around it, before something goes wrong.
pub(crate) struct Calm<'a> {
    home: Home<'a>,
    /// Folders in which nothing may appear or go.
    beside: Vec<PathBuf>,
    files: Vec<BTreeSet<PathBuf>>,
    /// What `ls` says, and its exit code.
    listing: (Option<i32>, String),
    /// The engine's images with their names.
    engine: Option<String>,
    bytes: u64,
}

impl<'a> Calm<'a> {
    /// Looks at a home, the engine, and the folders where sources and sinks are.
    pub(crate) fn before(home: &Home<'a>, beside: &[&Path]) -> Result<Self> {
        let beside: Vec<PathBuf> = beside.iter().map(|path| (*path).to_owned()).collect();
        home.json(&["gc"])?;
        let files = beside.iter().map(|path| files(path)).collect::<Result<_>>()?;
        let mut calm =
            Self { home: home.clone(), beside, files, listing: (None, String::new()), engine: None, bytes: 0 };
        calm.listing = calm.list()?;
        calm.engine = calm.engine()?;
        calm.bytes = disk_usage(&home.dir)?;
        Ok(calm)
    }

    /// Sees that everything is as before.
    pub(crate) fn after(&self, what: &str) -> Result {
        self.unchanged().map_err(|error| format!("after {what}: {error}").into())
    }

    fn unchanged(&self) -> Result {
        let home = &self.home;
        let checked = home.json(&["check", "--read-data"])?;
        require(checked["ok"] == true, || format!("check says {checked}"))?;
        let listing = self.list()?;
        require(listing == self.listing, || format!("`ls` says {listing:?} instead of {:?}", self.listing))?;
        let engine = self.engine()?;
        require(engine == self.engine, || format!("the engine has {engine:?} instead of {:?}", self.engine))?;
        home.json(&["gc"])?;
        let bytes = disk_usage(&home.dir)?;
        require(bytes <= self.bytes + GROWTH, || {
            format!("the home has {bytes} bytes after gc, and had {}", self.bytes)
        })?;
        for (folder, before) in self.beside.iter().zip(&self.files) {
            let now = files(folder)?;
            require(now == *before, || format!("{} holds {now:?} instead of {before:?}", folder.display()))?;
        }
        let temporary = files(&home.lab.temporary())?;
        require(temporary.is_empty(), || format!("temporary files are left: {temporary:?}"))?;
        let strange: Vec<PathBuf> = files(&home.dir)?.into_iter().filter(|path| !belongs(path)).collect();
        require(strange.is_empty(), || format!("the home holds {strange:?}"))
    }

    fn list(&self) -> Result<(Option<i32>, String)> {
        let output = self.home.output(&["-o", "json", "ls"])?;
        Ok((output.status.code(), String::from_utf8(output.stdout)?))
    }

    fn engine(&self) -> Result<Option<String>> {
        if !self.home.lab.has_engine() {
            return Ok(None);
        }
        let format = "{{.ID}} {{.Repository}}:{{.Tag}}";
        let images = self.home.lab.docker_output(&["images", "-a", "--no-trunc", "--format", format])?;
        let mut images: Vec<&str> = images.lines().collect();
        images.sort_unstable();
        Ok(Some(images.join("\n")))
    }
}

/// Whether a file has its place in a home.
fn belongs(path: &Path) -> bool {
    const HOME: [&str; 8] =
        ["encryption.key", "index.redb", "lock", "registry.key", "tables.redb", "version", "config.toml", "reserve"];
    let name = path.to_string_lossy();
    let pack = name.strip_prefix("blocks/").and_then(|name| name.strip_suffix(".pack"));
    HOME.contains(&&*name)
        || MADE_LATER.contains(&&*name)
        || pack.is_some_and(|number| number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// All files below a folder, by their paths in it.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        if !at.exists() {
            continue;
        }
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(folder)?.to_owned());
            }
        }
    }
    Ok(found)
}

/// The only image in a listing, or an error.
fn is_listed(home: &Home<'_>, name: &str) -> Result<bool> {
    let listed = home.json(&["ls"])?;
    Ok(listed["images"].as_array().is_some_and(|images| images.iter().any(|image| image["name"] == name)))
}
