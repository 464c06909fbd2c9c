//! What people see while they wait: a line on stderr that goes again, on a terminal only.

use std::{
    future::Future,
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over sooner shows nothing.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// Pause between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(100);

const SPINNER: &str = "{spinner} {msg} ({elapsed})";
const BAR: &str = "[{bar:30}] {percent:>3} %  {msg}";

/// One line of progress; gone when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    is_wanted: bool,
}

impl Progress {
    /// Nothing shown yet; nothing ever for programs (`json`), and where nobody looks.
    pub fn new(json: bool) -> Self {
        Self { bar: hidden(), is_wanted: !json && is_looked_at() }
    }

    /// Waits for `work`, with a spinner that says `text` where it takes long.
    pub async fn during<T>(&mut self, text: &str, work: impl Future<Output = T>) -> T {
        self.watching(work, async || Some(text.to_owned())).await
    }

    /// Waits for `work`, with a spinner that says what `look` sees, again and again, where it takes
    /// long.
    pub async fn watching<T>(
        &mut self,
        work: impl Future<Output = T>,
        look: impl AsyncFn() -> Option<String>,
    ) -> T {
        // A bar says more than a spinner.
        if !self.is_wanted || !self.bar.is_hidden() {
            return work.await;
        }
        let told = async {
            loop {
                tokio::time::sleep(SHOWN_AFTER).await;
                if let Some(text) = look().await {
                    self.spin(text);
                }
            }
        };
        let done = tokio::select! {
            done = work => done,
            never = told => never,
        };
        self.clear();
        done
    }

    /// Shows that `done` of `all` parts are there.
    pub fn parts(&mut self, done: u32, all: u32) {
        if !self.is_wanted {
            return;
        }
        if self.bar.is_hidden() {
            self.show(Some(u64::from(all)), BAR);
        }
        // Whatever a node says, a bar is never more than full.
        let full = u64::from(all.max(1));
        self.bar.set_length(full);
        self.bar.set_message(format!("{done} of {all} parts there"));
        self.bar.set_position(u64::from(done).min(full));
    }

    fn spin(&mut self, text: String) {
        if self.bar.is_hidden() {
            self.show(None, SPINNER);
            self.bar.enable_steady_tick(TICK);
        }
        self.bar.set_message(text);
    }

    fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.bar = hidden();
    }

    fn show(&mut self, all: Option<u64>, template: &str) {
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("#>-");
        let target = ProgressDrawTarget::stderr_with_hz(10);
        self.bar = ProgressBar::with_draw_target(all, target).with_style(style);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn hidden() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}

/// Whether stderr is a terminal that can take a line back, and not one that somebody else has at the
/// moment: what runs in the background must not write over what a person types.
fn is_looked_at() -> bool {
    let stderr = stderr();
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb
        && stderr.is_terminal()
        // Where it is not the terminal of our session, nobody can have put us in the background.
        && rustix::termios::tcgetpgrp(&stderr).map_or(true, |group| group == rustix::process::getpgrp())
}
