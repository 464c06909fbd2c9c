//! Point-to-point links inside one process: for the tests of programs that embed a node, and for
//! simulation.
//!
//! The contract is that of QUIC: three classes with a buffer each, so that one that is full does
//! not hold up another, control read first. Links are loss-free and ordered, nothing here reads a
//! clock, and there is no global: ports that are to meet share a [`MemNetwork`].

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    crypto::{compute_address, hash::sha256},
    wire::{FrameParts, PublicKey, TrafficClass, limits::FRAME_BYTES_MAX},
};

use super::{
    BoxFuture, CLOSE_FLUSH_TIMEOUT, CloseCode, Direction, Link, LinkInfo, LinkPeer, LinkProfile,
    LinkReceiver, LinkSender, MeshTransport, PortStats, RECV_FRAMES_MAX, TransportAddr, TransportCapability,
    TransportError, addr,
    error::cut_reason,
    framing::{FrameQueue, check_frames},
    inbox::Inbox,
    lanes::Lane,
};

/// What the ports of one process meet on. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemNetwork {
    inner: Arc<Mutex<Network>>,
}

#[derive(Default)]
struct Network {
    ports: BTreeMap<String, Arc<Listener>>,
    links_made: u64,
}

/// What a memory port pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemOptions {
    /// What its links are classified by, and their largest frame.
    pub profile: LinkProfile,
    /// Bytes of each class a link holds for a reader before the writer has to wait. One frame is
    /// always taken, however small this is.
    pub buffer_bytes: usize,
}

impl Default for MemOptions {
    /// An unconstrained medium; buffers as large as QUIC's stream windows.
    fn default() -> Self {
        let profile = LinkProfile {
            bitrate_bps: 10_000_000_000,
            mtu_bytes: FRAME_BYTES_MAX,
            duty_cycle_permille: 1_000,
        };
        Self { profile, buffer_bytes: 128 * 1024 }
    }
}

impl MemNetwork {
    /// A network of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A port that listens at `mem://name` for the node with `key`. The key is taken on trust:
    /// there is nobody to deceive in one process.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`], [`TransportError::Addr`].
    pub fn listen(&self, name: &str, key: PublicKey) -> Result<MemPort, TransportError> {
        self.listen_with(name, key, MemOptions::default())
    }

    /// [`MemNetwork::listen`] on a medium that is not the default one.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`], [`TransportError::Addr`].
    pub fn listen_with(
        &self,
        name: &str,
        key: PublicKey,
        options: MemOptions,
    ) -> Result<MemPort, TransportError> {
        let url = TransportAddr::mem(name)?;
        let listener = Arc::new(Listener { url, key, options, inbox: Inbox::new(addr::MEM) });
        let mut network = self.lock();
        if network.ports.contains_key(name) {
            return Err(TransportError::PortInUse { url: listener.url.clone() });
        }
        network.ports.insert(name.to_owned(), Arc::clone(&listener));
        Ok(MemPort { network: self.clone(), listener })
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().ports.keys()).finish()
    }
}

struct Listener {
    url: TransportAddr,
    key: PublicKey,
    options: MemOptions,
    inbox: Inbox,
}

/// A port on a [`MemNetwork`]. Dropping it closes it; its links stay.
pub struct MemPort {
    network: MemNetwork,
    listener: Arc<Listener>,
}

impl MemPort {
    fn connect(&self, to: &TransportAddr) -> Result<Link, TransportError> {
        let refused = || TransportError::Refused { url: to.clone() };
        if self.listener.inbox.is_closed() {
            return Err(TransportError::PortClosed);
        }
        let mut network = self.network.lock();
        let remote = Arc::clone(to.name().and_then(|name| network.ports.get(name)).ok_or_else(refused)?);
        if remote.key == self.listener.key {
            return Err(TransportError::SelfDial { url: to.clone() });
        }
        let got = compute_address(&remote.key);
        if let Some(&expected) = to.pin().filter(|pin| **pin != got) {
            return Err(TransportError::PinMismatch { url: to.clone(), expected, got });
        }
        network.links_made = network.links_made.saturating_add(1);
        let serial = network.links_made;
        drop(network);
        let (here, there) = pair(&self.listener, &remote, serial);
        remote.inbox.deliver(there).map_err(|_| TransportError::Closed {
            code: CloseCode::BUSY,
            reason: "too many links wait to be accepted".into(),
        })?;
        Ok(here)
    }

    fn shut(&self) {
        if !self.listener.inbox.is_closed() {
            self.listener.inbox.close();
            self.listener.url.name().map(|name| self.network.lock().ports.remove(name));
        }
    }
}

impl MeshTransport for MemPort {
    fn info(&self) -> super::TransportInfo {
        super::TransportInfo {
            scheme: addr::MEM,
            local: self.listener.url.clone(),
            mtu_bytes: self.listener.options.profile.mtu_bytes,
            capability: TransportCapability::classify(&self.listener.options.profile),
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move { self.connect(to) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(self.listener.inbox.accept())
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        let open = !self.listener.inbox.is_closed();
        Box::pin(async move { if open { Ok(Vec::new()) } else { Err(TransportError::PortClosed) } })
    }

    fn stats(&self) -> PortStats {
        self.listener.inbox.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shut();
        Box::pin(async {})
    }
}

impl Drop for MemPort {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for MemPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemPort({})", self.listener.url)
    }
}

/// Both ends of a link from `a` to `b`; the poorer of the two media rules.
fn pair(a: &Listener, b: &Listener, serial: u64) -> (Link, Link) {
    let binding = sha256(&[b"mem", &serial.to_be_bytes(), a.key.as_bytes(), b.key.as_bytes()]).0;
    let mtu_bytes = a.options.profile.mtu_bytes.min(b.options.profile.mtu_bytes);
    let of = |listener: &Listener| TransportCapability::classify(&listener.options.profile);
    let capability = of(a).min(of(b));
    let to_b = Arc::new(Pipe::new(b.options.buffer_bytes));
    let to_a = Arc::new(Pipe::new(a.options.buffer_bytes));
    let link = |remote: &Listener, direction, out: &Arc<Pipe>, back: &Arc<Pipe>| {
        let end = Arc::new(End { out: Arc::clone(out), back: Arc::clone(back) });
        let info = LinkInfo {
            remote: remote.url.clone(),
            direction,
            mtu_bytes,
            capability,
            streams_per_class: true,
            channel_binding: binding,
        };
        let tx = MemSender { end: Arc::clone(&end), waiting: Default::default(), mtu_bytes };
        Link {
            peer: LinkPeer::Authenticated(remote.key),
            info,
            tx: Box::new(tx),
            rx: Box::new(MemReceiver { end }),
            lane: Lane::default(),
        }
    };
    (link(b, Direction::Out, &to_b, &to_a), link(a, Direction::In, &to_a, &to_b))
}

/// One direction of a link.
struct Pipe {
    state: Mutex<PipeState>,
    buffer_bytes: usize,
    readable: Notify,
    /// One for each class: there is one writer, but it may wait for any of them.
    writable: [Notify; 3],
}

#[derive(Default)]
struct PipeState {
    classes: [VecDeque<Bytes>; 3],
    class_bytes: [usize; 3],
    over: Option<Over>,
}

/// How a direction ended, as each of its ends is to see it.
#[derive(Clone)]
struct Over {
    reader: TransportError,
    writer: TransportError,
}

impl Pipe {
    fn new(buffer_bytes: usize) -> Self {
        Self { state: Mutex::default(), buffer_bytes, readable: Notify::new(), writable: Default::default() }
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves frames of `class` from `waiting` as far as there is room; true once all are moved.
    fn push(&self, class: TrafficClass, waiting: &mut FrameQueue) -> Result<bool, TransportError> {
        let mut state = self.lock();
        if let Some(over) = &state.over {
            return Err(over.writer.clone());
        }
        let PipeState { classes: [c, i, b], class_bytes: [c_bytes, i_bytes, b_bytes], .. } = &mut *state;
        let (queue, bytes) = match class {
            TrafficClass::Control => (c, c_bytes),
            TrafficClass::Interactive => (i, i_bytes),
            TrafficClass::Bulk => (b, b_bytes),
        };
        let mut moved = false;
        while let Some(frame) =
            waiting.pop_if(|frame| queue.is_empty() || bytes.saturating_add(frame.len()) <= self.buffer_bytes)
        {
            *bytes = bytes.saturating_add(frame.len());
            queue.push_back(frame.to_bytes());
            moved = true;
        }
        drop(state);
        if moved {
            self.readable.notify_one();
        }
        Ok(waiting.is_empty())
    }

    /// Appends what is there, control first; true if that was anything.
    fn pull(&self, out: &mut Vec<Bytes>) -> Result<bool, TransportError> {
        let mut state = self.lock();
        let PipeState { classes, class_bytes, over } = &mut *state;
        let mut room = RECV_FRAMES_MAX;
        for ((queue, bytes), writable) in classes.iter_mut().zip(class_bytes).zip(&self.writable) {
            let frames = queue.len().min(room);
            if frames > 0 {
                room = room.saturating_sub(frames);
                for frame in queue.drain(..frames) {
                    *bytes = bytes.saturating_sub(frame.len());
                    out.push(frame);
                }
                writable.notify_one();
            }
        }
        match over {
            _ if room < RECV_FRAMES_MAX => Ok(true),
            Some(over) => Err(over.reader.clone()),
            None => Ok(false),
        }
    }

    /// Ends the direction, if it has not ended before.
    fn end(&self, over: Over) {
        let mut state = self.lock();
        if state.over.is_none() {
            if over.reader == TransportError::LinkClosed {
                // Nobody reads what is left: this side closed.
                state.classes.iter_mut().for_each(VecDeque::clear);
            }
            state.over = Some(over);
        }
        drop(state);
        self.readable.notify_one();
        self.writable.iter().for_each(Notify::notify_one);
    }
}

/// One end of a link, shared by its halves. When both are gone the peer learns it.
struct End {
    out: Arc<Pipe>,
    back: Arc<Pipe>,
}

impl End {
    fn finish(&self, peer_sees: &TransportError) {
        let here = TransportError::LinkClosed;
        self.out.end(Over { reader: peer_sees.clone(), writer: here.clone() });
        self.back.end(Over { reader: here, writer: peer_sees.clone() });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.finish(&TransportError::lost("the peer let go of the link"));
    }
}

struct MemSender {
    end: Arc<End>,
    waiting: [FrameQueue; 3],
    mtu_bytes: usize,
}

impl MemSender {
    fn queue(&mut self, class: TrafficClass) -> &mut FrameQueue {
        let [control, interactive, bulk] = &mut self.waiting;
        match class {
            TrafficClass::Control => control,
            TrafficClass::Interactive => interactive,
            TrafficClass::Bulk => bulk,
        }
    }

    fn flush(&mut self, class: TrafficClass) -> impl Future<Output = Result<(), TransportError>> + Send + '_ {
        let pipe = Arc::clone(&self.end.out);
        let waiting = self.queue(class);
        async move {
            let [control, interactive, bulk] = &pipe.writable;
            let writable = match class {
                TrafficClass::Control => control,
                TrafficClass::Interactive => interactive,
                TrafficClass::Bulk => bulk,
            };
            while !pipe.push(class, waiting)? {
                writable.notified().await;
            }
            Ok(())
        }
    }
}

impl LinkSender for MemSender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        if let Err(error) = check_frames(class, frames, self.mtu_bytes, self.unwritten_bytes(class)) {
            return Box::pin(async { Err(error) });
        }
        let queue = self.queue(class);
        frames.iter().for_each(|frame| queue.push(frame));
        Box::pin(self.flush(class))
    }

    fn unwritten_bytes(&self, class: TrafficClass) -> usize {
        self.waiting.get(class as usize).map_or(0, FrameQueue::bytes)
    }

    fn close<'a>(&'a mut self, code: CloseCode, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let flush = async {
                for class in TrafficClass::ALL {
                    self.flush(class).await?;
                }
                Ok::<_, TransportError>(())
            };
            // Whether all of it went out changes nothing any more.
            let _ = tokio::time::timeout(CLOSE_FLUSH_TIMEOUT, flush).await;
            self.end.finish(&TransportError::Closed { code, reason: cut_reason(reason).to_owned() });
        })
    }
}

struct MemReceiver {
    end: Arc<End>,
}

impl LinkReceiver for MemReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            while !self.end.back.pull(out)? {
                self.end.back.readable.notified().await;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::inbox::WAITING_LINKS_MAX;

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    async fn link(options: MemOptions) -> (Link, Link) {
        let network = MemNetwork::new();
        let a = network.listen_with("a", key(1), options).unwrap();
        let b = network.listen_with("b", key(2), options).unwrap();
        let here = a.dial(&TransportAddr::mem("b").unwrap()).await.unwrap();
        (here, b.accept().await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_class_leaves_the_others_room_and_control_is_read_first() {
        let (mut a, mut b) = link(MemOptions { buffer_bytes: 10, ..MemOptions::default() }).await;
        let frame = |text: &'static [u8]| [FrameParts::whole(Bytes::from_static(text))];
        a.tx.send(TrafficClass::Bulk, &frame(b"0123456789")).await.unwrap();
        {
            let bulk = frame(b"bulk");
            let stuck = a.tx.send(TrafficClass::Bulk, &bulk);
            assert!(tokio::time::timeout(std::time::Duration::from_secs(60), stuck).await.is_err());
        }
        assert_eq!(a.tx.unwritten_bytes(TrafficClass::Bulk), 4);
        a.tx.send(TrafficClass::Control, &frame(b"control")).await.unwrap();
        let mut got = Vec::new();
        b.rx.recv(&mut got).await.unwrap();
        assert_eq!(got, ["control", "0123456789"]);
        a.tx.send(TrafficClass::Bulk, &[]).await.unwrap();
        got.clear();
        b.rx.recv(&mut got).await.unwrap();
        assert_eq!(got, ["bulk"]);
    }

    #[tokio::test]
    async fn the_poorer_medium_rules_the_link() {
        let network = MemNetwork::new();
        let thin = MemOptions {
            profile: LinkProfile { bitrate_bps: 293, mtu_bytes: 51, duty_cycle_permille: 10 },
            ..MemOptions::default()
        };
        let a = network.listen_with("a", key(1), thin).unwrap();
        let _b = network.listen("b", key(2)).unwrap();
        let mut link = a.dial(&TransportAddr::mem("b").unwrap()).await.unwrap();
        assert_eq!(link.info.mtu_bytes, 51);
        assert_eq!(link.info.capability, TransportCapability::SeverelyConstrained);
        let too_large = [FrameParts::whole(vec![0; 52])];
        let error = link.tx.send(TrafficClass::Control, &too_large).await.expect_err("over the mtu");
        assert_eq!(error, TransportError::FrameTooLarge { got_bytes: 52, limit_bytes: 51, from_peer: false });
    }

    #[tokio::test]
    async fn a_name_is_free_again_when_its_port_is_gone() {
        let network = MemNetwork::new();
        let first = network.listen("a", key(1)).unwrap();
        assert!(matches!(network.listen("a", key(2)), Err(TransportError::PortInUse { .. })));
        drop(first);
        assert!(network.listen("a", key(2)).is_ok());
    }

    #[tokio::test]
    async fn links_that_nobody_accepts_are_refused_in_the_end() {
        let network = MemNetwork::new();
        let (a, b) = (network.listen("a", key(1)).unwrap(), network.listen("b", key(2)).unwrap());
        let url = TransportAddr::mem("b").unwrap();
        let mut held = Vec::new();
        for _ in 0..WAITING_LINKS_MAX {
            held.push(a.dial(&url).await.unwrap());
        }
        let error = a.dial(&url).await.expect_err("the queue is full");
        assert!(matches!(error, TransportError::Closed { code: CloseCode::BUSY, .. }));
        assert_eq!(b.stats().accept_overflows, 1);
        // The links that wait end with their port.
        b.close().await;
        let mut first = held.swap_remove(0);
        assert!(matches!(first.rx.recv(&mut Vec::new()).await, Err(TransportError::Lost { .. })));
    }
}
