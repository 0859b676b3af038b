//! Where a home's socket is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Longest path of a socket that is used as it is, in bytes (`sun_path` has 104 or 108).
const PATH_BYTES: usize = 100;
/// Where the sockets of homes with long paths are. The same for every process, whatever its environment says.
const TEMPORARY: &str = "/tmp";

/// The socket of a home: `<home>/socket`, or one in a directory of this user's own when that path is too long.
pub fn path(home: &Path) -> io::Result<PathBuf> {
    let home = fs::canonicalize(home)?;
    let direct = home.join("socket");
    if direct.as_os_str().len() <= PATH_BYTES {
        return Ok(direct);
    }
    let name = Digest::sha256(home.as_os_str().as_bytes()).hex();
    let folder = format!("ipcr-{}", rustix::process::geteuid().as_raw());
    Ok(Path::new(TEMPORARY).join(folder).join(format!("{}.socket", &name[..32])))
}

/// Makes sure that nobody else can put a socket where ours is expected.
pub(crate) fn prepare_folder(socket: &Path, home: &Path) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Err(io::ErrorKind::NotFound.into()) };
    if folder == fs::canonicalize(home)? {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check_folder(socket, home),
    }
}

/// Checks that the directory of a socket belongs to this user alone.
pub(crate) fn check_folder(socket: &Path, home: &Path) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Err(io::ErrorKind::NotFound.into()) };
    if folder == fs::canonicalize(home)? {
        return Ok(());
    }
    let metadata = fs::symlink_metadata(folder)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode().trailing_zeros() >= 6;
    if own && metadata.is_dir() {
        return Ok(());
    }
    let message = format!("{} does not belong to this user alone", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Whether whoever is at the other end is this user (or the superuser).
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_get_short_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let direct = path(folder.path()).unwrap();
        assert_eq!(direct, fs::canonicalize(folder.path()).unwrap().join("socket"));
        prepare_folder(&direct, folder.path()).unwrap();
        let deep = folder.path().join("d".repeat(100));
        let other = folder.path().join("e".repeat(100));
        fs::create_dir(&deep).unwrap();
        fs::create_dir(&other).unwrap();
        let socket = path(&deep).unwrap();
        assert!(socket.as_os_str().len() <= PATH_BYTES);
        assert_ne!(socket, path(&other).unwrap());
        prepare_folder(&socket, &deep).unwrap();
        check_folder(&socket, &deep).unwrap();
        let open = folder.path().join("open");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        let refused = check_folder(&open.join("x.socket"), &deep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
