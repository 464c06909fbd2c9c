//! What a router counts.

use crate::proto::table::{Reject, Update};

/// Plain counts since the start; the metrics copy them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Envelopes that came over links.
    pub received: u64,
    /// Envelopes of this node's own.
    pub originated: u64,
    /// Envelopes that went on over a link; a broadcast counts once a link.
    pub forwarded: u64,
    /// Envelopes that were for this node.
    pub delivered: u64,
    /// Envelopes given to custody for want of a path.
    pub to_custody: u64,
    /// Copies that ended in the dedup window.
    pub duplicates: u64,
    /// Resends that were let through.
    pub retransmits: u64,
    /// Envelopes at the end of their hop limit.
    pub hop_limit: u64,
    /// Envelopes past their lifetime.
    pub expired: u64,
    /// Envelopes without a path.
    pub no_route: u64,
    /// Envelopes that a link's queue did not take.
    pub unsent: u64,
    /// This node's own envelopes that came back.
    pub own_returned: u64,
    /// Receipts that went back the way their message came.
    pub receipts_returned: u64,
    /// Receipts that went by route.
    pub receipts_routed: u64,
    /// Packets that came back in a loop, and were refused for it.
    pub loops: u64,
    /// Packets that a next hop refused and that went another way.
    pub rerouted: u64,
    /// Packets that went over another way than the best, to measure it.
    pub probes: u64,
    /// Announces that made or renewed a route.
    pub announces_newer: u64,
    /// Announces that added or changed a way.
    pub announces_alternative: u64,
    /// Announces that changed nothing.
    pub announces_known: u64,
    /// Announces older than one seen before.
    pub announces_stale: u64,
    /// Announces of the newest order that came after their time.
    pub announces_expired: u64,
    /// Announces past their hop limit.
    pub announces_hop_limit: u64,
    /// Announces that claimed to come straight from another node than the neighbour.
    pub announces_not_origin: u64,
    /// Announces of new origins that the full table refused.
    pub announces_table_full: u64,
    /// Announces of new origins over the share of the neighbour that brought them.
    pub announces_share_full: u64,
    /// Origins that gave way to others, unused.
    pub origins_evicted: u64,
    /// Announces passed on to neighbours.
    pub announces_passed_on: u64,
    /// Announces of this node with a higher order than its own.
    pub own_order_seen: u64,
    /// Refusals that were not of a packet this node had sent over that link, and questions over
    /// their budget.
    pub control_ignored: u64,
    /// Searches for a path that were begun.
    pub path_searches: u64,
    /// Searches that found nothing.
    pub path_searches_failed: u64,
    /// Searches that were not begun: too many run, or the neighbours would not answer.
    pub path_searches_refused: u64,
    /// Path requests that came and were looked at.
    pub path_requests: u64,
    /// Path requests sent, this node's own and those passed on, each link counted.
    pub path_requests_sent: u64,
    /// Path requests that came again, or too far.
    pub path_requests_repeated: u64,
    /// Path requests not taken, not sent or not answered for want of budget.
    pub path_requests_over_budget: u64,
    /// Answers to path requests that came.
    pub path_replies: u64,
    /// Answers to path requests sent or passed on.
    pub path_replies_sent: u64,
    /// Withdrawals sent, each link counted.
    pub withdrawals_sent: u64,
    /// Withdrawn routes that had led through the neighbour.
    pub withdrawals: u64,
    /// Withdrawn routes that had not.
    pub withdrawals_foreign: u64,
    /// Withdrawals over their budget.
    pub withdrawals_over_budget: u64,
    /// Digests sent.
    pub digests_sent: u64,
    /// Digests that came and were compared.
    pub digests: u64,
    /// Digests that came again, out of order or over their budget.
    pub digests_ignored: u64,
}

impl Counters {
    pub(super) fn announce(&mut self, update: Update) {
        let counter = match update {
            Update::Newer => &mut self.announces_newer,
            Update::Alternative => &mut self.announces_alternative,
            Update::Known => &mut self.announces_known,
            Update::Rejected(Reject::Stale) => &mut self.announces_stale,
            Update::Rejected(Reject::Expired) => &mut self.announces_expired,
            Update::Rejected(Reject::HopLimit) => &mut self.announces_hop_limit,
            Update::Rejected(Reject::NotTheOrigin) => &mut self.announces_not_origin,
            Update::Rejected(Reject::TableFull) => &mut self.announces_table_full,
            Update::Rejected(Reject::ShareFull) => &mut self.announces_share_full,
        };
        bump(counter);
    }
}

/// Adds one.
pub(super) fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
