//! What fingers type that know other programs, and what it is called here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// An option of another program as it is typed, or one of ours as clap names it where its value is
/// no such value; and the hint that goes with its error.
type Habit = (&'static str, &'static str);

/// ncat, nc and socat.
const SERVE: &[Habit] = &[
    ("-l", "an address is all it takes: myapp serve 8888"),
    ("-p", "the port is the argument: myapp serve 8888"),
    ("-k", "every client is served, many at once"),
    ("-u", "udp://PORT is for datagrams"),
    ("-U", "unix:PATH is a Unix socket"),
    (
        "-e",
        "messages are answered by the server itself; no program is run",
    ),
    (
        "-c",
        "messages are answered by the server itself; no program is run",
    ),
    ("-m", "--max-connections N is the limit"),
    ("-i", "--idle-timeout DUR ends silent connections"),
    ("-w", "--idle-timeout DUR ends silent connections"),
    ("-d", "--delay DUR sends answers later"),
    ("-t", "--threads N are the threads that serve"),
];

/// nc, ping, and the load generators wrk, hey and oha.
const ECHO: &[Habit] = &[
    ("-u", "-c udp://HOST:PORT is for datagrams"),
    ("-U", "-c unix:PATH is a Unix socket"),
    ("-p", "-c HOST:PORT names the server"),
    ("-w", "--timeout DUR is for connecting, and for each reply"),
    ("-W", "--timeout DUR is for connecting, and for each reply"),
    ("-i", "--interval DUR is the time between messages"),
    ("-s", "--size SIZE is that of a generated message"),
    (
        "-t",
        "--threads N are threads that send, --timeout DUR how long to wait",
    ),
    ("-d", "--duration DUR is for how long"),
    ("-z", "--duration DUR is for how long"),
    ("-R", "--rate N is how many messages a second in all"),
    (
        "-k",
        "connections are kept; --new-connections makes one for each message",
    ),
];

/// curl, wget, aria2 and axel.
const DOWNLOAD: &[Habit] = &[
    (
        "-O",
        "files are named after their URLs anyway; -o PATH names a single one",
    ),
    (
        "-n",
        "--no-clobber keeps a file that is there and fetches nothing; --netrc looks up passwords",
    ),
    ("-C", "-c goes on with what an earlier run has left"),
    ("-D", "-d DIR is the folder"),
    ("-E", "--cert FILE is the certificate to show"),
    ("-F", "nothing can be sent"),
    ("-I", "nothing but whole files is asked for"),
    ("-K", "-i FILE reads URLs and their options"),
    ("-P", "-d DIR is the folder"),
    ("-R", "--remote-time keeps the server's time"),
    ("-S", "errors are always told"),
    (
        "-U",
        "-A TEXT is the program's name; a proxy's password goes into --proxy URL",
    ),
    ("-X", "nothing but whole files is asked for, with GET"),
    ("-Y", "--speed-limit SIZE gives up what is slower"),
    ("-e", "--referer URL is the page that led here"),
    ("-m", "--max-time DUR is how long a file may take"),
    ("-r", "files are fetched whole, and no links are followed"),
    (
        "-t",
        "--retry N is how many further tries, -T DUR how long to wait",
    ),
    ("-w", "--json tells how each file ended"),
    ("-y", "--speed-time DUR goes with --speed-limit"),
    ("-z", "-N fetches only what has changed"),
    ("--data", "nothing can be sent"),
    (
        "--request",
        "nothing but whole files is asked for, with GET",
    ),
    (
        "--remote-name",
        "files are named after their URLs anyway; -o PATH names a single one",
    ),
    ("--parallel-max", "-j N is how many files at once"),
    (
        "--max-concurrent-downloads",
        "-j N is how many files at once",
    ),
    (
        "--max-connection-per-server",
        "-x N is how many connections a server",
    ),
    ("--tries", "--retry N is how many further tries"),
    ("--silent", "-q tells only errors"),
    (
        "--threads",
        "-j N is how many files at once; one thread has all connections",
    ),
    (
        "--no-check-certificate",
        "--insecure trusts any certificate",
    ),
    (
        "--split <N>",
        "-s N is for connections a file; -q tells only errors",
    ),
    (
        "--min-split-size <SIZE>",
        "--insecure trusts any certificate",
    ),
    (
        "--per-host <N>",
        "-x N is for connections a server; --proxy URL names a proxy",
    ),
    (
        "--timeout <DUR>",
        "-T DUR is how long a server may send nothing; no file can be sent",
    ),
];

/// Our own other commands.
const CAT: &[Habit] = &[("--threads", "-j N is how many files are open at once")];

/// What an error about the command line is better told as: what is wrong, and a hint.
pub(crate) fn meant(command: &str, error: &clap::Error) -> Option<(String, &'static str)> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let habits = match command {
        "serve" => SERVE,
        "echo" => ECHO,
        "download" => DOWNLOAD,
        "cat" => CAT,
        _ => return None,
    };
    let (_, hint) = habits.iter().find(|(habit, _)| habit == typed)?;
    let text = match error.kind() {
        ErrorKind::UnknownArgument => format!("there is no {typed}"),
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
    fn what_others_call_otherwise_is_told_with_the_name_that_it_has_here() {
        for (line, text, hint) in [
            (&["download", "-O", "u"][..], "there is no -O", "-o PATH"),
            (&["download", "-nc", "u"], "there is no -n", "--no-clobber"),
            (
                &["download", "-C", "-", "u"],
                "there is no -C",
                "-c goes on",
            ),
            (&["download", "-qP", "dir", "u"], "there is no -P", "-d DIR"),
            (
                &["download", "--tries=3", "u"],
                "there is no --tries",
                "--retry",
            ),
            (
                &["download", "-s", "u"],
                "invalid value 'u' for '--split <N>': not a whole number",
                "-q",
            ),
            (
                &["serve", "-lk", "-p", "80"],
                "there is no -l",
                "myapp serve 8888",
            ),
            (&["echo", "-u", "host", "7"], "there is no -u", "udp://"),
        ] {
            let (told, help) = of(line).unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(told, text, "{line:?}");
            assert!(help.contains(hint), "{line:?}: {help}");
        }
        assert_eq!(of(&["download", "--no-such-thing"]), None);
        assert_eq!(of(&["cat", "-l"]), None);
    }

    /// A habit that has become an option would never be told, and one of ours that has another
    /// name now neither.
    #[test]
    fn every_habit_is_an_error_here() {
        for (command, habits) in [
            ("serve", SERVE),
            ("echo", ECHO),
            ("download", DOWNLOAD),
            ("cat", CAT),
        ] {
            for (habit, _) in habits {
                let name = habit.split(' ').next().unwrap();
                let line = if name == *habit {
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
