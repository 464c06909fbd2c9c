//! Any bytes as a datagram that came to the port of beacons.

use crate::wire::beacon::{BEACON_BYTES_MAX, BEACON_LISTENERS_MAX, Beacon};

use super::same;

pub(super) fn run(data: &[u8]) {
    let beacon = Beacon::decode(data);
    if let Ok(beacon) = &beacon {
        assert!(data.len() <= BEACON_BYTES_MAX && beacon.listeners.len() <= BEACON_LISTENERS_MAX);
        assert!(beacon.listeners.iter().all(|listener| listener.port != 0));
    }
    same(data, beacon.map(|beacon| beacon.encode()));
}
