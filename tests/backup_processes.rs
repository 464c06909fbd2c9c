//! `qpc backup` of running and of stopped nodes, and a node that is started on the copy.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Spec, qpc, temp_dir, wait_until};
use serde_json::json;

#[test]
fn a_node_started_on_a_backup_has_what_it_had_and_is_believed() {
    let keeper = Spec::new("keeper").start();
    let mut node = Spec::new("node").peer(keeper.url("tcp")).start();
    node.knows(&[&keeper]);
    let nowhere = "0123456789abcdef0123456789abcdef";
    let id = node.queue(nowhere, "kept in the outbox");
    keeper.deliver(&node, "kept in the inbox");

    let copies = temp_dir();
    let (first, second) = (copies.path().join("first"), copies.path().join("second"));
    let done = node.ask(&["backup", first.to_str().unwrap()]).remove(0);
    assert_eq!(done["dir"], json!(first));
    assert!(done["rows"].as_u64().unwrap() > 5 && done["files"].as_u64().unwrap() >= 1, "{done}");
    let mode = std::fs::metadata(&first).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "it holds the identity");
    node.qpc(&["backup", first.to_str().unwrap()]).exits(1).says(&["not empty"]);

    // The original goes on, and signs and sends what its backup does not know of.
    let later = node.queue(nowhere, "after the backup");
    node.qpc(&["announce"]).exits(0);
    let (address, dir) = (node.address(), node.dir().to_owned());
    node.stop();
    // One that does not run is copied as it is.
    qpc(&dir, &["backup", second.to_str().unwrap()]).exits(0);
    qpc(&copies.path().join("none"), &["backup", "/tmp/qpc-no-such-backup"])
        .exits(1)
        .says(&["no identity.pem"]);

    let again = Spec::new("again").at(&first).peer(keeper.url("tcp")).start();
    assert_eq!(again.address(), address);
    let outbox = again.ask(&["outbox"]);
    assert_eq!((outbox.len(), &outbox[0]["id"]), (1, &json!(id)), "as it was at that moment");
    assert_eq!(again.inbox().len(), 1);
    again.knows(&[&keeper]);
    // Others take its word though they have heard later ones of the original.
    wait_until("a route to the newer one", || {
        keeper
            .ask(&["routes", &address])
            .first()
            .is_some_and(|route| route["boot_epoch"].as_u64().unwrap() > 256)
    });
    keeper.deliver(&again, "to the one from the backup");
    again.qpc(&["outbox", "cancel", &later]).exits(1);
}
