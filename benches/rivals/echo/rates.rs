//! Interleaved measurement of request rates and CPU time.

use serde_json::json;

use crate::measure::Quartiles;
use crate::report::Report;

/// One run of one contender.
#[derive(Clone)]
pub(super) struct Sample {
    /// Requests per second.
    pub(super) rate: f64,
    /// CPU seconds per request.
    pub(super) cpu: f64,
}

/// Measured rates of one contender.
pub(super) struct Rates {
    name: String,
    rate: Quartiles,
    cpu: Quartiles,
    /// Our rate divided by its rate in the same round.
    rate_ratio: Quartiles,
    /// Our CPU time per request divided by its CPU time in the same round.
    cpu_ratio: Quartiles,
}

/// Runs the contenders in turn, `rounds` times after one warm-up round. The first is ours.
pub(super) fn in_turn(
    names: &[String],
    rounds: usize,
    run: impl Fn(usize) -> anyhow::Result<Sample>,
) -> anyhow::Result<Vec<Rates>> {
    let mut samples = vec![Vec::new(); names.len()];
    for round in 0..=rounds {
        for (number, samples) in samples.iter_mut().enumerate() {
            let sample = run(number)?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let rates = names.iter().zip(&samples).map(|(name, theirs)| {
        let quartiles = |of: fn(&Sample) -> f64| Quartiles::of(theirs.iter().map(of).collect());
        let pairs = samples[0].iter().zip(theirs);
        let ratio = |of: fn(&Sample) -> f64| {
            Quartiles::of(
                pairs
                    .clone()
                    .map(|(ours, theirs)| of(ours) / of(theirs))
                    .collect(),
            )
        };
        let rate = |sample: &Sample| sample.rate;
        let cpu = |sample: &Sample| sample.cpu;
        Rates {
            name: name.clone(),
            rate: quartiles(rate),
            cpu: quartiles(cpu),
            rate_ratio: ratio(rate),
            cpu_ratio: ratio(cpu),
        }
    });
    Ok(rates.collect())
}

/// Prints and records a case.
pub(super) fn print(report: &mut Report, case: &str, rows: &[Rates]) {
    println!("{case}: requests per second, ours to theirs; CPU time per request, ours to theirs");
    for Rates {
        name,
        rate,
        cpu,
        rate_ratio,
        cpu_ratio,
    } in rows
    {
        let [_, rate, _] = rate.0;
        let [low, ratio, high] = rate_ratio.0;
        let [_, cpu, _] = cpu.0;
        let [cpu_low, cpu_ratio, cpu_high] = cpu_ratio.0;
        println!(
            "  {name:<28} {rate:>8.0}/s  {ratio:.2} [{low:.2}–{high:.2}]   {:>6.2} µs  {cpu_ratio:.2} [{cpu_low:.2}–{cpu_high:.2}]",
            cpu * 1e6,
        );
    }
    println!();
    let row = |row: &Rates| {
        json!({
            "name": row.name,
            "rate": row.rate.0,
            "rate_ratio": row.rate_ratio.0,
            "cpu_seconds": row.cpu.0,
            "cpu_ratio": row.cpu_ratio.0,
        })
    };
    report.record(json!({"case": case, "results": rows.iter().map(row).collect::<Vec<_>>()}));
}
