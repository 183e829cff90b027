//! `ringfort playground --chaos` for a short time.

use crate::support::{list, program, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

#[test]
fn nothing_is_lost_and_all_answers_are_right_under_faults_of_all_kinds() {
    let arguments = ["playground", "--chaos", "--duration=20s", "--seed=11", "--output=json"];
    let output = program().args(arguments).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    println!("{} {}", report["outages_ms"], report["failover_ms"]);
    assert_eq!((&report["linearizable"], &report["lost_acknowledgements"]), (&true.into(), &0.into()));
    assert!(list(&report, "faults").len() >= 3, "{stdout}");
    assert!(report["acknowledged_writes"].as_u64().unwrap() > 1000, "{stdout}");
    assert_eq!(report["undecided"], 0);
}

#[test]
fn a_disk_that_is_slow_or_hangs_is_got_over() {
    // A disk that is slow for 2.5 s, another one that hangs for 4.8 s.
    let arguments =
        ["playground", "--chaos", "--duration=8s", "--faults=slow-disk,hung-disk", "--seed=369", "--output=json"];
    let output = program().args(arguments).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    println!("{}", report["outages_ms"]);
    assert!(report["outages_ms"]["slow-disk"].is_object() && report["outages_ms"]["hung-disk"].is_object(), "{stdout}");
    assert!(report["acknowledged_writes"].as_u64().unwrap() > 1000, "{stdout}");
}

#[test]
fn ctrl_c_ends_it_with_what_there_is() {
    let arguments = ["playground", "--chaos", "--duration=30m", "--faults=pause,kill"];
    let mut process = program().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !(line.starts_with("ok ") && line.ends_with(" ms without service\n")) {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    // The signal most likely arrives in the middle of the next fault, which must be undone.
    std::thread::sleep(std::time::Duration::from_secs(2));
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("ok linearizable, and no acknowledged write is lost"), "{rest}");
    assert!(rest.contains("all nodes stopped"), "{rest}");
}

#[test]
fn fewer_than_three_nodes_are_refused() {
    let output = program().args(["playground", "--chaos", "--nodes=2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("give --nodes=3 or more"), "{}", text(&output.stderr));
}
