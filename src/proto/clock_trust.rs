//! Whether the wall clock may be believed. A message is dropped for its age by the clock only
//! where it is: no jump over a minute against the monotonic clock, not before the build, and not
//! off from the neighbours' clocks where at least three of them say so.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::wire::Address;

/// Largest step, and largest distance from the neighbours' median, of a trusted clock.
const TOLERANCE_S: u64 = 60;

/// Neighbours whose clocks count for something.
const QUORUM: usize = 3;

/// How long a jump is held against the clock: by then a time service that stepped it has settled.
const JUMP_MEMORY: Duration = Duration::from_secs(600);

/// Clocks of neighbours that are remembered.
const VOTES_MAX: usize = 64;

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It stands before the day this program was built.
    #[error("the clock stands {by_s} s before this program's build; set the clock")]
    BeforeBuild {
        /// By how much.
        by_s: u64,
    },
    /// It jumped against the monotonic clock.
    #[error("the clock jumped by {by_s} s")]
    Jumped {
        /// By how much.
        by_s: u64,
    },
    /// Neighbours agree on another time.
    #[error("the clock is {by_s} s off from the median of {neighbours} neighbours; set the clock")]
    OffFromNeighbours {
        /// By how much.
        by_s: u64,
        /// How many were asked.
        neighbours: usize,
    },
}

/// The clock of a neighbour, as its hello said.
#[derive(Debug, Clone, Copy)]
struct Vote {
    unix_s: u64,
    at: Instant,
}

/// Collects what is known of the wall clock.
#[derive(Debug)]
pub struct ClockTrust {
    build_unix_s: u64,
    anchor: (Instant, u64),
    jump: Option<(Instant, u64)>,
    votes: BTreeMap<Address, Vote>,
}

impl ClockTrust {
    /// Begins at `now` with the wall clock at `unix_s`; the clock of a machine does not stand
    /// before `build_unix_s`.
    pub fn new(now: Instant, unix_s: u64, build_unix_s: u64) -> Self {
        Self { build_unix_s, anchor: (now, unix_s), jump: None, votes: BTreeMap::new() }
    }

    /// A neighbour's hello told its clock. One vote a neighbour, and the first 64 of them.
    pub fn neighbour(&mut self, now: Instant, address: Address, unix_s: u64) {
        if self.votes.len() < VOTES_MAX || self.votes.contains_key(&address) {
            self.votes.insert(address, Vote { unix_s, at: now });
        }
    }

    /// The neighbour's last link is gone.
    pub fn neighbour_gone(&mut self, address: &Address) {
        self.votes.remove(address);
    }

    /// Compares the two clocks, and says whether the wall clock is to be believed. Call it at least
    /// once a minute, so that slow drift is not taken for a jump.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&mut self, now: Instant, unix_s: u64) -> Result<(), Distrust> {
        let (anchor_at, anchor_unix_s) = self.anchor;
        let elapsed_s = now.saturating_duration_since(anchor_at).as_secs();
        let step_s = unix_s.abs_diff(anchor_unix_s.saturating_add(elapsed_s));
        self.anchor = (now, unix_s);
        if step_s > TOLERANCE_S {
            self.jump = Some((now, step_s));
        }
        let jump = self.jump.filter(|(at, _)| now.saturating_duration_since(*at) < JUMP_MEMORY);
        self.jump = jump;
        let neighbours: Vec<u64> = self
            .votes
            .values()
            .map(|v| v.unix_s.saturating_add(now.saturating_duration_since(v.at).as_secs()))
            .collect();
        judge(unix_s, self.build_unix_s, jump.map(|(_, by_s)| by_s), neighbours)
    }
}

/// The rule itself. `neighbours` are their clocks, carried forward to now.
fn judge(
    unix_s: u64,
    build_unix_s: u64,
    jumped_by_s: Option<u64>,
    mut neighbours: Vec<u64>,
) -> Result<(), Distrust> {
    if let Some(by_s) = build_unix_s.checked_sub(unix_s).filter(|by_s| *by_s > 0) {
        return Err(Distrust::BeforeBuild { by_s });
    }
    if let Some(by_s) = jumped_by_s {
        return Err(Distrust::Jumped { by_s });
    }
    if neighbours.len() >= QUORUM {
        neighbours.sort_unstable();
        let median = neighbours.get(neighbours.len() / 2).copied().unwrap_or(unix_s);
        let by_s = unix_s.abs_diff(median);
        if by_s > TOLERANCE_S {
            return Err(Distrust::OffFromNeighbours { by_s, neighbours: neighbours.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: u64 = 1_000_000;
    const T: u64 = 2_000_000;

    #[test]
    fn the_rule() {
        let check = |unix_s, jump, neighbours: &[u64], want| {
            assert_eq!(
                judge(unix_s, BUILD, jump, neighbours.to_vec()),
                want,
                "{unix_s} {jump:?} {neighbours:?}"
            );
        };
        check(T, None, &[], Ok(()));
        check(BUILD, None, &[], Ok(()));
        check(BUILD - 1, None, &[], Err(Distrust::BeforeBuild { by_s: 1 }));
        check(T, Some(61), &[], Err(Distrust::Jumped { by_s: 61 }));
        // Two neighbours are no majority over our own clock.
        check(T, None, &[T + 500, T + 500], Ok(()));
        check(T, None, &[T + 60, T + 60, T + 60], Ok(()));
        check(T, None, &[T + 61, T + 61, 0], Err(Distrust::OffFromNeighbours { by_s: 61, neighbours: 3 }));
        // One neighbour that lies by any amount moves nothing.
        check(T, None, &[T, T + 1, u64::MAX], Ok(()));
        check(T, None, &[0, T, T + 1], Ok(()));
    }

    #[test]
    fn a_jump_is_forgotten_once_the_clock_ran_steadily() {
        let start = Instant::now();
        let mut clock = ClockTrust::new(start, T, BUILD);
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(clock.judge(at(60), T + 60), Ok(()));
        assert_eq!(clock.judge(at(120), T + 120 + 3600), Err(Distrust::Jumped { by_s: 3600 }));
        assert_eq!(clock.judge(at(180), T + 180 + 3600), Err(Distrust::Jumped { by_s: 3600 }));
        assert_eq!(clock.judge(at(720), T + 720 + 3600), Ok(()));
        // Back by an hour is a jump too.
        assert_eq!(clock.judge(at(780), T + 780), Err(Distrust::Jumped { by_s: 3600 }));
    }

    #[test]
    fn neighbours_clocks_go_on_and_end_with_their_link() {
        let start = Instant::now();
        let mut clock = ClockTrust::new(start, T, BUILD);
        for n in 1..=3 {
            clock.neighbour(start, Address([n; 16]), T + 200);
        }
        let later = start + Duration::from_secs(3600);
        let off = Distrust::OffFromNeighbours { by_s: 200, neighbours: 3 };
        assert_eq!(clock.judge(later, T + 3600), Err(off));
        clock.neighbour_gone(&Address([1; 16]));
        assert_eq!(clock.judge(later, T + 3600), Ok(()));
    }

    #[test]
    fn votes_are_bounded() {
        let now = Instant::now();
        let mut clock = ClockTrust::new(now, T, BUILD);
        for n in 0..1000u32 {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&n.to_be_bytes());
            clock.neighbour(now, Address(address), T);
        }
        assert_eq!(clock.votes.len(), VOTES_MAX);
    }
}
