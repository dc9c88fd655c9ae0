//! Command lines of only files and GNU's short options, parsed without clap.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use super::args::Options;

impl Options {
    /// Parses `cat` with files and GNU's short options. Returns none for any other command line,
    /// which is left to clap.
    pub(crate) fn from_plain_args(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        if arguments.next()? != "cat" {
            return None;
        }
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_bytes() {
                [b'-', letters @ ..] if !letters.is_empty() => {
                    letters
                        .iter()
                        .try_for_each(|letter| options.display.set(*letter))?;
                }
                _ => options.files.push(argument),
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    /// Parses the same arguments with clap.
    #[track_caller]
    fn parse_with_clap(arguments: &[&str]) -> Options {
        let command = Options::augment_args(Command::new("cat").args_override_self(true));
        let matches = command.get_matches_from(["cat"].iter().chain(arguments));
        Options::from_arg_matches(&matches).unwrap()
    }

    fn from_plain_args(arguments: &[&str]) -> Option<Options> {
        Options::from_plain_args(arguments.iter().map(OsString::from))
    }

    /// Returns all that a run uses of the options.
    fn describe(options: &Options) -> String {
        let config = options.to_config();
        let Options {
            files,
            display,
            output,
            log,
            ..
        } = options;
        format!("{config:?} {files:?} {display:?} {output:?} {log:?}")
    }

    #[test]
    fn plain_args_are_parsed_as_by_clap() {
        for arguments in [
            &[][..],
            &["-"],
            &["a", "-", "", "help", "a b", "\u{e9}"],
            &["-n", "a"],
            &["a", "-vET", "b", "-bs"],
            &["-A", "-A", "-nn"],
            &["-b"],
            &["-e"],
            &["-E"],
            &["-s", "-"],
            &["-t"],
            &["-T"],
            &["-u"],
            &["-v"],
        ] {
            let plain = from_plain_args(&[&["cat"], arguments].concat()).unwrap();
            assert_eq!(describe(&plain), describe(&parse_with_clap(arguments)));
        }
    }

    #[test]
    fn other_command_lines_are_left_to_clap() {
        for arguments in [
            &[][..],
            &["serve"],
            &["cat", "--"],
            &["cat", "-nj2"],
            &["cat", "-z"],
            &["cat", "--number"],
            &["cat", "-n-"],
            &["cat", "-\u{e9}"],
        ] {
            assert!(from_plain_args(arguments).is_none(), "{arguments:?}");
        }
    }
}
