//! Which version of the disk format a store has, and how an older one becomes the current one.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use redb::{Database, WriteTransaction};

use super::{meta_number, tables::T, txn::engine_error};
use crate::storage::{
    data_dir::{private_file, sync_parent, temp_path},
    error::StoreError,
};

type Result<V> = std::result::Result<V, StoreError>;

/// Key of the format in `meta`.
pub(super) const KEY: &[u8] = b"format";

/// The formats this version knows: it writes 2. Format 1 was in no release, and no way leads from it.
pub(super) const PLAN: Plan = Plan { current: 2, steps: &[] };

/// Rewrites tables from one format to the next, inside the transaction that also records it.
pub(super) type Step = fn(&WriteTransaction) -> Result<()>;

/// A current format and the steps that lead to it.
pub(super) struct Plan {
    pub(super) current: u32,
    /// Each with the format it starts from.
    pub(super) steps: &'static [(u32, Step)],
}

/// The format of an opened store.
pub(super) fn found(db: &Database, path: &Path) -> Result<u32> {
    let found = meta_number(db, KEY, path)?.ok_or_else(|| StoreError::Corrupt {
        path: path.to_owned(),
        detail: "it has no format record: it is no store of this program".to_owned(),
    })?;
    // A number this large was written by nobody yet, so whoever did is newer.
    Ok(u32::try_from(found).unwrap_or(u32::MAX))
}

/// Copies a closed store to `store.redb.format-N`. Its rows open only as long as the row keys of
/// their hours exist: the copy is a way back right after an upgrade, not an archive.
pub(super) fn back_up(path: &Path, found: u32) -> Result<()> {
    let backup = backup_path(path, found);
    let temp = temp_path(&backup);
    let copied = (|| {
        let mut from = File::open(path)?;
        let mut to = private_file(OpenOptions::new().write(true).create(true).truncate(true)).open(&temp)?;
        std::io::copy(&mut from, &mut to)?;
        to.sync_all()?;
        fs::rename(&temp, &backup)
    })();
    if let Err(e) = copied {
        let _ = fs::remove_file(&temp);
        return Err(StoreError::of_io("backing up the store before an upgrade", backup, e));
    }
    sync_parent(&backup)
}

/// Where the copy of a store of format `found` goes.
pub(super) fn backup_path(path: &Path, found: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".format-{found}"));
    path.with_file_name(name)
}

impl Plan {
    /// Refuses a store that a newer version wrote, or one so old that no steps lead from it.
    pub(super) fn refuse_foreign(&self, found: u32, path: &Path) -> Result<()> {
        if found > self.current {
            return Err(StoreError::NewerFormat { path: path.to_owned(), found, known: self.current });
        }
        match (found..self.current).find(|at| !self.steps.iter().any(|(from, _)| from == at)) {
            Some(at) => Err(self.too_old(at, path)),
            None => Ok(()),
        }
    }

    fn too_old(&self, found: u32, path: &Path) -> StoreError {
        StoreError::OlderFormat { path: path.to_owned(), found, current: self.current }
    }

    /// Takes a store of format `found` to the current one, all of it in one transaction.
    pub(super) fn upgrade(&self, db: &Database, found: u32, path: &Path) -> Result<()> {
        const DOING: &str = "upgrading the store";
        let txn = db.begin_write().map_err(|e| engine_error(path, DOING, e))?;
        let mut at = found;
        while at < self.current {
            let step = self.steps.iter().find(|(from, _)| *from == at).map(|(_, step)| step);
            step.ok_or_else(|| self.too_old(at, path))?(&txn)?;
            at = at.saturating_add(1);
        }
        {
            let mut meta = txn.open_table(T::Meta.definition()).map_err(|e| engine_error(path, DOING, e))?;
            let row = u64::from(self.current).to_be_bytes();
            meta.insert(KEY, row.as_slice()).map_err(|e| engine_error(path, DOING, e))?;
        }
        txn.commit().map_err(|e| engine_error(path, DOING, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{
        DataDir, EmbeddedOptions, EmbeddedStore, Engine, LocalOp, LocalOutcome, Namespace, Work, WorkDone,
    };

    fn add_a_contact(txn: &WriteTransaction) -> Result<()> {
        let mut kv = txn.open_table(T::Kv.definition()).unwrap();
        kv.insert([Namespace::Contact as u8, b'x'].as_slice(), b"from the upgrade".as_slice()).unwrap();
        Ok(())
    }

    fn fail(_: &WriteTransaction) -> Result<()> {
        Err(StoreError::Stopped)
    }

    const NEXT: Plan = Plan { current: 3, steps: &[(2, add_a_contact)] };
    const BROKEN: Plan = Plan { current: 3, steps: &[(2, fail)] };

    fn open(dir: &Path, plan: &Plan) -> Result<EmbeddedStore> {
        EmbeddedStore::open_with(DataDir::open(&dir.join("d"))?.into(), EmbeddedOptions::default(), plan)
    }

    fn contact(store: &mut EmbeddedStore) -> Option<Vec<u8>> {
        let op = LocalOp::KvGet { namespace: Namespace::Contact, key: b"x".to_vec() };
        match store.commit(&[Work::Local(vec![op])]).unwrap().remove(0).unwrap() {
            WorkDone::Local(mut outcomes) => match outcomes.remove(0) {
                LocalOutcome::Value(value) => value,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_older_store_is_copied_and_upgraded_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &PLAN).unwrap());
        let mut upgraded = open(dir.path(), &NEXT).unwrap();
        assert_eq!(contact(&mut upgraded).unwrap(), b"from the upgrade");
        drop(upgraded);

        let e = open(dir.path(), &PLAN).unwrap_err();
        assert!(matches!(e, StoreError::NewerFormat { found: 3, known: 2, .. }), "{e:?}");

        // The copy is a store of the old format, whole.
        let path = dir.path().join("d/store.redb");
        fs::rename(backup_path(&path, 2), &path).unwrap();
        assert_eq!(contact(&mut open(dir.path(), &PLAN).unwrap()), None);
    }

    #[test]
    fn a_failed_upgrade_leaves_the_old_store() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &PLAN).unwrap());
        open(dir.path(), &BROKEN).unwrap_err();
        open(dir.path(), &PLAN).unwrap();
    }

    #[test]
    fn a_format_without_a_way_up_is_refused_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &PLAN).unwrap());
        let e = open(dir.path(), &Plan { current: 4, steps: &[(3, add_a_contact)] }).unwrap_err();
        assert!(matches!(e, StoreError::OlderFormat { found: 2, current: 4, .. }), "{e:?}");
        assert!(!backup_path(&dir.path().join("d/store.redb"), 2).exists(), "copied for nothing");
    }
}
