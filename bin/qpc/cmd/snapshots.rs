//! What people see of fixed objects, on a wide and on a usual terminal, as files below
//! `tests/snapshots/tables/`. `QPC_BLESS=1 cargo test --bin qpc snapshots` writes them anew.

use std::{collections::BTreeMap, fs, path::Path};

use quicprochat_mesh::{
    api::*,
    wire::{Address, MessageUid, PacketId, PublicKey},
};

use super::{contact, inbox, known, mailboxes, message, outbox, peers, routes, stats, status, trace};
use crate::human;

/// A wide terminal and a usual one.
const WIDTHS: [usize; 2] = [120, 80];

/// The time that everything is seen from.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

#[track_caller]
fn check(name: &str, render: impl Fn(Option<usize>) -> String) {
    let mut text = String::new();
    for width in WIDTHS {
        let shown = anstream::adapter::strip_str(&render(Some(width))).to_string();
        let widest = shown.lines().map(crate::screen::width).max().unwrap_or(0);
        assert!(widest <= width, "{name} takes {widest} of {width} columns:\n{shown}");
        assert!(!shown.lines().any(|line| line.ends_with(' ')), "{name}: blanks at the end of a line");
        text.push_str(&format!("== {width} columns\n{shown}\n"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/tables/{name}.txt"));
    if std::env::var_os("QPC_BLESS").is_some() {
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{} differs (QPC_BLESS=1 writes it):\n{text}", path.display());
}

fn address(byte: u8) -> Address {
    Address([byte; 16])
}

fn id(byte: u8) -> MessageUid {
    MessageUid([byte; 16])
}

fn ago(s: u64) -> Timestamp {
    Timestamp(NOW.0 - s * 1000)
}

#[test]
fn the_table_of_links() {
    let peer = Peer {
        address: Some(address(0xa1)),
        url: "quic://192.0.2.1:7410".into(),
        transport: "quic".into(),
        direction: Direction::Out,
        origin: "config".into(),
        since_s: 5,
        rtt_ms: Some(0.41),
        tx_frames: 10,
        rx_frames: 20,
        tx_bytes: 999,
        rx_bytes: 123_456_789,
        capability: Capability::Unconstrained,
        rssi_dbm: None,
        snr_db: None,
    };
    let peers = [
        peer.clone(),
        Peer {
            address: None,
            url: "tcp://[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".into(),
            direction: Direction::In,
            since_s: 90_000,
            rtt_ms: Some(312.25),
            capability: Capability::SeverelyConstrained,
            ..peer.clone()
        },
        Peer { address: Some(address(0xb2)), rtt_ms: None, since_s: 4_000, ..peer },
    ];
    check("peers", |room| peers::table(&peers).render(room));
}

#[test]
fn the_routing_table() {
    let route = Route {
        destination: address(0xa1),
        next_hop: address(0xa1),
        hops: 1,
        sequence: 4,
        boot_epoch: 1,
        expires_s: 1700,
        capabilities: vec!["relay".into(), "store".into()],
        transport: "quic".into(),
        alternatives: 0,
        delivered_share: None,
    };
    let routes = [
        route.clone(),
        Route {
            destination: address(0xc3),
            hops: 17,
            alternatives: 1200,
            delivered_share: Some(0.985),
            capabilities: vec!["re\u{1b}[31mlay".into()],
            ..route
        },
    ];
    check("routes", |room| routes::table(&routes).render(room));
}

#[test]
fn the_table_of_everyone_heard() {
    let node = KnownNode {
        address: address(0xb2),
        boot_epoch: 2,
        sequence: 3,
        capabilities: vec!["relay".into(), "store".into()],
        reachable: true,
        has_key: true,
        forgotten_s: 86_399,
    };
    let known = [node.clone(), KnownNode { reachable: false, has_key: false, capabilities: vec![], ..node }];
    check("known", |room| known::table(&known).render(room));
}

#[test]
fn the_table_of_what_is_held_for_others() {
    let mailbox = Mailbox {
        destination: address(0xb2),
        messages: 2,
        bytes: 4096,
        oldest_s: Some(90),
        reachable: false,
    };
    let held = [mailbox.clone(), Mailbox { messages: 12_345, oldest_s: None, reachable: true, ..mailbox }];
    check("mailboxes", |room| mailboxes::table(&held).render(room));
}

#[test]
fn the_inbox() {
    let item = InboxItem {
        id: id(1),
        from: address(0xa1),
        from_name: Some("änne".into()),
        broadcast: false,
        sent_at: Some(ago(70)),
        received_at: ago(65),
        hops: Some(2),
        size: 23,
        name: None,
    };
    let items = [
        item.clone(),
        InboxItem {
            id: id(2),
            from_name: None,
            received_at: ago(100_000),
            size: 16 << 20,
            name: Some("ファイル 写真 of \u{202e}the lake in the morning.jpg".into()),
            ..item.clone()
        },
        // From a clock that is ahead.
        InboxItem { id: id(3), received_at: Timestamp(NOW.0 + 5000), ..item },
    ];
    check("inbox", |room| inbox::table(&items, NOW).render(room));
}

#[test]
fn the_outbox() {
    let item = OutboxItem {
        id: id(7),
        to: address(0xb2),
        size: 5,
        priority: Priority::Normal,
        attempts: 1,
        next_retry_s: None,
        expires_s: 60,
        state: "queued".into(),
        reason: Some("no_path".into()),
        chunks_done: None,
        chunks: None,
    };
    let items = [
        item.clone(),
        OutboxItem {
            id: id(8),
            size: 16 << 20,
            priority: Priority::Critical,
            attempts: 1234,
            next_retry_s: Some(10_740),
            expires_s: 86_340,
            state: "in_custody".into(),
            reason: Some("in_custody".into()),
            chunks_done: Some(120),
            chunks: Some(1400),
            ..item
        },
    ];
    check("outbox", |room| outbox::table(&items).render(room));
}

#[test]
fn the_contacts() {
    let contact = Contact { name: "änne".into(), address: address(0xa1), public_key: None };
    let long = "a name that is as long as one may be and goes on and on and on and on".into();
    let contacts = [
        contact.clone(),
        Contact { name: "写真".into(), address: address(0xb2), public_key: Some(PublicKey([1; 32])) },
        Contact { name: long, ..contact },
    ];
    check("contacts", |room| contact::table(&contacts).render(room));
}

#[test]
fn a_trace() {
    let hop = TraceHop { address: None, rtt_ms: None, transport: None, snr_db: None };
    let end = TraceHop {
        address: Some(address(0xb2)),
        rtt_ms: Some(1234.5),
        transport: Some("quic".into()),
        snr_db: None,
    };
    let trace = Trace { destination: address(0xb2), reached: true, hops: vec![hop, end] };
    check("trace", |room| trace::table(&trace).render(room));
}

#[test]
fn the_status() {
    let part = |status, detail: Option<&str>| SubsystemStatus { status, detail: detail.map(str::to_owned) };
    let trouble =
        "the disk took 12 s for a commit, and 3 of 5 messages were refused because of it; see the log";
    let status = Status {
        address: address(0xa1),
        version: "0.1.0".into(),
        network: "public".into(),
        uptime_s: 93_784,
        state: NodeState::Degraded,
        subsystems: BTreeMap::from([
            ("transport".into(), part(NodeState::Healthy, Some("2 links up"))),
            ("routing".into(), part(NodeState::Unhealthy, None)),
            ("store".into(), part(NodeState::Degraded, Some(trouble))),
        ]),
        peers: 2,
        routes: 65_536,
        stored: 0,
        health: Some("127.0.0.1:7411".into()),
        external: vec![],
        listen: vec!["quic://[::]:7410".into(), "tcp://[::]:7410".into()],
    };
    check("status", |room| human::fields_within(&status::fields(&status), room));
    let painted = human::fields(&status::fields(&status));
    for word in ["\u{1b}[32mhealthy", "\u{1b}[33mdegraded", "\u{1b}[31munhealthy"] {
        assert!(painted.contains(word), "{painted:?}");
    }
}

#[test]
fn the_history_of_a_message() {
    let event = |s, event: &str| MessageEvent {
        at: ago(s),
        clock_trusted: event != "accepted",
        event: event.into(),
        packet: None,
        custodian: None,
        attempt: None,
        reason: None,
        size: None,
        hops: None,
        rtt_ms: None,
        chunks_done: None,
        chunks: None,
    };
    let packet = Some(PacketId([9; 16]));
    let message = Message {
        id: id(7),
        direction: Direction::Out,
        peer: Some(address(0xa1)),
        peer_name: Some("an\u{1b}na".into()),
        broadcast: false,
        state: "delivered".into(),
        reason: None,
        size: Some(5),
        priority: Some(Priority::Normal),
        attempts: Some(2),
        next_retry_s: None,
        expires_s: None,
        rtt_ms: Some(663_540.0),
        hops: Some(2),
        chunks_done: None,
        chunks: None,
        history: vec![
            MessageEvent { size: Some(5), ..event(4000, "accepted") },
            MessageEvent { packet, attempt: Some(1), ..event(3999, "sent") },
            MessageEvent { packet, custodian: Some(address(0xb2)), ..event(3998, "in_custody") },
            MessageEvent { rtt_ms: Some(663_540.0), hops: Some(2), ..event(14, "delivered") },
        ],
    };
    check("message", |room| message::tell(&message, NOW, room));
}

#[test]
fn the_counters() {
    let stats = serde_json::json!({
        "actors": {"up": 1, "restarts_total": {"router": 0, "store watch": 0}},
        "rate_limits": {"shed_total": {"low": 0}},
        "store": {"held_bytes": 1_234_567, "store_commit_seconds": {"count": 1200, "sum": 1.5}},
        "transports": {
            "link_bytes_total": {"quic/rx": 3_066_281, "quic/tx": 11_315, "tcp/rx": 9854, "tcp/tx": 3_065_609},
            "link_frames_total": {"quic/rx": 279, "quic/tx": 118, "tcp/rx": 0, "tcp/tx": 212},
        },
    });
    let stats = stats.as_object().expect("an object");
    check("stats", |room| stats::tell(stats, false, room));
    check("stats_all", |room| stats::tell(stats, true, room));
}
