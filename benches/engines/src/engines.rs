//! The engines behind one face.

use std::path::Path;

use fjall::{KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, TableDefinition};

use crate::Result;

/// Names [`open`] knows.
pub const ENGINES: [&str; 4] = ["redb", "redb quick-repair", "fjall", "sqlite"];

/// Cache each may have, in bytes.
const CACHE_BYTES: usize = 16 << 20;

pub struct Message {
    pub key: [u8; 24],
    pub id: [u8; 16],
    pub body: Vec<u8>,
}

pub trait Engine {
    /// Stores all of them or none; durable when it returns.
    fn commit(&mut self, messages: &[Message]) -> Result<()>;
    fn has(&mut self, message: &Message) -> Result<bool>;
    fn close(self: Box<Self>) -> Result<()>;
}

pub fn open(engine: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match engine {
        "redb" => Box::new(Redb::open(dir, false)?),
        "redb quick-repair" => Box::new(Redb::open(dir, true)?),
        "fjall" => Box::new(Fjall::open(dir)?),
        "sqlite" => Box::new(Sqlite::open(dir)?),
        other => return Err(format!("no engine {other}").into()),
    })
}

// ---- redb --------------------------------------------------------------------------------------

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const IDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("ids");

struct Redb {
    db: redb::Database,
    quick_repair: bool,
}

impl Redb {
    fn open(dir: &Path, quick_repair: bool) -> Result<Self> {
        let db = redb::Builder::new().set_cache_size(CACHE_BYTES).create(dir.join("db.redb"))?;
        let txn = db.begin_write()?;
        txn.open_table(ROWS)?;
        txn.open_table(IDS)?;
        txn.commit()?;
        Ok(Self { db, quick_repair })
    }
}

impl Engine for Redb {
    fn commit(&mut self, messages: &[Message]) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(self.quick_repair);
        {
            let (mut rows, mut ids) = (txn.open_table(ROWS)?, txn.open_table(IDS)?);
            for m in messages {
                rows.insert(m.key.as_slice(), m.body.as_slice())?;
                ids.insert(m.id.as_slice(), m.key.as_slice())?;
            }
        }
        Ok(txn.commit()?)
    }

    fn has(&mut self, m: &Message) -> Result<bool> {
        let ids = self.db.begin_read()?.open_table(IDS)?;
        Ok(ids.get(m.id.as_slice())?.is_some())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.close()?)
    }
}

// ---- fjall -------------------------------------------------------------------------------------

struct Fjall {
    db: fjall::Database,
    rows: fjall::Keyspace,
    ids: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Result<Self> {
        let db = fjall::Database::builder(dir.join("db")).cache_size(CACHE_BYTES as u64).open()?;
        let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
        let ids = db.keyspace("ids", KeyspaceCreateOptions::default)?;
        Ok(Self { db, rows, ids })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, messages: &[Message]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for m in messages {
            batch.insert(&self.rows, m.key, m.body.as_slice());
            batch.insert(&self.ids, m.id, m.key);
        }
        Ok(batch.commit()?)
    }

    fn has(&mut self, m: &Message) -> Result<bool> {
        Ok(self.ids.contains_key(m.id)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

// ---- SQLite ------------------------------------------------------------------------------------

struct Sqlite {
    db: rusqlite::Connection,
}

impl Sqlite {
    fn open(dir: &Path) -> Result<Self> {
        let db = rusqlite::Connection::open(dir.join("db.sqlite"))?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        // Negative: KiB.
        db.pragma_update(None, "cache_size", -(CACHE_BYTES as i64 / 1024))?;
        db.execute_batch(
            "create table if not exists rows (key blob primary key, body blob) without rowid;
             create table if not exists ids (id blob primary key, key blob) without rowid;",
        )?;
        Ok(Self { db })
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, messages: &[Message]) -> Result<()> {
        let txn = self.db.transaction()?;
        {
            let mut rows = txn.prepare_cached("insert or replace into rows values (?, ?)")?;
            let mut ids = txn.prepare_cached("insert or replace into ids values (?, ?)")?;
            for m in messages {
                rows.execute((m.key.as_slice(), m.body.as_slice()))?;
                ids.execute((m.id.as_slice(), m.key.as_slice()))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn has(&mut self, m: &Message) -> Result<bool> {
        let mut stmt = self.db.prepare_cached("select 1 from ids where id = ?")?;
        Ok(stmt.exists([m.id.as_slice()])?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.close().map_err(|(_, e)| e.into())
    }
}
