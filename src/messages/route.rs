//! Conversations about routes.

use super::message;
use crate::{
    proto::{
        router::PathSearch,
        table::{KnownInfo, RouteInfo},
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
