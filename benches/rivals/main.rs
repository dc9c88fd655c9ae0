//! Comparisons with other programs, interleaved in one run:
//!
//! ```sh
//! cargo bench --bench rivals            # all
//! cargo bench --bench rivals -- cat     # any of: cat, cat-display, cat-decompress, cat-follow,
//!                                       # start, echo, load, download, download-small,
//!                                       # download-medium, download-large, download-slow-link
//! cargo bench --bench rivals -- download-auto   # 20 minutes, not part of all
//! ```
//!
//! Each case runs `myapp` and each other program in turn (A B C A B C …), so that a machine whose
//! speed drifts slows all of them. Results are ratios of paired runs: the other program's time
//! divided by ours in the same round, as median and quartiles; above 1 ours is faster. Programs
//! that are not installed are reported and skipped. A table is printed to stdout, and written as
//! JSON to `target/rivals.json`.

mod cases;
mod cat;
mod download;
mod echo;
mod machine;
mod measure;
mod report;

use std::path::Path;

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let selected: Vec<_> = std::env::args()
        .skip(1)
        .filter(|name| name != "--bench")
        .collect();
    if let [mode, script] = &selected[..]
        && mode == download::usage::MEASURE
    {
        return download::usage::child(script);
    }
    let slow_link = download::slow::NAME;
    let auto = download::auto::NAME;
    let known = ["cat", "start", "echo", "load", "download", slow_link, auto];
    let known = [&known[..], &cat::NAMES, &download::NAMES].concat();
    if let Some(name) = selected.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("unknown comparison {name}; known: {}", known.join(", "));
    }
    let is_selected =
        |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);
    let folder = tempfile::tempdir()?;
    let mut report = report::Report::new(machine::describe());
    if is_selected("cat") {
        cases::cat(folder.path(), &mut report)?;
    }
    cat::all(folder.path(), &mut report, is_selected)?;
    if is_selected("start") {
        cases::start(folder.path(), &mut report)?;
    }
    if is_selected("echo") {
        echo::echo(&mut report)?;
    }
    if is_selected("load") {
        echo::load(&mut report)?;
    }
    let is_part_selected = |name: &str| is_selected(name) || is_selected("download");
    if download::NAMES.iter().any(|name| is_part_selected(name)) {
        download::all(&mut report, is_part_selected)?;
    }
    if is_part_selected(slow_link) {
        download::slow::slow_link(&mut report)?;
    }
    if selected.iter().any(|name| name == auto) {
        download::auto::auto_jobs(&mut report)?;
    }
    report.save(&Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("rivals.json"))
}
