//! What keeps the house in order: who may call whom, what the library never does, how long a
//! file or a function may grow.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room of the library and the rooms that its files may import from.
const ARROWS: [(&str, &[&str]); 12] = [
    ("units", &[]),
    ("escape", &[]),
    ("error_chain", &[]),
    ("decompress", &[]),
    ("runtime", &[]),
    ("limits", &[]),
    ("measure", &[]),
    ("net", &["limits", "runtime", "escape"]),
    (
        "cat",
        &[
            "decompress",
            "limits",
            "runtime",
            "units",
            "escape",
            "error_chain",
        ],
    ),
    (
        "serve",
        &["net", "limits", "runtime", "units", "escape", "error_chain"],
    ),
    (
        "echo",
        &[
            "net",
            "measure",
            "limits",
            "runtime",
            "units",
            "escape",
            "error_chain",
        ],
    ),
    (
        "download",
        &[
            "decompress",
            "net",
            "limits",
            "runtime",
            "units",
            "escape",
            "error_chain",
        ],
    ),
];

/// Crates that stand behind a wall: only files below one of these paths may name them.
const WALLS: [(&str, &[&str]); 7] = [
    ("surf", &["download/http/"]),
    ("http_client", &["download/http/"]),
    ("httparse", &["download/http/"]),
    ("rustls", &["net/tls", "net/stream.rs"]),
    (
        "futures_rustls",
        &["net/tls", "net/stream.rs", "download/http/"],
    ),
    ("clap", &["bin/"]),
    ("anyhow", &["bin/"]),
];

/// What no library file holds outside its tests, and why. (Unwrapping is for clippy to refuse,
/// where an exception stands with its reason.)
const NEVER: [(&str, &str); 7] = [
    ("panic!(", "panics"),
    ("unreachable!(", "panics"),
    ("todo!(", "is unfinished"),
    ("println!(", "prints"),
    ("eprint", "prints"),
    ("env::var", "reads the environment"),
    ("process::exit", "exits"),
];

const LONGEST_FILE: usize = 650;
const LONGEST_FUNCTION: usize = 140;

struct Source {
    /// The path below `src/`.
    name: String,
    /// The text without the tests at its end and without comment lines.
    code: String,
}

/// All files below `src/` but those of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    visit(&root, &mut |path| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if name.contains("/tests/") {
            return;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        sources.push(Source {
            name,
            code: code.map(|line| format!("{line}\n")).collect(),
        });
    });
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

fn visit(folder: &Path, found: &mut impl FnMut(PathBuf)) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found(path);
        }
    }
}

/// The files of the library.
fn library() -> impl Iterator<Item = Source> {
    sources()
        .into_iter()
        .filter(|source| !source.name.starts_with("bin/"))
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The rooms that a text names as `crate::ROOM`.
fn imports(code: &str) -> Vec<String> {
    let rooms = code.split("crate::").skip(1);
    rooms
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn rooms_import_only_from_below() {
    let mut complaints = Vec::new();
    for Source { name, code } in library().filter(|source| source.name != "lib.rs") {
        let room = name.split(['/', '.']).next().unwrap();
        let arrows = ARROWS.iter().find(|(from, _)| *from == room);
        let (_, allowed) = arrows.unwrap_or_else(|| panic!("{room} has no row in ARROWS"));
        let wrong = |to: &String| to != room && !allowed.contains(&to.as_str());
        complaints.extend(
            imports(&code)
                .into_iter()
                .filter(wrong)
                .map(|to| format!("{name} imports {to}")),
        );
    }
    none(complaints);
}

#[test]
fn crates_behind_a_wall_are_named_nowhere_else() {
    let mut complaints = Vec::new();
    for Source { name, code } in sources() {
        for (krate, rooms) in WALLS {
            let inside = rooms.iter().any(|room| name.starts_with(room));
            let paths = [
                format!("use {krate}::"),
                format!(" {krate}::"),
                format!("({krate}::"),
            ];
            if !inside && paths.iter().any(|path| code.contains(path)) {
                complaints.push(format!("{name} names {krate}"));
            }
        }
    }
    none(complaints);
}

#[test]
fn the_library_never_prints_panics_exits_or_reads_the_environment() {
    let mut complaints = Vec::new();
    for Source { name, code } in library() {
        for line in code.lines() {
            let wrong = NEVER.iter().find(|(text, _)| line.contains(text));
            complaints.extend(wrong.map(|(_, why)| format!("{name} {why}: {}", line.trim())));
        }
    }
    none(complaints);
}

#[test]
fn files_and_functions_stay_short() {
    let mut complaints = Vec::new();
    for Source { name, code } in sources() {
        let lines = code.lines().count();
        if lines > LONGEST_FILE {
            complaints.push(format!("{name} has {lines} lines"));
        }
        for (function, lines) in functions(&code) {
            if lines > LONGEST_FUNCTION {
                complaints.push(format!("{name}: {function} has {lines} lines"));
            }
        }
    }
    none(complaints);
}

/// The functions of a formatted text with their lengths: each ends with the first `}` that
/// stands as far left as its beginning.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else {
            continue;
        };
        let words = before.trim_start();
        if !words
            .split(' ')
            .all(|w| w.is_empty() || w == "async" || w.starts_with("pub") || w == "const")
        {
            continue;
        }
        let indent = before.len() - words.len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..]
            .iter()
            .position(|line| *line == end)
            .map_or(1, |at| at + 1);
        let name = after.split(['(', '<']).next().unwrap();
        functions.push((name.to_owned(), length));
    }
    functions
}

#[test]
fn the_measure_of_functions_measures() {
    let code = "fn a() {\n    b\n}\nimpl X {\n    pub(crate) async fn c(\n    ) {\n    }\n}\n";
    assert_eq!(functions(code), [("a".into(), 3), ("c".into(), 3)]);
    assert_eq!(
        imports("use crate::net::x;\ncrate::units::parse()"),
        ["net", "units"]
    );
}
