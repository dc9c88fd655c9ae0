//! Manual pages and shell completions.

mod man;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::exit_code::{CommandError, ExitCode};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Generated {
    Man,
    CompleteBash,
    CompleteZsh,
    CompleteFish,
}

impl Generated {
    /// Writes it to stdout.
    pub(crate) fn write(self, command: Command) -> Result<ExitCode, CommandError> {
        match self {
            Self::Man => write_stdout(&man::all_pages(command)),
            Self::CompleteBash => completions(Shell::Bash, command),
            Self::CompleteZsh => completions(Shell::Zsh, command),
            Self::CompleteFish => completions(Shell::Fish, command),
        }
    }
}

/// Writes the completions of a shell to stdout.
pub(crate) fn completions(shell: Shell, command: Command) -> Result<ExitCode, CommandError> {
    let mut command = with_value_hints(command);
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "myapp", &mut text);
    if shell == Shell::Bash {
        text = with_hosts(&command, &String::from_utf8_lossy(&text)).into_bytes();
    }
    write_stdout(&text)
}

/// Writes a manual page per command into a folder, which is created if it is missing.
pub(crate) fn manual_pages(folder: &Path, command: Command) -> Result<ExitCode, CommandError> {
    let failed = |error| CommandError::new(ExitCode::LocalFile, error);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("create {}", folder.display()))
        .map_err(failed)?;
    for (name, page) in man::pages(command) {
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, page)
            .with_context(|| format!("write {}", path.display()))
            .map_err(failed)?;
    }
    Ok(ExitCode::Success)
}

/// Tells the shells what the values are, by their names. Without a hint they offer files for
/// numbers and durations.
fn with_value_hints(command: Command) -> Command {
    let mut command = command;
    command.build();
    let hinted = |argument: clap::Arg| {
        let is_known = !matches!(
            argument.get_value_hint(),
            ValueHint::Unknown | ValueHint::AnyPath
        );
        if is_known {
            return argument;
        }
        let names = argument.get_value_names().unwrap_or_default();
        let hint = match names.first().map(|name| name.as_str()) {
            Some("URL") => ValueHint::Url,
            Some("ADDRESS" | "HOST") => ValueHint::Hostname,
            Some("FILE" | "FILE.html" | "FILE|URL" | "PATH" | "COOKIE") => ValueHint::FilePath,
            Some("DIR") => ValueHint::DirPath,
            _ => ValueHint::Other,
        };
        argument.value_hint(hint)
    };
    command
        .mut_args(hinted)
        .mut_subcommands(|command| command.mut_args(hinted))
}

/// Returns completions of bash that offer host names for addresses. Those of clap offer files.
fn with_hosts(command: &Command, completions: &str) -> String {
    let arguments = command.get_subcommands().flat_map(Command::get_arguments);
    let addresses = arguments.filter(|option| option.get_value_hint() == ValueHint::Hostname);
    let mut completions = completions.to_owned();
    for option in addresses {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        for name in long.into_iter().chain(short) {
            let case =
                format!("\n                {name})\n                    COMPREPLY=($(compgen");
            let files = format!("{case} -f ");
            completions = completions.replace(&files, &format!("{case} -A hostname "));
        }
    }
    completions
}

fn write_stdout(text: &[u8]) -> Result<ExitCode, CommandError> {
    match io::stdout().write_all(text) {
        Ok(()) => Ok(ExitCode::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(CommandError::new(ExitCode::BrokenPipe, error))
        }
        Err(error) => Err(CommandError::new(ExitCode::LocalFile, error)),
    }
}
