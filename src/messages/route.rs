//! Conversations about routes.

use super::message;
use crate::{
    proto::{
        router::PathSearch,
        table::{KnownInfo, RouteInfo},
        verify::{InboundEnvelope, Verified},
    },
    wire::Address,
};

/// Handle to router: the routing table.
#[derive(Debug, Clone, Copy)]
pub struct ListRoutes;
message!(ListRoutes => Vec<RouteLine>);

/// One route, with what only the router's shell knows.
#[derive(Debug, Clone)]
pub struct RouteLine {
    /// The route.
    pub route: RouteInfo,
    /// Address of the best next hop.
    pub next_hop: Address,
    /// Transport of the best next hop.
    pub transport: &'static str,
}

impl RouteLine {
    /// The share of packets over the best next hop that were receipted, 0 to 1; none before the
    /// first outcome.
    pub fn delivered_share(&self) -> Option<f64> {
        let permille = self.route.delivered_permille.first().copied().flatten()?;
        Some(f64::from(permille) / 1000.0)
    }
}

/// Handle to router: counts for `qpc status`.
#[derive(Debug, Clone, Copy)]
pub struct GetRouterState;
message!(GetRouterState => RouterState);

/// The answer to [`GetRouterState`].
#[derive(Debug, Clone, Copy, Default)]
pub struct RouterState {
    /// Links that are up.
    pub links: usize,
    /// Destinations with a path.
    pub routes: usize,
    /// Counters of the core.
    pub counters: crate::proto::router::Counters,
}

/// Anyone to router: announce soon.
#[derive(Debug, Clone, Copy)]
pub struct AnnounceNow;
message!(AnnounceNow => ());

/// Handle to router: everyone heard within the last day, routed or not.
#[derive(Debug, Clone, Copy)]
pub struct ListKnown;
message!(ListKnown => Vec<KnownInfo>);

/// Handle to router: look for a path.
#[derive(Debug, Clone, Copy)]
pub struct SearchPath(pub Address);
message!(SearchPath => PathSearch);

/// Handle to router: forget the ways to a destination. True where there was one.
#[derive(Debug, Clone, Copy)]
pub struct DropPath(pub Address);
message!(DropPath => bool);

/// Handle to router: an envelope that the embedding program brings from a medium of its own.
#[derive(Debug)]
pub struct HandIn {
    /// The neighbour it came from.
    pub from: Address,
    /// The envelope.
    pub envelope: Box<Verified<InboundEnvelope>>,
    /// Take it only where there is a path now.
    pub live_path_only: bool,
}
message!(HandIn => IncomingAction);

/// What became of an envelope that the embedding program brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingAction {
    /// It is for this node, which receipts it when it is in the inbox.
    Delivered,
    /// It went on over a link.
    Forwarded,
    /// It is for everyone: delivered here and passed on.
    Broadcast {
        /// Over how many links.
        links: u64,
    },
    /// There is no path: it went to this node's store, which keeps it as far as its quotas allow.
    ToCustody,
    /// It ended here.
    Dropped(DropReason),
}

/// Why an envelope ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It was here before.
    Duplicate,
    /// This node made it.
    OwnReturned,
    /// It has crossed all the links it may.
    HopLimit,
    /// Its lifetime is over.
    Expired,
    /// There is no path, and this node does not store.
    NoPath,
    /// The link on the way takes no more at the moment.
    Congested,
}

/// Handle to router: end what is over now.
#[derive(Debug, Clone, Copy)]
pub struct SweepRoutes;
message!(SweepRoutes => SweptRoutes);

/// The answer to [`SweepRoutes`].
#[derive(Debug, Clone, Copy)]
pub struct SweptRoutes {
    /// Routes that ended.
    pub routes_ended: u64,
    /// Whether anything may be dropped by the wall clock.
    pub clock_is_trusted: bool,
}
