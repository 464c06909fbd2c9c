//! Links over TCP: TLS by node identity, frames behind 16-bit lengths.
//!
//! One connection carries all classes, so only the order within the sender prefers control; once
//! the network is full a bulk frame ahead delays what comes behind it. The link layer's credit
//! keeps the share of bulk small here; QUIC has streams for it.
//!
//! An idle link holds about 10 KiB. Writes are coalesced: one buffer of up to 64 KiB, one write a batch. A close carries a code and a
//! reason in a record of its own (mark `0xffff`, code, reason), since TCP has none.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{self, pki_types::ServerName},
};

use crate::{
    accept::{self, Keep, Left, Trouble},
    wire::{FrameParts, TrafficClass, limits::FRAME_BYTES_MAX},
};

use super::{
    BoxFuture, CLOSE_FLUSH_TIMEOUT, CloseCode, Direction, Link, LinkInfo, LinkPeer, LinkReceiver, LinkSender,
    MeshTransport, PortStats, RECV_FRAMES_MAX, TransportAddr, TransportCapability, TransportError,
    TransportInfo, addr,
    dial::{race, resolve},
    framing::{FrameQueue, FrameReader, Item, check_frames, put_close, refill, take, with_scratch},
    gate::{Gate, Ticket},
    inbox::{Inbox, count},
    lanes::{Lane, Lanes},
    tls::{self, TlsIdentity},
};

/// Bounds of a TCP port.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Longest handshake, in and out, connecting included.
    pub handshake_timeout: Duration,
    /// Inbound handshakes under way at once; beyond it the oldest of the network prefix with the
    /// most of them is dropped.
    pub handshakes_max: usize,
    /// Where the sockets of links are driven, each on its link's lane; the listener's is at home.
    pub lanes: Lanes,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), handshakes_max: 256, lanes: Lanes::default() }
    }
}

/// A TCP port. Dropping it closes it; its links stay.
pub struct TcpPort {
    shared: Arc<Shared>,
    local: TransportAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    identity: TlsIdentity,
    options: TcpOptions,
    inbox: Inbox,
    gate: Arc<Gate>,
}

impl TcpPort {
    /// Listens at `at` (`tcp://HOST:PORT`, port 0 for any free one) and dials.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`] and the other local errors of a listener.
    pub async fn listen(
        identity: &TlsIdentity,
        at: &TransportAddr,
        options: TcpOptions,
    ) -> Result<Self, TransportError> {
        let at = at.clone().with_pin(None);
        let mut failed = TransportError::Unsupported { scheme: addr::TCP, what: "listen there" };
        for address in resolve(&at).await? {
            match TcpListener::bind(address).await {
                Ok(listener) => return Self::serve(identity, options, listener, &at),
                Err(error) => failed = TransportError::from_io(&at, &error),
            }
        }
        Err(failed)
    }

    /// Dials only.
    pub fn dial_only(identity: &TlsIdentity, options: TcpOptions) -> Self {
        let shared = Arc::new(Shared::new(identity, options));
        let local = TransportAddr::socket(addr::TCP, ([0u16; 8], 0).into());
        Self { shared, local, accepting: Mutex::new(None) }
    }

    fn serve(
        identity: &TlsIdentity,
        options: TcpOptions,
        listener: TcpListener,
        at: &TransportAddr,
    ) -> Result<Self, TransportError> {
        let bound = listener.local_addr().map_err(|error| TransportError::from_io(at, &error))?;
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
        let shared = Arc::new(Shared::new(identity, options));
        let task = tokio::spawn(accept_loop(Arc::clone(&shared), listener, acceptor));
        let local = TransportAddr::socket(addr::TCP, bound);
        Ok(Self { shared, local, accepting: Mutex::new(Some(task)) })
    }

    fn shut(&self) -> Option<JoinHandle<()>> {
        self.shared.inbox.close();
        let task = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = &task {
            task.abort();
        }
        self.shared.gate.clear();
        task
    }
}

impl Shared {
    fn new(identity: &TlsIdentity, options: TcpOptions) -> Self {
        Self {
            identity: identity.clone(),
            inbox: Inbox::new(addr::TCP),
            gate: Gate::new(options.handshakes_max),
            options,
        }
    }

    async fn dial(self: &Arc<Self>, to: &TransportAddr) -> Result<Link, TransportError> {
        if self.inbox.is_closed() {
            return Err(TransportError::PortClosed);
        }
        let attempt = async { race(resolve(to).await?, |address| self.dial_address(to, address)).await };
        let limit = self.options.handshake_timeout;
        timeout(limit, attempt).await.unwrap_or_else(|_| {
            let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Err(TransportError::TimedOut { url: to.clone(), after_ms })
        })
    }

    async fn dial_address(
        self: &Arc<Self>,
        to: &TransportAddr,
        address: SocketAddr,
    ) -> Result<Link, TransportError> {
        let (dialler, to) = (Arc::clone(self), to.clone());
        let connect = |lane| async move { dialler.connect(&to, address, lane).await };
        let connected = self.options.lanes.enter().run(connect).await;
        connected.unwrap_or(Err(TransportError::PortClosed))
    }

    async fn connect(
        &self,
        to: &TransportAddr,
        address: SocketAddr,
        lane: Lane,
    ) -> Result<Link, TransportError> {
        let tcp = TcpStream::connect(address).await.map_err(|error| TransportError::from_io(to, &error))?;
        // Batches are coalesced here; the kernel has nothing to wait for.
        let _ = tcp.set_nodelay(true);
        let check = self.identity.check(to.pin().copied());
        let connector = TlsConnector::from(Arc::new(self.identity.client_config(Arc::clone(&check))?));
        let name = ServerName::try_from(tls::NO_NAME)
            .map_err(|error| TransportError::LocalKey { detail: error.to_string() })?;
        let tls = connector
            .connect(name, tcp)
            .await
            .map_err(|error| check.error_or(to, || handshake_error(to, &error)))?;
        link(to, TlsStream::from(tls), Direction::Out, lane)
    }

    async fn greet(
        &self,
        acceptor: TlsAcceptor,
        tcp: Accepted,
        from: SocketAddr,
        ticket: Ticket,
        lane: Lane,
    ) {
        let url = TransportAddr::socket(addr::TCP, canonical(from));
        let handshake = async { acceptor.accept(tcp.here()?).await };
        let greeted = match timeout(self.options.handshake_timeout, handshake).await {
            Ok(Ok(tls)) => link(&url, TlsStream::from(tls), Direction::In, lane),
            Ok(Err(error)) => Err(handshake_error(&url, &error)),
            Err(_) => Err(TransportError::Handshake { url, detail: "no progress in time".into() }),
        };
        drop(ticket);
        self.inbox.greeted(greeted).await;
    }
}

/// A connection between the listener and its lane. A socket of tokio's reports to the runtime that it
/// was made in for life, so one that changes threads is taken out of the one and put into the other.
enum Accepted {
    AtHome(TcpStream),
    Bare(io::Result<std::net::TcpStream>),
}

impl Accepted {
    fn on_its_way_to(lane: &Lane, tcp: TcpStream) -> Self {
        if lane.is_home() { Self::AtHome(tcp) } else { Self::Bare(tcp.into_std()) }
    }

    fn here(self) -> io::Result<TcpStream> {
        match self {
            Self::AtHome(tcp) => Ok(tcp),
            Self::Bare(tcp) => TcpStream::from_std(tcp?),
        }
    }
}

async fn accept_loop(shared: Arc<Shared>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut trouble = Trouble::none("tcp");
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                trouble.over();
                let left = accept::left_beside(&tcp, Keep::LINKS);
                if left != Left::Enough {
                    // As at a full gate, whoever only holds a place makes room for who may not.
                    let made_room = shared.gate.make_room(&shared.inbox.counters.handshakes_evicted);
                    if left == Left::Hardly || !made_room {
                        accept::turned_away("tcp");
                        drop(tcp);
                        // Those that were ended let go of their descriptors now.
                        tokio::task::yield_now().await;
                        continue;
                    }
                }
                let _ = tcp.set_nodelay(true);
                let (greeter, acceptor) = (Arc::clone(&shared), acceptor.clone());
                let evicted = &shared.inbox.counters.handshakes_evicted;
                let lane = shared.options.lanes.enter();
                let tcp = Accepted::on_its_way_to(&lane, tcp);
                shared.gate.admit(from.ip(), evicted, lane, |ticket, lane| async move {
                    greeter.greet(acceptor, tcp, from, ticket, lane).await;
                });
            }
            Err(error) => {
                count(&shared.inbox.counters.listen_errors);
                let pause = trouble.failed(&error);
                shared.gate.make_room(&shared.inbox.counters.handshakes_evicted);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl MeshTransport for TcpPort {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: addr::TCP,
            local: self.local.clone(),
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(self.shared.dial(to))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(self.shared.inbox.accept())
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        let open = !self.shared.inbox.is_closed();
        Box::pin(async move { if open { Ok(Vec::new()) } else { Err(TransportError::PortClosed) } })
    }

    fn stats(&self) -> PortStats {
        self.shared.inbox.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let task = self.shut();
        Box::pin(async move {
            // The listening socket is free once its task is gone.
            if let Some(task) = task {
                let _ = task.await;
            }
        })
    }
}

impl Drop for TcpPort {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for TcpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpPort({})", self.local)
    }
}

/// The link of a finished handshake with `url`.
fn link(
    url: &TransportAddr,
    stream: TlsStream<TcpStream>,
    direction: Direction,
    lane: Lane,
) -> Result<Link, TransportError> {
    let (_, session) = stream.get_ref();
    let key = tls::proven_key(url, session.peer_certificates(), session.alpn_protocol())?;
    let channel_binding = match &stream {
        TlsStream::Client(s) => {
            s.get_ref().1.export_keying_material([0; 32], tls::CHANNEL_BINDING_LABEL, None)
        }
        TlsStream::Server(s) => {
            s.get_ref().1.export_keying_material([0; 32], tls::CHANNEL_BINDING_LABEL, None)
        }
    };
    let channel_binding = channel_binding
        .map_err(|error| TransportError::Handshake { url: url.clone(), detail: error.to_string() })?;
    let connection = Arc::new(Connection {
        stream: Mutex::new(stream),
        closing: AtomicBool::new(false),
        mid_frame: AtomicBool::new(false),
        reader: AtomicWaker::new(),
        writer: AtomicWaker::new(),
        peer_ended: OnceLock::new(),
    });
    Ok(Link {
        peer: LinkPeer::Authenticated(key),
        info: LinkInfo {
            remote: url.clone(),
            direction,
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            streams_per_class: false,
            channel_binding,
        },
        tx: Box::new(TcpSender {
            connection: Arc::clone(&connection),
            wire: BytesMut::new(),
            in_wire_bytes: [0; 3],
            waiting: Default::default(),
            over: None,
        }),
        rx: Box::new(TcpReceiver { connection, reader: FrameReader::new(true), over: None }),
        lane,
    })
}

/// What the halves of a link share. The lock is held within one poll at a time.
struct Connection {
    stream: Mutex<TlsStream<TcpStream>>,
    /// This end closes: the receiver stops and leaves the reading to the closing sender.
    closing: AtomicBool,
    /// The sender is in the middle of a frame, so nobody may put a record in.
    mid_frame: AtomicBool,
    /// Wakes the receiver to see `closing`.
    reader: AtomicWaker,
    /// Wakes a sender that waits for a peer who will read no more to see `peer_ended`.
    writer: AtomicWaker,
    /// How the peer ended the link, for the sender.
    peer_ended: OnceLock<TransportError>,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads into `buffer`; 0 at the end.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.lock()).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }

    /// Reads and forgets until the peer is done, so that the kernel does not answer late bytes with
    /// a reset that would take the close record from the peer's hands.
    fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        with_scratch(|scratch| {
            loop {
                match ready!(self.poll_read(cx, scratch)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        })
    }
}

struct TcpSender {
    connection: Arc<Connection>,
    wire: BytesMut,
    /// Bytes of each class in `wire`, or written and not flushed.
    in_wire_bytes: [usize; 3],
    waiting: [FrameQueue; 3],
    over: Option<TransportError>,
}

impl TcpSender {
    /// Writes, control first, until nothing of `class` is left.
    fn poll_send(&mut self, cx: &mut Context<'_>, class: TrafficClass) -> Poll<Result<(), TransportError>> {
        self.connection.writer.register(cx.waker());
        loop {
            if let Some(over) = self.over.as_ref().or(self.connection.peer_ended.get()) {
                return Poll::Ready(Err(over.clone()));
            }
            if self.wire.is_empty() {
                let flushed = ready!(self.connection.poll_flush(cx));
                if let Err(error) = flushed {
                    return Poll::Ready(Err(self.lost(&error)));
                }
                self.in_wire_bytes = [0; 3];
                if self.unwritten_bytes(class) == 0 {
                    self.wire = BytesMut::new();
                    return Poll::Ready(Ok(()));
                }
                self.refill();
            }
            match self.connection.poll_write(cx, &self.wire) {
                Poll::Ready(Ok(written)) if written > 0 => self.wire.advance(written.min(self.wire.len())),
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(self.lost(&io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(&error))),
                Poll::Pending => {
                    self.connection.mid_frame.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
            }
            self.connection.mid_frame.store(!self.wire.is_empty(), Ordering::Relaxed);
        }
    }

    fn refill(&mut self) {
        for (queue, in_wire) in self.waiting.iter_mut().zip(&mut self.in_wire_bytes) {
            let before = self.wire.len();
            refill(queue, &mut self.wire);
            *in_wire = in_wire.saturating_add(self.wire.len().saturating_sub(before));
            if !queue.is_empty() {
                break;
            }
        }
    }

    fn lost(&mut self, error: &io::Error) -> TransportError {
        self.over.get_or_insert_with(|| TransportError::lost(error)).clone()
    }

    async fn say_goodbye(&mut self, code: CloseCode, reason: &str) -> Result<(), TransportError> {
        for class in TrafficClass::ALL {
            std::future::poll_fn(|cx| self.poll_send(cx, class)).await?;
        }
        put_close(&mut self.wire, code, reason);
        // The record is of no class; writing out an empty one takes it along.
        std::future::poll_fn(|cx| self.poll_send(cx, TrafficClass::Control)).await?;
        let connection = &self.connection;
        connection.closing.store(true, Ordering::Release);
        connection.reader.wake();
        std::future::poll_fn(|cx| connection.poll_shutdown(cx)).await.map_err(TransportError::lost)?;
        std::future::poll_fn(|cx| connection.poll_drain(cx)).await;
        Ok(())
    }
}

impl LinkSender for TcpSender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        if let Err(error) = check_frames(class, frames, FRAME_BYTES_MAX, self.unwritten_bytes(class)) {
            return Box::pin(async { Err(error) });
        }
        if self.over.is_none()
            && let (Some(queue), Some(in_wire)) =
                (self.waiting.get_mut(class as usize), self.in_wire_bytes.get_mut(class as usize))
        {
            let before = self.wire.len();
            take(queue, &mut self.wire, frames);
            *in_wire = in_wire.saturating_add(self.wire.len().saturating_sub(before));
        }
        Box::pin(std::future::poll_fn(move |cx| self.poll_send(cx, class)))
    }

    fn unwritten_bytes(&self, class: TrafficClass) -> usize {
        let waiting = self.waiting.get(class as usize).map_or(0, FrameQueue::bytes);
        waiting.saturating_add(self.in_wire_bytes.get(class as usize).copied().unwrap_or(0))
    }

    fn close<'a>(&'a mut self, code: CloseCode, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.over.is_none() {
                // What does not get out in time is not waited for; the connection ends anyway.
                let _ = timeout(CLOSE_FLUSH_TIMEOUT, self.say_goodbye(code, reason)).await;
                self.over = Some(TransportError::LinkClosed);
            }
            self.connection.closing.store(true, Ordering::Release);
            self.connection.reader.wake();
        })
    }
}

struct TcpReceiver {
    connection: Arc<Connection>,
    reader: FrameReader,
    over: Option<TransportError>,
}

impl TcpReceiver {
    fn poll_recv(&mut self, cx: &mut Context<'_>, out: &mut Vec<Bytes>) -> Poll<Result<(), TransportError>> {
        if let Some(over) = &self.over {
            return Poll::Ready(Err(over.clone()));
        }
        self.connection.reader.register(cx.waker());
        if self.connection.closing.load(Ordering::Acquire) {
            return Poll::Ready(Err(self.over.insert(TransportError::LinkClosed).clone()));
        }
        let full = out.len().saturating_add(RECV_FRAMES_MAX);
        let began = out.len();
        let ended = loop {
            if let Err(ended) = self.take_frames(out, full) {
                break ended;
            }
            if out.len() >= full {
                return Poll::Ready(Ok(()));
            }
            let Self { connection, reader, .. } = self;
            let read = with_scratch(|scratch| {
                connection.poll_read(cx, scratch).map_ok(|count| {
                    reader.extend(scratch.get(..count).unwrap_or(&[]));
                    count
                })
            });
            match read {
                Poll::Ready(Ok(0)) if self.reader.is_torn() => {
                    break TransportError::lost("the connection ended within a frame");
                }
                Poll::Ready(Ok(0)) => break TransportError::lost("the peer let go of the connection"),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => break TransportError::lost(error),
                Poll::Pending if out.len() > began => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        };
        self.end(cx, &ended);
        // Frames that came before the end are handed out first.
        Poll::Ready(if out.len() > began { Ok(()) } else { Err(ended) })
    }

    fn take_frames(&mut self, out: &mut Vec<Bytes>, full: usize) -> Result<(), TransportError> {
        while out.len() < full {
            match self.reader.next()? {
                Some(Item::Frame(frame)) => out.push(frame),
                Some(Item::Close { code, reason }) => {
                    return Err(TransportError::closed_by_peer(code, &reason));
                }
                None => break,
            }
        }
        Ok(())
    }

    /// The link is over. Says so to the peer as far as one attempt goes: a peer that has closed
    /// waits for the end of our side, one that broke the framing is told why.
    fn end(&mut self, cx: &mut Context<'_>, ended: &TransportError) {
        if ended.is_peer_fault() && !self.connection.mid_frame.load(Ordering::Relaxed) {
            let mut record = BytesMut::new();
            put_close(&mut record, CloseCode::PROTOCOL, &ended.to_string());
            let _ = self.connection.poll_write(cx, &record);
        }
        let _ = self.connection.poll_shutdown(cx);
        // Whichever came first is the link's end for the sender.
        let _ = self.connection.peer_ended.set(ended.clone());
        self.connection.writer.wake();
        self.over = Some(ended.clone());
    }
}

impl LinkReceiver for TcpReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(std::future::poll_fn(move |cx| self.poll_recv(cx, out)))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
        _ => address,
    }
}

fn handshake_error(url: &TransportAddr, error: &io::Error) -> TransportError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let detail = match (tls, error.kind()) {
        (Some(tls), _) => tls.to_string(),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "the other side hung up; it may speak another protocol".into()
        }
        _ => return TransportError::from_io(url, error),
    };
    TransportError::Handshake { url: url.clone(), detail }
}
