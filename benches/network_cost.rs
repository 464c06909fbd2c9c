//! What the control plane of a mesh costs: routers of many nodes in one process, over links with a
//! delay, in virtual time. `cargo bench --bench network_cost [-- NODES]… [--svg FILE]`.
//!
//! Real routers, real frames: what a node sends is encoded, counted with its length prefix, carried
//! and decoded. Announces are signed once by their origin; that each receiver would check them is
//! counted and not done. There is no traffic but the mesh's own.
//!
//! The graph is a ring whose nodes also know the second next one, with one random chord for every
//! other node: five links a node, and distances that grow with the logarithm of the mesh. Links
//! take 10 to 50 ms. Everything starts within a second.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt::Write as _,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::{MeshIdentity, SignatureInput, VerifiedKeyRecord, key_record, network_id},
    proto::{
        announce::{AnnounceParts, create_announce},
        router::{Input, LinkInfo, Output, Router, RouterConfig, WallClock},
        table::LinkClass,
        verify::Verified,
    },
    wire::{Address, Capabilities, Frame, KeyRecord, LinkId, ReceiverKey},
};

/// Sizes that are run without arguments.
const SIZES: [usize; 5] = [10, 30, 100, 300, 1000];

/// Announces of everybody at least twice.
const STEADY: Duration = Duration::from_secs(20 * 60);

/// Long enough for whatever a change starts.
const SETTLE: Duration = Duration::from_secs(60);

/// Until the loss of a link is known to whom it concerns.
const WITHDRAWN: Duration = Duration::from_secs(5);

/// What a length prefix takes on a stream.
const PREFIX_BYTES: u64 = 2;

/// A generator for what has to be spread, not secret.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Node {
    identity: MeshIdentity,
    input: SignatureInput,
    record: VerifiedKeyRecord,
    sequence: u32,
    router: Router,
    edges: BTreeMap<LinkId, Edge>,
}

#[derive(Clone, Copy)]
struct Edge {
    peer: usize,
    peer_link: LinkId,
    delay: Duration,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { node: usize, link: LinkId, frame: Bytes },
    Timer { node: usize },
    Links { a: usize, b: usize },
}

/// Bytes by what they are for, and how often announces were sent.
#[derive(Clone, Copy, Default)]
struct Cost {
    announce_bytes: u64,
    other_bytes: u64,
    announces: u64,
}

impl Cost {
    fn bytes(&self) -> u64 {
        self.announce_bytes + self.other_bytes
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            announce_bytes: self.announce_bytes - before.announce_bytes,
            other_bytes: self.other_bytes - before.other_bytes,
            announces: self.announces - before.announces,
        }
    }
}

struct Mesh {
    now: Instant,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    made: u64,
    dice: Dice,
    cost: Cost,
    /// Pairs of nodes with a path.
    paths: usize,
    links: usize,
    /// Control bytes by node and link, one direction each.
    over: BTreeMap<(usize, LinkId), u64>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            nodes: Vec::new(),
            events: BinaryHeap::new(),
            made: 0,
            dice: Dice(7),
            cost: Cost::default(),
            paths: 0,
            links: 0,
            over: BTreeMap::new(),
        }
    }

    fn add_node(&mut self) -> usize {
        let n = self.nodes.len();
        let mut seed = [0x5a; 32];
        seed.iter_mut().zip((n as u64).to_be_bytes()).for_each(|(to, from)| *to = from);
        let identity = MeshIdentity::from_seed(seed);
        let mut input = SignatureInput::new(network_id("public"));
        let key = ReceiverKey { rk_id: 1, suite: 1, x25519: [9; 32] };
        let record =
            KeyRecord { public_key: identity.public_key(), order: 1, not_after: u32::MAX, keys: vec![key] };
        let record = key_record::sign(&identity, &mut input, &record).expect("a sound record");
        let router = Router::new(RouterConfig::new(identity.public_key()), self.now, n as u64 + 1);
        self.nodes.push(Node { identity, input, record, sequence: 0, router, edges: BTreeMap::new() });
        self.wake(n);
        n
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn later(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.nodes[a].edges.values().any(|edge| edge.peer == b) {
            return;
        }
        self.links += 1;
        // Numbers that no node uses twice.
        let link = LinkId(self.links as u64);
        let delay = Duration::from_millis(10 + self.dice.below(41));
        for (n, peer) in [(a, b), (b, a)] {
            self.nodes[n].edges.insert(link, Edge { peer, peer_link: link, delay });
        }
        for (n, peer) in [(a, b), (b, a)] {
            let peer = self.nodes[peer].identity.public_key();
            self.handle(
                n,
                Input::LinkUp(LinkInfo {
                    link,
                    peer,
                    class: LinkClass::default(),
                    trusted: false,
                    account: None,
                }),
            );
        }
    }

    fn disconnect(&mut self, a: usize, link: LinkId) {
        let Some(edge) = self.nodes[a].edges.get(&link).copied() else { return };
        for (n, link) in [(a, link), (edge.peer, edge.peer_link)] {
            self.nodes[n].edges.remove(&link);
            self.handle(n, Input::LinkDown(link));
        }
    }

    fn handle(&mut self, n: usize, input: Input) {
        let wall = WallClock { unix_s: 1_800_000_000, trusted: false };
        self.nodes[n].router.handle(self.now, wall, input);
        while let Some(output) = self.nodes[n].router.poll() {
            match output {
                Output::Control(link, frame) => self.send(n, link, &frame),
                Output::RouteUp(_) => self.paths += 1,
                Output::RouteDown(_) => self.paths -= 1,
                Output::AnnounceDue { max_hops } => self.announce(n, max_hops),
                _ => {}
            }
        }
        self.wake(n);
    }

    fn announce(&mut self, n: usize, max_hops: u8) {
        let node = &mut self.nodes[n];
        node.sequence += 1;
        let parts = AnnounceParts {
            order: (1, node.sequence),
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime: Duration::from_secs(3600),
            max_hops,
            key_record: Some(&node.record),
        };
        let announce = create_announce(&node.identity, &mut node.input, &parts);
        self.handle(n, Input::OwnAnnounce(Box::new(announce)));
    }

    fn send(&mut self, n: usize, link: LinkId, frame: &Frame) {
        let Some(edge) = self.nodes[n].edges.get(&link).copied() else { return };
        let bytes = frame.encode();
        let cost = bytes.len() as u64 + PREFIX_BYTES;
        match frame {
            Frame::Announce(_) => {
                self.cost.announce_bytes += cost;
                self.cost.announces += 1;
            }
            _ => self.cost.other_bytes += cost,
        }
        *self.over.entry((n, link)).or_default() += cost;
        self.later(edge.delay, Event::Arrives { node: edge.peer, link: edge.peer_link, frame: bytes });
    }

    fn wake(&mut self, n: usize) {
        let (at, _) = self.nodes[n].router.next_wake();
        self.at(at.max(self.now), Event::Timer { node: n });
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, event))) = self.events.pop() else { return };
        self.now = self.now.max(at);
        match event {
            Event::Timer { node } => {
                // Most of them were armed anew meanwhile.
                if self.nodes[node].router.next_wake().0 <= self.now {
                    self.handle(node, Input::Timeout);
                }
            }
            Event::Links { a, b } => self.connect(a, b),
            Event::Arrives { node, link, frame } => {
                if !self.nodes[node].edges.contains_key(&link) {
                    return;
                }
                let frame = Frame::decode(&frame).expect("routers send sound frames");
                let verified = |announce: quicprochat_mesh::wire::Announce| {
                    let origin = quicprochat_mesh::crypto::compute_address(&announce.content.public_key);
                    Box::new(Verified::unchecked(origin, announce))
                };
                let input = match frame {
                    Frame::Announce(announce) => Input::Announce(link, verified(announce)),
                    Frame::PathReply(announce) => Input::PathReply(link, verified(announce)),
                    other => Input::Control(link, other),
                };
                self.handle(node, input);
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Who has no path to whom.
    fn without_path(&self) -> Vec<(usize, Address)> {
        let all = self.nodes.iter().map(|node| node.identity.address()).enumerate();
        let pairs = all.flat_map(|(to, address)| (0..self.nodes.len()).map(move |n| (n, to, address)));
        let lost = pairs.filter(|(n, to, address)| n != to && !self.nodes[*n].router.is_reachable(address));
        lost.map(|(n, _, address)| (n, address)).collect()
    }

    /// Somebody has something to send there.
    fn search(&mut self, n: usize, to: Address) {
        self.nodes[n].router.search(self.now, to);
        self.handle(n, Input::Timeout);
    }

    /// Lets time pass until each node has a path to each other, and gives the time that took.
    fn converge(&mut self) -> Duration {
        let start = self.now;
        let all = self.nodes.len() * (self.nodes.len() - 1);
        while self.paths < all && self.now < start + STEADY {
            self.step();
        }
        self.now - start
    }
}

/// What one size showed.
struct Found {
    nodes: usize,
    links: usize,
    cold: Duration,
    cold_cost: Cost,
    steady: Cost,
    busiest_bits_per_s: f64,
    join: Duration,
    join_bytes: u64,
    cut_lost: usize,
    repair: Duration,
    cut_bytes: u64,
}

fn measure(nodes: usize) -> Found {
    let mut mesh = Mesh::new();
    for _ in 0..nodes {
        mesh.add_node();
    }
    let mut pairs: Vec<(usize, usize)> =
        (0..nodes).flat_map(|n| [(n, (n + 1) % nodes), (n, (n + 2) % nodes)]).collect();
    for n in (0..nodes).step_by(2) {
        pairs.push((n, mesh.dice.below(nodes as u64) as usize));
    }
    for (a, b) in pairs {
        let wait = Duration::from_millis(mesh.dice.below(1000));
        mesh.later(wait, Event::Links { a, b });
    }
    let cold = mesh.converge();
    mesh.pass(SETTLE);
    let cold_cost = mesh.cost;

    mesh.over.clear();
    let before = mesh.cost;
    mesh.pass(STEADY);
    let steady = mesh.cost.since(&before);
    let busiest = mesh.over.values().max().copied().unwrap_or(0);

    mesh.over.clear();
    let newcomer = mesh.add_node();
    for _ in 0..3 {
        let other = mesh.dice.below(nodes as u64) as usize;
        mesh.connect(newcomer, other);
    }
    let join = mesh.converge();
    mesh.pass(SETTLE - join.min(SETTLE));
    let links: Vec<LinkId> = mesh.nodes[newcomer].edges.keys().copied().collect();
    let join_bytes =
        mesh.over.iter().filter(|((_, link), _)| links.contains(link)).map(|(_, bytes)| bytes).sum();

    let before = mesh.cost;
    let link = mesh.nodes[0].edges.keys().next().copied().expect("node 0 has links");
    mesh.disconnect(0, link);
    mesh.pass(WITHDRAWN);
    let lost = mesh.without_path();
    let cut_lost = lost.len();
    for (n, to) in lost {
        mesh.search(n, to);
    }
    let repair = mesh.converge();
    mesh.pass(SETTLE - (WITHDRAWN + repair).min(SETTLE));
    let cut_bytes = mesh.cost.since(&before).other_bytes;
    Found {
        nodes,
        links: mesh.links - 3,
        cold,
        cold_cost,
        steady,
        busiest_bits_per_s: busiest as f64 * 8.0 / STEADY.as_secs_f64(),
        join,
        join_bytes,
        cut_lost,
        repair,
        cut_bytes,
    }
}

impl Found {
    /// Bits a second over a link in one direction, on average.
    fn link_bits_per_s(&self) -> f64 {
        self.steady.bytes() as f64 * 8.0 / STEADY.as_secs_f64() / (self.links * 2) as f64
    }

    fn print(&self) {
        // An interval is ten minutes less up to a tenth.
        let rounds = STEADY.as_secs_f64() / 570.0;
        let per_link = self.steady.announces as f64 / rounds / self.nodes as f64 / self.links as f64;
        println!(
            "{:>6} {:>6} {:>8.2} {:>12.1} {:>10.2} {:>12.0} {:>12.0} {:>8.2} {:>13.1} {:>10} {:>9.2} {:>13.1}",
            self.nodes,
            self.links,
            self.cold.as_secs_f64(),
            self.cold_cost.bytes() as f64 / self.nodes as f64 / 1e3,
            per_link,
            self.link_bits_per_s(),
            self.busiest_bits_per_s,
            self.join.as_secs_f64(),
            self.join_bytes as f64 / 1e3,
            self.cut_lost,
            self.repair.as_secs_f64(),
            self.cut_bytes as f64 / 1e3,
        );
    }
}

/// Two small plots with logarithmic axes: time until every path is there, and bits a second a link
/// carries for it from then on.
fn svg(found: &[Found]) -> String {
    const WIDTH: f64 = 340.0;
    const HEIGHT: f64 = 240.0;
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 330\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text{fill:#555}.axis{stroke:#888;fill:none}.grid{stroke:#8884;fill:none}.line{stroke:#2a7de1;fill:none;stroke-width:2}.dot{fill:#2a7de1}\
         @media(prefers-color-scheme:dark){text{fill:#bbb}}</style>\n",
    );
    type Value = fn(&Found) -> f64;
    let plots: [(&str, Value); 2] = [
        ("seconds until each node has a path to each other", |f| f.cold.as_secs_f64()),
        ("steady announce traffic, bit/s a link and direction", Found::link_bits_per_s),
    ];
    for (at, (title, value)) in plots.into_iter().enumerate() {
        let left = 50.0 + at as f64 * (WIDTH + 40.0);
        let (low, high) =
            found.iter().map(value).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
        let x = |nodes: f64| left + (nodes.log10() - 1.0) / 2.0 * (WIDTH - 40.0);
        let y = |value: f64| 40.0 + HEIGHT - (value.log10() - low) / (high - low) * HEIGHT;
        let _ = writeln!(out, "<text x=\"{left}\" y=\"22\">{title}</text>");
        let mut decade = low;
        while decade <= high {
            let at = y(10f64.powf(decade));
            let label = 10f64.powf(decade);
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{left} {at}H{}\"/>", left + WIDTH - 40.0);
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                at + 4.0
            );
            decade += 1.0;
        }
        let bottom = 40.0 + HEIGHT;
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{left} 40V{bottom}H{}\"/>", left + WIDTH - 40.0);
        let points: Vec<(f64, f64)> = found.iter().map(|f| (x(f.nodes as f64), y(value(f)))).collect();
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(out, "<path class=\"line\" d=\"M{}\"/>", line.join("L"));
        for ((px, py), f) in points.iter().zip(found) {
            let _ = writeln!(out, "<circle class=\"dot\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{px:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                f.nodes
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nodes</text>",
            left + (WIDTH - 40.0) / 2.0,
            bottom + 34.0
        );
    }
    out.push_str("</svg>\n");
    out
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let file = args.iter().position(|arg| arg == "--svg").and_then(|at| args.get(at + 1));
    let asked: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    println!(
        " nodes  links   cold s  cold kB/node  copies/link  bit/s a link  bit/s most   join s  join kB, own  cut, pairs  repair s   cut kB, all"
    );
    let found: Vec<Found> = sizes.into_iter().map(measure).inspect(Found::print).collect();
    if let Some(file) = file {
        std::fs::write(file, svg(&found)).expect("the plot is written");
    }
}
