//! The client commands as a user runs them: exit codes, stdout and stderr.

#[path = "../../client/tests/support/mod.rs"]
#[allow(dead_code, reason = "the client's own tests need more of it")]
mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use support::Servers;

struct User {
    servers: Servers,
}

impl User {
    fn new() -> User {
        User { servers: Servers::start(1) }
    }

    /// Runs `ringfort` with these arguments and this stdin.
    fn runs_with(&self, args: &[&str], stdin: &[u8]) -> Output {
        let endpoint = self.servers.with(|state| state.addresses[0].clone());
        run(args, stdin, &endpoint)
    }

    #[track_caller]
    fn expects(&self, args: &[&str], code: i32, stdout: &str) {
        let output = self.runs_with(args, b"");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{args:?}");
    }
}

fn run(args: &[&str], stdin: &[u8], endpoint: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfort"))
        .args(args)
        .env("RINGFORT_ENDPOINTS", endpoint)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn endpoints_of_two_clusters_are_refused() {
    let (one, other) = (Servers::start(1), Servers::start(1));
    other.with(|state| state.cluster_id = 8);
    let addresses = [&one, &other].map(|servers| servers.with(|state| state.addresses[0].clone()));
    let both = addresses.join(",");
    for args in [&["put", "k", "v"][..], &["status"], &["cluster", "pause"]] {
        let output = run(args, b"", &both);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        let clusters = ["0000000000000007", "0000000000000008", "give endpoints of one cluster"];
        let parts = addresses.iter().map(String::as_str).chain(clusters);
        parts.for_each(|part| assert!(said.contains(part), "{part} in {said}"));
    }
    assert!([&one, &other].iter().all(|servers| servers.with(|state| state.map.is_empty())));
    // An endpoint that does not answer is not compared.
    let output = run(&["put", "k", "v"], b"", &format!("{},127.0.0.1:1", addresses[0]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn keys_are_put_read_listed_and_deleted() {
    let user = User::new();
    user.expects(&["get", "k"], 1, "");
    user.expects(&["put", "k", "v"], 0, "OK, version 1\n");
    user.expects(&["get", "k"], 0, "v");
    user.expects(&["get", "-o", "json", "none"], 1, "{\"key\":\"none\",\"found\":false}\n");
    user.expects(&["put", "number", "-1"], 0, "OK, version 1\n");
    user.expects(&["put", "dash", "--", "--value_"], 0, "OK, version 1\n");
    user.expects(&["scan"], 0, "dash\t--value_\nk\tv\nnumber\t-1\n");
    user.expects(&["scan", "--start_after=dash", "--limit=1"], 0, "k\tv\n");
    user.expects(&["delete", "k"], 0, "deleted\n");
    user.expects(&["delete", "k"], 1, "");
}

#[test]
fn values_pass_through_pipes_unchanged() {
    let user = User::new();
    let value = b"\xff\x00line\n";
    assert!(user.runs_with(&["put", "k"], value).status.success());
    assert_eq!(user.runs_with(&["get", "k"], b"").stdout, value);
    user.expects(&["scan", "--prefix=k"], 0, "k\t\\xff\\x00line\\n\n");
}

#[test]
fn pages_of_a_scan_are_one_list() {
    let user = User::new();
    user.servers.with(|state| state.map = (b'a'..=b'z').map(|letter| (vec![letter], vec![letter])).collect());
    let all: String = ('a'..='z').map(|letter| format!("{letter}\t{letter}\n")).collect();
    user.expects(&["scan"], 0, &all);
    user.expects(&["scan", "--limit", "5"], 0, &all[..5 * 4]);
}

#[test]
fn status_opens_with_a_sentence() {
    let user = User::new();
    let output = String::from_utf8(user.runs_with(&["status"], b"").stdout).unwrap();
    assert!(
        output.starts_with("0 nodes, 0 shards, tolerates no node failure; not every shard was reported"),
        "{output}"
    );
    assert!(output.contains("--shards lists each") && !output.contains("APPLIED"), "{output}");
    let each = String::from_utf8(user.runs_with(&["status", "--shards"], b"").stdout).unwrap();
    assert!(each.contains("APPLIED"), "{each}");
    let json = user.runs_with(&["status", "-o", "json"], b"").stdout;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap()["healthy"], false);
}

#[test]
fn a_wrong_value_of_an_environment_variable_is_told_with_its_name() {
    let told = |args: &[&str], variable: &str, value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfort")).args(args).env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let serve = ["serve", "--node-id=a", "--raft-dir=d"];
    for (args, variable, value) in [
        (&serve[..], "RINGFORT_PORT", "abc"),
        (&["get", "k"], "RINGFORT_TIMEOUT", "abc"),
        (&["cluster", "plan"], "RINGFORT_OUTPUT", "xml"),
    ] {
        let stderr = told(args, variable, value);
        assert!(stderr.contains(&format!("invalid value '{value}' for '{variable} (--")), "{stderr}");
    }
    let stderr = told(&["get", "k", "--timeout=soon"], "RINGFORT_TIMEOUT", "1s");
    assert!(stderr.contains("invalid value 'soon' for '--timeout <TIME>'"), "{stderr}");
}

#[test]
fn errors_are_one_line_and_exit_code_2() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, endpoint, said) in [
        (&["get", "k", "--timeout", "100ms"], &free[..], "no node listens at 127.0.0.1:"),
        (&["put", "k", "v", "--timeout=100ms"], &free, "or start a cluster with `ringfort playground`"),
        (&["get", "k", "--timeout", "100ms"], "nonsense", "give host:port"),
    ] as [(&[&str], &str, &str); 3]
    {
        let output = run(args, b"", endpoint);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.lines().count() == 1 && stderr.contains(said), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    // An empty variable counts as unset.
    let output = run(&["get", "k", "--timeout=100ms"], b"", "");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("give host:port"));
}

#[test]
fn a_key_is_taken_as_it_is_printed() {
    let user = User::new();
    for key in [&b"a\x01b"[..], b"\xff\x80", b"a\tc", b"back\\slash", b"a\\tb", b"{\"base64\":\"AA==\"}"] {
        user.servers.with(|state| state.map.insert(key.to_vec(), b"v".to_vec()));
        for arguments in [&["scan", "--keys-only"][..], &["scan", "-o", "json"]] {
            let printed = String::from_utf8(user.runs_with(arguments, b"").stdout).unwrap();
            let line = printed.trim_end().to_owned();
            let named = match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(entry) if arguments.contains(&"json") => match &entry["key"] {
                    serde_json::Value::String(key) => key.clone(),
                    bytes => bytes.to_string(),
                },
                _ => line,
            };
            user.expects(&["get", &named], 0, "v");
            user.expects(&["scan", "--count", "--prefix", &named], 0, "1\n");
            user.expects(&["scan", "--count", "--start-after", &named], 0, "0\n");
            user.expects(&["put", &named, "v"], 0, "OK, version 1\n");
        }
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        user.expects(&["put", "--key-hex", &hex, "w"], 0, "OK, version 1\n");
        user.expects(&["get", "--key-hex", &hex], 0, "w");
        user.expects(&["delete", "--key-hex", &hex], 0, "deleted\n");
        assert!(user.servers.with(|state| state.map.is_empty()));
    }
    user.expects(&["put", "--key-base64", "AP8=", "v"], 0, "OK, version 1\n");
    user.expects(&["get", r"\x00\xff"], 0, "v");
    for (args, said) in [
        (&["get", r"a\q"][..], "is not an escape"),
        (&["get"], "no key is given"),
        (&["get", "k", "--key-hex=00"], "the key is given twice"),
        (&["get", "--key-hex=0"], "hexadecimal"),
        (&["delete", "--key-base64=?"], "base64"),
        (&["scan", "--prefix", r"\x1"], "--prefix is invalid"),
    ] {
        let output = user.runs_with(args, b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.lines().count() == 1 && stderr.contains(said), "{args:?}: {stderr}");
    }
}

#[test]
fn commands_have_the_names_that_people_try() {
    let user = User::new();
    user.expects(&["set", "k", "v"], 0, "OK, version 1\n");
    user.expects(&["del", "k"], 0, "deleted\n");
    user.expects(&["rm", "k"], 1, "");
    user.expects(&["version"], 0, concat!("ringfort ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_error_names_each_endpoint_with_its_cause_once() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let [first, second] = [free(), free()];
    let output = run(&["put", "k", "v", "--timeout=600ms"], b"", &format!("{first},{second}"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said = [format!("no node listens at {first}, {second} "), format!("no node listens at {second}, {first} ")];
    assert!(said.iter().any(|said| stderr.contains(said)), "{stderr}");
    // An endpoint that accepts connections but never answers has its own cause in the error.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = format!("{first},{}", silent.local_addr().unwrap());
    let output = run(&["put", "k", "v", "--timeout=600ms"], b"", &endpoints);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches(&format!("{first}: ")).count(), 1, "{stderr}");
    assert_eq!(stderr.to_lowercase().matches("refused").count(), 1, "{stderr}");
}
