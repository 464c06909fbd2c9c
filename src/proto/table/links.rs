//! The links that routes lead over, numbered in two bytes, and which routes lead over each.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::{LinkClass, NextHop, slab::Handle};
use crate::{
    proto::ranking::Standing,
    wire::{Address, LinkId},
};

/// No link.
pub(super) const NO_LINK: u16 = 0x7fff;

/// One way, in four bytes: a link's number with a mark for what an older announce brought, and,
/// from the lowest bit up, hops less one (7 bits), standing (4), time to the receipt (4), and
/// whether another neighbour brought it before. Standings and times beyond 15 are told as 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    link: u16,
    rest: u16,
}

const IS_OLDER: u16 = 0x8000;
const IS_LATER: u16 = 0x8000;

impl Default for Way {
    fn default() -> Self {
        Self { link: NO_LINK, rest: 0 }
    }
}

impl Way {
    /// The way over the link with that number.
    pub(super) fn new(number: u16, hop: &NextHop) -> Self {
        let mark = |is_set, bit| if is_set { bit } else { 0 };
        let hops = u16::from(hop.hops.saturating_sub(1).min(0x7f));
        let standing = u16::from(hop.standing.level().min(15)) << 7;
        let latency = u16::from(hop.latency_class.min(15)) << 11;
        Self {
            link: number | mark(hop.is_older, IS_OLDER),
            rest: hops | standing | latency | mark(hop.is_later, IS_LATER),
        }
    }

    pub(super) fn is_some(self) -> bool {
        self.number() != NO_LINK
    }

    /// The number of its link.
    pub(super) fn number(self) -> u16 {
        self.link & !IS_OLDER
    }

    /// The way in full.
    pub(super) fn hop(self, carriers: &Carriers) -> Option<NextHop> {
        let Key { link, neighbour, class } = carriers.get(self.number())?.key;
        Some(NextHop {
            standing: Standing::of_level((self.rest >> 7) as u8 & 15),
            is_older: self.link & IS_OLDER != 0,
            class,
            latency_class: (self.rest >> 11) as u8 & 15,
            hops: (self.rest as u8 & 0x7f).saturating_add(1),
            is_later: self.rest & IS_LATER != 0,
            link,
            neighbour,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    link: LinkId,
    neighbour: Address,
    class: LinkClass,
}

/// A numbered link.
#[derive(Debug)]
struct Carrier {
    key: Key,
    /// Entries with a way over it.
    routes: RoaringBitmap,
    /// Entries whose packets take it.
    users: u32,
}

/// The links by number. A number lives as long as somebody uses it.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    slots: Vec<Option<Carrier>>,
    free: Vec<u16>,
    numbers: BTreeMap<Key, u16>,
}

impl Carriers {
    fn get(&self, number: u16) -> Option<&Carrier> {
        self.slots.get(usize::from(number))?.as_ref()
    }

    fn get_mut(&mut self, number: u16) -> Option<&mut Carrier> {
        self.slots.get_mut(usize::from(number))?.as_mut()
    }

    /// The link with a number.
    pub(super) fn link(&self, number: u16) -> Option<LinkId> {
        self.get(number).map(|carrier| carrier.key.link)
    }

    /// The number of the link of a way, a fresh one where it has none; none where there are no more.
    pub(super) fn number(&mut self, hop: &NextHop) -> Option<u16> {
        self.number_of(Key { link: hop.link, neighbour: hop.neighbour, class: hop.class })
    }

    /// A number of a link, whatever it is to others.
    pub(super) fn number_of_link(&mut self, link: LinkId) -> Option<u16> {
        let lowest = Key { link, neighbour: Address([0; 16]), class: LinkClass::Unconstrained };
        let held = self.numbers.range(lowest..).next().filter(|(key, _)| key.link == link);
        match held.map(|(_, number)| *number) {
            Some(number) => Some(number),
            None => self.number_of(lowest),
        }
    }

    fn number_of(&mut self, key: Key) -> Option<u16> {
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        let carrier = Carrier { key, routes: RoaringBitmap::new(), users: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                *self.slots.get_mut(usize::from(number))? = Some(carrier);
                number
            }
            None => {
                let number = u16::try_from(self.slots.len()).ok().filter(|number| *number < NO_LINK)?;
                self.slots.push(Some(carrier));
                number
            }
        };
        self.numbers.insert(key, number);
        Some(number)
    }

    /// An entry has a way over a link from here on.
    pub(super) fn add_route(&mut self, number: u16, handle: Handle) {
        if let Some(carrier) = self.get_mut(number) {
            carrier.routes.insert(handle);
        }
    }

    /// It has none any more.
    pub(super) fn remove_route(&mut self, number: u16, handle: Handle) {
        if let Some(carrier) = self.get_mut(number) {
            carrier.routes.remove(handle);
        }
        self.let_go(number);
    }

    /// Packets to one more entry take a link.
    pub(super) fn add_user(&mut self, number: u16) {
        if let Some(carrier) = self.get_mut(number) {
            carrier.users = carrier.users.saturating_add(1);
        }
    }

    /// Packets to one of them do not any more.
    pub(super) fn remove_user(&mut self, number: u16) {
        if let Some(carrier) = self.get_mut(number) {
            carrier.users = carrier.users.saturating_sub(1);
        }
        self.let_go(number);
    }

    /// The entries with a way over a link.
    pub(super) fn routes_over(&self, link: LinkId) -> Vec<Handle> {
        let lowest = Key { link, neighbour: Address([0; 16]), class: LinkClass::Unconstrained };
        let of_link = self.numbers.range(lowest..).take_while(|(key, _)| key.link == link);
        of_link.filter_map(|(_, number)| self.get(*number)).flat_map(|carrier| &carrier.routes).collect()
    }

    fn let_go(&mut self, number: u16) {
        let unused = self.get(number).filter(|carrier| carrier.users == 0 && carrier.routes.is_empty());
        let Some(key) = unused.map(|carrier| carrier.key) else { return };
        self.numbers.remove(&key);
        if let Some(slot) = self.slots.get_mut(usize::from(number)) {
            *slot = None;
        }
        self.free.push(number);
    }

    /// Links that have a number.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(link: u64, hops: u8, level: u8) -> NextHop {
        NextHop {
            standing: Standing::of_level(level),
            is_older: hops.is_multiple_of(2),
            class: LinkClass::Medium,
            latency_class: hops % 16,
            hops,
            is_later: hops.is_multiple_of(3),
            link: LinkId(link),
            neighbour: Address([link as u8; 16]),
        }
    }

    #[test]
    fn a_way_is_read_back_as_it_was() {
        let mut carriers = Carriers::default();
        assert_eq!(Way::default().hop(&carriers), None);
        for hops in 1..=128 {
            for level in 0..=15 {
                let hop = hop(u64::from(hops % 7), hops, level);
                let number = carriers.number(&hop).unwrap();
                assert_eq!(Way::new(number, &hop).hop(&carriers), Some(hop));
            }
        }
        assert_eq!(carriers.len(), 7);
    }

    #[test]
    fn a_number_lives_as_long_as_it_is_used() {
        let mut carriers = Carriers::default();
        let number = carriers.number(&hop(1, 1, 3)).unwrap();
        carriers.add_route(number, 9);
        carriers.add_user(number);
        assert_eq!(carriers.number_of_link(LinkId(1)), Some(number));
        assert_eq!(carriers.routes_over(LinkId(1)), [9]);
        carriers.remove_route(number, 9);
        assert_eq!(carriers.link(number), Some(LinkId(1)));
        carriers.remove_user(number);
        assert_eq!((carriers.link(number), carriers.len()), (None, 0));
        assert_eq!(carriers.number_of_link(LinkId(2)), Some(number), "used again");
    }

    #[test]
    fn the_numbers_end() {
        let mut carriers = Carriers::default();
        for link in 0..u64::from(NO_LINK) {
            let number = carriers.number_of_link(LinkId(link)).unwrap();
            carriers.add_user(number);
        }
        assert_eq!(carriers.number_of_link(LinkId(1 << 40)), None);
        carriers.remove_user(7);
        assert_eq!(carriers.number_of_link(LinkId(1 << 40)), Some(7));
    }
}
