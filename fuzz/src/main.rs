//! Feeds the downloader with responses that no conforming server sends, and the parsers with
//! malformed text and headers.
//!
//! ```text
//! cargo run --release --manifest-path fuzz/Cargo.toml -- --seed 7 --rounds 100000
//! ```
//!
//! Round R of seed S is round 0 of seed S + R, so that a failure can be repeated alone. Exit code 1
//! means that a check failed; the smallest failing case that was found is printed.

mod compressed;
mod files;
mod grammar;
mod hyper;
mod outcome;
mod proxy_protocol;
mod rules;
mod server;
mod texts;
mod transport;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use rules::Counts;
use server::Server;
use transport::Case;

/// A round that takes longer counts as a hang.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of smaller cases that are tried before a failure is printed.
const MAX_SHRINK_STEPS: usize = 20_000;

fn main() -> ExitCode {
    let Some((seed, rounds)) = arguments() else {
        eprintln!("usage: fuzz [--seed N] [--rounds N]");
        return ExitCode::from(2);
    };
    println!("seed {seed}, {rounds} rounds");
    let server = Server::start();
    let mut counts = Counts::new();
    static ROUND: AtomicU64 = AtomicU64::new(0);
    thread::spawn(move || watch(seed, &ROUND));
    for round in 0..rounds {
        ROUND.store(round, Relaxed);
        let seed = seed.wrapping_add(round);
        if let Err(problem) = play(&server, seed, &mut counts) {
            println!("seed {seed}: {problem}");
            return ExitCode::FAILURE;
        }
    }
    counts
        .iter()
        .for_each(|(rule, count)| println!("{count:>9} {rule}"));
    ExitCode::SUCCESS
}

fn arguments() -> Option<(u64, u64)> {
    let mut seed = fastrand::u64(..1 << 40);
    let mut rounds = 10_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let number = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--seed" => seed = number,
            "--rounds" => rounds = number,
            _ => return None,
        }
    }
    Some((seed, rounds))
}

/// Exits if a round hangs.
fn watch(seed: u64, round: &AtomicU64) {
    loop {
        let before = round.load(Relaxed);
        thread::sleep(ROUND_TIMEOUT);
        if round.load(Relaxed) == before {
            println!("seed {}: hangs", seed.wrapping_add(before));
            std::process::exit(1);
        }
    }
}

fn play(server: &Server, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let mut random = Rng::with_seed(seed);
    if random.u32(..1000) == 0 {
        return catch_panic(|| transport::check_endless(server, &mut random));
    }
    catch_panic(|| texts::check(&mut random))?;
    catch_panic(|| proxy_protocol::check(&mut random))?;
    match random.u32(..10) {
        0 | 1 => return catch_panic(|| files::check(server, &mut random)),
        2 => return catch_panic(|| files::check_name(server, &mut random)),
        3 => return catch_panic(|| compressed::check(server, &mut random)),
        _ => {}
    }
    let case = Case::new(&mut random);
    catch_panic(|| case.check(server, counts)).map_err(|problem| shrunk(server, case, problem))
}

fn catch_panic(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Returns the smallest failing case that is found, and its problem.
fn shrunk(server: &Server, mut case: Case, mut problem: String) -> String {
    let mut left = MAX_SHRINK_STEPS;
    loop {
        let mut wrong = case
            .smaller()
            .take(left)
            .inspect(|_| left -= 1)
            .filter_map(|smaller| {
                let found = catch_panic(|| smaller.check(server, &mut Counts::new())).err()?;
                Some((smaller, found))
            });
        let Some(found) = wrong.next() else { break };
        drop(wrong);
        (case, problem) = found;
    }
    format!("{problem}\n{case}")
}
