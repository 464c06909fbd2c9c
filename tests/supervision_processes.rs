//! Nodes that lose parts of themselves, and nodes that are told to end, under load: what was
//! acknowledged arrives, once, and whatever cannot be started again ends the process. Real `qpc run`,
//! driven by `qpc bench load`, judged by `qpc bench verify`.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Load, Node, Spec, nothing_amiss, temp_dir, verify, wait_for, wait_until};
use serde_json::Value;

/// What is started again, and whether the node dials: only such a node has a dialler. In an order in
/// which no node of three loses the branch of its links twice.
const PARTS: [&str; 14] = [
    "transport/dialler",
    "delivery",
    "router",
    "transport/link/reader",
    "store",
    "transport",
    "rate_limiter",
    "transport/link/writer",
    "maintenance",
    "http",
    "transport/links",
    "health",
    "transport/link",
    "transport/listener",
];

/// A line of three over both transports, in which whatever a test names can panic.
fn line() -> [Node; 3] {
    let sink = Spec::new("sink").can_panic().start();
    let relay = Spec::new("relay").can_panic().peer(sink.url("tcp")).start();
    let source = Spec::new("source").can_panic().peer(relay.url("quic")).start();
    source.knows(&[&sink]);
    sink.knows(&[&source]);
    [source, relay, sink]
}

fn load(work: &Path, nodes: &[Node; 3], rate: &str) -> Load {
    let to = nodes[2].dir().to_str().unwrap();
    let more = ["--rate", rate, "--seconds", "600", "--settle", "120s", "--window", "16"];
    let mut load = Load::start(&work.join("load.jsonl"), &[&nodes[0]], &[to], &more);
    load.goes_on("receive", 20);
    load
}

/// Ends a load, and asserts that everything acknowledged has arrived, once.
fn all_arrived(load: Load, nodes: &[Node; 3]) -> Value {
    let log = load.log.clone();
    let ended = load.stop().exits(0).object();
    assert_eq!(ended["missing"], 0, "{ended:#}");
    let [source, relay, sink] = nodes;
    let found = nothing_amiss(verify(&log, &[source, relay, sink]));
    source.has_all_receipts();
    found
}

#[test]
fn whatever_part_panics_under_load_the_node_goes_on_and_what_cannot_go_on_ends_it() {
    let mut nodes = line();
    let work = temp_dir();
    let mut load = load(work.path(), &nodes, "100");
    for (turn, part) in PARTS.into_iter().enumerate() {
        nodes[turn % 3].panics(part);
        load.goes_on("receive", 10);
    }
    for (turn, (part, why)) in [
        ("root", "the root of the actor tree crashed"),
        ("storage", "the store's thread panicked"),
        ("store watch", "store watch crashed"),
    ]
    .into_iter()
    .enumerate()
    {
        let node = &mut nodes[turn];
        node.panics(part);
        let run = node.ends();
        assert_eq!(run.code, 1, "{part}: {run:?}");
        let told = format!("{}{}", run.stdout, run.stderr);
        assert!(told.contains(why), "{part}: {run:?}");
        node.restart();
        load.goes_on("receive", 10);
    }
    let found = all_arrived(load, &nodes);
    println!("{found:#}");
}

#[test]
fn a_part_that_cannot_be_kept_alive_ends_the_node_and_its_readiness_says_why() {
    let mut node = Spec::new("node").can_panic().start();
    // Who asks for its readiness is given time to see the end of it.
    let why = wait_for("readiness to be withdrawn", || {
        node.tell_to_panic("delivery");
        let (code, body) = node.http("/readyz").unwrap();
        (code == 503 && body.contains("gave up")).then_some(body)
    });
    assert!(why.contains("delivery crashed, after 5 restarts"), "{why}");
    let run = node.ends();
    assert_eq!(run.code, 1, "{run:?}");
    let stopped = run.object();
    assert_eq!(stopped["drained"], false, "{stopped}");
    assert_eq!(stopped["reason"], "failed: delivery crashed, after 5 restarts", "{stopped}");
    // Every start costs its wait, and none is made beyond the budget.
    assert_eq!(run.stderr.matches("child ended, restarting").count(), 5, "{}", run.stderr);
}

/// A message that lives so long is poison to whom it is poison.
const POISON: [&str; 2] = ["--ttl", "2d"];

/// Sends poison and gives its id.
#[track_caller]
fn send_poison(source: &Node, to: &str) -> Value {
    let args = [&["send", "--to", to], &POISON[..], &["poison"]].concat();
    source.qpc(&args).exits(0).object()["id"].clone()
}

/// Waits until poison is set aside where it falls, and sends something good behind it.
#[track_caller]
fn is_set_aside(poison: &Value, source: &Node, sink: &Node, falls_at: &Node, place: &str) {
    let label = [("where", place)];
    wait_until(&format!("{place} to set the poison aside"), || {
        falls_at.metric("qpc_quarantined_total", &label) >= 1.0
    });
    assert_eq!(falls_at.count_panics(), 3, "{place}");
    let after = source.deliver(sink, "after it");
    assert_eq!(after["status"], "delivered", "{place}: {after}");
    assert_eq!(falls_at.count_panics(), 3, "{place}: it is tried no more");
    let inbox = sink.inbox();
    assert!(inbox.iter().all(|entry| entry["id"] != *poison), "{place}: {inbox:#?}");
    assert!(falls_at.log().contains("is set aside"), "{place}");
}

#[test]
fn a_message_that_fells_its_handler_is_set_aside_after_three_times_and_others_go_on() {
    let at = |place: &str| Spec::new(place).env("QPC_TEST_POISON", place);
    let sink = at("delivery").start();
    let relay = at("router").peer(sink.url("tcp")).start();
    let mut source = at("outbox").peer(relay.url("quic")).start();
    let near = Spec::new("near").peer(relay.url("quic")).start();
    let beside = Spec::new("beside").peer(sink.url("quic")).start();
    for node in [&source, &near, &beside] {
        node.knows(&[&sink]);
        sink.knows(&[node]);
    }
    let to = sink.address();
    let poison = [&source, &near, &beside].map(|from| send_poison(from, &to));
    is_set_aside(&poison[0], &source, &sink, &source, "outbox");
    is_set_aside(&poison[1], &near, &sink, &relay, "router");
    is_set_aside(&poison[2], &beside, &sink, &sink, "delivery");

    // What is on the disk is counted there: the next start does not begin anew.
    let (stopped, code) = source.stop();
    assert_eq!((code, &stopped["undelivered_kept"]), (0, &1.into()), "{stopped}");
    source.restart();
    source.knows(&[&sink]);
    source.deliver(&sink, "after the restart");
    assert_eq!(source.count_panics(), 0, "a log of its own");
    assert_eq!(source.metric("qpc_quarantined_total", &[("where", "outbox")]), 1.0);
}

#[test]
fn a_held_message_that_fells_its_custodian_stays_where_it_is_and_others_are_handed_over() {
    let relay = Spec::new("relay").env("QPC_TEST_POISON", "store").start();
    let mut sink = Spec::new("sink").peer(relay.url("tcp")).start();
    let source = Spec::new("source").peer(relay.url("quic")).start();
    source.knows(&[&sink]);
    sink.knows(&[&source]);
    let to = sink.address();
    assert_eq!(sink.stop().1, 0);
    relay.has_links(1);
    send_poison(&source, &to);
    source.queue(&to, "good");
    let held = || relay.ask(&["mailboxes"]).iter().filter_map(|line| line["messages"].as_u64()).sum::<u64>();
    wait_until("both to be held", || held() == 2);
    sink.restart();
    let good = sink.take(1);
    assert_eq!(good[0]["text"], "good", "{good:#?}");
    relay.counts("qpc_quarantined_total", &[("where", "store")], 0.0);
    assert_eq!(relay.count_panics(), 3);
}

/// What a `stopped` line says became of what the node answered for.
#[track_caller]
fn balances(stopped: &Value) {
    let of = |what: &str| stopped[what].as_u64().unwrap();
    assert_eq!(of("accepted"), of("delivered") + of("rejected") + of("undelivered_kept"), "{stopped:#}");
}

#[test]
fn drains_under_load_lose_nothing_and_their_books_balance() {
    let mut nodes = line();
    let work = temp_dir();
    let mut load = load(work.path(), &nodes, "400");
    let mut accepted = 0;
    for drain in 0..6 {
        load.goes_on("ack", 100);
        let (stopped, code) = nodes[drain % 3].stop();
        assert_eq!((code, &stopped["drained"]), (0, &true.into()), "{stopped:#}");
        balances(&stopped);
        accepted += stopped["accepted"].as_u64().unwrap();
        nodes[drain % 3].restart();
        load.goes_on("receive", 20);
    }
    assert!(accepted > 200, "{accepted}");
    all_arrived(load, &nodes);
}
