//! Thin actor shells around the cores in [`proto`](crate::proto): mailbox in, core step, effects
//! out. Everything about actix that bites is handled in the files here.

pub mod child;
pub mod custody;
pub mod delivery;
pub mod health;
pub mod link_io;
pub mod links;
pub mod mailbox;
pub mod maintenance;
pub mod program;
pub mod router;
pub mod supervisor;
pub mod transport;
