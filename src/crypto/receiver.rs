//! The X25519 secrets with which a node opens what was sealed to it, and their rotation.
//!
//! A secret is offered to others for 7 days, may be sealed to for 21, and opens for another 14,
//! the longest that a message lives; then it is destroyed, and what was sealed to it stays closed.
//! So five secrets are alive at most times, of which the key record offers the newest only: to
//! offer an older one as well would invite senders to use it.
//!
//! **One rk_id, one key, one record.** Each rotation makes one secret, one record that offers it,
//! and one `rk_id`, drawn at random. A sealed payload names the rk_id, so the opener knows which
//! key it is for *and* which record's digest it is bound to, and tries nothing. Were a key offered
//! by two records, each would give it an rk_id of its own. Random rather than counted, because a
//! node that lost its state would count from the start again and take a message sealed to a key
//! that is gone for a damaged one.
//!
//! `order` is the last order plus one, raised to the clock: a node that comes back from a backup,
//! which holds no receiver secrets, is above its older self at once. Where its clock stood wrong
//! it hears its older record and outgrows it ([`ReceiverKeys::outgrow`]).
//!
//! Pure: the wall clock is an argument, in unix seconds, and should be a trusted one.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::wire::{
    DecodeError, Digest, KeyRecord, PublicKey, ReceiverKey,
    cbor::{self, Reader},
    key_record::SUITE_X25519_CHACHA20,
};

use super::{
    agree::public_of,
    error::CryptoError,
    key_record::{self, VerifiedKeyRecord},
};

const DAY_S: u64 = 86_400;

/// A secret is replaced when it is this old, by default.
pub const ROTATE_AFTER_S: u64 = 7 * DAY_S;

/// A key may be sealed to until it is this old, by default: two rotations longer than it is offered, so that
/// senders who hear of a new record late can still write.
pub const SEALABLE_S: u64 = 21 * DAY_S;

/// A secret outlives its key by this, the longest lifetime of a message.
pub const KEPT_AFTER_S: u64 = 14 * DAY_S;

/// Most secrets kept. Rotation alone keeps five; the rest is room for records outgrown.
pub const SECRETS_MAX: usize = 16;

/// How often secrets are replaced, and for how long their keys may be sealed to. What never
/// changes is how long a secret outlives its key ([`KEPT_AFTER_S`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// A secret is replaced when it is this old, in seconds.
    pub rotate_after_s: u64,
    /// A key may be sealed to until it is this old, in seconds.
    pub sealable_s: u64,
}

impl RotationPolicy {
    /// Secrets alive at a time. More than [`SECRETS_MAX`] are not kept, so a policy that needs more
    /// would close messages before their time.
    pub fn secrets_alive(&self) -> u64 {
        let lives_s = self.sealable_s.saturating_add(KEPT_AFTER_S);
        lives_s.div_ceil(self.rotate_after_s.max(1)).saturating_add(1)
    }
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { rotate_after_s: ROTATE_AFTER_S, sealable_s: SEALABLE_S }
    }
}

/// Highest order that the clock may raise to, so that a clock far in the future leaves room.
const CLOCK_ORDER_MAX: u32 = 0xf000_0000;

const STATE_VERSION: u64 = 1;

/// One secret with the record that offers its public half. Wiped when dropped; prints no secret.
pub struct ReceiverSecret {
    secret: StaticSecret,
    record: KeyRecord,
    key: ReceiverKey,
    digest: Digest,
    created_s: u64,
    destroy_at_s: u64,
}

impl ReceiverSecret {
    fn new(public_key: PublicKey, stored: Stored) -> Self {
        let key = ReceiverKey {
            rk_id: stored.rk_id,
            suite: SUITE_X25519_CHACHA20,
            x25519: public_of(&stored.secret),
        };
        let record =
            KeyRecord { public_key, order: stored.order, not_after: stored.not_after, keys: vec![key] };
        Self {
            digest: key_record::digest(&record),
            secret: stored.secret,
            record,
            key,
            created_s: stored.created_s,
            destroy_at_s: stored.destroy_at_s,
        }
    }

    /// The secret half.
    pub(super) fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    /// The public half and its rk_id.
    pub fn key(&self) -> &ReceiverKey {
        &self.key
    }

    /// Digest of the record that offers it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// The one secret field wipes itself.
impl ZeroizeOnDrop for ReceiverSecret {}

impl fmt::Debug for ReceiverSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverSecret")
            .field("rk_id", &self.key.rk_id)
            .field("destroy_at_s", &self.destroy_at_s)
            .finish_non_exhaustive()
    }
}

/// What is kept of a secret; the rest follows from it.
struct Stored {
    rk_id: u32,
    order: u32,
    created_s: u64,
    not_after: u32,
    destroy_at_s: u64,
    secret: StaticSecret,
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// A new record is to be signed, stored and announced.
    pub issued: bool,
    /// Secrets that are gone; the stored state is to be written over.
    pub destroyed: usize,
}

/// A node's receiver secrets: the current one and those that still open.
pub struct ReceiverKeys {
    public_key: PublicKey,
    /// From the configuration, not from the stored state.
    policy: RotationPolicy,
    /// No record of this node had a higher order, as far as is known.
    order_floor: u32,
    /// Another record of this identity counts for more than the current one.
    outgrown: bool,
    current: ReceiverSecret,
    /// Youngest first.
    older: Vec<ReceiverSecret>,
}

impl ReceiverKeys {
    /// The first secret of a node.
    pub fn new(public_key: PublicKey, now_unix_s: u64, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::with_policy(RotationPolicy::default(), public_key, now_unix_s, rng)
    }

    /// The first secret of a node that replaces its secrets by `policy`.
    pub fn with_policy(
        policy: RotationPolicy,
        public_key: PublicKey,
        now_unix_s: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let current = issue(public_key, 0, now_unix_s, policy.sealable_s, rng, |_| false);
        let order_floor = current.record.order;
        Self { public_key, policy, order_floor, outgrown: false, current, older: Vec::new() }
    }

    /// Replaces secrets by `policy` from now on. Records that are out keep their end.
    pub fn follow(&mut self, policy: RotationPolicy) {
        self.policy = policy;
    }

    /// What secrets are replaced by.
    pub fn policy(&self) -> RotationPolicy {
        self.policy
    }

    /// Makes a new current secret where it is time, and destroys those that are due.
    pub fn rotate(&mut self, now_unix_s: u64, rng: &mut (impl CryptoRng + ?Sized)) -> Rotation {
        // Whichever way the clock moved since: a key made under a clock that ran ahead is not
        // kept until the world catches up.
        let aged = now_unix_s.abs_diff(self.current.created_s) >= self.policy.rotate_after_s;
        let issued = aged || self.outgrown;
        if issued {
            self.outgrown = false;
            let taken = |rk_id| self.lookup(rk_id).is_some();
            let sealable_s = self.policy.sealable_s;
            let fresh = issue(self.public_key, self.order_floor, now_unix_s, sealable_s, rng, taken);
            self.order_floor = fresh.record.order;
            self.older.insert(0, std::mem::replace(&mut self.current, fresh));
        }
        // A policy that became shorter does not close what was sealed under the default one.
        let sealable_s = self.policy.sealable_s.max(SEALABLE_S);
        let latest = now_unix_s.saturating_add(sealable_s).saturating_add(KEPT_AFTER_S);
        for secret in &mut self.older {
            secret.destroy_at_s = secret.destroy_at_s.min(latest);
        }
        let before = self.older.len();
        self.older.retain(|secret| now_unix_s < secret.destroy_at_s);
        self.older.truncate(SECRETS_MAX.saturating_sub(1));
        Rotation { issued, destroyed: before.saturating_sub(self.older.len()) }
    }

    /// Takes note of a record of this identity that came from the mesh. True where this state did
    /// not make it and the current record does not supersede it: the node came back from a backup,
    /// or its identity runs twice. The next rotation then issues a record above it. Two clones
    /// would chase each other, so whoever calls this counts how often it is true.
    pub fn outgrow(&mut self, heard: &VerifiedKeyRecord) -> bool {
        let order = heard.record().order;
        let ours = self.holds(heard.digest());
        if *heard.public_key() != self.public_key || ours || order < self.current.record.order {
            return false;
        }
        self.order_floor = self.order_floor.max(order);
        // An equal order is outgrown as well: whose digest is greater would decide between them.
        self.outgrown = true;
        true
    }

    /// The record to sign and announce; offers the current key.
    pub fn record(&self) -> &KeyRecord {
        &self.current.record
    }

    /// Whose secrets these are.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The one secret that `rk_id` names.
    pub fn lookup(&self, rk_id: u32) -> Option<&ReceiverSecret> {
        std::iter::once(&self.current).chain(&self.older).find(|secret| secret.key.rk_id == rk_id)
    }

    /// True while the secret that this record offers is here.
    pub fn holds(&self, record: &Digest) -> bool {
        std::iter::once(&self.current).chain(&self.older).any(|secret| secret.digest == *record)
    }

    /// When [`ReceiverKeys::rotate`] has something to do next, in unix seconds; 0 is at once.
    pub fn next_change_unix_s(&self) -> u64 {
        if self.outgrown {
            return 0;
        }
        let rotation = self.current.created_s.saturating_add(self.policy.rotate_after_s);
        self.older.iter().map(|secret| secret.destroy_at_s).fold(rotation, u64::min)
    }

    /// The state for the store, which seals it. Public halves and digests follow from it.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room from the start: a vector that grows leaves copies of its content behind.
        let mut out = Zeroizing::new(Vec::with_capacity(16 + SECRETS_MAX * 72));
        cbor::put_array(&mut *out, 4);
        cbor::put_uint(&mut *out, STATE_VERSION);
        cbor::put_uint(&mut *out, u64::from(self.order_floor));
        cbor::put_uint(&mut *out, u64::from(self.outgrown));
        cbor::put_array(&mut *out, self.older.len().saturating_add(1) as u64);
        for entry in std::iter::once(&self.current).chain(&self.older) {
            cbor::put_array(&mut *out, 6);
            cbor::put_uint(&mut *out, u64::from(entry.key.rk_id));
            cbor::put_uint(&mut *out, u64::from(entry.record.order));
            cbor::put_uint(&mut *out, entry.created_s);
            cbor::put_uint(&mut *out, u64::from(entry.record.not_after));
            cbor::put_uint(&mut *out, entry.destroy_at_s);
            cbor::put_bytes(&mut out, entry.secret.as_bytes());
        }
        out
    }

    /// Reads back what [`ReceiverKeys::to_bytes`] wrote, under the default policy. Records come out byte for byte as they
    /// were issued.
    ///
    /// # Errors
    /// [`CryptoError::ReceiverState`].
    pub fn from_bytes(public_key: PublicKey, bytes: &[u8]) -> Result<Self, CryptoError> {
        Self::read(public_key, bytes).map_err(CryptoError::ReceiverState)
    }

    fn read(public_key: PublicKey, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.array(4, 4, "receiver keys")?;
        let offset = reader.offset();
        let version = reader.uint(u64::MAX, "receiver keys version")?;
        if version != STATE_VERSION {
            return Err(DecodeError::OutOfRange { field: "receiver keys version", offset, got: version });
        }
        let floor_at = reader.offset();
        let order_floor = reader.u32("receiver keys order")?;
        let outgrown = reader.u8(1, "receiver keys outgrown")? == 1;
        let count = reader.array(1, SECRETS_MAX as u64, "receiver keys")?;
        let current = ReceiverSecret::new(public_key, Stored::read(&mut reader)?);
        let older = (1..count)
            .map(|_| Stored::read(&mut reader).map(|stored| ReceiverSecret::new(public_key, stored)))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        let keys =
            Self { public_key, policy: RotationPolicy::default(), order_floor, outgrown, current, older };
        // Never written: the next record would not supersede the one that is out.
        if std::iter::once(&keys.current).chain(&keys.older).any(|secret| secret.record.order > order_floor) {
            let got = u64::from(order_floor);
            return Err(DecodeError::OutOfRange { field: "receiver keys order", offset: floor_at, got });
        }
        Ok(keys)
    }
}

impl fmt::Debug for ReceiverKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverKeys")
            .field("current", &self.current)
            .field("older", &self.older)
            .finish_non_exhaustive()
    }
}

impl Stored {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array(6, 6, "receiver secret")?;
        Ok(Self {
            rk_id: reader.u32("receiver key id")?,
            order: reader.u32("key record order")?,
            created_s: reader.uint(u64::MAX, "receiver key creation")?,
            not_after: reader.u32("key record not_after")?,
            destroy_at_s: reader.uint(u64::MAX, "receiver key destruction")?,
            secret: StaticSecret::from(*Zeroizing::new(reader.fixed("receiver secret")?)),
        })
    }
}

fn issue(
    public_key: PublicKey,
    order_floor: u32,
    now_unix_s: u64,
    sealable_s: u64,
    rng: &mut (impl CryptoRng + ?Sized),
    taken: impl Fn(u32) -> bool,
) -> ReceiverSecret {
    let clock = u32::try_from(now_unix_s).unwrap_or(u32::MAX).min(CLOCK_ORDER_MAX);
    let not_after_s = now_unix_s.saturating_add(sealable_s);
    let mut rk_id = rng.next_u32();
    while taken(rk_id) {
        rk_id = rng.next_u32();
    }
    ReceiverSecret::new(
        public_key,
        Stored {
            rk_id,
            order: order_floor.saturating_add(1).max(clock),
            created_s: now_unix_s,
            not_after: u32::try_from(not_after_s).unwrap_or(u32::MAX),
            destroy_at_s: not_after_s.saturating_add(KEPT_AFTER_S),
            secret: StaticSecret::random_from_rng(rng),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{MeshIdentity, SignatureInput, network_id, random::SeededRng};

    const START: u64 = 1_800_000_000;

    fn identity() -> MeshIdentity {
        MeshIdentity::from_seed([1; 32])
    }

    fn keys(seed: u64, now_unix_s: u64) -> (ReceiverKeys, SeededRng) {
        let mut rng = SeededRng::new(seed);
        (ReceiverKeys::new(identity().public_key(), now_unix_s, &mut rng), rng)
    }

    fn signed(record: &KeyRecord) -> VerifiedKeyRecord {
        let mut scratch = SignatureInput::new(network_id("public"));
        key_record::sign(&identity(), &mut scratch, record).unwrap()
    }

    fn rk_id(keys: &ReceiverKeys) -> u32 {
        keys.record().keys[0].rk_id
    }

    #[test]
    fn a_secret_is_offered_seven_days_sealable_twenty_one_and_opens_thirty_five() {
        let (mut keys, mut rng) = keys(1, START);
        let first = rk_id(&keys);
        assert_eq!(u64::from(keys.record().not_after), START + 21 * DAY_S);
        assert_eq!(keys.next_change_unix_s(), START + 7 * DAY_S);

        assert_eq!(keys.rotate(START + 7 * DAY_S - 1, &mut rng), Rotation::default());
        assert_eq!(rk_id(&keys), first);
        assert_eq!(keys.rotate(START + 7 * DAY_S, &mut rng), Rotation { issued: true, destroyed: 0 });
        assert_ne!(rk_id(&keys), first);
        assert!(keys.lookup(first).is_some());

        let end = START + 35 * DAY_S;
        keys.rotate(end - 1, &mut rng);
        assert!(keys.lookup(first).is_some());
        assert_eq!(keys.rotate(end, &mut rng).destroyed, 1);
        assert!(keys.lookup(first).is_none());
    }

    #[test]
    fn a_year_of_rotations_at_the_times_asked_for_keeps_five_secrets_and_a_rising_order() {
        let (mut keys, mut rng) = keys(2, START);
        let mut now = START;
        let mut order = keys.record().order;
        while now < START + 365 * DAY_S {
            now = keys.next_change_unix_s();
            let rotation = keys.rotate(now, &mut rng);
            assert!(rotation.issued || rotation.destroyed > 0, "woken for nothing at {now}");
            assert_eq!(keys.record().order > order, rotation.issued);
            order = keys.record().order;
            assert!(keys.older.len() < 5, "{} secrets", keys.older.len() + 1);
            assert!(u64::from(keys.record().not_after) >= now + 14 * DAY_S);
        }
    }

    #[test]
    fn one_rk_id_names_one_key_and_one_record() {
        let (mut keys, mut rng) = keys(3, START);
        let mut records = vec![keys.record().clone()];
        for week in 1..=4 {
            keys.rotate(START + week * ROTATE_AFTER_S, &mut rng);
            records.push(keys.record().clone());
        }
        for record in &records {
            assert_eq!(record.keys.len(), 1);
            let secret = keys.lookup(record.keys[0].rk_id).unwrap();
            assert_eq!(*secret.key(), record.keys[0]);
            assert_eq!(*secret.digest(), key_record::digest(record));
            assert_eq!(*secret.digest(), *signed(record).digest());
        }
    }

    #[test]
    fn a_restart_keeps_every_secret_and_the_record_byte_for_byte() {
        let (mut before, mut rng) = keys(4, START);
        for week in 1..=6 {
            before.rotate(START + week * ROTATE_AFTER_S, &mut rng);
        }
        let bytes = before.to_bytes();
        let mut after = ReceiverKeys::from_bytes(*before.public_key(), &bytes).unwrap();
        assert_eq!(*after.to_bytes(), *bytes);
        assert_eq!(after.record().encode_signed(), before.record().encode_signed());
        assert_eq!(after.next_change_unix_s(), before.next_change_unix_s());
        for secret in std::iter::once(&before.current).chain(&before.older) {
            let restored = after.lookup(secret.key.rk_id).unwrap();
            assert_eq!(restored.secret.as_bytes(), secret.secret.as_bytes());
            assert_eq!(restored.digest, secret.digest);
        }
        let now = after.next_change_unix_s();
        let order = after.record().order;
        assert!(after.rotate(now, &mut rng).issued);
        assert!(after.record().order > order);
    }

    #[test]
    fn the_fullest_state_needs_no_second_allocation() {
        let (mut keys, mut rng) = keys(5, u64::from(CLOCK_ORDER_MAX));
        for _ in 0..SECRETS_MAX + 4 {
            keys.outgrown = true;
            keys.rotate(u64::from(CLOCK_ORDER_MAX), &mut rng);
        }
        assert_eq!(keys.older.len() + 1, SECRETS_MAX);
        let bytes = keys.to_bytes();
        assert!(bytes.len() <= 16 + SECRETS_MAX * 72, "{}", bytes.len());
        assert!(ReceiverKeys::from_bytes(*keys.public_key(), &bytes).is_ok());
    }

    #[test]
    fn a_floor_below_its_own_records_is_refused() {
        let (mut keys, _) = keys(5, START);
        keys.order_floor = keys.current.record.order - 1;
        let read = ReceiverKeys::from_bytes(*keys.public_key(), &keys.to_bytes());
        assert!(
            matches!(
                read,
                Err(CryptoError::ReceiverState(DecodeError::OutOfRange { field: "receiver keys order", .. }))
            ),
            "the next record would not supersede the one that is out"
        );
    }

    #[test]
    fn damaged_state_is_refused() {
        let (keys, _) = keys(6, START);
        let bytes = keys.to_bytes();
        for end in 0..bytes.len() {
            let cut = ReceiverKeys::from_bytes(*keys.public_key(), &bytes[..end]);
            assert!(matches!(cut, Err(CryptoError::ReceiverState(_))), "prefix of {end}");
        }
        let mut newer = bytes.to_vec();
        newer[1] = 2;
        assert!(ReceiverKeys::from_bytes(*keys.public_key(), &newer).is_err());
    }

    #[test]
    fn a_node_that_lost_its_state_is_above_its_older_self() {
        let (mut old, mut rng) = keys(7, START);
        old.rotate(START + 8 * DAY_S, &mut rng);
        // The clock alone does it where it is right.
        let (new, _) = keys(8, START + 9 * DAY_S);
        assert!(signed(new.record()).supersedes(&signed(old.record())));
        assert!(!new.older.iter().any(|s| s.key.rk_id == rk_id(&old)));

        // Where it stood wrong, the older record is heard and outgrown.
        let (mut new, mut rng) = keys(9, 1000);
        assert!(!signed(new.record()).supersedes(&signed(old.record())));
        assert!(new.outgrow(&signed(old.record())));
        assert_eq!(new.next_change_unix_s(), 0);
        // The note survives a restart in between.
        let bytes = new.to_bytes();
        let mut new = ReceiverKeys::from_bytes(*new.public_key(), &bytes).unwrap();
        assert!(new.rotate(1000, &mut rng).issued);
        assert!(signed(new.record()).supersedes(&signed(old.record())));
        assert!(!new.rotate(1001, &mut rng).issued);
    }

    #[test]
    fn own_older_and_foreign_records_are_not_outgrown() {
        let (mut keys, mut rng) = keys(10, START);
        let first = keys.record().clone();
        keys.rotate(START + ROTATE_AFTER_S, &mut rng);
        assert!(!keys.outgrow(&signed(&first)));
        let current = signed(keys.record());
        assert!(!keys.outgrow(&current));

        let stranger = MeshIdentity::from_seed([2; 32]);
        let theirs = KeyRecord { public_key: stranger.public_key(), order: u32::MAX, ..first.clone() };
        let mut scratch = SignatureInput::new(network_id("public"));
        assert!(!keys.outgrow(&key_record::sign(&stranger, &mut scratch, &theirs).unwrap()));

        let twin = KeyRecord { not_after: 1, ..keys.record().clone() };
        assert!(keys.outgrow(&signed(&twin)), "equal order, other content");
    }

    #[test]
    fn a_clock_that_ran_ahead_neither_stops_rotation_nor_keeps_secrets() {
        let ahead = START + 1000 * DAY_S;
        let (mut keys, mut rng) = keys(11, ahead);
        let first = rk_id(&keys);
        let order = keys.record().order;
        assert!(keys.rotate(START, &mut rng).issued);
        assert!(keys.record().order > order);
        assert_eq!(u64::from(keys.record().not_after), START + SEALABLE_S);
        keys.rotate(START + SEALABLE_S + KEPT_AFTER_S, &mut rng);
        assert!(keys.lookup(first).is_none());
    }

    #[test]
    fn extreme_clocks_overflow_nothing() {
        for now in [0, u64::from(u32::MAX), u64::MAX] {
            let (mut keys, mut rng) = keys(12, now);
            let order = keys.record().order;
            keys.rotate(u64::MAX - now, &mut rng);
            assert!(keys.record().order >= order);
            assert!(ReceiverKeys::from_bytes(*keys.public_key(), &keys.to_bytes()).is_ok());
        }
    }

    #[test]
    fn debug_shows_no_secret_and_secrets_wipe_themselves() {
        fn wipes_itself<T: ZeroizeOnDrop>() {}
        wipes_itself::<StaticSecret>();
        wipes_itself::<ReceiverSecret>();
        let (mut keys, mut rng) = keys(13, START);
        keys.rotate(START + ROTATE_AFTER_S, &mut rng);
        let shown = format!("{keys:?}");
        assert!(shown.contains(&rk_id(&keys).to_string()), "{shown}");
        for secret in std::iter::once(&keys.current).chain(&keys.older) {
            assert!(
                !shown.contains(&format!("{:?}", &secret.secret.as_bytes()[..4]).replace(['[', ']'], ""))
            );
            assert!(!shown.contains(&crate::wire::ids::hex(&secret.secret.as_bytes()[..4])));
        }
    }

    #[test]
    fn another_policy_rotates_sooner_and_signs_a_nearer_end() {
        let policy = RotationPolicy { rotate_after_s: 2 * DAY_S, sealable_s: 4 * DAY_S };
        assert_eq!((policy.secrets_alive(), RotationPolicy::default().secrets_alive()), (10, 6));
        let mut rng = SeededRng::new(11);
        let mut keys = ReceiverKeys::with_policy(policy, identity().public_key(), START, &mut rng);
        let ends_in = |keys: &ReceiverKeys, now: u64| u64::from(keys.record().not_after) - now;
        assert_eq!(ends_in(&keys, START), 4 * DAY_S);
        assert_eq!(keys.next_change_unix_s(), START + 2 * DAY_S);
        assert!(keys.rotate(START + 2 * DAY_S, &mut rng).issued);
        assert_eq!(ends_in(&keys, START + 2 * DAY_S), 4 * DAY_S);
        // The state does not hold the policy: whoever reads it says what holds now.
        let mut read = ReceiverKeys::from_bytes(identity().public_key(), &keys.to_bytes()).expect("a state");
        assert_eq!(read.policy(), RotationPolicy::default());
        read.follow(policy);
        assert_eq!(read.next_change_unix_s(), keys.next_change_unix_s());
        // As many as the policy needs are kept, and none is closed before its time.
        for turn in 2..20 {
            keys.rotate(START + turn * 2 * DAY_S, &mut rng);
        }
        assert_eq!(keys.older.len() as u64 + 1, policy.secrets_alive() - 1);
    }
}
