//! What people see: the REPL and the demo in a terminal, read from its screen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use common::{
    Node, Spec,
    pty::{CTRL_C, CTRL_D, ENTER, LEFT, Pty, TAB, UP},
    signal, temp_dir, wait_until,
};

const SIZE: (u16, u16) = (24, 80);

/// Two nodes that know each other; the first has the second as a contact called bert.
fn pair() -> (Node, Node) {
    let anna = Spec::new("anna").start();
    let bert = Spec::new("bert").peer(anna.url("tcp")).start();
    anna.knows(&[&bert]);
    bert.knows(&[&anna]);
    anna.ask(&["contact", "add", "bert", &bert.address()]);
    (anna, bert)
}

/// A session at a node, at its first prompt.
#[track_caller]
fn repl(node: &Node, args: &[&str]) -> Pty {
    let pty = Pty::qpc(node.dir(), &[&["repl"], args].concat(), SIZE);
    pty.is_at(&prompt(node));
    pty
}

fn prompt(node: &Node) -> String {
    format!("{}>", &node.address()[..8])
}

fn is_running(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(std::process::Stdio::null()).status().unwrap().success()
}

#[test]
fn lines_are_edited_completed_and_remembered_but_messages_are_not() {
    let (anna, bert) = pair();
    let mut pty = repl(&anna, &[]);
    pty.types(&["/to be", TAB]);
    pty.is_at(&format!("{} /to bert", prompt(&anna)));
    pty.types(&[ENTER]);
    pty.shows("lines go to bert");
    pty.is_at("bert>");
    // A slip in the middle of a line is put right where it is.
    pty.types(&["don't wrry", LEFT, LEFT, LEFT, "o", ENTER]);
    pty.shows("to bert: delivered in");
    assert_eq!(bert.take(1)[0]["text"], "don't worry");
    // What is missing is hinted at, and unknown words are answered with the nearest.
    pty.types(&["/mesh trace "]);
    pty.is_at("bert> /mesh trace ADDRESS");
    pty.types(&["bert", ENTER]);
    pty.shows("1  ");
    pty.types(&["/mesh paers", ENTER]);
    pty.shows("did you mean /mesh peers?");
    pty.is_at("bert>");
    pty.types(&[CTRL_D]);
    assert!(pty.exit().success());
    assert!(pty.is_cooked(), "the terminal is left as it was found");

    let file = anna.dir().join("repl-history");
    assert_eq!(fs::read_to_string(&file).unwrap(), "/to bert\n/mesh trace bert\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut pty = repl(&anna, &[]);
    pty.types(&[UP]);
    pty.is_at(&format!("{} /mesh trace bert", prompt(&anna)));
    pty.types(&[UP, ENTER]);
    pty.shows("lines go to bert");
    pty.is_at("bert>");
    pty.types(&["/quit", ENTER]);
    assert!(pty.exit().success());
}

#[test]
fn what_arrives_is_shown_above_the_line_that_is_typed() {
    let (anna, bert) = pair();
    bert.deliver(&anna, "came before");
    let mut pty = repl(&anna, &[]);
    pty.shows("1 message waits in the inbox");
    pty.types(&["/to bert", ENTER]);
    pty.is_at("bert>");
    pty.types(&["half a li"]);
    pty.is_at("bert> half a li");
    bert.deliver(&anna, "evil \u{1b}[2J\u{202e}name");
    pty.shows("bert: evil \\u{1b}[2J\\u{202e}name");
    pty.is_at("bert> half a li");
    pty.types(&["ne", ENTER]);
    pty.shows("to bert: delivered in");
    assert_eq!(bert.take(1)[0]["text"], "half a line");
    // Looking is not taking.
    assert_eq!(anna.inbox().len(), 2);
    pty.types(&["/recv", ENTER]);
    pty.shows(": came before");
    pty.is_at("bert>");
    wait_until("an empty inbox", || anna.inbox().is_empty());
    // A line is given up, the session is not; a window may change its size.
    pty.types(&["never sent"]);
    pty.is_at("bert> never sent");
    pty.types(&[CTRL_C]);
    pty.is_at("bert>");
    pty.resize(30, 100);
    pty.types(&["/whoami", ENTER]);
    pty.shows(&format!("{}  network public", anna.address()));
    pty.is_at("bert>");
    pty.types(&[CTRL_D]);
    assert!(pty.exit().success());
    assert_eq!(bert.inbox().len(), 0);
}

#[test]
fn a_session_outlives_its_node() {
    let mut anna = Spec::new("anna").start();
    let mut pty = repl(&anna, &[]);
    anna.kill();
    pty.shows("the node went away");
    pty.types(&["/mesh peers", ENTER]);
    pty.shows("> /mesh peers");
    pty.shows("or name another --data-dir");
    pty.is_at(&prompt(&anna));
    anna.restart();
    pty.shows("the node is back");
    pty.types(&["/mesh routes", ENTER]);
    pty.shows("no routes");
    // Before its prompt it takes no keys.
    pty.is_at(&prompt(&anna));
    pty.types(&[CTRL_D]);
    assert!(pty.exit().success());
}

#[test]
fn a_session_ends_with_its_terminal_and_leaves_the_terminal_as_it_was() {
    let anna = Spec::new("anna").start();
    let mut closed = repl(&anna, &[]);
    closed.types(&["half a li"]);
    closed.is_at(&format!("{} half a li", prompt(&anna)));
    closed.hang_up();
    closed.exit();

    let mut told = repl(&anna, &[]);
    assert!(!told.is_cooked(), "the editor reads single keys");
    signal(told.pid(), "TERM");
    assert!(told.exit().success());
    assert!(told.is_cooked(), "the terminal is left as it was found");
    // And a command under way is given up by Ctrl-C, the session is not.
    let nobody = "7".repeat(32);
    let mut waits = repl(&anna, &[]);
    waits.types(&[&format!("/mesh trace {nobody}"), ENTER]);
    wait_until("a command under way", || waits.is_cooked());
    waits.types(&[CTRL_C]);
    waits.shows("given up");
    waits.is_at(&prompt(&anna));
    waits.types(&["/quit", ENTER]);
    assert!(waits.exit().success());
}

#[test]
fn colours_are_for_who_wants_them() {
    let anna = Spec::new("anna").start();
    let command = |no_color: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
        command.env("QPC_DATA_DIR", anna.dir()).env("NO_COLOR", no_color).arg("repl");
        command
    };
    for (no_color, wants_colours) in [("", true), ("1", false)] {
        let mut pty = Pty::start(&command(no_color), SIZE);
        pty.is_at(&prompt(&anna));
        pty.types(&["/nope", ENTER]);
        pty.shows("no command is called /nope");
        pty.is_at(&prompt(&anna));
        let colour = pty.colour_of("no command is called");
        assert_eq!(colour == vt100::Color::Idx(1), wants_colours, "{colour:?}");
        assert_eq!(has_colours(&pty), wants_colours);
        pty.types(&[CTRL_D]);
        assert!(pty.exit().success());
    }
}

/// Whether any sequence that sets colours or weights was written.
fn has_colours(pty: &Pty) -> bool {
    let bytes = pty.bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(rest.len());
        // One that sets everything back sets nothing.
        rest[end..].starts_with('m') && !rest[..end].trim_start_matches('0').is_empty()
    })
}

/// The demo in a terminal, with a directory of its own for what it leaves.
fn demo(size: (u16, u16), no_color: bool) -> (Pty, tempfile::TempDir) {
    let temp = temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    command.env("TMPDIR", temp.path()).args(["demo", "--nodes", "3"]);
    if no_color {
        command.env("NO_COLOR", "1");
    }
    (Pty::start(&command, size), temp)
}

/// The processes that the demo says it started.
fn pids(pty: &Pty) -> Vec<String> {
    let page = pty.page();
    let pids = page.lines().filter_map(|line| line.split("  pid ").nth(1));
    pids.map(|pid| pid.trim().to_owned()).collect()
}

#[test]
fn the_demo_fits_a_terminal_and_cleans_up_at_ctrl_c() {
    for size in [(24, 80), (40, 120)] {
        let (mut pty, temp) = demo(size, false);
        pty.has_shown("Ctrl-C here drains them all");
        let page = pty.page();
        for part in [
            "│ n1 ├─quic─┤ n2 ├─tcp──┤ n3 │",
            "over 2 hops",
            "1 message on the disk of n2",
            "┆ n3 ┆",
            "delivered",
        ] {
            assert!(page.contains(part), "{part} is missing in:\n{page}");
        }
        assert_eq!(pty.wrapped(), [""; 0]);
        assert_eq!(pty.colour_of("delivered"), vt100::Color::Idx(2));
        // What is still to be done is on the screen at the end.
        pty.shows("Ctrl-C here drains them all");
        let pids = pids(&pty);
        assert_eq!(pids.len(), 3, "{page}");
        pty.types(&[CTRL_C]);
        pty.has_shown("3 nodes drained and stopped");
        assert!(pty.exit().success());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "a directory is left");
        assert!(!pids.iter().any(|pid| is_running(pid)), "a node is left");
    }
}

#[test]
fn a_demo_whose_terminal_is_closed_leaves_nothing() {
    // At its end, and in the middle of the story.
    for until in ["Ctrl-C here drains them all", "encrypted end to end"] {
        let (mut pty, temp) = demo(SIZE, true);
        pty.has_shown(until);
        assert!(!has_colours(&pty), "colours in spite of NO_COLOR");
        let pids = pids(&pty);
        assert_eq!(pids.len(), 3);
        pty.hang_up();
        pty.exit();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "a directory is left");
        assert!(!pids.iter().any(|pid| is_running(pid)), "a node is left");
    }
}

#[test]
fn a_node_in_a_terminal_that_is_closed_drains() {
    let temp = temp_dir();
    let dir = temp.path().join("data");
    let args = ["run", "--listen", "tcp://127.0.0.1:0", "--health-listen", "127.0.0.1:0"];
    let mut pty = Pty::qpc(&dir, &args, SIZE);
    pty.shows("is ready");
    pty.hang_up();
    assert!(pty.exit().success());
    let socket = fs::read_dir(&dir).unwrap().any(|entry| entry.unwrap().file_name() == "control.sock");
    assert!(!socket, "its control socket is left");
}
