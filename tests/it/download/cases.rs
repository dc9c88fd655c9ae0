//! What `myapp download` promises stands in `cases.md`, a table, with the tests that hold it to
//! that; here it is seen to that each row has tests, and that they are there.

use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("cases.md");

/// The exit codes that there are for downloads.
const CODES: [u32; 13] = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 130, 143];

/// What is wrong with a table, and how many rows it has.
fn check(table: &str) -> (Vec<String>, usize) {
    let is_head = |row: &str| row.starts_with("|---") || row.contains("| exit | tests |");
    let rows: Vec<_> =
        table.lines().filter(|line| line.starts_with('|') && !is_head(line)).collect();
    (rows.iter().filter_map(|row| complaint(row)).collect(), rows.len())
}

/// What is wrong with a row.
fn complaint(row: &str) -> Option<String> {
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
    let missing = tests.split(' ').find(|test| !exists(test))?;
    Some(format!("no test {missing}, for: {case}"))
}

/// Whether there is a test of this name, `FILE::FUNCTION`.
fn exists(test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let folder = if file.starts_with("src/") { "" } else { "tests/it/download/" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}{file}.rs"));
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let head = format!("fn {function}() {{");
    let Some(at) = lines.iter().position(|line| *line == head) else { return false };
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|attribute| *attribute == "#[test]")
}

#[test]
fn every_case_has_tests() {
    let (complaints, rows) = check(TABLE);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(rows > 50, "only {rows} rows are read");
}

#[test]
fn a_row_without_a_test_is_missed() {
    let row = |codes: &str, tests: &str| format!("| a | b | {codes} | {tests} |\n");
    let good = "cases::every_case_has_tests src/download/part::whatever_has_the_name_keeps_it";
    assert_eq!(check(&row("0, 4", good)), (vec![], 1));
    for (codes, tests, says) in [
        ("0", "", "no test for"),
        ("", good, "no exit codes"),
        ("12", good, "no exit codes"),
        ("0", "cases::check", "no test cases::check"),
        ("0", "nowhere::every_case_has_tests", "no test nowhere::"),
        ("0", "a | b", "not four cells"),
    ] {
        let (complaints, _) = check(&row(codes, tests));
        assert!(complaints.concat().contains(says), "{complaints:?}");
    }
}
