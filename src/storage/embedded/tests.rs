//! What only the inside can show: rows as they are on the disk.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    tables::{EARLY_HEADER_BYTES, HELD_HEADER_BYTES, INBOX_HEADER_BYTES},
    *,
};
use crate::{
    storage::{
        Awaits, HeldRow, InboxCommit, LocalOutcome, MailOutcome, Namespace, OutboxRow, PageLimit, PartialRow,
        Quota, Strangers,
        row_seal::{RowPlace, UnsealError},
    },
    wire::{Address, MessageUid, PacketId, Priority, TransferTag},
};

const SECRET: &[u8] = b"a text that only sealed rows may hold";

struct Bench {
    _dir: tempfile::TempDir,
    path: PathBuf,
    now_unix_s: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        Self { _dir: dir, path, now_unix_s: Arc::new(AtomicU64::new(7200)) }
    }

    fn open(&self) -> Result<EmbeddedStore> {
        self.open_with(InboxQuota::default())
    }

    fn open_with(&self, inbox_quota: InboxQuota) -> Result<EmbeddedStore> {
        let now = Arc::clone(&self.now_unix_s);
        let options = EmbeddedOptions {
            clock_unix_s: Arc::new(move || now.load(Ordering::SeqCst)),
            inbox_quota,
            ..EmbeddedOptions::default()
        };
        EmbeddedStore::open(DataDir::open(&self.path)?.into(), options)
    }

    fn an_hour_later(&self) {
        self.now_unix_s.fetch_add(3600, Ordering::SeqCst);
    }

    fn row_keys(&self) -> RowKeys {
        RowKeys::open(&self.path.join("row-keys")).unwrap()
    }

    fn disk_holds(&self, needle: &[u8]) -> bool {
        let bytes = fs::read(self.path.join("store.redb")).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    }
}

fn local(store: &mut EmbeddedStore, op: LocalOp) -> LocalOutcome {
    match store.commit(&[Work::Local(vec![op])]).unwrap().remove(0).unwrap() {
        WorkDone::Local(mut outcomes) => outcomes.remove(0),
        other => panic!("{other:?}"),
    }
}

fn mail(store: &mut EmbeddedStore, op: MailOp) -> MailOutcome {
    match store.commit(&[Work::Mail(vec![op])]).unwrap().remove(0).unwrap() {
        WorkDone::Mail(mut outcomes) => outcomes.remove(0),
        other => panic!("{other:?}"),
    }
}

/// The raw rows of a table.
fn raw(store: &EmbeddedStore, t: T) -> Vec<(Vec<u8>, Vec<u8>)> {
    let txn = store.database().unwrap().begin_read().unwrap();
    let table = txn.open_table(t.definition()).unwrap();
    redb::ReadableTable::iter(&table)
        .unwrap()
        .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap())
        .collect()
}

/// Changes one raw row behind the store's back.
fn tamper(store: &EmbeddedStore, t: T, change: impl Fn(&mut Vec<u8>)) {
    let (key, mut row) = raw(store, t).remove(0);
    change(&mut row);
    let txn = store.database().unwrap().begin_write().unwrap();
    txn.open_table(t.definition()).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    txn.commit().unwrap();
}

fn one_of_each() -> [Work; 2] {
    [
        Work::Local(vec![
            LocalOp::OutboxPut(OutboxRow {
                uid: MessageUid([1; 16]),
                destination: Address([2; 16]),
                created_unix_s: 0,
                expires_s: 0,
                state: vec![],
                body: SECRET.to_vec(),
            }),
            LocalOp::InboxCommit(InboxCommit {
                uid: MessageUid([1; 16]),
                source: Address([2; 16]),
                ingress: None,
                dedup_until_unix_s: 0,
                awaits: Awaits::default(),
                strangers: Strangers::Enter,
                entry: SECRET.to_vec(),
            }),
            LocalOp::PartialPut(PartialRow {
                source: Address([2; 16]),
                tag: TransferTag([4; 16]),
                until_unix_s: 0,
                state: SECRET.to_vec(),
            }),
            LocalOp::KvPut { namespace: Namespace::ReceiverSecret, key: vec![1], value: SECRET.to_vec() },
        ]),
        Work::Mail(vec![MailOp::Hold(HeldRow {
            packet_id: PacketId([3; 16]),
            destination: Address([5; 16]),
            source: Address([2; 16]),
            priority: Priority::Normal,
            ingress: Address([6; 16]),
            expires_s: 0,
            held_at_s: 0,
            age_s: 0,
            frame: SECRET.into(),
        })]),
    ]
}

#[test]
fn a_mailbox_is_read_from_the_most_urgent_on_and_in_order_of_arrival_within_a_class() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    let destination = Address([5; 16]);
    for n in 0..8u8 {
        let held = MailOp::Hold(HeldRow {
            packet_id: PacketId([n; 16]),
            destination,
            source: Address([2; 16]),
            priority: Priority::from_bits(n),
            ingress: Address([6; 16]),
            expires_s: 9,
            held_at_s: u64::from(10 - n),
            age_s: 0,
            frame: vec![n].into(),
        });
        assert!(matches!(mail(&mut store, held), MailOutcome::Held { .. }));
    }
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let limit = PageLimit { rows_max: 3, ..PageLimit::default() };
        let MailOutcome::Page(page) = mail(&mut store, MailOp::Page { destination, after, limit }) else {
            panic!("no page")
        };
        assert!(page.rows.iter().all(|row| row.priority == Priority::from_bits(row.frame[0])));
        read.extend(page.rows.iter().map(|row| row.frame[0]));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, [3, 7, 2, 6, 1, 5, 0, 4]);
    let MailOutcome::Destinations(of) = mail(&mut store, MailOp::Destinations { after: None, rows_max: 9 })
    else {
        panic!("no destinations")
    };
    assert_eq!((of.len(), of[0].held.rows), (1, 8), "sources and neighbours are no destinations");
    assert_eq!(of[0].oldest_held_at_s, Some(7), "the oldest of the first of each class");
    assert!(matches!(
        mail(&mut store, MailOp::Expire { now_s: 10, rows_max: 100 }),
        MailOutcome::Expired { rows: 8, more: false }
    ));
}

#[test]
fn a_copy_of_a_store_in_use_is_one_moment_of_it_and_signs_above_it() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    let epoch = store.boot_epoch();
    for work in one_of_each() {
        store.commit(&[work]).unwrap().remove(0).unwrap();
    }
    bench.an_hour_later();
    fs::write(bench.path.join("blobs").join("a"), b"content")
        .or_else(|_| {
            fs::create_dir(bench.path.join("blobs"))?;
            fs::write(bench.path.join("blobs/a"), b"content")
        })
        .unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("copy");
    let report = store.backup_source().copy_to(&to).unwrap();
    assert!(report.rows > 10 && report.files >= 1, "{report:?}");
    assert!(!elsewhere.path().join("copy.partial").exists());
    assert_eq!(fs::read(to.join("blobs/a")).unwrap(), b"content");
    // The original goes on, and its keys with it.
    local(&mut store, LocalOp::OutboxRemove(1));
    store.close().unwrap();

    let dir = DataDir::open(&to).unwrap();
    let mut copy = EmbeddedStore::open(dir.into(), EmbeddedOptions::default()).unwrap();
    assert_eq!(copy.boot_epoch(), epoch + backup::EPOCHS_AHEAD + 1);
    let LocalOutcome::Outbox(page) =
        local(&mut copy, LocalOp::OutboxPage { after: None, limit: PageLimit::default() })
    else {
        panic!("no page")
    };
    assert_eq!((page.rows.len(), page.damaged), (1, 0), "what was there at that moment");
    assert_eq!(page.rows[0].1.body, SECRET);
    let page = MailOp::Page { destination: Address([5; 16]), after: None, limit: PageLimit::default() };
    let MailOutcome::Page(page) = mail(&mut copy, page) else { panic!("no page") };
    assert_eq!((page.rows.len(), page.damaged), (1, 0));
}

#[test]
fn a_copy_goes_where_nothing_is_and_leaves_nothing_where_it_fails() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    let source = store.backup_source();
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = elsewhere.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), b"mine").unwrap();
    let error = source.copy_to(&taken).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(fs::read(taken.join("file")).unwrap(), b"mine");
    let error = source.copy_to(&bench.path.join("inside")).unwrap_err().to_string();
    assert!(error.contains("inside the data directory"), "{error}");
    // An empty directory will do, and so does one after a copy that was killed.
    let empty = elsewhere.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let partial = elsewhere.path().join("empty.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("file"), b"mine").unwrap();
    let error = source.copy_to(&empty).unwrap_err().to_string();
    assert!(error.contains("no earlier backup"), "{error}");
    assert_eq!(fs::read(partial.join("file")).unwrap(), b"mine");
    fs::write(partial.join("backup-is-incomplete"), b"").unwrap();
    source.copy_to(&empty).unwrap();
    assert!(!empty.join("backup-is-incomplete").exists() && !empty.join("file").exists());
    drop(store);
    let error = source.copy_to(&elsewhere.path().join("late")).unwrap_err();
    assert!(matches!(error, StoreError::Stopped), "{error}");
    let left: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn no_content_is_on_the_disk_in_the_clear() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    store.close().unwrap();
    assert!(!bench.disk_holds(SECRET));
    // The search finds what is there: an address is not sealed.
    assert!(bench.disk_holds(&[6; 16]));
}

#[test]
fn old_pages_of_removed_rows_do_not_open_once_their_hour_is_over() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    let (key, row) = raw(&store, T::Held).remove(0);
    let (header, sealed) = row.split_at(HELD_HEADER_BYTES);
    let place = RowPlace { table: T::Held.name(), key: &key, header };
    assert_eq!(bench.row_keys().unseal(place, sealed).unwrap(), SECRET);

    mail(&mut store, MailOp::Remove(vec![PacketId([3; 16])]));
    assert!(bench.disk_holds(sealed), "the engine keeps old pages: this is what the keys are for");
    assert_eq!(bench.row_keys().hours().count(), 1, "four other rows need the hour's key");

    local(&mut store, LocalOp::OutboxRemove(1));
    local(&mut store, LocalOp::InboxRemove(1));
    local(&mut store, LocalOp::PartialRemove { source: Address([2; 16]), tag: TransferTag([4; 16]) });
    local(&mut store, LocalOp::KvRemove { namespace: Namespace::ReceiverSecret, key: vec![1] });
    assert_eq!(bench.row_keys().hours().count(), 1, "the hour is not over");
    bench.an_hour_later();
    local(&mut store, LocalOp::Counts);
    assert_eq!(bench.row_keys().hours().count(), 0);
    assert_eq!(bench.row_keys().unseal(place, sealed), Err(UnsealError::KeyDestroyed));
}

#[test]
fn a_rewritten_row_moves_to_the_key_of_its_new_hour() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    let put = |value: &[u8]| LocalOp::KvPut {
        namespace: Namespace::ReceiverSecret,
        key: vec![1],
        value: value.to_vec(),
    };
    local(&mut store, put(b"old"));
    bench.an_hour_later();
    local(&mut store, put(b"new"));
    assert_eq!(bench.row_keys().hours().collect::<Vec<_>>(), [3]);
}

#[test]
fn keys_left_by_a_crash_are_destroyed_at_the_next_start() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    store.row_keys.ensure(77).unwrap();
    drop(store);
    let _store = bench.open().unwrap();
    assert_eq!(bench.row_keys().hours().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_store_without_its_row_keys_is_refused_by_name() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    drop(store);
    fs::remove_file(bench.path.join("row-keys")).unwrap();
    let e = bench.open().unwrap_err();
    assert!(matches!(&e, StoreError::Corrupt { path, .. } if path.ends_with("row-keys")), "{e:?}");
}

#[test]
fn a_damaged_row_costs_only_itself() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    let second = InboxCommit {
        uid: MessageUid([8; 16]),
        source: Address([2; 16]),
        ingress: None,
        dedup_until_unix_s: 0,
        awaits: Awaits::default(),
        strangers: Strangers::Enter,
        entry: b"whole".to_vec(),
    };
    local(&mut store, LocalOp::InboxCommit(second));
    // The sender of the first entry is changed on the disk: it is part of what the seal covers.
    tamper(&store, T::Inbox, |row| row[INBOX_HEADER_BYTES - 1] ^= 1);
    tamper(&store, T::Held, |row| *row.last_mut().unwrap() ^= 1);

    let page = LocalOp::InboxPage { after: None, limit: PageLimit::default() };
    match local(&mut store, page.clone()) {
        LocalOutcome::Inbox(page) => {
            assert_eq!(page.damaged, 1);
            assert_eq!(page.rows.iter().map(|row| row.entry.as_slice()).collect::<Vec<_>>(), [b"whole"]);
        }
        other => panic!("{other:?}"),
    }
    match mail(
        &mut store,
        MailOp::Page { destination: Address([5; 16]), after: None, limit: PageLimit::default() },
    ) {
        MailOutcome::Page(page) => assert_eq!((page.damaged, page.rows.len()), (1, 0)),
        other => panic!("{other:?}"),
    }
    // Counted once, out of the way, and out of the quotas.
    match local(&mut store, page) {
        LocalOutcome::Inbox(page) => assert_eq!((page.damaged, page.rows.len()), (0, 1)),
        other => panic!("{other:?}"),
    }
    match local(&mut store, LocalOp::Counts) {
        LocalOutcome::Counts(counts) => assert_eq!(counts.quarantined, 2),
        other => panic!("{other:?}"),
    }
    match mail(&mut store, MailOp::Usage { destination: None }) {
        MailOutcome::Usage(usage) => assert_eq!((usage.total.rows, usage.total.bytes), (0, 0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_early_message_that_cannot_be_read_costs_only_itself() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    let source = Address([2; 16]);
    let early = |n: u8| InboxCommit {
        uid: MessageUid([n; 16]),
        source,
        ingress: None,
        dedup_until_unix_s: 0,
        awaits: Awaits { follows: Some(MessageUid([9; 16]).prefix()), behind: None, stranger_waits: true },
        strangers: Strangers::Enter,
        entry: b"whole".to_vec(),
    };
    let release = |n: u8| LocalOp::EarlyRelease { source, uid: MessageUid([n; 16]), force: true };
    for n in [1, 2] {
        let outcome = local(&mut store, LocalOp::InboxCommit(early(n)));
        assert_eq!(outcome, LocalOutcome::Early { awaits: MessageUid([9; 16]).prefix(), stranger: true });
    }
    // What the first waits for is changed on the disk: it is part of what the seal covers.
    tamper(&store, T::InboxEarly, |row| row[EARLY_HEADER_BYTES - 1] ^= 1);
    assert_eq!(local(&mut store, release(1)), LocalOutcome::Absent);
    assert!(matches!(local(&mut store, release(2)), LocalOutcome::Committed { .. }));
    // One that is cut short is set aside where they are listed.
    local(&mut store, LocalOp::InboxCommit(early(3)));
    tamper(&store, T::InboxEarly, |row| row.truncate(EARLY_HEADER_BYTES - 1));
    let page = LocalOp::EarlyPage { after: None, limit: PageLimit::default() };
    match local(&mut store, page) {
        LocalOutcome::Earlies(page) => assert_eq!((page.damaged, page.rows.len()), (1, 0)),
        other => panic!("{other:?}"),
    }
    match local(&mut store, LocalOp::Counts) {
        LocalOutcome::Counts(counts) => assert_eq!((counts.inbox, counts.quarantined), (1, 2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn early_messages_leave_room_for_what_they_wait_for() {
    let bench = Bench::new();
    let rows = Quota { bytes_max: 1 << 20, rows_max: 16 };
    let mut store = bench.open_with(InboxQuota::of_all(rows, rows)).unwrap();
    let commit = |n: u8, follows: Option<u8>| {
        LocalOp::InboxCommit(InboxCommit {
            uid: MessageUid([n; 16]),
            source: Address([2; 16]),
            ingress: None,
            dedup_until_unix_s: 0,
            awaits: Awaits {
                follows: follows.map(|n| MessageUid([n; 16]).prefix()),
                behind: None,
                stranger_waits: true,
            },
            strangers: Strangers::Enter,
            entry: b"whole".to_vec(),
        })
    };
    for n in 2..16 {
        assert!(matches!(local(&mut store, commit(n, Some(n - 1))), LocalOutcome::Early { .. }));
    }
    assert!(matches!(local(&mut store, commit(16, Some(15))), LocalOutcome::InboxFull(_)));
    // What is here already is answered, and what they wait for enters.
    assert_eq!(local(&mut store, commit(15, Some(14))), LocalOutcome::Seen);
    assert!(matches!(local(&mut store, commit(1, None)), LocalOutcome::Committed { .. }));
}

#[test]
fn reads_cost_no_sync_and_a_batch_costs_one() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    store.commit(&one_of_each()).unwrap();
    let before = store.synced().count;
    local(&mut store, LocalOp::Counts);
    assert_eq!(store.synced().count, before);
    let works: Vec<Work> = (0..50u8)
        .map(|n| {
            Work::Local(vec![LocalOp::KvPut { namespace: Namespace::Peer, key: vec![n], value: vec![n] }])
        })
        .collect();
    store.commit(&works).unwrap();
    assert_eq!(store.synced().count, before + 1);
}

#[test]
fn a_file_that_is_no_store_is_refused_untouched() {
    let bench = Bench::new();
    drop(DataDir::open(&bench.path).unwrap());
    let path = bench.path.join("store.redb");
    crate::storage::data_dir::write_atomic(&path, &[b'x'; 100_000]).unwrap();
    let e = bench.open().unwrap_err();
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert_eq!(fs::read(&path).unwrap(), [b'x'; 100_000]);
}

#[cfg(unix)]
#[test]
fn the_store_is_the_owners_alone_and_refused_otherwise() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    drop(bench.open().unwrap());
    let path = bench.path.join("store.redb");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(bench.open(), Err(StoreError::TooOpen { mode: 0o644, wanted: 0o600, .. })));
}

#[test]
fn a_row_larger_than_any_message_is_refused_with_its_submission_alone() {
    let bench = Bench::new();
    let mut store = bench.open().unwrap();
    let put = |bytes: usize| {
        Work::Local(vec![LocalOp::KvPut { namespace: Namespace::Peer, key: vec![1], value: vec![0; bytes] }])
    };
    let results = store.commit(&[put(crate::storage::ROW_BYTES_MAX + 1), put(1)]).unwrap();
    assert!(matches!(results.as_slice(), [Err(StoreError::RowTooLarge { .. }), Ok(_)]), "{results:?}");
}
