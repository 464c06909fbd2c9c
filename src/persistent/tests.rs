use bytes::Bytes;

use super::*;
use crate::{
    crypto::SignatureInput,
    proto::{
        announce::{AnnounceParts, create_announce},
        delivery::compose::{Composer, Sequences, Wanted},
        table::LinkClass,
        verify::VerifyOutcome,
    },
    storage::Quota,
    wire::{Capabilities, EnvelopeKind, FrameExt, Lifetime, LinkId, Priority},
};

const NETWORK: &str = "test";

fn envelopes(count: usize, to: Address) -> Vec<Verified<InboundEnvelope>> {
    let anna = Arc::new(MeshIdentity::from_seed([1; 32]));
    let network = network_id(NETWORK);
    let mut composer = Composer::new(anna.clone(), network, 1, Sequences::default());
    let mut verifier = Verifier::new(MeshIdentity::from_seed([2; 32]).address(), network);
    let wanted = Wanted {
        kind: EnvelopeKind(40),
        priority: Priority::Normal,
        destination: to,
        created_unix_s: 1_800_000_000,
        lifetime: Lifetime::ONE_DAY,
        max_hops: 8,
    };
    let mut make = |n: usize| {
        let made = composer.open(&wanted, format!("{n}").as_bytes()).unwrap();
        let envelope = made.envelope.with_source_key(anna.public_key());
        match verifier.verify(envelope, FrameExt::default()) {
            VerifyOutcome::Verified(verified) => verified,
            other => panic!("{other:?}"),
        }
    };
    (0..count).map(&mut make).collect()
}

fn payloads(held: &[Verified<InboundEnvelope>]) -> Vec<Bytes> {
    held.iter().map(|envelope| envelope.envelope.payload()).collect()
}

#[tokio::test]
async fn what_is_held_is_there_after_a_restart_until_it_is_removed_or_over() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("relay");
    let bert = MeshIdentity::from_seed([3; 32]).address();
    let [first, second]: [_; 2] = envelopes(2, bert).try_into().unwrap();
    let store = PersistentMessageStore::open(&dir, MailboxQuota::default()).unwrap();
    for envelope in [&first, &second] {
        assert!(matches!(store.hold(envelope, bert, 100).await.unwrap(), Holding::Held));
    }
    assert!(matches!(store.hold(&first, bert, 100).await.unwrap(), Holding::Known));
    // One process at a time.
    assert!(PersistentMessageStore::open(&dir, MailboxQuota::default()).is_err());
    store.close();

    let store = PersistentMessageStore::open(&dir, MailboxQuota::default()).unwrap();
    let (held, next) = store.held_for(bert, None, 160).await.unwrap();
    assert_eq!((payloads(&held), next), (vec![Bytes::from("0"), Bytes::from("1")], None));
    assert_eq!(held[0].ext.age_s, 60, "older by the time it lay there");
    assert_eq!(store.remove(vec![first.packet_id, first.packet_id]).await.unwrap(), 1);
    assert_eq!(store.usage().await.unwrap().rows, 1);
    assert_eq!(store.expire(100 + 86_000).await.unwrap(), 0);
    assert_eq!(store.expire(100 + 86_401).await.unwrap(), 1);
    assert_eq!(store.usage().await.unwrap().rows, 0);
}

#[tokio::test]
async fn a_full_store_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let bert = MeshIdentity::from_seed([3; 32]).address();
    let one = Quota { bytes_max: 1 << 20, rows_max: 1 };
    let quota = MailboxQuota { per_destination: one, ..MailboxQuota::default() };
    let store = PersistentMessageStore::open(&dir.path().join("relay"), quota).unwrap();
    let [first, second]: [_; 2] = envelopes(2, bert).try_into().unwrap();
    assert!(matches!(store.hold(&first, bert, 100).await.unwrap(), Holding::Held));
    assert!(matches!(store.hold(&second, bert, 100).await.unwrap(), Holding::Refused(_)));
    let (held, _) = store.held_for(bert, None, 100).await.unwrap();
    assert_eq!(payloads(&held), [Bytes::from("0")]);
}

#[tokio::test]
async fn a_restarted_table_knows_whom_it_heard_and_takes_no_older_announce() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("relay");
    let (anna, own) = (MeshIdentity::from_seed([1; 32]), MeshIdentity::from_seed([2; 32]));
    let network = network_id(NETWORK);
    let mut verifier = Verifier::new(own.address(), network);
    let mut input = SignatureInput::new(network);
    let mut announce = |order| {
        let parts = AnnounceParts {
            order,
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime: Duration::from_secs(600),
            max_hops: 8,
            key_record: None,
        };
        verifier.verify_announce(create_announce(&anna, &mut input, &parts)).unwrap()
    };
    let now = Instant::now();
    let via = Via::unmeasured(LinkId(1), LinkClass::Unconstrained, anna.address());
    let empty = || RoutingTable::new(now, 7, 8);

    let store = PersistentMessageStore::open(&dir, MailboxQuota::default()).unwrap();
    let mut routes = PersistentRoutingTable::open(&store, &own, NETWORK, empty(), now, 100).await.unwrap();
    assert_eq!(routes.update(now, &announce((1, 5)), &via), Update::Newer);
    assert_eq!(routes.save(&store, now, 100).await.unwrap(), 1);
    assert_eq!(routes.save(&store, now, 100).await.unwrap(), 0, "nothing is new");
    store.close();

    let store = PersistentMessageStore::open(&dir, MailboxQuota::default()).unwrap();
    let mut routes = PersistentRoutingTable::open(&store, &own, NETWORK, empty(), now, 160).await.unwrap();
    assert_eq!(routes.table().order(&anna.address()), Some((1, 5)));
    assert_eq!(routes.table().len(), 0, "ways are the neighbours' to bring");
    assert!(matches!(routes.update(now, &announce((1, 4)), &via), Update::Rejected(_)));
    // The newest one again, and its first way.
    assert_eq!(routes.update(now, &announce((1, 5)), &via), Update::Newer);
    assert_eq!(routes.table().len(), 1);
}
