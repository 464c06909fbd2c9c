//! What a relay and an end node pay for cryptography, a message at a time.
//!
//! Run with `cargo bench --bench crypto`.

use std::{hint::black_box, time::Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use quicprochat_mesh::{
    crypto::{
        FileKey, MerkleTree, MeshIdentity, OpenSessions, Padding, ReceiverKeys, SealSession, SignatureInput,
        SignedType, VerifyKey, key_record, merkle::root_from_path, network_id, random::os_rng, seal,
    },
    wire::{MessageUid, limits::CHUNK_BYTES},
};

/// A chat line's envelope, a page's, and a chunk's.
const SIZES: [usize; 3] = [256, 4096, 15 * 1024];

fn signatures(c: &mut Criterion) {
    let identity = MeshIdentity::generate(&mut os_rng());
    let public_key = identity.public_key();
    let key = VerifyKey::new(&public_key).expect("a key just made is fit");
    let mut scratch = SignatureInput::new(network_id("public"));

    c.bench_function("decode a key", |b| b.iter(|| VerifyKey::new(black_box(&public_key))));
    c.bench_function("address of a key", |b| b.iter(|| key.address()));
    let mut group = c.benchmark_group("signature");
    for size in SIZES {
        let signed = vec![0x5a; size];
        let signature = identity.sign(scratch.of(SignedType::EnvelopeV2, &signed));
        group.bench_function(BenchmarkId::new("sign", size), |b| {
            b.iter(|| identity.sign(scratch.of(SignedType::EnvelopeV2, black_box(&signed))));
        });
        group.bench_function(BenchmarkId::new("strict verify, key decoded", size), |b| {
            b.iter(|| scratch.of(SignedType::EnvelopeV2, black_box(&signed)).verify(&key, &signature));
        });
        group.bench_function(BenchmarkId::new("packet id", size), |b| {
            b.iter(|| scratch.of(SignedType::EnvelopeV2, black_box(&signed)).packet_id());
        });
        group.bench_function(BenchmarkId::new("packet id and strict verify", size), |b| {
            b.iter(|| {
                let input = scratch.of(SignedType::EnvelopeV2, black_box(&signed));
                (input.packet_id(), input.verify(&key, &signature))
            });
        });
    }
}

fn merkle(c: &mut Criterion) {
    let mut scratch = SignatureInput::new(network_id("public"));
    let mut group = c.benchmark_group("merkle");
    for count in [16u32, 256] {
        let leaves: Vec<_> =
            (0..count).map(|i| scratch.of(SignedType::EnvelopeV2, &[i as u8; 256]).leaf()).collect();
        let tree = MerkleTree::new(leaves.clone()).expect("as many leaves as a tree may have");
        let path = tree.path(7).expect("the tree has a leaf 7");
        group.bench_function(BenchmarkId::new("build", count), |b| {
            b.iter(|| MerkleTree::new(black_box(leaves.clone())));
        });
        // All that a relay pays for a message whose root it has seen.
        group.bench_function(BenchmarkId::new("packet id, leaf and path, 256 bytes", count), |b| {
            b.iter(|| {
                let input = scratch.of(SignedType::EnvelopeV2, black_box(&[7; 256]));
                (input.packet_id(), root_from_path(input.leaf(), 7, &path) == Some(tree.root()))
            });
        });
    }
}

fn seals(c: &mut Criterion) {
    let mut rng = os_rng();
    let network = network_id("public");
    let source = MeshIdentity::generate(&mut rng);
    let destination = MeshIdentity::generate(&mut rng);
    let keys = ReceiverKeys::new(destination.public_key(), 1_800_000_000, &mut rng);
    let record = key_record::sign(&destination, &mut SignatureInput::new(network), keys.record())
        .expect("the keys are the destination's");
    let aad = [0x5a; 48];
    let now = Instant::now();
    let begin =
        || SealSession::new(&network, &source.public_key(), &record, now, &mut os_rng()).expect("a fit key");

    c.bench_function("begin a sealing session", |b| b.iter(begin));
    let mut group = c.benchmark_group("seal");
    for size in [256, 4096] {
        let plaintext = vec![0x5a; size];
        let mut session = begin();
        group.bench_function(BenchmarkId::new("seal", size), |b| {
            b.iter(|| {
                session.seal(now, &aad, black_box(&plaintext), Padding::None).unwrap_or_else(|_| {
                    session = begin();
                    Vec::new()
                })
            });
        });
        let sealed = begin().seal(now, &aad, &plaintext, Padding::None).expect("a fresh session");
        group.bench_function(BenchmarkId::new("open, first of its key", size), |b| {
            b.iter(|| seal::open(&keys, &network, &source.public_key(), black_box(&sealed), &aad));
        });
        let mut sessions = OpenSessions::new(network);
        group.bench_function(BenchmarkId::new("open, key remembered", size), |b| {
            b.iter(|| sessions.open(&keys, &source.public_key(), black_box(&sealed), &aad));
        });
    }
    let key = FileKey::generate(&mut rng);
    let (uid, chunk) = (MessageUid([1; 16]), vec![0x5a; CHUNK_BYTES]);
    group.bench_function("file chunk, seal", |b| b.iter(|| key.seal_chunk(&uid, 0, 1, black_box(&chunk))));
    let sealed = key.seal_chunk(&uid, 0, 1, &chunk).expect("a chunk of its size");
    group.bench_function("file chunk, open", |b| b.iter(|| key.open_chunk(&uid, 0, 1, black_box(&sealed))));
}

criterion_group!(benches, signatures, merkle, seals);
criterion_main!(benches);
