//! The log on standard error: its levels, and its form for people, for programs and for the journal.

use std::fmt;
use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use crate::cli::progress::LogWriter;
use crate::config::{LogFormat, Settings};
use crate::kaltura::ACCESS_LOG;

/// Libraries that log what strangers send, who could flood the log: hickory malformed replies, rustls malformed
/// handshakes. Each with the start of its log targets, by which an operator asks for them all the same.
const QUIET: [(&str, &[&str]); 3] = [
    ("async_nats", &["async_nats"]),
    ("hickory", &["hickory_net", "hickory_proto", "hickory_resolver"]),
    ("rustls", &["rustls"]),
];

/// The levels of the log, which a reload may change.
pub(super) struct LogLevels(Handle<EnvFilter, Registry>);

impl LogLevels {
    pub(super) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter_of(settings)?);
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(|| LogWriter);
        let format = Format::default().with_target(false);
        match (settings.log_format, is_journal()) {
            (LogFormat::Text, false) => {
                let format = format.with_ansi(io::stderr().is_terminal());
                registry.with(layer.event_format(format)).init();
            }
            (LogFormat::Text, true) => {
                let format = ForJournal(format.with_ansi(false).with_level(false).without_time());
                registry.with(layer.with_ansi(false).event_format(format)).init();
            }
            (LogFormat::Json, false) => {
                let format = format.json().flatten_event(true);
                let layer = layer.fmt_fields(JsonFields::new()).event_format(format);
                registry.with(layer).init();
            }
            (LogFormat::Json, true) => {
                let format = ForJournal(format.json().flatten_event(true).without_time());
                let layer = layer.fmt_fields(JsonFields::new()).event_format(format);
                registry.with(layer).init();
            }
        }
        Ok(Self(handle))
    }

    pub(super) fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        Ok(self.0.reload(filter_of(settings)?)?)
    }
}

fn filter_of(settings: &Settings) -> anyhow::Result<EnvFilter> {
    let mut filter: EnvFilter = settings.log.parse().context("log levels")?;
    for (_, targets) in QUIET.into_iter().filter(|(name, _)| !settings.log.contains(name)) {
        for target in targets {
            filter = filter.add_directive(format!("{target}=off").parse()?);
        }
    }
    if settings.access_log.is_some() {
        // At every level: it has a setting of its own.
        filter = filter.add_directive(format!("{ACCESS_LOG}=info").parse()?);
    }
    Ok(filter)
}

/// Whether systemd has connected standard error to the journal: it names the device and inode in `JOURNAL_STREAM`.
pub(super) fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stat = rustix::fs::fstat(io::stderr());
    stat.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lines for the journal, with a priority and without a time: the journal adds it.
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        writer.write_str(&with_priority(priority, &text))
    }
}

/// Each line with its priority, from 0 to 7, as sd-daemon(3) has it.
pub(super) fn with_priority(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}
