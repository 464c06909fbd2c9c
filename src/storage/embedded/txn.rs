//! One batch in the making: every change goes through here, so that each leaves its before-image
//! in a journal and sealed rows are counted by the hour of their key.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::Path,
};

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::tables::{Fields, T, join, number};
use crate::storage::{
    error::StoreError,
    ops::HeldSummary,
    row_seal::{KeyHour, RowKeys, RowPlace, hour_of},
};

type Result<V, E = StoreError> = std::result::Result<V, E>;
type Bytes<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// Most rows kept in quarantine; the first by key makes room for a new one.
const QUARANTINE_ROWS_MAX: u64 = 1024;

/// What a row was before the batch touched it.
#[derive(Debug)]
pub(super) struct Before {
    table: T,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Heads of the sequences and the number of the batch, one row of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heads {
    /// Grows by one with each commit: tells whether a commit that reported an error is there.
    pub(super) batch: u64,
    pub(super) outbox_seq: u64,
    pub(super) inbox_seq: u64,
    pub(super) held_seq: u64,
}

impl Heads {
    pub(super) const KEY: &'static [u8] = b"heads";

    pub(super) fn encode(&self) -> Vec<u8> {
        [self.batch, self.outbox_seq, self.inbox_seq, self.held_seq]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut f = Fields(row);
        let heads = Self { batch: f.u64()?, outbox_seq: f.u64()?, inbox_seq: f.u64()?, held_seq: f.u64()? };
        f.rest().is_empty().then_some(heads)
    }
}

/// What a batch leaves behind, ready to be committed.
pub(super) struct Finished {
    pub(super) journal: Vec<Before>,
    pub(super) heads: Heads,
    /// Rows under the keys whose use changed.
    pub(super) key_rows: Vec<(KeyHour, u64)>,
}

/// The tables of one write transaction.
pub(super) struct Txn<'t> {
    engine: &'t WriteTransaction,
    /// Opened at their first use: most batches touch a few of them.
    tables: Vec<OnceCell<Bytes<'t>>>,
    journal: Vec<Before>,
    refs: BTreeMap<KeyHour, i64>,
    /// Running totals the batch touched; written once, at its end.
    totals: BTreeMap<Vec<u8>, HeldSummary>,
    row_keys: &'t RowKeys,
    hour: KeyHour,
    path: &'t Path,
    pub(super) heads: Heads,
}

impl<'t> Txn<'t> {
    /// Begins a batch. New rows are sealed under the key of `hour`.
    pub(super) fn open(
        engine: &'t WriteTransaction,
        row_keys: &'t RowKeys,
        hour: KeyHour,
        heads: Heads,
        path: &'t Path,
    ) -> Self {
        let tables = T::ALL.iter().map(|_| OnceCell::new()).collect();
        let (journal, refs, totals) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { engine, tables, journal, refs, totals, row_keys, hour, path, heads }
    }

    /// Opens every table, creating what is missing, and with it whatever is no table of this format.
    pub(super) fn open_all(&self) -> Result<()> {
        T::ALL.iter().try_for_each(|t| self.table(*t).map(drop))
    }

    /// True if anything was changed.
    pub(super) fn is_dirty(&self) -> bool {
        !self.journal.is_empty()
    }

    pub(super) fn get(&self, t: T, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let row = self.table(t)?.get(key).map_err(|e| self.failed("reading a row", e))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    pub(super) fn has(&self, t: T, key: &[u8]) -> Result<bool> {
        let row = self.table(t)?.get(key).map_err(|e| self.failed("reading a row", e))?;
        Ok(row.is_some())
    }

    pub(super) fn rows(&self, t: T) -> Result<u64> {
        self.table(t)?.len().map_err(|e| self.failed("counting rows", e))
    }

    /// True if this batch looked at the inbox.
    pub(super) fn touches_inbox(&self) -> bool {
        let is_open = |t: T| self.tables.get(t.index()).is_some_and(|table| table.get().is_some());
        is_open(T::Inbox) || is_open(T::InboxEarly) || is_open(T::InboxRequest)
    }

    /// Messages in the inbox, the early ones and those among them whose source is not accepted.
    pub(super) fn inbox_messages(&self) -> Result<u64> {
        let waiting = self.rows(T::InboxEarly)?.saturating_add(self.rows(T::InboxRequest)?);
        Ok(self.rows(T::Inbox)?.saturating_add(waiting))
    }

    /// Shows `visit` the rows between two bounds in key order until it breaks off.
    pub(super) fn scan(
        &self,
        t: T,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let range = self.table(t)?.range::<&[u8]>((from, to)).map_err(|e| self.failed("reading rows", e))?;
        for row in range {
            let (key, value) = row.map_err(|e| self.failed("reading rows", e))?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Writes a row; returns what it replaced.
    pub(super) fn put(&mut self, t: T, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = self.path;
        let old = self
            .table_mut(t)?
            .insert(key, value)
            .map_err(|e| engine_error(path, "writing a row", e))?
            .map(|old| old.value().to_vec());
        self.journal.push(Before { table: t, key: key.to_vec(), value: old.clone() });
        Ok(old)
    }

    /// Removes a row; returns it.
    pub(super) fn remove(&mut self, t: T, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = self.path;
        let old = self
            .table_mut(t)?
            .remove(key)
            .map_err(|e| engine_error(path, "removing a row", e))?
            .map(|old| old.value().to_vec());
        if old.is_some() {
            self.journal.push(Before { table: t, key: key.to_vec(), value: old.clone() });
        }
        Ok(old)
    }

    /// Writes `header` and `plain` as one row, `plain` sealed.
    pub(super) fn put_sealed(&mut self, t: T, key: &[u8], header: &[u8], plain: &[u8]) -> Result<()> {
        let sealed = self.row_keys.seal(self.hour, RowPlace { table: t.name(), key, header }, plain)?;
        let old = self.put(t, key, &[header, &sealed].concat())?;
        self.count(old.as_deref(), header.len(), -1);
        *self.refs.entry(self.hour).or_default() += 1;
        Ok(())
    }

    /// Removes a row with a sealed part after `header_bytes`; returns it still sealed.
    pub(super) fn remove_sealed(&mut self, t: T, key: &[u8], header_bytes: usize) -> Result<Option<Vec<u8>>> {
        let old = self.remove(t, key)?;
        self.count(old.as_deref(), header_bytes, -1);
        Ok(old)
    }

    /// Opens the sealed part of a row; `None` if it does not open.
    pub(super) fn unseal(&self, t: T, key: &[u8], row: &[u8], header_bytes: usize) -> Option<Vec<u8>> {
        let (header, sealed) = row.split_at_checked(header_bytes)?;
        self.row_keys.unseal(RowPlace { table: t.name(), key, header }, sealed).ok()
    }

    /// Keeps a damaged row out of the way and on record. It was removed from its table already.
    pub(super) fn quarantine(&mut self, t: T, key: &[u8], row: &[u8]) -> Result<()> {
        if self.rows(T::Quarantine)? >= QUARANTINE_ROWS_MAX {
            let mut first = None;
            self.scan(T::Quarantine, Bound::Unbounded, Bound::Unbounded, |key, _| {
                first = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
            if let Some(first) = first {
                self.remove(T::Quarantine, &first)?;
            }
        }
        self.put(T::Quarantine, &[&[t as u8], key].concat(), row)?;
        Ok(())
    }

    /// The running total under `key`.
    pub(super) fn total(&self, key: &[u8]) -> Result<HeldSummary> {
        if let Some(held) = self.totals.get(key) {
            return Ok(*held);
        }
        let Some(row) = self.get(T::HeldTotal, key)? else { return Ok(HeldSummary::default()) };
        let mut f = Fields(&row);
        let held = f.u64().zip(f.u64()).map(|(rows, bytes)| HeldSummary { rows, bytes });
        held.ok_or_else(|| self.corrupt(T::HeldTotal, "a total is too short"))
    }

    /// Sets the running total under `key`; zero rows remove it.
    pub(super) fn set_total(&mut self, key: Vec<u8>, held: HeldSummary) {
        self.totals.insert(key, held);
    }

    /// Writes the running totals, so that the table shows what the batch did so far.
    pub(super) fn write_totals(&mut self) -> Result<()> {
        for (key, held) in std::mem::take(&mut self.totals) {
            if held.rows == 0 {
                self.remove(T::HeldTotal, &key)?;
            } else {
                self.put(T::HeldTotal, &key, &join(&[&held.rows.to_be_bytes(), &held.bytes.to_be_bytes()]))?;
            }
        }
        Ok(())
    }

    /// A row that contradicts another: nothing can go on from it.
    pub(super) fn corrupt(&self, t: T, detail: &str) -> StoreError {
        StoreError::Corrupt { path: self.path.to_owned(), detail: format!("table {}: {detail}", t.name()) }
    }

    /// Writes what the batch gathered.
    pub(super) fn finish(mut self) -> Result<Finished> {
        self.write_totals()?;
        let mut key_rows = Vec::new();
        for (hour, delta) in std::mem::take(&mut self.refs) {
            let key = hour.to_be_bytes();
            let now = match self.get(T::RowKeyRefs, &key)? {
                Some(row) => number(&row).ok_or_else(|| self.corrupt(T::RowKeyRefs, "not a number"))?,
                None => 0,
            };
            let rows = now
                .checked_add_signed(delta)
                .ok_or_else(|| self.corrupt(T::RowKeyRefs, "fewer rows counted than were removed"))?;
            if rows == 0 {
                self.remove(T::RowKeyRefs, &key)?;
            } else {
                self.put(T::RowKeyRefs, &key, &rows.to_be_bytes())?;
            }
            key_rows.push((hour, rows));
        }
        self.heads.batch = self.heads.batch.saturating_add(1);
        let heads = self.heads;
        self.put(T::Meta, Heads::KEY, &heads.encode())?;
        Ok(Finished { journal: self.journal, heads, key_rows })
    }

    /// Puts every row back to what it was before the batch of `journal`, last change first.
    pub(super) fn undo(&mut self, journal: &[Before]) -> Result<()> {
        for before in journal.iter().rev() {
            match &before.value {
                Some(value) => self.put(before.table, &before.key, value)?,
                None => self.remove(before.table, &before.key)?,
            };
        }
        Ok(())
    }

    fn count(&mut self, row: Option<&[u8]>, header_bytes: usize, delta: i64) {
        if let Some(hour) = row.and_then(|row| row.get(header_bytes..)).and_then(hour_of) {
            *self.refs.entry(hour).or_default() += delta;
        }
    }

    fn table(&self, t: T) -> Result<&Bytes<'t>> {
        let none = || self.corrupt(t, "no place for it");
        let cell = self.tables.get(t.index()).ok_or_else(none)?;
        if let Some(table) = cell.get() {
            return Ok(table);
        }
        let opened = self.engine.open_table(t.definition());
        let table = opened.map_err(|e| engine_error(self.path, "opening a table", e))?;
        Ok(cell.get_or_init(|| table))
    }

    fn table_mut(&mut self, t: T) -> Result<&mut Bytes<'t>> {
        self.table(t)?;
        let path = self.path;
        let table = self.tables.get_mut(t.index()).and_then(OnceCell::get_mut);
        table.ok_or_else(|| StoreError::Corrupt {
            path: path.to_owned(),
            detail: format!("table {}: no place for it", t.name()),
        })
    }

    fn failed(&self, doing: &'static str, e: redb::StorageError) -> StoreError {
        engine_error(self.path, doing, e)
    }
}

/// Sorts an error of the engine. What is neither a full disk nor damage is fatal: after it the
/// engine refuses everything until it is opened again, and the disk's content is unknown.
pub(super) fn engine_error(path: &Path, doing: &'static str, e: impl Into<redb::Error>) -> StoreError {
    match e.into() {
        redb::Error::Io(e) => StoreError::fatal_io(doing, e),
        redb::Error::Corrupted(detail) => StoreError::Corrupt { path: path.to_owned(), detail },
        redb::Error::ValueTooLarge(got) => {
            StoreError::RowTooLarge { got, limit: crate::storage::ROW_BYTES_MAX }
        }
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned(), pid: None },
        redb::Error::UpgradeRequired(found) => StoreError::Corrupt {
            path: path.to_owned(),
            detail: format!("the engine's file format is {found}, which this version does not read"),
        },
        other => StoreError::fatal_io(doing, std::io::Error::other(other)),
    }
}
