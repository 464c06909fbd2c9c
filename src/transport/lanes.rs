//! Which thread a link runs on.
//!
//! A *lane* is a place where the tasks of links run: their handshakes and, on QUIC, what drives
//! their connections; whoever uses a link starts its reader and writer there too. Lane 0 is *home*:
//! where the port itself is driven, and where everything runs unless told otherwise. Media that
//! know nothing of lanes are at home.
//!
//! A link stays on its lane for life. It is put on the one with the fewest links, handshakes under
//! way included, when it is accepted or dialled: what one costs later is not known then.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

/// A task of a socket or a connection.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts tasks: on the runtime of whoever dials or listens, unless told otherwise. Who reads links on
/// a `LocalSet` starts them there as well. On a thread with both, each wake-up from one kind of task
/// to the other goes through the IO driver, which is a system call.
#[derive(Clone)]
pub struct Spawn(Arc<dyn Fn(Task) + Send + Sync>);

impl Spawn {
    /// With `start`, which may be called on any thread. A task that it cannot start it drops; what
    /// the task was to bring about then fails.
    pub fn with(start: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }

    pub(super) fn start(&self, task: Task) {
        (self.0)(task);
    }
}

impl Default for Spawn {
    fn default() -> Self {
        Self::with(|task| drop(tokio::spawn(task)))
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawn")
    }
}

/// The lanes of a node, shared by its ports: a clone is the same lanes with the same links on them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<All>);

#[derive(Debug, Default)]
struct All {
    home: Spawn,
    /// Lanes 1 and up; with none, links run at home.
    apart: Vec<Apart>,
    /// Where the search for the lane with the fewest links begins: equals take turns.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Apart {
    spawn: Spawn,
    links: AtomicUsize,
}

impl Lanes {
    /// Ports are driven by `home`, links by `apart`: lane 1, lane 2 and so on. With none apart,
    /// links are at home.
    pub fn new(home: Spawn, apart: impl IntoIterator<Item = Spawn>) -> Self {
        let apart = apart.into_iter().map(|spawn| Apart { spawn, links: AtomicUsize::new(0) }).collect();
        Self(Arc::new(All { home, apart, turn: AtomicUsize::new(0) }))
    }

    /// Links on each lane apart, handshakes under way included.
    pub fn links(&self) -> Vec<usize> {
        self.0.apart.iter().map(|lane| lane.links.load(Relaxed)).collect()
    }

    /// Where ports are driven.
    #[cfg(feature = "quic")]
    pub(super) fn home(&self) -> Spawn {
        self.0.home.clone()
    }

    /// A place on the lane with the fewest links.
    pub fn enter(&self) -> Lane {
        let lanes = &self.0.apart;
        let turn = self.0.turn.fetch_add(1, Relaxed);
        let from_turn = (0..lanes.len()).filter_map(|n| turn.wrapping_add(n).checked_rem(lanes.len()));
        // Two that choose at the same moment may choose the same one; the next choice sees both.
        let fewest = from_turn
            .filter_map(|at| Some((at, lanes.get(at)?)))
            .min_by_key(|(_, lane)| lane.links.load(Relaxed));
        let Some((at, lane)) = fewest else { return Lane { number: 0, lanes: Some(self.clone()) } };
        lane.links.fetch_add(1, Relaxed);
        Lane { number: at.wrapping_add(1), lanes: Some(self.clone()) }
    }
}

tokio::task_local! {
    /// Where the task at hand runs, for what a library starts from inside it.
    static HERE: Spawn;
}

/// Starts a task where the task at hand runs, or with `home` where that is on no lane.
#[cfg(feature = "quic")]
pub(super) fn spawn_here(home: &Spawn, task: Task) {
    HERE.try_with(Spawn::clone).unwrap_or_else(|_| home.clone()).start(task);
}

/// A link's place on a lane; it counts there until it is dropped. The default is home.
#[derive(Default)]
pub struct Lane {
    number: usize,
    lanes: Option<Lanes>,
}

impl Lane {
    /// 0 at home, else the lane apart, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// True where the link runs beside its port.
    pub(super) fn is_home(&self) -> bool {
        self.number == 0
    }

    fn apart(&self) -> Option<&Apart> {
        self.lanes.as_ref()?.0.apart.get(self.number.checked_sub(1)?)
    }

    /// Starts what `work` makes of the place on its lane.
    pub(super) fn start<F>(self, work: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(spawn) = self.apart().map(|lane| lane.spawn.clone()) {
            return spawn.start(Box::pin(HERE.scope(spawn.clone(), work(self))));
        }
        let home = self.lanes.as_ref().map_or_else(Spawn::default, |lanes| lanes.0.home.clone());
        home.start(Box::pin(work(self)));
    }

    /// Runs what `work` makes of the place on its lane, here where that is home, and gives what it
    /// came to; none where the lane is gone. Dropping the future ends the work.
    pub(super) async fn run<T, F>(self, work: impl FnOnce(Self) -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        if self.is_home() {
            return Some(work(self).await);
        }
        let (mut tell, told) = oneshot::channel();
        self.start(|lane| {
            let work = work(lane);
            async move {
                let done = tokio::select! {
                    biased;
                    () = tell.closed() => return,
                    done = work => done,
                };
                // Whoever asked may be gone by now; a link that nobody wants ends by its drop.
                let _ = tell.send(done);
            }
        });
        told.await.ok()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(lane) = self.apart() {
            lane.links.fetch_sub(1, Relaxed);
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({})", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Lanes {
        Lanes::new(Spawn::default(), (0..3).map(|_| Spawn::default()))
    }

    #[test]
    fn links_go_where_the_fewest_are_and_equals_take_turns() {
        let lanes = three();
        let mut held: Vec<Lane> = (0..6).map(|_| lanes.enter()).collect();
        assert_eq!(lanes.links(), [2, 2, 2]);
        held.retain(|lane| lane.number() != 2);
        assert_eq!(lanes.links(), [2, 0, 2]);
        let (first, second) = (lanes.enter(), lanes.enter());
        assert_eq!((first.number(), second.number()), (2, 2));
        drop(held);
        assert_eq!(lanes.links(), [0, 2, 0]);
    }

    #[test]
    fn without_lanes_apart_everything_is_at_home() {
        let lane = Lanes::default().enter();
        assert_eq!((lane.number(), Lane::default().number()), (0, 0));
    }

    #[tokio::test]
    async fn who_drops_the_question_ends_the_work_and_frees_the_place() {
        let lanes = three();
        let (held, mut dropped) = oneshot::channel::<()>();
        let work = lanes.enter().run(|lane| async move {
            let _held = (held, lane);
            std::future::pending::<()>().await;
        });
        // Long enough to begin: the work is started by the first poll.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), work).await.is_err());
        assert!(dropped.try_recv().is_err());
        assert!(dropped.await.is_err());
        assert_eq!(lanes.links(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_lane_that_is_gone_is_said_so() {
        let lanes = Lanes::new(Spawn::default(), [Spawn::with(drop)]);
        assert_eq!(lanes.enter().run(|_| async { 7 }).await, None);
        assert_eq!(lanes.links(), [0]);
        assert_eq!(Lanes::default().enter().run(|_| async { 7 }).await, Some(7));
    }
}
