//! Guarantees of the commands: each row of a table in `COMMAND/cases.md` names its tests, and they
//! exist.

use std::fs;
use std::path::Path;

/// The exit codes that there are.
const CODES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 129, 130, 141, 143];

/// Fails unless each of the `least` or more rows of a command's tables is held by tests.
#[track_caller]
fn holds(command: &str, least: usize) {
    let table = read(&format!("tests/it/{command}/cases.md"));
    let (complaints, rows) = check(command, &table);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(rows >= least, "only {rows} rows are read");
}

/// Returns the errors in the tables of a command, and the number of rows.
fn check(command: &str, table: &str) -> (Vec<String>, usize) {
    let is_head = |row: &str| row.starts_with("|---") || row.contains("| exit | tests |");
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with('|') && !is_head(line))
        .collect();
    (
        rows.iter()
            .filter_map(|row| complaint(command, row))
            .collect(),
        rows.len(),
    )
}

/// Returns the error in a row.
fn complaint(command: &str, row: &str) -> Option<String> {
    let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [case, must, codes, tests] = cells[..] else {
        return Some(format!("not four cells: {row}"));
    };
    if case.is_empty() || must.is_empty() {
        return Some(format!("an empty cell: {row}"));
    }
    let is_code = |code: &str| code.parse().is_ok_and(|code| CODES.contains(&code));
    if !codes.split(", ").all(is_code) {
        return Some(format!("{codes:?} are no exit codes, for: {case}"));
    }
    if tests.is_empty() {
        return Some(format!("no test for: {case}"));
    }
    let missing = tests.split(' ').find(|test| !exists(command, test))?;
    Some(format!("no test {missing}, for: {case}"))
}

/// Whether there is a test of this name: `FILE::FUNCTION`, the file named from the top or from
/// where the tests of the command are.
fn exists(command: &str, test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else {
        return false;
    };
    let is_from_the_top = file.starts_with("src/") || file.starts_with("tests/");
    let folder = if is_from_the_top {
        ""
    } else {
        &format!("tests/it/{command}/")
    };
    let text = read(&format!("{folder}{file}.rs"));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let head = format!("fn {function}() {{");
    let Some(at) = lines.iter().position(|line| *line == head) else {
        return false;
    };
    let attributes = lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#["));
    attributes
        .into_iter()
        .any(|attribute| *attribute == "#[test]")
}

/// The text of a file of the package; nothing where there is none.
fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn every_case_of_download_has_tests() {
    holds("download", 50);
}

#[test]
fn every_case_of_serve_has_tests() {
    holds("serve", 21);
}

#[test]
fn every_case_of_cat_has_tests() {
    holds("cat", 38);
}

#[test]
fn every_case_of_echo_has_tests() {
    holds("echo", 37);
}

#[test]
fn every_threat_has_tests() {
    let policy = read("SECURITY.md");
    let rows = policy
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<_> = rows.filter(|row| !row.starts_with("who |")).collect();
    assert!(rows.len() >= 20, "only {} rows are read", rows.len());
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, _, _, tests] = cells[..] else {
            panic!("not four cells: {row}");
        };
        let missing: Vec<_> = tests.split(' ').filter(|test| !exists("", test)).collect();
        assert!(missing.is_empty(), "no test {missing:?}, for: {row}");
    }
}

#[test]
fn a_row_without_a_test_is_missed() {
    let row = |codes: &str, tests: &str| format!("| a | b | {codes} | {tests} |\n");
    let good = "limits::connection_over_the_limit_waits_for_a_slot \
                src/limits/shutdown::dropped_trigger_shuts_down \
                tests/it/cases::every_case_of_serve_has_tests";
    assert_eq!(check("serve", &row("0, 4", good)), (vec![], 1));
    for (codes, tests, says) in [
        ("0", "", "no test for"),
        ("", good, "no exit codes"),
        ("12", good, "no exit codes"),
        (
            "0",
            "tests/it/cases::check",
            "no test tests/it/cases::check",
        ),
        (
            "0",
            "nowhere::every_case_of_serve_has_tests",
            "no test nowhere::",
        ),
        ("0", "a | b", "not four cells"),
    ] {
        let (complaints, _) = check("serve", &row(codes, tests));
        assert!(complaints.concat().contains(says), "{complaints:?}");
    }
}
