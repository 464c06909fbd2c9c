//! What a supervisor knows about a child: how to start it, and how to talk to what it started.
//!
//! A child is an actor or a task. Both are started by a factory that the supervisor keeps, so that
//! each start makes a fresh value: one that a panic left half changed is not to be trusted. What
//! has to survive a child lives outside it, in the store or in an actor that outlives it, and the
//! factory captures the way there (a [`Seat`](super::mailbox::Seat), a path, a handle).

use std::error::Error;
use std::fmt;
use std::future::Future;

use actix::prelude::{Actor, Addr, Context, Handler};
use actix_rt::ArbiterHandle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::panics::{Panics, PanicsWhenTold, Switch};
use crate::messages::lifecycle::{Drain, DrainPhase, ExitGuard};
pub use crate::proto::backoff::{BackoffPolicy, RestartIntensity, RestartPolicy};

/// Why a factory could not start its child.
pub type FactoryError = Box<dyn Error + Send + Sync>;

pub(crate) type Factory = Box<dyn FnMut(ExitGuard) -> Result<Child, FactoryError> + Send>;

/// How a supervisor starts and keeps one child.
pub struct ChildSpec {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) policy: RestartPolicy,
    pub(crate) backoff: BackoffPolicy,
    pub(crate) intensity: RestartIntensity,
    pub(crate) factory: Factory,
    pub(crate) is_independent: bool,
}

impl ChildSpec {
    /// A child that is always started again. `kind` names it in metrics, so it comes from a fixed
    /// set; it is the name in logs too unless [`named`](Self::named) gives a better one.
    ///
    /// The factory starts the child with the guard it is given and publishes its address where
    /// others look for it ([`Seat::publish`](super::mailbox::Seat::publish)). It runs on the
    /// supervisor's arbiter and must not block; a panic in it counts as a failed start.
    pub fn permanent(
        kind: &'static str,
        factory: impl FnMut(ExitGuard) -> Result<Child, FactoryError> + Send + 'static,
    ) -> Self {
        Self {
            kind,
            name: kind.to_owned(),
            policy: RestartPolicy::Permanent,
            backoff: BackoffPolicy::CHILD,
            intensity: RestartIntensity::CHILD,
            factory: Box::new(factory),
            is_independent: false,
        }
    }

    /// One of many that do not depend on each other: a drain asks them together, see
    /// [`Children`](crate::proto::drain::Children).
    pub fn independent(mut self) -> Self {
        self.is_independent = true;
        self
    }

    /// A child that is started again after a fault only.
    pub fn transient(
        kind: &'static str,
        factory: impl FnMut(ExitGuard) -> Result<Child, FactoryError> + Send + 'static,
    ) -> Self {
        Self { policy: RestartPolicy::Transient, ..Self::permanent(kind, factory) }
    }

    /// A child that is never started again.
    pub fn temporary(
        kind: &'static str,
        factory: impl FnMut(ExitGuard) -> Result<Child, FactoryError> + Send + 'static,
    ) -> Self {
        Self { policy: RestartPolicy::Temporary, ..Self::permanent(kind, factory) }
    }

    /// The name in logs, reports and the health detail. May be unbounded (`link 17`), because no
    /// metric carries it.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another backoff than [`BackoffPolicy::CHILD`].
    pub fn backoff(mut self, backoff: BackoffPolicy) -> Self {
        self.backoff = backoff;
        self
    }

    /// Another intensity than [`RestartIntensity::CHILD`].
    pub fn intensity(mut self, intensity: RestartIntensity) -> Self {
        self.intensity = intensity;
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, policy) = (&self.name, self.policy);
        f.debug_struct("ChildSpec").field("name", name).field("policy", &policy).finish_non_exhaustive()
    }
}

/// A started child, as its supervisor holds it.
pub struct Child {
    drain: DrainFn,
    abort: Option<AbortHandle>,
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "nothing there"))]
    pub(crate) panics: Panics,
}

impl Child {
    /// An actor that was started with an [`ExitGuard`] in its last field. The supervisor's copy
    /// of the address keeps it alive: it ends when it stops itself, never for want of senders.
    pub fn actor<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Drain> + PanicsWhenTold,
    {
        let drain = addr.clone().recipient::<Drain>();
        let panics = Panics::of_actor(addr);
        Self { drain: Box::new(move |message| drain.do_send(message)), abort: None, panics }
    }

    /// Spawns a task on this arbiter. It is told to end by its [`StopSignal`] when `stop_in`
    /// begins, answers the phases before that by itself, and is aborted if it is late in Cleanup.
    pub fn task<F, Fut, E>(guard: ExitGuard, stop_in: DrainPhase, body: F) -> Self
    where
        F: FnOnce(StopSignal) -> Fut,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: fmt::Display + 'static,
    {
        let (drain, signal) = drain_of_task(&guard, stop_in);
        let switch = Switch::default();
        let panics = Panics::of_task(&switch);
        let task = actix_rt::spawn(supervised(guard, signal.clone(), switch.guards(body(signal))));
        Self { drain, abort: Some(task.abort_handle()), panics }
    }

    /// As [`task`](Self::task), on another arbiter: the body is made and runs there. It cannot be
    /// aborted from here, so a late one is left behind.
    pub fn task_on<F, Fut, E>(arbiter: &ArbiterHandle, guard: ExitGuard, stop_in: DrainPhase, body: F) -> Self
    where
        F: FnOnce(StopSignal) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: fmt::Display + 'static,
    {
        let (drain, signal) = drain_of_task(&guard, stop_in);
        let switch = Switch::default();
        let panics = Panics::of_task(&switch);
        // When the arbiter is gone the closure is dropped, and the guard in it reports that.
        arbiter.spawn_fn(move || {
            actix_rt::spawn(supervised(guard, signal.clone(), switch.guards(body(signal))));
        });
        Self { drain, abort: None, panics }
    }

    pub(crate) fn ask(&self, message: Drain) {
        (self.drain)(message);
    }

    /// Ends a task at its next await. An actor cannot be ended from outside.
    pub(crate) fn abort(&self) {
        if let Some(task) = &self.abort {
            task.abort();
        }
    }
}

type DrainFn = Box<dyn Fn(Drain) + Send>;

fn drain_of_task(guard: &ExitGuard, stop_in: DrainPhase) -> (DrainFn, StopSignal) {
    let report = guard.reporter();
    let (stop, stopping) = watch::channel(None);
    let drain = move |message: Drain| {
        if message.phase < stop_in {
            report(message.phase);
        } else {
            stop.send_replace(Some(message));
        }
    };
    (Box::new(drain), StopSignal(stopping))
}

async fn supervised<E: fmt::Display>(
    mut guard: ExitGuard,
    signal: StopSignal,
    body: impl Future<Output = Result<(), E>>,
) {
    match body.await {
        Ok(()) if signal.0.borrow().is_some() => guard.drained(),
        Ok(()) => guard.stopped(),
        Err(error) => guard.failed(error),
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.abort.is_some() { "task" } else { "actor" };
        f.debug_tuple("Child").field(&kind).finish()
    }
}

/// Tells a task that it is to end.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<Option<Drain>>);

impl StopSignal {
    /// Waits until the task is to end; by when, the answer says. Cancel safe. When the supervisor
    /// itself is gone this never returns: the task goes on until its own work ends.
    pub async fn wanted(&mut self) -> Drain {
        match self.0.wait_for(Option::is_some).await.map(|drain| *drain) {
            Ok(Some(drain)) => drain,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Runs a future with an exit guard around it, for tasks that an actor spawns and owns itself
/// (the reader and the writer of a link). `Ok` ends as `Stopped`, an error as `Failed`, a panic or
/// an abort as `Crashed`.
pub async fn guarded<E: fmt::Display>(mut guard: ExitGuard, body: impl Future<Output = Result<(), E>>) {
    match body.await {
        Ok(()) => guard.stopped(),
        Err(error) => guard.failed(error),
    }
}
