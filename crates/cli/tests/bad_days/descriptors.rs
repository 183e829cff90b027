//! More connections than a node has file descriptors for.

use crate::SMALL;
use crate::http2::greeting;
use crate::support::{Cluster, came_about, get, program};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// The program with a limit on its open files, which it can't raise.
fn with_files(limit: u64) -> Command {
    let limited = program();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(limited.get_program());
    command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("RINGFORT_")));
    command
}

fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_refused_before_the_log_and_monitoring_lack_descriptors() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].arguments.push("--http-port=0".to_owned());
    cluster.nodes[0].start_by(with_files(256));
    cluster.nodes[1..].iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(3);
    let monitored = cluster.nodes[0].monitored_at();
    let client = cluster.client();
    client.put("before", "v").await.unwrap();

    let endpoint = cluster.nodes[0].endpoint();
    let connect = |_| {
        let mut stream = TcpStream::connect(&endpoint).unwrap();
        // Without a greeting a connection would be closed anyway; on a refused connection this may fail.
        let _ = stream.write_all(&greeting());
        stream
    };
    let connections: Vec<TcpStream> = (0..300).map(connect).collect();
    let are_refused = || connections.iter().filter(|stream| is_closed(stream)).count() >= 150;
    assert!(came_about(are_refused), "they are not refused");
    // More than the log's segments hold, so that every node needs new ones.
    for number in 0..12 {
        client.put(format!("k{number}"), vec![b'v'; 512 << 10]).await.unwrap();
    }
    for path in ["/healthz", "/metrics"] {
        let (status, body) = get(&monitored, path);
        assert_eq!(status, 200, "{body}");
        if path == "/metrics" {
            assert!(body.contains("ringfort_disk_full 0"), "{body}");
        }
    }
    let log = cluster.nodes[0].log();
    assert!(!log.contains("no space"), "{log}");
    assert!(log.matches("closed a connection").count() <= 2, "{log}");
    drop(connections);
    cluster.wait_until_complete(3);
    let is_served = || {
        TcpStream::connect(&endpoint).is_ok_and(|stream| {
            std::thread::sleep(Duration::from_millis(50));
            !is_closed(&stream)
        })
    };
    assert!(came_about(is_served), "places were not given back");
}

#[test]
fn too_few_descriptors_are_refused_at_the_start() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    cluster.nodes[0].start_by(with_files(100));
    assert_eq!(cluster.nodes[0].ends(), Some(2));
    let log = cluster.nodes[0].log();
    assert!(log.contains("ulimit -n"), "{log}");
}
