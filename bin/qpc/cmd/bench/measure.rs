//! What the machine says: the clock that all processes share, and what a process has used.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use quicprochat_mesh::api::ApiError;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, which is one for all processes of a machine.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// What a process has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time of all threads that live, in nanoseconds.
    pub cpu_ns: u64,
    /// How often they slept of their own accord.
    pub voluntary_switches: u64,
    /// Most memory resident at any time, in KiB.
    pub peak_rss_kib: u64,
    /// Memory resident now, in KiB.
    pub rss_kib: u64,
    /// Files that are open, sockets among them.
    pub files: u64,
}

impl Usage {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Result<Self, ApiError> {
        let proc = Path::new("/proc").join(pid.to_string());
        let status = read(&proc.join("status"))?;
        let mut usage = Self {
            peak_rss_kib: field(&status, "VmHWM:"),
            rss_kib: field(&status, "VmRSS:"),
            files: fs::read_dir(proc.join("fd")).map_or(0, |files| files.count() as u64),
            ..Self::default()
        };
        let tasks = fs::read_dir(proc.join("task")).map_err(|e| unreadable(&proc.join("task"), &e))?;
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            let scheduled = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let cpu_ns = scheduled.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            usage.cpu_ns = usage.cpu_ns.saturating_add(cpu_ns);
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let switches = field(&status, "voluntary_ctxt_switches:");
            usage.voluntary_switches = usage.voluntary_switches.saturating_add(switches);
        }
        Ok(usage)
    }
}

fn read(path: &Path) -> Result<String, ApiError> {
    fs::read_to_string(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ApiError {
    ApiError::failed(format!("cannot read {}: {error}; this benchmark needs Linux's /proc", path.display()))
}

fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How much of a phase has arrived, told by the sink to the source past the relay: a small file
/// that both have open. It only paces the source; no message is in it.
#[derive(Debug)]
pub struct Credit(File);

impl Credit {
    /// Opens the file, which may be new.
    pub fn open(path: &Path) -> Result<Self, ApiError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        file.map(Self).map_err(|e| ApiError::failed(format!("cannot open {}: {e}", path.display())))
    }

    /// Messages of `phase` that the sink has.
    pub fn received(&self, phase: u32) -> u32 {
        let mut word = [0; 8];
        match self.0.read_at(&mut word, 0) {
            Ok(8) => {
                let word = u64::from_le_bytes(word);
                if word >> 32 == u64::from(phase) { word as u32 } else { 0 }
            }
            _ => 0,
        }
    }

    /// Says that the sink has `count` messages of `phase`.
    pub fn set(&self, phase: u32, count: u32) {
        let word = u64::from(phase) << 32 | u64::from(count);
        // Where the file cannot be written the source stalls, and says so.
        let _ = self.0.write_at(&word.to_le_bytes(), 0);
    }
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(upper), 0) => (upper + values.get(middle.saturating_sub(1)).unwrap_or(upper)) / 2.0,
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

/// The value that `per_mille` of a thousand do not exceed, in a sorted slice; 0 of nothing.
pub fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    let at = sorted.len().saturating_mul(per_mille) / 1000;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_values() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!((quantile(&values, 500), quantile(&values, 990)), (51, 100));
        assert_eq!(quantile(&[], 500), 0);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.cpu_ns > 0 && usage.peak_rss_kib >= usage.rss_kib && usage.rss_kib > 0);
        assert!(usage.files > 0);
    }
}
