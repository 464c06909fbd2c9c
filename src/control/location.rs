//! Where the control socket of a data directory is.
//!
//! `control.sock` in the data directory, unless that path is longer than a socket's address can be.
//! Then it is in a private directory of the runtime or temporary directory, named after the data
//! directory, and `control.path` in the data directory says where.

use std::{
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::ControlError;
use crate::wire::ids::hex;

/// Longest path of a socket in bytes: `sun_path` without its final zero (Linux 108, BSDs 104).
pub const PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

const SOCKET_NAME: &str = "control.sock";
const RECORD_NAME: &str = "control.path";

/// Longest content of the record that is read back: no system has longer paths.
const RECORD_BYTES_MAX: usize = 4096;

/// Directories that may hold a socket whose data directory is too deep.
#[derive(Debug, Clone)]
pub struct Fallbacks(pub Vec<PathBuf>);

impl Default for Fallbacks {
    /// The user's runtime directory, the temporary one, `/tmp`.
    fn default() -> Self {
        let runtime = directories::BaseDirs::new().and_then(|dirs| dirs.runtime_dir().map(Path::to_owned));
        let temporary = [std::env::temp_dir(), PathBuf::from("/tmp")];
        Self(runtime.into_iter().chain(temporary).collect())
    }
}

/// Where a client finds the socket of `data_dir`: what the record says, else the usual place.
pub fn find(data_dir: &Path) -> PathBuf {
    match std::fs::read(data_dir.join(RECORD_NAME)) {
        Ok(bytes) if !bytes.is_empty() && bytes.len() <= RECORD_BYTES_MAX => {
            PathBuf::from(std::ffi::OsStr::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
        }
        _ => data_dir.join(SOCKET_NAME),
    }
}

/// Chooses the socket's path for a node and writes or removes the record.
pub(crate) fn claim(data_dir: &Path, fallbacks: &Fallbacks) -> Result<PathBuf, ControlError> {
    let data_dir = data_dir.canonicalize().map_err(io_error("find", data_dir))?;
    let usual = data_dir.join(SOCKET_NAME);
    let record = data_dir.join(RECORD_NAME);
    if fits(&usual) {
        remove(&record)?;
        return Ok(usual);
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    let name = format!("qpc-{}", hex(digest.get(..8).unwrap_or(&[])));
    let socket = fallbacks
        .0
        .iter()
        .filter(|dir| dir.is_dir())
        .map(|dir| dir.join(&name).join(SOCKET_NAME))
        .find(|path| fits(path))
        .ok_or_else(|| ControlError::TooLong { path: usual.clone(), limit: PATH_BYTES_MAX })?;
    let uid = write_record(&record, &socket)?;
    if let Some(dir) = socket.parent() {
        private_dir(dir, uid)?;
    }
    Ok(socket)
}

/// Removes what a dead node left at `path`.
///
/// # Errors
/// A living node answers there, or what is there is no socket.
pub(crate) fn clear_stale(path: &Path) -> Result<(), ControlError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::AlreadyRunning { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("connect to", path)(error)),
    }
}

/// Removes the socket and the record at the end of a node.
pub(crate) fn release(data_dir: &Path, socket: &Path) {
    // Best effort: a socket that stays is recognised as stale by the next start.
    let _ = std::fs::remove_file(socket);
    let _ = std::fs::remove_file(data_dir.join(RECORD_NAME));
    if !socket.starts_with(data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned())) {
        let _ = socket.parent().map(std::fs::remove_dir);
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_BYTES_MAX
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ControlError + 'a {
    move |source| ControlError::Io { action, path: path.to_owned(), source }
}

fn remove(path: &Path) -> Result<(), ControlError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes the record and returns the user it belongs to, which is this process's.
fn write_record(record: &Path, socket: &Path) -> Result<u32, ControlError> {
    use std::io::Write;
    // A new file each time, so that its owner is this process's user and not that of an older one.
    remove(record)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(record)
        .map_err(io_error("create", record))?;
    file.write_all(socket.as_os_str().as_bytes()).map_err(io_error("write", record))?;
    file.metadata().map(|m| m.uid()).map_err(io_error("look at", record))
}

/// Makes `dir`, or accepts it where it is a real directory of mode 0700 of this user: another user
/// may have put theirs there first.
fn private_dir(dir: &Path, uid: u32) -> Result<(), ControlError> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("create", dir)(error));
        }
        _ => {}
    }
    let found = std::fs::symlink_metadata(dir).map_err(io_error("look at", dir))?;
    let private = found.is_dir() && found.uid() == uid && found.permissions().mode() & 0o077 == 0;
    if private { Ok(()) } else { Err(ControlError::NotPrivate { path: dir.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep_dir(root: &Path) -> PathBuf {
        let deep = root.join("d".repeat(60)).join("e".repeat(60));
        std::fs::create_dir_all(&deep).unwrap();
        deep
    }

    #[test]
    fn a_short_path_is_in_the_data_directory() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::write(root.path().join(RECORD_NAME), "/elsewhere").unwrap();
        let path = claim(root.path(), &Fallbacks(vec![])).unwrap();
        assert_eq!(path, root.path().canonicalize().unwrap().join(SOCKET_NAME));
        assert_eq!(find(root.path()), root.path().join(SOCKET_NAME), "an old record is gone");
    }

    #[test]
    fn a_long_path_falls_back_and_is_recorded() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let data = deep_dir(root.path());
        let runtime = root.path().join("run");
        std::fs::create_dir(&runtime).unwrap();
        let fallbacks = Fallbacks(vec![root.path().join("missing"), data.clone(), runtime.clone()]);
        let path = claim(&data, &fallbacks).unwrap();
        assert!(path.starts_with(&runtime) && fits(&path), "{path:?}");
        assert_eq!(find(&data), path);
        assert_eq!(claim(&data, &fallbacks).unwrap(), path, "the same again after a crash");
        release(&data, &path);
        assert!(!path.parent().unwrap().exists() && !data.join(RECORD_NAME).exists());
    }

    #[test]
    fn a_fallback_that_others_can_enter_is_refused() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let data = deep_dir(root.path());
        let path = claim(&data, &Fallbacks(vec![root.path().into()])).unwrap();
        let dir = path.parent().unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = claim(&data, &Fallbacks(vec![root.path().into()])).unwrap_err();
        assert!(matches!(error, ControlError::NotPrivate { .. }), "{error}");
        std::fs::remove_dir(dir).unwrap();
        std::os::unix::fs::symlink(&data, dir).unwrap();
        let error = claim(&data, &Fallbacks(vec![root.path().into()])).unwrap_err();
        assert!(matches!(error, ControlError::NotPrivate { .. }), "{error}");
    }

    #[test]
    fn without_a_short_directory_the_error_says_so() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let data = deep_dir(root.path());
        let error = claim(&data, &Fallbacks(vec![data.clone()])).unwrap_err();
        assert!(error.to_string().contains("choose a shorter --data-dir"), "{error}");
    }

    #[test]
    fn only_dead_sockets_are_removed() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let path = root.path().join("s");
        clear_stale(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(clear_stale(&path), Err(ControlError::AlreadyRunning { .. })));
        drop(listener);
        clear_stale(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(clear_stale(&path), Err(ControlError::NotASocket { .. })));
        assert!(path.exists());
    }
}
