//! `ringfort version`.

use super::print_line;
use crate::failure::{Answer, Failure};
use clap::Args;

/// Print the version, as --version does
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(self) -> Result<Answer, Failure> {
        print_line(concat!("ringfort ", env!("CARGO_PKG_VERSION")))?;
        Ok(Answer::Yes)
    }
}
