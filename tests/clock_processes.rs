//! Wall clocks that are set to anything, in running and in restarted nodes: nothing that was accepted
//! ends by it, and nobody talks to others in a time that is not.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{Node, Spec, temp_dir, wait_until};
use serde_json::json;

/// Answers a process's question for the time of day as a file says; other clocks are the machine's.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// Where systems keep it.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib/faketime",
    "/usr/lib64/faketime",
];

/// An hour and a year, both ways; to 1970, beyond 2038, beyond 2106.
const JUMPS: [&str; 7] = ["+1h", "-1h", "+366d", "-366d", "-20500d", "+5000d", "+31000d"];

/// None where the library is not installed, which is said.
fn library() -> Option<String> {
    let found = PLACES.iter().map(|place| format!("{place}/{LIBRARY}")).find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("not measured: {LIBRARY} is not installed (Debian: faketime)");
    }
    found
}

fn with_clock(spec: Spec, library: &str, file: &Path) -> Spec {
    fs::write(file, "+0").unwrap();
    spec.env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1")
}

/// Kills it, and takes away what the library left in shared memory.
fn kill(node: &mut Node) {
    let pid = node.pid();
    node.kill();
    for name in ["faketime_shm", "sem.faketime_sem"] {
        // It may have made none.
        let _ = fs::remove_file(format!("/dev/shm/{name}_{pid}"));
    }
}

/// What the node says of its clock.
fn distrust(node: &Node) -> Option<String> {
    let detail = node.status()["subsystems"]["routing"]["detail"].as_str().unwrap().to_owned();
    detail.contains("the clock").then_some(detail)
}

#[test]
fn whatever_the_clocks_of_its_keepers_are_set_to_a_message_arrives() {
    let Some(library) = library() else { return };
    let files = temp_dir();
    let (a_clock, b_clock) = (files.path().join("a"), files.path().join("b"));
    let mut c = Spec::new("c").start();
    let mut b = with_clock(Spec::new("b").peer(c.url("tcp")), &library, &b_clock).start();
    let mut a = with_clock(Spec::new("a").peer(b.url("quic")), &library, &a_clock).start();
    a.knows(&[&c]);
    c.kill();
    b.has_links(1);
    let id = a.queue(&c.address(), "at some time");
    wait_until("custody at b", || b.status()["stored"] == 1);

    for jump in JUMPS {
        // Both while they run and while they are down; a neighbour that stands elsewhere confirms none.
        fs::write(&b_clock, jump).unwrap();
        wait_until("b to see that its clock was set", || distrust(&b).is_some());
        assert_eq!(b.status()["stored"], 1, "{jump}");
        kill(&mut b);
        b.restart();
        wait_until("b to know it after its restart", || distrust(&b).is_some());
        assert_eq!(b.status()["stored"], 1, "{jump}: an acknowledged message is gone");
        let held = &b.ask(&["mailboxes"])[0];
        assert!(held["oldest_s"].as_u64().unwrap() < 600, "{jump}: {held}");

        fs::write(&b_clock, "+0").unwrap();
        wait_until("b to believe its clock again", || distrust(&b).is_none());

        fs::write(&a_clock, jump).unwrap();
        kill(&mut a);
        a.restart();
        let outbox = a.ask(&["outbox"]);
        assert_eq!(outbox.len(), 1, "{jump}: a message of its own is gone");
        let left_s = outbox[0]["expires_s"].as_u64().unwrap();
        assert!((86_400 - 600..=86_400).contains(&left_s), "{jump}: {outbox:?}");
        fs::write(&a_clock, "+0").unwrap();
        println!("jump {jump}");
    }

    // Delivered while one of them is years ahead and the other years behind.
    fs::write(&a_clock, "-366d").unwrap();
    fs::write(&b_clock, "+366d").unwrap();
    wait_until("both to see it", || distrust(&a).is_some() && distrust(&b).is_some());
    c.restart();
    let message = c.take(1).remove(0);
    assert_eq!((&message["id"], &message["text"]), (&json!(id), &json!("at some time")));
    a.has_all_receipts();
    wait_until("b to forget it", || b.status()["stored"] == 0);

    // What is written now is dated as it is, not as the clock says: a node with a right clock takes it.
    let sent = a.deliver(&c, "dated");
    assert_eq!(sent["status"], "delivered");
    c.take(1);
    assert_eq!(c.inbox(), [] as [serde_json::Value; 0], "once");
    kill(&mut a);
    kill(&mut b);
}
