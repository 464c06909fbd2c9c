//! The routing table beside a plain map of what was heard (`proto/table/model.rs`).

use crate::{
    clock,
    proto::table::model::{self, LINKS, ORIGINS, Step},
};

use super::Script;

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let steps = std::iter::from_fn(|| script.step().map(|kind| step(kind, &mut script)));
    model::run(clock::now(), steps);
}

fn step(kind: u8, script: &mut Script<'_>) -> Step {
    let origin = script.below(ORIGINS);
    let link = u64::from(script.u8()) % LINKS + 1;
    match kind % 22 {
        0..=5 => Step::Announce {
            origin,
            sequence: u32::from(script.below(4)),
            hop_count: script.below(5).saturating_add(1),
            link,
        },
        6 | 7 => Step::Announce {
            origin,
            sequence: script.edge(u64::from(u32::MAX)) as u32,
            hop_count: script.u8().max(1),
            link,
        },
        8..=10 => Step::Offer { origin, hop_count: script.below(5).saturating_add(1), link },
        11 => Step::Withdraw { origin, link },
        12 => Step::LinkDown { link },
        13 => Step::Drop { origin },
        14..=17 => Step::Use { origin },
        18 | 19 => Step::Measure { origin, levels: script.array() },
        20 => Step::Digest { neighbour: link },
        _ => Step::Pass { seconds: u64::from(script.u16()) % 40_000 },
    }
}
