//! Test support: nodes as processes, commands as a user types them, and waiting for conditions.
//!
//! Directories are removed and processes killed when a [`Cluster`] is dropped; a test that fails prints the nodes'
//! logs.

mod faulty_disk;
pub mod small_disk;
pub mod verifying;
pub mod wall_clock;
mod writers;

pub use writers::{Writers, assert_all_there};

use ringfort_client::Client;
use ringfort_ring::ShardCount;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// How long any awaited condition may take. Far more than needed, because machines may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often an awaited condition is checked.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a node that is asked to stop may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A node, running or not.
pub struct Node {
    pub name: String,
    pub port: u16,
    pub raft_port: u16,
    /// The arguments of `ringfort serve`. A flag must not be given twice; [`Node::set`] replaces it.
    pub arguments: Vec<String>,
    pub directory: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Node {
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the node by its command, the same each time.
    pub fn start(&mut self) {
        self.start_by(program());
    }

    /// Starts the node through a program that runs this one.
    pub fn start_by(&mut self, program: Command) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.start_with_stderr(program, log);
    }

    /// Starts the node and gives it this stderr in place of its log.
    pub fn start_with_stderr(&mut self, mut program: Command, stderr: impl Into<Stdio>) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let process = program.arg("serve").args(&self.arguments).stderr(stderr).spawn().unwrap();
        self.process = Some(process);
    }

    /// Gives a flag, `--name=value`, another value.
    pub fn set(&mut self, flag: &str) {
        let name = flag.split('=').next().expect("a flag has a name").to_owned() + "=";
        self.arguments.retain(|argument| !argument.starts_with(&name));
        self.arguments.push(flag.to_owned());
    }

    /// What the node has logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the node has logged this text.
    #[track_caller]
    pub fn wait_for_log(&self, said: &str) {
        assert!(came_about(|| self.log().contains(said)), "{} did not say {said:?}", self.name);
    }

    /// Waits until the process ends by itself. Returns its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it runs");
        let mut status = None;
        let ended = came_about(|| {
            status = process.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            process.kill().unwrap();
            process.wait().unwrap();
            panic!("{} did not end within {PATIENCE:?}", self.name);
        }
        status.and_then(|status| status.code())
    }

    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// The process's id.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// The most memory that the process has had so far.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    /// Resets the peak. Returns the memory that the process has now.
    pub fn begin_peak_memory(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.process_id()), "5").unwrap();
        self.memory_bytes("VmRSS:")
    }

    fn memory_bytes(&self, kind: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).expect("Linux reports it");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes << 10
    }

    /// The address at which it serves HTTP, from its log.
    #[track_caller]
    pub fn monitored_at(&self) -> String {
        const SAID: &str = "metrics and health on http://";
        self.wait_for_log(SAID);
        let log = self.log();
        let (_, address) = log.rsplit_once(SAID).expect("it was said");
        address.split_whitespace().next().expect("an address follows").to_owned()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends Ctrl-C. Returns the exit status of the process, which must end in time.
    #[track_caller]
    pub fn interrupt(&mut self) -> ExitStatus {
        self.stop(Signal::INT)
    }

    /// Sends a signal without waiting.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.process.as_ref().expect("it runs")), signal).unwrap();
    }

    /// Sends a signal that stops a node. Returns the exit status of the process, which must end in time.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process), signal).unwrap();
        let begun = Instant::now();
        loop {
            match process.try_wait().unwrap() {
                Some(status) => return status,
                None if begun.elapsed() < STOP_LIMIT => thread::sleep(Duration::from_millis(5)),
                None => {
                    process.kill().unwrap();
                    process.wait().unwrap();
                    panic!("{} did not stop within {STOP_LIMIT:?}", self.name);
                }
            }
        }
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    directory: TempDir,
    /// All ports that its nodes have had.
    held: Vec<TcpSocket>,
}

impl Cluster {
    /// Nodes node1, node2, ... with their own ports, none of them running. Each is started by the README's command,
    /// with underscores in its flags, followed by the `extra` arguments.
    pub fn prepare(count: usize, extra: &[&str]) -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let held: Vec<TcpSocket> = (0..2 * count).map(|_| hold_port()).collect();
        let ports: Vec<u16> = held.iter().map(port_of).collect();
        let nodes = ports.chunks(2).enumerate().map(|(number, own)| {
            let name = format!("node{}", number + 1);
            let path = directory.path().join(&name);
            let mut arguments = vec![
                format!("--port={}", own[0]),
                format!("--raft_port={}", own[1]),
                format!("--node_id={name}"),
                format!("--raft_dir={}", path.display()),
                match number {
                    0 => "--bootstrap=true".to_owned(),
                    _ => format!("--join_addr=localhost:{}", ports[0]),
                },
            ];
            arguments.extend(extra.iter().map(|argument| argument.to_string()));
            let log = path.with_extension("log");
            Node { name, port: own[0], raft_port: own[1], arguments, directory: path, log, process: None }
        });
        Cluster { nodes: nodes.collect(), directory, held }
    }

    /// A cluster of running nodes in which every shard has all its replicas.
    pub fn start(count: usize) -> Cluster {
        // Small segments, because a node allocates disk space for them before it serves.
        Cluster::start_with(count, &["--segment-bytes=4194304"])
    }

    /// The same with other flags for all nodes.
    pub fn start_with(count: usize, extra: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, extra);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_until_complete(count);
        cluster
    }

    /// Gives a stopped node other ports, and the address of the first node as the one to join.
    pub fn readdress(&mut self, number: usize) {
        let held = [hold_port(), hold_port()];
        let first = self.nodes[0].port;
        let node = &mut self.nodes[number];
        assert!(node.process.is_none(), "{} runs", node.name);
        (node.port, node.raft_port) = (port_of(&held[0]), port_of(&held[1]));
        node.set(&format!("--port={}", node.port));
        node.set(&format!("--raft_port={}", node.raft_port));
        if number > 0 {
            node.set(&format!("--join_addr=localhost:{first}"));
        }
        self.held.extend(held);
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("there is such a node")
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::endpoint).collect()
    }

    /// A client that knows all nodes.
    pub fn client(&self) -> Client {
        Client::connect(self.endpoints()).unwrap().with_timeout(Duration::from_secs(10))
    }

    /// Runs a command with `RINGFORT_ENDPOINTS` naming all nodes.
    pub fn runs(&self, arguments: &[&str]) -> Output {
        run(arguments, &self.endpoints().join(","), b"")
    }

    /// Begins a command that will take a while.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = program();
        command.args(arguments).env("RINGFORT_ENDPOINTS", self.endpoints().join(","));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a command that must succeed. Returns its output.
    #[track_caller]
    pub fn prints(&self, arguments: &[&str]) -> String {
        let output = self.runs(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The answer of `status -o json`, or the error.
    pub fn status(&self) -> Result<Value, String> {
        let output = self.runs(&["status", "-o", "json"]);
        if output.status.code() == Some(2) {
            return Err(text(&output.stderr));
        }
        let status: Value = serde_json::from_slice(&output.stdout).expect("status prints JSON");
        assert_eq!(output.status.code(), Some(i32::from(status["healthy"] != true)));
        Ok(status)
    }

    /// Waits for a status that fulfils the condition.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Err("not asked yet".to_owned());
        let came = came_about(|| {
            last = self.status();
            last.as_ref().is_ok_and(&mut condition)
        });
        let summary = last.as_ref().map(|status| status["summary"].clone());
        assert!(came, "not within {PATIENCE:?}: {what}; the last status was {summary:?}");
        last.expect("the condition was fulfilled")
    }

    /// Waits until there are `nodes` nodes and every shard is on as many of them as possible, up to three, with all
    /// replicas caught up; and checks that the status then promises the right number of tolerated failures.
    #[track_caller]
    pub fn wait_until_complete(&self, nodes: usize) -> Value {
        let replicas = nodes.min(3);
        let status = self.wait_for_status(&format!("{nodes} nodes, shards on {replicas} of them"), |status| {
            status["healthy"] == true
                && list(status, "nodes").len() == nodes
                && list(status, "shards").iter().all(|shard| list(shard, "members").len() >= replicas)
        });
        let tolerated = u64::from(nodes >= 3);
        assert_eq!(status["node_failures_tolerated"], tolerated, "{}", status["summary"]);
        status
    }
}

/// The summary of a status, without remarks about disks: a slow disk is a property of this machine, not of the cluster.
pub fn summary(status: &Value) -> String {
    let summary = status["summary"].as_str().expect("status has a summary");
    summary.split("; ").filter(|part| !part.starts_with("the disk")).collect::<Vec<_>>().join("; ")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            if thread::panicking() {
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                eprintln!("--- {} logged, in {}:\n{log}", node.name, self.directory.path().display());
            }
        }
    }
}

/// The program under test, isolated from the environment variables of the user who runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfort"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGFORT_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str], endpoints: &str, stdin: &[u8]) -> Output {
    let mut child = program()
        .args(arguments)
        .env("RINGFORT_ENDPOINTS", endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// Status and body of an HTTP GET.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Whether a condition becomes true before [`PATIENCE`] is over.
pub fn came_about(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begun.elapsed() >= PATIENCE {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// A port for one program: bound, so that the system assigns it to no other, but not listened on, so that a program
/// that asks for it by number gets it.
fn hold_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

fn port_of(socket: &TcpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// The name of the node that leads a key's shard, according to `status -o json`.
pub fn leader_of(key: &str, status: &Value) -> String {
    // All shards but the system shard.
    let shards = ShardCount::new(list(status, "shards").len() as u32 - 1).unwrap();
    let shard = shards.shard_of_key(key.as_bytes()).to_string();
    let shard = list(status, "shards").iter().find(|entry| entry["shard"] == *shard).expect("it has a status");
    let leader = list(status, "nodes").iter().find(|node| node["id"] == shard["leader"]).expect("it has a leader");
    leader["name"].as_str().unwrap().to_owned()
}

pub fn list<'a>(value: &'a Value, field: &str) -> &'a Vec<Value> {
    value[field].as_array().unwrap_or_else(|| panic!("{field} is a list"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
