//! Wording: doc summaries, phrases that must not come back, and idioms.

use std::fs;
use std::path::PathBuf;

use super::{assert_none, files_below, package_root};

/// Words that a doc summary does not start with. A summary is a noun phrase or a sentence in the
/// third person (RFC 1574): "Returns the length.", "Connection pool keyed by origin."
const SUMMARY_STARTS: [&str; 19] = [
    "What", "Who", "Whom", "Whose", "How", "Where", "When", "Why", "Until", "Which", "Those",
    "That", "Nobody", "Nothing", "Whatever", "Whoever", "As", "If", "So",
];

/// Phrases of the style that this project has given up, in lower case.
const PHRASES: [&str; 40] = [
    "is told",
    "are told",
    "was told",
    "is asked for",
    "are asked for",
    "goes on with",
    "on the way",
    "what has come",
    "what there is",
    "has come in",
    "a begin of",
    "who speaks",
    "who comes",
    "who asks",
    "who reads",
    "who waits",
    "who connects",
    "whoever",
    "whatever has",
    "shakes hands",
    "shows hands",
    "takes its turn",
    "takes their turn",
    "lets go of",
    "for good",
    "side by side",
    "so long as nobody",
    "nobody waits",
    "nobody reads",
    "keeps the house",
    "stands behind",
    "stands in the way",
    "a bytes a second",
    "bytes a second",
    "messages a second",
    "lines a second",
    "the system's own words",
    "makes up its mind",
    "is no good",
    "without end",
];

/// Code that has a plainer form: `if` or `bool::then`.
const IDIOMS: [&str; 3] = [".filter(|_|", "true =>", "false =>"];

/// Returns each text file of the project whose wording is checked, except this one.
fn files() -> Vec<PathBuf> {
    let root = package_root();
    let mut files = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        files.extend(files_below(&root.join(folder), "rs"));
    }
    for folder in ["docs", "tests"] {
        files.extend(files_below(&root.join(folder), "md"));
    }
    files.extend(files_below(&root.join("docs/cli"), "txt"));
    files.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)));
    files.retain(|path| !path.ends_with("tidy/prose.rs"));
    files
}

/// Runs a check on each line of each file and collects its complaints.
fn check_lines(check: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    let root = package_root();
    let mut violations = Vec::new();
    for path in files() {
        let file = path.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let mut previous = "";
        for (index, line) in text.lines().enumerate() {
            if let Some(complaint) = check(previous, line.trim()) {
                violations.push(format!("{file}:{}: {complaint}", index + 1));
            }
            previous = line.trim();
        }
    }
    violations
}

/// Returns the first word of a doc summary that starts with one of the rejected words.
fn rejected_summary<'a>(previous: &str, line: &'a str) -> Option<&'a str> {
    let is_doc = |line: &str| line.starts_with("///") || line.starts_with("//!");
    if is_doc(previous) || !is_doc(line) {
        return None;
    }
    let first = line[3..].split_whitespace().next()?;
    SUMMARY_STARTS.contains(&first).then_some(first)
}

/// Returns a rejected phrase in a line, if it is prose: a comment, a string, or not Rust.
fn rejected_phrase(line: &str) -> Option<&'static str> {
    let line = line.to_lowercase();
    PHRASES.into_iter().find(|phrase| line.contains(phrase))
}

/// Returns whether a line binds two or more unrelated values in one `let`.
fn is_tuple_let(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("let (") else {
        return false;
    };
    let Some((names, value)) = rest.split_once(") = (") else {
        return false;
    };
    let is_name = |name: &str| {
        let name = name.trim().trim_start_matches("mut ");
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    names.split(',').all(is_name) && (value.is_empty() || value.ends_with(");"))
}

#[test]
fn doc_summaries_start_with_a_verb_or_a_noun() {
    assert_none(check_lines(|previous, line| {
        rejected_summary(previous, line).map(|_| line.to_owned())
    }));
}

#[test]
fn rejected_phrases_do_not_come_back() {
    assert_none(check_lines(|_, line| {
        rejected_phrase(line).map(|phrase| format!("{phrase:?} in: {line}"))
    }));
}

#[test]
fn plain_idioms_are_used() {
    assert_none(check_lines(|_, line| {
        let is_code = !line.starts_with("//");
        let found = is_code
            && (is_tuple_let(line)
                || line.contains(IDIOMS[0])
                || IDIOMS[1..].iter().any(|arm| line.starts_with(arm)));
        found.then(|| line.to_owned())
    }));
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert_eq!(rejected_summary("", "/// What it does."), Some("What"));
    assert_eq!(rejected_summary("", "/// Whether it is done."), None);
    assert_eq!(rejected_summary("/// Sum.", "/// What it does."), None);
    assert_eq!(rejected_phrase("// The user is told."), Some("is told"));
    assert!(is_tuple_let("let (mut a, b) = (1, 2);"));
    assert!(is_tuple_let("let (a, b) = ("));
    assert!(!is_tuple_let("let (reader, writer) = split(stream);"));
    assert!(!is_tuple_let("let (Some(a), b) = (1, 2);"));
}
