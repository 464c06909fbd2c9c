//! A medium in memory with an ear and a hand in it: it tells what a node receives, makes a neighbour's
//! frames late, changes them or loses them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use quicprochat_mesh::{
    transport::{
        BoxFuture, Link, LinkReceiver, MemPort, MeshTransport, PortStats, TransportAddr, TransportError,
        TransportInfo,
    },
    wire::{Address, Frame},
};
use tokio::time::Instant;

/// One frame as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The neighbour that sent it.
    pub(crate) from: Address,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

impl Heard {
    pub(crate) fn frame(&self) -> Frame {
        Frame::decode(&self.bytes).expect("honest nodes send sound frames")
    }

    /// True for frames about the link itself.
    pub(crate) fn is_links_own(&self) -> bool {
        is_links_own(&self.frame())
    }
}

/// True for frames about the link itself.
pub(crate) fn is_links_own(frame: &Frame) -> bool {
    matches!(frame, Frame::Hello(_) | Frame::Goodbye(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Credit(_))
}

type Change = fn(Frame) -> Option<Frame>;

#[derive(Default)]
struct State {
    is_listening: bool,
    heard: Vec<Heard>,
    late: BTreeMap<Address, Duration>,
    change: Option<Change>,
    lost: u64,
}

/// What is done to all that one node receives. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<State>>);

impl Tap {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Keeps what is received from now on.
    pub(crate) fn listen(&self) {
        self.lock().is_listening = true;
    }

    /// What was received since the last time, oldest first.
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.lock().heard)
    }

    /// Frames of `from` arrive so much later from now on.
    pub(crate) fn late(&self, from: Address, by: Duration) {
        self.lock().late.insert(from, by);
    }

    /// What is received becomes what `change` makes of it, or is lost where that is nothing.
    pub(crate) fn change(&self, change: Option<Change>) {
        self.lock().change = change;
    }

    /// Frames that [`Tap::change`] lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn pass(&self, from: Address, frames: &mut Vec<Bytes>) {
        let mut state = self.lock();
        if let Some(change) = state.change {
            let before = frames.len();
            *frames = frames
                .drain(..)
                .filter_map(|bytes| match Frame::decode(&bytes) {
                    Ok(frame) => change(frame).map(|frame| frame.encode()),
                    Err(_) => Some(bytes),
                })
                .collect();
            state.lost += (before - frames.len()) as u64;
        }
        if state.is_listening {
            state.heard.extend(frames.iter().map(|bytes| Heard { from, bytes: bytes.clone() }));
        }
    }
}

/// A port whose links are tapped.
pub(crate) struct TappedPort {
    pub(crate) port: MemPort,
    pub(crate) tap: Tap,
}

impl TappedPort {
    fn tapped(&self, mut link: Link) -> Link {
        let from = link.peer.address().unwrap();
        link.rx = Box::new(TappedReceiver {
            rx: link.rx,
            tap: self.tap.clone(),
            from,
            pending: Vec::new(),
            ready: Instant::now(),
        });
        link
    }
}

impl MeshTransport for TappedPort {
    fn info(&self) -> TransportInfo {
        self.port.info()
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move { self.port.dial(to).await.map(|link| self.tapped(link)) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(async move { self.port.accept().await.map(|link| self.tapped(link)) })
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        self.port.discover()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.port.close()
    }
}

struct TappedReceiver {
    rx: Box<dyn LinkReceiver>,
    tap: Tap,
    from: Address,
    /// Frames on their way through the tap: dropping a `recv` loses none.
    pending: Vec<Bytes>,
    ready: Instant,
}

impl LinkReceiver for TappedReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            loop {
                if self.pending.is_empty() {
                    self.rx.recv(&mut self.pending).await?;
                    let late = self.tap.lock().late.get(&self.from).copied().unwrap_or_default();
                    self.ready = Instant::now() + late;
                }
                if self.ready > Instant::now() {
                    tokio::time::sleep_until(self.ready).await;
                }
                self.tap.pass(self.from, &mut self.pending);
                if !self.pending.is_empty() {
                    out.append(&mut self.pending);
                    return Ok(());
                }
            }
        })
    }
}
