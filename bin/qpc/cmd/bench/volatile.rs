//! Ends that speak the link protocol and keep nothing: what is left to measure is the relay.

use bytes::Bytes;
use quicprochat_mesh::{
    api::ApiError,
    clock,
    crypto::{MeshIdentity, SignatureInput, SignedType, compute_address, network_id, random},
    proto::{
        delivery::batch::{Draft, sign_all},
        link::{self, HELLO_TIMEOUT, KEEPALIVE_INTERVAL, LinkConfig},
    },
    transport::{LinkReceiver, LinkSender, MeshTransport, QuicOptions, QuicPort, TlsIdentity, TransportAddr},
    wire::{
        Address, Announce, AnnounceContent, Capabilities, EnvelopeHeader, EnvelopeKind, Frame, FrameExt,
        FrameParts, Lifetime, NodeName, Priority, TrafficClass, path::Digest,
    },
};
use tokio::sync::mpsc;

use super::ends::{Incoming, Outgoing, Proof};

/// The default network, which the relay is in.
const NETWORK: &str = "public";

/// Frames handed to the medium at once.
const BATCH: usize = 32;

/// One end: an identity of its own and a link to the relay.
struct End {
    identity: MeshIdentity,
    input: SignatureInput,
    session: link::Link,
    tx: Box<dyn LinkSender>,
    rx: Box<dyn LinkReceiver>,
    /// Whose announces the relay passed on.
    heard_of: Vec<Address>,
    /// The link lives as long as its port.
    _port: QuicPort,
}

impl End {
    /// Dials, says hello, announces itself.
    async fn connect(relay: &str) -> Result<Self, ApiError> {
        let relay: TransportAddr = relay.parse().map_err(ApiError::failed)?;
        let identity = MeshIdentity::generate(&mut random::os_rng());
        let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der()).map_err(ApiError::failed)?;
        let port = QuicPort::dial_only(&tls, QuicOptions::default());
        let medium = port.dial(&relay).await.map_err(ApiError::failed)?;
        let config = LinkConfig {
            network: network_id(NETWORK),
            network_secret: None,
            own_key: identity.public_key(),
            peer: medium.peer.public_key().copied(),
            channel_binding: medium.info.channel_binding,
            direction: link::Direction::Out,
            features: 0,
            boot_epoch: 1,
            clock_unix_s: clock::unix_s(),
            initial_credit: [1 << 20; 3],
            keepalive: KEEPALIVE_INTERVAL,
            hello_timeout: HELLO_TIMEOUT,
        };
        let nonce = random::random_bytes(&mut random::os_rng());
        let mut end = Self {
            input: SignatureInput::new(config.network),
            session: link::Link::new(config, clock::now(), nonce),
            identity,
            tx: medium.tx,
            rx: medium.rx,
            heard_of: Vec::new(),
            _port: port,
        };
        end.session.handle(clock::now(), link::Input::Start).map_err(ApiError::failed)?;
        end.answer().await?;
        while !end.session.is_established() {
            end.receive().await?;
        }
        let announce = end.announce();
        // An end holds nothing; saying so has the relay tell what it holds.
        let holds_nothing = Digest { after: Address([0; 16]), through: Address::BROADCAST, entries: vec![] };
        let frames = [Frame::Announce(announce), Frame::Digest(holds_nothing)];
        let frames = frames.each_ref().map(FrameParts::from);
        end.tx.send(TrafficClass::Control, &frames).await.map_err(ApiError::failed)?;
        Ok(end)
    }

    fn announce(&mut self) -> Announce {
        let content = AnnounceContent {
            public_key: self.identity.public_key(),
            boot_epoch: 1,
            sequence: 1,
            capabilities: Capabilities::default(),
            lifetime_s: 3600,
            max_hops: 8,
            key_record_hash: None,
            keypackage_hash: None,
            service_data: Bytes::new(),
        };
        let signed = content.encode();
        let signature = self.identity.sign(self.input.of(SignedType::Announce, &signed));
        Announce::new(content, signed.into(), signature, None)
    }

    /// Sends what the session wants sent.
    async fn answer(&mut self) -> Result<(), ApiError> {
        let mut frames = Vec::new();
        while let Some(output) = self.session.poll() {
            match output {
                link::Output::Send(frame) => frames.push(FrameParts::from(&frame)),
                link::Output::Closed { text, .. } => {
                    return Err(ApiError::failed(format!("the relay closed the link: {text}")));
                }
                _ => {}
            }
        }
        if frames.is_empty() {
            return Ok(());
        }
        self.tx.send(TrafficClass::Control, &frames).await.map_err(ApiError::failed)
    }

    /// Reads what came before there was any message.
    async fn receive(&mut self) -> Result<(), ApiError> {
        let mut received = Vec::new();
        self.rx.recv(&mut received).await.map_err(ApiError::failed)?;
        for bytes in &received {
            let frame = Frame::decode(bytes).map_err(ApiError::failed)?;
            self.session.handle(clock::now(), link::Input::Frame(&frame)).map_err(ApiError::failed)?;
            if let Frame::Announce(announce) = &frame {
                self.heard_of.push(compute_address(&announce.content.public_key));
            }
        }
        self.answer().await
    }

    /// Waits until the relay has passed on the announce of `node`, and so has a route to it.
    async fn wait_for(&mut self, node: Address) -> Result<(), ApiError> {
        while !self.heard_of.contains(&node) {
            self.receive().await?;
        }
        Ok(())
    }
}

/// Signs envelopes and sends them.
pub struct Source {
    identity: MeshIdentity,
    input: SignatureInput,
    destination: Address,
    sequence: u32,
    tx: Box<dyn LinkSender>,
    /// What the reader wants sent: pongs.
    answers: mpsc::UnboundedReceiver<FrameParts>,
    proof: Proof,
    waiting: Vec<((), Draft)>,
    _port: QuicPort,
}

impl Source {
    /// Links to the relay and waits until that knows the way to the sink.
    pub async fn connect(relay: &str, sink: &str, proof: Proof) -> Result<Self, ApiError> {
        let destination: Address = sink.parse().map_err(ApiError::failed)?;
        let mut end = End::connect(relay).await?;
        end.wait_for(destination).await?;
        let End { identity, input, mut session, tx, mut rx, _port, .. } = end;
        let (answer, answers) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut received = Vec::new();
            while rx.recv(&mut received).await.is_ok() {
                for frame in received.drain(..).filter_map(|bytes| Frame::decode(&bytes).ok()) {
                    // A session that ends takes the relay's word for it: the next send fails.
                    let _ = session.handle(clock::now(), link::Input::Frame(&frame));
                }
                while let Some(output) = session.poll() {
                    if let link::Output::Send(frame) = output {
                        let _ = answer.send(FrameParts::from(&frame));
                    }
                }
            }
        });
        let waiting = Vec::with_capacity(BATCH);
        Ok(Self { identity, input, destination, sequence: 0, tx, answers, proof, waiting, _port })
    }
}

impl Outgoing for Source {
    async fn send(&mut self, payload: &[u8]) -> Result<(), ApiError> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = EnvelopeHeader {
            kind: EnvelopeKind::MESSAGE,
            priority: Priority::Normal,
            source: NodeName::Address(self.identity.address()),
            destination: NodeName::Address(self.destination),
            boot_epoch: 1,
            sequence: self.sequence,
            created_unix_s: u32::try_from(clock::unix_s()).unwrap_or(u32::MAX),
            lifetime: Lifetime::TEN_MINUTES,
            max_hops: 8,
        };
        let draft = Draft::new(header, header.signed(payload)).for_thin_links(self.proof == Proof::Plain);
        self.waiting.push(((), draft));
        if self.waiting.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        while let Ok(answer) = self.answers.try_recv() {
            self.tx.send(TrafficClass::Control, &[answer]).await.map_err(ApiError::failed)?;
        }
        let drafts = std::mem::take(&mut self.waiting);
        let mut frames = Vec::with_capacity(drafts.len());
        for ((), made) in sign_all(&self.identity, &mut self.input, drafts) {
            frames.push(made.map_err(ApiError::failed)?.envelope.to_frame(FrameExt::default()));
        }
        self.tx.send(TrafficClass::Interactive, &frames).await.map_err(ApiError::failed)
    }
}

/// Takes envelopes and keeps none.
pub struct Sink(End);

impl Sink {
    /// Links to the relay.
    pub async fn connect(relay: &str) -> Result<Self, ApiError> {
        End::connect(relay).await.map(Self)
    }

    /// Where to send to.
    pub fn address(&self) -> String {
        self.0.identity.address().to_string()
    }
}

impl Incoming for Sink {
    async fn receive(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        let mut received = Vec::new();
        self.0.rx.recv(&mut received).await.map_err(ApiError::failed)?;
        for bytes in &received {
            match Frame::decode(bytes).map_err(ApiError::failed)? {
                Frame::Envelope(envelope, _) => out.push(envelope.payload()),
                frame => {
                    self.0
                        .session
                        .handle(clock::now(), link::Input::Frame(&frame))
                        .map_err(ApiError::failed)?;
                }
            }
        }
        self.0.answer().await
    }
}
