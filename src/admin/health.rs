//! The rules of what is unhealthy, and of what is worth a hint.

use std::time::Duration;

use crate::cluster;
use crate::metrics::{ClusterReport, Report};
use crate::model::{Timestamp, shown};
use crate::store::Health;
use crate::tls::UtcTime;

/// How long the disk may take before that is ill health.
const DISK_WAIT_MAX: Duration = Duration::from_secs(10);
/// The same of entries of the cluster's log.
const CLUSTER_WAIT_MAX: Duration = cluster::SILENCE;
/// One part of so many of the disk should be free, within the bounds: gigabytes suffice on a large disk.
const DISK_FREE_SHARE: u64 = 20;
const DISK_FREE_LEAST_BYTES: u64 = 64 * MEBIBYTE;
const DISK_FREE_MOST_BYTES: u64 = 2048 * MEBIBYTE;
const MEBIBYTE: u64 = 1024 * 1024;
/// An older backup is worth a hint.
const BACKUP_AGE_MAX_SECONDS: i64 = 7 * SECONDS_IN_A_DAY;
/// Of the life of a certificate, one part of so many should be left, or so much time. The alerts have the same bounds.
const SOON_SHARE: i64 = 5;
const SOON_SECONDS: i64 = 14 * SECONDS_IN_A_DAY;
const URGENT_SHARE: i64 = 20;
const URGENT_SECONDS: i64 = 3 * SECONDS_IN_A_DAY;
const SECONDS_IN_A_DAY: i64 = 24 * 60 * 60;

pub struct State<'s> {
    pub report: &'s Report,
    pub health: Health,
    /// Links in the store when it was opened.
    pub stored: u64,
    /// Fetches that were refused in the last minutes because there were too many.
    pub busy_fetches: u64,
    pub now: Timestamp,
}

impl State<'_> {
    /// What is wrong, in sentences that say what to do about it where that is not plain.
    pub fn problems(&self) -> Vec<String> {
        let Report {
            map, store, process, ..
        } = self.report;
        let mut problems = Vec::new();
        if let Health::Refusing(reason) = &self.health {
            problems.push(format!("the store refuses writes: {reason}"));
        }
        if !map.is_loaded {
            let (links, stored) = (map.links, self.stored);
            problems.push(format!("links are still being loaded: {links} of {stored} so far"));
        }
        if map.damaged > 0 {
            let damaged = map.damaged;
            problems.push(format!(
                "{damaged} links cannot be served because their records are damaged: the log names them"
            ));
        }
        if store.problems > 0 {
            let found = store.problems;
            problems.push(format!(
                "verification has found {found} damaged entries in the store: the log names them; restore them from \
                a backup"
            ));
        }
        let waiting = store.writer.waiting;
        if waiting > DISK_WAIT_MAX {
            problems.push(format!(
                "the store has been waiting for its disk for {} seconds",
                waiting.as_secs()
            ));
        }
        if let (Some(open), Some(most)) = (process.open_fds, process.max_fds)
            && open.saturating_mul(10) >= most.saturating_mul(9)
        {
            problems.push(format!(
                "{open} of {most} open files are used up: raise the limit (LimitNOFILE)"
            ));
        }
        if let Some([_, free, total]) = store.disk
            && free < (total / DISK_FREE_SHARE).clamp(DISK_FREE_LEAST_BYTES, DISK_FREE_MOST_BYTES)
        {
            let (free, total) = (free / MEBIBYTE, total / MEBIBYTE);
            problems.push(format!(
                "the disk of the store is nearly full: {free} of {total} MiB are free"
            ));
        }
        problems.extend(self.certificates().0);
        problems.extend(self.report.cluster.iter().flat_map(problems_of_cluster));
        problems
    }

    /// What is wrong with the certificates, and what will be.
    fn certificates(&self) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut hints) = (Vec::new(), Vec::new());
        if let Some(reason) = &self.report.orders.problem {
            let next = self.report.orders.next.map_or_else(String::new, |at| {
                format!(", next try at {}", UtcTime(Timestamp::from_unix(at)))
            });
            hints.push(format!("the last order of a certificate failed: {reason}{next}"));
        }
        for tls in &self.report.tls {
            let listener = tls.listener.label();
            if let Some(problem) = &tls.problem {
                problems.push(format!(
                    "the certificates of the {listener} listener cannot be used, and those of before are served: \
                    {problem}"
                ));
            }
            for of in &tls.certificates {
                let (left, life) = (of.not_after - self.now.as_unix(), of.not_after - of.not_before);
                let file = &of.file;
                if left <= 0 {
                    problems.push(format!("the certificate {file} has expired"));
                } else if left < (life / URGENT_SHARE).min(URGENT_SECONDS) {
                    problems.push(format!("the certificate {file} expires in {} hours", left / 3_600));
                } else if left < (life / SOON_SHARE).min(SOON_SECONDS) {
                    let days = left / SECONDS_IN_A_DAY;
                    hints.push(format!(
                        "the certificate {file} expires in {days} days: it should have been renewed"
                    ));
                }
                hints.extend(
                    of.faults
                        .iter()
                        .filter(|_| left > 0)
                        .map(|fault| format!("certificate {file}: {fault}")),
                );
            }
        }
        (problems, hints)
    }

    /// What is worth knowing, and no ill health.
    pub fn hints(&self) -> Vec<String> {
        let (_, mut hints) = self.certificates();
        hints.extend(self.report.cluster.iter().flat_map(hints_of_cluster));
        if self.busy_fetches > 0 {
            let busy = self.busy_fetches;
            hints.push(format!(
                "{busy} fetches were refused as too many: fetch.max_fetches, max_fetches_per_client"
            ));
        }
        if self.health == Health::ReadOnly {
            hints.push("read-only: writes are refused, as was asked for".to_owned());
            return hints;
        }
        // What an edge has, admin boxes have.
        if self
            .report
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.admin.is_none())
        {
            return hints;
        }
        let store = &self.report.store;
        match store.last_backup {
            None if store.links.iter().any(|(_, links)| *links > 0) => {
                hints.push(format!("no backup has been taken: {} backup FILE", shown::command()));
            }
            Some(at) if self.now.as_unix() - at > BACKUP_AGE_MAX_SECONDS => {
                let days = (self.now.as_unix() - at) / SECONDS_IN_A_DAY;
                let command = shown::command();
                hints.push(format!(
                    "the last backup was taken {days} days ago: {command} backup FILE"
                ));
            }
            _ => {}
        }
        hints
    }
}

fn problems_of_cluster(cluster: &ClusterReport) -> Vec<String> {
    let mut problems = Vec::new();
    let at = cluster.position;
    if let Some(reason) = &cluster.halted {
        problems.push(format!(
            "this box does not follow its cluster any more, and redirects with the links of entry {at}: {reason}"
        ));
    } else if cluster.missing() > 0 && cluster.behind > CLUSTER_WAIT_MAX {
        let (missing, seconds) = (cluster.missing(), cluster.behind.as_secs());
        problems.push(format!(
            "this box is {missing} entries behind its cluster, for {seconds} seconds"
        ));
    }
    if cluster.silent > CLUSTER_WAIT_MAX {
        let seconds = cluster.silent.as_secs();
        problems.push(format!(
            "nothing has been heard of the cluster's log for {seconds} seconds: redirects go on with the links of then"
        ));
    }
    let Some(admin) = &cluster.admin else {
        return problems;
    };
    if let (Some(reason), None) = (&admin.refused, &cluster.halted) {
        problems.push(format!("this box refuses writes: {reason}"));
    }
    let [.., different, _] = admin.boxes;
    if different > 0 {
        problems.push(format!(
            "{different} boxes have another history or other links at the same entry: {} cluster status names them",
            shown::command()
        ));
    }
    problems
}

fn hints_of_cluster(cluster: &ClusterReport) -> Vec<String> {
    let Some(admin) = &cluster.admin else {
        return Vec::new();
    };
    let mut hints = Vec::new();
    if let Some(skew) = admin
        .skew
        .filter(|skew| admin.refused.is_none() && skew.unsigned_abs() >= cluster::SKEW_WARNED)
    {
        let wrong = cluster::in_words(skew);
        hints.push(format!(
            "the clock of this box is {wrong} those of the other admin boxes: set it, best by NTP"
        ));
    }
    for (node, skew) in &admin.skewed {
        let wrong = cluster::in_words(*skew);
        hints.push(format!("the clock of box {node} is {wrong} those of the admin boxes"));
    }
    if cluster.silent > CLUSTER_WAIT_MAX {
        // They are not the ones that are silent.
        return hints;
    }
    let [_, _, halted, _, silent] = admin.boxes;
    for (number, what) in [(halted, "do not follow the log any more"), (silent, "are silent")] {
        if number > 0 {
            let command = shown::command();
            hints.push(format!(
                "{number} boxes of the cluster {what}: {command} cluster status"
            ));
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{
        AdminBoxReport, CertificateReport, Listener, MapReport, Metrics, ProcessReport, StoreReport, TlsReport,
        WriterReport,
    };

    const NOW: i64 = 1_800_000_000;

    fn well() -> Report {
        let store = StoreReport {
            is_accepting: true,
            links: [("disabled", 0), ("enabled", 3), ("deleted", 0)],
            disk: Some([1_000, 100 * 1024 * MEBIBYTE, 1_000 * 1024 * MEBIBYTE]),
            last_backup: Some(NOW - SECONDS_IN_A_DAY),
            ..StoreReport::default()
        };
        let map = MapReport {
            is_loaded: true,
            links: 3,
            ..MapReport::default()
        };
        let process = ProcessReport {
            cpu_seconds: Some(1.0),
            resident_bytes: Some(1_000),
            virtual_bytes: Some(1_000),
            open_fds: Some(100),
            max_fds: Some(1_024),
            threads: Some(4),
            started_at: 0,
        };
        Report {
            process,
            ..Metrics::default().report(store, map, 0)
        }
    }

    fn state(report: &Report, health: Health) -> (Vec<String>, Vec<String>) {
        let state = State {
            report,
            health,
            stored: 5,
            busy_fetches: 0,
            now: Timestamp::from_unix(NOW),
        };
        (state.problems(), state.hints())
    }

    #[test]
    fn working_server_is_healthy() {
        let none = (Vec::<String>::new(), Vec::<String>::new());
        assert_eq!(state(&well(), Health::Accepting), none);
        // Nobody needs a backup of nothing.
        let mut empty = well();
        (empty.store.last_backup, empty.store.links) = (None, [("disabled", 0), ("enabled", 0), ("deleted", 0)]);
        assert_eq!(state(&empty, Health::Accepting), none);
        let (problems, hints) = state(&well(), Health::ReadOnly);
        assert!(problems.is_empty() && hints[0].contains("read-only"));
    }

    #[test]
    fn each_problem_is_reported_with_its_reason() {
        let changed = |change: fn(&mut Report)| {
            let mut report = well();
            change(&mut report);
            report
        };
        let waiting = |seconds| WriterReport {
            waiting: Duration::from_secs(seconds),
            ..WriterReport::default()
        };
        for (report, problem) in [
            (
                changed(|report| report.map.is_loaded = false),
                "links are still being loaded: 3 of 5 so far",
            ),
            (changed(|report| report.map.damaged = 2), "2 links cannot be served"),
            (changed(|report| report.store.problems = 3), "found 3 damaged entries"),
            (
                Report {
                    store: StoreReport {
                        writer: waiting(11),
                        ..well().store
                    },
                    ..well()
                },
                "waiting for its disk for 11 seconds",
            ),
            (
                changed(|report| report.process.open_fds = Some(922)),
                "922 of 1024 open files",
            ),
            (
                changed(|report| report.store.disk.as_mut().unwrap()[1] = 2_000 * MEBIBYTE),
                "nearly full: 2000 of 1024000 MiB",
            ),
            (
                changed(|report| report.store.disk = Some([1, 40 * MEBIBYTE, 500 * MEBIBYTE])),
                "nearly full: 40 of 500 MiB",
            ),
        ] {
            let (problems, _) = state(&report, Health::Accepting);
            assert!(
                problems.len() == 1 && problems[0].contains(problem),
                "{problem}: {problems:?}"
            );
        }
        let (problems, _) = state(&well(), Health::Refusing("No space left".into()));
        assert_eq!(problems, ["the store refuses writes: No space left"]);
    }

    #[test]
    fn certificates_are_judged_by_what_is_left_of_their_lives() {
        const HOUR: i64 = 60 * 60;
        for (life, left, problem, hint) in [
            (90 * SECONDS_IN_A_DAY, SOON_SECONDS, "", ""),
            (90 * SECONDS_IN_A_DAY, SOON_SECONDS - 1, "", "expires in 13 days"),
            (
                90 * SECONDS_IN_A_DAY,
                URGENT_SECONDS - 1,
                "cert.pem expires in 71 hours",
                "",
            ),
            (6 * SECONDS_IN_A_DAY, 2 * SECONDS_IN_A_DAY, "", ""),
            (6 * SECONDS_IN_A_DAY, SECONDS_IN_A_DAY, "", "expires in 1 days"),
            (6 * SECONDS_IN_A_DAY, 7 * HOUR, "cert.pem expires in 7 hours", ""),
            (90 * SECONDS_IN_A_DAY, 0, "cert.pem has expired", ""),
        ] {
            let certificate = CertificateReport {
                file: "cert.pem".to_owned(),
                names: vec!["a.example".to_owned()],
                not_before: NOW + left - life,
                not_after: NOW + left,
                faults: Vec::new(),
            };
            let tls = |problem: Option<&str>, faults: &[&str]| TlsReport {
                listener: Listener::Public,
                problem: problem.map(str::to_owned),
                failures: 0,
                certificates: vec![CertificateReport {
                    faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
                    ..certificate.clone()
                }],
            };
            let judge = |tls| {
                let report = Report {
                    tls: vec![tls],
                    ..well()
                };
                state(&report, Health::Accepting)
            };
            let (problems, hints) = judge(tls(None, &[]));
            for (found, expected) in [(problems, problem), (hints, hint)] {
                let is_right = if expected.is_empty() {
                    found.is_empty()
                } else {
                    found[0].contains(expected)
                };
                assert!(is_right, "{left} of {life}: {found:?}");
            }
            let (problems, hints) = judge(tls(Some("gone"), &["no chain"]));
            assert!(
                problems[0].ends_with("those of before are served: gone"),
                "{problems:?}"
            );
            assert_eq!(
                hints
                    .last()
                    .is_some_and(|hint| hint == "certificate cert.pem: no chain"),
                left > 0
            );
        }
    }

    #[test]
    fn trouble_of_the_cluster_is_named() {
        let of = |change: fn(&mut ClusterReport, &mut AdminBoxReport)| {
            let (mut report, mut admin) = (ClusterReport::default(), AdminBoxReport::default());
            change(&mut report, &mut admin);
            report.admin = Some(admin);
            let report = Report {
                cluster: Some(report),
                ..well()
            };
            state(&report, Health::Accepting)
        };
        let none = (Vec::<String>::new(), Vec::<String>::new());
        assert_eq!(of(|_, _| {}), none);
        // Entries that come this moment are no trouble, and neither is a short silence.
        let short = of(|report, _| {
            (report.head, report.behind, report.silent) = (9, CLUSTER_WAIT_MAX, CLUSTER_WAIT_MAX);
        });
        assert_eq!(short, none);
        for (found, problem, hint) in [
            (
                of(|report, admin| {
                    (report.position, report.halted) = (7, Some("a fork".to_owned()));
                    admin.refused = Some("a fork".to_owned());
                }),
                "redirects with the links of entry 7: a fork",
                "",
            ),
            (
                of(|report, _| (report.head, report.behind) = (9, Duration::from_secs(11))),
                "this box is 9 entries behind its cluster, for 11 seconds",
                "",
            ),
            (
                of(|report, _| report.silent = Duration::from_secs(12)),
                "nothing has been heard of the cluster's log for 12 seconds",
                "",
            ),
            (
                of(|_, admin| admin.refused = Some("NATS server n1: expected".to_owned())),
                "this box refuses writes: NATS server n1: expected",
                "",
            ),
            (
                of(|_, admin| admin.boxes = [3, 0, 0, 2, 0]),
                "2 boxes have another history",
                "",
            ),
            (
                of(|_, admin| admin.boxes = [3, 5, 0, 0, 2]),
                "",
                "2 boxes of the cluster are silent",
            ),
            (
                of(|_, admin| admin.skew = Some(-1_200)),
                "",
                "the clock of this box is 1.2 s behind those",
            ),
            (
                of(|_, admin| admin.skewed = vec![("e1".to_owned(), 3_000)]),
                "",
                "the clock of box e1 is 3.0 s ahead of those",
            ),
        ] {
            for (found, expected) in [(&found.0, problem), (&found.1, hint)] {
                let is_right = match expected {
                    "" => found.is_empty(),
                    expected => found.len() == 1 && found[0].contains(expected),
                };
                assert!(is_right, "{problem}{hint}: {found:?}");
            }
        }
    }

    #[test]
    fn failed_order_is_shown_with_the_next_try() {
        let mut report = well();
        report.orders.problem = Some("the authority is down".to_owned());
        report.orders.next = Some(60);
        let (problems, hints) = state(&report, Health::Accepting);
        let hint = "the last order of a certificate failed: the authority is down, next try at 1970-01-01 00:01:00 UTC";
        assert!(problems.is_empty() && hints == [hint], "{hints:?}");
    }

    #[test]
    fn limits_of_problems_are_exact() {
        let mut report = well();
        report.process.open_fds = Some(921);
        report.store.disk = Some([1, 65 * MEBIBYTE, 500 * MEBIBYTE]);
        report.store.writer.waiting = DISK_WAIT_MAX;
        assert!(state(&report, Health::Accepting).0.is_empty());
    }

    #[test]
    fn too_many_fetches_are_a_hint_not_a_problem() {
        for health in [Health::Accepting, Health::ReadOnly] {
            let state = State {
                report: &well(),
                health,
                stored: 5,
                busy_fetches: 12,
                now: Timestamp::from_unix(NOW),
            };
            assert!(state.problems().is_empty());
            assert!(
                state.hints()[0].starts_with("12 fetches were refused"),
                "{:?}",
                state.hints()
            );
        }
    }

    #[test]
    fn missing_or_old_backup_is_a_hint() {
        for (at, hint) in [
            (None, "no backup has been taken"),
            (Some(NOW - 8 * SECONDS_IN_A_DAY), "8 days ago"),
        ] {
            let mut report = well();
            report.store.last_backup = at;
            let (problems, hints) = state(&report, Health::Accepting);
            assert!(problems.is_empty() && hints[0].contains(hint), "{hints:?}");
        }
    }
}
