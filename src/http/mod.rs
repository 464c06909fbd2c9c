//! The HTTP surface: health, metrics and the read-only API, for probes, scrapers and dashboards.
//!
//! Everything that may be asked is in `routes.rs`; this file is about who may keep the port busy.
//! The rules (THREATS.md M-21) and how they are kept:
//!
//! | rule                                      | by                                            |
//! |-------------------------------------------|-----------------------------------------------|
//! | the node never waits for the port         | an arbiter of its own; answers come from shared state |
//! | silent, slow and stalled clients are cut within 5 s | one deadline a connection, from accept on; only a complete request moves it |
//! | heads up to 8 KiB, no bodies              | hyper's buffer limit; requests with a body are refused and closed |
//! | at most 64 connections                    | the oldest without a complete request goes, never the new one |
//! | pipelining costs nobody else              | requests are answered one by one, 32 a connection |
//!
//! Not here: TLS (put a proxy in front), HTTP/2, anything that changes state.

mod routes;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_rt::ArbiterHandle;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

pub use routes::{ApiQuery, ApiSource, Surface};

use crate::accept::{self, Keep, Left, Trouble};
use crate::actors::child::{Child, FactoryError};
use crate::messages::lifecycle::{DrainPhase, ExitGuard};
use crate::telemetry;

/// From accept to the first complete request, and from each complete request to the next:
/// the answer has to be taken in this time as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at a time. Probes and scrapers hold a handful for milliseconds each.
const CONNECTIONS_MAX: usize = 64;

/// Requests on one connection, so that pipelining cannot hold it for ever.
const REQUESTS_MAX: u32 = 32;

/// Head of a request in bytes, the least that hyper can be told.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header lines of a request. Browsers send fifteen or so.
const HEADERS_MAX: usize = 64;

/// Why the HTTP surface could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error("cannot listen on {addr} for health: {source}; choose another with --health-listen")]
    Bind {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A bound health port. Cheap to clone; clones share the socket, so that a restarted server goes
/// on with the connections that wait in its backlog.
#[derive(Debug, Clone)]
pub struct HealthServer {
    listener: Arc<StdListener>,
    local_addr: SocketAddr,
    surface: Arc<Surface>,
}

impl HealthServer {
    /// Binds `addr` (port 0 for any). What is served depends on it: see [`Surface`].
    ///
    /// # Errors
    /// [`HttpError::Bind`].
    pub fn bind(addr: SocketAddr, surface: Surface) -> Result<Self, HttpError> {
        let bind = || {
            let listener = StdListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = bind().map_err(|source| HttpError::Bind { addr, source })?;
        let surface = Arc::new(surface.for_bind(local_addr.ip()));
        Ok(Self { listener: Arc::new(listener), local_addr, surface })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts serving as a supervised task on `arbiter`. It goes on through Draining and
    /// Persisting, so that probes see the drain, and ends in Cleanup.
    pub fn child(&self, arbiter: &ArbiterHandle, guard: ExitGuard) -> Result<Child, FactoryError> {
        let server = self.clone();
        Ok(Child::task_on(arbiter, guard, DrainPhase::Cleanup, move |mut stop| async move {
            let stopped = async move {
                stop.wanted().await;
            };
            server.serve(stopped).await
        }))
    }

    /// Serves until `stop` is ready; open connections are dropped then.
    ///
    /// # Errors
    /// The socket cannot be used at all. Trouble with single connections is no error.
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let crowd = Crowd::default();
        let mut tasks = JoinSet::new();
        let mut trouble = Trouble::none("http");
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(_ended) = tasks.join_next(), if !tasks.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        trouble.over();
                        let left = accept::left_beside(&stream, Keep::HEALTH);
                        if left == Left::Hardly {
                            accept::turned_away("http");
                            continue;
                        }
                        let place = crowd.enter();
                        let seen = Arc::clone(&place.seen);
                        let served = serve_connection(stream, Arc::clone(&self.surface), place);
                        seen.set_task(tasks.spawn(served));
                        crowd.thin_out(left).await;
                    }
                    Err(error) => tokio::time::sleep(trouble.failed(&error)).await,
                },
            }
        }
    }
}

/// Serves one connection until it ends or its deadline passes.
async fn serve_connection(stream: TcpStream, surface: Arc<Surface>, place: Place) {
    let seen = Arc::clone(&place.seen);
    let service = service_fn(|request: Request<Incoming>| {
        let (surface, seen) = (Arc::clone(&surface), Arc::clone(&seen));
        async move {
            let nth = seen.request_begins();
            let mut response = surface.answer(request).await;
            if nth >= REQUESTS_MAX {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            seen.request_ends();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    // Its own timer would not see a client that sends nothing at all; the deadline below does.
    http.header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    loop {
        let deadline = seen.deadline();
        tokio::select! {
            // An error is the client's: garbage, an oversized head, a reset.
            _ended = &mut connection => return,
            () = tokio::time::sleep_until(deadline) => {
                if seen.deadline() <= Instant::now() {
                    metrics::counter!(telemetry::HTTP_CUT, "reason" => "slow").increment(1);
                    return;
                }
            }
        }
    }
}

/// The connections of now, oldest first.
#[derive(Debug, Default, Clone)]
struct Crowd(Arc<Mutex<Members>>);

#[derive(Debug, Default)]
struct Members {
    next: u64,
    present: BTreeMap<u64, Arc<Seen>>,
}

impl Crowd {
    fn enter(&self) -> Place {
        let mut members = self.lock();
        let number = members.next;
        members.next += 1;
        let seen = Arc::new(Seen::new());
        members.present.insert(number, Arc::clone(&seen));
        Place { crowd: self.clone(), number, seen }
    }

    /// Cuts the oldest connection without a complete request, if there are too many or few file
    /// descriptors are left.
    ///
    /// Lets the connections run first: a burst may sit in the backlog together with the honest
    /// request behind it, and accepting all of it in one go would cut what was never read.
    async fn thin_out(&self, descriptors: Left) {
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        let mut members = self.lock();
        let is_crowded = members.present.len() > CONNECTIONS_MAX;
        if !is_crowded && (descriptors == Left::Enough || members.present.len() < 2) {
            return;
        }
        let newest = members.present.keys().next_back().copied();
        let idle =
            members.present.iter().find(|(number, seen)| !seen.is_answering() && Some(**number) != newest);
        let oldest = idle.or(members.present.iter().next()).map(|(&number, _)| number);
        if let Some(seen) = oldest.and_then(|number| members.present.remove(&number)) {
            seen.cut();
            metrics::counter!(telemetry::HTTP_CUT, "reason" => "crowded").increment(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // Insertions and removals are whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the crowd; left when its task ends, however that happens.
#[derive(Debug)]
struct Place {
    crowd: Crowd,
    number: u64,
    seen: Arc<Seen>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().present.remove(&self.number);
    }
}

/// What a connection has shown of itself.
#[derive(Debug)]
struct Seen {
    requests: AtomicU32,
    answering: AtomicBool,
    deadline: Mutex<Instant>,
    task: Mutex<Option<AbortHandle>>,
}

impl Seen {
    fn new() -> Self {
        Self {
            requests: AtomicU32::new(0),
            answering: AtomicBool::new(false),
            deadline: Mutex::new(Instant::now() + PATIENCE),
            task: Mutex::new(None),
        }
    }

    /// A complete head is here; the how-manieth it is.
    fn request_begins(&self) -> u32 {
        self.answering.store(true, Ordering::Relaxed);
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + PATIENCE;
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn request_ends(&self) {
        self.answering.store(false, Ordering::Relaxed);
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_task(&self, task: AbortHandle) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn cut(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
