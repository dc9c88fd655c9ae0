//! Temporary directory of an example, so that it leaves no files behind.

use std::path::PathBuf;
use std::{env, fs, io, process};

/// Current directory of the example; removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates the directory and makes it the current one.
    pub fn enter() -> io::Result<Self> {
        let dir = env::temp_dir().join(format!("myapp-example-{}", process::id()));
        fs::create_dir(&dir)?;
        env::set_current_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // An error leaves a directory in the temporary one, nothing more.
        let _ = fs::remove_dir_all(&self.0);
    }
}
