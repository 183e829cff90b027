//! `ringfort playground`.

use crate::support::{came_about, program, run, text};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

#[test]
fn tour_tells_its_story_in_half_a_minute() {
    let begun = Instant::now();
    let output = program().args(["playground", "--tour"]).output().unwrap();
    let story = text(&output.stdout);
    println!("{story}");
    assert!(output.status.success(), "{story}{}", text(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    for step in ["is dead", "without service for ", "started again", "caught up after", "acknowledged writes read back"]
    {
        assert!(story.lines().any(|line| line.starts_with("ok ") && line.contains(step)), "{step} is missing: {story}");
    }
}

/// A playground that has printed how to use it.
struct Playground {
    process: Child,
    output: BufReader<ChildStdout>,
    endpoints: Vec<String>,
    pids: Vec<Pid>,
    data: PathBuf,
    /// Everything that the playground printed at its start.
    told: String,
}

impl Playground {
    fn start(arguments: &[&str]) -> Playground {
        let mut process = program().arg("playground").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (endpoints, pids, data) = (Vec::new(), Vec::new(), PathBuf::new());
        let mut playground = Playground { process, output, endpoints, pids, data, told: String::new() };
        loop {
            let line = playground.line();
            playground.told += &line;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["Ctrl-C", ..] => return playground,
                [_, endpoint, "process", pid] => {
                    playground.endpoints.push(endpoint.to_owned());
                    playground.pids.push(Pid::from_raw(pid.parse().unwrap()).unwrap());
                }
                ["data", path, ..] => playground.data = PathBuf::from(path),
                _ => {}
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the playground ended");
        line
    }

    fn wait_for_line(&mut self, part: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
        }
    }

    fn runs(&self, arguments: &[&str]) -> String {
        let output = run(arguments, &self.endpoints.join(","), b"");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Sends a signal to the playground itself, and waits for its end.
    fn end_by(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap()
    }

    #[track_caller]
    fn assert_no_process_is_left(&self) {
        // If the playground is dead, its nodes stay zombies until another process reaps them.
        let is_gone = |pid: &Pid| test_kill_process(*pid).is_err() || is_zombie(*pid);
        assert!(came_about(|| self.pids.iter().all(is_gone)), "of {:?} some live on", self.pids);
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn ctrl_c_leaves_no_process_and_no_file_behind() {
    let mut playground = Playground::start(&["--nodes=2"]);
    assert_eq!((playground.endpoints.len(), playground.pids.len()), (2, 2));
    assert!(playground.data.is_dir());
    assert!(playground.told.contains("alias ringfort=/"), "{}", playground.told);
    assert!(!playground.told.contains("INFO"), "nodes log elsewhere: {}", playground.told);
    assert!(!playground.told.contains("kill -9"), "one of two nodes is no majority: {}", playground.told);
    assert!(playground.told.contains("let more nodes join, or give --nodes=3"), "{}", playground.told);
    assert!(!playground.told.contains("--segment-bytes"), "{}", playground.told);
    assert_eq!(playground.runs(&["put", "hello", "world"]), "OK, version 1\n");
    assert_eq!(playground.runs(&["get", "hello"]), "world");
    playground.runs(&["cluster", "leave", "node2", "--fewer-replicas"]);
    assert_eq!(playground.wait_for_line("node2").trim(), "node2 has left the cluster, and its process has ended");
    let begun = Instant::now();
    assert!(playground.end_by(Signal::INT).success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    playground.assert_no_process_is_left();
    assert!(!playground.data.exists());
}

#[test]
fn ctrl_c_stops_a_node_too_that_was_started_by_hand() {
    let mut playground = Playground::start(&["--nodes=2"]);
    kill_process(playground.pids[1], Signal::KILL).unwrap();
    let command = playground.wait_for_line("to start node2 again");
    let command = command.split_once(": ").unwrap().1.trim();
    let mut shell = std::process::Command::new("sh");
    let mut by_hand = shell.args(["-c", &format!("exec {command}")]).stderr(Stdio::null()).spawn().unwrap();
    assert!(came_about(|| run(&["get", "k"], &playground.endpoints[1], b"").status.code() == Some(1)));
    playground.end_by(Signal::INT);
    let ended = came_about(|| by_hand.try_wait().unwrap().is_some());
    let _ = by_hand.kill();
    assert!(ended, "it serves from a directory that is gone");
    assert!(!playground.data.exists());
}

#[test]
fn nodes_do_not_outlive_a_playground_that_is_killed_and_data_can_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let argument = format!("--dir={}", directory.path().display());
    let mut playground = Playground::start(&[&argument]);
    assert_eq!(playground.data, directory.path());
    playground.runs(&["put", "hello", "world"]);
    let second = program().arg("playground").arg(&argument).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{}", text(&second.stdout));
    assert!(text(&second.stderr).contains("is in use by another playground"), "{}", text(&second.stderr));

    let endpoints = playground.endpoints.clone();
    kill_process(playground.pids[1], Signal::KILL).unwrap();
    assert_eq!(playground.wait_for_line("node2").trim(), "node2 was killed by signal 9");
    assert!(playground.wait_for_line("to start node2 again").contains("--node-id=node2"));
    assert_eq!(playground.runs(&["get", "hello"]), "world");

    assert!(!playground.end_by(Signal::KILL).success());
    playground.assert_no_process_is_left();
    assert!(Path::new(&playground.data).is_dir());
    let mut again = Playground::start(&[&argument, "--nodes=1"]);
    assert!(again.told.contains("holds a cluster of 3 nodes, and all of them start"), "{}", again.told);
    assert_eq!(again.endpoints, endpoints, "the ports stay with the directory");
    assert_eq!(again.runs(&["get", "hello"]), "world");
    assert!(again.end_by(Signal::TERM).success());
    assert!(directory.path().join("node1").is_dir());
}
