//! The main job with real processes: `qpc run` on free ports, real files, kills and drains.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, net::TcpStream, path::Path};

use common::{Node, Run, Spec, random_file, sha256, signal, temp_dir, wait_for, wait_until};
use quicprochat_mesh::{
    api::{Priority, Request},
    control::Client,
};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;

/// Nodes in a row, each dialling the one before, over these transports in turn.
fn line(names: &[&str], transports: &[&str]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let mut spec = Spec::new(name);
        if let Some(before) = nodes.last() {
            spec = spec.peer(before.url(transports[n - 1]));
        }
        nodes.push(spec.start());
    }
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    first.knows(&[last]);
    last.knows(&[first]);
    nodes
}

fn text(message: &Value) -> &str {
    message["text"].as_str().unwrap()
}

fn texts(messages: &[Value]) -> Vec<&str> {
    let mut texts: Vec<&str> = messages.iter().map(text).collect();
    texts.sort_unstable();
    texts
}

/// Asserts that a file came whole: one message, whose file has the content sent.
#[track_caller]
fn came_whole(receiver: &Node, from: &Node, name: &str, content: &[u8]) {
    let into = temp_dir();
    let save = into.path().to_str().unwrap();
    let run = receiver.qpc(&["recv", "--count", "1", "--timeout", "120s", "--save", save]).exits(0);
    let message = run.object();
    assert_eq!(message["from"], from.address(), "{message}");
    assert_eq!(message["size"], content.len(), "{message}");
    assert_eq!(message["name"], name, "{message}");
    assert_eq!(message["sha256"], sha256(content), "{message}");
    let file = message["file"].as_str().unwrap();
    assert!(Path::new(file).starts_with(into.path()), "{message}");
    assert_eq!(sha256(&std::fs::read(file).unwrap()), sha256(content));
}

#[track_caller]
fn was_delivered(run: Run, hops: u64) {
    let sent = run.exits(0).object();
    assert_eq!((&sent["status"], &sent["hops"]), (&json!("delivered"), &json!(hops)), "{sent}");
    assert!(sent["rtt_ms"].as_f64().unwrap() > 0.0, "{sent}");
}

#[test]
fn a_line_of_five_carries_text_files_trace_ping_and_broadcast_from_end_to_end() {
    let nodes = line(&["a", "b", "c", "d", "e"], &["quic", "tcp", "quic", "tcp"]);
    let (first, last) = (&nodes[0], &nodes[4]);
    let to = last.address();
    let files = temp_dir();

    let sent = first.deliver(last, "good morning");
    assert_eq!((&sent["status"], &sent["hops"]), (&json!("delivered"), &json!(4)), "{sent}");
    let message = last.take(1).remove(0);
    assert_eq!(text(&message), "good morning");
    assert_eq!((&message["id"], &message["hops"]), (&sent["id"], &json!(4)));
    assert_eq!((&message["from"], &message["broadcast"]), (&json!(first.address()), &json!(false)));

    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    was_delivered(first.qpc(&["send", "--to", &to, "--file", lock, "--wait", "120s"]), 4);
    came_whole(last, first, "Cargo.lock", &std::fs::read(lock).unwrap());

    let path = files.path().join("random.bin");
    let content = random_file(&path, 16 * MIB);
    let path = path.to_str().unwrap();
    was_delivered(first.qpc(&["send", "--to", &to, "--file", path, "--wait", "170s"]), 4);
    came_whole(last, first, "random.bin", &content);
    // `delivered` is the receipt of the far end, not of a node on the way.
    assert!(last.metric("qpc_receipts_sent_total", &[]) >= 3.0);
    for relay in &nodes[1..4] {
        assert_eq!(relay.metric("qpc_receipts_sent_total", &[]), 0.0);
        assert_eq!(relay.metric("qpc_messages_received_total", &[]), 0.0);
    }

    let trace = first.ask(&["trace", &to, "--timeout", "60s"]).remove(0);
    assert_eq!((&trace["destination"], &trace["reached"]), (&json!(to), &json!(true)), "{trace}");
    let hops: Vec<(Value, Value)> = trace["hops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| (hop["address"].clone(), hop["transport"].clone()))
        .collect();
    let wanted: Vec<(Value, Value)> = nodes[1..]
        .iter()
        .zip(["quic", "tcp", "quic", "tcp"])
        .map(|(node, transport)| (json!(node.address()), json!(transport)))
        .collect();
    assert_eq!(hops, wanted, "{trace}");

    let pongs = first.ask(&["ping", &to, "--count", "3", "--interval", "10ms", "--timeout", "60s"]);
    assert_eq!(pongs.len(), 3);
    for (pong, seq) in pongs.iter().zip(1..) {
        assert_eq!((&pong["seq"], &pong["hops"]), (&json!(seq), &json!(4)), "{pong}");
        assert!(pong["rtt_ms"].as_f64().unwrap() > 0.0, "{pong}");
    }

    let id = nodes[2].ask(&["broadcast", "to all of you"]).remove(0)["id"].clone();
    for node in nodes.iter().filter(|node| node.name != "c") {
        let message = node.take(1).remove(0);
        assert_eq!((text(&message), &message["id"]), ("to all of you", &id));
        assert_eq!(message["broadcast"], true);
        assert_eq!(node.inbox(), [] as [Value; 0], "{} has more", node.name);
    }
    assert_eq!(nodes[2].inbox(), [] as [Value; 0], "its own broadcast came back");
}

#[test]
fn a_ring_of_four_delivers_each_broadcast_to_everyone_exactly_once() {
    let a = Spec::new("a").start();
    let b = Spec::new("b").peer(a.url("quic")).start();
    let c = Spec::new("c").peer(b.url("tcp")).start();
    let d = Spec::new("d").peer(c.url("quic")).peer(a.url("tcp")).start();
    let ring = [&a, &b, &c, &d];
    for node in ring {
        node.has_links(2);
    }
    let sent = ["one", "two", "three"];
    for text in sent {
        a.ask(&["broadcast", text]);
    }
    for node in [&b, &c, &d] {
        let what = format!("three broadcasts at {}", node.name);
        wait_until(&what, || node.inbox().len() >= sent.len());
    }
    // Both ways round met somewhere: three nodes in a row heard each broadcast from two sides or
    // sent it back.
    wait_until("a copy that came round", || {
        ring.iter().map(|node| node.metric("qpc_dedup_hits_total", &[])).sum::<f64>() >= sent.len() as f64
    });
    for node in [&b, &c, &d] {
        let messages = node.ask(&["recv"]);
        assert_eq!(texts(&messages), ["one", "three", "two"], "{}", node.name);
        assert!(messages.iter().all(|m| m["broadcast"] == true && m["from"] == a.address()));
    }
    assert_eq!(a.inbox(), [] as [Value; 0]);
}

#[test]
fn a_message_to_a_node_that_is_down_waits_in_custody_and_arrives_once() {
    let mut nodes = line(&["a", "b", "c"], &["quic", "tcp"]);
    nodes[2].kill();
    nodes[1].has_links(1);

    let id = nodes[0].queue(&nodes[2].address(), "are you there?");
    wait_until("custody at b", || nodes[1].status()["stored"].as_u64().unwrap() >= 1);
    let kept = nodes[0].ask(&["outbox"]);
    assert_eq!(kept.len(), 1, "the origin keeps it until the receipt: {kept:?}");
    assert_eq!(kept[0]["id"], *id);
    wait_until("the custody ack at a", || nodes[0].ask(&["outbox"])[0]["state"] == "in_custody");
    let held = nodes[1].ask(&["mailboxes"]);
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held[0]["destination"], json!(nodes[2].address()));
    assert_eq!((&held[0]["messages"], &held[0]["reachable"]), (&json!(1), &json!(false)));

    nodes[2].restart();
    let message = nodes[2].take(1).remove(0);
    assert_eq!((text(&message), &message["id"]), ("are you there?", &json!(id)));
    nodes[0].has_all_receipts();
    wait_until("b to forget it", || nodes[1].status()["stored"] == 0);
    assert_eq!(nodes[2].inbox(), [] as [Value; 0]);
    assert_eq!(nodes[0].metric("qpc_messages_ended_total", &[("outcome", "delivered")]), 1.0);
    assert_eq!(nodes[2].metric("qpc_messages_received_total", &[]), 1.0);
}

/// What a node tells of a message: its state and the names of its events.
#[track_caller]
fn told(node: &Node, id: &str) -> (String, Vec<String>) {
    let message = node.ask(&["message", id]).remove(0);
    let events = message["history"].as_array().unwrap();
    let events = events.iter().map(|event| event["event"].as_str().unwrap().to_owned());
    (message["state"].as_str().unwrap().to_owned(), events.collect())
}

#[test]
fn what_became_of_a_message_is_told_at_both_ends_and_over_restarts() {
    let mut nodes = line(&["a", "b", "c"], &["quic", "tcp"]);
    let to = nodes[2].address();
    let sent = nodes[0].deliver(&nodes[2], "first");
    let id = sent["id"].as_str().unwrap().to_owned();
    let message = nodes[0].ask(&["message", &id]).remove(0);
    assert_eq!((&message["direction"], &message["peer"]), (&json!("out"), &json!(to)), "{message}");
    assert_eq!((&message["state"], &message["hops"]), (&json!("delivered"), &json!(2)), "{message}");
    assert_eq!((&message["size"], &message["rtt_ms"]), (&json!(5), &sent["rtt_ms"]), "{message}");
    let events = told(&nodes[0], &id[..12]).1;
    assert_eq!((events[0].as_str(), events.last().unwrap().as_str()), ("accepted", "delivered"));
    assert!(events.iter().any(|event| event == "sent"), "{events:?}");
    let arrived = nodes[2].ask(&["message", &id]).remove(0);
    assert_eq!((&arrived["direction"], &arrived["state"]), (&json!("in"), &json!("in_inbox")), "{arrived}");
    assert_eq!((&arrived["peer"], &arrived["hops"]), (&json!(nodes[0].address()), &json!(2)), "{arrived}");
    nodes[2].take(1);
    assert_eq!(told(&nodes[2], &id), ("taken".into(), vec!["received".into(), "taken".into()]));
    // A relay sees packets, not messages.
    nodes[1].qpc(&["message", &id]).exits(1).says(&["nothing is known here of a message", &id]);
    nodes[0].qpc(&["message", "xyz"]).exits(2);

    nodes[2].kill();
    nodes[1].has_links(1);
    let late = nodes[0].queue(&to, "for later");
    let never = nodes[0].queue(&to, "never mind");
    for id in [&late, &never] {
        wait_until("the custody ack at a", || told(&nodes[0], id).0 == "in_custody");
    }
    assert_eq!(nodes[0].ask(&["outbox", "cancel", &never]).remove(0)["ok"], true);
    let (state, events) = told(&nodes[0], &never);
    assert_eq!((state.as_str(), events.last().unwrap().as_str()), ("cancelled", "cancelled"));
    let short = nodes[0].ask(&["send", "--to", &to, "--ttl", "1s", "too late"]).remove(0);
    let short = short["id"].as_str().unwrap().to_owned();

    let (_, code) = nodes[0].stop();
    assert_eq!(code, 0);
    nodes[0].restart();
    let events = told(&nodes[0], &late).1;
    assert!(events.contains(&"in_custody".into()), "{events:?}");
    assert_eq!(told(&nodes[0], &id).0, "delivered");
    nodes[2].restart();
    nodes[0].has_all_receipts();
    let (state, events) = told(&nodes[0], &late);
    assert_eq!((state.as_str(), events.last().unwrap().as_str()), ("delivered", "delivered"));
    assert!(events.contains(&"started".into()), "{events:?}");
    wait_until("the short one to end", || {
        !["queued", "sent", "waiting", "in_custody"].contains(&&*told(&nodes[0], &short).0)
    });
    let text = std::fs::read_to_string(nodes[0].dir().join("history.jsonl")).unwrap();
    assert!(!text.contains("first") && !text.contains("later"), "no content is in it");
}

/// Puts that many texts into the outbox, some at a time, without a process for each.
fn queue_many(node: &Node, to: &str, count: usize) {
    let send = async |n: usize| {
        let (to, text) = (to.to_owned(), format!("message {n}"));
        let (priority, ttl_ms, wait, file_name) = (Priority::Normal, None, false, None);
        let request = Request::Send { to, priority, ttl_ms, wait, file_name };
        let mut client = Client::request(node.dir(), &request, text.as_bytes()).await.unwrap();
        client.next().await.unwrap().unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for start in (0..count).step_by(20) {
            futures_util::future::join_all((start..count.min(start + 20)).map(send)).await;
        }
    });
}

#[test]
fn many_messages_are_taken_with_few_commits_and_a_killed_taker_sees_at_most_one_again() {
    const MESSAGES: usize = 300;
    let nodes = line(&["a", "b"], &["quic"]);
    queue_many(&nodes[0], &nodes[1].address(), MESSAGES);
    wait_until("all of them to arrive", || nodes[1].inbox().len() == MESSAGES);
    nodes[0].has_all_receipts();
    let in_inbox = || nodes[1].metric("qpc_inbox_messages", &[]);
    assert_eq!(in_inbox(), MESSAGES as f64);

    let commits = || nodes[1].metric("qpc_store_commit_seconds_count", &[]);
    let before = commits();
    let mut seen = nodes[1].take(MESSAGES - 100);
    let more = commits() - before;
    assert!(more <= seen.len() as f64 / 2.0, "{} messages were taken with {more} commits", seen.len());

    let mut taker = nodes[1].background(&["recv", "--follow"]);
    let mut lines = vec![taker.line()];
    taker.kill();
    lines.extend(taker.finish().stdout.lines().map(str::to_owned));
    seen.extend(lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    let rest = nodes[1].ask(&["recv"]);
    let again = seen.len() + rest.len() - MESSAGES;
    assert!(again <= 1, "{again} came again");
    let ids: std::collections::BTreeSet<_> = seen.iter().chain(&rest).map(|m| m["id"].to_string()).collect();
    assert_eq!(ids.len(), MESSAGES);
    assert_eq!(nodes[1].inbox(), [] as [Value; 0]);
    assert_eq!(in_inbox(), 0.0);
}

/// Kills one of three nodes in a row with SIGKILL while a file crosses them, starts it again, and
/// asserts that the file arrives whole, once, and is receipted.
#[track_caller]
fn a_transfer_survives_the_death_of(victim: usize) {
    let mut nodes = line(&["origin", "relay", "destination"], &["tcp", "quic"]);
    let files = temp_dir();
    let path = files.path().join("random.bin");
    let content = random_file(&path, 16 * MIB);
    let to = nodes[2].address();
    let sending =
        nodes[0].background(&["send", "--to", &to, "--file", path.to_str().unwrap(), "--wait", "170s"]);
    wait_until("chunks on their way", || nodes[1].metric("qpc_envelopes_forwarded_total", &[]) > 100.0);
    assert_eq!(nodes[2].inbox(), [] as [Value; 0], "the transfer was over before the kill");
    nodes[victim].kill();
    if victim != 0 {
        assert_eq!(nodes[0].ask(&["outbox"]).len(), 1, "the transfer was over before the kill");
    }
    nodes[victim].restart();

    if victim == 0 {
        // The command ends with its node; what the node took goes on with the next one.
        drop(sending);
        nodes[0].has_all_receipts();
    } else {
        was_delivered(sending.finish(), 2);
    }
    came_whole(&nodes[2], &nodes[0], "random.bin", &content);
    assert_eq!(nodes[2].inbox(), [] as [Value; 0]);
    assert_eq!(nodes[2].metric("qpc_messages_received_total", &[]), 1.0);
}

#[test]
fn a_relay_killed_in_the_middle_of_a_transfer_costs_nothing() {
    a_transfer_survives_the_death_of(1);
}

#[test]
fn a_destination_killed_in_the_middle_of_a_transfer_costs_nothing() {
    a_transfer_survives_the_death_of(2);
}

#[test]
fn an_origin_killed_in_the_middle_of_a_transfer_costs_nothing() {
    a_transfer_survives_the_death_of(0);
}

#[test]
fn a_drain_under_traffic_loses_nothing_and_shows_503_before_the_listeners_close() {
    let mut nodes = line(&["a", "b", "c"], &["tcp", "quic"]);
    let files = temp_dir();
    let path = files.path().join("random.bin");
    let content = random_file(&path, 4 * MIB);
    let to = nodes[2].address();
    assert_eq!(nodes[1].http("/readyz").unwrap().0, 200);

    nodes[0].qpc(&["send", "--to", &to, "--file", path.to_str().unwrap()]).exits(0);
    let mut sent: Vec<String> = (0..10).map(|n| format!("before {n}")).collect();
    sent.iter().for_each(|text| drop(nodes[0].queue(&to, text)));
    signal(nodes[1].pid(), "TERM");
    wait_until("b not to be ready", || nodes[1].http("/readyz").is_ok_and(|(code, _)| code == 503));
    let listener = nodes[1].url("tcp").replace("tcp://", "");
    assert!(TcpStream::connect(&listener).is_ok(), "the listener closed before readiness was gone");
    let (code, body) = nodes[1].http("/healthz").unwrap();
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &health["status"]), (503, &json!("draining")), "{health}");
    assert_eq!(nodes[1].http("/livez").unwrap().0, 200);
    for n in 0..5 {
        sent.push(format!("during {n}"));
        nodes[0].queue(&to, &sent[sent.len() - 1]);
    }
    // What people hand in this late is refused, or accepted and then not lost either.
    let late = nodes[1].qpc(&["send", "--to", &to, "late"]);
    match late.code {
        0 => sent.push("late".into()),
        1 | 69 => assert!(!late.stderr.is_empty(), "{late:?}"),
        _ => panic!("{late:?}"),
    }
    let (stopped, code) = nodes[1].stopped();
    drained(&stopped, code);
    assert_eq!(stopped["reason"], "signal");
    assert!(TcpStream::connect(&listener).is_err(), "something still listens");

    nodes[1].restart();
    nodes[0].has_all_receipts();
    nodes[1].has_all_receipts();
    let messages = nodes[2].take(sent.len() + 1);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for message in &messages {
        let name = message["name"].as_str().or(message["text"].as_str()).unwrap();
        *counts.entry(name.to_owned()).or_default() += 1;
        if message["name"] == "random.bin" {
            assert_eq!(message["sha256"], sha256(&content));
        }
    }
    sent.push("random.bin".into());
    assert_eq!(counts, sent.into_iter().map(|text| (text, 1)).collect());
    assert_eq!(nodes[2].inbox(), [] as [Value; 0]);
}

#[track_caller]
fn drained(stopped: &Value, code: i32) {
    assert_eq!((&stopped["event"], &stopped["drained"]), (&json!("stopped"), &json!(true)), "{stopped}");
    let names: Vec<&str> =
        stopped["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["draining", "persisting", "cleanup"], "{stopped}");
    assert_eq!(code, 0, "{stopped}");
}

#[test]
fn qpc_drain_prints_what_the_node_prints() {
    let mut node = Spec::new("a").start();
    let run = node.qpc(&["drain"]).exits(0).object();
    let (stopped, code) = node.stopped();
    drained(&stopped, code);
    assert_eq!(run, stopped);
    let gone = node.qpc(&["status"]).exits(69);
    assert_eq!(gone.stdout, "");
    // The data directory is free at once.
    node.restart();
    assert_eq!(node.status()["state"], "healthy");
}

#[test]
fn from_the_first_503_on_a_send_is_refused_and_without_a_poller_a_drain_is_quick() {
    let mut node = Spec::new("a").start();
    let nowhere = "0123456789abcdef0123456789abcdef";
    node.queue(nowhere, "kept");
    assert_eq!(node.http("/readyz").unwrap().0, 200);
    signal(node.pid(), "TERM");
    wait_until("the drain", || node.http("/readyz").is_ok_and(|(code, _)| code == 503));
    node.qpc(&["send", "--to", nowhere, "too late"]).exits(1).says(&["draining"]);
    node.qpc(&["broadcast", "too late"]).exits(1).says(&["draining"]);
    let (stopped, code) = node.stopped();
    drained(&stopped, code);
    assert_eq!(stopped["undelivered_kept"], 1, "{stopped}");
    let asked_ms = stopped["phases"][0]["ms"].as_u64().unwrap();
    assert!(asked_ms >= 1000, "{stopped}");

    node.restart();
    let status = node.status();
    assert_eq!((&status["stored"], node.ask(&["outbox"]).len()), (&json!(1), 1), "{status}");
    let (stopped, code) = node.stop();
    drained(&stopped, code);
    assert!(stopped["phases"][0]["ms"].as_u64().unwrap() < asked_ms, "nobody asked: {stopped}");
}

#[test]
fn a_full_inbox_is_told_to_the_sender_by_name_and_a_contact_gets_through() {
    // No room for strangers at all.
    let b = Spec::new("b").env("QPC_STORE_INBOX_STRANGERS_PERCENT", "0").start();
    let relay = Spec::new("relay").peer(b.url("tcp")).start();
    let a = Spec::new("a").peer(relay.url("quic")).start();
    a.knows(&[&b]);
    b.knows(&[&a]);
    // Between two tries there is a moment without a reason.
    let is_refused = || {
        let rows = a.ask(&["outbox"]);
        !rows.is_empty() && rows.iter().all(|row| row["reason"] == "refused: store_full")
    };
    a.qpc(&["send", "--to", &b.address(), "--wait", "1s", "let me in"]).exits(75);
    wait_until("the refusal", is_refused);
    assert_eq!(b.inbox(), [] as [Value; 0]);
    b.counts("qpc_inbound_refused_total", &[("reason", "inbox_strangers")], 0.0);

    b.ask(&["contact", "add", "anna", &a.address()]);
    a.deliver(&b, "now?");
    b.ask(&["contact", "remove", "anna"]);
    a.qpc(&["send", "--to", &b.address(), "--wait", "1s", "and now?"]).exits(75);
    wait_until("the refusal of what a stranger sends", is_refused);
}

#[test]
fn a_second_signal_skips_ahead() {
    let mut node = Spec::new("a").start();
    // Whoever asks for its health gets the whole notice to see that it drains.
    assert_eq!(node.http("/readyz").unwrap().0, 200);
    signal(node.pid(), "TERM");
    wait_until("the drain", || node.http("/readyz").is_ok_and(|(code, _)| code == 503));
    signal(node.pid(), "INT");
    let (stopped, _) = node.stopped();
    let ms = |n: usize| stopped["phases"][n]["ms"].as_u64().unwrap();
    // The whole notice of two seconds would be waited for otherwise.
    assert!(ms(0) < 2000, "{stopped}");
    node.restart();
}

#[test]
fn a_recv_that_is_killed_repeats_at_most_one_and_a_second_one_is_refused() {
    let nodes = line(&["a", "b"], &["quic"]);
    let sent: Vec<String> = (0..12).map(|n| format!("line {n:02}")).collect();
    sent.iter().for_each(|text| drop(nodes[0].queue(&nodes[1].address(), text)));
    nodes[0].has_all_receipts();

    let mut following = nodes[1].background(&["recv", "--follow"]);
    let mut seen: Vec<Value> = vec![serde_json::from_str(&following.line()).unwrap()];
    nodes[1].qpc(&["recv"]).exits(1).says(&["another `qpc recv`", "end it first"]);
    for _ in 1..5 {
        seen.push(serde_json::from_str(&following.line()).unwrap());
    }
    following.kill();
    // What it printed between the last line read here and its end counts as seen too.
    let rest = following.finish();
    seen.extend(rest.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()));

    let again = wait_for("the first taker to be gone", || {
        let run = nodes[1].qpc(&["recv"]);
        (run.code == 0).then(|| run.objects())
    });
    let repeated = again.iter().filter(|m| seen.iter().any(|s| s["id"] == m["id"])).count();
    assert!(repeated <= 1, "{repeated} messages came twice");
    let mut all: Vec<&str> = seen.iter().chain(&again).map(text).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, sent);
}

#[test]
fn a_restart_keeps_inbox_outbox_contacts_and_peers() {
    let other = Spec::new("other").start();
    let mut node = Spec::new("node").start();
    let nowhere = "0123456789abcdef0123456789abcdef";
    node.ask(&["peer", "add", &other.url("tcp")]);
    node.ask(&["contact", "add", "otto", &other.address()]);
    node.ask(&["contact", "add", "gone", nowhere]);
    node.knows(&[&other]);
    other.knows(&[&node]);
    other.deliver(&node, "still here?");
    let id = node.queue("gone", "one day");

    // Orderly once, by force once.
    for force in [false, true] {
        if force {
            node.kill();
        } else {
            let (stopped, code) = node.stop();
            drained(&stopped, code);
            assert_eq!(stopped["undelivered_kept"], 1, "{stopped}");
        }
        node.restart();
        let inbox = node.inbox();
        assert_eq!(inbox.len(), 1, "{inbox:?}");
        assert_eq!((&inbox[0]["from"], &inbox[0]["from_name"]), (&json!(other.address()), &json!("otto")));
        let outbox = node.ask(&["outbox"]);
        assert_eq!(outbox.len(), 1, "{outbox:?}");
        assert_eq!((&outbox[0]["id"], &outbox[0]["to"]), (&json!(id), &json!(nowhere)));
        let names: Vec<Value> = node.ask(&["contact", "list"]).iter().map(|c| c["name"].clone()).collect();
        assert_eq!(names, ["gone", "otto"]);
        // The peer was added at run time and is dialled again by itself.
        node.has_links(1);
    }
    assert_eq!(text(&node.take(1)[0]), "still here?");

    node.ask(&["peer", "remove", &other.url("tcp")]);
    node.has_links(0);
    node.ask(&["contact", "remove", "gone"]);
    node.ask(&["outbox", "cancel", &id]);
    node.stop();
    node.restart();
    assert_eq!(node.ask(&["contact", "list"]).len(), 1);
    assert_eq!(node.ask(&["outbox"]), [] as [Value; 0]);
    // Its own dialler would have been first to link up again.
    let probe = Spec::new("probe").peer(node.url("tcp")).start();
    node.knows(&[&probe]);
    let linked: Vec<Value> = node.ask(&["peers"]).iter().map(|p| p["address"].clone()).collect();
    assert_eq!(linked, [probe.address()]);
    node.qpc(&["peer", "remove", &other.url("tcp")]).exits(1).says(&["no peer of this node", "qpc peers"]);
    probe.qpc(&["peer", "remove", &node.url("tcp")]).exits(1).says(&["stands in the configuration"]);
}

#[test]
fn a_drain_delivers_nothing_to_whoever_waits() {
    let mut node = Spec::new("a").start();
    let nowhere = "0123456789abcdef0123456789abcdef";
    let waiting = node.background(&["send", "--to", nowhere, "--wait", "120s", "anyone?"]);
    wait_until("it to be on its way", || node.ask(&["outbox"]).len() == 1);
    node.stop();
    let queued = waiting.finish().exits(75).object();
    assert_eq!(queued["status"], "queued", "{queued}");
    node.restart();
    assert_eq!(node.ask(&["outbox"])[0]["id"], queued["id"]);
}

#[test]
fn what_cannot_be_delivered_says_why() {
    let node = Spec::new("a").start();
    let nowhere = "0123456789abcdef0123456789abcdef";

    let run = node.qpc(&["send", "--to", nowhere, "--wait", "1s", "anyone?"]).exits(75);
    let queued = run.object();
    assert_eq!(queued["status"], "queued");
    assert_eq!(queued["reason"], "no_key", "{queued}");
    assert_eq!(node.ask(&["outbox"])[0]["reason"], "no_key");

    let expired =
        node.qpc(&["send", "--to", nowhere, "--ttl", "1s", "--wait", "120s", "quick"]).exits(1).object();
    assert_eq!((&expired["status"], expired["reason"].is_string()), (&json!("expired"), true), "{expired}");

    let files = temp_dir();
    let path = files.path().join("large.bin");
    std::fs::File::create(&path).unwrap().set_len(16 * MIB + 1).unwrap();
    let large = path.to_str().unwrap();
    node.qpc(&["send", "--to", nowhere, "--file", large]).exits(1).says(&["large.bin", "16", "16777216"]);
    node.qpc(&["broadcast", "--file", large]).exits(1).says(&["large"]);
    node.qpc(&["send", "--to", nowhere, "--ttl", "15d", "x"]).exits(2).says(&["--ttl", "14d"]);
    // The one that goes on is all there is.
    assert_eq!(node.ask(&["outbox"]).len(), 1);
    assert_eq!(node.metric("qpc_messages_ended_total", &[("outcome", "expired")]), 1.0);
}

#[test]
fn links_on_two_threads_carry_a_file_across_and_end_with_a_goodbye() {
    let mut hub = Spec::new("hub").env("QPC_TRANSPORT_LINK_THREADS", "2").start();
    let spokes: Vec<Node> = [("a", "quic"), ("b", "tcp"), ("c", "quic"), ("d", "tcp")]
        .map(|(name, transport)| Spec::new(name).peer(hub.url(transport)).start())
        .into();
    hub.has_links(spokes.len());
    let [a, b, c, d] = spokes.as_slice() else { unreachable!() };
    let files = temp_dir();
    let path = files.path().join("random.bin");
    let content = random_file(&path, 4 * MIB);
    for (from, to) in [(a, b), (d, c)] {
        from.knows(&[to]);
        let (address, path) = (to.address(), path.to_str().unwrap());
        was_delivered(from.qpc(&["send", "--to", &address, "--file", path, "--wait", "170s"]), 2);
        came_whole(to, from, "random.bin", &content);
    }
    for node in &spokes {
        hub.deliver(node, "to each of you");
        node.take(1);
    }

    // Two links of either transport, and each thread has one of both or two of one.
    let log = hub.log();
    let ups: Vec<&str> = log.lines().filter(|line| line.contains("link up")).collect();
    for lane in ["lane=1", "lane=2"] {
        let here = ups.iter().filter(|line| line.contains(lane)).count();
        assert_eq!((here, ups.len()), (2, 4), "{ups:?}");
    }
    let (summary, code) = hub.stop();
    assert_eq!((code, &summary["drained"]), (0, &json!(true)), "{summary}");
    for node in &spokes {
        wait_until("the goodbye", || {
            node.log().lines().any(|line| line.contains("link down") && line.contains("shutdown"))
        });
    }
}
