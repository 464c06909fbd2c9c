//! `qpc bench`: every kind of ends still gets through a relay of this build. Its figures are for
//! people to read; none of them is checked here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

/// One after the other: at full speed two take each other's time until messages are late.
static ALONE: Mutex<()> = Mutex::new(());

fn measured(ends: &str, proof: &str, more: &[&str]) -> Value {
    let args = ["relay", "--seconds", "1", "--rounds", "1", "--ends", ends, "--proof", proof];
    bench(&[&args, more].concat())
}

fn bench(args: &[&str]) -> Value {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_qpc"))
        .env("TMPDIR", temp.path())
        .args(["--json", "bench"])
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn volatile_and_durable_ends_get_through_with_either_proof() {
    for (ends, proof) in [("volatile", "merkle"), ("durable", "plain")] {
        let answer = measured(ends, proof, &[]);
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

#[test]
fn ours_with_its_links_spread_is_measured_beside_ours() {
    let answer = measured("volatile", "plain", &["--compare-link-threads", "2"]);
    assert_eq!((&answer["link_threads"], &answer["spread"]["link_threads"]), (&0.into(), &2.into()));
    assert!(answer["spread"]["ratio_msgs_per_cpu_s"].as_f64().unwrap() > 0.0, "{answer}");
    for side in ["ours", "spread"] {
        assert!(answer[side]["msgs_per_s"].as_f64().unwrap() > 0.0, "{answer}");
        assert_eq!((&answer[side]["lost"], &answer[side]["duplicates"]), (&0.into(), &0.into()), "{answer}");
    }
}

#[test]
fn honest_messages_pass_beside_a_neighbour_that_forges_and_one_that_reads_nothing() {
    let answer = bench(&["relay", "--seconds", "1", "--rounds", "1", "--beside", "forged,full"]);
    assert_eq!(answer["ours"]["lost"], 0, "{answer}");
    for what in ["forged", "full"] {
        let beside = &answer["beside"][what];
        for life in ["undisturbed", "disturbed"] {
            for figure in ["msgs_per_s", "offered_msgs_per_s", "p50_us", "p99_us", "relay_cpu_us"] {
                assert!(beside[life][figure].as_f64().unwrap() > 0.0, "{what} {life} {figure}: {answer}");
            }
            assert_eq!(
                (&beside[life]["lost"], &beside[life]["duplicates"]),
                (&0.into(), &0.into()),
                "{answer}"
            );
        }
        for ratio in ["ratio_msgs", "ratio_offered", "ratio_p50", "ratio_p99"] {
            assert!(beside[ratio].is_number(), "{ratio}: {answer}");
        }
        assert!(beside["neighbour"]["sent"].as_u64().unwrap() > 0, "{answer}");
    }
    let forged = &answer["beside"]["forged"];
    let failures = &forged["relay_counters"]["qpc_verify_failures_total{reason=\"bad_signature\"}"];
    assert!(failures.as_f64().unwrap() > 0.0, "{answer}");
    assert!(forged["neighbour"]["cut"].as_u64().unwrap() > 0, "who forges is not cut: {answer}");
}

#[test]
fn a_relay_with_many_links_carries_what_each_sends_and_passes_their_announces_on() {
    for transport in ["quic", "tcp"] {
        let answer = bench(&["links", "--links", "12", "--seconds", "2", "--transport", transport]);
        assert_eq!((&answer["links"], &answer["transport"]), (&12.into(), &transport.into()), "{answer}");
        let messages = &answer["messages"];
        assert_eq!((&messages["sent"], &messages["lost"]), (&24.into(), &0.into()), "{answer}");
        let announces = &answer["announces"];
        assert_eq!((&announces["taken"], &announces["passed_on"]), (&12.0.into(), &132.into()), "{answer}");
    }
}

#[test]
fn a_relay_hears_of_strangers_while_messages_pass_and_shows_them() {
    let answered = bench(&["routes", "--routes", "300", "--neighbours", "3", "--seconds", "1"]);
    let shown = answered["routes_shown"].as_u64().unwrap();
    // The strangers, who brought them, and the two ends of what passes.
    assert_eq!(shown, 300 + 3 + 2, "{answered:#}");
    for phase in ["before", "storm", "fill", "after"] {
        let messages = &answered[phase]["messages"];
        assert!(messages["sent"].as_u64().unwrap() > 0, "{answered:#}");
        assert_eq!(messages["lost"], 0, "{answered:#}");
    }
    assert!(answered["storm"]["announces"].as_u64().unwrap() > 0, "{answered:#}");
    assert_eq!(answered["fill"]["announces"], 300, "{answered:#}");
    let commands = answered["commands"].as_array().unwrap().iter();
    let lines: Vec<_> = commands.map(|command| command["lines"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 1, shown, shown], "{answered:#}");
    // Drained and started again, it knows as many as before.
    assert_eq!(answered["restart"]["known"], shown, "{answered:#}");
}
