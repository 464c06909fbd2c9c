//! Replays the fuzzers' corpus, and damaged copies of it, on a stable compiler.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use quicprochat_mesh::testing::fuzz::TARGETS;

fn corpus() -> Vec<Vec<u8>> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut out = Vec::new();
    for directory in fs::read_dir(vectors).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir())
    {
        for file in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|e| e == "hex") {
                let text = fs::read_to_string(file).unwrap();
                let digits: Vec<u8> = text.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
                out.push(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect());
            }
        }
    }
    out.sort();
    out
}

#[test]
fn every_target_takes_every_seed() {
    let corpus = corpus();
    assert!(corpus.len() > 70, "{} seeds", corpus.len());
    for (_, target) in TARGETS {
        corpus.iter().for_each(|seed| target(seed));
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

#[test]
fn every_target_takes_damaged_seeds() {
    let corpus: Vec<Vec<u8>> = corpus().into_iter().filter(|seed| seed.len() < 2048).collect();
    let patches = prop::collection::vec(any::<u8>(), 1..9);
    let strategy = (prop::sample::select(corpus), any::<prop::sample::Index>(), any::<u8>(), patches);
    let mut runner = TestRunner::new(Config { cases: 4096, ..Config::default() });
    runner
        .run(&strategy, |(seed, at, kind, patch)| {
            let bytes = damaged(seed, at, kind, &patch);
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_target_takes_arbitrary_bytes() {
    let strategy = prop::collection::vec(any::<u8>(), 0..512);
    let mut runner = TestRunner::new(Config { cases: 4096, ..Config::default() });
    runner
        .run(&strategy, |bytes| {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
            Ok(())
        })
        .unwrap();
}
