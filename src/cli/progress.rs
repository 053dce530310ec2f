//! Progress bars on standard error, if that is a terminal.

use std::io::{self, IsTerminal as _, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::store::Progress;

/// How often a bar moves although nothing has happened.
const TICK: Duration = Duration::from_millis(200);

/// All bars, so that log lines do not run into them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    MultiProgress::with_draw_target(target)
});

/// A bar for so many things, named in the plural, until it is dropped. Without a total, it shows how many there were.
pub(super) fn bar(what: &'static str, of: &str, total: Option<u64>) -> ProgressBar {
    let template = match (total, of) {
        (Some(_), "bytes") => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        (Some(_), _) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta} left",
        (None, "bytes") => "{msg} {spinner} {bytes} {bytes_per_sec}",
        (None, _) => "{msg} {spinner} {human_pos} {per_sec}",
    };
    let bar = BARS.add(total.map_or_else(ProgressBar::new_spinner, ProgressBar::new));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// The bars of work that has several parts, one after the other.
#[derive(Default)]
pub(super) struct Bars(Option<ProgressBar>);

impl Progress for Bars {
    fn begin(&mut self, what: &'static str, total: u64) {
        self.0 = None;
        self.0 = Some(bar(what, "entries", Some(total)));
    }

    fn advance(&mut self, parts: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(parts);
        }
    }
}

/// Standard error for log lines: the bars make way.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
