//! Somebody with a key and a medium who speaks the link protocol by hand, and so says what he wants.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use bytes::Bytes;
use quicprochat_mesh::{
    clock,
    crypto::{MeshIdentity, SignatureInput, SignedType, compute_address},
    proto::{
        announce::{AnnounceParts, create_announce},
        credit::WINDOW_BYTES,
        link::{Direction, HELLO_TIMEOUT, Input, Link as Session, LinkConfig, Output},
    },
    transport::{Link, MemNetwork, MemPort, MeshTransport},
    wire::{
        Address, Announce, Capabilities, Envelope, EnvelopeFormat, EnvelopeHeader, EnvelopeKind, Frame,
        FrameExt, FrameParts, Lifetime, NodeName, PacketId, Priority, Proof, PublicKey, TrafficClass,
        control::PathRequest,
        handshake::{CloseReason, Goodbye},
    },
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{
    node::{NETWORK, Node, secs, url},
    tap::is_links_own,
};

/// Who signs what he is told to.
pub(crate) struct Signer {
    pub(crate) identity: MeshIdentity,
    pub(crate) input: SignatureInput,
    sequence: u32,
}

impl Signer {
    pub(crate) fn of_seed(seed: [u8; 32]) -> Self {
        let identity = MeshIdentity::from_seed(seed);
        Self { identity, input: SignatureInput::new(NETWORK), sequence: 0 }
    }

    /// One of very many.
    pub(crate) fn stranger(n: u32) -> Self {
        let mut seed = [0xa5; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        Self::of_seed(seed)
    }

    pub(crate) fn address(&self) -> Address {
        self.identity.address()
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    pub(crate) fn announce(&mut self, order: (u32, u32)) -> Announce {
        let parts = AnnounceParts {
            order,
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime: secs(1800),
            max_hops: 128,
            key_record: None,
        };
        create_announce(&self.identity, &mut self.input, &parts)
    }

    pub(crate) fn header(&mut self, kind: EnvelopeKind, to: Address) -> EnvelopeHeader {
        self.sequence += 1;
        EnvelopeHeader {
            kind,
            priority: Priority::Normal,
            source: NodeName::Address(self.address()),
            destination: NodeName::Address(to),
            boot_epoch: 1,
            sequence: self.sequence,
            created_unix_s: u32::try_from(clock::unix_s()).unwrap(),
            lifetime: Lifetime::TEN_MINUTES,
            max_hops: 32,
        }
    }

    /// Signs an envelope, the key attached.
    pub(crate) fn seal(&mut self, header: EnvelopeHeader, payload: &[u8]) -> (PacketId, Envelope) {
        let signed = header.signed(payload);
        let input = self.input.of(SignedType::EnvelopeV2, &signed);
        let packet_id = input.packet_id();
        let proof = Proof::Signature(self.identity.sign(input));
        let key = Some(self.identity.public_key());
        (packet_id, Envelope::assemble(header, &signed, proof, key).unwrap())
    }

    pub(crate) fn envelope(&mut self, kind: EnvelopeKind, to: Address) -> (PacketId, Envelope) {
        let header = self.header(kind, to);
        self.seal(header, b"payload")
    }
}

/// The bytes of an envelope's frame.
pub(crate) fn framed(envelope: &Envelope) -> Bytes {
    envelope.to_frame(FrameExt::default()).to_bytes()
}

/// The id of a packet, computed as every node does.
pub(crate) fn packet_id(envelope: &Envelope) -> PacketId {
    let signed_type = match envelope.format() {
        EnvelopeFormat::V1 => SignedType::EnvelopeV1,
        EnvelopeFormat::V2 => SignedType::EnvelopeV2,
    };
    SignatureInput::new(NETWORK).of(signed_type, envelope.signed()).packet_id()
}

/// A question for a path that nobody has asked before.
pub(crate) fn path_request(n: u64, destination: Address) -> Frame {
    let request_id = (n ^ 0x5eed_0000_0000_0000).to_be_bytes();
    Frame::PathRequest(PathRequest { request_id, destination, max_hops: 128, hop_count: 0, newer_than: None })
}

/// A key, a medium and any number of links.
pub(crate) struct Attacker {
    pub(crate) signer: Signer,
    port: MemPort,
}

/// One link of an attacker's.
pub(crate) struct RawLink {
    out: UnboundedSender<Bytes>,
    /// All that the node sends but frames about the link itself.
    pub(crate) heard: UnboundedReceiver<(Frame, usize)>,
    goodbye: Rc<RefCell<Option<Goodbye>>>,
    is_over: Rc<Cell<bool>>,
}

impl Attacker {
    pub(crate) fn new(network: &MemNetwork, seed: u8) -> Self {
        let signer = Signer::of_seed([seed; 32]);
        let port = network.listen(&format!("attacker-{seed}"), signer.key()).unwrap();
        Self { signer, port }
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// A connection to `node` on which nothing was said yet.
    pub(crate) async fn dial(&self, node: &Node) -> Link {
        self.port.dial(&url(&node.spec.name)).await.unwrap()
    }

    /// A link to `node`, the hellos done; the first announce is for the caller to make.
    pub(crate) async fn link(&self, node: &Node) -> RawLink {
        let link = self.dial(node).await;
        let raw = RawLink::run(self.signer.key(), node.spec.key(), link);
        // The node's registry has told its router.
        tokio::time::sleep(secs(1)).await;
        raw
    }
}

impl RawLink {
    fn run(own_key: PublicKey, peer: PublicKey, link: Link) -> Self {
        let config = LinkConfig {
            network: NETWORK,
            network_secret: None,
            own_key,
            peer: Some(peer),
            channel_binding: link.info.channel_binding,
            direction: Direction::Out,
            features: 0,
            boot_epoch: 1,
            clock_unix_s: clock::unix_s(),
            initial_credit: WINDOW_BYTES,
            keepalive: secs(15),
            hello_timeout: HELLO_TIMEOUT,
        };
        let (out, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
        let (tell, heard) = mpsc::unbounded_channel();
        let goodbye = Rc::new(RefCell::new(None));
        let is_over = Rc::new(Cell::new(false));
        let Link { mut tx, mut rx, .. } = link;
        actix_rt::spawn(async move {
            let mut frames = Vec::new();
            while let Some(first) = outgoing.recv().await {
                frames.push(FrameParts::whole(first));
                while frames.len() < 32
                    && let Ok(more) = outgoing.try_recv()
                {
                    frames.push(FrameParts::whole(more));
                }
                // All on one stream: who attacks keeps no order of classes.
                if tx.send(TrafficClass::Control, &frames).await.is_err() {
                    return;
                }
                frames.clear();
            }
        });
        let (said, over, own) = (goodbye.clone(), is_over.clone(), out.clone());
        actix_rt::spawn(async move {
            let mut session = Session::new(config, clock::now(), [own_key.0[0]; 8]);
            let mut step = |input: Input<'_>| {
                // What the session says of the node's behaviour is nothing to an attacker.
                let _ = session.handle(clock::now(), input);
                while let Some(output) = session.poll() {
                    if let Output::Send(frame) = output {
                        let _ = own.send(frame.encode());
                    }
                }
                session.next_wake().map(|(at, _)| at)
            };
            let mut wake = step(Input::Start);
            let mut frames = Vec::new();
            loop {
                let sleep = wake.map(tokio::time::Instant::from_std);
                let read = async { sleep.map(tokio::time::sleep_until).unwrap().await };
                let ended = tokio::select! {
                    read = rx.recv(&mut frames) => read.is_err(),
                    () = read, if sleep.is_some() => {
                        wake = step(Input::Timeout);
                        false
                    }
                };
                for bytes in frames.drain(..) {
                    let frame = Frame::decode(&bytes).unwrap();
                    if let Frame::Goodbye(goodbye) = &frame {
                        said.replace(Some(goodbye.clone()));
                    }
                    wake = step(Input::Frame(&frame));
                    if !is_links_own(&frame) {
                        // A test that no longer listens has heard enough.
                        let _ = tell.send((frame, bytes.len()));
                    }
                }
                if ended {
                    over.set(true);
                    return;
                }
            }
        });
        Self { out, heard, goodbye, is_over }
    }

    pub(crate) fn send(&self, frame: impl Into<Bytes>) {
        // A link that was cut takes nothing more.
        let _ = self.out.send(frame.into());
    }

    pub(crate) fn say(&self, frame: &Frame) {
        self.send(frame.encode());
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Why the node closed the link.
    pub(crate) fn goodbye(&self) -> Option<CloseReason> {
        self.goodbye.borrow().as_ref().map(|goodbye| goodbye.reason)
    }

    /// All that came since the last time.
    pub(crate) fn take(&mut self) -> Vec<(Frame, usize)> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

/// Claims to be next to everyone, tells all his neighbours so, and drops all data.
#[derive(Default)]
pub(crate) struct Liar {
    links: Vec<UnboundedSender<Bytes>>,
    told: BTreeMap<Address, (u32, u32)>,
    /// Envelopes that ended here.
    pub(crate) swallowed: u64,
}

impl Liar {
    /// Links to all of `victims` and lies from then on.
    pub(crate) async fn among(attacker: &mut Attacker, victims: &[&Node]) -> Rc<RefCell<Self>> {
        let liar = Rc::new(RefCell::new(Self::default()));
        let own = attacker.signer.announce((1, 1));
        for victim in victims {
            let RawLink { out, mut heard, .. } = attacker.link(victim).await;
            let _ = out.send(Frame::Announce(own.clone()).encode());
            liar.borrow_mut().links.push(out.clone());
            let liar = liar.clone();
            actix_rt::spawn(async move {
                while let Some((frame, _)) = heard.recv().await {
                    liar.borrow_mut().hear(&out, frame);
                }
            });
        }
        liar
    }

    fn hear(&mut self, link: &UnboundedSender<Bytes>, frame: Frame) {
        match frame {
            Frame::Announce(announce) | Frame::PathReply(announce) => self.spread(announce),
            Frame::Envelope(..) => self.swallowed += 1,
            // Nothing he holds: a digest of nothing makes the node tell all that it knows.
            Frame::Digest(digest) => {
                let nothing = quicprochat_mesh::wire::path::Digest { entries: Vec::new(), ..digest };
                let _ = link.send(Frame::Digest(nothing).encode());
            }
            _ => {}
        }
    }

    /// Tells everyone, who brought it included, that this origin is one link from here.
    fn spread(&mut self, announce: Announce) {
        let order = announce.content.order();
        let origin = compute_address(&announce.content.public_key);
        let told = self.told.entry(origin).or_default();
        if *told >= order {
            return;
        }
        *told = order;
        let frame = Frame::Announce(Announce { hop_count: 1, ..announce }).encode();
        for link in &self.links {
            let _ = link.send(frame.clone());
        }
    }
}
