//! What `qpc` says, word for word: the help of every command, and the lines of usual mistakes.
//! `QPC_BLESS=1 cargo test --test cli_snapshots` writes the files below `tests/snapshots/` anew; tables
//! are rendered from fixed objects in the binary's own tests.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod fake_node;
#[path = "common/terminal.rs"]
mod terminal;
#[path = "common/tree.rs"]
mod tree;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fake_node::{FakeNode, PATIENCE, command, data_dir, finish, qpc};
use terminal::Terminal;

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

fn is_blessed() -> bool {
    std::env::var_os("QPC_BLESS").is_some()
}

/// Compares with a file, or writes it.
fn check(path: &Path, text: &str, faults: &mut Vec<String>) {
    if is_blessed() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    } else if fs::read_to_string(path).unwrap_or_default() != text {
        faults.push(format!("{} differs (QPC_BLESS=1 writes it):\n{text}", path.display()));
    }
}

#[test]
fn the_help_of_every_command() {
    let dir = data_dir();
    let folder = snapshots().join("help");
    let pages = tree::pages(&|arguments| qpc(dir.path(), arguments).exits(0).stdout);
    assert!(pages.len() > 30, "not all commands are listed: {}", pages.len());
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (words, page) in pages {
        for line in page.lines().filter(|line| line.chars().count() > 100) {
            faults.push(format!("{words:?}: longer than 100 columns: {line}"));
        }
        let name = ["qpc"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        check(&folder.join(format!("{name}.txt")), &page, &mut faults);
        // The short form and `qpc help` lead to the same commands.
        let short: Vec<&str> = words.iter().map(String::as_str).chain(["-h"]).collect();
        assert!(qpc(dir.path(), &short).exits(0).stdout.contains("Usage: qpc"), "{words:?}");
        let help: Vec<&str> = ["help"].into_iter().chain(words.iter().map(String::as_str)).collect();
        assert_eq!(qpc(dir.path(), &help).exits(0).stdout, page, "{words:?}");
        names.insert(format!("{name}.txt"));
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name) {
            faults.push(format!("{name} is of no command any more"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_lines_of_usual_mistakes() {
    let nobody = data_dir();
    let node = FakeNode::start();
    let config = nobody.path().join("wrong.toml");
    fs::write(&config, "netwrok = \"x\"\n[health]\nlisten = 5\n").unwrap();
    let config = config.to_str().unwrap();
    let f32 = "f".repeat(32);
    // Without a node, and with one.
    let alone: &[&[&str]] = &[
        &["stauts"],
        &["peer", "ad", "quic://192.0.2.1:7410"],
        &["status", "--jsno"],
        &["send", "hello"],
        &["send", "--to", "anna"],
        &["send", "--to", "anna", "hello", "--file", "x"],
        &["send", "--to", "anna", "hello", "--wait", "soon"],
        &["send", "--to", "anna", "hello", "--ttl", "15d"],
        &["send", "--to", "anna", "hello", "--priority", "urgent"],
        &["send", "--to", "abc", "hello"],
        &["send", "--to", &f32, "hello"],
        &["send", "--to", "anna", "--file", "/nowhere/at/all"],
        &["send", "--to", "anna", "--file", "/"],
        &["broadcast", "hello", "--max-hops", "0"],
        &["recv", "--count", "0"],
        &["peer", "add", "http://192.0.2.1"],
        &["peer", "add", "quic://192.0.2.1"],
        &["contact", "add", "cafe", &f32],
        &["contact", "add", "anna", "12"],
        &["inbox", "ack", "12"],
        &["wire", "zz"],
        &["wire", "123"],
        &["config", "check", config],
        &["config", "check", "/nowhere/at/all"],
        &["init", "--seed", "12"],
        &["init", "--seed", "@/nowhere/at/all"],
        &["run", "--listen", "http://[::]:80"],
        &["run", "--health-listen", "nowhere"],
        &["demo", "--json"],
        &["completions", "tcsh"],
        &["status"],
        &["send", "--to", "anna", "hello"],
        &["backup", "/tmp/nowhere"],
    ];
    let with_node: &[&[&str]] = &[
        &["send", "--to", "nobody", "hello"],
        &["send", "--to", "abcdef0123", "hello"],
        &["send", "--to", "late", "hello", "--wait", "1ms"],
        &["send", "--to", "lost", "hello", "--wait", "30s"],
        &["trace", "silent"],
        &["ping", "silent", "--count", "1"],
        &["contact", "remove", "nobody"],
        &["inbox", "ack", "abcdef01"],
        &["outbox", "cancel", "abcdef01"],
        &["message", "ffffffff"],
        &["drain", "--timeout", "1ms"],
    ];
    let tell = |place: &Path, arguments: &[&str]| {
        let mut command = command(place, arguments);
        command.env("QPC_HEALTH_LISTEN", "127.0.0.1:1");
        let run = finish(command);
        assert_ne!(run.code, 0, "{arguments:?}: {run:?}");
        format!("$ qpc {}\n{}exit {}\n\n", arguments.join(" "), run.stderr, run.code)
    };
    let mut text: String = alone.iter().map(|arguments| tell(nobody.path(), arguments)).collect();
    text.push_str("With a node:\n\n");
    text.extend(with_node.iter().map(|arguments| tell(node.dir.path(), arguments)));
    for dir in [nobody.path(), node.dir.path()] {
        text = text.replace(dir.to_str().unwrap(), "DIR");
    }
    let mut faults = Vec::new();
    check(&snapshots().join("errors.txt"), &text, &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn on_a_terminal_lines_fit_and_have_colours() {
    let node = FakeNode::start();
    node.fake.arrive(
        1,
        Some("写真 of a lake that is as long as the name of a file may be and longer.jpg"),
        b"x",
    );
    for columns in [80, 120] {
        for arguments in
            [&["status"][..], &["peers"], &["routes"], &["known"], &["stats"], &["inbox"], &["outbox"]]
        {
            let (code, raw, terminal) =
                Terminal::start(command(node.dir.path(), arguments), columns).finish();
            assert_eq!(
                (code, terminal.wrapped()),
                (0, 0),
                "{arguments:?} at {columns}:\n{}",
                terminal.screen()
            );
            assert!(raw.contains("\u{1b}["), "{arguments:?}: no colours: {raw:?}");
            let (code, raw, _) =
                Terminal::start(command(node.dir.path(), &[arguments, &["--json"]].concat()), columns)
                    .finish();
            assert!(code == 0 && !raw.contains('\u{1b}'), "{arguments:?}: colours for programs: {raw:?}");
        }
    }
    for (key, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0")] {
        let mut plain = command(node.dir.path(), &["status"]);
        plain.env(key, value);
        let (_, raw, terminal) = Terminal::start(plain, 80).finish();
        assert!(!raw.contains('\u{1b}') && terminal.screen().contains("degraded"), "{key}: {raw:?}");
    }
    let mut forced = command(node.dir.path(), &["status"]);
    forced.env("CLICOLOR_FORCE", "1");
    assert!(finish(forced).stdout.contains("\u{1b}[33mdegraded"));
}

#[test]
fn on_a_terminal_waiting_shows_and_goes_again() {
    let node = FakeNode::start();
    let hangs = Terminal::start(command(node.dir.path(), &["trace", "hang"]), 80);
    let deadline = Instant::now() + PATIENCE;
    while !hangs.screen().contains("waiting for answers, 10s at most") {
        assert!(Instant::now() < deadline, "no spinner:\n{}", hangs.screen());
        thread::sleep(Duration::from_millis(20));
    }
    drop(hangs);
    let json = command(node.dir.path(), &["--json", "send", "--to", "anna", "--wait", "1m", "x"]);
    let (_, raw, terminal) = Terminal::start(json, 80).finish();
    assert!(!raw.contains("parts there"), "a bar for programs:\n{}", terminal.screen());

    let send = command(node.dir.path(), &["send", "--to", "anna", "--wait", "1m", "x"]);
    let (code, raw, terminal) = Terminal::start(send, 80).finish();
    assert!(raw.contains("1 of 2 parts there"), "no bar: {raw:?}");
    let wanted = format!("delivered {} in 12.5 ms over 3 hops", "07".repeat(16));
    assert_eq!((code, terminal.screen().trim()), (0, wanted.as_str()), "something of the bar is left");
}
