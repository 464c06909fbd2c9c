//! The command line under people and programs that mean ill, or just fail: arguments, streams, nodes
//! that go away. Each time one clear line that a terminal can take, the right exit code, nothing lost.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod common;
mod fake_node;
#[path = "common/terminal.rs"]
#[allow(dead_code, reason = "one function of it")]
mod terminal;
#[path = "common/tree.rs"]
mod tree;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStringExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use common::{Background, Spec, signal, wait_for, wait_until};
use fake_node::{FakeNode, Run, data_dir, finish};
use serde_json::json;

/// Codes that a command may end with.
const CODES: [i32; 6] = [0, 1, 2, 69, 75, 78];

/// Longest line that is still one to read.
const LINE_CHARS_MAX: usize = 2000;

/// As much as one argument may have: the system takes 128 KiB, with the name of a variable and a zero
/// among them.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 64;

/// Somebody who is not there.
const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

/// Arguments that nobody types.
fn hostile() -> Vec<OsString> {
    let text = ["", "-", "\u{1b}[2J\u{1b}]0;owned\u{7}", "x\r\nqpc: all is well", "\u{202e}gpj.\u{200b}"];
    let mut all: Vec<OsString> = text.iter().map(OsString::from).collect();
    all.push(OsString::from_vec(b"\xff\xfe\x80".to_vec()));
    all.push("a".repeat(ARGUMENT_BYTES_MAX).into());
    all
}

/// `qpc` in a directory of its own, without a node, to its end.
fn run(dir: &Path, words: &[String], more: &[&OsStr]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    command.env_clear().env("QPC_DATA_DIR", dir.join("data")).env("QPC_HEALTH_LISTEN", "off");
    command.current_dir(dir).args(words);
    if words == ["run"] {
        // Where it is let in, it ends by itself.
        command.args(["--until-stdin-closes", "--listen", "tcp://127.0.0.1:0"]);
    }
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish_lossy(command)
}

/// As [`finish`], whatever was printed.
fn finish_lossy(mut command: Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

/// What holds for every end, whatever was asked.
#[track_caller]
fn is_a_clean_end(what: &str, run: &Run) {
    assert!(CODES.contains(&run.code), "{what}: {run:?}");
    assert!(!run.stderr.contains("panicked") && !run.stderr.contains("RUST_BACKTRACE"), "{what}: {run:?}");
    assert!(run.code == 0 || !run.stderr.trim().is_empty(), "{what}: no reason is given: {run:?}");
    for text in [&run.stdout, &run.stderr] {
        let bad = text
            .chars()
            .find(|c| (c.is_control() && !"\n\t".contains(*c)) || "\u{202e}\u{200b}".contains(*c));
        assert_eq!(bad, None, "{what}: {run:?}");
        assert!(!text.lines().any(|line| line == "qpc: all is well"), "{what}: a line was faked: {run:?}");
    }
    let longest = run.stderr.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    assert!(longest <= LINE_CHARS_MAX, "{what}: a line of {longest} characters");
}

/// Options with a value that a page of help names, those of every command left out.
fn options(page: &str) -> Vec<String> {
    let own = page.split("Options of every command:").next().unwrap_or_default();
    let is_option = |line: &&str| line.trim_start().starts_with("--") && line.contains('<');
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    own.lines().filter(is_option).map(name).collect()
}

#[test]
fn every_command_takes_every_argument_well() {
    let dir = data_dir();
    let pages = tree::pages(&|arguments| fake_node::qpc(dir.path(), arguments).exits(0).stdout);
    let hostile = hostile();
    let (mut commands, mut named) = (0, 0);
    for (words, page) in &pages {
        // A group alone, and the program itself, too.
        let shown = words.join(" ");
        commands += 1;
        for argument in &hostile {
            is_a_clean_end(&format!("{shown} {argument:.40?}"), &run(dir.path(), words, &[argument]));
        }
        for option in options(page) {
            named += 1;
            for argument in &hostile {
                let end = run(dir.path(), words, &[OsStr::new(&option), argument]);
                is_a_clean_end(&format!("{shown} {option} {argument:.40?}"), &end);
            }
            // Its value is missing.
            let end = run(dir.path(), words, &[OsStr::new(&option)]);
            assert_eq!(end.code, 2, "{shown} {option}: {end:?}");
        }
        // Something that has to be there is missing.
        let usage = page.lines().find(|line| line.starts_with("Usage: ")).unwrap_or_default();
        if usage.contains('<') {
            let end = run(dir.path(), words, &[]);
            assert_eq!(end.code, 2, "{shown}: {end:?}");
            is_a_clean_end(&shown, &end);
        }
    }
    assert!(commands > 30 && named > 30, "{commands} commands, {named} options");
}

#[test]
fn the_options_of_every_command_and_the_environment_may_be_anything() {
    let dir = data_dir();
    for argument in hostile() {
        for words in [&["status"][..], &["health"], &["config", "show"], &["init"], &["backup", "copy"]] {
            for option in ["--data-dir", "--config"] {
                let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
                let end = run(dir.path(), &words, &[OsStr::new(option), &argument]);
                is_a_clean_end(&format!("{words:?} {option} {argument:.40?}"), &end);
            }
        }
        for key in [
            "QPC_DATA_DIR",
            "QPC_CONFIG",
            "QPC_LISTEN",
            "QPC_PEERS",
            "QPC_NETWORK",
            "QPC_LOGGING_FILTER",
            "HOME",
            "NO_COLOR",
            "TERM",
            "COLUMNS",
        ] {
            for words in [&["config", "show"][..], &["status"], &["run", "--until-stdin-closes"]] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
                command
                    .env_clear()
                    .env("QPC_DATA_DIR", dir.path().join("data"))
                    .env("QPC_HEALTH_LISTEN", "off");
                command.env("QPC_LISTEN", "tcp://127.0.0.1:0").env(key, &argument);
                command.current_dir(dir.path()).args(words).stdin(Stdio::null());
                is_a_clean_end(&format!("{key}={argument:.40?} {words:?}"), &finish_lossy(command));
            }
        }
    }
}

/// Commands that print something, against the fake node.
const PRINTING: [&[&str]; 16] = [
    &["--help"],
    &["help", "send"],
    &["--version"],
    &["version"],
    &["completions", "bash"],
    &["config", "show"],
    &["status"],
    &["peers"],
    &["routes"],
    &["known"],
    &["stats"],
    &["mailboxes"],
    &["outbox"],
    &["contact", "list"],
    &["recv"],
    &["trace", "anna"],
];

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_none() {
    let node = FakeNode::start();
    node.fake.arrive(1, None, b"one");
    for arguments in PRINTING {
        for json in [false, true] {
            let arguments: Vec<&str> =
                json.then_some("--json").into_iter().chain(arguments.iter().copied()).collect();
            let mut command = fake_node::command(node.dir.path(), &arguments);
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command.stdout(Stdio::from(writer));
            let run = finish(command);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?} {json}");

            // Only Linux has a file that is always full.
            if let Ok(full) = File::options().write(true).open("/dev/full") {
                let mut command = fake_node::command(node.dir.path(), &arguments);
                command.stdout(full);
                finish(command).exits(1).says("cannot write to stdout");
            }
        }
    }
    assert_eq!(node.fake.inbox_len(), 1, "what could not be written stays");
}

/// `qpc` with a stream closed by a shell: `<&-`, `>&-`, `2>&-`.
fn closed(node: &FakeNode, redirection: &str, arguments: &[&str]) -> Run {
    let inner = fake_node::command(node.dir.path(), arguments);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command)
}

#[test]
fn closed_streams_lose_nothing() {
    let node = FakeNode::start();
    node.fake.arrive(1, None, b"one");
    closed(&node, ">&-", &["recv"]).exits(2).says("stdout is closed");
    assert_eq!(node.fake.inbox_len(), 1);
    closed(&node, ">&-", &["recv", "--keep"]).exits(0);
    closed(&node, ">&-", &["status"]).exits(0);
    closed(&node, "<&-", &["status"]).exits(0);
    closed(&node, "2>&-", &["send", "--to", "nobody", "x"]).exits(1);
    closed(&node, "2>&-", &["stauts"]).exits(2);
    closed(&node, "<&-", &["send", "--to", "anna", "-"]).exits(2).says("stdin is closed");
    assert!(node.fake.sent.lock().unwrap().is_empty(), "an empty message was sent");
    // Who throws messages away on purpose may do so.
    closed(&node, ">/dev/null", &["recv"]).exits(0);
    assert_eq!(node.fake.inbox_len(), 0);
}

#[test]
fn a_node_that_is_killed_while_it_is_asked_leaves_one_line_and_loses_nothing() {
    let mut node = Spec::new("node").start();
    let mut send = node.background(&["send", "--to", NOWHERE, "--wait", "3m", "patience"]);
    wait_until("the message", || node.ask(&["outbox"]).len() == 1);
    let mut follow = node.background(&["recv", "--follow"]);
    wait_until("recv to take", || node.qpc(&["recv"]).code == 1);
    node.kill();

    let code = send.exit().code();
    assert_eq!(code, Some(75), "{}", send.stderr());
    let send = send.finish().says(&["went away", "qpc outbox list"]);
    assert_eq!(send.object()["status"], "queued");
    assert_eq!(send.stderr.lines().count(), 1, "{send:?}");
    assert_eq!(follow.exit().code(), Some(1));
    let follow = follow.finish().says(&["went away"]);
    assert_eq!(follow.stderr.lines().count(), 1, "{follow:?}");

    node.restart();
    assert_eq!(node.ask(&["outbox"])[0]["id"], send.object()["id"]);

    // Stopped where it stands, it cannot drain before it is killed.
    signal(node.pid(), "STOP");
    let mut drain = node.background(&["drain"]);
    wait_until("drain to be on its way", || is_connected(drain.pid()));
    node.kill();
    assert_eq!(drain.exit().code(), Some(1), "{}", drain.stderr());
    let drain = drain.finish();
    assert_eq!(drain.stderr.lines().count(), 1, "{drain:?}");
    node.restart();
    assert_eq!(node.ask(&["outbox"]).len(), 1);
}

/// True where a process has a socket open: it asked, and waits.
fn is_connected(pid: u32) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|to| to.to_string_lossy().starts_with("socket:"))
}

#[test]
fn a_node_that_stands_still_for_a_while_is_waited_for() {
    let mut node = Spec::new("node").start();
    let other = Spec::new("other").peer(node.url("tcp")).start();
    node.knows(&[&other]);
    other.knows(&[&node]);
    let follow = &mut node.background(&["recv", "--follow"]);
    signal(node.pid(), "STOP");
    let mut send = node.background(&["send", "--to", &other.address(), "--wait", "3m", "after a while"]);
    let status = node.background(&["status"]);
    wait_until("both to be on their way", || is_connected(send.pid()) && is_connected(status.pid()));
    assert!(send.is_running() && follow.is_running());
    signal(node.pid(), "CONT");
    assert_eq!(send.finish().exits(0).object()["status"], "delivered");
    status.finish().exits(0);
    assert_eq!(other.take(1)[0]["text"], "after a while");
    other.deliver(&node, "to who follows");
    let line: serde_json::Value = serde_json::from_str(&follow.line()).unwrap();
    assert_eq!(line["text"], json!("to who follows"));
    follow.kill();

    signal(node.pid(), "STOP");
    let drain = node.background(&["drain"]);
    wait_until("drain to be on its way", || is_connected(drain.pid()));
    signal(node.pid(), "CONT");
    assert_eq!(drain.finish().exits(0).object()["drained"], json!(true));
    assert_eq!(node.ends().code, 0);
}

/// The same command, for which a hangup is what it is: whoever runs tests under `nohup` has it ignored,
/// and that is inherited.
fn hearing_hangups(command: &Command) -> Command {
    let mut own = Command::new("/usr/bin/env");
    own.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args()).env_clear();
    own.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    own.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    own
}

#[test]
fn a_terminal_that_is_closed_loses_nothing() {
    let node = FakeNode::start();
    let recv = fake_node::command(node.dir.path(), &["recv", "--follow", "--json"]);
    let mut follow = Background::start(&mut hearing_hangups(&recv));
    node.fake.arrive(1, None, b"seen");
    assert!(follow.line().contains("seen"));
    // Before it is acknowledged it would be shown again.
    wait_until("the acknowledgement", || node.fake.inbox_len() == 0);
    signal(follow.pid(), "HUP");
    assert_eq!(follow.exit().signal(), Some(1));
    node.fake.arrive(2, None, b"not seen");
    wait_until("the place to be free", || node.qpc(&["recv", "--keep"]).code == 0);
    assert_eq!(node.fake.inbox_len(), 1);
    assert_eq!(node.qpc(&["recv", "--json"]).object()["text"], "not seen");

    // Without a word from the system, the next line has nowhere to go.
    let (master, open) = terminal::pair(80);
    let mut command = fake_node::command(node.dir.path(), &["recv", "--follow"]);
    let mut child = command.stdin(open()).stdout(open()).spawn().unwrap();
    drop((command, open));
    wait_until("it to take", || node.qpc(&["recv"]).code == 1);
    drop(master);
    node.fake.arrive(3, None, b"not seen either");
    let ended = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(errors.starts_with("qpc: cannot write to stdout") && errors.lines().count() == 1, "{errors}");
    assert_eq!(node.fake.inbox_len(), 1);

    // A node drains.
    let mut real = Spec::new("node").start();
    signal(real.pid(), "HUP");
    let (stopped, code) = real.stopped();
    assert_eq!((&stopped["drained"], code), (&json!(true), 0));
}
