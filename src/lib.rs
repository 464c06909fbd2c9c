//! QuicProChat Mesh: a peer-to-peer node that carries signed, end-to-end encrypted messages over
//! QUIC and TCP, hop by hop, with no server that owns the network.
//!
//! A node is built with [`MeshNodeBuilder`] and used through [`MeshNode`] and [`RunHandle`]; that
//! it is a tree of actors inside is nothing its user has to know. `docs/library.md` is the guide. A
//! node in ten lines:
//!
//! ```
//! use quicprochat_mesh::{MeshConfig, MeshNodeBuilder};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("node");
//! let config = MeshConfig::from_toml("[transport]\nlisten = ['tcp://127.0.0.1:0']\n[health]\nlisten = 'off'")?;
//! let running = MeshNodeBuilder::new().config(config).data_dir(&dir).build().await?.run().await?;
//! println!("{} listens on {:?}", running.node().address(), running.listening().urls);
//! running.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Two nodes in one program, over TCP on this machine:
//!
//! ```
//! use std::time::Duration;
//! use futures_util::StreamExt;
//! use quicprochat_mesh::{MeshConfig, MeshNodeBuilder, Outbound, RunHandle};
//!
//! async fn start(dir: &std::path::Path, peers: &str) -> Result<RunHandle, quicprochat_mesh::MeshError> {
//!     let config = MeshConfig::from_toml(&format!(
//!         "[transport]\nlisten = ['tcp://127.0.0.1:0']\npeers = [{peers}]\n[health]\nlisten = 'off'\n"
//!     ))?;
//!     MeshNodeBuilder::new().config(config).data_dir(dir).build().await?.run().await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (anna_dir, bert_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let (anna_dir, bert_dir) = (anna_dir.path().join("anna"), bert_dir.path().join("bert"));
//! let bert = start(&bert_dir, "").await?;
//! // The pin behind # refuses any other identity at that place.
//! let bert_url = format!("'{}#{}'", bert.listening().urls[0], bert.node().address());
//! let anna = start(&anna_dir, &bert_url).await?;
//!
//! // On Anna's disk when `send` returns; it goes out as soon as there is a way.
//! let id = anna.node().send(Outbound::new(bert.node().address(), "hello")).await?;
//! // Bert's signed receipt is back when this returns.
//! let end = tokio::time::timeout(Duration::from_secs(60), anna.node().wait_for(id)).await??;
//! println!("{end:?}");
//!
//! let mut messages = bert.node().messages()?;
//! if let Some(received) = messages.next().await {
//!     let received = received?;
//!     assert_eq!(received.message().from(), anna.node().address());
//!     assert_eq!(received.content(), "hello");
//!     // Out of Bert's inbox when this returns; what is not acknowledged comes again.
//!     received.ack().await?;
//! }
//! anna.shutdown().await?;
//! bert.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! From the bytes up: [`wire`] (formats), [`crypto`] (keys, signatures, seals), [`proto`] (every
//! decision, without IO, clocks or randomness of its own), [`transport`] and [`storage`] (IO),
//! [`messages`] and [`actors`] (thin shells around the cores), [`node`] (what wires them).
//! `ARCHITECTURE.md` tells the whole; `docs/protocol.md` is the specification of the wire.
//!
//! # In a program of one's own
//!
//! - A program's tasks, connections and hooks take part in the node's drain through a
//!   [`ShutdownCoordinator`].
//! - A medium of its own is a [`MeshTransport`], given to [`MeshNodeBuilder::transport`]. Single
//!   envelopes go in by [`MeshNode::process_incoming`], without a link.
//! - Commands as people type them, and playbooks of them: [`SlashCommand`], [`execute_slash`], [`Playbook`].
//! - Numbers of the whole process: [`MeshMetrics`], [`RunHandle::metrics_snapshot`].
//!
//! `examples/` has a program for each.
//!
//! # Names of the system before this one
//!
//! | name | here |
//! |---|---|
//! | `MeshNodeBuilder`, `MeshNode`, `RunHandle`, `MeshIdentity`, `MeshEnvelope`, `MeshEnvelopeV2`, `MeshAnnounce`, `MeshConfig` with its sections, `RoutingTable`, `TokenBucket`, `BackpressureController`, `HealthServer`, `NodeHealth`, `HealthStatus`, `MetricsSnapshot`, `prometheus_text` | under the same names |
//! | `MeshRouter` | [`MeshNode::router`]; `handle_incoming` is [`MeshNode::process_incoming`] too |
//! | `AnnounceDedup`, `create_announce`, `process_received_announce` | the same names, for programs with a [`RoutingTable`] of their own; a node does this by itself |
//! | `gc` | [`MeshNode::gc`] |
//! | `MeshMetrics` | [`MeshMetrics::install`] |
//! | `ShutdownCoordinator`, `TaskGuard`, `ConnectionDrainer` | the same names, with [`MeshNodeBuilder::shutdown`] |
//! | `CryptoConfig` | how long receiver keys live |
//! | `PersistentMessageStore`, `PersistentRoutingTable` | the same names, for programs that route by themselves; a node keeps both on its own, see [`MeshRouter::drain_store_for`] and [`MeshNode::held`] |
//! | `DutyCycleTracker` | not yet: comes with radio |
//! | `fapp_relay`, `fapp_patient`, `fapp_therapist` of the builder | not yet: come with FAPP |

/// The guide's code, compiled and run with the other examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
pub struct LibraryGuide;

mod accept;
pub mod actors;
pub mod api;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod error;
pub mod events;
pub mod http;
pub mod messages;
pub mod node;
pub mod persistent;
pub mod proto;
pub mod slash;
pub mod storage;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
pub mod wire;

pub use config::{
    AnnounceConfig, ConfigError, CryptoConfig, DiscoveryConfig, DrainConfig, HealthConfig, IdentityConfig,
    InboxConfig, LoggingConfig, MeshConfig, PeersConfig, RateLimitConfig, RoutingConfig, StoreConfig,
    TransportConfig,
};
pub use crypto::{CryptoError, MeshIdentity, compute_address};
pub use error::{ErrorContext, MeshError, ProtocolError, RoutingError};
pub use events::{Event, EventKind, Events};
pub use http::HealthServer;
pub use node::{
    ConnectionDrainer, DropReason, GcReport, InboxMessage, IncomingAction, MeshNode, MeshNodeBuilder,
    MeshRouter, Messages, Outbound, Received, RunHandle, ShutdownCoordinator, ShutdownError, ShutdownReport,
    TaskGuard,
};
pub use persistent::{PersistentMessageStore, PersistentRoutingTable};
pub use proto::{
    announce::{AnnounceDedup, AnnounceParts, Freshness, create_announce, process_received_announce},
    health::{HealthStatus, NodeHealth},
    limit::TokenBucket,
    pressure::BackpressureController,
    table::RoutingTable,
};
pub use slash::{Playbook, RunningNode, SlashBackend, SlashCommand, SlashError, SlashReply, execute_slash};
pub use storage::StoreError;
pub use telemetry::{MeshMetrics, MetricsSnapshot, prometheus_text};
pub use transport::{
    CryptoMode, MeshTransport, TransportAddr, TransportCapability, TransportError, TransportInfo,
    TransportManager,
};
pub use wire::{Announce as MeshAnnounce, MeshEnvelope, MeshEnvelopeV2};
