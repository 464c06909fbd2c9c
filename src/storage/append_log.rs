//! A small journal that people can read: one JSON object a line, in the order of writing.
//!
//! For what is good to know and not promised: nobody waits for a sync of it, so a power cut may take
//! its last lines, and a line that such a cut tore is dropped when it is opened again. Nothing else
//! is ever damaged by it. It is bounded: a file that has half of its limit takes the place of the one
//! before, and a new one is begun. That costs a rename, however much is written.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    data_dir::{FILE_MODE, private_file, refuse_open_mode, write_atomic},
    error::StoreError,
};

/// Longest line that is read back; what is longer is none of ours.
pub(crate) const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes after which the system is made to write them. Left to itself it gathers half a minute of them
/// and writes all at once, and the commits of that moment wait behind it.
const UNSYNCED_BYTES_MAX: u64 = 256 * 1024;

/// A journal of one process.
pub struct AppendLog {
    path: PathBuf,
    older: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// Bytes since the last sync.
    unsynced: u64,
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
    /// Opens the journal at `path`, or creates it (mode 0600), and cuts off a torn last line. With what
    /// is older, in a file beside it, it is kept below `bytes_max`.
    ///
    /// # Errors
    /// What the file system says; a journal that others can read.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        let failed = |e| StoreError::of_io("opening a journal", path, e);
        let older = older_path(path);
        if path.exists() {
            refuse_open_mode(path, FILE_MODE)?;
        }
        let mut file = private_file(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(path)
            .map_err(failed)?;
        let bytes = whole_lines(&mut file).map_err(failed)?;
        let older_bytes = fs::metadata(&older).map_or(0, |meta| meta.len());
        if older_bytes > 0 && bytes.saturating_add(older_bytes) > bytes_max {
            // The limit was lowered.
            fs::remove_file(&older).map_err(failed)?;
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), older, file, bytes, bytes_max, unsynced: 0 })
    }

    /// Writes entries with one write: all of them, or none where the disk is full. Blocks for a sync
    /// now and then.
    ///
    /// # Errors
    /// What the file system says; where it is full, the journal is as it was then.
    pub fn append<T: Serialize>(&mut self, entries: &[T]) -> Result<(), StoreError> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)
                .map_err(|e| StoreError::of_io("writing a journal", &self.path, e.into()))?;
            lines.push(b'\n');
        }
        if self.bytes > 0 && self.bytes.saturating_add(lines.len() as u64) > self.bytes_max / 2 {
            self.begin_anew()?;
        }
        if let Err(e) = self.file.write_all(&lines) {
            // Part of it may be there; a line that is not whole would spoil the next one.
            let _ = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
            return Err(StoreError::of_io("writing a journal", &self.path, e));
        }
        self.bytes = self.bytes.saturating_add(lines.len() as u64);
        self.unsynced = self.unsynced.saturating_add(lines.len() as u64);
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            let synced = self.file.sync_data();
            synced.map_err(|e| StoreError::of_io("syncing a journal", &self.path, e))?;
        }
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
        for entry in read::<T>(&self.path, |_| true)?.entries.iter().filter(|entry| keep(entry)) {
            serde_json::to_writer(&mut lines, entry)
                .map_err(|e| StoreError::of_io("compacting a journal", &self.path, e.into()))?;
            lines.push(b'\n');
        }
        // A crash in between repeats lines and loses none.
        write_atomic(&self.path, &lines)?;
        match fs::remove_file(&self.older) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::of_io("compacting a journal", &self.older, e));
            }
            _ => {}
        }
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<(), StoreError> {
        fs::rename(&self.path, &self.older)
            .map_err(|e| StoreError::of_io("turning over a journal", &self.path, e))?;
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }
}

/// Where what is older lies.
fn older_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".older");
    path.with_file_name(name)
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries<T> {
    /// Its entries, oldest first.
    pub entries: Vec<T>,
    /// Lines that are no entries, among them those of other versions.
    pub unread: usize,
}

/// Reads those lines of the journal at `path` that are `wanted`; a missing one is empty. What is
/// written meanwhile may be missing or come twice.
///
/// # Errors
/// What the file system says.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Entries<T>, StoreError> {
    let mut found = Entries { entries: Vec::new(), unread: 0 };
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::of_io("reading a journal", path, e)),
    };
    let (newer, older) = (open(path)?, open(&older_path(path))?);
    for file in [older, newer].into_iter().flatten() {
        read_file(file, path, &wanted, &mut found)?;
    }
    Ok(found)
}

fn read_file<T: DeserializeOwned>(
    file: File,
    path: &Path,
    wanted: &impl Fn(&str) -> bool,
    found: &mut Entries<T>,
) -> Result<(), StoreError> {
    let read = read_lines(BufReader::new(file), wanted, found);
    read.map_err(|e| StoreError::of_io("reading a journal", path, e))
}

/// The entries of a journal, whatever its bytes are.
pub(crate) fn read_lines<T: DeserializeOwned>(
    mut reader: impl BufRead,
    wanted: &impl Fn(&str) -> bool,
    found: &mut Entries<T>,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = Read::by_ref(&mut reader).take(LINE_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = std::str::from_utf8(&line).ok().filter(|text| text.ends_with('\n'));
        match text {
            Some(text) if !wanted(text) => {}
            Some(text) => match serde_json::from_str(text) {
                Ok(entry) => found.entries.push(entry),
                Err(_) => found.unread = found.unread.saturating_add(1),
            },
            None => found.unread = found.unread.saturating_add(1),
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
        read(path, |_| true).unwrap().entries
    }

    #[test]
    fn what_is_not_synced_yet_is_bounded() {
        let (_dir, _, mut log) = log(u64::MAX);
        let entries = [0u64; 4096];
        let written: u64 = (0..200)
            .map(|_| {
                let before = log.bytes;
                log.append(&entries).unwrap();
                assert!(log.unsynced < UNSYNCED_BYTES_MAX, "{} bytes", log.unsynced);
                log.bytes - before
            })
            .sum();
        assert!(written > 4 * UNSYNCED_BYTES_MAX);
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
            let found = read::<String>(&path, |_| true).unwrap();
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
        let found = read::<u64>(&path, |_| true).unwrap();
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
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        for n in 0..2000u64 {
            log.append(&[n]).unwrap();
            assert!(bytes(&path) + bytes(&older_path(&path)) <= 1000);
        }
        let newest = held(&path);
        assert_eq!(newest.last(), Some(&1999));
        assert!(newest.len() >= 90 && newest.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{newest:?}");
        assert_eq!(read::<u64>(&path, |line| line == "1999\n").unwrap().entries, [1999]);

        log.compact(|n: &u64| n.is_multiple_of(10)).unwrap();
        log.append(&[2000u64]).unwrap();
        let tens: Vec<_> = newest.into_iter().filter(|n| n.is_multiple_of(10)).chain([2000]).collect();
        assert_eq!(held(&path), tens);
        drop(log);
        drop(AppendLog::open(&path, 8).unwrap());
        assert_eq!(bytes(&older_path(&path)), 0, "a lower limit holds from the next start on");
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
