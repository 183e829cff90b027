//! A progress line on stderr; none if stderr is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Clones share one line.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Progress {
        let style = ProgressStyle::with_template("{prefix:>14} [{bar:40}] {percent:>3} % {msg}");
        Progress(ProgressBar::new(0).with_style(style.expect("the template is well-formed").progress_chars("=> ")))
    }

    /// A line that is never shown.
    pub fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// Begins the next phase, which has this many steps.
    pub fn begin(&self, phase: &'static str, steps: u64) {
        self.0.set_prefix(phase);
        self.0.set_length(steps);
        self.set(0, String::new());
    }

    pub fn set(&self, step: u64, note: String) {
        self.0.set_message(note);
        self.0.set_position(step);
    }

    pub fn advance(&self) {
        self.0.inc(1);
    }

    /// Removes the line.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
