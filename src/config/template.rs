//! A configuration as text: plain, the commented file that `qpc init` writes, and the table of keys of
//! `docs/configuration.md`.

use std::fmt::Write;

use super::{KEYS, MeshConfig, SECTIONS};

const HEAD: &str = "\
# Configuration of a QuicProChat Mesh node.
#
# Every key is here with its default, commented out: remove the # in front of what you change.
# `qpc config check` names every mistake, `qpc config show` what is in force and where it came from.
# Flags of `qpc run` and environment variables (in parentheses) go before this file.
";

/// Every value, none commented.
pub(crate) fn plain(config: &MeshConfig) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        if !section.is_empty() {
            let _ = writeln!(out, "\n[{section}]");
        }
        for key in KEYS.iter().filter(|k| k.section == *section) {
            if let Some(value) = (key.to_toml)(config) {
                let _ = writeln!(out, "{} = {value}", key.name);
            }
        }
    }
    out
}

/// Every key with its meaning and default, commented out.
pub(crate) fn commented() -> String {
    let defaults = MeshConfig::default();
    let mut out = HEAD.to_owned();
    for (section, doc) in SECTIONS {
        out.push('\n');
        if !section.is_empty() {
            let _ = writeln!(out, "[{section}]");
        }
        for line in *doc {
            let _ = writeln!(out, "#{line}");
        }
        for key in KEYS.iter().filter(|k| k.section == *section) {
            out.push('\n');
            for line in key.doc {
                let _ = writeln!(out, "#{line}");
            }
            let _ = writeln!(out, "# ({})", key.env());
            let _ = match (key.to_toml)(&defaults) {
                Some(value) => writeln!(out, "#{} = {value}", key.name),
                None => writeln!(out, "# Not set; {}: {} = …", (key.expected)(), key.name),
            };
        }
    }
    out
}

/// Every key as a row of a Markdown table: what it takes, its default, where
/// [`MeshConfig::constrained`] differs, and its environment variable.
pub(crate) fn table() -> String {
    let (defaults, constrained) = (MeshConfig::default(), MeshConfig::constrained());
    let mut out = "| key | takes | default | constrained | environment |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let code = |value: Option<String>| value.map_or("not set".to_owned(), |value| format!("`{value}`"));
        let [default, thin] = [&defaults, &constrained].map(|config| code((key.to_toml)(config)));
        let thin = if thin == default { "" } else { &thin };
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {thin} | `{}` |",
            key.path(),
            (key.expected)().replace('|', "\\|"),
            key.env()
        );
    }
    out
}
