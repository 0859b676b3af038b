//! Files that are seen when they are complete, and not before: [`Temporary`].

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that has no name yet and is gone unless it is persisted, whatever ends the process; on file systems that cannot do
/// that it has a temporary name until then.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    folder: PathBuf,
    /// Its temporary name, if it has one.
    path: Option<PathBuf>,
}

impl Temporary {
    /// A new file in `folder`.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        if let Some(file) = nameless(folder) {
            return Ok(Self { file, folder: folder.to_owned(), path: None });
        }
        let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let (file, path) = with_name(folder, create)?;
        Ok(Self { file, folder: folder.to_owned(), path: Some(path) })
    }

    /// Makes it durable under `target`, in place of what is there.
    pub(crate) fn persist(&mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        self.rename(target)?;
        sync_folder(target.parent().unwrap_or(Path::new("")))
    }

    /// Puts it under `target`, in place of what is there; that lasts when it and its folder are synced.
    pub(crate) fn rename(&mut self, target: &Path) -> io::Result<()> {
        if self.path.is_none() {
            // A name can be given, but none can be taken over: that takes a second step.
            self.path = Some(with_name(&self.folder, |path| name(&self.file, path))?.1);
        }
        if let Some(path) = &self.path {
            std::fs::rename(path, target)?;
        }
        self.path = None;
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a file's name is that of a [`Temporary`].
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(".ipcr-"))
}

/// Does something with a name that is free.
fn with_name<T>(folder: &Path, mut make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".ipcr-{}-{number}.tmp", std::process::id()));
        match make(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((made?, path)),
        }
    }
}

/// Where the system shows open files, by which a nameless one gets a name.
#[cfg(target_os = "linux")]
const OPEN_FILES: &str = "/proc/self/fd";

/// A file without a name, where there is such a thing.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    if !Path::new(OPEN_FILES).exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?;
    Some(file.into())
}

#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD};
    let open = format!("{OPEN_FILES}/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn name(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn nothing_is_seen_before_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        let mut begun = Temporary::create(folder.path()).unwrap();
        begun.file.write_all(b"half").unwrap();
        // No name at all where the file system can do that, which those of the tests' machines can.
        assert!(entries(folder.path()).iter().all(|name| name.starts_with(".ipcr-")));
        drop(begun);
        assert!(entries(folder.path()).is_empty());
        for bytes in [b"first", b"other"] {
            let mut file = Temporary::create(folder.path()).unwrap();
            file.file.write_all(bytes).unwrap();
            file.persist(&target).unwrap();
            drop(file);
            assert_eq!(entries(folder.path()), ["target"]);
            assert_eq!(std::fs::read(&target).unwrap(), bytes);
        }
        let mut nowhere = Temporary::create(folder.path()).unwrap();
        nowhere.persist(&folder.path().join("none/target")).unwrap_err();
        drop(nowhere);
        assert_eq!(entries(folder.path()), ["target"]);
    }
}
