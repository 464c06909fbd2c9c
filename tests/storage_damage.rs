//! Files of a store that were cut short or altered: it opens with everything older, or refuses with what
//! to do. It never serves a message that is not the one that was stored, and never panics.
//!
//! The test run tries a sample. `QPC_DAMAGE=all` tries every length within the last 4 KiB of each file,
//! and some thousand places (`scripts/campaign.sh damage`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use quicprochat_mesh::{
    storage::{
        Awaits, DataDir, EmbeddedOptions, EmbeddedStore, Engine, HeldRow, InboxCommit, LocalOp, LocalOutcome,
        MailOp, MailOutcome, OutboxRow, PageLimit, StoreError, Strangers, Work, WorkDone,
    },
    wire::{Address, MessageUid, PacketId, Priority},
};

const ALL: PageLimit = PageLimit { rows_max: usize::MAX, bytes_max: usize::MAX };

/// Batches in the store: one message of each kind a batch.
const BATCHES: u64 = 60;

/// Everything within this distance of a file's end is cut off once.
const TAIL_BYTES: u64 = 4096;

fn wide(n: u64) -> [u8; 16] {
    (u128::from(n) + 1).to_be_bytes()
}

/// Content that says which message it is of.
fn body(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(20 + (n % 100) as usize)
}

fn batch(n: u64) -> Vec<Work> {
    vec![
        Work::Local(vec![
            LocalOp::OutboxPut(OutboxRow {
                uid: MessageUid(wide(n)),
                destination: Address([1; 16]),
                created_unix_s: n,
                expires_s: u64::MAX,
                state: vec![],
                body: body(n),
            }),
            LocalOp::InboxCommit(InboxCommit {
                uid: MessageUid(wide(n)),
                source: Address([2; 16]),
                ingress: None,
                dedup_until_unix_s: u64::MAX,
                awaits: Awaits::default(),
                strangers: Strangers::Enter,
                entry: body(n),
            }),
        ]),
        Work::Mail(vec![MailOp::Hold(HeldRow {
            packet_id: PacketId(wide(n)),
            destination: Address([3; 16]),
            source: Address([2; 16]),
            priority: Priority::Normal,
            ingress: Address([4; 16]),
            expires_s: u64::MAX,
            held_at_s: n,
            age_s: 0,
            frame: Bytes::from(body(n)),
        })]),
    ]
}

/// Without a disk's waits: what a sync is worth is shown elsewhere.
fn temp_dir() -> tempfile::TempDir {
    let fast = Path::new("/dev/shm");
    if fast.is_dir() { tempfile::tempdir_in(fast).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(DataDir::open(path)?.into(), EmbeddedOptions::default())
}

/// The files of a store, as a copy of its directory finds them.
#[derive(Clone)]
struct Image(Vec<(&'static str, Vec<u8>)>);

impl Image {
    fn of(dir: &Path) -> Self {
        Self(["store.redb", "row-keys"].map(|name| (name, fs::read(dir.join(name)).unwrap())).into())
    }

    /// Puts it into `dir` with `damage` done to file `index`.
    fn put(&self, dir: &Path, index: usize, damage: Damage) {
        for (i, (name, bytes)) in self.0.iter().enumerate() {
            let mut bytes = bytes.clone();
            if i == index {
                damage.do_to(&mut bytes);
            }
            let path = dir.join(name);
            fs::write(&path, bytes).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Damage {
    CutTo(u64),
    /// A byte that is another one.
    Byte(u64),
    /// A sector that was never written.
    Sector(u64),
}

impl Damage {
    fn do_to(self, bytes: &mut Vec<u8>) {
        let at = |n: u64| usize::try_from(n).unwrap().min(bytes.len());
        match self {
            Damage::CutTo(len) => bytes.truncate(at(len)),
            Damage::Byte(n) => {
                let at = at(n);
                bytes[at] ^= 0x55;
            }
            Damage::Sector(n) => {
                let from = at(n) / 512 * 512;
                let to = (from + 512).min(bytes.len());
                bytes[from..to].fill(0);
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::CutTo(len) => write!(f, "cut to {len} bytes"),
            Damage::Byte(at) => write!(f, "byte {at} altered"),
            Damage::Sector(at) => write!(f, "the sector of byte {at} zeroed"),
        }
    }
}

/// A store of [`BATCHES`] messages of each kind, closed in good order and as a crash leaves it.
fn images() -> [(&'static str, Image); 2] {
    let dir = temp_dir();
    let path = dir.path().join("data");
    let mut store = open(&path).unwrap();
    for n in 0..BATCHES {
        store.commit(&batch(n)).unwrap().into_iter().for_each(|result| drop(result.unwrap()));
    }
    let crashed = Image::of(&path);
    store.close().unwrap();
    [("closed", Image::of(&path)), ("crashed", crashed)]
}

/// What became of a damaged store.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    whole: u64,
    /// Opened without its last batches.
    older: u64,
    /// Opened with rows set aside as damaged.
    set_aside: u64,
}

/// Reads all there is. Each message is the one that was stored, older ones are there where newer ones
/// are, and what is not there is set aside or belonged to the last batch.
fn look(store: &mut EmbeddedStore, what: &str) -> Result<(bool, bool), StoreError> {
    let works = [
        Work::Local(vec![
            LocalOp::OutboxPage { after: None, limit: ALL },
            LocalOp::InboxPage { after: None, limit: ALL },
        ]),
        Work::Mail(vec![MailOp::Page { destination: Address([3; 16]), after: None, limit: ALL }]),
    ];
    let mut results = store.commit(&works)?.into_iter();
    let local = results.next().unwrap()?;
    let mail = results.next().unwrap()?;
    let (WorkDone::Local(local), WorkDone::Mail(mail)) = (local, mail) else { panic!("{what}") };
    let ([LocalOutcome::Outbox(outbox), LocalOutcome::Inbox(inbox)], [MailOutcome::Page(held)]) =
        (local.as_slice(), mail.as_slice())
    else {
        panic!("{what}: {local:?} {mail:?}")
    };
    let message = |id: &[u8; 16], content: &[u8]| {
        let n = u64::try_from(u128::from_be_bytes(*id) - 1).unwrap();
        assert!(n < BATCHES, "{what}: message {n} was never stored");
        assert_eq!(content, body(n), "{what}: content of message {n}");
        n
    };
    let found: [(&str, BTreeSet<u64>, usize); 3] = [
        (
            "outbox",
            outbox.rows.iter().map(|(_, r)| message(r.uid.as_bytes(), &r.body)).collect(),
            outbox.damaged,
        ),
        ("inbox", inbox.rows.iter().map(|r| message(r.uid.as_bytes(), &r.entry)).collect(), inbox.damaged),
        ("held", held.rows.iter().map(|r| message(r.packet_id.as_bytes(), &r.frame)).collect(), held.damaged),
    ];
    let (mut is_older, mut has_damaged) = (false, false);
    for (table, found, damaged) in found {
        let damaged = damaged as u64;
        let there = found.len() as u64 + damaged;
        // Each batch has one sync: the last is what a cut may have torn.
        assert!(there >= BATCHES - 1, "{what}: {table} has {there} of {BATCHES}");
        if damaged == 0 {
            assert!(found.iter().copied().eq(0..there), "{what}: {table} has a gap: {found:?}");
        }
        is_older |= there < BATCHES;
        has_damaged |= damaged > 0;
    }
    Ok((is_older, has_damaged))
}

fn tried(image: &Image, index: usize, damage: Damage, tally: &mut Tally) {
    let what = format!("{} {damage}", image.0[index].0);
    let dir = temp_dir();
    let path: PathBuf = dir.path().join("data");
    drop(DataDir::open(&path).unwrap());
    image.put(&path, index, damage);
    let looked = open(&path).and_then(|mut store| {
        let looked = look(&mut store, &what)?;
        // And it works.
        let more = [Work::Local(vec![LocalOp::OutboxRemove(1)])];
        store.commit(&more)?.into_iter().try_for_each(|result| result.map(drop))?;
        store.close().map(|()| looked)
    });
    match looked {
        Ok((is_older, has_damaged)) => {
            tally.whole += u64::from(!is_older && !has_damaged);
            tally.older += u64::from(is_older);
            tally.set_aside += u64::from(has_damaged);
        }
        Err(e) => {
            // Named, with what to do; and so it is at the next start.
            assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e:?}");
            let text = e.to_string();
            assert!(text.contains("is damaged") && text.contains("restore a backup"), "{what}: {text}");
            match open(&path).and_then(|mut store| look(&mut store, &what)) {
                Err(StoreError::Corrupt { .. }) | Ok(_) => {}
                Err(other) => panic!("{what}: at the second start {other:?}"),
            }
            tally.refused += 1;
        }
    }
}

/// Numbers from a seed: xorshift.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_file_cut_short_or_altered_opens_with_all_that_is_older_or_is_refused() {
    let is_all = std::env::var("QPC_DAMAGE").is_ok_and(|v| v == "all");
    let seed = std::env::var("QPC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4711);
    println!("QPC_SEED={seed}");
    let mut seeded = Seeded(seed);
    // Every how manieth length of the tail, cuts elsewhere, altered bytes, zeroed sectors.
    let (step, cuts, bytes, sectors) = if is_all { (1, 200, 2000, 500) } else { (128, 12, 60, 15) };
    for (state, image) in images() {
        for index in 0..image.0.len() {
            let len = image.0[index].1.len() as u64;
            let mut tally = Tally::default();
            let tail = (len.saturating_sub(TAIL_BYTES)..len).rev().step_by(step).map(Damage::CutTo);
            let elsewhere = (0..cuts).map(|_| Damage::CutTo(seeded.below(len))).collect::<Vec<_>>();
            let altered = (0..bytes).map(|_| Damage::Byte(seeded.below(len))).collect::<Vec<_>>();
            let zeroed = (0..sectors).map(|_| Damage::Sector(seeded.below(len))).collect::<Vec<_>>();
            for damage in tail.chain(elsewhere).chain(altered).chain(zeroed) {
                tried(&image, index, damage, &mut tally);
            }
            let name = image.0[index].0;
            println!("{name}, {state}, {len} bytes: {tally:?}");
            if name == "row-keys" {
                assert_eq!(tally.whole, 0, "a damaged file of keys was taken: {tally:?}");
            }
        }
    }
}
