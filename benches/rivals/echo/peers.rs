//! Building, pinning and running peers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Builds a package in `benches/peers` and returns the directory of its binaries.
pub(crate) fn build(name: &str) -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers")
        .join(name);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
        .arg(&target);
    cargo
        .arg("--manifest-path")
        .arg(manifest.join("Cargo.toml"));
    let status = cargo
        .status()
        .with_context(|| format!("build the peer {name}"))?;
    ensure!(status.success(), "build the peer {name}: {status}");
    Ok(target.join("release"))
}

/// Returns a command that runs a program on one core.
pub(super) fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).stdin(Stdio::null());
    command
}

/// Runs a program and returns its stdout.
pub(super) fn output(mut command: Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
