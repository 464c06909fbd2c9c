//! Thin actor shells around the cores in [`proto`](crate::proto): mailbox in, core step, effects
//! out. Everything about actix that bites is handled in the files here.

pub mod child;
pub mod clock_handle;
pub mod custody;
pub mod delivery;
pub mod discovery;
pub mod health;
pub mod late_answer;
pub mod link_egress;
pub mod link_io;
mod link_lease;
pub mod links;
pub mod mailbox;
pub mod maintenance;
pub mod panics;
#[cfg(feature = "port-mapping")]
pub mod port_mapping;
pub mod program;
pub mod quarantine;
pub mod rate_limiter;
pub mod router;
pub mod supervisor;
pub mod timed_store;
pub mod transport;
mod wake_timer;
pub mod welcome_handle;
