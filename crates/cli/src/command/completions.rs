//! `ringfort completions`.

use crate::args::command;
use crate::failure::{Answer, Failure};
use clap::Args;
use clap_complete::Shell;
use std::io::{self, Write};

/// Print completions for a shell
///
/// bash loads them from ~/.local/share/bash-completion/completions/ringfort.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<Answer, Failure> {
        io::stdout().lock().write_all(&script(self.shell))?;
        Ok(Answer::Yes)
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ringfort", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_is_told_of_the_flags() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in ["serve", "raft-dir", "completions"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
