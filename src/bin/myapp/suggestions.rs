//! Hints for options of other programs.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// An option of another program, or one of ours with an invalid value as clap names it, and the hint
/// for its error.
type Suggestion = (&'static str, &'static str);

/// ncat, nc and socat.
const SERVE: &[Suggestion] = &[
    ("-l", "give the address as an argument: myapp serve 8888"),
    ("-p", "give the port as an argument: myapp serve 8888"),
    ("-k", "all clients are served concurrently"),
    ("-u", "use udp://PORT for UDP"),
    ("-U", "use unix:PATH for a Unix socket"),
    ("-e", "serve echoes by itself and runs no program"),
    ("-c", "serve echoes by itself and runs no program"),
    ("-m", "use --max-connections N"),
    ("-i", "use --idle-timeout DUR"),
    ("-w", "use --idle-timeout DUR"),
    ("-d", "use --delay DUR to delay replies"),
    ("-t", "use --threads N for worker threads"),
];

/// nc, ping, and the load generators wrk, hey and oha.
const ECHO: &[Suggestion] = &[
    ("-u", "use -c udp://HOST:PORT for UDP"),
    ("-U", "-c use unix:PATH for a Unix socket"),
    ("-p", "use -c HOST:PORT"),
    ("-w", "use --timeout DUR, for connecting and for each reply"),
    ("-W", "use --timeout DUR, for connecting and for each reply"),
    ("-i", "use --interval DUR"),
    ("-s", "use --size SIZE"),
    (
        "-t",
        "use --threads N for threads, --timeout DUR for a timeout",
    ),
    ("-d", "use --duration DUR"),
    ("-z", "use --duration DUR"),
    ("-R", "use --rate N for the total messages per second"),
    (
        "-k",
        "connections are reused; use --new-connections for one per message",
    ),
];

/// curl, wget, aria2 and axel.
const DOWNLOAD: &[Suggestion] = &[
    (
        "-O",
        "files are named after their URLs by default; use -o PATH for a single file",
    ),
    (
        "-n",
        "use --no-clobber to skip existing files, --netrc to look up passwords",
    ),
    ("-C", "use -c to resume partial downloads"),
    ("-D", "use -d DIR"),
    ("-E", "use --cert FILE for a client certificate"),
    ("-F", "uploads are not supported"),
    ("-I", "only GET is supported"),
    ("-K", "use -i FILE for a list of URLs and options"),
    ("-P", "use -d DIR"),
    ("-R", "use --remote-time"),
    ("-S", "errors are always printed"),
    (
        "-U",
        "use -A TEXT for the user agent, --proxy URL for proxy credentials",
    ),
    ("-X", "only GET is supported"),
    ("-Y", "use --speed-limit RATE"),
    ("-e", "use --referer URL"),
    ("-m", "use --max-time DUR"),
    ("-r", "ranges and recursion are not supported"),
    ("-t", "use --retry N for retries, -T DUR for a timeout"),
    ("-w", "use --json for the result of each file"),
    ("-y", "use --speed-time DUR with --speed-limit"),
    ("-z", "use -N to download only changed files"),
    ("--data", "uploads are not supported"),
    ("--request", "only GET is supported"),
    (
        "--remote-name",
        "files are named after their URLs by default; use -o PATH for a single file",
    ),
    ("--parallel-max", "use -j N for concurrent files"),
    (
        "--max-concurrent-downloads",
        "use -j N for concurrent files",
    ),
    (
        "--max-connection-per-server",
        "use -x N for connections per host",
    ),
    ("--tries", "use --retry N"),
    ("--silent", "use -q for errors only"),
    (
        "--threads",
        "use -j N for concurrent files; one thread serves all connections",
    ),
    (
        "--no-check-certificate",
        "use --insecure to accept any certificate",
    ),
    (
        "--split <N>",
        "use -s N for connections per file, -q for errors only",
    ),
    (
        "--min-split-size <SIZE>",
        "use --insecure to accept any certificate",
    ),
    (
        "--per-host <N>",
        "use -x N for connections per host, --proxy URL for a proxy",
    ),
    (
        "--timeout <DUR>",
        "use -T DUR for a timeout; uploads are not supported",
    ),
];

/// Options of our other commands.
const CAT: &[Suggestion] = &[("--threads", "use -j N for the number of files read ahead")];

/// Returns the text and the hint of a usage error, if there is a better one than clap's.
pub(crate) fn meant(command: &str, error: &clap::Error) -> Option<(String, &'static str)> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let suggestions = match command {
        "serve" => SERVE,
        "echo" => ECHO,
        "download" => DOWNLOAD,
        "cat" => CAT,
        _ => return None,
    };
    let (_, hint) = suggestions.iter().find(|(option, _)| option == typed)?;
    let text = match error.kind() {
        ErrorKind::UnknownArgument => format!("unknown option {typed}"),
        _ => error
            .to_string()
            .lines()
            .next()?
            .trim_start_matches("error: ")
            .to_owned(),
    };
    Some((text, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory as _, Parser as _};

    fn of(line: &[&str]) -> Option<(String, &'static str)> {
        let error = Cli::try_parse_from([&["myapp"], line].concat()).unwrap_err();
        meant(line[0], &error)
    }

    #[test]
    fn options_of_other_programs_get_a_hint() {
        for (line, text, hint) in [
            (&["download", "-O", "u"][..], "unknown option -O", "-o PATH"),
            (
                &["download", "-nc", "u"],
                "unknown option -n",
                "--no-clobber",
            ),
            (
                &["download", "-C", "-", "u"],
                "unknown option -C",
                "-c to resume",
            ),
            (
                &["download", "-qP", "dir", "u"],
                "unknown option -P",
                "-d DIR",
            ),
            (
                &["download", "--tries=3", "u"],
                "unknown option --tries",
                "--retry",
            ),
            (
                &["download", "-s", "u"],
                "invalid value 'u' for '--split <N>': not a whole number",
                "-q",
            ),
            (
                &["serve", "-lk", "-p", "80"],
                "unknown option -l",
                "myapp serve 8888",
            ),
            (&["echo", "-u", "host", "7"], "unknown option -u", "udp://"),
        ] {
            let (found, help) = of(line).unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(found, text, "{line:?}");
            assert!(help.contains(hint), "{line:?}: {help}");
        }
        assert_eq!(of(&["download", "--no-such-thing"]), None);
        assert_eq!(of(&["cat", "-l"]), None);
    }

    /// An entry without effect: an option that exists here, or one of ours that was renamed.
    #[test]
    fn every_entry_is_a_usage_error() {
        for (command, suggestions) in [
            ("serve", SERVE),
            ("echo", ECHO),
            ("download", DOWNLOAD),
            ("cat", CAT),
        ] {
            for (option, _) in suggestions {
                let name = option.split(' ').next().unwrap();
                let line = if name == *option {
                    vec![command, name]
                } else {
                    vec![command, name, "?"]
                };
                assert!(of(&line).is_some(), "myapp {line:?}");
            }
        }
        Cli::command().debug_assert();
    }
}
