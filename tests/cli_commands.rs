//! The command line against a fake node: objects and their keys, exit codes, content in and out.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod fake_node;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use fake_node::{ANNA, BERT, FakeNode, command, data_dir, finish, qpc};
use quicprochat_mesh::api::{Priority, Request};
use serde_json::{Value, json};

#[track_caller]
fn has_keys(object: &Value, keys: &[&str]) {
    for key in keys {
        assert!(object.get(key).is_some(), "{key} is missing in {object}");
    }
}

#[test]
fn every_object_has_the_documented_keys() {
    let node = FakeNode::start();
    node.fake.arrive(1, None, b"hello");
    let check = |args: &[&str], keys: &[&str]| {
        let run = node.qpc(&[args, &["--json"]].concat()).exits(0);
        assert_eq!(run.stderr, "", "{args:?}");
        has_keys(&run.objects()[0], keys);
    };
    check(
        &["status"],
        &["address", "version", "network", "uptime_s", "state", "subsystems", "peers", "routes", "stored"],
    );
    check(
        &["peers"],
        &[
            "address",
            "url",
            "transport",
            "direction",
            "since_s",
            "rtt_ms",
            "tx_frames",
            "rx_frames",
            "tx_bytes",
            "rx_bytes",
            "origin",
            "capability",
            "rssi_dbm",
            "snr_db",
        ],
    );
    check(
        &["routes"],
        &[
            "destination",
            "next_hop",
            "hops",
            "sequence",
            "boot_epoch",
            "expires_s",
            "capabilities",
            "transport",
            "alternatives",
            "delivered_share",
        ],
    );
    check(
        &["known"],
        &["address", "boot_epoch", "sequence", "capabilities", "reachable", "has_key", "forgotten_s"],
    );
    check(&["path", "request", "anna"], &["ok"]);
    check(&["path", "drop", "anna"], &["ok"]);
    check(&["stats"], &["links"]);
    check(&["block", "anna"], &["address", "name"]);
    check(&["unblock", "anna"], &["address", "name"]);
    check(&["blocked"], &["address", "name"]);
    check(&["requests", "list"], &["from", "messages", "bytes", "first_at", "last_at", "preview"]);
    check(&["requests", "accept", "anna"], &["from", "accepted", "messages"]);
    check(&["requests", "decline", "anna"], &["from", "accepted", "messages"]);
    check(&["events"], &["at", "event", "level"]);
    check(&["reload"], &["changed", "needs_restart"]);
    check(&["log-level", "debug"], &["filter"]);
    check(
        &["drain"],
        &[
            "event",
            "reason",
            "drained",
            "phases",
            "undelivered_kept",
            "accepted",
            "delivered",
            "rejected",
            "frames_dropped",
        ],
    );
    check(&["peer", "add", "quic://[::1]:7410"], &["ok"]);
    check(&["peer", "remove", "b2b2b2b2"], &["ok"]);
    check(&["peer", "ban", "b2b2b2b2"], &["ok"]);
    check(&["peer", "unban", "b2b2b2b2"], &["ok"]);
    check(&["peer", "list"], &["kind", "address", "url", "state", "reason"]);
    check(&["announce"], &["ok"]);
    check(&["send", "--to", "anna", "hi"], &["id", "status", "reason", "rtt_ms", "hops"]);
    check(&["broadcast", "hi"], &["id"]);
    check(&["inbox"], &["id", "from", "broadcast", "sent_at", "received_at", "hops", "size"]);
    check(
        &["recv", "--keep"],
        &[
            "id",
            "from",
            "broadcast",
            "sent_at",
            "received_at",
            "hops",
            "size",
            "text",
            "payload_b64",
            "file",
            "sha256",
        ],
    );
    check(&["inbox", "ack", &"01".repeat(16)], &["ok"]);
    check(
        &["outbox"],
        &["id", "to", "size", "priority", "attempts", "next_retry_s", "expires_s", "state", "reason"],
    );
    check(&["outbox", "cancel", &"07".repeat(16)], &["ok"]);
    check(&["backup", "/somewhere/else"], &["dir", "rows", "files", "bytes"]);
    check(
        &["message", "07070707"],
        &[
            "id",
            "direction",
            "peer",
            "peer_name",
            "broadcast",
            "state",
            "reason",
            "size",
            "priority",
            "attempts",
            "next_retry_s",
            "expires_s",
            "rtt_ms",
            "hops",
            "chunks_done",
            "chunks",
            "history",
        ],
    );
    check(&["mailboxes"], &["destination", "messages", "bytes", "oldest_s", "reachable"]);
    check(&["trace", "anna"], &["destination", "reached", "hops"]);
    check(&["ping", "anna"], &["seq", "rtt_ms", "hops"]);
    check(&["contact", "add", "berta", &BERT.to_string()], &["name", "address"]);
    check(&["contact", "list"], &["name", "address"]);
    check(&["contact", "remove", "berta"], &["ok"]);
    check(&["version"], &["version", "protocol", "target", "features"]);
}

#[test]
fn values_that_do_not_exist_are_null_and_words_are_the_documented_ones() {
    let node = FakeNode::start();
    let status = node.qpc(&["status", "--json"]).object();
    assert_eq!(status["state"], "degraded");
    assert_eq!(status["subsystems"]["transport"], json!({"status": "healthy", "detail": null}));
    let peer = node.qpc(&["--json", "peers"]).object();
    assert_eq!((&peer["direction"], &peer["rtt_ms"]), (&json!("out"), &Value::Null));
    assert_eq!(peer["capability"], "severely_constrained");
    let trace = node.qpc(&["--json", "trace", "anna"]).object();
    assert_eq!(trace["hops"][0], json!({"address": null, "rtt_ms": null, "transport": null, "snr_db": null}));
    assert_eq!(trace["hops"][1]["address"], ANNA.to_string());
}

#[test]
fn without_a_node_every_command_says_so_with_69() {
    let dir = data_dir();
    for args in [
        &["status"][..],
        &["peers"],
        &["drain"],
        &["send", "--to", "anna", "x"],
        &["recv", "--follow"],
        &["trace", "anna"],
        &["contact", "list"],
        &["health"],
    ] {
        // The health endpoint has a default port, which another node may have.
        let mut command = command(dir.path(), args);
        command.env("QPC_HEALTH_LISTEN", "127.0.0.1:1");
        let run = finish(command).exits(69).says("no node is running");
        assert_eq!(run.stdout, "");
    }
    let missing = dir.path().join("missing");
    qpc(&missing, &["status", "--json"]).exits(69).says("qpc run --data-dir");
}

#[test]
fn usage_errors_are_2_and_go_to_stderr() {
    let node = FakeNode::start();
    for args in [
        &["nonsense"][..],
        &["send", "hello"],
        &["send", "--to", "anna"],
        &["send", "--to", "anna", "hello", "--file", "x"],
        &["send", "--to", "anna", "x", "--ttl", "15d"],
        &["send", "--to", "anna", "x", "--ttl", "5 parsecs"],
        &["send", "--to", "anna", "x", "--priority", "urgent"],
        &["send", "--to", "abc", "x"],
        &["send", "--to", &"f".repeat(32), "x"],
        &["broadcast", "x", "--ttl", "11m"],
        &["broadcast", "x", "--max-hops", "129"],
        &["recv", "--count", "0"],
        &["inbox", "ack", "12"],
        &["trace"],
        &["peer", "add", "http://x:1"],
        &["contact", "add", "cafe", &BERT.to_string()],
        &["contact", "add", "carla", "abcd"],
        &["wire", "abc"],
        &["wire", "zz"],
    ] {
        let run = node.qpc(args).exits(2);
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
    assert!(node.fake.sent.lock().unwrap().is_empty());
}

#[test]
fn help_names_the_commands_and_what_is_not_encrypted() {
    let dir = data_dir();
    let help = qpc(dir.path(), &["--help"]).exits(0);
    for word in ["init", "run", "send", "recv", "trace", "config", "Exit codes", "--data-dir"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    assert!(qpc(dir.path(), &["broadcast", "--help"]).exits(0).stdout.contains("NOT ENCRYPTED"));
    assert!(qpc(dir.path(), &["--version"]).exits(0).stdout.starts_with("qpc "));
    let bare = qpc(dir.path(), &[]).exits(2);
    assert_eq!(bare.stdout, "");
}

#[test]
fn the_nodes_reason_is_one_safe_line() {
    let node = FakeNode::start();
    node.qpc(&["peer", "add", "quic://refused:1"]).exits(1).says("refused by the fake says\\u{7} it");
    node.qpc(&["contact", "remove", "nobody"]).exits(1).says("no contact is called");
    node.qpc(&["send", "--to", "nobody", "x"]).exits(1).says("no contact is called");
    node.qpc(&["send", "--to", "abcdef0123", "x"]).exits(1).says("no known address begins with");
    let text = node.qpc(&["status"]).exits(0).stdout;
    assert!(text.contains("disk \\u{1b}[31mslow") && !text.contains('\u{1b}'), "{text}");
    assert!(!node.qpc(&["stats"]).exits(0).stdout.contains('\u{1b}'));
}

#[test]
fn what_became_of_a_message_is_the_exit_code() {
    let node = FakeNode::start();
    let send = |to: &str, wait: &[&str]| node.qpc(&[&["--json", "send", "--to", to, "x"], wait].concat());
    assert_eq!(send("anna", &[]).exits(0).object()["status"], "queued");
    let delivered = send("anna", &["--wait", "30s"]).exits(0).object();
    assert_eq!((&delivered["status"], &delivered["hops"]), (&json!("delivered"), &json!(3)));
    let late = send("late", &["--wait", "200ms"]).exits(75).says("no receipt yet: no_path");
    assert_eq!((&late.object()["status"], &late.object()["reason"]), (&json!("queued"), &json!("no_path")));
    let lost = send("lost", &["--wait", "30s"]).exits(1).says("expired before it was delivered");
    assert_eq!(lost.object()["status"], "expired");
    node.qpc(&["trace", "silent"]).exits(1).says("did not answer");
    let pings = node.qpc(&["ping", "anna", "--count", "3", "--json"]).exits(0).objects();
    assert_eq!(pings[1], json!({"seq": 2, "rtt_ms": null, "hops": null}));
    node.qpc(&["ping", "silent"]).exits(1);
    node.qpc(&["drain", "--timeout", "1ms"]).exits(1);
}

#[test]
fn content_comes_from_an_argument_a_file_or_stdin() {
    let node = FakeNode::start();
    let file = node.dir.path().join("Grüße.txt");
    std::fs::write(&file, [0u8, 159, 146, 150]).unwrap();
    node.qpc(&["send", "--to", "a1a1a1a1", "--priority", "high", "--ttl", "2h", "text"]).exits(0);
    node.qpc(&["send", "--to", "anna", "--file", file.to_str().unwrap()]).exits(0);
    let mut piped = command(node.dir.path(), &["send", "--to", "anna", "-"]);
    piped.stdin(File::open(&file).unwrap());
    finish(piped).exits(0);
    let sent = node.fake.sent.lock().unwrap();
    let contents: Vec<&[u8]> = sent.iter().map(|(_, content)| &content[..]).collect();
    assert_eq!(contents, [&b"text"[..], &[0, 159, 146, 150], &[0, 159, 146, 150]]);
    let first = Request::Send {
        to: "a1a1a1a1".into(),
        priority: Priority::High,
        ttl_ms: Some(7_200_000),
        wait: false,
        file_name: None,
    };
    assert_eq!(sent[0].0, first);
    assert!(matches!(&sent[1].0, Request::Send { file_name: Some(name), .. } if name == "Grüße.txt"));
}

#[test]
fn more_than_a_message_may_have_is_refused_before_it_is_read_to_the_end() {
    let node = FakeNode::start();
    let mut endless = command(node.dir.path(), &["send", "--to", "anna", "-"]);
    endless.stdin(File::open("/dev/zero").unwrap());
    finish(endless).exits(1).says("16.0 MiB (16777216 bytes)");
    let mut endless = command(node.dir.path(), &["broadcast", "-"]);
    endless.stdin(File::open("/dev/zero").unwrap());
    finish(endless).exits(1).says("15.0 KiB");
    let large = node.dir.path().join("large");
    File::create(&large).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    node.qpc(&["send", "--to", "anna", "--file", large.to_str().unwrap()]).exits(1).says("16.0 MiB");
    File::create(&large).unwrap().set_len(16 * 1024 * 1024).unwrap();
    node.qpc(&["send", "--to", "anna", "--file", large.to_str().unwrap()]).exits(0);
    node.qpc(&["send", "--to", "anna", "--file", "/nowhere"]).exits(1).says("cannot read /nowhere");
    node.qpc(&["send", "--to", "anna", "--file", "/tmp"]).exits(1).says("is a directory");
}

#[test]
fn recv_shows_content_as_text_as_base64_or_as_a_file() {
    let node = FakeNode::start();
    node.fake.arrive(1, None, "grüß\u{1b}[2J".as_bytes());
    node.fake.arrive(2, None, &[0xff, 0xfe]);
    let large = vec![b'x'; 64 * 1024 + 1];
    node.fake.arrive(3, Some("../../etc/x.txt"), &large);
    let got = node.qpc(&["recv", "--json", "--count", "3"]).exits(0).objects();
    assert_eq!((&got[0]["text"], &got[0]["payload_b64"]), (&json!("grüß\u{1b}[2J"), &Value::Null));
    assert_eq!((&got[1]["text"], &got[1]["payload_b64"]), (&Value::Null, &json!("//4=")));
    assert_eq!(got[0]["sent_at"], "2023-11-14T22:13:20.000Z");
    // Too large for a line and nobody said where to: nothing is lost all the same.
    let file = std::path::Path::new(got[2]["file"].as_str().unwrap());
    assert_eq!(file, node.dir.path().join("received/x.txt"));
    assert_eq!(std::fs::read(file).unwrap(), large);
    assert_eq!((&got[2]["text"], &got[2]["payload_b64"]), (&Value::Null, &Value::Null));
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&large);
    assert_eq!(got[2]["sha256"], quicprochat_mesh::wire::ids::hex(&digest));
    assert_eq!(node.fake.inbox_len(), 0);

    node.fake.arrive(4, None, &large);
    let inline = node.qpc(&["recv", "--json", "--inline"]).exits(0).object();
    assert!(inline["payload_b64"].as_str().unwrap().len() > large.len());
    assert_eq!(inline["file"], Value::Null);

    node.fake.arrive(5, None, b"a line\nand another");
    node.fake.arrive(6, Some("a.bin"), &[1]);
    node.fake.arrive(7, Some("a.bin"), &[2]);
    let into = node.dir.path().join("into");
    let text = node.qpc(&["recv", "--save", into.to_str().unwrap()]).exits(0).stdout;
    assert!(text.contains("anna (a1a1a1a1)") && text.contains("\n  a line\n  and another\n"), "{text}");
    assert_eq!(std::fs::read(into.join("a.bin")).unwrap(), [1]);
    assert_eq!(std::fs::read(into.join("a-2.bin")).unwrap(), [2]);
}

#[test]
fn recv_ends_when_the_count_is_met_the_time_is_up_or_the_inbox_is_empty() {
    let node = FakeNode::start();
    assert_eq!(node.qpc(&["recv", "--json"]).exits(0).stdout, "");
    node.fake.arrive(1, None, b"one");
    let run = node.qpc(&["recv", "--json", "--count", "2", "--timeout", "200ms"]).exits(75);
    let run = run.says("1 of 2 messages");
    assert_eq!(run.objects().len(), 1);
    node.qpc(&["recv", "--follow", "--timeout", "100ms"]).exits(0);
    node.fake.arrive(2, None, b"two");
    assert_eq!(node.qpc(&["recv", "--json", "--keep"]).object()["text"], "two");
    assert_eq!(node.qpc(&["recv", "--json", "--follow", "--count", "1"]).object()["text"], "two");
    assert_eq!(node.fake.inbox_len(), 0);
}

#[test]
fn recv_follows_and_a_second_taker_is_told() {
    let node = FakeNode::start();
    let mut follower = command(node.dir.path(), &["recv", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    node.fake.arrive(1, None, b"first");
    assert!(lines.next().unwrap().unwrap().contains("first"));
    node.fake.arrive(2, None, b"second");
    assert!(lines.next().unwrap().unwrap().contains("second"));
    node.qpc(&["recv"]).exits(1).says("another `qpc recv`");
    follower.kill().unwrap();
    follower.wait().unwrap();
    node.fake.arrive(3, None, b"third");
    assert!(node.qpc(&["recv", "--json", "--count", "1"]).exits(0).stdout.contains("third"));
}

#[test]
fn a_broken_pipe_is_a_quiet_end_and_keeps_the_message() {
    let node = FakeNode::start();
    node.fake.arrive(1, None, b"one");
    for args in [&["recv", "--json"][..], &["status"], &["peers", "--json"], &["version"]] {
        let mut command = command(node.dir.path(), args);
        // A pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(Stdio::from(writer));
        let run = finish(command).exits(0);
        assert_eq!(run.stderr, "", "{args:?}");
    }
    assert_eq!(node.fake.inbox_len(), 1, "it was not written, so it stays");
}

#[test]
fn a_disk_that_is_full_keeps_the_message() {
    let node = FakeNode::start();
    node.fake.arrive(1, Some("a"), b"one");
    let blocked = node.dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let run = node.qpc(&["recv", "--save", blocked.to_str().unwrap()]).exits(1);
    run.says("the message stays in the inbox");
    // Only Linux has a file that is always full.
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let mut to_full = command(node.dir.path(), &["recv", "--json"]);
        to_full.stdout(full);
        finish(to_full).exits(1).says("cannot write to stdout");
    }
    assert_eq!(node.fake.inbox_len(), 1);
}

#[test]
fn health_asks_the_endpoint_the_node_wrote_down() {
    let dir = data_dir();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ready = json!({
        "event": "ready", "address": ANNA, "public_key": "11".repeat(32), "listen": [],
        "health": address.to_string(), "control": "x", "pid": 1,
    });
    std::fs::write(dir.path().join("node.json"), ready.to_string()).unwrap();
    let answers = [
        "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"healthy\",\"subsystems\":{},\"uptime_s\":1}",
        "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"draining\",\"subsystems\":{\"store\":{\"status\":\"healthy\",\"detail\":null}},\"uptime_s\":1}",
        "HTTP/1.1 200 OK\r\n\r\n<html>",
    ];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1024];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /healthz HTTP/1."));
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(qpc(dir.path(), &["health", "--json"]).exits(0).object()["status"], "healthy");
    assert!(qpc(dir.path(), &["health"]).exits(1).stdout.contains("draining"));
    qpc(dir.path(), &["health"]).exits(1).says("is no node");
    server.join().unwrap();
    qpc(dir.path(), &["health"]).exits(69).says("no node is running");
}

#[test]
fn the_history_of_a_message_is_a_list_that_people_can_read() {
    let node = FakeNode::start();
    let run = node.qpc(&["message", "07070707"]).exits(0);
    assert_eq!(run.stderr, "");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], format!("id        {}", "07".repeat(16)));
    assert_eq!(lines[1], "state     in custody");
    assert!(lines[2].starts_with("to        an\\u{1b}na (a1a1a1a1"), "{run:?}");
    assert!(lines.contains(&"sent      2 times, next try in 10m"), "{run:?}");
    let events = &lines[lines.iter().position(|line| line.trim_start().starts_with("WHEN")).unwrap() + 1..];
    assert_eq!(events.len(), 3);
    assert!(events[0].ends_with("accepted    5 B, clock not trusted"), "{run:?}");
    assert!(events[1].ends_with(&format!("sent        attempt 1, packet {}", "09".repeat(16))), "{run:?}");

    node.qpc(&["message", "ffffffff"]).exits(1).says("nothing is known of ffffffff");
    for id in ["", "0707070", "no-hex-digits", &"07".repeat(17)] {
        let run = node.qpc(&["message", id]).exits(2);
        assert!(run.stderr.contains("32 hex digits"), "{run:?}");
    }
    node.qpc(&["message"]).exits(2);
    let gone = data_dir();
    qpc(gone.path(), &["message", "07070707"]).exits(69);
}
