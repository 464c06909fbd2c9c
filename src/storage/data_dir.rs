//! The data directory: who may read it, who is in it, and how files in it come to be so that a
//! power cut leaves the old one or the new one, never none.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::{disk::Disk, error::StoreError, lock::DirLock};

/// Mode of the data directory and of directories in it.
pub const DIR_MODE: u32 = 0o700;
/// Mode of files in it.
pub const FILE_MODE: u32 = 0o600;

/// A data directory that belongs to this process alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: DirLock,
}

impl DataDir {
    /// Creates `path` where it is missing (mode 0700), refuses it where others could look in, and
    /// locks it.
    ///
    /// # Errors
    /// [`StoreError::TooOpen`], [`StoreError::Locked`], or what the file system says.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_private_dir(path)?;
        refuse_open_mode(path, DIR_MODE)?;
        let lock = DirLock::acquire(&path.join("lock"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The embedded engine's file.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// The row keys' file.
    pub fn row_keys_path(&self) -> PathBuf {
        self.path.join("row-keys")
    }

    /// The directory of large contents.
    pub fn blobs_path(&self) -> PathBuf {
        self.path.join("blobs")
    }
}

/// Creates `path` and its missing parents with mode 0700, each durable in its parent.
///
/// # Errors
/// What the file system says; that it exists already is none.
pub fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    const DOING: &str = "creating a directory";
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        match private_dir_builder().create(dir) {
            Ok(()) => {}
            // Another process may be doing the same; the lock decides between the two.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => continue,
            Err(e) => return Err(StoreError::of_io(DOING, dir, e)),
        }
        sync_parent(dir)?;
    }
    Ok(())
}

/// Refuses `path` if its mode lets anyone but its owner in.
///
/// # Errors
/// [`StoreError::TooOpen`] with the mode it should have.
#[cfg(unix)]
pub fn refuse_open_mode(path: &Path, wanted: u32) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::metadata(path).map_err(|e| StoreError::of_io("checking permissions", path, e))?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Where there are no modes, the user's profile directory is what keeps others out.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn refuse_open_mode(_path: &Path, _wanted: u32) -> Result<(), StoreError> {
    Ok(())
}

/// Makes the entries of directory `path` durable: a file that was created or renamed in it can be
/// lost as a whole by a power cut until this returns.
///
/// # Errors
/// What the file system says; a sync that fails is [fatal](StoreError::is_fatal).
pub fn sync_dir(path: &Path) -> Result<(), StoreError> {
    Disk::default().dir(path)?.sync()
}

/// Makes the entry of `path` in its parent durable.
///
/// # Errors
/// As [`sync_dir`].
pub fn sync_parent(path: &Path) -> Result<(), StoreError> {
    Disk::default().parent_of(path)?.sync()
}

/// Replaces `path` (or creates it) with `contents` under mode 0600: at every instant, power cuts
/// included, the file has its old content or its new one.
///
/// # Errors
/// What the file system says; the old file stands then. After a failed sync of the directory, which is
/// [fatal](StoreError::is_fatal), the new one may.
pub fn write_atomic(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    Disk::default().write_atomic(path, contents)
}

/// Name under which `path` is written before it is renamed.
pub(crate) fn temp_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Adds mode 0600 to how a file is created.
pub(crate) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(FILE_MODE);
    }
    options
}

fn private_dir_builder() -> DirBuilder {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes to set"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(DIR_MODE);
    }
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("the path exists").permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_created_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        let data = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), DIR_MODE);
        assert_eq!(mode(path.parent().unwrap()), DIR_MODE);
        write_atomic(&data.path().join("secret"), b"x").unwrap();
        assert_eq!(mode(&path.join("secret")), FILE_MODE);
        assert_eq!(mode(&path.join("lock")), FILE_MODE);
    }

    #[test]
    fn a_directory_others_can_read_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let e = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(e, StoreError::TooOpen { mode: 0o750, wanted: 0o700, .. }), "{e:?}");
        assert!(e.to_string().contains("chmod 700"), "{e}");
    }

    #[test]
    fn a_second_process_on_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let _held = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(StoreError::Locked { pid: Some(_), .. })));
    }

    #[test]
    fn an_atomic_write_replaces_all_of_the_old_and_survives_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"a long old content").unwrap();
        fs::write(temp_path(&path), b"torn").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!temp_path(&path).exists());
    }

    #[test]
    fn a_failed_atomic_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/f");
        let e = write_atomic(&path, b"x").unwrap_err();
        assert!(matches!(e, StoreError::Io { .. }), "{e:?}");
    }
}
