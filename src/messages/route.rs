//! Conversations about routes.

use super::message;
use crate::{proto::table::RouteInfo, wire::Address};

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
