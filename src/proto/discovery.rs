//! Who else is on the local network, and whom of them to dial.
//!
//! A beacon ([`Beacon`]) is a hint and no more: anybody on the network can send any number of them,
//! repeat those of others, and, where the network has no secret, make them for nodes that do not exist.
//! Who is dialled has to prove an identity and the network's secret in the link's handshake as always.
//! So what has to hold here is that hints cost little: few bytes are kept of each, few are looked at a
//! second, few nodes are dialled a minute, whatever comes.
//!
//! Who hears whom first is chance, so both would dial. The lower instance number dials at once, the
//! other one after [`SECOND_DIALS_AFTER`], if by then nobody has come from there.
//!
//! A beacon names no identity. That of an instance is learned by dialling it, and from then on no dial
//! is made while a link to it stands, whoever opened that.

mod calls;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use hmac::Mac;
use rand_core::{CryptoRng, Rng};

use super::{limit::TokenBucket, link::NetworkSecret};
use crate::{
    crypto::{random, sign::CONTEXT},
    wire::{
        Address, NetworkId,
        beacon::{Beacon, BeaconListener},
        handshake::CloseReason,
    },
};
use calls::Calls;

pub use calls::{ANSWER_WITHIN, CALL_EVERY};

/// Instances remembered, some 200 bytes each: more than the nodes of a large office.
pub const INSTANCES_MAX: usize = 256;

/// Instances remembered of one address: a machine runs a few nodes at most.
pub const INSTANCES_OF_PLACE_MAX: usize = 8;

/// Addresses remembered of one instance: those of two interfaces, of both families.
pub const PLACES_MAX: usize = 4;

/// Addresses whose budgets are remembered.
pub const SOURCES_MAX: usize = 256;

/// Beacons looked at a second, all together; each costs one HMAC.
pub const BEACONS_PER_S: u64 = 100;

/// Beacons of one address looked at at once, and one more each second.
pub const BEACONS_OF_SOURCE: u64 = 16;

/// Dials that beacons lead to in any minute.
pub const DIALS_PER_MINUTE: usize = 12;

/// Dials to one address of these.
pub const DIALS_OF_PLACE_PER_MINUTE: usize = 4;

/// Links that stand or come by dials of these at a time: of a crowded network each node need not know all.
pub const LINKS_MAX: usize = 32;

/// How long the higher instance number leaves the dial to the other.
pub const SECOND_DIALS_AFTER: Duration = Duration::from_secs(3);

/// Dials of one instance in a row; then it is left alone, and dialled again when it is heard after that.
pub const TRIES_MAX: u32 = 4;

/// An instance that was not heard for so long is forgotten: more than three calls were lost.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(240);

/// The window of the limits of dials.
const MINUTE: Duration = Duration::from_secs(60);

/// How long an instance is left alone that is linked, or was met in another way.
const CONTENT_FOR: Duration = Duration::from_secs(20);

/// How long one is left alone that could not be reached; twice as long after each further row of tries.
const VAIN_PAUSE: Duration = Duration::from_secs(60);

/// How long one is left alone that does not want this node, or that the operator removed.
const UNWANTED_PAUSE: Duration = Duration::from_secs(600);

/// Before the second try of a row; twice as long before each further one.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a node's discovery is made of.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// The network.
    pub network: NetworkId,
    /// Its secret, where it has one.
    pub secret: Option<NetworkSecret>,
    /// Media that can be dialled, as beacons number them, the preferred one first.
    pub media: Vec<u8>,
}

/// Where a beacon came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The address.
    pub ip: IpAddr,
    /// Number of the interface, for link-local addresses of IPv6; else 0.
    pub scope: u32,
}

/// Somebody to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Which instance; what becomes of the dial is reported under it.
    pub instance: [u8; 8],
    /// Where.
    pub place: Place,
    /// Over what, and at which port.
    pub listener: BeaconListener,
}

/// What became of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A connection stands, and this node proved itself at the other end.
    Up(Address),
    /// This node itself answered.
    Own,
    /// Nobody answered.
    Failed,
    /// The link that stood is over.
    Ended(CloseReason),
}

/// A link of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linked {
    /// Who is on the other end.
    pub address: Address,
    /// The other end of it: where it was dialled, or came from.
    pub at: Option<(IpAddr, u16)>,
    /// True where the other one dialled.
    pub inbound: bool,
}

/// Why a datagram was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// No beacon of this version.
    Malformed,
    /// Own beacon, as the network brings it back.
    Own,
    /// Not of this network, or forged.
    Foreign,
    /// Its address sends too many.
    SourceBudget,
    /// All together are too many.
    Budget,
    /// Too many nodes are known already, or of this address.
    Full,
}

impl Ignored {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::Foreign => "foreign",
            Self::SourceBudget => "source_budget",
            Self::Budget => "budget",
            Self::Full => "full",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    config: DiscoveryConfig,
    instance: [u8; 8],
    calls: Calls,
    known: BTreeMap<[u8; 8], Known>,
    sources: BTreeMap<Place, TokenBucket>,
    budget: TokenBucket,
    /// Dials of the last minute.
    dialled: VecDeque<(Instant, Place)>,
}

/// What is known of an instance.
#[derive(Debug)]
struct Known {
    heard_at: Instant,
    places: Vec<(Place, Vec<BeaconListener>)>,
    stage: Stage,
    /// Dials in vain of this row.
    tries: u32,
    /// Rows in vain.
    rows: u32,
    address: Option<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be dialled then.
    Due(Instant),
    /// It is dialled, or linked by that.
    Dialling,
    /// Left alone until then; after that its next beacon has it looked at again.
    Rests(Instant),
    /// This node itself, by another name.
    Own,
}

impl Discovery {
    /// Begins to call at once. `instance` is random and new at each start.
    pub fn new(config: DiscoveryConfig, instance: [u8; 8], now: Instant, rng: &mut impl Rng) -> Self {
        Self {
            calls: Calls::new(now, rng),
            known: BTreeMap::new(),
            sources: BTreeMap::new(),
            budget: TokenBucket::new(BEACONS_PER_S, BEACONS_PER_S, now),
            dialled: VecDeque::new(),
            instance,
            config,
        }
    }

    /// Other nodes that were heard and are not forgotten.
    pub fn heard(&self) -> usize {
        self.known.values().filter(|known| known.stage != Stage::Own).count()
    }

    /// There are new ways out: whoever is there has not heard of this node.
    pub fn call_anew(&mut self, now: Instant, rng: &mut impl Rng) {
        self.calls.anew(now, rng);
    }

    /// Whether to send a beacon now on all interfaces, and if so whether it asks.
    pub fn call(&mut self, now: Instant, rng: &mut impl Rng) -> Option<bool> {
        self.calls.due(now, rng)
    }

    /// A beacon for one interface, on which links are taken at `listeners`; none where there are none.
    pub fn beacon(
        &self,
        ask: bool,
        listeners: &[BeaconListener],
        rng: &mut impl CryptoRng,
    ) -> Option<Vec<u8>> {
        let mut listeners = listeners.to_vec();
        listeners.sort_unstable();
        listeners.dedup();
        listeners.truncate(crate::wire::beacon::BEACON_LISTENERS_MAX);
        if listeners.is_empty() {
            return None;
        }
        let nonce = random::random_bytes(rng);
        let mut beacon = Beacon { instance: self.instance, ask, listeners, nonce, proof: [0; 8] };
        let mac = self.mac(&beacon)?.finalize().into_bytes();
        beacon.proof = *mac.first_chunk()?;
        Some(beacon.encode())
    }

    /// Takes a datagram from `from`.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub fn hear(
        &mut self,
        now: Instant,
        from: Place,
        datagram: &[u8],
        rng: &mut impl Rng,
    ) -> Result<(), Ignored> {
        if !self.budget.try_take(now, 1) {
            return Err(Ignored::Budget);
        }
        let beacon = Beacon::decode(datagram).map_err(|_| Ignored::Malformed)?;
        if beacon.instance == self.instance {
            return Err(Ignored::Own);
        }
        self.charge(now, from)?;
        let proven = self.mac(&beacon).is_some_and(|mac| mac.verify_truncated_left(&beacon.proof).is_ok());
        if !proven {
            return Err(Ignored::Foreign);
        }
        // One that cannot be dialled may dial, so its question is answered all the same.
        if beacon.ask {
            self.calls.asked(now, rng);
        }
        let media = &self.config.media;
        let listeners: Vec<_> =
            beacon.listeners.into_iter().filter(|listener| media.contains(&listener.medium)).collect();
        if listeners.is_empty() {
            return Ok(());
        }
        let first_at = now + self.delay(&beacon.instance, rng);
        let is_new = !self.known.contains_key(&beacon.instance);
        if is_new {
            self.make_room(now, from)?;
        }
        let known = self.known.entry(beacon.instance).or_insert(Known {
            heard_at: now,
            places: Vec::new(),
            stage: Stage::Due(first_at),
            tries: 0,
            rows: 0,
            address: None,
        });
        known.heard_at = now;
        // Who repeats a beacon of somebody else adds a place, and takes none away.
        if let Some((_, there)) = known.places.iter_mut().find(|(place, _)| *place == from) {
            *there = listeners;
        } else if known.places.len() < PLACES_MAX {
            known.places.push((from, listeners));
        }
        if matches!(known.stage, Stage::Rests(until) if until <= now) {
            known.stage = Stage::Due(first_at);
        }
        Ok(())
    }

    /// True where somebody is to be dialled now, unless there is a link already.
    pub fn wants_to_dial(&self, now: Instant) -> bool {
        self.known.values().any(|known| matches!(known.stage, Stage::Due(at) if at <= now))
    }

    /// Whom to dial now, given the links that stand. Each is reported with [`Discovery::came_to`].
    pub fn dials(&mut self, now: Instant, links: &[Linked], rng: &mut impl Rng) -> Vec<Dial> {
        while self.dialled.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= MINUTE) {
            self.dialled.pop_front();
        }
        let mut due: Vec<_> = self
            .known
            .iter()
            .filter_map(|(instance, known)| match known.stage {
                Stage::Due(at) if at <= now => Some((known.tries, at, *instance)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        let mut dials = Vec::new();
        let mut links_left = LINKS_MAX
            .saturating_sub(self.known.values().filter(|known| known.stage == Stage::Dialling).count());
        for (_, _, instance) in due {
            if self.is_met(&instance, links) {
                self.set(&instance, Stage::Rests(now + CONTENT_FOR));
                continue;
            }
            let Some(dial) = self.target(&instance) else { continue };
            if links_left == 0 {
                self.set(&instance, Stage::Rests(now + VAIN_PAUSE));
                continue;
            }
            match self.blocked_until(now, dial.place) {
                Some(until) => self.set(&instance, Stage::Due(until + jitter(MINUTE / 60, rng))),
                None => {
                    links_left = links_left.saturating_sub(1);
                    self.dialled.push_back((now, dial.place));
                    self.set(&instance, Stage::Dialling);
                    dials.push(dial);
                }
            }
        }
        dials
    }

    /// What became of a dial.
    pub fn came_to(&mut self, now: Instant, instance: &[u8; 8], outcome: Outcome, rng: &mut impl Rng) {
        let Some(known) = self.known.get_mut(instance) else { return };
        match outcome {
            Outcome::Own => known.stage = Stage::Own,
            Outcome::Up(address) => {
                known.address = Some(address);
                // Until the link says that it is over.
                known.stage = Stage::Dialling;
            }
            Outcome::Ended(reason) => {
                use CloseReason::*;
                match reason {
                    NetworkMismatch | VersionMismatch | NotAllowed | Removed | RateLimited | TooManyLinks => {
                        known.stage = Stage::Rests(now + UNWANTED_PAUSE);
                    }
                    // The other link stands; one that stops comes back as another instance.
                    Duplicate | Shutdown => known.stage = Stage::Rests(now + CONTENT_FOR),
                    ProtocolError | Unresponsive | Other(_) => known.failed(now, rng),
                }
            }
            Outcome::Failed => known.failed(now, rng),
        }
    }

    /// Drops what is old. Gives when there is something to do next.
    pub fn next_wake(&mut self, now: Instant) -> Instant {
        self.known.retain(|_, known| !known.is_forgotten(now));
        let due = self.known.values().filter_map(|known| match known.stage {
            Stage::Due(at) => Some(at),
            _ => None,
        });
        due.min().map_or(self.calls.next(), |at| at.min(self.calls.next()))
    }

    /// How long the first dial of this instance waits.
    fn delay(&self, instance: &[u8; 8], rng: &mut impl Rng) -> Duration {
        if self.instance < *instance {
            jitter(Duration::from_millis(100), rng)
        } else {
            SECOND_DIALS_AFTER + jitter(Duration::from_secs(1), rng)
        }
    }

    fn set(&mut self, instance: &[u8; 8], stage: Stage) {
        if let Some(known) = self.known.get_mut(instance) {
            known.stage = stage;
        }
    }

    /// True where a link to this instance stands. Where the other one is to dial, somebody is enough who
    /// came from there and is not known to be another instance.
    fn is_met(&mut self, instance: &[u8; 8], links: &[Linked]) -> bool {
        let others: BTreeSet<Address> = self
            .known
            .iter()
            .filter(|(other, _)| *other != instance)
            .filter_map(|(_, known)| known.address)
            .collect();
        let other_dials = *instance < self.instance;
        let Some(known) = self.known.get_mut(instance) else { return true };
        if known.address.is_none() {
            // Its own listener is at one end of the link.
            known.address =
                links.iter().find(|link| link.at.is_some_and(|at| known.listens_at(at))).map(|l| l.address);
        }
        if let Some(address) = known.address {
            return links.iter().any(|link| link.address == address);
        }
        other_dials
            && links.iter().any(|link| {
                let ip = link.at.filter(|_| link.inbound).map(|(ip, _)| ip);
                let is_from_there = known.places.iter().any(|(place, _)| Some(place.ip) == ip);
                is_from_there && !others.contains(&link.address)
            })
    }

    /// The next way to try: the preferred medium at each place, then the next medium.
    fn target(&self, instance: &[u8; 8]) -> Option<Dial> {
        let known = self.known.get(instance)?;
        let ways: Vec<Dial> = self
            .config
            .media
            .iter()
            .flat_map(|medium| {
                known.places.iter().flat_map(move |(place, listeners)| {
                    let fitting = listeners.iter().filter(move |listener| listener.medium == *medium);
                    fitting.map(|listener| Dial { instance: *instance, place: *place, listener: *listener })
                })
            })
            .collect();
        let way = (known.tries as usize).checked_rem(ways.len())?;
        ways.get(way).copied()
    }

    /// When this place may be dialled again; none for now.
    fn blocked_until(&self, now: Instant, place: Place) -> Option<Instant> {
        let of_place: Vec<Instant> =
            self.dialled.iter().filter(|(_, at)| at.ip == place.ip).map(|(at, _)| *at).collect();
        let place_is_full = of_place.len() >= DIALS_OF_PLACE_PER_MINUTE;
        let all_are_full = self.dialled.len() >= DIALS_PER_MINUTE;
        let first = [
            of_place.first().copied().filter(|_| place_is_full),
            self.dialled.front().map(|(at, _)| *at).filter(|_| all_are_full),
        ];
        let until = first.into_iter().flatten().max()? + MINUTE;
        Some(until.max(now))
    }

    /// Takes one beacon from the budget of its address.
    fn charge(&mut self, now: Instant, from: Place) -> Result<(), Ignored> {
        if !self.sources.contains_key(&from) && self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= SOURCES_MAX {
                return Err(Ignored::SourceBudget);
            }
        }
        let bucket = self.sources.entry(from).or_insert_with(|| TokenBucket::new(BEACONS_OF_SOURCE, 1, now));
        if bucket.try_take(now, 1) { Ok(()) } else { Err(Ignored::SourceBudget) }
    }

    /// Makes room for one more instance at `from`, or refuses it: who could not be reached goes first.
    fn make_room(&mut self, now: Instant, from: Place) -> Result<(), Ignored> {
        self.known.retain(|_, known| !known.is_forgotten(now));
        let is_from = |known: &Known| known.places.iter().any(|(place, _)| place.ip == from.ip);
        let of_place = self.known.values().filter(|known| is_from(known)).count();
        let vain = |known: &Known| known.rows > 0 && matches!(known.stage, Stage::Rests(_));
        let goes = if of_place >= INSTANCES_OF_PLACE_MAX {
            self.known
                .iter()
                .filter(|(_, known)| vain(known) && is_from(known))
                .min_by_key(|(_, k)| k.heard_at)
        } else if self.known.len() >= INSTANCES_MAX {
            self.known.iter().filter(|(_, known)| vain(known)).min_by_key(|(_, known)| known.heard_at)
        } else {
            return Ok(());
        };
        let instance = goes.map(|(instance, _)| *instance).ok_or(Ignored::Full)?;
        self.known.remove(&instance);
        Ok(())
    }

    /// The HMAC under what the network's nodes know, over all that the beacon says.
    fn mac(&self, beacon: &Beacon) -> Option<super::link::NetworkMac> {
        let mut mac = match &self.config.secret {
            Some(secret) => secret.keyed()?,
            None => NetworkSecret::new(self.config.network.0.to_vec()).keyed()?,
        };
        mac.update(CONTEXT.as_bytes());
        mac.update(b"beacon\0");
        mac.update(&[self.config.network.0.len() as u8]);
        mac.update(&self.config.network.0);
        mac.update(&beacon.proven());
        Some(mac)
    }
}

impl Known {
    fn listens_at(&self, (ip, port): (IpAddr, u16)) -> bool {
        self.places
            .iter()
            .any(|(place, listeners)| place.ip == ip && listeners.iter().any(|l| l.port == port))
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.stage != Stage::Dialling && now.saturating_duration_since(self.heard_at) >= FORGOTTEN_AFTER
    }

    fn failed(&mut self, now: Instant, rng: &mut impl Rng) {
        self.tries = self.tries.saturating_add(1);
        self.stage = if self.tries < TRIES_MAX {
            let wait = TRY_AGAIN_AFTER.saturating_mul(1 << self.tries.saturating_sub(1).min(8));
            Stage::Due(now + wait + jitter(wait, rng))
        } else {
            self.tries = 0;
            let pause = VAIN_PAUSE.saturating_mul(1 << self.rows.min(3));
            self.rows = self.rows.saturating_add(1);
            Stage::Rests(now + pause)
        };
    }
}

/// Evenly between nothing and `most`.
fn jitter(most: Duration, rng: &mut impl Rng) -> Duration {
    let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.next_u64() % most_ns.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests;
