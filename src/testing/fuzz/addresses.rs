//! Any text as what people and configurations name places, nodes and times by: what is printed is read
//! back as the same.

use std::{fmt::Display, str::FromStr};

use crate::{
    api::{Card, Target, Timestamp},
    config::{ListenUrl, PeerUrl},
    transport::TransportAddr,
    wire::{Address, PublicKey},
};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    prints_as_read::<ListenUrl>(text);
    prints_as_read::<PeerUrl>(text);
    prints_as_read::<TransportAddr>(text);
    prints_as_read::<Timestamp>(text);
    prints_as_read::<Address>(text);
    prints_as_read::<PublicKey>(text);
    prints_as_read::<Card>(text);
    // Whom one may dial by its URL, the transports can name as well.
    if let Ok(peer) = text.parse::<PeerUrl>() {
        assert!(peer.port != 0 && peer.pin.is_none_or(|pin| !pin.is_reserved()));
    }
    if let Ok(target) = Target::parse(text) {
        let all = [Address([0; 16]), Address([0x11; 16]), Address::BROADCAST];
        if let Some(first) = target.first() {
            assert!(target.may_mean(&first));
            assert!(all.iter().all(|address| !target.may_mean(address) || *address >= first));
        } else {
            assert!(matches!(target, Target::Name(_)));
        }
    }
}

fn prints_as_read<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let printed = read.to_string();
        assert!(printed.parse::<T>().is_ok_and(|again| again == read), "{text:?} is printed as {printed:?}");
    }
}
