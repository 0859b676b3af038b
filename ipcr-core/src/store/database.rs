//! A redb database that a full disk does not put out of service: [`Database`].
//!
//! After a failed write redb refuses everything until the file is opened again; this wrapper opens it again. Every write
//! is durable when it returns (two phases, so that no reordering by the disk can roll it back) and keeps the allocator's
//! state, so that opening after a crash does not walk the whole file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Builder, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use crate::kind::ErrorKind;

/// An open database file.
pub(super) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    access: Access,
    /// `None` between a failure and the next successful opening.
    file: RwLock<Option<Handle>>,
}

/// What is done with a database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is read and written by one process, and made if there is none.
    Write,
    /// It is only read, by any number of processes.
    Read,
}

enum Handle {
    Write(redb::Database),
    Read(redb::ReadOnlyDatabase),
}

impl Handle {
    fn open(path: &Path, cache_bytes: usize, access: Access) -> Result<Self, Failure> {
        let mut builder = Builder::new();
        let builder = builder.set_cache_size(cache_bytes);
        Ok(match access {
            Access::Write => Self::Write(builder.create(path)?),
            Access::Read => Self::Read(builder.open_read_only(path)?),
        })
    }

    fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        Ok(match self {
            Self::Write(file) => file.begin_read()?,
            Self::Read(file) => file.begin_read()?,
        })
    }

    fn begin_write(&self) -> Result<WriteTransaction, Failure> {
        match self {
            Self::Write(file) => Ok(file.begin_write()?),
            Self::Read(_) => Err(redb::Error::Io(io::ErrorKind::ReadOnlyFilesystem.into()).into()),
        }
    }
}

/// Why a transaction failed. Boxed, because redb's own error is large.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Failure(Box<redb::Error>);

impl Failure {
    pub(super) fn kind(&self) -> ErrorKind {
        match &*self.0 {
            redb::Error::Io(source) => match ErrorKind::of_io(source) {
                ErrorKind::NotFound => ErrorKind::Failed,
                kind => kind,
            },
            redb::Error::Corrupted(_) => ErrorKind::Integrity,
            redb::Error::DatabaseAlreadyOpen => ErrorKind::Locked,
            _ => ErrorKind::Failed,
        }
    }
}

impl<E> From<E> for Failure
where
    redb::Error: From<E>,
{
    fn from(source: E) -> Self {
        Self(Box::new(redb::Error::from(source)))
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the file.
    pub(super) fn open(path: &Path, cache_bytes: usize, access: Access) -> Result<Self, Failure> {
        let file = Handle::open(path, cache_bytes, access)?;
        Ok(Self { path: path.to_owned(), cache_bytes, access, file: RwLock::new(Some(file)) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at one consistent state.
    pub(super) fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, Failure>) -> Result<T, Failure> {
        match self.try_read(&work) {
            Some(Ok(value)) => Ok(value),
            // Something failed before, here or in another thread: once more on a fresh handle.
            Some(Err(_)) | None => {
                self.reopen()?;
                self.try_read(&work).unwrap_or_else(|| Err(redb::StorageError::DatabaseClosed.into()))
            }
        }
    }

    /// Changes everything that `work` says, or nothing; durable when it returns.
    pub(super) fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.file.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen()?;
        }
        let outcome = self.try_write(work);
        if outcome.is_err() {
            // The caller is told about the write, not about this: whoever comes next opens again, or learns why not.
            let _ = self.reopen();
        }
        outcome
    }

    fn try_read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, Failure>) -> Option<Result<T, Failure>> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = match file.as_ref()?.begin_read() {
            Ok(transaction) => transaction,
            Err(error) => return Some(Err(error)),
        };
        Some(work(&transaction))
    }

    fn try_write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T, Failure> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_ref() else { return Err(redb::StorageError::DatabaseClosed.into()) };
        let mut transaction = file.begin_write()?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    fn reopen(&self) -> Result<(), Failure> {
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        // The old handle goes first: it holds the lock of the file.
        drop(file.take());
        *file = Some(Handle::open(&self.path, self.cache_bytes, self.access)?);
        Ok(())
    }
}
