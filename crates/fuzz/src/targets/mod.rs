//! The fuzz targets: one parser, or a few related ones, per file.

pub mod command_line;
pub mod control;
pub mod directory;
pub mod entry;
pub mod gossip;
pub mod log;
pub mod request;
pub mod settings;
pub mod snapshot;
pub mod system;
pub mod wire;

use bytes::Bytes;

/// A fuzz target.
pub struct Target {
    /// Its name for `cargo fuzz run`.
    pub name: &'static str,
    /// Panics if a property that must hold for every input does not hold.
    pub body: fn(&[u8]),
    /// Generates, from any bytes, an input that the body accepts as a valid encoding.
    pub seed: fn(&[u8]) -> Bytes,
}

pub const TARGETS: &[Target] = &[
    Target { name: "command_line", body: command_line::body, seed: command_line::seed },
    Target { name: "control", body: control::body, seed: control::seed },
    Target { name: "directory", body: directory::body, seed: directory::seed },
    Target { name: "entry", body: entry::body, seed: entry::seed },
    Target { name: "gossip", body: gossip::body, seed: gossip::seed },
    Target { name: "log", body: log::body, seed: log::seed },
    Target { name: "request", body: request::body, seed: request::seed },
    Target { name: "settings", body: settings::body, seed: settings::seed },
    Target { name: "snapshot", body: snapshot::body, seed: snapshot::seed },
    Target { name: "system", body: system::body, seed: system::seed },
    Target { name: "wire", body: wire::body, seed: wire::seed },
];
