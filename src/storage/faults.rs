//! A disk that fails and loses power when told to, for tests of the embedded store.

use std::{
    fmt, io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

use super::embedded::OpenFile;

/// What of the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOn {
    /// A write; nothing of it reaches the disk.
    Write,
    /// A change of the file's length; it does not happen.
    SetLen,
    /// A sync; what it should have made durable may or may not be.
    Sync,
}

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

/// A disk in memory. Clones share it; so do the files opened on it, one after the other.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is safe from a power cut.
    durable: Vec<u8>,
    /// What a power cut may keep or lose, in order.
    unsynced: Vec<Change>,
    fault: Option<Fault>,
    /// Writes, length changes and syncs so far.
    calls: u64,
    faults_shown: u64,
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
    /// Opens this disk, whatever the path.
    pub fn opener(&self) -> OpenFile {
        let disk = self.clone();
        Arc::new(move |_| Ok(Box::new(FaultyFile { disk: disk.clone() })))
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
    /// lost. Whoever has the disk open must be gone.
    pub fn cut_power(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.lock();
        let mut bytes = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::SetLen(len) => {
                    if keep() {
                        bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
                    }
                }
                Change::Write(offset, data) => {
                    for (i, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        let at =
                            usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(i * SECTOR_BYTES);
                        if keep() {
                            write_at(&mut bytes, at, sector);
                        }
                    }
                }
            }
        }
        state.seen.clone_from(&bytes);
        state.durable = bytes;
        state.locked = false;
        state.fault = None;
    }

    /// True if `needle` is anywhere on the disk as it is now.
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.lock().seen.windows(needle.len()).any(|window| window == needle)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").field("bytes", &self.lock().seen.len()).finish_non_exhaustive()
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
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.lock();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.seen.get(at..at.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call(FaultOn::SetLen)?;
        state.seen.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        state.unsynced.push(Change::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call(FaultOn::Sync)?;
        let seen = state.seen.clone();
        state.durable = seen;
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call(FaultOn::Write)?;
        write_at(&mut state.seen, usize::try_from(offset).unwrap_or(usize::MAX), data);
        state.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.disk.lock().locked = false;
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // Only the whole file can be locked, which is the least an engine makes do with.
        if !matches!(start, Bound::Unbounded | Bound::Included(0)) || end != Bound::Unbounded {
            return Err(BackendError::Unsupported);
        }
        Ok(!std::mem::replace(&mut self.disk.lock().locked, true))
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        self.disk.lock().locked = false;
        Ok(())
    }
}
