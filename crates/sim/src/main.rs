//! `ringfort-sim`: see [`ringfort_sim`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfort_sim::command_line::main(ringfort_sim::cluster::run)
}
