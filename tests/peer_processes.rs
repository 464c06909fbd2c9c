//! With whom a node has links, as processes: bans, lists of the configuration, addresses of both families
//! and names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Node, Spec, wait_until};
use serde_json::{Value, json};

/// The line of `peer list` of this kind.
fn entry(node: &Node, kind: &str) -> Option<Value> {
    node.ask(&["peer", "list"]).into_iter().find(|entry| entry["kind"] == kind)
}

/// Why there is no link with whom this node dials.
fn reason(node: &Node, kind: &str) -> String {
    entry(node, kind).and_then(|entry| entry["reason"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn metric(node: &Node, name: &str, label: &str) -> u64 {
    node.ask(&["stats"]).remove(0)["transports"][name][label].as_u64().unwrap()
}

#[test]
fn a_banned_node_loses_its_link_and_gets_no_other_until_the_ban_is_lifted() {
    for scheme in ["quic", "tcp"] {
        let mut here = Spec::new("here").start();
        let there = Spec::new("there").peer(here.url(scheme)).start();
        here.has_links(1);
        let address = there.address();
        here.qpc(&["peer", "ban", &address]).exits(0);
        here.has_links(0);
        // The other end is told, by name, and again when it dials.
        there.logs("reason=\"not_allowed\"");
        wait_until("a refusal that is told", || {
            reason(&there, "config").contains("does not let this node in")
        });
        let banned = entry(&here, "banned").unwrap();
        assert_eq!((&banned["address"], &banned["state"]), (&json!(address), &json!("refused")));

        // The ban is remembered. Whoever dials hears of it before it is a link.
        here.stop();
        here.restart();
        assert_eq!(entry(&here, "banned").unwrap()["address"], json!(address));
        there.qpc(&["peer", "add", &here.url(scheme)]).exits(0);
        wait_until("a dial that is refused", || metric(&here, "links_refused_total", "banned") > 0);
        assert_eq!(here.ask(&["peers"]), Vec::<Value>::new());

        here.qpc(&["peer", "unban", &address]).exits(0);
        assert_eq!(entry(&here, "banned"), None);
        here.qpc(&["peer", "unban", &address]).exits(1).says(&["is not banned", "qpc peer list"]);
        // Whoever waits is not made to.
        there.qpc(&["peer", "add", &here.url(scheme)]).exits(0);
        here.has_links(1);
        there.deliver(&here, "again");
    }
}

#[test]
fn a_ban_takes_out_what_was_added_and_refuses_what_the_configuration_names() {
    let other = Spec::new("other").start();
    let here = Spec::new("here").start();
    here.qpc(&["peer", "add", &other.url("quic")]).exits(0);
    here.has_links(1);
    assert_eq!(entry(&here, "added").unwrap()["state"], "linked");
    here.qpc(&["peer", "ban", &other.address()]).exits(0);
    here.has_links(0);
    assert_eq!(entry(&here, "added"), None, "it is dialled no more");
    // To dial it all the same says why that leads to nothing.
    here.qpc(&["peer", "add", &other.url("quic")]).exits(0);
    wait_until("a reason", || reason(&here, "added").contains("qpc peer unban"));
    here.qpc(&["peer", "unban", &other.address()]).exits(0);
    here.has_links(1);

    let configured = Spec::new("configured").peer(other.url("tcp")).start();
    configured.has_links(1);
    configured.qpc(&["peer", "ban", &other.address()]).exits(1).says(&["configuration", "`peers`"]);
    configured.has_links(1);
    configured.qpc(&["peer", "ban", &configured.address()]).exits(2).says(&["the node itself"]);
    for wrong in ["nobody at all", "0123", "quic://127.0.0.1:1"] {
        let run = configured.qpc(&["peer", "ban", wrong]);
        assert!([1, 2].contains(&run.code), "{run:?}");
    }
}

#[test]
fn lists_of_the_configuration_say_who_may_link() {
    let [friend, stranger] = ["friend", "stranger"].map(|name| Spec::new(name).start());
    let strict = Spec::new("strict").env("QPC_PEERS_ALLOW", &friend.address()).start();
    friend.qpc(&["peer", "add", &strict.url("quic")]).exits(0);
    stranger.qpc(&["peer", "add", &strict.url("quic")]).exits(0);
    wait_until("a refusal", || reason(&stranger, "added").contains("does not let this node in"));
    strict.has_links(1);
    assert_eq!(entry(&strict, "allow").unwrap()["state"], "linked");
    // Nor does it dial whom it would not let in.
    strict.qpc(&["peer", "add", &stranger.url("tcp")]).exits(0);
    wait_until("a reason", || reason(&strict, "added").contains("peers.allow"));

    let sour = Spec::new("sour").env("QPC_PEERS_DENY", &friend.address()).start();
    friend.qpc(&["peer", "add", &sour.url("tcp")]).exits(0);
    wait_until("a refusal", || metric(&sour, "links_refused_total", "banned") > 0);
    assert_eq!(entry(&sour, "deny").unwrap()["state"], "refused");
    sour.qpc(&["peer", "unban", &friend.address()]).exits(1).says(&["peers.deny", "restart"]);
    stranger.qpc(&["peer", "add", &sour.url("tcp")]).exits(0);
    sour.has_links(1);
}

#[test]
fn a_node_in_both_lists_is_a_mistake() {
    let temp = common::temp_dir();
    let address = "0102030405060708090a0b0c0d0e0f10";
    let mut run = common::command(temp.path(), &["run", "--listen", "tcp://127.0.0.1:0"]);
    run.env("QPC_PEERS_ALLOW", address).env("QPC_PEERS_DENY", address);
    common::finish(run).exits(78).says(&["peers.allow", "peers.deny", address]);
    let mut run = common::command(temp.path(), &["run", "--listen", "tcp://127.0.0.1:0"]);
    run.env("QPC_PEERS_DENY", "alice");
    common::finish(run).exits(78).says(&["32 hex digits"]);
}

/// Two nodes that are linked by this URL of the second one exchange a message.
fn are_linked_by(a: &Node, b: &Node, url: &str) {
    a.qpc(&["peer", "add", url]).exits(0);
    a.has_links(1);
    b.has_links(1);
    assert_eq!(a.ask(&["peers"])[0]["url"], url);
    a.knows(&[b]);
    a.deliver(b, "hello");
}

/// True where this machine has loopback of IPv6; else with the reason on stderr.
fn has_ipv6() -> bool {
    let bound = std::net::UdpSocket::bind("[::1]:0");
    if let Err(error) = &bound {
        eprintln!("no IPv6 here: {error}");
    }
    bound.is_ok()
}

#[test]
fn nodes_link_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    for scheme in ["quic", "tcp"] {
        let listen = format!("{scheme}://[::1]:0");
        let [a, b] = ["a", "b"].map(|name| Spec::new(name).listen(&listen).start());
        let url = b.url(scheme);
        assert!(url.starts_with(&format!("{scheme}://[::1]:")), "{url}");
        are_linked_by(&a, &b, &url);
    }
}

/// A file of hosts, where a node can be given one.
fn hosts(directory: &std::path::Path, text: &str) -> Option<std::path::PathBuf> {
    let file = directory.join("hosts");
    std::fs::write(&file, text).unwrap();
    common::namespace::has_hosts(&file).then_some(file)
}

fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

#[test]
fn a_name_is_tried_at_all_of_its_addresses() {
    let temp = common::temp_dir();
    let Some(hosts) = hosts(temp.path(), "127.0.0.1 localhost\n::1 localhost\n") else { return };
    if !has_ipv6() {
        return;
    }
    for scheme in ["quic", "tcp"] {
        for host in ["127.0.0.1", "[::1]"] {
            let b = Spec::new("b").listen(&format!("{scheme}://{host}:0")).start();
            let a = Spec::new("a").hosts(&hosts).start();
            are_linked_by(&a, &b, &format!("{scheme}://localhost:{}", port_of(&b.url(scheme))));
        }
    }
}

#[test]
fn a_name_is_looked_up_at_each_dial() {
    let temp = common::temp_dir();
    // Nobody is there.
    let Some(hosts) = hosts(temp.path(), "127.0.0.9 moving.test\n") else { return };
    let b = Spec::new("b").listen("tcp://127.0.0.1:0").start();
    let url = format!("tcp://moving.test:{}", port_of(&b.url("tcp")));
    let a = Spec::new("a").hosts(&hosts).peer(&url).start();
    wait_until("a dial in vain", || !reason(&a, "config").is_empty());
    std::fs::write(&hosts, "127.0.0.1 moving.test\n").unwrap();
    a.has_links(1);
    a.knows(&[&b]);
    a.deliver(&b, "found again");
}
