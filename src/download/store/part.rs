//! A file that is not whole yet: written under a name of its own (`f.part`), renamed when whole.
//! One that may get its name when it is whole has none before, as long as it is short.
//!
//! Who holds the lock on the file that stands under the part's name owns the part, and with it
//! the final name: a second transfer, in this process or in another, finds it locked and takes
//! the next name. A part that nobody holds was left by an earlier run; it is gone on with where
//! that is wanted and its state fits, else started over.
//!
//! The calls here are made where they stand, not on the pool for blocking work: opening and
//! renaming take a few microseconds each, a hop to the pool and back ten times that.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::rename;
use rustix::io::Errno;
use tracing::warn;
use url::Url;

use crate::download::config::{Config, OnConflict};
use crate::download::error::Error;
use crate::download::store::filename::{PART, from_server, numbered};
use crate::download::store::part_file::{
    is_foreign, is_taken, open_part, rename_to_free, reopen_part,
};
use crate::download::store::resume_state::State;
use crate::download::store::sink::Store;
use crate::download::store::tmpfile::Folders;
use crate::download::transfer::resume::Validators;
use crate::escape::Escaped;

/// For so many names the search for a free number goes on where the last one ended.
const REMEMBERED: usize = 1024;

/// Gives each transfer a name of its own.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// For a name that was taken, the number to try first. Without it the n-th file of one name
    /// would look n times; where it is lost, it only takes longer.
    next: Mutex<HashMap<PathBuf, u32>>,
    given: Arc<Given>,
    /// The names that files without one are to get: no lock shows that they are held.
    promised: Arc<Given>,
    folders: Folders,
}

/// The names whose part or file this run has left, where it must tell its own from those of
/// earlier runs: eight bytes for each.
#[derive(Debug, Default)]
struct Given {
    names: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

/// What a transfer gets for the name that it wants.
#[derive(Debug)]
pub(crate) enum Claim {
    Part(Part),
    /// A file is there already, and that is what was wanted.
    Present(PathBuf),
}

/// A file while it is written. Dropped before [`Part::finish`], what it holds stays for a later
/// run, with its state.
#[derive(Debug)]
pub(crate) struct Part {
    store: Arc<Store>,
    /// Where it was made; nowhere if it has no name yet.
    path: Option<PathBuf>,
    wanted: PathBuf,
    number: u32,
    existing: OnConflict,
    /// Whether what earlier runs have finished is kept.
    keeps: bool,
    given: Arc<Given>,
    /// Where the name is held that it is to get, as long as it has none.
    promised: Option<Arc<Given>>,
    is_finished: bool,
}

impl Given {
    fn add(&self, target: &Path) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(self.hasher.hash_one(target));
    }

    /// Whether it was not among them.
    fn add_new(&self, target: &Path) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(self.hasher.hash_one(target))
    }

    fn remove(&self, target: &Path) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&self.hasher.hash_one(target));
    }

    fn has(&self, target: &Path) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(&self.hasher.hash_one(target))
    }

    /// Takes the first file of this name or one of its numbers that `fits` and that no other of
    /// this run has.
    fn first(&self, wanted: &Path, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let numbers = (0..).map(|number| choice(wanted, number));
        let ours =
            numbers.take_while(|path| is_taken(path) || self.has(path) || is_taken(&part_of(path)));
        let mut free = ours.filter(|path| is_taken(path) && !self.has(path));
        free.find(|path| fits(path)).inspect(|path| self.add(path))
    }
}

impl Names {
    /// Opens the part of the first name from `wanted` on (`f`, `f.1`, `f.2` …) that neither a
    /// file nor another transfer has; or finds that none is needed. Missing folders are made.
    pub(crate) fn claim(
        &self,
        wanted: PathBuf,
        url: &Url,
        config: &Config,
    ) -> Result<Claim, Error> {
        if config.output.resume
            && let Some(part) = self.left_by_earlier_run(&wanted, url, config)
        {
            return Ok(Claim::Part(part));
        }
        if let Some(present) = self.finished_before(&wanted, config) {
            return Ok(Claim::Present(present));
        }
        if let Some(part) = self.make_unnamed(&wanted, config) {
            return Ok(Claim::Part(part));
        }
        let part = self.open_new(wanted, config)?;
        if config.output.resume || config.output.on_conflict != OnConflict::Rename {
            self.given.add(&part.target());
        }
        Ok(Claim::Part(part))
    }

    /// The path that a transfer would get, as long as the folder stays as it is, and whether it is
    /// left alone because a file is there. It is kept from others, but nothing is made.
    pub(crate) fn plan(&self, wanted: PathBuf, config: &Config) -> (PathBuf, bool) {
        let goes_on = config.output.resume && is_taken(&part_of(&wanted));
        if !goes_on && let Some(present) = self.finished_before(&wanted, config) {
            return (present, true);
        }
        let is_free = |path: &Path| {
            !self.given.has(path)
                && (config.output.on_conflict.replaces() || goes_on || !is_taken(path))
        };
        let mut number = self.first_to_try(&wanted);
        while !is_free(&choice(&wanted, number)) {
            number += 1;
        }
        self.remember(&wanted, number);
        let path = choice(&wanted, number);
        self.given.add(&path);
        (path, false)
    }

    /// The file that makes this one needless. Of several of one name each run gives the same
    /// number to the same file of its list, so what stands under a number is what was saved there.
    fn finished_before(&self, wanted: &Path, config: &Config) -> Option<PathBuf> {
        match config.output.on_conflict {
            OnConflict::Skip => {
                Some(wanted.to_owned()).filter(|path| is_taken(path) && !self.given.has(path))
            }
            OnConflict::Rename if config.output.resume => self.given.first(wanted, |_| true),
            OnConflict::Rename | OnConflict::Overwrite | OnConflict::IfModified => None,
        }
    }

    /// Makes a file that gets its name when it is whole; `None` where that cannot be, and where
    /// it could be in the way of what another has or has left.
    fn make_unnamed(&self, wanted: &Path, config: &Config) -> Option<Part> {
        let is_plain = config.output.on_conflict == OnConflict::Rename && !config.output.resume;
        let folder = self.folders.open(wanted.parent().filter(|_| is_plain)?)?;
        if self.given.has(wanted) || !self.promised.add_new(wanted) {
            return None;
        }
        let Some((file, unnamed)) = folder.make_unnamed(wanted.file_name().unwrap_or_default())
        else {
            self.promised.remove(wanted);
            return None;
        };
        let store = Arc::new(Store::unnamed(file, unnamed));
        Some(self.part(store, None, wanted, 0, config))
    }

    fn open_new(&self, wanted: PathBuf, config: &Config) -> Result<Part, Error> {
        let mut number = self.first_to_try(&wanted);
        loop {
            let (target, path) = (choice(&wanted, number), self.own_part(&wanted, number));
            if config.output.on_conflict.replaces() && target.is_dir() {
                return Err(failed(
                    "replace",
                    &target,
                    io::ErrorKind::IsADirectory.into(),
                ));
            }
            if self.is_free(&target, config)
                && let Some(file) =
                    open_part(&path).map_err(|error| failed("create", &path, error))?
            {
                self.remember(&wanted, number);
                State::remove_saved(&path);
                let store = Arc::new(Store::file(file, path.clone(), 0, None));
                return Ok(self.part(store, Some(path), &wanted, number, config));
            }
            number += 1;
        }
    }

    /// Whether a file may get this name.
    fn is_free(&self, target: &Path, config: &Config) -> bool {
        let is_ours = self.given.has(target) || self.promised.has(target);
        !is_ours && (config.output.on_conflict.replaces() || !is_taken(target))
    }

    /// The part for the name of this number: nobody else's file, though others call theirs so too.
    fn own_part(&self, wanted: &Path, number: u32) -> PathBuf {
        let mut number = number;
        loop {
            let path = part_of(&choice(wanted, number));
            if !self.given.has(&path) && !is_foreign(&path) {
                return path;
            }
            number += 1;
        }
    }

    /// Finds the part of `url` that an earlier run has left and nobody holds, under this name or
    /// one of its numbers.
    fn left_by_earlier_run(&self, wanted: &Path, url: &Url, config: &Config) -> Option<Part> {
        let mut unfit = None;
        for number in 0.. {
            let target = choice(wanted, number);
            let path = part_of(&target);
            if !is_taken(&path) {
                if !is_taken(&target) {
                    break;
                }
                if !config.output.on_conflict.replaces() {
                    // A run that was killed right after it had named its file has left this.
                    State::remove(&path);
                }
                continue;
            }
            match reopen_part(&path, url) {
                Some(Ok((file, length, state))) => {
                    // It may have made way for others' parts, and its name not.
                    let is_its = |earlier: &u32| {
                        self.is_free(&choice(wanted, *earlier), config)
                            && self.own_part(wanted, *earlier) == path
                    };
                    let number = (0..number).find(is_its).unwrap_or(number);
                    let store = Arc::new(Store::file(file, path.clone(), length, Some(state)));
                    return Some(self.part(store, Some(path), wanted, number, config));
                }
                Some(Err(error)) if number == 0 => unfit = Some((path, error)),
                _ => {}
            }
        }
        if let Some((path, error)) = unfit {
            let path = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
            warn!(
                path,
                "a part of an earlier run is not gone on with: {error}"
            );
        }
        None
    }

    fn part(
        &self,
        store: Arc<Store>,
        path: Option<PathBuf>,
        wanted: &Path,
        number: u32,
        config: &Config,
    ) -> Part {
        let wanted = wanted.to_owned();
        let given = Arc::clone(&self.given);
        let promised = path.is_none().then(|| Arc::clone(&self.promised));
        let existing = config.output.on_conflict;
        let keeps =
            existing == OnConflict::Skip || config.output.resume && existing == OnConflict::Rename;
        Part {
            store,
            path,
            wanted,
            number,
            existing,
            keeps,
            given,
            promised,
            is_finished: false,
        }
    }

    fn first_to_try(&self, wanted: &Path) -> u32 {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.get(wanted).copied().unwrap_or(0)
    }

    fn remember(&self, wanted: &Path, number: u32) {
        if number == 0 {
            return;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= REMEMBERED {
            next.clear();
        }
        next.insert(wanted.to_owned(), number);
    }
}

impl Part {
    /// What the bytes are put into.
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The name that it gets when it is whole, unless that is taken then.
    pub(crate) fn target(&self) -> PathBuf {
        choice(&self.wanted, self.number)
    }

    /// The file that an earlier run has saved under the name that the server says, where such
    /// files are to be kept. A name proves little: the length must be that of the server's file.
    pub(crate) fn finished_before(&self, known: &Validators) -> Option<PathBuf> {
        let wanted = self
            .wanted
            .with_file_name(known.name.as_deref().and_then(from_server)?);
        let fits = |path: &Path| {
            let data = fs::symlink_metadata(path)
                .ok()
                .filter(fs::Metadata::is_file);
            data.is_some_and(|data| known.total.is_none_or(|total| total == data.len()))
        };
        if self.keeps {
            self.given.first(&wanted, fits)
        } else {
            None
        }
    }

    /// Gives the file its final name, which is returned: the one that was wanted, or `other` in
    /// the same folder. What is there stays, unless it is to be
    /// replaced: where the name has been taken meanwhile, the file gets the next free one.
    pub(crate) fn finish(mut self, other: Option<String>) -> Result<PathBuf, Error> {
        self.keep_promise();
        if let Some(name) = other {
            (self.wanted, self.number) = (self.wanted.with_file_name(name), 0);
        }
        let path = self.store.path();
        loop {
            let target = self.target();
            let named = match (&path, self.existing) {
                (None, _) => self
                    .store
                    .name_whole(target.file_name().unwrap_or_default()),
                (Some(path), OnConflict::Overwrite | OnConflict::IfModified) => {
                    rename(path, &target)
                }
                (Some(path), OnConflict::Rename | OnConflict::Skip) => {
                    rename_to_free(path, &target)
                }
            };
            match named {
                Ok(()) => {
                    self.is_finished = true;
                    if let Some(path) = path.filter(|_| self.store.is_noted()) {
                        State::remove(&path);
                    }
                    // A whole file may be called as the part of another.
                    if self.keeps
                        || target
                            .as_os_str()
                            .as_encoded_bytes()
                            .ends_with(PART.as_bytes())
                    {
                        self.given.add(&target);
                    }
                    return Ok(target);
                }
                Err(Errno::EXIST) if !self.existing.replaces() => self.number += 1,
                Err(errno) => {
                    return Err(failed(
                        "rename",
                        path.as_deref().unwrap_or(&target),
                        errno.into(),
                    ));
                }
            }
        }
    }

    /// What was promised it gets now, or gives up.
    fn keep_promise(&mut self) {
        if let Some(promised) = self.promised.take() {
            promised.remove(&self.wanted);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if self.store.leave() {
            // To another of this name in this run it is not a part that nobody holds.
            self.given.add(&self.target());
        } else if let Some(path) = &self.path {
            // What led here is told; that an empty file stays behind would add nothing.
            let _ = fs::remove_file(path);
            State::remove(path);
        }
        self.keep_promise();
    }
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn choice(wanted: &Path, number: u32) -> PathBuf {
    wanted.with_file_name(numbered(wanted.file_name().unwrap_or_default(), number))
}

fn part_of(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(PART);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::config::OutputPolicy;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    struct Folder(tempfile::TempDir, Names);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap(), Names::default())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        #[track_caller]
        fn claim(&self, name: &str) -> Part {
            match self.try_claim(name, &Config::default()).unwrap() {
                Claim::Part(part) => part,
                Claim::Present(path) => panic!("{} is there", path.display()),
            }
        }

        fn try_claim(&self, name: &str, config: &Config) -> Result<Claim, Error> {
            self.1
                .claim(self.path(name), &"http://a/f".parse().unwrap(), config)
        }

        /// Writes the first bytes of a longer file.
        fn begin(&self, part: &Part) {
            let url = "http://a/f".parse().unwrap();
            part.store()
                .begin(State::new(&url, &url, Validators::default()))
                .unwrap();
            part.store().write_and_note(b"x").unwrap();
        }

        #[track_caller]
        fn claims(&self, name: &str, given: &str) {
            assert_eq!(self.claim(name).target(), self.path(given));
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

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let folder = Folder::new();
        let part = folder.claim("f");
        part.store().write(b"x").unwrap();
        assert!(folder.names().is_empty());
        assert_eq!(part.finish(None).unwrap(), folder.path("f"));
        assert_eq!(folder.names(), ["f"]);
    }

    #[test]
    fn a_file_that_is_longer_on_its_way_has_a_name_meanwhile() {
        let folder = Folder::new();
        let part = folder.claim("f");
        folder.begin(&part);
        assert_eq!(folder.names(), ["f.part", "f.part.json"]);
        assert_eq!(part.finish(None).unwrap(), folder.path("f"));
        assert_eq!(folder.names(), ["f"]);
    }

    #[test]
    fn a_name_that_is_promised_is_free_again_when_it_is_not_taken() {
        let folder = Folder::new();
        let (first, second) = (folder.claim("f"), folder.claim("f"));
        assert_eq!(
            (first.target(), second.target()),
            (folder.path("f"), folder.path("f.1"))
        );
        drop(first);
        folder.claims("f", "f");
    }

    #[test]
    fn what_is_only_called_as_a_part_stays() {
        let folder = Folder::new();
        fs::write(folder.path("f.part"), "of a browser").unwrap();
        assert_eq!(folder.claim("f").finish(None).unwrap(), folder.path("f"));
        assert_eq!(fs::read(folder.path("f.part")).unwrap(), b"of a browser");
        // Saved in this run, and empty at that.
        folder.claim("g.part").finish(None).unwrap();
        folder.claim("g").finish(None).unwrap();
        assert_eq!(folder.names(), ["f", "f.part", "g", "g.part"]);
    }

    #[test]
    fn a_part_that_is_given_up_leaves_nothing() {
        let folder = Folder::new();
        drop(folder.claim("f"));
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_part_with_bytes_stays_and_is_gone_on_with_where_that_is_wanted() {
        let folder = Folder::new();
        let resume = Config {
            output: OutputPolicy {
                resume: true,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        let url = "http://a/f".parse().unwrap();
        let part = folder.claim("f");
        part.store()
            .begin(State::new(&url, &url, Validators::default()))
            .unwrap();
        part.store().write(b"abc").unwrap();
        drop(part);
        assert_eq!(folder.names(), ["f.part", "f.part.json"]);
        let Ok(Claim::Part(part)) = folder.try_claim("f", &resume) else {
            panic!()
        };
        assert_eq!(part.store().length(), 3);
        // While it is held, another run takes another name.
        folder.claims("f", "f.1");
        drop(part);
        let folder = Folder(folder.0, Names::default());
        let part = folder.claim("f");
        assert_eq!(
            (part.store().length(), folder.names()),
            (0, vec!["f.part".to_owned()])
        );
    }

    #[test]
    fn a_state_that_a_killed_run_left_beside_the_whole_file_is_taken_away() {
        let folder = Folder::new();
        let url = "http://a/f".parse().unwrap();
        fs::write(folder.path("f"), "whole").unwrap();
        State::new(&url, &url, Validators::default())
            .save(&folder.path("f.part"))
            .unwrap();
        let resume = Config {
            output: OutputPolicy {
                resume: true,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        assert!(matches!(
            folder.try_claim("f", &resume),
            Ok(Claim::Present(_))
        ));
        assert_eq!(folder.names(), ["f"]);
    }

    #[test]
    fn a_part_with_another_name_is_not_gone_on_with() {
        let folder = Folder::new();
        let url = "http://a/f".parse().unwrap();
        State::new(&url, &url, Validators::default())
            .save(&folder.path("f.part"))
            .unwrap();
        fs::write(folder.path("f.part"), "old").unwrap();
        fs::write(folder.path("f.part.json"), "").unwrap();
        fs::hard_link(folder.path("f.part"), folder.path("other")).unwrap();
        let resume = Config {
            output: OutputPolicy {
                resume: true,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        let Ok(Claim::Part(part)) = folder.try_claim("f", &resume) else {
            panic!()
        };
        assert_eq!(part.store().length(), 0);
        assert_eq!(fs::read(folder.path("other")).unwrap(), b"old");
    }

    #[test]
    fn a_file_that_is_there_is_kept_skipped_or_replaced() {
        let folder = Folder::new();
        fs::write(folder.path("f"), "mine").unwrap();
        for config in [
            Config {
                output: OutputPolicy {
                    on_conflict: OnConflict::Skip,
                    ..OutputPolicy::default()
                },
                ..Config::default()
            },
            Config {
                output: OutputPolicy {
                    resume: true,
                    ..OutputPolicy::default()
                },
                ..Config::default()
            },
        ] {
            let url = "http://a/f".parse().unwrap();
            let claim = Names::default()
                .claim(folder.path("f"), &url, &config)
                .unwrap();
            assert!(matches!(claim, Claim::Present(path) if path == folder.path("f")));
        }
        let replace = Config {
            output: OutputPolicy {
                on_conflict: OnConflict::Overwrite,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        let Ok(Claim::Part(part)) = folder.try_claim("f", &replace) else {
            panic!()
        };
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"mine");
        assert_eq!(part.finish(None).unwrap(), folder.path("f"));
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"");
        // The second of one run does not replace the first.
        let Ok(Claim::Part(part)) = folder.try_claim("f", &replace) else {
            panic!()
        };
        assert_eq!(part.target(), folder.path("f.1"));
    }

    #[test]
    fn of_several_files_of_one_name_each_is_finished_or_not_by_its_number() {
        let folder = Folder::new();
        let resume = Config {
            output: OutputPolicy {
                resume: true,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        let claim = || folder.try_claim("f", &resume).unwrap();
        for name in ["f", "f.2"] {
            fs::write(folder.path(name), "done").unwrap();
        }
        // The second of three has nothing to go on with.
        assert!(matches!(claim(), Claim::Present(path) if path == folder.path("f")));
        let Claim::Part(second) = claim() else {
            panic!("nothing is fetched")
        };
        assert_eq!(second.target(), folder.path("f.1"));
        assert!(matches!(claim(), Claim::Present(path) if path == folder.path("f.2")));
        assert!(matches!(claim(), Claim::Part(part) if part.target() == folder.path("f.3")));
    }

    #[test]
    fn a_file_of_the_name_that_the_server_says_is_kept_once_if_its_length_fits() {
        let folder = Folder::new();
        fs::write(folder.path("g"), "done").unwrap();
        fs::create_dir(folder.path("dir")).unwrap();
        symlink("g", folder.path("link")).unwrap();
        let known = |name: &str, total| Validators {
            name: Some(name.into()),
            total,
            ..Validators::default()
        };
        let keep = Config {
            output: OutputPolicy {
                resume: true,
                ..OutputPolicy::default()
            },
            ..Config::default()
        };
        let Ok(Claim::Part(part)) = folder.try_claim("f", &keep) else {
            panic!()
        };
        for (name, total) in [("g", Some(3)), ("h", None), ("dir", None), ("link", None)] {
            assert_eq!(part.finished_before(&known(name, total)), None, "{name}");
        }
        assert_eq!(
            part.finished_before(&known("../g", Some(4))),
            Some(folder.path("g"))
        );
        assert_eq!(part.finished_before(&known("g", Some(4))), None);
        assert_eq!(
            folder.claim("e").finished_before(&known("g", Some(4))),
            None
        );
    }

    #[test]
    fn whatever_has_the_name_keeps_it() {
        let folder = Folder::new();
        fs::write(folder.path("file"), "x").unwrap();
        fs::create_dir(folder.path("folder")).unwrap();
        symlink("nowhere", folder.path("link")).unwrap();
        symlink("nowhere", folder.path("f.part")).unwrap();
        fs::create_dir(folder.path("g.part")).unwrap();
        for name in ["file", "folder", "link", "f", "g"] {
            folder.claims(name, &format!("{name}.1"));
        }
        assert_eq!(
            folder.names(),
            ["f.part", "file", "folder", "g.part", "link"]
        );
    }

    #[test]
    fn transfers_of_one_name_get_a_file_each() {
        let folder = Folder::new();
        let parts: Vec<_> = (0..20).map(|_| folder.claim("f")).collect();
        assert!(parts.into_iter().all(|part| part.finish(None).is_ok()));
        assert_eq!(folder.names().len(), 20);
        folder.claims("f", "f.20");
    }

    #[test]
    fn a_name_that_is_anothers_part_is_not_taken_from_it() {
        let folder = Folder::new();
        let (part_like, plain) = (folder.claim("f.part"), folder.claim("f"));
        folder.begin(&plain);
        assert_eq!(part_like.finish(None).unwrap(), folder.path("f.part.1"));
        assert_eq!(plain.finish(None).unwrap(), folder.path("f"));
    }

    #[test]
    fn a_part_that_nobody_holds_is_started_over_without_touching_its_other_names() {
        let folder = Folder::new();
        fs::write(folder.path("f.part"), "old").unwrap();
        fs::write(folder.path("f.part.json"), "").unwrap();
        fs::hard_link(folder.path("f.part"), folder.path("other")).unwrap();
        folder.claim("f").finish(None).unwrap();
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"");
        assert_eq!(fs::read(folder.path("other")).unwrap(), b"old");
    }

    #[test]
    fn a_part_that_another_holds_is_left_alone() {
        let folder = Folder::new();
        let held = File::create(folder.path("f.part")).unwrap();
        held.lock().unwrap();
        folder.claims("f", "f.1");
    }

    #[test]
    fn a_name_taken_meanwhile_is_passed_over() {
        let folder = Folder::new();
        let part = folder.claim("f");
        fs::write(folder.path("f"), "mine").unwrap();
        assert_eq!(part.finish(None).unwrap(), folder.path("f.1"));
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"mine");
    }

    #[test]
    fn missing_folders_are_made_and_impossible_ones_named() {
        let folder = Folder::new();
        folder.claims("a/b/f", "a/b/f");
        fs::write(folder.path("file"), "x").unwrap();
        let error = folder.try_claim("file/f", &Config::default()).unwrap_err();
        assert!(error.to_string().contains("file/f"), "{error}");
    }
}
