//! The HTTP surface over real sockets: what it answers, to whom, and who cannot keep it busy.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use quicprochat_mesh::actors::child::ChildSpec;
use quicprochat_mesh::actors::health::HealthHandle;
use quicprochat_mesh::actors::supervisor::{StartChild, Supervisor};
use quicprochat_mesh::clock;
use quicprochat_mesh::http::{ApiQuery, ApiSource, HealthServer, Surface};
use quicprochat_mesh::messages::lifecycle::{BeginDrain, DrainPhase, DrainPlan};
use quicprochat_mesh::proto::health::SubsystemReport;
use quicprochat_mesh::telemetry;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// No answer of a local server takes longer, even on a busy machine; every test that waits this
/// long fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on its own thread, stopped when dropped.
struct Server {
    addr: SocketAddr,
    health: HealthHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(configure: impl FnOnce(Surface) -> Surface) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), configure)
    }

    fn start_on(ip: IpAddr, configure: impl FnOnce(Surface) -> Surface) -> Self {
        telemetry::install().expect("no other recorder in this test binary");
        let health = HealthHandle::new(["transport", "store"]);
        let now = clock::now();
        health.report(SubsystemReport::healthy("transport", now));
        health.report(SubsystemReport::degraded("store", "peer 0a1b2c3d is slow", now));
        health.set_serving();
        let surface = configure(Surface::new(health.clone()));
        let server = HealthServer::bind(SocketAddr::new(ip, 0), surface).expect("a free port");
        Self::serve(server, health)
    }

    fn serve(server: HealthServer, health: HealthHandle) -> Self {
        let port = server.local_addr().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.expect("a runtime").block_on(server.serve(async {
                let _ = stopped.await;
            }));
            served.expect("it serves");
        });
        let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Self { addr, health, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends raw bytes and reads one answer.
    fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        // A server that has refused early may close before everything is written.
        let _ = stream.write_all(request.as_bytes());
        read_answer(&mut stream).expect("an answer")
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Reads one answer with a Content-Length; none when the connection ends before its head does.
fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("while reading an answer: {error}"),
        }
    }
    let head = String::from_utf8(bytes).expect("a head is ASCII");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    answer.body = String::from_utf8(body).expect("text");
    Some(answer)
}

/// Waits until the other side closes; how long that took. Panics when it never does.
fn time_until_closed(stream: &mut TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection was not closed: {error}"),
    }
    since.elapsed()
}

/// Answers with the question, or never.
struct Echo {
    silent: bool,
}

impl ApiSource for Echo {
    fn get(&self, query: ApiQuery) -> BoxFuture<'static, Result<Value, String>> {
        let silent = self.silent;
        Box::pin(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            match query {
                ApiQuery::Routes => Err("the router is being restarted".to_owned()),
                _ => Ok(json!({ "query": format!("{query:?}") })),
            }
        })
    }
}

fn with_api(surface: Surface) -> Surface {
    surface.api(Arc::new(Echo { silent: false }))
}

#[test]
fn the_paths_of_the_interface_answer_in_its_shape() {
    let server = Server::start(with_api);
    let health = server.get("/healthz");
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    assert_eq!(
        health.json(),
        json!({
            "status": "degraded",
            "subsystems": {
                "store": { "status": "degraded", "detail": "peer 0a1b2c3d is slow" },
                "transport": { "status": "healthy", "detail": null },
            },
            "uptime_s": health.json()["uptime_s"],
        })
    );
    assert!(health.json()["uptime_s"].is_u64());
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/readyz?verbose").status, 200);

    let metrics = server.get("/metricsz");
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("\nqpc_up 1\n"), "{}", metrics.body);
    assert!(metrics.body.contains("# TYPE qpc_link_frames_total counter\n"));

    for (path, query) in [("status", "Status"), ("peers", "Peers"), ("stats", "Stats")] {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!((answer.status, answer.json()), (200, json!({ "query": query })));
    }
    let failing = server.get("/api/v1/routes");
    assert_eq!((failing.status, failing.json()), (503, json!({ "error": "the router is being restarted" })));

    // Closed by the server, so that everything it sends is seen.
    let mut stream = server.connect();
    write!(stream, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("room");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("the answer to HEAD");
    assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with("\r\n\r\n"), "{all}");

    let head = server.get("/livez");
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(head.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(head.header("server"), None, "no version is told");
}

#[test]
fn every_other_path_is_404_and_every_other_method_405() {
    let server = Server::start(with_api);
    let paths = [
        "/",
        "/health",
        "/healthz/",
        "//healthz",
        "/./healthz",
        "/api/../healthz",
        "/%68ealthz",
        "/healthz%00",
        "/healthz%0d%0aX:y",
        "/..%2f..%2fetc/passwd",
        "/api/v1",
        "/api/v1/events",
        "/api/v2/status",
        "/METRICSZ",
        "*",
        "http://localhost/healthz",
    ];
    for path in paths {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (404, "not found\n"), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/healthz", "/livez", "/readyz", "/metricsz", "/api/v1/status"] {
            let answer = server.ask(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{}", answer.head);
        }
    }
    let connect = server.ask("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(connect.status, 404);
}

#[test]
fn only_a_host_of_ours_and_no_foreign_origin_is_answered() {
    let server = Server::start(|surface| with_api(surface).host_name("relay.example.org"));
    let with = |headers: &str| server.ask(&format!("GET /healthz HTTP/1.1\r\n{headers}\r\n")).status;
    for host in [
        "localhost",
        "LOCALHOST:7411",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:7411",
        "192.0.2.7",
        "relay.example.org",
        "Relay.Example.Org:7411",
    ] {
        assert_eq!(with(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "relay.example.org.evil",
        "x@localhost",
    ] {
        assert_eq!(with(&format!("Host: {host}\r\n")), 403, "{host}");
    }
    assert_eq!(with(""), 400);
    assert_eq!(with("Host: localhost\r\nHost: evil.example\r\n"), 400);
    for origin in
        ["http://evil.example", "https://localhost", "null", "http://localhost:1", "http://localhost.evil"]
    {
        assert_eq!(with(&format!("Host: localhost\r\nOrigin: {origin}\r\n")), 403, "{origin}");
    }
    assert_eq!(with("Host: localhost:7411\r\nOrigin: http://localhost:7411\r\n"), 200);
}

#[test]
fn elsewhere_than_on_loopback_details_metrics_and_api_are_closed() {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let server = Server::start_on(any, with_api);
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let health = server.get("/healthz");
    assert_eq!(health.json()["subsystems"]["store"], json!({ "status": "degraded", "detail": null }));
    assert!(!health.body.contains("0a1b2c3d"));
    for path in ["/metricsz", "/api/v1/status", "/api/v1/peers"] {
        assert_eq!(server.get(path).status, 404, "{path}");
        let post = server.ask(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(post.status, 404, "what is closed does not show by its methods: {path}");
    }
    server.health.report(SubsystemReport::unhealthy("store", "/var/lib/x is read only", clock::now()));
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "store takes no new work\n"));

    let server = Server::start_on(any, |surface| with_api(surface).public_metrics().api_token("s3cret"));
    assert_eq!(server.get("/metricsz").status, 200);
    let with = |authorization: &str| {
        let request = format!("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n");
        server.ask(&request).status
    };
    assert_eq!(with("Authorization: Bearer s3cret\r\n"), 200);
    for wrong in [
        "",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Bearer s3cret2\r\n",
        "Authorization: s3cret\r\n",
    ] {
        assert_eq!(with(wrong), 404, "{wrong}");
    }
}

#[test]
fn a_node_that_takes_no_work_says_503_and_why() {
    let server = Server::start(|surface| surface);
    let check = |ready: (u16, &str), health: (u16, &str)| {
        let answer = server.get("/readyz");
        assert_eq!((answer.status, answer.body.trim_end()), ready);
        let answer = server.get("/healthz");
        assert_eq!((answer.status, answer.json()["status"].as_str().expect("a word")), health);
        assert_eq!(server.get("/livez").status, 200, "liveness is another question");
    };
    check((200, "ready"), (200, "degraded"));
    server.health.report(SubsystemReport::degraded("store", "full", clock::now()).refusing_work());
    check((503, "store takes no new work: full"), (200, "degraded"));
    server.health.report(SubsystemReport::unhealthy("store", "read only", clock::now()));
    check((503, "store takes no new work: read only"), (503, "unhealthy"));
    server.health.set_draining(DrainPhase::Draining);
    check((503, "draining (draining)"), (503, "draining"));
    server.health.set_gave_up("router crashed, after 5 restarts");
    check((503, "gave up: router crashed, after 5 restarts"), (503, "unhealthy"));
}

#[test]
fn silent_and_slow_clients_are_cut_within_five_seconds_while_others_are_served() {
    let server = Server::start(|surface| surface);
    let begun = Instant::now();
    let mut silent = server.connect();
    let mut dripping = server.connect();
    let mut idle = server.connect();
    write!(idle, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    assert_eq!(read_answer(&mut idle).expect("an answer").status, 200);
    let mut drip = dripping.try_clone().expect("a second handle");
    let dripper = std::thread::spawn(move || {
        // A byte every quarter of a second: each one is progress, the request never is complete.
        for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ".iter().cycle() {
            if drip.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let closed: Receiver<(&str, Duration)> = {
        let (tx, rx) = channel();
        for (name, mut stream) in [("silent", silent.try_clone().expect("a second handle")), ("idle", idle)] {
            let tx = tx.clone();
            std::thread::spawn(move || tx.send((name, time_until_closed(&mut stream, begun))));
        }
        rx
    };
    let mut slowest_probe = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(server.get("/livez").status, 200);
        slowest_probe = slowest_probe.max(asked.elapsed());
    }
    assert!(slowest_probe < Duration::from_secs(1), "a probe took {slowest_probe:?}");
    for _ in 0..2 {
        let (name, after) = closed.recv_timeout(PATIENCE).expect("it is closed");
        assert!(
            after > Duration::from_millis(2_500) && after < Duration::from_millis(6_500),
            "{name}: {after:?}"
        );
    }
    let after = time_until_closed(&mut dripping, begun);
    assert!(after < Duration::from_millis(6_500), "dripping: {after:?}");
    dripper.join().expect("the dripper saw the end");
    let _ = silent.flush();
}

#[test]
fn an_answer_that_nobody_reads_and_one_that_never_comes_end_too() {
    let server = Server::start(|surface| surface.api(Arc::new(Echo { silent: true })));
    let mut deaf = server.connect();
    let begun = Instant::now();
    // Enough requests that the answers fill the socket buffers, if they were all answered.
    for _ in 0..2_000 {
        if write!(deaf, "GET /metricsz HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
            break;
        }
    }
    let busy = server.get("/api/v1/status");
    assert_eq!((busy.status, busy.json()), (503, json!({ "error": "the node is busy" })));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let after = time_until_closed(&mut deaf, begun);
    assert!(after < Duration::from_secs(12), "{after:?}");
}

#[test]
fn oversized_and_malformed_requests_get_an_error_or_a_closed_connection() {
    let server = Server::start(|surface| surface);
    let refused = |request: &[u8], what: &str| {
        let mut stream = server.connect();
        let begun = Instant::now();
        let mut writer = stream.try_clone().expect("a second handle");
        let request = request.to_vec();
        let writing = std::thread::spawn(move || drop(writer.write_all(&request)));
        if let Some(answer) = read_answer(&mut stream) {
            assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
        }
        let after = time_until_closed(&mut stream, begun);
        assert!(after < Duration::from_millis(6_500), "{what}: {after:?}");
        writing.join().expect("the writer ends");
    };
    let long = "a".repeat(100 * 1024);
    refused(format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(), "a long path");
    refused(
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").as_bytes(),
        "a long header",
    );
    let many: String = (0..10_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    refused(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes(), "many headers");
    refused(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n0123456789", "a body");
    refused(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "chunks");
    refused(
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "two lengths",
    );
    refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS hello");
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2");
    assert_eq!(server.ask("GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n").status, 505);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_a_bound() {
    let server = Server::start(|surface| surface);
    let mut stream = server.connect();
    let mut writer = stream.try_clone().expect("a second handle");
    let writing = std::thread::spawn(move || {
        for n in 0..10_000 {
            let path = if n % 2 == 0 { "/livez" } else { "/nowhere" };
            if write!(writer, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
                return;
            }
        }
    });
    let mut statuses = Vec::new();
    while let Some(answer) = read_answer(&mut stream) {
        statuses.push(answer.status);
        if answer.header("connection") == Some("close") {
            break;
        }
    }
    assert_eq!(statuses.len(), 32, "then the connection ends");
    assert!(statuses.chunks(2).all(|pair| pair == [200, 404]), "{statuses:?}");
    time_until_closed(&mut stream, Instant::now());
    writing.join().expect("the writer ends");
}

#[test]
fn in_a_crowd_the_oldest_silent_client_goes_and_the_newest_is_served() {
    let server = Server::start(|surface| surface);
    let begun = Instant::now();
    let mut crowd: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let asked = Instant::now();
    assert_eq!(server.get("/livez").status, 200, "200 silent connections do not keep a probe out");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // The first ones were cut at once, long before their five seconds were over.
    let oldest = crowd.first_mut().expect("there are 200");
    let after = time_until_closed(oldest, begun);
    assert!(after < Duration::from_secs(4), "{after:?}");
    // The last one is still there and is answered.
    let newest = crowd.last_mut().expect("there are 200");
    write!(newest, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    assert_eq!(read_answer(newest).expect("an answer").status, 200);
}

#[test]
fn a_request_that_waits_in_the_backlog_before_a_burst_is_read_and_not_cut() {
    let health = HealthHandle::new([]);
    let surface = Surface::new(health.clone());
    let server = HealthServer::bind((Ipv4Addr::LOCALHOST, 0).into(), surface).expect("a free port");
    let connect = || TcpStream::connect_timeout(&server.local_addr(), PATIENCE).expect("room in the backlog");
    let mut honest = connect();
    honest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(honest, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
    let _silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    let _server = Server::serve(server.clone(), health);
    assert_eq!(read_answer(&mut honest).expect("an answer").status, 200);
}

#[test]
fn as_a_child_on_its_own_arbiter_it_shows_the_drain_and_ends_last() {
    telemetry::install().expect("no other recorder in this test binary");
    let system = actix_rt::System::new();
    system.block_on(async {
        let health = HealthHandle::new([]);
        health.set_serving();
        let surface = Surface::new(health.clone());
        let server = HealthServer::bind((Ipv4Addr::LOCALHOST, 0).into(), surface).expect("a free port");
        let addr = server.local_addr();
        let arbiter = actix_rt::Arbiter::new();
        let on = arbiter.handle();
        let mut tree = Supervisor::root(health);
        let spec = ChildSpec::permanent("health", move |guard| server.child(&on, guard));
        tree.root.send(StartChild(spec)).await.expect("the root lives").expect("it starts");

        let ready = move || {
            let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            write!(stream, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("room");
            read_answer(&mut stream).expect("an answer").status
        };
        let probe = || async { tokio::task::spawn_blocking(ready).await.expect("it answers") };
        assert_eq!(probe().await, 200);
        let plan = DrainPlan { notice: Duration::from_secs(1), ..DrainPlan::default() };
        tree.root.send(BeginDrain { reason: "signal".to_owned(), plan }).await.expect("the root lives");
        assert_eq!(probe().await, 503, "not ready from the first moment, and still answering");
        let summary =
            tokio::time::timeout(PATIENCE, tree.wait()).await.expect("in time").expect("the root lives");
        assert!(summary.drained, "{summary:?}");
        arbiter.stop();
        tokio::task::spawn_blocking(move || arbiter.join()).await.expect("joined").expect("no panic");
        assert!(TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_err(), "the port is closed");
    });
}
