//! The subcommands, one file each; those that change a key share `write`.

mod bench;
mod cluster;
mod completions;
mod config;
mod get;
mod key;
mod man;
mod playground;
mod scan;
mod serve;
mod status;
mod verify;
mod version;
mod write;

use crate::failure::{Answer, Failure};
use bytes::Bytes;
use clap::Subcommand;
use serde::Serialize;
pub use serve::Serve;
use std::ffi::OsStr;
use std::io::{self, Write};
pub use write::EXAMPLES as WRITE_EXAMPLES;

#[derive(Subcommand, Debug)]
pub enum Command {
    Serve(Box<Serve>),
    Playground(playground::Playground),
    #[command(flatten)]
    Write(write::Write),
    Get(get::Get),
    Scan(scan::Scan),
    Status(status::Status),
    Cluster(cluster::Cluster),
    Bench(bench::Bench),
    Verify(verify::Verify),
    #[command(hide = true)]
    BenchEcho(bench::echo::BenchEcho),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    Version(version::Version),
}

impl Command {
    pub fn run(self) -> Result<Answer, Failure> {
        match self {
            Command::Serve(serve) => serve.run(),
            Command::Playground(playground) => playground.run(),
            Command::Write(write) => write.run(),
            Command::Get(get) => get.run(),
            Command::Scan(scan) => scan.run(),
            Command::Status(status) => status.run(),
            Command::Cluster(cluster) => cluster.run(),
            Command::Bench(bench) => bench.run(),
            Command::Verify(verify) => verify.run(),
            Command::BenchEcho(echo) => echo.run(),
            Command::Config(config) => config.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Version(version) => version.run(),
        }
    }
}

/// An argument's bytes, as they were given.
fn bytes_of(argument: &OsStr) -> Bytes {
    Bytes::copy_from_slice(argument.as_encoded_bytes())
}

/// One line of JSON on stdout.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print_line(&serde_json::to_string(value)?)
}

/// One line on stdout.
fn print_line(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
