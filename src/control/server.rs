//! The node's end: accepts clients of the same user and serves each in a task of its own.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    ControlError, Service, connection,
    location::{self, Fallbacks},
    protocol::PAYLOAD_BYTES_MAX,
};
use crate::accept::{self, Keep, Left, Trouble};

/// Clients at a time. Each costs a task and a line buffer; one more is told so.
const CLIENTS_MAX: usize = 256;

/// Payload memory of all clients together, in KiB: four of the largest messages.
const PAYLOAD_BUDGET_KIB: usize = 4 * (PAYLOAD_BYTES_MAX as usize) / 1024;

/// A bound control socket.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    data_dir: PathBuf,
    uid: u32,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) service: Arc<dyn ServiceObject>,
    pub(crate) uid: u32,
    pub(crate) clients: Arc<Semaphore>,
    pub(crate) payload_kib: Arc<Semaphore>,
    /// The one place of whoever takes messages out of the inbox.
    pub(crate) taker: Arc<Semaphore>,
    /// True from the moment on that no new work is taken: connections without a request end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// [`Service`] behind a pointer that connections clone.
pub(crate) trait ServiceObject: Send + Sync + 'static {
    fn call(
        &self,
        request: crate::api::Request,
        payload: bytes::Bytes,
        replies: super::ReplyTx,
    ) -> futures_util::future::BoxFuture<'static, Result<(), crate::api::ApiError>>;
}

impl<S: Service> ServiceObject for Arc<S> {
    fn call(
        &self,
        request: crate::api::Request,
        payload: bytes::Bytes,
        replies: super::ReplyTx,
    ) -> futures_util::future::BoxFuture<'static, Result<(), crate::api::ApiError>> {
        Service::call(Arc::clone(self), request, payload, replies)
    }
}

impl ControlServer {
    /// Opens the control socket of `data_dir`, which must exist: mode 0600, a dead node's socket
    /// replaced, a path too long moved to a private fallback directory. Needs a tokio runtime.
    ///
    /// # Errors
    /// A node answers there already, or the system refuses.
    pub fn bind(data_dir: &Path, fallbacks: &Fallbacks) -> Result<Self, ControlError> {
        let path = location::claim(data_dir, fallbacks)?;
        location::clear_stale(&path)?;
        let io = |action| {
            let path = path.clone();
            move |source| ControlError::Io { action, path, source }
        };
        let listener = UnixListener::bind(&path).map_err(io("bind"))?;
        // The directory keeps others out until the mode is set, and the user check does after it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(io("restrict"))?;
        let uid = std::fs::metadata(&path).map_err(io("look at"))?.uid();
        Ok(Self { listener, path, data_dir: data_dir.to_owned(), uid })
    }

    /// Path of the socket, for the ready line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to serve clients on the current runtime.
    pub fn serve<S: Service>(self, service: Arc<S>) -> ServerHandle {
        let (stop, stopped) = oneshot::channel();
        let stopping = watch::Sender::new(false);
        let shared = Arc::new(Shared {
            service: Arc::new(service),
            uid: self.uid,
            clients: Arc::new(Semaphore::new(CLIENTS_MAX)),
            payload_kib: Arc::new(Semaphore::new(PAYLOAD_BUDGET_KIB)),
            taker: Arc::new(Semaphore::new(1)),
            stopping: stopping.subscribe(),
        });
        let path = self.path.clone();
        ServerHandle { stop, task: tokio::spawn(self.run(shared, stopped, stopping)), path }
    }

    async fn run(
        self,
        shared: Arc<Shared>,
        mut stopped: oneshot::Receiver<Duration>,
        stopping: watch::Sender<bool>,
    ) {
        let mut clients = JoinSet::new();
        let mut trouble = Trouble::none("control");
        let grace = loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        trouble.over();
                        // Who is of the same user may take all but what the store needs.
                        match accept::left_beside(&stream, Keep::CONTROL) {
                            Left::Enough | Left::Few => accept(stream, &shared, &mut clients),
                            Left::Hardly => accept::turned_away("control"),
                        }
                    }
                    Err(error) => tokio::time::sleep(trouble.failed(&error)).await,
                },
                // The future of a set without tasks is ready at once, so it is not asked then.
                Some(_) = clients.join_next(), if !clients.is_empty() => {}
                grace = &mut stopped => break grace.unwrap_or_default(),
            }
        };
        drop(self.listener);
        stopping.send_replace(true);
        location::release(&self.data_dir, &self.path);
        let all_done = async { while clients.join_next().await.is_some() {} };
        // Who is not done by then is cut off: dropping the set aborts their tasks.
        let _ = tokio::time::timeout(grace, all_done).await;
    }
}

fn accept(stream: UnixStream, shared: &Arc<Shared>, clients: &mut JoinSet<()>) {
    let shared = Arc::clone(shared);
    clients.spawn(async move {
        if let Err(error) = connection::serve(stream, &shared).await {
            tracing::debug!(%error, "control client");
        }
    });
}

/// Whether the process at the other end belongs to the socket's owner.
pub(crate) fn same_user(stream: &UnixStream, uid: u32) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == uid)
}

/// A control socket being served. Dropping it stops at once and cancels all requests.
#[derive(Debug)]
pub struct ServerHandle {
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
    path: PathBuf,
}

impl ServerHandle {
    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes no new clients, removes the socket, and gives requests under way `grace` to end.
    pub async fn stop(self, grace: Duration) {
        // Fails only where the task is gone already.
        let _ = self.stop.send(grace);
        let _ = self.task.await;
    }
}
