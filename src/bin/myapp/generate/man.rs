//! Manual pages from the clap definitions, with the sections that clap does not know.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The sections of a page that its command line does not contain.
struct Sections {
    command: &'static str,
    environment: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const LOG_FILTER: (&str, &str) = (
    "MYAPP_LOG",
    "Filter of log events: LEVEL or TARGET=LEVEL,..., with the levels error, warn, info, debug and trace. Overrides -q and -v.",
);
const NO_COLOR: (&str, &str) = ("NO_COLOR", "If set and not empty, colors are off.");
const ROOTS: (&str, &str) = (
    "SSL_CERT_FILE, SSL_CERT_DIR",
    "Root certificates instead of those of the system.",
);

const SECTIONS: [Sections; 4] = [
    Sections {
        command: "serve",
        environment: &[
            LOG_FILTER,
            NO_COLOR,
            (
                "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
                "Sockets that systemd passes; they are served before the addresses.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "Socket for readiness and watchdog messages to systemd.",
            ),
        ],
        files: &[],
    },
    Sections {
        command: "echo",
        environment: &[LOG_FILTER, NO_COLOR, ROOTS],
        files: &[],
    },
    Sections {
        command: "download",
        environment: &[
            LOG_FILTER,
            NO_COLOR,
            ROOTS,
            (
                "http_proxy, https_proxy, HTTPS_PROXY, all_proxy, ALL_PROXY",
                "Proxy for URLs of that scheme, or of every scheme; --proxy overrides them.",
            ),
            (
                "no_proxy, NO_PROXY",
                "Hosts, domains and networks that are reached without a proxy.",
            ),
            ("HOME", "Folder of .netrc."),
        ],
        files: &[
            ("NAME.part", "Data of an unfinished download."),
            ("NAME.part.json", "State with which -c continues it."),
            ("~/.netrc", "User names and passwords, with --netrc."),
        ],
    },
    Sections {
        command: "cat",
        environment: &[NO_COLOR],
        files: &[],
    },
];

const EXIT_STATUS: [(&str, &str); 15] = [
    ("0", "Success, or skipped intentionally."),
    (
        "1",
        "An input failed (cat), a reply differed (echo), or any other error.",
    ),
    ("2", "Invalid command line."),
    ("3", "Local file: missing, not writable, disk full."),
    (
        "4",
        "Network: name resolution, connect, reset, truncated transfer.",
    ),
    ("5", "TLS."),
    ("6", "HTTP status 401 or 407."),
    (
        "7",
        "Protocol: invalid framing, too many redirects, refused redirect.",
    ),
    ("8", "An HTTP response that does not give the file."),
    ("9", "Checksum."),
    ("10", "Timeout, or too slow."),
    ("11", "Size limit exceeded."),
    ("130", "Terminated by SIGINT."),
    ("141", "Standard output has no reader."),
    ("143", "Terminated by SIGTERM."),
];

/// The codes of `cat`, which are those of other `cat` programs.
const CAT_EXIT_CODES: [&str; 6] = ["0", "1", "2", "130", "141", "143"];

/// Returns the name and text of each page: the program, then its commands.
pub(super) fn pages(mut command: Command) -> Vec<(String, Vec<u8>)> {
    command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = vec![("myapp".to_owned(), page(&command, "myapp"))];
    for command in command.get_subcommands() {
        let name = format!("myapp-{}", command.get_name());
        let text = page(command, &name);
        pages.push((name, text));
    }
    pages
}

/// Returns the pages one after another.
pub(super) fn all_pages(command: Command) -> Vec<u8> {
    let pages = pages(command).into_iter();
    pages.flat_map(|(_, text)| text).collect()
}

fn page(command: &Command, name: &str) -> Vec<u8> {
    let man = Man::new(command.clone().display_name(name))
        .title(name.to_uppercase())
        .section("1")
        .source(format!("myapp {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    // Writing to a vector cannot fail.
    let _: io::Result<()> = render(&man, command, &mut page);
    page
}

fn render(man: &Man, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let after = command.get_after_help().map(ToString::to_string);
    if let Some(text) = &after {
        let (examples, notes) = text.split_once("\n\n").unwrap_or((text, ""));
        let examples = examples.trim_start_matches("Examples:\n");
        preformatted("EXAMPLES", examples).to_writer(page)?;
        preformatted("NOTES", notes).to_writer(page)?;
    }
    let is_cat = command.get_name() == "cat";
    let codes = EXIT_STATUS
        .iter()
        .filter(|(code, _)| !is_cat || CAT_EXIT_CODES.contains(code));
    list("EXIT STATUS", codes).to_writer(page)?;
    if let Some(sections) = SECTIONS
        .iter()
        .find(|sections| sections.command == command.get_name())
    {
        list("ENVIRONMENT", sections.environment.iter()).to_writer(page)?;
        list("FILES", sections.files.iter()).to_writer(page)?;
    }
    Ok(())
}

/// A section of text with its own line ends; empty without text.
fn preformatted(title: &str, text: &str) -> Roff {
    let mut section = Roff::new();
    if !text.trim().is_empty() {
        section.control("SH", [title]).control("nf", []);
        for line in text.lines() {
            section.text([roman(line)]);
        }
        section.control("fi", []);
    }
    section
}

/// A section of terms and their descriptions; empty without terms.
fn list<'a>(title: &str, entries: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Roff {
    let mut section = Roff::new();
    for (index, (term, text)) in entries.enumerate() {
        if index == 0 {
            section.control("SH", [title]);
        }
        section.control("TP", []).text([bold(*term)]);
        section.text([roman(*text)]);
    }
    section
}
