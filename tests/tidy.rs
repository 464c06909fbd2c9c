//! The house rules that a compiler does not know: who may use whom, where time comes from, what
//! the specification has to name. Read from the sources, so that a break shows in the test that
//! names the rule rather than in review.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use quicprochat_mesh::wire::{
    EnvelopeKind, FrameType, Lifetime,
    control::RefuseReason,
    handshake::CloseReason,
    limits::{
        CHUNK_BYTES, CHUNKS_MAX, FILE_NAME_BYTES_MAX, FRAME_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, MAX_HOPS_MAX,
        PAYLOAD_BYTES_MAX, SEAL_PLAINTEXT_BYTES_MAX, SERVICE_DATA_BYTES_MAX,
    },
};

/// Longest source file in lines; one that takes a minute to scroll holds a second concept.
const LINES_MAX: usize = 900;

/// What each layer may use of the others. A module that is not named is composition: it may use
/// everything.
const LAYERS: [(&str, &[&str]); 7] = [
    ("wire", &[]),
    ("crypto", &["wire"]),
    ("proto", &["wire", "crypto"]),
    ("transport", &["wire", "crypto", "clock", "telemetry", "accept"]),
    ("storage", &["wire", "crypto", "clock", "telemetry"]),
    // A reply is a result, and the library has one error type at its edge; a conversation with the
    // store carries the store's own operations.
    ("messages", &["wire", "crypto", "proto", "storage", "error"]),
    (
        "actors",
        &[
            "wire",
            "crypto",
            "proto",
            "transport",
            "storage",
            "messages",
            "clock",
            "telemetry",
            "error",
            "events",
        ],
    ),
];

/// Layers that take time and randomness as arguments and do no IO of their own.
const PURE_LAYERS: [&str; 2] = ["wire", "proto"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `directory` with this extension, sorted.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    fn collect(directory: &Path, extension: &str, out: &mut Vec<PathBuf>) {
        for path in fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "corpus" && !name.starts_with(".git") {
                collect(&path, extension, out);
            } else if path.extension().is_some_and(|e| e == extension) {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    collect(&root().join(directory), extension, &mut out);
    out.sort();
    out
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The code of a file: no comments, and nothing from its tests on.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// True for a module that its parent declares for tests only.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Some(directory) = path.parent() else { return false };
    // `x_tests.rs` may stand beside the `x.rs` that declares it.
    let beside = directory.join(format!("{}.rs", stem.trim_end_matches("_tests")));
    let parents =
        [directory.join("mod.rs"), directory.with_extension("rs"), directory.join("lib.rs"), beside];
    parents.into_iter().filter(|parent| parent != path && parent.is_file()).any(|parent| {
        let text = read(&parent);
        text.split("#[cfg(test)]").skip(1).any(|rest| {
            let declaration = rest.split(';').next().unwrap_or("");
            let names_it = declaration.ends_with(&format!("mod {stem}"));
            !declaration.contains('{') && (names_it || declaration.contains(&format!("\"{stem}.rs\"")))
        })
    })
}

/// Sources of one layer, its tests left out.
fn layer(name: &str) -> Vec<PathBuf> {
    let single = root().join("src").join(name).with_extension("rs");
    let mut out = files(&format!("src/{name}"), "rs");
    out.extend(single.is_file().then_some(single));
    out.retain(|path| !is_test_file(path));
    out
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What stands after each `prefix` in `code`, groups in braces taken apart: of
/// `crate::{wire::{self, ids}, crypto}` the words `wire` and `crypto`.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for rest in code.split(prefix).skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            out.insert(first_word(rest));
            continue;
        };
        let mut depth = 0;
        let mut at_start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if depth == 0 && at_start && !c.is_whitespace() => {
                    out.insert(first_word(&group[at..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    out
}

#[test]
fn groups_of_imports_are_taken_apart() {
    let code = "use crate::{a::{b, c}, d, e::f};\nlet x = crate::g::H;";
    let names: Vec<String> = names_after(code, "crate::").into_iter().collect();
    assert_eq!(names, ["a", "d", "e", "g"]);
}

#[test]
fn layers_use_only_what_lies_below_them() {
    let mut faults = Vec::new();
    for (name, may_use) in LAYERS {
        let sources = layer(name);
        assert!(!sources.is_empty(), "there is no layer {name}");
        for path in sources {
            for used in names_after(&code(&path), "crate::") {
                if used != name && !may_use.contains(&used.as_str()) {
                    faults.push(format!("{} uses crate::{used}", shown(&path)));
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn transports_and_stores_know_no_messages() {
    let messages = ["Frame", "Envelope", "Announce", "envelope", "announce", "receipt", "content", "frame"];
    let mut faults = Vec::new();
    for name in ["transport", "storage"] {
        for path in layer(name) {
            let code = code(&path);
            let of_crate = code.split("crate::").skip(1).map(|rest| rest.split(';').next().unwrap_or(""));
            for path_text in of_crate {
                for used in names_after(path_text, "wire::") {
                    if messages.contains(&used.as_str()) {
                        faults.push(format!("{} uses wire::{used}", shown(&path)));
                    }
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn cores_take_time_and_do_no_io() {
    let forbidden = [
        "Instant::now",
        "SystemTime",
        "tokio",
        "actix",
        "getrandom",
        "std::net",
        "std::fs",
        "std::thread",
        "std::env",
    ];
    let mut faults = Vec::new();
    for path in PURE_LAYERS.iter().flat_map(|name| layer(name)) {
        let code = code(&path);
        faults.extend(
            forbidden
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{}: {word}", shown(&path))),
        );
    }
    assert_eq!(faults, Vec::<String>::new());
}

/// True where code reads the system's clocks rather than tokio's, which tests can stop.
fn reads_system_clock(code: &str) -> bool {
    let imports_std_instant = code.split("use std::").skip(1).any(|rest| {
        rest.split(';')
            .next()
            .unwrap_or("")
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "Instant")
    });
    code.contains("SystemTime::now()")
        || code.contains("std::time::Instant::now()")
        || (imports_std_instant && code.replace("tokio::time::Instant::now()", "").contains("Instant::now()"))
}

#[test]
fn clocks_are_read_in_one_place() {
    let mut faults = Vec::new();
    for path in files("src", "rs").into_iter().filter(|path| !is_test_file(path)) {
        if shown(&path) != "src/clock.rs" && reads_system_clock(&code(&path)) {
            faults.push(shown(&path));
        }
    }
    assert_eq!(faults, Vec::<String>::new(), "these read a system clock; src/clock.rs is the one that may");
}

fn protocol() -> String {
    read(&root().join("docs/protocol.md"))
}

/// The part of the specification below a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no section {heading}"));
    let body = &text[start + 4..];
    body.find("\n## ").map_or(body, |end| &body[..end])
}

#[test]
fn the_specification_names_every_number() {
    let text = protocol();
    let row = |section: &str, number: u8, name: &str| {
        let row = format!("| {number} | {name} |");
        assert!(section.contains(&row), "docs/protocol.md has no row `{row}`");
    };
    let frames = section(&text, "4. Frames");
    let kinds = section(&text, "7. Envelopes");
    let goodbyes = section(&text, "5. Hello");
    let refusals = section(&text, "6. Link control");
    for number in 0..=u8::MAX {
        if let Some(frame) = FrameType::from_number(u64::from(number)) {
            row(frames, number, frame.name());
        }
        let kind = EnvelopeKind(number);
        if kind.name() != "unknown" {
            row(kinds, number, kind.name());
        }
        if !matches!(CloseReason::from(number), CloseReason::Other(_)) {
            row(goodbyes, number, CloseReason::from(number).name());
        }
        if !matches!(RefuseReason::from(number), RefuseReason::Other(_)) {
            row(refusals, number, RefuseReason::from(number).name());
        }
    }
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn the_specification_has_the_limits_of_the_code() {
    let text = protocol();
    let limits = section(&text, "15. Limits");
    for (name, value) in [
        ("frame", FRAME_BYTES_MAX),
        ("payload", PAYLOAD_BYTES_MAX),
        ("plaintext of a seal, with padding", SEAL_PLAINTEXT_BYTES_MAX),
        ("chunk's plaintext", CHUNK_BYTES),
        ("chunks", CHUNKS_MAX as usize),
        ("max_hops", usize::from(MAX_HOPS_MAX)),
        ("service data", SERVICE_DATA_BYTES_MAX),
        ("goodbye text", GOODBYE_TEXT_BYTES_MAX),
        ("file name", FILE_NAME_BYTES_MAX),
    ] {
        let row = format!("| {name} | {}", with_commas(value));
        assert!(limits.contains(&row), "docs/protocol.md has no row `{row}`");
    }
    let lifetimes = section(&text, "14. Lifetime");
    for code in 0..24 {
        let seconds = Lifetime::from_code(code).unwrap().as_secs();
        let entry = format!("| {code} | {} s", with_commas(seconds as usize));
        assert!(lifetimes.contains(&entry), "docs/protocol.md has no lifetime `{entry}`");
    }
}

#[test]
fn every_decision_is_in_the_index() {
    let index = read(&root().join("docs/adr/README.md"));
    for path in files("docs/adr", "md") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "docs/adr/README.md: {name}");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for path in ["src", "bin", "tests", "benches", "examples", "fuzz"].iter().flat_map(|d| files(d, "rs")) {
        let text = read(&path);
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", shown(&path));
        let is_module = !shown(&path).ends_with("/tests.rs");
        assert!(!is_module || text.starts_with("//!"), "{} does not say what it is", shown(&path));
    }
}

#[test]
fn no_test_is_switched_off() {
    for path in ["src", "bin", "tests"].iter().flat_map(|d| files(d, "rs")) {
        let switched_off = concat!("#[igno", "re");
        assert!(!read(&path).contains(switched_off), "{}", shown(&path));
    }
}

#[test]
fn nothing_names_a_machine() {
    // Written in pieces, or this file would name them.
    let needles =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    for extension in ["rs", "md", "toml", "sh", "yml", "yaml", "json", "diag", "service", "lock"] {
        for path in files(".", extension) {
            let text = read(&path);
            for needle in needles {
                assert!(!text.contains(needle), "{} contains {needle}", shown(&path));
            }
        }
    }
}
