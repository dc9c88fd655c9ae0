//! Command lines that end the program: errors, and requests for help or the version.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::process;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use myapp::internals::Escaped;

use crate::cli::{self, Cli};
use crate::exit_code::{CommandError, ExitCode};
use crate::output::style;
use crate::output::{stderr, stdout};
use crate::{help, suggestions};

/// Prints a command-line error in the format of all other errors, or the requested help or
/// version.
pub(crate) fn report(error: &clap::Error) -> process::ExitCode {
    style::set_choice(cli::color_of_invalid());
    let command = cli::command_name().unwrap_or_default();
    if let Some((text, hint)) = describe(&command, error) {
        stderr::report(&CommandError::usage(text).hint(hint));
        return ExitCode::Usage.into();
    }
    let printed = match error.kind() {
        ErrorKind::DisplayHelp => help::print(error),
        // That of the program, also after a command.
        ErrorKind::DisplayVersion => write!(io::stdout(), "{}", Cli::command().render_version()),
        _ => error.print(),
    };
    if error.use_stderr() {
        return ExitCode::Usage.into();
    }
    if let Err(write_error) = printed.and_then(|()| io::stdout().flush()) {
        let mut failure = stdout::write_error(write_error);
        if command == "cat" && failure.code != ExitCode::BrokenPipe {
            failure.code = ExitCode::Failure;
        }
        stderr::report(&failure);
        return failure.code.into();
    }
    ExitCode::Success.into()
}

/// Names of commands in other programs, and ours.
const COMMANDS: [(&str, &str); 7] = [
    ("listen|server|daemon|nc|ncat|netcat|socat|discard", "serve"),
    (
        "ping|client|connect|send|load|bench|benchmark|fortio|hey|oha|wrk|iperf",
        "echo",
    ),
    ("get|fetch|wget|curl|dl|aria2|aria2c|axel", "download"),
    ("concat|tail|tac|pv|zcat", "cat"),
    ("completion|complete", "completions"),
    ("manual|manpage|manpages", "man"),
    ("version", "--version"),
];

/// Returns the text and the hint of an error, one line each, or none for help and version.
fn describe(command: &str, error: &clap::Error) -> Option<(String, Cow<'static, str>)> {
    if cli::is_before_command(error.get(ContextKind::InvalidArg)) {
        let text = suggestions::meant(command, error)?.0;
        return Some((text, format!("options of {command} follow it").into()));
    }
    if let Some(meant) = suggestions::meant(command, error) {
        return Some(meant);
    }
    let rendered = error.render().to_string();
    let first = rendered.strip_prefix("error: ")?.split("\n\n").next()?;
    let mut lines = first.lines().map(str::trim);
    let text = lines.next()?.to_owned();
    let rest: Vec<_> = lines.collect();
    let lists_all = || format!("myapp {command} --help lists all options").replace("  ", " ");
    Some(match (error.kind(), &rest[..]) {
        (ErrorKind::InvalidSubcommand, _) => unknown_command(error),
        (ErrorKind::MissingRequiredArgument, missing) => {
            let names = missing.join(", ");
            let names = match names
                .strip_prefix('<')
                .and_then(|all| all.strip_suffix('>'))
            {
                // A group of options, one of which is required.
                Some(group) if group.contains('|') => group.replace('|', " or "),
                _ => names,
            };
            (format!("missing {names}"), lists_all().into())
        }
        (_, [values]) if values.starts_with('[') => {
            let values = values.trim_matches(['[', ']']).to_owned();
            (text, values.into())
        }
        (_, []) => (text, lists_all().into()),
        (_, others) => (format!("{text} {}", others.join(", ")), lists_all().into()),
    })
}

/// Returns the text and the hint for a command that does not exist.
fn unknown_command(error: &clap::Error) -> (String, Cow<'static, str>) {
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed,
        _ => "",
    };
    let text = format!("unknown command {}", Escaped(typed.as_bytes()));
    let is_meant = |(names, _): &&(&str, &str)| names.split('|').any(|name| name == typed);
    let meant = COMMANDS.iter().find(is_meant).map(|(_, command)| *command);
    let similar = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(similar)) => similar.first().map(String::as_str),
        _ => None,
    };
    let hint = match meant.or(similar) {
        Some(command) => format!("did you mean myapp {command}?").into(),
        None => "myapp --help lists all commands".into(),
    };
    (text, hint)
}
