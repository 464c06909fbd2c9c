//! Who gives its place to a newcomer where a node has as many links as it may.
//!
//! Identities cost nothing, so links are counted by the party that holds them: whoever commands an address,
//! or 64 bits of an IPv6 one. One that holds two more than the newcomer's gives up the link that came last,
//! since links that stood before a crowd came are not of it. Links that this node dialled are its operator's
//! choice and give way to nobody. Where each party has as much as the newcomer would, there is no room: who
//! commands more addresses than a node has places can fill them all (THREATS A-18).

use std::{collections::BTreeMap, net::IpAddr};

use crate::wire::LinkId;

/// A link that holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub link: LinkId,
    /// Who holds it; `None` where this node dialled, or its medium has no addresses.
    pub party: Option<IpAddr>,
}

/// Which link gives its place to a newcomer of this party, `None` for one that this node dialled. Nobody's,
/// where no party holds two more than the newcomer's; among several that hold as many, the one whose link
/// came last. Links are numbered as they came.
pub fn who_gives_way(places: impl Iterator<Item = Place>, newcomer: Option<IpAddr>) -> Option<LinkId> {
    let mut held = BTreeMap::<IpAddr, (usize, LinkId)>::new();
    for Place { link, party } in places {
        let Some(party) = party else { continue };
        let (count, last) = held.entry(party).or_insert((0, link));
        *count = count.saturating_add(1);
        *last = (*last).max(link);
    }
    let own = newcomer.and_then(|party| held.get(&party)).map_or(0, |(count, _)| *count);
    let (most, last) = held.into_values().max()?;
    (most >= own.saturating_add(2)).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links numbered from 1 in this order; `-` is one that this node dialled.
    fn places(parties: &[&str]) -> Vec<Place> {
        let party = |text: &&str| text.parse().ok();
        (1u64..).zip(parties).map(|(n, text)| Place { link: LinkId(n), party: party(text) }).collect()
    }

    #[track_caller]
    fn check(held: &[&str], newcomer: &str, expected: Option<u64>) {
        let newcomer = newcomer.parse().ok();
        assert_eq!(who_gives_way(places(held).into_iter(), newcomer), expected.map(LinkId));
    }

    #[test]
    fn the_last_link_of_who_holds_most_gives_way() {
        let crowd = ["192.0.2.1", "192.0.2.7", "192.0.2.7", "198.51.100.1", "192.0.2.7", "-"];
        check(&crowd, "203.0.113.5", Some(5));
        check(&crowd, "-", Some(5));
        check(&crowd, "192.0.2.1", Some(5));
        // One of the crowd gets nothing by coming again.
        check(&crowd, "192.0.2.7", None);
    }

    #[test]
    fn nobody_gives_way_where_all_have_the_same() {
        check(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], "192.0.2.4", None);
        // To take one of two for a second of another changes nothing but who has two.
        check(&["192.0.2.1", "192.0.2.1", "192.0.2.2"], "192.0.2.2", None);
        check(&["192.0.2.1", "192.0.2.1", "192.0.2.2"], "192.0.2.9", Some(2));
        check(&[], "192.0.2.9", None);
    }

    #[test]
    fn what_this_node_dialled_stays() {
        check(&["-", "-", "-"], "192.0.2.4", None);
        check(&["-", "-", "-"], "-", None);
    }
}
