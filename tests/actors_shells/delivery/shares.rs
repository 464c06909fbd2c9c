//! What one neighbour and one source may take of the inbox and of the time for seals.

use quicprochat_mesh::{
    proto::delivery::seal_budget::FAILURES_BURST,
    storage::{INBOX_ROW_OVERHEAD_BYTES, InboxQuota, Quota},
    telemetry,
};

use super::*;

const NEAR: Address = Address([0xa1; 16]);
const OTHER: Address = Address([0xa2; 16]);

impl Bench {
    fn arrives_over(&self, ingress: Address, envelopes: Vec<Verified<InboundEnvelope>>) {
        self.actor.do_send(DeliverLocal { link: None, via: "mem", ingress: Some(ingress), envelopes });
    }

    /// It is in the inbox and receipted.
    async fn is_taken(&mut self, packet: Verified<InboundEnvelope>, ingress: Address) {
        let id = packet.packet_id;
        self.arrives_over(ingress, vec![packet]);
        assert_eq!(self.next_receipt().await.packet_ids, [id]);
    }

    async fn is_refused_over(&mut self, packet: Verified<InboundEnvelope>, ingress: Address) {
        let id = packet.packet_id;
        self.arrives_over(ingress, vec![packet]);
        let refused = expect_within(&mut self.refused, PATIENCE).await;
        assert_eq!(refused.refused, [(id, RefuseReason::StoreFull)]);
    }

    async fn knows(&self, namespace: Namespace, of: Address) {
        let put = LocalOp::KvPut { namespace, key: of.0.to_vec(), value: Vec::new() };
        ask_local(&self.store, vec![put]).unwrap().await.unwrap();
    }
}

fn refusals(reason: &str) -> u64 {
    let text = telemetry::prometheus_text();
    let name = format!("{}{{reason=\"{reason}\"}}", telemetry::INBOUND_REFUSED);
    let line = text.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn a_full_inbox_refuses_by_name_without_a_receipt_and_goes_on_when_there_is_room() {
    with_virtual_time(|| async {
        let mut bench = start();
        let rows = |rows_max| Quota { rows_max, bytes_max: u64::MAX };
        bench.store.rows.set_inbox_quota(InboxQuota::of_all(rows(2), rows(1)));
        let (first, second) = (bench.message(1), bench.message(2));
        let (first_id, second_id) = (first.packet_id, second.packet_id);
        bench.arrives(first.clone());
        assert_eq!(bench.next_receipt().await.packet_ids, [first_id]);
        bench.arrives(second.clone());
        let refused = expect_within(&mut bench.refused, PATIENCE).await;
        assert_eq!((refused.taken, refused.refused), (vec![], vec![(second_id, RefuseReason::StoreFull)]));
        expect_silence(&mut bench.originated, secs(60)).await;
        // What is here is receipted again, however full the inbox is.
        bench.arrives(first);
        assert_eq!(bench.next_receipt().await.packet_ids, [first_id]);

        // Whoever this node has to do with is not bound by the strangers' share.
        let known = LocalOp::KvPut {
            namespace: Namespace::Known,
            key: bench.peer.address().0.to_vec(),
            value: Vec::new(),
        };
        ask_local(&bench.store, vec![known]).unwrap().await.unwrap();
        bench.arrives(second);
        assert_eq!(bench.next_receipt().await.packet_ids, [second_id]);
        let third = bench.message(3);
        let third_id = third.packet_id;
        bench.arrives(third.clone());
        assert_eq!(
            expect_within(&mut bench.refused, PATIENCE).await.refused,
            [(third_id, RefuseReason::StoreFull)]
        );
        assert_eq!(bench.counts().await.inbox, 2);
        ask_local(&bench.store, vec![LocalOp::InboxRemove(1)]).unwrap().await.unwrap();
        bench.arrives(third);
        assert_eq!(bench.next_receipt().await.packet_ids, [third_id]);
    });
}

#[test]
fn a_file_beyond_the_inbox_is_refused_with_its_manifest() {
    with_virtual_time(|| async {
        let mut bench = start();
        let bytes_max = 1_000_000 + INBOX_ROW_OVERHEAD_BYTES;
        let quota = Quota { rows_max: 10, bytes_max };
        bench.store.rows.set_inbox_quota(InboxQuota::of_all(quota, quota));
        let (large, fits) = (bench.manifest(1, 1_000_001), bench.manifest(2, 1_000_000));
        let (large_id, fits_id) = (large.packet_id, fits.packet_id);
        bench.arrives(large);
        let refused = expect_within(&mut bench.refused, PATIENCE).await;
        assert_eq!(refused.refused, [(large_id, RefuseReason::StoreFull)]);
        bench.arrives(fits);
        assert_eq!(bench.next_receipt().await.packet_ids, [fits_id]);
        // Its room is taken though not a byte of it is here.
        let text = bench.message(3);
        let text_id = text.packet_id;
        bench.arrives(text);
        let refused = expect_within(&mut bench.refused, PATIENCE).await;
        assert_eq!(refused.refused, [(text_id, RefuseReason::StoreFull)]);
    });
}

#[test]
fn neither_a_source_nor_a_neighbour_takes_the_share_of_others() {
    let _ = telemetry::install();
    with_virtual_time(|| async {
        let mut bench = start();
        let rows = |rows_max| Quota { rows_max, bytes_max: u64::MAX };
        bench.store.rows.set_inbox_quota(InboxQuota {
            all: rows(100),
            strangers: rows(6),
            strangers_per_ingress: rows(3),
            per_stranger: rows(2),
            per_source: rows(3),
            per_contact: rows(4),
        });
        let to = bench.own_keys.record.clone();
        let before = ["inbox_source", "inbox_neighbour", "inbox_strangers", "inbox_full"].map(refusals);
        let (mut a, mut b, mut c) = (Signer::new(11), Signer::new(12), Signer::new(13));

        // A stranger fills its own share, then all strangers of a neighbour that of the neighbour.
        bench.is_taken(a.sealed(&to, 1, "x"), NEAR).await;
        bench.is_taken(a.sealed(&to, 2, "x"), NEAR).await;
        bench.is_refused_over(a.sealed(&to, 3, "x"), NEAR).await;
        bench.is_refused_over(a.sealed(&to, 3, "x"), OTHER).await;
        bench.is_taken(b.sealed(&to, 1, "x"), NEAR).await;
        bench.is_refused_over(b.sealed(&to, 2, "x"), NEAR).await;
        // Over another neighbour there is room, until all strangers together have theirs.
        bench.is_taken(b.sealed(&to, 2, "x"), OTHER).await;
        bench.is_taken(c.sealed(&to, 1, "x"), OTHER).await;
        bench.is_taken(c.sealed(&to, 2, "x"), OTHER).await;
        bench.is_refused_over(Signer::new(14).sealed(&to, 1, "x"), Address([0xa3; 16])).await;

        // Whom this node wrote to, and contacts more so, have shares of their own, whoever brings them.
        for (signer, namespace, share) in [(21, Namespace::KeyRecord, 3), (22, Namespace::Known, 4)] {
            let mut friend = Signer::new(signer);
            bench.knows(namespace, friend.address()).await;
            for uid in 0..share {
                bench.is_taken(friend.sealed(&to, uid, "x"), NEAR).await;
            }
            bench.is_refused_over(friend.sealed(&to, 99, "x"), NEAR).await;
        }
        let after = ["inbox_source", "inbox_neighbour", "inbox_strangers", "inbox_full"].map(refusals);
        let counted: Vec<_> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        assert!(counted.iter().zip([4, 1, 1, 0]).all(|(counted, least)| *counted >= least), "{counted:?}");

        // What is taken out makes room for its source.
        ask_local(&bench.store, vec![LocalOp::InboxRemove(1)]).unwrap().await.unwrap();
        bench.is_taken(a.sealed(&to, 3, "x"), NEAR).await;
    });
}

#[test]
fn a_file_is_charged_to_its_source_and_its_neighbour_from_its_manifest_on() {
    with_virtual_time(|| async {
        let mut bench = start();
        let of = |bytes_max| Quota { rows_max: 100, bytes_max };
        let quota = InboxQuota { strangers_per_ingress: of(1_000_000), ..InboxQuota::default() };
        bench.store.rows.set_inbox_quota(quota);
        let to = bench.own_keys.record.clone();
        bench.is_taken(Signer::new(11).manifest(&to, 1, 900_000), NEAR).await;
        bench.is_refused_over(Signer::new(12).manifest(&to, 2, 200_000), NEAR).await;
        bench.is_taken(Signer::new(12).manifest(&to, 2, 200_000), OTHER).await;
    });
}

/// A message for this node that was sealed for another envelope.
fn unopenable(signer: &mut Signer, bench: &Bench) -> Verified<InboundEnvelope> {
    let sealed = signer.sealed(&bench.own_keys.record, 1, "hello");
    signer.packet(EnvelopeKind::MESSAGE, bench.own.address(), &sealed.envelope.payload())
}

#[test]
fn seals_that_do_not_open_are_opened_no_more_and_who_is_heard_is_heard_on() {
    let _ = telemetry::install();
    with_virtual_time(|| async {
        let mut bench = start();
        let to = bench.own_keys.record.clone();
        let mut friend = Signer::new(21);
        bench.is_taken(friend.sealed(&to, 1, "x"), NEAR).await;

        let before = (refusals("seal"), refusals("seal_budget"));
        let flood: Vec<_> = (100..200).map(|seed| unopenable(&mut Signer::new(seed), &bench)).collect();
        bench.arrives_over(NEAR, flood);
        // Nobody hears of it, as of any seal that does not open.
        expect_silence(&mut bench.originated, std::time::Duration::from_millis(50)).await;
        assert!(bench.refused.is_empty());
        let (failed, dropped) = (refusals("seal") - before.0, refusals("seal_budget") - before.1);
        // Other tests of this process count with this one.
        assert!(failed >= FAILURES_BURST && dropped >= 80, "{failed} failed, {dropped} were not opened");

        // Strangers over this neighbour wait; over others they do not, and friends never do.
        let stranger = Signer::new(30).sealed(&to, 1, "x");
        bench.arrives_over(NEAR, vec![stranger.clone()]);
        bench.is_taken(friend.sealed(&to, 2, "x"), NEAR).await;
        bench.is_taken(Signer::new(31).sealed(&to, 1, "x"), OTHER).await;
        assert_eq!(bench.counts().await.inbox, 3);
        tokio::time::sleep(secs(1)).await;
        bench.is_taken(stranger, NEAR).await;
    });
}
