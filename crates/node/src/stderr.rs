//! What a node writes to stderr: its log, and the last line before it ends.
//!
//! A write to stderr may never return: stderr may be a pipe that is never read, or a file on a disk that hangs. Threads
//! that log must not block on it, above all the one that watches the disk. So only one thread writes, and the others
//! hand it their lines. Its queue is bounded. When it is full, further lines are dropped, and their number is logged
//! once stderr takes lines again.
//!
//! A process that ends waits until its last line is written, but at most for [`PATIENCE`]. Lines that were logged
//! earlier are written first. If the thread can't be started, lines are written directly, and may block.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// The most lines that wait to be written. A healthy node logs a few lines a minute, and far fewer than this at its
/// start.
const MAX_WAITING_LINES: usize = 1024;

/// How long a process that ends waits for its last line.
const PATIENCE: Duration = Duration::from_secs(1);

static STDERR: LazyLock<Option<Lines>> = LazyLock::new(|| Lines::start(io::stderr(), warn_of_left_out).ok());

/// Writes log lines to stderr, for `tracing_subscriber`: each write is a whole line, and never blocks.
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &*STDERR {
            Some(lines) => lines.log(line),
            // No thread could be started.
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the last line of a process, after the lines that were logged earlier. Returns after at most [`PATIENCE`].
pub fn last_line(message: &str) {
    let line = format!("ringfort: {message}\n");
    match &*STDERR {
        Some(lines) => lines.write_last(line.into_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until the lines that were logged so far are written. Returns after at most [`PATIENCE`]. Call it before the
/// process ends.
pub fn flush() {
    if let Some(lines) = &*STDERR {
        lines.write_last(Vec::new());
    }
}

/// Reports panics through the same thread. The default hook writes to stderr directly, and a node must end after a
/// panic even if stderr is never read.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let current = thread::current();
        let mut message = format!("thread {} {panic}", current.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            message.push_str(&format!("\n{backtrace}"));
        }
        last_line(&message);
    }));
}

fn warn_of_left_out(lines: u64) {
    tracing::warn!("{lines} log lines are missing here, because stderr was not read or could not be written");
}

/// The queue to the thread that writes.
struct Lines {
    waiting: Sender<Line>,
    /// How many dropped lines are not reported yet.
    left_out: Arc<AtomicU64>,
}

struct Line {
    text: Vec<u8>,
    /// Dropped when the line is written.
    _written: Option<Sender<()>>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static, report: impl Fn(u64) + Send + 'static) -> io::Result<Lines> {
        let (waiting, lines) = bounded(MAX_WAITING_LINES);
        let left_out = Arc::new(AtomicU64::new(0));
        let counted = left_out.clone();
        // Unlike other threads, it needs no guard that ends the process: nothing that it does panics, even if a write
        // fails.
        Builder::new().name("stderr".into()).spawn(move || write(out, &lines, &counted, report))?;
        Ok(Lines { waiting, left_out })
    }

    fn log(&self, line: &[u8]) {
        if self.waiting.try_send(Line { text: line.into(), _written: None }).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_last(&self, text: Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        let (written_tx, written) = bounded::<()>(0);
        if self.waiting.send_deadline(Line { text, _written: Some(written_tx) }, deadline).is_ok() {
            // Nothing is ever received: the wait ends when the line is dropped.
            let _ = written.recv_deadline(deadline);
        }
    }
}

fn write(mut out: impl Write, lines: &Receiver<Line>, left_out: &AtomicU64, report: impl Fn(u64)) {
    for line in lines {
        // There is no other place to report an error to.
        let _ = out.write_all(&line.text);
        drop(line);
        // The report is itself a line, so it must find room.
        if lines.is_empty() {
            let missing = left_out.swap(0, Ordering::Relaxed);
            if missing > 0 {
                report(missing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stderr that is never read, until `reads` is dropped.
    struct FullPipe {
        reads: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for FullPipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.reads.recv();
            let _ = self.written.send(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_stderr_that_is_not_read_and_what_is_left_out_is_counted() {
        let (held, reads) = bounded(0);
        let (written_tx, written) = crossbeam_channel::unbounded();
        let (report, reported) = crossbeam_channel::unbounded();
        let pipe = FullPipe { reads, written: written_tx };
        let lines = Lines::start(pipe, move |missing| report.send(missing).unwrap()).unwrap();
        lines.log(b"first");
        while !lines.waiting.is_empty() {
            thread::yield_now();
        }
        // The thread has taken the first line, and waits.
        for number in 0..MAX_WAITING_LINES + 7 {
            lines.log(number.to_string().as_bytes());
        }
        let begun = Instant::now();
        lines.write_last(b"not written".to_vec());
        assert!(begun.elapsed() >= PATIENCE);
        drop(held);
        assert_eq!(reported.recv().unwrap(), 7);
        lines.write_last(b"last".to_vec());
        let written: Vec<String> = written.try_iter().collect();
        assert_eq!((written.len(), written[0].as_str()), (MAX_WAITING_LINES + 2, "first"));
        assert_eq!(written.last().unwrap(), "last", "after those before it, and awaited");
    }
}
