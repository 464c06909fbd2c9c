//! What was acknowledged is there after the process is killed at any moment, and after the power
//! is cut at any moment.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use quicprochat_mesh::{
    storage::{
        Awaits, Counter, DataDir, EmbeddedOptions, EmbeddedStore, Engine, HeldRow, InboxCommit, LocalOp,
        LocalOutcome, LocalStore, MailOp, MailOutcome, Mailboxes, OutboxRow, PageLimit, QueueBounds,
        StoreError, StoreThread, Strangers, Work, WorkDone,
        faults::{FaultOn, FaultyDisk},
    },
    wire::{Address, MessageUid, PacketId, Priority},
};

const ALL: PageLimit = PageLimit { rows_max: usize::MAX, bytes_max: usize::MAX };

fn wide(n: u64) -> [u8; 16] {
    (u128::from(n) + 1).to_be_bytes()
}

/// Message `n` in all its forms: sent, received, held.
fn outbox_put(n: u64) -> LocalOp {
    LocalOp::OutboxPut(OutboxRow {
        uid: MessageUid(wide(n)),
        destination: Address([1; 16]),
        created_unix_s: n,
        expires_s: u64::MAX,
        state: vec![],
        body: body(n),
    })
}

fn inbox_commit(n: u64) -> LocalOp {
    LocalOp::InboxCommit(InboxCommit {
        uid: MessageUid(wide(n)),
        source: Address([2; 16]),
        ingress: None,
        dedup_until_unix_s: u64::MAX,
        awaits: Awaits::default(),
        strangers: Strangers::Enter,
        entry: body(n),
    })
}

fn hold(n: u64) -> MailOp {
    MailOp::Hold(HeldRow {
        packet_id: PacketId(wide(n)),
        destination: Address([3; 16]),
        source: Address([2; 16]),
        priority: Priority::Normal,
        ingress: Address([4; 16]),
        expires_s: u64::MAX,
        held_at_s: n,
        age_s: 0,
        frame: Bytes::from(body(n)),
    })
}

/// Content that says which message it is of.
fn body(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(1 + (n % 100) as usize)
}

fn local(store: &mut dyn Engine, ops: Vec<LocalOp>) -> Vec<LocalOutcome> {
    match store.commit(&[Work::Local(ops)]).unwrap().remove(0).unwrap() {
        WorkDone::Local(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

fn mail(store: &mut dyn Engine, ops: Vec<MailOp>) -> Vec<MailOutcome> {
    match store.commit(&[Work::Mail(ops)]).unwrap().remove(0).unwrap() {
        WorkDone::Mail(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

/// What the store holds, by message, each row's content checked on the way.
struct Found {
    sent: Vec<u64>,
    received: Vec<u64>,
    held: Vec<u64>,
}

fn found(store: &mut dyn Engine) -> Found {
    let outcomes = local(
        store,
        vec![LocalOp::OutboxPage { after: None, limit: ALL }, LocalOp::InboxPage { after: None, limit: ALL }],
    );
    let [LocalOutcome::Outbox(outbox), LocalOutcome::Inbox(inbox)] = outcomes.as_slice() else {
        panic!("{outcomes:?}")
    };
    let held = mail(store, vec![MailOp::Page { destination: Address([3; 16]), after: None, limit: ALL }]);
    let [MailOutcome::Page(held)] = held.as_slice() else { panic!("{held:?}") };
    assert_eq!(outbox.damaged + inbox.damaged + held.damaged, 0);
    let of = |uid: &[u8; 16], content: &[u8]| {
        let n = u64::try_from(u128::from_be_bytes(*uid) - 1).unwrap();
        assert_eq!(content, body(n), "content of message {n}");
        n
    };
    Found {
        sent: outbox.rows.iter().map(|(_, row)| of(row.uid.as_bytes(), &row.body)).collect(),
        received: inbox.rows.iter().map(|row| of(row.uid.as_bytes(), &row.entry)).collect(),
        held: held.rows.iter().map(|row| of(row.packet_id.as_bytes(), &row.frame)).collect(),
    }
}

/// Each list holds 0, 1, 2, … without gap or repeat, at least up to what was acknowledged and at
/// most up to what was tried.
fn assert_prefix(found: &[u64], acked: u64, tried: u64, what: &str) {
    let expected: Vec<u64> = (0..found.len() as u64).collect();
    assert_eq!(found, expected, "{what}: gap, repeat or disorder");
    assert!(found.len() as u64 >= acked, "{what}: {acked} acknowledged, {} there", found.len());
    assert!(found.len() as u64 <= tried, "{what}: {tried} tried, {} there", found.len());
}

// ---- kill -9 -----------------------------------------------------------------------------------

const CHILD: &str = "QPC_TEST_STORE_WRITER";

/// Numbers the child reserves with each message.
const RESERVED: u32 = 10;

/// Submissions the child has in flight: enough for batches, few enough for the queue.
const IN_FLIGHT: usize = 64;

/// Writes messages through the store's thread for ever, many in flight, and prints each kind's
/// number once it is acknowledged.
fn write_until_killed(path: &Path) {
    let store = EmbeddedStore::open(DataDir::open(path).unwrap().into(), EmbeddedOptions::default()).unwrap();
    let thread = StoreThread::start(Box::new(store), QueueBounds::default(), Box::new(|_| ())).unwrap();
    let handle = thread.handle();
    let first = {
        let (done, outcomes) = mpsc::channel();
        let ops = vec![LocalOp::OutboxPage { after: None, limit: ALL }];
        LocalStore::submit(&handle, ops, Box::new(move |r| done.send(r.unwrap()).unwrap())).unwrap();
        match outcomes.recv().unwrap().as_slice() {
            [LocalOutcome::Outbox(outbox)] => outbox.rows.len() as u64,
            other => panic!("{other:?}"),
        }
    };
    let (give_back, permits) = mpsc::channel();
    (0..IN_FLIGHT).for_each(|_| give_back.send(()).unwrap());
    for n in first.. {
        permits.recv().unwrap();
        let ops = vec![
            outbox_put(n),
            inbox_commit(n),
            LocalOp::Reserve { counter: Counter::Envelope, count: RESERVED },
        ];
        let done = Box::new(move |result: Result<Vec<LocalOutcome>, _>| match result.unwrap().as_slice() {
            [_, _, LocalOutcome::Reserved { first, .. }] => println!("acked {n} {first}"),
            other => panic!("{other:?}"),
        });
        LocalStore::submit(&handle, ops, done).unwrap();
        let give_back = give_back.clone();
        let done = Box::new(move |result: Result<Vec<MailOutcome>, _>| {
            assert!(matches!(result.unwrap().as_slice(), [MailOutcome::Held { .. }]));
            println!("held {n}");
            give_back.send(()).unwrap();
        });
        Mailboxes::submit(&handle, vec![hold(n)], done).unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut acked, mut held_acked, mut reserved_past, mut epoch) = (0, 0, 0, 0);
    // A different number of acknowledgements each time, so that kills fall at different moments
    // of a batch; time would only make it depend on the machine.
    for acks in [1, 2, 3, 7, 20, 50, 133, 300] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "nothing_acknowledged_is_lost_to_kill_9", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| words.get(i).and_then(|w: &&str| w.parse::<u64>().ok());
            match words.first() {
                Some(&"acked") => {
                    acked = acked.max(number(1).unwrap() + 1);
                    let first = number(2).unwrap();
                    assert!(first >= reserved_past, "numbers from {first} were given out before");
                    reserved_past = first + u64::from(RESERVED);
                    1
                }
                Some(&"held") => {
                    held_acked = held_acked.max(number(1).unwrap() + 1);
                    1
                }
                _ => 0,
            }
        };
        let mut seen = 0;
        while seen < acks {
            seen += note(&lines.next().expect("the child ended by itself").unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines printed before the kill are acknowledgements too; the last may be torn.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        rest.iter().take(whole).for_each(|line| {
            note(line);
        });

        let mut store =
            EmbeddedStore::open(DataDir::open(&path).unwrap().into(), EmbeddedOptions::default()).unwrap();
        assert!(store.boot_epoch() > epoch + 1, "the child's start and this one");
        epoch = store.boot_epoch();
        let found = found(&mut store);
        assert_prefix(&found.sent, acked, u64::MAX, "outbox");
        assert_prefix(&found.received, acked, u64::MAX, "inbox");
        assert_eq!(found.sent, found.received, "one submission, one fate");
        assert_prefix(&found.held, held_acked, found.sent.len() as u64 + 1, "mailbox");
        let next = local(&mut store, vec![LocalOp::Reserve { counter: Counter::Envelope, count: 1 }]);
        let LocalOutcome::Reserved { first, .. } = next[0] else { panic!("{next:?}") };
        assert!(first >= reserved_past);
        reserved_past = first + 1;
        // The mailbox may lack the message whose other half is there; the child goes on behind it.
        let (sent, held) = (found.sent.len() as u64, found.held.len() as u64);
        for n in held..sent {
            mail(&mut store, vec![hold(n)]);
        }
        if held > sent {
            mail(&mut store, vec![MailOp::Remove((sent..held).map(|n| PacketId(wide(n))).collect())]);
        }
        // What arrived before is known, in whichever packet it comes.
        if sent > 0 {
            let again = local(&mut store, vec![inbox_commit(0)]);
            assert_eq!(again, [LocalOutcome::Seen]);
        }
        (acked, held_acked) = (sent, sent);
        store.close().unwrap();
    }
}

// ---- kills amid removals -----------------------------------------------------------------------

const REMOVER: &str = "QPC_TEST_STORE_REMOVER";
const FIRST_ROUND: &str = "QPC_TEST_FIRST_ROUND";

/// Rows of a round: what one commit puts, and what goes in one or in several.
const ROUND: u64 = 150;

/// Rows that one commit expires: a round takes five.
const EXPIRED_AT_ONCE: usize = 32;

/// What was said of a round last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Put,
    Removing,
    Expiring,
    Gone,
}

fn ids(round: u64) -> impl Iterator<Item = u64> {
    round * ROUND..(round + 1) * ROUND
}

/// Puts rounds of rows and has most of them removed or expired, for ever, and says so before and after.
fn remove_until_killed(path: &Path, first: u64) {
    let mut store =
        EmbeddedStore::open(DataDir::open(path).unwrap().into(), EmbeddedOptions::default()).unwrap();
    for round in first.. {
        let expires_s = if round % 3 == 1 { round } else { u64::MAX };
        let put = ids(round).map(|n| match hold(n) {
            MailOp::Hold(row) => MailOp::Hold(HeldRow { expires_s, ..row }),
            other => other,
        });
        mail(&mut store, put.collect());
        println!("put {round}");
        match round % 3 {
            0 => {
                println!("removing {round}");
                mail(&mut store, vec![MailOp::Remove(ids(round).map(|n| PacketId(wide(n))).collect())]);
                println!("gone {round}");
            }
            1 => {
                println!("expiring {round}");
                let expire = MailOp::Expire { now_s: round + 1, rows_max: EXPIRED_AT_ONCE };
                while let [MailOutcome::Expired { more: true, .. }] =
                    mail(&mut store, vec![expire.clone()])[..]
                {}
                println!("gone {round}");
            }
            _ => {}
        }
    }
}

#[test]
fn kills_amid_removals_and_expiry_take_and_bring_back_nothing() {
    if let Some(path) = std::env::var_os(REMOVER) {
        return remove_until_killed(Path::new(&path), std::env::var(FIRST_ROUND).unwrap().parse().unwrap());
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (kills, seed) = (number("QPC_KILLS").unwrap_or(6), number("QPC_SEED").unwrap_or(4711));
    println!("QPC_SEED={seed}");
    let mut coin = Coin(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut said, mut first) = (BTreeMap::new(), 0);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills_amid_removals_and_expiry_take_and_bring_back_nothing", "--nocapture"])
            .env(REMOVER, &path)
            .env(FIRST_ROUND, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut note = |line: String| {
            let (what, round) = line.split_once(' ').unwrap_or_default();
            let what = match what {
                "put" => Said::Put,
                "removing" => Said::Removing,
                "expiring" => Said::Expiring,
                "gone" => Said::Gone,
                _ => return false,
            };
            said.insert(round.parse::<u64>().unwrap(), what);
            true
        };
        // Another number of lines each time, so that kills fall at different moments.
        let mut wanted = 1 + coin.next() % 24;
        while wanted > 0 {
            wanted -= u64::from(note(lines.next().expect("the child ended by itself")));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| {
            note(line);
        });

        let mut store =
            EmbeddedStore::open(DataDir::open(&path).unwrap().into(), EmbeddedOptions::default()).unwrap();
        let mut there = BTreeMap::<u64, u64>::new();
        for n in found(&mut store).held {
            *there.entry(n / ROUND).or_default() += 1;
        }
        let last = said.last_key_value().map_or(first, |(round, _)| *round);
        for (round, said) in &said {
            let rows = there.remove(round).unwrap_or(0);
            let is_right = match said {
                Said::Put => rows == ROUND,
                Said::Removing => rows == ROUND || rows == 0,
                Said::Expiring => rows <= ROUND,
                Said::Gone => rows == 0,
            };
            assert!(
                is_right,
                "kill {kill}: round {round} was said to be {said:?}, and {rows} rows are there"
            );
        }
        let unsaid = there.remove(&(last + 1)).unwrap_or(0);
        assert!(unsaid == 0 || unsaid == ROUND, "kill {kill}: {unsaid} rows of a round");
        assert_eq!(there, BTreeMap::new(), "kill {kill}: rows that nobody put");
        // The totals are rows of their own.
        let usage = mail(&mut store, vec![MailOp::Usage { destination: None }]);
        let [MailOutcome::Usage(usage)] = usage.as_slice() else { panic!("{usage:?}") };
        assert_eq!(usage.total.rows, found(&mut store).held.len() as u64, "kill {kill}");

        // What was under way, or about to be, is brought to its end.
        let is_to_stay = |round: &u64, said: &Said| *said == Said::Put && round % 3 == 2;
        let rest = said.iter().filter(|(round, said)| !is_to_stay(round, said)).map(|(round, _)| *round);
        for round in rest.chain([last + 1]).collect::<Vec<_>>() {
            mail(&mut store, vec![MailOp::Remove(ids(round).map(|n| PacketId(wide(n))).collect())]);
            said.insert(round, Said::Gone);
        }
        first = last + 2;
        store.close().unwrap();
    }
}

// ---- power cut ---------------------------------------------------------------------------------

const EIO: i32 = 5;

/// A generator good enough to choose sectors: xorshift64*.
struct Coin(u64);

impl Coin {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn heads(&mut self) -> bool {
        self.next() >> 63 == 0
    }
}

fn open_on(disk: &FaultyDisk, path: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions { open_file: disk.opener(), ..EmbeddedOptions::default() };
    EmbeddedStore::open(DataDir::open(path).unwrap().into(), options).unwrap()
}

/// Commits `count` messages in all their forms from `first` on, as one batch.
fn commit_messages(store: &mut EmbeddedStore, first: u64, count: u64) -> Result<(), StoreError> {
    let works: Vec<Work> = (first..first + count)
        .flat_map(|n| [Work::Local(vec![outbox_put(n), inbox_commit(n)]), Work::Mail(vec![hold(n)])])
        .collect();
    for result in store.commit(&works)? {
        result.unwrap();
    }
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut_that_tears_writes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, cuts) = (number("QPC_SEED").unwrap_or(1), number("QPC_CUTS").unwrap_or(120));
    let (mut cut, mut kept, mut torn) = (0, 0, 0);
    for seed in first..first + cuts.div_ceil(4) {
        let mut coin = Coin(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let disk = FaultyDisk::default();
        for _ in 0..4 {
            let mut store = open_on(&disk, &path);
            let mut acked = found(&mut store).sent.len() as u64;
            for _ in 0..3 {
                let count = 1 + coin.next() % 5;
                commit_messages(&mut store, acked, count).unwrap();
                acked += count;
            }
            // The power goes when all of a commit is written and none of it synced: each sector
            // may be on the disk or not.
            let count = 1 + coin.next() % 5;
            disk.fail(FaultOn::Sync, 0, EIO, true);
            assert!(commit_messages(&mut store, acked, count).unwrap_err().is_fatal());
            drop(store);
            disk.cut_power(|| coin.heads());

            let mut store = open_on(&disk, &path);
            let after = found(&mut store);
            assert_prefix(&after.sent, acked, acked + count, &format!("outbox, seed {seed}"));
            assert_eq!(after.sent, after.received, "seed {seed}");
            assert_eq!(after.sent, after.held, "seed {seed}");
            (cut, kept) = (cut + 1, kept + acked);
            torn += u64::from(after.sent.len() as u64 == acked);
            drop(store);
            // Closing in good order synced everything; a cut now takes nothing.
            disk.cut_power(|| coin.heads());
        }
    }
    println!("cuts {cut}, acked {kept}, batches gone {torn}");
}

#[test]
fn rows_by_kind_survive_a_clean_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let open =
        || EmbeddedStore::open(Arc::new(DataDir::open(&path).unwrap()), EmbeddedOptions::default()).unwrap();
    let mut store = open();
    for n in 0..50 {
        local(&mut store, vec![outbox_put(n), inbox_commit(n)]);
        mail(&mut store, vec![hold(n)]);
    }
    store.close().unwrap();
    let found = found(&mut open());
    let all: BTreeMap<&str, Vec<u64>> =
        BTreeMap::from([("sent", found.sent), ("received", found.received), ("held", found.held)]);
    for (what, found) in all {
        assert_eq!(found, (0..50).collect::<Vec<_>>(), "{what}");
    }
}
