//! What becomes of files: those that are there already, parts, and how the new ones are kept.

use clap::Args;
use myapp::download::{Config, Existing};
use myapp::units::parse_size;

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
    /// Replace a file only if the server has another; implies --remote-time
    #[arg(short = 'N', long, overrides_with_all = ["no_clobber", "overwrite"])]
    timestamping: bool,
    /// Name files as the server says, made safe
    #[arg(short = 'J', long)]
    content_disposition: bool,
    /// Let servers compress files for the way (gzip, br, zstd); never gone on with
    #[arg(long, help_heading = "Transfers")]
    compressed: bool,
    /// Give files the time of change that the server tells
    #[arg(long)]
    remote_time: bool,
    /// Name a file only when it is on the disk for good
    #[arg(long)]
    fsync: bool,
    /// Fetch no file that is longer
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_filesize: Option<u64>,
}

impl FileOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        let existing = match () {
            () if self.no_clobber => Existing::Skip,
            () if self.overwrite => Existing::Replace,
            () if self.timestamping => Existing::Update,
            () => config.existing,
        };
        Config {
            existing,
            compressed: self.compressed,
            resume: self.resume,
            remote_time: self.remote_time,
            server_names: self.content_disposition,
            sync: self.fsync,
            max_size: self.max_filesize,
            ..config
        }
    }
}
