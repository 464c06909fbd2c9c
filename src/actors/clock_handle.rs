//! The node's clock ([`NodeClock`]), shared by the actors that go by it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock,
    proto::node_clock::{BootId, Distrust, Mark, NodeClock, NodeTime},
    wire::Address,
};

/// What time it is, for whoever has a copy. It outlives the actors, so that a restarted one does not
/// believe a clock again that jumped before.
#[derive(Clone)]
pub struct ClockHandle(Arc<Mutex<NodeClock>>);

impl ClockHandle {
    /// The clock of a node whose earlier start left `mark`.
    pub fn new(mark: Option<Mark>) -> Self {
        Self::of_boot(clock::boot_id(), mark)
    }

    fn of_boot(boot: BootId, mark: Option<Mark>) -> Self {
        let clock = NodeClock::new(clock::reading(), boot, clock::BUILT_UNIX_S, mark);
        Self(Arc::new(Mutex::new(clock)))
    }

    /// What time it is.
    pub fn time(&self) -> NodeTime {
        self.clock().time(clock::reading())
    }

    /// The best that is known of the time of day, seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.time().unix_s
    }

    /// [`ClockHandle::unix_s`] in milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.stamp().0
    }

    /// [`ClockHandle::unix_ms`], and true where the wall clock is not believed.
    pub fn stamp(&self) -> (u64, bool) {
        let time = self.time();
        match time.trusted {
            true => (clock::unix_ms(), false),
            false => (time.unix_s.saturating_mul(1000), true),
        }
    }

    /// Time that never jumps, in seconds; compared with itself only.
    pub fn steady_s(&self) -> u64 {
        self.time().steady_s
    }

    /// Is the wall clock to be believed?
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self) -> Result<(), Distrust> {
        self.clock().judge(clock::reading())
    }

    /// What the next start is to know.
    pub fn mark(&self) -> Mark {
        self.clock().mark(clock::reading())
    }

    /// A neighbour's hello told its clock.
    pub fn neighbour(&self, address: Address, unix_s: u64) {
        self.clock().neighbour(clock::reading(), address, unix_s);
    }

    /// The neighbour's last link is gone.
    pub fn neighbour_gone(&self, address: &Address) {
        self.clock().neighbour_gone(address);
    }

    fn clock(&self) -> MutexGuard<'_, NodeClock> {
        // Each of its steps leaves it whole, so a panic elsewhere costs nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockHandle")
    }
}
