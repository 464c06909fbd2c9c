//! A whole node on a volume that is really full: it says so where load balancers look, refuses with
//! the reason, loses nothing, and takes work again by itself when there is room.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{Load, Spec, nothing_amiss, temp_dir, verify, wait_until};
use serde_json::json;

const ON_SMALL_VOLUME: &str = "QPC_TEST_SMALL_VOLUME";
/// The child's way to say that this system lets nobody mount anything.
const NOT_PERMITTED: i32 = 77;
/// Service is back within this time of there being room.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_node_on_a_full_volume_says_so_refuses_and_recovers() {
    on_small_volume("a_node_on_a_full_volume_says_so_refuses_and_recovers", fill_and_free);
}

#[test]
fn traffic_that_fills_the_volume_is_refused_and_what_was_taken_is_delivered() {
    on_small_volume(
        "traffic_that_fills_the_volume_is_refused_and_what_was_taken_is_delivered",
        fill_by_traffic,
    );
}

/// Runs `body` in a process of its own, on a volume of 16 MiB.
#[track_caller]
fn on_small_volume(test: &str, body: fn(&Path)) {
    if let Some(volume) = std::env::var_os(ON_SMALL_VOLUME) {
        return body(Path::new(&volume));
    }
    let volume = temp_dir();
    // A mount name space of its own, so that the mount ends with the child.
    let script = r#"mount -t tmpfs -o size=16m,mode=0700 tmpfs "$1" || exit 77; shift; exec "$@""#;
    let run = |flags: &str| {
        Command::new("unshare")
            .args([flags, "sh", "-c", script, "sh"])
            .arg(volume.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ON_SMALL_VOLUME, volume.path())
            .status()
    };
    let permitted = ["-m", "-Urm"].iter().find_map(|flags| match run(flags) {
        Ok(status) if status.code() == Some(NOT_PERMITTED) || status.code() == Some(1) => None,
        Ok(status) => Some(status),
        Err(_) => None,
    });
    match permitted {
        Some(status) => assert!(status.success(), "{status}"),
        // The actor's tests show the same with a disk that plays full.
        None => println!("not measured: this system lets tests mount no file system"),
    }
}

/// Bytes that are free on a volume.
fn free(volume: &Path) -> usize {
    let out = Command::new("df").args(["--output=avail", "-B1"]).arg(volume).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

fn fill_and_free(volume: &Path) {
    let mut node = Spec::new("node").at(&volume.join("data")).start();
    let ready = |node: &common::Node| node.http("/readyz").unwrap();
    assert_eq!(ready(&node).0, 200);
    let kept = node.queue(NOWHERE, "before");

    // All but half of the reserve of 1 MiB.
    let ballast = volume.join("ballast");
    std::fs::write(&ballast, vec![1u8; free(volume) - (1 << 19)]).unwrap();
    wait_until("503", || ready(&node).0 == 503);
    let (_, why) = ready(&node);
    assert!(
        why.contains("store") && why.contains("below the reserve") && why.contains("free some space"),
        "{why}"
    );
    assert_eq!(node.status()["subsystems"]["store"]["status"], "unhealthy");
    node.qpc(&["send", "--to", NOWHERE, "refused"]).exits(1).says(&["below the reserve", "free some space"]);
    // It reads, and works on what it has.
    assert_eq!(node.ask(&["outbox"])[0]["id"], json!(kept));

    std::fs::remove_file(&ballast).unwrap();
    wait_until("200", || ready(&node).0 == 200);
    node.queue(NOWHERE, "after");
    assert_eq!(node.ask(&["outbox"]).len(), 2);
    let (stopped, code) = node.stop();
    assert_eq!((&stopped["drained"], code), (&json!(true), 0), "{stopped}");
}

fn fill_by_traffic(volume: &Path) {
    let mut sink = Spec::new("sink").start();
    let node = Spec::new("node").at(&volume.join("data")).peer(sink.url("tcp")).start();
    node.knows(&[&sink]);
    sink.knows(&[&node]);
    let to = sink.address();
    sink.kill();
    // Room for some hundred messages above the reserve.
    let ballast = volume.join("ballast");
    std::fs::write(&ballast, vec![1u8; free(volume) - (4 << 20)]).unwrap();

    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    let more = ["--payload", "8000", "--rate", "300", "--window", "16", "--seconds", "600", "--settle", "0s"];
    let mut load = Load::start(&log, &[&node], &[&to], &more);
    load.goes_on("refused", 50);
    wait_until("503", || node.http("/readyz").unwrap().0 == 503);
    let (_, why) = node.http("/readyz").unwrap();
    assert!(why.contains("store") && why.contains("below the reserve"), "{why}");
    load.goes_on("refused", 50);
    let ended = load.stop().object();
    let refused = ended["refused"].as_object().unwrap();
    assert!(refused.keys().all(|why| why.contains("below the reserve")), "{ended:#}");
    assert!(ended["acked"].as_u64().unwrap() > 50, "{ended:#}");
    assert_eq!(ended["unknown"], 0, "{ended:#}");

    // What was taken goes out and is counted off, though nothing new gets in.
    sink.restart();
    node.has_all_receipts();
    std::fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    wait_until("200", || node.http("/readyz").unwrap().0 == 200);
    assert!(freed.elapsed() < RESUMES_WITHIN, "{:?}", freed.elapsed());
    let more = ["--count", "20", "--settle", "120s"];
    let ended = Load::start(&log, &[&node], &[sink.dir().to_str().unwrap()], &more).finish();
    let ended = ended.exits(0).object();
    assert_eq!((&ended["acked"], &ended["missing"]), (&json!(20), &json!(0)), "{ended:#}");
    let found = nothing_amiss(verify(&log, &[&node, &sink]));
    assert_eq!((&found["refused_received"], &found["delivered"]), (&json!(0), &found["acked"]), "{found:#}");
}
