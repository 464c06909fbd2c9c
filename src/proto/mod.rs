//! Sans-IO cores: every decision of the node, as plain state machines.
//!
//! Each takes the time and any randomness as arguments and returns what is to be done. One
//! mutation, then drain the outputs, then wait: no core knows a socket, an actor or a clock.
// Tests need some instant to start from.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod announce;
pub mod backoff;
pub mod bans;
pub mod credit;
pub mod custody;
pub mod dedup;
pub mod delivery;
pub mod discovery;
pub mod drain;
pub mod duplicate;
pub mod egress;
pub mod fib;
pub mod health;
pub mod kept_out;
pub mod lease;
pub mod ledger;
pub mod limit;
pub mod link;
pub mod node_clock;
pub mod places;
pub mod port_mapping;
pub mod pressure;
pub mod ranking;
pub mod router;
pub mod suspects;
pub mod table;
pub mod verify;
