//! Rules of the code base that the compiler and clippy do not check: layers, import cycles,
//! confined crates, forbidden calls, wording, and the tiers of the tests.

mod dependencies;
mod features;
mod imports;
mod prose;
mod tiers;

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the library, and the modules that its files may import from.
const ALLOWED_IMPORTS: [(&str, &[&str]); 19] = [
    ("checksum", &[]),
    ("atomic_file", &["escape"]),
    ("descriptor", &[]),
    ("units", &[]),
    ("escape", &[]),
    ("error_chain", &[]),
    ("decompress", &[]),
    ("decompress_disabled", &[]),
    ("digits", &[]),
    ("runtime", &[]),
    ("serialize", &[]),
    ("speed", &[]),
    ("limits", &[]),
    ("measure", &[]),
    ("net", &["limits", "runtime", "digits", "escape"]),
    (
        "cat",
        &[
            "atomic_file",
            "checksum",
            "decompress",
            "descriptor",
            "limits",
            "runtime",
            "serialize",
            "escape",
            "error_chain",
        ],
    ),
    (
        "serve",
        &[
            "net",
            "limits",
            "runtime",
            "serialize",
            "escape",
            "error_chain",
        ],
    ),
    (
        "echo",
        &[
            "net",
            "measure",
            "limits",
            "runtime",
            "serialize",
            "escape",
            "error_chain",
        ],
    ),
    (
        "download",
        &[
            "atomic_file",
            "checksum",
            "decompress",
            "descriptor",
            "net",
            "limits",
            "runtime",
            "serialize",
            "speed",
            "digits",
            "escape",
            "error_chain",
        ],
    ),
];

/// Crates that only files below one of these paths may name.
const RESTRICTED_CRATES: [(&str, &[&str]); 7] = [
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

/// Calls that the library does not make outside its tests. Unwrapping is left to clippy, which
/// requires a reason for each exception.
const FORBIDDEN_CALLS: [(&str, &str); 7] = [
    ("panic!(", "panics"),
    ("unreachable!(", "panics"),
    ("todo!(", "is unfinished"),
    ("println!(", "prints"),
    ("eprint", "prints"),
    ("env::var", "reads the environment"),
    ("process::exit", "exits"),
];

/// The longest source file, without comments and unit tests. Clippy limits the functions.
const MAX_FILE_LINES: usize = 560;

/// A source file below `src/`.
struct Source {
    /// The path below `src/`.
    name: String,
    /// The text without comment lines and without the unit tests at its end.
    code: String,
}

/// Returns the source files of the library and of the binary, without those of unit tests.
fn sources() -> Vec<Source> {
    let root = package_root().join("src");
    let mut sources = Vec::new();
    for path in files_below(&root, "rs") {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if name.contains("/tests/") || name.ends_with("/tests.rs") {
            continue;
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
    }
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

/// Returns the source files of the library.
fn library() -> impl Iterator<Item = Source> {
    sources()
        .into_iter()
        .filter(|source| !source.name.starts_with("bin/"))
}

fn package_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files with this extension below a folder, sorted, without build output.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            if !path.ends_with("target") {
                files.extend(files_below(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

#[track_caller]
fn assert_none(violations: Vec<String>) {
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn modules_import_only_from_lower_layers() {
    let mut violations = Vec::new();
    // These two only declare and re-export.
    let modules = library().filter(|source| !["lib.rs", "internals.rs"].contains(&&*source.name));
    for Source { name, code } in modules {
        let module = name.split(['/', '.']).next().unwrap();
        let row = ALLOWED_IMPORTS.iter().find(|(from, _)| *from == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{module} is not in ALLOWED_IMPORTS"));
        for imported in imports::paths(&code) {
            let [root, to, ..] = &imported[..] else {
                continue;
            };
            if root == "crate" && to != module && !allowed.contains(&to.as_str()) {
                violations.push(format!("{name} imports {to}"));
            }
        }
    }
    assert_none(violations);
}

#[test]
fn restricted_crates_are_named_nowhere_else() {
    let mut violations = Vec::new();
    for Source { name, code } in sources() {
        for (krate, folders) in RESTRICTED_CRATES {
            let is_allowed = folders.iter().any(|folder| name.starts_with(folder));
            let paths = [
                format!("use {krate}::"),
                format!(" {krate}::"),
                format!("({krate}::"),
            ];
            if !is_allowed && paths.iter().any(|path| code.contains(path)) {
                violations.push(format!("{name} names {krate}"));
            }
        }
    }
    assert_none(violations);
}

#[test]
fn public_enums_are_non_exhaustive() {
    let mut violations = Vec::new();
    for Source { name, code } in library() {
        let mut previous = "";
        for line in code.lines() {
            if line.starts_with("pub enum ") && previous != "#[non_exhaustive]" {
                violations.push(format!("{name}: {line}"));
            }
            previous = line;
        }
    }
    assert_none(violations);
}

#[test]
fn library_never_prints_panics_exits_or_reads_the_environment() {
    let mut violations = Vec::new();
    for Source { name, code } in library() {
        for line in code.lines() {
            let found = FORBIDDEN_CALLS.iter().find(|(text, _)| line.contains(text));
            if let Some((_, effect)) = found {
                violations.push(format!("{name} {effect}: {}", line.trim()));
            }
        }
    }
    assert_none(violations);
}

#[test]
fn source_files_stay_short() {
    let mut violations = Vec::new();
    for Source { name, code } in sources() {
        let lines = code.lines().count();
        if lines > MAX_FILE_LINES {
            violations.push(format!("{name} has {lines} lines"));
        }
    }
    assert_none(violations);
}
