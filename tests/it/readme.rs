//! The README says what is so: its help is the program's, its commands run and print what it
//! shows, its examples exist.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Folder, myapp};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The fenced blocks of one language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    let rest = readme.split(&fence).skip(1);
    rest.map(|block| block.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

#[test]
fn the_first_two_commands_are_the_tour_and_the_tests() {
    let first: Vec<_> = blocks(&readme(), "sh").into_iter().take(2).collect();
    assert_eq!(
        first,
        ["cargo run --release --example tour\n", "cargo test\n"]
    );
}

/// Written by `for c in serve echo download cat; do COLUMNS=80 myapp $c --help > docs/cli/$c.txt; done`.
#[test]
fn help_in_docs_is_current() {
    for command in ["serve", "echo", "download", "cat"] {
        let output = myapp([command, "--help"])
            .env("COLUMNS", "80")
            .run()
            .code(0);
        let help: Vec<_> = output
            .text()
            .lines()
            .map(str::trim_end)
            .map(str::to_owned)
            .collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/cli/{command}.txt"));
        let documented = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(documented, help.join("\n") + "\n", "docs/cli/{command}.txt");
    }
}

#[test]
fn help_fits_eighty_columns() {
    for command in ["serve", "echo", "download", "cat"] {
        let help = myapp([command, "--help"])
            .env("COLUMNS", "80")
            .run()
            .code(0)
            .text();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}

/// Each `console` block is a session in a folder of its own: `$ COMMAND`, then what it prints.
#[test]
fn the_sessions_it_shows_run_as_shown() {
    let program = Path::new(env!("CARGO_BIN_EXE_myapp")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let sessions = blocks(&readme(), "console");
    assert!(!sessions.is_empty());
    for session in sessions {
        let folder = Folder::new();
        for step in format!("\n{session}").split("\n$ ").skip(1) {
            let (command, wanted) = step.split_once('\n').unwrap_or((step, ""));
            let ran = Command::new("sh")
                .args(["-c", &format!("{command} 2>&1")])
                .current_dir(folder.path(""))
                .env("PATH", &path)
                .env_remove("MYAPP_LOG")
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&ran.stdout);
            assert_eq!(printed.trim_end(), wanted.trim_end(), "$ {command}");
        }
    }
}

#[test]
fn the_examples_it_names_are_those_that_exist() {
    let readme = readme();
    for (name, _) in crate::examples::EXAMPLES {
        assert!(
            readme.contains(&format!("examples/{name}.rs")),
            "{name} is not in the README"
        );
    }
    for part in readme.split("(examples/").skip(1) {
        let name = part.split(".rs").next().unwrap();
        assert!(
            crate::examples::EXAMPLES
                .iter()
                .any(|(known, _)| *known == name),
            "{name}"
        );
    }
}
