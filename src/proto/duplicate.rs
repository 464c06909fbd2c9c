//! Two links to one peer over the same transport: which one stays.
//!
//! Both ends decide by the same facts, so both keep the same link wherever those facts are the same
//! on both ends: who dialled, and the boot epochs. Only where neither decides is the older link
//! asked whether it still lives. QUIC and TCP to one peer are two links and both stay.
//!
//! The loser drains, says goodbye with `duplicate`, and is not redialled while the other stands.

use std::time::{Duration, Instant};

use crate::wire::Address;

use super::link::Direction;

/// Two links younger than this crossed on their way.
pub const CROSSING: Duration = Duration::from_secs(5);

/// How long the older link has to answer a ping.
pub const PROBE: Duration = Duration::from_secs(1);

/// What the rule has to know of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// Who dialled it.
    pub direction: Direction,
    /// The boot epoch in the peer's hello on this link.
    pub peer_boot_epoch: u32,
    /// When the peer's hello was accepted.
    pub established_at: Instant,
}

/// Which of the two stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The older one.
    KeepOld,
    /// The newer one.
    KeepNew,
    /// Ping the older one: it stays if it answers until then, else the newer one does.
    ProbeOld {
        /// End of the wait.
        until: Instant,
    },
}

/// The rule: the link of the peer's higher boot epoch; of two that crossed, the one that the lower
/// address dialled; else the older one if it lives.
pub fn judge(own: &Address, peer: &Address, old: &LinkFacts, new: &LinkFacts, now: Instant) -> Verdict {
    // A peer that started again has forgotten the old link, whatever its socket says.
    if new.peer_boot_epoch != old.peer_boot_epoch {
        return if new.peer_boot_epoch > old.peer_boot_epoch { Verdict::KeepNew } else { Verdict::KeepOld };
    }
    let is_young = |link: &LinkFacts| now.saturating_duration_since(link.established_at) < CROSSING;
    if old.direction != new.direction && is_young(old) && is_young(new) {
        let lower_dialled = if own < peer { Direction::Out } else { Direction::In };
        return if old.direction == lower_dialled { Verdict::KeepOld } else { Verdict::KeepNew };
    }
    Verdict::ProbeOld { until: now + PROBE }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Address = Address([1; 16]);
    const HIGH: Address = Address([2; 16]);

    fn link(direction: Direction, peer_boot_epoch: u32, established_at: Instant) -> LinkFacts {
        LinkFacts { direction, peer_boot_epoch, established_at }
    }

    #[test]
    fn a_restarted_peer_wins_with_its_new_link_at_once() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        for direction in [Direction::In, Direction::Out] {
            let old = link(Direction::Out, 3, start);
            let new = link(direction, 4, later);
            assert_eq!(judge(&LOW, &HIGH, &old, &new, later), Verdict::KeepNew);
            // A link that took a minute to say hello and comes from the boot before.
            assert_eq!(judge(&LOW, &HIGH, &new, &old, later), Verdict::KeepOld);
        }
    }

    #[test]
    fn of_two_links_that_crossed_both_ends_keep_the_same() {
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        for first in [Direction::In, Direction::Out] {
            // The low end sees the links in either order, the high end in either order.
            for other_order in [false, true] {
                let a = link(first, 7, start);
                let b = link(first.reversed(), 7, now);
                let low_keeps = match judge(&LOW, &HIGH, &a, &b, now) {
                    Verdict::KeepOld => a.direction,
                    Verdict::KeepNew => b.direction,
                    probe => panic!("{probe:?}"),
                };
                let mirrored = |l: &LinkFacts| LinkFacts { direction: l.direction.reversed(), ..*l };
                let (old, new) =
                    if other_order { (mirrored(&b), mirrored(&a)) } else { (mirrored(&a), mirrored(&b)) };
                let high_keeps = match judge(&HIGH, &LOW, &old, &new, now) {
                    Verdict::KeepOld => old.direction,
                    Verdict::KeepNew => new.direction,
                    probe => panic!("{probe:?}"),
                };
                assert_eq!(low_keeps, Direction::Out, "the lower address dialled it");
                assert_eq!(high_keeps, Direction::In);
            }
        }
    }

    #[test]
    fn an_older_link_is_asked_whether_it_lives() {
        let start = Instant::now();
        let now = start + Duration::from_secs(5);
        let probe = Verdict::ProbeOld { until: now + PROBE };
        let old = link(Direction::Out, 7, start);
        assert_eq!(judge(&LOW, &HIGH, &old, &link(Direction::In, 7, now), now), probe);
        // The same side dialled twice: nothing both ends agree on tells the two apart.
        let young = link(Direction::In, 7, now);
        assert_eq!(judge(&LOW, &HIGH, &young, &young, now), probe);
    }
}
