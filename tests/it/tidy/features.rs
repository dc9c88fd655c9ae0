//! The features of the library, and the crates that each of them brings.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::package_root;

/// Returns the features in the table of `docs/library.md`, and their numbers of crates.
fn documented() -> Vec<(String, usize)> {
    let text = fs::read_to_string(package_root().join("docs/library.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, features, _, crates, _] = cells[..] else {
            return None;
        };
        let crates = crates.parse().ok()?;
        Some((features.replace(['`', ' '], ""), crates))
    });
    rows.collect()
}

/// Returns the number of crates of a build with these features only, the library included.
fn count_crates(features: &str) -> usize {
    let tree = Command::new(env!("CARGO"))
        .current_dir(package_root())
        .args(["tree", "--locked", "-e", "normal", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--no-default-features", "--features", features])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{features}: {errors}");
    let text = String::from_utf8(tree.stdout).unwrap();
    let crates = text.lines().map(|line| line.trim_end_matches(" (*)"));
    crates.collect::<BTreeSet<_>>().len()
}

#[test]
fn public_modules_are_those_of_the_front_page() {
    let text = fs::read_to_string(package_root().join("src/lib.rs")).unwrap();
    let declared = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|name| *name != "internals");
    let listed = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "))
        .map(|(name, _)| name.trim_matches(['[', '`', ']']))
        .filter(|name| *name != "module");
    assert_eq!(
        declared.collect::<BTreeSet<_>>(),
        listed.collect::<BTreeSet<_>>()
    );
}

#[test]
#[ignore = "slow: cargo resolves each feature"]
fn documented_crate_counts_are_exact() {
    let documented = documented();
    for tool in ["serve", "echo", "download", "cat", "cli"] {
        assert!(
            documented.iter().any(|(features, _)| features == tool),
            "{tool} is not in the table"
        );
    }
    let counted: Vec<_> = documented
        .iter()
        .map(|(features, _)| (features.clone(), count_crates(features)))
        .collect();
    assert_eq!(documented, counted);
}
