//! `qpc demo`: a small mesh on this machine that tells what it does.

mod line;
mod mesh;
mod page;

use std::{
    io::{IsTerminal, stdout},
    time::{Duration, Instant},
};

use clap::value_parser;
use futures_util::future::{join_all, try_join_all};
use quicprochat_mesh::{
    api::{
        ApiError, Contact, DeliveryStatus, ErrorClass, MessageId, Priority, Request, Route, SendOutcome,
        Status, Trace,
    },
    crypto::random,
};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cx::Context, fail::Failure, human};
use line::Picture;
use mesh::{Folder, Node, PATIENCE, next};
use page::Page;

/// Pause between two looks at a node that has nothing to wait on.
const POLL: Duration = Duration::from_millis(20);

/// Size of the file that is sent: a photo's.
const FILE_BYTES: usize = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  qpc demo                   five nodes, until Ctrl-C
  qpc demo --nodes 3 --once  three, and end after the story";

/// Names that a line has room for.
const NAMES_MAX: usize = 8;

/// Show a small mesh at work: nodes in a line, real messages over several hops
///
/// Starts N nodes as processes of their own on this machine, in a temporary directory and on free
/// ports, and needs nothing else. Sends a text, a file and a broadcast, traces the path, stops a
/// node and brings it back. Stays until Ctrl-C, for you to try commands on it, and leaves nothing
/// behind.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many nodes, 3 to 16
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u8).range(3..=16))]
    nodes: u8,

    /// End after the story instead of staying until Ctrl-C
    #[arg(long)]
    once: bool,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if cx.out.json {
        return Err(ApiError::usage("demo tells people a story and has no --json").into());
    }
    let failed = |e: std::io::Error| ApiError::failed(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;

    let was_terminal = stdout().is_terminal();
    let mut folder = Folder::create()?;
    let mut page = Page::new();
    let mut line = Vec::new();
    let told = tokio::select! {
        told = tell(&args, &folder, &mut page, &mut line) => told,
        _ = interrupt.recv() => Err(Failure::Said(ErrorClass::Failed)),
        _ = terminate.recv() => Err(Failure::Said(ErrorClass::Failed)),
        _ = hangup.recv() => Err(Failure::Said(ErrorClass::Failed)),
    };
    if told.is_ok() && !args.once {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
    // Whatever was told, the nodes are drained; a closed stdout is no reason to leave them.
    let drained = drain(&mut line).await;
    if was_terminal && !stdout().is_terminal() {
        // Its window was closed, which may have been noticed at a line that could not be written.
        return Err(Failure::Said(ErrorClass::Failed));
    }
    if let Err(failure @ (Failure::Api(_) | Failure::Config(_))) = told {
        folder.keep();
        crate::out::note(format!("the nodes' logs are in {}", folder.path().display()));
        return Err(failure);
    }
    told?;
    let nodes = drained?;
    page.section(format!("{nodes} nodes drained and stopped; {} removed.", folder.path().display()))
}

/// The story.
async fn tell(args: &Args, folder: &Folder, page: &mut Page, line: &mut Vec<Node>) -> Result<(), Failure> {
    page.title("QuicProChat Mesh: a mesh of real nodes on this machine")?;
    start(args.nodes, folder, page, line).await?;
    let [first, between @ .., last] = line.as_mut_slice() else { return Ok(()) };
    find_ways(page, first, last).await?;
    send_text(page, first, last).await?;
    send_file(page, first, last).await?;
    trace(page, first, between, last).await?;
    broadcast(page, first, between, last).await?;
    let away = Picture::of([&*first].into_iter().chain(&*between).chain([&*last]));
    if let Some(neighbour) = between.last() {
        away_and_back(page, first, neighbour, last, away).await?;
    }
    where_to_look(args, page, first, last)
}

async fn start(nodes: u8, folder: &Folder, page: &mut Page, line: &mut Vec<Node>) -> Result<(), Failure> {
    let began = Instant::now();
    page.step(format!("{nodes} nodes start, each a process with an identity and a store of its own"))?;
    for number in 1..=nodes {
        // Each listens on what the next one dials: QUIC and TCP by turns.
        let scheme = if number % 2 == 1 { "quic" } else { "tcp" };
        let peer = line.last().and_then(Node::dial_url);
        let node = Node::start(folder, format!("n{number}"), scheme, peer).await?;
        page.item(&node.name, format!("{}  pid {}", node.address(), node.ready.pid))?;
        line.push(node);
    }
    let took = since(began);
    draw(page, &Picture::of(line.iter()))?;
    page.good("up", format!("all of them after {took}, each linked to its neighbours"))
}

fn draw(page: &Page, picture: &Picture) -> Result<(), Failure> {
    picture.lines().iter().try_for_each(|line| page.text(line))
}

/// Waits until both ends know each other.
async fn find_ways(page: &mut Page, first: &Node, last: &Node) -> Result<(), Failure> {
    let began = Instant::now();
    page.step("They announce themselves; announces travel and become routes")?;
    page.command(format_args!("routes --data-dir {}", first.dir.display()))?;
    let there = wait_for_route(first, last).await?;
    wait_for_route(last, first).await?;
    // A name is shorter to type than an address, and each end knows the other by one.
    for (node, other) in [(first, last), (last, first)] {
        let (name, address) = (other.name.clone(), other.address().to_string());
        let _: Contact = node.ask(&Request::ContactAdd { name, address }).await?;
    }
    page.good(
        "found",
        format!("{} is {} hops from {}, seen after {}", last.name, there.hops, first.name, since(began)),
    )
}

async fn wait_for_route(from: &Node, to: &Node) -> Result<Route, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes: Vec<Route> = from.ask_all(&Request::Routes { destination: None }).await?;
        if let Some(route) = routes.into_iter().find(|route| route.destination == to.address()) {
            return Ok(route);
        }
        late(deadline, || format!("{} finds no way to {}", from.name, to.name))?;
        tokio::time::sleep(POLL).await;
    }
}

async fn send_text(page: &mut Page, first: &Node, last: &Node) -> Result<(), Failure> {
    let text = "Hello from the other end of the line";
    page.step(format!("A text from {} to {}, encrypted end to end", first.name, last.name))?;
    page.command(format_args!("send --to {} --wait 10s '{text}'", last.name))?;
    let (outcome, received) = tokio::try_join!(send(first, last, text.as_bytes(), None), last.receive())?;
    tell_delivered(page, last, &outcome)?;
    let (item, content) = received;
    let content = human::escape(&String::from_utf8_lossy(&content));
    page.good("received", format!("“{content}” from {}", item.from.short()))
}

async fn send_file(page: &mut Page, first: &Node, last: &Node) -> Result<(), Failure> {
    let mut file = vec![0; FILE_BYTES];
    rand_core::Rng::fill_bytes(&mut random::os_rng(), &mut file);
    page.step(format!("A file of {} random bytes, in sealed chunks", human::bytes(FILE_BYTES as u64)))?;
    page.command(format_args!("send --to {} --wait 1m --file photo.bin", last.name))?;
    let began = Instant::now();
    let name = Some("photo.bin".to_owned());
    let (outcome, (item, content)) = tokio::try_join!(send(first, last, &file, name), last.receive())?;
    let took = since(began);
    if content != file {
        return Err(ApiError::failed(format!("the file arrived at {} with other content", last.name)).into());
    }
    tell_delivered(page, last, &outcome)?;
    let sum: String = Sha256::digest(&content).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let file = human::escape(&item.name.unwrap_or_default());
    page.good("received", format!("{file}, SHA-256 {sum}… at both ends, after {took}"))
}

async fn trace(page: &mut Page, first: &Node, between: &[Node], last: &Node) -> Result<(), Failure> {
    page.step("The path, hop by hop")?;
    page.command(format_args!("trace {}", last.name))?;
    let timeout_ms = PATIENCE.as_millis() as u64;
    let request = Request::Trace { destination: last.address().to_string(), timeout_ms };
    let trace: Trace = first.ask(&request).await?;
    for hop in &trace.hops {
        let known = between.iter().chain([last]).find(|node| Some(node.address()) == hop.address);
        let name = known.map_or("?", |node| node.name.as_str());
        let address = hop.address.map_or("declined to answer".into(), |address| address.to_string());
        let over = hop.transport.as_deref().map(human::escape).unwrap_or_default();
        page.item(name, format!("{address}  {over:4}  {:>8}", human::ms(hop.rtt_ms)))?;
    }
    if !trace.reached {
        return Err(ApiError::failed(format!("the trace did not reach {}", last.name)).into());
    }
    Ok(())
}

async fn broadcast(page: &mut Page, first: &Node, between: &[Node], last: &Node) -> Result<(), Failure> {
    let text = "Lunch is ready";
    page.step("A broadcast: signed, readable by everyone, delivered once to each")?;
    page.command(format_args!("broadcast '{text}'"))?;
    let began = Instant::now();
    let request = Request::Broadcast { ttl_ms: None, max_hops: None, file_name: None };
    let mut client = first.open(&request, text.as_bytes()).await?;
    let sent: MessageId = next(&first.name, &mut client).await?;
    let others: Vec<&Node> = between.iter().chain([last]).collect();
    let received = try_join_all(others.iter().map(|node| node.receive())).await?;
    let took = since(began);
    if received.iter().any(|(item, content)| item.id != sent.id || content != text.as_bytes()) {
        return Err(ApiError::failed("a node received something else than the broadcast").into());
    }
    let names: Vec<&str> = others.iter().map(|node| node.name.as_str()).collect();
    let by = match names.len() {
        n if n > NAMES_MAX => format!("all {n} others"),
        _ => names.join(", "),
    };
    page.good("received", format!("by {by} within {took}"))
}

async fn away_and_back(
    page: &mut Page,
    first: &Node,
    neighbour: &Node,
    last: &mut Node,
    picture: Picture,
) -> Result<(), Failure> {
    let text = "Read this when you are back";
    page.step(format!("{} goes away; a message waits for it", last.name))?;
    page.command(format_args!("drain --data-dir {}", last.dir.display()))?;
    last.stop().await?;
    page.good("stopped", format!("{} drained and ended", last.name))?;

    let began = Instant::now();
    let request = send_request(last, None);
    let mut sending = first.open(&request, text.as_bytes()).await?;
    let _queued: SendOutcome = next(&first.name, &mut sending).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Status = neighbour.ask(&Request::Status).await?;
        if status.stored > 0 {
            break;
        }
        late(deadline, || format!("{} did not keep the message", neighbour.name))?;
        tokio::time::sleep(POLL).await;
    }
    let took = since(began);
    let kept = format!("1 message on the disk of {}", neighbour.name);
    draw(page, &picture.without_the_last(&kept))?;
    page.good("kept", format!("by {}, its neighbour, {took} after it was sent", neighbour.name))?;

    let began = Instant::now();
    last.restart().await?;
    page.good("back", format!("{} runs again with the same identity", last.name))?;
    let finished = async {
        loop {
            let outcome: SendOutcome = next(&first.name, &mut sending).await?;
            if outcome.status != DeliveryStatus::Queued {
                return Ok::<_, Failure>(outcome);
            }
        }
    };
    let (outcome, (_, content)) = tokio::try_join!(finished, last.receive())?;
    check_delivered(last, &outcome)?;
    let content = human::escape(&String::from_utf8_lossy(&content));
    page.good("delivered", format!("“{content}”, {} after {} came back", since(began), last.name))
}

fn where_to_look(args: &Args, page: &Page, first: &Node, last: &Node) -> Result<(), Failure> {
    page.section("Where to look")?;
    let dirs = first.dir.with_file_name(format!("n1 … n{}", args.nodes));
    page.item("data, logs", format!("{}, n1.log …", dirs.display()))?;
    for node in [first, last] {
        if let Some(health) = &node.ready.health {
            page.item(&node.name, format!("http://{health}/healthz  http://{health}/metricsz"))?;
        }
    }
    if args.once {
        return Ok(());
    }
    page.section(format!("The nodes run on. Be {} in another terminal:", first.name))?;
    page.shell(format_args!("export QPC_DATA_DIR={}", first.dir.display()))?;
    page.command("peers")?;
    page.command(format_args!("trace {}", last.name))?;
    page.command(format_args!("send --to {} --wait 10s hello", last.name))?;
    page.command("repl")?;
    page.remark("Ctrl-C here drains them all and removes their directory.")
}

/// Sends and waits for the end of it.
async fn send(from: &Node, to: &Node, content: &[u8], name: Option<String>) -> Result<SendOutcome, Failure> {
    let mut client = from.open(&send_request(to, name), content).await?;
    loop {
        let outcome: SendOutcome = next(&from.name, &mut client).await?;
        if outcome.status != DeliveryStatus::Queued {
            check_delivered(to, &outcome)?;
            return Ok(outcome);
        }
    }
}

fn send_request(to: &Node, file_name: Option<String>) -> Request {
    Request::Send {
        to: to.address().to_string(),
        priority: Priority::Normal,
        ttl_ms: None,
        wait: true,
        file_name,
    }
}

fn check_delivered(to: &Node, outcome: &SendOutcome) -> Result<(), Failure> {
    match outcome.status {
        DeliveryStatus::Delivered => Ok(()),
        other => {
            let reason = human::escape(outcome.reason.as_deref().unwrap_or("without a reason"));
            Err(ApiError::failed(format!("a message to {} ended {}: {reason}", to.name, other.as_str()))
                .into())
        }
    }
}

fn tell_delivered(page: &Page, to: &Node, outcome: &SendOutcome) -> Result<(), Failure> {
    let hops = outcome.hops.map_or("?".into(), |hops| hops.to_string());
    page.good(
        "delivered",
        format!(
            "over {hops} hops; {}'s signed receipt was back after {}",
            to.name,
            human::ms(outcome.rtt_ms)
        ),
    )
}

/// Stops all at once.
async fn drain(line: &mut [Node]) -> Result<usize, Failure> {
    let ended = join_all(line.iter_mut().map(|node| async move {
        match node.stop().await? {
            Some(stopped) if stopped.drained => Ok(()),
            Some(_) => Err(ApiError::failed(format!("{} did not drain in time", node.name)).into()),
            None => Err(ApiError::failed(format!("{} ended without a word", node.name)).into()),
        }
    }));
    let ended = ended.await;
    let nodes = ended.len();
    ended.into_iter().collect::<Result<Vec<()>, Failure>>().map(|_| nodes)
}

fn late(deadline: Instant, why: impl FnOnce() -> String) -> Result<(), Failure> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(ApiError::failed(format!("{} within {} s", why(), PATIENCE.as_secs())).into()),
    }
}

fn since(began: Instant) -> String {
    human::ms(Some(began.elapsed().as_secs_f64() * 1000.0))
}
