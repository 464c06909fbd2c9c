//! What a relay does with a message apart from its signature: read the frame, look it up in the
//! dedup window, and hand it on; and all it does with an announce. `cargo bench --bench forwarding`.
//! The forwarding decision is in `route_memory`, beside the size of the table that it reads.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quicprochat_mesh::{
    crypto::{MeshIdentity, SignatureInput, SignedType, key_record},
    proto::{
        announce::{AnnounceParts, create_announce},
        dedup::{Dedup, Ingress, Sighting},
        router::{Input, LinkInfo, Output, Router, RouterConfig, WallClock},
        table::LinkClass,
        verify::{Checked, InboundEnvelope, Verified, Verifier},
    },
    wire::{
        Address, Announce, Capabilities, Envelope, EnvelopeHeader, EnvelopeKind, Frame, FrameExt, KeyRecord,
        Lifetime, LinkId, NetworkId, NodeName, PacketId, Priority, Proof, ReceiverKey,
    },
};

const NETWORK: NetworkId = NetworkId([7; 16]);

/// A number spread over 16 bytes, as hashes are.
fn spread(n: u64) -> [u8; 16] {
    let wide = u128::from(n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    wide.to_be_bytes()
}

fn envelope(from: &MeshIdentity, to: Address, payload: usize) -> Envelope {
    let header = EnvelopeHeader {
        kind: EnvelopeKind::MESSAGE,
        priority: Priority::Normal,
        source: NodeName::Address(from.address()),
        destination: NodeName::Address(to),
        boot_epoch: 3,
        sequence: 70_000,
        created_unix_s: 1_800_000_000,
        lifetime: Lifetime::ONE_DAY,
        max_hops: 64,
    };
    let signed = header.signed(&vec![0x5a; payload]);
    let mut input = SignatureInput::new(NETWORK);
    let signature = from.sign(input.of(SignedType::EnvelopeV2, &signed));
    Envelope::assemble(header, &signed, Proof::Signature(signature), None).expect("a sound envelope")
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let from = MeshIdentity::from_seed([1; 32]);
    for payload in [64, 1024, 15 * 1024] {
        let frame = envelope(&from, Address([2; 16]), payload).to_frame(FrameExt::default()).to_bytes();
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("envelope_v2/{payload}"), |b| {
            b.iter(|| Frame::decode(black_box(&frame)));
        });
    }
    let envelope = envelope(&from, Address([2; 16]), 1024);
    group.bench_function("encode_forwarded/1024", |b| {
        b.iter(|| black_box(&envelope).with_hop_count(5).to_frame(FrameExt::default()));
    });
}

fn verify(c: &mut Criterion) {
    let from = MeshIdentity::from_seed([1; 32]);
    let envelope = envelope(&from, Address([2; 16]), 1024);
    let mut verifier = Verifier::new(Address([9; 16]), NETWORK);
    verifier.learn_key(&from.address(), &from.public_key()).expect("its own key");
    c.bench_function("verify/1024", |b| {
        b.iter(|| verifier.verify(black_box(envelope.clone()), FrameExt::default()));
    });
}

fn dedup(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    group.throughput(Throughput::Elements(1));
    let now = Instant::now();
    let sighting = |n| Sighting {
        packet_id: PacketId(spread(n)),
        ingress: Ingress::Link(LinkId(1)),
        hop_count: 3,
        max_hops: 128,
        retransmit: false,
        lasts: false,
        is_destination: false,
    };
    // A window in its steady state: both generations full, one dropped every so often.
    let mut window = Dedup::new(now, 42);
    let mut n = 0;
    for _ in 0..2_000_000 {
        n += 1;
        window.observe(now, &sighting(n), |_| false);
    }
    group.bench_function("insert", |b| {
        b.iter(|| {
            n += 1;
            window.observe(now, black_box(&sighting(n)), |_| false)
        });
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("insert 64, looked at together before", |b| {
        b.iter(|| {
            let ids: [PacketId; 64] = std::array::from_fn(|at| PacketId(spread(n + 1 + at as u64)));
            window.approach(black_box(&ids).iter());
            for _ in 0..ids.len() {
                n += 1;
                window.observe(now, black_box(&sighting(n)), |_| false);
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("hit", |b| {
        b.iter(|| {
            let seen = n - (n.wrapping_mul(0x9e37_79b9) % 100_000);
            window.observe(now, black_box(&sighting(seen)), |_| false)
        });
    });
}

fn step(c: &mut Criterion) {
    const BATCH: u64 = 64;
    let now = Instant::now();
    let wall = WallClock { unix_s: 1_800_000_000, trusted: true };
    let me = MeshIdentity::from_seed([9; 32]);
    let mut router = Router::new(RouterConfig::new(me.public_key()), now, 42);
    let peers: Vec<_> = (1..=4u8).map(|n| MeshIdentity::from_seed([n; 32])).collect();
    for (n, peer) in peers.iter().enumerate() {
        let link = LinkId(n as u64 + 1);
        let info = LinkInfo {
            link,
            peer: peer.public_key(),
            class: LinkClass::default(),
            trusted: false,
            account: None,
        };
        router.handle(now, wall, Input::LinkUp(info));
    }
    while router.poll().is_some() {}
    let from = &peers[0];
    let templates: Vec<Envelope> = peers.iter().map(|to| envelope(from, to.address(), 1024)).collect();
    let mut n = 0;
    let mut batch = || -> Vec<Verified<InboundEnvelope>> {
        let packets = (0..BATCH).map(|i| {
            n += 1;
            let to = 1 + (i % 3) as usize;
            let envelope = templates[to].clone();
            Verified::trusted(PacketId(spread(n)), from.public_key(), envelope, FrameExt::default())
        });
        packets.collect()
    };
    let mut group = c.benchmark_group("router");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("step/64", |b| {
        b.iter_batched(
            &mut batch,
            |packets| {
                router.handle(now, wall, Input::Envelopes(LinkId(1), packets));
                let mut out = Vec::with_capacity(4);
                while let Some(output) = router.poll() {
                    out.push(output);
                }
                out
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("step_and_frames/64", |b| {
        b.iter_batched(
            &mut batch,
            |packets| {
                router.handle(now, wall, Input::Envelopes(LinkId(1), packets));
                let mut frames: Vec<Bytes> = Vec::new();
                while let Some(output) = router.poll() {
                    if let Output::Forward(_, packets) = output {
                        frames.extend(packets.iter().map(|p| p.envelope.to_frame(p.ext).tail().clone()));
                    }
                }
                frames
            },
            BatchSize::SmallInput,
        );
    });
}

/// An announce over one of ten links, until what follows from it is written for the others: the
/// first copy, and one that came over another link before. Every origin is a stranger to the link.
fn announce(c: &mut Criterion) {
    const ORIGINS: usize = 2048;
    let wall = WallClock { unix_s: 1_800_000_000, trusted: true };
    let mut now = Instant::now();
    let me = MeshIdentity::from_seed([9; 32]);
    let mut router = Router::new(RouterConfig::new(me.public_key()), now, 42);
    for n in 0..10u8 {
        let peer = MeshIdentity::from_seed([100 + n; 32]).public_key();
        let info = LinkInfo {
            link: LinkId(n.into()),
            peer,
            class: LinkClass::default(),
            trusted: false,
            account: None,
        };
        router.handle(now, wall, Input::LinkUp(info));
    }
    let key = ReceiverKey { rk_id: 1, suite: 1, x25519: [9; 32] };
    let mut input = SignatureInput::new(NETWORK);
    let mut origins: Vec<_> = origins_of(ORIGINS)
        .map(|identity| {
            let record = KeyRecord {
                public_key: identity.public_key(),
                order: 1,
                not_after: u32::MAX,
                keys: vec![key],
            };
            (key_record::sign(&identity, &mut input, &record).expect("a sound record"), identity, 0)
        })
        .collect();
    let (mut turn, mut at) = (0, 0);
    let mut frame = || {
        at += 1;
        let (record, identity, sequence) = &mut origins[at % ORIGINS];
        *sequence += 1;
        let parts = AnnounceParts {
            order: (1, *sequence),
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime: Duration::from_secs(3600),
            max_hops: 64,
            key_record: Some(record),
        };
        let announce = create_announce(identity, &mut input, &parts);
        Frame::Announce(Announce { hop_count: 1, ..announce }).encode()
    };
    let checked = Checked::default();
    let mut links = [0, 1].map(|_| Verifier::sharing(me.address(), NETWORK, checked.clone()));
    let mut take = |link: usize, frame: &Bytes| -> usize {
        let Ok(Frame::Announce(announce)) = Frame::decode(frame) else { panic!("a sound frame") };
        let verified = links[link].verify_announce(announce).expect("a sound announce");
        router.handle(now, wall, Input::Announce(LinkId(link as u64), Box::new(verified)));
        // The next one comes when the budget of what is passed on has room for it.
        now += Duration::from_millis(25);
        router.handle(now, wall, Input::Timeout);
        let mut bytes = 0;
        while let Some(output) = router.poll() {
            if let Output::Control(_, frame) = output {
                bytes += frame.encode().len();
            }
        }
        bytes
    };
    // Each origin and its record was heard before.
    for _ in 0..ORIGINS {
        take(0, &frame());
    }
    let mut group = c.benchmark_group("announce");
    group.bench_function("first copy, ten links", |b| {
        b.iter_batched(&mut frame, |frame| take(0, &frame), BatchSize::SmallInput);
    });
    let copy = frame();
    take(0, &copy);
    group.bench_function("another copy", |b| b.iter(|| take(1, &copy)));
    // Of many keys and signatures in turn: over one alone the processor learns every branch.
    let mut alone = Verifier::new(Address([2; 16]), NETWORK);
    let signed: Vec<Envelope> = origins_of(512)
        .map(|identity| {
            alone.learn_key(&identity.address(), &identity.public_key()).expect("its own key");
            envelope(&identity, Address([2; 16]), 200)
        })
        .collect();
    group.bench_function("one verification of 200 bytes, key decoded", |b| {
        b.iter_batched(
            || {
                turn += 1;
                signed[turn % signed.len()].clone()
            },
            |envelope| alone.verify(envelope, FrameExt::default()),
            BatchSize::SmallInput,
        );
    });
}

fn origins_of(count: usize) -> impl Iterator<Item = MeshIdentity> {
    (0..count as u64).map(|n| {
        let mut seed = [0x33; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        MeshIdentity::from_seed(seed)
    })
}

criterion_group! {
    name = forwarding;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decode, verify, dedup, step, announce
}
criterion_main!(forwarding);
