//! Manual pages from the clap definitions, with the sections that clap does not know.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Section of the long help, and its title in a page.
const TITLES: [(&str, &str); 4] = [
    ("Examples:", "EXAMPLES"),
    ("Exit codes:", "EXIT STATUS"),
    ("Environment:", "ENVIRONMENT"),
    ("Files:", "FILES"),
];

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
    let command = command.clone().mut_arg("help", |help| {
        help.long_help("Print help; -h for a summary")
    });
    let man = Man::new(command.clone().display_name(name))
        .title(name.to_uppercase())
        .section("1")
        .source(format!("myapp {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    // Writing to a vector cannot fail.
    let _: io::Result<()> = render(&man, &command, &mut page);
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
    let text = command.get_after_long_help().map(ToString::to_string);
    for section in sections(&text.unwrap_or_default()) {
        section.to_writer(page)?;
    }
    if !command.has_subcommands() {
        see_also("myapp").to_writer(page)?;
    }
    Ok(())
}

/// A section that refers to another page.
fn see_also(name: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    section.text([bold(name), roman("(1)")]);
    section
}

/// Converts the long help: examples, paragraphs, and lists of terms with their texts.
fn sections(text: &str) -> Vec<Roff> {
    let mut sections = Vec::new();
    let mut notes = Vec::new();
    for block in text.split("\n\n") {
        let (heading, lines) = block.split_once('\n').unwrap_or((block, ""));
        match TITLES.iter().find(|(in_help, _)| *in_help == heading) {
            Some((_, "EXAMPLES")) => sections.push(preformatted("EXAMPLES", lines)),
            Some((_, title)) => sections.push(list(title, lines)),
            None => notes.push(block.trim_end()),
        }
    }
    sections.push(paragraphs("NOTES", &notes));
    sections
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

/// A section of paragraphs; empty without any.
fn paragraphs(title: &str, texts: &[&str]) -> Roff {
    let mut section = Roff::new();
    if !texts.is_empty() {
        section.control("SH", [title]);
    }
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            section.control("PP", []);
        }
        section.text([roman(*text)]);
    }
    section
}

/// A section of terms and their texts: two spaces, a term, two spaces or a line end, and a text
/// that continues on lines with more than two spaces.
fn list(title: &str, lines: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    for line in lines.lines() {
        let entry = line.strip_prefix("  ").unwrap_or(line);
        if entry.starts_with(' ') {
            section.text([roman(entry.trim_start())]);
            continue;
        }
        let (term, text) = entry.split_once("  ").unwrap_or((entry, ""));
        section.control("TP", []).text([bold(term)]);
        if !text.is_empty() {
            section.text([roman(text.trim_start())]);
        }
    }
    section
}
