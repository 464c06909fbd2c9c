//! A medium of the program's own: whole frames over tokio's channels. Two nodes meet on it and pass
//! a message. `tests/transport_conformance.rs` is what a medium for real use should pass.
//!
//! `cargo run --example custom_transport`

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use quicprochat_mesh::{
    MeshConfig, MeshError, MeshIdentity, MeshNodeBuilder, MeshTransport, Outbound, RunHandle, TransportAddr,
    TransportCapability, TransportError, TransportInfo, compute_address,
    config::HealthListen,
    crypto::random::os_rng,
    transport::{
        BACKLOG_BYTES_MAX, BoxFuture, CLOSE_FLUSH_TIMEOUT, CloseCode, Direction, FrameParts, Lane, Link,
        LinkInfo, LinkPeer, LinkReceiver, LinkSender, RECV_FRAMES_MAX,
    },
    wire::{PublicKey, TrafficClass, limits::FRAME_BYTES_MAX},
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, watch},
    time::timeout,
};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// In front of `://`.
const SCHEME: &str = "channel";

/// Frames a link holds for its reader before its writer waits: both sides' memory is bounded.
const FRAMES_IN_FLIGHT: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let switchboard = Switchboard::default();
    let bert = start(&switchboard, "bert", dir.path()).await?;
    let anna = start(&switchboard, "anna", dir.path()).await?;
    anna.node().add_peer(TransportAddr::named(SCHEME, "bert")?).await?;

    anna.node().send(Outbound::new(bert.node().address(), "Hello over channels")).await?;
    let (message, content) = timeout(PATIENCE, bert.node().receive()).await??;
    println!("bert received {:?} over {} hop", String::from_utf8_lossy(&content), message.hops());
    for link in bert.node().peers().await? {
        println!("bert's link: {}", link.info.remote);
    }
    for node in [anna, bert] {
        timeout(PATIENCE, node.shutdown()).await??;
    }
    Ok(())
}

async fn start(switchboard: &Switchboard, name: &str, dir: &Path) -> Result<RunHandle, MeshError> {
    // The medium has to know the key before the node is there. One that is to last is loaded.
    let identity = MeshIdentity::generate(&mut os_rng());
    let port = Port::listen(switchboard, name, identity.public_key())?;
    // Beside the medium of our own, since every node listens somewhere.
    let config = MeshConfig::from_toml("[transport]\nlisten = ['tcp://127.0.0.1:0']\n")?;
    let builder = MeshNodeBuilder::new().config(config).data_dir(dir.join(name)).identity(identity);
    builder.transport(Arc::new(port)).health_listen(HealthListen::Off).build().await?.run().await
}

/// Who listens under which name, and where to leave a new link for them.
#[derive(Clone, Default)]
struct Switchboard(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    listeners: BTreeMap<String, (PublicKey, mpsc::Sender<Link>)>,
    links_made: u64,
}

impl Switchboard {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Port {
    switchboard: Switchboard,
    url: TransportAddr,
    key: PublicKey,
    accepted: AsyncMutex<mpsc::Receiver<Link>>,
    closed: watch::Sender<bool>,
}

impl Port {
    fn listen(switchboard: &Switchboard, name: &str, key: PublicKey) -> Result<Self, TransportError> {
        let url = TransportAddr::named(SCHEME, name)?;
        let (tx, rx) = mpsc::channel(16);
        switchboard.lines().listeners.insert(name.into(), (key, tx));
        let closed = watch::Sender::new(false);
        Ok(Self { switchboard: switchboard.clone(), url, key, accepted: AsyncMutex::new(rx), closed })
    }

    fn connect(&self, to: &TransportAddr) -> Result<Link, TransportError> {
        let refused = || TransportError::Refused { url: to.clone() };
        let mut lines = self.switchboard.lines();
        let found = to.name().and_then(|name| lines.listeners.get(name)).cloned();
        let (key, listener) = found.ok_or_else(refused)?;
        // Both keys are known for certain in one process. Over a wire they are to be proven here.
        let got = compute_address(&key);
        if let Some(&expected) = to.pin().filter(|pin| **pin != got) {
            return Err(TransportError::PinMismatch { url: to.clone(), expected, got });
        }
        lines.links_made += 1;
        let mut channel_binding = [1; 32];
        channel_binding[..8].copy_from_slice(&lines.links_made.to_be_bytes());
        drop(lines);

        let (to_there, at_there) = mpsc::channel(FRAMES_IN_FLIGHT);
        let (to_here, at_here) = mpsc::channel(FRAMES_IN_FLIGHT);
        let link = |key, remote: &TransportAddr, direction, tx, rx| Link {
            peer: LinkPeer::Authenticated(key),
            info: LinkInfo {
                remote: remote.clone(),
                direction,
                mtu_bytes: FRAME_BYTES_MAX,
                capability: TransportCapability::Unconstrained,
                streams_per_class: false,
                channel_binding,
            },
            tx: Box::new(Sender { out: Some(tx), waiting: Default::default() }),
            rx: Box::new(Receiver { frames: rx, ended: None }),
            lane: Lane::default(),
        };
        let there = link(self.key, &self.url, Direction::In, to_here, at_there);
        listener.try_send(there).map_err(|_| refused())?;
        Ok(link(key, to, Direction::Out, to_there, at_here))
    }
}

impl MeshTransport for Port {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: SCHEME,
            local: self.url.clone(),
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move { self.connect(to) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(async move {
            let mut closed = self.closed.subscribe();
            let next = async { self.accepted.lock().await.recv().await };
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => Err(TransportError::PortClosed),
                link = next => link.ok_or(TransportError::PortClosed),
            }
        })
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.send_replace(true);
        self.url.name().map(|name| self.switchboard.lines().listeners.remove(name));
        Box::pin(async {})
    }
}

/// What crosses a link.
enum Item {
    Frame(Bytes),
    Close(CloseCode, String),
}

struct Sender {
    /// None once this end closed.
    out: Option<mpsc::Sender<Item>>,
    /// Taken and not yet in the channel, by class.
    waiting: [VecDeque<Bytes>; 3],
}

impl Sender {
    /// A permit first, a frame second: a dropped future loses nothing.
    async fn flush(&mut self, class: TrafficClass) -> Result<(), TransportError> {
        let out = self.out.as_ref().ok_or(TransportError::LinkClosed)?;
        let gone = || TransportError::Lost { detail: "the peer let go of the link".into() };
        while !self.waiting[class as usize].is_empty() {
            let permit = out.reserve().await.map_err(|_| gone())?;
            if let Some(frame) = self.waiting[class as usize].pop_front() {
                permit.send(Item::Frame(frame));
            }
        }
        Ok(())
    }
}

impl LinkSender for Sender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        let unwritten_bytes = self.unwritten_bytes(class);
        let got_bytes = frames.iter().map(FrameParts::len).max().unwrap_or(1);
        let refused = if frames.iter().any(FrameParts::is_empty) {
            Some(TransportError::EmptyFrame { from_peer: false })
        } else if got_bytes > FRAME_BYTES_MAX {
            let limit_bytes = FRAME_BYTES_MAX;
            Some(TransportError::FrameTooLarge { got_bytes, limit_bytes, from_peer: false })
        } else if !frames.is_empty() && unwritten_bytes > BACKLOG_BYTES_MAX {
            Some(TransportError::Backlogged { class, unwritten_bytes })
        } else {
            // Taken by the call, before anybody polls.
            self.waiting[class as usize].extend(frames.iter().map(FrameParts::to_bytes));
            None
        };
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => self.flush(class).await,
            }
        })
    }

    fn unwritten_bytes(&self, class: TrafficClass) -> usize {
        self.waiting[class as usize].iter().map(Bytes::len).sum()
    }

    fn close<'a>(&'a mut self, code: CloseCode, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let goodbye = async {
                for class in TrafficClass::ALL {
                    self.flush(class).await?;
                }
                let out = self.out.as_ref().ok_or(TransportError::LinkClosed)?;
                // Whether the peer still listens changes nothing any more.
                let _ = out.send(Item::Close(code, reason.chars().take(64).collect())).await;
                Ok::<_, TransportError>(())
            };
            let _ = timeout(CLOSE_FLUSH_TIMEOUT, goodbye).await;
            self.out = None;
        })
    }
}

struct Receiver {
    frames: mpsc::Receiver<Item>,
    /// The end is told again to whoever asks again.
    ended: Option<TransportError>,
}

impl LinkReceiver for Receiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            let mut items = Vec::new();
            self.frames.recv_many(&mut items, RECV_FRAMES_MAX).await;
            let before = out.len();
            let mut ended = None;
            for item in items {
                match item {
                    Item::Frame(frame) => out.push(frame),
                    Item::Close(code, reason) => ended = Some(TransportError::Closed { code, reason }),
                }
            }
            if out.len() > before {
                // What came before the end is handed out first.
                self.ended = ended;
                return Ok(());
            }
            let lost = || TransportError::Lost { detail: "the peer let go of the link".into() };
            let ended = ended.unwrap_or_else(lost);
            self.ended = Some(ended.clone());
            Err(ended)
        })
    }
}
