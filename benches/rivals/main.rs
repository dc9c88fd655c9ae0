//! Comparisons with rivals, side by side in one run:
//!
//! ```sh
//! cargo bench --bench rivals            # all
//! cargo bench --bench rivals -- cat     # one of: cat, start, echo, load, download, or of the last
//!                                       # a part:
//!                                       # download-small, download-medium, download-large,
//!                                       # download-slow-link
//! ```
//!
//! Each case runs ours and each rival in turn (A B C A B C …), so that a machine whose speed
//! drifts slows all of them. Figures are ratios of paired runs: the rival's time divided by ours
//! in the same round, as median and quartiles; above 1 we are faster. What is not installed is
//! named and left out. A table goes to stdout, the same as JSON to `target/rivals.json`.

mod cases;
mod download;
mod echo;
mod machine;
mod measure;
mod report;

use std::path::Path;

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench` by itself.
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|name| name != "--bench")
        .collect();
    if let [mode, script] = &wanted[..]
        && mode == download::usage::MEASURE
    {
        return download::usage::child(script);
    }
    let slow_link = download::slow::NAME;
    let known = ["cat", "start", "echo", "load", "download", slow_link];
    let known = [&known[..], &download::NAMES].concat();
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!(
            "no comparison is named {name}; there are: {}",
            known.join(", ")
        );
    }
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let folder = tempfile::tempdir()?;
    let mut report = report::Report::new(machine::describe());
    if asked("cat") {
        cases::cat(folder.path(), &mut report)?;
    }
    if asked("start") {
        cases::start(folder.path(), &mut report)?;
    }
    if asked("echo") {
        echo::echo(&mut report)?;
    }
    if asked("load") {
        echo::load(&mut report)?;
    }
    let parts = |name: &str| asked(name) || asked("download");
    if download::NAMES.iter().any(|name| parts(name)) {
        download::all(&mut report, parts)?;
    }
    if parts(slow_link) {
        download::slow::slow_link(&mut report)?;
    }
    report.save(&Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("rivals.json"))
}
