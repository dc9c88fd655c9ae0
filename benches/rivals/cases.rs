//! Comparisons of `cat`, and of the start-up time.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::machine;
use crate::measure::{Contender, interleaved};
use crate::report::Report;

pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_myapp");
pub(crate) const ROUNDS: usize = 11;

/// The installed `cat` programs: command, and name with version.
pub(crate) fn cats(report: &Report) -> Vec<(String, String)> {
    let mut cats = vec![(format!("{OURS} cat"), "myapp cat".to_owned())];
    for (command, program) in [("cat", "cat"), ("coreutils cat", "coreutils")] {
        match machine::version(program) {
            Some(version) => cats.push((command.into(), version)),
            None => report.skipped("uutils (cargo install coreutils)"),
        }
    }
    cats
}

/// Contenders of one case; `CAT` in `script` stands for the program.
pub(crate) fn contenders(cats: &[(String, String)], script: &str) -> Vec<Contender> {
    let make = |(command, name): &(String, String)| Contender {
        name: name.clone(),
        script: script.replace("CAT", command),
    };
    cats.iter().map(make).collect()
}

/// Compares `cat` on one large and many small files, with each kind of output.
pub(crate) fn cat(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let cats = cats(report);
    let large = folder.join("large");
    write_large(&large)?;
    let small = folder.join("small");
    fs::create_dir(&small)?;
    for n in 0..20_000 {
        fs::write(small.join(format!("{n:05}")), [b'x'; 4096])?;
    }
    let large = large.display();
    let small = small.display();
    let copy = folder.join("copy");
    let copy = copy.display();
    // The list of files exceeds the default length of a command line; `xargs` would split it.
    let many = format!("cd {small}; ulimit -s 65536; exec CAT *");
    for (case, script) in [
        ("1 GiB to /dev/null", format!("exec CAT {large} >/dev/null")),
        ("1 GiB to a pipe", format!("CAT {large} | wc -c >/dev/null")),
        ("1 GiB to a file", format!("exec CAT {large} >{copy}")),
        ("20,000 × 4 KiB to /dev/null", format!("{many} >/dev/null")),
        (
            "20,000 × 4 KiB to a pipe",
            format!("({many}) | wc -c >/dev/null"),
        ),
        (
            "-n, 1 GiB to /dev/null",
            format!("exec CAT -n {large} >/dev/null"),
        ),
        (
            "-n, 1 GiB to a pipe",
            format!("CAT -n {large} | wc -c >/dev/null"),
        ),
    ] {
        report.add(
            case,
            &interleaved(&contenders(&cats, &script), ROUNDS, &|| Ok(()))?,
        );
    }
    let cold = contenders(&cats, &format!("{many} >/dev/null"));
    match drop_caches() {
        Err(error) => report.skipped(&format!("cold files: drop the page cache: {error}")),
        Ok(()) => report.add(
            "20,000 × 4 KiB to /dev/null, cold",
            &interleaved(&cold, 5, &|| drop_caches().map_err(Into::into))?,
        ),
    }
    Ok(())
}

/// Writes 1 GiB in lines of random length below 128.
fn write_large(path: &Path) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut block = Vec::new();
    while block.len() < 1 << 20 {
        let line = random.usize(..128);
        block.extend((0..line).map(|_| random.alphanumeric() as u8));
        block.push(b'\n');
    }
    block.truncate(1 << 20);
    let mut file = File::create(path)?;
    for _ in 0..1024 {
        file.write_all(&block)?;
    }
    Ok(file.sync_all()?)
}

fn drop_caches() -> std::io::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

/// Measures the run time with an empty file.
pub(crate) fn start(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let empty = folder.join("empty");
    fs::write(&empty, "")?;
    let script = format!("exec CAT {}", empty.display());
    let contenders = contenders(&cats(report), &script);
    report.add(
        "start: an empty file",
        &interleaved(&contenders, 101, &|| Ok(()))?,
    );
    Ok(())
}
