//! A node's process: this program run as `ringfort serve`, its log, its signals and its end.
//!
//! Each process is in a group of its own, so that Ctrl-C on the terminal only reaches the playground, which then stops
//! its nodes itself. No node outlives the playground, however it ends: the kernel kills them with it.

use super::screen::Screen;
use crate::command::serve::DIRECTORY_IS_USELESS;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// A node that was asked to stop has this long before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How many of a node's last log lines are kept, to be shown if it ends by itself.
const KEPT_LINES: usize = 10;

/// How often to check whether nodes that a user started have ended.
const STRAY_PAUSE: Duration = Duration::from_millis(50);

/// Sets the size of a log segment. The help does not show it.
pub const SEGMENT_FLAG: &str = "--segment-bytes=";

/// How a node is started, the same way every time.
#[derive(Clone, Debug)]
pub struct NodeCommand {
    pub name: String,
    /// The arguments of this program.
    pub args: Vec<String>,
    /// The file for the log, if that is requested.
    pub log: PathBuf,
}

impl NodeCommand {
    /// The command as a user would type it into a shell, without the hidden setting for the segment size. A node that
    /// is started without it works too; its new segments are larger.
    pub fn line(&self) -> String {
        let shown = self.args.iter().filter(|arg| !arg.starts_with(SEGMENT_FLAG)).map(|arg| quoted(arg));
        let words: Vec<String> = std::iter::once(program()).chain(shown).collect();
        words.join(" ")
    }
}

/// This program's name as it works in any directory: as the user typed it, or its path.
pub fn program() -> String {
    let typed = std::env::args().next().filter(|name| !name.contains('/'));
    let path = || std::env::current_exe().map_or_else(|_| "ringfort".to_owned(), |path| path.display().to_string());
    quoted(&typed.unwrap_or_else(path))
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What happens to the lines that a node logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    Shown,
    /// The last lines are kept in case the node ends by itself.
    Hidden,
    /// The same, and written to a file.
    InFiles,
}

/// A node has ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub struct Ended {
    pub name: String,
    pub status: ExitStatus,
    /// Its last lines.
    pub log: Vec<String>,
}

impl Ended {
    /// Whether the cluster has removed the node, so that it can't be started again in its directory.
    pub fn is_removed(&self) -> bool {
        self.status.success() && self.log.iter().any(|line| line.contains(DIRECTORY_IS_USELESS))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { name, status, log } = self;
        match (status.signal(), log.last()) {
            (Some(signal), _) => write!(f, "{name} was killed by signal {signal}"),
            _ if self.is_removed() => write!(f, "{name} has left the cluster, and its process has ended"),
            _ if status.success() => write!(f, "{name} was stopped"),
            (None, Some(last)) => write!(f, "{name} ended unexpectedly, with {status}: {last}"),
            (None, None) => write!(f, "{name} ended unexpectedly, with {status}"),
        }
    }
}

/// A running node. Killed with the runtime, if it has not ended before.
pub struct NodeProcess {
    pid: Pid,
    status: watch::Receiver<Option<ExitStatus>>,
    is_told_to_end: Arc<AtomicBool>,
}

impl NodeProcess {
    /// Starts a node; `number` counts from 0. Must be called on the process's main thread: the kernel kills a node when
    /// the thread that started it ends.
    pub fn start(
        number: usize,
        command: &NodeCommand,
        logs: Logs,
        screen: Arc<Screen>,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> io::Result<NodeProcess> {
        let parent = getpid();
        let mut process = Command::new(std::env::current_exe()?);
        process.args(&command.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        process.process_group(0).kill_on_drop(true);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGFORT_")) {
            process.env_remove(name);
        }
        // SAFETY: between fork and exec only what is async-signal-safe is allowed. The closure makes two system calls
        // and takes no lock; its errors are built from a number and allocate nothing.
        unsafe {
            process.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // If the parent died before the line above, no signal will come.
                let is_orphan = getppid() != Some(parent);
                if is_orphan { Err(io::Error::from(rustix::io::Errno::CHILD)) } else { Ok(()) }
            });
        }
        let mut child = process.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).expect("a process just started has an id");
        let stderr = child.stderr.take().expect("it was asked for");
        let (status_tx, status) = watch::channel(None);
        let is_told_to_end = Arc::new(AtomicBool::new(false));
        let (name, is_told) = (command.name.clone(), is_told_to_end.clone());
        let mut file = match logs {
            Logs::InFiles => Some(File::options().create(true).append(true).open(&command.log)?),
            Logs::Shown | Logs::Hidden => None,
        };
        tokio::spawn(async move {
            let mut log = VecDeque::new();
            let on_line = |line: String| {
                // Even if lines can't be shown, as in `ringfort playground | head`, they must be read: a full pipe
                // would stop the node.
                if logs == Logs::Shown {
                    let _ = screen.log(number, &name, &line);
                }
                if let Some(file) = &mut file {
                    let _ = writeln!(file, "{line}");
                }
                if log.len() == KEPT_LINES {
                    log.pop_front();
                }
                log.push_back(line);
            };
            let status = follow(child, stderr, on_line).await;
            if !is_told.load(Ordering::Relaxed)
                && let Some(status) = status
            {
                let _ = ended.send(Ended { name, status, log: log.into() });
            }
            let _ = status_tx.send(status);
        });
        Ok(NodeProcess { pid, status, is_told_to_end })
    }

    /// The process's id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the process runs or is stopped by [`NodeProcess::pause`], and has not been asked to end.
    pub fn runs(&self) -> bool {
        self.status.borrow().is_none() && !self.is_told_to_end.load(Ordering::Relaxed)
    }

    /// Suspends the process until [`NodeProcess::resume`].
    pub fn pause(&self) {
        self.send(Signal::STOP);
    }

    pub fn resume(&self) {
        self.send(Signal::CONT);
    }

    /// Kills the node as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.end_by(Signal::KILL);
        let _ = self.status.wait_for(Option::is_some).await;
    }

    /// Asks the node to stop and waits until it has; one that takes too long is killed. Returns whether it ended
    /// cleanly; a node that had already ended does not count as a failure.
    pub async fn stop(&mut self) -> bool {
        if self.status.borrow().is_some() {
            return true;
        }
        self.end_by(Signal::INT);
        if timeout(STOP_PATIENCE, self.status.wait_for(Option::is_some)).await.is_err() {
            self.kill().await;
        }
        self.status.borrow().is_some_and(|status| status.success())
    }

    fn end_by(&self, signal: Signal) {
        self.is_told_to_end.store(true, Ordering::Relaxed);
        self.send(signal);
    }

    fn send(&self, signal: Signal) {
        // The id is this process's own until the task has fetched its status, on this same thread.
        if self.status.borrow().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Stops all nodes whose `--raft-dir` is in `directory`, including those started by hand, as [`NodeProcess::stop`]
/// does. Returns how many had to be killed.
pub async fn stop_strays(directory: &Path) -> usize {
    let begun = Instant::now();
    for pid in strays(directory) {
        let _ = kill_process(pid, Signal::INT);
    }
    while begun.elapsed() < STOP_PATIENCE {
        if strays(directory).is_empty() {
            return 0;
        }
        sleep(STRAY_PAUSE).await;
    }
    let left = strays(directory);
    for pid in &left {
        let _ = kill_process(*pid, Signal::KILL);
    }
    left.len()
}

/// The processes that are nodes with a `--raft-dir` in `directory`.
fn strays(directory: &Path) -> Vec<Pid> {
    let prefixes = ["--raft-dir=", "--raft_dir="].map(|flag| format!("{flag}{}/", directory.display()));
    let is_node = |pid: &Pid| {
        // A zombie has an empty command line, and does not count.
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let words = || line.split(|byte| *byte == 0);
        words().any(|word| word == b"serve")
            && words().any(|word| prefixes.iter().any(|prefix| word.starts_with(prefix.as_bytes())))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(is_node).collect()
}

/// Reads a process's log until its end, and returns its status.
async fn follow(mut child: Child, stderr: ChildStderr, mut on_line: impl FnMut(String)) -> Option<ExitStatus> {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        on_line(line);
    }
    child.wait().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_node_ended_is_told_in_plain_words() {
        let ended = |status, log: &[&str]| Ended {
            name: "node3".to_owned(),
            status: ExitStatus::from_raw(status),
            log: log.iter().map(|line| (*line).to_owned()).collect(),
        };
        let log = ["INFO node3 joined the cluster", "INFO node3 serves clients on"];
        assert_eq!(ended(9, &log).to_string(), "node3 was killed by signal 9");
        assert_eq!(ended(0, &log).to_string(), "node3 was stopped");
        let failed = ended(2 << 8, &["INFO node3 starts", "ringfort: the port is taken"]);
        assert_eq!(failed.to_string(), "node3 ended unexpectedly, with exit status: 2: ringfort: the port is taken");
        assert!(!failed.is_removed());
        let left = ended(0, &["INFO node3 has left the cluster: stopping; data/node3 can be deleted", "INFO stopped"]);
        assert!(left.is_removed());
        assert_eq!(left.to_string(), "node3 has left the cluster, and its process has ended");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        assert_eq!(quoted("--raft-dir=/tmp/a_b-1.2"), "--raft-dir=/tmp/a_b-1.2");
        assert_eq!(quoted("/tmp/my dir"), "'/tmp/my dir'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
