//! The content of a destination in place of a redirect (`goto` with `proxy=true`), and never a way into the network
//! that the appliance stands in.
//!
//! Alone names rustls, hickory and hyper's client. Knows no links: it is given a URL.

mod connect;
mod download;
mod error;
mod exchange;
mod headers;
mod local;
mod names;
mod policy;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response as HyperResponse, StatusCode};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

pub use error::FetchError;
pub use headers::is_from_proxy;
pub use settings::{FOLLOW_MAX, FetchSettings};

use crate::fetch::connect::Tls;
use crate::fetch::download::{Bounds, Download};
use crate::fetch::exchange::{Line, Question};
use crate::fetch::names::Names;
use crate::fetch::policy::Policy;
use crate::http::per_client::{Slot, Slots};
use crate::http::{self, ClientPresence, Response};
use crate::metrics::Fetches;
use crate::model::{LinkId, client_network};

/// What timed out if it was no single step.
const IN_ALL: &str = "all of it";

#[derive(Debug, Clone, Copy)]
pub struct Wanted<'r> {
    /// For the log.
    pub link: LinkId,
    pub destination: &'r str,
    /// Whether to send HEAD.
    pub head_only: bool,
    /// Of the client's request.
    pub headers: &'r HeaderMap,
    pub client: IpAddr,
    /// Gets the time for which the client must stay.
    pub presence: Option<&'r ClientPresence>,
}

#[derive(Debug)]
pub struct Fetcher {
    runtime: Handle,
    inner: Arc<Inner>,
    slots: Arc<Slots<IpAddr>>,
    metrics: Arc<Fetches>,
}

type FetchSlot = Slot<IpAddr>;

#[derive(Debug)]
struct Inner {
    settings: FetchSettings,
    policy: Policy,
    names: Names,
    tls: Tls,
}

struct Answered {
    url: Url,
    response: HyperResponse<Incoming>,
    line: Line,
}

impl Fetcher {
    /// Fetches on the threads of `runtime`, never from `listeners`, which are our own.
    pub fn new(
        settings: &FetchSettings,
        listeners: Vec<SocketAddr>,
        runtime: Handle,
        metrics: Arc<Fetches>,
    ) -> Result<Self, String> {
        let names = {
            let _on_runtime = runtime.enter();
            Names::new(settings)?
        };
        Ok(Self {
            runtime,
            slots: Arc::default(),
            metrics,
            inner: Arc::new(Inner {
                policy: Policy {
                    allow: settings.allow.clone(),
                    ports: settings.ports.clone(),
                    listeners,
                },
                names,
                tls: Tls::new(&settings.authorities)?,
                settings: settings.clone(),
            }),
        })
    }

    /// The response of a destination, streamed as the client takes it. Dropping it ends the fetch.
    pub async fn fetch(&self, wanted: Wanted<'_>) -> Result<Response, FetchError> {
        let mut fetch = self.metrics.begin();
        let deadline = Instant::now() + self.inner.settings.total_timeout;
        if let Some(presence) = wanted.presence {
            presence.require_until(deadline.into_std());
        }
        let answered = self.answer(wanted, deadline).await;
        let answered = answered.and_then(|answered| Ok((self.inner.head_of(&answered, &wanted)?, answered)));
        let (head, answered) = answered.inspect_err(|error| fetch.set(error.outcome()))?;
        let bounds = Bounds {
            link: wanted.link,
            idle_timeout: self.inner.settings.idle_timeout,
            deadline,
            bytes: self.inner.settings.bytes,
        };
        let mut download = Download::new(answered.response.into_body(), answered.line, fetch, bounds);
        download.begin().await?;
        let mut response = http::passed_on(download);
        (*response.status_mut(), *response.headers_mut()) = head;
        Ok(response)
    }

    async fn answer(&self, wanted: Wanted<'_>, deadline: Instant) -> Result<Answered, FetchError> {
        if headers::is_from_proxy(wanted.headers) {
            return Err(FetchError::Loop);
        }
        if headers::is_for_service_worker(wanted.headers) {
            return Err(FetchError::forbidden("a service worker would act for the whole host"));
        }
        let unparsed = FetchError::forbidden("the destination is not a URL");
        let url = Url::parse(wanted.destination).map_err(|_| unparsed)?;
        let FetchSettings {
            fetches,
            fetches_per_client,
            ..
        } = self.inner.settings;
        let slot = self
            .slots
            .take(client_network(wanted.client), fetches_per_client, fetches);
        let slot = Arc::new(slot.ok_or(FetchError::Busy)?);
        let question = Question {
            method: if wanted.head_only { Method::HEAD } else { Method::GET },
            headers: headers::to_send(wanted.headers),
        };
        let inner = Arc::clone(&self.inner);
        let fetching = async move {
            let answered = inner.follow(url, &question, &slot, deadline);
            match timeout_at(deadline, answered).await {
                // The connection ends at the deadline too, and may be first.
                Ok(Err(FetchError::Broken(_))) if Instant::now() >= deadline => Err(FetchError::TimedOut(IN_ALL)),
                answered => answered.unwrap_or(Err(FetchError::TimedOut(IN_ALL))),
            }
        };
        // Dropping it aborts the task.
        let fetching = AbortOnDropHandle::new(self.runtime.spawn(fetching));
        fetching.await.map_err(FetchError::broken)?
    }
}

impl Inner {
    /// The response of a destination, after the redirects that may be followed.
    async fn follow(
        &self,
        mut url: Url,
        question: &Question,
        slot: &Arc<FetchSlot>,
        deadline: Instant,
    ) -> Result<Answered, FetchError> {
        let mut followed = 0;
        let (response, line) = loop {
            let (response, line) = self.ask(&url, question, slot, deadline).await?;
            match next_of(&response, &url).filter(|_| followed < self.settings.follow) {
                Some(next) => url = next,
                None => break (response, line),
            }
            followed += 1;
        };
        if !headers::is_framing_known(response.headers()) {
            return Err(FetchError::Broken("unrequested Transfer-Encoding".into()));
        }
        match response.body().size_hint().exact() {
            Some(length) if length > self.settings.bytes => Err(FetchError::TooLarge(length)),
            _ => Ok(Answered { url, response, line }),
        }
    }

    /// Sends one request, after checking every address.
    async fn ask(
        &self,
        url: &Url,
        question: &Question,
        slot: &Arc<FetchSlot>,
        deadline: Instant,
    ) -> Result<(HyperResponse<Incoming>, Line), FetchError> {
        let origin = self.policy.origin(url)?;
        let addresses = match &origin.host {
            Host::Domain(name) => self.names.addresses(name).await?,
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
        };
        let checked = self.policy.check(&addresses, origin.port)?;
        let connecting = timeout(self.settings.connect_timeout, connect::connect(&checked)).await;
        let stream = connecting.unwrap_or(Err(FetchError::TimedOut("connecting")))?;
        let answering = async {
            let stream = self.tls.secure(stream, &origin).await?;
            exchange::ask(stream, url, question, Arc::clone(slot), deadline).await
        };
        let answered = timeout(self.settings.first_byte_timeout, answering).await;
        answered.unwrap_or(Err(FetchError::TimedOut("the head of the answer")))
    }

    fn head_of(&self, answered: &Answered, wanted: &Wanted<'_>) -> Result<(StatusCode, HeaderMap), FetchError> {
        let Answered { url, response, .. } = answered;
        let status = response.status();
        let is_trusted = url
            .host_str()
            .is_some_and(|host| self.settings.trusted_hosts.iter().any(|trusted| trusted.matches(host)));
        let mut headers = headers::to_return(response.headers(), status, url, is_trusted);
        let may_have_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let length = if wanted.head_only {
            headers::length_of(response.headers())
        } else {
            response.body().size_hint().exact()
        };
        let length = length.filter(|_| may_have_body);
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers::check_size(&headers)?;
        Ok((status, headers))
    }
}

/// The target of a redirect, but not from https to http.
fn next_of(response: &HyperResponse<Incoming>, url: &Url) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let next = headers::location_of(response.headers(), url).filter(|_| is_redirect)?;
    (url.scheme() != "https" || next.scheme() == "https").then_some(next)
}
