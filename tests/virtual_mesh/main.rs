//! Meshes of whole nodes in one process and in virtual time, and what somebody can do to them who
//! speaks the protocol: real routers, registries, links with their readers and writers, rate
//! limiters and deliveries, over links in memory. Only the clock, the disk and the medium are played.
//!
//! Times asserted here are virtual: they do not depend on the machine.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod attacker;
mod node;
mod tap;

mod amplification;
mod bad_input;
mod drains;
mod floods;
mod healing;
mod liars;
mod peace;
mod racing;
mod replays;
mod slow_links;
