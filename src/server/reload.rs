//! What can change while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use crate::access::{Grant, SessionStarts};
use crate::acme::{Acme, AcmeFolder, Challenges};
use crate::config::Settings;
use crate::http::connection::set::ConnectionPolicy;
use crate::kaltura::session::Partners;
use crate::metrics::Listener;
use crate::model::Clock;
use crate::tls::{TlsServer, TlsSettings};

/// What a reload changes while the server runs.
#[derive(Debug)]
pub struct Reloader {
    pub(super) guesses_per_minute: Arc<AtomicU32>,
    pub(super) partners: watch::Sender<Arc<Partners>>,
    pub(super) starts: Arc<SessionStarts>,
    pub(super) public: watch::Sender<Arc<ConnectionPolicy>>,
    pub(super) admin: watch::Sender<Arc<ConnectionPolicy>>,
    pub(super) public_tls: Option<Arc<TlsServer>>,
    pub(super) admin_tls: Option<Arc<TlsServer>>,
    pub(super) challenges: Arc<Challenges>,
    /// Beside TLS of the public listener.
    pub(super) acme: Option<Arc<Acme>>,
}

impl Reloader {
    /// Reads the certificates. An error says of which section they are.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let tls = |section: &str, settings: &Option<TlsSettings>| {
            let server = settings
                .as_ref()
                .map(|settings| TlsServer::new(settings, Clock::system()));
            let server = server.map(|server| server.map(Arc::new)).transpose();
            server.map_err(|error| format!("{section}: {error}"))
        };
        let public_tls = tls("public.tls", &settings.public_tls)?;
        let challenges = Arc::<Challenges>::default();
        challenges.set_webroot(settings.acme_webroot.clone());
        let acme = public_tls.as_ref().map(|tls| {
            let folder = AcmeFolder::new(&settings.data_dir);
            let (tls, challenges) = (Arc::clone(tls), Arc::clone(&challenges));
            Arc::new(Acme::new(
                settings.acme.clone(),
                folder,
                tls,
                challenges,
                Clock::system(),
            ))
        });
        let partners = watch::Sender::new(Arc::new(settings.partners.clone()));
        let starts = SessionStarts::new(partners.subscribe(), settings.console.is_some());
        Ok(Self {
            partners,
            starts: Arc::new(starts),
            public_tls,
            challenges,
            acme,
            admin_tls: tls("admin.tls", &settings.admin_tls)?,
            guesses_per_minute: Arc::new(AtomicU32::new(settings.guesses_per_minute)),
            public: watch::Sender::new(Arc::new(ConnectionPolicy::from(&settings.public_limits))),
            admin: watch::Sender::new(Arc::new(ConnectionPolicy::from(&settings.admin_limits))),
        })
    }

    /// The path of a link that signs in once, below the base of the console, if there is one.
    pub fn sign_in_link(&self, grant: Grant) -> Option<String> {
        Some(self.starts.links()?.make(grant))
    }

    /// The listeners with TLS.
    pub(super) fn tls(&self) -> Vec<(Listener, Arc<TlsServer>)> {
        let of = |listener, tls: &Option<Arc<TlsServer>>| tls.as_ref().map(|tls| (listener, Arc::clone(tls)));
        let (public, admin) = (
            of(Listener::Public, &self.public_tls),
            of(Listener::Admin, &self.admin_tls),
        );
        public.into_iter().chain(admin).collect()
    }

    /// Applies the partners and the limit of guesses at once, limits and proxies to new connections.
    ///
    /// Returns why certificates cannot be used as they are.
    pub fn reload(&self, settings: &Settings) -> Option<String> {
        let guesses = settings.guesses_per_minute;
        self.guesses_per_minute.store(guesses, Ordering::Relaxed);
        self.partners.send_replace(Arc::new(settings.partners.clone()));
        self.public
            .send_replace(Arc::new(ConnectionPolicy::from(&settings.public_limits)));
        self.admin
            .send_replace(Arc::new(ConnectionPolicy::from(&settings.admin_limits)));
        self.challenges.set_webroot(settings.acme_webroot.clone());
        if let Some(acme) = &self.acme {
            acme.reload(settings.acme.as_ref());
        }
        let of_listeners = [
            (&self.public_tls, &settings.public_tls),
            (&self.admin_tls, &settings.admin_tls),
        ];
        let reload = |(running, settings): (&Option<Arc<TlsServer>>, &Option<TlsSettings>)| {
            running.as_ref()?.reload(settings.as_ref()?)
        };
        let problems: Vec<_> = of_listeners.into_iter().filter_map(reload).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}
