//! Every example runs to its end by itself and says what it is there to show.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Each example with a text that it prints.
pub(crate) const EXAMPLES: [(&str, &str); 12] = [
    ("blocking-and-async-reading", "asynchronous, side by side"),
    ("closing", "100 clients got every byte back"),
    ("download-many", "HTTP status 404"),
    ("echo-clients", "1: ¡Hola, servidor!"),
    ("echo-server", "the server answered 3 messages"),
    ("errors-and-timeouts", "no data for"),
    ("limit-concurrency", "at most 3 at once"),
    ("logging", "\"message\":\"stopped\""),
    ("read-lines", "6 lines in"),
    ("said-server", "You said: ¡Hola, servidor!"),
    ("tour", "12 files, 204000 bytes"),
    ("write-lines", "the file, whole"),
];

#[test]
fn every_example_has_a_row() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    names.sort();
    assert_eq!(names, EXAMPLES.map(|(name, _)| name));
}

#[test]
fn every_example_runs_to_its_end_and_shows_its_point() {
    // `cargo test` builds the examples beside the program.
    let built = Path::new(env!("CARGO_BIN_EXE_myapp")).with_file_name("examples");
    for (name, shows) in EXAMPLES {
        let ran = Command::new(built.join(name))
            .output()
            .unwrap_or_else(|error| panic!("{name}: {error} (`cargo test` builds it)"));
        let stdout = String::from_utf8_lossy(&ran.stdout);
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success(),
            "{name}: {}\n{stdout}\n{stderr}",
            ran.status
        );
        assert!(
            format!("{stdout}{stderr}").contains(shows),
            "{name} should say {shows:?}:\n{stdout}\n{stderr}"
        );
    }
}
