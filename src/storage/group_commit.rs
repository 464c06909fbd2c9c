//! One thread owns the store; everyone else hands it submissions.
//!
//! A batch is whatever waits when the disk becomes free: one transaction, one sync, then all
//! completions. So a lone submission waits for nobody, and under load batches grow by themselves to
//! what one sync's time brings in.
//!
//! Patient work ([`LocalOp::patience`]) stands in a queue of its own. After a batch that has some of it
//! the next one that may has to wait for as long as that one took, 10 ms at most, or for 50 ms where
//! nothing but removals from the outbox wait. So what arrives at a busy node takes half of the disk's
//! time at most, in batches twice as large, and what is removed goes a hundred rows at a time; what
//! people wait for overtakes both. Idle, the wait is over before the next comes.
//!
//! What waits is bounded in operations and in bytes; beyond that submissions are handed back. A
//! submission that alone exceeds the bounds is taken when nothing else waits, so that none is
//! refused for ever.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Completion, HandedBack, LocalStore, Mailboxes, NotTaken,
    engine::{Engine, Work, WorkDone, WorkResult},
    error::StoreError,
    ops::{LocalOp, LocalOutcome, MailOp, MailOutcome, Patience},
};
use crate::clock;

/// Longest wait of patient work: half of what a receipt may be late.
const PATIENCE_MAX: Duration = Duration::from_millis(10);

/// Wait of removals from the outbox alone: after a crash what was to go is sent once more.
const REMOVALS_WAIT: Duration = Duration::from_millis(50);

/// Bounds of what waits for the store's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Operations; also the largest batch, whose before-images are kept in memory.
    pub ops_max: usize,
    /// Bytes of their contents.
    pub bytes_max: usize,
}

impl Default for QueueBounds {
    /// 1,024 operations: what a slow card's sync of 30 ms brings in at the target rate. 8 MiB:
    /// half of them with the largest frame.
    fn default() -> Self {
        Self { ops_max: 1024, bytes_max: 8 << 20 }
    }
}

/// What the store's thread reports, on that thread: the callback must not block.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// A batch was committed and answered.
    Batch(BatchStats),
    /// A batch failed and was answered with the error.
    Failed(StoreError),
    /// The thread is about to end; every submission was answered.
    Stopped(StopReason),
}

/// One committed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStats {
    /// Submissions in it.
    pub submissions: usize,
    /// Operations in it.
    pub ops: usize,
    /// Bytes of their contents, roughly.
    pub bytes: usize,
    /// From taking the batch to its being durable.
    pub took: Duration,
    /// Of that, time in syncs.
    pub syncing: Duration,
    /// Syncs; zero for a batch of reads.
    pub syncs: u64,
    /// Messages in the inbox after it.
    pub inbox_messages: u64,
}

/// Why the store's thread ended.
#[derive(Debug, Clone)]
pub enum StopReason {
    /// It was asked to, and everything taken before was committed.
    Closed,
    /// The store failed for good: the process has to exit non-zero.
    Failed(StoreError),
    /// A bug: the panic's message. The process has to exit non-zero.
    Panicked(String),
}

/// Called with what the thread reports.
pub type Observer = Box<dyn FnMut(StoreEvent) + Send>;

/// The thread and the only way to end it.
pub struct StoreThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<StopReason>>,
}

impl fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreThread").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// A way to submit; cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

impl StoreThread {
    /// Starts the thread that owns `engine`.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if the system has no thread left.
    pub fn start(
        engine: Box<dyn Engine>,
        bounds: QueueBounds,
        observer: Observer,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            boot_epoch: engine.boot_epoch(),
            bounds,
            queue: Mutex::default(),
            arrived: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("qpc-store".to_owned())
            .spawn(move || run(engine, &theirs, observer))
            .map_err(|_| StoreError::Stopped)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A way to submit.
    pub fn handle(&self) -> StoreHandle {
        StoreHandle { shared: Arc::clone(&self.shared) }
    }

    /// Takes nothing more, commits and answers what waits, and ends the thread. Blocks until then.
    pub fn close(mut self) -> StopReason {
        self.join()
    }

    fn join(&mut self) -> StopReason {
        self.shared.close();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(reason)) => reason,
            Some(Err(panic)) => StopReason::Panicked(panic_text(panic.as_ref())),
            None => StopReason::Closed,
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.join();
    }
}

impl StoreHandle {
    /// Ends the store as a failed sync of its own would: what waits is answered with
    /// [`StoreError::Stopped`], nothing more is taken, and the thread ends with
    /// [`StopReason::Failed`]. For files beside the engine, whose failure says as much about the disk.
    pub fn fail(&self, error: StoreError) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.failed.get_or_insert(error);
        drop(queue);
        self.shared.arrived.notify_one();
    }

    fn submit<Op, Outcome>(
        &self,
        ops: Vec<Op>,
        done: Completion<Outcome>,
        size: impl Fn(&Op) -> (usize, usize),
        wrap: impl FnOnce(Vec<Op>, Completion<Outcome>) -> Submission,
    ) -> Result<(), HandedBack<Op, Outcome>> {
        let (count, bytes) =
            ops.iter().map(size).fold((0usize, 0usize), |(count, bytes), (op_count, op_bytes)| {
                (count.saturating_add(op_count), bytes.saturating_add(op_bytes))
            });
        let mut queue = self.shared.lock();
        if let Err(reason) = queue.admit(&self.shared.bounds, count, bytes) {
            return Err(HandedBack { reason, ops, done });
        }
        let submission = wrap(ops, done);
        let patience = submission.work.patience();
        let lane = match patience {
            Patience::None => &mut queue.prompt,
            Patience::Short | Patience::Long => &mut queue.patient,
        };
        lane.push(submission, count, bytes);
        // A thread that rests for removals alone is to rest for less.
        let is_sooner = patience == Patience::Short && !std::mem::replace(&mut queue.is_short, true);
        let is_due = !queue.resting || is_sooner || queue.is_due(&self.shared.bounds);
        drop(queue);
        if is_due {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }
}

impl LocalStore for StoreHandle {
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>> {
        let size = |op: &LocalOp| (1, op.queued_bytes());
        self.submit(ops, done, size, |ops, done| Submission {
            work: Work::Local(ops),
            done: Done::Local(done),
        })
    }

    fn boot_epoch(&self) -> u32 {
        self.shared.boot_epoch
    }
}

impl Mailboxes for StoreHandle {
    fn submit(
        &self,
        ops: Vec<MailOp>,
        done: Completion<MailOutcome>,
    ) -> Result<(), HandedBack<MailOp, MailOutcome>> {
        // Each id to remove is a row to read and journal, so it counts as an operation.
        let size = |op: &MailOp| match op {
            MailOp::Remove(ids) | MailOp::RemoveFor { packet_ids: ids, .. } => {
                (ids.len().max(1), op.queued_bytes())
            }
            _ => (1, op.queued_bytes()),
        };
        self.submit(ops, done, size, |ops, done| Submission { work: Work::Mail(ops), done: Done::Mail(done) })
    }
}

// ---- the queue ---------------------------------------------------------------------------------

struct Submission {
    work: Work,
    done: Done,
}

enum Done {
    Local(Completion<LocalOutcome>),
    Mail(Completion<MailOutcome>),
}

impl Done {
    fn answer(self, result: WorkResult) {
        match (self, result) {
            (Done::Local(done), Ok(WorkDone::Local(outcomes))) => done(Ok(outcomes)),
            (Done::Mail(done), Ok(WorkDone::Mail(outcomes))) => done(Ok(outcomes)),
            (Done::Local(done), Err(e)) => done(Err(e)),
            (Done::Mail(done), Err(e)) => done(Err(e)),
            // An engine that answers another question than it was asked has not done the work.
            (Done::Local(done), Ok(WorkDone::Mail(_))) => done(Err(StoreError::Stopped)),
            (Done::Mail(done), Ok(WorkDone::Local(_))) => done(Err(StoreError::Stopped)),
        }
    }
}

/// What is committed together.
struct Batch {
    lane: Lane,
    /// Whether some of it was patient.
    is_patient: bool,
}

/// The last batch that had patient work in it.
#[derive(Clone, Copy)]
struct Patiently {
    ended: Instant,
    took: Duration,
}

impl Patiently {
    /// How much longer patient work has to wait, some of it for a short time only or all of it longer.
    fn rest(&self, is_short: bool) -> Duration {
        let wait = match is_short {
            true => self.took.min(PATIENCE_MAX),
            false => REMOVALS_WAIT,
        };
        wait.saturating_sub(clock::now().saturating_duration_since(self.ended))
    }
}

struct Shared {
    boot_epoch: u32,
    bounds: QueueBounds,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// Submissions in their order.
#[derive(Default)]
struct Lane {
    submissions: Vec<Submission>,
    ops: usize,
    bytes: usize,
}

impl Lane {
    fn push(&mut self, submission: Submission, ops: usize, bytes: usize) {
        self.submissions.push(submission);
        self.ops = self.ops.saturating_add(ops);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn append(&mut self, mut other: Lane) {
        self.submissions.append(&mut other.submissions);
        self.ops = self.ops.saturating_add(other.ops);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn is_empty(&self) -> bool {
        self.submissions.is_empty()
    }
}

#[derive(Default)]
struct Queue {
    prompt: Lane,
    /// What `prompt` may overtake.
    patient: Lane,
    /// True if some of that may wait for a short time only.
    is_short: bool,
    /// True while the thread waits for nothing but the time of what is patient.
    resting: bool,
    closed: bool,
    /// Why nothing of it is committed any more.
    failed: Option<StoreError>,
}

impl Queue {
    fn ops(&self) -> usize {
        self.prompt.ops.saturating_add(self.patient.ops)
    }

    fn bytes(&self) -> usize {
        self.prompt.bytes.saturating_add(self.patient.bytes)
    }

    fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.patient.is_empty()
    }

    fn admit(&self, bounds: &QueueBounds, count: usize, bytes: usize) -> Result<(), NotTaken> {
        if self.closed {
            return Err(NotTaken::Stopped);
        }
        let fits = self.ops().saturating_add(count) <= bounds.ops_max
            && self.bytes().saturating_add(bytes) <= bounds.bytes_max;
        if fits || self.is_empty() { Ok(()) } else { Err(NotTaken::Full) }
    }

    /// True if something of it cannot wait.
    fn is_due(&self, bounds: &QueueBounds) -> bool {
        self.closed || !self.prompt.is_empty() || self.patience_ends(bounds)
    }

    /// True if what is patient takes the room of what is not.
    fn patience_ends(&self, bounds: &QueueBounds) -> bool {
        self.closed
            || self.ops().saturating_mul(2) >= bounds.ops_max
            || self.bytes().saturating_mul(2) >= bounds.bytes_max
    }

    /// All of it.
    fn take(&mut self) -> Lane {
        let mut all = std::mem::take(&mut self.prompt);
        all.append(std::mem::take(&mut self.patient));
        self.is_short = false;
        all
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("boot_epoch", &self.boot_epoch).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under the lock, so a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// What waits, of patient work only what has waited long enough after the `last` batch of it; the
    /// end once the queue is closed and empty, or failed.
    fn take(&self, last: Option<Patiently>) -> Result<Batch, StopReason> {
        let mut queue = self.lock();
        loop {
            if let Some(error) = &queue.failed {
                return Err(StopReason::Failed(error.clone()));
            }
            let rest = last.map_or(Duration::ZERO, |last| last.rest(queue.is_short));
            if !queue.patient.is_empty() && (rest.is_zero() || queue.patience_ends(&self.bounds)) {
                return Ok(Batch { lane: queue.take(), is_patient: true });
            }
            if !queue.prompt.is_empty() {
                return Ok(Batch { lane: std::mem::take(&mut queue.prompt), is_patient: false });
            }
            if !queue.patient.is_empty() {
                queue.resting = true;
                let waited = self.arrived.wait_timeout(queue, rest);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                queue.resting = false;
                continue;
            }
            if queue.closed {
                return Err(StopReason::Closed);
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes the queue and takes what is left in it.
    fn close_and_take(&self) -> Vec<Submission> {
        let mut queue = self.lock();
        queue.closed = true;
        queue.take().submissions
    }
}

// ---- the thread --------------------------------------------------------------------------------

fn run(mut engine: Box<dyn Engine>, shared: &Shared, mut observer: Observer) -> StopReason {
    let mut reason = guarded(|| serve(engine.as_mut(), shared, &mut observer));
    // After a failure some may have been submitted since: they are answered too.
    for submission in shared.close_and_take() {
        if let Some(panic) = answer(submission.done, Err(StoreError::Stopped)) {
            reason = StopReason::Panicked(panic);
        }
    }
    // The engine closes its file before anyone is told that the store has stopped.
    let reason = guarded(|| {
        drop(engine);
        reason
    });
    observer(StoreEvent::Stopped(reason.clone()));
    reason
}

fn serve(engine: &mut dyn Engine, shared: &Shared, observer: &mut Observer) -> StopReason {
    let mut last = None;
    loop {
        let ended = shared.take(last).and_then(|Batch { lane, is_patient }| {
            let took = commit(engine, lane, observer)?;
            Ok(is_patient.then_some(took))
        });
        match ended {
            Ok(None) => {}
            Ok(Some(took)) => last = Some(Patiently { ended: clock::now(), took }),
            Err(reason) => return reason,
        }
    }
}

/// What it took.
fn commit(engine: &mut dyn Engine, batch: Lane, observer: &mut Observer) -> Result<Duration, StopReason> {
    let (ops, bytes) = (batch.ops, batch.bytes);
    let (works, dones): (Vec<Work>, Vec<Done>) =
        batch.submissions.into_iter().map(|s| (s.work, s.done)).unzip();
    let (start, synced) = (clock::now(), engine.synced());
    // A panic must not leave anyone waiting for an answer that never comes.
    let committed = catch_unwind(AssertUnwindSafe(|| engine.commit(&works)));
    let took = start.elapsed();
    let (results, event, stop) = match committed {
        Ok(Ok(results)) if results.len() == dones.len() => {
            let now_synced = engine.synced();
            let stats = BatchStats {
                submissions: dones.len(),
                ops,
                bytes,
                took,
                syncing: now_synced.time.saturating_sub(synced.time),
                syncs: now_synced.count.saturating_sub(synced.count),
                inbox_messages: engine.inbox_messages(),
            };
            (results, Some(StoreEvent::Batch(stats)), None)
        }
        Ok(Ok(_)) => {
            let text = "the engine answered another number of submissions".to_owned();
            (Vec::new(), None, Some(StopReason::Panicked(text)))
        }
        Ok(Err(e)) => {
            let stop = e.is_fatal().then(|| StopReason::Failed(e.clone()));
            (vec![Err(e.clone()); dones.len()], Some(StoreEvent::Failed(e)), stop)
        }
        Err(panic) => (Vec::new(), None, Some(StopReason::Panicked(panic_text(panic.as_ref())))),
    };
    let mut results = results.into_iter();
    let mut panicked = None;
    for done in dones {
        let result = results.next().unwrap_or(Err(StoreError::Stopped));
        panicked = panicked.or(answer(done, result));
    }
    if let Some(event) = event {
        observer(event);
    }
    match stop.or(panicked.map(StopReason::Panicked)) {
        Some(reason) => Err(reason),
        None => Ok(took),
    }
}

/// Runs one completion; the text of its panic, which must not keep the others from their answers.
fn answer(done: Done, result: WorkResult) -> Option<String> {
    let answered = catch_unwind(AssertUnwindSafe(|| done.answer(result)));
    answered.err().map(|panic| panic_text(panic.as_ref()))
}

fn guarded(act: impl FnOnce() -> StopReason) -> StopReason {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|panic| StopReason::Panicked(panic_text(panic.as_ref())))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;
    use crate::storage::{MemEngine, PageLimit};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An engine that shows each batch and waits to be told what to do with it.
    struct Gated {
        inner: MemEngine,
        batches: Sender<usize>,
        verdicts: Receiver<Verdict>,
    }

    enum Verdict {
        Commit,
        Fail(StoreError),
        Panic,
    }

    impl Engine for Gated {
        fn commit(&mut self, works: &[Work]) -> Result<Vec<WorkResult>, StoreError> {
            self.batches.send(works.len()).unwrap();
            match self.verdicts.recv_timeout(PATIENCE).unwrap() {
                Verdict::Commit => self.inner.commit(works),
                Verdict::Fail(e) => Err(e),
                Verdict::Panic => panic!("gate"),
            }
        }

        fn boot_epoch(&self) -> u32 {
            self.inner.boot_epoch()
        }
    }

    struct Bench {
        thread: StoreThread,
        handle: StoreHandle,
        batches: Receiver<usize>,
        verdicts: Sender<Verdict>,
        events: Receiver<StoreEvent>,
    }

    fn bench(bounds: QueueBounds) -> Bench {
        let (batch_tx, batches) = mpsc::channel();
        let (verdicts, verdict_rx) = mpsc::channel();
        let (event_tx, events) = mpsc::channel();
        let gated = Gated { inner: MemEngine::default(), batches: batch_tx, verdicts: verdict_rx };
        let observer: Observer = Box::new(move |event| drop(event_tx.send(event)));
        let thread = StoreThread::start(Box::new(gated), bounds, observer).unwrap();
        Bench { handle: thread.handle(), thread, batches, verdicts, events }
    }

    impl Bench {
        fn submit(&self, ops: usize) -> Result<Receiver<Result<usize, StoreError>>, NotTaken> {
            let (tx, rx) = mpsc::channel();
            let done: Completion<LocalOutcome> =
                Box::new(move |result| drop(tx.send(result.map(|o| o.len()))));
            let ops = vec![LocalOp::Counts; ops];
            LocalStore::submit(&self.handle, ops, done).map_err(|back| back.reason)?;
            Ok(rx)
        }

        fn batch(&self) -> usize {
            self.batches.recv_timeout(PATIENCE).unwrap()
        }
    }

    fn wait(rx: &Receiver<Result<usize, StoreError>>) -> Result<usize, StoreError> {
        rx.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_lone_submission_is_committed_alone_and_what_waits_becomes_one_batch() {
        let b = bench(QueueBounds::default());
        // Nothing else ever arrives before the first batch is on its way: no timer, no company.
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let waiting: Vec<_> = (0..10).map(|_| b.submit(1).unwrap()).collect();
        assert!(first.try_recv().is_err(), "answered before it was durable");
        b.verdicts.send(Verdict::Commit).unwrap();
        assert_eq!(wait(&first).unwrap(), 1);
        assert_eq!(b.batch(), 10);
        b.verdicts.send(Verdict::Commit).unwrap();
        for rx in &waiting {
            assert_eq!(wait(rx).unwrap(), 1);
        }
        for expected in [1, 10] {
            match b.events.recv_timeout(PATIENCE).unwrap() {
                StoreEvent::Batch(stats) => assert_eq!((stats.submissions, stats.ops), (expected, expected)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_somebody_waits_for_overtakes_patient_work() {
        // The wait of patient work is one of real time, so a machine that stands still may end it.
        let overtook = (0..20).any(|_| {
            let b = bench(QueueBounds::default());
            let first = b.submit(1).unwrap();
            assert_eq!(b.batch(), 1);
            let taken = clock::now();
            let patient = b.submit(2).unwrap();
            let (tx, prompt) = mpsc::channel();
            let reserve = LocalOp::Reserve { counter: crate::storage::Counter::Announce, count: 1 };
            let done: Completion<LocalOutcome> = Box::new(move |result| drop(tx.send(result)));
            LocalStore::submit(&b.handle, vec![reserve], done).unwrap();
            // What comes after a batch waits for as long as that one takes.
            while taken.elapsed() < PATIENCE_MAX {
                thread::yield_now();
            }
            (0..3).for_each(|_| b.verdicts.send(Verdict::Commit).unwrap());
            let second = b.batch();
            assert!(prompt.recv_timeout(PATIENCE).unwrap().is_ok());
            assert_eq!((wait(&first).unwrap(), wait(&patient).unwrap()), (1, 2));
            second == 1
        });
        assert!(overtook);
    }

    #[test]
    fn removals_wait_longest_and_go_with_what_may_wait_less() {
        let last = Patiently { ended: clock::now(), took: Duration::from_secs(1) };
        assert!(last.rest(true) <= PATIENCE_MAX);
        let long_ago = Patiently { ended: last.ended - REMOVALS_WAIT, ..last };
        assert_eq!(long_ago.rest(false), Duration::ZERO, "idle, the next one goes at once");
        // A removal waits for those that follow it, until one comes that may not.
        let rested = (0..20).any(|_| {
            let b = bench(QueueBounds::default());
            let first = b.submit(1).unwrap();
            assert_eq!(b.batch(), 1);
            b.verdicts.send(Verdict::Commit).unwrap();
            assert_eq!(wait(&first).unwrap(), 1);
            let (tx, removed) = mpsc::channel();
            let done: Completion<LocalOutcome> = Box::new(move |result| drop(tx.send(result)));
            LocalStore::submit(&b.handle, vec![LocalOp::OutboxRemove(1)], done).unwrap();
            let rested = b.batches.recv_timeout(2 * PATIENCE_MAX).is_err();
            let short = b.submit(1).unwrap();
            (0..3).for_each(|_| b.verdicts.send(Verdict::Commit).unwrap());
            assert_eq!(wait(&short).unwrap(), 1);
            assert!(removed.recv_timeout(PATIENCE).unwrap().is_ok());
            rested && b.batches.try_iter().next() == Some(2)
        });
        assert!(rested);
    }

    #[test]
    fn patient_is_work_of_which_all_is_and_of_mailboxes_none() {
        let remove = LocalOp::OutboxRemove(1);
        let reserve = LocalOp::Reserve { counter: crate::storage::Counter::Announce, count: 1 };
        assert_eq!(Work::Local(vec![remove.clone()]).patience(), Patience::Long);
        assert_eq!(Work::Local(vec![remove.clone(), LocalOp::Counts]).patience(), Patience::Short);
        // A part that starts anew reads behind what the one before it had submitted.
        let limit = PageLimit::default();
        for page in [
            LocalOp::OutboxPage { after: None, limit },
            LocalOp::EarlyPage { after: None, limit },
            LocalOp::InboxPage { after: None, limit },
        ] {
            assert_eq!(Work::Local(vec![page]).patience(), Patience::Short);
        }
        assert_eq!(Work::Local(vec![remove, reserve]).patience(), Patience::None);
        assert_eq!(Work::Local(Vec::new()).patience(), Patience::None);
        assert_eq!(Work::Mail(vec![MailOp::Remove(Vec::new())]).patience(), Patience::None);
    }

    #[test]
    fn a_full_queue_hands_back_and_an_oversized_submission_is_taken_when_alone() {
        let b = bench(QueueBounds { ops_max: 4, bytes_max: usize::MAX });
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let large = b.submit(9).unwrap();
        assert_eq!(b.submit(1).unwrap_err(), NotTaken::Full);
        for _ in 0..2 {
            b.verdicts.send(Verdict::Commit).unwrap();
        }
        assert_eq!(wait(&first).unwrap(), 1);
        assert_eq!(wait(&large).unwrap(), 9);
    }

    #[test]
    fn what_is_handed_back_is_whole_and_uncalled() {
        let b = bench(QueueBounds { ops_max: 0, bytes_max: 0 });
        let _first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let _second = b.submit(1).unwrap();
        let (tx, rx) = mpsc::channel();
        let ops = vec![LocalOp::Reserve { counter: crate::storage::Counter::Announce, count: 3 }];
        let back =
            LocalStore::submit(&b.handle, ops.clone(), Box::new(move |_| tx.send(()).unwrap())).unwrap_err();
        assert_eq!((back.reason, &back.ops), (NotTaken::Full, &ops));
        assert!(rx.try_recv().is_err());
        (back.done)(Err(StoreError::Stopped));
        rx.recv_timeout(PATIENCE).unwrap();
        for _ in 0..2 {
            b.verdicts.send(Verdict::Commit).unwrap();
        }
    }

    #[test]
    fn a_recoverable_failure_answers_its_batch_only() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        b.verdicts.send(Verdict::Fail(StoreError::Random("none".into()))).unwrap();
        assert!(matches!(wait(&first), Err(StoreError::Random(_))));
        let second = b.submit(1).unwrap();
        b.verdicts.send(Verdict::Commit).unwrap();
        assert_eq!(wait(&second).unwrap(), 1);
    }

    fn io_fatal() -> StoreError {
        StoreError::IoFatal { doing: "testing", source: Arc::new(std::io::Error::from_raw_os_error(5)) }
    }

    #[test]
    fn after_a_fatal_failure_everyone_is_answered_and_nothing_more_is_taken() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let second = b.submit(1).unwrap();
        b.verdicts.send(Verdict::Fail(io_fatal())).unwrap();
        assert!(matches!(wait(&first), Err(StoreError::IoFatal { .. })));
        assert!(matches!(wait(&second), Err(StoreError::Stopped)));
        assert!(matches!(b.thread.close(), StopReason::Failed(StoreError::IoFatal { .. })));
        let events: Vec<_> = b.events.iter().collect();
        assert!(matches!(events.last(), Some(StoreEvent::Stopped(StopReason::Failed(_)))), "{events:?}");
    }

    #[test]
    fn a_failure_beside_the_engine_ends_the_store_without_another_commit() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let second = b.submit(1).unwrap();
        b.handle.fail(io_fatal());
        assert_eq!(b.submit(1).unwrap_err(), NotTaken::Stopped);
        b.verdicts.send(Verdict::Commit).unwrap();
        assert_eq!(wait(&first).unwrap(), 1, "it was on its way to a file that did not fail");
        assert!(matches!(wait(&second), Err(StoreError::Stopped)));
        assert!(matches!(b.thread.close(), StopReason::Failed(StoreError::IoFatal { .. })));
        assert!(b.batches.try_recv().is_err(), "committed after the failure");
    }

    #[test]
    fn a_panic_answers_everyone_and_surfaces() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let second = b.submit(1).unwrap();
        b.verdicts.send(Verdict::Panic).unwrap();
        assert!(matches!(wait(&first), Err(StoreError::Stopped)));
        assert!(matches!(wait(&second), Err(StoreError::Stopped)));
        match b.thread.close() {
            StopReason::Panicked(text) => assert_eq!(text, "gate"),
            other => panic!("{other:?}"),
        }
        let mut handle_says = LocalStore::submit(&b.handle, Vec::new(), Box::new(|_| ())).unwrap_err();
        handle_says.ops.clear();
        assert_eq!(handle_says.reason, NotTaken::Stopped);
    }

    #[test]
    fn a_panicking_completion_keeps_nobody_from_an_answer() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        LocalStore::submit(&b.handle, vec![LocalOp::Counts], Box::new(|_| panic!("completion"))).unwrap();
        let last = b.submit(1).unwrap();
        for _ in 0..2 {
            b.verdicts.send(Verdict::Commit).unwrap();
        }
        assert_eq!(wait(&first).unwrap(), 1);
        assert_eq!(wait(&last).unwrap(), 1);
        match b.thread.close() {
            StopReason::Panicked(text) => assert_eq!(text, "completion"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn closing_commits_what_waits() {
        let b = bench(QueueBounds::default());
        let first = b.submit(1).unwrap();
        assert_eq!(b.batch(), 1);
        let second = b.submit(1).unwrap();
        for _ in 0..2 {
            b.verdicts.send(Verdict::Commit).unwrap();
        }
        assert!(matches!(b.thread.close(), StopReason::Closed));
        assert_eq!(wait(&first).unwrap(), 1);
        assert_eq!(wait(&second).unwrap(), 1);
    }
}
