//! The phases of a drain over children that report, end, crash or say nothing: each is asked at most
//! once a phase and only while it is there, phases come in order, and it is over within its plan.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    clock,
    proto::drain::{Children, DrainCounts, DrainInput, DrainMachine, DrainOutput, DrainPhase, DrainPlan},
};

use super::Script;

#[derive(Default)]
struct Seen {
    phase: Option<DrainPhase>,
    asked: BTreeSet<(DrainPhase, u8)>,
    gone: BTreeSet<u8>,
    done: bool,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let start = clock::now();
    let mut now = start;
    let count = script.below(12);
    let total = script.pause();
    let independent = (0..count).filter(|_| script.bool()).collect();
    let children = Children { in_order: (0..count).collect(), independent };
    let plan = DrainPlan::within(total);
    let mut machine = match script.below(4) {
        0..=2 => DrainMachine::begin(now, plan, children),
        n => DrainMachine::one_phase(now, phase(n), now + total, children),
    };
    let mut seen = Seen::default();
    seen.drain(&mut machine, now);
    while let Some(kind) = script.step() {
        let child = script.below(count.saturating_add(1));
        match kind % 8 {
            0..=2 => {
                let counts = DrainCounts {
                    frames_dropped: script.edge(u64::MAX),
                    undelivered_kept: script.edge(u64::MAX),
                    ..DrainCounts::default()
                };
                let phase = machine.phase().filter(|_| kind & 64 == 0).unwrap_or(phase(kind >> 3));
                machine.handle(now, DrainInput::Reported { child, phase, counts });
            }
            3 => {
                seen.gone.insert(child);
                machine.handle(now, DrainInput::Exited { child, clean: kind & 8 == 0 });
            }
            4 => machine.handle(now, DrainInput::NoticeOver),
            5 if kind & 0x38 == 0 => machine.handle(now, DrainInput::SkipAhead),
            5 | 6 => now += script.pause().min(Duration::from_secs(60)),
            _ => {
                now = machine.next_wake().map_or(now, |at| at.max(now));
                timeout(&mut machine, now);
            }
        }
        seen.drain(&mut machine, now);
        assert_eq!(machine.next_wake().is_none(), seen.done);
    }
    // Nobody says anything any more.
    let silent_from = now;
    for _ in 0..=usize::from(count) * 6 + 10 {
        let Some(wake) = machine.next_wake() else { break };
        now = wake.max(now);
        timeout(&mut machine, now);
        seen.drain(&mut machine, now);
    }
    assert!(seen.done, "it does not end by itself");
    assert!(now.duration_since(silent_from) <= total + Duration::from_millis(1));
}

/// The time it asked for has come; it does not ask for the same again.
fn timeout(machine: &mut DrainMachine<u8>, now: Instant) {
    machine.handle(now, DrainInput::Timeout);
    assert!(machine.next_wake().is_none_or(|at| at > now), "it would turn without end");
}

fn phase(n: u8) -> DrainPhase {
    DrainPhase::ALL.get(usize::from(n % 3)).copied().unwrap_or(DrainPhase::Draining)
}

impl Seen {
    fn drain(&mut self, machine: &mut DrainMachine<u8>, now: Instant) {
        while let Some(output) = machine.poll() {
            assert!(!self.done, "after its end: {output:?}");
            match output {
                DrainOutput::Enter(phase) => {
                    assert!(self.phase.is_none_or(|before| before < phase));
                    self.phase = Some(phase);
                }
                DrainOutput::Ask { child, phase, deadline } => {
                    assert_eq!(Some(phase), self.phase);
                    assert!(!self.gone.contains(&child), "{child} has ended");
                    assert!(self.asked.insert((phase, child)), "{child} is asked twice");
                    assert!(deadline >= now);
                }
                DrainOutput::Complete(outcome) => {
                    self.done = true;
                    assert!(outcome.phases.iter().map(|(phase, _)| phase).is_sorted());
                    assert!(outcome.missed.iter().all(|(phase, _)| Some(*phase) <= self.phase));
                }
            }
        }
    }
}
