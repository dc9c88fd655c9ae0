//! Hints for options of other programs.

use std::borrow::Cow;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of other programs, or one of ours with an invalid value as clap names it, and the hint for
/// their error.
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
    (
        "--listen|--port|--host|--address|--bind",
        "give the address as an argument: myapp serve HOST:PORT",
    ),
    ("--udp", "use udp://PORT for UDP"),
    ("--tcp", "TCP is the default"),
    ("--unix|--socket", "use unix:PATH for a Unix socket"),
    (
        "--tls|--ssl",
        "use tls://PORT with --tls-self-signed, or --tls-cert FILE and --tls-key FILE",
    ),
    ("--cert|--ssl-cert", "use --tls-cert FILE"),
    ("--ssl-key", "use --tls-key FILE"),
    ("--keep-open|--fork", "all clients are served concurrently"),
    ("--max-conns|--max-clients", "use --max-connections N"),
    ("--timeout", "use --idle-timeout DUR"),
    (
        "--exec|--sh-exec|--command",
        "serve echoes by itself and runs no program",
    ),
    ("--workers|--jobs", "use --threads N for worker threads"),
    ("--loss|--loss-rate", "use --drop-rate P"),
    ("--duplicate", "use --duplicate-rate P"),
    ("--latency", "use --delay DUR to delay replies"),
];

/// nc, ping, and the load generators wrk, hey and oha.
const ECHO: &[Suggestion] = &[
    ("-u", "use -c udp://HOST:PORT for UDP"),
    ("-U", "use -c unix:PATH for a Unix socket"),
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
    (
        "--host|--port|--server|--address|--url|--target",
        "use -c HOST:PORT",
    ),
    ("--udp", "use -c udp://HOST:PORT for UDP"),
    ("--unix|--socket", "use -c unix:PATH for a Unix socket"),
    ("--tls|--ssl", "use -c tls://HOST:PORT for TLS"),
    (
        "--concurrency",
        "use --connections N for a load, -j N for messages",
    ),
    (
        "--qps|--rps|--query-per-second|--throughput",
        "use --rate N for the total messages per second",
    ),
    (
        "--requests|--number|--messages",
        "use -n N for the number of messages",
    ),
    ("--time|--test-time", "use --duration DUR"),
    (
        "--length|--bytes|--payload-size|--packet-size",
        "use --size SIZE",
    ),
    (
        "--pipeline|--depth|--outstanding",
        "use --in-flight N for messages in flight per connection",
    ),
    (
        "--latency|--histogram",
        "the report always has latencies; --percentiles LIST selects them",
    ),
    (
        "--disable-keepalive|--no-keepalive",
        "use --new-connections for one connection per message",
    ),
    ("--ping", "use -n N for a ping with N messages"),
    (
        "-f|--file|--input|--input-file|--payload-file",
        "each line of stdin is a message: myapp echo < FILE",
    ),
    (
        "--wait",
        "use --timeout DUR for a reply, --wait-ready DUR for the server",
    ),
    (
        "--source|--source-address|--interface",
        "use --bind ADDR for the local address",
    ),
    (
        "--output|--html",
        "use --report FILE for HTML, --json for JSON",
    ),
    ("--cacert|--ca", "use --tls-ca FILE"),
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
        "-s is the number of connections per file; -q prints errors only",
    ),
    (
        "--min-split-size <SIZE>",
        "-k is the size of a segment; --insecure accepts any certificate",
    ),
    (
        "--per-host <N>",
        "-x is the number of connections per host; --proxy URL sets a proxy",
    ),
    (
        "--timeout <DUR>",
        "-T is the timeout; uploads, as with -T of curl, are not supported",
    ),
    (
        "--resume|--continue-at|--always-resume",
        "use -c to resume partial downloads",
    ),
    (
        "--start-pos|--range|--bytes",
        "ranges are not supported; -c resumes partial downloads",
    ),
    (
        "--directory-prefix|--directory|--output-directory|--out-dir",
        "use -d DIR",
    ),
    ("--output-document|--out|--file", "use -o PATH"),
    (
        "--remote-header-name",
        "use -J to use the server's file name",
    ),
    (
        "--input|--from-file|--url-file|--config|--conf-path",
        "use -i FILE for a list of URLs and options",
    ),
    ("--url", "give the URL as an argument"),
    (
        "--force-download|--force|--allow-overwrite|--clobber",
        "use --overwrite to replace existing files",
    ),
    (
        "--auto-file-renaming",
        "files get a free name by default; use --no-clobber or --overwrite",
    ),
    (
        "--time-cond|--newer|--conditional-get",
        "use -N to download only changed files",
    ),
    ("--use-server-timestamps", "use --remote-time"),
    (
        "--create-file-mode",
        "files get the permissions of the umask",
    ),
    ("--stdout", "use -o - for stdout"),
    (
        "--head|--spider|--method|--request-target|--get",
        "only GET is supported",
    ),
    (
        "--post-data|--post-file|--body-data|--body-file|--data-binary|--data-raw|--data-urlencode|--json-data|--form|--upload-file",
        "uploads are not supported",
    ),
    (
        "--recursive|--mirror|--level|--accept|--reject|--page-requisites|--convert-links|--no-parent",
        "recursion is not supported; give the URLs, or a list with -i FILE",
    ),
    ("--agent|--useragent", "use -A TEXT for the user agent"),
    (
        "--include|--server-response|--dump-header|--show-headers",
        "response heads are not saved; -vv logs requests and responses",
    ),
    (
        "--http2|--http2-prior-knowledge|--http3|--http1.0",
        "only HTTP/1.1 is supported, which every HTTP server speaks",
    ),
    ("--http1.1", "HTTP/1.1 is the only version"),
    ("--write-out", "use --json for the result of each file"),
    (
        "--parallel-immediate",
        "downloads start at once; use -j N for concurrent files",
    ),
    (
        "--concurrency|--max-parallel|--max-concurrent|--max-threads|--workers",
        "use -j N for concurrent files",
    ),
    (
        "--num-connections|--connections|--segments|--chunk-size",
        "use -s N for connections per file",
    ),
    (
        "--rate|--rate-limit|--max-speed|--max-download-limit|--max-overall-download-limit|--bwlimit",
        "use --limit-rate RATE",
    ),
    ("--lowest-speed-limit", "use --speed-limit RATE"),
    ("--max-tries|--retries", "use --retry N"),
    (
        "--retry-wait|--waitretry|--retry-connrefused",
        "use --retry N and --retry-delay DUR",
    ),
    (
        "--wait|--random-wait",
        "there is no pause between files; use -j and --limit-rate to limit the load",
    ),
    ("--max-redirect", "use --max-redirs N"),
    (
        "--read-timeout|--dns-timeout",
        "use -T DUR for the time without a byte, --connect-timeout DUR to connect",
    ),
    ("--quota", "use --max-filesize SIZE for each file"),
    (
        "--http-user|--http-password|--http-passwd|--password|--ask-password",
        "use -u USER:PASSWORD",
    ),
    ("--oauth2-bearer|--token", "use --bearer TOKEN"),
    (
        "--anyauth|--basic|--auth-no-challenge",
        "Basic credentials are sent with the first request",
    ),
    (
        "--cookie-jar|--keep-session-cookies",
        "use --save-cookies FILE, --load-cookies FILE to read them",
    ),
    (
        "--ca-certificate|--capath|--ca-directory",
        "use --cacert FILE",
    ),
    (
        "--certificate|--client-cert",
        "use --cert FILE and --key FILE for a client certificate",
    ),
    ("--private-key", "use --key FILE"),
    (
        "--no-check-certificates|--check-certificate|--no-verify|--no-check",
        "use --insecure to accept any certificate",
    ),
    (
        "--pinnedpubkey",
        "use --pinned-sha256 HEX, the fingerprint of the certificate",
    ),
    (
        "--tlsv1.0|--tlsv1.1|--tlsv1.2|--tlsv1.3|--secure-protocol|--ciphers",
        "TLS 1.2 and 1.3 are used, with the ciphers of rustls",
    ),
    (
        "--proxy-user|--proxy-password|--http-proxy|--https-proxy|--all-proxy|--socks5|--socks5-hostname|--preproxy",
        "use --proxy URL, with USER:PASSWORD@ for credentials",
    ),
    ("--noproxy", "use --no-proxy LIST"),
    (
        "--interface|--bind-address|--local-port",
        "the local address is chosen by the system",
    ),
    ("--inet4-only", "use -4"),
    ("--inet6-only", "use -6"),
    (
        "--dns-servers|--doh-url",
        "names are looked up by the system; use --resolve HOST:PORT:IP",
    ),
    (
        "--sha256|--sha512|--sha1|--md5|--hash|--sha256sum",
        "use --checksum ALGO=HEX, --checksums FILE for a list",
    ),
    (
        "--check-integrity|--verify",
        "use --checksum ALGO=HEX; an existing file is verified as well",
    ),
    (
        "--metalink|--metalink-file|--torrent-file|--follow-torrent",
        "Metalink and BitTorrent are not supported; -i FILE lists mirrors, tab-separated",
    ),
    (
        "--no-verbose|--no-progress|--no-progress-meter|--show-error",
        "use -q for errors only",
    ),
    (
        "--progress|--progress-bar|--show-progress",
        "progress is shown on a terminal by default",
    ),
    ("--debug|--trace|--trace-ascii", "use -vv, or -vvv for more"),
    (
        "--output-file|--append-output|--stderr|--log",
        "use --log-file FILE",
    ),
    (
        "--background|--daemon",
        "use & or a service manager; --log-file FILE keeps the messages",
    ),
    (
        "--on-download-complete|--on-download-error|--exec",
        "hooks are not supported; --json prints a line for each file as it ends",
    ),
    ("--file-allocation", "space is always allocated ahead"),
    (
        "--glob|--globoff",
        "globs are never expanded; the shell expands {1..10}",
    ),
    ("--compression", "use --compressed"),
];

/// tail, pv and bat, and options of our other commands.
const CAT: &[Suggestion] = &[
    ("--threads", "use -j N for the number of files read ahead"),
    (
        "--parallel|--concurrency",
        "use -j N for the number of files read ahead",
    ),
    (
        "-F",
        "use -f: a file that is replaced is followed by its name",
    ),
    ("--lines", "use --tail N with -f"),
    ("--rate|--rate-limit", "use --limit-rate RATE"),
    ("--output-file", "use -o FILE"),
    ("--overwrite", "use -o FILE, which replaces FILE at the end"),
    (
        "--gzip|--zstd|--xz|--gunzip|--uncompress",
        "use -z for every format",
    ),
    (
        "--sha256|--md5|--hash",
        "use --checksum ALGO, or ALGO=HEX to verify",
    ),
];

/// Maximum number of typing errors for which an option is suggested instead.
const MAX_TYPING_ERRORS: usize = 2;

/// Returns the text and the hint of a usage error, if there is a better one than clap's.
pub(crate) fn meant(command: &str, error: &clap::Error) -> Option<(String, Cow<'static, str>)> {
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
    let is_meant = |(options, _): &&Suggestion| options.split('|').any(|option| option == typed);
    let hint = suggestions.iter().find(is_meant).map(|(_, hint)| *hint);
    if error.kind() == ErrorKind::UnknownArgument {
        let hint = hint.map_or_else(|| similar_option(command, error, typed), Cow::from);
        return Some((format!("unknown option {typed}"), hint));
    }
    let text = error
        .to_string()
        .lines()
        .next()?
        .trim_start_matches("error: ")
        .to_owned();
    Some((text, hint?.into()))
}

/// Returns the hint for an unknown option: one with a typing error in it, or else the help. clap
/// suggests options that only share letters, such as `--retry` for `--referrer`.
fn similar_option(command: &str, error: &clap::Error, typed: &str) -> Cow<'static, str> {
    let similar = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(similar)) => Some(similar),
        Some(ContextValue::Strings(similar)) => similar.first(),
        _ => None,
    };
    match similar {
        Some(similar) if strsim::osa_distance(typed, similar) <= MAX_TYPING_ERRORS => {
            format!("did you mean {similar}?").into()
        }
        _ => format!("myapp {command} --help lists all options").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory as _, Parser as _};

    fn of(line: &[&str]) -> Option<(String, Cow<'static, str>)> {
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
        assert_eq!(of(&["download", "-j", "x"]), None);
    }

    #[test]
    fn only_typing_errors_suggest_another_option() {
        for (line, hint) in [
            (
                &["download", "--referrer", "x"][..],
                "did you mean --referer?",
            ),
            (
                &["download", "--limti-rate=1M"],
                "did you mean --limit-rate?",
            ),
            (
                &["download", "--recurse"],
                "myapp download --help lists all options",
            ),
            (&["cat", "--nunber"], "did you mean --number?"),
            (&["cat", "-l"], "myapp cat --help lists all options"),
        ] {
            let (text, found) = of(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(text.starts_with("unknown option -"), "{text}");
            assert_eq!(found, hint, "{line:?}");
        }
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
            for option in suggestions
                .iter()
                .flat_map(|(options, _)| options.split('|'))
            {
                let name = option.split(' ').next().unwrap();
                let line = if name == option {
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
