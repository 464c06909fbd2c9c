//! A shared medium inside one process: what radio is like, without its times.
//!
//! All ports hear every broadcast, frames are small, nobody proves who they are, and frames may be
//! lost: at random if asked for (from a seed, so that a run repeats), and when a receiver does not
//! read. Each frame carries its sender's name, as a radio frame carries a link sender id: a claim.
//! A neighbour becomes a [`Link`] when it is first heard or dialled.
//!
//! Deliberately absent: half duplex, collisions, airtime, duty cycle. The simulated radio models
//! those.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::wire::{FrameParts, TrafficClass};

use super::{
    BoxFuture, CloseCode, Direction, Link, LinkInfo, LinkPeer, LinkProfile, LinkReceiver, LinkSender,
    MeshTransport, PortStats, RECV_FRAMES_MAX, TransportAddr, TransportCapability, TransportError,
    TransportInfo, addr,
    framing::check_frames,
    inbox::{Inbox, count},
    lanes::Lane,
};

/// Frames of one neighbour that wait for a reader; later ones are lost, as a radio loses them.
const HEARD_FRAMES_MAX: usize = 256;

/// Neighbours a port keeps links with; strangers beyond that are not heard.
const NEIGHBOURS_MAX: usize = 64;

/// What a shared medium is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMediumOptions {
    /// What it is classified by, and its largest frame.
    pub profile: LinkProfile,
    /// Frames out of a thousand that a receiver loses, each receiver on its own.
    pub loss_permille: u16,
    /// Seed of the losses.
    pub seed: u64,
}

impl Default for SharedMediumOptions {
    /// A fast radio without loss.
    fn default() -> Self {
        let profile = LinkProfile { bitrate_bps: 5_469, mtu_bytes: 255, duty_cycle_permille: 100 };
        Self { profile, loss_permille: 0, seed: 0 }
    }
}

/// What the ports of one process hear each other on. Clones are the same medium.
#[derive(Clone)]
pub struct SharedMedium {
    air: Arc<Air>,
}

struct Air {
    options: SharedMediumOptions,
    state: Mutex<AirState>,
}

struct AirState {
    ports: BTreeMap<String, Arc<Ears>>,
    dice: u64,
}

impl SharedMedium {
    /// A medium of its own.
    pub fn new(options: SharedMediumOptions) -> Self {
        let state = AirState { ports: BTreeMap::new(), dice: options.seed };
        Self { air: Arc::new(Air { options, state: Mutex::new(state) }) }
    }

    /// Attaches a port under `name`.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`], [`TransportError::Addr`].
    pub fn attach(&self, name: &str) -> Result<SharedMemPort, TransportError> {
        let url = TransportAddr::named(addr::MEM_SHARED, name)?;
        let mut state = self.air.lock();
        if state.ports.contains_key(name) {
            return Err(TransportError::PortInUse { url });
        }
        let ears = Arc::new(Ears {
            name: name.to_owned(),
            inbox: Inbox::new(addr::MEM_SHARED),
            neighbours: Mutex::default(),
            air: Arc::downgrade(&self.air),
        });
        state.ports.insert(name.to_owned(), Arc::clone(&ears));
        drop(state);
        Ok(SharedMemPort { air: Arc::clone(&self.air), ears, url })
    }
}

impl Air {
    fn lock(&self) -> MutexGuard<'_, AirState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `frames` to everybody, or to `to` alone.
    fn transmit(&self, from: &str, to: Option<&str>, frames: &[FrameParts]) {
        let heard_by: Vec<_> = {
            let mut state = self.lock();
            let AirState { ports, dice } = &mut *state;
            let is_meant = |name: &str| name != from && to.is_none_or(|to| to == name);
            let mut heard_by = Vec::new();
            for frame in frames {
                let frame = frame.to_bytes();
                for (_, ears) in ports.iter().filter(|(name, _)| is_meant(name)) {
                    let lost = splitmix64(dice) % 1_000 < u64::from(self.options.loss_permille);
                    heard_by.push((Arc::clone(ears), frame.clone(), lost));
                }
            }
            heard_by
        };
        for (ears, frame, lost) in heard_by {
            if lost || !ears.hear(from, frame) {
                count(&ears.inbox.counters.frames_lost);
            }
        }
    }

    fn link_info(&self, url: TransportAddr, direction: Direction) -> LinkInfo {
        LinkInfo {
            remote: url,
            direction,
            mtu_bytes: self.options.profile.mtu_bytes,
            capability: TransportCapability::classify(&self.options.profile),
            streams_per_class: false,
            channel_binding: [0; 32],
        }
    }
}

impl fmt::Debug for SharedMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.air.lock().ports.keys()).finish()
    }
}

/// The receiving side of a port.
struct Ears {
    name: String,
    inbox: Inbox,
    neighbours: Mutex<BTreeMap<String, Arc<Heard>>>,
    air: Weak<Air>,
}

impl Ears {
    /// Takes a frame; false if it was lost.
    fn hear(self: &Arc<Self>, from: &str, frame: Bytes) -> bool {
        let known = self.lock().get(from).cloned();
        let heard = known.or_else(|| {
            let url = TransportAddr::named(addr::MEM_SHARED, from).ok()?;
            let (link, heard) = self.open(from, url, Direction::In).ok()?;
            self.inbox.deliver(link).is_ok().then_some(heard)
        });
        heard.is_some_and(|heard| heard.push(frame))
    }

    fn open(
        self: &Arc<Self>,
        name: &str,
        url: TransportAddr,
        direction: Direction,
    ) -> Result<(Link, Arc<Heard>), TransportError> {
        let air = self.air.upgrade().filter(|_| !self.inbox.is_closed()).ok_or(TransportError::PortClosed)?;
        let mut neighbours = self.lock();
        if neighbours.contains_key(name) || neighbours.len() >= NEIGHBOURS_MAX {
            return Err(TransportError::AlreadyLinked { url });
        }
        let heard = Arc::new(Heard::default());
        neighbours.insert(name.to_owned(), Arc::clone(&heard));
        drop(neighbours);
        let info = air.link_info(url, direction);
        let end = Arc::new(End {
            ears: Arc::clone(self),
            air,
            neighbour: name.to_owned(),
            heard: Arc::clone(&heard),
        });
        let link = Link {
            peer: LinkPeer::Nobody,
            tx: Box::new(SharedSender { end: Arc::clone(&end), mtu_bytes: info.mtu_bytes }),
            rx: Box::new(SharedReceiver { end }),
            info,
            lane: Lane::default(),
        };
        Ok((link, heard))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Heard>>> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.inbox.close();
        let neighbours = std::mem::take(&mut *self.lock());
        neighbours.values().for_each(|heard| heard.end(TransportError::lost("the port was closed")));
    }
}

/// What was heard from one neighbour.
#[derive(Default)]
struct Heard {
    state: Mutex<HeardState>,
    readable: Notify,
}

#[derive(Default)]
struct HeardState {
    frames: VecDeque<Bytes>,
    over: Option<TransportError>,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, HeardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Bytes) -> bool {
        let mut state = self.lock();
        let takes = state.over.is_none() && state.frames.len() < HEARD_FRAMES_MAX;
        if takes {
            state.frames.push_back(frame);
            self.readable.notify_one();
        }
        takes
    }

    fn pull(&self, out: &mut Vec<Bytes>) -> Result<bool, TransportError> {
        let mut state = self.lock();
        let frames = state.frames.len().min(RECV_FRAMES_MAX);
        out.extend(state.frames.drain(..frames));
        match &state.over {
            Some(over) if frames == 0 => Err(over.clone()),
            _ => Ok(frames > 0),
        }
    }

    fn end(&self, error: TransportError) {
        self.lock().over.get_or_insert(error);
        self.readable.notify_one();
    }
}

/// A link's end; when both halves are gone the neighbour can be heard anew.
struct End {
    ears: Arc<Ears>,
    air: Arc<Air>,
    neighbour: String,
    heard: Arc<Heard>,
}

impl End {
    fn forget(&self) {
        self.heard.end(TransportError::LinkClosed);
        let mut neighbours = self.ears.lock();
        // After a close the neighbour may have a new link already.
        if neighbours.get(&self.neighbour).is_some_and(|heard| Arc::ptr_eq(heard, &self.heard)) {
            neighbours.remove(&self.neighbour);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.forget();
    }
}

struct SharedSender {
    end: Arc<End>,
    mtu_bytes: usize,
}

impl LinkSender for SharedSender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        let over = self.end.heard.lock().over.clone();
        let sent = over.map_or(Ok(()), Err).and_then(|()| check_frames(class, frames, self.mtu_bytes, 0));
        if sent.is_ok() {
            self.end.air.transmit(&self.end.ears.name, Some(&self.end.neighbour), frames);
        }
        Box::pin(async { sent })
    }

    fn unwritten_bytes(&self, _class: TrafficClass) -> usize {
        0
    }

    /// Forgets the neighbour; nothing of it is on the air, so the neighbour learns nothing.
    fn close<'a>(&'a mut self, _code: CloseCode, _reason: &'a str) -> BoxFuture<'a, ()> {
        self.end.forget();
        Box::pin(async {})
    }
}

struct SharedReceiver {
    end: Arc<End>,
}

impl LinkReceiver for SharedReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            while !self.end.heard.pull(out)? {
                self.end.heard.readable.notified().await;
            }
            Ok(())
        })
    }
}

/// A port on a [`SharedMedium`]. Dropping it takes it off the air.
pub struct SharedMemPort {
    air: Arc<Air>,
    ears: Arc<Ears>,
    url: TransportAddr,
}

impl SharedMemPort {
    fn shut(&self) {
        if !self.ears.inbox.is_closed() {
            self.air.lock().ports.remove(&self.ears.name);
            self.ears.close();
        }
    }
}

impl MeshTransport for SharedMemPort {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: addr::MEM_SHARED,
            local: self.url.clone(),
            mtu_bytes: self.air.options.profile.mtu_bytes,
            capability: TransportCapability::classify(&self.air.options.profile),
            shared_medium: true,
        }
    }

    /// A link to a neighbour by its name. Nothing is sent, so nobody has to be there; a pin cannot
    /// be checked and is refused.
    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        let dialled = match (to.name(), to.pin()) {
            (Some(_), Some(_)) => {
                Err(TransportError::Unsupported { scheme: addr::MEM_SHARED, what: "prove a pinned identity" })
            }
            (Some(name), None) if name == self.ears.name => Err(TransportError::SelfDial { url: to.clone() }),
            (Some(name), None) => self.ears.open(name, to.clone(), Direction::Out).map(|(link, _)| link),
            (None, _) => Err(TransportError::Refused { url: to.clone() }),
        };
        Box::pin(async { dialled })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(self.ears.inbox.accept())
    }

    /// The neighbours that were heard or dialled and still have a link.
    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        let found = if self.ears.inbox.is_closed() {
            Err(TransportError::PortClosed)
        } else {
            let known = self.ears.lock();
            Ok(known.keys().filter_map(|name| TransportAddr::named(addr::MEM_SHARED, name).ok()).collect())
        };
        Box::pin(async { found })
    }

    fn broadcast<'a>(&'a self, frames: &'a [FrameParts]) -> BoxFuture<'a, Result<(), TransportError>> {
        let mtu_bytes = self.air.options.profile.mtu_bytes;
        let sent = if self.ears.inbox.is_closed() {
            Err(TransportError::PortClosed)
        } else {
            check_frames(TrafficClass::Control, frames, mtu_bytes, 0)
        };
        if sent.is_ok() {
            self.air.transmit(&self.ears.name, None, frames);
        }
        Box::pin(async { sent })
    }

    fn stats(&self) -> PortStats {
        self.ears.inbox.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shut();
        Box::pin(async {})
    }
}

impl Drop for SharedMemPort {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for SharedMemPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.ears.inbox.counters.frames_lost.load(Ordering::Relaxed);
        write!(f, "SharedMemPort({}, {lost} frames lost)", self.url)
    }
}

/// The next number of Steele, Lea and Flood's splitmix64: enough for dice that have to repeat.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> [FrameParts; 1] {
        [FrameParts::whole(Bytes::from_static(text.as_bytes()))]
    }

    async fn heard(link: &mut Link) -> Vec<Bytes> {
        let mut got = Vec::new();
        link.rx.recv(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn everybody_but_the_sender_hears_a_broadcast() {
        let medium = SharedMedium::new(SharedMediumOptions::default());
        let [a, b, c] = ["a", "b", "c"].map(|name| medium.attach(name).unwrap());
        a.broadcast(&frame("hello")).await.unwrap();
        for port in [&b, &c] {
            let mut from_a = port.accept().await.unwrap();
            assert_eq!(from_a.peer, LinkPeer::Nobody);
            assert_eq!(from_a.info.remote.to_string(), "mem-shared://a");
            assert_eq!(heard(&mut from_a).await, ["hello"]);
            assert_eq!(port.discover().await.unwrap().len(), 1);
        }
        assert_eq!(a.stats().accepted, 0);
    }

    #[tokio::test]
    async fn a_unicast_frame_is_for_one_neighbour() {
        let medium = SharedMedium::new(SharedMediumOptions::default());
        let [a, b, c] = ["a", "b", "c"].map(|name| medium.attach(name).unwrap());
        let mut to_b = a.dial(&"mem-shared://b".parse().unwrap()).await.unwrap();
        to_b.tx.send(TrafficClass::Control, &frame("psst")).await.unwrap();
        let mut from_a = b.accept().await.unwrap();
        assert_eq!(heard(&mut from_a).await, ["psst"]);
        from_a.tx.send(TrafficClass::Control, &frame("yes?")).await.unwrap();
        assert_eq!(heard(&mut to_b).await, ["yes?"]);
        assert_eq!(c.stats().accepted, 0);
    }

    #[tokio::test]
    async fn losses_repeat_from_their_seed_and_are_counted() {
        async fn run(seed: u64) -> Vec<Bytes> {
            let options = SharedMediumOptions { loss_permille: 300, seed, ..SharedMediumOptions::default() };
            let medium = SharedMedium::new(options);
            let (a, b) = (medium.attach("a").unwrap(), medium.attach("b").unwrap());
            for i in 0..100u8 {
                a.broadcast(&[FrameParts::whole(vec![i])]).await.unwrap();
            }
            let mut link = b.accept().await.unwrap();
            let lost = usize::try_from(b.stats().frames_lost).unwrap();
            let mut got = Vec::new();
            while got.len() < 100 - lost {
                link.rx.recv(&mut got).await.unwrap();
            }
            assert!((10..60).contains(&lost), "{lost}");
            got
        }
        assert_eq!(run(1).await, run(1).await);
        assert_ne!(run(1).await, run(2).await);
    }

    #[tokio::test]
    async fn a_reader_that_stops_loses_frames_and_costs_no_more_memory() {
        let medium = SharedMedium::new(SharedMediumOptions::default());
        let (a, b) = (medium.attach("a").unwrap(), medium.attach("b").unwrap());
        for _ in 0..HEARD_FRAMES_MAX + 10 {
            a.broadcast(&frame("x")).await.unwrap();
        }
        assert_eq!(b.stats().frames_lost, 10);
    }

    #[tokio::test]
    async fn a_neighbour_has_one_link_until_it_is_let_go() {
        let medium = SharedMedium::new(SharedMediumOptions::default());
        let (a, _b) = (medium.attach("a").unwrap(), medium.attach("b").unwrap());
        let url = "mem-shared://b".parse().unwrap();
        let mut link = a.dial(&url).await.unwrap();
        assert!(matches!(a.dial(&url).await, Err(TransportError::AlreadyLinked { .. })));
        link.tx.close(CloseCode::NORMAL, "").await;
        assert_eq!(link.rx.recv(&mut Vec::new()).await, Err(TransportError::LinkClosed));
        assert!(a.dial(&url).await.is_ok());
    }
}
