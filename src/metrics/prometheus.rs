//! How the numbers are written for Prometheus. Alone names `prometheus_client`, and the metrics.
//!
//! OpenMetrics where the client accepts it, as Prometheus does; else the older text format, which every tool reads.

mod cluster;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::metrics::calls::UNKNOWN_ACTION;
use crate::metrics::connections::ConnectionsReport;
use crate::metrics::histogram::{Distribution, NANOSECONDS_IN_A_SECOND, as_f64};
use crate::metrics::report::{CertificateReport, Report, TlsReport};
use crate::metrics::{
    ActionName, FetchOutcome, Handshake, OrderOutcome, ProcessReport, RedirectOutcome, Refusal, SessionFailure,
    StartMethod, StartOutcome,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

type Labels<'l> = &'l [(&'static str, &'l str)];

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

/// The help texts: on each line a metric and its text.
const HELP: &str = "\
tinyd_build_info The program's version; always 1.
tinyd_redirects Requests for redirects, on both listeners, by what became of them.
tinyd_redirect_duration_seconds Time from when requests for redirects were to be read, together with others that came \
    with them, until their answers had been handed to the kernel, or for unusual requests to the general HTTP server.
tinyd_clicks_dropped Clicks and previews that were not counted, because more links were used than could be written \
    down.
tinyd_fetches Fetches of destinations, for goto with proxy=true, by how they ended.
tinyd_fetches_open Fetches that are going on.
tinyd_fetched_bytes Bytes of bodies that were fetched and passed on.
tinyd_connections_accepted Connections that were accepted, by listener.
tinyd_connections_open Connections that are open, by listener.
tinyd_guessers_shut_out How often a client asked for so many unknown ids that it was refused everything until its \
    minute was over.
tinyd_refusals Connections and requests that were refused, and connections that were closed, for a reason of the \
    appliance's.
tinyd_tls_handshakes TLS handshakes that succeeded, by listener: full ones, and resumed ones, which need no certificate.
tinyd_certificate_not_before_timestamp_seconds When a certificate that is served begins to be valid, in seconds \
    since 1970.
tinyd_certificate_not_after_timestamp_seconds When a certificate that is served expires, in seconds since 1970.
tinyd_certificate_unusable Whether the files of certificates cannot be used as they are now, so that those of before \
    are served: 1 or 0.
tinyd_certificate_failures How often the files of certificates were read and could not be used.
tinyd_acme_orders Orders of certificates (ACME): those that were issued, and those that failed.
tinyd_api_calls Calls of the API by action and error code, those in a multirequest each; no code means success.
tinyd_api_call_duration_seconds Time that calls of the API took, by action.
tinyd_ks_failures Calls whose session (KS) was not accepted, by reason.
tinyd_session_starts Sessions that somebody started or tried to, by method and outcome.
tinyd_store_accepting_writes Whether the store takes writes: 1 or 0.
tinyd_store_read_only Whether the store was opened never to take writes: 1 or 0.
tinyd_store_failures How often the store has failed; each failure lasts until writes are accepted again.
tinyd_store_queued_writes Writes that wait to be taken into a transaction.
tinyd_store_batch_writes Writes in each transaction that was acknowledged.
tinyd_store_commit_duration_seconds Time it took to have a transaction on disk.
tinyd_store_checkpoint_duration_seconds Time it took to bring the store's file to where its journal was.
tinyd_store_disk_wait_seconds How long the writer has been waiting for the disk just now; 0 if it does not wait.
tinyd_store_journal_bytes Bytes in the journal that the store's file does not have yet.
tinyd_links Links in the store, by status.
tinyd_store_file_bytes Size of the store's file.
tinyd_store_disk_free_bytes Bytes that are free on the store's disk.
tinyd_store_disk_size_bytes Size of the store's disk.
tinyd_last_backup_timestamp_seconds When a backup was last taken, in seconds since 1970; missing if never.
tinyd_store_verified_timestamp_seconds When the last verification of the store ended, in seconds since 1970; missing \
    before the first has.
tinyd_store_problems Damaged or contradictory entries that verification has found in the store.
tinyd_map_loaded Whether every link of the store is in memory: 1 or 0.
tinyd_map_load_seconds Time it took to load the links into memory.
tinyd_map_links Links in memory.
tinyd_map_bytes Memory that the links take.
tinyd_search_bytes Memory that searches of the console keep beside that; 0 half an hour after the last.
tinyd_damaged_links Links that cannot be served because their records are damaged.
tinyd_cluster_role What this box does in its cluster; always 1.
tinyd_cluster_epoch Epoch of the log that this box follows.
tinyd_cluster_position The last entry of the log that this box has.
tinyd_cluster_head The last entry of the log, as far as this box knows.
tinyd_cluster_behind_entries Entries of the log that this box does not have.
tinyd_cluster_behind_seconds For how long this box has had fewer entries than the log; 0 if it has all.
tinyd_cluster_silent_seconds For how long nothing has been heard of the log.
tinyd_cluster_halted Whether this box has stopped applying entries: 1 or 0.
tinyd_cluster_clicks_waiting Clicks and previews that the stream of clicks does not have yet.
tinyd_cluster_accepting_writes Whether this admin box takes writes, as far as the log is concerned: 1 or 0.
tinyd_cluster_boxes Boxes that this admin box has heard within a day, by state.
tinyd_cluster_appends Entries that this admin box tried to append to the log, by what became of them.
tinyd_cluster_append_duration_seconds Time it took until that was known.
tinyd_cluster_clock_skew_seconds How far the clock of this admin box is ahead of those of the others; missing if none \
    is heard.
process_cpu_seconds Total user and system CPU time spent in seconds.
process_resident_memory_bytes Resident memory size in bytes.
process_virtual_memory_bytes Virtual memory size in bytes.
process_open_fds Number of open file descriptors.
process_max_fds Maximum number of open file descriptors.
process_threads Number of OS threads in the process.
process_start_time_seconds Start time of the process since unix epoch in seconds.";

fn help(metric: &str) -> &'static str {
    let of_metric = |line: &'static str| line.strip_prefix(metric)?.strip_prefix(' ');
    HELP.lines().find_map(of_metric).unwrap_or_default()
}

/// Writes one metric after the other.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn describe(&mut self, name: &'static str, kind: MetricType) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help(name), None, kind)
    }

    /// A counter, with its values by label; its samples end in `_total`.
    fn counters<'l>(
        &mut self,
        name: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Counter)?;
        let mut values = values.into_iter();
        values.try_for_each(|(value, number)| count(&mut metric, &[(label, value)], number))
    }

    fn counter(&mut self, name: &'static str, number: u64) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&number, None)
    }

    fn gauges<'l>(
        &mut self,
        name: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.describe(name, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(value, number)| {
            let labels: Labels<'_> = &[(label, value)];
            metric.encode_family(&labels)?.encode_gauge(&number)
        })
    }

    fn gauge(&mut self, name: &'static str, number: impl EncodeGaugeValue) -> fmt::Result {
        self.describe(name, MetricType::Gauge)?.encode_gauge(&number)
    }

    /// A histogram of durations, kept in nanoseconds.
    fn durations(&mut self, name: &'static str, values: &Distribution) -> fmt::Result {
        histogram(
            self.describe(name, MetricType::Histogram)?,
            values,
            NANOSECONDS_IN_A_SECOND,
        )
    }
}

/// A sample of a counter with labels.
fn count(metric: &mut MetricEncoder<'_>, labels: Labels<'_>, number: u64) -> fmt::Result {
    metric
        .encode_family(&labels)?
        .encode_counter::<NoLabelSet, _, u64>(&number, None)
}

fn histogram(mut metric: MetricEncoder<'_>, values: &Distribution, unit: f64) -> fmt::Result {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| as_f64(bound) / unit);
    let buckets: Vec<_> = values.buckets().map(|(most, count)| (bound(most), count)).collect();
    metric.encode_histogram::<NoLabelSet>(as_f64(values.sum()) / unit, values.count(), &buckets, None)
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
        to.gauges("tinyd_build_info", "version", [(self.version, 1)])?;
        self.encode_redirects(&mut to)?;
        self.encode_connections(&mut to)?;
        self.encode_tls(&mut to)?;
        self.encode_calls(&mut to)?;
        self.encode_store(&mut to)?;
        self.encode_map(&mut to)?;
        if let Some(cluster) = &self.cluster {
            cluster.encode(&mut to)?;
        }
        self.process.encode(&mut to)
    }
}

impl Report {
    fn encode_redirects(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.counters("tinyd_redirects", "outcome", RedirectOutcome::labelled(self.redirects))?;
        to.durations("tinyd_redirect_duration_seconds", &self.redirect_durations)?;
        to.counter("tinyd_clicks_dropped", self.store.dropped_clicks)?;
        to.counters(
            "tinyd_fetches",
            "outcome",
            FetchOutcome::labelled(self.fetches.outcomes),
        )?;
        to.gauge("tinyd_fetches_open", self.fetches.open)?;
        to.counter("tinyd_fetched_bytes", self.fetches.bytes)
    }

    fn encode_connections(&self, to: &mut Writer<'_>) -> fmt::Result {
        let by_listener = |number: fn(&ConnectionsReport) -> u64| {
            self.connections.iter().map(move |of| (of.listener.label(), number(of)))
        };
        to.counters("tinyd_connections_accepted", "listener", by_listener(|of| of.accepted))?;
        to.gauges("tinyd_connections_open", "listener", by_listener(|of| of.open))?;
        let shut_outs = self.connections.iter().map(|of| of.shut_outs).sum();
        to.counter("tinyd_guessers_shut_out", shut_outs)?;
        let mut metric = to.describe("tinyd_refusals", MetricType::Counter)?;
        for of in &self.connections {
            for (reason, number) in Refusal::labelled(of.refused) {
                let labels = [("listener", of.listener.label()), ("reason", reason)];
                count(&mut metric, &labels, number)?;
            }
        }
        let mut metric = to.describe("tinyd_tls_handshakes", MetricType::Counter)?;
        for of in &self.connections {
            for (kind, number) in Handshake::labelled(of.handshakes) {
                count(
                    &mut metric,
                    &[("listener", of.listener.label()), ("kind", kind)],
                    number,
                )?;
            }
        }
        to.counters(
            "tinyd_acme_orders",
            "result",
            OrderOutcome::labelled(self.orders.ended()),
        )
    }

    /// Nothing without TLS.
    fn encode_tls(&self, to: &mut Writer<'_>) -> fmt::Result {
        if self.tls.is_empty() {
            return Ok(());
        }
        self.encode_certificates(to, "tinyd_certificate_not_before_timestamp_seconds", |of| of.not_before)?;
        self.encode_certificates(to, "tinyd_certificate_not_after_timestamp_seconds", |of| of.not_after)?;
        let unusable = |of: &TlsReport| (of.listener.label(), u64::from(of.problem.is_some()));
        to.gauges("tinyd_certificate_unusable", "listener", self.tls.iter().map(unusable))?;
        let failures = |of: &TlsReport| (of.listener.label(), of.failures);
        to.counters("tinyd_certificate_failures", "listener", self.tls.iter().map(failures))
    }

    fn encode_certificates(
        &self,
        to: &mut Writer<'_>,
        name: &'static str,
        number: fn(&CertificateReport) -> i64,
    ) -> fmt::Result {
        let mut metric = to.describe(name, MetricType::Gauge)?;
        for tls in &self.tls {
            for of in &tls.certificates {
                let listener = tls.listener.label();
                let labels: Labels<'_> = &[("listener", listener), ("file", &of.file), ("name", of.name())];
                metric.encode_family(&labels)?.encode_gauge(&number(of))?;
            }
        }
        Ok(())
    }

    fn encode_calls(&self, to: &mut Writer<'_>) -> fmt::Result {
        let mut metric = to.describe("tinyd_api_calls", MetricType::Counter)?;
        for action in &self.actions {
            let name = label_of(action.name);
            for (code, number) in &action.codes {
                count(&mut metric, &[("action", &name), ("code", code)], *number)?;
            }
        }
        let mut metric = to.describe("tinyd_api_call_duration_seconds", MetricType::Histogram)?;
        for action in self.actions.iter().filter(|action| action.durations.count() > 0) {
            let labels: Labels<'_> = &[("action", &label_of(action.name))];
            let metric = metric.encode_family(&labels)?;
            histogram(metric, &action.durations, NANOSECONDS_IN_A_SECOND)?;
        }
        to.counters(
            "tinyd_ks_failures",
            "reason",
            SessionFailure::labelled(self.session_failures),
        )?;
        let mut metric = to.describe("tinyd_session_starts", MetricType::Counter)?;
        for (method, outcomes) in StartMethod::labelled(self.session_starts) {
            for (outcome, number) in StartOutcome::labelled(outcomes) {
                count(&mut metric, &[("method", method), ("outcome", outcome)], number)?;
            }
        }
        Ok(())
    }

    fn encode_store(&self, to: &mut Writer<'_>) -> fmt::Result {
        let (store, writer) = (&self.store, &self.store.writer);
        to.gauge("tinyd_store_accepting_writes", u64::from(store.is_accepting))?;
        to.gauge("tinyd_store_read_only", u64::from(store.is_read_only))?;
        to.counter("tinyd_store_failures", writer.failures)?;
        to.gauge("tinyd_store_queued_writes", store.queued)?;
        let metric = to.describe("tinyd_store_batch_writes", MetricType::Histogram)?;
        histogram(metric, &writer.batch_sizes, 1.0)?;
        to.durations("tinyd_store_commit_duration_seconds", &writer.commits)?;
        to.durations("tinyd_store_checkpoint_duration_seconds", &writer.checkpoints)?;
        to.gauge("tinyd_store_disk_wait_seconds", writer.waiting.as_secs_f64())?;
        to.gauge("tinyd_store_journal_bytes", writer.journal_bytes)?;
        to.gauges("tinyd_links", "status", store.links)?;
        if let Some([file, free, total]) = store.disk {
            to.gauge("tinyd_store_file_bytes", file)?;
            to.gauge("tinyd_store_disk_free_bytes", free)?;
            to.gauge("tinyd_store_disk_size_bytes", total)?;
        }
        if let Some(at) = store.last_backup {
            to.gauge("tinyd_last_backup_timestamp_seconds", at)?;
        }
        if let Some(at) = store.verified {
            to.gauge("tinyd_store_verified_timestamp_seconds", at)?;
        }
        to.gauge("tinyd_store_problems", store.problems)
    }

    fn encode_map(&self, to: &mut Writer<'_>) -> fmt::Result {
        let map = &self.map;
        to.gauge("tinyd_map_loaded", u64::from(map.is_loaded))?;
        if let Some(time) = map.load_time {
            to.gauge("tinyd_map_load_seconds", time.as_secs_f64())?;
        }
        to.gauge("tinyd_map_links", map.links)?;
        to.gauge("tinyd_map_bytes", map.bytes)?;
        to.gauge("tinyd_search_bytes", map.search_bytes)?;
        to.gauge("tinyd_damaged_links", map.damaged)
    }
}

impl ProcessReport {
    /// What is not known is left out.
    fn encode(&self, to: &mut Writer<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let mut metric = to.describe("process_cpu_seconds", MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        for (name, value) in [
            ("process_resident_memory_bytes", self.resident_bytes),
            ("process_virtual_memory_bytes", self.virtual_bytes),
            ("process_open_fds", self.open_fds),
            ("process_max_fds", self.max_fds),
            ("process_threads", self.threads),
        ] {
            if let Some(value) = value {
                to.gauge(name, value)?;
            }
        }
        to.gauge("process_start_time_seconds", self.started_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::report::{MapReport, StoreReport};
    use crate::metrics::{AdminBoxReport, ClusterReport};

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
    fn each_metric_has_a_help_text() {
        let mut report = report();
        (report.store.disk, report.store.last_backup) = (Some([1, 2, 3]), Some(4));
        (report.store.verified, report.map.load_time) = (Some(5), Some(Duration::from_secs(6)));
        let admin = AdminBoxReport {
            skew: Some(-1_500),
            ..AdminBoxReport::default()
        };
        report.cluster = Some(ClusterReport {
            role: "admin",
            admin: Some(admin),
            ..ClusterReport::default()
        });
        let text = Exposition::Text.render(report);
        let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        for help in helps {
            assert!(
                help.split_once(' ').is_some_and(|(_, text)| text.ends_with('.')),
                "{help}"
            );
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
