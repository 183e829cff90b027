//! `ringfort bench` against a real node: its figures are consistent, and it leaves nothing behind.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A cluster of one node. Killed when it is dropped.
struct Node {
    process: Child,
    endpoint: String,
    _directory: TempDir,
}

impl Node {
    fn start() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let mut process = ringfort()
            .args(["serve", "--node-id=node1", "--port=0", "--raft-port=0", "--bootstrap", "--shards=8"])
            .args(["--segment-bytes=1048576", "--raft-dir"])
            .arg(directory.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serves =
            lines.find_map(|line| Some(line.split_once(" serves clients on ")?.1.split_once(',')?.0.to_owned()));
        // A full pipe would stop the node.
        std::thread::spawn(move || lines.for_each(drop));
        Node { process, endpoint: serves.expect("the node serves"), _directory: directory }
    }

    fn runs(&self, args: &[&str]) -> Output {
        ringfort().args(args).args(["--endpoints", &self.endpoint]).output().unwrap()
    }

    /// The JSON of a short bench without errors.
    #[track_caller]
    fn benches(&self, args: &[&str]) -> Value {
        let short = ["bench", "-o", "json", "--duration=1s", "--warm-up=100ms", "--keys=200"];
        let output = self.runs(&[&short, args].concat());
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        assert!(stderr.is_empty() && stdout.lines().count() == 1, "a pipe gets the result alone: {stderr}{stdout}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn keys(&self) -> usize {
        self.runs(&["scan", "--prefix=bench/"]).stdout.split(|byte| *byte == b'\n').count() - 1
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ringfort() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringfort"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Checks that counts, rates and percentiles of one kind of request are consistent. Returns the count.
#[track_caller]
fn check_operations(operations: &Value, seconds: f64) -> f64 {
    let count = number(&operations["operations"]);
    assert!(count > 0.0, "{operations}");
    assert!((number(&operations["operations_per_second"]) - count / seconds).abs() < 1e-6, "{operations}");
    let latencies = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(&operations["latency_ms"][name]));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{operations}");
    count
}

#[test]
fn puts_are_measured_and_deleted() {
    let node = Node::start();
    let report = node.benches(&["--in-flight=16"]);
    let puts = check_operations(&report["puts"], 1.0);
    assert_eq!((number(&report["operations"]), &report["gets"]), (puts, &Value::Null));
    // A closed loop never has more requests under way than specified: Little's law bounds the mean, and so the median.
    assert!(number(&report["puts"]["latency_ms"]["p50"]) / 1000.0 * puts < 16.0 * 2.0, "{report}");
    let deleted = number(&report["keys_deleted"]);
    assert!(deleted > 0.0 && deleted <= 200.0, "{report}");
    assert_eq!((node.keys(), &report["floor"]), (0, &Value::Null));
}

#[test]
fn mixed_requests_are_measured_beside_the_floor() {
    let node = Node::start();
    let directory = format!("--floor-dir={}", env!("CARGO_TARGET_TMPDIR"));
    let mix = ["--reads=40", "--increments=20", "--appends=20"];
    let report = node.benches(&[&mix[..], &["--keep", "--floor", &directory]].concat());
    let all = |rates: &Value, seconds: f64| -> f64 {
        ["puts", "gets", "increments", "appends"].iter().map(|kind| check_operations(&rates[*kind], seconds)).sum()
    };
    let run = all(&report, 1.0);
    assert_eq!(number(&report["operations"]), run);
    assert!(report["errors"].as_object().unwrap().values().all(|count| count == 0), "{report}");

    let floor = &report["floor"];
    let echoes = ["echo_before", "echo_after"].map(|name| {
        let echo = &floor[name];
        let count = all(echo, 0.5);
        assert_eq!(number(&echo["operations"]), count);
        number(&echo["operations_per_second"])
    });
    assert!((number(&floor["echo_drift"]) - echoes[1] / echoes[0]).abs() < 1e-6, "{floor}");
    let ratio = run / ((echoes[0] + echoes[1]) / 2.0);
    assert!((number(&floor["operations_per_echo"]) - ratio).abs() < 1e-6, "{floor}");
    assert!(number(&floor["fdatasync_latency_ms"]["p50"]) > 0.0 && floor["put_per_fdatasync"].is_null(), "{floor}");

    assert!(node.keys() > 200 && report["keys_deleted"].is_null(), "all keys were loaded, and kept");
}

#[test]
fn blind_requests_and_people_are_served() {
    let node = Node::start();
    let blind = node.benches(&["--blind", "--in-flight=1", "--floor", "--floor-dir", env!("CARGO_TARGET_TMPDIR")]);
    check_operations(&blind["puts"], 1.0);
    assert!(number(&blind["floor"]["put_per_fdatasync"]) > 0.0, "{blind}");

    let output = node.runs(&["bench", "--reads=100", "--keys=50", "--duration=200ms", "--warm-up=50ms"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for said in ["gets of 128 bytes, 50 keys; 256 in flight from 4 clients", "P99.9", "no errors", "50 keys deleted"] {
        assert!(text.contains(said), "{said:?} is not in:\n{text}");
    }
}

#[test]
fn a_rate_is_kept_by_a_node_that_can() {
    let node = Node::start();
    let report = node.benches(&["--rate=200", "--in-flight=64"]);
    let puts = check_operations(&report["puts"], 1.0);
    assert!((190.0..=201.0).contains(&puts), "{report}");
}

#[test]
fn interrupted_bench_tells_its_figures_so_far_and_deletes_its_keys() {
    let node = Node::start();
    let mut bench = ringfort()
        .args(["bench", "--keys=100", "--warm-up=1ms", "--duration=1m", "-o", "json", "--endpoints", &node.endpoint])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while node.keys() == 0 {
        assert!(bench.try_wait().unwrap().is_none(), "it runs for a minute");
    }
    assert!(Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap().success());
    let output = bench.wait_with_output().unwrap();
    let (elapsed, stderr) = (begun.elapsed().as_secs_f64(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), &stderr[..]), (Some(0), ""));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seconds = number(&report["seconds"]);
    assert!(seconds > 0.0 && seconds < elapsed, "{report}");
    check_operations(&report["puts"], seconds);
    assert_eq!((&report["interrupted"], node.keys()), (&Value::Bool(true), 0));
}

#[test]
fn a_cluster_that_does_not_answer_is_an_error() {
    let output = ringfort().args(["bench", "--endpoints=127.0.0.1:1", "--timeout=200ms"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.lines().count() == 1 && stderr.contains("no node listens at 127.0.0.1:1 "), "{stderr}");
}
