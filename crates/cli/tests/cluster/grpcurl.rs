//! A generic gRPC tool can use Ringfort through reflection.

use crate::support::{Cluster, text};
use std::process::{Command, Output};

fn grpcurl(arguments: &[&str]) -> Output {
    Command::new("grpcurl").args(["-plaintext", "-max-time=10"]).args(arguments).output().expect("grpcurl runs")
}

#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let output = grpcurl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn grpcurl_lists_describes_and_calls() {
    if Command::new("grpcurl").arg("--version").output().is_err() {
        println!("skipped: grpcurl is not on the PATH");
        return;
    }
    let cluster = Cluster::start(2);
    let (first, second) = (cluster.nodes[0].endpoint(), cluster.nodes[1].endpoint());
    let services = answer(&[&first, "list"]);
    for service in ["ringfort.v1.Kv", "ringfort.v1.Cluster", "proto.KV", "grpc.health.v1.Health"] {
        assert!(services.lines().any(|line| line == service), "{service} is missing: {services}");
    }
    let kv = answer(&[&first, "describe", "ringfort.v1.Kv"]);
    assert!(kv.contains("rpc Put ( .ringfort.v1.PutRequest ) returns ( .ringfort.v1.PutResponse );"), "{kv}");
    let request = answer(&[&first, "describe", "ringfort.v1.PutRequest"]);
    assert!(request.contains("bytes key = 1;") && request.contains("bytes value = 2;"), "{request}");

    // Bytes are base64 in JSON: greeting, hello.
    let put = r#"{"key": "Z3JlZXRpbmc=", "value": "aGVsbG8="}"#;
    let put = answer(&["-d", put, &first, "ringfort.v1.Kv/Put"]);
    assert!(put.contains(r#""version": "1""#), "{put}");
    let get = answer(&["-d", r#"{"key": "Z3JlZXRpbmc="}"#, &second, "ringfort.v1.Kv/Get"]);
    assert!(get.contains(r#""value": "aGVsbG8=""#) && get.contains(r#""found": true"#), "{get}");
    let original = answer(&["-d", r#"{"key": "greeting"}"#, &second, "proto.KV/Get"]);
    assert!(original.contains(r#""value": "hello""#), "{original}");
    let health = answer(&[&first, "grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");

    let refused = grpcurl(&["-d", r#"{"value": "aGVsbG8="}"#, &first, "ringfort.v1.Kv/Put"]);
    let error = text(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("InvalidArgument") && error.contains("key is empty"),
        "{error}"
    );
}
