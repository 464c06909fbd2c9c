//! QuicProChat Mesh: a peer-to-peer node that carries signed, end-to-end encrypted messages over
//! QUIC, TCP and radio, hop by hop, with no server that owns the network.

pub mod actors;
pub mod api;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod error;
pub mod http;
pub mod messages;
pub mod node;
pub mod proto;
pub mod storage;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
pub mod wire;
