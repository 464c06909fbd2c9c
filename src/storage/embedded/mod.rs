//! The embedded engine: one redb file, one transaction and one sync a batch.
//!
//! Why redb, why no quick-repair and how it behaves on full and failing disks was measured:
//! `docs/adr/0001-store-engine.md`.
//!
//! **Full disk.** A commit that reported ENOSPC may be durable all the same once the file is
//! opened again. Nobody was told that it happened, so it must not stand: every batch keeps the
//! before-image of each row it touches until its commit returns; after ENOSPC the file is opened
//! again, the batch's number tells whether it is there, and if so every row is put back. Until
//! that worked nothing else is done. (A process killed just then leaves rows of a batch it never
//! acknowledged, as a kill in the middle of any commit may.)
//!
//! **Failing disk.** After any other error of the file nothing is done any more: what the disk
//! holds is unknown, and only a restart may look. So it is with a failed sync of the row keys.
//!
//! **File gone.** A file that was deleted or covered by a mount goes on taking writes that nobody
//! will ever read. Each batch looks whether its file is still the one of that name before it is
//! answered.
//!
//! **Damage.** The engine panics over some damaged pages. Here that is an error with what to do, like
//! any other; the file is then left as after a crash, so that the next start verifies all of it
//! ([`guard`]).

#[cfg(any(test, feature = "testing"))]
mod any_row;
mod backend;
mod backup;
mod format;
mod guard;
mod inbox_cost;
mod local;
mod mail;
mod requests;
mod tables;
#[cfg(test)]
mod tests;
mod txn;

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, OpenOptions},
    io,
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, backends::FileBackend};
use tracing::{info, warn};

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::any_row::read_any_row;
pub use self::backup::{BackupReport, BackupSource, EPOCHS_AHEAD};
use self::{
    backend::{StoreFile, SyncMeter},
    backup::OpenDatabase,
    guard::FileId,
    mail::Admission,
    tables::{T, number},
    txn::{Before, Heads, Txn, engine_error},
};
use super::{
    data_dir::{DataDir, FILE_MODE, private_file, refuse_open_mode, sync_parent, temp_path},
    disk::Disk,
    engine::{Engine, SyncTotals, Work, WorkDone, WorkResult},
    error::StoreError,
    ops::{LocalOp, MailOp},
    quota::{InboxQuota, MailboxQuota},
    row_seal::{KeyHour, RowKeys, hour_at},
    space::{self, SpaceProbe, system_space},
};
use crate::clock;

type Result<V, E = StoreError> = std::result::Result<V, E>;

/// Cache of the engine in bytes. Half of what the design allows (32 MiB): the rest is for the
/// pages a large batch holds beyond it. Twice as much brings nothing at 2,000 messages a second nor
/// with a million held, and takes twice as long until memory is flat (`docs/performance.md`).
pub const CACHE_BYTES: usize = 16 << 20;

/// Largest file in bytes of which every page is verified at each start, not only after a crash. As
/// much as is read in a fraction of a second; what a million messages take would be seconds.
const VERIFIED_BYTES_MAX: u64 = 64 << 20;

/// Opens the file under the engine. A function, so that a test can put a failing disk there.
pub type OpenFile = Arc<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// What the embedded store can be told.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Quotas of what is held for others.
    pub quota: MailboxQuota,
    /// Quotas of the inbox.
    pub inbox_quota: InboxQuota,
    /// Cache of the engine in bytes.
    pub cache_bytes: usize,
    /// Wall-clock seconds since 1970; names the row key of the hour, nothing else.
    pub clock_unix_s: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Asks for free space.
    pub space: SpaceProbe,
    /// Opens the engine's file.
    pub open_file: OpenFile,
    /// Where the row keys are written.
    pub disk: Disk,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            quota: MailboxQuota::default(),
            inbox_quota: InboxQuota::default(),
            cache_bytes: CACHE_BYTES,
            clock_unix_s: Arc::new(clock::unix_s),
            space: Arc::new(system_space),
            open_file: Arc::new(open_system_file),
            disk: Disk::default(),
        }
    }
}

impl fmt::Debug for EmbeddedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedOptions")
            .field("quota", &self.quota)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

/// The embedded store of one data directory. Blocking; lives on the store's thread.
pub struct EmbeddedStore {
    /// Held so that nobody else opens the directory while this lives.
    dir: Arc<DataDir>,
    path: PathBuf,
    options: EmbeddedOptions,
    meter: Arc<SyncMeter>,
    row_keys: RowKeys,
    /// Hours whose key no row needs; destroyed once the hour is over.
    unreferenced: BTreeSet<KeyHour>,
    boot_epoch: u32,
    /// `None` from a failure until the file is open again.
    db: Option<Arc<Database>>,
    /// The same, for whoever copies it meanwhile.
    open: OpenDatabase,
    heads: Heads,
    /// Of the last commit.
    inbox_messages: u64,
    /// A batch that reported ENOSPC and may stand: its number and how to put its rows back.
    doubtful: Option<(u64, Vec<Before>)>,
    /// Which file it is that was opened.
    file: FileId,
    /// Set for good by a failure after which the disk's content is unknown.
    dead: Option<StoreError>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.path)
            .field("boot_epoch", &self.boot_epoch)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store of `dir`, creating or upgrading it, and starts a new boot epoch. After a
    /// crash this reads the whole file once.
    ///
    /// # Errors
    /// [`StoreError`] with what stands in the way; an existing store is unchanged then.
    pub fn open(dir: Arc<DataDir>, options: EmbeddedOptions) -> Result<Self> {
        Self::open_with(dir, options, &format::PLAN)
    }

    fn open_with(dir: Arc<DataDir>, options: EmbeddedOptions, plan: &format::Plan) -> Result<Self> {
        let path = dir.store_path();
        guard::no_panic(&path, || Self::open_guarded(dir, options, plan))
    }

    fn open_guarded(dir: Arc<DataDir>, options: EmbeddedOptions, plan: &format::Plan) -> Result<Self> {
        let path = dir.store_path();
        let meter = Arc::new(SyncMeter::default());
        let row_keys = RowKeys::open_on(options.disk.clone(), &dir.row_keys_path())?;
        if path.exists() {
            refuse_open_mode(&path, FILE_MODE)?;
        } else {
            create(&path, &options, &meter, &row_keys, plan)?;
        }
        let mut db = open_verified(&path, &options, &meter)?;
        let found = format::found(&db, &path)?;
        if found != plan.current {
            plan.refuse_foreign(found, &path)?;
            drop(db);
            format::back_up(&path, found)?;
            db = open_database(&path, &options, &meter)?;
            plan.upgrade(&db, found, &path)?;
            info!(from = found, to = plan.current, "upgraded the store's format");
        }
        let file = FileId::of(&path)?;
        let mut store = Self {
            dir,
            path,
            options,
            meter,
            row_keys,
            unreferenced: BTreeSet::new(),
            boot_epoch: 0,
            db: None,
            open: OpenDatabase::default(),
            heads: Heads::default(),
            inbox_messages: 0,
            doubtful: None,
            file,
            dead: None,
        };
        store.start(&db)?;
        store.set_database(Some(db));
        store.reconcile_row_keys()?;
        Ok(store)
    }

    /// Counts this start, and creates tables that came without a new format.
    fn start(&mut self, db: &Database) -> Result<()> {
        let path = self.path.clone();
        let txn = db.begin_write().map_err(|e| engine_error(&path, "opening the store", e))?;
        let mut rows = Txn::open(&txn, &self.row_keys, self.hour(), Heads::default(), &path);
        rows.open_all()?;
        let heads = rows.get(T::Meta, Heads::KEY)?.as_deref().and_then(Heads::decode);
        rows.heads = heads.ok_or_else(|| rows.corrupt(T::Meta, "the heads are unreadable"))?;
        let epoch =
            local::boot_epoch(&rows)?.checked_add(1).ok_or(StoreError::CounterExhausted("boot epoch"))?;
        rows.put(T::Meta, local::BOOT_EPOCH_KEY, &u64::from(epoch).to_be_bytes())?;
        self.inbox_messages = rows.inbox_messages()?;
        let finished = rows.finish()?;
        txn.commit().map_err(|e| engine_error(&path, "counting this start", e))?;
        self.heads = finished.heads;
        self.boot_epoch = epoch;
        Ok(())
    }

    /// Drops keys that a crash left behind, and refuses to go on without keys that rows need:
    /// setting all those rows aside as damaged would hide that a file is missing.
    fn reconcile_row_keys(&mut self) -> Result<()> {
        let path = self.path.clone();
        let db = self.database()?;
        let txn = db.begin_write().map_err(|e| engine_error(&path, "reading the store", e))?;
        let mut wanted = BTreeSet::new();
        {
            let rows = Txn::open(&txn, &self.row_keys, 0, self.heads, &path);
            rows.scan(T::RowKeyRefs, Bound::Unbounded, Bound::Unbounded, |hour, _| {
                wanted.extend(hour.try_into().map(KeyHour::from_be_bytes));
                ControlFlow::Continue(())
            })?;
        }
        txn.abort().map_err(|e| engine_error(&path, "reading the store", e))?;
        if let Some(hour) = wanted.iter().find(|hour| !self.row_keys.has(**hour)) {
            return Err(StoreError::Corrupt {
                path: self.dir.row_keys_path(),
                detail: format!(
                    "the key of hour {hour} is missing, and rows of the store are sealed under it"
                ),
            });
        }
        self.row_keys.retain(|hour| wanted.contains(&hour))?;
        Ok(())
    }

    /// Closes the file in good order. Without it the next open reads the whole file.
    ///
    /// # Errors
    /// What the engine says; everything acknowledged is durable all the same.
    pub fn close(mut self) -> Result<()> {
        self.open.set(None);
        match self.db.take().map(Arc::try_unwrap) {
            Some(Ok(db)) => db.close().map_err(|e| engine_error(&self.path, "closing the store", e)),
            // Whoever begins a copy just now closes it.
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Copies this store's data directory while it is in use.
    pub fn backup_source(&self) -> BackupSource {
        BackupSource {
            data_dir: self.dir.path().to_owned(),
            open: self.open.clone(),
            options: self.options.clone(),
        }
    }

    fn set_database(&mut self, db: Option<Database>) {
        self.db = db.map(Arc::new);
        self.open.set(self.db.as_ref());
    }

    fn hour(&self) -> KeyHour {
        hour_at((self.options.clock_unix_s)())
    }

    fn database(&self) -> Result<&Database> {
        self.db.as_deref().ok_or(StoreError::Stopped)
    }

    /// Applies and commits; an error leaves the rows as they were or the engine in need of
    /// [`EmbeddedStore::settle`].
    fn write(&mut self, works: &[Work], refused: Option<&StoreError>) -> Result<Vec<WorkResult>> {
        let hour = self.hour();
        if works.iter().any(seals) && !self.row_keys.has(hour) {
            self.row_keys.ensure(hour)?;
            self.unreferenced.insert(hour);
        }
        let path = self.path.clone();
        let db = self.db.as_ref().ok_or(StoreError::Stopped)?;
        let txn = db.begin_write().map_err(|e| engine_error(&path, "starting a batch", e))?;
        let mut rows = Txn::open(&txn, &self.row_keys, hour, self.heads, &path);
        let admission = Admission { quota: &self.options.quota, refused };
        let mut results = Vec::with_capacity(works.len());
        for work in works {
            results.push(match admit(work, refused) {
                Ok(()) => Ok(apply(&mut rows, work, &self.options.inbox_quota, &admission)?),
                Err(e) => Err(e),
            });
        }
        if !rows.is_dirty() {
            drop(rows);
            txn.abort().map_err(|e| engine_error(&path, "reading the store", e))?;
            return Ok(results);
        }
        let inbox_messages = match rows.touches_inbox() {
            true => rows.inbox_messages()?,
            false => self.inbox_messages,
        };
        let finished = rows.finish()?;
        if let Err(e) = txn.commit() {
            self.doubtful = Some((finished.heads.batch, finished.journal));
            return Err(engine_error(&path, "committing a batch", e));
        }
        self.heads = finished.heads;
        self.inbox_messages = inbox_messages;
        for (hour, rows) in finished.key_rows {
            if rows == 0 {
                self.unreferenced.insert(hour);
            } else {
                self.unreferenced.remove(&hour);
            }
        }
        Ok(results)
    }

    /// Opens the file again after ENOSPC and puts back what of the failed batch is there.
    fn settle(&mut self) -> Result<()> {
        if self.db.is_some() {
            return Ok(());
        }
        let path = self.path.clone();
        let failed = |doing, e: redb::Error| engine_error(&path, doing, e);
        let db = open_database(&path, &self.options, &self.meter)?;
        let txn = db.begin_write().map_err(|e| failed("opening the store again", e.into()))?;
        let mut rows = Txn::open(&txn, &self.row_keys, 0, Heads::default(), &path);
        let row = rows.get(T::Meta, Heads::KEY)?.unwrap_or_default();
        let mut heads =
            Heads::decode(&row).ok_or_else(|| rows.corrupt(T::Meta, "the heads are unreadable"))?;
        match &self.doubtful {
            Some((batch, journal)) if *batch == heads.batch => {
                rows.undo(journal)?;
                rows.heads = Heads { batch: *batch, ..self.heads };
                heads = rows.finish()?.heads;
                txn.commit().map_err(|e| failed("undoing a refused batch", e.into()))?;
                warn!(batch, "a batch refused for lack of space was on the disk and was taken back");
            }
            _ => {
                drop(rows);
                txn.abort().map_err(|e| failed("opening the store again", e.into()))?;
            }
        }
        self.doubtful = None;
        self.heads = heads;
        self.set_database(Some(db));
        Ok(())
    }

    /// Destroys keys nothing needs. A failure that is not fatal costs only time: it is tried again.
    fn destroy_unreferenced(&mut self) -> Result<()> {
        let hour = self.hour();
        let gone: BTreeSet<KeyHour> = self.unreferenced.iter().copied().filter(|h| *h != hour).collect();
        if gone.is_empty() {
            return Ok(());
        }
        match self.row_keys.retain(|hour| !gone.contains(&hour)) {
            Ok(_) => self.unreferenced.retain(|hour| !gone.contains(hour)),
            Err(e) if e.is_fatal() => return Err(e),
            Err(e) => warn!(error = %e, "row keys of removed messages could not be destroyed yet"),
        }
        Ok(())
    }

    /// A batch, and what has to hold before it is answered.
    fn commit_settled(&mut self, works: &[Work]) -> Result<Vec<WorkResult>> {
        self.settle()?;
        let refused = space::check(&self.options.space, &self.path).err();
        let results = self.write(works, refused.as_ref())?;
        self.destroy_unreferenced()?;
        self.file.is_still(&self.path)?;
        Ok(results)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // The way of copies to the file must not keep it open.
        self.open.set(None);
    }
}

impl Engine for EmbeddedStore {
    fn commit(&mut self, works: &[Work]) -> Result<Vec<WorkResult>> {
        if let Some(e) = &self.dead {
            return Err(e.clone());
        }
        let path = self.path.clone();
        match guard::no_panic(&path, || self.commit_settled(works)) {
            Ok(results) => Ok(results),
            Err(e) if e.is_fatal() => {
                self.set_database(None);
                self.dead = Some(e.clone());
                Err(e)
            }
            Err(e @ StoreError::NoSpace { .. }) => {
                // The engine refuses everything after an error of its file; try to go on at once,
                // else with the next batch.
                self.set_database(None);
                if let Err(again) = guard::no_panic(&path, || self.settle())
                    && again.is_fatal()
                {
                    self.dead = Some(again.clone());
                    return Err(again);
                }
                Err(e)
            }
            Err(e) => Err(e),
        }
    }

    fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    fn synced(&self) -> SyncTotals {
        self.meter.totals()
    }

    fn inbox_messages(&self) -> u64 {
        self.inbox_messages
    }
}

/// True if any operation writes a sealed row.
fn seals(work: &Work) -> bool {
    match work {
        Work::Local(ops) => ops.iter().any(|op| match op {
            LocalOp::OutboxPut(_)
            | LocalOp::InboxCommit(_)
            | LocalOp::EarlyRelease { .. }
            | LocalOp::FileCommit { .. }
            | LocalOp::PartialOpen { .. }
            | LocalOp::PartialPut(_) => true,
            LocalOp::KvPut { namespace, .. } => namespace.is_sealed(),
            _ => false,
        }),
        Work::Mail(ops) => ops.iter().any(|op| matches!(op, MailOp::Hold(_))),
    }
}

/// Refuses a submission as a whole before any of it happens. What is held for others is refused
/// row by row instead.
fn admit(work: &Work, refused: Option<&StoreError>) -> Result<()> {
    match work {
        Work::Local(ops) => {
            ops.iter().try_for_each(LocalOp::check_size)?;
            match refused {
                Some(e) if ops.iter().any(LocalOp::grows) => Err(e.clone()),
                _ => Ok(()),
            }
        }
        Work::Mail(ops) => ops.iter().try_for_each(MailOp::check_size),
    }
}

fn apply(rows: &mut Txn<'_>, work: &Work, inbox: &InboxQuota, admission: &Admission<'_>) -> Result<WorkDone> {
    Ok(match work {
        Work::Local(ops) => {
            WorkDone::Local(ops.iter().map(|op| local::apply(rows, op, inbox)).collect::<Result<_>>()?)
        }
        Work::Mail(ops) => {
            WorkDone::Mail(ops.iter().map(|op| mail::apply(rows, op, admission)).collect::<Result<_>>()?)
        }
    })
}

/// Creates a store under another name and gives it its own when it is whole: the engine cannot
/// open what a crash left of a creation, and nobody should have to remove that by hand. The
/// directory is synced because the engine does not: a power cut could take the whole new file.
fn create(
    path: &Path,
    options: &EmbeddedOptions,
    meter: &Arc<SyncMeter>,
    row_keys: &RowKeys,
    plan: &format::Plan,
) -> Result<()> {
    const DOING: &str = "creating the store";
    let temp = temp_path(path);
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::of_io(DOING, temp, e)),
        _ => {}
    }
    let db = open_database(&temp, options, meter)?;
    let txn = db.begin_write().map_err(|e| engine_error(&temp, DOING, e))?;
    let mut rows = Txn::open(&txn, row_keys, 0, Heads::default(), &temp);
    rows.open_all()?;
    rows.put(T::Meta, format::KEY, &u64::from(plan.current).to_be_bytes())?;
    rows.finish()?;
    txn.commit().map_err(|e| engine_error(&temp, DOING, e))?;
    db.close().map_err(|e| engine_error(&temp, DOING, e))?;
    fs::rename(&temp, path).map_err(|e| StoreError::of_io(DOING, path, e))?;
    sync_parent(path)
}

fn open_system_file(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = private_file(&mut options).open(path)?;
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

/// Opens a store that somebody may have altered since: what a copy left out, a disk forgot or a person
/// did. The engine itself reads all of a file only where it was not closed in good order.
fn open_verified(path: &Path, options: &EmbeddedOptions, meter: &Arc<SyncMeter>) -> Result<Database> {
    let bytes = fs::metadata(path).map_err(|e| StoreError::of_io("opening the store", path, e))?.len();
    let mut builder = Builder::new();
    builder.set_check_integrity_on_open(bytes <= VERIFIED_BYTES_MAX);
    open_with(&mut builder, path, options, meter)
}

fn open_database(path: &Path, options: &EmbeddedOptions, meter: &Arc<SyncMeter>) -> Result<Database> {
    open_with(&mut Builder::new(), path, options, meter)
}

fn open_with(
    builder: &mut Builder,
    path: &Path,
    options: &EmbeddedOptions,
    meter: &Arc<SyncMeter>,
) -> Result<Database> {
    let file = (options.open_file)(path).map_err(|e| StoreError::of_io("opening the store", path, e))?;
    let opened = builder
        .set_cache_size(options.cache_bytes)
        .create_with_backend(StoreFile::new(file, Arc::clone(meter)));
    opened.map_err(|e| match e {
        redb::DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
            StoreError::Corrupt { path: path.to_owned(), detail: "it is no store of this program".to_owned() }
        }
        other => engine_error(path, "opening the store", other),
    })
}

/// The number in row `key` of `meta`, without opening any other table.
fn meta_number(db: &Database, key: &[u8], path: &Path) -> Result<Option<u64>> {
    let failed = |e: redb::Error| engine_error(path, "reading the store's format", e);
    let txn = db.begin_read().map_err(|e| failed(e.into()))?;
    let table = match txn.open_table(T::Meta.definition()) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(failed(e.into())),
    };
    let row = redb::ReadableTable::get(&table, key).map_err(|e| failed(e.into()))?;
    match row {
        Some(row) => number(row.value()).map(Some).ok_or_else(|| StoreError::Corrupt {
            path: path.to_owned(),
            detail: "a row of its meta table is no number".to_owned(),
        }),
        None => Ok(None),
    }
}
