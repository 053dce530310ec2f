//! How the numbers are written for Prometheus. Alone names `prometheus_client`, and the metrics.
//!
//! OpenMetrics where the client accepts it, as Prometheus does; else the older text format, which every tool reads.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::metrics::calls::UNKNOWN_ACTION;
use crate::metrics::histogram::{Distribution, as_f64};
use crate::metrics::report::Report;
use crate::metrics::{ActionName, FetchOutcome, ProcessReport, RedirectOutcome, Refusal, SessionFailure, StartFailure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

type Labels<'l> = &'l [(&'static str, &'l str)];

const NANOSECONDS_IN_A_SECOND: f64 = 1e9;

impl Exposition {
    /// The format that an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub fn render(self, report: Report) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(report));
        let mut rendered = String::new();
        // Writing into memory does not fail.
        let _ = text::encode(&mut rendered, &registry);
        match self {
            Self::OpenMetrics => rendered,
            Self::Text => older(&rendered),
        }
    }
}

/// The older format: a counter is described by the name that its samples have, and nothing marks the end.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len());
    let mut lines = text.lines().filter(|line| *line != "# EOF").peekable();
    while let Some(line) = lines.next() {
        let of_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let described = line
            .strip_prefix("# HELP ")
            .filter(|_| lines.peek().is_some_and(|next| of_counter(next)));
        if let Some((name, help)) = described.and_then(|help| help.split_once(' ')) {
            older.push_str(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n"));
            // The type has been written.
            let _ = lines.next();
        } else {
            older.push_str(line);
            older.push('\n');
        }
    }
    older
}

/// Writes one metric after the other.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn describe(
        &mut self,
        name: &'static str,
        kind: MetricType,
        help: &'static str,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// A counter, with its values by label; its samples end in `_total`.
    fn counters<'l>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Counter, help)?;
        values.into_iter().try_for_each(|(value, count)| {
            let labels: Labels<'_> = &[(label, value)];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)
        })
    }

    fn counter(&mut self, name: &'static str, help: &'static str, count: u64) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Counter, help)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    fn gauges<'l>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Gauge, help)?;
        values.into_iter().try_for_each(|(value, number)| {
            let labels: Labels<'_> = &[(label, value)];
            metric.encode_family(&labels)?.encode_gauge(&number)
        })
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, number: impl EncodeGaugeValue) -> fmt::Result {
        self.describe(name, MetricType::Gauge, help)?.encode_gauge(&number)
    }

    /// A histogram of durations, kept in nanoseconds.
    fn durations(&mut self, name: &'static str, help: &'static str, durations: &Distribution) -> fmt::Result {
        let metric = self.describe(name, MetricType::Histogram, help)?;
        histogram(metric, durations, NANOSECONDS_IN_A_SECOND)
    }
}

fn histogram(mut metric: MetricEncoder<'_>, values: &Distribution, unit: f64) -> fmt::Result {
    let buckets = values
        .buckets()
        .map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| as_f64(bound) / unit), count));
    let buckets: Vec<_> = buckets.collect();
    metric.encode_histogram::<NoLabelSet>(as_f64(values.sum()) / unit, values.count(), &buckets, None)
}

fn zip<const N: usize>(labels: [&'static str; N], values: [u64; N]) -> impl Iterator<Item = (&'static str, u64)> {
    labels.into_iter().zip(values)
}

fn label_of(action: ActionName) -> String {
    if action == UNKNOWN_ACTION {
        return "unknown".to_owned();
    }
    let (service, action) = action;
    format!("{service}.{action}")
}

impl Collector for Report {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer(encoder);
        self.encode_build(&mut to)?;
        self.encode_redirects(&mut to)?;
        self.encode_fetches(&mut to)?;
        self.encode_connections(&mut to)?;
        self.encode_calls(&mut to)?;
        self.encode_store(&mut to)?;
        self.encode_map(&mut to)?;
        self.process.encode(&mut to)
    }
}

impl Report {
    fn encode_build(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.gauges(
            "tinyd_build_info",
            "The program's version; always 1.",
            "version",
            [(self.version, 1)],
        )
    }

    fn encode_redirects(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.counters(
            "tinyd_redirects",
            "Requests for redirects, on both listeners, by what became of them.",
            "outcome",
            zip(RedirectOutcome::ALL.map(RedirectOutcome::label), self.redirects),
        )?;
        to.durations(
            "tinyd_redirect_duration_seconds",
            "Time from when requests for redirects had been read, together with others that came with them, \
             until their \
             answers had been handed to the kernel, or for unusual requests to the general HTTP server.",
            &self.redirect_durations,
        )?;
        to.counter(
            "tinyd_clicks_dropped",
            "Clicks and previews that were not counted, because more links were used than could be written down.",
            self.store.dropped_clicks,
        )
    }

    fn encode_fetches(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.counters(
            "tinyd_fetches",
            "Fetches of destinations, for goto with proxy=true, by how they ended.",
            "outcome",
            zip(FetchOutcome::ALL.map(FetchOutcome::label), self.fetches.outcomes),
        )?;
        to.gauge("tinyd_fetches_open", "Fetches that are going on.", self.fetches.open)?;
        to.counter(
            "tinyd_fetched_bytes",
            "Bytes of bodies that were fetched and passed on.",
            self.fetches.bytes,
        )
    }

    fn encode_connections(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.counters(
            "tinyd_connections_accepted",
            "Connections that were accepted, by listener.",
            "listener",
            self.connections.iter().map(|of| (of.listener.label(), of.accepted)),
        )?;
        to.gauges(
            "tinyd_connections_open",
            "Connections that are open, by listener.",
            "listener",
            self.connections.iter().map(|of| (of.listener.label(), of.open)),
        )?;
        to.counter(
            "tinyd_guessers_shut_out",
            "How often a client asked for so many unknown ids that it was refused everything until its minute was \
            over.",
            self.connections.iter().map(|of| of.shut_outs).sum(),
        )?;
        let mut metric = to.describe(
            "tinyd_refusals",
            MetricType::Counter,
            "Connections and requests that were refused, and connections that were closed, for a reason of the \
            appliance's.",
        )?;
        for of in &self.connections {
            for (reason, count) in zip(Refusal::ALL.map(Refusal::label), of.refused) {
                let labels: Labels<'_> = &[("listener", of.listener.label()), ("reason", reason)];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_calls(&self, to: &mut Writer<'_>) -> fmt::Result {
        let actions = self.actions.iter().map(|action| (label_of(action.name), action));
        let actions: Vec<_> = actions.collect();
        let mut metric = to.describe(
            "tinyd_api_calls",
            MetricType::Counter,
            "Calls of the API by action and error code, those in a multirequest each; no code means success.",
        )?;
        for (name, action) in &actions {
            for (code, count) in &action.codes {
                let labels: Labels<'_> = &[("action", name), ("code", code)];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let mut metric = to.describe(
            "tinyd_api_call_duration_seconds",
            MetricType::Histogram,
            "Time that calls of the API took, by action.",
        )?;
        for (name, action) in actions.iter().filter(|(_, action)| action.durations.count() > 0) {
            let labels: Labels<'_> = &[("action", name)];
            histogram(
                metric.encode_family(&labels)?,
                &action.durations,
                NANOSECONDS_IN_A_SECOND,
            )?;
        }
        to.counters(
            "tinyd_ks_failures",
            "Calls whose session (KS) was not accepted, by reason.",
            "reason",
            zip(SessionFailure::ALL.map(SessionFailure::label), self.session_failures),
        )?;
        to.counters(
            "tinyd_session_start_failures",
            "Sessions that session.start refused to start, by reason.",
            "reason",
            zip(StartFailure::ALL.map(StartFailure::label), self.start_failures),
        )
    }

    fn encode_store(&self, to: &mut Writer<'_>) -> fmt::Result {
        let store = &self.store;
        to.gauge(
            "tinyd_store_accepting_writes",
            "Whether the store takes writes: 1 or 0.",
            u64::from(store.is_accepting),
        )?;
        to.gauge(
            "tinyd_store_read_only",
            "Whether the store was opened never to take writes: 1 or 0.",
            u64::from(store.is_read_only),
        )?;
        to.counter(
            "tinyd_store_failures",
            "How often the store has failed; each failure lasts until writes are accepted again.",
            store.writer.failures,
        )?;
        to.gauge(
            "tinyd_store_queued_writes",
            "Writes that wait to be taken into a transaction.",
            store.queued,
        )?;
        let metric = to.describe(
            "tinyd_store_batch_writes",
            MetricType::Histogram,
            "Writes in each transaction that was acknowledged.",
        )?;
        histogram(metric, &store.writer.batch_sizes, 1.0)?;
        to.durations(
            "tinyd_store_commit_duration_seconds",
            "Time it took to have a transaction on disk.",
            &store.writer.commits,
        )?;
        to.durations(
            "tinyd_store_checkpoint_duration_seconds",
            "Time it took to bring the store's file to where its journal was.",
            &store.writer.checkpoints,
        )?;
        to.gauge(
            "tinyd_store_disk_wait_seconds",
            "How long the writer has been waiting for the disk just now; 0 if it does not wait.",
            seconds(store.writer.waiting),
        )?;
        to.gauge(
            "tinyd_store_journal_bytes",
            "Bytes in the journal that the store's file does not have yet.",
            store.writer.journal_bytes,
        )?;
        to.gauges("tinyd_links", "Links in the store, by status.", "status", store.links)?;
        if let Some([file, free, total]) = store.disk {
            to.gauge("tinyd_store_file_bytes", "Size of the store's file.", file)?;
            to.gauge(
                "tinyd_store_disk_free_bytes",
                "Bytes that are free on the store's disk.",
                free,
            )?;
            to.gauge("tinyd_store_disk_size_bytes", "Size of the store's disk.", total)?;
        }
        if let Some(at) = store.last_backup {
            to.gauge(
                "tinyd_last_backup_timestamp_seconds",
                "When a backup was last taken, in seconds since 1970; missing if never.",
                at,
            )?;
        }
        if let Some(at) = store.verified {
            to.gauge(
                "tinyd_store_verified_timestamp_seconds",
                "When the last verification of the store ended, in seconds since 1970; missing before the first has.",
                at,
            )?;
        }
        to.gauge(
            "tinyd_store_problems",
            "Damaged or contradictory entries that verification has found in the store.",
            store.problems,
        )
    }

    fn encode_map(&self, to: &mut Writer<'_>) -> fmt::Result {
        let map = &self.map;
        to.gauge(
            "tinyd_map_loaded",
            "Whether every link of the store is in memory: 1 or 0.",
            u64::from(map.is_loaded),
        )?;
        if let Some(time) = map.load_time {
            to.gauge(
                "tinyd_map_load_seconds",
                "Time it took to load the links into memory.",
                seconds(time),
            )?;
        }
        to.gauge("tinyd_map_links", "Links in memory.", map.links)?;
        to.gauge("tinyd_map_bytes", "Memory that the links take.", map.bytes)?;
        to.gauge(
            "tinyd_damaged_links",
            "Links that cannot be served because their records are damaged.",
            map.damaged,
        )
    }
}

impl ProcessReport {
    /// What is not known is left out.
    fn encode(&self, to: &mut Writer<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let mut metric = to.describe(
                "process_cpu_seconds",
                MetricType::Counter,
                "Total user and system CPU time spent in seconds.",
            )?;
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                self.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
                self.virtual_bytes,
            ),
            ("process_open_fds", "Number of open file descriptors.", self.open_fds),
            (
                "process_max_fds",
                "Maximum number of open file descriptors.",
                self.max_fds,
            ),
            ("process_threads", "Number of OS threads in the process.", self.threads),
        ] {
            if let Some(value) = value {
                to.gauge(name, help, value)?;
            }
        }
        to.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            self.started_at,
        )
    }
}

const fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::report::{MapReport, StoreReport};

    fn report() -> Report {
        let metrics = Metrics::default();
        metrics
            .redirects
            .count(RedirectOutcome::Found, Duration::from_nanos(1_500));
        metrics
            .calls
            .count(("session", "start"), "START_SESSION_ERROR", Duration::from_millis(1));
        metrics.report(StoreReport::default(), MapReport::default(), 1_700_000_000)
    }

    #[test]
    fn format_follows_the_accept_header() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Exposition::accepted(prometheus), Exposition::OpenMetrics);
        for other in ["", "*/*", "text/plain"] {
            assert_eq!(Exposition::accepted(other), Exposition::Text);
        }
    }

    #[test]
    fn dropped_clicks_are_exposed() {
        let mut report = report();
        report.store.dropped_clicks = 7;
        for format in [Exposition::Text, Exposition::OpenMetrics] {
            let text = format.render(report.clone());
            assert!(text.contains("\ntinyd_clicks_dropped_total 7\n"), "{text}");
        }
    }

    #[test]
    fn open_and_ended_fetches_are_exposed() {
        let metrics = Metrics::default();
        let mut fetch = metrics.fetches.begin();
        fetch.passed_on(4_711);
        fetch.set(FetchOutcome::TimedOut);
        let render = || {
            let report = metrics.report(StoreReport::default(), MapReport::default(), 0);
            Exposition::Text.render(report)
        };
        let open = render();
        drop(fetch);
        let ended = render();
        for (text, sample) in [
            (&open, "tinyd_fetches_open 1"),
            (&open, "tinyd_fetches_total{outcome=\"timed_out\"} 0"),
            (&open, "tinyd_fetched_bytes_total 4711"),
            (&ended, "tinyd_fetches_open 0"),
            (&ended, "tinyd_fetches_total{outcome=\"timed_out\"} 1"),
            (&ended, "tinyd_fetches_total{outcome=\"complete\"} 0"),
        ] {
            assert!(text.contains(&format!("\n{sample}\n")), "{sample}: {text}");
        }
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let (open, older) = (
            Exposition::OpenMetrics.render(report()),
            Exposition::Text.render(report()),
        );
        let samples = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.starts_with("process_"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(&open), samples(&older));
        assert!(open.ends_with("\n# EOF\n") && !older.contains("# EOF"));
        assert!(open.contains("# TYPE tinyd_redirects counter\n"));
        assert!(older.contains("# TYPE tinyd_redirects_total counter\n"));
        for text in [open, older] {
            assert!(
                text.contains("\ntinyd_redirects_total{outcome=\"found\"} 1\n"),
                "{text}"
            );
            assert!(text.contains("\ntinyd_redirects_total{outcome=\"hop\"} 0\n"), "{text}");
            assert!(
                text.contains("\ntinyd_redirect_duration_seconds_sum 0.0000015\n"),
                "{text}"
            );
            assert!(
                text.contains("\ntinyd_redirect_duration_seconds_bucket{le=\"0.000001024\"} 0\n"),
                "{text}"
            );
            assert!(
                text.contains("\ntinyd_redirect_duration_seconds_bucket{le=\"0.000002048\"} 1\n"),
                "{text}"
            );
            assert!(
                text.contains("\ntinyd_redirect_duration_seconds_bucket{le=\"+Inf\"} 1\n"),
                "{text}"
            );
            let calls = "\ntinyd_api_calls_total{action=\"session.start\",code=\"START_SESSION_ERROR\"} 1\n";
            assert!(text.contains(calls), "{text}");
        }
    }
}
