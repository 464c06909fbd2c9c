//! What one link costs in memory: opens links over loopback, both ends in this process, and prints
//! how the resident set grows from 50 to 500 of them. `cargo bench --bench link_memory`.
//!
//! Three lines: bare QUIC links (the transport alone, with the node's settings), and QUIC and TCP
//! links with all that a node keeps for one (session, queues, two tasks, verifier). Each figure is
//! for one end. Linux only, since it reads `/proc`.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, Recipient};
use quicprochat_mesh::{
    actors::{
        mailbox::{self, Seat},
        rate_limiter::{PressureGauge, RateLimiterActor, RateLimiterParts},
        transport::{LinkEnded, LinkEstablished, LinkParts, TransportActor},
    },
    clock,
    crypto::MeshIdentity,
    messages::{
        lifecycle::{ChildExited, ChildId, ExitGuard},
        limit::RequestLease,
    },
    proto::{
        credit::WINDOW_BYTES,
        link::{Direction, HELLO_TIMEOUT, KEEPALIVE_INTERVAL, LinkConfig},
        verify::Checked,
    },
    testing::Probe,
    transport::{
        Link, MeshTransport, QuicOptions, QuicPort, TcpOptions, TcpPort, TlsIdentity, TransportAddr,
    },
    wire::{FrameParts, LinkId, NetworkId, TrafficClass},
};
use tokio::sync::mpsc::UnboundedReceiver;

const FEW: usize = 50;
const MANY: usize = 500;
const NETWORK: NetworkId = NetworkId([7; 16]);

/// Bytes of memory that this process occupies.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Both ends of some links, as they are kept.
enum Kept {
    Bare(#[expect(dead_code, reason = "kept open")] Vec<Link>),
    Run(#[expect(dead_code, reason = "kept running")] Vec<Addr<TransportActor>>),
}

struct Ends {
    a: Arc<MeshIdentity>,
    b: Arc<MeshIdentity>,
    dialler: Arc<dyn MeshTransport>,
    listener: Arc<dyn MeshTransport>,
    lease: Seat<RequestLease>,
    exits: Recipient<ChildExited>,
    /// One probe for all links: what it costs is not theirs.
    established: Seat<LinkEstablished>,
    up: UnboundedReceiver<LinkEstablished>,
}

impl Ends {
    async fn open(scheme: &str) -> Self {
        let (a, b) = (MeshIdentity::from_seed([1; 32]), MeshIdentity::from_seed([2; 32]));
        let tls = |who: &MeshIdentity| TlsIdentity::from_pkcs8(&who.to_pkcs8_der()).expect("a fresh key");
        let at: TransportAddr = format!("{scheme}://127.0.0.1:0").parse().expect("a URL");
        let (dialler, listener): (Arc<dyn MeshTransport>, Arc<dyn MeshTransport>) = if scheme == "quic" {
            let options = QuicOptions::default();
            let listener = QuicPort::listen(&tls(&b), &at, options.clone()).await.expect("a free port");
            (Arc::new(QuicPort::dial_only(&tls(&a), options)), Arc::new(listener))
        } else {
            let options = TcpOptions::default();
            let listener = TcpPort::listen(&tls(&b), &at, options.clone()).await.expect("a free port");
            (Arc::new(TcpPort::dial_only(&tls(&a), options)), Arc::new(listener))
        };
        let (exits, _) = Probe::<ChildExited>::start();
        let guard = guard(&exits);
        let limiter = RateLimiterActor::new(RateLimiterParts::default(), guard).start();
        let lease = Seat::held_by(limiter.recipient());
        let (probe, up) = Probe::<LinkEstablished>::start();
        let established = Seat::held_by(probe);
        Self { a: Arc::new(a), b: Arc::new(b), dialler, listener, lease, exits, established, up }
    }

    /// Links without a node around them; a frame has gone each way, as hellos do.
    async fn bare(&mut self, count: usize) -> Kept {
        let hello = [FrameParts::whole(vec![7; 100])];
        let mut links = Vec::new();
        for _ in 0..count {
            let mut pair = self.link().await;
            for end in &mut pair {
                end.tx.send(TrafficClass::Control, &hello).await.expect("it is open");
            }
            for end in &mut pair {
                end.rx.recv(&mut Vec::new()).await.expect("the other end has written");
            }
            links.extend(pair);
        }
        Kept::Bare(links)
    }

    async fn run(&mut self, count: usize) -> Kept {
        let mut actors = Vec::new();
        for _ in 0..count {
            let [out, back] = self.link().await;
            actors.extend([self.start(out, Direction::Out), self.start(back, Direction::In)]);
            for _ in 0..2 {
                self.up.recv().await.expect("both ends hear of each other");
            }
        }
        Kept::Run(actors)
    }

    async fn link(&self) -> [Link; 2] {
        let to = self.listener.info().local;
        let (out, back) = tokio::join!(self.dialler.dial(&to), self.listener.accept());
        [out.expect("it listens"), back.expect("it was dialled")]
    }

    fn start(&self, medium: Link, direction: Direction) -> Addr<TransportActor> {
        let (own, peer) = match direction {
            Direction::Out => (&self.a, &self.b),
            Direction::In => (&self.b, &self.a),
        };
        let parts = LinkParts {
            own: own.address(),
            network: NETWORK,
            checked: Checked::default(),
            envelopes: Seat::vacant(),
            announces: Seat::vacant(),
            control: Seat::vacant(),
            egress_full: Seat::vacant(),
            lease: self.lease.clone(),
            pressure: PressureGauge::default(),
            established: self.established.clone(),
            ended: Seat::<LinkEnded>::vacant(),
        };
        let config = LinkConfig {
            network: NETWORK,
            network_secret: None,
            own_key: own.public_key(),
            peer: Some(peer.public_key()),
            channel_binding: medium.info.channel_binding,
            direction,
            features: 0,
            boot_epoch: 1,
            clock_unix_s: clock::unix_s(),
            initial_credit: WINDOW_BYTES,
            keepalive: KEEPALIVE_INTERVAL,
            hello_timeout: HELLO_TIMEOUT,
        };
        let guard = guard(&self.exits);
        let nonce = [direction as u8 + 1; 8];
        TransportActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::TRANSPORT);
            TransportActor::new(LinkId(1), medium, config, nonce, parts, guard)
        })
    }
}

fn guard(exits: &Recipient<ChildExited>) -> ExitGuard {
    ExitGuard::for_task(ChildId(1), exits)
}

/// Bytes one end of one link costs.
async fn slope(scheme: &str, bare: bool) -> u64 {
    let mut ends = Ends::open(scheme).await;
    let _few = if bare { ends.bare(FEW).await } else { ends.run(FEW).await };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = resident_bytes();
    let more = MANY - FEW;
    let _many = if bare { ends.bare(more).await } else { ends.run(more).await };
    // Handshakes leave buffers behind that the first acknowledgements free.
    tokio::time::sleep(Duration::from_secs(1)).await;
    resident_bytes().saturating_sub(before) / (2 * more) as u64
}

/// Lines of the table: what, scheme, and whether it is the transport alone. Each is measured in a
/// process of its own, since what one frees would serve the next.
const LINES: [(&str, &str, bool); 3] =
    [("tcp, in a node", "tcp", false), ("quic, in a node", "quic", false), ("quic, bare", "quic", true)];

fn main() {
    let line = std::env::args().find_map(|arg| arg.strip_prefix("--line=").map(str::to_owned));
    if let Some((_, scheme, bare)) = line.and_then(|line| LINES.into_iter().find(|(name, ..)| *name == line))
    {
        let bytes = actix::System::new().block_on(slope(scheme, bare));
        println!("{bytes}");
        return;
    }
    println!("{:<28} {:>14}", "one end of a link", "resident bytes");
    let program = std::env::current_exe().expect("this program has a path");
    for (name, ..) in LINES {
        let line = std::process::Command::new(&program).arg(format!("--line={name}")).output();
        let bytes = line.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        println!("{name:<28} {:>14}", bytes.unwrap_or_else(|error| error.to_string()));
    }
}
