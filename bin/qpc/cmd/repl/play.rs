//! `--playbook`: the steps of a file.

use std::{ffi::OsString, path::Path};

use quicprochat_mesh::{
    Playbook, RunningNode,
    api::{ApiError, ErrorClass},
    slash::playbook::{ENV_PREFIX, PlaybookError, StepReport, Variables},
};

use super::paint::Paint;
use crate::{cx::Context, fail::Failure, human, out::note};

/// Columns of an action's name.
const NAME_COLUMNS: usize = 11;

/// Carries out a file on a node. A mistake in it is found before anything is done.
pub async fn run(file: &Path, set: &[String], node: &RunningNode, cx: &Context) -> Result<(), Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| ApiError::usage(format!("cannot read the playbook {shown}: {e}")))?;
    let variables = variables(std::env::vars_os(), set)?;
    let playbook = Playbook::parse(&text, &variables).map_err(|PlaybookError { mistakes }| {
        mistakes.iter().for_each(|mistake| note(format!("{shown}:{mistake}")));
        Failure::Said(ErrorClass::Usage)
    })?;
    super::status(node).await?;
    let paint = Paint::of_stdout();
    if let Some(title) = playbook.title().filter(|_| !cx.out.json) {
        cx.out.show(&(), |()| human::escape(title))?;
    }
    let mut run = playbook.run(node);
    while let Some(report) = run.next().await {
        if report.ok || cx.out.json {
            cx.out.show(&report, |report| tell(report, paint))?;
        }
        if let Some(why) = report.failure() {
            // What kind of failure it was is said; that a step failed is the exit code.
            return Err(ApiError::failed(format!("{shown}: {why}")).into());
        }
    }
    Ok(())
}

fn tell(report: &StepReport, paint: Paint) -> String {
    let StepReport { step, action, ms, detail, .. } = report;
    let mark = paint.good("ok");
    let head = format!("{mark} {step:>3}  {action:NAME_COLUMNS$}  ");
    let indent = " ".repeat(NAME_COLUMNS.saturating_add(10));
    let took = if *ms > 0 { paint.faint(format!("  {ms} ms")) } else { String::new() };
    let detail = human::escape_lines(detail, &indent);
    match detail.split_once('\n') {
        Some((first, rest)) => format!("{head}{first}{took}\n{rest}"),
        None => format!("{head}{detail}{took}"),
    }
}

/// Values by name: those of the environment, and over them those of `--set`.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    set: &[String],
) -> Result<Variables, ApiError> {
    let ours = environment.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?.strip_prefix(ENV_PREFIX)?.to_owned();
        Some((name, value.into_string().ok()?))
    });
    let mut variables: Variables = ours.collect();
    for assignment in set {
        let (name, value) =
            assignment.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                ApiError::usage(format!("--set {assignment:?} is no assignment: write --set NAME=VALUE"))
            })?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_the_environment() {
        let environment = [("QPC_PB_A", "1"), ("QPC_PB_B", "2"), ("QPC_C", "3")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let variables = variables(environment.clone(), &["B=x=y".into()]).unwrap();
        let expected = [("A", "1"), ("B", "x=y")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(variables, expected.into());
        for wrong in ["B", "=x", ""] {
            assert!(super::variables(environment.clone(), &[wrong.into()]).is_err(), "{wrong}");
        }
    }
}
