//! What the machine under a node does to it: a disk that fails under a file, a file system that becomes
//! read-only, a data directory that is deleted, file descriptors that are all in use.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use common::{
    Background, Load, Node, Spec, command, count_events, finish, random_file, sha256, temp_dir, trace::Trace,
    verify, wait_for, wait_until, with_open_files,
};
use serde_json::json;

const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

// ---- a disk that fails under a file ------------------------------------------------------------

#[test]
fn a_content_that_cannot_be_synced_is_not_accepted_and_ends_the_node() {
    let mut node = Spec::new("node").start();
    let work = temp_dir();
    let file = work.path().join("file.bin");
    let bytes = random_file(&file, 200_000);
    // The engine's own syncs are `fdatasync`: the first `fsync` is that of the content.
    let inject = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"];
    let Some(_trace) = Trace::attach(&node, &work.path().join("trace"), &inject) else { return };
    let send = ["send", "--to", NOWHERE, "--file", file.to_str().unwrap()];
    node.qpc(&send).exits(1).says(&["the disk failed", "syncing a content", "start again"]);
    let run = node.ends();
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("the store failed: the disk failed while syncing a content"), "{run:?}");

    node.restart();
    assert_eq!(node.ask(&["outbox"]).len(), 0, "it was never accepted");
    let blobs = node.dir().join("blobs/outgoing");
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0, "nothing is left of it");
    node.qpc(&send).exits(0);
    assert_eq!(node.ask(&["outbox"])[0]["size"], json!(bytes.len()));
}

#[test]
fn a_received_file_that_cannot_be_synced_is_not_receipted_and_ends_the_node() {
    // Slow enough that the file is on its way for seconds.
    let mut sink = Spec::new("sink").env("QPC_RATE_LIMIT_BYTES_PER_S", "1MiB").start();
    let mut source = Spec::new("source").peer(sink.url("tcp")).start();
    source.knows(&[&sink]);
    let work = temp_dir();
    let file = work.path().join("file.bin");
    let bytes = random_file(&file, 6 << 20);
    source.qpc(&["send", "--to", &sink.address(), "--file", file.to_str().unwrap()]).exits(0);
    let incoming = sink.dir().join("blobs/incoming");
    let blob = wait_for("the file to begin", || fs::read_dir(&incoming).unwrap().flatten().next());
    source.kill();

    let trace = work.path().join("trace");
    let path = blob.path();
    let inject =
        ["-P", path.to_str().unwrap(), "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"];
    let Some(_trace) = Trace::attach(&sink, &trace, &inject) else { return };
    source.restart();
    let run = sink.ends();
    assert_ne!(run.code, 0, "{run:?}");
    assert!(
        run.stderr.contains("the store failed: the disk failed while syncing a received file"),
        "{run:?}"
    );
    // What was receipted before is there; what was not comes again.
    sink.restart();
    let message = sink.take(1).remove(0);
    assert_eq!(message["sha256"], json!(sha256(&bytes)), "{message}");
    source.has_all_receipts();
}

// ---- a file system that is no longer what it was -----------------------------------------------

#[test]
fn a_data_directory_that_is_deleted_ends_the_node_with_the_reason() {
    let home = temp_dir();
    let dir = home.path().join("data");
    let mut node = Spec::new("node").at(&dir).start();
    node.queue(NOWHERE, "kept");
    // Writes to a deleted file succeed for ever; nobody asks this node anything.
    fs::remove_dir_all(&dir).unwrap();
    let run = node.ends();
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("store.redb is gone: it was deleted"), "{run:?}");
    assert!(!run.stderr.contains("panicked"), "{run:?}");
    assert!(!dir.join("store.redb").exists(), "an empty one took its place");
}

const ON_ABORTED_VOLUME: &str = "QPC_TEST_ABORTED_VOLUME";
/// The child's way to say that this system lets nobody mount anything.
const NOT_PERMITTED: i32 = 77;

/// A real file system that turns itself read-only under a node, as ext4 does after an error of its disk.
#[test]
fn a_volume_that_becomes_read_only_ends_the_node_and_keeps_what_was_acknowledged() {
    if let Some(volume) = std::env::var_os(ON_ABORTED_VOLUME) {
        return becomes_read_only(Path::new(&volume));
    }
    let work = temp_dir();
    let (image, volume) = (work.path().join("image"), work.path().join("volume"));
    fs::create_dir(&volume).unwrap();
    let script = r#"
        truncate -s 64M "$1" && mkfs.ext4 -q -F "$1" && mount -o loop,errors=remount-ro "$1" "$2" || exit 77
        shift 2; exec "$@""#;
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([&image, &volume])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_volume_that_becomes_read_only_ends_the_node_and_keeps_what_was_acknowledged",
            "--nocapture",
        ])
        .env(ON_ABORTED_VOLUME, &volume)
        .status();
    match status.map(|status| (status.success(), status.code())) {
        Ok((_, Some(NOT_PERMITTED | 1 | 127))) | Err(_) => {
            println!("not measured: this system lets tests mount no file system of a file");
        }
        Ok((is_well, _)) => assert!(is_well, "see above"),
    }
}

fn becomes_read_only(volume: &Path) {
    let mut node = Spec::new("node").at(&volume.join("data")).start();
    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    let more = ["--window", "4", "--rate", "100", "--seconds", "600", "--settle", "0s"];
    let mut load = Load::start(&log, &[&node], &[NOWHERE], &more);
    load.goes_on("ack", 30);
    let aborted = Command::new("mount").args(["-o", "remount,abort"]).arg(volume).status().unwrap();
    assert!(aborted.success());
    let run = node.ends();
    load.stop();
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("the disk failed while"), "{run:?}");
    assert!(!run.stderr.contains("panicked"), "{run:?}");
    // A start on it says what is the matter.
    let mut run = command(&volume.join("data"), &["run", "--listen", "tcp://127.0.0.1:0"]);
    let run = Background::start(&mut run).finish();
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.to_lowercase().contains("read-only"), "{run:?}");

    // Mounted again it is as after a crash.
    let unmounted = Command::new("umount").arg(volume).status().unwrap();
    assert!(unmounted.success());
    let image = volume.with_file_name("image");
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(volume).status().unwrap();
    assert!(mounted.success());
    node.restart();
    let found = verify(&log, &[&node]).exits(0).object();
    assert_eq!((&found["lost"], &found["unobserved"]), (&json!(0), &json!(0)), "{found:#}");
    assert!(count_events(&log, "ack") >= 30);
    let (stopped, code) = node.stop();
    assert_eq!((&stopped["drained"], code), (&json!(true), 0), "{stopped}");
}

// ---- file descriptors --------------------------------------------------------------------------

/// Descriptors that a node may have.
const FEW: u32 = 64;

/// Connections of strangers who say nothing.
const STRANGERS: usize = 200;

fn tcp_port(node: &Node) -> SocketAddr {
    node.url("tcp").replace("tcp://", "").parse().unwrap()
}

fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&to, Duration::from_secs(60)).unwrap()
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// Sets the soft limit of a node that runs; false where this system cannot.
fn limit_open_files(node: &Node, count: u32) -> bool {
    let limit = format!("--nofile={count}:");
    Command::new("prlimit")
        .args(["--pid", &node.pid().to_string(), &limit])
        .status()
        .is_ok_and(|s| s.success())
}

#[test]
fn with_too_few_descriptors_to_run_a_node_is_not_started() {
    let home = temp_dir();
    let run = command(&home.path().join("data"), &["run", "--listen", "tcp://127.0.0.1:0"]);
    let run = finish(with_open_files(&run, 40)).exits(1);
    run.says(&["needs 64 open files", "may have 40", "ulimit -n"]);
}

#[test]
fn strangers_that_take_descriptors_keep_nobody_else_out() {
    let peer = Spec::new("peer").start();
    let node = Spec::new("node").open_files(FEW).peer(peer.url("tcp")).start();
    node.knows(&[&peer]);
    peer.knows(&[&node]);
    let before = open_files(&node);

    let strangers: Vec<_> = (0..STRANGERS).map(|_| connect(tcp_port(&node))).collect();
    node.counts("qpc_connections_turned_away_total", &[("listener", "tcp")], 0.0);
    assert!(open_files(&node) < FEW as usize - 6, "{} of {FEW}", open_files(&node));
    // Links that were there, the health port, the user's own commands, the store's files.
    peer.deliver(&node, "over the link that was there");
    assert_eq!(node.http("/readyz").unwrap().0, 200);
    let work = temp_dir();
    let file = work.path().join("file.bin");
    random_file(&file, 300_000);
    node.qpc(&["send", "--to", &peer.address(), "--wait", "120s", "--file", file.to_str().unwrap()]).exits(0);
    // Who comes to stay gets a place, and strangers who only hold one lose it.
    let late = Spec::new("late").peer(node.url("tcp")).start();
    late.has_links(1);
    late.knows(&[&node]);
    late.deliver(&node, "from a newcomer");
    drop(strangers);
    drop(late);
    wait_until("the descriptors to be free again", || open_files(&node) <= before);
    assert!(!node.log().contains("panicked"));
}

#[test]
fn without_a_descriptor_links_go_on_and_ports_come_back_when_there_are_some() {
    let peer = Spec::new("peer").start();
    let node = Spec::new("node").peer(peer.url("tcp")).peer(peer.url("quic")).start();
    node.knows(&[&peer]);
    peer.knows(&[&node]);
    let ready = node.http("/readyz").unwrap().0;
    assert_eq!(ready, 200);
    // Fewer than it has open: not one more can be had.
    if !limit_open_files(&node, 8) {
        println!("not measured: prlimit is not installed, or may not limit a process here");
        return;
    }
    let strangers: Vec<_> = (0..20).map(|_| connect(tcp_port(&node))).collect();
    node.logs("cannot accept connections at the moment");
    let status = Background::start(&mut command(node.dir(), &["status"]));
    peer.deliver(&node, "without a descriptor");
    // A content needs a file: it is refused by name, and so kept where it is.
    let work = temp_dir();
    let file = work.path().join("file.bin");
    let bytes = random_file(&file, 100_000);
    peer.qpc(&["send", "--to", &node.address(), "--file", file.to_str().unwrap()]).exits(0);
    node.logs("cannot write an incoming file");
    let used = cpu_time(&node);
    peer.deliver(&node, "and still");
    let spent = cpu_time(&node).saturating_sub(used);

    assert!(limit_open_files(&node, 1024));
    assert_eq!(status.finish().exits(0).object()["address"], json!(node.address()));
    drop(strangers);
    node.logs("accepts connections again");
    let messages = node.take(3);
    assert!(messages.iter().any(|m| m["sha256"] == json!(sha256(&bytes))), "{messages:?}");
    peer.has_all_receipts();
    // Told once a listener, not once a try.
    let told = node.log().matches("cannot accept connections at the moment").count();
    assert!((1..=3).contains(&told), "{told} lines: {}", node.log());
    let errors = node.metric("qpc_accept_errors_total", &[]);
    assert!(errors < 2000.0, "{errors} failed accepts, with {spent:?} of the processor for a message");
    assert!(!node.log().contains("panicked"));
}

/// Time of the processor that a node has used.
fn cpu_time(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
