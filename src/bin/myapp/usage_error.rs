//! Command lines that end the program: errors, and requests for help or the version.

use std::io::{self, Write as _};
use std::process;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use crate::cli::{self, Cli};
use crate::exit_code::{CommandError, ExitCode};
use crate::output::style::{self, Role, paint};
use crate::output::{stderr, stdout};
use crate::{help, suggestions};

/// Prints a command-line error in the format of all other errors, or the requested help or
/// version.
pub(crate) fn report(error: &clap::Error) -> process::ExitCode {
    style::set_choice(cli::color_of_invalid());
    let command = cli::command_name().unwrap_or_default();
    if let Some((text, hint)) = suggestions::meant(&command, error) {
        stderr::report(&CommandError::usage(text).hint(hint));
        return ExitCode::Usage.into();
    }
    let text = error.render().to_string();
    if let Some(text) = text.strip_prefix("error: ") {
        stderr::write(&format!("{} {text}", paint(Role::Error, "myapp:")));
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
