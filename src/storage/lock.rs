//! One process a data directory: a file that is locked while the process lives, so that no lock
//! survives a kill and none needs removing by hand.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{data_dir::private_file, error::StoreError};

/// A held lock; letting go of it frees the directory.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl DirLock {
    /// Locks `path`, creating it where it is missing, and writes this process's id into it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder's id if another process has it.
    pub(crate) fn acquire(path: &Path) -> Result<Self, StoreError> {
        const DOING: &str = "locking the data directory";
        let failed = |e| StoreError::of_io(DOING, path, e);
        let mut file = private_file(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.set_len(0).map_err(failed)?;
        // The id only helps people; the lock itself does not depend on it, so it is not synced.
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // The file stays: removing it could take the lock from under a process that has just
        // opened it. An empty file says that nobody is here.
        let _ = self.file.set_len(0);
        // Closing would not do: a process being spawned at this moment has the file open too
        // until it runs its program.
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = DirLock::acquire(&path).unwrap();
        match DirLock::acquire(&path) {
            Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a refusal, got {other:?}"),
        }
        drop(held);
        DirLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_killed_process_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4294967295 and more").unwrap();
        DirLock::acquire(&path).unwrap();
    }
}
