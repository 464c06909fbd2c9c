//! The only callers of the clocks. Cores take time as an argument; shells read it here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::proto::node_clock::{BootId, Reading};

/// The day this code was released, in seconds since 1970: no machine that runs it has a right clock
/// before then. Raised with each release.
pub const BUILT_UNIX_S: u64 = 1_793_491_200;

/// Monotonic time. Reads tokio's clock, so that a paused runtime moves the cores too.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall-clock time since 1970, zero where the clock stands before it.
pub fn unix() -> Duration {
    #[cfg(any(test, feature = "testing"))]
    return set_off(virtual_unix().unwrap_or_else(system_unix));
    #[cfg(not(any(test, feature = "testing")))]
    system_unix()
}

fn system_unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock and the count since the machine was switched on, read together.
pub fn reading() -> Reading {
    #[cfg(any(test, feature = "testing"))]
    if let Some(up) = virtual_up() {
        return Reading { up, unix_s: unix_s() };
    }
    Reading { up: up(), unix_s: unix_s() }
}

/// Since power on, sleep included.
#[cfg(target_os = "linux")]
fn up() -> Duration {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(up.tv_sec).unwrap_or(0), u32::try_from(up.tv_nsec).unwrap_or(0))
}

/// Since the first look: other systems have no such count that all their versions share, so
/// each process is taken for a run of the machine ([`boot_id`]).
#[cfg(not(target_os = "linux"))]
fn up() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// Names this run of the machine; one of its own for each process where the system does not tell.
pub fn boot_id() -> BootId {
    let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().and_then(|text| {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)
    });
    static OWN: std::sync::OnceLock<[u8; 16]> = std::sync::OnceLock::new();
    BootId(told.map_or_else(
        || *OWN.get_or_init(|| crate::crypto::random::random_bytes(&mut crate::crypto::random::os_rng())),
        u128::to_be_bytes,
    ))
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    /// What both clocks said when virtual time began on this thread.
    static VIRTUAL_START: std::cell::Cell<Option<(Instant, Duration)>> = const { std::cell::Cell::new(None) };
}

/// Lets the wall clock of this thread go along with tokio's from now on, paused or not; gives what
/// sets it free again when dropped. A week of virtual time is a week on both clocks then.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn follow_virtual_time() -> impl Drop {
    struct Free;
    impl Drop for Free {
        fn drop(&mut self) {
            VIRTUAL_START.set(None);
        }
    }
    VIRTUAL_START.set(Some((now(), unix())));
    Free
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    /// How far the wall clock of this thread is set off, in seconds.
    static WALL_OFF_S: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Sets the wall clock of this thread, and no other clock, off by so many seconds; gives what sets
/// it right again when dropped.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn set_wall_off(off_s: i64) -> impl Drop {
    struct Right;
    impl Drop for Right {
        fn drop(&mut self) {
            WALL_OFF_S.set(0);
        }
    }
    WALL_OFF_S.set(off_s);
    Right
}

#[cfg(any(test, feature = "testing"))]
fn virtual_unix() -> Option<Duration> {
    let (at, unix) = VIRTUAL_START.get()?;
    Some(unix.saturating_add(now().saturating_duration_since(at)))
}

#[cfg(any(test, feature = "testing"))]
fn virtual_up() -> Option<Duration> {
    let (at, _) = VIRTUAL_START.get()?;
    Some(VIRTUAL_UP.saturating_add(now().saturating_duration_since(at)))
}

/// Where virtual time finds a machine: on for a day.
#[cfg(any(test, feature = "testing"))]
const VIRTUAL_UP: Duration = Duration::from_secs(86_400);

#[cfg(any(test, feature = "testing"))]
fn set_off(unix: Duration) -> Duration {
    let off_s = WALL_OFF_S.get();
    let by = Duration::from_secs(off_s.unsigned_abs());
    if off_s < 0 { unix.saturating_sub(by) } else { unix.saturating_add(by) }
}

/// Wall-clock seconds since 1970.
pub fn unix_s() -> u64 {
    unix().as_secs()
}

/// Wall-clock milliseconds since 1970.
pub fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}
