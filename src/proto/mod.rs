//! Sans-IO cores: every decision of the node, as plain state machines.
//!
//! Each takes the time and any randomness as arguments and returns what is to be done. One
//! mutation, then drain the outputs, then wait: no core knows a socket, an actor or a clock.
// Tests need some instant to start from.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod backoff;
pub mod drain;
pub mod health;
pub mod limit;
