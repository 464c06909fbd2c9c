//! What was acknowledged outlives whatever happens to the processes: kills at any moment, cut links,
//! a disk that fails. Real `qpc run`, driven by `qpc bench load`, judged by `qpc bench verify`.

// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Load, Spec, count_events, nothing_amiss, temp_dir, trace::Trace, verify, wait_until};
use serde_json::Value;

/// A killed node answers again within this time, on a machine whose cores are busy.
const READY_WITHIN: Duration = Duration::from_secs(30);

const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

/// Numbers from a seed, printed so that a run can be told again: xorshift.
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        let seed = std::env::var("QPC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4711);
        println!("QPC_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn twenty_kills_at_any_moment_lose_nothing_and_repeat_nothing() {
    let sink = Spec::new("sink").start();
    let relay = Spec::new("relay").peer(sink.url("tcp")).start();
    let source = Spec::new("source").peer(relay.url("quic")).start();
    source.knows(&[&sink]);
    sink.knows(&[&source]);
    let mut nodes = [source, relay, sink];
    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    let to = nodes[2].dir().to_str().unwrap().to_owned();
    let more = ["--rate", "150", "--seconds", "600", "--settle", "120s", "--window", "16"];
    let mut load = Load::start(&log, &[&nodes[0]], &[&to], &more);
    load.goes_on("receive", 20);

    let mut seeded = Seeded::new();
    for kill in 0..20 {
        // Work is under way, of whoever it is that dies.
        load.goes_on("ack", 5);
        // The moment is what is tried out here; nothing is waited for.
        thread::sleep(Duration::from_millis(seeded.below(300)));
        let victim = &mut nodes[kill % 3];
        victim.kill();
        let began = Instant::now();
        victim.restart();
        assert!(began.elapsed() < READY_WITHIN, "{} took {:?}", victim.name, began.elapsed());
    }
    load.goes_on("receive", 20);
    let ended = load.stop().exits(0).object();
    assert_eq!(ended["missing"], 0, "{ended:#}");
    let [source, relay, sink] = &nodes;
    let found = nothing_amiss(verify(&log, &[source, relay, sink]));
    // Every kill of the source is noticed, and goes on from there.
    assert!(found["acked"].as_u64().unwrap() >= 100, "{found:#}");
    source.has_all_receipts();
}

/// What a [`Proxy`] does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Carries what comes.
    Up = 0,
    /// Closes every connection, and takes new ones only to close them.
    Closed = 1,
    /// Says nothing and carries nothing: a cable that was pulled.
    Silent = 2,
}

/// A TCP link between two nodes that can be cut.
struct Proxy {
    port: u16,
    link: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (link, open) = (Arc::new(AtomicU8::new(Link::Up as u8)), Arc::new(Mutex::new(Vec::new())));
        let (state, streams) = (Arc::clone(&link), Arc::clone(&open));
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                match state.load(Ordering::SeqCst) {
                    closed if closed == Link::Closed as u8 => continue,
                    silent if silent == Link::Silent as u8 => streams.lock().unwrap().push(near),
                    _ => {
                        let Ok(far) = TcpStream::connect(&target) else { continue };
                        for (from, to) in [(&near, &far), (&far, &near)] {
                            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                            let state = Arc::clone(&state);
                            thread::spawn(move || carry(from, to, &state));
                        }
                        streams.lock().unwrap().extend([near, far]);
                    }
                }
            }
        });
        Self { port, link, open }
    }

    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    fn set(&self, link: Link) {
        self.link.store(link as u8, Ordering::SeqCst);
        // A link that comes back does so by new connections: what was on its way in the old ones is
        // gone with the cable.
        if link != Link::Silent {
            for stream in self.open.lock().unwrap().drain(..) {
                // It may have ended by itself.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, link: &AtomicU8) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let is_up = link.load(Ordering::SeqCst) == Link::Up as u8;
        if is_up && to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    if link.load(Ordering::SeqCst) != Link::Silent as u8 {
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[test]
fn a_mesh_cut_in_two_and_healed_delivers_everything_once() {
    let a = Spec::new("a").start();
    let b = Spec::new("b").peer(a.url("quic")).start();
    let c = Spec::new("c").peer(b.url("tcp")).start();
    let proxy = Proxy::to(c.url("tcp").replace("tcp://", ""));
    let d = Spec::new("d").peer(proxy.url()).start();
    let e = Spec::new("e").peer(d.url("quic")).start();
    a.knows(&[&e]);
    e.knows(&[&a]);
    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    let ends = [a.dir().to_str().unwrap(), e.dir().to_str().unwrap()];
    let more = ["--rate", "60", "--seconds", "600", "--settle", "120s"];
    let mut load = Load::start(&log, &[&a, &e], &ends, &more);
    load.goes_on("receive", 40);

    for cut in [Link::Closed, Link::Silent] {
        proxy.set(cut);
        c.has_links(1);
        d.has_links(1);
        let before = load.count("receive");
        // Both parts go on taking messages for the other one.
        load.goes_on("ack", 60);
        assert!(load.count("receive") <= before + 60, "{cut:?}: the parts still hear of each other");
        proxy.set(Link::Up);
        load.goes_on("receive", 100);
    }
    let ended = load.stop().exits(0).object();
    assert_eq!(ended["missing"], 0, "{ended:#}");
    let found = nothing_amiss(verify(&log, &[&a, &b, &c, &d, &e]));
    assert_eq!(found["delivered"], found["acked"], "{found:#}");
    a.has_all_receipts();
    e.has_all_receipts();
}

/// What happened in a traced node, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A request to send was read.
    Asked,
    /// A sync came back well.
    Synced,
    /// A sync came back with an error.
    NotSynced,
    /// The answer that a message is safe began to be written.
    Acked,
}

fn steps(trace: &str) -> Vec<Step> {
    let step = |line: &str| {
        let is_sync = ["fsync", "fdatasync"].iter().any(|call| {
            line.contains(&format!(" {call}(")) || line.contains(&format!("<... {call} resumed>"))
        });
        // Where a call is cut in two by others, its end is in the second half.
        match () {
            () if is_sync && line.contains(" = 0") => Some(Step::Synced),
            () if is_sync && line.contains(" = -1") => Some(Step::NotSynced),
            () if line.contains(r#"\"command\":\"send\""#) => Some(Step::Asked),
            () if line.contains(r#"\"status\":\"queued\""#) => Some(Step::Acked),
            () => None,
        }
    };
    trace.lines().filter_map(step).collect()
}

/// Counts acknowledgements. Each is of a request that was there before a sync that came back well: of
/// the others some batch still had to be synced.
#[track_caller]
fn synced_acks(steps: &[Step]) -> usize {
    let (mut waiting, mut synced, mut acked) = (0, 0, 0);
    for step in steps {
        match step {
            Step::Asked => waiting += 1,
            Step::Synced => {
                synced += waiting;
                waiting = 0;
            }
            Step::NotSynced => {}
            Step::Acked => {
                assert!(synced > 0, "acknowledged without a sync, after {acked} others: {steps:?}");
                synced -= 1;
                acked += 1;
            }
        }
    }
    acked
}

const TRACED: &str = "trace=read,recvfrom,readv,write,sendto,writev,sendmsg,fsync,fdatasync";

#[test]
fn a_lone_sender_sees_no_acknowledgement_without_a_sync_before_it() {
    let node = Spec::new("node").start();
    let work = temp_dir();
    let Some(trace) = Trace::attach(&node, &work.path().join("trace"), &["-e", TRACED]) else { return };
    let log = work.path().join("load.jsonl");
    let more = ["--window", "1", "--count", "30", "--settle", "0s"];
    let ended = Load::start(&log, &[&node], &[NOWHERE], &more).finish().exits(0).object();
    assert_eq!(ended["acked"], 30, "{ended:#}");

    let steps = steps(&trace.finish());
    assert!(!steps.contains(&Step::NotSynced), "{steps:?}");
    assert_eq!(synced_acks(&steps), 30, "{steps:?}");
}

#[test]
fn a_sync_that_fails_acknowledges_nothing_and_ends_the_process() {
    let mut node = Spec::new("node").start();
    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    for n in [2, 5, 12] {
        let trace = work.path().join(format!("trace-{n}"));
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={n}");
        let Some(trace) = Trace::attach(&node, &trace, &["-e", TRACED, "-e", &inject]) else { return };
        let before = count_events(&log, "ack");
        let more = ["--window", "4", "--rate", "100", "--seconds", "600", "--settle", "0s"];
        let load = Load::start(&log, &[&node], &[NOWHERE], &more);
        let run = node.ends();
        assert_ne!(run.code, 0, "n = {n}: {run:?}");
        load.stop();
        let steps = steps(&trace.finish());
        assert!(steps.contains(&Step::NotSynced), "n = {n}: {steps:?}");
        let told = synced_acks(&steps);
        let heard = count_events(&log, "ack") - before;
        assert!(heard <= told, "n = {n}: {heard} heard of {told}");

        node.restart();
        let found = verify(&log, &[&node]).exits(0).object();
        assert_eq!((&found["lost"], &found["unobserved"]), (&0.into(), &0.into()), "n = {n}: {found:#}");
        assert_eq!(found["present"], found["acked"], "n = {n}: {found:#}");
    }
    let kept = node.ask(&["outbox"]).len();
    assert!(kept >= count_events(&log, "ack"), "{kept}");
}

#[test]
fn a_load_that_is_killed_has_logged_what_it_counted_and_the_next_one_goes_on() {
    let sink = Spec::new("sink").start();
    let source = Spec::new("source").peer(sink.url("quic")).start();
    source.knows(&[&sink]);
    let work = temp_dir();
    let log = work.path().join("load.jsonl");
    let to = sink.dir().to_str().unwrap();
    let more = ["--rate", "200", "--seconds", "600"];
    let mut load = Load::start(&log, &[&source], &[to], &more);
    load.goes_on("receive", 50);
    load.kill();
    let more = ["--count", "50", "--settle", "120s"];
    let ended = Load::start(&log, &[&source], &[to], &more).finish();
    let ended: Value = ended.exits(0).object();
    assert_eq!((&ended["acked"], &ended["missing"]), (&50.into(), &0.into()), "{ended:#}");
    wait_until("what the first load left", || sink.inbox().is_empty() && source.ask(&["outbox"]).is_empty());
    let found = nothing_amiss(verify(&log, &[&source, &sink]));
    assert_eq!(found["runs"], 2, "{found:#}");
}
