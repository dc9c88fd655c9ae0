//! Abbreviated long options, as getopt_long of GNU `cat` accepts them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::error::ErrorKind;
use clap::{Args as _, Command};

use super::args::Options;

/// The long options of GNU `cat`. Abbreviations of others are left to clap.
const GNU_OPTIONS: [&str; 9] = [
    "help",
    "number",
    "number-nonblank",
    "show-all",
    "show-ends",
    "show-nonprinting",
    "show-tabs",
    "squeeze-blank",
    "version",
];

/// Replaces abbreviations of GNU's long options, up to `--`, by the options. They have precedence
/// over our own options with the same start.
pub(crate) fn expand(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, clap::Error> {
    let mut is_option = true;
    arguments
        .into_iter()
        .map(|argument| {
            is_option &= argument != "--";
            let option = argument.as_bytes().strip_prefix(b"--");
            match option.and_then(|option| str::from_utf8(option).ok()) {
                Some(option) if is_option => expand_option(option),
                _ => Ok(argument),
            }
        })
        .collect()
}

fn expand_option(option: &str) -> Result<OsString, clap::Error> {
    let (name, value) = match option.find('=') {
        Some(at) => option.split_at(at),
        None => (option, ""),
    };
    let matching = GNU_OPTIONS.iter().filter(|full| full.starts_with(name));
    match matching.copied().collect::<Vec<_>>()[..] {
        _ if name.is_empty() || GNU_OPTIONS.contains(&name) => Ok(format!("--{option}").into()),
        [] => Ok(format!("--{option}").into()),
        [full] => Ok(format!("--{full}{value}").into()),
        ref several => Err(ambiguous(name, several)),
    }
}

fn ambiguous(name: &str, options: &[&str]) -> clap::Error {
    let options = options.join(", --");
    let text = format!("option '--{name}' is ambiguous; possibilities: --{options}");
    Options::augment_args(Command::new("cat").bin_name("myapp cat"))
        .error(ErrorKind::UnknownArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &[&str]) -> Result<Vec<OsString>, clap::Error> {
        expand(arguments.iter().map(OsString::from))
    }

    #[test]
    fn unambiguous_start_of_a_gnu_option_is_that_option() {
        for (short, full) in [
            ("--h", "--help"),
            ("--number", "--number"),
            ("--number-", "--number-nonblank"),
            ("--show-e", "--show-ends"),
            ("--sq", "--squeeze-blank"),
            ("--v", "--version"),
            ("--ver", "--version"),
            ("--show-t=x", "--show-tabs=x"),
            ("--verbose", "--verbose"),
            ("--seq", "--seq"),
            ("--", "--"),
            ("-n", "-n"),
            ("--\u{e9}", "--\u{e9}"),
        ] {
            assert_eq!(expanded(&[short]).unwrap(), [full]);
        }
        assert_eq!(expanded(&["--", "--sq"]).unwrap(), ["--", "--sq"]);
    }

    #[test]
    fn ambiguous_start_of_a_gnu_option_is_an_error() {
        for (short, options) in [
            ("--num", "possibilities: --number, --number-nonblank\n"),
            ("--n", "possibilities: --number, --number-nonblank\n"),
            ("--s", "--show-tabs, --squeeze-blank\n"),
            ("--show-", "--show-all, --show-ends"),
        ] {
            let text = expanded(&[short]).unwrap_err().to_string();
            assert!(text.contains(options), "{short}: {text}");
        }
    }
}
