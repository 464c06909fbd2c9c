//! A peer that proves its key as every node does, and then sends whatever a test wants.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::{MeshIdentity, SignatureInput, SignedType, network_id, network_tag},
    transport::{
        FrameParts, Link, MeshTransport, QuicOptions, QuicPort, TcpOptions, TcpPort, TlsIdentity,
        TransportAddr,
    },
    wire::{
        Address, Envelope, EnvelopeHeader, EnvelopeKind, Frame, FrameExt, Lifetime, NodeName, Priority,
        Proof, TrafficClass,
        handshake::{Goodbye, Hello, VERSION},
    },
};
use tokio::{runtime::Handle, sync::oneshot};

use super::PATIENCE;

/// The default network, on which test nodes run.
pub const NETWORK: &str = "public";

/// See the module.
pub struct RawPeer {
    runtime: Handle,
    link: Link,
    // Dropping it would end the link.
    _port: Box<dyn MeshTransport>,
    pub identity: MeshIdentity,
    sequence: u32,
    waiting: Vec<Bytes>,
    // Dropping it ends the thread that drives the sockets.
    _stop: oneshot::Sender<()>,
}

impl RawPeer {
    /// Connects and says nothing yet.
    #[track_caller]
    pub fn dial(url: &str, seed: u8) -> Self {
        Self::dial_from(None, url, [seed; 32])
    }

    /// The same from an address of this machine, such as `127.0.0.2`, over QUIC.
    #[track_caller]
    pub fn dial_from(from: Option<&str>, url: &str, seed: [u8; 32]) -> Self {
        let driver = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = driver.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // What was handed to the link goes out also while the test looks elsewhere.
        std::thread::spawn(move || drop(driver.block_on(stopped)));
        let identity = MeshIdentity::from_seed(seed);
        let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der()).unwrap();
        let guard = runtime.enter();
        let port: Box<dyn MeshTransport> = match (from, url.starts_with("quic")) {
            (Some(from), _) => {
                // A port dials from where it listens.
                let at: TransportAddr = format!("quic://{from}:0").parse().unwrap();
                Box::new(runtime.block_on(QuicPort::listen(&tls, &at, QuicOptions::default())).unwrap())
            }
            (None, true) => Box::new(QuicPort::dial_only(&tls, QuicOptions::default())),
            (None, false) => Box::new(TcpPort::dial_only(&tls, TcpOptions::default())),
        };
        drop(guard);
        let url: TransportAddr = url.parse().unwrap();
        let link = runtime.block_on(async { tokio::time::timeout(PATIENCE, port.dial(&url)).await });
        let link = link.expect("no link in time").unwrap();
        Self { runtime, link, _port: port, identity, sequence: 0, waiting: Vec::new(), _stop: stop }
    }

    /// Connects and says a good hello.
    #[track_caller]
    pub fn greet(url: &str, seed: u8) -> Self {
        Self::dial(url, seed).greeted()
    }

    /// Says a good hello and waits for the node's.
    #[track_caller]
    pub fn greeted(self) -> Self {
        let mut peer = self;
        peer.send(Frame::Hello(Self::hello()).encode());
        peer.frame("its hello", |frame| matches!(frame, Frame::Hello(_)));
        peer
    }

    /// A hello of the default network.
    pub fn hello() -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            network_tag: network_tag(&network_id(NETWORK)),
            network_proof: None,
            features: 0,
            boot_epoch: 1,
            nonce: *b"raw peer",
            clock_unix_s: unix_s().into(),
            initial_credit: [1 << 20; 3],
        }
    }

    pub fn address(&self) -> Address {
        self.identity.address()
    }

    #[track_caller]
    pub fn send(&mut self, frame: impl Into<Bytes>) {
        self.try_send(frame).unwrap();
    }

    /// Sends to a node that may have closed the link.
    pub fn try_send(&mut self, frame: impl Into<Bytes>) -> Result<(), String> {
        let frames = [FrameParts::whole(frame)];
        let sent =
            async { tokio::time::timeout(PATIENCE, self.link.tx.send(TrafficClass::Control, &frames)).await };
        self.runtime.block_on(sent).expect("a send takes for ever").map_err(|e| e.to_string())
    }

    /// The next frame that `is_it`, with its bytes; pings are answered on the way, others skipped.
    #[track_caller]
    pub fn frame(&mut self, what: &str, mut is_it: impl FnMut(&Frame) -> bool) -> (Frame, Bytes) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            let bytes = match self.recv() {
                Ok(bytes) => bytes,
                Err(end) => panic!("the link ended ({end}) before {what} came"),
            };
            let frame = Frame::decode(&bytes).unwrap();
            if is_it(&frame) {
                return (frame, bytes);
            }
        }
    }

    /// Reads to the goodbye.
    #[track_caller]
    pub fn goodbye(&mut self) -> Goodbye {
        match self.frame("a goodbye", |frame| matches!(frame, Frame::Goodbye(_))).0 {
            Frame::Goodbye(goodbye) => goodbye,
            _ => unreachable!("the filter lets nothing else through"),
        }
    }

    fn recv(&mut self) -> Result<Bytes, String> {
        while self.waiting.is_empty() {
            let mut frames = Vec::new();
            let read = async { tokio::time::timeout(PATIENCE, self.link.rx.recv(&mut frames)).await };
            self.runtime.block_on(read).map_err(|_| "silence")?.map_err(|e| e.to_string())?;
            for bytes in &frames {
                if let Ok(Frame::Ping(number)) = Frame::decode(bytes) {
                    // The node may have gone; the next read says so.
                    let _ = self.try_send(Frame::Pong(number).encode());
                }
            }
            self.waiting = frames;
        }
        Ok(self.waiting.remove(0))
    }

    /// A ping that comes back: the link stands, and everything sent before it was looked at.
    #[track_caller]
    pub fn is_served(&mut self) {
        let number = 1 << 40 | u64::from(self.sequence);
        self.sequence += 1;
        self.send(Frame::Ping(number).encode());
        self.frame("a pong", |frame| matches!(frame, Frame::Pong(n) if *n == number));
    }

    /// The frame of a well signed envelope to `destination`.
    pub fn envelope(&mut self, kind: EnvelopeKind, destination: Address, payload: &[u8]) -> Bytes {
        self.sequence += 1;
        let header = EnvelopeHeader {
            kind,
            priority: Priority::Normal,
            source: NodeName::Address(self.address()),
            destination: NodeName::Address(destination),
            boot_epoch: 1,
            sequence: self.sequence,
            created_unix_s: unix_s(),
            lifetime: Lifetime::TEN_MINUTES,
            max_hops: 8,
        };
        let signed = header.signed(payload);
        let mut input = SignatureInput::new(network_id(NETWORK));
        let signature = self.identity.sign(input.of(SignedType::EnvelopeV2, &signed));
        let key = Some(self.identity.public_key());
        let envelope = Envelope::assemble(header, &signed, Proof::Signature(signature), key).unwrap();
        envelope.to_frame(FrameExt::default()).to_bytes()
    }
}

fn unix_s() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs().try_into().unwrap()
}
