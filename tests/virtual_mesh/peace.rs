//! What honest nodes do among themselves, so that attacks have something to be compared with.

use std::time::Duration;

use quicprochat_mesh::{testing::with_virtual_time, transport::MemNetwork};

use crate::node::*;

#[test]
fn a_line_of_four_carries_messages_and_receipts_in_no_time() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let nodes = line(&network, 4).await;
        for n in 0..20 {
            let sent = nodes[0].send(nodes[3].address(), &format!("message {n}")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(sent.within(Duration::from_millis(50)), "{:?}", sent.took());
        }
        assert_eq!(nodes[3].inbox().await, 20);
        assert_eq!(nodes[1].counters().await.duplicates, 0);
    });
}
