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

/// Rows of a page at most: a fraction of a millisecond of the router's time. A table of a million
/// routes in one answer would keep it from its packets for seconds.
pub const PAGE_ROWS_MAX: usize = 512;

/// A part of a list that is in order of addresses.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows, ascending.
    pub rows: Vec<T>,
    /// Where the list goes on; none at its end.
    pub next: Option<Address>,
}

impl<T> Page<T> {
    /// The first rows of `rows`, at most `rows_max` and [`PAGE_ROWS_MAX`].
    pub fn of<R>(
        rows: impl Iterator<Item = R>,
        rows_max: usize,
        address: impl Fn(&R) -> Address,
        row: impl Fn(R) -> Option<T>,
    ) -> Self {
        let mut left = rows_max.min(PAGE_ROWS_MAX);
        let mut page = Self { rows: Vec::new(), next: None };
        for of in rows {
            if left == 0 {
                page.next = Some(address(&of));
                break;
            }
            left = left.saturating_sub(1);
            page.rows.extend(row(of));
        }
        page
    }
}

/// Handle to router: a page of the routing table, from this destination on.
#[derive(Debug, Clone, Copy)]
pub struct ListRoutes {
    /// The first destination that may be in it.
    pub from: Address,
    /// Rows wanted, at most [`PAGE_ROWS_MAX`].
    pub rows_max: usize,
}
message!(ListRoutes => Page<RouteLine>);

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

/// Handle to router: a page of everyone heard within the last day, routed or not.
#[derive(Debug, Clone, Copy)]
pub struct ListKnown {
    /// The first address that may be in it.
    pub from: Address,
    /// Rows wanted, at most [`PAGE_ROWS_MAX`].
    pub rows_max: usize,
}
message!(ListKnown => Page<KnownInfo>);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(from: u8, rows_max: usize) -> (Vec<u8>, Option<Address>) {
        // Every third row turns out to be none.
        let row = |n: u8| (!n.is_multiple_of(3)).then_some(n);
        let page = Page::of(from..10, rows_max, |n| Address([*n; 16]), row);
        (page.rows, page.next)
    }

    #[test]
    fn a_page_says_where_the_list_goes_on() {
        assert_eq!(page(0, 4), (vec![1, 2], Some(Address([4; 16]))));
        assert_eq!(page(4, 4), (vec![4, 5, 7], Some(Address([8; 16]))));
        assert_eq!(page(8, 4), (vec![8], None));
        assert_eq!(page(0, usize::MAX), (vec![1, 2, 4, 5, 7, 8], None));
        assert_eq!(page(0, 0), (vec![], Some(Address([0; 16]))));
        let all = Page::of(0..PAGE_ROWS_MAX + 1, usize::MAX, |_| Address([1; 16]), Some);
        assert_eq!((all.rows.len(), all.next), (PAGE_ROWS_MAX, Some(Address([1; 16]))));
    }
}
