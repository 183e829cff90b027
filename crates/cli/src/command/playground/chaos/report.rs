//! The results of a run: as JSON, or as a table and sentences.

use super::fault::Fault;
use super::history::{Findings, KeyViolation};
use super::stage::Injected;
use crate::failure::Answer;
use crate::text::counted;
use crate::violation::{ViolationReport, page};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// The answer of `-o json`.
#[derive(Serialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: usize,
    pub seconds: f64,
    /// In the order in which they happened.
    pub faults: Vec<Injected>,
    /// By kind of fault: milliseconds without service, of the worst shard.
    pub outages_ms: BTreeMap<Fault, Distribution>,
    /// Milliseconds from the kill -9 of a shard's leader until a write to it was acknowledged; `null` if there was
    /// none.
    pub failover_ms: Option<Distribution>,
    /// Why the run ended early: a node that failed, or service that did not come back.
    pub failure: Option<String>,
    #[serde(flatten)]
    pub findings: Findings,
    pub linearizable: bool,
    pub lost_acknowledgements: usize,
}

#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct Distribution {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Distribution {
    /// Percentiles by nearest rank; `None` without samples.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Distribution> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |percent: usize| sorted[(count * percent).div_ceil(100).max(1) - 1];
        (count > 0).then(|| Distribution { count, p50: at(50), p90: at(90), p99: at(99), max: at(100) })
    }
}

impl Report {
    pub fn new(
        seed: u64,
        nodes: usize,
        seconds: f64,
        faults: Vec<Injected>,
        findings: Findings,
        failure: Option<String>,
    ) -> Report {
        let mut outages: BTreeMap<Fault, Vec<f64>> = BTreeMap::new();
        for injected in &faults {
            outages.entry(injected.fault).or_default().push(injected.outage_ms);
        }
        let outages_ms = outages.into_iter().filter_map(|(fault, samples)| Some((fault, Distribution::of(samples)?)));
        let kills = faults.iter().filter(|injected| injected.fault == Fault::Kill);
        let failover_ms = Distribution::of(kills.flat_map(|injected| injected.failovers_ms.clone()));
        let linearizable = findings.violations.is_empty();
        let lost_acknowledgements = findings.lost_acknowledgements();
        let outages_ms = outages_ms.collect();
        #[rustfmt::skip]
        let report = Report {
            seed, nodes, seconds, faults, outages_ms, failover_ms, failure, findings, linearizable, lost_acknowledgements,
        };
        report
    }

    pub fn answer(&self) -> Answer {
        if self.linearizable && self.failure.is_none() { Answer::Yes } else { Answer::No }
    }

    /// Faults by kind, and how long there was no service.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["fault", "count", "without service, ms: p50", "p90", "p99", "max"]);
        let mut row = |name: &str, distribution: &Distribution| {
            let Distribution { count, p50, p90, p99, max } = distribution;
            let mut cells = vec![Cell::new(name), Cell::new(count)];
            cells.extend([p50, p90, p99, max].map(|value| Cell::new(format!("{value:.0}"))));
            table.add_row(cells);
        };
        for (fault, distribution) in &self.outages_ms {
            row(fault.name(), distribution);
        }
        if let Some(distribution) = &self.failover_ms {
            row("each shard whose leader was killed", distribution);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table
    }

    /// What the clients' histories show.
    pub fn sentence(&self) -> String {
        let Findings { keys, operations, acknowledged_writes, unknown_writes, undecided, violations, .. } =
            &self.findings;
        let mut text = match violations.len() {
            0 => "linearizable, and no acknowledged write is lost".to_owned(),
            count => format!(
                "NOT LINEARIZABLE: {count} of {} with answers that contradict one another, {} of which lost an \
                 acknowledged write",
                counted(*keys, "key"),
                self.lost_acknowledgements
            ),
        };
        text += &format!(
            ": {} on {}, {}, {unknown_writes} of unknown outcome",
            counted(*operations, "operation"),
            counted(*keys, "key"),
            counted(*acknowledged_writes, "acknowledged write")
        );
        if *undecided > 0 {
            text += &format!("; {} could not be checked in time", counted(*undecided, "key"));
        }
        text
    }

    /// The proof of each violation, line by line.
    pub fn proofs(&self) -> Vec<String> {
        let proof = |violation: &KeyViolation| {
            let ViolationReport { key, reason, drawing, .. } = &violation.report;
            [&[format!("key {key}: {reason}")], &drawing[..]].concat()
        };
        self.findings.violations.iter().flat_map(proof).collect()
    }

    /// The proof with the fewest operations as a page for a browser, if there is one.
    pub fn page(&self) -> Option<String> {
        let smallest = self.findings.violations.iter().min_by_key(|violation| violation.violation.operations.len())?;
        Some(page(&self.sentence(), &smallest.report.key, &smallest.violation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_check::{Ending, Kind, Operation, Time, Value, Violation};

    fn injected(fault: Fault, outage_ms: f64, failovers_ms: &[f64]) -> Injected {
        Injected { fault, what: String::new(), outage_ms, failovers_ms: failovers_ms.to_vec() }
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = Distribution::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((hundred.p50, hundred.p90, hundred.p99, hundred.max), (50.0, 90.0, 99.0, 100.0));
        let one = Distribution::of([7.0]).unwrap();
        assert_eq!((one.count, one.p50, one.p99, one.max), (1, 7.0, 7.0, 7.0));
        assert_eq!(Distribution::of([]), None);
    }

    #[test]
    fn failover_is_of_leaders_that_were_killed() {
        let faults = vec![
            injected(Fault::Kill, 600.0, &[600.0, 500.0]),
            injected(Fault::Pause, 900.0, &[900.0]),
            injected(Fault::Kill, 40.0, &[]),
        ];
        let report = Report::new(1, 3, 1.0, faults, Findings::default(), None);
        assert_eq!(report.failover_ms.map(|failover| (failover.count, failover.max)), Some((2, 600.0)));
        assert_eq!(report.outages_ms[&Fault::Kill].count, 2);
        let table = report.table().to_string();
        assert!(table.contains("kill -9 of one") && table.contains("pause of one"), "{table}");
        assert_eq!(report.answer(), Answer::Yes);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["outages_ms"]["kill"]["count"], &json["linearizable"]), (&2.into(), &true.into()));
    }

    #[test]
    fn a_violation_or_a_failure_is_a_no() {
        let put = Kind::put(Value { writer: 1, number: 1 });
        let at =
            |kind, from| Operation { client: 1, kind, invoked: Time(from), ending: Ending::Answered(Time(from + 1)) };
        let lost = Violation::of(&[at(put, 1), at(Kind::Get { found: None }, 3)]);
        let report = ViolationReport::new(&"k".into(), &lost);
        let violation = KeyViolation { lost_acknowledgement: true, report, violation: lost };
        let findings = Findings { keys: 2, violations: vec![violation], ..Findings::default() };
        let report = Report::new(1, 3, 1.0, Vec::new(), findings, None);
        assert_eq!((report.answer(), report.linearizable, report.lost_acknowledgements), (Answer::No, false, 1));
        assert!(report.sentence().contains("NOT LINEARIZABLE: 1 of 2 keys"), "{}", report.sentence());
        let proofs = report.proofs();
        assert!(proofs.len() == 3 && proofs[0].starts_with("key k: the value 1.1 was acknowledged"), "{proofs:?}");
        assert!(report.page().is_some_and(|page| page.contains("<svg")));
        let failed = Report::new(1, 3, 1.0, Vec::new(), Findings::default(), Some("node1 ended".to_owned()));
        assert_eq!(failed.answer(), Answer::No);
    }
}
