//! `myapp echo --merge`: one report of several runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::exit_code::{CommandError, ExitCode};
use crate::output::load_report::merge_data::{ReadError, read_file};
use crate::output::load_report::summary::Summary;
use crate::output::stderr;

/// Maximum length of a file: a log of a day is smaller.
const MAX_FILE_LEN: u64 = 512 << 20;

/// Merges the reports of all files.
pub(super) fn merge(files: &[PathBuf]) -> Result<Summary, CommandError> {
    let mut merged: Option<Summary> = None;
    let mut sources = BTreeMap::new();
    for path in files {
        for summary in read_file(&read(path)?) {
            let summary = summary.map_err(|error| invalid(path, error))?;
            for run in &summary.runs {
                if let Some(other) = sources.insert(run.clone(), path) {
                    return Err(same_run(path, other));
                }
            }
            match &mut merged {
                Some(merged) => merged.merge(summary),
                None => merged = Some(summary),
            }
        }
    }
    merged.ok_or_else(|| CommandError::usage("--merge requires a file"))
}

/// Reads a file of limited length.
fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    let name = stderr::path(path);
    let failed = |operation, error| {
        let error = anyhow::Error::new(error).context(format!("{operation} {name}"));
        CommandError::new(ExitCode::LocalFile, error)
    };
    let too_large = || {
        let error = anyhow::anyhow!("merge {name}: longer than {MAX_FILE_LEN} bytes");
        CommandError::new(ExitCode::TooLarge, error)
    };
    let file = File::open(path).map_err(|error| failed("open", error))?;
    let metadata = file.metadata().map_err(|error| failed("read", error))?;
    if metadata.len() > MAX_FILE_LEN {
        return Err(too_large());
    }
    let mut content = Vec::new();
    // A FIFO has no length.
    let read = file.take(MAX_FILE_LEN + 1).read_to_end(&mut content);
    match read.map_err(|error| failed("read", error))? as u64 {
        ..=MAX_FILE_LEN => Ok(content),
        _ => Err(too_large()),
    }
}

fn invalid(path: &Path, error: ReadError) -> CommandError {
    let hint = match &error {
        ReadError::NotAReport | ReadError::Ping => {
            Some("--merge reads the output of 'echo --json' and the files of 'echo --hdr-log'")
        }
        ReadError::NoMergeData | ReadError::OtherVersion(_) => {
            Some("use the same version of myapp on all machines")
        }
        _ => None,
    };
    let error = anyhow::Error::new(error).context(format!("merge {}", stderr::path(path)));
    CommandError {
        hint: hint.map(str::to_owned),
        ..CommandError::new(ExitCode::LocalFile, error)
    }
}

fn same_run(path: &Path, other: &Path) -> CommandError {
    let path = stderr::path(path);
    let other = stderr::path(other);
    CommandError::usage(format!("merge {path}: the same run as in {other}"))
        .hint("give either the JSON report or the log of each run")
}
