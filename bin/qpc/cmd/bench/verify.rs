//! `qpc bench verify`: compares what loads logged: what was lost, what came twice, what came that
//! nobody sent, and what overtook others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use quicprochat_mesh::{
    api::{ApiError, ErrorClass, InboxItem, OutboxItem, Request, Status},
    wire::{Address, MessageUid},
};
use serde::Serialize;

use super::{
    evidence::{DAMAGED, Event, Line, Stamp, Takes},
    load::{list, without_numbers},
};
use crate::{cx::Context, fail::Failure, human};

/// Messages that are named where something is wrong with them.
const NAMED_MAX: usize = 20;

const EXAMPLES: &str = "\
Examples:
  qpc bench verify load.jsonl
  qpc bench verify load.jsonl --data-dir ./n1 ./n3";

/// Compare the logs of `qpc bench load`: lost, duplicate, phantom and gap
///
/// A message that was acknowledged has to have arrived, or to be in an inbox or an outbox of the
/// nodes given with --data-dir, or to have expired. Exit 1 where something was lost, came twice, or
/// came though nobody sent it or its node had refused it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Logs, in the order in which they were written
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,

    /// Nodes that run and may still have messages: what is in their inbox or outbox is not lost
    #[arg(id = "data_dir", long = "data-dir", value_name = "DIR", num_args = 1..)]
    data_dirs: Vec<PathBuf>,
}

/// The whole answer.
#[derive(Debug, Default, Serialize)]
struct Answered {
    runs: u64,
    sent: u64,
    acked: u64,
    /// By reason, numbers in it left out.
    refused: BTreeMap<String, u64>,
    /// Neither acknowledged nor refused: the node or the load ended first.
    unknown: u64,
    receipts: u64,
    /// Expired, cancelled.
    ended: u64,
    /// Different messages that arrived.
    delivered: u64,
    /// Offered again by a node that had not heard that it was taken.
    again: u64,
    /// Acknowledged, not arrived, and in an outbox or inbox.
    present: u64,
    /// Acknowledged for somebody whose arrivals no log tells.
    unobserved: u64,
    /// Acknowledged, and nowhere.
    lost: u64,
    /// Arrivals of what had arrived before.
    duplicate: u64,
    /// Arrivals of what nobody sent, of what was refused, and of what is not as it was sent.
    phantom: u64,
    /// Overtaken, or lost before something later that arrived.
    gap: u64,
    /// Of `gap`: arrived after something that was sent only after its acknowledgement.
    out_of_order: u64,
    /// Arrived though the sender never heard that it was accepted.
    unacked_received: u64,
    /// Of `phantom`: refused, and arrived.
    refused_received: u64,
    /// Arrivals of messages that no load sent.
    foreign: u64,
    /// Lines that are none, as a killed load leaves one.
    unreadable_lines: u64,
    /// The first of each kind, for people who look into it.
    named: BTreeMap<&'static str, Vec<String>>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let mut books = Books::default();
    for (number, path) in args.logs.iter().enumerate() {
        let failed = |e: std::io::Error| ApiError::failed(format!("cannot read {}: {e}", path.display()));
        let file = File::open(path).map_err(failed)?;
        for (at, text) in BufReader::new(file).split(b'\n').enumerate() {
            let text = text.map_err(failed)?;
            if text.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => books.read(Place { log: number, line: at }, line),
                Err(_) => books.answered.unreadable_lines += 1,
            }
        }
    }
    let mut present = HashSet::new();
    for dir in &args.data_dirs {
        let status: Vec<Status> = list(dir, &Request::Status).await?;
        books.observed.extend(status.iter().map(|status| status.address));
        // First where messages go from: what moves meanwhile is seen where it goes to.
        let outbox: Vec<OutboxItem> = list(dir, &Request::OutboxList).await?;
        present.extend(outbox.iter().map(|item| item.id));
    }
    for dir in &args.data_dirs {
        let inbox: Vec<InboxItem> = list(dir, &Request::InboxList).await?;
        present.extend(inbox.iter().map(|item| item.id));
    }
    let answered = books.close(&present);
    cx.out.show(&answered, tell)?;
    match answered.lost + answered.duplicate + answered.phantom {
        0 => Ok(()),
        _ => Err(Failure::Said(ErrorClass::Failed)),
    }
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    log: usize,
    line: usize,
}

/// What is known of one message.
#[derive(Debug, Default)]
struct Message {
    /// None of what arrived without having been sent.
    sent: Option<Sent>,
    id: Option<MessageUid>,
    acked: Option<Place>,
    refused: Option<String>,
    ended: bool,
    receipted: bool,
    /// How often it arrived.
    received: u32,
    /// A later one of the same pair that arrived before.
    overtaken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Place,
    from: Address,
    to: Address,
}

/// What a receiver had from a sender so far, of one log: where the latest that arrived was sent.
type Arrived = HashMap<(Address, Address, usize), usize>;

#[derive(Debug, Default)]
struct Books {
    messages: HashMap<Stamp, Message>,
    senders: HashSet<Address>,
    /// Whose arrivals are told.
    observed: HashSet<Address>,
    takes: HashMap<Address, Takes>,
    /// In the order of arrival, to be judged when all sends are known.
    arrivals: Vec<(Stamp, Address)>,
    answered: Answered,
}

impl Books {
    fn read(&mut self, at: Place, line: Line) {
        let answered = &mut self.answered;
        match line.ev {
            Event::Start => answered.runs += 1,
            Event::Listen => {
                if let Some(to) = line.to {
                    self.observed.insert(to);
                    self.takes.entry(to).or_default().listen();
                }
            }
            Event::Receive | Event::Again => self.received(line),
            Event::Error | Event::Finish => {}
            Event::Send => {
                if let (Some(stamp), Some(from), Some(to)) = (line.stamp(), line.from, line.to) {
                    self.senders.insert(from);
                    self.messages.entry(stamp).or_default().sent = Some(Sent { at, from, to });
                }
            }
            Event::Ack | Event::Refused | Event::Unknown | Event::Receipt | Event::Ended => {
                let Some(stamp) = line.stamp() else { return };
                let message = self.messages.entry(stamp).or_default();
                message.id = line.id.or(message.id);
                match line.ev {
                    Event::Ack => message.acked = Some(at),
                    Event::Refused => message.refused = Some(line.reason.unwrap_or_default()),
                    Event::Receipt => message.receipted = true,
                    Event::Ended => message.ended = true,
                    _ => {}
                }
            }
        }
    }

    fn received(&mut self, line: Line) {
        let (Some(id), Some(from), Some(to)) = (line.id, line.from, line.to) else { return };
        // A load that was started again after a kill asks for the same messages as the one before.
        if self.takes.entry(to).or_default().is_again(id) || line.ev == Event::Again {
            self.answered.again += 1;
            return;
        }
        let Some(stamp) = line.stamp() else {
            match self.senders.contains(&from) {
                true => self.phantom(format!("{id}: not as it was sent")),
                false => self.answered.foreign += 1,
            }
            return;
        };
        if line.reason.as_deref() == Some(DAMAGED) {
            self.phantom(format!("{id}: {stamp} is not as it was sent"));
        }
        let message = self.messages.entry(stamp).or_default();
        message.received = message.received.saturating_add(1);
        match (message.id, message.received) {
            (Some(known), _) if known != id => {
                self.phantom(format!("{id}: {stamp} has the id {known}"));
            }
            (_, 1) => {
                message.id = Some(id);
                self.arrivals.push((stamp, to));
            }
            _ => {
                self.answered.duplicate += 1;
                self.name("duplicate", format!("{id}: {stamp}"));
            }
        }
    }

    fn phantom(&mut self, what: String) {
        self.answered.phantom += 1;
        self.name("phantom", what);
    }

    fn name(&mut self, kind: &'static str, what: String) {
        let named = self.answered.named.entry(kind).or_default();
        if named.len() < NAMED_MAX {
            named.push(what);
        }
    }

    /// Marks what was overtaken by something that was sent only after its acknowledgement. Messages
    /// that were on their way to the node at the same time have no order.
    fn judge_order(&mut self) -> Arrived {
        let mut latest = Arrived::new();
        for (stamp, to) in std::mem::take(&mut self.arrivals) {
            let Some(message) = self.messages.get_mut(&stamp) else { continue };
            let Some(sent) = message.sent else { continue };
            let latest = latest.entry((sent.from, to, sent.at.log)).or_insert(sent.at.line);
            message.overtaken = message.acked.is_some_and(|acked| acked.line < *latest);
            *latest = sent.at.line.max(*latest);
        }
        latest
    }

    fn close(mut self, present: &HashSet<MessageUid>) -> Answered {
        let latest = self.judge_order();
        let mut messages: Vec<(Stamp, Message)> = self.messages.drain().collect();
        // So that what is named is the first.
        messages.sort_unstable_by_key(|(stamp, _)| *stamp);
        for (stamp, message) in messages {
            self.count(stamp, &message, present, &latest);
        }
        self.answered
    }

    fn count(&mut self, stamp: Stamp, message: &Message, present: &HashSet<MessageUid>, latest: &Arrived) {
        let has_arrived = message.received > 0;
        let answered = &mut self.answered;
        answered.delivered += u64::from(has_arrived);
        answered.receipts += u64::from(message.receipted);
        answered.ended += u64::from(message.ended);
        let Some(sent) = message.sent else {
            if has_arrived {
                self.phantom(format!("{stamp}: nobody sent it"));
            }
            return;
        };
        answered.sent += 1;
        if let Some(reason) = &message.refused {
            *answered.refused.entry(without_numbers(reason)).or_default() += 1;
            if has_arrived {
                answered.refused_received += 1;
                self.phantom(format!("{stamp}: refused ({reason}), and arrived"));
            }
            return;
        }
        let Some(acked) = message.acked else {
            answered.unknown += 1;
            answered.unacked_received += u64::from(has_arrived);
            return;
        };
        answered.acked += 1;
        if message.overtaken {
            answered.out_of_order += 1;
            answered.gap += 1;
            self.name("out_of_order", stamp.to_string());
        }
        if has_arrived || message.ended {
            return;
        }
        if message.id.is_some_and(|id| present.contains(&id)) {
            self.answered.present += 1;
        } else if !self.observed.contains(&sent.to) {
            self.answered.unobserved += 1;
        } else {
            let id = message.id.map(|id| id.to_string()).unwrap_or_default();
            let receipted = if message.receipted { ", receipted" } else { "" };
            let later = latest.get(&(sent.from, sent.to, sent.at.log));
            self.answered.lost += 1;
            self.answered.gap += u64::from(later.is_some_and(|later| acked.line < *later));
            self.name("lost", format!("{id}: {stamp}{receipted}"));
        }
    }
}

fn tell(answered: &Answered) -> String {
    let refused: u64 = answered.refused.values().sum();
    let mut out = human::fields(&[
        ("sent", answered.sent.to_string()),
        ("acked", answered.acked.to_string()),
        ("refused", refused.to_string()),
        ("unknown", answered.unknown.to_string()),
        ("receipts", answered.receipts.to_string()),
        ("delivered", answered.delivered.to_string()),
        ("still on its way", answered.present.to_string()),
        ("expired", answered.ended.to_string()),
        ("not observed", answered.unobserved.to_string()),
        ("offered again", answered.again.to_string()),
        ("unacked, received", answered.unacked_received.to_string()),
        ("gap", format!("{} ({} out of order)", answered.gap, answered.out_of_order)),
        ("lost", answered.lost.to_string()),
        ("duplicate", answered.duplicate.to_string()),
        ("phantom", answered.phantom.to_string()),
    ]);
    for (reason, count) in &answered.refused {
        out.push_str(&format!("refused {count}: {}\n", human::escape(reason)));
    }
    for (kind, named) in &answered.named {
        for what in named {
            out.push_str(&format!("{kind}: {}\n", human::escape(what)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::bench::evidence::RunId;

    const FROM: Address = Address([1; 16]);
    const TO: Address = Address([2; 16]);

    fn stamp(seq: u64) -> Stamp {
        Stamp { run: RunId(1), sender: 0, seq }
    }

    fn id(seq: u64) -> Option<MessageUid> {
        Some(MessageUid(u128::from(seq).to_be_bytes()))
    }

    fn line(ev: Event, seq: u64) -> Line {
        let id = if ev == Event::Send { None } else { id(seq) };
        Line { id, from: Some(FROM), to: Some(TO), ..Line::new(ev).of(stamp(seq)) }
    }

    fn read(lines: Vec<Line>) -> Answered {
        read_with(lines, &HashSet::new())
    }

    fn read_with(lines: Vec<Line>, present: &HashSet<MessageUid>) -> Answered {
        let mut books = Books::default();
        for (at, line) in lines.into_iter().enumerate() {
            books.read(Place { log: 0, line: at }, line);
        }
        books.close(present)
    }

    fn listen() -> Line {
        Line { to: Some(TO), ..Line::new(Event::Listen) }
    }

    /// Sent and acknowledged, one after the other.
    fn accepted(seqs: std::ops::Range<u64>) -> Vec<Line> {
        let mut lines = vec![listen()];
        lines.extend(seqs.flat_map(|seq| [line(Event::Send, seq), line(Event::Ack, seq)]));
        lines
    }

    #[test]
    fn what_arrived_once_and_in_order_is_well() {
        let mut lines = accepted(0..3);
        lines.extend((0..3).map(|seq| line(Event::Receive, seq)));
        let answered = read(lines);
        assert_eq!((answered.sent, answered.acked, answered.delivered), (3, 3, 3));
        assert_eq!((answered.lost, answered.duplicate, answered.phantom, answered.gap), (0, 0, 0, 0));
    }

    #[test]
    fn what_was_acknowledged_and_is_nowhere_is_lost() {
        let mut lines = accepted(0..4);
        lines.push(line(Event::Receive, 1));
        lines.push(line(Event::Ended, 3));
        let answered = read_with(lines.clone(), &HashSet::from([id(2).unwrap()]));
        assert_eq!((answered.lost, answered.present, answered.ended, answered.gap), (1, 1, 1, 1));
        assert!(answered.named["lost"][0].ends_with("seq 0"), "{answered:?}");
        // Nobody looked: nothing can be said.
        lines.retain(|line| line.ev != Event::Listen && line.ev != Event::Receive);
        let answered = read(lines);
        assert_eq!((answered.lost, answered.unobserved), (0, 3));
    }

    #[test]
    fn twice_is_a_duplicate_unless_nobody_heard_that_it_was_taken() {
        let mut lines = accepted(0..2);
        lines.extend([0, 1].map(|seq| line(Event::Receive, seq)));
        lines.push(listen());
        lines.push(line(Event::Receive, 1));
        let answered = read(lines.clone());
        assert_eq!((answered.duplicate, answered.again, answered.delivered), (0, 1, 2));
        lines.push(line(Event::Receive, 0));
        let answered = read(lines);
        assert_eq!((answered.duplicate, answered.again, answered.delivered), (1, 1, 2));
    }

    #[test]
    fn what_nobody_sent_was_refused_or_is_damaged_is_a_phantom() {
        let mut lines = accepted(0..2);
        lines.extend([line(Event::Send, 5), line(Event::Refused, 5).why("full"), line(Event::Receive, 5)]);
        lines.extend([
            line(Event::Receive, 9),
            line(Event::Receive, 0).why(DAMAGED),
            line(Event::Receive, 1),
        ]);
        let answered = read(lines);
        assert_eq!((answered.phantom, answered.refused_received, answered.lost), (3, 1, 0));
        assert_eq!(answered.refused["full"], 1);
        let stranger =
            Line { from: Some(Address([9; 16])), id: id(7), to: Some(TO), ..Line::new(Event::Receive) };
        let answered = read(vec![stranger]);
        assert_eq!((answered.phantom, answered.foreign), (0, 1));
    }

    #[test]
    fn only_what_was_acknowledged_before_the_other_was_sent_can_be_overtaken() {
        let mut lines = accepted(0..2);
        lines.extend([line(Event::Send, 2), line(Event::Send, 3), line(Event::Ack, 2), line(Event::Ack, 3)]);
        lines.extend([1, 0, 3, 2].map(|seq| line(Event::Receive, seq)));
        let answered = read(lines);
        assert_eq!((answered.out_of_order, answered.gap), (1, 1));
        assert!(answered.named["out_of_order"][0].ends_with("seq 0"), "{answered:?}");
    }

    #[test]
    fn what_was_never_answered_may_arrive_or_not() {
        let lines = vec![
            listen(),
            line(Event::Send, 0),
            line(Event::Unknown, 0),
            line(Event::Send, 1),
            line(Event::Receive, 1),
        ];
        let answered = read(lines);
        assert_eq!((answered.unknown, answered.unacked_received, answered.lost), (2, 1, 0));
        assert_eq!((answered.phantom, answered.delivered), (0, 1));
    }
}
