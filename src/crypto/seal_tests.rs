//! Tests of the seal, apart because they are as long as what they test.

use proptest::prelude::*;
use zeroize::ZeroizeOnDrop;

use super::*;
use crate::{
    crypto::{
        MeshIdentity, SignatureInput, key_record, network_id,
        random::SeededRng,
        receiver::{KEPT_AFTER_S, ROTATE_AFTER_S, SEALABLE_S},
    },
    wire::{KeyRecord, ReceiverKey, ids::hex, key_record::SUITE_X25519_CHACHA20},
};

const START_S: u64 = 1_800_000_000;
const AAD: &[u8] = b"the envelope's immutable fields";

struct Pair {
    network: NetworkId,
    source: MeshIdentity,
    destination: MeshIdentity,
    keys: ReceiverKeys,
    rng: SeededRng,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let mut rng = SeededRng::new(1);
        let destination = MeshIdentity::from_seed([2; 32]);
        Self {
            network: network_id("public"),
            source: MeshIdentity::from_seed([1; 32]),
            keys: ReceiverKeys::new(destination.public_key(), START_S, &mut rng),
            destination,
            rng,
            now: Instant::now(),
        }
    }

    fn record(&self) -> VerifiedKeyRecord {
        self.signed(self.keys.record())
    }

    fn signed(&self, record: &KeyRecord) -> VerifiedKeyRecord {
        key_record::sign(&self.destination, &mut SignatureInput::new(self.network), record).unwrap()
    }

    fn session(&mut self) -> SealSession {
        let (network, source, record) = (self.network, self.source.public_key(), self.record());
        SealSession::new(&network, &source, &record, self.now, &mut self.rng).unwrap()
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let now = self.now;
        self.session().seal(now, AAD, plaintext, Padding::Sized).unwrap()
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        open(&self.keys, &self.network, &self.source.public_key(), sealed, AAD)
    }
}

#[test]
fn what_is_sealed_opens() {
    let mut pair = Pair::new();
    let now = pair.now;
    for len in [0, 1, 31, 32, 255, 4096, PLAINTEXT_BYTES_MAX] {
        // Ends in zeros and end marks, which are the plaintext's own here.
        let mut plaintext = vec![0x42; len];
        plaintext.iter_mut().rev().take(3).for_each(|byte| *byte = 0);
        plaintext.iter_mut().rev().skip(1).take(1).for_each(|byte| *byte = 0x80);
        for padding in [Padding::Sized, Padding::None] {
            let sealed = pair.session().seal(now, AAD, &plaintext, padding).unwrap();
            assert!(sealed.len() <= PAYLOAD_BYTES_MAX);
            assert_eq!(pair.open(&sealed), Ok(plaintext.clone()), "{len} {padding:?}");
        }
    }
    let refused = pair.session().seal(now, AAD, &vec![0; PLAINTEXT_BYTES_MAX + 1], Padding::Sized);
    let (got, limit) = (PLAINTEXT_BYTES_MAX + 1, PLAINTEXT_BYTES_MAX);
    assert_eq!(refused, Err(CryptoError::PlaintextTooLarge { got, limit }));
}

#[test]
fn the_wire_form_and_the_key_are_exactly_what_the_specification_says() {
    let mut pair = Pair::new();
    let bytes = pair.seal(b"text");
    let sealed = SealedPayload::decode(&bytes).unwrap();
    let key = pair.keys.record().keys[0];
    assert_eq!((sealed.rk_id, sealed.counter, sealed.ciphertext.len()), (key.rk_id, 0, 32));

    let mut salt = b"quicprochat/mesh/1/seal\0".to_vec();
    salt.extend_from_slice(pair.network.as_bytes());
    salt.push(1);
    salt.extend_from_slice(pair.source.public_key().as_bytes());
    salt.extend_from_slice(pair.destination.public_key().as_bytes());
    salt.extend_from_slice(sha256(&[&pair.keys.record().encode_signed()]).as_bytes());
    salt.extend_from_slice(&key.rk_id.to_be_bytes());
    salt.extend_from_slice(&sealed.ephemeral);
    assert_eq!(salt.len(), 24 + 16 + 1 + 32 + 32 + 32 + 4 + 32);
    let shared = agree(pair.keys.lookup(key.rk_id).unwrap().secret(), &sealed.ephemeral).unwrap();
    let mut expected = [0; 32];
    let info = b"quicprochat/mesh/1/seal-key";
    hkdf_sha256(sha256(&[&salt]).as_bytes(), &*shared, info, &mut expected).unwrap();

    let mut content = b"text\x80".to_vec();
    content.resize(32, 0);
    let tag = aead::encrypt(&expected, &[0; 12], AAD, &mut content).unwrap();
    let mut wire = Vec::new();
    cbor::put_array(&mut wire, 4);
    cbor::put_uint(&mut wire, u64::from(key.rk_id));
    cbor::put_bytes(&mut wire, &sealed.ephemeral);
    cbor::put_uint(&mut wire, 0);
    cbor::put_bytes(&mut wire, &[content.as_slice(), &tag].concat());
    assert_eq!(bytes, wire);
}

#[test]
fn padding_shows_a_size_class_only() {
    let sized = |len| Padding::Sized.padded_len(len);
    for (len, padded) in [(0, 32), (31, 32), (32, 64), (63, 64), (64, 128), (8191, 8192)] {
        assert_eq!(sized(len), Ok(padded), "{len}");
    }
    // There is no room for the next power of two.
    assert_eq!(sized(8192), Ok(SEAL_PLAINTEXT_BYTES_MAX));
    assert_eq!(sized(PLAINTEXT_BYTES_MAX), Ok(SEAL_PLAINTEXT_BYTES_MAX));
    assert!(sized(PLAINTEXT_BYTES_MAX + 1).is_err() && sized(usize::MAX).is_err());
    assert_eq!(Padding::None.padded_len(0), Ok(1));
    assert_eq!(Padding::None.padded_len(100), Ok(101));

    let mut pair = Pair::new();
    assert_eq!(pair.seal(b"").len(), pair.seal(&[7; 31]).len());
}

#[test]
fn the_overhead_stays_within_what_the_limits_say() {
    let mut pair = Pair::new();
    let mut session = pair.session();
    session.rk_id = u32::MAX;
    session.counter = SESSION_MESSAGES_MAX - 1;
    let now = pair.now;
    let largest = session.seal(now, AAD, &[1; PLAINTEXT_BYTES_MAX], Padding::Sized).unwrap();
    assert!(largest.len() <= SEAL_PLAINTEXT_BYTES_MAX + SEAL_OVERHEAD_MAX, "{}", largest.len());
    assert!(largest.len() <= PAYLOAD_BYTES_MAX);
}

#[test]
fn nothing_bound_may_change() {
    let mut pair = Pair::new();
    let sealed = pair.seal(b"text");
    let source = pair.source.public_key();
    let network = pair.network;
    let failed = Err(OpenError::Failed);
    assert_eq!(open(&pair.keys, &network, &source, &sealed, b"other fields"), failed);
    assert_eq!(open(&pair.keys, &network, &source, &sealed, b""), failed);
    assert_eq!(open(&pair.keys, &network_id("other"), &source, &sealed, AAD), failed);
    let stranger = MeshIdentity::from_seed([3; 32]).public_key();
    assert_eq!(open(&pair.keys, &network, &stranger, &sealed, AAD), failed);
    // The direction is bound: sealed to the destination is not sealed by it.
    let reversed = pair.destination.public_key();
    assert_eq!(open(&pair.keys, &network, &reversed, &sealed, AAD), failed);

    for bit in 0..sealed.len() * 8 {
        let mut wrong = sealed.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        match pair.open(&wrong) {
            Err(OpenError::Failed) => {}
            // Bits of the rk_id name another key.
            Err(OpenError::UnknownReceiverKey { rk_id }) => {
                assert_ne!(rk_id, pair.keys.record().keys[0].rk_id)
            }
            Ok(_) => panic!("bit {bit} passed"),
        }
    }
    for end in 0..sealed.len() {
        assert_eq!(pair.open(&sealed[..end]), failed, "prefix of {end}");
    }
}

#[test]
fn the_record_is_bound() {
    let mut pair = Pair::new();
    // Signed by the destination, with its key and rk_id, and yet not the record it issued.
    let mut record = pair.keys.record().clone();
    record.not_after += 1;
    let record = pair.signed(&record);
    let now = pair.now;
    let mut session =
        SealSession::new(&pair.network, &pair.source.public_key(), &record, now, &mut pair.rng).unwrap();
    let sealed = session.seal(now, AAD, b"text", Padding::Sized).unwrap();
    assert_eq!(pair.open(&sealed), Err(OpenError::Failed));
}

#[test]
fn an_older_record_opens_until_its_secret_is_destroyed() {
    let mut pair = Pair::new();
    let sealed = pair.seal(b"written before the rotations");
    let rk_id = pair.keys.record().keys[0].rk_id;
    for week in 1..=4 {
        pair.keys.rotate(START_S + week * ROTATE_AFTER_S, &mut pair.rng);
        assert_ne!(pair.keys.record().keys[0].rk_id, rk_id);
        assert!(pair.open(&sealed).is_ok(), "week {week}");
    }
    // And after a restart in between.
    let bytes = pair.keys.to_bytes();
    pair.keys = ReceiverKeys::from_bytes(pair.destination.public_key(), &bytes).unwrap();
    assert!(pair.open(&sealed).is_ok());
    pair.keys.rotate(START_S + SEALABLE_S + KEPT_AFTER_S, &mut pair.rng);
    assert_eq!(pair.open(&sealed), Err(OpenError::UnknownReceiverKey { rk_id }));
}

#[test]
fn small_order_keys_agree_on_nothing() {
    // u = 0, 1, p - 1, p, p + 1: points of order 2, 1 and 4 (RFC 7748 section 6.1), two spelt twice.
    let mut edges = vec![[0; 32], [0; 32]];
    edges[1][0] = 1;
    for low in [0xec, 0xed, 0xee] {
        let mut edge = [0xff; 32];
        (edge[0], edge[31]) = (low, 0x7f);
        edges.push(edge);
    }
    for edge in edges {
        let mut pair = Pair::new();
        let rk_id = pair.keys.record().keys[0].rk_id;
        // As E: the key that everybody knows must not be derived, whatever it was sealed with.
        let record = pair.record();
        let mut session = pair.session();
        let transcript = Transcript {
            network: &pair.network,
            suite: SUITE_X25519_CHACHA20,
            source: &pair.source.public_key(),
            destination: &pair.destination.public_key(),
            record: record.digest(),
            rk_id,
            ephemeral: &edge,
        };
        session.ephemeral = edge;
        session.key = transcript.key(&[0; 32]).unwrap();
        let forged = session.seal(pair.now, AAD, b"text", Padding::Sized).unwrap();
        assert_eq!(pair.open(&forged), Err(OpenError::Failed), "{}", hex(&edge));

        // As R, in a record its owner signed.
        let mut record = pair.keys.record().clone();
        record.keys = vec![ReceiverKey { x25519: edge, ..record.keys[0] }];
        let record = pair.signed(&record);
        let refused =
            SealSession::new(&pair.network, &pair.source.public_key(), &record, pair.now, &mut pair.rng);
        assert_eq!(refused.unwrap_err(), CryptoError::NonContributory, "{}", hex(&edge));
    }
}

#[test]
fn messages_of_a_session_open_in_any_order_and_again() {
    let mut pair = Pair::new();
    let mut session = pair.session();
    let now = pair.now;
    let mut sealed: Vec<_> =
        (0..10u8).map(|i| session.seal(now, AAD, &[i; 5], Padding::Sized).unwrap()).collect();
    let nonces: Vec<_> = sealed.iter().map(|s| SealedPayload::decode(s).unwrap().counter).collect();
    assert_eq!(nonces, (0..10).collect::<Vec<_>>());
    sealed.reverse();
    for (i, sealed) in sealed.iter().enumerate() {
        let plaintext = vec![9 - i as u8; 5];
        // Duplicates are the business of dedup, which knows what it took in.
        assert_eq!(pair.open(sealed), Ok(plaintext.clone()));
        assert_eq!(pair.open(sealed), Ok(plaintext));
    }
}

#[test]
fn a_session_ends_after_a_minute_or_a_thousand_messages() {
    let mut pair = Pair::new();
    let now = pair.now;
    let mut session = pair.session();
    for _ in 0..SESSION_MESSAGES_MAX {
        session.seal(now, AAD, b"", Padding::None).unwrap();
    }
    assert_eq!(session.seal(now, AAD, b"", Padding::None), Err(CryptoError::SessionSpent));

    let mut session = pair.session();
    assert!(session.seal(now + SESSION_AGE_MAX - Duration::from_nanos(1), AAD, b"", Padding::None).is_ok());
    let spent = session.seal(now + SESSION_AGE_MAX, AAD, b"", Padding::None);
    assert_eq!(spent, Err(CryptoError::SessionSpent));
}

fn ephemeral(sealed: &[u8]) -> [u8; 32] {
    SealedPayload::decode(sealed).unwrap().ephemeral
}

#[test]
fn sessions_are_reused_until_spent_and_follow_the_record() {
    let mut pair = Pair::new();
    let mut sessions = SealSessions::new(pair.network, pair.source.public_key());
    let mut rng = SeededRng::new(9);
    let start = pair.now;
    let mut seal = |sessions: &mut SealSessions, record: &VerifiedKeyRecord, at: Duration| {
        sessions.seal(start + at, record, AAD, b"text", Padding::Sized, &mut rng).unwrap()
    };
    let second = Duration::from_secs(1);
    let first = pair.record();
    let a = seal(&mut sessions, &first, Duration::ZERO);
    let b = seal(&mut sessions, &first, 59 * second);
    assert_eq!(ephemeral(&a), ephemeral(&b));
    let c = seal(&mut sessions, &first, 60 * second);
    assert_ne!(ephemeral(&b), ephemeral(&c));

    pair.keys.rotate(START_S + ROTATE_AFTER_S, &mut pair.rng);
    let d = seal(&mut sessions, &pair.record(), 61 * second);
    assert_ne!(ephemeral(&c), ephemeral(&d));
    for sealed in [a, b, c, d] {
        assert_eq!(pair.open(&sealed), Ok(b"text".to_vec()));
    }
    assert_eq!(sessions.len(), 1);
    sessions.forget_spent(start + 120 * second);
    assert_eq!(sessions.len(), 1);
    sessions.forget_spent(start + 121 * second);
    assert!(sessions.is_empty());
}

#[test]
fn sessions_are_bounded() {
    let network = network_id("public");
    let mut scratch = SignatureInput::new(network);
    let mut rng = SeededRng::new(3);
    let mut sessions = SealSessions::new(network, MeshIdentity::from_seed([1; 32]).public_key());
    for _ in 0..SESSIONS_MAX + 10 {
        let identity = MeshIdentity::generate(&mut rng);
        let keys = ReceiverKeys::new(identity.public_key(), START_S, &mut rng);
        let record = key_record::sign(&identity, &mut scratch, keys.record()).unwrap();
        sessions.seal(Instant::now(), &record, AAD, b"", Padding::None, &mut rng).unwrap();
        assert!(sessions.len() <= SESSIONS_MAX);
    }
    assert_eq!(sessions.len(), SESSIONS_MAX);
}

impl Pair {
    fn opens(&self, sessions: &mut OpenSessions, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        sessions.open(&self.keys, &self.source.public_key(), sealed, AAD)
    }
}

fn keys_held(sessions: &OpenSessions, pair: &Pair) -> usize {
    sessions.sources.peek(&pair.source.public_key()).map_or(0, Vec::len)
}

#[test]
fn a_key_is_agreed_on_once_for_all_its_messages() {
    let mut pair = Pair::new();
    let mut sessions = OpenSessions::new(pair.network);
    let mut sealing = pair.session();
    let now = pair.now;
    for i in 0..10u8 {
        let sealed = sealing.seal(now, AAD, &[i; 5], Padding::Sized).unwrap();
        assert_eq!(pair.opens(&mut sessions, &sealed), Ok(vec![i; 5]));
        // Again: replays are the business of dedup.
        assert_eq!(pair.opens(&mut sessions, &sealed), Ok(vec![i; 5]));
        assert_eq!(keys_held(&sessions, &pair), 1);
    }
    // That it is the remembered key which opens: another one in its place does not.
    let sealed = sealing.seal(now, AAD, b"text", Padding::Sized).unwrap();
    sessions.sources.used(&pair.source.public_key()).unwrap()[0].key = Zeroizing::new([7; 32]);
    assert_eq!(pair.opens(&mut sessions, &sealed), Err(OpenError::Failed));
    // The next key pushes out the oldest of the same source.
    for held in [2, 2, 2] {
        let sealed = pair.seal(b"text");
        assert_eq!(pair.opens(&mut sessions, &sealed), Ok(b"text".to_vec()));
        assert_eq!(keys_held(&sessions, &pair), held);
    }
}

#[test]
fn a_remembered_key_opens_nothing_that_is_not_its_source_s() {
    let mut pair = Pair::new();
    let mut sessions = OpenSessions::new(pair.network);
    let mut sealing = pair.session();
    let (now, failed) = (pair.now, Err(OpenError::Failed));
    let first = sealing.seal(now, AAD, b"text", Padding::Sized).unwrap();
    let next = sealing.seal(now, AAD, b"text", Padding::Sized).unwrap();

    // Nothing is remembered of what fails.
    let stranger = MeshIdentity::from_seed([3; 32]).public_key();
    assert_eq!(sessions.open(&pair.keys, &stranger, &first, AAD), failed);
    assert_eq!(sessions.open(&pair.keys, &pair.source.public_key(), &first, b"other fields"), failed);
    assert!(sessions.is_empty());
    pair.opens(&mut sessions, &first).unwrap();
    // Another source that shows the same ephemeral key gets no further than without the memory.
    assert_eq!(sessions.open(&pair.keys, &stranger, &next, AAD), failed);
    assert_eq!(sessions.open(&pair.keys, &pair.source.public_key(), &next, b"other fields"), failed);
    // Nor does a counter that was changed.
    let mut wrong = next.clone();
    let counter_at = 1 + 5 + 34;
    assert_eq!(wrong[counter_at], 1);
    wrong[counter_at] = 2;
    assert_eq!(pair.opens(&mut sessions, &wrong), failed);
    assert_eq!(pair.opens(&mut sessions, &next), Ok(b"text".to_vec()));
}

#[test]
fn a_remembered_key_ends_with_the_secret() {
    let mut pair = Pair::new();
    let mut sessions = OpenSessions::new(pair.network);
    let sealed = pair.seal(b"text");
    let rk_id = pair.keys.record().keys[0].rk_id;
    pair.opens(&mut sessions, &sealed).unwrap();
    pair.keys.rotate(START_S + ROTATE_AFTER_S, &mut pair.rng);
    sessions.forget_destroyed(&pair.keys);
    assert_eq!(sessions.len(), 1);
    assert!(pair.opens(&mut sessions, &sealed).is_ok());
    pair.keys.rotate(START_S + SEALABLE_S + KEPT_AFTER_S, &mut pair.rng);
    assert_eq!(pair.opens(&mut sessions, &sealed), Err(OpenError::UnknownReceiverKey { rk_id }));
    sessions.forget_destroyed(&pair.keys);
    assert!(sessions.is_empty());
}

#[test]
fn a_flood_of_sources_pushes_out_no_key_that_is_in_use() {
    let mut pair = Pair::new();
    let mut sessions = OpenSessions::new(pair.network);
    let mut sealing = pair.session();
    let (now, record) = (pair.now, pair.record());
    let sealed: Vec<_> = (0..6).map(|_| sealing.seal(now, AAD, b"text", Padding::Sized).unwrap()).collect();
    let mut rng = SeededRng::new(4);
    for (n, sealed) in sealed.iter().enumerate() {
        pair.opens(&mut sessions, sealed).unwrap();
        assert_eq!(keys_held(&sessions, &pair), 1, "after {n} waves");
        for _ in 0..OPEN_SOURCES_MAX / 2 {
            let source = MeshIdentity::generate(&mut rng).public_key();
            let mut session = SealSession::new(&pair.network, &source, &record, now, &mut rng).unwrap();
            let sealed = session.seal(now, AAD, b"flood", Padding::Sized).unwrap();
            sessions.open(&pair.keys, &source, &sealed, AAD).unwrap();
            assert!(sessions.len() <= OPEN_SOURCES_MAX);
        }
        assert_eq!(keys_held(&sessions, &pair), 1, "after {} waves", n + 1);
    }
    assert_eq!(sessions.len(), OPEN_SOURCES_MAX);
}

#[test]
fn other_shapes_do_not_open() {
    let mut pair = Pair::new();
    let good = pair.seal(b"text");
    let sealed = SealedPayload::decode(&good).unwrap();
    let shape = |content: &[u8]| {
        let mut out = Vec::new();
        cbor::put_array(&mut out, 4);
        cbor::put_uint(&mut out, u64::from(sealed.rk_id));
        cbor::put_bytes(&mut out, &sealed.ephemeral);
        cbor::put_uint(&mut out, 0);
        cbor::put_bytes(&mut out, content);
        out
    };
    for len in 0..=TAG_BYTES {
        assert!(SealedPayload::decode(&shape(&vec![0; len])).is_err(), "{len}");
    }
    assert!(SealedPayload::decode(&shape(&[0; TAG_BYTES + 1])).is_ok());
    assert!(SealedPayload::decode(&shape(&[0; PAYLOAD_BYTES_MAX + 1])).is_err());
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(pair.open(&longer), Err(OpenError::Failed));
}

#[test]
fn a_content_without_its_end_mark_does_not_open() {
    let mut pair = Pair::new();
    for content in [vec![0; 32], vec![0x81], b"text".to_vec()] {
        let session = pair.session();
        let mut encrypted = content;
        let tag = aead::encrypt(&session.key, &counter_nonce(0), AAD, &mut encrypted).unwrap();
        let mut sealed = Vec::new();
        cbor::put_array(&mut sealed, 4);
        cbor::put_uint(&mut sealed, u64::from(session.rk_id));
        cbor::put_bytes(&mut sealed, &session.ephemeral);
        cbor::put_uint(&mut sealed, 0);
        cbor::put_bytes(&mut sealed, &[encrypted.as_slice(), &tag].concat());
        assert_eq!(pair.open(&sealed), Err(OpenError::Failed));
    }
}

#[test]
fn debug_shows_no_key_and_keys_wipe_themselves() {
    fn wipes_itself<T: ZeroizeOnDrop>(_: &T) {}
    let mut pair = Pair::new();
    let session = pair.session();
    wipes_itself(&session.key);
    let mut sessions = SealSessions::new(pair.network, pair.source.public_key());
    let record = pair.record();
    sessions.seal(pair.now, &record, AAD, b"", Padding::None, &mut pair.rng).unwrap();
    let mut opening = OpenSessions::new(pair.network);
    let sealed = pair.seal(b"");
    pair.opens(&mut opening, &sealed).unwrap();
    wipes_itself(&opening.sources.peek(&pair.source.public_key()).unwrap()[0].key);
    let shown = format!("{session:?} {sessions:?} {opening:?}");
    assert!(!shown.contains(&hex(&session.key[..4])), "{shown}");
    assert!(!shown.contains(&format!("{:?}", &session.key[..4]).replace(['[', ']'], "")), "{shown}");
}

proptest! {
    #[test]
    fn garbage_never_opens_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pair = Pair::new();
        prop_assert!(pair.open(&bytes).is_err());
    }

    #[test]
    fn any_plaintext_round_trips(
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
        aad in prop::collection::vec(any::<u8>(), 0..100),
        sized: bool,
    ) {
        let mut pair = Pair::new();
        let padding = if sized { Padding::Sized } else { Padding::None };
        let now = pair.now;
        let sealed = pair.session().seal(now, &aad, &plaintext, padding).unwrap();
        let opened = open(&pair.keys, &pair.network, &pair.source.public_key(), &sealed, &aad);
        prop_assert_eq!(opened, Ok(plaintext));
    }
}
