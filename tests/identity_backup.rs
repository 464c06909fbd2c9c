//! The identity of a node: its backup, its passphrase, its card, with real processes and, where it is
//! installed, the `age` program.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
};

use common::{PATIENCE, Run, Spec, command, finish, qpc, temp_dir, wait_until};
use quicprochat_mesh::{
    crypto::{MeshIdentity, Passphrase, WorkFactor, age},
    node::IdentityBackup,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const WORDS: &str = "correct horse battery";

/// The least that is written: a test waits for the format, not for the derivation.
const CHEAP: &[&str] = &["--work-factor", "15"];

const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

fn words(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

/// A file with a passphrase that only this user may read.
fn passphrase_file(dir: &Path, text: &str) -> String {
    let path = dir.join(format!("{}.txt", text.replace(' ', "-")));
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

/// Runs a program on a terminal of its own, and answers each question with the next answer. Gives
/// its exit code and all that the terminal showed.
#[track_caller]
fn on_terminal(program: &str, args: &[&str], env: &[(&str, &str)], answers: &[&str]) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    let side = || Stdio::from(terminal.try_clone().unwrap());
    // A session of its own, so that this terminal, and no other, is the one to ask on.
    let mut child = Command::new("setsid")
        .args(["--ctty", "--wait", program])
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .unwrap();
    drop(terminal);
    let mut answer = File::from(master);
    let mut reader = answer.try_clone().unwrap();
    let (tell, told) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        // The end of a terminal is an error.
        while let Ok(read) = reader.read(&mut bytes) {
            if read == 0 || tell.send(bytes[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut shown = Vec::new();
    for words in answers {
        while !String::from_utf8_lossy(&shown).trim_end_matches(' ').ends_with(':') {
            match told.recv_timeout(PATIENCE) {
                Ok(bytes) => shown.extend(bytes),
                Err(_) => panic!("no question came: {}", String::from_utf8_lossy(&shown)),
            }
        }
        shown.push(b'\n');
        // A question is there before the program has seen to it that the answer is not shown.
        wait_until("a terminal that shows no answer", || {
            let modes = rustix::termios::tcgetattr(&answer).unwrap().local_modes;
            !modes.contains(rustix::termios::LocalModes::ECHO)
        });
        answer.write_all(format!("{words}\n").as_bytes()).unwrap();
    }
    while let Ok(bytes) = told.recv_timeout(PATIENCE) {
        shown.extend(bytes);
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    reading.join().unwrap();
    (code, String::from_utf8_lossy(&shown).into_owned())
}

/// `qpc` on a terminal.
#[track_caller]
fn asked(data_dir: &Path, args: &[&str], answers: &[&str]) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_qpc");
    let environment = [("QPC_DATA_DIR", text(data_dir)), ("TERM", "xterm-256color")];
    on_terminal(program, args, &environment, answers)
}

/// A data directory with an identity, and its address.
fn initialised(dir: &Path) -> (PathBuf, String) {
    let data = dir.join("data");
    let address = qpc(&data, &["init"]).exits(0).object()["address"].as_str().unwrap().to_owned();
    (data, address)
}

/// A backup of a fresh identity.
fn exported(dir: &Path, file: &str) -> (PathBuf, String) {
    let (data, _) = initialised(dir);
    let backup = dir.join("backup.age");
    qpc(&data, &with(&["identity", "export", text(&backup), "--passphrase-file", file], CHEAP)).exits(0);
    (backup, data.to_str().unwrap().to_owned())
}

#[test]
fn a_node_is_made_again_from_its_backup_and_is_believed() {
    let temp = temp_dir();
    let file = passphrase_file(temp.path(), WORDS);
    let keeper = Spec::new("keeper").start();
    let mut node = Spec::new("node").start();
    node.qpc(&["peer", "add", &keeper.url("tcp")]).exits(0);
    node.qpc(&["contact", "add", "keeper", &keeper.address()]).exits(0);
    node.knows(&[&keeper]);
    node.queue(NOWHERE, "on its way");
    keeper.deliver(&node, "in the inbox");

    let backup = temp.path().join("backup.age");
    let export = with(&["identity", "export", text(&backup), "--passphrase-file", &file], CHEAP);
    let done = node.ask(&export).remove(0);
    assert_eq!(
        (&done["address"], &done["contacts"], &done["peers"], &done["config"]),
        (&json!(node.address()), &json!(1), &json!(1), &json!(true)),
    );
    assert_eq!(mode(&backup), 0o600);
    let before = fs::read(&backup).unwrap();
    node.qpc(&export).exits(1).says(&["is not overwritten"]);
    assert_eq!(fs::read(&backup).unwrap(), before);

    // What is in it, and what is not: no message, no secret that one was sealed to.
    let json = age::decrypt(&words(WORDS), &before, 1 << 20).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let known = ["address", "boot_epoch", "config", "contacts", "created_at", "identity", "peers"];
    assert_eq!(keys, [&known[..], &["quicprochat_mesh_backup", "test"]].concat());
    assert_eq!(json["contacts"], json!([{ "name": "keeper", "address": keeper.address() }]));

    // The original goes on, and signs what its backup does not know of.
    node.qpc(&["announce"]).exits(0);
    let address = node.address();
    node.stop();

    let data = temp.path().join("again");
    let import = ["identity", "import", text(&backup), "--passphrase-file", &file];
    let done = qpc(&data, &import).exits(0).object();
    assert_eq!((&done["address"], &done["config"]), (&json!(address), &json!(true)));
    assert_eq!((mode(&data), mode(&data.join("identity.pem"))), (0o700, 0o600));
    qpc(&data, &import).exits(1).says(&["holds an identity already", "never overwritten"]);

    let again = Spec::new("again").at(&data).start();
    assert_eq!(again.address(), address);
    assert_eq!(again.ask(&["contact", "list"])[0]["name"], json!("keeper"));
    // It dials whom it was told to dial, and what it signs first is above all that came before.
    again.knows(&[&keeper]);
    wait_until("a route to the newer one", || {
        let routes = keeper.ask(&["routes", &address]);
        routes.first().is_some_and(|route| route["boot_epoch"].as_u64().unwrap() > 256)
    });
    keeper.deliver(&again, "to the one from the backup");
    assert!(again.ask(&["outbox"]).is_empty());
    // One that runs tells of itself as one that does not.
    let second = temp.path().join("second.age");
    again.qpc(&with(&["identity", "export", text(&second), "--passphrase-file", &file], CHEAP)).exits(0);
    let second = IdentityBackup::open(&words(WORDS), &fs::read(&second).unwrap()).unwrap();
    assert!(second.state.boot_epoch > 256 && second.state.contacts.len() == 1, "{second:?}");
}

#[test]
fn the_age_program_reads_our_backups_and_we_read_its() {
    if Command::new("age").arg("--version").output().is_err() {
        println!("not measured: age is not installed (Debian: age)");
        return;
    }
    let temp = temp_dir();
    let file = passphrase_file(temp.path(), WORDS);
    let (backup, _) = exported(temp.path(), &file);
    let plain = temp.path().join("plain.json");
    let (code, shown) = on_terminal("age", &["-d", "-o", text(&plain), text(&backup)], &[], &[WORDS]);
    assert_eq!(code, 0, "{shown}");
    let json: Value = serde_json::from_slice(&fs::read(&plain).unwrap()).unwrap();
    let pem = json["identity"].as_str().unwrap();
    let identity = MeshIdentity::from_pkcs8_pem(pem).unwrap();
    assert_eq!(json["address"], json!(identity.address().to_string()));

    for (name, more) in [("binary", &["-p"][..]), ("armoured", &["-p", "-a"])] {
        let theirs = temp.path().join(format!("{name}.age"));
        let args = with(more, &["-o", text(&theirs), text(&plain)]);
        let (code, shown) = on_terminal("age", &args, &[], &[WORDS, WORDS]);
        assert_eq!(code, 0, "{shown}");
        let data = temp.path().join(name);
        let import = ["identity", "import", text(&theirs), "--passphrase-file", &file];
        assert_eq!(qpc(&data, &import).exits(0).object()["address"], json["address"]);
    }

    // The identity file itself, too.
    let data = temp.path().join("binary");
    let put = with(&["identity", "passphrase", "--passphrase-file", &file], CHEAP);
    qpc(&data, &put).exits(0);
    let key = data.join("identity.pem");
    let out = temp.path().join("key.pem");
    let (code, shown) = on_terminal("age", &["-d", "-o", text(&out), text(&key)], &[], &[WORDS]);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(fs::read_to_string(&out).unwrap(), pem);
}

#[test]
fn what_is_no_backup_is_refused_in_one_line_and_leaves_nothing() {
    let temp = temp_dir();
    let file = passphrase_file(temp.path(), WORDS);
    let wrong = passphrase_file(temp.path(), "another passphrase");
    let (backup, data) = exported(temp.path(), &file);
    let whole = fs::read(&backup).unwrap();
    let data = PathBuf::from(data);
    let target = temp.path().join("target");
    let import = |path: &Path, passphrase: &str| -> Run {
        let run = qpc(&target, &["identity", "import", text(path), "--passphrase-file", passphrase]).exits(1);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(run.stdout.is_empty() && !target.join("identity.pem").exists(), "{run:?}");
        run
    };
    import(&backup, &wrong).says(&["the passphrase is wrong"]);
    import(&temp.path().join("none.age"), &file).says(&["none.age", "No such file"]);
    import(temp.path(), &file).says(&["is a directory"]);

    let other = temp.path().join("other.age");
    let bytes = |bytes: &[u8]| {
        fs::write(&other, bytes).unwrap();
        import(&other, &file)
    };
    for end in [0, 1, 21, 60, 150, 190, whole.len() - 1] {
        bytes(&whole[..end]);
    }
    bytes(b"").says(&["no file in the age format"]);
    bytes(&fs::read(data.join("identity.pem")).unwrap()).says(&["no file in the age format"]);
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    bytes(&changed).says(&["changed"]);
    let dearer = String::from_utf8_lossy(&whole).find(" 15\n").unwrap();
    changed = whole.clone();
    changed.splice(dearer..dearer + 4, *b" 23\n");
    bytes(&changed).says(&["work factor of 23"]);
    let keys =
        b"age-encryption.org/v1\n-> X25519 AAAA\nAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    bytes(keys).says(&["not under a passphrase"]);

    // Under the right passphrase, and something else.
    let sealed = |json: &str| {
        let work = WorkFactor::new(15).unwrap();
        let mut rng = quicprochat_mesh::crypto::random::os_rng();
        bytes(&age::encrypt(&words(WORDS), work, json.as_bytes(), &mut rng).unwrap())
    };
    sealed("").says(&["no backup of an identity"]);
    sealed("{}").says(&["no backup of an identity"]);
    sealed(r#"{"quicprochat_mesh_backup":7}"#).says(&["version 7", "newer"]);
    sealed(r#"{"quicprochat_mesh_backup":1,"identity":"\u001b[2J"}"#).says(&["damaged"]);

    // A file without an end costs what one may cost, and no more.
    let huge = temp.path().join("huge.age");
    File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    import(&huge, &file).says(&["larger than the 96.0 MiB"]);

    // Nor does a node get another identity, whatever the backup.
    let before = fs::read(data.join("identity.pem")).unwrap();
    qpc(&data, &["identity", "import", text(&backup), "--passphrase-file", &file])
        .exits(1)
        .says(&["never overwritten"]);
    assert_eq!(fs::read(data.join("identity.pem")).unwrap(), before);
    // A configuration that is there is its author's.
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(target.join("config.toml"), "network = \"mine\"\n").unwrap();
    let done = qpc(&target, &["identity", "import", text(&backup), "--passphrase-file", &file]).exits(0);
    assert_eq!(done.object()["config"], json!(false));
    assert_eq!(fs::read_to_string(target.join("config.toml")).unwrap(), "network = \"mine\"\n");
}

#[test]
fn passphrases_of_scripts_come_from_files_and_never_hang() {
    let temp = temp_dir();
    let (data, _) = initialised(temp.path());
    let backup = temp.path().join("backup.age");
    let export = ["identity", "export", text(&backup)];
    // No terminal, no file: a clear end.
    qpc(&data, &export).exits(1).says(&["--passphrase-file F", "QPC_PASSPHRASE_FILE"]);
    let of = |content: &[u8]| {
        let path = temp.path().join("wrong.txt");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        qpc(&data, &with(&export, &["--passphrase-file", text(&path)]))
    };
    of(b"").exits(2).says(&["is empty"]);
    of(b"\nsecond line").exits(2).says(&["is empty"]);
    of(b"short\n").exits(2).says(&["8 characters"]);
    of(&vec![b'x'; 10 << 20]).exits(2).says(&["longer than 1024 bytes"]);
    of(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8").exits(2).says(&["not UTF-8"]);
    qpc(&data, &with(&export, &["--passphrase-file", "/none"]))
        .exits(1)
        .says(&["cannot read the passphrase file"]);
    qpc(&data, &with(&export, &["--passphrase-file", "/tmp"])).exits(1).says(&["is a directory"]);
    for wrong in ["14", "19", "x"] {
        qpc(&data, &with(&export, &["--work-factor", wrong])).exits(2);
    }
    assert!(!backup.exists());

    // By the environment, and with a word on who else may read it.
    let file = passphrase_file(temp.path(), WORDS);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut by_env = command(&data, &with(&export, CHEAP));
    by_env.env("QPC_PASSPHRASE_FILE", &file);
    finish(by_env).exits(0).says(&["others may read the passphrase file", "chmod 600"]);
    let target = temp.path().join("target");
    let mut by_env = command(&target, &["identity", "import", text(&backup)]);
    by_env.env("QPC_PASSPHRASE_FILE", &file);
    finish(by_env).exits(0);
}

#[test]
fn an_identity_under_a_passphrase_runs_with_it_only() {
    let temp = temp_dir();
    let (data, address) = initialised(temp.path());
    let key = data.join("identity.pem");
    let (old, new) =
        (passphrase_file(temp.path(), WORDS), passphrase_file(temp.path(), "another passphrase"));
    let identity = |args: &[&str]| qpc(&data, &with(&["identity"], args));
    let clear = fs::read(&key).unwrap();
    assert_eq!(identity(&["show"]).exits(0).object()["passphrase"], json!(false));
    identity(&["passphrase", "--remove"]).exits(1).says(&["under no passphrase"]);

    let done = identity(&with(&["passphrase", "--passphrase-file", &old], CHEAP)).exits(0).object();
    assert_eq!((&done["address"], &done["passphrase"]), (&json!(address), &json!(true)));
    let sealed = fs::read_to_string(&key).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n") && mode(&key) == 0o600, "{sealed}");

    // Without it nothing starts, and nobody makes another identity.
    qpc(&data, &["run"]).exits(1).says(&["is under a passphrase", "--passphrase-file F"]);
    qpc(&data, &["run", "--passphrase-file", &new]).exits(1).says(&["the passphrase is wrong"]);
    identity(&["show"]).exits(1).says(&["passphrase", "--passphrase-file F"]);
    identity(&["show", "--passphrase-file", &new]).exits(1).says(&["the passphrase is wrong"]);
    qpc(&data, &["contact", "card"]).exits(1).says(&["passphrase"]);
    assert_eq!(fs::read_to_string(&key).unwrap(), sealed);
    assert_eq!(identity(&["show", "--passphrase-file", &old]).exits(0).object()["address"], json!(address));

    let node = Spec::new("node").at(&data).env("QPC_PASSPHRASE_FILE", &old).start();
    assert_eq!(node.address(), address);
    // One that runs knows who it is.
    assert_eq!(identity(&["show"]).exits(0).object()["address"], json!(address));
    assert!(qpc(&data, &["contact", "card"]).exits(0).object()["uri"].as_str().unwrap().contains(&address));
    drop(node);

    // Another one, by name only where there is an old one.
    identity(&["passphrase", "--passphrase-file", &new])
        .exits(2)
        .says(&["--new-passphrase-file F", "--remove"]);
    let change = with(&["passphrase", "--passphrase-file", &old, "--new-passphrase-file", &new], CHEAP);
    identity(&change).exits(0);
    identity(&change).exits(1).says(&["the passphrase is wrong"]);
    identity(&["show", "--passphrase-file", &new]).exits(0);

    // Backups of it: under the same passphrase, or another.
    let same = temp.path().join("same.age");
    identity(&with(&["export", text(&same), "--passphrase-file", &new], CHEAP)).exits(0);
    let other = temp.path().join("other.age");
    let export = ["export", text(&other), "--passphrase-file", &old];
    identity(&with(&export, CHEAP)).exits(1).says(&["passphrase of the identity"]);
    identity(&with(&with(&export, &["--identity-passphrase-file", &new]), CHEAP)).exits(0);
    for (backup, passphrase) in [(&same, "another passphrase"), (&other, WORDS)] {
        let backup = IdentityBackup::open(&words(passphrase), &fs::read(backup).unwrap()).unwrap();
        assert_eq!(backup.identity.address().to_string(), address);
    }

    identity(&["passphrase", "--remove", "--passphrase-file", &new]).exits(0);
    assert_eq!(fs::read(&key).unwrap(), clear, "as it was");
    let entries = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!entries.into_iter().any(|name| name.starts_with(".identity")), "nothing else is left behind");
}

#[test]
fn on_a_terminal_passphrases_are_asked_for_twice_and_not_shown() {
    let temp = temp_dir();
    let (data, address) = initialised(temp.path());
    let put = with(&["identity", "passphrase"], CHEAP);
    let (code, shown) = asked(&data, &put, &["short", WORDS, "correct horse batterie", WORDS, WORDS]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("8 characters") && shown.contains("differ"), "{shown}");
    assert!(!shown.contains("horse") && !shown.contains("short"), "{shown}");

    let (code, shown) = asked(&data, &["identity", "show"], &[WORDS]);
    assert!(code == 0 && shown.contains(&address), "{shown}");
    let (code, shown) = asked(&data, &["identity", "show"], &["something else"]);
    assert!(code == 1 && shown.contains("the passphrase is wrong"), "{shown}");
    let (code, shown) = asked(&data, &["identity", "passphrase"], &[WORDS, "a", "b", "c"]);
    assert!(code == 2 && shown.contains("no new passphrase"), "{shown}");
    let (code, shown) = asked(&data, &["identity", "passphrase", "--remove"], &[WORDS]);
    assert!(code == 0 && shown.contains("in the clear"), "{shown}");
}

/// A card's text with a checksum that fits.
fn with_check(body: &str) -> String {
    format!("{body}&c={}", &common::sha256(body.as_bytes())[..8])
}

#[test]
fn a_card_is_all_that_another_node_needs() {
    let anna = Spec::new("anna").start();
    let bert = Spec::new("bert").start();
    let card = anna.qpc(&["contact", "card"]).exits(0).object();
    let uri = card["uri"].as_str().unwrap();
    let place = anna.url("quic");
    let pinned = format!("{}#{}", place.split('#').next().unwrap(), anna.address());
    assert_eq!((&card["address"], &card["peers"]), (&json!(anna.address()), &json!([pinned])));
    assert_eq!(uri, with_check(uri.split("&c=").next().unwrap()));
    assert!(uri.starts_with(&format!(
        "qpc:{}?k={}&peer=quic://",
        anna.address(),
        card["public_key"].as_str().unwrap()
    )));

    // Without --dial the contact only, with the way to dial it.
    let added = bert.qpc(&["contact", "add", "anna", uri]).exits(0).object();
    assert_eq!((&added["name"], &added["address"]), (&json!("anna"), &card["address"]));
    assert_eq!((&added["public_key"], &added["dialled"]), (&card["public_key"], &json!(false)));
    assert_eq!(added["peers"], card["peers"]);
    bert.has_links(0);
    let text = finish({
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
        command.env_clear().env("QPC_DATA_DIR", bert.dir()).args(["contact", "add", "anna", uri]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    });
    assert!(text.stdout.contains(&format!("qpc peer add '{pinned}'")), "{text:?}");

    let added = bert.qpc(&["contact", "add", "anna", uri, "--dial"]).exits(0).object();
    assert_eq!(added["dialled"], json!(true));
    bert.has_links(1);
    bert.knows(&[&anna]);
    bert.qpc(&["send", "--to", "anna", "--wait", "120s", "hello"]).exits(0);

    // A key is as good as an address.
    let key = card["public_key"].as_str().unwrap();
    assert_eq!(bert.qpc(&["contact", "add", "key", key]).exits(0).object()["address"], card["address"]);

    // What is wrong with a card is said, and nothing is remembered.
    let contacts = bert.ask(&["contact", "list"]);
    let refused = |uri: &str, why: &str| {
        bert.qpc(&["contact", "add", "other", uri]).exits(2).says(&[why]);
    };
    let body = uri.split("&c=").next().unwrap();
    refused(&uri.replacen("quic", "quiz", 1), "checksum does not fit");
    refused(&uri[..uri.len() - 1], "its end is missing");
    refused(body, "its end is missing");
    let stranger = body.replacen(&anna.address(), &bert.address(), 1);
    refused(&with_check(&stranger), &format!("its key belongs to {}", anna.address()));
    refused(&with_check(&format!("{body}&peer=http://example.org:80")), "place to dial");
    refused(&with_check(&format!("{body}&x=%1B%5B2J")), "parameters are not those of a card");
    refused("qpc:", "does not begin with");
    refused(&format!("qpc:{}", "a".repeat(100_000)), "longer than");
    refused("qpc:\u{1b}[2J", "does not begin with");
    refused("anna", "no card (qpc:…)");
    assert_eq!(bert.ask(&["contact", "list"]), contacts);
    let bare = anna.qpc(&["contact", "card", "--no-peer"]).exits(0).object();
    assert_eq!(bare["peers"], json!([]));
    let bare = bare["uri"].as_str().unwrap();
    bert.qpc(&["contact", "add", "other", bare, "--dial"])
        .exits(2)
        .says(&["--dial needs a card that says where"]);
    bert.qpc(&["contact", "add", "cafe", uri]).exits(2).says(&["hex digits"]);
}

#[test]
fn a_card_is_made_without_a_node_and_shown_as_a_code_on_terminals_only() {
    let temp = temp_dir();
    let (data, address) = initialised(temp.path());
    let at = ["contact", "card", "--peer", "quic://relay.example.org:7410"];
    let card = qpc(&data, &at).exits(0).object();
    assert_eq!(card["peers"], json!([format!("quic://relay.example.org:7410#{address}")]));
    qpc(&data, &with(&at, &["--qr"])).exits(2).says(&["--qr"]);
    qpc(&data, &with(&at, &["--no-peer"])).exits(2);
    for wrong in ["http://example.org", "quic://example.org", "quic://a b:1", "quic://example.org:0"] {
        qpc(&data, &["contact", "card", "--peer", wrong]).exits(2);
    }
    let another = format!("quic://example.org:1#{NOWHERE}");
    qpc(&data, &["contact", "card", "--peer", &another]).exits(2).says(&["another node's"]);
    let many = with(&with(&at, &at[2..]), &with(&with(&at[2..], &at[2..]), &at[2..]));
    qpc(&data, &many).exits(2).says(&["at most 4"]);
    let long = format!("quic://{}:1", "a".repeat(3000));
    qpc(&data, &["contact", "card", "--peer", &long]).exits(2);

    let uri = card["uri"].as_str().unwrap();
    let plain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
        command.env_clear().env("QPC_DATA_DIR", &data).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command).exits(0).stdout
    };
    assert_eq!(plain(&at), format!("{uri}\n"), "a pipe gets the text alone");
    let code = plain(&with(&at, &["--qr"]));
    assert!(code.starts_with(uri) && code.contains('█') && !code.contains('\u{1b}'), "{code}");
    let (done, shown) = asked(&data, &at, &[]);
    assert!(done == 0 && shown.contains(uri) && shown.contains("\u{1b}[38;5;231;48;5;16m█"), "{shown}");

    // Port 0 is nowhere to dial.
    fs::write(data.join("config.toml"), "[transport]\nlisten = [\"quic://127.0.0.1:0\"]\n").unwrap();
    let nowhere = qpc(&data, &["contact", "card"]).exits(0).says(&["give --peer URL"]).object();
    assert_eq!(nowhere["peers"], json!([]));
}
