//! What a relay does with a message apart from its signature: read the frame, look it up in the
//! dedup window, decide, and hand it on. `cargo bench --bench forwarding`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quicprochat_mesh::{
    crypto::{MeshIdentity, SignatureInput, SignedType},
    proto::{
        dedup::{Dedup, Ingress, Sighting},
        fib::{Fib, Hops},
        router::{Input, LinkInfo, Output, Router, RouterConfig, WallClock},
        table::LinkClass,
        verify::{InboundEnvelope, Verified, Verifier},
    },
    wire::{
        Address, Envelope, EnvelopeHeader, EnvelopeKind, Frame, FrameExt, Lifetime, LinkId, NetworkId,
        NodeName, PacketId, Priority, Proof,
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

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    for routes in [1_000u64, 100_000] {
        let mut fib = Fib::new(Address([0xee; 16]), 42);
        for n in 0..routes {
            let hops = Hops { first: LinkId(n % 8 + 1), second: Some(LinkId((n + 1) % 8 + 1)) };
            fib.set(Address(spread(n)), Some(hops));
        }
        let mut n = 0;
        group.bench_function(format!("routes/{routes}"), |b| {
            b.iter(|| {
                n = (n + 7919) % routes;
                fib.decide(black_box(&Address(spread(n))), Some(LinkId(1)), 3, 64)
            });
        });
    }
}

fn dedup(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    group.throughput(Throughput::Elements(1));
    let now = Instant::now();
    let sighting = |n| Sighting {
        packet_id: PacketId(spread(n)),
        ingress: Ingress::Link(LinkId(1)),
        hop_count: 3,
        retransmit: false,
        is_destination: false,
    };
    // A window in its steady state: both generations full, one dropped every so often.
    let mut window = Dedup::new(now, 42);
    let mut n = 0;
    for _ in 0..2_000_000 {
        n += 1;
        window.observe(now, &sighting(n));
    }
    group.bench_function("insert", |b| {
        b.iter(|| {
            n += 1;
            window.observe(now, black_box(&sighting(n)))
        });
    });
    group.bench_function("hit", |b| {
        b.iter(|| {
            let seen = n - (n.wrapping_mul(0x9e37_79b9) % 100_000);
            window.observe(now, black_box(&sighting(seen)))
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
        let info = LinkInfo { link, peer: peer.public_key(), class: LinkClass::default(), trusted: false };
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

criterion_group! {
    name = forwarding;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decode, verify, decision, dedup, step
}
criterion_main!(forwarding);
