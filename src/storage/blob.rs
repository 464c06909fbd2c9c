//! Large contents, as files beside the engine.
//!
//! Two directories: `outgoing` holds contents this node sends, as records of equal size;
//! `incoming` holds files being received and received files. A received file keeps its place from
//! the first chunk until it is taken out of the inbox: which of the two it is, is said by rows of
//! the store alone, so no crash can leave it in between. Bytes are stored as given: whoever
//! stores contents gives ciphertext and keeps its key in a sealed row, so that removing the row
//! destroys the content too.
//!
//! What a caller may rely on after a crash: all that was written before a `finish` or `sync` that
//! returned. A row that says "these chunks are here" is committed after the sync, never before.
//! Files no row speaks of are removed by [`BlobDir::sweep`] at start.
//!
//! A sync that fails here ends the store as one of its own would ([`BlobDir::reporting_to`]): both
//! are on one disk. What does not fit on it is refused.
//!
//! Everything here blocks on the disk.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    data_dir::{create_private_dir, private_file, sync_dir, temp_path},
    disk::{Disk, DiskCall, OpenDir},
    error::StoreError,
    group_commit::StoreHandle,
    space::{self, SpaceProbe},
};
use crate::wire::{Address, MessageUid, TransferTag, ids::hex};

type Result<V> = std::result::Result<V, StoreError>;

/// Which directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// Contents this node sends.
    Outgoing,
    /// Files being received, and received files until they are taken.
    Incoming,
}

impl BlobKind {
    /// Both.
    pub const ALL: [BlobKind; 2] = [Self::Outgoing, Self::Incoming];

    fn dir(self) -> &'static str {
        match self {
            BlobKind::Outgoing => "outgoing",
            BlobKind::Incoming => "incoming",
        }
    }
}

/// Name of a content: hex of identifiers, so that nothing a peer chose is ever a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl BlobName {
    /// Of a message this node sends.
    pub fn outgoing(uid: &MessageUid) -> Self {
        Self(hex(uid.as_bytes()))
    }

    /// Of a file from `source`.
    pub fn incoming(source: &Address, tag: &TransferTag) -> Self {
        Self(hex(source.as_bytes()) + &hex(tag.as_bytes()))
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The directory of large contents.
#[derive(Clone)]
pub struct BlobDir {
    root: PathBuf,
    space: SpaceProbe,
    watched: Watched,
}

/// The disk, and the store that ends when it fails.
#[derive(Debug, Clone, Default)]
struct Watched {
    disk: Disk,
    store: Option<StoreHandle>,
}

impl Watched {
    /// Passes a result on, and tells the store of a disk that failed.
    fn note<V>(&self, result: Result<V>) -> Result<V> {
        if let (Err(e @ StoreError::IoFatal { .. }), Some(store)) = (&result, &self.store) {
            store.fail(e.clone());
        }
        result
    }

    /// Runs a write, unless the disk fails it.
    fn write<V>(
        &self,
        call: DiskCall,
        doing: &'static str,
        act: impl FnOnce() -> io::Result<V>,
    ) -> Result<V> {
        let done = self.disk.before(call).and_then(|()| act());
        self.note(done.map_err(|e| StoreError::fatal_io(doing, e)))
    }
}

impl fmt::Debug for BlobDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobDir").field("root", &self.root).finish_non_exhaustive()
    }
}

impl BlobDir {
    /// Opens the directory at `root`, creating what is missing with mode 0700.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: &Path, space: SpaceProbe) -> Result<Self> {
        for kind in BlobKind::ALL {
            let dir = root.join(kind.dir());
            create_private_dir(&dir)?;
            // Who created a file in it may have ended before this.
            sync_dir(&dir)?;
        }
        Ok(Self { root: root.to_owned(), space, watched: Watched::default() })
    }

    /// Ends `store` when a write or sync of a content fails for another reason than a full disk.
    #[must_use]
    pub fn reporting_to(mut self, store: StoreHandle) -> Self {
        self.watched.store = Some(store);
        self
    }

    /// On this disk instead of the system's.
    #[must_use]
    pub fn on_disk(mut self, disk: Disk) -> Self {
        self.watched.disk = disk;
        self
    }

    /// Starts a content to send, made of records of `record_bytes` each; only the last may be
    /// shorter. It appears under its name when it is finished, whole; an older one of the name is
    /// replaced then.
    ///
    /// # Errors
    /// [`StoreError::BelowReserve`], or what the file system says.
    pub fn create_outgoing(&self, name: &BlobName, record_bytes: u32) -> Result<OutgoingWriter> {
        const DOING: &str = "creating a content";
        let path = self.path(BlobKind::Outgoing, name);
        space::check(&self.space, &self.root)?;
        let temp = temp_path(&path);
        let dir = self.watched.disk.parent_of(&path)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = private_file(&mut options).open(&temp).map_err(|e| failed(DOING, &temp, e))?;
        let record_bytes = record_bytes.max(1);
        let watched = self.watched.clone();
        // From here on the other name goes with the writer, whatever happens.
        let mut writer = OutgoingWriter {
            file,
            dir,
            watched,
            temp,
            path,
            record_bytes: record_bytes as usize,
            ended: false,
        };
        writer.write(DOING, &record_bytes.to_be_bytes())?;
        Ok(writer)
    }

    /// Opens a finished content to send.
    ///
    /// # Errors
    /// What the file system says; [`StoreError::Corrupt`] if it was not written by us.
    pub fn open_outgoing(&self, name: &BlobName) -> Result<OutgoingBlob> {
        let path = self.path(BlobKind::Outgoing, name);
        let file = File::open(&path).map_err(|e| failed("opening a content", &path, e))?;
        let len = file.metadata().map_err(|e| failed("opening a content", &path, e))?.len();
        let mut head = [0u8; HEAD_BYTES];
        read_exact_at(&file, &mut head, 0).map_err(|e| failed("opening a content", &path, e))?;
        let record_bytes = u64::from(u32::from_be_bytes(head));
        if record_bytes == 0 {
            return Err(StoreError::Corrupt { path, detail: "its records have no size".to_owned() });
        }
        Ok(OutgoingBlob { file, path, record_bytes, len: len.saturating_sub(HEAD_BYTES as u64) })
    }

    /// Starts a file of `len` bytes to receive, or goes on with one.
    ///
    /// # Errors
    /// [`StoreError::BelowReserve`] if it would not fit above the reserve, or what the file
    /// system says.
    pub fn open_incoming(&self, name: &BlobName, len: u64) -> Result<IncomingBlob> {
        const DOING: &str = "opening a file being received";
        let path = self.path(BlobKind::Incoming, name);
        let is_new = !path.exists();
        if is_new {
            self.check_room(len)?;
        }
        let dir = self.watched.disk.parent_of(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = private_file(&mut options).open(&path).map_err(|e| failed(DOING, &path, e))?;
        if file.metadata().map_err(|e| failed(DOING, &path, e))?.len() != len {
            self.watched.write(DiskCall::SetLen, DOING, || file.set_len(len))?;
        }
        if is_new {
            self.watched.note(dir.sync()).inspect_err(|_| {
                // It would count as made durable else.
                let _ = fs::remove_file(&path);
            })?;
        }
        Ok(IncomingBlob { file, watched: self.watched.clone(), path, len })
    }

    /// Opens a received file to read it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_received(&self, name: &BlobName) -> Result<IncomingBlob> {
        const DOING: &str = "opening a received file";
        let path = self.path(BlobKind::Incoming, name);
        let file = File::open(&path).map_err(|e| failed(DOING, &path, e))?;
        let len = file.metadata().map_err(|e| failed(DOING, &path, e))?.len();
        Ok(IncomingBlob { file, watched: self.watched.clone(), path, len })
    }

    /// Removes a content; true if it was there. Not synced: a content that comes back after a
    /// power cut is an orphan and is swept.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, kind: BlobKind, name: &BlobName) -> Result<bool> {
        let path = self.path(kind, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed("removing a content", &path, e)),
        }
    }

    /// The names of all files of `kind`, leftovers of a crash among them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn names(&self, kind: BlobKind) -> Result<BTreeSet<BlobName>> {
        const DOING: &str = "listing contents";
        let dir = self.root.join(kind.dir());
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(|e| failed(DOING, &dir, e))? {
            let entry = entry.map_err(|e| failed(DOING, &dir, e))?;
            names.extend(entry.file_name().into_string().ok().map(BlobName));
        }
        Ok(names)
    }

    /// Removes everything of `kind` that is not `live`: leftovers of a crash. Only while nothing
    /// is being written.
    ///
    /// # Errors
    /// What the file system says; what was removed until then is gone.
    pub fn sweep(&self, kind: BlobKind, live: &BTreeSet<BlobName>) -> Result<Swept> {
        const DOING: &str = "sweeping contents";
        let dir = self.root.join(kind.dir());
        let mut swept = Swept::default();
        for entry in fs::read_dir(&dir).map_err(|e| failed(DOING, &dir, e))? {
            let entry = entry.map_err(|e| failed(DOING, &dir, e))?;
            let name = entry.file_name().to_str().map(|name| BlobName(name.to_owned()));
            if name.is_some_and(|name| live.contains(&name)) {
                continue;
            }
            let path = entry.path();
            let meta = entry.metadata().map_err(|e| failed(DOING, &path, e))?;
            // Nothing of ours; whoever put it there can take it away.
            if !meta.is_file() {
                continue;
            }
            fs::remove_file(&path).map_err(|e| failed(DOING, &path, e))?;
            swept.files = swept.files.saturating_add(1);
            swept.bytes = swept.bytes.saturating_add(meta.len());
        }
        if swept.files > 0 {
            sync_dir(&dir)?;
        }
        Ok(swept)
    }

    fn path(&self, kind: BlobKind, name: &BlobName) -> PathBuf {
        self.root.join(kind.dir()).join(&name.0)
    }

    /// Refuses a file of `len` bytes that would eat into the reserve.
    fn check_room(&self, len: u64) -> Result<()> {
        let space = SpaceProbe::clone(&self.space);
        let after: SpaceProbe = std::sync::Arc::new(move |path: &Path| {
            let now = space(path)?;
            Ok(space::Space { free_bytes: now.free_bytes.saturating_sub(len), ..now })
        });
        space::check(&after, &self.root)
    }
}

/// Record size at the head of a content to send.
const HEAD_BYTES: usize = 4;

/// A content to send that is being written. Dropped unfinished, it is gone.
#[derive(Debug)]
pub struct OutgoingWriter {
    file: File,
    dir: OpenDir,
    watched: Watched,
    temp: PathBuf,
    path: PathBuf,
    record_bytes: usize,
    /// True once a short record was written: nothing may follow it.
    ended: bool,
}

impl OutgoingWriter {
    /// Appends a record of the size given at creation, or a shorter last one.
    ///
    /// # Errors
    /// [`StoreError::RowTooLarge`] for a longer record or one behind a short one, or what the
    /// file system says.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        if self.ended || record.len() > self.record_bytes {
            let limit = if self.ended { 0 } else { self.record_bytes };
            return Err(StoreError::RowTooLarge { got: record.len(), limit });
        }
        self.ended = record.len() < self.record_bytes;
        self.write("writing a content", record)
    }

    fn write(&mut self, doing: &'static str, bytes: &[u8]) -> Result<()> {
        let file = &mut self.file;
        self.watched.write(DiskCall::Write, doing, || file.write_all(bytes))
    }

    /// Makes the content durable under its name.
    ///
    /// # Errors
    /// What the file system says; the content is gone then, or an orphan. After an error that
    /// [is fatal](StoreError::is_fatal) the store ends.
    pub fn finish(self) -> Result<()> {
        self.watched.note(self.watched.disk.sync_all(&self.file, "syncing a content"))?;
        fs::rename(&self.temp, &self.path).map_err(|e| failed("naming a content", &self.path, e))?;
        self.watched.note(self.dir.sync())
    }
}

impl Drop for OutgoingWriter {
    fn drop(&mut self) {
        // After a finish there is nothing of this name any more.
        let _ = fs::remove_file(&self.temp);
    }
}

/// A content to send.
#[derive(Debug)]
pub struct OutgoingBlob {
    file: File,
    path: PathBuf,
    record_bytes: u64,
    len: u64,
}

impl OutgoingBlob {
    /// Records in it.
    pub fn records(&self) -> u64 {
        self.len.div_ceil(self.record_bytes)
    }

    /// Reads record `index`, from 0; `None` behind the last.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, index: u64) -> Result<Option<Vec<u8>>> {
        let start = index.saturating_mul(self.record_bytes);
        let left = self.len.saturating_sub(start);
        if left == 0 {
            return Ok(None);
        }
        let mut record = vec![0u8; usize::try_from(left.min(self.record_bytes)).unwrap_or(usize::MAX)];
        read_exact_at(&self.file, &mut record, start.saturating_add(HEAD_BYTES as u64))
            .map_err(|e| failed("reading a content", &self.path, e))?;
        Ok(Some(record))
    }
}

/// A file being received, or a received one.
#[derive(Debug)]
pub struct IncomingBlob {
    file: File,
    watched: Watched,
    path: PathBuf,
    len: u64,
}

impl IncomingBlob {
    /// Its whole length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True of an empty file.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `bytes` at `offset`. Durable after the next [`IncomingBlob::sync`].
    ///
    /// # Errors
    /// [`StoreError::RowTooLarge`] if they would reach behind the file's end, or what the file
    /// system says.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let limit = self.len.saturating_sub(offset);
        if bytes.len() as u64 > limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            return Err(StoreError::RowTooLarge { got: bytes.len(), limit });
        }
        self.watched
            .write(DiskCall::Write, "writing a received chunk", || write_all_at(&self.file, bytes, offset))
    }

    /// Reads up to `bytes_max` bytes from `offset`, fewer at the end.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut out = vec![0u8; left.min(bytes_max)];
        read_exact_at(&self.file, &mut out, offset)
            .map_err(|e| failed("reading a received file", &self.path, e))?;
        Ok(out)
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// After an error that [is fatal](StoreError::is_fatal) nothing more may be acknowledged by this
    /// process, and the store ends. What did not fit has to be written again.
    pub fn sync(&self) -> Result<()> {
        self.watched.note(self.watched.disk.sync_data(&self.file, "syncing a received file"))
    }
}

fn failed(doing: &'static str, path: &Path, e: io::Error) -> StoreError {
    StoreError::of_io(doing, path, e)
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}

#[cfg(not(unix))]
fn write_all_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::space::{Space, system_space};

    fn blobs() -> (tempfile::TempDir, BlobDir) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(&dir.path().join("blobs"), Arc::new(system_space)).unwrap();
        (dir, blobs)
    }

    fn out() -> BlobName {
        BlobName::outgoing(&MessageUid([1; 16]))
    }

    fn inc() -> BlobName {
        BlobName::incoming(&Address([2; 16]), &TransferTag([3; 16]))
    }

    #[test]
    fn a_content_to_send_is_read_back_record_by_record() {
        let (_dir, blobs) = blobs();
        let mut writer = blobs.create_outgoing(&out(), 4).unwrap();
        for record in [b"abcd".as_slice(), b"efgh", b"i"] {
            writer.append(record).unwrap();
        }
        writer.finish().unwrap();
        let blob = blobs.open_outgoing(&out()).unwrap();
        assert_eq!(blob.records(), 3);
        let read: Vec<_> = (0..4).map(|i| blob.read(i).unwrap()).collect();
        assert_eq!(read, [Some(b"abcd".to_vec()), Some(b"efgh".to_vec()), Some(b"i".to_vec()), None]);
    }

    #[test]
    fn a_record_behind_a_short_one_or_too_long_is_refused() {
        let (_dir, blobs) = blobs();
        let mut writer = blobs.create_outgoing(&out(), 4).unwrap();
        assert!(matches!(writer.append(b"abcde"), Err(StoreError::RowTooLarge { got: 5, limit: 4 })));
        writer.append(b"abc").unwrap();
        assert!(matches!(writer.append(b"d"), Err(StoreError::RowTooLarge { .. })));
    }

    #[test]
    fn an_unfinished_content_never_shows_and_leaves_nothing() {
        let (dir, blobs) = blobs();
        let mut writer = blobs.create_outgoing(&out(), 4).unwrap();
        writer.append(b"abcd").unwrap();
        assert!(blobs.open_outgoing(&out()).is_err());
        drop(writer);
        assert_eq!(fs::read_dir(dir.path().join("blobs/outgoing")).unwrap().count(), 0);
    }

    #[test]
    fn chunks_arrive_in_any_order_and_survive_a_reopen() {
        let (_dir, blobs) = blobs();
        let blob = blobs.open_incoming(&inc(), 6).unwrap();
        blob.write_at(4, b"ef").unwrap();
        blob.sync().unwrap();
        drop(blob);
        let blob = blobs.open_incoming(&inc(), 6).unwrap();
        blob.write_at(0, b"abcd").unwrap();
        assert!(matches!(blob.write_at(5, b"xy"), Err(StoreError::RowTooLarge { got: 2, limit: 1 })));
        blob.sync().unwrap();
        let read = blobs.open_received(&inc()).unwrap();
        assert_eq!((read.len(), read.read_at(2, 100).unwrap()), (6, b"cdef".to_vec()));
        assert_eq!(read.read_at(100, 1).unwrap(), b"");
    }

    #[test]
    fn a_sweep_takes_what_no_row_speaks_of() {
        let (dir, blobs) = blobs();
        drop(blobs.open_incoming(&inc(), 3).unwrap());
        let orphan = BlobName::incoming(&Address([9; 16]), &TransferTag([9; 16]));
        drop(blobs.open_incoming(&orphan, 5).unwrap());
        fs::write(dir.path().join("blobs/incoming/leftover.tmp"), b"xx").unwrap();
        let live = BTreeSet::from([inc()]);
        assert_eq!(blobs.sweep(BlobKind::Incoming, &live).unwrap(), Swept { files: 2, bytes: 7 });
        assert_eq!(blobs.sweep(BlobKind::Incoming, &live).unwrap(), Swept::default());
        assert!(blobs.open_received(&inc()).is_ok());
        assert!(blobs.remove(BlobKind::Incoming, &inc()).unwrap());
        assert!(!blobs.remove(BlobKind::Incoming, &inc()).unwrap());
    }

    #[test]
    fn nothing_is_begun_that_would_eat_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let nearly_full: SpaceProbe =
            Arc::new(|_: &Path| Ok(Space { free_bytes: (1 << 20) + 10, total_bytes: 1 << 20 }));
        let blobs = BlobDir::open(dir.path(), nearly_full).unwrap();
        drop(blobs.open_incoming(&inc(), 10).unwrap());
        let other = BlobName::incoming(&Address([9; 16]), &TransferTag([9; 16]));
        assert!(matches!(blobs.open_incoming(&other, 11), Err(StoreError::BelowReserve { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn contents_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, blobs) = blobs();
        drop(blobs.open_incoming(&inc(), 1).unwrap());
        blobs.create_outgoing(&out(), 1).unwrap().finish().unwrap();
        let mode = |path: &str| {
            fs::metadata(dir.path().join("blobs").join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(mode("incoming"), 0o700);
        assert_eq!(mode(&format!("incoming/{}", inc())), 0o600);
        assert_eq!(mode(&format!("outgoing/{}", out())), 0o600);
    }
}
