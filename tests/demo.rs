//! `qpc demo --once`: the story ends well and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Longest that the whole story may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn demo(temp: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    // A name would be too long for a control socket below some systems' temporary directory.
    command.env("TMPDIR", temp).env("QPC_LISTEN", "tcp://256.0.0.1:1").args(["demo", "--nodes", "3"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends `pid` where it has not ended by itself in time.
fn watch(pid: u32) {
    thread::spawn(move || {
        thread::sleep(PATIENCE);
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    });
}

fn is_running(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn the_story_ends_well_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let child = demo(temp.path()).arg("--once").spawn().unwrap();
    watch(child.id());
    let output = child.wait_with_output().unwrap();
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "");

    for part in ["over 2 hops", "SHA-256", "kept", "Read this when you are back", "3 nodes drained"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(text.matches("delivered  ").count(), 3, "{text}");
    assert!(!text.contains('\u{1b}'), "colours only on a terminal:\n{text}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "a directory is left");
    let pids = text.lines().filter_map(|line| line.split("  pid ").nth(1));
    assert_eq!(pids.clone().count(), 3, "{text}");
    for pid in pids {
        assert!(!is_running(pid), "node {pid} is left:\n{text}");
    }
}

#[test]
fn it_stays_until_it_is_told_to_stop() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = demo(temp.path()).spawn().unwrap();
    watch(child.id());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    // What it names is there to be asked.
    let dir = told.iter().find_map(|line| line.split_once("export QPC_DATA_DIR=")).expect("where it is").1;
    let commands: Vec<&str> = told.iter().filter_map(|line| line.trim().strip_prefix("$ qpc ")).collect();
    for command in ["peers", "trace n3", "send --to n3 --wait 10s hello"] {
        assert!(commands.contains(&command), "{command} is not named: {commands:?}");
        let args = command.split(' ');
        let ask = Command::new(env!("CARGO_BIN_EXE_qpc")).args(args).env("QPC_DATA_DIR", dir).output();
        let ask = ask.unwrap();
        assert!(ask.status.success(), "{command}: {ask:?}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("3 nodes drained")), "{rest:?}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "a directory is left");
}
