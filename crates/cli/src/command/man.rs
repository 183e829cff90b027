//! `ringfort man`.

use crate::args::command;
use crate::failure::{Answer, Failure};
use crate::help::TITLES;
use clap::{Args, Command};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Write the manual pages into a directory
///
/// One page for each command, with the text of its --help: ringfort.1, ringfort-serve.1 and so on.
#[derive(Args, Debug)]
pub struct Man {
    /// The directory. It is created if it does not exist.
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("can't write the manual to {directory}: {source}")]
struct Unwritable {
    directory: String,
    source: io::Error,
}

impl Man {
    pub fn run(self) -> Result<Answer, Failure> {
        let directory = self.directory.display().to_string();
        write(&self.directory).map_err(|source| Unwritable { directory, source })?;
        Ok(Answer::Yes)
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = command().disable_help_subcommand(true);
    command.build();
    write_pages(command, directory)
}

fn write_pages(command: Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below.clone(), directory)?;
    }
    let (page, mut text) = (clap_mangen::Man::new(command), Vec::new());
    page.render(&mut text)?;
    fs::write(directory.join(page.get_filename()), with_headings(&String::from_utf8_lossy(&text)))
}

/// Gives each section at the end of the help a heading of its own. `clap_mangen` puts them all under "EXTRA".
fn with_headings(page: &str) -> String {
    let page = page.replace(".SH EXTRA\n", "");
    TITLES.iter().fold(page, |page, title| page.replace(&format!("\n{title}\n"), &format!("\n.SH \"{title}\"\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        for command in command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page(&format!("ringfort-{}.1", command.get_name())).starts_with(".ie"), "{}", command.get_name());
        }
        assert!(page("ringfort.1").contains("ringfort"));
        assert!(page("ringfort-serve.1").contains("raft"));
        let get = page("ringfort-get.1");
        assert!(TITLES.iter().all(|title| get.contains(&format!("\n.SH \"{title}\"\n"))), "{get}");
        assert!(!get.contains("EXTRA"), "{get}");
    }
}
