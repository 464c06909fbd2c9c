//! `qpc stats`: counters.

use quicprochat_mesh::api::Request;
use serde_json::{Map, Value};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let stats: Map<String, Value> = call::one(cx, &Request::Stats).await?;
    cx.out.show(&stats, |stats| {
        let mut lines = Vec::new();
        for (name, value) in stats {
            flatten(name, value, &mut lines);
        }
        let pairs: Vec<(&str, String)> = lines.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        human::fields(&pairs)
    })
}

/// Nested objects as dotted names.
fn flatten(name: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                flatten(&format!("{name}.{}", human::escape(key)), value, lines);
            }
        }
        Value::String(text) => lines.push((name.to_owned(), human::escape(text))),
        other => lines.push((name.to_owned(), other.to_string())),
    }
}
