//! Command, machine and date of a run.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::thread::available_parallelism;
use std::time::SystemTime;

use myapp::internals::{Escaped, MAX_CHARS};

/// Command, machine and date of a run.
#[derive(Debug)]
pub(crate) struct RunInfo {
    /// Command line, quoted for a shell.
    pub(crate) command: String,
    /// Host, processor and kernel.
    pub(crate) machine: String,
    /// Time of the report.
    pub(crate) date: String,
}

impl RunInfo {
    /// Returns the information about this process.
    pub(crate) fn current() -> Self {
        let arguments = std::env::args_os().skip(1);
        let command = arguments.fold("myapp".to_owned(), |line, next| line + " " + &quote(&next));
        let date = httpdate::fmt_http_date(SystemTime::now());
        Self {
            command,
            machine: machine(),
            date,
        }
    }
}

fn machine() -> String {
    let name = rustix::system::uname();
    let [system, release, host] =
        [name.sysname(), name.release(), name.nodename()].map(|text| text.to_string_lossy());
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let processor = processor().unwrap_or_else(|| name.machine().to_string_lossy().into_owned());
    format!("{host}: {cores} × {processor}, {system} {release}")
}

/// Returns the model name of the processor, on Linux.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Quotes an argument for a shell, on one line and without control characters. Long arguments are
/// truncated.
fn quote(argument: &OsStr) -> String {
    let bytes = argument.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(byte);
    let escaped = Escaped(bytes).to_string();
    let is_long = bytes.len() > MAX_CHARS;
    match argument.to_str() {
        Some(text) if !is_long && !text.is_empty() && bytes.iter().all(plain) => text.into(),
        // `Escaped` doubles backslashes, which single quotes do not require.
        Some(text) if !is_long && escaped == text.replace('\\', "\\\\") => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => format!("$'{}'", escaped.replace('\'', r"\'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn quoted(argument: &[u8], text: &str) {
        assert_eq!(quote(OsStr::from_bytes(argument)), text);
    }

    #[test]
    fn argument_is_quoted_for_a_shell() {
        quoted(b"--rate=10k", "--rate=10k");
        quoted("¡Hola, servidor!".as_bytes(), "'¡Hola, servidor!'");
        quoted(b"", "''");
        quoted(b"it's $HOME \\", r"'it'\''s $HOME \'");
        quoted(b"\x1b[2J\n'\\\xff", r"$'\x1b[2J\n\'\\\xff'");
        let long = quote(OsStr::from_bytes(&[b'x'; 1000]));
        assert!(long.ends_with("xx… (800 bytes more)'"), "{long}");
    }

    #[test]
    fn machine_and_date_are_known() {
        let RunInfo { machine, date, .. } = RunInfo::current();
        assert!(
            machine.contains(" × ") && date.ends_with(" GMT"),
            "{machine}, {date}"
        );
    }
}
