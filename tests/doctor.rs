//! `qpc doctor`, on machines that are well and on all sorts that are not.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use common::{Run, Spec, command, finish, qpc, temp_dir, wait_until, with_open_files};
use serde_json::Value;

/// All findings of one check.
fn of<'a>(findings: &'a [Value], check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

/// The one finding of a check.
#[track_caller]
fn one<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    match of(findings, check)[..] {
        [finding] => finding,
        ref several => panic!("{check}: {several:?}"),
    }
}

/// Every finding has its four fields, advice where something is to do, and one line each.
#[track_caller]
fn findings(run: &Run) -> Vec<Value> {
    let findings = run.objects();
    for finding in &findings {
        let keys: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["advice", "check", "detail", "status"], "{finding}");
        let is_ok = finding["status"] == "ok";
        assert_eq!(finding["advice"].is_null(), is_ok, "{finding}");
        assert!(["ok", "warn", "fail"].contains(&finding["status"].as_str().unwrap()), "{finding}");
        assert!(!finding["detail"].as_str().unwrap().is_empty(), "{finding}");
    }
    let failed = findings.iter().any(|finding| finding["status"] == "fail");
    assert_eq!(run.code, i32::from(failed), "{run:?}");
    findings
}

/// A configuration whose ports nobody has.
fn on_free_ports(data: &Path, more: &str) {
    let text =
        format!("{more}\n[transport]\nlisten = [\"quic://127.0.0.1:0\"]\n[health]\nlisten = \"off\"\n");
    fs::write(data.join("config.toml"), text).unwrap();
}

/// As people see it.
fn told(data: &Path, args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    command.env_clear().env("QPC_DATA_DIR", data).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command)
}

#[test]
fn a_machine_without_a_node_has_nothing_in_its_way_and_is_left_as_it_is() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    let config = temp.path().join("config.toml");
    fs::write(&config, "[transport]\nlisten = [\"quic://127.0.0.1:0\"]\n[health]\nlisten = \"off\"\n")
        .unwrap();
    let run = qpc(&data, &["doctor", "--config", config.to_str().unwrap()]).exits(0);
    let found = findings(&run);
    for check in ["data_dir", "identity", "peers"] {
        assert_eq!(one(&found, check)["status"], "warn");
    }
    for check in ["config", "node", "ports", "clock", "disk"] {
        assert_eq!(one(&found, check)["status"], "ok");
    }
    for check in ["open_files", "memory", "ipv6"] {
        assert!(["ok", "warn"].contains(&one(&found, check)["status"].as_str().unwrap()));
    }
    assert!(!data.exists(), "looking makes nothing");

    qpc(&data, &["init"]).exits(0);
    on_free_ports(&data, "");
    let before: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let found = findings(&qpc(&data, &["doctor"]).exits(0));
    for check in ["data_dir", "identity", "sync"] {
        assert_eq!(one(&found, check)["status"], "ok");
    }
    let after: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(after, before);
    let text = told(&data, &["doctor"]).exits(0).stdout;
    assert!(
        text.contains("✓ config") && text.contains("! peers") && text.contains("→ name a node"),
        "{text}"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    fs::write(data.join("config.toml"), "netwrk = \"x\"\n[store]\ncache = \"1\u{1b}[2J\"\n").unwrap();
    fs::set_permissions(data.join("identity.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let run = qpc(&data, &["doctor"]).exits(1);
    let found = findings(&run);
    let config = of(&found, "config");
    assert_eq!(config.len(), 2, "{config:?}");
    assert!(config.iter().all(|finding| finding["status"] == "fail"));
    assert!(of(&found, "ports").is_empty(), "nobody knows which they were to be");
    assert!(config[0].to_string().contains("config.toml:1:1") && config[0].to_string().contains("network"));
    let advice = |check: &str| one(&found, check)["advice"].as_str().unwrap().to_owned();
    assert_eq!(advice("data_dir"), format!("chmod 700 {}", data.display()));
    assert_eq!(advice("identity"), format!("chmod 600 {}", data.join("identity.pem").display()));
    // People's terminals are safe from what stands in files.
    let text = told(&data, &["doctor"]).exits(1).stdout;
    assert!(!text.contains('\u{1b}') && text.contains("✗ config"), "{text}");

    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let identity = data.join("identity.pem");
    let look = |status: &str| {
        let found = findings(&qpc(&data, &["doctor"]));
        assert_eq!(one(&found, "identity")["status"], status, "{found:?}");
        one(&found, "identity").to_string()
    };
    let private = |bytes: &[u8]| {
        fs::write(&identity, bytes).unwrap();
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
    };
    private(b"opensesame");
    assert!(!look("fail").contains("opensesame"));
    private(&vec![0xff; 10 << 20]);
    look("fail");
    fs::remove_file(&identity).unwrap();
    symlink("/dev/zero", &identity).unwrap();
    assert!(look("fail").contains("symbolic link"));
    fs::remove_file(&identity).unwrap();
    fs::create_dir(&identity).unwrap();
    look("fail");
}

#[test]
fn strange_places_and_files_are_told_and_harm_nothing() {
    let temp = temp_dir();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let found = findings(&qpc(&file, &["doctor"]).exits(1));
    assert!(one(&found, "data_dir")["detail"].as_str().unwrap().contains("is no directory"));
    // A configuration that was asked for has to be there.
    let data = temp.path().join("data");
    let found = findings(&qpc(&data, &["doctor", "--config", "/none.toml"]).exits(1));
    assert_eq!(one(&found, "config")["status"], "fail");
    // One of any size and content is told about, not repeated.
    qpc(&data, &["init"]).exits(0);
    for content in [vec![0xff; 1 << 20], b"a = ".repeat(300_000), b"[".repeat(100_000)] {
        fs::write(data.join("config.toml"), content).unwrap();
        let run = qpc(&data, &["doctor"]).exits(1);
        assert!(run.stdout.len() < 100_000, "{} bytes", run.stdout.len());
        assert_eq!(of(&findings(&run), "config")[0]["status"], "fail");
    }
    on_free_ports(&data, "");
    // Where the socket of a node should be.
    fs::create_dir(data.join("control.sock")).unwrap();
    assert!(findings(&qpc(&data, &["doctor"])).iter().any(|finding| finding["check"] == "node"));
    // Few files are told before a node finds them wanting.
    let few = finish(with_open_files(&command(&data, &["doctor"]), 40));
    let found = findings(&few);
    assert_eq!(one(&found, "open_files")["status"], "fail");
    assert!(one(&found, "open_files")["advice"].as_str().unwrap().contains("ulimit -n"));
}

#[test]
fn a_directory_that_takes_no_files_fails() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    on_free_ports(&data, "");
    // Whoever may do everything is not kept out by a mode: a name that is in the way does it too.
    let mut doctor = command(&data, &["doctor"]);
    let program = doctor.get_program().to_owned();
    let args: Vec<_> = doctor.get_args().map(ToOwned::to_owned).collect();
    doctor = Command::new("sh");
    doctor.args(["-c", "mkdir \"$QPC_DATA_DIR/.doctor.$$\" && exec \"$0\" \"$@\""]).arg(program).args(args);
    doctor.env_clear().env("QPC_DATA_DIR", &data).env("PATH", std::env::var_os("PATH").unwrap());
    doctor.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let found = findings(&finish(doctor).exits(1));
    assert_eq!(one(&found, "sync")["status"], "fail");
}

#[test]
fn ports_of_others_fail_and_ports_of_this_node_do_not() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [at, health] = [0, 1].map(|nth: usize| taken[nth].local_addr().unwrap());
    let config = |listen: &str, health: &str| {
        let text = format!("[transport]\nlisten = [\"{listen}\"]\n[health]\nlisten = \"{health}\"\n");
        fs::write(data.join("config.toml"), text).unwrap();
    };
    let listen = format!("tcp://{at}");
    config(&listen, &health.to_string());
    let found = findings(&qpc(&data, &["doctor"]).exits(1));
    let ports = of(&found, "ports");
    assert_eq!(ports.len(), 2);
    for port in ports {
        assert!(port["detail"].as_str().unwrap().contains("taken by another program"), "{port}");
    }
    config("tcp://no-such-host.invalid:5", "off");
    assert_eq!(one(&findings(&qpc(&data, &["doctor"]).exits(1)), "ports")["status"], "fail");

    drop(taken);
    config(&listen, "off");
    let node = Spec::new("node").at(&data).listen(&listen).start();
    let found = findings(&qpc(&data, &["doctor"]));
    let port = one(&found, "ports");
    assert!(port["detail"].as_str().unwrap().contains("held by this node"), "{port}");
    let running = one(&found, "node");
    assert!(running["status"] == "ok" && running["detail"].as_str().unwrap().starts_with(&node.address()));
    assert!(one(&found, "clock")["detail"].as_str().unwrap().ends_with("the node believes it"));
}

#[test]
fn peers_are_linked_or_it_is_told_why_not() {
    let keeper = Spec::new("keeper").start();
    // Nobody is there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("tcp://{gone}");
    let node = Spec::new("node").peer(&gone).start();
    let look = || findings(&node.qpc(&["doctor"]));
    let refused = |found: &[Value], status: &str| {
        let all = of(found, "peers");
        all.iter().any(|finding| {
            let detail = finding["detail"].as_str().unwrap();
            finding["status"] == status && detail.contains(&gone) && detail.contains("refused the connection")
        })
    };
    wait_until("the reason that nobody is linked", || refused(&look(), "fail"));
    node.qpc(&["peer", "add", &keeper.url("quic")]).exits(0);
    node.has_links(1);
    wait_until("one of two that is linked", || {
        let found = look();
        refused(&found, "warn") && of(&found, "peers").iter().any(|finding| finding["status"] == "ok")
    });
    let run = node.qpc(&["doctor"]);
    assert!(findings(&run).iter().all(|finding| finding["check"] != "peers" || finding["status"] != "fail"));
    // Without a node the ports of peers are tried, and their names looked up.
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    let tcp = keeper.url("tcp");
    let tcp = tcp.split('#').next().unwrap();
    let peers = format!(
        "listen = [\"tcp://127.0.0.1:0\"]\npeers = [\"{gone}\", \"{tcp}\", \"quic://no-such-host.invalid:1\"]"
    );
    fs::write(data.join("config.toml"), format!("[transport]\n{peers}\n[health]\nlisten = \"off\"\n"))
        .unwrap();
    let found = findings(&qpc(&data, &["doctor"]).exits(0));
    let status = |place: &str| {
        let all = of(&found, "peers");
        let about = all.iter().find(|finding| finding["detail"].as_str().unwrap().contains(place)).unwrap();
        about["status"].as_str().unwrap().to_owned()
    };
    assert_eq!((status(&gone).as_str(), status(tcp).as_str()), ("warn", "ok"));
    assert_eq!(one(&found, "names")["status"], "warn");
}

#[test]
fn nobody_waits_for_a_node_that_does_not_answer() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    on_free_ports(&data, "");
    // Takes connections and says nothing.
    let mute = std::os::unix::net::UnixListener::bind(data.join("control.sock")).unwrap();
    let found = findings(&qpc(&data, &["doctor"]).exits(1));
    assert!(one(&found, "node")["detail"].as_str().unwrap().contains("does not answer"));
    drop(mute);
    // Left behind by one that was killed.
    let found = findings(&qpc(&data, &["doctor"]).exits(0));
    assert_eq!(one(&found, "node")["status"], "ok");
    // One that answers rubbish without an end.
    fs::remove_file(data.join("control.sock")).unwrap();
    let rubbish = std::os::unix::net::UnixListener::bind(data.join("control.sock")).unwrap();
    let feeding = std::thread::spawn(move || {
        let Ok((mut stream, _)) = rubbish.accept() else { return };
        let mut source = File::open("/dev/zero").unwrap();
        // Until the other side has had enough.
        let _ = std::io::copy(&mut source, &mut stream);
    });
    let found = findings(&qpc(&data, &["doctor"]).exits(1));
    assert_eq!(one(&found, "node")["status"], "fail");
    feeding.join().unwrap();
}
