//! What the engine does not do for itself: no panic over a damaged file leaves here, and no batch is
//! answered whose file is not where the next start will look for it.

use std::{
    any::Any,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::Result;
use crate::storage::error::StoreError;

/// Runs `act`; a panic becomes [`StoreError::Corrupt`], after which nothing is done any more. The
/// engine does not record a clean end then, so the next start verifies every page and either goes on
/// with what is whole or refuses: it is no loop of panics.
pub(super) fn no_panic<V>(path: &Path, act: impl FnOnce() -> Result<V>) -> Result<V> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: format!("the engine gave up over it: {}", text(panic.as_ref())),
        })
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// Which file a path led to when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    /// Device and inode.
    #[cfg(unix)]
    number: (u64, u64),
}

impl FileId {
    /// Of the file at `path`.
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path).map_err(|e| StoreError::of_io("looking at the store", path, e))?;
        Ok(Self { number: (meta.dev(), meta.ino()) })
    }

    /// Where an open file cannot be removed, there is nothing to tell apart.
    #[cfg(not(unix))]
    pub(super) fn of(_path: &Path) -> Result<Self> {
        Ok(Self {})
    }

    /// Refuses when `path` leads nowhere or to another file by now.
    pub(super) fn is_still(self, path: &Path) -> Result<()> {
        let is_gone = match Self::of(path) {
            Ok(now) => now != self,
            Err(StoreError::Io { source, .. }) => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            // The bytes themselves were made safe.
            Err(_) => false,
        };
        if is_gone { Err(StoreError::Gone { path: path.to_owned() }) } else { Ok(()) }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_file() {
        let e = no_panic(Path::new("/d/store.redb"), || -> Result<()> { panic!("page {} is odd", 7) });
        let e = e.unwrap_err();
        assert!(e.is_fatal());
        assert!(e.to_string().contains("/d/store.redb") && e.to_string().contains("page 7 is odd"), "{e}");
    }

    #[test]
    fn a_file_that_was_deleted_moved_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("f"), dir.path().join("aside"));
        fs::write(&path, "x").unwrap();
        let id = FileId::of(&path).unwrap();
        fs::write(&path, "longer").unwrap();
        id.is_still(&path).unwrap();
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(id.is_still(&path), Err(StoreError::Gone { .. })));
        fs::write(&path, "another").unwrap();
        assert!(matches!(id.is_still(&path), Err(StoreError::Gone { .. })));
        fs::rename(&aside, &path).unwrap();
        id.is_still(&path).unwrap();
        drop(dir);
        assert!(id.is_still(&path).unwrap_err().is_fatal());
    }
}
