//! What a node does with bad input: it says by name what is wrong and what to do, counts it, and goes
//! on with everything else.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod common;

use std::{
    fs::{Permissions, set_permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Instant,
};

use bytes::Bytes;
use common::{
    Node, Spec, qpc,
    raw_peer::{NETWORK, RawPeer},
    temp_dir, wait_until,
};
use quicprochat_mesh::{
    crypto::{SignatureInput, SignedType, network_id},
    wire::{
        Address, Envelope, EnvelopeKind, Frame, Proof, Signature, cbor,
        control::RefuseReason,
        handshake::CloseReason,
        limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
    },
};
use serde_json::{Value, json};

const DECODE_ERRORS: &str = "qpc_decode_errors_total";
const VERIFY_FAILURES: &str = "qpc_verify_failures_total";
const LINK_FAULTS: &str = "qpc_link_faults_total";
const LINKS_CLOSED: &str = "qpc_links_closed_total";
const LINKS_REFUSED: &str = "qpc_links_refused_total";
const DIALS_FAILED: &str = "qpc_link_dial_failures_total";

/// Somebody who is not there.
const NOBODY: Address = Address([7; 16]);

/// Asserts that a node does its work: honest messages pass through it.
#[track_caller]
fn does_its_work(node: &Node) {
    let (near, far) =
        (Spec::new("near").peer(node.url("quic")).start(), Spec::new("far").peer(node.url("tcp")).start());
    near.knows(&[&far]);
    far.knows(&[&near]);
    assert_eq!(near.deliver(&far, "all is well")["hops"], 2);
    assert_eq!(far.take(1)[0]["text"], "all is well");
    assert_eq!(node.metric("qpc_actor_restarts_total", &[]), 0.0, "something crashed: {}", node.log());
}

#[track_caller]
fn is_linked(node: &Node, peer: &RawPeer) -> bool {
    node.ask(&["peers"]).iter().any(|line| line["address"] == peer.address().to_string())
}

/// An envelope to nobody with the last byte of its payload changed.
fn flipped(peer: &mut RawPeer) -> Bytes {
    let frame = peer.envelope(EnvelopeKind::MESSAGE, NOBODY, b"unlike me");
    let at = frame.windows(9).position(|w| w == b"unlike me").unwrap();
    let mut bytes = frame.to_vec();
    bytes[at + 8] ^= 1;
    bytes.into()
}

#[test]
fn frames_that_cannot_be_read_are_counted_forgiven_and_then_end_the_link() {
    let node = Spec::patient("node").start();
    for (scheme, seed) in [("quic", 1), ("tcp", 2)] {
        let mut peer = RawPeer::greet(&node.url(scheme), seed);
        let count = |reason: &str| node.metric(DECODE_ERRORS, &[("reason", reason)]);
        let envelope = peer.envelope(EnvelopeKind::MESSAGE, NOBODY, &[1; 64]);

        let before = ["malformed", "not_canonical", "too_large", "unknown_frame"].map(count);
        peer.send(&b"GET / HTTP/1.1\r\n\r\n"[..]);
        peer.send(envelope.slice(..envelope.len() - 1));
        peer.send([&envelope[..], &[0]].concat());
        // The array head [type, body] in two bytes where one does.
        peer.send([&[0x98, 0x02][..], &envelope[1..]].concat());
        let large = oversized(&mut peer);
        peer.send(large);
        peer.send([0x82, 0x18, 0x63, 0x80].to_vec());
        peer.is_served();
        let after = ["malformed", "not_canonical", "too_large", "unknown_frame"].map(count);
        let new: f64 = after.iter().sum::<f64>() - before.iter().sum::<f64>();
        assert_eq!(new, 6.0, "{before:?} {after:?}");
        for (n, (before, after)) in before.iter().zip(after).enumerate() {
            assert!(after > *before, "counter {n}: {before} {after}");
        }
        assert!(is_linked(&node, &peer), "a few odd frames cost the link");

        // A type of a newer version is no fault, however many come.
        for _ in 0..50 {
            peer.send([0x82, 0x18, 0x63, 0x80].to_vec());
        }
        peer.is_served();
        let faults = node.metric(LINK_FAULTS, &[("reason", "undecodable")]);
        let closed = node.metric(LINKS_CLOSED, &[("reason", "protocol_error")]);
        for _ in 0..20 {
            // The node may hang up in the middle of it.
            let _ = peer.try_send(&b"garbage"[..]);
        }
        let goodbye = peer.goodbye();
        assert_eq!(goodbye.reason, CloseReason::ProtocolError);
        assert!(goodbye.text.contains("unreadable frame"), "{goodbye:?}");
        node.counts(LINK_FAULTS, &[("reason", "undecodable")], faults);
        node.counts(LINKS_CLOSED, &[("reason", "protocol_error")], closed);
        wait_until("the link to be gone", || !is_linked(&node, &peer));
    }
    // The same number wherever it is asked for.
    let stats = node.ask(&["stats"]).remove(0);
    let malformed = node.metric(DECODE_ERRORS, &[("reason", "malformed")]);
    assert_eq!(stats["crypto"]["decode_errors_total"]["malformed"], json!(malformed as u64), "{stats}");
    does_its_work(&node);
}

/// A frame of legal size whose envelope's payload is not.
fn oversized(peer: &mut RawPeer) -> Bytes {
    let small = peer.envelope(EnvelopeKind::MESSAGE, NOBODY, b"");
    let Ok(Frame::Envelope(envelope, _)) = Frame::decode(&small) else { panic!("own envelope") };
    // `signed` ends with the empty payload's head.
    let mut signed = envelope.signed()[..envelope.signed().len() - 1].to_vec();
    cbor::put_bytes(&mut signed, &[0; PAYLOAD_BYTES_MAX + 1]);
    let mut frame = vec![0x82, 7, 0x83, 0];
    cbor::put_bytes(&mut frame, &signed);
    cbor::put_bytes(&mut frame, &[0; 64]);
    assert!(frame.len() <= FRAME_BYTES_MAX);
    frame.into()
}

#[test]
fn envelopes_that_do_not_verify_are_dropped_counted_and_cost_the_link_in_the_end() {
    let node = Spec::patient("node").start();
    let mut peer = RawPeer::greet(&node.url("quic"), 3);

    let frame = flipped(&mut peer);
    peer.send(frame);
    node.counts(VERIFY_FAILURES, &[("reason", "bad_signature")], 0.0);

    // Another's key for this source.
    let good = peer.envelope(EnvelopeKind::MESSAGE, NOBODY, b"whose is it?");
    let Ok(Frame::Envelope(envelope, ext)) = Frame::decode(&good) else { panic!("own envelope") };
    let other = RawPeer::greet(&node.url("tcp"), 4);
    let foreign = envelope.without_source_key().with_source_key(other.identity.public_key());
    peer.send(foreign.to_frame(ext).to_bytes());
    node.counts(VERIFY_FAILURES, &[("reason", "foreign_key")], 0.0);

    // A signature of zeros.
    let unsigned = Envelope::assemble(
        *envelope.header(),
        envelope.signed(),
        Proof::Signature(Signature([0; 64])),
        envelope.source_key(),
    );
    peer.send(unsigned.unwrap().to_frame(ext).to_bytes());
    node.counts(VERIFY_FAILURES, &[("reason", "bad_signature")], 1.0);

    // A private message to everyone.
    let everyone = peer.envelope(EnvelopeKind::MESSAGE, Address::BROADCAST, b"psst");
    peer.send(everyone);
    node.counts(VERIFY_FAILURES, &[("reason", "broadcast_kind")], 0.0);
    peer.is_served();

    // A fault costs 20 of a budget of 200.
    let faults = node.metric(LINK_FAULTS, &[("reason", "too_many_faults")]);
    for _ in 0..60 {
        let frame = flipped(&mut peer);
        if peer.try_send(frame).is_err() {
            break;
        }
    }
    let goodbye = peer.goodbye();
    assert_eq!(goodbye.reason, CloseReason::ProtocolError);
    assert!(goodbye.text.contains("do not verify"), "{goodbye:?}");
    node.counts(LINK_FAULTS, &[("reason", "too_many_faults")], faults);

    assert_eq!(node.metric("qpc_held_messages", &[]), 0.0, "something unverified was kept");
    assert_eq!(node.metric("qpc_envelopes_forwarded_total", &[]), 0.0);
    does_its_work(&node);
}

#[test]
fn a_neighbour_that_is_cut_again_and_again_is_kept_out_for_a_while_and_let_in_after_it() {
    let node = Spec::patient("node").start();
    let refused = || node.metric(LINKS_REFUSED, &[("reason", "faults")]);
    for _ in 0..2 {
        let mut peer = RawPeer::greet(&node.url("quic"), 30);
        for _ in 0..20 {
            // The node may hang up in the middle of it.
            let _ = peer.try_send(&b"garbage"[..]);
        }
        assert_eq!(peer.goodbye().reason, CloseReason::ProtocolError);
        wait_until("the link to be gone", || !is_linked(&node, &peer));
    }
    assert_eq!(refused(), 0.0, "somebody who was cut once was not let in again");
    let mut again = RawPeer::dial(&node.url("tcp"), 30);
    // The connection may be closed before the hello is on it.
    let _ = again.try_send(Frame::Hello(RawPeer::hello()).encode());
    node.counts(LINKS_REFUSED, &[("reason", "faults")], 0.0);
    assert!(!is_linked(&node, &again), "the medium makes no difference");
    let mut peer: Option<RawPeer> = None;
    wait_until("it to be let in", || {
        // One that is turned away is closed, and dials again then.
        if peer.as_mut().is_none_or(|peer| peer.try_send(Frame::Ping(1).encode()).is_err()) {
            let mut fresh = RawPeer::dial(&node.url("quic"), 30);
            let _ = fresh.try_send(Frame::Hello(RawPeer::hello()).encode());
            peer = Some(fresh);
        }
        peer.as_ref().is_some_and(|peer| is_linked(&node, peer))
    });
    does_its_work(&node);
}

#[test]
fn a_nodes_own_envelope_that_comes_back_is_dropped_without_blame() {
    let node = Spec::patient("node").start();
    let mut peer = RawPeer::greet(&node.url("tcp"), 5);
    wait_until("the link", || is_linked(&node, &peer));
    node.ask(&["broadcast", "echo"]);
    let (_, echo) = peer.frame("the broadcast", |frame| matches!(frame, Frame::Envelope(..)));
    for _ in 0..30 {
        peer.send(echo.clone());
    }
    peer.is_served();
    assert_eq!(node.metric(VERIFY_FAILURES, &[("reason", "own_source")]), 30.0);
    assert_eq!(node.inbox(), [] as [Value; 0]);
    assert!(is_linked(&node, &peer), "an echo over a loop of honest nodes cost the link");
    does_its_work(&node);
}

#[test]
fn an_own_packet_that_a_neighbour_brings_back_is_refused_as_a_loop() {
    let node = Spec::patient("node").start();
    let mut peer = RawPeer::greet(&node.url("tcp"), 5);
    wait_until("the link", || is_linked(&node, &peer));
    let _ping = node.background(&["ping", &peer.address().to_string(), "--count", "1"]);
    let (ping, bytes) = peer.frame("the ping", |frame| matches!(frame, Frame::Envelope(..)));
    let Frame::Envelope(envelope, _) = ping else { unreachable!() };
    peer.send(bytes);
    let (refused, _) = peer.frame("the refusal", |frame| matches!(frame, Frame::Refuse(_)));
    let Frame::Refuse(refuse) = refused else { unreachable!() };
    let mut input = SignatureInput::new(network_id(NETWORK));
    let packet_id = input.of(SignedType::EnvelopeV2, envelope.signed()).packet_id();
    assert_eq!((refuse.packet_id, refuse.reason), (packet_id, RefuseReason::Loop));
    assert_eq!(node.metric(VERIFY_FAILURES, &[("reason", "own_source")]), 1.0);
    assert!(is_linked(&node, &peer));
}

#[test]
fn a_node_that_dials_itself_says_so() {
    let node = Spec::patient("node").start();
    for scheme in ["quic", "tcp"] {
        let before = node.metric(DIALS_FAILED, &[]);
        node.ask(&["peer", "add", &node.url(scheme)]);
        node.counts(DIALS_FAILED, &[], before);
        node.logs(&format!("{} is this node itself", node.url(scheme)));
        node.logs("remove it from the peers");
        node.ask(&["peer", "remove", &node.url(scheme)]);
    }
    node.has_links(0);
    does_its_work(&node);
}

#[test]
fn a_hello_that_does_not_fit_is_refused_by_name() {
    let node = Spec::patient("node").start();
    let refused = |seed, reason: &str, wanted: CloseReason, text: &str, first: Bytes| {
        let before = node.metric(LINK_FAULTS, &[("reason", reason)]);
        let mut peer = RawPeer::dial(&node.url(if seed % 2 == 0 { "quic" } else { "tcp" }), seed);
        peer.send(first);
        let goodbye = peer.goodbye();
        assert_eq!(goodbye.reason, wanted, "{goodbye:?}");
        assert!(goodbye.text.contains(text), "{goodbye:?}");
        node.counts(LINK_FAULTS, &[("reason", reason)], before);
        assert!(!is_linked(&node, &peer));
    };
    let hello = RawPeer::hello();

    let mut other = hello.clone();
    other.network_tag = [9; 8];
    let other = Frame::Hello(other).encode();
    refused(10, "network_tag", CloseReason::NetworkMismatch, "set the same `network`", other);

    let mut secret = hello.clone();
    secret.network_proof = Some([9; 32]);
    let secret = Frame::Hello(secret).encode();
    refused(11, "network_secret", CloseReason::NetworkMismatch, "network_secret_file", secret);

    let mut newer = hello.clone();
    (newer.version_min, newer.version_max) = (7, 9);
    let newer = Frame::Hello(newer).encode();
    refused(12, "version", CloseReason::VersionMismatch, "update the older node", newer);

    refused(13, "undecodable", CloseReason::ProtocolError, "unreadable frame", Bytes::from_static(b"hello?"));

    // No penalty, nothing left behind: the same identity is welcome with a good hello.
    for seed in [10, 11, 12, 13] {
        let peer = RawPeer::greet(&node.url("quic"), seed);
        wait_until("the link", || is_linked(&node, &peer));
    }
    does_its_work(&node);
}

#[test]
fn a_peer_without_a_hello_is_let_go() {
    let node = Spec::patient("node").start();

    // Silence.
    let mut silent = RawPeer::dial(&node.url("quic"), 20);
    let goodbye = silent.goodbye();
    assert_eq!(goodbye.reason, CloseReason::Unresponsive);
    assert!(goodbye.text.contains("no hello within"), "{goodbye:?}");
    node.counts(LINK_FAULTS, &[("reason", "hello_timeout")], 0.0);

    // Data first: it is not looked at, and it does not go on for ever.
    let mut hasty = RawPeer::dial(&node.url("tcp"), 21);
    let verified = node.metric("qpc_envelopes_forwarded_total", &[]);
    for _ in 0..100 {
        let frame = hasty.envelope(EnvelopeKind::MESSAGE, NOBODY, b"no time");
        if hasty.try_send(frame).is_err() {
            break;
        }
    }
    node.counts(LINK_FAULTS, &[("reason", "too_many_faults")], 0.0);
    assert!(!is_linked(&node, &hasty));
    assert_eq!(node.metric("qpc_envelopes_forwarded_total", &[]), verified);

    // Twice.
    let mut twice = RawPeer::greet(&node.url("quic"), 22);
    twice.send(Frame::Hello(RawPeer::hello()).encode());
    assert_eq!(twice.goodbye().reason, CloseReason::ProtocolError);
    node.counts(LINK_FAULTS, &[("reason", "second_hello")], 0.0);
    does_its_work(&node);
}

#[test]
fn nodes_of_other_networks_and_secrets_say_what_to_set() {
    let dir = temp_dir();
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let with = |name: &str, secret: &str| Spec::new(name).arg("--network-secret-file").arg(secret);
    let ours = secret("ours", "correct horse battery staple");
    let node = with("node", &ours).start();

    let fits = with("fits", &ours).peer(node.url("tcp")).start();
    fits.has_links(1);
    let other = with("other", &secret("theirs", "a secret of somebody else")).peer(node.url("tcp")).start();
    other.counts(LINK_FAULTS, &[("reason", "network_secret")], 0.0);
    other.logs("use the same `network_secret_file` on both");
    node.counts(LINK_FAULTS, &[("reason", "network_secret")], 0.0);

    let before = node.metric(LINK_FAULTS, &[("reason", "network_tag")]);
    let foreign = with("foreign", &ours).arg("--network").arg("elsewhere").peer(node.url("quic")).start();
    foreign.counts(LINK_FAULTS, &[("reason", "network_tag")], 0.0);
    foreign.logs("set the same `network` on both");
    node.counts(LINK_FAULTS, &[("reason", "network_tag")], before);

    for stranger in [&other, &foreign] {
        assert_eq!(stranger.status()["peers"], 0);
        assert_eq!(stranger.status()["routes"], 0);
    }
    node.has_links(1);

    let short = secret("short", "hunter2");
    let data = dir.path().join("short-data");
    qpc(&data, &["run", "--health-listen", "off", "--network-secret-file", &short]).exits(1).says(&[
        "too short",
        "at least 16 bytes",
        "openssl rand",
    ]);
    let missing = dir.path().join("missing");
    qpc(&data, &["run", "--health-listen", "off", "--network-secret-file", missing.to_str().unwrap()])
        .exits(1)
        .says(&["cannot read the network secret", "missing"]);
}

#[test]
fn a_pinned_peer_with_another_key_is_refused() {
    let node = Spec::patient("node").start();
    let wrong = "00112233445566778899aabbccddeeff";
    for scheme in ["quic", "tcp"] {
        let strict = Spec::new("strict").peer(format!("{}#{wrong}", node.url(scheme))).start();
        strict.counts(DIALS_FAILED, &[], 0.0);
        strict.logs(wrong);
        strict.logs(&node.address());
        assert_eq!(strict.status()["peers"], 0);

        let right = Spec::new("right").peer(format!("{}#{}", node.url(scheme), node.address())).start();
        right.has_links(1);
    }
    does_its_work(&node);
}

/// `qpc run` on free ports.
fn run_once(data: &Path, more: &[&str]) -> common::Run {
    let args = ["run", "--health-listen", "off", "--listen", "tcp://127.0.0.1:0"];
    qpc(data, &[&args[..], more].concat())
}

#[test]
fn a_key_file_that_is_open_to_others_or_cannot_be_read_stops_the_start() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    let key = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY")))
        .unwrap();
    let name = key.to_str().unwrap();

    set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    run_once(&data, &[]).exits(1).says(&[name, "0644", "chmod 600"]);
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    run_once(&data, &[]).exits(1).says(&["0755", "chmod 700"]);
    set_permissions(&data, Permissions::from_mode(0o700)).unwrap();

    set_permissions(&key, Permissions::from_mode(0o000)).unwrap();
    run_without_privileges(temp.path(), &data).exits(1).says(&["identity.pem", "cannot open"]);
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    let good = std::fs::read(&key).unwrap();
    for bad in [&b""[..], b"not a key", &good[..good.len() / 2]] {
        std::fs::write(&key, bad).unwrap();
        run_once(&data, &[]).exits(1).says(&[name, "restore it from a backup"]);
        assert_eq!(std::fs::read(&key).unwrap(), bad, "the file was touched");
    }

    let elsewhere = temp.path().join("elsewhere.pem");
    std::fs::write(&elsewhere, &good).unwrap();
    std::fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    run_once(&data, &[]).exits(1).says(&[name, "symbolic link"]);
}

/// `qpc run` as somebody whom modes stop. Root is not, so where the tests run as root the program
/// and the directory are given to a user that owns nothing else.
fn run_without_privileges(temp: &std::path::Path, data: &std::path::Path) -> common::Run {
    use std::os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    };
    const NOBODY: u32 = 65534;
    const ROOT: u32 = 0;
    let args = ["run", "--health-listen", "off", "--listen", "tcp://127.0.0.1:0"];
    if std::fs::metadata(data).unwrap().uid() != ROOT {
        return qpc(data, &args);
    }
    let give_to = |owner: u32| {
        chown(data, Some(owner), Some(owner)).unwrap();
        for entry in std::fs::read_dir(data).unwrap() {
            chown(entry.unwrap().path(), Some(owner), Some(owner)).unwrap();
        }
    };
    // The build's directory may be closed to others; this one is opened to pass through.
    let program = temp.join("qpc");
    let built = env!("CARGO_BIN_EXE_qpc");
    std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(|_| ())).unwrap();
    set_permissions(temp, Permissions::from_mode(0o711)).unwrap();
    give_to(NOBODY);
    let mut command = std::process::Command::new(&program);
    command.env_clear().env("QPC_DATA_DIR", data).args(args).uid(NOBODY).gid(NOBODY);
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = common::finish(command);
    give_to(ROOT);
    run
}

#[test]
fn a_data_directory_open_to_others_is_refused_even_while_it_is_empty() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    std::fs::create_dir(&data).unwrap();
    set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    for args in [&["init"][..], &["run", "--health-listen", "off", "--listen", "tcp://127.0.0.1:0"]] {
        qpc(&data, args).exits(1).says(&["0755", "chmod 700", data.to_str().unwrap()]);
        assert!(std::fs::read_dir(&data).unwrap().next().is_none(), "{args:?} left something behind");
    }
    set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    qpc(&data, &["init"]).exits(0);
}

#[test]
fn a_port_and_a_data_directory_belong_to_one_process() {
    let node = Spec::patient("node").start();
    let temp = temp_dir();
    let data = temp.path().join("data");
    for scheme in ["quic", "tcp"] {
        let url = node.url(scheme);
        let place = url.rsplit('/').next().unwrap();
        let run = qpc(&data, &["run", "--health-listen", "off", "--listen", &url]).exits(1);
        assert_eq!(run.stdout, "", "no ready line");
        run.says(&[place, "in use"]);
    }
    let health = node.ready["health"].as_str().unwrap();
    qpc(&data, &["run", "--listen", "tcp://127.0.0.1:0", "--health-listen", health])
        .exits(1)
        .says(&[health, "in use"]);

    let pid = node.pid().to_string();
    run_once(node.dir(), &[]).exits(1).says(&["in use by", &pid, "stop it first"]);
    assert_eq!(node.status()["address"], json!(node.address()));
    // What the first one left for `qpc health` is its own still.
    node.qpc(&["health"]).exits(0);
    does_its_work(&node);
}

#[test]
fn discovery_is_wanted_or_not_but_not_both() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    run_once(&data, &["--discover", "--no-discover"]).exits(2).says(&["--discover", "--no-discover"]);
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn an_unknown_key_in_the_configuration_stops_the_start_with_78() {
    let temp = temp_dir();
    let data = temp.path().join("data");
    qpc(&data, &["init"]).exits(0);
    let config = data.join("config.toml");
    std::fs::write(&config, "netwrok = \"mine\"\n[transport]\nlisten = [\"udp://[::]:1\"]\n").unwrap();
    let run = run_once(&data, &[]).exits(78);
    assert_eq!(run.stdout, "");
    run.says(&["config.toml:1:1", "unknown key netwrok", "did you mean network?", "config.toml:3:"]);
    let config = config.to_str().unwrap();
    qpc(&data, &["config", "check", config]).exits(78).says(&["did you mean network?"]);
}

#[test]
fn garbage_on_the_ports_of_a_node_leaves_it_unmoved() {
    use std::{
        io::Write,
        net::{TcpStream, UdpSocket},
    };
    let node = Spec::patient("node").start();
    let at = |scheme: &str| node.url(scheme).rsplit('/').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(at("tcp")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [1, 20, 1200] {
        socket.send_to(&vec![0xc3; len], at("quic")).unwrap();
    }
    node.counts("qpc_link_handshake_failures_total", &[("transport", "tcp")], 0.0);
    does_its_work(&node);
}

/// A peer of its own name that comes from this address of the machine.
fn from(address: &str, node: &Node, name: u8) -> RawPeer {
    RawPeer::dial_from(Some(address), &node.url("quic"), [name; 32])
}

#[test]
fn a_crowd_that_takes_all_places_makes_room_for_those_from_elsewhere() {
    let node = Spec::patient("node").env("QPC_TRANSPORT_LINKS_MAX", "4").start();
    let mut crowd: Vec<RawPeer> = (50..54).map(|name| from("127.0.0.2", &node, name).greeted()).collect();
    node.has_links(4);
    // Two honest nodes from one address, which has fewer.
    does_its_work(&node);
    for _ in 0..2 {
        let goodbye = crowd.pop().unwrap().goodbye();
        assert_eq!(goodbye.reason, CloseReason::TooManyLinks);
        assert!(goodbye.text.contains("its place goes to another node"), "{goodbye:?}");
    }
    node.counts(LINKS_CLOSED, &[("reason", "too_many_links")], 1.0);
    crowd.iter_mut().for_each(RawPeer::is_served);
}

#[test]
fn a_crowd_with_all_its_places_is_told_that_there_are_no_more() {
    let node = Spec::patient("node").env("QPC_TRANSPORT_LINKS_MAX", "2").start();
    let mut crowd: Vec<RawPeer> = (50..52).map(|name| from("127.0.0.2", &node, name).greeted()).collect();
    let more = Spec::new("more").listen("quic://127.0.0.2:0").peer(node.url("quic")).start();
    node.counts(LINKS_REFUSED, &[("reason", "too_many")], 0.0);
    wait_until("the reason in the words of the one outside", || {
        let status = more.status();
        let detail = status["subsystems"]["transport"]["detail"].as_str().unwrap_or_default();
        detail.contains("it has no place for another link from here")
    });
    crowd.iter_mut().for_each(RawPeer::is_served);
}

#[test]
fn many_names_of_one_address_have_its_budget_together() {
    const NAMES: u8 = 20;
    const EACH: usize = 200;
    const PER_S: u32 = 128;
    let node = Spec::patient("node").env("QPC_RATE_LIMIT_MESSAGES_PER_S", &PER_S.to_string()).start();
    let verified = || node.metric("qpc_verified_total", &[]);
    let began = Instant::now();
    let senders: Vec<_> = (0..NAMES)
        .map(|name| {
            let mut peer = from("127.0.0.2", &node, 100 + name);
            std::thread::spawn(move || {
                peer = peer.greeted();
                for _ in 0..EACH {
                    let frame = peer.envelope(EnvelopeKind::MESSAGE, NOBODY, b"one of many");
                    peer.send(frame);
                }
                peer.is_served();
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let got = verified();
    let most = f64::from(4 * PER_S) * (1.0 + began.elapsed().as_secs_f64());
    assert!(got > 0.0 && got <= most, "{got} got through, {most} may");
    let limited = node.metric("qpc_rate_limited_total", &[("budget", "data")]);
    assert_eq!(got + limited, f64::from(u32::from(NAMES)) * EACH as f64, "some are in no count");

    // Who comes from elsewhere has a budget of its own.
    let mut honest = from("127.0.0.3", &node, 99).greeted();
    for _ in 0..PER_S {
        let frame = honest.envelope(EnvelopeKind::MESSAGE, NOBODY, b"one of few");
        honest.send(frame);
    }
    honest.is_served();
    assert_eq!(verified(), got + f64::from(PER_S));
}

#[test]
fn many_names_of_one_address_fill_its_share_of_the_mailboxes_alone() {
    let node = Spec::patient("node").env("QPC_STORE_MAILBOX_MAX", "8MiB").start();
    let held = || node.metric("qpc_held_bytes", &[]);
    // Destinations and senders are as many as anybody likes.
    let fill = |peer: &mut RawPeer, count: u8| {
        for n in 0..count {
            let mut nobody = *peer.address().as_bytes();
            nobody[0] ^= n + 1;
            let frame = peer.envelope(EnvelopeKind::MESSAGE, Address(nobody), &[n; 12 * 1024]);
            peer.send(frame);
        }
        peer.is_served();
    };
    let share = f64::from(8 << 20) / 4.0;
    let refused = || node.metric("qpc_store_refused_total", &[("reason", "quota")]);
    let mut crowd: Vec<RawPeer> = (60..66).map(|name| from("127.0.0.2", &node, name).greeted()).collect();
    crowd.iter_mut().for_each(|peer| fill(peer, 60));
    wait_until("an answer to each", || node.metric("qpc_held_messages", &[]) + refused() >= 360.0);
    assert!(held() <= share && held() > 0.9 * share, "{} of {share}", held());
    // Who comes from elsewhere finds room.
    let (before, refused_before) = (node.metric("qpc_held_messages", &[]), refused());
    let mut honest = from("127.0.0.3", &node, 99).greeted();
    fill(&mut honest, 20);
    wait_until("all of it", || node.metric("qpc_held_messages", &[]) >= before + 20.0);
    assert_eq!(refused(), refused_before);
}
