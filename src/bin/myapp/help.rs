//! Help: the most used options with `-h`, all of them with `--help`.

use std::io;

use clap::builder::{Resettable, StyledStr};
use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;
use crate::output::style;

/// Options in the short help of each command, in its order.
const COMMON_OPTIONS: [(&str, &[&str]); 4] = [
    (
        "serve",
        &[
            "mode",
            "prefix",
            "max_connections",
            "idle_timeout",
            "drain",
            "tls_cert",
            "tls_key",
            "delay",
            "metrics",
            "json",
        ],
    ),
    (
        "echo",
        &[
            "connect",
            "timeout",
            "jobs",
            "raw",
            "count",
            "interval",
            "size",
            "connections",
            "duration",
            "rate",
            "report",
        ],
    ),
    (
        "download",
        &[
            "input_file",
            "dir",
            "output",
            "resume",
            "jobs",
            "split",
            "limit_rate",
            "checksums",
            "header",
            "quiet",
        ],
    ),
    (
        "cat",
        &[
            "number",
            "show_all",
            "squeeze_blank",
            "jobs",
            "follow",
            "decompress",
            "progress",
            "output",
            "append",
        ],
    ),
];

/// Prints the help that clap has put into `error`, with a layout of our own: the short help without
/// headings, the long help without a blank line after each option.
pub(crate) fn print(error: &clap::Error) -> io::Result<()> {
    let text = error.render().to_string();
    let mut root = Cli::command().color(style::choice());
    root.build();
    let commands = [root.clone()]
        .into_iter()
        .chain(root.get_subcommands().cloned());
    for mut command in commands {
        if command.render_long_help().to_string() == text {
            return with_all_options(command).print_help();
        }
        if command.render_help().to_string() == text {
            return with_common_options(command).print_help();
        }
    }
    error.print()
}

/// Returns the command with its most used options only, in one list. The program itself and the
/// commands without options of their own keep everything.
fn with_common_options(command: Command) -> Command {
    let pointer = format!(
        "{} --help shows everything, with examples and exit codes.",
        command.get_bin_name().unwrap_or("myapp")
    );
    let Some((_, common)) = COMMON_OPTIONS
        .iter()
        .find(|(name, _)| *name == command.get_name())
    else {
        return command.after_help(pointer);
    };
    let in_list = |argument: Arg| {
        let id = argument.get_id().as_str().to_owned();
        if argument.is_positional() || id == "help" || id == "version" {
            return argument;
        }
        match common.iter().position(|name| *name == id) {
            Some(position) => argument.help_heading(None::<&str>).display_order(position),
            None => argument.hide(true),
        }
    };
    command.mut_args(in_list).after_help(pointer)
}

/// Returns the command with its long help in the layout of the short one.
fn with_all_options(command: Command) -> Command {
    let text = command.get_after_long_help().cloned();
    command
        .after_help(Resettable::<StyledStr>::from(text))
        .mut_arg("help", |argument| {
            argument.help("Print help; -h for a summary")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum length of a line that is printed as it is.
    const MAX_LITERAL_LEN: usize = 60;

    fn commands() -> Vec<Command> {
        let mut root = Cli::command();
        root.build();
        let commands = root
            .get_subcommands()
            .filter(|command| command.get_name() != "help");
        [root.clone()]
            .into_iter()
            .chain(commands.cloned())
            .collect()
    }

    #[test]
    fn long_help_lists_every_option() {
        for command in commands() {
            let name = command.get_name().to_owned();
            let text = with_all_options(command.clone()).render_help().to_string();
            let visible = command
                .get_arguments()
                .filter(|option| !option.is_hide_set());
            for option in visible.filter(|option| !option.is_positional()) {
                let short = || format!("  -{} ", option.get_short().unwrap_or_default());
                let spelled = option
                    .get_long()
                    .map_or_else(short, |long| format!("--{long}"));
                assert!(
                    text.contains(&spelled),
                    "myapp {name} --help lacks {spelled}"
                );
            }
            for section in ["\nExamples:\n", "\nExit codes:\n"] {
                assert!(
                    text.contains(section),
                    "myapp {name} --help lacks {section}"
                );
            }
        }
    }

    #[test]
    fn common_options_exist() {
        for (name, options) in COMMON_OPTIONS {
            let commands = commands();
            let command = commands.iter().find(|command| command.get_name() == name);
            let command = command.unwrap_or_else(|| panic!("no command {name}"));
            for option in options {
                let mut ids = command.get_arguments().map(Arg::get_id);
                assert!(ids.any(|id| id == option), "{name} has no {option}");
            }
        }
    }

    /// Lines that clap would wrap have no line ends of their own.
    #[test]
    fn long_help_has_no_wrapped_paragraphs() {
        for command in commands() {
            let text = command.get_after_long_help().unwrap().to_string();
            for block in text.trim_end().split("\n\n") {
                let lines: Vec<_> = block.lines().collect();
                let is_literal = |line: &&str| line.starts_with("  ");
                let is_list = lines[0].ends_with(':') && lines[1..].iter().all(is_literal);
                assert!(is_list || lines.len() == 1, "{block}");
                for line in lines.iter().filter(|line| is_literal(line)) {
                    assert!(line.chars().count() <= MAX_LITERAL_LEN, "{line}");
                }
            }
        }
    }
}
