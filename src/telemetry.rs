//! Metric names, the recorder and the log subscriber.

/// Messages dropped because a mailbox was full, by `mailbox`.
pub const MAILBOX_DROPPED: &str = "qpc_mailbox_dropped_total";
/// Restarts of children, by `actor`.
pub const ACTOR_RESTARTS: &str = "qpc_actor_restarts_total";
/// Phase of a drain: 0 none, 1 draining, 2 persisting, 3 cleanup.
pub const DRAIN_PHASE: &str = "qpc_drain_phase";

/// Periodic upkeep of the recorder.
pub fn run_upkeep() {}
