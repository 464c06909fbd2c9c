//! What every shell's test needs: somebody who signs, a parent who hears of the end, a store that
//! crashes whoever uses it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::prelude::{Actor, Addr, Handler, Recipient};
use bytes::Bytes;
use quicprochat_mesh::{
    actors::{
        delivery::OwnKeys,
        mailbox::{self, Seat},
        rate_limiter::{RateLimiterActor, RateLimiterParts},
    },
    clock,
    crypto::{MeshIdentity, ReceiverKeys, SignatureInput, SignedType, VerifiedKeyRecord, key_record, random},
    messages::{
        lifecycle::{
            ChildExited, ChildId, Drain, DrainCounts, DrainPhase, DrainReport, ExitGuard, ExitReason,
            Incarnation,
        },
        limit::RequestLease,
    },
    proto::{
        delivery::compose::{Composed, Composer, Sequences, Wanted},
        verify::{InboundAnnounce, InboundEnvelope, Verified, Verifier},
    },
    storage::{
        Completion, HandedBack, LocalOp, LocalOutcome, LocalStore, MailOp, MailOutcome, MailboxQuota,
        Mailboxes, MemStore,
    },
    testing::{Probe, expect_within},
    wire::{
        Address, Announce, AnnounceContent, Capabilities, Digest, EnvelopeKind, FrameExt, Lifetime,
        MessageUid, NetworkId, PacketId, Priority, PublicKey,
        content::{Content, Manifest, Sealed},
        receipt::Receipt,
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) const NETWORK: NetworkId = NetworkId([7; 16]);

/// Virtual, so it costs nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A seat and what arrives at it.
pub(crate) fn seat<M>() -> (Seat<M>, UnboundedReceiver<M>)
where
    M: actix::Message<Result = ()> + Send + Unpin + 'static,
{
    let (recipient, received) = Probe::<M>::start();
    (Seat::held_by(recipient), received)
}

/// Somebody on the network, with a real key.
pub(crate) struct Signer {
    pub(crate) identity: Arc<MeshIdentity>,
    composer: Composer,
    scratch: SignatureInput,
}

impl Signer {
    pub(crate) fn new(seed: u8) -> Self {
        let identity = Arc::new(MeshIdentity::from_seed([seed; 32]));
        Self {
            composer: Composer::new(identity.clone(), NETWORK, 1, Sequences::default()),
            scratch: SignatureInput::new(NETWORK),
            identity,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.identity.address()
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    fn wanted(kind: EnvelopeKind, to: Address) -> Wanted {
        Wanted {
            kind,
            priority: Priority::Normal,
            destination: to,
            created_unix_s: clock::unix_s(),
            lifetime: Lifetime::ONE_DAY,
            max_hops: 32,
        }
    }

    /// An envelope whose payload is not sealed.
    pub(crate) fn compose(&mut self, kind: EnvelopeKind, to: Address, payload: &[u8]) -> Composed {
        self.composer.open(&Self::wanted(kind, to), payload).unwrap()
    }

    /// A message of some priority that carries its source's key.
    pub(crate) fn keyed(
        &mut self,
        priority: Priority,
        kind: EnvelopeKind,
        to: Address,
        bytes: usize,
    ) -> Verified<InboundEnvelope> {
        let wanted = Wanted { priority, ..Self::wanted(kind, to) };
        let mut made = self.composer.open(&wanted, &vec![7; bytes]).unwrap();
        made.envelope = made.envelope.with_source_key(self.key());
        self.inbound(made)
    }

    /// The same as it comes out of a link's reader.
    pub(crate) fn packet(
        &mut self,
        kind: EnvelopeKind,
        to: Address,
        payload: &[u8],
    ) -> Verified<InboundEnvelope> {
        let made = self.compose(kind, to, payload);
        self.inbound(made)
    }

    pub(crate) fn inbound(&self, made: Composed) -> Verified<InboundEnvelope> {
        Verified::trusted(made.packet_id, self.key(), made.envelope, FrameExt::default())
    }

    pub(crate) fn receipt(&mut self, to: Address, packet_ids: &[PacketId]) -> Verified<InboundEnvelope> {
        let receipt = Receipt { packet_ids: packet_ids.to_vec(), chunks: Vec::new(), unwanted: Vec::new() };
        self.packet(EnvelopeKind::RECEIPT, to, &receipt.encode())
    }

    /// A sealed message, as it arrives.
    pub(crate) fn sealed(
        &mut self,
        to: &VerifiedKeyRecord,
        uid: u8,
        text: &str,
    ) -> Verified<InboundEnvelope> {
        self.sealed_behind(to, uid, text, None)
    }

    /// The same, sent after `follows`.
    pub(crate) fn sealed_behind(
        &mut self,
        to: &VerifiedKeyRecord,
        uid: u8,
        text: &str,
        follows: Option<u8>,
    ) -> Verified<InboundEnvelope> {
        let content = Sealed::Content(Content {
            uid: MessageUid([uid; 16]),
            name: String::new(),
            sent_at_unix_ms: 0,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            follows: follows.map(|uid| MessageUid([uid; 16]).prefix()),
        });
        self.seal(to, &content)
    }

    /// The manifest of a file, as it arrives.
    pub(crate) fn manifest(
        &mut self,
        to: &VerifiedKeyRecord,
        uid: u8,
        length: u64,
    ) -> Verified<InboundEnvelope> {
        let manifest = Sealed::Manifest(Manifest {
            uid: MessageUid([uid; 16]),
            name: "file".to_owned(),
            sent_at_unix_ms: 0,
            length,
            sha256: Digest([uid; 32]),
            file_key: [uid; 32],
        });
        self.seal(to, &manifest)
    }

    pub(crate) fn seal(&mut self, to: &VerifiedKeyRecord, content: &Sealed) -> Verified<InboundEnvelope> {
        let wanted = Self::wanted(EnvelopeKind::MESSAGE, to.address());
        let made = self
            .composer
            .sealed(clock::now(), &mut random::os_rng(), &wanted, to, &content.encode())
            .unwrap();
        self.inbound(made)
    }

    pub(crate) fn announce(&mut self, order: (u32, u32)) -> Verified<InboundAnnounce> {
        let content = AnnounceContent {
            public_key: self.key(),
            boot_epoch: order.0,
            sequence: order.1,
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime_s: 1800,
            max_hops: 32,
            key_record_hash: None,
            keypackage_hash: None,
            service_data: Bytes::new(),
        };
        let signed = Bytes::from(content.encode());
        let signature = self.identity.sign(self.scratch.of(SignedType::Announce, &signed));
        let announce = Announce::new(content, signed, signature, None);
        Verifier::new(Address([0xee; 16]), NETWORK).verify_announce(announce).unwrap()
    }

    pub(crate) fn keys(&mut self) -> OwnKeys {
        let secrets = ReceiverKeys::new(self.key(), clock::unix_s(), &mut random::os_rng());
        let record = key_record::sign(&self.identity, &mut self.scratch, secrets.record()).unwrap();
        OwnKeys { secrets, record }
    }
}

/// What a parent hears of a child.
pub(crate) struct Parent {
    exits: UnboundedReceiver<ChildExited>,
    reports: UnboundedReceiver<DrainReport>,
    /// A guard holds its parent weakly.
    _seats: (Recipient<ChildExited>, Recipient<DrainReport>),
}

pub(crate) fn guard() -> (ExitGuard, Parent) {
    let (exits, exited) = Probe::<ChildExited>::start();
    let (reports, reported) = Probe::<DrainReport>::start();
    let guard = ExitGuard::new(ChildId(1), Incarnation(1), exits.downgrade(), reports.downgrade());
    (guard, Parent { exits: exited, reports: reported, _seats: (exits, reports) })
}

impl Parent {
    pub(crate) async fn exit(&mut self) -> ExitReason {
        expect_within(&mut self.exits, PATIENCE).await.reason
    }

    pub(crate) async fn report(&mut self, phase: DrainPhase) -> DrainCounts {
        let report = expect_within(&mut self.reports, PATIENCE).await;
        assert_eq!(report.phase, phase);
        report.counts
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.exits.is_empty()
    }

    pub(crate) fn has_report(&mut self) -> bool {
        !self.reports.is_empty()
    }
}

pub(crate) fn drain(phase: DrainPhase) -> Drain {
    Drain { phase, deadline: clock::now() + secs(10) }
}

/// A rate limiter and its parent.
pub(crate) struct Limiter {
    pub(crate) actor: Addr<RateLimiterActor>,
    pub(crate) seat: Seat<RequestLease>,
    pub(crate) parent: Parent,
}

/// One that gives every neighbour the default rates.
pub(crate) fn limiter() -> Limiter {
    limiter_of(RateLimiterParts::default())
}

pub(crate) fn limiter_of(parts: RateLimiterParts) -> Limiter {
    let (guard, parent) = guard();
    let actor = RateLimiterActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::RATE_LIMITER);
        RateLimiterActor::new(parts, guard)
    });
    Limiter { seat: Seat::held_by(actor.clone().recipient()), actor, parent }
}

/// Walks an actor through its drain; gives what it counted.
pub(crate) async fn drained<A>(actor: &Addr<A>, parent: &mut Parent) -> DrainCounts
where
    A: Actor + Handler<Drain>,
    A::Context: ToEnvelope<A, Drain>,
{
    let mut counts = DrainCounts::default();
    for phase in [DrainPhase::Draining, DrainPhase::Persisting] {
        actor.do_send(drain(phase));
        counts.add(parent.report(phase).await);
    }
    actor.do_send(drain(DrainPhase::Cleanup));
    assert_eq!(parent.exit().await, ExitReason::Drained);
    counts
}

/// Both stores in memory; once armed, whoever submits panics.
#[derive(Clone, Default)]
pub(crate) struct FragileStore {
    pub(crate) rows: MemStore,
    armed: Arc<AtomicBool>,
}

impl FragileStore {
    pub(crate) fn with_quota(quota: MailboxQuota) -> Self {
        Self { rows: MemStore::new(quota), armed: Arc::default() }
    }

    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    fn check(&self) {
        assert!(!self.armed.load(Ordering::Relaxed), "the store was armed");
    }
}

impl LocalStore for FragileStore {
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>> {
        self.check();
        LocalStore::submit(&self.rows, ops, done)
    }

    fn boot_epoch(&self) -> u32 {
        self.rows.boot_epoch()
    }
}

impl Mailboxes for FragileStore {
    fn submit(
        &self,
        ops: Vec<MailOp>,
        done: Completion<MailOutcome>,
    ) -> Result<(), HandedBack<MailOp, MailOutcome>> {
        self.check();
        Mailboxes::submit(&self.rows, ops, done)
    }
}
