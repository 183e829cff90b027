//! `ringfort verify` beside a test.

use super::program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Read;
use std::process::{Child, Stdio};

/// Many clients, so that each shard of a small cluster has several keys under way.
const CLIENTS: &str = "--clients=64";
const RATE: &str = "--rate=800";

/// A run that continues until the test ends it.
pub struct Verifying(Child);

impl Verifying {
    /// Starts a run against the nodes at `endpoints`, separated by commas.
    pub fn start(endpoints: &str) -> Verifying {
        let mut command = program();
        command.args([
            "verify",
            "--duration=10m",
            "--timeout=1s",
            CLIENTS,
            RATE,
            "-o",
            "json",
            "--endpoints",
            endpoints,
        ]);
        // The page that shows a contradiction is written there.
        command.current_dir(std::env::temp_dir());
        Verifying(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends the run, and checks that all answers can be explained. Returns the report.
    #[track_caller]
    pub fn finish(mut self) -> Value {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        let mut stdout = String::new();
        self.0.stdout.take().expect("it is piped").read_to_string(&mut stdout).unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{stdout}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let count = |name: &str| report[name].as_u64().expect("a number");
        assert_eq!((&report["verdict"], count("keys_without_last_look")), (&"linearizable".into(), 0), "{report}");
        assert!(count("operations") > 100, "{report}");
        println!(
            "{} operations of verified clients, {} ambiguous, {} refused; longest without service {:.0} ms, a shard {:.0} ms",
            count("operations"),
            count("ambiguous"),
            count("refused"),
            report["longest_without_service_ms"].as_f64().unwrap(),
            report["worst_shard"]["longest_without_service_ms"].as_f64().unwrap(),
        );
        report
    }
}

impl Drop for Verifying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
