//! A whole node on a volume that is really full: it says so where load balancers look, refuses with
//! the reason, loses nothing, and takes work again by itself when there is room.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, process::Command};

use common::{Spec, temp_dir, wait_until};
use serde_json::json;

const ON_SMALL_VOLUME: &str = "QPC_TEST_SMALL_VOLUME";
/// The child's way to say that this system lets nobody mount anything.
const NOT_PERMITTED: i32 = 77;
const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_node_on_a_full_volume_says_so_refuses_and_recovers() {
    if let Some(volume) = std::env::var_os(ON_SMALL_VOLUME) {
        return fill_and_free(Path::new(&volume));
    }
    let volume = temp_dir();
    // A mount name space of its own, so that the mount ends with the child.
    let script = r#"mount -t tmpfs -o size=16m,mode=0700 tmpfs "$1" || exit 77; shift; exec "$@""#;
    let run = |flags: &str| {
        Command::new("unshare")
            .args([flags, "sh", "-c", script, "sh"])
            .arg(volume.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "a_node_on_a_full_volume_says_so_refuses_and_recovers", "--nocapture"])
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

fn fill_and_free(volume: &Path) {
    let mut node = Spec::new("node").at(&volume.join("data")).start();
    let ready = |node: &common::Node| node.http("/readyz").unwrap();
    assert_eq!(ready(&node).0, 200);
    let kept = node.queue(NOWHERE, "before");

    // All but half of the reserve of 1 MiB.
    let ballast = volume.join("ballast");
    let free = || {
        let out = Command::new("df").args(["--output=avail", "-B1"]).arg(volume).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().nth(1).unwrap().trim().parse::<usize>().unwrap()
    };
    std::fs::write(&ballast, vec![1u8; free() - (1 << 19)]).unwrap();
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
