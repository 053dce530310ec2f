//! Notifies systemd (sd_notify(3)) that tinyd serves, reloads and ends, of its status, and of its heartbeat. Without
//! `NOTIFY_SOCKET` in the environment, it does nothing.
//!
//! A thread of its own does it, so that no runtime waits for systemd, and a store that takes long to open or to close
//! does not keep tinyd from asking for more time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::links::Links;
use crate::model::grouped;
use crate::store::Health;

/// Time between two status messages while links are loaded.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The same afterwards, at least.
const SETTLED_STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How often more time is asked for.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);
/// How much, so that a busy machine does not miss it.
const EXTENSION: Duration = Duration::from_secs(30);
/// For how long more time is asked for at the end, after requests in flight have had theirs. To be killed after that
/// loses nothing that was acknowledged.
const ENDING_MAX: Duration = Duration::from_secs(5 * 60);
/// Checks of all threads in one watchdog interval. systemd must get one heartbeat in it, so that one check may remain
/// without a response for half of it.
const WATCHDOG_PARTS: u32 = 4;

#[derive(Debug)]
pub struct ServiceManager {
    sender: Option<Sender<Event>>,
    teller: Option<JoinHandle<()>>,
    heartbeat: Heartbeat,
}

#[derive(Debug)]
enum Event {
    Serving(Subject),
    Reloading,
    /// With what is wrong, if the configuration is.
    Reloaded(Option<String>),
    /// And how long requests in flight have.
    Ending(Duration),
}

/// What is told about while it serves.
struct Subject(Box<dyn Fn() -> Status + Send>);

impl std::fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Subject")
    }
}

/// A line for people, and whether it changes seldom from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    text: String,
    is_settled: bool,
}

impl ServiceManager {
    /// Tells the manager that names itself in the environment, if one does, and asks it for time until
    /// [`ServiceManager::serving`] is called.
    pub fn connect() -> io::Result<Self> {
        let (questions, heartbeat) = heartbeat();
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
            return Ok(Self {
                sender: None,
                teller: None,
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
        let teller = Notifier::new(send, pace, questions);
        let teller = thread::Builder::new()
            .name("tinyd-notify".to_owned())
            .spawn(move || teller.run(&events))?;
        Ok(Self {
            sender: Some(sender),
            teller: Some(teller),
            heartbeat,
        })
    }

    /// What each thread answers for as long as it is alive.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// The listeners serve: links that are not in memory yet are looked up in the store.
    pub fn serving(&self, links: &Arc<Links>) {
        let links = Arc::clone(links);
        self.tell(Event::Serving(Subject(Box::new(move || status(&links)))));
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        self.tell(Event::Reloading);
    }

    /// It has been, or was wrong and has changed nothing; then the status says so until the next reload.
    pub fn reloaded(&self, mistake: Option<String>) {
        self.tell(Event::Reloaded(mistake));
    }

    /// The end has begun. More time is asked for until this is dropped, which is after the last write.
    pub fn ending(&self, drain: Duration) {
        self.tell(Event::Ending(drain));
    }

    fn tell(&self, event: Event) {
        if let Some(sender) = &self.sender {
            // The thread ends after this only.
            let _ = sender.send(event);
        }
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(teller) = self.teller.take() {
            // It holds the links while they are served; the last holder waits for the writer.
            let _ = teller.join();
        }
    }
}

/// What is being done with the links.
fn status(links: &Links) -> Status {
    let (index, stored) = (links.index(), links.stored());
    let count = index.links() as u64;
    let is_loaded = index.is_loaded();
    let mut text = if is_loaded {
        format!("serving {} links", grouped(count))
    } else {
        // What was added since the start is in the map too.
        format!("loading links: {} of {}", grouped(count.min(stored)), grouped(stored))
    };
    match links.health() {
        Health::Accepting => {}
        Health::Refusing(reason) => text.push_str(&format!("; writes are refused: {reason}")),
        Health::ReadOnly => text.push_str(", read-only"),
    }
    Status {
        text,
        is_settled: is_loaded,
    }
}

/// A status with what is wrong in the configuration: one line, whatever the reasons say.
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
    /// `None`: the manager does not watch.
    watchdog: Option<Duration>,
}

enum Doing {
    Opening,
    Serving(Subject),
    Ending { until: Instant },
}

/// Tells the manager, on a thread of its own.
struct Notifier<S> {
    send: S,
    pace: RetryTiming,
    questions: Questions,
    doing: Doing,
    told: String,
    /// What is wrong in the configuration that was read last.
    mistake: Option<String>,
    next_status: Instant,
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
            told: String::new(),
            mistake: None,
            next_status: now,
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
                let text = line(&(subject.0)().text, self.mistake.as_deref());
                (self.send)(&[NotifyState::Ready, NotifyState::Status(&text)]);
                self.told = text;
                self.next_status = Instant::now() + self.pace.status;
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
                // At once: the operator is looking.
                self.next_status = Instant::now();
                (self.send)(&[NotifyState::Ready]);
            }
            Event::Ending(drain) => {
                (self.send)(&[
                    NotifyState::Stopping,
                    NotifyState::Status("ending: finishing what is in flight"),
                ]);
                // Releases the links, so that the last holder waits for the writer.
                self.doing = Doing::Ending {
                    until: Instant::now() + drain + self.pace.ending,
                };
                self.next_extension = Instant::now();
            }
        }
    }

    /// Tells what is due, and returns how long nothing else is.
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
                    // Threads that have ended answer nothing. What keeps this from lasting for ever is the limit.
                    (self.send)(&[extension(), NotifyState::Watchdog]);
                    self.next_extension = now + self.pace.extension;
                }
                self.next_extension
            }
            Doing::Serving(subject) => {
                if self.next_status <= now {
                    let status = (subject.0)();
                    let text = line(&status.text, self.mistake.as_deref());
                    if text != self.told {
                        (self.send)(&[NotifyState::Status(&text)]);
                        self.told = text;
                    }
                    let interval = if status.is_settled {
                        self.pace.settled_status
                    } else {
                        self.pace.status
                    };
                    self.next_status = now + interval;
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

    /// Tells that all threads are alive, if each has answered the last question.
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

/// One question whether everybody is alive, and how many have answered it.
#[derive(Debug, Default)]
struct Question {
    answers: AtomicUsize,
}

#[derive(Debug)]
struct Questions {
    last: watch::Sender<Arc<Question>>,
    members: Arc<AtomicUsize>,
}

/// The heartbeat of a runtime. A runtime whose threads all hang, in a lock for instance, has none.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat {
    last: watch::Receiver<Arc<Question>>,
    members: Arc<AtomicUsize>,
}

fn heartbeat() -> (Questions, Heartbeat) {
    let (sender, receiver) = watch::channel(Arc::default());
    let members = Arc::default();
    let questions = Questions {
        last: sender,
        members: Arc::clone(&members),
    };
    let heartbeat = Heartbeat {
        last: receiver,
        members,
    };
    (questions, heartbeat)
}

impl Questions {
    fn ask(&self) {
        self.last.send_replace(Arc::default());
    }

    fn are_all_answered(&self) -> bool {
        self.last.borrow().answers.load(Ordering::Relaxed) >= self.members.load(Ordering::Relaxed)
    }
}

impl Heartbeat {
    /// Answers each question once, for the runtime that this runs on, until nobody asks any more.
    pub(super) async fn run(mut self) {
        self.members.fetch_add(1, Ordering::Relaxed);
        loop {
            self.last.borrow_and_update().answers.fetch_add(1, Ordering::Relaxed);
            if self.last.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn teller(pace: RetryTiming) -> (Sender<Event>, Receiver<String>, Heartbeat) {
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
        Event::Serving(Subject(Box::new(move || Status {
            text: text.to_owned(),
            is_settled: true,
        })))
    }

    #[test]
    fn start_and_stop_extend_the_timeout() {
        const MORE_TIME: &str = "EXTEND_TIMEOUT_USEC=30000000";
        let pace = RetryTiming {
            extension: SHORT,
            ..NEVER
        };
        let (sender, hears, _heartbeat) = teller(pace);
        assert_eq!(hears.recv().unwrap(), "STATUS=opening the store");
        for _ in 0..3 {
            assert_eq!(hears.recv().unwrap(), MORE_TIME);
        }
        sender.send(subject("serving")).unwrap();
        let after = hears.iter().find(|message| message != MORE_TIME);
        assert_eq!(after.unwrap(), "READY=1 STATUS=serving");
        sender.send(Event::Ending(Duration::ZERO)).unwrap();
        assert!(hears.recv().unwrap().starts_with("STOPPING=1 STATUS=ending"));
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
        let (sender, hears, _heartbeat) = teller(pace);
        sender.send(Event::Ending(Duration::ZERO)).unwrap();
        let from_the_end = hears.iter().skip_while(|message| !message.starts_with("STOPPING"));
        drop(sender);
        assert_eq!(from_the_end.count(), 1);
    }

    #[test]
    fn a_reload_says_when_it_began() {
        let (sender, hears, _heartbeat) = teller(NEVER);
        sender.send(Event::Reloading).unwrap();
        sender.send(Event::Reloaded(None)).unwrap();
        drop(sender);
        let told: Vec<_> = hears.iter().skip(2).collect();
        let since = told[0].strip_prefix("RELOADING=1 MONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
        assert_eq!(told[1..], ["READY=1"]);
    }

    #[test]
    fn invalid_configuration_stays_in_the_status() {
        let (sender, hears, _heartbeat) = teller(NEVER);
        sender.send(subject("serving")).unwrap();
        sender
            .send(Event::Reloaded(Some("log.level:\nloud".to_owned())))
            .unwrap();
        sender.send(Event::Reloaded(None)).unwrap();
        drop(sender);
        let told: Vec<_> = hears.iter().skip_while(|message| message != "READY=1").collect();
        assert_eq!(
            told,
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
        let (sender, hears, heartbeat) = teller(pace);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(heartbeat.run());
        // It is asked to join, and then left alone.
        runtime.block_on(tokio::task::yield_now());
        sender.send(subject("serving")).unwrap();
        let told: Vec<_> = hears.iter().take_while(|message| message != "WATCHDOG=1").collect();
        assert_eq!(told.last().unwrap(), "READY=1 STATUS=serving");
        // The watchdog is due whenever anything has happened.
        for _ in 0..10 {
            sender.send(Event::Reloaded(None)).unwrap();
            assert_eq!(hears.recv().unwrap(), "READY=1");
        }
        runtime.block_on(async {
            let told = tokio::task::spawn_blocking(move || hears.recv());
            assert_eq!(told.await.unwrap().unwrap(), "WATCHDOG=1");
        });
    }
}
