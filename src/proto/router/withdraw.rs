//! Saying that a path is gone: after two seconds in which the link may come back, to every
//! neighbour, and only where no other way is left. What neighbours say is believed of ways through
//! themselves alone. A second later those who have another way tell the neighbour that lost its own,
//! out of the announce budget: so what one link took is mended around it before anybody asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    proto::announce::Allowance,
    wire::{Address, Frame, LinkId, limits::WITHDRAW_ADDRESSES_MAX, path::Withdraw},
};

use super::{Output, Router, counters::bump};

/// How long a link that went down may take to come back before its routes are withdrawn.
const FLAP_HOLD: Duration = Duration::from_secs(2);

/// Withdrawals a second that this node says, to all its neighbours each: ten thousand routes.
const FRAMES_PER_SECOND: u32 = 20;

/// Withdrawals a second that are taken from one link: twice what an honest node says.
const TAKEN_PER_SECOND: u32 = 40;

/// Routes that are gone and were not said to be.
#[derive(Debug)]
pub(super) struct Withdrawals {
    waiting: BTreeMap<Address, Instant>,
    ends: BTreeSet<(Instant, Address)>,
    allowance: Allowance,
    taken: BTreeMap<LinkId, Allowance>,
}

impl Withdrawals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            ends: BTreeSet::new(),
            allowance: Allowance::new(now, FRAMES_PER_SECOND),
            taken: BTreeMap::new(),
        }
    }

    /// The last way to `destination` is gone, which is said at `at`.
    pub(super) fn lost(&mut self, at: Instant, destination: Address) {
        if let Some(before) = self.waiting.insert(destination, at) {
            self.ends.remove(&(before, destination));
        }
        self.ends.insert((at, destination));
    }

    /// There is a way again; true where nobody was told otherwise.
    pub(super) fn regained(&mut self, destination: &Address) -> bool {
        let Some(at) = self.waiting.remove(destination) else { return false };
        self.ends.remove(&(at, *destination));
        true
    }

    /// When something is to be said.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| (*at).max(self.allowance.ready_at()))
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.taken.remove(&link);
    }

    /// The addresses of the next frame, ascending.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<Address>> {
        if self.ends.first().is_none_or(|(at, _)| *at > now) || !self.allowance.take(now) {
            return None;
        }
        let mut addresses = Vec::new();
        while let Some(end) = self.ends.first().copied() {
            if end.0 > now || addresses.len() >= WITHDRAW_ADDRESSES_MAX {
                break;
            }
            self.ends.remove(&end);
            self.waiting.remove(&end.1);
            addresses.push(end.1);
        }
        addresses.sort_unstable();
        Some(addresses)
    }

    fn may_take(&mut self, now: Instant, link: LinkId) -> bool {
        self.taken.entry(link).or_insert_with(|| Allowance::new(now, TAKEN_PER_SECOND)).take(now)
    }
}

impl Router {
    /// A way to `destination` went with its link. Where it was the last one that is sure not to lead
    /// back, and others were told of it, they will hear.
    pub(super) fn note_loss(&mut self, now: Instant, destination: Address) {
        self.lose(now + FLAP_HOLD, destination);
    }

    fn lose(&mut self, at: Instant, destination: Address) {
        if self.config.relay && self.is_lost(&destination) && self.table.is_claimed(&destination) {
            self.withdrawals.lost(at, destination);
        }
    }

    /// True where there is neither a link to `destination` nor a way that is sure not to lead back.
    fn is_lost(&self, destination: &Address) -> bool {
        let is_direct = self.links.peer_key(destination).is_some();
        !is_direct && (!self.is_reachable(destination) || self.table.lacks_feasible(destination))
    }

    /// Says what is to be said by now.
    pub(super) fn send_withdrawals(&mut self, now: Instant) {
        while let Some(mut addresses) = self.withdrawals.due(now) {
            addresses.retain(|destination| self.is_lost(destination));
            if addresses.is_empty() {
                continue;
            }
            // What may lead back goes too: what comes of it later is news to those who hear this. They
            // let go of ways through here, so nothing that was claimed stands any more, and what one
            // of them answers may be used.
            for destination in &addresses {
                if self.table.drop_ways(destination) {
                    self.refresh(*destination);
                }
                self.table.void_claim(destination);
            }
            let withdraw = Withdraw { addresses };
            for link in self.links.ids() {
                bump(&mut self.counters.withdrawals_sent);
                self.outputs.push_back(Output::Control(link, Frame::Withdraw(withdraw.clone())));
            }
        }
    }

    /// A neighbour has no way any more.
    pub(super) fn on_withdraw(&mut self, now: Instant, link: LinkId, withdraw: &Withdraw) {
        let Some(neighbour) = self.links.get(link).map(|state| state.neighbour) else { return };
        if !self.withdrawals.may_take(now, link) {
            return bump(&mut self.counters.withdrawals_over_budget);
        }
        for destination in &withdraw.addresses {
            if self.table.withdraw(destination, &neighbour) {
                bump(&mut self.counters.withdrawals);
                self.refresh(*destination);
                // Who said it has waited for the link to come back.
                self.lose(now, *destination);
                self.paths.remember_asker(now, *destination, link);
                self.floods.answer(now, *destination);
            } else {
                bump(&mut self.counters.withdrawals_foreign);
            }
        }
    }
}
