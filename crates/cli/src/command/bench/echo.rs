//! A bare gRPC echo: it shows what this machine, HTTP/2 and protobuf cost without a store.
//!
//! The server is a process of its own, as a node is: the hidden command `ringfort bench-echo`. It answers writes at
//! once and gets with a value as large as the workload's. It prints its address and ends when its stdin is closed, so that
//! it does not outlive its parent process.

use super::target::Target;
use crate::command::print_line;
use crate::failure::{self, Failure};
use bytes::Bytes;
use clap::Args;
use ringfort_proto::v1::kv_server::{Kv, KvServer};
use ringfort_proto::v1::*;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Serve the echo that `bench --floor` is held against
#[derive(Args, Debug)]
pub struct BenchEcho {
    #[arg(long)]
    value_size: usize,
}

impl BenchEcho {
    pub fn run(self) -> Result<failure::Answer, Failure> {
        let (ended_tx, stdin_ended) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = ended_tx.send(());
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            print_line(&listener.local_addr()?.to_string())?;
            let echo = KvServer::new(Echo { value: vec![b'v'; self.value_size].into() });
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::select! {
                result = Server::builder().add_service(echo).serve_with_incoming(incoming) => result?,
                _ = stdin_ended => {}
            }
            Ok(failure::Answer::Yes)
        })
    }
}

struct Echo {
    value: Bytes,
}

#[tonic::async_trait]
impl Kv for Echo {
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { version: 1, revision: 1 }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (value, found) = (self.value.clone(), true);
        Ok(Response::new(GetResponse { value, found, version: 1, create_revision: 1, modify_revision: 1 }))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn increment(&self, _: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        Ok(Response::new(IncrementResponse { number: 1, version: 1, revision: 1 }))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let length_bytes = request.get_ref().bytes.len() as u64;
        Ok(Response::new(AppendResponse { length_bytes, version: 1, revision: 1 }))
    }

    async fn scan(&self, _: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

/// The running process; killed when this is dropped.
pub struct EchoProcess {
    _child: Child,
    endpoint: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the echo server of --floor did not start")]
struct NotStarted;

impl EchoProcess {
    /// Starts the echo and waits until it listens.
    pub async fn start(value_bytes: usize) -> Result<EchoProcess, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-echo", "--value-size", &value_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().expect("it is piped");
        let endpoint = BufReader::new(stdout).lines().next_line().await?.ok_or(NotStarted)?;
        Ok(EchoProcess { _child: child, endpoint })
    }

    /// Connections to the echo.
    pub fn targets(&self, connections: usize, timeout: Duration) -> Result<Vec<Arc<Target>>, Failure> {
        let endpoint = [self.endpoint.clone()];
        (0..connections).map(|_| Ok(Arc::new(Target::nodes(&endpoint, timeout)?))).collect()
    }
}
