//! The REPL without a terminal, playbooks against real nodes, and commands on a node in this program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{
    Background, Node, Run, Spec, command,
    embedded::{until, within},
    temp_dir,
};
use quicprochat_mesh::{
    MeshConfig, MeshNodeBuilder, Playbook, RunHandle, SlashCommand, SlashReply,
    api::{ApiError, DeliveryStatus, ErrorClass},
    execute_slash,
    slash::confirm_slash,
};
use serde_json::{Value, json};

/// A session with these lines, with or without `--json`.
fn session(dir: &Path, args: &[&str], lines: &[u8]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    command.env_clear().env("QPC_DATA_DIR", dir).arg("repl").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines = lines.to_vec();
    // One that ends early reads no more.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&lines)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn lines_of_a_script_are_carried_out_one_by_one() {
    let anna = Spec::new("anna").start();
    let bert = Spec::new("bert").peer(anna.url("tcp")).start();
    anna.knows(&[&bert]);
    bert.knows(&[&anna]);
    let script = format!(
        "/contact add bert {}\n\n/to bert\nhello, don't go\n//etc\n/mesh trace bert\n/quit\n/nonsense\n",
        bert.address()
    );
    let run = session(anna.dir(), &[], script.as_bytes()).exits(0);
    assert_eq!(run.stderr, "");
    assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
    assert_eq!(run.stdout.matches("delivered ").count(), 2, "{run:?}");
    let texts: Vec<Value> = bert.inbox();
    assert_eq!(texts.len(), 2);
    let run = session(bert.dir(), &["--json"], b"/recv 1\n/recv\n/recv\n").exits(0);
    let replies = run.objects();
    let text = |reply: usize| &replies[reply]["reply"]["messages"][0]["text"];
    assert_eq!((text(0), text(1)), (&json!("hello, don't go"), &json!("/etc")));
    assert_eq!(replies[2]["reply"], json!({"messages": [], "files_left": 0}));
    // What /recv gave is taken.
    assert_eq!(bert.inbox().len(), 0);

    // A file is for other commands, and stays.
    let file = bert.dir().join("photo.bin");
    std::fs::write(&file, [0xff; 300]).unwrap();
    bert.qpc(&["send", "--to", &anna.address(), "--wait", "120s", "--file", file.to_str().unwrap()]).exits(0);
    let run = session(anna.dir(), &[], b"/recv\n").exits(0);
    assert!(run.stdout.contains("1 file left in the inbox"), "{run:?}");
    assert_eq!(anna.inbox().len(), 1);
}

#[test]
fn lines_that_fail_are_told_and_end_a_strict_session() {
    let anna = Spec::new("anna").start();
    let script = b"/whoami\n/mgs x\nhello\n/to nobody\n/fapp query\n/ping \xff\n/status\n";
    let run = session(anna.dir(), &[], script).exits(1).says(&[
        "line 2: no command is called /mgs: did you mean /msg?",
        "line 3: this line goes to nobody",
        "line 4: no contact is called \"nobody\"",
        "line 5: /fapp is not built yet",
        "line 6: it is not UTF-8",
    ]);
    assert!(run.stdout.contains("state"), "the last line was carried out: {run:?}");
    let objects = session(anna.dir(), &["--json"], script).exits(1).objects();
    let oks: Vec<bool> = objects.iter().map(|object| object["ok"].as_bool().unwrap()).collect();
    assert_eq!(oks, [true, false, false, false, false, false, true]);
    assert_eq!(objects[0]["command"], "/whoami");
    assert_eq!(objects[0]["reply"]["address"], *anna.address());
    assert!(objects[1]["error"].as_str().unwrap().contains("did you mean /msg?"), "{objects:?}");
    assert_eq!((&objects[1]["command"], &objects[1]["reply"]), (&Value::Null, &Value::Null));

    let run = session(anna.dir(), &["--strict"], script).exits(2).says(&["line 2: "]);
    assert_eq!(run.stdout.lines().next().unwrap().split(' ').next().unwrap(), anna.address());
    assert!(!run.stderr.contains("line 3"), "{run:?}");
    let run = session(anna.dir(), &["--strict"], b"/to nobody\n").exits(1);
    assert_eq!(run.stdout, "");

    let nothing = temp_dir();
    session(nothing.path(), &[], b"/status\n").exits(69).says(&["no node is running", "start one with"]);
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0, "it leaves nothing behind");
}

fn playbook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/playbooks").join(name)
}

/// A playbook of the documentation under way, with its variables.
fn play(node: &Node, name: &str, set: &[(&str, String)]) -> Background {
    let file = playbook(name);
    let mut command = command(node.dir(), &["repl", "--playbook", file.to_str().unwrap()]);
    // Half of them by one way, half by the other.
    for (at, (name, value)) in set.iter().enumerate() {
        match at % 2 {
            0 => command.args(["--set", &format!("{name}={value}")]),
            _ => command.env(format!("QPC_PB_{name}"), value),
        };
    }
    Background::start(&mut command)
}

#[track_caller]
fn all_steps_are_ok(run: Run, name: &str) -> Vec<Value> {
    let steps = run.exits(0).objects();
    let text = std::fs::read_to_string(playbook(name)).unwrap();
    assert_eq!(steps.len(), text.matches("[[step]]").count(), "{steps:#?}");
    for (step, number) in steps.iter().zip(1..) {
        assert_eq!((&step["ok"], &step["step"]), (&json!(true), &json!(number)), "{step:#}");
        assert!(step["ms"].is_u64() && step["detail"].is_string(), "{step:#}");
        for field in ["action", "reply"] {
            assert!(step.get(field).is_some(), "{step:#}");
        }
    }
    steps
}

#[test]
fn the_documented_playbooks_pass_on_real_nodes() {
    let bert = Spec::new("bert").start();
    let anna = Spec::new("anna").peer(bert.url("quic")).start();
    let carl = Spec::new("carl").peer(bert.url("tcp")).start();
    let answer = play(&bert, "hello-answer.toml", &[("ANNA", anna.address())]);
    let hello = play(&anna, "hello.toml", &[("BERT", bert.address())]);
    all_steps_are_ok(hello.finish(), "hello.toml");
    all_steps_are_ok(answer.finish(), "hello-answer.toml");
    assert_eq!((anna.inbox().len(), bert.inbox().len()), (0, 0), "both took what they found");

    let line = play(&anna, "line.toml", &[("NEXT", bert.address()), ("FAR", carl.address())]);
    let steps = all_steps_are_ok(line.finish(), "line.toml");
    let trace = steps.iter().find(|step| step["action"] == "mesh-trace").unwrap();
    assert_eq!(trace["reply"]["reached"], true);
    assert_eq!(carl.take(1)[0]["text"], "three of us");
}

#[test]
fn a_playbook_ends_at_the_first_step_that_fails_and_says_why() {
    let anna = Spec::new("anna").start();
    let dir = temp_dir();
    let file = dir.path().join("steps.toml");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        anna.qpc(&["repl", "--playbook", file.to_str().unwrap()])
    };
    let check = |text: &str, steps: usize, says: &[&str]| {
        let ended = run(text).exits(1).says(says);
        let objects = ended.objects();
        assert_eq!(objects.len(), steps, "{objects:?}");
        let oks: Vec<&Value> = objects.iter().map(|object| &object["ok"]).collect();
        assert_eq!(oks.iter().filter(|ok| **ok == false).count(), 1, "{objects:?}");
        assert_eq!(oks[steps - 1], false, "{objects:?}");
    };
    let note = "[[step]]\naction = 'note'\ntext = 'x'\n";
    let peers = "[[step]]\naction = 'mesh-peers'\n[[step]]\naction = 'expect'\nfield = ''\nat_least = 1\n";
    check(&format!("{note}{peers}{note}"), 3, &["step 3 (expect, line 6)", "an array of 0", "at least 1"]);
    let nobody = "7".repeat(32);
    let wait = "[[step]]\naction = 'wait'\nfor = 'peers>=1'\ntimeout = '1ms'\n";
    check(wait, 1, &["step 1 (wait, line 1)", "0 of 1 links are up after 1ms"]);
    check(
        "[[step]]\naction = 'expect'\ncontains = 'x'\ntimeout = '1ms'\n",
        1,
        &["did not arrive within 1ms"],
    );
    let send = format!("[[step]]\naction = 'send'\nto = '{nobody}'\ntext = 'x'\nwait = '1ms'\n");
    check(&send, 1, &["the message is queued within 1ms", "expected delivered"]);
    check("[[step]]\naction = 'expect'\nfield = 'x'\nequals = 1\n", 1, &["no step before this one"]);
    check("[[step]]\naction = 'send'\nto = 'nobody'\ntext = 'x'\n", 1, &["no contact is called"]);

    // Mistakes are found before anything is done, and all of them.
    let broken = run("[[step]]\naction = 'broadcast'\ntext = '${WHO}'\n[[step]]\naction = 'sned'\n").exits(2);
    let broken =
        broken.says(&["steps.toml:3:8: no variable is called WHO", "steps.toml:5:10: unknown action"]);
    assert_eq!(broken.stdout, "");
    anna.qpc(&["repl", "--playbook", "/nowhere.toml"]).exits(2).says(&["cannot read the playbook"]);
    anna.qpc(&["repl", "--set", "A=1"]).exits(2);
    std::fs::write(&file, note).unwrap();
    let file = file.to_str().unwrap();
    anna.qpc(&["repl", "--playbook", file, "--set", "A"]).exits(2).says(&["--set NAME=VALUE"]);
    common::qpc(dir.path(), &["repl", "--playbook", file]).exits(69);
}

async fn start(dir: &Path, peers: &str) -> RunHandle {
    let config = MeshConfig::from_toml(&format!(
        "[transport]\nlisten = ['tcp://127.0.0.1:0']\npeers = [{peers}]\n[health]\nlisten = 'off'\n"
    ));
    let node = MeshNodeBuilder::new().config(config.unwrap()).data_dir(dir).build().await.unwrap();
    node.run().await.unwrap()
}

#[tokio::test]
async fn a_program_gives_its_own_node_the_same_commands() {
    let temp = temp_dir();
    let bert = start(&temp.path().join("bert"), "").await;
    let url = format!("'{}#{}'", bert.listening().urls[0], bert.node().address());
    let anna = start(&temp.path().join("anna"), &url).await;
    let (a, b) = (anna.node(), bert.node());
    let run = |line: String| async move {
        let command = SlashCommand::parse(&line).unwrap();
        within(&line, execute_slash(a, &command)).await
    };
    until("a route", || async {
        let SlashReply::Routes(routes) = run("/mesh routes".into()).await.unwrap() else { panic!() };
        (!routes.is_empty()).then_some(())
    })
    .await;
    run(format!("/contact add bert {}", b.address())).await.unwrap();
    let SlashReply::Trace(trace) = run("/mesh trace bert".into()).await.unwrap() else { panic!() };
    assert!(trace.reached);
    assert_eq!(trace.hops.len(), 1);
    // Both wait two seconds at most, and a busy machine may need longer: the message goes on.
    let SlashReply::Sent(sent) = run("/msg bert hello".into()).await.unwrap() else { panic!() };
    assert!(matches!(sent.status, DeliveryStatus::Delivered | DeliveryStatus::Queued), "{sent:?}");
    let taken = until("the message", || async {
        let reply = execute_slash(b, &SlashCommand::Recv { count: 10 }).await.unwrap();
        matches!(&reply, SlashReply::Received(taken) if !taken.messages.is_empty()).then_some(reply)
    })
    .await;
    assert_eq!(taken.to_string(), format!("{}: hello", a.address()));
    // It is taken when it was shown, and not before.
    assert_eq!(b.inbox(None).await.unwrap().0.len(), 1);
    confirm_slash(b, &taken).await.unwrap();
    assert_eq!(b.inbox(None).await.unwrap().0.len(), 0);
    confirm_slash(b, &taken).await.unwrap();

    let error: ApiError = run("/to bret".into()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Failed);
    assert!(error.message.contains("did you mean \"bert\"?"), "{error}");
    let playbook =
        "[[step]]\naction = 'ping'\nto = 'bert'\n[[step]]\naction = 'expect'\nfield = ''\nequals = 3\n";
    let playbook = Playbook::parse(playbook, &Default::default()).unwrap();
    let mut steps = playbook.run(a);
    while let Some(report) = within("a step", steps.next()).await {
        assert!(report.ok, "{report:?}");
    }
    anna.shutdown().await.unwrap();
    bert.shutdown().await.unwrap();
}
