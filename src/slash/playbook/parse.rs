//! From the text of a file to steps, with everything that is wrong said at once.

use std::{ops::Range, time::Duration};

use serde_json::{Value, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Action, Condition, Mistake, Playbook, PlaybookError, Step, TIMEOUT_DEFAULT, TextTest, Until, Variables,
    condition::Test,
};
use crate::{
    api::{DeliveryStatus, Target, check_contact_name},
    config::{line_column, nearest, parse_duration},
    slash::SlashCommand,
};

/// Every action with the keys that it takes; one with a question mark may be missing.
const ACTIONS: [(&str, &[&str]); 11] = [
    ("mesh-trace", &["to"]),
    ("mesh-stats", &[]),
    ("mesh-peers", &[]),
    ("mesh-routes", &[]),
    ("send", &["to", "text", "wait?", "expect?"]),
    ("expect", &["from?", "field?", "equals?", "contains?", "at_least?", "at_most?", "timeout?", "take?"]),
    ("wait", &["for", "timeout?"]),
    ("broadcast", &["text"]),
    ("contact-add", &["name", "address"]),
    ("ping", &["to"]),
    ("note", &["text"]),
];

/// Keys of a file beside its steps.
const FILE_KEYS: [&str; 2] = ["title", "step"];

pub(super) fn parse(text: &str, variables: &Variables) -> Result<Playbook, PlaybookError> {
    let mut work = Work { text, variables, mistakes: Vec::new() };
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        work.mistake(error.span().unwrap_or(0..0), error.message());
    }
    // What follows from a broken line would only confuse.
    let playbook = syntax.is_empty().then(|| work.file(document.get_ref()));
    work.mistakes.sort();
    match playbook.filter(|_| work.mistakes.is_empty()) {
        Some(playbook) => Ok(playbook),
        None => Err(PlaybookError { mistakes: work.mistakes }),
    }
}

struct Work<'a> {
    text: &'a str,
    variables: &'a Variables,
    mistakes: Vec<Mistake>,
}

impl Work<'_> {
    fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) {
        let (line, column) = line_column(self.text, span.start);
        self.mistakes.push(Mistake { line, column, message: message.into() });
    }

    fn file(&mut self, file: &DeTable<'_>) -> Playbook {
        let mut playbook = Playbook { title: None, steps: Vec::new() };
        for (name, value) in file {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("title", DeValue::String(_)) => playbook.title = self.string(value),
                ("title", _) => self.mistake(value.span(), "title: expected a string"),
                ("step", DeValue::Array(steps)) => {
                    for step in steps.iter() {
                        playbook.steps.extend(self.step(step));
                    }
                }
                ("step", _) => self.mistake(name.span(), "step: write [[step]], with two brackets"),
                (other, _) => {
                    let hint = near(other, FILE_KEYS, "a playbook has `title` and [[step]] entries");
                    self.mistake(name.span(), format!("unknown key {other}: {hint}"));
                }
            }
        }
        if playbook.steps.is_empty() && self.mistakes.is_empty() {
            self.mistake(0..0, "no steps: write [[step]] entries, each with an action");
        }
        playbook
    }

    fn step(&mut self, step: &Spanned<DeValue<'_>>) -> Option<Step> {
        let DeValue::Table(table) = step.get_ref() else {
            self.mistake(step.span(), "a step is a table: write [[step]] and its keys below");
            return None;
        };
        let Some((_, action)) = table.iter().find(|(key, _)| key.get_ref() == "action") else {
            self.mistake(step.span(), "this step has no action");
            return None;
        };
        let names = ACTIONS.iter().map(|(name, _)| *name);
        let word = self.string(action)?;
        let Some((name, keys)) = ACTIONS.iter().find(|(name, _)| *name == word) else {
            let all = format!("actions are {}", names.clone().collect::<Vec<_>>().join(", "));
            self.mistake(action.span(), format!("unknown action {word:?}: {}", near(&word, names, &all)));
            return None;
        };
        let before = self.mistakes.len();
        let known = keys.iter().map(|key| key.trim_end_matches('?'));
        for (key, _) in table.iter().filter(|(key, _)| key.get_ref() != "action") {
            if !known.clone().any(|known| known == key.get_ref()) {
                let all = match keys.is_empty() {
                    true => format!("{name} takes none"),
                    false => format!("{name} takes {}", known.clone().collect::<Vec<_>>().join(", ")),
                };
                let hint = near(key.get_ref(), known.clone(), &all);
                self.mistake(key.span(), format!("unknown key {} of {name}: {hint}", key.get_ref()));
            }
        }
        for missing in keys.iter().filter(|key| !key.ends_with('?')) {
            if !table.iter().any(|(key, _)| key.get_ref() == missing) {
                self.mistake(action.span(), format!("{name} needs `{missing}`"));
            }
        }
        let is_whole = self.mistakes.len() == before;
        let mut fields = Fields { table, work: self };
        let action = fields.action(name);
        let action = action.filter(|_| is_whole)?;
        Some(Step { line: line_column(self.text, step.span().start).0, name, action })
    }

    /// A string with its variables put in.
    fn string(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let DeValue::String(text) = value.get_ref() else {
            self.mistake(value.span(), "expected a string in quotes");
            return None;
        };
        match substitute(text, self.variables) {
            Ok(text) => Some(text),
            Err(message) => {
                self.mistake(value.span(), message);
                None
            }
        }
    }
}

/// The keys of one step.
struct Fields<'a, 'w, 't> {
    table: &'a DeTable<'a>,
    work: &'w mut Work<'t>,
}

impl<'a> Fields<'a, '_, '_> {
    fn action(&mut self, name: &str) -> Option<Action> {
        Some(match name {
            "mesh-trace" => Action::Command(SlashCommand::MeshTrace { to: self.address("to")? }),
            "mesh-stats" => Action::Command(SlashCommand::MeshStats),
            "mesh-peers" => Action::Command(SlashCommand::MeshPeers),
            "mesh-routes" => Action::Command(SlashCommand::MeshRoutes),
            "ping" => Action::Command(SlashCommand::Ping { to: self.address("to")? }),
            "broadcast" => Action::Command(SlashCommand::Broadcast { text: self.string("text")? }),
            "contact-add" => {
                let name = self.read("name", |name| match check_contact_name(name) {
                    Ok(()) => Ok(name.to_owned()),
                    Err(error) => Err(error.message),
                });
                let address = self.string("address");
                Action::Command(SlashCommand::ContactAdd { name: name?, address: address? })
            }
            "send" => {
                let (to, text) = (self.address("to"), self.string("text"));
                let wait = self.duration("wait");
                let default = if wait.is_some() { DeliveryStatus::Delivered } else { DeliveryStatus::Queued };
                let expect = self.read("expect", status).unwrap_or(default);
                Action::Send { to: to?, text: text?, wait, expect }
            }
            "wait" => {
                let until = self.read("for", until);
                let timeout = self.duration("timeout").unwrap_or(TIMEOUT_DEFAULT);
                Action::Wait { until: until?, timeout }
            }
            "expect" => self.expect()?,
            _ => Action::Note(self.string("text")?),
        })
    }

    fn expect(&mut self) -> Option<Action> {
        let tests: Vec<&str> =
            ["equals", "contains", "at_least", "at_most"].into_iter().filter(|key| self.has(key)).collect();
        let at = |fields: &Self, key: &str| fields.get(key).map_or(0..0, |value| value.span());
        if let [_, second, ..] = tests.as_slice() {
            let span = at(self, second);
            self.work.mistake(span, format!("one condition a step: {} are two", tests.join(" and ")));
            return None;
        }
        if self.has("field") {
            for key in ["from", "timeout", "take"] {
                if self.has(key) {
                    let span = at(self, key);
                    self.work.mistake(span, format!("{key} is for messages, and `field` is of the reply"));
                }
            }
            let field = self.string("field")?;
            let test = match tests.first() {
                Some(&"equals") => Test::Equals(self.scalar("equals")?),
                Some(&"contains") => Test::Contains(self.string("contains")?),
                Some(&"at_least") => Test::AtLeast(self.number("at_least")?),
                Some(_) => Test::AtMost(self.number("at_most")?),
                None => {
                    let span = at(self, "field");
                    let what = "what has to be so of it: equals, contains, at_least or at_most";
                    self.work.mistake(span, format!("this step does not say {what}"));
                    return None;
                }
            };
            return Some(Action::ExpectReply(Condition { field, test }));
        }
        let text = match tests.first() {
            Some(&"equals") => TextTest::Equals(self.string("equals")?),
            Some(&"contains") => TextTest::Contains(self.string("contains")?),
            Some(key) => {
                let span = at(self, key);
                self.work.mistake(span, format!("{key} needs the `field` of the reply before it"));
                return None;
            }
            None => TextTest::Any,
        };
        let from = if self.has("from") { Some(self.address("from")?) } else { None };
        let timeout = self.duration("timeout").unwrap_or(TIMEOUT_DEFAULT);
        let take = match self.get("take").map(|value| (value.get_ref(), value.span())) {
            None => false,
            Some((DeValue::Boolean(take), _)) => *take,
            Some((_, span)) => {
                self.work.mistake(span, "take: expected true or false");
                return None;
            }
        };
        Some(Action::ExpectMessage { from, text, timeout, take })
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn string(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        self.work.string(value)
    }

    /// A string that means something; none where it is missing or wrong, which is then said.
    fn read<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.get(key)?;
        let text = self.work.string(value)?;
        match read(&text) {
            Ok(read) => Some(read),
            Err(message) => {
                self.work.mistake(value.span(), format!("{key}: {message}"));
                None
            }
        }
    }

    fn address(&mut self, key: &str) -> Option<String> {
        self.read(key, address)
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        self.read(key, |text| parse_duration(text).map_err(|error| error.to_string()))
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        let number = self.scalar(key)?.as_f64();
        if number.is_none() {
            self.work.mistake(value.span(), format!("{key}: expected a number"));
        }
        number
    }

    /// A text, number or truth.
    fn scalar(&mut self, key: &str) -> Option<Value> {
        let value = self.get(key)?;
        let read = match value.get_ref() {
            DeValue::String(_) => return self.work.string(value).map(Value::String),
            DeValue::Boolean(truth) => Some(json!(truth)),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| json!(number))
            }
            DeValue::Float(number) => {
                number.as_str().parse().ok().filter(|number: &f64| number.is_finite()).map(|f| json!(f))
            }
            _ => None,
        };
        if read.is_none() {
            self.work.mistake(value.span(), format!("{key}: expected a string, a number, true or false"));
        }
        read
    }
}

fn address(text: &str) -> Result<String, String> {
    Target::parse(text).map(|_| text.to_owned()).map_err(|error| error.message)
}

fn status(text: &str) -> Result<DeliveryStatus, String> {
    let all =
        [DeliveryStatus::Delivered, DeliveryStatus::Queued, DeliveryStatus::Expired, DeliveryStatus::Failed];
    let words = all.map(DeliveryStatus::as_str);
    all.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        format!("no message is {text:?}: {}", near(text, words, "delivered, queued, expired or failed"))
    })
}

fn until(text: &str) -> Result<Until, String> {
    if text == "message" {
        return Ok(Until::Message);
    }
    if let Some(to) = text.strip_prefix("route:") {
        return address(to).map(Until::Route);
    }
    if let Some(count) = text.strip_prefix("peers") {
        let count = count.trim().strip_prefix(">=").and_then(|count| count.trim().parse().ok());
        return count.map(Until::Peers).ok_or_else(|| format!("{text:?} is not of the form \"peers>=2\""));
    }
    let forms = "write \"peers>=2\", \"route:ADDRESS\", \"message\" or a duration such as \"500ms\"";
    parse_duration(text).map(Until::Passed).map_err(|_| format!("nobody can wait for {text:?}: {forms}"))
}

fn near<'a>(word: &str, all: impl IntoIterator<Item = &'a str>, else_say: &str) -> String {
    match nearest(word, all) {
        Some(near) => format!("did you mean {near}?"),
        None => else_say.to_owned(),
    }
}

/// `text` with every `${NAME}` replaced and every `$${` as `${`.
fn substitute(text: &str, variables: &Variables) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or("a `${` is not closed: write ${NAME}, or $${")?;
        let value = variables.get(name).ok_or_else(|| {
            let names = variables.keys().map(String::as_str);
            let set = format!("give it with --set {name}=VALUE or in the environment as QPC_PB_{name}");
            match nearest(name, names) {
                Some(near) => format!("no variable is called {name}: did you mean {near}? Else {set}"),
                None => format!("no variable is called {name}: {set}"),
            }
        })?;
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
