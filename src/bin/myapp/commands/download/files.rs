//! What becomes of files that are there already, and of parts.

use clap::Args;
use myapp::download::{Config, Existing};

#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(super) struct FileOptions {
    /// Go on with what an earlier run has left, skip what it has finished
    #[arg(short = 'c', long = "continue")]
    resume: bool,
    /// Fetch nothing where a file of that name is there
    #[arg(long, visible_alias = "skip-existing", overrides_with = "overwrite")]
    no_clobber: bool,
    /// Replace a file of that name, once the new one is whole
    #[arg(long)]
    overwrite: bool,
}

impl FileOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        let existing = match (self.no_clobber, self.overwrite) {
            (true, _) => Existing::Skip,
            (false, true) => Existing::Replace,
            (false, false) => config.existing,
        };
        Config { existing, resume: self.resume, ..config }
    }
}
