//! `qpc bench relay`: every kind of ends still gets through a relay of this build. Its figures are
//! for people to read; none of them is checked here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use serde_json::Value;

fn measured(ends: &str, proof: &str) -> Value {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_qpc"))
        .env("TMPDIR", temp.path())
        .args([
            "--json",
            "bench",
            "relay",
            "--seconds",
            "1",
            "--rounds",
            "1",
            "--ends",
            ends,
            "--proof",
            proof,
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{ends} {proof}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn volatile_and_durable_ends_get_through_with_either_proof() {
    for (ends, proof) in [("volatile", "plain"), ("volatile", "merkle"), ("durable", "plain")] {
        let answer = measured(ends, proof);
        for side in ["ours", "baseline"] {
            assert!(answer[side]["msgs_per_s"].as_f64().unwrap() > 0.0, "{answer}");
            assert_eq!(answer[side]["duplicates"], 0, "{answer}");
        }
        assert_eq!(
            (&answer["ours"]["lost"], &answer["ends"]),
            (&Value::from(0), &Value::from(ends)),
            "{answer}"
        );
    }
}
