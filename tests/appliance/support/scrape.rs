//! The metrics of an appliance.

use std::collections::BTreeMap;
use std::fs;

use super::fixture::Appliance;
use super::http::{Answer, request};

/// The samples of a scrape: name with labels, and value.
pub struct Scrape(pub BTreeMap<String, f64>);

impl Scrape {
    pub fn of(appliance: &Appliance) -> Self {
        let answer = appliance.get_admin("/metrics");
        assert_eq!(answer.status, 200);
        let samples = answer.text().lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Self(samples.map(read).collect())
    }

    /// The value of a sample; zero if it does not exist.
    pub fn get(&self, sample: &str) -> f64 {
        self.0.get(sample).copied().unwrap_or(0.0)
    }

    pub fn has(&self, name: &str) -> bool {
        let mut names = self.0.keys().map(|sample| sample.split('{').next().unwrap());
        names.any(|other| other == name)
    }
}

/// The refusals of a listener for a reason.
pub fn refusals(appliance: &Appliance, listener: &str, reason: &str) -> u64 {
    let metrics = appliance.get_admin("/metrics");
    let line = metrics
        .text()
        .lines()
        .find(|line| {
            line.starts_with("tinyd_refusals_total{")
                && line.contains(&format!("listener=\"{listener}\""))
                && line.contains(&format!("reason=\"{reason}\""))
        })
        .unwrap_or_else(|| panic!("no {reason} of {listener}: {metrics:?}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

pub fn open_metrics(appliance: &Appliance) -> Answer {
    request(&appliance.admin, "GET", "/metrics", &[("Accept", OPEN_METRICS)], b"")
}

/// A file for Prometheus or Grafana.
pub fn monitoring(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/monitoring");
    fs::read_to_string(format!("{folder}/{name}")).unwrap()
}
