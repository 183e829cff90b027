//! An example settings file with all settings, generated from the description of the flags.

use super::file::settings_of;
use clap::{Arg, ArgAction, Command};
use std::fmt::Write;

const HEADER: &str = "\
# Settings of a Ringfort node: ringfort serve --config FILE
#
# Flags take precedence over environment variables, which take precedence over this file. Each setting has its default
# here; settings without a default are commented out. `ringfort config check FILE` lists the problems of a file.
";

/// Columns of a comment.
const WIDTH: usize = 110;

/// An annotated file that contains only the defaults.
pub fn example(serve: &Command) -> String {
    let mut text = HEADER.to_owned();
    for arg in settings_of(serve).filter(|arg| !arg.is_hide_set()) {
        text.push('\n');
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        comment(&mut text, &sentence(&help));
        let choices: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let is_flag = choices == ["true", "false"];
        if !choices.is_empty() && !is_flag {
            comment(&mut text, &format!("One of: {}.", choices.join(", ")));
        }
        if let Some(variable) = arg.get_env() {
            comment(&mut text, &format!("Environment variable: {}", variable.to_string_lossy()));
        }
        let name = arg.get_long().expect("settings have long flags");
        let line = match default(arg) {
            Some(value) => format!("{name} = {value}"),
            None => format!("#{name} = {}", placeholder(arg)),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Adds the full stop that clap removes.
fn sentence(help: &str) -> String {
    if help.ends_with('.') { help.to_owned() } else { format!("{help}.") }
}

fn comment(text: &mut String, content: &str) {
    let mut line = String::new();
    for word in content.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "# {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "# {line}");
}

fn default(arg: &Arg) -> Option<String> {
    arg.get_default_values().first().map(|value| toml_value(&value.to_string_lossy()))
}

/// The placeholder for a value without a default.
fn placeholder(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
    match name {
        "NUMBER" | "PORT" | "BYTES" => name.to_owned(),
        _ if matches!(arg.get_action(), ArgAction::Append) => {
            format!("[{0}, {0}]", toml_value(name.trim_end_matches(",...")))
        }
        name => toml_value(name),
    }
}

fn toml_value(text: &str) -> String {
    let is_bare = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
    if is_bare { text.to_owned() } else { format!("\"{text}\"") }
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::CommandFactory;

    /// `cargo run -- config example > docs/ringfort.example.toml` regenerates it.
    #[test]
    fn the_one_in_docs_is_this_one() {
        let command = Cli::command();
        let kept = include_str!("../../../../docs/ringfort.example.toml");
        assert_eq!(super::example(crate::settings::serve(&command)), kept);
    }
}
