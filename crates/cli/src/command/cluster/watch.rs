//! Waits for the effects of a command, with a progress bar on a terminal and lines elsewhere.

use crate::failure::Failure;
use crate::text::duration;
use indicatif::{ProgressBar, ProgressStyle};
use ringfort_client::{Client, Error};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// How often the status is polled.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// How often a line is printed if stderr is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What is left to do.
pub enum Left {
    Nothing,
    /// This many pieces, and what blocks them, if anything.
    Pieces(usize, Option<String>),
}

/// Polls until nothing is left. Returns false if Ctrl-C ended the wait. A cluster that does not answer is asked again:
/// the moves continue without the node that is asked.
pub async fn wait(
    client: &Client,
    doing: &str,
    pieces: &str,
    left: impl AsyncFn(&Client) -> Result<Left, Error>,
) -> Result<bool, Failure> {
    let mut watch = Watch::new(doing, pieces);
    let waited = async {
        loop {
            match left(client).await {
                Ok(Left::Nothing) => return Ok(()),
                Ok(Left::Pieces(count, obstacle)) => watch.show(count, obstacle),
                Err(error) if error.is_retry_safe() => watch.note(error.to_string()),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let ended = tokio::select! {
        ended = waited => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    watch.bar.finish_and_clear();
    match ended {
        Some(ended) => Ok(ended.map(|()| true)?),
        None => Ok(false),
    }
}

struct Watch {
    bar: ProgressBar,
    doing: String,
    pieces: String,
    begun: Instant,
    /// The most that were left at any time.
    most: usize,
    looked: Instant,
    /// For how long something kept it from getting on, which says nothing of the pace.
    halted: Duration,
    line_due: Instant,
}

impl Watch {
    fn new(doing: &str, pieces: &str) -> Watch {
        let style =
            ProgressStyle::with_template("{prefix} [{bar:16}] {wide_msg}").expect("the template is well-formed");
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(doing.to_owned());
        let now = Instant::now();
        Watch {
            bar,
            doing: doing.to_owned(),
            pieces: pieces.to_owned(),
            begun: now,
            most: 0,
            looked: now,
            halted: Duration::ZERO,
            line_due: now,
        }
    }

    fn show(&mut self, left: usize, obstacle: Option<String>) {
        self.most = self.most.max(left);
        let done = self.most - left;
        let since = std::mem::replace(&mut self.looked, Instant::now());
        let mut text = format!("{done} of {} {} done", self.most, self.pieces);
        match obstacle {
            // In front, where a narrow terminal shows it.
            Some(obstacle) => {
                self.halted += self.looked - since;
                text = format!("{obstacle}; {text}");
            }
            None => text += &estimate(self.begun.elapsed().saturating_sub(self.halted), done, left),
        }
        self.bar.set_length(self.most as u64);
        self.bar.set_position(done as u64);
        self.note(text);
    }

    fn note(&mut self, text: String) {
        if !io::stderr().is_terminal() && Instant::now() >= self.line_due {
            eprintln!("{}: {text}", self.doing);
            self.line_due = Instant::now() + LINE_INTERVAL;
        }
        self.bar.set_message(text);
    }
}

/// When it will be done, by the pace so far; empty if there is no pace yet.
fn estimate(elapsed: Duration, done: usize, left: usize) -> String {
    match elapsed.checked_div(done as u32) {
        Some(each) if left > 0 => format!(", about {} left", duration(each.saturating_mul(left as u32))),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_the_pace() {
        let elapsed = Duration::from_secs(30);
        assert_eq!(estimate(elapsed, 0, 10), "");
        assert_eq!(estimate(elapsed, 10, 5), ", about 15 s left");
        assert_eq!(estimate(elapsed, 1, 10), ", about 5 min left");
        assert_eq!(estimate(elapsed, 10, 0), "");
    }
}
