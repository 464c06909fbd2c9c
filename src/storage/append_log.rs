//! A small journal that people can read: one JSON object a line, in the order of writing.
//!
//! For what is good to know and not promised: it is written without a sync, so a power cut may take
//! its last lines, and a line that such a cut tore is dropped when it is opened again. Nothing else
//! is ever damaged by it. It is bounded: once it is larger than its limit, its older half goes, by a
//! new file that takes the place of the old one whole.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    data_dir::{FILE_MODE, private_file, refuse_open_mode, sync_parent, write_atomic},
    error::StoreError,
};

/// Longest line that is read back; what is longer is none of ours.
pub(crate) const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A journal of one process.
pub struct AppendLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl fmt::Debug for AppendLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendLog")
            .field("path", &self.path)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl AppendLog {
    /// Opens the journal at `path`, or creates it (mode 0600), and cuts off a torn last line. It is
    /// kept below `bytes_max`.
    ///
    /// # Errors
    /// What the file system says; a journal that others can read.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        let failed = |e| StoreError::of_io("opening a journal", path, e);
        let is_new = !path.exists();
        let mut file = private_file(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(path)
            .map_err(failed)?;
        if is_new {
            sync_parent(path)?;
        } else {
            refuse_open_mode(path, FILE_MODE)?;
        }
        let bytes = whole_lines(&mut file).map_err(failed)?;
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    /// Writes entries with one write: all of them, or none where the disk is full.
    ///
    /// # Errors
    /// What the file system says; the journal is as it was then.
    pub fn append<T: Serialize>(&mut self, entries: &[T]) -> Result<(), StoreError> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)
                .map_err(|e| StoreError::of_io("writing a journal", &self.path, e.into()))?;
            lines.push(b'\n');
        }
        if self.bytes.saturating_add(lines.len() as u64) > self.bytes_max {
            self.drop_older_half()?;
        }
        if let Err(e) = self.file.write_all(&lines) {
            // Part of it may be there; a line that is not whole would spoil the next one.
            let _ = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
            return Err(StoreError::of_io("writing a journal", &self.path, e));
        }
        self.bytes = self.bytes.saturating_add(lines.len() as u64);
        Ok(())
    }

    /// Replaces the journal by what `keep` says of its entries; lines that are none go.
    ///
    /// # Errors
    /// What the file system says; the old journal stands then.
    pub fn compact<T: Serialize + DeserializeOwned>(
        &mut self,
        mut keep: impl FnMut(&T) -> bool,
    ) -> Result<(), StoreError> {
        let mut lines = Vec::new();
        for entry in read::<T>(&self.path)?.entries.iter().filter(|entry| keep(entry)) {
            serde_json::to_writer(&mut lines, entry)
                .map_err(|e| StoreError::of_io("compacting a journal", &self.path, e.into()))?;
            lines.push(b'\n');
        }
        self.replace(&lines)
    }

    fn drop_older_half(&mut self) -> Result<(), StoreError> {
        let all =
            fs::read(&self.path).map_err(|e| StoreError::of_io("compacting a journal", &self.path, e))?;
        let newer = all.get(all.len() / 2..).unwrap_or_default();
        // Behind the line that the middle cuts.
        let start =
            newer.iter().position(|byte| *byte == b'\n').map_or(newer.len(), |at| at.saturating_add(1));
        self.replace(newer.get(start..).unwrap_or_default())
    }

    fn replace(&mut self, lines: &[u8]) -> Result<(), StoreError> {
        write_atomic(&self.path, lines)?;
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries<T> {
    /// Its entries, oldest first.
    pub entries: Vec<T>,
    /// Lines that are no entries, among them those of other versions.
    pub unread: usize,
}

/// Reads the journal at `path`; a missing one is empty.
///
/// # Errors
/// What the file system says.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Entries<T>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Entries { entries: Vec::new(), unread: 0 });
        }
        Err(e) => return Err(StoreError::of_io("reading a journal", path, e)),
    };
    read_lines(BufReader::new(file)).map_err(|e| StoreError::of_io("reading a journal", path, e))
}

/// The entries of a journal, whatever its bytes are.
pub(crate) fn read_lines<T: DeserializeOwned>(mut reader: impl BufRead) -> io::Result<Entries<T>> {
    let mut found = Entries { entries: Vec::new(), unread: 0 };
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = Read::by_ref(&mut reader).take(LINE_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        match serde_json::from_slice(&line) {
            Ok(entry) if line.ends_with(b"\n") => found.entries.push(entry),
            _ => found.unread = found.unread.saturating_add(1),
        }
    }
}

/// Bytes up to and with the last line break.
pub(crate) fn whole_lines(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    const STEP: u64 = 4096;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end.saturating_sub(start)).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start.saturating_add(at as u64).saturating_add(1));
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(bytes_max: u64) -> (tempfile::TempDir, PathBuf, AppendLog) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let log = AppendLog::open(&path, bytes_max).unwrap();
        (dir, path, log)
    }

    fn held(path: &Path) -> Vec<u64> {
        read(path).unwrap().entries
    }

    #[test]
    fn entries_are_read_back_in_order_over_restarts() {
        let (_dir, path, mut log) = log(1 << 20);
        log.append(&[1u64, 2]).unwrap();
        drop(log);
        AppendLog::open(&path, 1 << 20).unwrap().append(&[3u64]).unwrap();
        assert_eq!(held(&path), [1, 2, 3]);
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n3\n", "and by people");
    }

    #[test]
    fn a_line_torn_anywhere_costs_itself_alone() {
        let (_dir, path, mut log) = log(1 << 20);
        let entries: Vec<String> = (0..3).map(|n| n.to_string().repeat(3000)).collect();
        log.append(&entries).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, 2999, 3002, 3003, 3004, 6006, 9008, whole.len()] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = AppendLog::open(&path, 1 << 20).unwrap();
            log.append(&["next"]).unwrap();
            let found = read::<String>(&path).unwrap();
            assert_eq!((found.entries.len(), found.unread), (cut / 3003 + 1, 0), "cut at {cut}");
            assert_eq!(found.entries.last().unwrap(), "next");
        }
    }

    #[test]
    fn lines_that_are_none_are_counted_and_passed_over() {
        let (_dir, path, mut log) = log(1 << 20);
        log.append(&[1u64]).unwrap();
        fs::write(&path, [b"1\nnonsense\n\xff\n".as_slice(), &vec![b'7'; 100_000], b"\n2\n"].concat())
            .unwrap();
        let found = read::<u64>(&path).unwrap();
        assert_eq!(found.entries, [1, 2]);
        assert!(found.unread >= 3, "{}", found.unread);
        let mut log = AppendLog::open(&path, 1 << 20).unwrap();
        log.compact(|n: &u64| *n > 1).unwrap();
        log.append(&[3u64]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2\n3\n");
    }

    #[test]
    fn it_stays_below_its_limit_and_the_newest_stay() {
        let (_dir, path, mut log) = log(1000);
        for n in 0..2000u64 {
            log.append(&[n]).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= 1000);
        }
        let held = held(&path);
        assert_eq!(held.last(), Some(&1999));
        assert!(held.len() >= 90 && held.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{held:?}");
    }

    #[cfg(unix)]
    #[test]
    fn it_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, path, log) = log(1000);
        drop(log);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(AppendLog::open(&path, 1000), Err(StoreError::TooOpen { .. })));
    }
}
