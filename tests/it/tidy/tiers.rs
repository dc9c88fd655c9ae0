//! The tiers of the tests: each ignored test states its tier, and soak tests can be skipped by
//! the name of their module, since libtest cannot select by reason.

use std::fs;

use super::{assert_none, files_below, package_root};

const TIERS: [&str; 3] = ["peer: ", "slow: ", "soak: "];

/// Returns what is wrong with the ignored tests of a file.
fn violations(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_soak_file = file.contains("/soak");
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line == "#[ignore]" {
            found.push(format!("{file}:{}: ignored without a reason", index + 1));
        }
        let Some(reason) = line.strip_prefix("#[ignore = \"") else {
            continue;
        };
        if !TIERS.iter().any(|tier| reason.starts_with(tier)) {
            found.push(format!("{file}:{}: no tier: {line}", index + 1));
        }
        if reason.starts_with("soak: ") != is_soak_file {
            found.push(format!(
                "{file}:{}: soak tests, and only they, live in modules named soak",
                index + 1
            ));
        }
    }
    found
}

#[test]
fn each_ignored_test_names_its_tier() {
    let root = package_root();
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for path in files_below(&root.join(folder), "rs") {
            let file = path.strip_prefix(root).unwrap().to_string_lossy();
            found.extend(violations(&file, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert_none(found);
}

#[test]
fn a_test_without_a_tier_is_found() {
    let ignored = |reason: &str| format!("    #[ignore = \"{reason}\"]\n");
    let count = |file: &str, reason: &str| violations(file, &ignored(reason)).len();
    assert_eq!(count("tests/it/cat.rs", "peer: strace"), 0);
    assert_eq!(count("tests/it/cat.rs", "needs strace"), 1);
    assert_eq!(count("tests/it/cat.rs", "soak: 30 minutes"), 1);
    assert_eq!(count("tests/it/cat/soak.rs", "soak: 30 minutes"), 0);
    assert_eq!(count("tests/it/cat/soak.rs", "slow: 30 s"), 1);
    assert_eq!(violations("a.rs", "#[ignore]\n").len(), 1);
}
