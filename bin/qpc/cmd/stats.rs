//! `qpc stats`: counters.

use quicprochat_mesh::api::Request;
use serde_json::{Map, Value};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    ink::Ink,
    screen::{columns, fill, width},
};

/// Fewest columns for what a counter is made of.
const PARTS_COLUMNS_MIN: usize = 20;

const EXAMPLES: &str = "\
Examples:
  qpc stats         what is not zero
  qpc stats --all   everything
  qpc stats --json  the same for programs";

/// Show what was counted since the node started
///
/// For people: by area, without what is still zero (see --all). With --json all counters in one
/// object, under the names that they have in /metricsz.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Also show what is still zero
    #[arg(long)]
    all: bool,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let stats: Map<String, Value> = call::one(cx, &Request::Stats).await?;
    cx.out.show(&stats, |stats| tell(stats, args.all, columns()))
}

/// One counter: its value, and what that is made of.
struct Line {
    name: String,
    value: String,
    /// Each with a comma behind it where another follows.
    parts: Vec<String>,
}

/// All areas with what was counted in them, in at most `room` columns.
pub(super) fn tell(stats: &Map<String, Value>, all: bool, room: Option<usize>) -> String {
    let areas: Vec<(String, Vec<Line>, usize)> = stats
        .iter()
        .map(|(area, counters)| {
            let none = Map::new();
            let counters = counters.as_object().unwrap_or(&none);
            let lines: Vec<Line> =
                counters.iter().filter_map(|(name, value)| line(name, value, all)).collect();
            let left_out = counters.len().saturating_sub(lines.len());
            (words(area), lines, left_out)
        })
        .collect();
    let widest = |of: fn(&Line) -> &str| {
        areas.iter().flat_map(|(_, lines, _)| lines).map(|line| width(of(line))).max().unwrap_or(0)
    };
    let (names, values) = (widest(|line| &line.name), widest(|line| &line.value));
    let before = names.saturating_add(values).saturating_add(6);
    let room = room.map_or(usize::MAX, |room| room.saturating_sub(before).max(PARTS_COLUMNS_MIN));
    let mut out = String::new();
    for (area, lines, left_out) in &areas {
        out.push_str(&Ink::Bold.paint(area));
        out.push('\n');
        for Line { name, value, parts } in lines {
            let name_gap = " ".repeat(names.saturating_sub(width(name)));
            let value_gap = " ".repeat(values.saturating_sub(width(value)));
            let parts: Vec<String> = fill(parts.iter().map(String::as_str), room)
                .iter()
                .map(|line| Ink::Faint.paint(line))
                .collect();
            let parts = match parts.is_empty() {
                true => String::new(),
                false => format!("  {}", parts.join(&format!("\n{}", " ".repeat(before)))),
            };
            out.push_str(&format!("  {name}{name_gap}  {value_gap}{value}{parts}\n"));
        }
        if *left_out > 0 {
            let others = if lines.is_empty() { "all" } else { "others" };
            out.push_str(&format!("  {}\n", Ink::Faint.paint(format!("{others} still zero: {left_out}"))));
        }
    }
    out
}

/// What there is to say of a counter; nothing of one that is zero, unless of `all`.
fn line(name: &str, value: &Value, all: bool) -> Option<Line> {
    let unit = Unit::of(name);
    let (value, parts, is_zero) = match value {
        Value::Object(inner) if inner.contains_key("count") && inner.contains_key("sum") => {
            let number = |key| inner.get(key).and_then(Value::as_f64).unwrap_or(0.0);
            let (times, sum) = (number("count"), number("sum"));
            let mean = (times > 0.0).then(|| format!("{} on average", unit.show(sum / times)));
            (format!("{}×", plain(times)), mean.into_iter().collect(), times == 0.0)
        }
        Value::Object(inner) => {
            let known = inner.iter().filter_map(|(key, value)| Some((key, value.as_f64()?)));
            let sum: f64 = known.clone().map(|(_, value)| value).sum();
            let shown = known.filter(|(_, value)| all || *value != 0.0);
            let mut parts: Vec<String> =
                shown.map(|(key, value)| format!("{} {},", words(key), unit.show(value))).collect();
            if let Some(last) = parts.last_mut() {
                last.pop();
            }
            (unit.show(sum), parts, sum == 0.0)
        }
        Value::Number(number) => {
            let value = number.as_f64().unwrap_or(0.0);
            (unit.show(value), vec![], value == 0.0)
        }
        Value::String(text) => (human::escape(text), vec![], false),
        other => (human::escape(&other.to_string()), vec![], false),
    };
    let name = name.strip_suffix("_total").unwrap_or(name);
    let name = name.strip_suffix("_seconds").unwrap_or(name);
    (all || !is_zero).then(|| Line { name: words(name), value, parts })
}

/// What a counter counts, by its name.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Seconds,
    Things,
}

impl Unit {
    fn of(name: &str) -> Self {
        let name = name.strip_suffix("_total").unwrap_or(name);
        match name.rsplit('_').next() {
            Some("bytes") => Self::Bytes,
            Some("seconds") => Self::Seconds,
            _ => Self::Things,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            // As text a number out of range is the nearest one in it.
            Self::Bytes => human::bytes(value as u64),
            Self::Seconds => human::ms(Some(value * 1000.0)),
            Self::Things => plain(value),
        }
    }
}

/// A whole number with its thousands apart, another one as short as says enough.
fn plain(value: f64) -> String {
    match value.fract() == 0.0 && value >= 0.0 {
        true => human::count(value as u64),
        false => format!("{value:.1}"),
    }
}

/// A name in words.
fn words(name: &str) -> String {
    human::escape(name).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stats: Value, all: bool, room: Option<usize>) -> String {
        let Value::Object(stats) = stats else { panic!("an object") };
        anstream::adapter::strip_str(&tell(&stats, all, room)).to_string()
    }

    #[test]
    fn counters_are_grouped_and_have_their_units() {
        let stats = serde_json::json!({
            "links": {
                "link_bytes_total": {"quic/rx": 2048, "quic/tx": 1024, "tcp/rx": 0},
                "links_closed_total": {"other": 0},
                "rtt_seconds": {"count": 4, "sum": 0.01},
            },
            "store": {"held_messages": 12345},
        });
        let told_all = told(stats.clone(), true, None);
        assert!(told_all.contains("links closed") && !told_all.contains("still zero"), "{told_all}");
        let narrow = told(stats, false, Some(50));
        let lines: Vec<&str> = narrow.lines().collect();
        assert_eq!(
            lines,
            [
                "links",
                "  link bytes     3.0 KiB  quic/rx 2.0 KiB,",
                "                          quic/tx 1.0 KiB",
                "  rtt                 4×  2.50 ms on average",
                "  others still zero: 1",
                "store",
                "  held messages   12,345",
            ]
        );
    }

    #[test]
    fn names_of_others_are_safe_and_odd_shapes_are_shown() {
        let text = told(serde_json::json!({"a\u{1b}": {"b": "x\u{1b}y"}, "c": 3}), false, None);
        assert_eq!(text, "a\\u{1b}\n  b  x\\u{1b}y\nc\n");
    }
}
