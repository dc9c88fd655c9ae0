//! Search for the last lines of a file.

use std::io;
use std::os::fd::BorrowedFd;

use memchr::memrchr_iter;
use rustix::io::retry_on_intr;

/// Number of bytes searched at once.
const BLOCK_LEN: u64 = 64 << 10;

/// Returns the position of the last `count` lines of a file between `start` and `end`. An incomplete
/// last line counts.
pub(super) fn find(file: BorrowedFd<'_>, start: u64, end: u64, count: u64) -> io::Result<u64> {
    if count == 0 {
        return Ok(end.max(start));
    }
    let mut missing = count;
    let mut block_end = end;
    let mut block = vec![0; BLOCK_LEN as usize];
    while block_end > start {
        let block_start = block_end.saturating_sub(BLOCK_LEN).max(start);
        let bytes = &mut block[..(block_end - block_start) as usize];
        let len = read_at(file, bytes, block_start)?;
        for newline in memrchr_iter(b'\n', &bytes[..len]) {
            let next_line = block_start + newline as u64 + 1;
            if next_line == end {
                continue;
            }
            missing -= 1;
            if missing == 0 {
                return Ok(next_line);
            }
        }
        block_end = block_start;
    }
    Ok(start)
}

/// Fills `bytes` as far as the file goes, which may have become shorter.
fn read_at(file: BorrowedFd<'_>, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match retry_on_intr(|| rustix::io::pread(file, &mut bytes[len..], at + len as u64))? {
            0 => break,
            count => len += count,
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[track_caller]
    fn check(text: &[u8], start: u64, count: u64, expected: &[u8]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let found = find(file.as_fd(), start, text.len() as u64, count).unwrap();
        assert_eq!(&text[found as usize..], expected);
    }

    #[test]
    fn last_lines_are_found() {
        check(b"a\nb\nc\n", 0, 1, b"c\n");
        check(b"a\nb\nc\n", 0, 2, b"b\nc\n");
        check(b"a\nb\nc\n", 0, 3, b"a\nb\nc\n");
        check(b"a\nb\nc\n", 0, 9, b"a\nb\nc\n");
        check(b"a\nb\nc", 0, 2, b"b\nc");
        check(b"a\n\n\n", 0, 2, b"\n\n");
        check(b"a\nb\n", 0, 0, b"");
        check(b"", 0, 3, b"");
        check(b"a\nb\nc\n", 3, 9, b"\nc\n");
        let long = [vec![b'x'; 200_000], b"\n".to_vec()].concat();
        check(&long.repeat(3), 0, 1, &long);
        check(&long.repeat(3), 0, 2, &long.repeat(2));
    }
}
