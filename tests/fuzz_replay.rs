//! Replays the fuzzers' corpus, and damaged copies of it, on a stable compiler.
//!
//! `fuzz/corpus/TARGET/` holds seeds (`seed-*`, written by this test under `QPC_BLESS=1`, always the
//! same), what exploring found to reach further (`found-*`), and the input of every fault that a target
//! ever showed (`fault-*`). None is ever removed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "fuzz_replay/seeds.rs"]
mod seeds;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use quicprochat_mesh::{
    testing::fuzz::{self, DECODERS, MACHINES},
    wire::Frame,
};

/// Bytes of all committed inputs together.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus_of(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

fn files_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus_of(target)).unwrap_or_else(|e| panic!("the corpus of {target}: {e}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Names the input in what a target says of it.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = fuzz::targets().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names("fuzz/targets"), targets, "fuzz/targets/");
    assert_eq!(names("fuzz/corpus"), targets, "fuzz/corpus/");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "fuzz/Cargo.toml has no {target}");
    }
    let bytes: u64 =
        targets.iter().flat_map(|target| files_of(target)).map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(bytes < CORPUS_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn committed_seeds_are_those_of_the_golden_vectors() {
    let bless = std::env::var_os("QPC_BLESS").is_some();
    for (target, name, bytes) in seeds::all() {
        let path = corpus_of(target).join(format!("seed-{name}"));
        if bless && !path.exists() {
            fs::create_dir_all(corpus_of(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let committed =
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: just fuzz-seeds", path.display()));
        assert!(committed == bytes, "{} is another", path.display());
    }
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, target) in fuzz::targets() {
        for (path, bytes) in files_of(name) {
            let _running = Running(&path);
            target(&bytes);
        }
    }
}

#[test]
fn every_decoder_takes_every_golden_vector() {
    let vectors = seeds::vectors();
    assert!(vectors.len() > 70, "{} vectors", vectors.len());
    for (_, target) in DECODERS {
        vectors.iter().for_each(|(_, bytes)| target(bytes));
    }
}

#[test]
fn every_decoder_takes_what_was_cut_anywhere() {
    for (name, target) in DECODERS {
        for (path, bytes) in files_of(name).into_iter().filter(|(_, bytes)| bytes.len() <= 512) {
            let _running = Running(&path);
            (0..bytes.len()).for_each(|cut| target(&bytes[..cut]));
        }
    }
}

#[test]
fn two_frames_glued_are_none() {
    let frames = seeds::vectors();
    let frames: Vec<_> =
        frames.iter().filter(|(_, b)| Frame::decode(&Bytes::from(b.clone())).is_ok()).collect();
    assert!(frames.len() > 40, "{} frames", frames.len());
    for (first_name, first) in &frames {
        for (second_name, second) in frames.iter().filter(|(_, bytes)| bytes.len() < 512) {
            let glued = Bytes::from([&first[..], second].concat());
            assert!(Frame::decode(&glued).is_err(), "{first_name} with {second_name} behind it");
        }
    }
}

/// One damage to one seed: bytes overwritten, cut out or put in.
fn damaged(mut seed: Vec<u8>, at: prop::sample::Index, kind: u8, patch: &[u8]) -> Vec<u8> {
    if seed.is_empty() {
        return seed;
    }
    let at = at.index(seed.len());
    let end = (at + patch.len()).min(seed.len());
    match kind % 3 {
        0 => seed.splice(at..end, patch.iter().copied()).for_each(drop),
        1 => seed.drain(at..end).for_each(drop),
        _ => seed.splice(at..at, patch.iter().copied()).for_each(drop),
    }
    seed
}

/// Its corpus once more, each with some damage.
fn takes_damage(name: &'static str, target: fuzz::Target, cases: u32) {
    let corpus: Vec<Vec<u8>> =
        files_of(name).into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 2048).collect();
    // Numbers at their ends as often as any.
    let byte = prop_oneof![any::<u8>(), prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xfe, 0xff])];
    let patches = prop::collection::vec(byte, 1..9);
    let strategy = (prop::sample::select(corpus), any::<prop::sample::Index>(), any::<u8>(), patches);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&strategy, |(seed, at, kind, patch)| {
        target(&damaged(seed, at, kind, &patch));
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn every_decoder_takes_damaged_seeds() {
    for (name, target) in DECODERS {
        takes_damage(name, target, 1024);
    }
}

#[test]
fn every_machine_takes_damaged_seeds() {
    for (name, target) in MACHINES {
        takes_damage(name, target, 96);
    }
}

#[test]
fn every_target_takes_arbitrary_bytes() {
    let strategy = prop::collection::vec(any::<u8>(), 0..512);
    let mut runner = TestRunner::new(Config { cases: 128, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |bytes| {
            fuzz::targets().for_each(|(_, target)| target(&bytes));
            Ok(())
        })
        .unwrap();
}
