//! What time it is, as far as a node can know.
//!
//! A wall clock may be set to anything at any moment: by a person, a time service, a dead battery.
//! So a node goes by two times:
//!
//! - **Steady time** never jumps and never goes back. It is the wall clock of the node's first
//!   start, carried on by the machine's own count of seconds since it was switched on, over restarts
//!   too. How long something has lain here is measured in it, and so nothing that was accepted
//!   ends because a clock was set.
//! - **The wall clock**, as far as it is believed ([`NodeClock::judge`]). What others are told, and
//!   what they wrote, is in it.
//!
//! The clock is believed where it did not jump by more than a minute against the count since the
//! machine was switched on, does not stand before the build of this program, nor lower than
//! at an earlier start, and is not off from the neighbours' median where three of them say so. A jump is
//! held against it until it is undone or most neighbours share the new time: they cannot set this
//! machine's clock, so none of them can bring a jump about.
//!
//! Over a restart of the process the count goes on, so a clock set meanwhile is found out. Over a
//! restart of the machine nobody counted: a clock that stands later is believed, the
//! time off counts in steady time only once three neighbours confirm it.

use std::{collections::BTreeMap, time::Duration};

use crate::wire::Address;

/// Largest step, and largest distance from the neighbours' median, of a trusted clock.
const TOLERANCE_S: u64 = 60;

/// Neighbours whose clocks count against our own.
const QUORUM: usize = 3;

/// Clocks of neighbours that are remembered.
const VOTES_MAX: usize = 64;

/// How long a judgement stands while the clock goes on as it did: whoever asks for the time with each
/// packet does not ask all neighbours each time.
const JUDGED_FOR: Duration = Duration::from_secs(1);

/// Bytes of an encoded [`Mark`].
const MARK_BYTES: usize = 1 + 8 + 8 + 16 + 8;

const MARK_VERSION: u8 = 1;

/// Both clocks of the machine, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since the machine was switched on, sleep included.
    pub up: Duration,
    /// The wall clock, seconds since 1970.
    pub unix_s: u64,
}

/// Names one run of the machine, from power on to power off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTime {
    /// Steady time, in seconds. Near the wall clock of a well-kept machine; compared with itself only.
    pub steady_s: u64,
    /// The best that is known of the time of day, seconds since 1970: the wall clock where it is
    /// believed, else what it would say had it not been set, else what most neighbours say.
    pub unix_s: u64,
    /// True where [`NodeTime::unix_s`] is the wall clock and is believed.
    pub trusted: bool,
}

/// The clocks at one moment, as a later start wants to find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    steady_s: u64,
    unix_s: u64,
    boot: BootId,
    up_s: u64,
}

impl Mark {
    /// Its bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MARK_BYTES);
        out.push(MARK_VERSION);
        out.extend_from_slice(&self.steady_s.to_be_bytes());
        out.extend_from_slice(&self.unix_s.to_be_bytes());
        out.extend_from_slice(&self.boot.0);
        out.extend_from_slice(&self.up_s.to_be_bytes());
        out
    }

    /// Reads what [`Mark::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (steady, rest) = rest.split_first_chunk::<8>()?;
        let (unix, rest) = rest.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let up: &[u8; 8] = rest.try_into().ok()?;
        (*version == MARK_VERSION).then_some(Self {
            steady_s: u64::from_be_bytes(*steady),
            unix_s: u64::from_be_bytes(*unix),
            boot: BootId(*boot),
            up_s: u64::from_be_bytes(*up),
        })
    }
}

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It stands before the day this program was built.
    #[error("the clock stands {by_s} s before this program's build; set the clock")]
    BeforeBuild {
        /// By how much.
        by_s: u64,
    },
    /// It was set while the machine ran, or stands before where an earlier start left it.
    #[error("the clock jumped by {by_s} s, and no neighbour confirms it yet")]
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
    up: Duration,
}

/// Collects what is known of the time.
#[derive(Debug)]
pub struct NodeClock {
    build_unix_s: u64,
    boot: BootId,
    /// Where steady time stood at which count since power on.
    steady: (u64, Duration),
    /// Where the wall clock stood at which count, when it was last believed not to have jumped.
    anchor: (u64, Duration),
    /// Time that the machine was off and nobody counted, once a quorum confirms the wall clock:
    /// where the wall clock stood when the machine was last seen on, and when that is counted from.
    off_since: Option<(u64, Duration)>,
    votes: BTreeMap<Address, Vote>,
    /// The count at which the wall clock was last found to be right.
    believed_at: Option<Duration>,
}

impl NodeClock {
    /// Begins with the clocks at `reading` of the machine's run `boot`; the clock of a machine does
    /// not stand before `build_unix_s`. `mark` is what an earlier start left.
    pub fn new(reading: Reading, boot: BootId, build_unix_s: u64, mark: Option<Mark>) -> Self {
        let first = reading.unix_s.max(build_unix_s);
        let (steady_s, anchor_unix_s, off_since) = match mark {
            None => (first, reading.unix_s, None),
            Some(mark) if mark.boot == boot && mark.up_s <= reading.up.as_secs() => {
                let since_s = reading.up.as_secs().saturating_sub(mark.up_s);
                (mark.steady_s.saturating_add(since_s), mark.unix_s.saturating_add(since_s), None)
            }
            // Another run: whoever stands later may be right, whoever stands earlier is not.
            Some(mark) => {
                let unix_s = match reading.unix_s.saturating_add(TOLERANCE_S) < mark.unix_s {
                    true => mark.unix_s,
                    false => reading.unix_s,
                };
                (mark.steady_s, unix_s, Some((mark.unix_s, reading.up)))
            }
        };
        Self {
            build_unix_s,
            boot,
            steady: (steady_s, reading.up),
            anchor: (anchor_unix_s, reading.up),
            off_since,
            votes: BTreeMap::new(),
            believed_at: None,
        }
    }

    /// A neighbour's hello told its clock. One vote a neighbour, and the first 64 of them.
    pub fn neighbour(&mut self, reading: Reading, address: Address, unix_s: u64) {
        if self.votes.len() < VOTES_MAX || self.votes.contains_key(&address) {
            self.votes.insert(address, Vote { unix_s, up: reading.up });
            self.believed_at = None;
        }
    }

    /// The neighbour's last link is gone.
    pub fn neighbour_gone(&mut self, address: &Address) {
        self.votes.remove(address);
        self.believed_at = None;
    }

    /// What time it is.
    pub fn time(&mut self, reading: Reading) -> NodeTime {
        let since = self.believed_at.map(|at| reading.up.saturating_sub(at));
        let goes_on = reading.unix_s.abs_diff(carried(self.anchor, reading)) <= TOLERANCE_S;
        let trusted =
            (goes_on && since.is_some_and(|since| since < JUDGED_FOR)) || self.judge(reading).is_ok();
        let unix_s = match trusted {
            true => reading.unix_s,
            false => match self.median(reading) {
                Some((median, votes)) if votes >= QUORUM => median,
                _ => carried(self.anchor, reading).max(self.build_unix_s),
            },
        };
        NodeTime { steady_s: carried(self.steady, reading), unix_s, trusted }
    }

    /// Compares the clocks, and says whether the wall clock is to be believed. Call it at least once
    /// a minute, so that slow drift is not taken for a jump.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&mut self, reading: Reading) -> Result<(), Distrust> {
        let Reading { unix_s, .. } = reading;
        self.believed_at = None;
        if let Some(by_s) = self.build_unix_s.checked_sub(unix_s).filter(|by_s| *by_s > 0) {
            return Err(Distrust::BeforeBuild { by_s });
        }
        let median = self.median(reading);
        let agrees = |at_least: usize| {
            median.is_some_and(|(median, votes)| votes >= at_least && unix_s.abs_diff(median) <= TOLERANCE_S)
        };
        let jumped_by_s = unix_s.abs_diff(carried(self.anchor, reading));
        // A clock that was known to be wrong could only be set right.
        let was_wrong = self.anchor.0 < self.build_unix_s;
        if jumped_by_s > TOLERANCE_S && !was_wrong && !agrees(1) {
            return Err(Distrust::Jumped { by_s: jumped_by_s });
        }
        if let Some((median, votes)) = median.filter(|(_, votes)| *votes >= QUORUM) {
            let by_s = unix_s.abs_diff(median);
            if by_s > TOLERANCE_S {
                return Err(Distrust::OffFromNeighbours { by_s, neighbours: votes });
            }
            self.count_time_off(reading);
        }
        self.anchor = (unix_s, reading.up);
        self.believed_at = Some(reading.up);
        Ok(())
    }

    /// What the next start is to know.
    pub fn mark(&mut self, reading: Reading) -> Mark {
        let NodeTime { steady_s, unix_s, .. } = self.time(reading);
        Mark { steady_s, unix_s, boot: self.boot, up_s: reading.up.as_secs() }
    }

    /// The clock is confirmed: what it says of the time that the machine was off is so.
    fn count_time_off(&mut self, reading: Reading) {
        let Some(since) = self.off_since.take() else { return };
        let off_s = reading.unix_s.saturating_sub(carried(since, reading));
        self.steady = (carried(self.steady, reading).saturating_add(off_s), reading.up);
    }

    /// The median of the neighbours' clocks, carried forward to now, and how many there are.
    fn median(&self, reading: Reading) -> Option<(u64, usize)> {
        let mut clocks: Vec<u64> =
            self.votes.values().map(|vote| carried((vote.unix_s, vote.up), reading)).collect();
        clocks.sort_unstable();
        Some((*clocks.get(clocks.len() / 2)?, clocks.len()))
    }
}

/// A clock that stood at `from.0` when the count was `from.1`, now.
fn carried(from: (u64, Duration), reading: Reading) -> u64 {
    from.0.saturating_add(reading.up.saturating_sub(from.1).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: u64 = 1_000_000_000;
    const T: u64 = 1_500_000_000;
    const HOUR: i64 = 3600;
    const YEAR: i64 = 366 * 86_400;
    const BOOT: BootId = BootId([1; 16]);
    /// To 1970, to 2038 and on, to 2106, and what people do.
    const JUMPS: [i64; 7] =
        [HOUR, -HOUR, YEAR, -YEAR, -(T as i64), (1 << 31) - T as i64, (1 << 32) - T as i64];

    /// The machine `up_s` after it was switched on, its wall clock off by `off_s`.
    fn at(up_s: u64, off_s: i64) -> Reading {
        Reading { up: Duration::from_secs(up_s), unix_s: (T + up_s).saturating_add_signed(off_s) }
    }

    fn started(mark: Option<Mark>, boot: BootId, reading: Reading) -> NodeClock {
        NodeClock::new(reading, boot, BUILD, mark)
    }

    fn votes(clock: &mut NodeClock, reading: Reading, unix_s: &[u64]) {
        for (n, unix_s) in (1..).zip(unix_s) {
            clock.neighbour(reading, Address([n; 16]), *unix_s);
        }
    }

    #[test]
    fn a_clock_that_runs_on_is_believed_and_both_times_go_with_it() {
        let mut clock = started(None, BOOT, at(10, 0));
        let time = NodeTime { steady_s: T + 5000, unix_s: T + 5000, trusted: true };
        assert_eq!(clock.time(at(5000, 0)), time);
        // Drift in small steps is none of our business.
        for minute in 1..600 {
            assert!(clock.time(at(5000 + minute * 60, minute as i64)).trusted);
        }
    }

    #[test]
    fn whatever_the_wall_clock_is_set_to_steady_time_goes_on() {
        for off_s in JUMPS {
            let mut clock = started(None, BOOT, at(10, 0));
            let time = clock.time(at(70, off_s));
            assert_eq!(time, NodeTime { steady_s: T + 70, unix_s: T + 70, trusted: false }, "{off_s}");
            // However long it stays there.
            let later = 30 * 86_400;
            let time = clock.time(at(later, off_s));
            assert_eq!(time, NodeTime { steady_s: T + later, unix_s: T + later, trusted: false }, "{off_s}");
            // Set back, it is believed again.
            assert!(clock.time(at(later + 1, 30)).trusted, "{off_s}");
        }
    }

    #[test]
    fn a_clock_set_while_the_process_was_down_is_found_out() {
        for off_s in JUMPS {
            let mut before = started(None, BOOT, at(10, 0));
            let mark = Mark::decode(&before.mark(at(100, 0)).encode()).unwrap();
            let mut after = started(Some(mark), BOOT, at(700, off_s));
            let time = NodeTime { steady_s: T + 700, unix_s: T + 700, trusted: false };
            assert_eq!(after.time(at(700, off_s)), time, "{off_s}");
            // And by the start after that.
            let mark = after.mark(at(800, off_s));
            let mut third = started(Some(mark), BOOT, at(900, off_s));
            assert!(!third.time(at(900, off_s)).trusted, "{off_s}");
            assert!(started(Some(mark), BOOT, at(900, 0)).time(at(901, 0)).trusted, "{off_s}");
        }
    }

    #[test]
    fn a_restart_of_the_process_loses_no_second() {
        let mark = started(None, BOOT, at(10, 0)).mark(at(100, 0));
        let mut after = started(Some(mark), BOOT, at(700, 0));
        assert_eq!(after.time(at(701, 0)), NodeTime { steady_s: T + 701, unix_s: T + 701, trusted: true });
    }

    #[test]
    fn time_that_the_machine_was_off_counts_once_neighbours_confirm_it() {
        let off_s = 5 * HOUR;
        let mark = started(None, BOOT, at(10, 0)).mark(at(100, 0));
        let again = BootId([2; 16]);
        let mut clock = started(Some(mark), again, at(3, off_s));
        let time = clock.time(at(63, off_s));
        let unix_s = T + 63 + off_s as u64;
        assert_eq!(time, NodeTime { steady_s: T + 160, unix_s, trusted: true });
        votes(&mut clock, at(63, 0), &[unix_s, unix_s]);
        assert_eq!(clock.time(at(63, off_s)).steady_s, T + 160, "two are no quorum");
        votes(&mut clock, at(63, 0), &[unix_s, unix_s, unix_s]);
        assert_eq!(clock.time(at(63, off_s)).steady_s, unix_s);
        assert_eq!(clock.time(at(73, off_s)).steady_s, unix_s + 10, "once");
    }

    #[test]
    fn a_machine_that_comes_up_earlier_than_it_went_down_has_a_wrong_clock() {
        let mark = started(None, BOOT, at(10, 0)).mark(at(100, 0));
        let mut clock = started(Some(mark), BootId([2; 16]), at(3, -YEAR));
        let time = clock.time(at(63, -YEAR));
        assert_eq!(time, NodeTime { steady_s: T + 160, unix_s: T + 160, trusted: false });
    }

    #[test]
    fn a_clock_that_began_before_the_build_is_believed_once_set() {
        let mut clock = started(None, BOOT, at(10, -(T as i64)));
        let time = clock.time(at(70, -(T as i64)));
        assert!(!time.trusted);
        assert_eq!((time.steady_s, time.unix_s), (BUILD + 60, BUILD));
        let time = clock.time(at(130, 0));
        assert!(time.trusted);
        assert_eq!((time.steady_s, time.unix_s), (BUILD + 120, T + 130));
    }

    #[test]
    fn neighbours_confirm_a_jump_that_happened_and_can_make_none() {
        let mut clock = started(None, BOOT, at(10, 0));
        assert!(clock.judge(at(70, YEAR)).is_err());
        votes(&mut clock, at(70, 0), &[T + 70]);
        assert!(clock.judge(at(70, YEAR)).is_err(), "it says the old time");
        votes(&mut clock, at(70, 0), &[T + 70 + YEAR as u64]);
        assert_eq!(clock.judge(at(70, YEAR)), Ok(()));
        // One or two that say anything move nothing where nothing jumped.
        let mut clock = started(None, BOOT, at(10, 0));
        votes(&mut clock, at(10, 0), &[T + 500, T + 500]);
        assert_eq!(clock.judge(at(70, 0)), Ok(()));
    }

    #[test]
    fn the_median_of_three_neighbours_rules() {
        let check = |neighbours: &[u64], want: Result<(), Distrust>| {
            let mut clock = started(None, BOOT, at(0, 0));
            votes(&mut clock, at(0, 0), neighbours);
            assert_eq!(clock.judge(at(0, 0)), want, "{neighbours:?}");
        };
        check(&[T + 60, T + 60, T + 60], Ok(()));
        check(&[T + 61, T + 61, 0], Err(Distrust::OffFromNeighbours { by_s: 61, neighbours: 3 }));
        check(&[T, T + 1, u64::MAX], Ok(()));
        check(&[0, T, T + 1], Ok(()));
        let mut clock = started(None, BOOT, at(0, -500));
        votes(&mut clock, at(0, 0), &[T, T, T]);
        assert_eq!(clock.time(at(3600, -500)).unix_s, T + 3600, "theirs goes on, and is the best known");
        clock.neighbour_gone(&Address([1; 16]));
        assert!(clock.time(at(3600, -500)).trusted, "two are no quorum");
    }

    #[test]
    fn a_judgement_of_a_moment_ago_stands_until_something_changes() {
        let half = |off_s| Reading { up: Duration::from_millis(10_500), ..at(10, off_s) };
        let mut clock = started(None, BOOT, at(10, 0));
        assert!(clock.time(at(10, 0)).trusted && clock.time(half(0)).trusted);
        assert!(!clock.time(half(YEAR)).trusted, "it was set");
        assert!(clock.time(half(0)).trusted);
        votes(&mut clock, half(0), &[T + 500, T + 500, T + 500]);
        assert!(!clock.time(half(0)).trusted, "three say otherwise");
        clock.neighbour_gone(&Address([1; 16]));
        assert!(clock.time(half(0)).trusted, "and two do not count");
    }

    #[test]
    fn votes_are_bounded() {
        let mut clock = started(None, BOOT, at(0, 0));
        for n in 0..1000u32 {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&n.to_be_bytes());
            clock.neighbour(at(0, 0), Address(address), T);
        }
        assert_eq!(clock.votes.len(), VOTES_MAX);
    }

    #[test]
    fn a_mark_that_is_none_is_not_read() {
        let bytes = started(None, BOOT, at(10, 0)).mark(at(100, 0)).encode();
        for len in 0..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..len]), None);
        }
        assert_eq!(Mark::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Mark::decode(&[&[2], &bytes[1..]].concat()), None);
    }
}
