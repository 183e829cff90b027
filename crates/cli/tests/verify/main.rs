//! `ringfort verify` finds the bugs of faulty stores, and reports none for correct stores.
//!
//! The faulty stores speak the Redis protocol ([`faulty`]), so that they test the whole command: workload, checker,
//! drawing, exit code. The tests of clusters cover Ringfort itself, with a node that is killed.

mod faulty;
#[path = "../cluster/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests of clusters, which need other parts of it")]
mod support;

use faulty::{Bug, FaultyStore};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::{came_about, program, text};
use tempfile::TempDir;

/// Runs a short `ringfort verify` in a directory.
fn verify(directory: &Path, peer: &str, endpoint: &str, more: &[&str]) -> Output {
    program()
        .current_dir(directory)
        .args(["verify", "--duration=2s", "--rate=2000", "--clients=8", "--against", peer, "--endpoints", endpoint])
        .args(more)
        .output()
        .unwrap()
}

fn pages(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

/// Verifies a store with a bug. Returns the operations that it shows, in words.
#[track_caller]
fn shown_of(bug: Bug) -> Vec<String> {
    let (store, directory) = (FaultyStore::start(bug), TempDir::new().unwrap());
    let output = verify(directory.path(), "redis", &store.endpoint, &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{bug:?}: {}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "not_linearizable");
    let shown = report["violation"]["operations"].as_array().unwrap();
    assert!((2..=6).contains(&shown.len()), "{bug:?}: {report}");
    let [page] = &pages(directory.path())[..] else { panic!("one page for one run") };
    assert_eq!(page.matches("<rect").count(), shown.len());
    assert!(directory.path().join(report["page"].as_str().unwrap()).is_file());
    // A store that does not delete keys still has them now.
    assert!(store.keys() == 0 || bug == Bug::Resurrects, "{bug:?}: no key is left");
    shown.iter().map(|operation| operation["operation"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lost_writes_are_found() {
    let shown = shown_of(Bug::LosesWrites);
    assert!(shown.iter().any(|operation| operation.starts_with("put ")), "{shown:?}");
}

#[test]
fn stale_reads_are_found() {
    let shown = shown_of(Bug::ReadsStale);
    assert!(shown.iter().any(|operation| operation.starts_with("get: ")), "{shown:?}");
}

#[test]
fn deleted_values_that_come_back_are_found() {
    let shown = shown_of(Bug::Resurrects);
    assert!(shown.iter().any(|operation| operation.starts_with("delete: ")), "{shown:?}");
}

#[test]
fn increments_that_count_twice_are_found() {
    let shown = shown_of(Bug::CountsTwice);
    assert!(shown.iter().any(|operation| operation.starts_with("increment by ")), "{shown:?}");
}

#[test]
fn appends_that_are_done_twice_are_found() {
    let shown = shown_of(Bug::AppendsTwice);
    assert!(shown.iter().any(|operation| operation.starts_with("append ")), "{shown:?}");
}

#[test]
fn a_violation_is_shown_to_people_in_a_hundred_columns() {
    let (store, directory) = (FaultyStore::start(Bug::ReadsStale), TempDir::new().unwrap());
    let output = verify(directory.path(), "redis", &store.endpoint, &["--html=here.html"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.starts_with("NOT LINEARIZABLE: ") && shown.contains("drawn in here.html"), "{shown}");
    let drawn: Vec<&str> = shown.lines().filter(|line| line.contains("|-")).collect();
    assert!(drawn.len() >= 2 && drawn.iter().all(|line| line.len() <= 100), "{shown}");
    assert!(directory.path().join("here.html").is_file());
}

#[test]
fn a_page_that_cannot_be_written_does_not_hide_the_verdict() {
    let (store, directory) = (FaultyStore::start(Bug::LosesWrites), TempDir::new().unwrap());
    let missing = directory.path().join("missing");
    std::fs::create_dir(&missing).unwrap();
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| verify(directory.path(), "redis", &store.endpoint, &["--html=missing/here.html"]));
        assert!(came_about(|| store.keys() > 0));
        std::fs::remove_dir(&missing).unwrap();
        running.join().unwrap()
    });
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.starts_with("NOT LINEARIZABLE: ") && stderr.contains("missing/here.html"), "{stderr}");
}

#[test]
fn a_store_without_bugs_is_not_accused() {
    let (store, directory) = (FaultyStore::start(Bug::None), TempDir::new().unwrap());
    let output = verify(directory.path(), "redis", &store.endpoint, &["-o", "json"]);
    let report = clean(&output);
    assert!(report["operations"].as_u64().unwrap() > 1000, "{report}");
    assert!(report["gets"]["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{report}");
    for asked in ["increments", "appends"] {
        assert!(report[asked]["operations"].as_u64().unwrap() > 0, "{report}");
    }
    assert!(pages(directory.path()).is_empty() && store.keys() == 0);
}

#[test]
fn ctrl_c_ends_the_run_with_a_verdict_and_without_keys() {
    let store = FaultyStore::start(Bug::None);
    let verify = program()
        .args(["verify", "--duration=5m", "--against=redis", "-o", "json", "--endpoints", &store.endpoint])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(came_about(|| store.keys() > 0), "no keys are written");
    assert!(Command::new("kill").args(["-INT", &verify.id().to_string()]).status().unwrap().success());
    let report = clean(&verify.wait_with_output().unwrap());
    assert!(report["seconds"].as_f64().unwrap() < 60.0, "{report}");
    assert_eq!(store.keys(), 0);
}

#[test]
fn a_store_that_does_not_answer_is_an_error() {
    let directory = TempDir::new().unwrap();
    for peer in ["etcd", "redis"] {
        let output = verify(directory.path(), peer, "127.0.0.1:1", &["--timeout=500ms"]);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("answers at 127.0.0.1:1"), "{stderr}");
    }
}

/// The report of a run that must find nothing wrong.
#[track_caller]
fn clean(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["violation"]), (&Value::from("linearizable"), &Value::Null));
    assert!(report["keys_checked"].as_u64().unwrap() > 0, "{report}");
    report
}

/// A server of another project, killed when it is dropped.
struct Server {
    process: Child,
    endpoint: String,
    _directory: TempDir,
}

impl Server {
    /// `None`, with a message, if the program is not installed.
    fn start(program: &str, arguments: impl Fn(u16, u16, &Path) -> Vec<String>) -> Option<Server> {
        let directory = TempDir::new().unwrap();
        let [port, other] = [(), ()].map(|()| free_port());
        let mut command = Command::new(program);
        command.args(arguments(port, other, directory.path())).current_dir(directory.path());
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(process) => {
                let endpoint = format!("127.0.0.1:{port}");
                assert!(came_about(|| TcpStream::connect(&endpoint).is_ok()), "{program} does not listen");
                Some(Server { process, endpoint, _directory: directory })
            }
            Err(error) => {
                println!("skipped: {program} does not run here ({error})");
                None
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn etcd_is_linearizable() {
    let arguments = |port: u16, peer_port: u16, directory: &Path| {
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        [
            format!("--data-dir={}", directory.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ]
        .to_vec()
    };
    let Some(server) = Server::start("etcd", arguments) else { return };
    let directory = TempDir::new().unwrap();
    let output = verify(directory.path(), "etcd", &server.endpoint, &["-o", "json"]);
    assert!(clean(&output)["scans"]["operations"].as_u64().unwrap() > 0);
}

#[test]
fn a_single_redis_is_linearizable() {
    let arguments = |port: u16, _: u16, _: &Path| {
        ["--port".to_owned(), port.to_string(), "--save".to_owned(), String::new()].to_vec()
    };
    let Some(server) = Server::start("redis-server", arguments) else { return };
    let directory = TempDir::new().unwrap();
    clean(&verify(directory.path(), "redis", &server.endpoint, &["-o", "json"]));
}
