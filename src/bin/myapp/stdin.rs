//! Stdin, read off the executor: waiting for it must not hold up anything else.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read as _};
use std::os::fd::AsFd as _;

use smol::channel::{Receiver, Sender, bounded};

/// The lines of stdin as they come, without their ends. A line of more than `longest` bytes is
/// an error ([`ErrorKind::InvalidData`]) and is passed over; any other error is the last item.
///
/// One line is read ahead, so an endless stdin costs no memory.
pub(crate) fn lines(longest: usize) -> Receiver<io::Result<Vec<u8>>> {
    let (lines, received) = bounded(1);
    smol::unblock(move || split(io::stdin().lock(), longest, &lines)).detach();
    received
}

/// Stdin without a buffer, for bytes that are no lines.
pub(crate) fn unbuffered() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

fn split(mut input: impl BufRead, longest: usize, lines: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let line = next_line(&mut input, longest).transpose();
        let Some(line) = line.map(|line| line.and_then(|line| within(longest, line))) else {
            return;
        };
        let last = line
            .as_ref()
            .is_err_and(|error| error.kind() != ErrorKind::InvalidData);
        if lines.send_blocking(line).is_err() || last {
            return;
        }
    }
}

fn within(longest: usize, line: Vec<u8>) -> io::Result<Vec<u8>> {
    if line.len() > longest {
        let text = format!("a line is longer than {longest} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    Ok(line)
}

/// The next line without its end. One of more than `longest` bytes is cut to one more than
/// those: its length tells.
pub(crate) fn next_line(input: &mut impl BufRead, longest: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input
        .take(longest as u64 + 1)
        .read_until(b'\n', &mut line)?
        == 0
    {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() > longest {
        input.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<Option<String>> {
        let (lines, received) = smol::channel::unbounded();
        split(input, 3, &lines);
        drop(lines);
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
        std::iter::from_fn(|| {
            received
                .recv_blocking()
                .ok()
                .map(|line| line.ok().map(text))
        })
        .collect()
    }

    #[track_caller]
    fn splits(input: &str, lines: &[&str]) {
        // A question mark stands for a line that is too long.
        let wanted: Vec<_> = lines
            .iter()
            .map(|line| (*line != "?").then(|| line.to_string()))
            .collect();
        assert_eq!(all(input.as_bytes()), wanted, "{input:?}");
    }

    #[test]
    fn lines_are_split_without_their_ends() {
        splits("", &[]);
        splits("a\n\nb\r\n", &["a", "", "b\r"]);
        splits("a\nb", &["a", "b"]);
    }

    #[test]
    fn too_long_line_is_an_error_and_skipped() {
        splits("abc\nabcd\nx\n", &["abc", "?", "x"]);
        splits("abc", &["abc"]);
        splits("abcdefgh", &["?"]);
    }
}
