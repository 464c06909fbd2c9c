//! A disk that fills up or fails: nothing is acknowledged that is not kept, nothing stays of what
//! was refused, and a full disk is no reason to stop.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::random::{SeededRng, random_bytes},
    proto::delivery::uids::Uids,
    storage::{
        Awaits, BlobDir, BlobKind, BlobName, Counter, DataDir, Disk, EmbeddedOptions, EmbeddedStore, Engine,
        HeldRow, HoldRefusal, InboxCommit, LocalOp, LocalOutcome, MailOp, MailOutcome, MemEngine, Namespace,
        OutboxRow, PageLimit, PartialRow, QueueBounds, StopReason, StoreError, StoreThread, Strangers, Work,
        WorkDone, WorkResult, ask_local,
        faults::{FaultOn, FaultyDisk},
        space::{Space, system_space},
    },
    wire::{Address, MessageUid, PacketId, Priority, TransferTag},
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ALL: PageLimit = PageLimit { rows_max: usize::MAX, bytes_max: usize::MAX };

fn wide(n: u64) -> [u8; 16] {
    (u128::from(n) + 1).to_be_bytes()
}

fn inbox_commit(n: u64) -> LocalOp {
    LocalOp::InboxCommit(InboxCommit {
        uid: MessageUid(wide(n)),
        source: Address([2; 16]),
        ingress: None,
        dedup_until_unix_s: 100 + n,
        awaits: Awaits::default(),
        strangers: Strangers::Enter,
        entry: vec![n as u8; 500],
    })
}

fn outbox_put(n: u64) -> LocalOp {
    LocalOp::OutboxPut(OutboxRow {
        uid: MessageUid(wide(n)),
        destination: Address([1; 16]),
        created_unix_s: n,
        expires_s: 100 + n,
        state: vec![n as u8; 10],
        body: vec![n as u8; 3000],
    })
}

fn hold(n: u64) -> MailOp {
    MailOp::Hold(HeldRow {
        packet_id: PacketId(wide(n)),
        destination: Address([3; 16]),
        source: Address([2; 16]),
        priority: Priority::from_bits(n as u8),
        ingress: Address([4; 16]),
        expires_s: 100 + n,
        held_at_s: n,
        age_s: 0,
        frame: Bytes::from(vec![n as u8; 2000]),
    })
}

/// A batch that adds, replaces and removes rows of every kind; different for each `n`.
fn mixed(n: u64) -> Vec<Work> {
    vec![
        Work::Local(vec![
            outbox_put(n),
            LocalOp::OutboxUpdate { seq: n.saturating_sub(1), state: vec![7; 20] },
            LocalOp::OutboxRemove(n.saturating_sub(2)),
            inbox_commit(n),
            LocalOp::InboxRemove(n.saturating_sub(2)),
            LocalOp::PartialPut(PartialRow {
                source: Address([2; 16]),
                tag: TransferTag([5; 16]),
                until_unix_s: n,
                state: vec![n as u8; 400],
            }),
            LocalOp::KvPut { namespace: Namespace::ReceiverSecret, key: vec![1], value: vec![n as u8; 32] },
            LocalOp::KvPut { namespace: Namespace::Route, key: n.to_be_bytes().to_vec(), value: vec![1; 60] },
            LocalOp::Reserve { counter: Counter::Announce, count: 5 },
            LocalOp::ForgetSeen { now_unix_s: 98 + n, rows_max: 10 },
        ]),
        Work::Mail(vec![
            hold(n),
            MailOp::Remove(vec![PacketId(wide(n.saturating_sub(3)))]),
            MailOp::Expire { now_s: 95 + n, rows_max: 10 },
        ]),
    ]
}

/// Calls to the disk for a commit of 64 messages at a destination that remembers 4,000 whose uids `name`
/// made.
fn calls_of_a_commit(mut name: impl FnMut(u64) -> MessageUid) -> u64 {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    let mut store = open_on(&disk, &dir.path().join("data")).unwrap();
    let mut calls = 0;
    for batch in 0..64 {
        let commit = |n| match inbox_commit(n) {
            LocalOp::InboxCommit(commit) => {
                LocalOp::InboxCommit(InboxCommit { uid: name(n), dedup_until_unix_s: 100, ..commit })
            }
            other => other,
        };
        let works = [Work::Local((64 * batch..64 * (batch + 1)).map(commit).collect())];
        let before = disk.calls();
        assert!(store.commit(&works).unwrap().remove(0).is_ok());
        calls = disk.calls() - before;
    }
    calls
}

#[test]
fn what_one_sender_sent_in_a_row_is_remembered_side_by_side() {
    let (mut uids, mut rng) = (Uids::default(), SeededRng::new(7));
    let in_a_row = calls_of_a_commit(|n| uids.next(n, random_bytes(&mut rng)));
    let at_random = calls_of_a_commit(|_| MessageUid(random_bytes(&mut rng)));
    assert!(3 * in_a_row < at_random, "{in_a_row} against {at_random}");
}

/// Everything there is, as answers.
fn everything() -> Vec<Work> {
    vec![
        Work::Local(vec![
            LocalOp::OutboxPage { after: None, limit: ALL },
            LocalOp::InboxPage { after: None, limit: ALL },
            LocalOp::PartialPage { after: None, limit: ALL },
            LocalOp::KvPage { namespace: Namespace::ReceiverSecret, after: None, limit: ALL },
            LocalOp::KvPage { namespace: Namespace::Route, after: None, limit: ALL },
            LocalOp::Counts,
        ]),
        Work::Mail(vec![
            MailOp::Page { destination: Address([3; 16]), after: None, limit: ALL },
            MailOp::Usage { destination: Some(Address([3; 16])) },
        ]),
    ]
}

fn text(results: Result<Vec<WorkResult>, StoreError>) -> String {
    format!("{:#?}", results.unwrap())
}

fn open_on(disk: &FaultyDisk, path: &Path) -> Result<EmbeddedStore, StoreError> {
    let options = EmbeddedOptions { open_file: disk.opener(), ..EmbeddedOptions::default() };
    EmbeddedStore::open(DataDir::open(path)?.into(), options)
}

/// Fills a store and its model with the same batches.
fn filled(disk: &FaultyDisk, path: &Path) -> (EmbeddedStore, MemEngine) {
    let (mut store, mut model) = (open_on(disk, path).unwrap(), MemEngine::default());
    for n in 1..8 {
        assert_eq!(text(store.commit(&mixed(n))), text(model.commit(&mixed(n))));
    }
    (store, model)
}

/// How many calls of a kind one batch makes, found by failing ever later ones until none fails.
fn each_failure(on: FaultOn, errno: i32, mut run: impl FnMut(u64) -> bool) {
    let mut failed = 0;
    for after in 0.. {
        if !run(after) {
            break;
        }
        failed += 1;
    }
    assert!(failed > 0, "no {on:?} failed with {errno}");
}

#[test]
fn a_batch_refused_for_lack_of_space_leaves_nothing_and_the_next_one_goes_through() {
    // A sync that reports ENOSPC has everything written before it: the batch is there after a
    // reopen and must be taken back.
    for on in [FaultOn::Write, FaultOn::SetLen, FaultOn::Sync] {
        each_failure(on, ENOSPC, |after| {
            let dir = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::default();
            let (mut store, mut model) = filled(&disk, &dir.path().join("data"));
            let mut large = mixed(8);
            large.extend((100..130).map(|n| Work::Local(vec![outbox_put(n)])));
            disk.fail(on, after, ENOSPC, false);
            let result = store.commit(&large);
            if disk.heal() == 0 {
                // The batch makes fewer calls than that.
                result.unwrap();
                return false;
            }
            assert!(matches!(result, Err(StoreError::NoSpace { .. })), "{on:?} {after}: {result:?}");
            assert_eq!(
                text(store.commit(&everything())),
                text(model.commit(&everything())),
                "{on:?} {after}"
            );
            assert_eq!(text(store.commit(&mixed(9))), text(model.commit(&mixed(9))), "{on:?} {after}");
            // And so it is for whoever opens it next.
            drop(store);
            let mut store = open_on(&disk, &dir.path().join("data")).unwrap();
            assert_eq!(
                text(store.commit(&everything())),
                text(model.commit(&everything())),
                "{on:?} {after}"
            );
            true
        });
    }
}

#[test]
fn while_the_disk_stays_full_everything_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut store, mut model) = filled(&disk, &dir.path().join("data"));
    // The refused batch is on the disk, and taking it back fails as long as the disk is full.
    disk.fail(FaultOn::Sync, 0, ENOSPC, true);
    for n in 8..12 {
        assert!(matches!(store.commit(&mixed(n)), Err(StoreError::NoSpace { .. })), "{n}");
    }
    assert!(disk.heal() >= 4);
    assert_eq!(text(store.commit(&everything())), text(model.commit(&everything())));
    assert_eq!(text(store.commit(&mixed(8))), text(model.commit(&mixed(8))));
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged_until_a_restart_which_loses_nothing() {
    for on in [FaultOn::Write, FaultOn::Sync] {
        each_failure(on, EIO, |after| {
            let dir = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::default();
            let (mut store, mut model) = filled(&disk, &dir.path().join("data"));
            disk.fail(on, after, EIO, false);
            let result = store.commit(&mixed(8));
            if disk.heal() == 0 {
                result.unwrap();
                return false;
            }
            let e = result.unwrap_err();
            assert!(matches!(e, StoreError::IoFatal { .. }) && e.is_fatal(), "{on:?} {after}: {e:?}");
            // The disk is well again, but what it holds is unknown: no further answer.
            let calls = disk.calls();
            assert!(store.commit(&mixed(8)).unwrap_err().is_fatal());
            assert!(store.commit(&everything()).unwrap_err().is_fatal());
            assert_eq!(disk.calls(), calls, "a dead store touched the disk");
            drop(store);
            // The batch may stand or not, as after any crash; whole, and all before it stands.
            let mut store = open_on(&disk, &dir.path().join("data")).unwrap();
            let there = text(store.commit(&everything()));
            let without = text(model.commit(&everything()));
            model.commit(&mixed(8)).unwrap();
            let with = text(model.commit(&everything()));
            assert!(there == without || there == with, "{on:?} {after}: half a batch:\n{there}");
            true
        });
    }
}

#[test]
fn a_store_whose_opening_fails_anywhere_opens_when_the_disk_is_well() {
    for on in [FaultOn::Write, FaultOn::SetLen, FaultOn::Sync] {
        for errno in [ENOSPC, EIO] {
            each_failure(on, errno, |after| {
                let dir = tempfile::tempdir().unwrap();
                let disk = FaultyDisk::default();
                disk.fail(on, after, errno, false);
                let opened = open_on(&disk, &dir.path().join("data"));
                if disk.heal() == 0 {
                    opened.unwrap();
                    return false;
                }
                // A failure while closing is nobody's loss; one before is reported.
                if let Err(e) = opened {
                    let expected = matches!(e, StoreError::NoSpace { .. } | StoreError::IoFatal { .. });
                    assert!(expected, "{on:?} {after} {errno}: {e:?}");
                }
                let mut store = open_on(&disk, &dir.path().join("data")).unwrap();
                store.commit(&mixed(1)).unwrap().into_iter().for_each(|result| drop(result.unwrap()));
                true
            });
        }
    }
}

// ---- files beside the engine -------------------------------------------------------------------

const HOUR_S: u64 = 3600;

/// A store whose row keys are on a disk of their own, and whose hour is what it is told.
fn with_keys_on(disk: &FaultyDisk, path: &Path, hour: &Arc<AtomicU64>) -> EmbeddedStore {
    let now = Arc::clone(hour);
    let options = EmbeddedOptions {
        disk: Disk::failing(disk.clone()),
        clock_unix_s: Arc::new(move || now.load(Ordering::SeqCst) * HOUR_S),
        ..EmbeddedOptions::default()
    };
    EmbeddedStore::open(DataDir::open(path).unwrap().into(), options).unwrap()
}

#[test]
fn row_keys_that_cannot_be_synced_acknowledge_nothing_until_a_restart_which_loses_nothing() {
    // The new file, its directory, the blocks of the old one; of a new hour and of one that is over.
    for n in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (disk, hour) = (FaultyDisk::default(), Arc::new(AtomicU64::new(10)));
        let mut store = with_keys_on(&disk, &dir.path().join("d"), &hour);
        let mut model = MemEngine::default();
        for batch in [vec![Work::Local(vec![outbox_put(1)])], vec![Work::Local(vec![outbox_put(2)])]] {
            assert_eq!(text(store.commit(&batch)), text(model.commit(&batch)));
        }
        // All of the first hour goes with the batch, and its key after it.
        hour.store(11, Ordering::SeqCst);
        let all_new =
            vec![Work::Local(vec![LocalOp::OutboxRemove(1), LocalOp::OutboxRemove(2), outbox_put(3)])];
        disk.fail(FaultOn::Sync, n, EIO, false);
        let e = store.commit(&all_new).unwrap_err();
        assert_eq!(disk.heal(), 1, "{n}");
        assert!(matches!(e, StoreError::IoFatal { .. }), "{n}: {e:?}");
        assert!(store.commit(&everything()).unwrap_err().is_fatal(), "{n}");
        drop(store);
        let mut store = with_keys_on(&disk, &dir.path().join("d"), &hour);
        let there = text(store.commit(&everything()));
        let without = text(model.commit(&everything()));
        model.commit(&all_new).unwrap();
        let with = text(model.commit(&everything()));
        // Those of the new hour fail before the batch, those of the old one after it.
        assert_eq!(there, if n < 3 { without } else { with }, "{n}");
    }
}

#[test]
fn row_keys_that_do_not_fit_refuse_a_batch_and_the_next_one_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, hour) = (FaultyDisk::default(), Arc::new(AtomicU64::new(10)));
    let mut store = with_keys_on(&disk, &dir.path().join("d"), &hour);
    for (on, after) in [(FaultOn::Write, 0), (FaultOn::Sync, 0)] {
        disk.fail(on, after, ENOSPC, false);
        let refused = store.commit(&[Work::Local(vec![outbox_put(1)])]);
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{on:?}: {refused:?}");
        // What needs no key goes on.
        store.commit(&everything()).unwrap();
    }
    store.commit(&[Work::Local(vec![outbox_put(1)])]).unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn a_content_that_cannot_be_synced_stops_the_store_and_one_that_does_not_fit_is_refused() {
    let name = BlobName::outgoing(&MessageUid(wide(1)));
    let incoming = BlobName::incoming(&Address([2; 16]), &TransferTag([5; 16]));
    let send = |blobs: &BlobDir| {
        let mut writer = blobs.create_outgoing(&name, 100)?;
        writer.append(&[1; 100])?;
        writer.finish()
    };
    let receive = |blobs: &BlobDir| {
        let blob = blobs.open_incoming(&incoming, 100)?;
        blob.write_at(0, &[1; 100])?;
        blob.sync()
    };
    // The calls of each in their order, from what they do above.
    type Job<'a> = &'a dyn Fn(&BlobDir) -> Result<(), StoreError>;
    type Calls<'a> = &'a [(FaultOn, u64)];
    let sends: Calls<'_> =
        &[(FaultOn::Write, 0), (FaultOn::Write, 1), (FaultOn::Sync, 0), (FaultOn::Sync, 1)];
    let receives: Calls<'_> =
        &[(FaultOn::SetLen, 0), (FaultOn::Sync, 0), (FaultOn::Write, 0), (FaultOn::Sync, 1)];
    let jobs: [(&str, Job<'_>, Calls<'_>); 2] = [("sent", &send, sends), ("received", &receive, receives)];
    for (what, job, calls) in jobs {
        for (on, after) in calls.iter().copied() {
            let dir = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::default();
            let (store, _) = filled(&FaultyDisk::default(), &dir.path().join("data"));
            let thread =
                StoreThread::start(Box::new(store), QueueBounds::default(), Box::new(|_| ())).unwrap();
            let blobs = BlobDir::open(&dir.path().join("blobs"), Arc::new(system_space))
                .unwrap()
                .on_disk(Disk::failing(disk.clone()))
                .reporting_to(thread.handle());
            disk.fail(on, after, ENOSPC, false);
            let refused = job(&blobs);
            assert_eq!(disk.heal(), 1, "{what} {on:?} {after}");
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{what} {on:?} {after}: {refused:?}");
            ask_local(&thread.handle(), vec![outbox_put(50)]).unwrap().await.unwrap();
            job(&blobs).unwrap();
            for kind in BlobKind::ALL {
                for name in blobs.names(kind).unwrap() {
                    blobs.remove(kind, &name).unwrap();
                }
            }

            disk.fail(on, after, EIO, false);
            let failed = job(&blobs).unwrap_err();
            assert_eq!(disk.heal(), 1, "{what} {on:?} {after}");
            assert!(failed.is_fatal(), "{what} {on:?} {after}: {failed:?}");
            let more = ask_local(&thread.handle(), vec![outbox_put(51)]);
            assert!(more.is_err(), "{what} {on:?} {after}: the store goes on");
            assert!(matches!(thread.close(), StopReason::Failed(StoreError::IoFatal { .. })));
        }
    }
}

#[test]
fn on_a_volume_that_became_read_only_nothing_new_is_taken_and_the_disk_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let is_read_only = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&is_read_only);
    let options = EmbeddedOptions {
        open_file: disk.opener(),
        space: Arc::new(move |_| match now.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(Space { free_bytes: 1 << 30, total_bytes: 1 << 30 }),
        }),
        ..EmbeddedOptions::default()
    };
    let mut store =
        EmbeddedStore::open(DataDir::open(&dir.path().join("d")).unwrap().into(), options).unwrap();
    is_read_only.store(true, Ordering::SeqCst);
    let calls = disk.calls();
    let put = store.commit(&[Work::Local(vec![outbox_put(1)])]).unwrap().remove(0);
    assert!(matches!(put, Err(StoreError::ReadOnly { .. })), "{put:?}");
    for write in [false, true] {
        let looked = check_room(&mut store, write).unwrap();
        let MailOutcome::Refused(HoldRefusal::Disk(why)) = looked else { panic!("{looked:?}") };
        assert!(why.to_string().contains("read-only file system"), "{why}");
    }
    assert_eq!(disk.calls(), calls);
    is_read_only.store(false, Ordering::SeqCst);
    store.commit(&[Work::Local(vec![outbox_put(1)])]).unwrap().remove(0).unwrap();
}

#[test]
fn a_store_whose_file_was_deleted_answers_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut store, _) = filled(&FaultyDisk::default(), &path);
    std::fs::remove_dir_all(&path).unwrap();
    let put = store.commit(&[Work::Local(vec![outbox_put(50)])]);
    assert!(matches!(put, Err(StoreError::Gone { .. })), "{put:?}");
    assert!(matches!(store.commit(&everything()), Err(StoreError::Gone { .. })));
}

#[tokio::test]
async fn a_failing_disk_stops_the_thread_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (store, _) = filled(&disk, &dir.path().join("data"));
    let thread = StoreThread::start(Box::new(store), QueueBounds::default(), Box::new(|_| ())).unwrap();
    disk.fail(FaultOn::Sync, 0, EIO, true);
    let refused = ask_local(&thread.handle(), vec![outbox_put(50)]).unwrap().await;
    assert!(matches!(refused, Err(StoreError::IoFatal { .. })));
    assert!(matches!(thread.close(), StopReason::Failed(StoreError::IoFatal { .. })));
}

fn check_room(store: &mut EmbeddedStore, write: bool) -> Result<MailOutcome, StoreError> {
    match store.commit(&[Work::Mail(vec![MailOp::CheckRoom { write }])])?.remove(0).unwrap() {
        WorkDone::Mail(mut outcomes) => Ok(outcomes.remove(0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_is_found_by_writing_and_not_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut store = open_on(&disk, &dir.path().join("data")).unwrap();
    disk.fail(FaultOn::Sync, 0, ENOSPC, true);
    assert!(matches!(check_room(&mut store, false), Ok(MailOutcome::Room)));
    for _ in 0..3 {
        assert!(matches!(check_room(&mut store, true), Err(StoreError::NoSpace { .. })));
    }
    disk.heal();
    assert!(matches!(check_room(&mut store, true), Ok(MailOutcome::Room)));
}

// ---- the reserve -------------------------------------------------------------------------------

#[test]
fn below_the_reserve_nothing_new_is_taken_and_everything_else_works() {
    let dir = tempfile::tempdir().unwrap();
    let nearly_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&nearly_full);
    let options = EmbeddedOptions {
        space: Arc::new(move |_| {
            let free_bytes = if full.load(Ordering::SeqCst) { (1 << 20) - 1 } else { 1 << 30 };
            Ok(Space { free_bytes, total_bytes: 16 << 20 })
        }),
        ..EmbeddedOptions::default()
    };
    let mut store =
        EmbeddedStore::open(DataDir::open(&dir.path().join("d")).unwrap().into(), options).unwrap();
    store.commit(&[Work::Local(vec![outbox_put(1), inbox_commit(1)]), Work::Mail(vec![hold(1)])]).unwrap();

    nearly_full.store(true, Ordering::SeqCst);
    let results = store
        .commit(&[
            // Whole or not at all: the removal beside a refused entry does not happen either.
            Work::Local(vec![LocalOp::OutboxRemove(1), inbox_commit(2)]),
            Work::Local(vec![
                LocalOp::OutboxUpdate { seq: 1, state: vec![1] },
                LocalOp::Reserve { counter: Counter::Envelope, count: 1 },
                LocalOp::InboxRemove(1),
            ]),
            Work::Mail(vec![hold(1), hold(2), MailOp::Remove(vec![PacketId(wide(1))])]),
        ])
        .unwrap();
    assert!(matches!(
        &results[0],
        Err(StoreError::BelowReserve { free_bytes: 1_048_575, reserve_bytes: 1_048_576 })
    ));
    match &results[1] {
        Ok(WorkDone::Local(outcomes)) => assert_eq!(
            *outcomes,
            [LocalOutcome::Done, LocalOutcome::Reserved { first: 1, count: 1 }, LocalOutcome::Done]
        ),
        other => panic!("{other:?}"),
    }
    match &results[2] {
        Ok(WorkDone::Mail(outcomes)) => assert!(
            matches!(
                outcomes.as_slice(),
                [
                    MailOutcome::Duplicate,
                    MailOutcome::Refused(HoldRefusal::Disk(StoreError::BelowReserve { .. })),
                    MailOutcome::Removed { rows: 1 }
                ]
            ),
            "{outcomes:?}"
        ),
        other => panic!("{other:?}"),
    }

    for write in [false, true] {
        let outcome = check_room(&mut store, write).unwrap();
        assert!(matches!(outcome, MailOutcome::Refused(HoldRefusal::Disk(StoreError::BelowReserve { .. }))));
    }

    nearly_full.store(false, Ordering::SeqCst);
    let syncs = store.synced().count;
    assert!(matches!(check_room(&mut store, false).unwrap(), MailOutcome::Room));
    assert_eq!(store.synced().count, syncs, "a look costs no sync");
    assert!(matches!(check_room(&mut store, true).unwrap(), MailOutcome::Room));
    assert!(store.synced().count > syncs, "and this one asked the disk");
    match store.commit(&[Work::Local(vec![inbox_commit(2), inbox_commit(2)])]).unwrap().remove(0).unwrap() {
        WorkDone::Local(outcomes) => {
            assert_eq!(outcomes, [LocalOutcome::Committed { seq: 2 }, LocalOutcome::Seen]);
        }
        other => panic!("{other:?}"),
    }
}

// ---- a volume that is really full --------------------------------------------------------------

const ON_TMPFS: &str = "QPC_TEST_SMALL_VOLUME";
/// The child's way to say that this system lets nobody mount anything.
const NOT_PERMITTED: i32 = 77;

#[test]
fn a_small_volume_fills_up_refuses_and_recovers() {
    if let Some(path) = std::env::var_os(ON_TMPFS) {
        return fill_and_free(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    // A mount name space of its own, so that the mount ends with the child.
    let script = r#"mount -t tmpfs -o size=4m,mode=0700 tmpfs "$1" || exit 77; shift; exec "$@""#;
    let run = |flags: &str| {
        Command::new("unshare")
            .args([flags, "sh", "-c", script, "sh"])
            .arg(dir.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "a_small_volume_fills_up_refuses_and_recovers", "--nocapture"])
            .env(ON_TMPFS, dir.path())
            .status()
    };
    let permitted = ["-m", "-Urm"].iter().find_map(|flags| match run(flags) {
        Ok(status) if status.code() == Some(NOT_PERMITTED) || status.code() == Some(1) => None,
        Ok(status) => Some(status),
        Err(_) => None,
    });
    match permitted {
        Some(status) => assert!(status.success(), "{status}"),
        // The faulty disk above shows the same at every call; only the real volume is missing.
        None => println!("not measured: this system lets tests mount no file system"),
    }
}

fn fill_and_free(volume: &Path) {
    // Without the reserve, so that the engine itself runs into the end of the volume.
    let options = || EmbeddedOptions {
        space: Arc::new(|_| Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })),
        ..EmbeddedOptions::default()
    };
    let path = volume.join("data");
    let open = || EmbeddedStore::open(DataDir::open(&path).unwrap().into(), options()).unwrap();
    let ballast = volume.join("ballast");
    std::fs::write(&ballast, vec![1u8; 1 << 20]).unwrap();
    let mut store = open();
    let mut kept = BTreeSet::new();
    let mut refused = 0;
    for n in 0..2000 {
        match store.commit(&[Work::Local(vec![outbox_put(n)])]) {
            Ok(results) => {
                results.into_iter().for_each(|result| drop(result.unwrap()));
                kept.insert(wide(n));
            }
            Err(StoreError::NoSpace { .. }) => refused += 1,
            Err(e) => panic!("{e:?}"),
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "the volume never filled up");
    let there = |store: &mut EmbeddedStore| -> BTreeSet<[u8; 16]> {
        let work = Work::Local(vec![LocalOp::OutboxPage { after: None, limit: ALL }]);
        match store.commit(&[work]).unwrap().remove(0).unwrap() {
            WorkDone::Local(outcomes) => match outcomes.as_slice() {
                [LocalOutcome::Outbox(page)] => {
                    page.rows.iter().map(|(_, row)| *row.uid.as_bytes()).collect()
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(there(&mut store), kept, "what was acknowledged, and only that");
    store.commit(&[Work::Local(vec![outbox_put(5000)])]).unwrap();
    kept.insert(wide(5000));
    drop(store);
    assert_eq!(there(&mut open()), kept);
    println!("kept {} and refused {refused} on a full volume", kept.len());
}
