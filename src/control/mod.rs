//! The control socket: how `qpc`, and any local tool of the same user, talks to a running node.
//!
//! A Unix socket in the data directory, mode 0600, which also checks the peer's user. A connection
//! carries one request, or one after the other where each says `"more":true`, up to the first that
//! is refused:
//!
//! ```text
//! client  {"v":1,"request":{"command":"send",…},"payload_len":5}\n  then 5 bytes
//! node    {"reply":{…},"payload_len":0,"ack":null}\n            any number, each followed by its payload
//! node    {"reply":{…},"payload_len":3,"ack":7}\n  then 3 bytes; wants an answer before it goes on:
//! client  {"ack":7}\n
//! node    {"end":{}}\n   or   {"error":{"class":"failed","message":"…"}}\n
//! ```
//!
//! A client that goes away cancels its request: the future that serves it is dropped. The protocol
//! is no public interface; it changes with [`VERSION`], and node and client of different versions
//! refuse each other by name.
//!
//! Deliberately absent: authentication beyond the user id, remote access, and any knowledge of what
//! a node is. [`Service`] is the seam: the node implements it, tests put a fake behind it.

pub mod client;
mod connection;
pub mod error;
pub mod location;
pub mod protocol;
pub mod server;
pub mod service;

pub use client::{Client, ReplyFrame};
pub use error::ControlError;
pub use protocol::VERSION;
pub use server::{ControlServer, ServerHandle};
pub use service::{ClientGone, Outgoing, ReplyRx, ReplyTx, Service, reply_channel};
