//! Who reaches the person at a node: the blocked, strangers who wait to be accepted, contacts only. And
//! what the node says of what happens, and of a configuration that changes while it runs.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Node, Spec, qpc, random_file, sha256, temp_dir, wait_for, wait_until};
use serde_json::{Value, json};

/// Anna — relay — Bert, with what Bert accepts.
fn line(accept: &str) -> (Node, Node, Node) {
    let relay = Spec::new("relay").start();
    let anna = Spec::new("anna").peer(relay.url("quic")).start();
    let bert = Spec::new("bert").peer(relay.url("tcp")).env("QPC_INBOX_ACCEPT", accept).start();
    anna.knows(&[&relay, &bert]);
    bert.knows(&[&relay, &anna]);
    (relay, anna, bert)
}

fn send(from: &Node, to: &Node, what: &[&str]) -> common::Run {
    from.qpc(&[&["send", "--to", &to.address(), "--wait", "2m"], what].concat())
}

fn texts(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["text"].as_str()).collect()
}

#[test]
fn strangers_wait_until_they_are_accepted_and_are_dropped_where_they_are_declined() {
    let (_relay, anna, mut bert) = line("requests");
    let work = temp_dir();
    let file = work.path().join("photo.bin");
    let bytes = random_file(&file, 50_000);
    let first = send(&anna, &bert, &["Hi, it is Anna"]).exits(0).object();
    assert_eq!(first["status"], "delivered", "stored by his node");
    send(&anna, &bert, &["--file", file.to_str().unwrap()]).exits(0);
    assert_eq!(bert.inbox(), Vec::<Value>::new());
    assert_eq!(bert.status()["stored"], 2);

    // Also after a crash.
    bert.kill();
    bert.restart();
    let requests = bert.ask(&["requests", "list"]);
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!((&request["from"], &request["messages"]), (&json!(anna.address()), &json!(2)));
    assert_eq!(request["preview"], "Hi, it is Anna");
    let of = bert.ask(&["message", first["id"].as_str().unwrap()]);
    assert_eq!(of[0]["state"], "requested");

    bert.qpc(&["requests", "accept", "ffffffff"]).exits(1);
    let anna_prefix = anna.address()[..8].to_owned();
    let answered = bert.ask(&["requests", "accept", &anna_prefix]);
    assert_eq!(answered, [json!({"from": anna.address(), "accepted": true, "messages": 2})]);
    let taken = bert.take(2);
    assert_eq!(taken[0]["text"], "Hi, it is Anna");
    assert_eq!(taken[1]["sha256"], sha256(&bytes));
    // From now on she is none, also after a restart.
    bert.kill();
    bert.restart();
    bert.knows(&[&anna]);
    send(&anna, &bert, &["and again"]).exits(0);
    assert_eq!(texts(&bert.take(1)), ["and again"]);
    bert.qpc(&["requests", "accept", &anna_prefix]).exits(1).says(&["qpc requests list"]);

    // Somebody else is dropped, with the file, and may ask again.
    let carl = Spec::new("carl").peer(bert.url("quic")).start();
    carl.knows(&[&bert]);
    for _ in 0..2 {
        send(&carl, &bert, &["--file", file.to_str().unwrap()]).exits(0);
        let declined = bert.ask(&["requests", "decline", &carl.address()]);
        assert_eq!(declined, [json!({"from": carl.address(), "accepted": false, "messages": 1})]);
        assert_eq!(bert.status()["stored"], 0);
    }
    let blobs = fs::read_dir(bert.dir().join("blobs")).unwrap().flatten();
    let left = blobs.flat_map(|kind| fs::read_dir(kind.path()).into_iter().flatten()).count();
    assert_eq!(left, 0, "a content nobody wants is left");
    assert_eq!(bert.ask(&["requests", "list"]), Vec::<Value>::new());
    // Whom he writes to may answer.
    send(&bert, &carl, &["what is it?"]).exits(0);
    send(&carl, &bert, &["this"]).exits(0);
    assert_eq!(texts(&bert.take(1)), ["this"]);
}

#[test]
fn with_contacts_only_strangers_are_refused_and_told_so() {
    let (relay, anna, bert) = line("contacts");
    let refused = send(&anna, &bert, &["hello?"]).exits(1).says(&["takes no messages from this node"]);
    assert_eq!(refused.object()["status"], "failed");
    // Nobody keeps it, or sends it again.
    wait_until("an empty outbox", || anna.ask(&["outbox"]).is_empty());
    assert_eq!(relay.status()["stored"], 0);
    assert_eq!(bert.status()["stored"], 0);
    bert.qpc(&["contact", "add", "anna", &anna.address()]).exits(0);
    send(&anna, &bert, &["hello!"]).exits(0);
    assert_eq!(texts(&bert.take(1)), ["hello!"]);
}

#[test]
fn what_a_relay_keeps_ends_when_its_destination_does_not_want_it() {
    let (relay, anna, mut bert) = line("anyone");
    bert.qpc(&["block", &anna.address()]).exits(0);
    bert.stop();
    let id = anna.queue(&bert.address(), "are you there?");
    wait_until("custody at the relay", || relay.status()["stored"] == 1);
    bert.restart();
    wait_until("an empty relay", || relay.status()["stored"] == 0);
    wait_until("an empty outbox", || anna.ask(&["outbox"]).is_empty());
    assert_eq!(anna.ask(&["message", &id])[0]["state"], "rejected");
    assert_eq!(bert.inbox(), Vec::<Value>::new());
}

#[test]
fn the_blocked_reach_nobody_here_and_everybody_else() {
    let (relay, anna, bert) = line("anyone");
    let address = anna.address();
    assert_eq!(bert.ask(&["block", &address[..8]]), [json!({"address": address, "name": null})]);
    assert_eq!(bert.ask(&["blocked"])[0]["address"], address);
    let work = temp_dir();
    let file = work.path().join("f.bin");
    random_file(&file, 100_000);
    for what in [&["no"][..], &["--file", file.to_str().unwrap()]] {
        send(&anna, &bert, what).exits(1).says(&["takes no messages from this node"]);
    }
    anna.qpc(&["ping", &bert.address(), "--count", "1", "--timeout", "1s"]).exits(1);
    // A broadcast goes on, and is not shown; to the relay she may write.
    anna.qpc(&["broadcast", "all of you"]).exits(0);
    assert_eq!(texts(&relay.take(1)), ["all of you"]);
    send(&anna, &relay, &["yes"]).exits(0);
    // What he sends to her is delivered: her receipts count.
    send(&bert, &anna, &["you are blocked"]).exits(0);
    assert_eq!(bert.inbox(), Vec::<Value>::new());

    bert.qpc(&["block", &bert.address()]).exits(2).says(&["own address"]);
    bert.qpc(&["unblock", &address[..9]]).exits(0);
    bert.qpc(&["unblock", &address]).exits(1).says(&["is not blocked"]);
    send(&anna, &bert, &["thank you"]).exits(0);
    assert_eq!(texts(&bert.take(1)), ["thank you"]);
}

#[test]
fn events_tell_what_happens_as_it_happens() {
    let (_relay, anna, mut bert) = line("anyone");
    let mut events = bert.background(&["events", "--follow"]);
    let mut until = |what: &str, is_it: &dyn Fn(&Value) -> bool| -> Value {
        wait_for(what, || {
            let event: Value = serde_json::from_str(&events.line()).unwrap();
            assert!(event["at"].is_string(), "{event}");
            is_it(&event).then_some(event)
        })
    };
    until("the link", &|event| event["event"] == "link_up" && event["direction"] == "out");
    until("the route", &|event| event["event"] == "route_up" && event["destination"] == anna.address());
    let id = send(&anna, &bert, &["hi"]).exits(0).object()["id"].clone();
    let received = until("the message", &|event| event["event"] == "received");
    assert_eq!(
        (&received["id"], &received["from"], &received["size"]),
        (&id, &json!(anna.address()), &json!(2))
    );
    assert_eq!((&received["broadcast"], &received["request"]), (&json!(false), &json!(false)));
    let sent = send(&bert, &anna, &["hello"]).exits(0).object()["id"].clone();
    assert_eq!(until("acceptance", &|event| event["event"] == "accepted")["id"], sent);
    assert_eq!(until("delivery", &|event| event["event"] == "delivered")["id"], sent);
    let past = bert.ask(&["events"]);
    assert!(past.iter().any(|event| event["id"] == sent), "{past:?}");
    // A drain ends who follows with a word, not with a hang.
    let (_, code) = bert.stop();
    assert_eq!(code, 0);
    let run = events.finish();
    assert!(run.code == 0 || run.stderr.lines().count() == 1, "{run:?}");
}

#[test]
fn what_can_change_changes_while_it_runs_and_the_rest_is_named() {
    let anna = Spec::new("anna").start();
    let temp = temp_dir();
    let dir = temp.path().join("data");
    qpc(&dir, &["init"]).exits(0);
    let config = dir.join("config.toml");
    fs::write(&config, "[logging]\nfilter = 'error'\n").unwrap();
    let mut bert = Spec::new("bert").at(&dir).start();
    bert.qpc(&["reload"]).exits(0);

    let peer = format!("{}#{}", anna.url("quic"), anna.address());
    let text = format!(
        "[inbox]\naccept = 'contacts'\n[transport]\npeers = ['{peer}']\n[announce]\ninterval = '9m'\n[logging]\nfilter = 'info'\n"
    );
    fs::write(&config, &text).unwrap();
    let reloaded = bert.qpc(&["reload"]).exits(0).object();
    assert_eq!(reloaded["changed"], json!(["inbox.accept", "transport.peers", "logging.filter"]));
    assert_eq!(reloaded["needs_restart"], json!(["announce.interval"]));
    bert.has_links(1);
    bert.logs("link up");
    anna.knows(&[&bert]);
    send(&anna, &bert, &["hi"]).exits(1).says(&["takes no messages"]);
    bert.qpc(&["peer", "remove", &peer]).exits(1).says(&["qpc reload"]);

    // What is wrong changes nothing, and is named with where it stands.
    fs::write(&config, text.replace("'contacts'", "'everyone'")).unwrap();
    bert.qpc(&["reload"]).exits(78).says(&["config.toml", "2", "everyone"]);
    fs::write(&config, text.replace("filter = 'info'", "filter = 'x=loud'")).unwrap();
    bert.qpc(&["reload"]).exits(78).says(&["config.toml", "x=loud"]);
    assert_eq!(bert.status()["peers"], 1);

    fs::write(&config, "").unwrap();
    bert.qpc(&["reload"]).exits(0);
    bert.has_links(0);
    anna.has_links(0);
    // The old peer is not dialled again after a restart either.
    bert.stop();
    bert.restart();
    assert_eq!(bert.ask(&["peers"]), Vec::<Value>::new());

    assert_eq!(bert.ask(&["log-level", "warn"]), [json!({"filter": "warn"})]);
    bert.qpc(&["log-level", "x=loud"]).exits(2).says(&["loud"]);
}
