//! The embedding program's part in a clean stop: its tasks, its connections, what it has to write
//! and what it has to tidy up.
//!
//! | phase      | what happens here                                                      | ends when |
//! |------------|------------------------------------------------------------------------|-----------|
//! | Draining   | no new guards; holders of guards are told to finish                     | no guard is held, or deadline |
//! | Persisting | the persist hooks run side by side                                      | all have ended, or deadline |
//! | Cleanup    | guards still held are told to let go; then the cleanup hooks run        | all have ended, or deadline |
//!
//! Given to a node ([`MeshNodeBuilder::shutdown`](super::MeshNodeBuilder::shutdown)), the phases
//! are those of the node's own drain: the program is told first, and its hooks run while the node
//! is still there. Without a node, [`ShutdownCoordinator::shutdown`] walks them by itself.
//! Whatever was late is named and left behind; nothing here waits for ever.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::timeout_at,
};

use super::Stopper;
use crate::{
    actors::program::DrainProgram,
    clock,
    proto::drain::{DrainPhase, DrainPlan},
};

/// How far a stop has come. The order is that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Within(DrainPhase),
    Complete,
}

/// Why a guard was not given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShutdownError {
    /// A stop has begun.
    #[error("{name} cannot begin: the program is stopping and takes no new work")]
    Stopping {
        /// What was to begin.
        name: String,
    },
    /// As many connections are open as may be.
    #[error("{name} has {connections_max} connections open and takes no more; close some, or allow more")]
    Full {
        /// The drainer's name.
        name: String,
        /// Its bound.
        connections_max: usize,
    },
    /// A coordinator takes part in the drain of one node.
    #[error("this shutdown coordinator belongs to another node already; give each node one of its own")]
    Taken,
}

/// What a stop came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShutdownReport {
    /// What was late or failed, as `phase: name` with the reason where there is one; empty after a
    /// clean stop.
    pub missed: Vec<String>,
}

impl ShutdownReport {
    /// True when everything ended well and in time.
    pub fn is_clean(&self) -> bool {
        self.missed.is_empty()
    }
}

type HookBody = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;

struct Hook {
    name: String,
    body: HookBody,
}

struct Books {
    stage: Stage,
    /// Guards held, by name.
    open: BTreeMap<Arc<str>, usize>,
    persist: Vec<Hook>,
    cleanup: Vec<Hook>,
    missed: Vec<String>,
    /// Given to a node, which need not run yet.
    is_taken: bool,
    /// Walks the phases by itself.
    is_walking: bool,
    node: Option<Stopper>,
}

struct Shared {
    books: Mutex<Books>,
    /// Follows `Books::stage`, for whoever waits for it.
    stage: watch::Sender<Stage>,
    emptied: Notify,
}

/// Makes the program's own work part of a clean stop. Cheap to clone; clones are the same.
///
/// ```
/// # use std::time::Duration;
/// # use quicprochat_mesh::ShutdownCoordinator;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let coordinator = ShutdownCoordinator::new();
/// coordinator.on_persist("index", || async { std::io::Result::Ok(()) });
/// let guard = coordinator.task("importer")?;
/// tokio::spawn(async move {
///     guard.stopping().await; // or the next piece of work, in a `select!`
///     drop(guard); // the stop goes on from here
/// });
/// let report = coordinator.shutdown(Duration::from_secs(10)).await;
/// assert!(report.is_clean(), "{:?}", report.missed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShutdownCoordinator(Arc<Shared>);

impl Default for ShutdownCoordinator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ShutdownCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let books = self.books();
        f.debug_struct("ShutdownCoordinator")
            .field("stage", &books.stage)
            .field("open", &books.open)
            .finish_non_exhaustive()
    }
}

impl ShutdownCoordinator {
    /// A coordinator that belongs to no node yet.
    pub fn new() -> Self {
        let books = Books {
            stage: Stage::Running,
            open: BTreeMap::new(),
            persist: Vec::new(),
            cleanup: Vec::new(),
            missed: Vec::new(),
            is_taken: false,
            is_walking: false,
            node: None,
        };
        let (stage, _) = watch::channel(Stage::Running);
        Self(Arc::new(Shared { books: Mutex::new(books), stage, emptied: Notify::new() }))
    }

    /// A guard for one of the program's tasks. The stop waits for its drop, and names the task
    /// where it waited in vain.
    ///
    /// # Errors
    /// [`ShutdownError::Stopping`] once a stop has begun.
    pub fn task(&self, name: impl Into<String>) -> Result<TaskGuard, ShutdownError> {
        self.open(name.into().into(), usize::MAX)
    }

    /// A drainer for connections of one kind, at most `connections_max` at a time.
    ///
    /// ```
    /// # use quicprochat_mesh::{ShutdownCoordinator, ShutdownError};
    /// let coordinator = ShutdownCoordinator::new();
    /// let drainer = coordinator.connections("websocket", 1);
    /// let first = drainer.open()?;
    /// assert!(matches!(drainer.open(), Err(ShutdownError::Full { .. })));
    /// drop(first);
    /// assert!(drainer.open().is_ok());
    /// # Ok::<(), ShutdownError>(())
    /// ```
    pub fn connections(&self, name: impl Into<String>, connections_max: usize) -> ConnectionDrainer {
        ConnectionDrainer { coordinator: self.clone(), name: name.into().into(), connections_max }
    }

    /// Runs `hook` in the phase Persisting, when the program's tasks have finished and the node is
    /// still there. Too late once that phase has begun: then it never runs.
    pub fn on_persist<F, Fut, E>(&self, name: impl Into<String>, hook: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        self.books().persist.push(Hook::new(name.into(), hook));
    }

    /// Runs `hook` in the phase Cleanup, when all guards are gone or half of the phase is over.
    /// Too late once that phase has begun: then it never runs.
    pub fn on_cleanup<F, Fut, E>(&self, name: impl Into<String>, hook: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        self.books().cleanup.push(Hook::new(name.into(), hook));
    }

    /// True once a stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.books().stage > Stage::Running
    }

    /// Waits until a stop begins: for accept loops and timers that hold no guard.
    pub async fn stopping(&self) {
        self.reached(Stage::Within(DrainPhase::Draining)).await;
    }

    /// Stops everything within `within` and says what was late. With a node that is running, drains
    /// the node, and this returns when the node has ended; a stop under way is joined. A node that
    /// was not started is left alone.
    pub async fn shutdown(&self, within: Duration) -> ShutdownReport {
        let node = self.books().node.clone();
        match node {
            Some(node) => node.begin("requested by the program", Some(within)),
            None if self.claim_walk() => self.walk(DrainPlan::within(within)).await,
            None => {}
        }
        self.reached(Stage::Complete).await;
        ShutdownReport { missed: self.books().missed.clone() }
    }

    /// Marks a coordinator as the one of a node.
    pub(super) fn take(&self) -> Result<(), ShutdownError> {
        let mut books = self.books();
        if books.is_taken || books.stage > Stage::Running {
            return Err(ShutdownError::Taken);
        }
        books.is_taken = true;
        Ok(())
    }

    /// The node runs: a stop of the program is a drain of it, until what this gives is dropped.
    pub(super) fn attach(&self, node: Stopper) -> Attached {
        self.books().node = Some(node);
        Attached(self.clone())
    }

    /// All is over. Hooks that nobody ran, because a node fell over, are named.
    fn complete(&self) {
        let mut books = self.books();
        let left: Vec<Hook> = books.persist.drain(..).collect();
        let left = left.into_iter().chain(std::mem::take(&mut books.cleanup));
        let left: Vec<String> = left.map(|hook| format!("complete: {} was skipped", hook.name)).collect();
        books.missed.extend(left);
        drop(books);
        self.enter(Stage::Complete);
    }

    /// What the node's drain asks of the program. Hooks run on `runtime`, the program's own, so
    /// that one which blocks holds up no part of the node.
    pub(super) fn drain(&self, runtime: Handle) -> DrainProgram {
        let coordinator = self.clone();
        Arc::new(move |phase, deadline| {
            let (coordinator, runtime) = (coordinator.clone(), runtime.clone());
            Box::pin(async move { coordinator.carry_out(phase, deadline, &runtime).await })
        })
    }

    /// True for the first that asks to walk the phases without a node.
    fn claim_walk(&self) -> bool {
        !std::mem::replace(&mut self.books().is_walking, true)
    }

    async fn walk(&self, plan: DrainPlan) {
        let runtime = Handle::current();
        for (phase, length) in [
            (DrainPhase::Draining, plan.draining),
            (DrainPhase::Persisting, plan.persisting),
            (DrainPhase::Cleanup, plan.cleanup),
        ] {
            self.carry_out(phase, clock::now() + length, &runtime).await;
        }
        self.complete();
    }

    async fn carry_out(&self, phase: DrainPhase, deadline: Instant, runtime: &Handle) -> Vec<String> {
        self.enter(Stage::Within(phase));
        let missed = match phase {
            DrainPhase::Draining => self.until_let_go(deadline).await,
            DrainPhase::Persisting => {
                let hooks = std::mem::take(&mut self.books().persist);
                run(hooks, deadline, runtime).await
            }
            DrainPhase::Cleanup => {
                let half = deadline.saturating_duration_since(clock::now()) / 2;
                let mut missed = self.until_let_go(clock::now() + half).await;
                let (skipped, hooks) = {
                    let mut books = self.books();
                    (std::mem::take(&mut books.persist), std::mem::take(&mut books.cleanup))
                };
                missed.extend(skipped.into_iter().map(|hook| format!("{} was skipped", hook.name)));
                missed.extend(run(hooks, deadline, runtime).await);
                missed
            }
        };
        let missed: Vec<String> =
            missed.into_iter().map(|name| format!("{}: {name}", phase.name())).collect();
        self.books().missed.extend(missed.iter().cloned());
        missed
    }

    /// Waits until no guard is held; gives the names of those that are.
    async fn until_let_go(&self, deadline: Instant) -> Vec<String> {
        let all_gone = async {
            loop {
                // Made before the look, so that a drop in between is not missed.
                let emptied = self.0.emptied.notified();
                if self.books().open.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        // Who is late is named below.
        let _ = timeout_at(deadline.into(), all_gone).await;
        let books = self.books();
        let named = books.open.iter().map(|(name, count)| match count {
            1 => name.to_string(),
            count => format!("{name} ({count})"),
        });
        named.collect()
    }

    fn enter(&self, stage: Stage) {
        let mut books = self.books();
        // A phase that was skipped ahead of is not gone back to.
        if stage > books.stage {
            books.stage = stage;
            self.0.stage.send_replace(stage);
        }
    }

    async fn reached(&self, stage: Stage) {
        let mut stages = self.0.stage.subscribe();
        // The sender lives as long as this handle.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    fn open(&self, name: Arc<str>, open_max: usize) -> Result<TaskGuard, ShutdownError> {
        let mut books = self.books();
        if books.stage > Stage::Running {
            return Err(ShutdownError::Stopping { name: name.to_string() });
        }
        let count = books.open.get(&name).copied().unwrap_or(0);
        if count >= open_max {
            return Err(ShutdownError::Full { name: name.to_string(), connections_max: open_max });
        }
        books.open.insert(name.clone(), count.saturating_add(1));
        drop(books);
        Ok(TaskGuard { coordinator: self.clone(), name })
    }

    fn close(&self, name: &Arc<str>) {
        let mut books = self.books();
        match books.open.get_mut(name) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(books.open.remove(name)),
        }
        if books.open.is_empty() {
            self.0.emptied.notify_waiters();
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A poisoned lock is taken over: no change of the books is left half done.
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while a node runs; its drop says that the node has ended, whatever its drain came to.
pub(super) struct Attached(ShutdownCoordinator);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.complete();
    }
}

impl Hook {
    fn new<F, Fut, E>(name: String, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        let body: HookBody = Box::new(move || {
            let work = hook();
            Box::pin(async move { work.await.map_err(|error| error.to_string()) })
        });
        Self { name, body }
    }
}

/// Runs hooks side by side until the deadline; gives those that were late or failed.
async fn run(hooks: Vec<Hook>, deadline: Instant, runtime: &Handle) -> Vec<String> {
    let running = hooks.into_iter().map(|hook| {
        let Hook { name, body } = hook;
        // A task of its own, so that a panic is heard and a late one goes on by itself.
        let work = runtime.spawn(async move { body().await });
        async move {
            match timeout_at(deadline.into(), work).await {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(error))) => Some(format!("{name} failed: {error}")),
                Ok(Err(crash)) if crash.is_panic() => Some(format!("{name} panicked")),
                Ok(Err(_)) => Some(format!("{name} ended with its runtime")),
                Err(_) => Some(name),
            }
        }
    });
    join_all(running).await.into_iter().flatten().collect()
}

/// Held by a task or a connection while it is at work; its drop says that it is done.
#[derive(Debug)]
pub struct TaskGuard {
    coordinator: ShutdownCoordinator,
    name: Arc<str>,
}

impl TaskGuard {
    /// The name it was taken under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the holder is to finish what it has begun and end: at the beginning of
    /// Draining. Cancel safe.
    pub async fn stopping(&self) {
        self.coordinator.stopping().await;
    }

    /// Waits until the holder is to end as it stands: at the beginning of Cleanup. Cancel safe.
    pub async fn cut(&self) {
        self.coordinator.reached(Stage::Within(DrainPhase::Cleanup)).await;
    }

    /// True once [`TaskGuard::stopping`] would return at once.
    pub fn is_stopping(&self) -> bool {
        self.coordinator.is_stopping()
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.coordinator.close(&self.name);
    }
}

/// Counts the connections of one kind, bounds them, and lets a stop wait for them. Clones are the
/// same.
#[derive(Debug, Clone)]
pub struct ConnectionDrainer {
    coordinator: ShutdownCoordinator,
    name: Arc<str>,
    connections_max: usize,
}

impl ConnectionDrainer {
    /// A guard for one more connection.
    ///
    /// # Errors
    /// [`ShutdownError::Full`], and [`ShutdownError::Stopping`] once a stop has begun.
    pub fn open(&self) -> Result<TaskGuard, ShutdownError> {
        self.coordinator.open(self.name.clone(), self.connections_max)
    }

    /// Connections open now.
    pub fn len(&self) -> usize {
        self.coordinator.books().open.get(&self.name).copied().unwrap_or(0)
    }

    /// True where none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
