//! A story of beacons, real ones of many instances among noise, and of what dials came to.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    clock,
    crypto::random::SeededRng,
    proto::discovery::{DIALS_PER_MINUTE, Discovery, DiscoveryConfig, INSTANCES_MAX, Linked, Outcome, Place},
    wire::{
        Address, NetworkId,
        beacon::{BEACON_BYTES_MAX, BeaconListener},
        handshake::CloseReason,
    },
};

use super::Script;

fn config() -> DiscoveryConfig {
    let media = vec![BeaconListener::QUIC, BeaconListener::TCP];
    DiscoveryConfig { network: NetworkId([7; 16]), secret: None, media }
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut rng = SeededRng::new(u64::from(script.u8()));
    let mut now = clock::now();
    let mut core = Discovery::new(config(), [0x80; 8], now, &mut rng);
    let mut under_way = Vec::new();
    let mut dialled: Vec<Instant> = Vec::new();
    let mut links = Vec::new();
    while let Some(kind) = script.step() {
        let from = Place { ip: IpAddr::from([10, 0, 0, script.below(40)]), scope: 0 };
        match kind % 8 {
            0..=3 => {
                let other = Discovery::new(config(), [script.u8(); 8], now, &mut rng);
                let port = script.u16();
                let listener = BeaconListener { medium: script.below(3), port };
                let beacon = other.beacon(script.bool(), &[listener], &mut rng).expect("it listens");
                assert!(beacon.len() <= BEACON_BYTES_MAX);
                assert!(port != 0 || core.hear(now, from, &beacon, &mut rng).is_err());
                let _ = core.hear(now, from, &beacon, &mut rng);
            }
            4 => {
                let count = usize::from(script.below(64));
                assert!(core.hear(now, from, script.take(count), &mut rng).is_err(), "noise has no proof");
            }
            5 => now += script.pause(),
            6 => {
                let address = Address([script.below(16); 16]);
                let at = script.bool().then(|| (from.ip, script.u16()));
                links.truncate(usize::from(script.below(8)));
                links.push(Linked { address, at, inbound: script.bool() });
            }
            _ => {
                let outcome = match script.below(4) {
                    0 => Outcome::Failed,
                    1 => Outcome::Own,
                    2 => Outcome::Up(Address([script.below(16); 16])),
                    _ => Outcome::Ended(CloseReason::from(script.below(12))),
                };
                if let Some(instance) = under_way.pop() {
                    core.came_to(now, &instance, outcome, &mut rng);
                }
            }
        }
        let _ = core.call(now, &mut rng);
        for dial in core.dials(now, &links, &mut rng) {
            assert!(dial.listener.port != 0 && dial.listener.medium < 2);
            under_way.push(dial.instance);
            dialled.push(now);
        }
        assert!(!core.wants_to_dial(now), "what is due was dialled, put off or dropped");
        assert!(core.next_wake(now) > now, "there is nothing to do that was not done");
        assert!(core.heard() <= INSTANCES_MAX);
        dialled.retain(|at| now.saturating_duration_since(*at) < Duration::from_secs(60));
        assert!(dialled.len() <= DIALS_PER_MINUTE, "{} dials in a minute", dialled.len());
    }
}
