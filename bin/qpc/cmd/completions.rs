//! `qpc completions`: a script for the shell.

use clap::{CommandFactory, ValueEnum};
use quicprochat_mesh::api::ApiError;
use serde::Serialize;

use super::Cli;
use crate::{cx::Context, fail::Failure};

const EXAMPLES: &str = "\
Examples:
  qpc completions bash > ~/.local/share/bash-completion/completions/qpc
  qpc completions zsh > ~/.zfunc/_qpc
  qpc completions fish > ~/.config/fish/completions/qpc.fish";

/// Print a script that completes commands in your shell
///
/// Put it where your shell looks for completions, and start the shell anew. zsh looks into the
/// directories of its fpath: have `fpath=(~/.zfunc $fpath)` before `compinit` in ~/.zshrc.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Your shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// With --json.
#[derive(Serialize)]
struct Script {
    shell: Shell,
    script: String,
}

pub fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let script = script(args.shell)?;
    cx.out.show(&Script { shell: args.shell, script }, |s| s.script.clone())
}

fn script(shell: Shell) -> Result<String, ApiError> {
    // With it, the script would have every command twice.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut command = visible(&command);
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "qpc", &mut script);
    String::from_utf8(script).map_err(|_| ApiError::failed("the script is not UTF-8"))
}

/// The definition without what is hidden, which a script would offer like the rest.
fn visible(command: &clap::Command) -> clap::Command {
    // Names are static, and this process ends with the script.
    let name: &'static str = command.get_name().to_owned().leak();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(visible);
    let about = command.get_about().cloned().unwrap_or_default();
    clap::Command::new(name)
        .about(about)
        // Each has its own among the arguments already.
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_knows_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).expect("a script");
            // Commands are described only where they are called; here all of them are.
            for word in ["outbox", "cancel", "priority", "critical", "health-listen", "completions"] {
                assert!(script.contains(word), "{word} is missing for {shell:?}");
            }
            assert!(!script.contains("strangers"), "what is hidden stays hidden: {shell:?}");
        }
    }
}
