//! Disks in files, mounted by loop devices, of which a copy can be made at any instant.
//!
//! The image files are on an XFS file system, itself in a file, because XFS copies a file
//! atomically (`FICLONE`): no write to the image falls between two parts of the copy, so that the
//! copy is what a disk holds after a power cut. A copy by `read` and `write` takes some
//! milliseconds, in which a commit of the journal can overtake the data that it depends on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::ioctl_ficlone;
use tempfile::TempDir;

/// Length of a sparse image. XFS needs 300 MiB.
const IMAGE_LEN: u64 = 320 << 20;

/// Length of the sparse file that holds the images.
const STORE_LEN: u64 = 32 << 30;

/// A disk that is busy for longer is detached anyway. A child that another thread has just forked
/// holds all open files until its `exec`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// File system of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            // Commits every second: more moments at which a cut makes a difference.
            Self::Ext4 | Self::Btrfs => "loop,commit=1",
            Self::Xfs => "loop",
        }
    }

    fn make(self, image: &Path) {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        run(command.arg("-q").arg(image));
    }
}

/// Mounted file system; unmounted when dropped, which detaches its loop device too.
#[derive(Debug)]
struct Mount {
    file_system: FileSystem,
    path: PathBuf,
}

impl Mount {
    fn new(file_system: FileSystem, image: &Path, path: PathBuf) -> Self {
        fs::create_dir(&path).expect("make a mount point");
        let options = ["-t", file_system.name(), "-o", file_system.mount_options()];
        run(Command::new("mount").args(options).arg(image).arg(&path));
        Self { file_system, path }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let start = Instant::now();
        let is_unmounted = || {
            let output = Command::new("umount").arg(&self.path).output();
            output.is_ok_and(|output| output.status.success())
        };
        while !is_unmounted() {
            if start.elapsed() > BUSY_TIMEOUT {
                run(Command::new("umount").arg("--lazy").arg(&self.path));
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if self.file_system == FileSystem::Btrfs {
            // Else the kernel refuses a copy, which has the same UUID and is older.
            run(Command::new("btrfs").args(["-q", "device", "scan", "--forget"]));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// Runs a program that must succeed.
fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    // While another panic unwinds, a second one would abort and leave the other mounts.
    if !output.status.success() && !thread::panicking() {
        panic!("{command:?} failed; it needs root and loop devices: {stderr}");
    }
}

/// Store of disk images.
#[derive(Debug)]
pub struct DiskStore {
    // Unmounted before its directory is removed.
    mount: Mount,
    dir: TempDir,
}

impl DiskStore {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary folder");
        let image = dir.path().join("store.img");
        let file = File::create(&image).expect("create an image");
        file.set_len(STORE_LEN).expect("set the length of an image");
        FileSystem::Xfs.make(&image);
        let mount = Mount::new(FileSystem::Xfs, &image, dir.path().join("store"));
        Self { mount, dir }
    }

    /// Makes and mounts an empty file system. `name` must be unique.
    pub fn disk(&self, file_system: FileSystem, name: &str) -> Disk<'_> {
        let image = self.image(name);
        let file = File::create_new(&image).expect("create an image");
        file.set_len(IMAGE_LEN).expect("set the length of an image");
        file_system.make(&image);
        self.mount(file_system, name)
    }

    fn mount(&self, file_system: FileSystem, name: &str) -> Disk<'_> {
        let mount = Mount::new(file_system, &self.image(name), self.dir.path().join(name));
        Disk {
            store: self,
            name: name.to_owned(),
            mount: Some(mount),
        }
    }

    fn image(&self, name: &str) -> PathBuf {
        self.mount.path.join(format!("{name}.img"))
    }
}

/// Mounted disk. Its image is removed when it is dropped.
#[derive(Debug)]
pub struct Disk<'a> {
    store: &'a DiskStore,
    name: String,
    mount: Option<Mount>,
}

impl<'a> Disk<'a> {
    pub fn path(&self) -> &Path {
        &self.mount.as_ref().expect("a mounted disk").path
    }

    /// Copies what has reached the disk, without a sync. The copy is mounted later.
    pub fn cut_power(&self) -> PowerCut<'a> {
        let name = format!("{}-after", self.name);
        let copy = File::create_new(self.store.image(&name)).expect("create an image");
        let image = File::open(self.store.image(&self.name)).expect("open the image");
        ioctl_ficlone(&copy, &image).expect("clone the image");
        PowerCut {
            store: self.store,
            name,
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.mount = None;
        let _ = fs::remove_file(self.store.image(&self.name));
    }
}

/// Content of a disk at the instant of a power cut.
#[derive(Debug)]
pub struct PowerCut<'a> {
    store: &'a DiskStore,
    name: String,
}

impl<'a> PowerCut<'a> {
    /// Mounts the copy of `disk`, which replays the journal. The disk itself is unmounted first,
    /// because both have the same UUID.
    pub fn remount(self, disk: Disk<'a>) -> Disk<'a> {
        let file_system = disk.mount.as_ref().expect("a mounted disk").file_system;
        drop(disk);
        self.store.mount(file_system, &self.name)
    }
}
