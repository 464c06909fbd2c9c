//! DiscoveryActor: where there is nothing to discover on it says so, lives, and is drained.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        discovery::{DiscoveryActor, DiscoveryParts},
        mailbox::{self, Seat},
    },
    messages::lifecycle::DrainCounts,
    proto::discovery::DiscoveryConfig,
    testing::with_virtual_time,
    transport::{TransportManager, interfaces::Interface},
    wire::{Address, beacon::BeaconListener},
};
use tokio::sync::watch;

use crate::support::*;

static REFUSES: AtomicBool = AtomicBool::new(true);

/// A system that lists nothing, and later an interface whose address it does not have.
fn interfaces() -> io::Result<Vec<Interface>> {
    if REFUSES.load(Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not for you"));
    }
    Ok(vec![Interface {
        name: "gone0".into(),
        index: 4_000_000,
        is_loopback: false,
        is_multicast: true,
        addresses: vec![("203.0.113.77".parse().unwrap(), 24)],
    }])
}

#[test]
fn what_it_cannot_do_it_says_and_the_node_goes_on() {
    with_virtual_time(|| async {
        let (remark, mut said) = watch::channel(None);
        let parts = DiscoveryParts {
            config: DiscoveryConfig {
                network: NETWORK,
                secret: None,
                media: vec![BeaconListener::QUIC, BeaconListener::TCP],
            },
            instance: [1; 8],
            own: Address([2; 16]),
            port: 7412,
            listening: vec!["quic://0.0.0.0:7410".parse().unwrap()],
            interfaces,
            transports: Arc::new(TransportManager::new()),
            new_link: Seat::vacant(),
            who_is_linked: Seat::vacant(),
            remark,
        };
        let (guard, mut parent) = guard();
        let actor = DiscoveryActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::DISCOVERY);
            DiscoveryActor::new(parts, guard)
        });
        let mut hears = async |text: &str| {
            let heard = said.wait_for(|said| said.as_ref().is_some_and(|said| said.contains(text)));
            tokio::time::timeout(PATIENCE, heard).await.unwrap().unwrap();
        };
        hears("does nothing: the interfaces cannot be listed: not for you").await;
        // What is wrong may change, and is looked at again.
        REFUSES.store(false, Ordering::Relaxed);
        hears("no beacons on gone0").await;
        assert!(parent.is_alive());
        assert_eq!(drained(&actor, &mut parent).await, DrainCounts::default());
    });
}
