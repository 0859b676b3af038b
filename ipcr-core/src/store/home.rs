//! A home directory: [`Home`].
//!
//! ```text
//! <home>/version        format of the home, a decimal number
//! <home>/lock           held with flock(2) by the process that works on the home; names it
//! <home>/index.redb     where each block is
//! <home>/tables.redb    registry, names, pins, settings
//! <home>/blocks/        the pack files
//! ```
//!
//! Only the holder of the lock opens the databases; those who only look share it. The lock dies with its process, whatever ends it.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::database::Access;
use super::packs::DiskStore;
use super::table::DiskTable;
use crate::kind::ErrorKind;
use crate::port::blocks::StoreError;
use crate::port::table::TableError;

/// The newest home format that this version knows.
pub const FORMAT: u32 = 1;
/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes of a lock or version file that are read.
const SMALL_FILE: u64 = 4096;
/// The file that keeps room, and its bytes: more than a collection writes before it gives the first space back.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: u64 = 1 << 20;

/// A home directory, locked by this process for as long as this value, or a store or table opened through it, lives.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    lock: Arc<Lock>,
    access: Access,
}

/// The locked file.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever locks the file next and is none of us would be called by our name.
        let _ = self.0.set_len(0);
    }
}

/// Who holds a home.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// The process id; 0 when it is not known.
    pub pid: u32,
    /// What it was started as.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("another process"),
            pid => write!(f, "process {pid} ({})", self.command),
        }
    }
}

impl Holder {
    /// What the lock file says, if it speaks of a process that lives: a stranger who locks the file does not write into it.
    fn parse(text: &str) -> Self {
        let holder: Self = serde_json::from_str(text).unwrap_or_default();
        let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
        let lives = pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH));
        if lives { holder } else { Self::default() }
    }
}

/// Why a home cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Another process works on it.
    #[error("{place} is in use by {holder}")]
    Locked {
        /// The home.
        place: String,
        /// Who.
        holder: Holder,
    },
    /// It was written by a newer version.
    #[error("{place} has format {found}; this version reads up to {FORMAT}")]
    NewerFormat {
        /// The home.
        place: String,
        /// Its format.
        found: u32,
    },
    /// Its version file does not say which format it has.
    #[error("{place} is not a version file")]
    NoFormat {
        /// The file.
        place: String,
    },
    /// There is something else where the home should be.
    #[error("{place} is no folder")]
    NoFolder {
        /// The home.
        place: String,
    },
    /// The folder holds other things.
    #[error("{place} holds other things and is no home")]
    NoHome {
        /// The folder.
        place: String,
    },
    /// A file operation failed.
    #[error("{doing} {place} failed")]
    Io {
        /// The file or directory.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl HomeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Locked,
            Self::NewerFormat { .. } => ErrorKind::Failed,
            Self::NoFormat { .. } => ErrorKind::Integrity,
            Self::NoFolder { .. } | Self::NoHome { .. } => ErrorKind::Usage,
            Self::Io { source, .. } => ErrorKind::of_io(source),
        }
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> HomeError {
    let place = path.display().to_string();
    move |source| HomeError::Io { place, doing, source }
}

impl Home {
    /// Opens a home, making it (mode 0700) if there is none, and locks it; waits up to `wait` for another process to
    /// let go. Blocks the thread.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, HomeError> {
        Self::open_as(path, wait, &program())
    }

    /// Like [`Home::open`], and says that the lock is held by `command`.
    pub fn open_as(path: &Path, wait: Duration, command: &str) -> Result<Self, HomeError> {
        let until = Instant::now() + wait.min(crate::limits::LONGEST_WAIT);
        loop {
            if let Some(home) = Self::try_lock(path, command)? {
                return Ok(home);
            }
            if Instant::now() >= until {
                let holder = Self::holder(path)?.unwrap_or_default();
                return Err(HomeError::Locked { place: path.display().to_string(), holder });
            }
            thread::sleep(RETRY);
        }
    }

    /// Like [`Home::open_as`], but `None` at once when another process holds the lock.
    pub fn try_lock(path: &Path, command: &str) -> Result<Option<Self>, HomeError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                HomeError::NoFolder { place: path.display().to_string() }
            }
            _ => io_error(path, "making")(error),
        })?;
        if is_something_else(path) {
            return Err(HomeError::NoHome { place: path.display().to_string() });
        }
        let lock = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&lock).map_err(io_error(&lock, "opening"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io_error(&lock, "locking")(error.into())),
        }
        // For people: a disk so full that this does not fit must not keep anybody from reading.
        let _ = name_holder(&file, command);
        let home = Self { path: path.to_owned(), lock: Arc::new(Lock(file)), access: Access::Write };
        home.check_format()?;
        Ok(Some(home))
    }

    /// Opens a home that cannot be written to, for looking at it: several processes can, as long as nobody works on it. `None` when
    /// somebody does.
    pub fn try_read(path: &Path) -> Result<Option<Self>, HomeError> {
        let lock = path.join("lock");
        let file = File::open(&lock).map_err(io_error(&lock, "opening"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io_error(&lock, "locking")(error.into())),
        }
        let home = Self { path: path.to_owned(), lock: Arc::new(Lock(file)), access: Access::Read };
        home.check_format()?;
        Ok(Some(home))
    }

    /// Who holds the home now; `None` when nobody does.
    pub fn holder(path: &Path) -> Result<Option<Holder>, HomeError> {
        let lock = path.join("lock");
        let file = match File::open(&lock) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&lock, "opening")(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(io_error(&lock, "locking")(error.into())),
        }
        let mut text = String::new();
        file.take(SMALL_FILE).read_to_string(&mut text).map_err(io_error(&lock, "reading"))?;
        Ok(Some(Holder::parse(&text)))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the block store. Blocks the thread; a second store at the same time is refused.
    pub fn blocks(&self) -> Result<DiskStore, StoreError> {
        DiskStore::open_locked(&self.path, self.access, Some(self.lock.clone()))
    }

    /// Opens the tables. Blocks the thread; a second opening at the same time is refused. A home with a key and blocks must have them:
    /// without, everything in it would count as garbage.
    pub fn table(&self) -> Result<DiskTable, TableError> {
        let path = self.path.join("tables.redb");
        let packs = std::fs::read_dir(self.path.join("blocks")).is_ok_and(|mut packs| packs.next().is_some());
        if packs && !path.exists() && self.path.join("registry.key").exists() {
            return Err(TableError {
                place: path.display().to_string(),
                doing: "opening",
                kind: ErrorKind::Integrity,
                source: "it is missing, and the home holds a registry".into(),
            });
        }
        DiskTable::open_locked(&self.path.join("tables.redb"), self.access, Some(self.lock.clone()))
    }

    /// Keeps some room for the day on which the disk is full: taking things away has to be written down first. Does nothing where it is
    /// kept already, or where there is none.
    pub fn reserve(&self) {
        let path = self.path.join(RESERVE);
        if self.access == Access::Read || path.exists() {
            return;
        }
        let reserved = File::create(&path)
            .and_then(|file| Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?));
        if reserved.is_err() {
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Gives that room up; false if there was none.
    pub fn release(&self) -> bool {
        std::fs::remove_file(self.path.join(RESERVE)).is_ok()
    }

    fn check_format(&self) -> Result<(), HomeError> {
        let path = self.path.join("version");
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(SMALL_FILE).read_to_string(&mut text).map_err(io_error(&path, "reading"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&path, "opening")(error)),
        }
        // A crash between making and writing the file leaves it empty.
        if text.trim().is_empty() {
            return std::fs::write(&path, format!("{FORMAT}\n")).map_err(io_error(&path, "writing"));
        }
        match text.trim().parse::<u32>() {
            Ok(found) if found <= FORMAT => Ok(()),
            Ok(found) => Err(HomeError::NewerFormat { place: self.path.display().to_string(), found }),
            Err(_) => Err(HomeError::NoFormat { place: path.display().to_string() }),
        }
    }
}

/// Whether a folder holds things and nothing of a home: it is not made one.
fn is_something_else(path: &Path) -> bool {
    if path.join("lock").exists() || path.join("version").exists() {
        return false;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let (mut own, mut other) = (false, false);
    for name in names {
        match name.as_str() {
            "config.toml" | "profile.json" | "blocks" | "tables.redb" | "index.redb" => own = true,
            "lost+found" => {}
            name if Path::new(name).extension().is_some_and(|extension| extension == "key") => own = true,
            _ => other = true,
        }
    }
    other && !own
}

fn name_holder(mut file: &File, command: &str) -> io::Result<()> {
    let holder = Holder { pid: std::process::id(), command: command.to_owned() };
    let text = serde_json::to_string(&holder)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/home");
        assert_eq!(Home::holder(&path).unwrap(), None);
        let home = Home::open_as(&path, Duration::ZERO, "ipcr serve").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let begun = Instant::now();
        let refused = Home::open(&path, Duration::from_millis(120)).unwrap_err();
        assert!(begun.elapsed() >= Duration::from_millis(120));
        assert_eq!(refused.kind(), ErrorKind::Locked);
        let HomeError::Locked { holder, .. } = refused else { panic!("{refused}") };
        assert_eq!(holder, Holder { pid: std::process::id(), command: "ipcr serve".into() });
        assert!(Home::try_lock(&path, "x").unwrap().is_none());
        let table = home.table().unwrap();
        drop(home);
        assert!(Home::try_lock(&path, "x").unwrap().is_none(), "a table in use keeps the lock");
        drop(table);
        assert_eq!(Home::holder(&path).unwrap(), None);
        Home::open(&path, Duration::ZERO).unwrap();
    }

    #[tokio::test]
    async fn a_home_that_is_only_looked_at_is_shared_and_not_changed() {
        use crate::dag::block::Block;
        use crate::port::blocks::BlockStore as _;
        use crate::port::table::{Change, Space, Table as _};

        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Home::try_read(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
        let block = Block::raw(bytes::Bytes::from_static(b"looked at"));
        {
            let home = Home::open(folder.path(), Duration::ZERO).unwrap();
            assert!(Home::try_read(folder.path()).unwrap().is_none());
            let (store, tables) = (home.blocks().unwrap(), home.table().unwrap());
            let session = store.begin(Duration::ZERO).await.unwrap();
            session.put(vec![block.clone()]).await.unwrap();
            session.commit().await.unwrap();
            tables.write(vec![Change::Put(Space::Images, b"a".to_vec(), b"b".to_vec())]).await.unwrap();
        }
        let files = || {
            let mut files: Vec<_> = ["index.redb", "tables.redb", "blocks/00000001.pack"]
                .iter()
                .map(|name| std::fs::read(folder.path().join(name)).ok())
                .collect();
            files.push(Some(std::fs::read_dir(folder.path()).unwrap().count().to_le_bytes().to_vec()));
            files
        };
        let before = files();
        let home = Home::try_read(folder.path()).unwrap().expect("nobody works on it");
        let other = Home::try_read(folder.path()).unwrap().expect("others may look, too");
        assert!(Home::try_lock(folder.path(), "x").unwrap().is_none());
        home.reserve();
        for home in [&home, &other] {
            let (store, tables) = (home.blocks().unwrap(), home.table().unwrap());
            assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data()));
            assert_eq!(tables.get(Space::Images, b"a").await.unwrap().as_deref(), Some(&b"b"[..]));
            let refused = tables.write(vec![Change::Put(Space::Images, b"a".to_vec(), b"c".to_vec())]).await;
            assert_eq!(refused.unwrap_err().kind, ErrorKind::Access);
            assert_eq!(tables.get(Space::Images, b"a").await.unwrap().as_deref(), Some(&b"b"[..]));
        }
        assert_eq!(files(), before);
        drop((home, other));
        Home::open(folder.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_folder_with_other_things_is_not_made_a_home() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lost+found")).unwrap();
        drop(Home::open(folder.path(), Duration::ZERO).unwrap());
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("letter.txt"), "dear").unwrap();
        let refused = Home::open(other.path(), Duration::ZERO).unwrap_err();
        assert_eq!((refused.kind(), other.path().read_dir().unwrap().count()), (ErrorKind::Usage, 1));
        // Somebody keeps the settings and the keys there.
        std::fs::write(other.path().join("config.toml"), "").unwrap();
        Home::open(other.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn room_is_kept_and_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path(), Duration::ZERO).unwrap();
        assert!(!home.release());
        home.reserve();
        home.reserve();
        assert_eq!(folder.path().join(RESERVE).metadata().unwrap().len(), RESERVE_BYTES);
        assert!(home.release() && !home.release());
    }

    #[test]
    fn tables_that_are_lost_are_no_empty_tables() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path(), Duration::ZERO).unwrap();
        drop(home.table().unwrap());
        std::fs::write(folder.path().join("registry.key"), "").unwrap();
        std::fs::create_dir_all(folder.path().join("blocks")).unwrap();
        std::fs::remove_file(folder.path().join("tables.redb")).unwrap();
        drop(home.table().unwrap());
        std::fs::write(folder.path().join("blocks/00000000.pack"), "").unwrap();
        std::fs::remove_file(folder.path().join("tables.redb")).unwrap();
        assert_eq!(home.table().unwrap_err().kind, ErrorKind::Integrity);
    }

    #[test]
    fn waiting_ends_when_the_holder_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path(), Duration::ZERO).unwrap();
        let path = folder.path().to_owned();
        let waiting = thread::spawn(move || Home::open(&path, Duration::from_secs(20)).map(drop));
        thread::sleep(Duration::from_millis(100));
        drop(home);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn newer_formats_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Home::open(folder.path(), Duration::ZERO).unwrap());
        let version = folder.path().join("version");
        assert_eq!(std::fs::read_to_string(&version).unwrap(), "1\n");
        std::fs::write(&version, "2\n").unwrap();
        let refused = Home::open(folder.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(refused, HomeError::NewerFormat { found: 2, .. }), "{refused}");
        std::fs::write(&version, "nonsense").unwrap();
        let refused = Home::open(folder.path(), Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity);
        assert_eq!(std::fs::read_to_string(&version).unwrap(), "nonsense");
    }
}
