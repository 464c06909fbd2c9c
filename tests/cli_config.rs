//! `qpc init`, `config` and how `run` starts: identities, modes, mistakes, precedence.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod fake_node;

use std::{io::Write, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use fake_node::{command, data_dir, finish, qpc};
use quicprochat_mesh::config::MeshConfig;
use serde_json::{Value, json};

/// RFC 8032, section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn init_makes_an_identity_and_a_configuration_once() {
    let root = data_dir();
    let dir = root.path().join("new/node");
    let made = qpc(&dir, &["init", "--json"]).exits(0).object();
    assert_eq!(made["data_dir"], dir.to_str().unwrap());
    assert_eq!(made["address"].as_str().unwrap().len(), 32);
    assert_eq!(made["public_key"].as_str().unwrap().len(), 64);
    assert_eq!((mode(&dir), mode(&dir.join("identity.pem"))), (0o700, 0o600));
    let config = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    assert_eq!(config, MeshConfig::commented_toml());
    qpc(&dir, &["config", "check"]).exits(0);

    let before = std::fs::read(dir.join("identity.pem")).unwrap();
    std::fs::write(dir.join("config.toml"), "network = 'mine'\n").unwrap();
    qpc(&dir, &["init"]).exits(1).says("never overwritten");
    assert_eq!(std::fs::read(dir.join("identity.pem")).unwrap(), before);
    assert_eq!(std::fs::read_to_string(dir.join("config.toml")).unwrap(), "network = 'mine'\n");
}

#[test]
fn a_seed_gives_the_same_identity_and_only_the_command_line_marks_it() {
    let root = data_dir();
    let file = root.path().join("seed");
    std::fs::write(&file, format!("{SEED}\n")).unwrap();
    let dir = |name: &str| root.path().join(name);

    let made = qpc(&dir("a"), &["init", "--json", "--seed", SEED]).exits(0).object();
    assert_eq!(made["public_key"], PUBLIC);
    assert!(dir("a").join("identity.test").exists());

    let at = format!("@{}", file.display());
    let made = qpc(&dir("b"), &["init", "--json", "--seed", &at]).exits(0).object();
    assert_eq!(made["public_key"], PUBLIC);

    let mut piped = command(&dir("c"), &["init", "--json", "--seed", "-"]);
    piped.stdin(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(SEED.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let made: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(made["public_key"], PUBLIC);
    for quiet in ["b", "c"] {
        assert!(!dir(quiet).join("identity.test").exists());
    }
    for wrong in ["abc", "@/nowhere", &"zz".repeat(32)] {
        let run = qpc(&dir("d"), &["init", "--seed", wrong]);
        assert!(matches!(run.code, 1 | 2) && !dir("d").exists(), "{run:?}");
    }
}

#[test]
fn check_names_every_mistake_with_its_place() {
    let dir = data_dir();
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "netwrok = 'x'\n[transport]\nlisten = ['quic://h']\nkeepalive = '1h'\n").unwrap();
    let name = file.to_str().unwrap();
    let run = qpc(dir.path(), &["config", "check", name]).exits(78);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            &format!("qpc: {name}:1:1: unknown key netwrok: did you mean network?"),
            &format!("qpc: {name}:3:11: transport.listen: \"quic://h\" has no port: write quic://HOST:PORT"),
        ]
    );
    let objects = qpc(dir.path(), &["config", "check", name, "--json"]).exits(78).objects();
    assert_eq!(objects.len(), 2);
    assert_eq!((&objects[0]["line"], &objects[0]["column"]), (&json!(1), &json!(1)));
    assert_eq!(objects[0]["hint"], "did you mean network?");

    std::fs::write(&file, "[transport]\nkeepalive = '1h'\n").unwrap();
    qpc(dir.path(), &["config", "check", name])
        .exits(78)
        .says(":2:1: transport.keepalive: 1h is out of range");
    std::fs::write(&file, "network = \n").unwrap();
    let broken = qpc(dir.path(), &["config", "check", name]).exits(78);
    assert!(broken.stderr.contains(":1:"), "{broken:?}");
    std::fs::write(&file, "network = 'fine'\n").unwrap();
    assert_eq!(qpc(dir.path(), &["config", "check", name, "--json"]).exits(0).object()["ok"], true);
    qpc(dir.path(), &["config", "check", "/nowhere.toml"]).exits(78).says("cannot read /nowhere.toml");
}

#[test]
fn show_prints_effective_values_and_where_they_came_from() {
    let dir = data_dir();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "network = 'file'\n[health]\nlisten = 'off'\n").unwrap();
    let mut show = command(dir.path(), &["config", "show", "--json"]);
    show.env("QPC_NETWORK", "env").env("QPC_PEERS", "quic://a:1,tcp://b:2").env("QPC_LISTN", "x");
    let run = finish(show).exits(0).says("QPC_LISTN sets nothing: did you mean QPC_LISTEN?");
    let objects = run.objects();
    let entry = |key: &str| objects.iter().find(|o| o["key"] == key).unwrap().clone();
    assert_eq!((&entry("network")["value"], &entry("network")["origin"]), (&json!("env"), &json!("env")));
    assert_eq!(entry("transport.peers")["value"], json!(["quic://a:1", "tcp://b:2"]));
    assert_eq!(
        (&entry("health.listen")["value"], &entry("health.listen")["origin"]),
        (&json!("off"), &json!("file"))
    );
    assert_eq!(entry("health.listen")["place"], format!("{}:3:1", file.display()));
    assert_eq!(
        (&entry("announce.max_hops")["value"], &entry("announce.max_hops")["origin"]),
        (&json!(128), &json!("default"))
    );
    assert_eq!(entry("transport.accept")["value"], Value::Null);
    assert!(qpc(dir.path(), &["config", "show"]).exits(0).stdout.contains("announce.interval"));

    let other = dir.path().join("other.toml");
    std::fs::write(&other, "network = 'other'\n").unwrap();
    let run = qpc(dir.path(), &["config", "show", "--json", "--config", other.to_str().unwrap()]).exits(0);
    assert!(run.objects().iter().any(|o| o["value"] == "other"));
    qpc(dir.path(), &["config", "show", "--config", "/nowhere.toml"]).exits(78);
}

#[test]
fn run_refuses_a_bad_configuration_before_it_makes_anything() {
    let root = data_dir();
    let dir = root.path().join("node");
    qpc(&dir, &["run", "--listen", "quic://h"]).exits(78).says("flag --listen: \"quic://h\" has no port");
    qpc(&dir, &["run", "--health-listen", "nowhere"]).exits(78).says("flag --health-listen");
    let clash = ["run", "--listen", "tcp://127.0.0.1:7411"];
    qpc(&dir, &clash).exits(78).says("want the same TCP port");
    let mut bad = command(&dir, &["run"]);
    bad.env("QPC_NETWORK", " x");
    finish(bad).exits(78).says("environment variable QPC_NETWORK: network: a name has");
    assert!(!dir.exists());
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "[transport]\nlisen = []\n").unwrap();
    qpc(&dir, &["run"])
        .exits(78)
        .says("config.toml:2:1: unknown key transport.lisen: did you mean transport.listen?");
}
