//! The window of packets in transit beside its model (`proto/dedup/model.rs`), small enough that its
//! generations turn.

use crate::{
    clock,
    proto::dedup::{
        Ingress, Sighting,
        model::{self, Op},
    },
    wire::{LinkId, PacketId},
};

use super::Script;

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let entries_max = usize::from(script.u8());
    let ops = std::iter::from_fn(|| script.step().map(|kind| op(kind, &mut script)));
    model::run(clock::now(), entries_max, ops);
}

fn op(kind: u8, script: &mut Script<'_>) -> Op {
    let packet = PacketId([script.below(24); 16]);
    match kind % 8 {
        0..=3 => {
            let flags = script.u8();
            Op::Observe(Sighting {
                packet_id: packet,
                ingress: match script.below(5) {
                    0 => Ingress::Local,
                    n => Ingress::Link(LinkId(u64::from(n))),
                },
                hop_count: script.u8(),
                max_hops: script.below(128).saturating_add(1),
                retransmit: flags & 1 != 0,
                lasts: flags & 4 != 0,
                is_destination: flags & 2 != 0,
            })
        }
        4 | 5 => Op::Forwarded(packet, (kind & 8 == 0).then(|| LinkId(u64::from(script.below(4)) + 1))),
        6 => Op::Returned(packet),
        _ if kind & 8 == 0 => Op::Passes(script.pause()),
        _ => Op::Goes(LinkId(u64::from(script.below(4)) + 1)),
    }
}
