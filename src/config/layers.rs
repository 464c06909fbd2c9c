//! Flags over environment over file over defaults, with the origin of each value.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError, KEYS, Key, MeshConfig, Place, Preset, Problem, SECTIONS, changed_keys, check,
    nearest::{distance, nearest},
    value::ConfigValue,
};

/// Variables that begin like ours and name no key.
const OTHER_VARIABLES: [&str; 3] = ["QPC_DATA_DIR", "QPC_CONFIG", "QPC_PASSPHRASE_FILE"];

/// Where an effective value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The place that set it last.
    Set(Place),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set(place) => place.fmt(f),
        }
    }
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key with its section.
    pub key: String,
    /// Its TOML spelling; none for an option without a value.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// Environment variable that sets it.
    pub env: String,
}

/// The sources of a configuration. Add what there is, then [`Layers::load`].
#[derive(Debug, Default)]
pub struct Layers {
    file: Option<(PathBuf, String)>,
    env: Vec<(String, String)>,
    flags: Vec<(&'static str, &'static str, Vec<String>)>,
}

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: MeshConfig,
    /// What is odd but does not stand in the way, for people.
    pub warnings: Vec<String>,
    origins: BTreeMap<String, Place>,
}

impl Loaded {
    /// Every key with its effective value and origin, in the order of the file.
    pub fn entries(&self) -> Vec<Entry> {
        KEYS.iter()
            .map(|key| Entry {
                key: key.path(),
                value: (key.to_toml)(&self.config),
                origin: self.origins.get(&key.path()).cloned().map_or(Origin::Default, Origin::Set),
                env: key.env(),
            })
            .collect()
    }
}

impl Layers {
    /// Nothing but defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text of a file; `path` is for messages.
    pub fn text(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some((path.into(), text.into()));
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read or is not UTF-8.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(self.text(path, text))
    }

    /// Reads a file where there is one.
    ///
    /// # Errors
    /// It is there but cannot be read or is not UTF-8.
    pub fn file_if_present(self, path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.text(path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Variables of the environment, `std::env::vars_os()`. Those of other programs are ignored,
    /// and so are empty ones: that is how a shell unsets a variable for one command.
    pub fn env(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("QPC_"))?;
            Some((name, value.to_string_lossy().into_owned())).filter(|(_, value)| !value.is_empty())
        });
        self.env.extend(ours);
        self.env.sort();
        self
    }

    /// A flag of the command line that sets `key` (with its section); ignored without values. A
    /// list takes every value, others the last one.
    pub fn flag(mut self, flag: &'static str, key: &'static str, values: Vec<String>) -> Self {
        if !values.is_empty() {
            self.flags.push((flag, key, values));
        }
        self
    }

    /// What all values begin from, by the layer that says so last. One that is wrong is reported where
    /// it is read.
    fn preset(&self) -> Preset {
        let in_file = |text: &str| {
            let (document, _) = DeTable::parse_recoverable(text);
            Preset::from_text(document.get_ref().get("preset")?.get_ref().as_str()?).ok()
        };
        let flag = self.flags.iter().rev().find(|(_, key, _)| *key == "preset");
        let flag = flag.and_then(|(_, _, values)| Preset::from_text(values.last()?).ok());
        let of_env = |(_, value): &(String, String)| Preset::from_text(value).ok();
        let env = || self.env.iter().find(|(name, _)| name == "QPC_PRESET").and_then(of_env);
        let file = || self.file.as_ref().and_then(|(_, text)| in_file(text));
        flag.or_else(env).or_else(file).unwrap_or(Preset::Default)
    }

    /// Puts the layers over each other and checks the result.
    ///
    /// # Errors
    /// Everything that is wrong in any layer.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let mut work = Work::of(self.preset());
        if let Some((path, text)) = &self.file {
            work.read_file(path, text);
        }
        for (name, value) in &self.env {
            work.read_env(name, value);
        }
        for (flag, key, values) in &self.flags {
            work.read_flag(flag, key, values);
        }
        // A contradiction that follows from a value already reported would only confuse.
        if work.problems.is_empty() {
            work.check();
        }
        match work.problems.is_empty() {
            true => Ok(Loaded { config: work.config, warnings: work.warnings, origins: work.origins }),
            false => Err(ConfigError::Wrong { problems: work.problems }),
        }
    }
}

#[derive(Default)]
struct Work {
    config: MeshConfig,
    warnings: Vec<String>,
    origins: BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

impl Work {
    /// With the values of a preset, each of which knows where it came from.
    fn of(preset: Preset) -> Self {
        let config = MeshConfig::of(preset);
        let own = changed_keys(&MeshConfig::default(), &config);
        let origins = own.into_iter().map(|key| (key, Place::Preset(preset.as_str()))).collect();
        Self { config, origins, ..Self::default() }
    }

    fn problem(&mut self, place: Place, message: String, hint: Option<String>) {
        self.problems.push(Problem { place, message, hint });
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let place = |span: Range<usize>| {
            let (line, column) = line_column(text, span.start);
            Place::File { path: path.to_owned(), line, column }
        };
        let (document, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            self.problem(place(error.span().unwrap_or(0..0)), error.message().to_owned(), None);
        }
        let broken: Vec<usize> =
            syntax.iter().map(|e| line_column(text, e.span().map_or(0, |s| s.start)).0).collect();
        let before = self.problems.len();
        self.read_table("", document.get_ref(), &place);
        // What the parser made of a broken line is not what its author wrote.
        let kept: Vec<Problem> = self
            .problems
            .drain(before..)
            .filter(|p| !matches!(p.place, Place::File { line, .. } if broken.contains(&line)))
            .collect();
        self.problems.extend(kept);
        self.problems.sort_by_key(|p| match p.place {
            Place::File { line, column, .. } => (line, column),
            _ => (usize::MAX, 0),
        });
    }

    fn read_table(&mut self, section: &str, table: &DeTable<'_>, place: &dyn Fn(Range<usize>) -> Place) {
        for (name, value) in table {
            let at = place(name.span());
            let known = KEYS.iter().find(|k| k.section == section && k.name == name.get_ref());
            if let Some(key) = known {
                self.read_value(key, value, at, place);
            } else if section.is_empty() && is_section(name.get_ref()) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.read_table(name.get_ref(), inner, place),
                    _ => self.problem(
                        at,
                        format!("{} is a section", name.get_ref()),
                        Some(format!("write [{}] and its keys below", name.get_ref())),
                    ),
                }
            } else {
                let is_table = matches!(value.get_ref(), DeValue::Table(_));
                let (message, hint) = unknown(section, name.get_ref(), is_table);
                self.problem(at, message, hint);
            }
        }
    }

    fn read_value(
        &mut self,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
        at: Place,
        place: &dyn Fn(Range<usize>) -> Place,
    ) {
        let mut wrong = Vec::new();
        (key.from_toml)(&mut self.config, value, &mut wrong);
        for fault in wrong {
            self.problem(place(fault.span), format!("{}: {}", key.path(), fault.message), None);
        }
        self.origins.insert(key.path(), at);
    }

    fn read_env(&mut self, name: &str, value: &str) {
        if OTHER_VARIABLES.contains(&name) || name.starts_with(crate::slash::playbook::ENV_PREFIX) {
            return;
        }
        let place = Place::Env(name.to_owned());
        let Some(key) = KEYS.iter().find(|k| k.env() == name) else {
            // Other tools may well have variables that begin like ours.
            let names: Vec<String> = KEYS.iter().map(Key::env).collect();
            let hint = nearest(name, names.iter().map(String::as_str))
                .map(|near| format!(": did you mean {near}?"))
                .unwrap_or_default();
            self.warnings.push(format!("{place} sets nothing{hint}"));
            return;
        };
        match (key.from_text)(&mut self.config, value) {
            Ok(()) => _ = self.origins.insert(key.path(), place),
            Err(message) => self.problem(place, format!("{}: {message}", key.path()), None),
        }
    }

    fn read_flag(&mut self, flag: &str, path: &str, values: &[String]) {
        let place = Place::Flag(flag.to_owned());
        let Some(key) = KEYS.iter().find(|k| k.path() == path) else {
            self.problem(place, format!("there is no key {path}"), None);
            return;
        };
        let is_list = (key.to_toml)(&self.config).is_some_and(|v| v.starts_with('['));
        let text = if is_list { values.join(",") } else { values.last().cloned().unwrap_or_default() };
        match (key.from_text)(&mut self.config, &text) {
            Ok(()) => _ = self.origins.insert(key.path(), place),
            Err(message) => self.problem(place, message, None),
        }
    }

    fn check(&mut self) {
        for finding in check::check(&self.config) {
            let place = self.origins.get(finding.key).cloned().unwrap_or(Place::Value);
            self.problem(place, finding.message, None);
        }
    }
}

fn is_section(name: &str) -> bool {
    !name.is_empty() && SECTIONS.iter().any(|(section, _)| *section == name)
}

/// What to say about a key that does not exist: the nearest key of its section, else the same name
/// in another section, else the nearest of all.
fn unknown(section: &str, name: &str, is_table: bool) -> (String, Option<String>) {
    if is_table && section.is_empty() {
        let near = nearest(name, SECTIONS.iter().map(|(s, _)| *s).filter(|s| !s.is_empty()));
        let hint = near.map(|near| format!("did you mean [{near}]?")).unwrap_or_else(|| {
            let all: Vec<&str> = SECTIONS.iter().map(|(s, _)| *s).filter(|s| !s.is_empty()).collect();
            format!("sections are {}", all.join(", "))
        });
        return (format!("unknown section [{name}]"), Some(hint));
    }
    let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let here = nearest(name, KEYS.iter().filter(|k| k.section == section).map(|k| k.name));
    let near = match here {
        Some(key) if section.is_empty() => Some(key.to_owned()),
        Some(key) => Some(format!("{section}.{key}")),
        None => {
            KEYS.iter().min_by_key(|k| distance(name, k.name).min(distance(&path, &k.path()))).map(Key::path)
        }
    };
    (format!("unknown key {path}"), near.map(|near| format!("did you mean {near}?")))
}

/// Line and column of a byte offset, both from 1, the column in characters.
pub(crate) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    (line, column)
}
