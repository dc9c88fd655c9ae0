//! Downloads that are killed at random moments and started again.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::download::LARGE;
use crate::download::checksum::sha256sum;
use crate::download::resume::kill_and_resume;
use crate::harness::Folder;
use crate::harness::http::{Server, seeded};

/// Number of kills per kind of download; 1,000 together.
const KILLS: usize = 250;

/// Number of small files, some of which are written as parts.
const SMALL_FILES: u64 = 60;

#[test]
#[ignore = "soak: 250 kills"]
fn killed_download_resumes_exactly() {
    kill_and_resume(KILLS, &[]);
}

#[test]
#[ignore = "soak: 250 kills"]
fn killed_split_download_resumes_exactly() {
    kill_and_resume(KILLS, &["-s4", "-k256K"]);
}

#[test]
#[ignore = "soak: 250 kills"]
fn killed_download_with_checksums_resumes_exactly() {
    let folder = Folder::new();
    folder.write("f", seeded(1, LARGE));
    let list = format!("{}  f\n", sha256sum(&folder, "f"));
    let list = folder.write("SHA256SUMS", list);
    kill_and_resume(KILLS, &["--checksums", &list.to_string_lossy()]);
}

#[test]
#[ignore = "soak: 250 kills"]
fn killed_downloads_of_small_files_end_exactly() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let length = |index: u64| usize::try_from(1000 + index * index * 100).unwrap();
    let bodies: Vec<_> = (0..SMALL_FILES)
        .map(|index| seeded(index, length(index)))
        .collect();
    let served = bodies.clone();
    let server = Server::start(move |request| {
        let index: usize = request.path[2..].parse().unwrap();
        let response = request.respond_with(&served[index], "\"a\"");
        response.throttled(64 << 10, Duration::from_millis(5))
    });
    let urls: Vec<_> = (0..SMALL_FILES)
        .map(|index| server.url(&format!("/f{index}")))
        .collect();
    let mut kills = 0;
    while kills < KILLS {
        let folder = Folder::new();
        loop {
            let fixed = ["download", "-c", "-d", "out", "-j", "8"].map(str::to_owned);
            let arguments = fixed.iter().chain(&urls);
            let mut running = folder.myapp(arguments).start();
            let end = Instant::now() + Duration::from_millis(random.u64(..150));
            while Instant::now() < end && !running.has_exited() {
                thread::sleep(Duration::from_millis(1));
            }
            if running.has_exited() {
                running.wait().code(0);
                break;
            }
            running.signal(Signal::KILL);
            kills += 1;
        }
        for (index, body) in bodies.iter().enumerate() {
            assert!(folder.read(&format!("out/f{index}")) == *body, "f{index}");
        }
        let names = folder.path("out").read_dir().unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_left = |name: &String| name.contains('.');
        let left: Vec<_> = names.filter(is_left).collect();
        assert!(left.is_empty(), "left after {kills} kills: {left:?}");
    }
}
