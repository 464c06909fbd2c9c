//! The only callers of the clocks. Cores take time as an argument; shells read it here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    if let Some(unix) = virtual_unix() {
        return unix;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
fn virtual_unix() -> Option<Duration> {
    let (at, unix) = VIRTUAL_START.get()?;
    Some(unix.saturating_add(now().saturating_duration_since(at)))
}

/// Wall-clock seconds since 1970.
pub fn unix_s() -> u64 {
    unix().as_secs()
}

/// Wall-clock milliseconds since 1970.
pub fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}
