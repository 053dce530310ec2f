//! Notifies systemd (sd_notify(3)) that tinyd serves, reloads and ends, of its status, and of its heartbeat. Without
//! `NOTIFY_SOCKET` in the environment, it does nothing.
//!
//! It has a thread of its own: no runtime waits for systemd, and a store that opens or closes slowly does not keep
//! tinyd from extending the timeout.

mod watchdog;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::cluster::{Cluster, SILENCE};
use crate::links::Links;
use crate::metrics::ClusterReport;
use crate::model::{grouped, priority};
use crate::server::systemd::watchdog::{Questions, heartbeat};
use crate::store::Health;

pub(super) use watchdog::Heartbeat;

/// How often the status is looked at, and while links are loading, told.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Afterwards, how often it is told if nothing is wrong: links come all the time.
const SETTLED_STATUS_INTERVAL: Duration = Duration::from_secs(10);
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);
/// Long enough for a busy machine.
const EXTENSION: Duration = Duration::from_secs(30);
/// How long the timeout is extended after the drain. Nothing acknowledged is lost if systemd kills tinyd then.
const ENDING_MAX: Duration = Duration::from_secs(5 * 60);
/// Checks per watchdog interval. systemd expects one heartbeat in it, so that a check may take half of it.
const WATCHDOG_PARTS: u32 = 4;

#[derive(Debug)]
pub struct ServiceManager {
    sender: Option<Sender<Event>>,
    notifier: Option<JoinHandle<()>>,
    heartbeat: Heartbeat,
}

enum Event {
    Serving(Subject),
    Reloading,
    /// With the mistake in the configuration, if any.
    Reloaded(Option<String>),
    /// With the drain time.
    Ending(Duration),
}

/// Reads the status while tinyd serves.
type Subject = Box<dyn Fn() -> Status + Send>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    text: String,
    /// What is wrong, if anything; a change is told at once.
    trouble: String,
    is_settled: bool,
}

impl ServiceManager {
    /// Connects to the manager that the environment names, if any, and extends the start timeout until
    /// [`ServiceManager::serving`].
    pub fn connect() -> io::Result<Self> {
        let (questions, heartbeat) = heartbeat();
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
            return Ok(Self {
                sender: None,
                notifier: None,
                heartbeat,
            });
        }
        let mut has_failed = false;
        let send = move |states: &[NotifyState<'_>]| {
            if let Err(error) = sd_notify::notify(states)
                && !has_failed
            {
                has_failed = true;
                tracing::warn!(%error, "cannot notify systemd");
            }
        };
        let pace = RetryTiming {
            status: STATUS_INTERVAL,
            settled_status: SETTLED_STATUS_INTERVAL,
            extension: EXTENSION_INTERVAL,
            ending: ENDING_MAX,
            watchdog: sd_notify::watchdog_enabled().map(|time| time / WATCHDOG_PARTS),
        };
        let (sender, events) = mpsc::channel();
        let notifier = Notifier::new(send, pace, questions);
        let notifier = thread::Builder::new().name("tinyd-notify".to_owned()).spawn(move || {
            priority::lower(priority::LOWEST_NICE);
            notifier.run(&events);
        })?;
        Ok(Self {
            sender: Some(sender),
            notifier: Some(notifier),
            heartbeat,
        })
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    pub fn serving(&self, links: &Arc<Links>, cluster: Option<Arc<Cluster>>) {
        let links = Arc::clone(links);
        let describe = move || {
            let mut status = status(&links);
            if let Some(cluster) = &cluster {
                status.text.push_str(&of_cluster(&cluster.report(&links)));
            }
            status
        };
        self.tell(Event::Serving(Box::new(describe)));
    }

    pub fn reloading(&self) {
        self.tell(Event::Reloading);
    }

    /// A mistake stays in the status until the next reload.
    pub fn reloaded(&self, mistake: Option<String>) {
        self.tell(Event::Reloaded(mistake));
    }

    /// Extends the stop timeout until this is dropped, which is after the last write.
    pub fn ending(&self, drain: Duration) {
        self.tell(Event::Ending(drain));
    }

    fn tell(&self, event: Event) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(event);
        }
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(notifier) = self.notifier.take() {
            // It holds the links while tinyd serves.
            let _ = notifier.join();
        }
    }
}

/// Leaves the reason for a failure in the status, which systemd shows until the next start.
pub fn failed(reason: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(&line(reason, None))]);
}

fn status(links: &Links) -> Status {
    let (index, stored) = (links.index(), links.stored());
    let count = index.links() as u64;
    let is_loaded = index.is_loaded();
    let text = if is_loaded {
        format!("serving {} links", grouped(count))
    } else {
        // Links added since the start are in the map too.
        format!("loading links: {} of {}", grouped(count.min(stored)), grouped(stored))
    };
    let trouble = match links.health() {
        Health::Accepting => String::new(),
        Health::Refusing(reason) => format!("; writes are refused: {reason}"),
        Health::ReadOnly => ", read-only".to_owned(),
    };
    Status {
        text: format!("{text}{trouble}"),
        trouble,
        is_settled: is_loaded,
    }
}

fn of_cluster(report: &ClusterReport) -> String {
    let mut text = format!("; {} box of a cluster", report.role);
    let refused = report.admin.as_ref().and_then(|admin| admin.refused.as_ref());
    if let Some(reason) = &report.halted {
        text.push_str(&format!(", does not follow it any more: {reason}"));
    } else if let Some(reason) = refused {
        text.push_str(&format!(", writes are refused: {reason}"));
    } else if report.silent > SILENCE {
        let seconds = report.silent.as_secs();
        text.push_str(&format!(", nothing heard of it for {seconds} s"));
    } else if report.behind > SILENCE {
        text.push_str(&format!(", {} entries behind", report.missing()));
    }
    text
}

/// The status in one line, with the mistake in the configuration.
fn line(status: &str, mistake: Option<&str>) -> String {
    let text = match mistake {
        Some(mistake) => format!("{status}; the last reload changed nothing: {mistake}"),
        None => status.to_owned(),
    };
    text.replace('\n', " ")
}

#[derive(Debug, Clone, Copy)]
struct RetryTiming {
    status: Duration,
    settled_status: Duration,
    extension: Duration,
    ending: Duration,
    /// `None`: no watchdog.
    watchdog: Option<Duration>,
}

enum Doing {
    Opening,
    Serving(Subject),
    Ending { until: Instant },
}

struct Notifier<S> {
    send: S,
    pace: RetryTiming,
    questions: Questions,
    doing: Doing,
    sent: String,
    trouble: String,
    /// The mistake in the configuration read last.
    mistake: Option<String>,
    next_status: Instant,
    next_settled_status: Instant,
    next_extension: Instant,
    next_watchdog: Instant,
    was_unanswered: bool,
}

impl<S: FnMut(&[NotifyState<'_>])> Notifier<S> {
    fn new(send: S, pace: RetryTiming, questions: Questions) -> Self {
        let now = Instant::now();
        Self {
            send,
            pace,
            questions,
            doing: Doing::Opening,
            sent: String::new(),
            trouble: String::new(),
            mistake: None,
            next_status: now,
            next_settled_status: now,
            next_extension: now,
            next_watchdog: now,
            was_unanswered: false,
        }
    }

    fn run(mut self, events: &Receiver<Event>) {
        (self.send)(&[NotifyState::Status("opening the store")]);
        loop {
            let pause = self.tell_what_is_due();
            match events.recv_timeout(pause) {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Serving(subject) => {
                let status = subject();
                let text = line(&status.text, self.mistake.as_deref());
                (self.send)(&[NotifyState::Ready, NotifyState::Status(&text)]);
                (self.sent, self.trouble) = (text, status.trouble);
                self.next_status = Instant::now() + self.pace.status;
                self.next_settled_status = Instant::now() + self.pace.settled_status;
                self.doing = Doing::Serving(subject);
                self.next_watchdog = Instant::now();
            }
            Event::Reloading => {
                let since = NotifyState::monotonic_usec_now().ok();
                let states = [Some(NotifyState::Reloading), since];
                (self.send)(&states.into_iter().flatten().collect::<Vec<_>>());
            }
            Event::Reloaded(mistake) => {
                self.mistake = mistake;
                // At once: an operator is waiting.
                self.next_status = Instant::now();
                self.next_settled_status = self.next_status;
                (self.send)(&[NotifyState::Ready]);
            }
            Event::Ending(drain) => {
                (self.send)(&[
                    NotifyState::Stopping,
                    NotifyState::Status("draining: redirects go on until requests in flight are done"),
                ]);
                // Drops the links.
                self.doing = Doing::Ending {
                    until: Instant::now() + drain + self.pace.ending,
                };
                self.next_extension = Instant::now();
            }
        }
    }

    /// Sends what is due, and returns how long until the next.
    fn tell_what_is_due(&mut self) -> Duration {
        let now = Instant::now();
        let due = match &self.doing {
            Doing::Opening => {
                if self.next_extension <= now {
                    (self.send)(&[extension()]);
                    self.next_extension = now + self.pace.extension;
                }
                self.next_extension
            }
            Doing::Ending { until } if *until <= now => now + self.pace.ending,
            Doing::Ending { .. } => {
                if self.next_extension <= now {
                    // Threads that have ended send no heartbeat. `ending` bounds this.
                    (self.send)(&[extension(), NotifyState::Watchdog]);
                    self.next_extension = now + self.pace.extension;
                }
                self.next_extension
            }
            Doing::Serving(subject) => {
                if self.next_status <= now {
                    let status = subject();
                    let is_due =
                        !status.is_settled || self.next_settled_status <= now || status.trouble != self.trouble;
                    let text = line(&status.text, self.mistake.as_deref());
                    if is_due && text != self.sent {
                        (self.send)(&[NotifyState::Status(&text)]);
                        (self.sent, self.trouble) = (text, status.trouble);
                    }
                    if is_due {
                        self.next_settled_status = now + self.pace.settled_status;
                    }
                    self.next_status = now + self.pace.status;
                }
                match self.pace.watchdog {
                    Some(interval) => {
                        self.watch(now, interval);
                        self.next_status.min(self.next_watchdog)
                    }
                    None => self.next_status,
                }
            }
        };
        due.saturating_duration_since(now)
    }

    /// Sends the heartbeat if all runtimes answered the last question.
    fn watch(&mut self, now: Instant, interval: Duration) {
        if self.next_watchdog > now {
            return;
        }
        self.next_watchdog = now + interval;
        let are_all_alive = self.questions.are_all_answered();
        if are_all_alive {
            (self.send)(&[NotifyState::Watchdog]);
            self.questions.ask();
        } else if !self.was_unanswered {
            tracing::error!("server thread unresponsive; withholding watchdog heartbeat");
        }
        self.was_unanswered = !are_all_alive;
    }
}

fn extension() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::AdminBoxReport;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(1);
    const NEVER: RetryTiming = RetryTiming {
        status: LONG,
        settled_status: LONG,
        extension: LONG,
        ending: LONG,
        watchdog: None,
    };

    /// A notifier whose messages the test receives.
    fn notifier(pace: RetryTiming) -> (Sender<Event>, Receiver<String>, Heartbeat) {
        let (questions, heartbeat) = heartbeat();
        let (said, hears) = mpsc::channel();
        let send = move |states: &[NotifyState<'_>]| {
            let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
            // The test may have seen enough.
            let _ = said.send(lines.join(" "));
        };
        let (sender, events) = mpsc::channel();
        thread::spawn(move || Notifier::new(send, pace, questions).run(&events));
        (sender, hears, heartbeat)
    }

    fn subject(text: &'static str) -> Event {
        Event::Serving(Box::new(move || Status {
            text: text.to_owned(),
            trouble: String::new(),
            is_settled: true,
        }))
    }

    #[test]
    fn trouble_is_in_the_status_before_the_next_interval() {
        let pace = RetryTiming { status: SHORT, ..NEVER };
        let (sender, hears, _heartbeat) = notifier(pace);
        let asked = AtomicU32::new(0);
        let describe = move || {
            let trouble = match asked.fetch_add(1, Ordering::Relaxed) {
                0..5 => "",
                _ => "; writes are refused",
            };
            Status {
                text: format!("serving{trouble}"),
                trouble: trouble.to_owned(),
                is_settled: true,
            }
        };
        sender.send(Event::Serving(Box::new(describe))).unwrap();
        let sent: Vec<_> = hears.iter().filter(|sent| sent.contains("serving")).take(2).collect();
        assert_eq!(sent, ["READY=1 STATUS=serving", "STATUS=serving; writes are refused"]);
    }

    #[test]
    fn trouble_of_the_cluster_is_in_the_status() {
        let mut report = ClusterReport {
            role: "edge",
            head: 9,
            ..ClusterReport::default()
        };
        assert_eq!(of_cluster(&report), "; edge box of a cluster");
        report.behind = SILENCE + Duration::from_secs(1);
        assert_eq!(of_cluster(&report), "; edge box of a cluster, 9 entries behind");
        report.silent = report.behind;
        assert!(of_cluster(&report).ends_with("nothing heard of it for 11 s"));
        report.admin = Some(AdminBoxReport {
            refused: Some("no quorum".to_owned()),
            ..AdminBoxReport::default()
        });
        assert!(of_cluster(&report).ends_with(", writes are refused: no quorum"));
        report.halted = Some("a fork".to_owned());
        assert!(of_cluster(&report).ends_with(", does not follow it any more: a fork"));
    }

    #[test]
    fn start_and_stop_extend_the_timeout() {
        const MORE_TIME: &str = "EXTEND_TIMEOUT_USEC=30000000";
        let pace = RetryTiming {
            extension: SHORT,
            ..NEVER
        };
        let (sender, hears, _heartbeat) = notifier(pace);
        assert_eq!(hears.recv().unwrap(), "STATUS=opening the store");
        for _ in 0..3 {
            assert_eq!(hears.recv().unwrap(), MORE_TIME);
        }
        sender.send(subject("serving")).unwrap();
        let after = hears.iter().find(|message| message != MORE_TIME);
        assert_eq!(after.unwrap(), "READY=1 STATUS=serving");
        sender.send(Event::Ending(Duration::ZERO)).unwrap();
        assert!(hears.recv().unwrap().starts_with("STOPPING=1 STATUS=draining"));
        for _ in 0..3 {
            assert_eq!(hears.recv().unwrap(), format!("{MORE_TIME} WATCHDOG=1"));
        }
        drop(sender);
        // It ends, and with it what it sends.
        assert!(hears.iter().all(|message| message.starts_with(MORE_TIME)));
    }

    #[test]
    fn extensions_at_the_end_are_bounded() {
        let pace = RetryTiming {
            extension: SHORT,
            ending: Duration::ZERO,
            ..NEVER
        };
        let (sender, hears, _heartbeat) = notifier(pace);
        sender.send(Event::Ending(Duration::ZERO)).unwrap();
        let from_the_end = hears.iter().skip_while(|message| !message.starts_with("STOPPING"));
        drop(sender);
        assert_eq!(from_the_end.count(), 1);
    }

    #[test]
    fn a_reload_says_when_it_began() {
        let (sender, hears, _heartbeat) = notifier(NEVER);
        sender.send(Event::Reloading).unwrap();
        sender.send(Event::Reloaded(None)).unwrap();
        drop(sender);
        let sent: Vec<_> = hears.iter().skip(2).collect();
        let since = sent[0].strip_prefix("RELOADING=1 MONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
        assert_eq!(sent[1..], ["READY=1"]);
    }

    #[test]
    fn invalid_configuration_stays_in_the_status() {
        let (sender, hears, _heartbeat) = notifier(NEVER);
        sender.send(subject("serving")).unwrap();
        sender
            .send(Event::Reloaded(Some("log.level:\nloud".to_owned())))
            .unwrap();
        sender.send(Event::Reloaded(None)).unwrap();
        drop(sender);
        let sent: Vec<_> = hears.iter().skip_while(|message| message != "READY=1").collect();
        assert_eq!(
            sent,
            [
                "READY=1",
                "STATUS=serving; the last reload changed nothing: log.level: loud",
                "READY=1",
                "STATUS=serving",
            ]
        );
    }

    #[test]
    fn heartbeat_needs_every_runtime() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (questions, heartbeat) = heartbeat();
        let (one, other) = (runtime(), runtime());
        let run = |runtime: &tokio::runtime::Runtime| {
            for _ in 0..3 {
                runtime.block_on(tokio::task::yield_now());
            }
        };
        for runtime in [&one, &other] {
            runtime.spawn(heartbeat.clone().run());
            run(runtime);
        }
        assert!(questions.are_all_answered());
        questions.ask();
        assert!(!questions.are_all_answered());
        run(&one);
        questions.are_all_answered();
        run(&one);
        assert!(!questions.are_all_answered(), "one has answered for both");
        run(&other);
        assert!(questions.are_all_answered());
    }

    #[test]
    fn hung_thread_withholds_the_heartbeat() {
        let pace = RetryTiming {
            watchdog: Some(Duration::ZERO),
            ..NEVER
        };
        let (sender, hears, heartbeat) = notifier(pace);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(heartbeat.run());
        // It is asked to join, and then left alone.
        runtime.block_on(tokio::task::yield_now());
        sender.send(subject("serving")).unwrap();
        let sent: Vec<_> = hears.iter().take_while(|message| message != "WATCHDOG=1").collect();
        assert_eq!(sent.last().unwrap(), "READY=1 STATUS=serving");
        // The watchdog is due whenever anything has happened.
        for _ in 0..10 {
            sender.send(Event::Reloaded(None)).unwrap();
            assert_eq!(hears.recv().unwrap(), "READY=1");
        }
        runtime.block_on(async {
            let sent = tokio::task::spawn_blocking(move || hears.recv());
            assert_eq!(sent.await.unwrap().unwrap(), "WATCHDOG=1");
        });
    }
}
