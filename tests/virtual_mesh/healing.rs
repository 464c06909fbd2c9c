//! A node whose old data directory was put back.

use quicprochat_mesh::{
    storage::MemStore,
    testing::{eventually, with_virtual_time},
    transport::MemNetwork,
};

use crate::node::*;

#[test]
fn a_node_whose_old_data_is_put_back_is_routable_again_within_thirty_seconds() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut nodes = line(&network, 4).await;
        // It starts some more times, and everyone learns the orders of each start.
        for _ in 0..3 {
            let spec = nodes.remove(0).stop().await;
            nodes.insert(0, Node::start(&network, spec).await);
            nodes[0].join(&nodes[1]).await;
            tokio::time::sleep(secs(60)).await;
            let address = nodes[0].address();
            assert!(nodes[2].routes().await.contains_key(&address));
        }
        let address = nodes[0].address();
        let newest = nodes[3].routes().await[&address].route.order;
        let mut spec = nodes.remove(0).stop().await;
        // What was there before the first start: nothing of what was signed since is known.
        spec.store = MemStore::default();
        let home = Node::start(&network, spec).await;
        let since = tokio::time::Instant::now();
        home.join(&nodes[0]).await;
        eventually("a way by an announce above the old ones", secs(30), async || {
            let routes = nodes[2].routes().await;
            routes.get(&address).filter(|line| line.route.order > newest).map(|_| ())
        })
        .await;
        println!("routable again after {:?}", since.elapsed());
        for (from, to) in [(&nodes[2], &home), (&home, &nodes[2])] {
            let sent = from.send(to.address(), "welcome back").await;
            tokio::time::sleep(secs(2)).await;
            assert!(sent.within(FIRST_RETRY), "{:?}", sent.took());
        }
        assert!(since.elapsed() < secs(30));
        // The jump is on disk: its next start goes on above it.
        let healed = nodes[2].routes().await[&address].route.order;
        let spec = home.stop().await;
        let home = Node::start(&network, spec).await;
        home.join(&nodes[0]).await;
        eventually("the next start", secs(30), async || {
            let routes = nodes[2].routes().await;
            routes.get(&address).filter(|line| line.route.order > healed).map(|_| ())
        })
        .await;
    });
}
