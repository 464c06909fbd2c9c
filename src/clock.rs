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
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall-clock seconds since 1970.
pub fn unix_s() -> u64 {
    unix().as_secs()
}

/// Wall-clock milliseconds since 1970.
pub fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}
