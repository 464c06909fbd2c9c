//! A disk that fails and loses power when told to, for tests of the embedded store.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

pub use super::disk::DiskCall as FaultOn;
use super::{data_dir::private_file, embedded::OpenFile};

/// A fault to come.
#[derive(Debug, Clone, Copy)]
struct Fault {
    on: FaultOn,
    /// Calls of this kind that still succeed.
    after: u64,
    /// What the call says.
    errno: i32,
    /// Whether it goes on failing.
    lasts: bool,
}

/// A disk in memory. Clones share it. Files on it have a real file of their name that only says
/// which one they are, so that they are renamed and removed as any other.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    fault: Option<Fault>,
    /// Writes, length changes and syncs so far.
    calls: u64,
    faults_shown: u64,
}

#[derive(Default)]
struct Content {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is safe from a power cut.
    durable: Vec<u8>,
    /// What a power cut may keep or lose, in order.
    unsynced: Vec<Change>,
    /// Set while somebody has it open.
    locked: bool,
}

enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// Unit in which a disk keeps or loses a write: a sector.
const SECTOR_BYTES: usize = 512;

impl FaultyDisk {
    /// Opens files on this disk, creating what is missing.
    pub fn opener(&self) -> OpenFile {
        let disk = self.clone();
        Arc::new(move |path| Ok(Box::new(disk.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut name = private_file(&mut options).open(path)?;
        let mut text = String::new();
        name.read_to_string(&mut text)?;
        let file = match text.parse() {
            Ok(file) => file,
            Err(_) => {
                let mut state = self.lock();
                state.files.push(Content::default());
                let file = state.files.len() - 1;
                name.write_all(file.to_string().as_bytes())?;
                file
            }
        };
        Ok(FaultyFile { disk: self.clone(), file })
    }

    /// Makes the `after + 1`-th call of this kind from now fail with `errno`; `lasts` says whether
    /// all later ones fail too.
    pub fn fail(&self, on: FaultOn, after: u64, errno: i32, lasts: bool) {
        self.lock().fault = Some(Fault { on, after, errno, lasts });
    }

    /// Ends the fault. Returns how many calls it failed.
    pub fn heal(&self) -> u64 {
        let mut state = self.lock();
        state.fault = None;
        std::mem::take(&mut state.faults_shown)
    }

    /// Writes, length changes and syncs so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Cuts the power: of what was not synced, `keep` is asked sector by sector, and the rest is
    /// lost. Whoever has files open must be gone.
    pub fn cut_power(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.lock();
        state.fault = None;
        for file in &mut state.files {
            let mut bytes = std::mem::take(&mut file.durable);
            for change in std::mem::take(&mut file.unsynced) {
                match change {
                    Change::SetLen(len) if keep() => {
                        bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
                    }
                    Change::SetLen(_) => {}
                    Change::Write(offset, data) => {
                        let at = usize::try_from(offset).unwrap_or(usize::MAX);
                        for (i, sector) in data.chunks(SECTOR_BYTES).enumerate().filter(|_| keep()) {
                            write_at(&mut bytes, at.saturating_add(i * SECTOR_BYTES), sector);
                        }
                    }
                }
            }
            *file = Content { seen: bytes.clone(), durable: bytes, ..Content::default() };
        }
    }

    /// Counts a call of a file that is not on this disk but fails as if it were.
    pub(super) fn before(&self, call: FaultOn) -> io::Result<()> {
        self.lock().call(call)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").field("files", &self.lock().files.len()).finish_non_exhaustive()
    }
}

impl State {
    /// Counts a call and fails it if its time has come.
    fn call(&mut self, on: FaultOn) -> io::Result<()> {
        self.calls += 1;
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.on != on {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let errno = fault.errno;
        if !fault.lasts {
            self.fault = None;
        }
        self.faults_shown += 1;
        Err(io::Error::from_raw_os_error(errno))
    }
}

fn write_at(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at.saturating_add(data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(at..end) {
        place.copy_from_slice(data);
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    /// Its place on the disk.
    file: usize,
}

impl FaultyFile {
    /// Runs `act` on the content, unless a call of this kind is to fail now.
    fn call<V>(&self, on: Option<FaultOn>, act: impl FnOnce(&mut Content) -> V) -> io::Result<V> {
        let mut state = self.disk.lock();
        if let Some(on) = on {
            state.call(on)?;
        }
        state.files.get_mut(self.file).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.call(None, |file| file.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes =
            self.call(None, |file| file.seen.get(at..at.saturating_add(out.len())).map(<[u8]>::to_vec))?;
        out.copy_from_slice(&bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Some(FaultOn::SetLen), |file| {
            file.seen.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            file.unsynced.push(Change::SetLen(len));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Some(FaultOn::Sync), |file| {
            file.durable.clone_from(&file.seen);
            file.unsynced.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(Some(FaultOn::Write), |file| {
            write_at(&mut file.seen, usize::try_from(offset).unwrap_or(usize::MAX), data);
            file.unsynced.push(Change::Write(offset, data.to_vec()));
        })
    }

    fn close(&self) -> io::Result<()> {
        self.call(None, |file| file.locked = false)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // Only the whole file can be locked, which is the least an engine makes do with.
        if !matches!(start, Bound::Unbounded | Bound::Included(0)) || end != Bound::Unbounded {
            return Err(BackendError::Unsupported);
        }
        Ok(self.call(None, |file| !std::mem::replace(&mut file.locked, true))?)
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(self.call(None, |file| file.locked = false)?)
    }
}
