//! The operations of both stores, their rows and their outcomes.
//!
//! Times named `_unix_s` are seconds since 1970 by the wall clock; those named `_s` are seconds of the
//! node's steady time, which never jumps ([`crate::proto::node_clock`]). Rows called *sealed* are encrypted on disk; all others are
//! readable there by whoever can read the data directory.

use bytes::Bytes;

use super::{
    error::StoreError,
    quota::{HoldRefusal, InboxScope},
};
use crate::wire::{Address, MessageUid, PacketId, Priority, TransferTag, UidPrefix};

/// Bounds of one page. A page ends at whichever comes first and holds at least one row if there
/// is one, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Rows.
    pub rows_max: usize,
    /// Bytes of the rows' contents.
    pub bytes_max: usize,
}

impl Default for PageLimit {
    fn default() -> Self {
        Self { rows_max: 256, bytes_max: 1 << 20 }
    }
}

// ---- local -------------------------------------------------------------------------------------

/// One operation on this node's own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalOp {
    /// Stores a message until its receipt or expiry. → [`LocalOutcome::Stored`].
    OutboxPut(OutboxRow),
    /// Replaces the small state beside a message. → [`LocalOutcome::Done`] or [`LocalOutcome::Absent`].
    OutboxUpdate {
        /// Where it was stored.
        seq: u64,
        /// New state.
        state: Vec<u8>,
    },
    /// Forgets the message stored there. → [`LocalOutcome::Done`] or [`LocalOutcome::Absent`].
    OutboxRemove(u64),
    /// Reads messages in the order they were put. → [`LocalOutcome::Outbox`].
    OutboxPage {
        /// The `next` of the page before; `None` starts.
        after: Option<u64>,
        /// Bounds of the page.
        limit: PageLimit,
    },

    /// Enters a message into the inbox together with both records that keep it from entering
    /// again. → [`LocalOutcome::Committed`], [`LocalOutcome::Seen`], or [`LocalOutcome::InboxFull`],
    /// which leaves no record; [`LocalOutcome::Early`] where it awaits another, [`LocalOutcome::Requested`]
    /// where its source has to be accepted first: then it is as durable as any, and in no page of the
    /// inbox; [`LocalOutcome::Unwanted`], which leaves no record either.
    InboxCommit(InboxCommit),
    /// Has an early message enter the inbox if what it awaits is there or was, or in any case.
    /// → [`LocalOutcome::Committed`], [`LocalOutcome::Early`], or [`LocalOutcome::Absent`], also where its
    /// row cannot be read and was set aside.
    EarlyRelease {
        /// Who sent it.
        source: Address,
        /// The message.
        uid: MessageUid,
        /// In any case.
        force: bool,
    },
    /// Reads which messages are early, by source and uid. → [`LocalOutcome::Earlies`].
    EarlyPage {
        /// Source and uid of the last one already read; `None` starts.
        after: Option<(Address, MessageUid)>,
        /// Bounds of the page.
        limit: PageLimit,
    },
    /// The same for a whole file, which takes over the room that [`LocalOp::PartialOpen`] reserved
    /// and so is never refused. → [`LocalOutcome::Committed`], [`LocalOutcome::Requested`] or
    /// [`LocalOutcome::Seen`].
    FileCommit {
        /// What enters the inbox.
        commit: InboxCommit,
        /// Which of its source's transfers.
        tag: TransferTag,
    },
    /// Reads the inbox in arrival order. → [`LocalOutcome::Inbox`].
    InboxPage {
        /// Number of the last entry already read; `None` starts.
        after: Option<u64>,
        /// Bounds of the page.
        limit: PageLimit,
    },
    /// Takes an entry out of the inbox; its duplicate records stay. → [`LocalOutcome::Done`] or
    /// [`LocalOutcome::Absent`].
    InboxRemove(u64),
    /// Reads what waits for its source to be accepted, by source and in arrival order.
    /// → [`LocalOutcome::Requests`].
    RequestPage {
        /// Source and number of the last entry already read; `None` starts.
        after: Option<(Address, u64)>,
        /// Bounds of the page.
        limit: PageLimit,
    },
    /// Has what waited for its source to be accepted enter the inbox. → [`LocalOutcome::Committed`] or
    /// [`LocalOutcome::Absent`], also where its row cannot be read and was set aside.
    RequestEnter {
        /// Who sent it.
        source: Address,
        /// Its number in the page.
        seq: u64,
    },
    /// Forgets what waited for its source to be accepted; its duplicate record stays.
    /// → [`LocalOutcome::Done`] or [`LocalOutcome::Absent`].
    RequestRemove {
        /// Who sent it.
        source: Address,
        /// Its number in the page.
        seq: u64,
    },
    /// Drops duplicate records whose time has passed, oldest first, at most `rows_max`.
    /// → [`LocalOutcome::Forgotten`]. Only a caller that trusts its clock may ask.
    ForgetSeen {
        /// Records with an earlier `until` go.
        now_unix_s: u64,
        /// Bound of the work.
        rows_max: usize,
    },

    /// Stores the state of a file that is to be received and reserves its room in the inbox.
    /// → [`LocalOutcome::Done`], [`LocalOutcome::InboxFull`] or [`LocalOutcome::Unwanted`].
    PartialOpen {
        /// Its state.
        row: PartialRow,
        /// The neighbour its manifest came over; charged as of an [`InboxCommit`].
        ingress: Option<Address>,
        /// Bytes the whole file will have.
        file_bytes: u64,
        /// What becomes of a stranger's.
        strangers: Strangers,
    },
    /// Stores or replaces the state of a file being received. → [`LocalOutcome::Done`].
    PartialPut(PartialRow),
    /// Forgets a file being received. → [`LocalOutcome::Done`] or [`LocalOutcome::Absent`].
    PartialRemove {
        /// Who sends it.
        source: Address,
        /// Which of its transfers.
        tag: TransferTag,
    },
    /// Reads files being received, by source and tag. → [`LocalOutcome::Partials`].
    PartialPage {
        /// Source and tag of the last row already read; `None` starts.
        after: Option<(Address, TransferTag)>,
        /// Bounds of the page.
        limit: PageLimit,
    },

    /// Takes `count` numbers that no other reservation ever got or gets, crash or not.
    /// → [`LocalOutcome::Reserved`] or [`LocalOutcome::Exhausted`]. Numbers not used before a crash
    /// are lost, which is the point. The first number of all is 1.
    Reserve {
        /// Of which counter.
        counter: Counter,
        /// How many.
        count: u32,
    },
    /// Raises a counter so that the next reservation starts at or above `at_least`.
    /// → [`LocalOutcome::Done`].
    RaiseCounter {
        /// Which counter.
        counter: Counter,
        /// Lower bound of later reservations.
        at_least: u64,
    },
    /// Raises the boot epoch, so that this start and all later ones are at or above `at_least`:
    /// for a node that learned it was restored from a backup. → [`LocalOutcome::BootEpoch`].
    RaiseBootEpoch {
        /// Lower bound.
        at_least: u32,
    },

    /// Stores or replaces a small value. → [`LocalOutcome::Done`].
    KvPut {
        /// Where.
        namespace: Namespace,
        /// Under which key, at most 255 bytes.
        key: Vec<u8>,
        /// What.
        value: Vec<u8>,
    },
    /// Reads a small value. → [`LocalOutcome::Value`].
    KvGet {
        /// Where.
        namespace: Namespace,
        /// Under which key.
        key: Vec<u8>,
    },
    /// Removes a small value. → [`LocalOutcome::Done`] or [`LocalOutcome::Absent`].
    KvRemove {
        /// Where.
        namespace: Namespace,
        /// Under which key.
        key: Vec<u8>,
    },
    /// Removes a whole namespace, to be written anew in the same submission. → [`LocalOutcome::Done`].
    KvClear(Namespace),
    /// Reads a namespace in key order. → [`LocalOutcome::Values`].
    KvPage {
        /// Where.
        namespace: Namespace,
        /// Key of the last row already read; `None` starts.
        after: Option<Vec<u8>>,
        /// Bounds of the page.
        limit: PageLimit,
    },

    /// Counts rows without reading them. → [`LocalOutcome::Counts`].
    Counts,
}

/// What one [`LocalOp`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalOutcome {
    /// It is done.
    Done,
    /// There was nothing of that name, which is as good as done.
    Absent,
    /// The message is in the outbox.
    Stored {
        /// Its place in the order of putting.
        seq: u64,
    },
    /// The message is in the inbox.
    Committed {
        /// Its place in the order of arrival.
        seq: u64,
    },
    /// The message is here, and not in the inbox before `awaits`.
    Early {
        /// What of its source it waits for.
        awaits: UidPrefix,
        /// Whether it is charged to the strangers' share.
        stranger: bool,
    },
    /// The message is here, and not in the inbox before its source is accepted.
    Requested,
    /// It is a stranger's, and strangers are refused; nothing was stored and nothing recorded.
    Unwanted,
    /// The inbox has no room for it; nothing was stored and nothing recorded.
    InboxFull(InboxScope),
    /// It arrived before.
    Seen,
    /// A page of the outbox.
    Outbox(OutboxPage),
    /// A page of the inbox.
    Inbox(InboxPage),
    /// A page of what waits for its source to be accepted.
    Requests(RequestPage),
    /// A page of the early messages.
    Earlies(EarlyPage),
    /// A page of files being received.
    Partials(PartialPage),
    /// Records were dropped.
    Forgotten {
        /// How many.
        rows: usize,
        /// True if more are due.
        more: bool,
    },
    /// The numbers `first .. first + count`.
    Reserved {
        /// The first of them.
        first: u64,
        /// How many.
        count: u32,
    },
    /// The counter has no `count` numbers left; nothing was taken.
    Exhausted,
    /// The boot epoch now.
    BootEpoch(u32),
    /// A small value, if there is one.
    Value(Option<Vec<u8>>),
    /// A page of small values.
    Values(KvPage),
    /// Rows by kind.
    Counts(LocalCounts),
}

/// A message of our own, until its receipt or expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The message's uid.
    pub uid: MessageUid,
    /// Where it goes.
    pub destination: Address,
    /// When the user gave it to us.
    pub created_unix_s: u64,
    /// When it is given up.
    pub expires_s: u64,
    /// Custody and the like: small, replaced by itself, opaque, not sealed. Empty for most.
    pub state: Vec<u8>,
    /// What to send, opaque. Sealed.
    pub body: Vec<u8>,
}

/// Messages in the order they were put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxPage {
    /// The messages, each with where it is stored.
    pub rows: Vec<(u64, OutboxRow)>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// A message that arrived for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxCommit {
    /// The message's uid.
    pub uid: MessageUid,
    /// Who sent it.
    pub source: Address,
    /// The neighbour it came over: charged with it where its source is a stranger. None where no
    /// neighbour brought it, and for a file, whose manifest's neighbour is charged.
    pub ingress: Option<Address>,
    /// Earliest time at which the packet would be refused anyway.
    pub dedup_until_unix_s: u64,
    /// What of this source has to be in the inbox first.
    pub awaits: Awaits,
    /// What becomes of it where its source is a stranger.
    pub strangers: Strangers,
    /// What `recv` needs, opaque. Sealed.
    pub entry: Vec<u8>,
}

/// What becomes of the messages of strangers: sources that this node never wrote to, that are no
/// contacts and were not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strangers {
    /// They enter the inbox.
    #[default]
    Enter,
    /// They wait, durably, until their source is accepted.
    Ask,
    /// They are refused.
    Refuse,
}

/// What has to be in the inbox before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Awaits {
    /// This one, whether it is early or was never here.
    pub follows: Option<UidPrefix>,
    /// And this one, should it be early still.
    pub behind: Option<UidPrefix>,
    /// Whether a stranger's message waits too; if not, it enters as it comes.
    pub stranger_waits: bool,
}

/// A message that is here before one that has to be in the inbox first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyRow {
    /// Who sent it.
    pub source: Address,
    /// The message's uid.
    pub uid: MessageUid,
    /// Its place in the order of arrival.
    pub seq: u64,
    /// What it waits for.
    pub awaits: UidPrefix,
    /// Whether it is charged to the strangers' share.
    pub stranger: bool,
}

/// Early messages by source and uid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EarlyPage {
    /// The messages.
    pub rows: Vec<EarlyRow>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<(Address, MessageUid)>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// An entry of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRow {
    /// Its place in the order in which messages entered.
    pub seq: u64,
    /// The message's uid.
    pub uid: MessageUid,
    /// Who sent it.
    pub source: Address,
    /// As committed.
    pub entry: Vec<u8>,
}

/// Entries in arrival order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxPage {
    /// The entries.
    pub rows: Vec<InboxRow>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// What waits for its source to be accepted, by source and in arrival order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestPage {
    /// The entries.
    pub rows: Vec<InboxRow>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<(Address, u64)>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// A file being received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialRow {
    /// Who sends it.
    pub source: Address,
    /// Which of its transfers.
    pub tag: TransferTag,
    /// When it is given up.
    pub until_unix_s: u64,
    /// Manifest and chunk bitmap, opaque. Sealed.
    pub state: Vec<u8>,
}

/// Files being received, by source and tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartialPage {
    /// The files' states.
    pub rows: Vec<PartialRow>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<(Address, TransferTag)>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// A counter whose numbers are given out once, ever. Numbers are part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Sequence numbers of this node's announces.
    Announce = 1,
    /// Sequence numbers of this node's envelopes.
    Envelope = 2,
    /// Order of this node's key records.
    KeyRecord = 3,
    /// Identifiers of receiver keys.
    ReceiverKey = 4,
    /// Chain positions of symmetric group mode.
    GroupChain = 5,
}

impl Counter {
    /// All counters.
    pub const ALL: [Counter; 5] =
        [Self::Announce, Self::Envelope, Self::KeyRecord, Self::ReceiverKey, Self::GroupChain];
}

/// A space of small values. Numbers are part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Namespace {
    /// Newest key record by address.
    KeyRecord = 1,
    /// Routing table snapshot.
    Route = 2,
    /// Peers added at run time.
    Peer = 3,
    /// Links refused at run time.
    Ban = 4,
    /// Contacts.
    Contact = 5,
    /// This node's own small facts.
    Identity = 6,
    /// Secrets of this node's receiver keys. Sealed, so that removal destroys them.
    ReceiverSecret = 7,
    /// Highest announce order seen by address; outlives routes.
    OrderFloor = 8,
    /// Blocked senders.
    Block = 9,
    /// Addresses that are contacts: no strangers to the inbox.
    Known = 10,
    /// Envelopes of others that felled a part of this node, for who looks into it.
    Quarantine = 11,
    /// Strangers whose messages their owner accepted: no strangers to the inbox.
    Accepted = 12,
}

impl Namespace {
    /// True if values are encrypted on disk under keys that die with them.
    pub fn is_sealed(self) -> bool {
        matches!(self, Namespace::ReceiverSecret)
    }
}

/// Small values in key order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KvPage {
    /// Keys and values.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<Vec<u8>>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// Rows by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalCounts {
    /// Messages of our own on their way.
    pub outbox: u64,
    /// Messages that arrived and were not taken yet, the early ones and those among them whose source
    /// is not accepted.
    pub inbox: u64,
    /// Files being received.
    pub partials: u64,
    /// Messages on record.
    pub seen_messages: u64,
    /// Damaged rows set aside.
    pub quarantined: u64,
}

// ---- held for others ---------------------------------------------------------------------------

/// One operation on what is held for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailOp {
    /// Holds an envelope. → [`MailOutcome::Held`], [`MailOutcome::Duplicate`] or [`MailOutcome::Refused`].
    Hold(HeldRow),
    /// Reads what waits for `destination`, the most urgent first and in arrival order within a class.
    /// → [`MailOutcome::Page`].
    Page {
        /// Whose mailbox.
        destination: Address,
        /// The `next` of the page before; `None` starts.
        after: Option<u64>,
        /// Bounds of the page.
        limit: PageLimit,
    },
    /// Lets go of envelopes, each in O(log n). → [`MailOutcome::Removed`].
    Remove(Vec<PacketId>),
    /// Lets go of those of these envelopes that are for `destination`; others stay, so that nobody's
    /// word but the destination's ends what waits for it. → [`MailOutcome::Removed`].
    RemoveFor {
        /// Whose mailbox.
        destination: Address,
        /// Which of it.
        packet_ids: Vec<PacketId>,
    },
    /// Drops what has expired, earliest first, at most `rows_max`. → [`MailOutcome::Expired`].
    Expire {
        /// Rows that expire earlier go; steady time.
        now_s: u64,
        /// Bound of the work.
        rows_max: usize,
    },
    /// How much is held, in all and for one destination. → [`MailOutcome::Usage`].
    Usage {
        /// Whose mailbox to look at beside the total.
        destination: Option<Address>,
    },
    /// Is there room for more? → [`MailOutcome::Room`], or [`MailOutcome::Refused`] below the
    /// reserve. For whoever has to know before something is to be held.
    CheckRoom {
        /// Also changes and syncs a row, so that the answer is the disk's own.
        write: bool,
    },
    /// Who has a mailbox, by address. → [`MailOutcome::Destinations`].
    Destinations {
        /// The last address already read; `None` starts.
        after: Option<Address>,
        /// Rows at most.
        rows_max: usize,
    },
}

/// What one [`MailOp`] came to.
#[derive(Debug, Clone)]
pub enum MailOutcome {
    /// It is held.
    Held {
        /// Its place in the mailbox.
        place: u64,
    },
    /// It is held already; custody may be acknowledged again.
    Duplicate,
    /// It is not held.
    Refused(HoldRefusal),
    /// A page of a mailbox.
    Page(HeldPage),
    /// Rows were removed; ids that were not held do not count.
    Removed {
        /// How many.
        rows: usize,
    },
    /// Rows were dropped.
    Expired {
        /// How many.
        rows: usize,
        /// True if more are due.
        more: bool,
    },
    /// There is room.
    Room,
    /// How much is held.
    Usage(MailUsage),
    /// Mailboxes by address.
    Destinations(Vec<DestinationUsage>),
}

/// An envelope held for another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// The packet.
    pub packet_id: PacketId,
    /// Who it is for.
    pub destination: Address,
    /// Who signed it.
    pub source: Address,
    /// Its class: a mailbox is read from the most urgent on.
    pub priority: Priority,
    /// The neighbour it came from.
    pub ingress: Address,
    /// When it is dropped.
    pub expires_s: u64,
    /// When it came.
    pub held_at_s: u64,
    /// Its age when it came, in seconds.
    pub age_s: u32,
    /// The envelope as received. Sealed.
    pub frame: Bytes,
}

/// Envelopes of one destination, the most urgent first and in arrival order within a class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldPage {
    /// The envelopes.
    pub rows: Vec<HeldRow>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
    /// The last place that was looked at, also where it is the end.
    pub through: Option<u64>,
    /// Rows that could not be read; they were set aside and counted, and cost only themselves.
    pub damaged: usize,
}

/// Rows and bytes held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldSummary {
    /// Rows.
    pub rows: u64,
    /// Frames' bytes, each with [`super::HELD_ROW_OVERHEAD_BYTES`].
    pub bytes: u64,
}

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailUsage {
    /// For everyone.
    pub total: HeldSummary,
    /// For the destination asked about.
    pub destination: Option<DestinationUsage>,
}

/// How much is held for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationUsage {
    /// Who.
    pub destination: Address,
    /// How much.
    pub held: HeldSummary,
    /// When the first of it came; `None` if nothing is held.
    pub oldest_held_at_s: Option<u64>,
}

/// Bits of a place that count arrivals; those above are the class.
const PLACE_ARRIVAL_BITS: u32 = 56;

impl HeldRow {
    /// Its place in the mailbox: the more urgent, the lower, and in order of arrival `seq` within a
    /// class.
    pub(crate) fn place(&self, seq: u64) -> u64 {
        let rank = 3u64.saturating_sub(self.priority as u64);
        (rank << PLACE_ARRIVAL_BITS) | (seq & ((1 << PLACE_ARRIVAL_BITS) - 1))
    }

    /// The class of what lies at `place`.
    pub(crate) fn priority_at(place: u64) -> Priority {
        Priority::from_bits(3u8.saturating_sub((place >> PLACE_ARRIVAL_BITS) as u8))
    }

    /// The first places of all classes, the most urgent first.
    pub(crate) fn class_starts() -> impl Iterator<Item = u64> {
        (0..4u64).map(|rank| rank << PLACE_ARRIVAL_BITS)
    }
}

/// How long work may wait while the store is busy, and be overtaken by what may not
/// (`storage::group_commit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patience {
    /// Not at all.
    None,
    /// Some milliseconds.
    Short,
    /// Some tens of milliseconds.
    Long,
}

impl LocalOp {
    /// True if it takes space, so that it is refused when the volume is nearly full. State that
    /// keeps acknowledged messages moving (updates, counters) is never refused for that, nor is what
    /// becomes of a file whose room was reserved when it began.
    pub fn grows(&self) -> bool {
        matches!(
            self,
            LocalOp::OutboxPut(_)
                | LocalOp::InboxCommit(_)
                | LocalOp::PartialOpen { .. }
                | LocalOp::KvPut { .. }
        )
    }

    /// How long it may wait while the store is busy. What a sender waits for may not wait; what must not
    /// be overtaken by it (progress of a file, by the file's end) may not either. Readers of what patient
    /// work changes are patient too, and so see all that was submitted before them.
    pub fn patience(&self) -> Patience {
        match self {
            // A message that has ended: after a crash before this it is sent once more, and known there.
            LocalOp::OutboxUpdate { .. } | LocalOp::OutboxRemove(_) => Patience::Long,
            LocalOp::InboxCommit(_)
            | LocalOp::EarlyRelease { .. }
            | LocalOp::EarlyPage { .. }
            | LocalOp::InboxPage { .. }
            | LocalOp::InboxRemove(_)
            | LocalOp::RequestPage { .. }
            | LocalOp::RequestEnter { .. }
            | LocalOp::RequestRemove { .. }
            | LocalOp::OutboxPage { .. }
            | LocalOp::PartialPage { .. }
            | LocalOp::ForgetSeen { .. }
            | LocalOp::Counts => Patience::Short,
            _ => Patience::None,
        }
    }

    /// Bytes it carries into the store's queue, roughly.
    pub fn queued_bytes(&self) -> usize {
        const FIXED: usize = 128;
        FIXED.saturating_add(match self {
            LocalOp::OutboxPut(row) => row.body.len().saturating_add(row.state.len()),
            LocalOp::OutboxUpdate { state, .. } => state.len(),
            LocalOp::InboxCommit(commit) | LocalOp::FileCommit { commit, .. } => commit.entry.len(),
            LocalOp::PartialPut(row) | LocalOp::PartialOpen { row, .. } => row.state.len(),
            LocalOp::KvPut { key, value, .. } => key.len().saturating_add(value.len()),
            _ => 0,
        })
    }
}

impl MailOp {
    /// True if it takes space.
    pub fn grows(&self) -> bool {
        matches!(self, MailOp::Hold(_) | MailOp::CheckRoom { write: true })
    }

    /// Bytes it carries into the store's queue, roughly.
    pub fn queued_bytes(&self) -> usize {
        const FIXED: usize = 128;
        FIXED.saturating_add(match self {
            MailOp::Hold(row) => row.frame.len(),
            MailOp::Remove(ids) | MailOp::RemoveFor { packet_ids: ids, .. } => {
                ids.len().saturating_mul(PacketId::LEN)
            }
            _ => 0,
        })
    }
}

/// Largest content of one row in bytes; anything larger is a file. Sixteen times the largest
/// frame, for a route snapshot's or a manifest's worth.
pub const ROW_BYTES_MAX: usize = 256 * 1024;

/// Largest key of a small value in bytes.
pub const KV_KEY_BYTES_MAX: usize = 255;

impl MailOp {
    /// Refuses rows larger than any message needs, before anything is written.
    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        match self {
            MailOp::Hold(row) if row.frame.len() > ROW_BYTES_MAX => {
                Err(StoreError::RowTooLarge { got: row.frame.len(), limit: ROW_BYTES_MAX })
            }
            _ => Ok(()),
        }
    }
}

impl LocalOp {
    /// Refuses rows larger than any message needs, before anything is written.
    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        let got = self.queued_bytes();
        if got > ROW_BYTES_MAX {
            return Err(StoreError::RowTooLarge { got, limit: ROW_BYTES_MAX });
        }
        if let LocalOp::KvPut { key, .. } = self
            && key.len() > KV_KEY_BYTES_MAX
        {
            return Err(StoreError::RowTooLarge { got: key.len(), limit: KV_KEY_BYTES_MAX });
        }
        Ok(())
    }
}
