//! Results as a table and as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::measure::Timing;

pub(crate) struct Report {
    machine: String,
    cases: Vec<Value>,
}

impl Report {
    pub(crate) fn new(machine: String) -> Self {
        println!(
            "{machine}\nratio: the other program's time divided by ours, median [quartiles]\n"
        );
        Self {
            machine,
            cases: Vec::new(),
        }
    }

    /// Reports a program or case that is not available.
    pub(crate) fn skipped(&self, reason: &str) {
        println!("skipped: {reason}\n");
    }

    /// Prints and records one case.
    pub(crate) fn add(&mut self, case: &str, timings: &[Timing]) {
        println!("{case}");
        for Timing {
            name,
            seconds,
            ratio,
        } in timings
        {
            let [_, median, _] = seconds.0;
            let [low, middle, high] = ratio.0;
            println!(
                "  {name:<28} {:>9.2} ms   {middle:>6.2} [{low:.2}–{high:.2}]",
                median * 1e3
            );
        }
        println!();
        let rows: Vec<_> = timings
            .iter()
            .map(|t| json!({"name": t.name, "seconds": t.seconds.0, "ratio": t.ratio.0}))
            .collect();
        self.cases.push(json!({"case": case, "results": rows}));
    }

    /// Records a case that has been printed.
    pub(crate) fn record(&mut self, case: Value) {
        self.cases.push(case);
    }

    /// Writes all cases as JSON.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let all = json!({"machine": self.machine, "cases": self.cases});
        fs::write(path, format!("{all:#}\n"))?;
        println!("as JSON: {}", path.display());
        Ok(())
    }
}
