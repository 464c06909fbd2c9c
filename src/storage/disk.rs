//! The disk under the files that are not the engine's: the row keys and the large contents.
//!
//! A sync that fails says that bytes may be lost which the process has long counted as written, and a
//! second sync that succeeds says nothing about them. So it is [fatal](StoreError::is_fatal), of a
//! file as of a directory; only a full disk is a refusal, as everywhere.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::{
    data_dir::{private_file, temp_path},
    error::StoreError,
};

/// Calls that change what is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCall {
    /// A write; where it fails nothing of it reaches the disk.
    Write,
    /// A change of a file's length; where it fails it does not happen.
    SetLen,
    /// A sync; where it fails, what it should have made durable may or may not be.
    Sync,
}

/// The disk, as files beside the engine are written. A value, so that a test can put one there that
/// fails when it is told to.
#[derive(Clone, Default)]
pub struct Disk {
    #[cfg(any(test, feature = "testing"))]
    faults: Option<super::faults::FaultyDisk>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// One whose calls fail as those of `faults` do. The files themselves are the system's.
    #[cfg(any(test, feature = "testing"))]
    pub fn failing(faults: super::faults::FaultyDisk) -> Self {
        Self { faults: Some(faults) }
    }

    /// Asked before each call; the system's disk has nothing to say.
    pub(crate) fn before(&self, call: DiskCall) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(faults) = &self.faults {
            return faults.before(call);
        }
        let _ = call;
        Ok(())
    }

    /// Makes a file's bytes and length durable.
    ///
    /// # Errors
    /// [`StoreError::IoFatal`], or a full disk.
    pub(crate) fn sync_data(&self, file: &File, doing: &'static str) -> Result<(), StoreError> {
        let synced = self.before(DiskCall::Sync).and_then(|()| file.sync_data());
        synced.map_err(|e| StoreError::fatal_io(doing, e))
    }

    /// The same of all that is known about a file, its mode among it: for a new one.
    ///
    /// # Errors
    /// [`StoreError::IoFatal`], or a full disk.
    pub(crate) fn sync_all(&self, file: &File, doing: &'static str) -> Result<(), StoreError> {
        let synced = self.before(DiskCall::Sync).and_then(|()| file.sync_all());
        synced.map_err(|e| StoreError::fatal_io(doing, e))
    }

    /// Opens the directory in which `path` is or will be, to sync it later. First of all: once a file
    /// has its name, no lack of file descriptors may keep that from being made durable.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn parent_of(&self, path: &Path) -> Result<OpenDir, StoreError> {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.dir(Path::new(".")),
            Some(parent) => self.dir(parent),
            None => Ok(OpenDir::default()),
        }
    }

    /// Opens directory `path`, to sync it later.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn dir(&self, path: &Path) -> Result<OpenDir, StoreError> {
        // Where directories cannot be opened as files, their entries are as durable as they get.
        #[cfg(unix)]
        let file =
            Some(File::open(path).map_err(|e| StoreError::of_io("opening a directory to sync it", path, e))?);
        #[cfg(not(unix))]
        let file = {
            let _ = path;
            None
        };
        Ok(OpenDir { file, disk: self.clone() })
    }

    /// Replaces `path` (or creates it) with `contents` under mode 0600: at every instant, power cuts
    /// included, the file has its old content or its new one.
    ///
    /// # Errors
    /// What the file system says; the old file stands then. After one that is fatal the new one may.
    pub(crate) fn write_atomic(&self, path: &Path, contents: &[u8]) -> Result<(), StoreError> {
        const DOING: &str = "writing a file";
        let failed = |e| StoreError::of_io(DOING, path, e);
        let temp = temp_path(path);
        let dir = self.parent_of(path)?;
        let written = (|| {
            // A leftover of a crash; its content counts for nothing.
            match fs::remove_file(&temp) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
                _ => {}
            }
            let mut file =
                private_file(OpenOptions::new().write(true).create_new(true)).open(&temp).map_err(failed)?;
            self.before(DiskCall::Write).and_then(|()| file.write_all(contents)).map_err(failed)?;
            self.sync_all(&file, "syncing a file")?;
            fs::rename(&temp, path).map_err(failed)
        })();
        if let Err(e) = written {
            let _ = fs::remove_file(&temp);
            return Err(e);
        }
        // By now nobody can say which of the two will be there.
        dir.sync().map_err(|e| match e {
            StoreError::NoSpace { doing, source } => StoreError::IoFatal { doing, source },
            other => other,
        })
    }
}

/// A directory whose entries are to be made durable.
#[derive(Debug, Default)]
pub(crate) struct OpenDir {
    file: Option<File>,
    disk: Disk,
}

impl OpenDir {
    /// A file that was created or renamed in it can be lost as a whole by a power cut until this
    /// returns.
    ///
    /// # Errors
    /// [`StoreError::IoFatal`], or a full disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        let synced = self.disk.before(DiskCall::Sync).and_then(|()| file.sync_all());
        synced.map_err(|e| StoreError::fatal_io("syncing a directory", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faults::FaultyDisk;

    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all_and_a_failed_sync_is_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let faults = FaultyDisk::default();
        let disk = Disk::failing(faults.clone());
        disk.write_atomic(&path, b"old").unwrap();
        // The write, the sync of the file, the sync of the directory.
        for (call, after, errno, is_fatal, stands) in [
            (DiskCall::Write, 0, EIO, false, "old"),
            (DiskCall::Write, 0, ENOSPC, false, "old"),
            (DiskCall::Sync, 0, EIO, true, "old"),
            (DiskCall::Sync, 0, ENOSPC, false, "old"),
            (DiskCall::Sync, 1, EIO, true, "new"),
            (DiskCall::Sync, 1, ENOSPC, true, "new"),
        ] {
            faults.fail(call, after, errno, false);
            let e = disk.write_atomic(&path, b"new").unwrap_err();
            assert_eq!(faults.heal(), 1);
            assert_eq!(e.is_fatal(), is_fatal, "{call:?} {after} {errno}: {e:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), stands, "{call:?} {after} {errno}");
            assert!(!temp_path(&path).exists());
        }
    }
}
