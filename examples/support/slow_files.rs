//! Slow files: named pipes that deliver their content half a second after they are opened.

use std::fs::File;
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The two files. The second is a little slower, so that they usually end in this order.
const FILES: [(&str, Duration); 2] = [
    ("example1.txt", Duration::from_millis(500)),
    ("example2.txt", Duration::from_millis(550)),
];

/// Creates the files in the current directory.
pub fn create() -> io::Result<()> {
    let made = Command::new("mkfifo")
        .args(FILES.map(|(name, _)| name))
        .status()?;
    if !made.success() {
        return Err(io::Error::other("mkfifo failed"));
    }
    for (name, delay) in FILES {
        thread::spawn(move || {
            // Returns when a reader opens the pipe.
            let mut pipe = File::options().write(true).open(name)?;
            thread::sleep(delay);
            pipe.write_all(b"contenido\n")
        });
    }
    Ok(())
}
