//! The metrics of a cluster.

use std::fmt;

use crate::metrics::prometheus::Writer;
use crate::metrics::{AppendOutcome, ClusterReport, MemberState};

impl ClusterReport {
    pub(super) fn encode(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.gauges("tinyd_cluster_role", "role", [(self.role, 1)])?;
        to.gauge("tinyd_cluster_epoch", u64::from(self.epoch))?;
        to.gauge("tinyd_cluster_position", self.position)?;
        to.gauge("tinyd_cluster_head", self.head)?;
        to.gauge("tinyd_cluster_behind_entries", self.missing())?;
        to.gauge("tinyd_cluster_behind_seconds", self.behind.as_secs_f64())?;
        to.gauge("tinyd_cluster_silent_seconds", self.silent.as_secs_f64())?;
        to.gauge("tinyd_cluster_halted", u64::from(self.halted.is_some()))?;
        to.gauge("tinyd_cluster_clicks_waiting", self.clicks_waiting)?;
        let Some(admin) = &self.admin else {
            return Ok(());
        };
        to.gauge("tinyd_cluster_accepting_writes", u64::from(admin.refused.is_none()))?;
        to.gauges("tinyd_cluster_boxes", "state", MemberState::labelled(admin.boxes))?;
        let outcomes = AppendOutcome::labelled(admin.appends.outcomes);
        to.counters("tinyd_cluster_appends", "outcome", outcomes)?;
        to.durations("tinyd_cluster_append_duration_seconds", &admin.appends.durations)?;
        match admin.skew {
            Some(milliseconds) => to.gauge("tinyd_cluster_clock_skew_seconds", milliseconds as f64 / 1e3),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::report::{MapReport, Report, StoreReport};
    use crate::metrics::{AdminBoxReport, Appends, Exposition, Metrics};

    fn report() -> Report {
        Metrics::default().report(StoreReport::default(), MapReport::default(), 0)
    }

    #[test]
    fn edge_exposes_its_position_and_admin_box_more() {
        let appends = Appends::default();
        appends.count(AppendOutcome::Overtaken, Duration::from_millis(2));
        let edge = ClusterReport {
            role: "edge",
            epoch: 2,
            position: 7,
            head: 9,
            silent: Duration::from_secs(3),
            clicks_waiting: 17,
            ..ClusterReport::default()
        };
        let admin = ClusterReport {
            role: "admin",
            halted: Some("fork".to_owned()),
            admin: Some(AdminBoxReport {
                refused: Some("fork".to_owned()),
                appends: appends.read(),
                boxes: [3, 0, 1, 0, 2],
                skew: Some(-1_500),
                skewed: Vec::new(),
            }),
            ..edge.clone()
        };
        let render = |cluster| {
            Exposition::Text.render(Report {
                cluster: Some(cluster),
                ..report()
            })
        };
        let (edge, admin) = (render(edge), render(admin));
        for (text, samples) in [
            (
                &edge,
                &[
                    "tinyd_cluster_role{role=\"edge\"} 1",
                    "tinyd_cluster_epoch 2",
                    "tinyd_cluster_behind_entries 2",
                    "tinyd_cluster_silent_seconds 3.0",
                    "tinyd_cluster_halted 0",
                    "tinyd_cluster_clicks_waiting 17",
                ][..],
            ),
            (
                &admin,
                &[
                    "tinyd_cluster_halted 1",
                    "tinyd_cluster_accepting_writes 0",
                    "tinyd_cluster_boxes{state=\"current\"} 3",
                    "tinyd_cluster_boxes{state=\"silent\"} 2",
                    "tinyd_cluster_appends_total{outcome=\"overtaken\"} 1",
                    "tinyd_cluster_append_duration_seconds_count 1",
                    "tinyd_cluster_clock_skew_seconds -1.5",
                ],
            ),
        ] {
            for sample in samples {
                assert!(text.contains(&format!("\n{sample}\n")), "{sample}: {text}");
            }
        }
        assert!(!edge.contains("tinyd_cluster_boxes"));
        assert!(!Exposition::Text.render(report()).contains("tinyd_cluster"));
    }

    #[test]
    fn dashboard_and_alerts_name_metrics_of_a_cluster() {
        let appends = Appends::default();
        appends.count(AppendOutcome::Stored, Duration::from_millis(2));
        let admin = AdminBoxReport {
            appends: appends.read(),
            skew: Some(0),
            ..AdminBoxReport::default()
        };
        let cluster = ClusterReport {
            admin: Some(admin),
            ..ClusterReport::default()
        };
        let text = Exposition::Text.render(Report {
            cluster: Some(cluster),
            ..report()
        });
        for file in ["grafana-dashboard.json", "alerts.yml", "alerts.test.yml"] {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/monitoring/").to_owned() + file;
            let file = std::fs::read_to_string(&path).unwrap();
            let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let named: Vec<_> = words.filter(|word| word.starts_with("tinyd_cluster_")).collect();
            assert!(named.len() > 5, "{path}");
            for name in named {
                let is_there = text
                    .lines()
                    .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
                assert!(is_there, "{path}: there is no {name}");
            }
        }
    }
}
