//! Licences of the crates in the program, and crates that must not be among them.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::package_root;

/// Licences whose terms the packages fulfil by containing their texts.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that would bring a second runtime, a second TLS library or a C library.
const BANNED: [&str; 8] = [
    "bzip2-sys",
    "curl-sys",
    "libz-sys",
    "lzma-sys",
    "native-tls",
    "openssl-sys",
    "tokio",
    "zstd-sys",
];

/// Returns the packages of the program on Linux, with everything that it is built from.
fn packages() -> Vec<Value> {
    let metadata = Command::new(env!("CARGO"))
        .current_dir(package_root())
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{metadata:?}");
    let mut metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<_> = nodes
        .iter()
        .map(|node| node["id"].clone().to_string())
        .collect();
    let Value::Array(mut packages) = metadata["packages"].take() else {
        panic!("no packages");
    };
    packages.retain(|package| used.contains(&package["id"].to_string()));
    assert!(packages.len() > 200, "only {} packages", packages.len());
    packages
}

/// Returns whether an SPDX expression permits the use under [`LICENCES`].
fn is_permitted(expression: &str) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    // No crate has an OR of ANDs.
    expression
        .split(" AND ")
        .all(|all| all.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn licences_are_judged_by_their_expression() {
    for permitted in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(X OR MIT) AND ISC",
    ] {
        assert!(is_permitted(permitted), "{permitted}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", ""] {
        assert!(!is_permitted(refused), "{refused}");
    }
}

#[test]
#[ignore = "slow: cargo resolves all crates"]
fn every_crate_has_a_permitted_licence() {
    let refused: Vec<_> = packages()
        .iter()
        .filter(|package| !is_permitted(package["license"].as_str().unwrap_or_default()))
        .map(|package| format!("{} {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
#[ignore = "slow: cargo resolves all crates"]
fn banned_crates_are_not_used() {
    let names: Vec<_> = packages()
        .iter()
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .filter(|name| BANNED.contains(&name.as_str()))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}
