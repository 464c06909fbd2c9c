//! What can go wrong with a store, and what to do about each.

use std::{io, path::PathBuf, sync::Arc};

/// Why something did not happen. A submission answered with one of these left nothing behind.
///
/// Where it [is fatal](StoreError::is_fatal) the process is to end and to start again: nobody knows
/// what is on the disk. Where it [is retryable](StoreError::is_retryable) the same may work later. For
/// all else the message says what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has this data directory.
    #[error(
        "{} is in use by {}: stop it first, or choose another data directory",
        path.display(), by(*pid)
    )]
    Locked {
        /// The lock or database file.
        path: PathBuf,
        /// Who holds it, where the lock file says.
        pid: Option<u32>,
    },
    /// A newer version of this program wrote the store.
    #[error(
        "{} has store format {found}, this version knows formats up to {known}: \
         run the newer version again, or choose another data directory",
        path.display()
    )]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// Format recorded in it.
        found: u32,
        /// Newest format this version reads.
        known: u32,
    },
    /// A version so old wrote this store that no upgrade leads from it.
    #[error(
        "{} has store format {found}, this version writes {current} and cannot upgrade it: \
         run the version that wrote it, or choose another data directory",
        path.display()
    )]
    OlderFormat {
        /// The database file.
        path: PathBuf,
        /// Format recorded in it, or that its upgrade got stuck at.
        found: u32,
        /// Format that this version writes.
        current: u32,
    },
    /// The store's bytes contradict each other.
    #[error("{} is damaged ({detail}): move it away and restore a backup", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What contradicts what.
        detail: String,
    },
    /// The store's file is no longer where it was opened. Writes would go on succeeding, into a file
    /// that no later start finds.
    #[error(
        "{} is gone: it was deleted, moved or covered by a mount while the node ran; \
         put it back and start again",
        path.display()
    )]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// So little of the volume is left that nothing new is taken. Removals still work.
    #[error(
        "{free_bytes} bytes are free on the store's volume, below the reserve of {reserve_bytes}: free some space"
    )]
    BelowReserve {
        /// Bytes free for us.
        free_bytes: u64,
        /// Bytes that stay free.
        reserve_bytes: u64,
    },
    /// The volume or our quota on it is full. Nothing of the batch was kept.
    #[error("no space left while {doing}: free some space")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A write or sync failed in a way after which the disk's content is unknown. The process
    /// must exit non-zero and start again; nothing is acknowledged until then.
    #[error("the disk failed while {doing} ({source}): check the disk and start again")]
    IoFatal {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The process may not do this to this path.
    #[error("no permission for {} while {doing}: give the file to the user the node runs as", path.display())]
    Permission {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// Others may read or write what only the node's user may.
    #[error(
        "{} has mode {mode:04o}, others could read it: run `chmod {wanted:o} {}`",
        path.display(), path.display()
    )]
    TooOpen {
        /// Directory or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The bits it should have.
        wanted: u32,
    },
    /// The file system is mounted read-only.
    #[error("{} is on a read-only file system (while {doing}): check the disk and mount it writable", path.display())]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// Another failure of the file system on a path that holds no acknowledged state yet.
    #[error("{} failed while {doing}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// One row is larger than any message needs.
    #[error("a row of {got} bytes is over the limit of {limit}: keep large contents as files")]
    RowTooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A counter has no numbers left.
    #[error("the {0} has no numbers left")]
    CounterExhausted(&'static str),
    /// The system gave no random bytes for a row key.
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    /// The store was shut down, or stopped after a fatal error it reported to its owner.
    #[error("the store has stopped")]
    Stopped,
}

impl StoreError {
    /// True where going on would risk acknowledging what is not on the disk: the process has to
    /// exit non-zero and start again.
    pub fn is_fatal(&self) -> bool {
        matches!(self, StoreError::IoFatal { .. } | StoreError::Corrupt { .. } | StoreError::Gone { .. })
    }

    /// True where the same submission may succeed later without a restart.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::BelowReserve { .. } | StoreError::NoSpace { .. } | StoreError::Random(_))
    }

    /// Sorts an error of the file system at `path`. Errors of reading and writing that are none
    /// of the expected refusals count as [`StoreError::Io`]; callers for whom they are fatal use
    /// [`StoreError::fatal_io`].
    pub(crate) fn of_io(doing: &'static str, path: impl Into<PathBuf>, e: io::Error) -> Self {
        use io::ErrorKind as K;
        let path = path.into();
        match e.kind() {
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
                StoreError::NoSpace { doing, source: Arc::new(e) }
            }
            K::PermissionDenied => StoreError::Permission { doing, path },
            K::ReadOnlyFilesystem => StoreError::ReadOnly { doing, path },
            _ => StoreError::Io { doing, path, source: Arc::new(e) },
        }
    }

    /// Sorts an error of a write or sync whose outcome matters: what is not a full disk is fatal.
    pub(crate) fn fatal_io(doing: &'static str, e: io::Error) -> Self {
        use io::ErrorKind as K;
        match e.kind() {
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
                StoreError::NoSpace { doing, source: Arc::new(e) }
            }
            _ => StoreError::IoFatal { doing, source: Arc::new(e) },
        }
    }
}

fn by(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_becomes_what_to_do() {
        let sorted = |errno| StoreError::of_io("testing", "/x", io::Error::from_raw_os_error(errno));
        // EPERM and EACCES, EROFS, ENOSPC, EIO.
        assert!(matches!(sorted(1), StoreError::Permission { .. }));
        assert!(matches!(sorted(13), StoreError::Permission { .. }));
        assert!(matches!(sorted(30), StoreError::ReadOnly { .. }));
        assert!(matches!(sorted(28), StoreError::NoSpace { .. }));
        assert!(matches!(sorted(5), StoreError::Io { .. }));
    }

    #[test]
    fn only_a_full_disk_survives_a_failed_commit() {
        let of = |errno| StoreError::fatal_io("testing", io::Error::from_raw_os_error(errno));
        assert!(of(28).is_retryable() && !of(28).is_fatal());
        for errno in [5, 9, 30] {
            assert!(of(errno).is_fatal() && !of(errno).is_retryable(), "{errno}");
        }
    }

    #[test]
    fn a_locked_directory_names_its_holder_and_the_cure() {
        let e = StoreError::Locked { path: "/d/lock".into(), pid: Some(42) };
        assert_eq!(
            e.to_string(),
            "/d/lock is in use by process 42: stop it first, or choose another data directory"
        );
    }
}
