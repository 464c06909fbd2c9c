//! The outbox beside its reference model (`proto/delivery/outbox/model.rs`).

use crate::{
    clock,
    proto::delivery::outbox::{
        Hold,
        model::{self, Action, Answer},
    },
    wire::control::RefuseReason,
};

use super::Script;

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let actions = std::iter::from_fn(|| script.step().map(|kind| action(kind, &mut script)));
    model::run(clock::now(), actions);
}

fn action(kind: u8, script: &mut Script<'_>) -> Action {
    match kind % 32 {
        0..=3 => Action::Add {
            to: script.below(3),
            chunks: script.below(5),
            bytes: script.u16(),
            priority: script.below(4),
        },
        4..=11 => Action::Transmit {
            most: script.below(20).saturating_add(1),
            held_back: match script.below(8) {
                0 => Some(Hold::NoKey),
                1 => Some(Hold::NoPath),
                _ => None,
            },
        },
        12..=18 => Action::Answer {
            packet: script.u8(),
            by_another: script.below(10) == 1,
            answer: match script.below(8) {
                0..=2 => Answer::Packet,
                3 | 4 => Answer::Bitmap,
                5 => Answer::Stale(script.u8()),
                6 => Answer::ManifestWanted,
                _ => Answer::CannotOpen,
            },
        },
        19 => Action::Whole {
            packet: script.u8(),
            by_another: script.below(4) == 1,
            is_sound: script.below(4) != 1,
        },
        20..=22 => Action::Refuse {
            packet: script.u8(),
            reason: match script.below(4) {
                0 => RefuseReason::Congested,
                1 => RefuseReason::NoRoute,
                2 => RefuseReason::StoreFull,
                _ => RefuseReason::RateLimited,
            },
            retry_s: script.u16() % 8000,
        },
        23 | 24 => Action::Custody { packet: script.u8() },
        25 => Action::Forgets { to: script.below(3) },
        26 => Action::RouteUp { to: script.below(3) },
        27 => Action::CheckCustody { to: script.below(3) },
        28 => Action::Cancel { message: script.u8() },
        29 => Action::Passes { ms: script.u32() % 3_600_000 },
        _ => Action::Passes { ms: u32::from(script.u16()) % 40_000 },
    }
}
