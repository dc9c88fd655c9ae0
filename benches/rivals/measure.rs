//! Interleaved runs of whole programs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// One program in one case.
pub(crate) struct Contender {
    pub(crate) name: String,
    /// Run by `sh -c`, with `exec` unless the script measures a pipeline.
    pub(crate) script: String,
}

/// Measured times of one contender.
pub(crate) struct Timing {
    pub(crate) name: String,
    pub(crate) seconds: Quartiles,
    /// Time divided by ours in the same round.
    pub(crate) ratio: Quartiles,
}

/// First quartile, median and third quartile.
#[derive(Clone, Copy)]
pub(crate) struct Quartiles(pub(crate) [f64; 3]);

impl Quartiles {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quantile: f64| values[((values.len() - 1) as f64 * quantile).round() as usize];
        Self([at(0.25), at(0.5), at(0.75)])
    }
}

/// Runs the contenders in turn, `rounds` times after one warm-up round. `before` runs before each
/// run and is not measured. The first contender is ours.
pub(crate) fn interleaved(
    contenders: &[Contender],
    rounds: usize,
    before: &dyn Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Timing>> {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            before()?;
            let time = run(&contender.script)?.as_secs_f64();
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(Timing::relative_to_first(contenders, times))
}

impl Timing {
    /// Summarizes the times of each contender, in seconds.
    pub(crate) fn relative_to_first(contenders: &[Contender], times: Vec<Vec<f64>>) -> Vec<Self> {
        let ours = times[0].clone();
        let timings = contenders.iter().zip(times).map(|(contender, times)| {
            let ratios = times
                .iter()
                .zip(&ours)
                .map(|(theirs, ours)| theirs / ours)
                .collect();
            Self {
                name: contender.name.clone(),
                seconds: Quartiles::of(times),
                ratio: Quartiles::of(ratios),
            }
        });
        timings.collect()
    }
}

pub(crate) fn run(script: &str) -> anyhow::Result<Duration> {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    let start = Instant::now();
    let status = command.status().with_context(|| format!("run {script}"))?;
    let time = start.elapsed();
    ensure!(status.success(), "{script}: {status}");
    Ok(time)
}
