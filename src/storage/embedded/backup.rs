//! A copy of a data directory that is in use, as it stood at one moment.
//!
//! The rows are those of one snapshot of the engine, so that nobody waits while they are copied. Row
//! keys are the ones from before the snapshot and from after it together: a key that is destroyed in
//! between is one that rows of the snapshot need. Contents beside the engine are copied before the
//! snapshot and, where new ones came, after it: each row finds its own, and those without a row are
//! swept when the copy is opened.
//!
//! The copy gets a boot epoch far above the one it was taken at: a node that is started on it signs
//! above whatever the original signed since.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable};

use super::{
    EmbeddedOptions, Result, SyncMeter, engine_error, local, open_database,
    tables::{T, number},
};
use crate::storage::{
    data_dir::{create_private_dir, sync_dir, sync_parent, write_atomic},
    error::StoreError,
    row_seal::RowKeys,
};

/// Added to the boot epoch of a copy: more starts than a node makes between a backup and its use.
pub const EPOCHS_AHEAD: u32 = 256;

/// Bytes of rows written with one transaction.
const STEP_BYTES: usize = 4 << 20;

/// In a copy until it is whole: what has it may be removed, what has not is somebody else's.
const INCOMPLETE: &str = "backup-is-incomplete";

/// Files of a data directory that a copy makes itself, or that belong to the running process.
const NOT_COPIED: [&str; 5] = ["lock", "store.redb", "row-keys", "node.json", "control.sock"];

/// A way to the engine's file from other threads; empty while it is closed.
#[derive(Clone, Default)]
pub(super) struct OpenDatabase(Arc<Mutex<Option<Arc<Database>>>>);

impl OpenDatabase {
    pub(super) fn set(&self, db: Option<&Arc<Database>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = db.cloned();
    }

    fn get(&self) -> Result<Arc<Database>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Stopped)
    }
}

/// Copies the data directory of a store while it is in use.
#[derive(Clone)]
pub struct BackupSource {
    pub(super) data_dir: PathBuf,
    pub(super) open: OpenDatabase,
    pub(super) options: EmbeddedOptions,
}

impl std::fmt::Debug for BackupSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupSource").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupReport {
    /// Rows of the store.
    pub rows: u64,
    /// Files beside it.
    pub files: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl BackupSource {
    /// Copies everything to `to`, which must not exist or be an empty directory. It has its name only
    /// once it is whole and durable; what a crash leaves is `to` with `.partial` at its end. Blocks.
    ///
    /// # Errors
    /// What stands in the way; nothing is left of the copy then.
    pub fn copy_to(&self, to: &Path) -> Result<BackupReport> {
        const DOING: &str = "writing a backup";
        let own = fs::canonicalize(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_inside = fs::canonicalize(parent).is_ok_and(|parent| parent.starts_with(&own));
        let is_empty = match fs::read_dir(to) {
            Ok(mut entries) => entries.next().is_none(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(StoreError::of_io(DOING, to, e)),
        };
        if is_inside || !is_empty {
            let why = if is_inside { "it is inside the data directory" } else { "it is not empty" };
            let e = io::Error::new(io::ErrorKind::AlreadyExists, why);
            return Err(StoreError::of_io(DOING, to, e));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = to.with_file_name(name);
        if partial.join(INCOMPLETE).exists() {
            // What an earlier one left when it was killed.
            fs::remove_dir_all(&partial).map_err(|e| StoreError::of_io(DOING, &partial, e))?;
        } else if fs::symlink_metadata(&partial).is_ok() {
            let e = io::Error::new(io::ErrorKind::AlreadyExists, "it is in the way, and no earlier backup");
            return Err(StoreError::of_io(DOING, &partial, e));
        }
        create_private_dir(&partial)?;
        let marker = partial.join(INCOMPLETE);
        let copied = write_atomic(&marker, b"").and_then(|()| self.fill(&partial)).and_then(|report| {
            fs::remove_file(&marker).map_err(|e| StoreError::of_io(DOING, &marker, e))?;
            sync_dir(&partial)?;
            fs::rename(&partial, to).map_err(|e| StoreError::of_io(DOING, to, e))?;
            sync_parent(to)?;
            Ok(report)
        });
        if copied.is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
        copied
    }

    fn fill(&self, partial: &Path) -> Result<BackupReport> {
        let mut report = BackupReport::default();
        let keys_path = self.data_dir.join("row-keys");
        copy_files(&self.data_dir, partial, &NOT_COPIED, &mut report)?;
        let keys_before = RowKeys::open(&keys_path)?;
        let failed = |e: redb::Error| engine_error(&self.data_dir, "reading the store for a backup", e);
        let snapshot = self.open.get()?.begin_read().map_err(|e| failed(e.into()))?;
        let keys_after = RowKeys::open(&keys_path)?;
        keys_before.join(keys_after).save_to(&partial.join("row-keys"))?;
        copy_files(&self.data_dir, partial, &NOT_COPIED, &mut report)?;

        let path = partial.join("store.redb");
        let written = |e: redb::Error| engine_error(&path, "writing a backup", e);
        let db = open_database(&path, &self.options, &Arc::new(SyncMeter::default()))?;
        for t in T::ALL {
            let table = match snapshot.open_table(t.definition()) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => continue,
                Err(e) => return Err(failed(e.into())),
            };
            let mut rows = table.iter().map_err(|e| failed(e.into()))?.peekable();
            while rows.peek().is_some() {
                let mut txn = db.begin_write().map_err(|e| written(e.into()))?;
                txn.set_durability(Durability::None).map_err(|e| written(e.into()))?;
                {
                    let mut copy = txn.open_table(t.definition()).map_err(|e| written(e.into()))?;
                    let mut bytes = 0;
                    while bytes < STEP_BYTES
                        && let Some(row) = rows.next()
                    {
                        let (key, value) = row.map_err(|e| failed(e.into()))?;
                        bytes = bytes.saturating_add(key.value().len()).saturating_add(value.value().len());
                        copy.insert(key.value(), value.value()).map_err(|e| written(e.into()))?;
                        report.rows = report.rows.saturating_add(1);
                    }
                }
                txn.commit().map_err(|e| written(e.into()))?;
            }
        }
        let txn = db.begin_write().map_err(|e| written(e.into()))?;
        {
            let mut meta = txn.open_table(T::Meta.definition()).map_err(|e| written(e.into()))?;
            let epoch = meta.get(local::BOOT_EPOCH_KEY).map_err(|e| written(e.into()))?;
            let epoch = epoch.and_then(|row| number(row.value())).unwrap_or(0);
            let ahead = epoch.saturating_add(u64::from(EPOCHS_AHEAD)).to_be_bytes();
            meta.insert(local::BOOT_EPOCH_KEY, ahead.as_slice()).map_err(|e| written(e.into()))?;
        }
        txn.commit().map_err(|e| written(e.into()))?;
        db.close().map_err(|e| written(e.into()))?;
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        report.bytes = report.bytes.saturating_add(bytes);
        sync_dir(partial)?;
        Ok(report)
    }
}

/// Copies the files of a directory, and of those in it, that the copy does not have yet.
fn copy_files(from: &Path, to: &Path, but: &[&str], report: &mut BackupReport) -> Result<()> {
    const DOING: &str = "copying files for a backup";
    for entry in fs::read_dir(from).map_err(|e| StoreError::of_io(DOING, from, e))? {
        let entry = entry.map_err(|e| StoreError::of_io(DOING, from, e))?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if but.contains(&&*text) || text.ends_with(".tmp") || text.starts_with("store.redb") {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type().map_err(|e| StoreError::of_io(DOING, &source, e))?;
        if kind.is_dir() {
            create_private_dir(&target)?;
            copy_files(&source, &target, &[], report)?;
        } else if kind.is_file() && !target.exists() {
            match copy_file(&source, &target) {
                Ok(bytes) => {
                    report.files = report.files.saturating_add(1);
                    report.bytes = report.bytes.saturating_add(bytes);
                }
                // A content whose message has ended meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::of_io(DOING, &source, e)),
            }
        }
    }
    sync_dir(to)
}

/// With its mode; durable.
fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let bytes = fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    Ok(bytes)
}
