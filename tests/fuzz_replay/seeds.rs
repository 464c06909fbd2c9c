//! What a fuzzer begins with: golden vectors as each target takes them, and for what has none the
//! smallest and the richest of its kind. Always the same bytes.

use std::{fs, path::Path};

use bytes::Bytes;
use quicprochat_mesh::{
    MeshConfig, MeshIdentity,
    crypto::{ReceiverKeys, random::SeededRng},
    proto::delivery::record::{Body, FileRecord, InboxRecord, OutboxRecord, PartialRecord},
    testing::fuzz::MACHINES,
    wire::{Address, Digest, Frame, MessageUid, PacketId, PublicKey},
};

/// A target, a name and the bytes.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

/// Longer vectors say nothing new, and would fill the corpus; tests take them from where they are.
const VECTOR_BYTES_MAX: usize = 1024;

/// Every golden vector by its name.
pub(crate) fn vectors() -> Vec<(String, Vec<u8>)> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut out = Vec::new();
    for directory in fs::read_dir(vectors).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir())
    {
        let message = directory.file_name().unwrap().to_str().unwrap().to_owned();
        for file in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|e| e == "hex") {
                let text = fs::read_to_string(&file).unwrap();
                let digits: Vec<u8> = text.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
                let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
                out.push((format!("{message}-{}", file.file_stem().unwrap().to_str().unwrap()), bytes));
            }
        }
    }
    out.sort();
    out
}

/// All seeds of all targets.
pub(crate) fn all() -> Vec<Seed> {
    let mut out = Vec::new();
    for (name, bytes) in vectors().into_iter().filter(|(_, bytes)| bytes.len() <= VECTOR_BYTES_MAX) {
        match Frame::decode(&Bytes::from(bytes.clone())) {
            Ok(frame) => of_frame(&name, &frame, &bytes, &mut out),
            Err(_) => of_payload(&name, &bytes, &mut out),
        }
    }
    texts(&mut out);
    stored(&mut out);
    scripts(&mut out);
    out
}

fn of_frame(name: &str, frame: &Frame, bytes: &[u8], out: &mut Vec<Seed>) {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let stream = [&[1, 255, 3, 9, 0, 0, 0, 0], &length[..], bytes, &length, bytes].concat();
    out.push(("frame_decode", name.into(), bytes.to_vec()));
    out.push(("cbor_walk", name.into(), bytes.to_vec()));
    if bytes.len() < 200 {
        out.push(("stream_framing", name.into(), stream));
        // Flags, keepalive, an honest hello, then this frame, then a timeout.
        let link = [&[2, 150, 1, 7, bytes.len() as u8], bytes, &[13]].concat();
        out.push(("link_machine", name.into(), link));
    }
    if matches!(frame, Frame::Envelope(..) | Frame::Announce(_) | Frame::PathReply(_)) {
        out.push(("verify_edge", name.into(), bytes.to_vec()));
    }
    if matches!(frame, Frame::Announce(_)) {
        // With this node's own mark; an hour before its end.
        let row = [&[1, 0, 2], &3600u64.to_be_bytes()[..], bytes].concat();
        out.push(("saved_routes", name.into(), row.clone()));
        out.push(("saved_routes", format!("{name}-unmarked"), [&[0], &row[1..], &[7; 16]].concat()));
    }
}

fn of_payload(name: &str, bytes: &[u8], out: &mut Vec<Seed>) {
    let kinds = ["seal", "chunk", "receipt", "cannot_open", "broadcast", "probe", "pong", "probe", "trace"];
    out.push(("content_decode", name.into(), bytes.to_vec()));
    out.push(("receipt_decode", name.into(), bytes.to_vec()));
    if name.starts_with("beacon") {
        out.push(("beacon_decode", name.into(), bytes.to_vec()));
    }
    if let Some(kind) = kinds.iter().position(|kind| name.starts_with(kind)) {
        out.push(("inbound_payload", name.into(), [&[kind as u8, 0], bytes].concat()));
    }
}

fn texts(out: &mut Vec<Seed>) {
    out.push(("config_text", "default".into(), MeshConfig::default().to_toml().into_bytes()));
    out.push(("config_text", "constrained".into(), MeshConfig::constrained().to_toml().into_bytes()));
    for (n, text) in
        ["1h 30m", "250ms", "[transport]\nkeepalive = \"1s\"\n", "[nobody]\nknows = 1\n"].iter().enumerate()
    {
        out.push(("config_text", format!("text-{n}"), text.as_bytes().to_vec()));
    }
    let lines = [
        "/msg \"Anna Berg\" don't \"go\"",
        "/msg anna \"two\\nlines \\u{e9}\"",
        "/mesh trace a1a1a1a1",
        "/contact add 'O Brien' 0102030405060708090a0b0c0d0e0f10",
        "/help mesh",
        include_str!("../../docs/playbooks/hello-answer.toml"),
        include_str!("../../docs/playbooks/line.toml"),
        "[[step]]\naction = \"send\"\nto = \"${A}\"\ntext = \"$${A}\"\nwait = \"30s\"\n",
        "[[step]]\naction = \"expect\"\nfield = \"hops.0\"\nequals = 0x10\n",
    ];
    for (n, line) in lines.iter().enumerate() {
        out.push(("slash_text", format!("text-{n}"), line.as_bytes().to_vec()));
    }
    let addresses = [
        "quic://[::1]:7410",
        "tcp://127.0.0.1:0",
        "quic://relay.example.org:443#0102030405060708090a0b0c0d0e0f10",
        "tcp://[fe80::1%eth0]:1",
        "mem://name",
        "2026-11-22T19:12:48.123Z",
        "0102030405060708090a0b0c0d0e0f10",
        "01020304",
        "alice",
    ];
    for (n, text) in addresses.iter().enumerate() {
        out.push(("addresses", n.to_string(), text.as_bytes().to_vec()));
    }
    let lines = [
        "{\"v\":1,\"request\":{\"command\":\"status\"}}\n",
        "{\"v\":1,\"request\":{\"command\":\"routes\",\"destination\":\"alice\"},\"payload_len\":0}\n{\"ack\":1}\n",
        "{\"reply\":{\"state\":\"x\"},\"payload_len\":3,\"ack\":2}\nabc{\"end\":{}}\n",
        "{\"v\":2}\n{\"error\":{\"class\":\"usage\",\"message\":\"no\"}}\n",
    ];
    for (n, text) in lines.iter().enumerate() {
        out.push(("control_lines", n.to_string(), text.as_bytes().to_vec()));
    }
    for (n, text) in ["", "1\n2\n", "1\nnonsense\n\n3", "18446744073709551615\n-1\n"].iter().enumerate() {
        out.push(("journal_lines", n.to_string(), text.as_bytes().to_vec()));
    }
}

fn stored(out: &mut Vec<Seed>) {
    let identity = MeshIdentity::from_seed([5; 32]);
    out.push(("key_files", "identity".into(), identity.to_pkcs8_pem().as_bytes().to_vec()));
    let mut rng = SeededRng::new(7);
    let mut keys = ReceiverKeys::new(PublicKey([7; 32]), 1_800_000_000, &mut rng);
    for n in 0..4 {
        let state = [&[0, 2, 5], &keys.to_bytes()[..]].concat();
        out.push(("key_files", format!("receiver-{n}"), state));
        keys.rotate(1_800_000_000 + (n + 1) * 7 * 86_400, &mut rng);
    }
    let uid = MessageUid([1; 16]);
    let file = || FileRecord { length: 40_000, sha256: Digest([2; 32]), file_key: Digest([3; 32]) };
    for (name, body) in [("inline", Body::Inline(vec![7; 20])), ("file", Body::File(file()))] {
        let outbox = OutboxRecord {
            uid,
            destination: Address([4; 16]),
            name: "notes.txt".into(),
            sent_at_unix_ms: 1_800_000_000_000,
            lifetime: 17,
            priority: 1,
            body: body.clone(),
        };
        out.push(("stored_records", format!("outbox-{name}"), outbox.encode()));
        let inbox = InboxRecord {
            uid,
            from: Address([4; 16]),
            broadcast: false,
            name: String::new(),
            sent_at_unix_ms: 1,
            received_at_unix_ms: 2,
            hops: 3,
            body,
        };
        out.push(("stored_records", format!("inbox-{name}"), inbox.encode()));
    }
    let partial = PartialRecord {
        packet_id: PacketId([1; 16]),
        complete: false,
        uid,
        from: Address([4; 16]),
        name: "notes.txt".into(),
        sent_at_unix_ms: 1,
        hops: 2,
        stranger: true,
        dedup_until_unix_s: 9,
        give_up_unix_s: Some(8),
        file: file(),
        bitmap: vec![5],
    };
    out.push(("stored_records", "partial".into(), partial.encode()));
    // Lengths of every kind of row; those of the row keys are 36 bytes each.
    for length in [0, 7, 8, 31, 32, 36, 47, 48, 67, 68, 72, 108] {
        out.push(("stored_rows", length.to_string(), (0..length).collect()));
    }
}

/// Stories without a plan: a machine reads any bytes as one.
fn scripts(out: &mut Vec<Seed>) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for (target, _) in MACHINES {
        for (n, length) in [24, 60, 120, 240, 400].into_iter().enumerate() {
            let bytes = (0..length).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            });
            out.push((target, format!("story-{n}"), bytes.collect()));
        }
    }
}
