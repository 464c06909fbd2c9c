//! `qpc config`: what is in force, and what is wrong with a file.

use std::path::PathBuf;

use clap::Subcommand;
use quicprochat_mesh::config::{ConfigError, Layers, Origin, Place, Problem};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cx::{Context, path_text},
    fail::Failure,
    human,
    ink::Ink,
    out::note,
    table::{Cell, Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc config show   what is in force, and where from
  qpc config check  what is wrong with the file";

const SHOW_EXAMPLES: &str = "\
Examples:
  qpc config show
  QPC_NETWORK=test qpc config show --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  qpc config check
  qpc config check ./config.toml --json";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Print every effective value and where it came from
    #[command(after_help = SHOW_EXAMPLES)]
    Show,
    /// Name every wrong key or value of a file
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The file [default: the one in force]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// One line of `config show`.
#[derive(Serialize)]
struct Shown {
    key: String,
    value: Value,
    origin: &'static str,
    place: Option<String>,
    env: String,
}

/// One line of `config check`.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    message: Option<String>,
    hint: Option<String>,
}

pub fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    match command {
        Command::Show => show(cx),
        Command::Check { file } => check(cx, file.unwrap_or_else(|| cx.config_path())),
    }
}

fn show(cx: &Context) -> Result<(), Failure> {
    let loaded = cx.layers()?.load()?;
    for warning in &loaded.warnings {
        note(format!("warning: {warning}"));
    }
    let entries = loaded.entries();
    let texts: Vec<String> =
        entries.iter().map(|e| e.value.clone().unwrap_or_else(|| "(not set)".into())).collect();
    let shown: Vec<Shown> = entries
        .into_iter()
        .map(|entry| Shown {
            value: entry.value.as_deref().map_or(Value::Null, json),
            origin: match &entry.origin {
                Origin::Default | Origin::Set(Place::Value) => "default",
                Origin::Set(Place::Preset(_)) => "preset",
                Origin::Set(Place::File { .. }) => "file",
                Origin::Set(Place::Env(_)) => "env",
                Origin::Set(Place::Flag(_)) => "flag",
            },
            place: match &entry.origin {
                Origin::Default => None,
                Origin::Set(place) => Some(place.to_string()),
            },
            key: entry.key,
            env: entry.env,
        })
        .collect();
    cx.out.list(&shown, |shown| {
        let mut table = Table::new([
            Column::text("KEY"),
            Column::text("VALUE").shrinks(1, 20),
            Column::text("FROM").shrinks(0, 7),
        ]);
        for (shown, text) in shown.iter().zip(texts) {
            let ink = if shown.origin == "default" { Some(Ink::Faint) } else { None };
            let from = shown.place.as_deref().unwrap_or(shown.origin);
            table.row([
                shown.key.as_str().into(),
                human::escape(&text).into(),
                Cell::of(ink, human::escape(from)),
            ]);
        }
        table.text()
    })
}

/// A TOML value as JSON.
fn json(text: &str) -> Value {
    // Our own spelling always reads back; where it did not, the text says as much.
    toml::from_str::<Value>(&format!("value = {text}"))
        .ok()
        .and_then(|document| document.get("value").cloned())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn check(cx: &Context, file: PathBuf) -> Result<(), Failure> {
    let result = Layers::new().file(&file).and_then(Layers::load);
    let Err(error) = result else {
        let fine =
            Checked { ok: true, file: path_text(&file), line: None, column: None, message: None, hint: None };
        return cx.out.show(&fine, |c| format!("{} is valid", human::escape(&c.file)));
    };
    if cx.out.json
        && let ConfigError::Wrong { problems } = &error
    {
        for problem in problems {
            cx.out.show(&checked(&file, problem), |_| String::new())?;
        }
    }
    Err(error.into())
}

fn checked(file: &std::path::Path, problem: &Problem) -> Checked {
    let (line, column) = match problem.place {
        Place::File { line, column, .. } => (Some(line), Some(column)),
        _ => (None, None),
    };
    Checked {
        ok: false,
        file: path_text(file),
        line,
        column,
        message: Some(problem.message.clone()),
        hint: problem.hint.clone(),
    }
}
