//! The embedded store against the store in memory, which was written independently: any order of
//! operations, batches and restarts gives the same answers from both.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use quicprochat_mesh::{
    storage::{
        Awaits, Counter, DataDir, EmbeddedOptions, EmbeddedStore, Engine, HeldRow, InboxCommit, InboxQuota,
        LocalOp, MailOp, MailboxQuota, MemEngine, Namespace, OutboxRow, PageLimit, PartialRow, Quota,
        Strangers, Work,
    },
    wire::{Address, MessageUid, PacketId, Priority, TransferTag},
};

/// Small enough that refusals happen.
const QUOTA: MailboxQuota = MailboxQuota {
    global: Quota { bytes_max: 4000, rows_max: 9 },
    per_ingress: Quota { bytes_max: 3000, rows_max: 6 },
    per_source: Quota { bytes_max: 2500, rows_max: 5 },
    per_destination: Quota { bytes_max: 2000, rows_max: 5 },
};

const INBOX_QUOTA: InboxQuota = InboxQuota {
    all: Quota { bytes_max: 5000, rows_max: 7 },
    strangers: Quota { bytes_max: 2500, rows_max: 4 },
    strangers_per_ingress: Quota { bytes_max: 1700, rows_max: 3 },
    per_stranger: Quota { bytes_max: 1200, rows_max: 2 },
    per_source: Quota { bytes_max: 1500, rows_max: 3 },
    per_contact: Quota { bytes_max: 2600, rows_max: 4 },
};

#[derive(Debug, Clone)]
enum Step {
    /// Submissions that share a transaction.
    Batch(Vec<Work>),
    /// The process ends in good order and starts again.
    Restart,
    /// The clock moves on by this many hours, so that row keys change and die.
    Hours(u64),
}

// Few distinct identifiers, so that operations meet.
fn id() -> impl Strategy<Value = [u8; 16]> {
    (0u8..6).prop_map(|n| [n; 16])
}

/// Fewer neighbours than sources, so that several come over one.
fn ingress() -> impl Strategy<Value = Option<Address>> {
    proptest::option::of((0u8..2).prop_map(|n| Address([n; 16])))
}

fn time() -> impl Strategy<Value = u64> {
    0u64..20
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..3, 0..3)
}

fn limit() -> impl Strategy<Value = PageLimit> {
    // Bytes of a page depend on how rows are spelled; rows do not.
    (0usize..4).prop_map(|rows_max| PageLimit { rows_max, bytes_max: usize::MAX })
}

fn namespace() -> impl Strategy<Value = Namespace> {
    select(vec![Namespace::Route, Namespace::Peer, Namespace::ReceiverSecret])
}

fn counter() -> impl Strategy<Value = Counter> {
    select(Counter::ALL.to_vec())
}

fn outbox_row() -> impl Strategy<Value = OutboxRow> {
    (id(), id(), time(), time(), bytes(), bytes()).prop_map(
        |(uid, destination, created, expires, state, body)| OutboxRow {
            uid: MessageUid(uid),
            destination: Address(destination),
            created_unix_s: created,
            expires_s: expires,
            state,
            body,
        },
    )
}

fn awaits() -> impl Strategy<Value = Awaits> {
    let one = || proptest::option::of(id().prop_map(|uid| MessageUid(uid).prefix()));
    (one(), one(), any::<bool>()).prop_map(|(follows, behind, stranger_waits)| Awaits {
        follows,
        behind,
        stranger_waits,
    })
}

fn inbox_commit() -> impl Strategy<Value = InboxCommit> {
    (id(), id(), ingress(), time(), awaits(), strangers(), bytes()).prop_map(
        |(uid, source, ingress, until, awaits, strangers, entry)| InboxCommit {
            uid: MessageUid(uid),
            source: Address(source),
            ingress,
            dedup_until_unix_s: until,
            awaits,
            strangers,
            entry,
        },
    )
}

fn strangers() -> impl Strategy<Value = Strangers> {
    prop_oneof![4 => Just(Strangers::Enter), 3 => Just(Strangers::Ask), 1 => Just(Strangers::Refuse)]
}

fn partial_row() -> impl Strategy<Value = PartialRow> {
    (id(), id(), time(), bytes()).prop_map(|(source, tag, until, state)| PartialRow {
        source: Address(source),
        tag: TransferTag(tag),
        until_unix_s: until,
        state,
    })
}

fn held_row() -> impl Strategy<Value = HeldRow> {
    (vec(any::<u8>(), 16), id(), id(), id(), 0u8..4, time(), time(), bytes()).prop_map(
        |(packet, destination, source, ingress, priority, expires, held_at, frame)| HeldRow {
            // Of 24 packets, so that duplicates happen among more rows than the quotas allow.
            packet_id: PacketId([packet[0] % 24; 16]),
            destination: Address(destination),
            source: Address(source),
            priority: Priority::from_bits(priority),
            ingress: Address(ingress),
            expires_s: expires,
            held_at_s: held_at,
            age_s: 7,
            frame: Bytes::from(frame),
        },
    )
}

fn local_op() -> impl Strategy<Value = LocalOp> {
    prop_oneof![
        4 => outbox_row().prop_map(LocalOp::OutboxPut),
        2 => (0u64..12, bytes()).prop_map(|(seq, state)| LocalOp::OutboxUpdate { seq, state }),
        2 => (0u64..12).prop_map(LocalOp::OutboxRemove),
        2 => (proptest::option::of(0u64..8), limit())
            .prop_map(|(after, limit)| LocalOp::OutboxPage { after, limit }),
        6 => inbox_commit().prop_map(LocalOp::InboxCommit),
        3 => (id(), id(), any::<bool>()).prop_map(|(source, uid, force)| LocalOp::EarlyRelease {
            source: Address(source),
            uid: MessageUid(uid),
            force,
        }),
        1 => (proptest::option::of((id(), id())), limit()).prop_map(|(after, limit)| LocalOp::EarlyPage {
            after: after.map(|(source, uid)| (Address(source), MessageUid(uid))),
            limit,
        }),
        2 => (proptest::option::of(0u64..8), limit())
            .prop_map(|(after, limit)| LocalOp::InboxPage { after, limit }),
        2 => (0u64..12).prop_map(LocalOp::InboxRemove),
        2 => (time(), 0usize..4)
            .prop_map(|(now_unix_s, rows_max)| LocalOp::ForgetSeen { now_unix_s, rows_max }),
        2 => (inbox_commit(), id())
            .prop_map(|(commit, tag)| LocalOp::FileCommit { commit, tag: TransferTag(tag) }),
        3 => (partial_row(), ingress(), 0u64..1500, strangers()).prop_map(
            |(row, ingress, file_bytes, strangers)| LocalOp::PartialOpen { row, ingress, file_bytes, strangers }
        ),
        2 => (id(), 0u64..12)
            .prop_map(|(source, seq)| LocalOp::RequestEnter { source: Address(source), seq }),
        1 => (id(), 0u64..12)
            .prop_map(|(source, seq)| LocalOp::RequestRemove { source: Address(source), seq }),
        1 => (proptest::option::of((id(), 0u64..8)), limit()).prop_map(|(after, limit)| LocalOp::RequestPage {
            after: after.map(|(source, seq)| (Address(source), seq)),
            limit,
        }),
        3 => partial_row().prop_map(LocalOp::PartialPut),
        2 => (select(vec![Namespace::KeyRecord, Namespace::Known, Namespace::Accepted]), id())
            .prop_map(|(namespace, id)| LocalOp::KvPut { namespace, key: id.to_vec(), value: Vec::new() }),
        1 => (select(vec![Namespace::KeyRecord, Namespace::Known, Namespace::Accepted]), id())
            .prop_map(|(namespace, id)| LocalOp::KvRemove { namespace, key: id.to_vec() }),
        1 => (id(), id()).prop_map(|(source, tag)| LocalOp::PartialRemove {
            source: Address(source),
            tag: TransferTag(tag),
        }),
        2 => (proptest::option::of((id(), id())), limit()).prop_map(|(after, limit)| LocalOp::PartialPage {
            after: after.map(|(source, tag)| (Address(source), TransferTag(tag))),
            limit,
        }),
        2 => (counter(), any::<u32>()).prop_map(|(counter, count)| LocalOp::Reserve { counter, count }),
        1 => (counter(), prop_oneof![0u64..10_000, Just(u64::MAX - 5)])
            .prop_map(|(counter, at_least)| LocalOp::RaiseCounter { counter, at_least }),
        1 => (0u32..50).prop_map(|at_least| LocalOp::RaiseBootEpoch { at_least }),
        4 => (namespace(), key(), bytes())
            .prop_map(|(namespace, key, value)| LocalOp::KvPut { namespace, key, value }),
        2 => (namespace(), key()).prop_map(|(namespace, key)| LocalOp::KvGet { namespace, key }),
        1 => (namespace(), key()).prop_map(|(namespace, key)| LocalOp::KvRemove { namespace, key }),
        1 => namespace().prop_map(LocalOp::KvClear),
        2 => (namespace(), proptest::option::of(key()), limit())
            .prop_map(|(namespace, after, limit)| LocalOp::KvPage { namespace, after, limit }),
        1 => Just(LocalOp::Counts),
    ]
}

fn mail_op() -> impl Strategy<Value = MailOp> {
    prop_oneof![
        8 => held_row().prop_map(MailOp::Hold),
        3 => (id(), proptest::option::of(0u64..10), limit()).prop_map(|(destination, after, limit)| MailOp::Page {
            destination: Address(destination),
            after,
            limit,
        }),
        3 => vec(0u8..24, 0..4)
            .prop_map(|ids| MailOp::Remove(ids.into_iter().map(|n| PacketId([n; 16])).collect())),
        3 => (id(), vec(0u8..24, 0..4)).prop_map(|(destination, ids)| MailOp::RemoveFor {
            destination: Address(destination),
            packet_ids: ids.into_iter().map(|n| PacketId([n; 16])).collect(),
        }),
        2 => (time(), 0usize..4).prop_map(|(now_s, rows_max)| MailOp::Expire { now_s, rows_max }),
        2 => proptest::option::of(id())
            .prop_map(|destination| MailOp::Usage { destination: destination.map(Address) }),
        1 => any::<bool>().prop_map(|write| MailOp::CheckRoom { write }),
        1 => (proptest::option::of(id()), 0usize..4).prop_map(|(after, rows_max)| MailOp::Destinations {
            after: after.map(Address),
            rows_max,
        }),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![vec(local_op(), 0..8).prop_map(Work::Local), vec(mail_op(), 0..8).prop_map(Work::Mail)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(work(), 1..4).prop_map(Step::Batch),
        1 => Just(Step::Restart),
        2 => (0u64..3).prop_map(Step::Hours),
    ]
}

fn open(path: &Path, now_unix_s: &Arc<AtomicU64>) -> EmbeddedStore {
    let now = Arc::clone(now_unix_s);
    let options = EmbeddedOptions {
        quota: QUOTA,
        inbox_quota: INBOX_QUOTA,
        clock_unix_s: Arc::new(move || now.load(Ordering::SeqCst)),
        ..EmbeddedOptions::default()
    };
    EmbeddedStore::open(DataDir::open(path).unwrap().into(), options).unwrap()
}

/// Everything there is, as answers.
fn everything() -> Work {
    let all = PageLimit { rows_max: usize::MAX, bytes_max: usize::MAX };
    let mut ops = vec![
        LocalOp::OutboxPage { after: None, limit: all },
        LocalOp::InboxPage { after: None, limit: all },
        LocalOp::EarlyPage { after: None, limit: all },
        LocalOp::PartialPage { after: None, limit: all },
        LocalOp::Counts,
    ];
    for namespace in [Namespace::Route, Namespace::Peer, Namespace::ReceiverSecret] {
        ops.push(LocalOp::KvPage { namespace, after: None, limit: all });
    }
    Work::Local(ops)
}

proptest! {
    // Every case opens real files and syncs them.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_answers_as_the_model_does(steps in vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let now_unix_s = Arc::new(AtomicU64::new(1_000_000));
        let mut model = MemEngine::new(QUOTA).with_inbox_quota(INBOX_QUOTA);
        let mut store = open(&path, &now_unix_s);
        for step in steps {
            match step {
                Step::Batch(mut works) => {
                    works.push(everything());
                    let expected = model.commit(&works).unwrap();
                    let got = store.commit(&works).unwrap();
                    for ((work, expected), got) in works.iter().zip(expected).zip(got) {
                        prop_assert_eq!(format!("{got:?}"), format!("{expected:?}"), "{:?}", work);
                    }
                }
                Step::Restart => {
                    store.close().unwrap();
                    store = open(&path, &now_unix_s);
                    model.restart();
                }
                Step::Hours(hours) => {
                    now_unix_s.fetch_add(hours * 3600, Ordering::SeqCst);
                }
            }
            prop_assert_eq!(store.boot_epoch(), model.boot_epoch());
        }
    }
}
