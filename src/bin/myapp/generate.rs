//! Manual page and shell completions.

use std::io::{self, Write as _};

use clap::{Command, ValueEnum};
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
    pub(crate) fn write(self, mut command: Command) -> Result<ExitCode, CommandError> {
        let mut text = Vec::new();
        let shell = match self {
            Self::Man => None,
            Self::CompleteBash => Some(Shell::Bash),
            Self::CompleteZsh => Some(Shell::Zsh),
            Self::CompleteFish => Some(Shell::Fish),
        };
        let made = match shell {
            Some(shell) => {
                clap_complete::generate(shell, &mut command, "myapp", &mut text);
                Ok(())
            }
            None => manual(command, &mut text),
        };
        made.and_then(|()| io::stdout().write_all(&text))
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => CommandError::new(ExitCode::BrokenPipe, error),
                _ => CommandError::new(ExitCode::LocalFile, error),
            })?;
        Ok(ExitCode::Success)
    }
}

/// One page: the program, then each of its commands.
fn manual(mut command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    clap_mangen::Man::new(command.clone()).render(page)?;
    for command in command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let man = clap_mangen::Man::new(command.clone());
        writeln!(page, ".SH \"MYAPP {}\"", command.get_name().to_uppercase())?;
        man.render_synopsis_section(page)?;
        man.render_options_section(page)?;
    }
    Ok(())
}
