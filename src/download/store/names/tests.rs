use super::*;
use crate::download::config::OutputPolicy;
use crate::download::store::marker::CompleteMarker;
use crate::download::transfer::resume::Validators;
use std::fs;
use std::os::unix::fs::symlink;

struct Dir(tempfile::TempDir, PathAllocator);

fn url() -> Url {
    "http://a/f".parse().unwrap()
}

fn config(output: OutputPolicy) -> Config {
    Config {
        output,
        ..Config::default()
    }
}

fn resume() -> Config {
    config(OutputPolicy {
        resume: true,
        ..OutputPolicy::default()
    })
}

fn on_conflict(on_conflict: OnConflict) -> Config {
    config(OutputPolicy {
        on_conflict,
        ..OutputPolicy::default()
    })
}

fn state() -> ResumeState {
    ResumeState::new(&url(), &url(), Validators::default())
}

#[track_caller]
fn part(allocation: Result<Allocation, Error>) -> Part {
    match allocation.unwrap() {
        Allocation::Part(part) => part,
        Allocation::Existing(path) => panic!("{} exists", path.display()),
    }
}

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), PathAllocator::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[track_caller]
    fn allocate(&self, name: &str) -> Part {
        part(self.allocate_with(name, &Config::default()))
    }

    fn allocate_with(&self, name: &str, config: &Config) -> Result<Allocation, Error> {
        self.1.allocate(&self.path(name), &url(), config)
    }

    #[track_caller]
    fn assert_allocated(&self, requested: &str, target: &str) {
        assert_eq!(self.allocate(requested).target(), self.path(target));
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Writes the first bytes of a longer file.
fn write_start(part: &Part) {
    part.sink().restart(state()).unwrap();
    part.sink().write_with_checkpoint(b"x").unwrap();
}

#[test]
fn short_file_gets_its_name_when_complete() {
    let dir = Dir::new();
    let part = dir.allocate("f");
    part.sink().write(b"x").unwrap();
    assert!(dir.names().is_empty());
    assert_eq!(part.finish(None).unwrap(), dir.path("f"));
    assert_eq!(dir.names(), ["f"]);
}

#[test]
fn longer_file_is_a_part_until_complete() {
    let dir = Dir::new();
    let part = dir.allocate("f");
    write_start(&part);
    assert_eq!(dir.names(), ["f.part", "f.part.json"]);
    assert_eq!(part.finish(None).unwrap(), dir.path("f"));
    assert_eq!(dir.names(), ["f"]);
}

#[test]
fn reservation_ends_with_the_part() {
    let dir = Dir::new();
    let first = dir.allocate("f");
    let second = dir.allocate("f");
    assert_eq!(first.target(), dir.path("f"));
    assert_eq!(second.target(), dir.path("f.1"));
    drop(first);
    dir.assert_allocated("f", "f");
}

#[test]
fn files_of_other_programs_with_the_part_suffix_stay() {
    let dir = Dir::new();
    fs::write(dir.path("f.part"), "of a browser").unwrap();
    assert_eq!(dir.allocate("f").finish(None).unwrap(), dir.path("f"));
    assert_eq!(fs::read(dir.path("f.part")).unwrap(), b"of a browser");
    // A complete file of this run that is empty.
    dir.allocate("g.part").finish(None).unwrap();
    dir.allocate("g").finish(None).unwrap();
    assert_eq!(dir.names(), ["f", "f.part", "g", "g.part"]);
}

#[test]
fn dropped_empty_part_leaves_nothing() {
    let dir = Dir::new();
    drop(dir.allocate("f"));
    assert!(dir.names().is_empty());
}

#[test]
fn dropped_part_with_bytes_is_resumed_if_configured() {
    let dir = Dir::new();
    let dropped = dir.allocate("f");
    dropped.sink().restart(state()).unwrap();
    dropped.sink().write(b"abc").unwrap();
    drop(dropped);
    assert_eq!(dir.names(), ["f.part", "f.part.json"]);
    let resumed = part(dir.allocate_with("f", &resume()));
    assert_eq!(resumed.sink().prefix_len(), 3);
    // While it is locked, another run uses the next number.
    dir.assert_allocated("f", "f.1");
    drop(resumed);
    let dir = Dir(dir.0, PathAllocator::default());
    let restarted = dir.allocate("f");
    assert_eq!(restarted.sink().prefix_len(), 0);
    assert_eq!(dir.names(), ["f.part"]);
}

#[test]
fn state_beside_a_complete_file_is_removed() {
    let dir = Dir::new();
    fs::write(dir.path("f"), "complete").unwrap();
    let file = fs::File::open(dir.path("f")).unwrap();
    CompleteMarker::mark(&file, None, None).unwrap();
    state().save(&dir.path("f.part"), true).unwrap();
    assert!(matches!(
        dir.allocate_with("f", &resume()),
        Ok(Allocation::Existing(_))
    ));
    assert_eq!(dir.names(), ["f"]);
}

/// Creates a part of three bytes with its state, as an interrupted run leaves it.
fn leave_part(dir: &Dir) {
    let part = dir.allocate("f");
    part.sink().restart(state()).unwrap();
    part.sink().write_with_checkpoint(b"abc").unwrap();
}

#[test]
fn part_with_another_hard_link_is_not_resumed() {
    let dir = Dir::new();
    leave_part(&dir);
    fs::hard_link(dir.path("f.part"), dir.path("other")).unwrap();
    let dir = Dir(dir.0, PathAllocator::default());
    let part = part(dir.allocate_with("f", &resume()));
    assert_eq!(part.sink().prefix_len(), 0);
    assert_eq!(fs::read(dir.path("other")).unwrap(), b"abc");
}

#[test]
fn planted_part_is_neither_resumed_nor_removed() {
    let dir = Dir::new();
    leave_part(&dir);
    // A server can choose names and contents, but no extended attributes.
    for name in ["f.part", "f.part.json"] {
        let planted = fs::read(dir.path(name)).unwrap();
        fs::remove_file(dir.path(name)).unwrap();
        fs::write(dir.path(name), planted).unwrap();
    }
    let dir = Dir(dir.0, PathAllocator::default());
    let part = part(dir.allocate_with("f", &resume()));
    assert_eq!(part.sink().prefix_len(), 0);
    write_start(&part);
    assert_eq!(part.finish(None).unwrap(), dir.path("f"));
    assert_eq!(dir.names(), ["f", "f.part", "f.part.json"]);
    assert_eq!(fs::read(dir.path("f.part")).unwrap(), b"abc");
}

#[test]
fn part_with_the_state_of_another_is_replaced() {
    let dir = Dir::new();
    leave_part(&dir);
    let other = Dir::new();
    leave_part(&other);
    fs::copy(other.path("f.part.json"), dir.path("f.part.json")).unwrap();
    let dir = Dir(dir.0, PathAllocator::default());
    let part = part(dir.allocate_with("f", &resume()));
    assert_eq!(part.sink().prefix_len(), 0);
    assert_eq!(part.finish(None).unwrap(), dir.path("f"));
    assert_eq!(dir.names(), ["f"]);
}

/// Regression: after a power cut, the part stayed forever.
#[test]
fn part_with_a_lost_state_is_replaced() {
    for lost in [&b""[..], &[0; 300]] {
        for config in [Config::default(), resume()] {
            let dir = Dir::new();
            leave_part(&dir);
            fs::write(dir.path("f.part.json"), lost).unwrap();
            let dir = Dir(dir.0, PathAllocator::default());
            let part = part(dir.allocate_with("f", &config));
            write_start(&part);
            assert_eq!(part.finish(None).unwrap(), dir.path("f"));
            assert_eq!(dir.names(), ["f"]);
        }
    }
}

/// Regression: ext4 and btrfs may lose bytes of a part in a power cut, but not its length.
#[test]
fn part_ends_at_its_first_hole() {
    let dir = Dir::new();
    let first = dir.allocate("f");
    first.sink().restart(state()).unwrap();
    first.sink().write_with_checkpoint(&[b'x'; 4096]).unwrap();
    drop(first);
    let file = fs::File::options().write(true).open(dir.path("f.part"));
    file.unwrap().set_len(12_288).unwrap();
    // The bytes are in the page cache.
    assert_eq!(fs::read(dir.path("f.part")).unwrap().len(), 12_288);
    let dir = Dir(dir.0, PathAllocator::default());
    let part = part(dir.allocate_with("f", &resume()));
    assert_eq!(part.sink().prefix_len(), 4096);
    assert_eq!(fs::metadata(dir.path("f.part")).unwrap().len(), 4096);
}

#[test]
fn empty_state_beside_a_part_of_another_program_is_kept() {
    let dir = Dir::new();
    for name in ["f.part", "f.part.json", "g.part.json"] {
        fs::write(dir.path(name), "").unwrap();
    }
    for name in ["f", "g"] {
        let part = part(dir.allocate_with(name, &resume()));
        write_start(&part);
        assert_eq!(part.finish(None).unwrap(), dir.path(name));
    }
    let names = ["f", "f.part", "f.part.json", "g", "g.part.json"];
    assert_eq!(dir.names(), names);
}

/// Regression: after a power cut on btrfs, the state stayed forever.
#[test]
fn lost_state_beside_a_complete_file_is_removed() {
    for is_part in [true, false] {
        let dir = Dir::new();
        let file = dir.allocate("f");
        if is_part {
            file.sink().restart(state()).unwrap();
            file.sink().write_with_checkpoint(b"abc").unwrap();
        }
        file.sink().mark_complete(None).unwrap();
        file.finish(None).unwrap();
        fs::write(dir.path("f.part.json"), "").unwrap();
        let kept = PathAllocator::default().allocate(&dir.path("f"), &url(), &resume());
        assert!(matches!(kept.unwrap(), Allocation::Existing(_)));
        // The state of a file that never was a part is another program's.
        assert_eq!(dir.path("f.part.json").exists(), !is_part);
    }
}

/// Regression: the file had got its name while it was written.
#[test]
fn part_without_bytes_is_removed() {
    let dir = Dir::new();
    let part = dir.allocate("f");
    part.sink().restart(state()).unwrap();
    part.sink().write_with_checkpoint(b"abc").unwrap();
    assert_eq!(dir.names(), ["f.part", "f.part.json"]);
    part.sink().restart(state()).unwrap();
    drop(part);
    assert_eq!(dir.names(), [""; 0]);
}

/// Regression: after a power cut, an empty file was kept as one of another program.
#[test]
fn file_that_lost_its_bytes_is_downloaded_again() {
    let dir = Dir::new();
    let complete = dir.allocate("f");
    complete.sink().write(b"abc").unwrap();
    complete.sink().mark_complete(None).unwrap();
    complete.finish(None).unwrap();
    let file = fs::File::options().write(true).open(dir.path("f")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_len(0).unwrap();
    let allocator = PathAllocator::default();
    let truncated = part(allocator.allocate(&dir.path("f"), &url(), &resume()));
    assert!(truncated.foreign().is_some(), "somebody truncated it");
    drop(truncated);
    file.set_modified(modified).unwrap();
    let planned = PathAllocator::default().plan(dir.path("f"), &resume());
    assert_eq!(planned, (dir.path("f"), false));
    assert_eq!(dir.names(), ["f"], "a plan changes nothing");
    let lost = part(PathAllocator::default().allocate(&dir.path("f"), &url(), &resume()));
    write_start(&lost);
    assert_eq!(lost.finish(None).unwrap(), dir.path("f"));
    assert_eq!(dir.names(), ["f"]);
}

#[test]
fn complete_part_of_a_killed_run_is_resumed() {
    let dir = Dir::new();
    let killed = dir.allocate("f");
    killed.sink().restart(state()).unwrap();
    killed.sink().write_with_checkpoint(b"abc").unwrap();
    killed.sink().mark_complete(None).unwrap();
    drop(killed);
    let dir = Dir(dir.0, PathAllocator::default());
    let part = part(dir.allocate_with("f", &resume()));
    assert_eq!(part.sink().prefix_len(), 3);
}

#[test]
fn files_beside_a_part_stay_unchanged() {
    let dir = Dir::new();
    fs::write(dir.path("victim"), "precious").unwrap();
    for name in ["f.part.json", "f.part.new", "f.part"] {
        fs::hard_link(dir.path("victim"), dir.path(name)).unwrap();
    }
    for config in [
        Config::default(),
        resume(),
        on_conflict(OnConflict::Overwrite),
    ] {
        let allocation = PathAllocator::default().allocate(&dir.path("f"), &url(), &config);
        let part = part(allocation);
        write_start(&part);
        part.finish(None).unwrap();
        for name in ["victim", "f.part.json", "f.part.new", "f.part"] {
            assert_eq!(fs::read(dir.path(name)).unwrap(), b"precious", "{name}");
        }
        fs::remove_file(dir.path("f")).unwrap();
    }
}

#[test]
fn fifos_beside_a_part_do_not_block() {
    let dir = Dir::new();
    for name in ["f.part.json", "f.part.new", "f.part"] {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, dir.path(name), kind, mode, 0).unwrap();
    }
    for config in [Config::default(), resume()] {
        let part = part(dir.allocate_with("f", &config));
        write_start(&part);
        assert_eq!(part.finish(None).unwrap(), dir.path("f"));
        fs::remove_file(dir.path("f")).unwrap();
    }
}

#[test]
fn existing_file_is_kept_or_replaced_as_configured() {
    let dir = Dir::new();
    fs::write(dir.path("f"), "mine").unwrap();
    let skip = on_conflict(OnConflict::Skip);
    let allocation = dir.allocate_with("f", &skip).unwrap();
    assert!(matches!(allocation, Allocation::Existing(path) if path == dir.path("f")));
    let replace = on_conflict(OnConflict::Overwrite);
    let first = part(dir.allocate_with("f", &replace));
    assert_eq!(fs::read(dir.path("f")).unwrap(), b"mine");
    assert_eq!(first.finish(None).unwrap(), dir.path("f"));
    assert_eq!(fs::read(dir.path("f")).unwrap(), b"");
    // The second download of one run does not replace the first.
    let second = part(dir.allocate_with("f", &replace));
    assert_eq!(second.target(), dir.path("f.1"));
}

#[test]
fn file_of_another_program_is_not_taken_for_complete() {
    let dir = Dir::new();
    fs::write(dir.path("f"), "truncated").unwrap();
    let part = part(dir.allocate_with("f", &resume()));
    let foreign = ForeignFile {
        path: dir.path("f"),
        len: 9,
        can_be_marked: true,
    };
    assert_eq!(part.foreign(), Some(&foreign));
    assert_eq!(part.finish(None).unwrap(), dir.path("f.1"));
}

#[test]
fn changed_file_is_not_taken_for_complete() {
    let dir = Dir::new();
    let complete = dir.allocate("f");
    complete.sink().write(b"abc").unwrap();
    complete.sink().mark_complete(None).unwrap();
    complete.finish(None).unwrap();
    let allocate = || PathAllocator::default().allocate(&dir.path("f"), &url(), &resume());
    assert!(matches!(allocate(), Ok(Allocation::Existing(_))));
    fs::write(dir.path("f"), "longer").unwrap();
    assert!(part(allocate()).foreign().is_some());
}

#[test]
fn resuming_over_a_special_file_is_an_error() {
    let dir = Dir::new();
    fs::create_dir(dir.path("dir")).unwrap();
    symlink("nowhere", dir.path("dangling")).unwrap();
    for name in ["dir", "dangling"] {
        let error = dir.allocate_with(name, &resume()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn downloads_of_one_name_are_matched_by_number() {
    let dir = Dir::new();
    let resume = resume();
    let allocate = || dir.allocate_with("f", &resume).unwrap();
    for name in ["f", "f.2"] {
        fs::write(dir.path(name), "complete").unwrap();
        let file = fs::File::open(dir.path(name)).unwrap();
        CompleteMarker::mark(&file, None, None).unwrap();
    }
    // The second of three has no file.
    assert!(matches!(allocate(), Allocation::Existing(path) if path == dir.path("f")));
    let second = part(Ok(allocate()));
    assert_eq!(second.target(), dir.path("f.1"));
    assert!(matches!(allocate(), Allocation::Existing(path) if path == dir.path("f.2")));
    assert_eq!(part(Ok(allocate())).target(), dir.path("f.3"));
}

#[test]
fn existing_file_with_the_server_name_is_kept_once() {
    let dir = Dir::new();
    fs::write(dir.path("g"), "done").unwrap();
    fs::create_dir(dir.path("dir")).unwrap();
    symlink("g", dir.path("link")).unwrap();
    let existing = |part: &Part, name, total| part.existing_with_server_name(name, total);
    let keeping = part(dir.allocate_with("f", &resume()));
    for (name, total) in [("g", Some(3)), ("h", None), ("dir", None), ("link", None)] {
        assert_eq!(existing(&keeping, name, total), None, "{name}");
    }
    let found = existing(&keeping, "g", Some(4));
    assert_eq!(found, Some(dir.path("g")));
    assert_eq!(existing(&keeping, "g", Some(4)), None, "only once");
    assert_eq!(existing(&dir.allocate("e"), "g", Some(4)), None);
}

#[test]
fn existing_paths_of_any_type_are_skipped() {
    let dir = Dir::new();
    fs::write(dir.path("file"), "x").unwrap();
    fs::create_dir(dir.path("folder")).unwrap();
    symlink("nowhere", dir.path("link")).unwrap();
    symlink("nowhere", dir.path("f.part")).unwrap();
    fs::create_dir(dir.path("g.part")).unwrap();
    for name in ["file", "folder", "link"] {
        dir.assert_allocated(name, &format!("{name}.1"));
    }
    // The final name is free; the part gets another one.
    for name in ["f", "g"] {
        dir.assert_allocated(name, name);
    }
    assert_eq!(dir.names(), ["f.part", "file", "folder", "g.part", "link"]);
}

#[test]
fn downloads_of_one_name_get_distinct_paths() {
    let dir = Dir::new();
    let parts: Vec<_> = (0..20).map(|_| dir.allocate("f")).collect();
    assert!(parts.into_iter().all(|part| part.finish(None).is_ok()));
    assert_eq!(dir.names().len(), 20);
    dir.assert_allocated("f", "f.20");
}

#[test]
fn final_name_does_not_replace_another_part() {
    let dir = Dir::new();
    let part_like = dir.allocate("f.part");
    let plain = dir.allocate("f");
    write_start(&plain);
    assert_eq!(part_like.finish(None).unwrap(), dir.path("f.part.1"));
    assert_eq!(plain.finish(None).unwrap(), dir.path("f"));
}

#[test]
fn unlocked_part_is_replaced_but_its_hard_links_stay() {
    let dir = Dir::new();
    leave_part(&dir);
    fs::hard_link(dir.path("f.part"), dir.path("other")).unwrap();
    let dir = Dir(dir.0, PathAllocator::default());
    dir.allocate("f").finish(None).unwrap();
    assert_eq!(dir.names(), ["f", "other"]);
    assert_eq!(fs::read(dir.path("f")).unwrap(), b"");
    assert_eq!(fs::read(dir.path("other")).unwrap(), b"abc");
}

#[test]
fn locked_part_is_skipped() {
    let dir = Dir::new();
    let other_run = PathAllocator::default();
    let overwrite = on_conflict(OnConflict::Overwrite);
    let locked = part(other_run.allocate(&dir.path("f"), &url(), &overwrite));
    assert_eq!(locked.target(), dir.path("f"));
    dir.assert_allocated("f", "f.1");
}

#[test]
fn name_taken_during_the_download_is_skipped() {
    let dir = Dir::new();
    let part = dir.allocate("f");
    fs::write(dir.path("f"), "mine").unwrap();
    assert_eq!(part.finish(None).unwrap(), dir.path("f.1"));
    assert_eq!(fs::read(dir.path("f")).unwrap(), b"mine");
}

#[test]
fn missing_directories_are_created() {
    let dir = Dir::new();
    dir.assert_allocated("a/b/f", "a/b/f");
    fs::write(dir.path("file"), "x").unwrap();
    let error = dir.allocate_with("file/f", &Config::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("file/f"), "{error}");
}
