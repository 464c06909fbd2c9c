//! What a program that embeds a node may rely on: names, and where their values may go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, error::Error, fmt::Debug, fs, path::Path};

use quicprochat_mesh as mesh;

/// Every name at the crate's root. One that is to go is deprecated for a version first.
const ROOT: &[&str] = &[
    "AnnounceConfig",
    "AnnounceDedup",
    "AnnounceParts",
    "BackpressureController",
    "ConfigError",
    "ConnectionDrainer",
    "CryptoConfig",
    "CryptoError",
    "CryptoMode",
    "DiscoveryConfig",
    "DrainConfig",
    "DropReason",
    "ErrorContext",
    "Event",
    "EventKind",
    "Events",
    "Freshness",
    "GcReport",
    "HealthConfig",
    "HealthServer",
    "HealthStatus",
    "IdentityConfig",
    "InboxConfig",
    "InboxMessage",
    "IncomingAction",
    "LoggingConfig",
    "MeshAnnounce",
    "MeshConfig",
    "MeshEnvelope",
    "MeshEnvelopeV2",
    "MeshError",
    "MeshIdentity",
    "MeshMetrics",
    "MeshNode",
    "MeshNodeBuilder",
    "MeshRouter",
    "MeshTransport",
    "Messages",
    "MetricsSnapshot",
    "NodeHealth",
    "Outbound",
    "PeersConfig",
    "PersistentMessageStore",
    "PersistentRoutingTable",
    "Playbook",
    "ProtocolError",
    "RateLimitConfig",
    "Received",
    "RoutingConfig",
    "RoutingError",
    "RoutingTable",
    "RunHandle",
    "RunningNode",
    "ShutdownCoordinator",
    "ShutdownError",
    "ShutdownReport",
    "SlashBackend",
    "SlashCommand",
    "SlashError",
    "SlashReply",
    "StoreConfig",
    "StoreError",
    "TaskGuard",
    "TokenBucket",
    "TransportAddr",
    "TransportCapability",
    "TransportConfig",
    "TransportError",
    "TransportInfo",
    "TransportManager",
    "compute_address",
    "create_announce",
    "execute_slash",
    "process_received_announce",
    "prometheus_text",
];

/// A value that may be used by any thread, for as long as it likes.
fn goes_anywhere<T: Send + Sync + Debug + 'static>() {}

/// A handle: its clones are the same thing.
fn is_a_handle<T: Clone + Send + Sync + Debug + 'static>() {}

/// An error that a program can box and send on.
fn is_an_error<T: Error + Send + Sync + 'static>() {}

#[test]
fn handles_go_to_other_threads_and_errors_can_be_boxed() {
    is_a_handle::<mesh::MeshNode>();
    is_a_handle::<mesh::MeshRouter>();
    is_a_handle::<mesh::ShutdownCoordinator>();
    is_a_handle::<mesh::MeshConfig>();
    is_a_handle::<mesh::MeshAnnounce>();
    is_a_handle::<mesh::MeshEnvelope>();
    is_a_handle::<mesh::MeshEnvelopeV2>();
    is_a_handle::<mesh::Received>();
    is_a_handle::<mesh::InboxMessage>();
    is_a_handle::<mesh::Outbound>();
    is_a_handle::<mesh::TransportAddr>();
    is_a_handle::<mesh::NodeHealth>();
    is_a_handle::<mesh::MetricsSnapshot>();
    goes_anywhere::<mesh::RunHandle>();
    goes_anywhere::<mesh::MeshNodeBuilder>();
    goes_anywhere::<mesh::MeshIdentity>();
    goes_anywhere::<mesh::PersistentMessageStore>();
    goes_anywhere::<mesh::PersistentRoutingTable>();
    goes_anywhere::<mesh::RoutingTable>();
    goes_anywhere::<mesh::TaskGuard>();
    goes_anywhere::<mesh::ConnectionDrainer>();
    is_an_error::<mesh::MeshError>();
    is_an_error::<mesh::TransportError>();
    is_an_error::<mesh::RoutingError>();
    is_an_error::<mesh::CryptoError>();
    is_an_error::<mesh::ProtocolError>();
    is_an_error::<mesh::StoreError>();
    is_an_error::<mesh::ConfigError>();
    is_an_error::<mesh::ShutdownError>();
    // A stream is read by one task at a time, which may move between threads.
    fn moves<T: Send + Debug + Unpin + 'static>() {}
    moves::<mesh::Messages>();
}

#[test]
fn futures_of_a_node_may_move_between_threads() {
    fn moves<T: Send>(_: impl Fn(mesh::MeshNode) -> T) {}
    moves(|node| async move { node.messages().map(drop) });
    moves(|node| async move { node.receive().await.map(drop) });
    moves(|node| async move { node.gc().await.map(drop) });
    moves(|node| async move {
        let address = node.address();
        let id = node.send(mesh::Outbound::new(address, "x")).await?;
        node.wait_for(id).await.map(drop)
    });
}

/// The names that `src/lib.rs` re-exports.
fn root_names() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut out = BTreeSet::new();
    for statement in text.split("\npub use ").skip(1) {
        let (statement, _) = statement.split_once(';').unwrap();
        let names = statement.split(['{', '}', ',']).map(str::trim).filter(|part| !part.is_empty());
        for name in names {
            let (path, renamed) = name.split_once(" as ").map_or((name, None), |(p, n)| (p, Some(n)));
            let last = path.rsplit("::").next().unwrap();
            let name = renamed.unwrap_or(last);
            // A path that goes on in braces ends with `::` and names nothing itself.
            out.extend((!name.is_empty()).then(|| name.to_owned()));
        }
    }
    out
}

#[test]
fn no_name_at_the_root_goes_unseen() {
    let wanted: BTreeSet<String> = ROOT.iter().map(|name| (*name).to_owned()).collect();
    let found = root_names();
    let gone: Vec<_> = wanted.difference(&found).collect();
    let new: Vec<_> = found.difference(&wanted).collect();
    assert!(gone.is_empty(), "these names are gone from src/lib.rs: {gone:?}");
    assert!(new.is_empty(), "these are new in src/lib.rs; put them into ROOT: {new:?}");
}
