//! A hundred drains in the middle of traffic: nothing that was acknowledged is lost, nothing arrives
//! twice, and the books of each come out even.

use quicprochat_mesh::{testing::with_virtual_time, transport::MemNetwork};

use crate::node::*;

/// Messages of twelve kilobytes behind one drain: more than a medium takes before its reader reads.
const BEHIND_EACH: u64 = 14;

#[test]
fn a_hundred_drains_with_full_queues_lose_nothing_and_their_books_balance() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut nodes = line(&network, 3).await;
        let sink = nodes[2].address();
        let text = "x".repeat(12_000);
        let (mut sent, mut kept) = (0, 0);
        for drain in 0..100 {
            for _ in 0..BEHIND_EACH {
                nodes[0].queue(sink, &text).await;
            }
            sent += BEHIND_EACH;
            let at = drain % 3;
            let (spec, summary) = nodes.remove(at).drained().await;
            let known = summary.delivered + summary.rejected + summary.undelivered_kept;
            assert_eq!((summary.accepted, summary.rejected), (known, 0), "drain {drain}: {summary:?}");
            if at == 0 {
                kept += summary.undelivered_kept;
            }
            let node = Node::start(&network, spec).await;
            nodes.insert(at, node);
            // Each dials the one before it, as in the beginning.
            if at > 0 {
                nodes[at - 1].join(&nodes[at]).await;
            }
            if at < 2 {
                nodes[at].join(&nodes[at + 1]).await;
            }
            let [source, .., last] = &nodes[..] else { unreachable!("three nodes") };
            source.knows(&[last]).await;
        }
        assert!(kept > 0, "nothing was on its way when it was drained");
        // What is left goes by the outbox's own timers.
        let all_receipted = async {
            while nodes[0].outbox().await > 0 {
                tokio::time::sleep(secs(1)).await;
            }
        };
        tokio::time::timeout(secs(3600), all_receipted).await.expect("all receipts");
        assert_eq!(nodes[2].inbox().await, sent);
    });
}
