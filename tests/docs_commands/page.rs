//! What of a page is to be run.

use std::{fs, path::Path};

/// In front of a block that is not run; the reason follows.
const NOT_RUN: &str = "<!-- not run:";

/// Commands of a page in their order, and the blocks that are left out.
pub struct Page {
    pub steps: Vec<Step>,
    /// Line and reason of each.
    pub not_run: Vec<(usize, String)>,
}

/// What is given to the shell at once.
pub struct Step {
    /// Line of the page, from 1.
    pub line: usize,
    /// Text for the shell.
    pub script: String,
    /// What a `console` block shows behind it; none of a block of the kind `sh`, which has to succeed.
    pub shown: Option<Vec<String>>,
}

impl Page {
    pub fn read(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// # Panics
    /// A block is not closed, or its first line is no command.
    pub fn parse(text: &str) -> Self {
        let mut page = Self { steps: Vec::new(), not_run: Vec::new() };
        let mut lines = text.lines().enumerate();
        let mut before = "";
        while let Some((at, line)) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else {
                before = if line.trim().is_empty() { before } else { line };
                continue;
            };
            let block: Vec<(usize, &str)> = lines
                .by_ref()
                .map(|(at, line)| (at + 1, line))
                .take_while(|(_, line)| !line.starts_with("```"))
                .collect();
            let reason = before.strip_prefix(NOT_RUN).map(|rest| rest.trim_end_matches("-->").trim());
            before = "";
            match (kind, reason) {
                ("sh" | "console", Some(reason)) => page.not_run.push((at + 1, reason.to_owned())),
                ("sh", None) => page.steps.push(Step {
                    line: at + 1,
                    script: block.iter().map(|(_, line)| format!("{line}\n")).collect(),
                    shown: None,
                }),
                ("console", None) => page.steps.extend(commands(&block)),
                _ => {}
            }
        }
        page
    }
}

/// Lines behind `$ ` and what is shown after each; a backslash at the end takes in the next line.
fn commands(block: &[(usize, &str)]) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (line, text) in block {
        if let Some(command) = text.strip_prefix("$ ") {
            out.push(Step { line: *line, script: format!("{command}\n"), shown: Some(Vec::new()) });
        } else {
            let step = out.last_mut().unwrap_or_else(|| panic!("line {line} comes before any command"));
            match (goes_on, &mut step.shown) {
                (true, _) => step.script += &format!("{text}\n"),
                (false, Some(shown)) => shown.push((*text).to_owned()),
                (false, None) => {}
            }
        }
        goes_on = (goes_on || text.starts_with("$ ")) && text.ends_with('\\');
    }
    out
}

#[test]
fn pages_are_taken_apart() {
    let page = Page::parse(
        "Text.\n\n```sh\na\nb\n```\n<!-- not run: why -->\n```sh\nc\n```\n\n```toml\nd\n```\n\
         ```console\n$ e \\\n  f\nshown\n$ g\n```\n",
    );
    let steps: Vec<_> = page
        .steps
        .iter()
        .map(|s| (s.line, s.script.as_str(), s.shown.clone().map(|s| s.join("|"))))
        .collect();
    assert_eq!(
        steps,
        [
            (3, "a\nb\n", None),
            (16, "e \\\n  f\n", Some("shown".to_owned())),
            (19, "g\n", Some(String::new())),
        ]
    );
    assert_eq!(page.not_run, [(8, "why".to_owned())]);
}
