//! Where a report comes from: the command, the machine, the date.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::thread::available_parallelism;
use std::time::SystemTime;

use myapp::escape::{Escaped, MAX_CHARS};

/// Where a report comes from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The command line, as a shell takes it.
    pub(crate) command: String,
    /// What it ran on.
    pub(crate) machine: String,
    /// When it ended.
    pub(crate) date: String,
}

impl Origin {
    /// This command, here and now.
    pub(crate) fn here() -> Self {
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

/// The processor's own name, where Linux knows it.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// An argument as a shell takes it, on one line and harmless to look at. Of a very long one only
/// the beginning is shown.
fn quote(argument: &OsStr) -> String {
    let bytes = argument.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(byte);
    let escaped = Escaped(bytes).to_string();
    match argument.to_str().filter(|_| bytes.len() <= MAX_CHARS) {
        Some(text) if !text.is_empty() && bytes.iter().all(plain) => text.into(),
        // A backslash alone is escaped for the eye, not for the shell.
        Some(text) if escaped == text.replace('\\', "\\\\") => {
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
    fn an_argument_is_shown_as_a_shell_takes_it() {
        quoted(b"--rate=10k", "--rate=10k");
        quoted("¡Hola, servidor!".as_bytes(), "'¡Hola, servidor!'");
        quoted(b"", "''");
        quoted(b"it's $HOME \\", r"'it'\''s $HOME \'");
        quoted(b"\x1b[2J\n'\\\xff", r"$'\x1b[2J\n\'\\\xff'");
        let long = quote(OsStr::from_bytes(&[b'x'; 1000]));
        assert!(long.ends_with("xx… (800 bytes more)'"), "{long}");
    }

    #[test]
    fn this_machine_has_a_name() {
        let Origin { machine, date, .. } = Origin::here();
        assert!(
            machine.contains(" × ") && date.ends_with(" GMT"),
            "{machine}, {date}"
        );
    }
}
