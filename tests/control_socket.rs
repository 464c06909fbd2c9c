//! The control socket: limits, foreign bytes, clients that go away, and who gets a message.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod fake_node;

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use fake_node::{ANNA, Fake, PATIENCE, data_dir};
use proptest::prelude::*;
use quicprochat_mesh::{
    api::{ErrorClass, InboxItem, Priority, Request, Status},
    control::{Client, ControlError, ControlServer, ServerHandle, location::Fallbacks, protocol},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

struct Node {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    server: ServerHandle,
}

fn node() -> Node {
    let dir = data_dir();
    let fake = Arc::new(Fake::default());
    let server = bind(dir.path()).unwrap().serve(Arc::clone(&fake));
    Node { dir, fake, server }
}

fn bind(dir: &Path) -> Result<ControlServer, ControlError> {
    ControlServer::bind(dir, &Fallbacks::default())
}

impl Node {
    async fn ask(&self, request: &Request) -> Client {
        Client::request(self.dir.path(), request, &[]).await.unwrap()
    }

    async fn is_alive(&self) {
        let mut client = self.ask(&Request::Status).await;
        let status: Status = soon(client.next()).await.unwrap().unwrap().parse().unwrap();
        assert_eq!(status.address, ANNA);
        assert!(soon(client.next()).await.unwrap().is_none());
    }

    /// Sends raw bytes, ends the sending side where `hang_up`, and returns all that comes back.
    async fn raw(&self, bytes: &[u8], hang_up: bool) -> String {
        let mut stream = UnixStream::connect(self.server.path()).await.unwrap();
        // A node that has already answered may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        if hang_up {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

fn error_of(answer: &str) -> String {
    let line: Value = serde_json::from_str(answer.lines().last().unwrap_or_default()).expect(answer);
    line["error"]["message"].as_str().expect(answer).to_owned()
}

fn hang() -> Request {
    Request::Trace { destination: "hang".into(), timeout_ms: 1 }
}

fn recv(count: Option<u64>, wait: bool) -> Request {
    Request::Recv { count, wait, keep: false }
}

#[tokio::test]
async fn the_socket_is_its_owners_and_goes_with_the_node() {
    let node = node();
    let path = node.server.path().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    node.is_alive().await;
    node.server.stop(PATIENCE).await;
    assert!(!path.exists());
    let refused = Client::request(node.dir.path(), &Request::Status, &[]).await.err().unwrap();
    assert_eq!(refused.class, ErrorClass::NoNode);
    assert!(refused.message.contains("qpc run --data-dir"), "{refused}");
}

#[tokio::test]
async fn a_dead_nodes_socket_is_replaced_and_a_living_ones_is_not() {
    let dir = data_dir();
    let dead = std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
    drop(dead);
    let refused = Client::request(dir.path(), &Request::Status, &[]).await.err().unwrap();
    assert_eq!(refused.class, ErrorClass::NoNode, "{refused}");
    let living = bind(dir.path()).unwrap().serve(Arc::new(Fake::default()));
    assert!(matches!(bind(dir.path()), Err(ControlError::AlreadyRunning { .. })));
    drop(living);
}

#[tokio::test]
async fn a_data_directory_too_deep_for_a_socket_is_reached_all_the_same() {
    let root = data_dir();
    let deep = root.path().join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let fallbacks = Fallbacks(vec![root.path().to_owned()]);
    let server = ControlServer::bind(&deep, &fallbacks).unwrap().serve(Arc::new(Fake::default()));
    assert!(!server.path().starts_with(&deep));
    let mut client = Client::request(&deep, &Request::Status, &[]).await.unwrap();
    assert!(soon(client.next()).await.unwrap().is_some());
    server.stop(PATIENCE).await;
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "the fallback directory is gone");
}

#[tokio::test]
async fn many_clients_are_served_at_once_beside_one_that_hangs() {
    let node = node();
    let _hanging = node.ask(&hang()).await;
    soon(node.fake.hanging.notified()).await;
    let ping = Request::Ping { destination: "anna".into(), count: 50, interval_ms: 0, timeout_ms: 1 };
    let clients = (0..100).map(|_| async {
        let mut client = node.ask(&ping).await;
        let mut pongs = 0;
        while client.next().await.unwrap().is_some() {
            pongs += 1;
        }
        pongs
    });
    let counts = soon(futures_util::future::join_all(clients)).await;
    assert_eq!(counts, vec![50; 100]);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let node = node();
    let client = node.ask(&hang()).await;
    soon(node.fake.hanging.notified()).await;
    drop(client);
    soon(node.fake.cancelled.notified()).await;
    node.is_alive().await;
}

#[tokio::test]
async fn stopping_waits_for_requests_under_way_and_then_cuts_them_off() {
    let node = node();
    let mut client = node.ask(&hang()).await;
    soon(node.fake.hanging.notified()).await;
    soon(node.server.stop(Duration::ZERO)).await;
    soon(node.fake.cancelled.notified()).await;
    assert!(soon(client.next()).await.unwrap_err().message.contains("went away"));
}

#[tokio::test]
async fn content_arrives_whole_and_a_larger_one_is_refused_before_it_is_sent() {
    let node = node();
    let content: Vec<u8> = (0..protocol::PAYLOAD_BYTES_MAX).map(|i| (i % 251) as u8).collect();
    let send = Request::Send {
        to: "anna".into(),
        priority: Priority::Normal,
        ttl_ms: None,
        wait: true,
        file_name: None,
    };
    let mut client = soon(Client::request(node.dir.path(), &send, &content)).await.unwrap();
    assert_eq!(soon(client.next()).await.unwrap().unwrap().object["status"], "queued");
    // How far it is, once and again, and then the end.
    let end = loop {
        let answer = soon(client.next()).await.unwrap().unwrap().object;
        if answer["status"] != "queued" {
            break answer;
        }
    };
    assert_eq!(end["status"], "delivered");
    assert_eq!(node.fake.sent.lock().unwrap()[0].1, content);

    let one_more = vec![0; content.len() + 1];
    let refused = Client::request(node.dir.path(), &send, &one_more).await.err().unwrap();
    assert!(refused.message.contains("16 MiB"), "{refused}");
    // A client that sends all the same is told as soon as it names the length.
    let line = json!({"v": 1, "request": send, "payload_len": one_more.len()});
    assert!(error_of(&node.raw(format!("{line}\n").as_bytes(), false).await).contains("16 MiB"));
    assert_eq!(node.fake.sent.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn foreign_bytes_get_a_reason_and_harm_nobody() {
    let node = node();
    let long = "x".repeat(protocol::REQUEST_LINE_BYTES_MAX + 1);
    let check = [
        ("GET / HTTP/1.1\r\n\r\n", "not a line of this protocol"),
        ("{}\n", "missing field `v`"),
        ("[]\n", "not a line of this protocol"),
        (long.as_str(), "longer than 65536 bytes"),
        ("{\"v\":2,\"request\":{\"command\":\"new\"}}\n", "version 1 of the control protocol"),
        ("{\"v\":1,\"request\":{\"command\":\"new\"}}\n", "does not know this request"),
        ("{\"v\":1,\"request\":{\"command\":\"recv\"}}\n", "missing field"),
        ("{\"v\":1,\"request\":{\"command\":\"status\"},\"payload_len\":1}\n", "takes no payload"),
        ("{\"v\":1,\"request\":{\"command\":\"status\"},\"payload_len\":-1}\n", "invalid value"),
    ];
    for (bytes, reason) in check {
        let said = error_of(&node.raw(bytes.as_bytes(), false).await);
        assert!(said.contains(reason), "{bytes:.40}: {said}");
    }
    assert_eq!(node.raw(b"", true).await, "", "who says nothing is told nothing");
    assert_eq!(node.raw(b"{\"v\":1", true).await, "");
    node.is_alive().await;
}

#[tokio::test]
async fn a_line_out_of_place_ends_the_request() {
    let node = node();
    let request = json!({"v": 1, "request": hang()});
    for (line, reason) in [("{\"ack\":1}", "no reply that waits"), ("hello", "not a line of this protocol")] {
        let said = error_of(&node.raw(format!("{request}\n{line}\n").as_bytes(), false).await);
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test]
async fn a_message_leaves_the_inbox_only_when_it_is_acknowledged() {
    let node = node();
    node.fake.arrive(1, None, b"one");
    node.fake.arrive(2, Some("two.bin"), &[0xff; 100_000]);

    let mut killed = node.ask(&recv(None, false)).await;
    let frame = soon(killed.next()).await.unwrap().unwrap();
    assert_eq!(&frame.payload[..], b"one");
    drop(killed);
    assert_eq!(node.fake.inbox_len(), 2);

    let mut client = node.ask(&recv(None, false)).await;
    let mut contents = Vec::new();
    while let Some(frame) = soon(client.next()).await.unwrap() {
        let item: InboxItem = frame.parse().unwrap();
        contents.push((item.id.0[0], frame.payload.len()));
        assert_eq!(node.fake.inbox_len(), 3 - contents.len(), "it is there until it is acknowledged");
        client.acknowledge(frame.ack.unwrap()).await.unwrap();
    }
    assert_eq!(contents, [(1, 3), (2, 100_000)], "the first again, in order");
    assert_eq!(node.fake.inbox_len(), 0);
}

#[tokio::test]
async fn one_taker_at_a_time_while_others_may_look() {
    let node = node();
    node.fake.arrive(1, None, b"one");
    let mut taker = node.ask(&recv(Some(2), true)).await;
    let frame = soon(taker.next()).await.unwrap().unwrap();

    let mut second = node.ask(&recv(None, false)).await;
    let refused = soon(second.next()).await.unwrap_err();
    assert!(refused.message.contains("another `qpc recv`"), "{refused}");
    let mut looker = node.ask(&Request::Recv { count: Some(1), wait: false, keep: true }).await;
    let seen = soon(looker.next()).await.unwrap().unwrap();
    looker.acknowledge(seen.ack.unwrap()).await.unwrap();
    assert!(soon(looker.next()).await.unwrap().is_none());
    assert_eq!(node.fake.inbox_len(), 1);

    taker.acknowledge(frame.ack.unwrap()).await.unwrap();
    node.fake.arrive(2, None, b"two");
    let frame = soon(taker.next()).await.unwrap().unwrap();
    assert_eq!(&frame.payload[..], b"two");
    // Killed with its message in hand: the next taker gets that one.
    drop(taker);
    let mut next = node.ask(&recv(Some(1), true)).await;
    assert_eq!(&soon(next.next()).await.unwrap().unwrap().payload[..], b"two");
}

#[tokio::test]
async fn a_connection_is_kept_for_as_many_requests_as_are_asked() {
    let node = node();
    let mut client = Client::open(node.dir.path()).await.unwrap();
    for _ in 0..3 {
        client.ask(&Request::Status, &[]).await.unwrap();
        assert!(client.ask(&Request::Status, &[]).await.is_err(), "one at a time");
        let status: Status = soon(client.next()).await.unwrap().unwrap().parse().unwrap();
        assert_eq!(status.address, ANNA);
        assert!(soon(client.next()).await.unwrap().is_none());
        assert!(client.is_done());
    }
    // One whose request was refused is not.
    let mut refused = Client::open(node.dir.path()).await.unwrap();
    let nothing = Request::InboxAck { id: quicprochat_mesh::wire::MessageUid([9; 16]) };
    refused.ask(&nothing, &[]).await.unwrap();
    assert_eq!(soon(refused.next()).await.unwrap_err().class, ErrorClass::Failed);
    assert!(refused.was_refused() && !refused.is_done());
    assert!(refused.ask(&Request::Status, &[]).await.is_err());
    // With nothing under way it does not hold up the end.
    soon(node.server.stop(PATIENCE * 10)).await;
    client.ask(&Request::Status, &[]).await.unwrap();
    assert!(soon(client.next()).await.unwrap_err().message.contains("went away"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_bring_it_down(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = node();
            for chunk in &chunks {
                node.raw(chunk, true).await;
            }
            node.is_alive().await;
        });
    }
}
