//! Ends that speak the link protocol and keep nothing: what is left to measure is the relay.

use std::net::Ipv4Addr;

use bytes::Bytes;
use quicprochat_mesh::{
    api::ApiError,
    clock,
    crypto::{MeshIdentity, SignatureInput, SignedType, compute_address, network_id, random},
    proto::{
        credit::{self, CreditIn, CreditOut},
        delivery::batch::{Draft, sign_all, sign_one},
        link::{self, HELLO_TIMEOUT, KEEPALIVE_INTERVAL, LinkConfig},
    },
    transport::{
        LinkReceiver, LinkSender, MeshTransport, QuicOptions, QuicPort, TcpOptions, TcpPort, TlsIdentity,
        TransportAddr,
    },
    wire::{
        Address, Announce, AnnounceContent, Capabilities, EnvelopeHeader, EnvelopeKind, Frame, FrameExt,
        FrameParts, Lifetime, NodeName, Priority, TrafficClass, control::Credit, path::Digest,
    },
};
use tokio::sync::mpsc;

use super::ends::{BATCH, Incoming, Outgoing, Proof};

/// The default network, which the relay is in.
pub const NETWORK: &str = "public";

/// What an end grants the relay in each class, where the medium has one stream for all.
const WINDOW_BYTES: [u32; 3] = [1 << 20; 3];

/// One end: an identity of its own and a link to the relay.
pub struct End {
    identity: MeshIdentity,
    input: SignatureInput,
    session: link::Link,
    tx: Box<dyn LinkSender>,
    rx: Box<dyn LinkReceiver>,
    /// Whose announces the relay passed on before there was any message.
    heard_of: Vec<Address>,

    /// What the relay grants, where the medium has one stream for all classes.
    may_send: Option<CreditOut>,
    /// The link lives as long as its port.
    _port: Box<dyn MeshTransport>,
}

impl End {
    /// Dials, says hello, announces itself, as somebody new.
    async fn connect(relay: &str) -> Result<Self, ApiError> {
        Self::connect_as(relay, MeshIdentity::generate(&mut random::os_rng())).await
    }

    /// The same as `identity`.
    pub async fn connect_as(relay: &str, identity: MeshIdentity) -> Result<Self, ApiError> {
        let relay: TransportAddr = relay.parse().map_err(ApiError::failed)?;
        let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der()).map_err(ApiError::failed)?;
        let port: Box<dyn MeshTransport> = match relay.scheme() {
            "tcp" => Box::new(TcpPort::dial_only(&tls, TcpOptions::default())),
            _ => Box::new(QuicPort::dial_only(&tls, QuicOptions::default())),
        };
        Self::connect_over(port, relay, identity).await
    }

    async fn connect_over(
        port: Box<dyn MeshTransport>,
        relay: TransportAddr,
        identity: MeshIdentity,
    ) -> Result<Self, ApiError> {
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
            initial_credit: WINDOW_BYTES,
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
            may_send: (!medium.info.streams_per_class).then(|| CreditOut::new([0; 3])),
            _port: port,
        };
        end.session.handle(clock::now(), link::Input::Start).map_err(ApiError::failed)?;
        end.answer().await?;
        while !end.session.is_established() {
            end.receive().await?;
        }
        let announce = end.announce(1);
        // An end holds nothing; saying so has the relay tell what it holds.
        let holds_nothing = Digest { after: Address([0; 16]), through: Address::BROADCAST, entries: vec![] };
        let frames = [Frame::Announce(announce), Frame::Digest(holds_nothing)];
        let frames = frames.each_ref().map(FrameParts::from);
        end.tx.send(TrafficClass::Control, &frames).await.map_err(ApiError::failed)?;
        Ok(end)
    }

    fn announce(&mut self, sequence: u32) -> Announce {
        announce_of(&self.identity, &mut self.input, sequence)
    }

    /// Sends what the session wants sent.
    async fn answer(&mut self) -> Result<(), ApiError> {
        let mut frames = Vec::new();
        while let Some(output) = self.session.poll() {
            match output {
                link::Output::Send(frame) => frames.push(FrameParts::from(&frame)),
                link::Output::Established { peer_hello, .. } => {
                    self.may_send = self.may_send.take().map(|_| CreditOut::new(peer_hello.initial_credit));
                }
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

    /// From here on a task reads, and what it has to say waits for whoever sends.
    pub fn talk(self) -> Talk {
        let End { identity, input, mut session, tx, mut rx, may_send, _port, .. } = self;
        let (say, said) = mpsc::unbounded_channel();
        let (own, key) = (identity.address(), identity.public_key());
        tokio::spawn(async move {
            let mut received = Vec::new();
            while rx.recv(&mut received).await.is_ok() {
                for frame in received.drain(..).filter_map(|bytes| Frame::decode(&bytes).ok()) {
                    if matches!(&frame, Frame::KeyNeeded(address) if *address == own) {
                        let _ = say.send(Said::Answer(FrameParts::from(&Frame::KeyOffer(key))));
                    }
                    // A session that ends takes the relay's word for it: the next send fails.
                    let _ = session.handle(clock::now(), link::Input::Frame(&frame));
                }
                while let Some(output) = session.poll() {
                    // Who sends no more hears nothing.
                    let _ = match output {
                        link::Output::Send(frame) => say.send(Said::Answer(FrameParts::from(&frame))),
                        link::Output::Credit(credit) => say.send(Said::Granted(credit)),
                        link::Output::Closed { .. } => return,
                        _ => continue,
                    };
                }
            }
        });
        Talk { identity, input, tx, said, may_send, _port }
    }
}

/// The announce of a node that can do nothing in particular.
pub fn announce_of(identity: &MeshIdentity, input: &mut SignatureInput, sequence: u32) -> Announce {
    let content = AnnounceContent {
        public_key: identity.public_key(),
        boot_epoch: 1,
        sequence,
        capabilities: Capabilities::default(),
        lifetime_s: 3600,
        max_hops: 8,
        key_record_hash: None,
        keypackage_hash: None,
        service_data: Bytes::new(),
    };
    let signed = content.encode();
    let signature = identity.sign(input.of(SignedType::Announce, &signed));
    Announce::new(content, signed.into(), signature, None)
}

/// An end that sends, while a task reads for it.
pub struct Talk {
    pub identity: MeshIdentity,
    pub input: SignatureInput,
    pub tx: Box<dyn LinkSender>,
    /// Closed once the link is over.
    pub said: mpsc::UnboundedReceiver<Said>,
    may_send: Option<CreditOut>,
    _port: Box<dyn MeshTransport>,
}

/// Signs envelopes and sends them.
pub struct Source {
    talk: Talk,
    destination: Address,
    sequence: u32,
    proof: Proof,
    waiting: Vec<((), Draft)>,
    /// An envelope of this source went over the link, and its key with it.
    is_known: bool,
}

/// What the task that reads tells who sends.
pub enum Said {
    /// The session wants this sent: a pong.
    Answer(FrameParts),
    /// The relay grants more.
    Granted(Credit),
}

impl Source {
    /// Links to the relay and waits until that knows the way to the sink.
    pub async fn connect(relay: &str, sink: &str, proof: Proof) -> Result<Self, ApiError> {
        let destination: Address = sink.parse().map_err(ApiError::failed)?;
        let mut end = End::connect(relay).await?;
        end.wait_for(destination).await?;
        let waiting = Vec::with_capacity(BATCH);
        Ok(Self { talk: end.talk(), destination, sequence: 0, proof, waiting, is_known: false })
    }
}

impl Talk {
    /// Does what the session wants, or takes what was granted.
    pub async fn hear(&mut self, said: Said) -> Result<(), ApiError> {
        match said {
            Said::Answer(frame) => {
                self.tx.send(TrafficClass::Control, &[frame]).await.map_err(ApiError::failed)
            }
            Said::Granted(credit) => match &mut self.may_send {
                Some(may_send) => may_send.grant(credit).map_err(ApiError::failed),
                None => Ok(()),
            },
        }
    }

    /// Pays for a frame out of the relay's credit; false where there is too little.
    fn spend(&mut self, frame: &FrameParts) -> bool {
        self.may_send.as_mut().is_none_or(|credit| credit.spend(TrafficClass::Interactive, frame.len()))
    }
}

impl Outgoing for Source {
    async fn send(&mut self, payload: &[u8]) -> Result<(), ApiError> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = message_header(self.talk.identity.address(), self.destination, self.sequence);
        let draft = Draft::new(header, header.signed(payload)).for_thin_links(self.proof == Proof::Plain);
        self.waiting.push(((), draft));
        if self.waiting.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        while let Ok(said) = self.talk.said.try_recv() {
            self.talk.hear(said).await?;
        }
        let drafts = std::mem::take(&mut self.waiting);
        let mut frames = Vec::with_capacity(drafts.len());
        for ((), made) in sign_all(&self.talk.identity, &mut self.talk.input, drafts) {
            let mut envelope = made.map_err(ApiError::failed)?.envelope;
            if !std::mem::replace(&mut self.is_known, true) {
                envelope = envelope.with_source_key(self.talk.identity.public_key());
            }
            let frame = envelope.to_frame(FrameExt::default());
            while !self.talk.spend(&frame) {
                let paid = std::mem::take(&mut frames);
                self.talk.tx.send(TrafficClass::Interactive, &paid).await.map_err(ApiError::failed)?;
                let said = self.talk.said.recv().await;
                self.talk.hear(said.ok_or_else(|| ApiError::failed("the relay closed the link"))?).await?;
            }
            frames.push(frame);
        }
        self.talk.tx.send(TrafficClass::Interactive, &frames).await.map_err(ApiError::failed)
    }
}

/// The header of a message as any source would send it now.
pub fn message_header(source: Address, destination: Address, sequence: u32) -> EnvelopeHeader {
    EnvelopeHeader {
        kind: EnvelopeKind::MESSAGE,
        priority: Priority::Normal,
        source: NodeName::Address(source),
        destination: NodeName::Address(destination),
        boot_epoch: 1,
        sequence,
        created_unix_s: u32::try_from(clock::unix_s()).unwrap_or(u32::MAX),
        lifetime: Lifetime::TEN_MINUTES,
        max_hops: 8,
    }
}

/// Takes envelopes and keeps none.
pub struct Sink {
    end: End,
    granted: CreditIn,
    /// Announces of others that were not their first, since they were asked for.
    heard: u64,
}

impl Sink {
    /// Links to the relay.
    pub async fn connect(relay: &str) -> Result<Self, ApiError> {
        Self::connect_as(relay, MeshIdentity::generate(&mut random::os_rng())).await
    }

    /// The same as `identity`.
    pub async fn connect_as(relay: &str, identity: MeshIdentity) -> Result<Self, ApiError> {
        let end = End::connect_as(relay, identity).await?;
        Ok(Self { end, granted: CreditIn::new(WINDOW_BYTES), heard: 0 })
    }

    /// The same over QUIC as somebody new from this address of the machine: who comes from one address has
    /// one share.
    pub async fn connect_from(relay: &str, from: Ipv4Addr) -> Result<Self, ApiError> {
        let relay: TransportAddr = relay.parse().map_err(ApiError::failed)?;
        let identity = MeshIdentity::generate(&mut random::os_rng());
        let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der()).map_err(ApiError::failed)?;
        // A port dials from where it listens.
        let at = TransportAddr::socket("quic", (from, 0).into());
        let port = QuicPort::listen(&tls, &at, QuicOptions::default()).await.map_err(ApiError::failed)?;
        let end = End::connect_over(Box::new(port), relay, identity).await?;
        Ok(Self { end, granted: CreditIn::new(WINDOW_BYTES), heard: 0 })
    }

    /// Where to send to.
    pub fn address(&self) -> Address {
        self.end.identity.address()
    }

    /// Sends a message, one at a time: a few a second are far below what the relay grants at first
    /// and again.
    pub async fn send(&mut self, to: Address, sequence: u32, payload: &[u8]) -> Result<(), ApiError> {
        let header = message_header(self.address(), to, sequence);
        let draft = Draft::new(header, header.signed(payload));
        let made = sign_one(&self.end.identity, &mut self.end.input, draft).map_err(ApiError::failed)?;
        // Whoever has heard of the key keeps it; once a second it costs nothing to say it again.
        let envelope = made.envelope.with_source_key(self.end.identity.public_key());
        let frame = envelope.to_frame(FrameExt::default());
        self.end.tx.send(TrafficClass::Interactive, &[frame]).await.map_err(ApiError::failed)
    }

    /// Announces this end once more.
    pub async fn announce_anew(&mut self, sequence: u32) -> Result<(), ApiError> {
        let announce = Frame::Announce(self.end.announce(sequence));
        self.end.tx.send(TrafficClass::Control, &[(&announce).into()]).await.map_err(ApiError::failed)
    }

    /// Sends frames that are no envelopes.
    pub async fn send_frames(&mut self, frames: &[FrameParts]) -> Result<(), ApiError> {
        self.end.tx.send(TrafficClass::Control, frames).await.map_err(ApiError::failed)
    }

    /// How many announces of others that were not their first came since this was asked last.
    pub fn take_heard(&mut self) -> u64 {
        std::mem::take(&mut self.heard)
    }
}

impl Incoming for Sink {
    async fn receive(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        let mut received = Vec::new();
        self.end.rx.recv(&mut received).await.map_err(ApiError::failed)?;
        let mut done = [0; 3];
        for bytes in &received {
            match Frame::decode(bytes).map_err(ApiError::failed)? {
                Frame::Envelope(envelope, _) => {
                    let class = envelope.header().class() as usize;
                    if let Some(done) = done.get_mut(class) {
                        *done += credit::cost(bytes.len());
                    }
                    out.push(envelope.payload());
                }
                frame => {
                    if let Frame::Announce(announce) = &frame
                        && announce.content.sequence > 1
                    {
                        self.heard = self.heard.saturating_add(1);
                    }
                    self.end
                        .session
                        .handle(clock::now(), link::Input::Frame(&frame))
                        .map_err(ApiError::failed)?;
                }
            }
        }
        if self.end.may_send.is_some() {
            self.granted.came(done).map_err(ApiError::failed)?;
            let grants: Vec<_> =
                self.granted.done(done).into_iter().map(|credit| (&Frame::Credit(credit)).into()).collect();
            if !grants.is_empty() {
                self.end.tx.send(TrafficClass::Control, &grants).await.map_err(ApiError::failed)?;
            }
        }
        self.end.answer().await
    }
}
