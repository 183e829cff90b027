//! The playground's output: on a terminal with colours, check marks and a progress line; in a pipe plain lines.

use crate::command::status::terminal_width;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// In a pipe, a line of progress is printed this often.
const PIPE_PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// One colour per node, in turn: cyan, yellow, green, magenta, blue.
const NODE_COLOURS: [u8; 5] = [36, 33, 32, 35, 34];
const GREEN: u8 = 32;
const RED: u8 = 31;

/// Erases the line that the cursor is on.
const ERASE_LINE: &str = "\r\x1b[K";

/// The beginning of a text that fits into `width` columns.
fn cut(text: &str, width: usize) -> &str {
    text.char_indices().nth(width).map_or(text, |(end, _)| &text[..end])
}

/// Standard output, shared by all parts that print.
pub struct Screen {
    is_terminal: bool,
    is_silent: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The text of a terminal's progress line.
    progress: String,
    progressed_at: Option<Instant>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal(), is_silent: false, state: Mutex::default() }
    }

    /// A screen that shows nothing, because standard output has another use.
    pub fn silent() -> Screen {
        Screen { is_terminal: false, is_silent: true, state: Mutex::default() }
    }

    /// Prints a line. The progress line stays the last one.
    pub fn line(&self, text: &str) -> io::Result<()> {
        self.print(&self.lock(), text)
    }

    /// Reports a step that was done; ends the progress line.
    pub fn done(&self, text: &str) -> io::Result<()> {
        let mark = if self.is_terminal { "✓" } else { "ok" };
        self.end_progress_with(&format!("{} {text}", self.coloured(GREEN, mark)))
    }

    /// Reports a failure; ends the progress line.
    pub fn failed(&self, text: &str) -> io::Result<()> {
        let mark = if self.is_terminal { "✗" } else { "FAILED" };
        self.end_progress_with(&format!("{} {text}", self.coloured(RED, mark)))
    }

    /// Prints a line of a node's log. `node` counts from 0.
    pub fn log(&self, node: usize, name: &str, text: &str) -> io::Result<()> {
        let colour = NODE_COLOURS[node % NODE_COLOURS.len()];
        self.line(&format!("{} {text}", self.coloured(colour, &format!("{name} |"))))
    }

    /// Shows the progress of a step.
    pub fn progress(&self, text: &str) -> io::Result<()> {
        let mut state = self.lock();
        if self.is_terminal {
            // A line that wraps can't be erased, and would stay on the screen with each step.
            let text = cut(text, terminal_width().unwrap_or(usize::MAX));
            if state.progress != text {
                state.progress = text.to_owned();
                let mut stdout = io::stdout().lock();
                write!(stdout, "{ERASE_LINE}{text}")?;
                stdout.flush()?;
            }
        } else {
            let begun = *state.progressed_at.get_or_insert_with(Instant::now);
            if begun.elapsed() >= PIPE_PROGRESS_INTERVAL {
                state.progressed_at = Some(Instant::now());
                self.print(&state, text)?;
            }
        }
        Ok(())
    }

    fn end_progress_with(&self, line: &str) -> io::Result<()> {
        let mut state = self.lock();
        let erase = if state.progress.is_empty() { "" } else { ERASE_LINE };
        *state = State::default();
        self.print(&state, &format!("{erase}{line}"))
    }

    fn print(&self, state: &State, line: &str) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match &state.progress[..] {
            "" => writeln!(stdout, "{line}")?,
            progress => write!(stdout, "{ERASE_LINE}{line}\n{progress}")?,
        }
        stdout.flush()
    }

    fn coloured(&self, colour: u8, text: &str) -> String {
        if self.is_terminal { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it prints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_does_not_wrap() {
        assert_eq!(cut("12 s left, 3 faults", 80), "12 s left, 3 faults");
        assert_eq!(cut("grüße", 4), "grüß");
        assert_eq!(cut("grüße", 5), "grüße");
    }
}
