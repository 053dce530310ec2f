//! Keeps a certificate in service: orders, renews, and tries again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::acme::exchange::Exchange;
use crate::acme::folder::IssueTimes;
use crate::acme::order::{Issued, Orderer};
use crate::acme::problem::OrderFailure;
use crate::acme::schedule::{Failures, Life, RenewalWindow, poll_after};
use crate::acme::{AcmeFolder, AcmeSettings, Challenges, Origin};
use crate::metrics::{OrderOutcome, Orders};
use crate::model::{Clock, Timestamp};
use crate::tls::{Certificate, TlsServer, UtcTime};

/// Longest sleep: the clock may be set meanwhile, and the machine suspended.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Every step of an order has a bound of its own; this is for an authority that uses up each of them.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Between two tries to write an issued certificate down.
const STORE_INTERVAL: Duration = Duration::from_secs(60);
/// Where renewal information cannot be read.
const POLL_RETRY: i64 = 60 * 60;
/// Between two orders that succeed, whatever the authority says.
const ORDER_INTERVAL: i64 = 30;
/// Longer than every pause.
const RETRY_MAX: i64 = 24 * 60 * 60;

/// The certificate that tinyd orders for the public listener.
#[derive(Debug)]
pub struct Acme {
    clock: Clock,
    folder: AcmeFolder,
    tls: Arc<TlsServer>,
    challenges: Arc<Challenges>,
    settings: watch::Sender<Option<AcmeSettings>>,
    orders: Arc<Orders>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    failures: Failures,
}

impl State {
    /// What is stored. The certificate is served from then on.
    fn read(folder: &AcmeFolder, tls: &TlsServer) -> Self {
        let mut state = Self::default();
        match folder.certificate() {
            Ok(stored) => {
                state.current = stored.map(|(certificate, origin, times)| Current::new(certificate, origin, times))
            }
            Err(reason) => tracing::error!(reason, "cannot use the stored certificate; ordering another"),
        }
        state.failures = folder.failures().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read when orders failed");
            Failures::default()
        });
        if let Some(current) = &state.current {
            tls.serve_issued(Some(Arc::clone(&current.certificate)));
        }
        state
    }
}

/// The certificate in service.
#[derive(Debug, Clone)]
struct Current {
    certificate: Arc<Certificate>,
    origin: Origin,
    times: IssueTimes,
    window: Option<RenewalWindow>,
    poll_at: Timestamp,
}

impl Current {
    fn new(certificate: Certificate, origin: Origin, times: IssueTimes) -> Self {
        Self {
            certificate: Arc::new(certificate),
            origin,
            times,
            window: None,
            poll_at: Timestamp::MIN,
        }
    }

    /// Whether it is what the settings want.
    fn is_as(&self, settings: &AcmeSettings) -> bool {
        self.origin == Origin::of(settings)
    }

    fn life(&self) -> Life {
        Life::of(&self.certificate, self.times.at)
    }

    /// Spreads renewals: the same after a restart, another for each certificate.
    fn lot(&self) -> u32 {
        let serial = self
            .certificate
            .identity
            .as_ref()
            .map(|identity| identity.serial.as_slice());
        crc32c::crc32c(serial.unwrap_or_default())
    }
}

impl Acme {
    /// Serves the stored certificate at once. `settings`: what to order, if anything.
    pub fn new(
        settings: Option<AcmeSettings>,
        folder: AcmeFolder,
        tls: Arc<TlsServer>,
        challenges: Arc<Challenges>,
        clock: Clock,
    ) -> Self {
        let state = if settings.is_some() {
            State::read(&folder, &tls)
        } else {
            State::default()
        };
        Self {
            clock,
            folder,
            tls,
            challenges,
            settings: watch::Sender::new(settings),
            orders: Arc::default(),
            state: Mutex::new(state),
        }
    }

    /// Counts orders.
    pub const fn orders(&self) -> &Arc<Orders> {
        &self.orders
    }

    /// Takes other settings. Those as before interrupt nothing.
    pub fn reload(&self, settings: Option<&AcmeSettings>) {
        self.settings.send_if_modified(|running| {
            let is_changed = running.as_ref() != settings;
            *running = settings.cloned();
            is_changed
        });
    }

    /// Orders and renews for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut settings = self.settings.subscribe();
        loop {
            let wanted = settings.borrow_and_update().clone();
            let keep = async {
                match &wanted {
                    Some(wanted) => self.keep(wanted).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = keep => {}
                changed = settings.changed() => if changed.is_err() { return },
            }
            let is_on = settings.borrow().is_some();
            if wanted.is_some() != is_on {
                self.turn(is_on).await;
            }
        }
    }

    /// Begins or ends to serve what is stored.
    async fn turn(&self, is_on: bool) {
        let state = if is_on {
            let (folder, tls) = (self.folder.clone(), Arc::clone(&self.tls));
            let reading = tokio::task::spawn_blocking(move || State::read(&folder, &tls));
            reading.await.unwrap_or_default()
        } else {
            self.tls.serve_issued(None);
            self.orders.set_problem(None);
            self.orders.set_next(None);
            State::default()
        };
        *self.state.lock() = state;
    }

    async fn keep(&self, settings: &AcmeSettings) {
        // What failed with other settings may work with these.
        let mut retry_at = Timestamp::MIN;
        loop {
            let now = self.clock.now();
            if retry_at > now.plus(RETRY_MAX) {
                // The clock was ahead and has been set.
                retry_at = now;
            }
            let due = self.due(settings, now).max(retry_at);
            self.orders.set_next(Some(due.max(now).as_unix()));
            if now < due {
                if self.poll(settings, now).await {
                    continue;
                }
                let left = u64::try_from(due.as_unix().saturating_sub(now.as_unix())).unwrap_or_default();
                tokio::time::sleep(Duration::from_secs(left).min(LOOK_INTERVAL)).await;
                continue;
            }
            retry_at = self.order(settings).await;
        }
    }

    /// When to order.
    fn due(&self, settings: &AcmeSettings, now: Timestamp) -> Timestamp {
        let state = self.state.lock();
        let allowed = state.failures.allowed_from(now);
        match state.current.as_ref().filter(|current| current.is_as(settings)) {
            Some(current) => {
                let (life, IssueTimes { at, before }) = (current.life(), current.times);
                let renewal = life.renewal(current.window, current.lot());
                renewal.max(allowed).max(life.allowed_from(at, before))
            }
            None => allowed,
        }
    }

    fn orderer(&self, settings: &AcmeSettings) -> Result<Orderer, OrderFailure> {
        Ok(Orderer {
            clock: self.clock.clone(),
            settings: settings.clone(),
            folder: self.folder.clone(),
            exchange: Exchange::new(&settings.authorities).map_err(OrderFailure::new)?,
            challenges: Arc::clone(&self.challenges),
            tls: Arc::clone(&self.tls),
        })
    }

    /// Reads the renewal information of the certificate in service when that is due. Says whether it did.
    async fn poll(&self, settings: &AcmeSettings, now: Timestamp) -> bool {
        let current = self.state.lock().current.clone();
        let is_due = |current: &Current| current.poll_at <= now || current.poll_at > now.plus(RETRY_MAX);
        let current = current.filter(|current| is_due(current) && current.is_as(settings));
        let Some((current, identity)) = current.and_then(|one| Some((one.clone(), one.certificate.identity.clone()?)))
        else {
            return false;
        };
        let asked = match self.orderer(settings) {
            Ok(orderer) => isolated(orderer.window(identity)).await,
            Err(failure) => Err(failure),
        };
        let (window, pause) = match asked {
            Ok(Some((window, pause))) => (Some(window), poll_after(pause)),
            Ok(None) => (None, poll_after(i64::MAX)),
            Err(failure) => {
                tracing::debug!(reason = failure.reason, "cannot read renewal information");
                (current.window, POLL_RETRY)
            }
        };
        let mut state = self.state.lock();
        if let Some(kept) = &mut state.current
            && Arc::ptr_eq(&kept.certificate, &current.certificate)
        {
            kept.window = window;
            kept.poll_at = now.plus(pause);
        }
        true
    }

    /// Orders once, and says when the next order may be.
    async fn order(&self, settings: &AcmeSettings) -> Timestamp {
        let (names, challenge) = (settings.domains.join(" "), settings.challenge.name());
        tracing::info!(
            names,
            directory = settings.directory,
            challenge,
            "ordering a certificate"
        );
        let (ordered, asked) = self.try_order(settings).await;
        match ordered {
            Ok(issued) => {
                self.serve(settings, issued).await;
                self.clock.now().plus(ORDER_INTERVAL)
            }
            Err(failure) => self.failed(&failure, asked),
        }
    }

    async fn try_order(&self, settings: &AcmeSettings) -> (Result<Issued, OrderFailure>, Option<i64>) {
        let folder = self.folder.clone();
        // Counts as a failure until it succeeds, so that the limit holds when a restart or a reload cuts it off.
        let failures = {
            let mut state = self.state.lock();
            state.failures.note(self.clock.now());
            state.failures.clone()
        };
        // An order that could not be stored would be lost, and count at the authority.
        let prepared = tokio::task::spawn_blocking(move || {
            folder.prepare()?;
            folder.store_failures(&failures)
        });
        let prepared = prepared.await;
        let prepared = prepared.map_err(OrderFailure::new).and_then(|prepared| {
            prepared.map_err(|error| OrderFailure::new(format!("cannot write to the folder acme of the data: {error}")))
        });
        let orderer = match prepared.and_then(|()| self.orderer(settings)) {
            Ok(orderer) => orderer,
            Err(failure) => return (Err(failure), None),
        };
        let replaced = self.state.lock().current.as_ref().map(|current| {
            let is_from_there = current.origin.directory == settings.directory;
            current.certificate.identity.clone().filter(|_| is_from_there)
        });
        let exchange = orderer.exchange.clone();
        let ordering = orderer.order(replaced.flatten());
        let ordered = tokio::time::timeout(ORDER_TIMEOUT, isolated(ordering)).await;
        let ordered = ordered.unwrap_or_else(|_| {
            Err(OrderFailure::new(format!(
                "the authority took longer than {ORDER_TIMEOUT:?}"
            )))
        });
        (ordered, exchange.asked_pause())
    }

    /// Stores a certificate, then serves it. One that cannot be stored is served nevertheless.
    async fn serve(&self, settings: &AcmeSettings, issued: Issued) {
        let times = IssueTimes {
            at: self.clock.now(),
            before: self.state.lock().current.as_ref().map(|current| current.times.at),
        };
        let stored = self.store(settings, &issued, times).await;
        let mut certificate = issued.certificate.clone();
        certificate.source = self.folder.certificate_path().display().to_string();
        let current = Current::new(certificate, Origin::of(settings), times);
        let (names, until) = (current.certificate.names.join(" "), current.certificate.not_after);
        let renewal = current.life().renewal(None, current.lot());
        self.tls.serve_issued(Some(Arc::clone(&current.certificate)));
        self.orders.count(OrderOutcome::Issued);
        {
            let mut state = self.state.lock();
            state.current = Some(current);
            state.failures = Failures::default();
        }
        self.orders.set_problem(None);
        // Last, so that a client that waits for this line can connect.
        tracing::info!(names, valid_until = %UtcTime(until), renewal = %UtcTime(renewal), "certificate issued");
        if let Err(error) = stored {
            let reason = format!("cannot store the certificate: {error}");
            tracing::error!("{reason}; serving it, and trying to store it again");
            self.orders.set_problem(Some(&reason));
            while self.store(settings, &issued, times).await.is_err() {
                tokio::time::sleep(STORE_INTERVAL).await;
            }
            self.orders.set_problem(None);
        }
    }

    async fn store(&self, settings: &AcmeSettings, issued: &Issued, times: IssueTimes) -> io::Result<()> {
        let (folder, origin) = (self.folder.clone(), Origin::of(settings));
        let (key, chain) = (issued.key.clone(), issued.chain.clone());
        let storing = tokio::task::spawn_blocking(move || {
            folder.store_certificate(&origin, times, &key, &chain)?;
            folder.store_failures(&Failures::default())
        });
        storing.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn failed(&self, failure: &OrderFailure, asked: Option<i64>) -> Timestamp {
        let now = self.clock.now();
        let (next, count) = {
            let state = self.state.lock();
            let life = state.current.as_ref().map(Current::life);
            let lot = state.current.as_ref().map_or_else(rand::random, Current::lot);
            (state.failures.retry_at(now, life, asked, lot), state.failures.count())
        };
        self.orders.count(OrderOutcome::Failed);
        let is_new = self.orders.set_problem(Some(&failure.reason));
        let next_try = UtcTime(next);
        if is_new {
            tracing::error!(reason = failure.reason, failures = count, next = %next_try, "order failed");
        } else {
            tracing::info!(failures = count, next = %next_try, "order failed again, for the same reason");
        }
        next
    }
}

/// In a task of its own, so that a panic in a library ends only this.
async fn isolated<T: Send + 'static>(
    work: impl Future<Output = Result<T, OrderFailure>> + Send + 'static,
) -> Result<T, OrderFailure> {
    let worked = AbortOnDropHandle::new(tokio::spawn(work)).await;
    worked.unwrap_or_else(|_| Err(OrderFailure::new("the ACME client failed at what the authority sent")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::ChallengeKind;
    use crate::metrics::AcmeReport;
    use crate::tls::testing::Authority;
    use crate::tls::{Authorities, MinVersion, TlsSettings};

    fn settings(domains: &[&str]) -> AcmeSettings {
        AcmeSettings {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            email: None,
            // Nothing listens there.
            directory: "https://127.0.0.1:1/dir".to_owned(),
            challenge: ChallengeKind::Http01,
            profile: None,
            authorities: Authorities::default(),
        }
    }

    fn acme(data: &std::path::Path, settings: Option<AcmeSettings>, now: i64) -> (Acme, Arc<TlsServer>, Clock) {
        let clock = Clock::manual(Timestamp::from_unix(now));
        let of_listener = TlsSettings {
            listen: Vec::new(),
            certificates: Vec::new(),
            min_version: MinVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
            hsts_seconds: 0,
            client_ca: None,
        };
        let tls = Arc::new(TlsServer::new(&of_listener, clock.clone()).unwrap());
        let acme = Acme::new(
            settings,
            AcmeFolder::new(data),
            Arc::clone(&tls),
            Arc::default(),
            clock.clone(),
        );
        (acme, tls, clock)
    }

    fn store(data: &std::path::Path, settings: &AcmeSettings, names: &[&str], until: i64) {
        let folder = AcmeFolder::new(data);
        folder.prepare().unwrap();
        let (chain, key) = Authority::new("root").issue(names, 0, until);
        let times = IssueTimes {
            at: Timestamp::MIN,
            before: None,
        };
        folder
            .store_certificate(&Origin::of(settings), times, &key, &chain)
            .unwrap();
    }

    fn served(tls: &TlsServer) -> usize {
        tls.subscribe().borrow().certificates.all().len()
    }

    #[tokio::test]
    async fn failed_order_is_counted_and_shown() {
        let data = tempfile::tempdir().unwrap();
        let wanted = settings(&["a.example"]);
        let (acme, tls, _) = acme(data.path(), Some(wanted.clone()), 1_000_000);
        assert_eq!(acme.orders.read(), AcmeReport::default());
        let next = acme.order(&wanted).await;
        let report = acme.orders.read();
        assert_eq!((report.issued, report.failed, served(&tls)), (0, 1, 0));
        let problem = report.problem.unwrap();
        assert!(problem.contains("cannot connect to 127.0.0.1"), "{problem}");
        assert!((60..=75).contains(&(next.as_unix() - 1_000_000)), "{next}");
        let stored = AcmeFolder::new(data.path()).failures().unwrap();
        assert_eq!(stored.count(), 1);
    }

    #[tokio::test]
    async fn order_that_is_cut_off_counts_as_a_failure() {
        let data = tempfile::tempdir().unwrap();
        // An authority that says nothing.
        let authority = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = AcmeSettings {
            directory: format!("https://{}/dir", authority.local_addr().unwrap()),
            ..settings(&["a.example"])
        };
        let stored = || AcmeFolder::new(data.path()).failures().unwrap().count();
        let (acme, _, clock) = acme(data.path(), Some(wanted.clone()), 1_000_000);
        for count in 1..=4 {
            tokio::select! {
                _ = acme.order(&wanted) => panic!("an order without an answer"),
                accepted = authority.accept() => assert_eq!((accepted.is_ok(), stored()), (true, count)),
            }
        }
        // Neither this process nor the next one orders again within the hour.
        let allowed = Timestamp::from_unix(1_003_601);
        assert_eq!(acme.due(&wanted, clock.now()), allowed);
        let (next, _, clock) = self::acme(data.path(), Some(wanted.clone()), 1_000_010);
        assert_eq!(next.due(&wanted, clock.now()), allowed);
    }

    #[tokio::test]
    async fn stored_certificate_is_served_at_once() {
        let data = tempfile::tempdir().unwrap();
        let wanted = settings(&["b.example", "a.example"]);
        store(data.path(), &wanted, &["a.example", "b.example"], 90_000);
        let (acme, tls, clock) = acme(data.path(), Some(wanted.clone()), 1_000);
        assert_eq!(served(&tls), 1);
        let due = acme.due(&wanted, clock.now()).as_unix();
        assert!((54_000..=60_000).contains(&due), "{due}");
        // The failure of a renewal leaves it.
        clock.set(Timestamp::from_unix(61_000));
        assert!(acme.due(&wanted, clock.now()) <= clock.now());
        acme.order(&wanted).await;
        assert_eq!((served(&tls), acme.orders.read().failed), (1, 1));
    }

    #[test]
    fn other_settings_order_at_once_and_serve_the_old_one() {
        let data = tempfile::tempdir().unwrap();
        let before = settings(&["a.example"]);
        store(data.path(), &before, &["a.example"], 90_000);
        let changed = [
            settings(&["a.example", "b.example"]),
            AcmeSettings {
                directory: "https://other.example/".to_owned(),
                ..before.clone()
            },
            AcmeSettings {
                profile: Some("shortlived".to_owned()),
                ..before.clone()
            },
        ];
        for wanted in changed {
            let (acme, tls, clock) = acme(data.path(), Some(wanted.clone()), 1_000);
            assert_eq!(
                (served(&tls), acme.due(&wanted, clock.now())),
                (1, clock.now()),
                "{wanted:?}"
            );
        }
        let (acme, tls, clock) = acme(data.path(), Some(before.clone()), 1_000);
        assert!(served(&tls) == 1 && acme.due(&before, clock.now()) > clock.now());
    }

    #[tokio::test]
    async fn settings_that_come_and_go_are_followed() {
        let data = tempfile::tempdir().unwrap();
        let wanted = settings(&["a.example"]);
        store(data.path(), &wanted, &["a.example"], 90_000);
        let (acme, tls, _) = acme(data.path(), None, 1_000);
        assert_eq!(served(&tls), 0);
        let acme = Arc::new(acme);
        let running = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&acme).run()));
        tokio::task::yield_now().await;
        for (settings, count) in [(Some(&wanted), 1), (None, 0)] {
            acme.reload(settings);
            for _ in 0..1_000 {
                if served(&tls) == count {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(served(&tls), count);
        }
        drop(running);
    }
}
