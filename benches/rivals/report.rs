//! The table that a person reads and the JSON that a program reads.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::measure::Figures;

pub(crate) struct Report {
    machine: String,
    cases: Vec<Value>,
}

impl Report {
    pub(crate) fn new(machine: String) -> Self {
        println!("{machine}\nratio: the rival's time divided by ours, median [quartiles]\n");
        Self {
            machine,
            cases: Vec::new(),
        }
    }

    /// Says what is missing.
    pub(crate) fn left_out(&self, what: &str) {
        println!("left out: {what}\n");
    }

    /// Prints one case and keeps it.
    pub(crate) fn add(&mut self, case: &str, figures: &[Figures]) {
        println!("{case}");
        for Figures {
            name,
            seconds,
            ratio,
        } in figures
        {
            let ([_, median, _], [low, middle, high]) = (seconds.0, ratio.0);
            println!(
                "  {name:<28} {:>9.2} ms   {middle:>6.2} [{low:.2}–{high:.2}]",
                median * 1e3
            );
        }
        println!();
        let rows: Vec<_> = figures
            .iter()
            .map(|f| json!({"name": f.name, "seconds": f.seconds.0, "ratio": f.ratio.0}))
            .collect();
        self.cases.push(json!({"case": case, "figures": rows}));
    }

    /// Keeps a case that has been printed.
    pub(crate) fn keep(&mut self, case: Value) {
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
