//! The shells of the actors one by one, in virtual time: start, a full queue, a crash, a drain
//! while busy, the end. The cores under them have tests of their own; here it is about what a
//! shell adds: that nothing is acknowledged before it is durable, that what does not fit comes
//! back, and that an end is heard.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod custody;
mod delivery;
mod discovery;
mod links;
mod maintenance;
mod rate_limiter;
mod router;
mod support;
mod transport;
