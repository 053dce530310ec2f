//! `/tiny`, `goto` and `/robots.txt`, answered from memory; only while the links are being loaded is one looked up
//! elsewhere. Never sees sessions.

mod fast;
mod forgive;
mod guesses;
mod page;
mod previews;
mod proxied;

pub use fast::request::Asker;
pub use fast::{FastPath, Now, Outcome, Waiting};
pub use guesses::UnknownIdLimit;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};

use crate::fetch::Fetcher;
use crate::http::{self, ClientPresence, Response};
use crate::kaltura;
use crate::kaltura::format::{Exception, Value};
use crate::kaltura::{ApiError, Call, ParameterSource, Requested, Target};
use crate::links::{ClickRecorder, Links, Verdict};
use crate::metrics::{Metrics, RedirectOutcome};
use crate::model::{LinkId, Timestamp};
use crate::redirect::guesses::Guess;
use crate::redirect::previews::{PURPOSES, Visitor, Visitors, is_unasked};

/// What the public listener serves, in `Allow`.
const METHODS: &str = "GET, HEAD, OPTIONS";

const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// How long a browser may keep the 301 of `/tiny`, in seconds. It says nothing about the link, only where goto is.
const HOP_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// How long a crawler may keep `/robots.txt`: without a word, it could keep it for as long as it likes.
const ROBOTS_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// A link that is handed to someone must not be found by anyone else (docs/kaltura-api.md#tiny).
const ROBOTS: &str = "User-agent: *\nDisallow: /tiny/\nDisallow: /api_v3/\n";

/// The path of short URLs, before the ID.
const TINY: &str = "/tiny/";

/// What `/tiny/{id}` answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tiny {
    /// 301 to goto, as Kaltura does.
    #[default]
    Hop,
    /// What goto would answer: one round trip fewer.
    Direct,
}

/// The redirects.
#[derive(Debug)]
pub struct Public {
    links: Arc<Links>,
    tiny: Tiny,
    forgiving: bool,
    guesses: Arc<UnknownIdLimit>,
    metrics: Arc<Metrics>,
    recorder: ClickRecorder,
    visitors: Visitors,
    fetcher: Option<Fetcher>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Client<'r> {
    /// The headers of the request.
    pub headers: &'r HeaderMap,
    /// The address of the client.
    pub address: IpAddr,
    /// What is told if the client has to be there until it has its answer.
    pub attendance: Option<&'r ClientPresence>,
}

impl Public {
    /// Redirects to where these links lead. `guesses` are the ids that were asked for in vain.
    pub fn new(links: Arc<Links>, tiny: Tiny, guesses: Arc<UnknownIdLimit>, metrics: Arc<Metrics>) -> Self {
        let recorder = links.recorder();
        Self {
            links,
            tiny,
            forgiving: true,
            guesses,
            metrics,
            recorder,
            visitors: Visitors::default(),
            fetcher: None,
        }
    }

    /// With it, goto answers the content of a destination to those who want that; without, it redirects them.
    pub fn fetching(self, fetcher: Option<Fetcher>) -> Self {
        Self { fetcher, ..self }
    }

    /// Whether a text that is no id is answered as the id in it would be, if there is such a link.
    pub fn forgiving(self, forgiving: bool) -> Self {
        Self { forgiving, ..self }
    }

    /// The answer to a client's request for one of its own resources; `None` for any other. Bodies are not looked at.
    pub async fn respond(&self, method: &Method, uri: &Uri, client: Client<'_>) -> Option<Response> {
        let mut response = self.answer(method, uri, client).await?;
        if method == Method::HEAD && http::is_empty(&response) {
            // Only of a GET is it known without being told.
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(response)
    }

    async fn answer(&self, method: &Method, uri: &Uri, client: Client<'_>) -> Option<Response> {
        let path = kaltura::merge_slashes(uri.path());
        if let Some(id) = self.after_tiny(&path) {
            if !matches!(*method, Method::GET | Method::HEAD) {
                return Some(http::allow(method, METHODS));
            }
            let id = kaltura::decode_lossy(ParameterSource::Path, id);
            return Some(match self.tiny {
                Tiny::Hop => self.hop_from(&id, client).await,
                Tiny::Direct => self.goto_by(method, Some(&id), Requested::default(), client).await,
            });
        }
        if path == "/robots.txt" {
            return Some(match *method {
                Method::GET | Method::HEAD => robots(),
                _ => http::allow(method, METHODS),
            });
        }
        let call = Call::from_target(Target::from_uri(uri)?);
        if !call.is_goto() {
            return None;
        }
        let is_mine = match *method {
            Method::GET | Method::HEAD => true,
            // The id of a POST may be in the body, which is not looked at here.
            Method::POST => call.id.is_some(),
            _ => false,
        };
        if !is_mine {
            return None;
        }
        let requested = Requested::from(&call);
        let id = call.id.as_deref();
        Some(self.goto_by(method, id, requested, client).await)
    }

    /// What stands behind `/tiny/`, which whoever types the whole address in capitals has in capitals too.
    fn after_tiny<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (tiny, id) = path.split_at_checked(TINY.len())?;
        (tiny == TINY || self.forgiving && tiny.eq_ignore_ascii_case(TINY)).then_some(id)
    }

    /// The way to goto. Whether there is such a link is asked only where the text is no id: goto says it of ids.
    async fn hop_from(&self, text: &str, client: Client<'_>) -> Response {
        let began = Instant::now();
        let (outcome, response) = match LinkId::from_bytes(text.as_bytes()) {
            Ok(id) => (RedirectOutcome::Hop, hop(id.as_str())),
            Err(_) => match self.judge(text, client.address, self.links.clock().now()).await {
                Judgement::TooManyGuesses => (RedirectOutcome::Refused, too_many_guesses()),
                Judgement::Link(id, _) => (RedirectOutcome::Hop, hop(id.as_str())),
                Judgement::Nothing => {
                    let unknown = respond_to(
                        Verdict::Unknown,
                        text,
                        Requested::default(),
                        accepts_html(client.headers),
                    );
                    (RedirectOutcome::Unknown, unknown)
                }
            },
        };
        self.metrics.redirects.count(outcome, began.elapsed());
        response
    }

    /// Which link a text means, and what becomes of that. If the text is no id but one is in it, that is one guess too.
    async fn judge(&self, text: &str, client: IpAddr, now: Timestamp) -> Judgement {
        let in_text = || self.forgiving.then(|| forgive::id_in(text)).flatten();
        let Some(id) = LinkId::from_bytes(text.as_bytes()).ok().or_else(in_text) else {
            return Judgement::Nothing;
        };
        if self.guesses.is_anybody_shut_out(now) && self.guesses.is_shut_out(client, now) {
            return Judgement::TooManyGuesses;
        }
        match self.links.look_up(id).await {
            Verdict::Unknown if self.guesses.note(client, id, now) == Guess::TooMany => Judgement::TooManyGuesses,
            Verdict::Unknown => Judgement::Nothing,
            verdict => Judgement::Link(id, verdict),
        }
    }

    /// The answer of `goto` (docs/kaltura-api.md#goto) by POST or in a multirequest.
    pub async fn goto(&self, id: Option<&str>, requested: Requested<'_>, client: Client<'_>) -> Response {
        self.goto_by(&Method::POST, id, requested, client).await
    }

    async fn goto_by(
        &self,
        method: &Method,
        text: Option<&str>,
        requested: Requested<'_>,
        client: Client<'_>,
    ) -> Response {
        let (began, accepts_html) = (Instant::now(), accepts_html(client.headers));
        let Some(text) = text else {
            let fault = ApiError::missing("id");
            return no_redirect(&fault, requested, accepts_html);
        };
        let now = self.links.clock().now();
        let (outcome, response) = match self.judge(text, client.address, now).await {
            Judgement::TooManyGuesses => (RedirectOutcome::Refused, too_many_guesses()),
            Judgement::Nothing => {
                let response = respond_to(Verdict::Unknown, text, requested, accepts_html);
                (RedirectOutcome::Unknown, response)
            }
            Judgement::Link(id, verdict) => {
                if let Verdict::Redirect(location) = &verdict {
                    let visit = self.visitors.visit_of(&visitor(method, client.headers));
                    if let Some(fetcher) = self.fetcher.as_ref().filter(|_| requested.proxy) {
                        let head_only = method == Method::HEAD;
                        let fetched = proxied::fetch(fetcher, id, location, head_only, client).await;
                        if fetched.is_ok() && proxied::is_from_the_beginning(client.headers) {
                            self.recorder.record(id, visit, now);
                        }
                        return fetched.unwrap_or_else(|fault| no_redirect(&fault, requested, accepts_html));
                    }
                    self.recorder.record(id, visit, now);
                }
                let outcome = outcome_of(&verdict);
                (outcome, respond_to(verdict, id.as_str(), requested, accepts_html))
            }
        };
        self.metrics.redirects.count(outcome, began.elapsed());
        response
    }
}

/// What becomes of a request for a link.
enum Judgement {
    Link(LinkId, Verdict),
    /// There is no such link.
    Nothing,
    /// The client has asked for too many that there are none of.
    TooManyGuesses,
}

/// How a verdict about a link is counted.
const fn outcome_of<L>(verdict: &Verdict<L>) -> RedirectOutcome {
    match verdict {
        Verdict::Redirect(_) => RedirectOutcome::Found,
        Verdict::Disabled => RedirectOutcome::Disabled,
        Verdict::Deleted => RedirectOutcome::Deleted,
        Verdict::Expired => RedirectOutcome::Expired,
        Verdict::Unknown => RedirectOutcome::Unknown,
        Verdict::Loading => RedirectOutcome::Loading,
        Verdict::Damaged => RedirectOutcome::Damaged,
    }
}

/// The answer to a verdict about a link.
fn respond_to(verdict: Verdict, id: &str, requested: Requested<'_>, accepts_html: bool) -> Response {
    let invalid = |deleted| ApiError::InvalidShortLink {
        id: id.to_owned(),
        deleted,
    };
    let fault = match verdict {
        Verdict::Redirect(location) => return found(location),
        Verdict::Loading => return unavailable("links are being loaded, please try again\n"),
        Verdict::Damaged => return unavailable("this link cannot be read at the moment\n"),
        Verdict::Unknown => ApiError::InvalidObjectId { id: id.to_owned() },
        Verdict::Disabled => invalid(false),
        Verdict::Deleted => invalid(true),
        Verdict::Expired => ApiError::ExpiredShortLink { id: id.to_owned() },
    };
    no_redirect(&fault, requested, accepts_html)
}

/// The redirect itself.
fn found(location: HeaderValue) -> Response {
    let mut response = http::answer(StatusCode::FOUND);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    keep_private(headers);
    response
}

/// 301 to goto: documented behaviour, and what clients of Kaltura know.
fn hop(id: &str) -> Response {
    let mut response = http::answer(StatusCode::MOVED_PERMANENTLY);
    let headers = response.headers_mut();
    let location = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}");
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(header::LOCATION, location);
    }
    keep_private(headers);
    headers.insert(header::CACHE_CONTROL, HOP_CACHE_CONTROL);
    response
}

fn robots() -> Response {
    let mut response = http::text(StatusCode::OK, ROBOTS);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, ROBOTS_CACHE_CONTROL);
    response
}

/// Nobody knows at the moment where the link leads: better to come again than a false 404.
fn unavailable(text: &'static str) -> Response {
    let mut response = http::text(StatusCode::SERVICE_UNAVAILABLE, text);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(http::RETRY_AFTER_SECONDS));
    keep_private(headers);
    response
}

/// The answer to who has asked for too many ids that there are none of. It says nothing about the id.
fn too_many_guesses() -> Response {
    let text = "too many unknown short links were asked for, please come again in a minute\n";
    let mut response = http::text(StatusCode::TOO_MANY_REQUESTS, text);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(guesses::WINDOW_SECONDS));
    keep_private(headers);
    response
}

/// The answer for a link that does not redirect, in the format asked for, else as a page or as text.
fn no_redirect(fault: &ApiError, requested: Requested<'_>, accepts_html: bool) -> Response {
    let exception = fault.exception();
    let status = fault.goto_status();
    let mut response = match requested.format() {
        Ok(Some(format)) => {
            let body = format.render(&Value::Exception(exception), std::time::Duration::ZERO);
            http::bytes(status, format.content_type(), body)
        }
        // A format that is not known is ignored here, like everything else that clients add to goto.
        Ok(None) | Err(_) if accepts_html => page::of(status, &exception),
        Ok(None) | Err(_) => {
            let Exception { code, message, .. } = exception;
            http::text(status, format!("{message} ({code})\n"))
        }
    };
    let headers = response.headers_mut();
    fault.write_headers(headers);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    keep_private(headers);
    response
}

/// The answer to a path at which there is nothing.
pub fn not_found(headers: &HeaderMap) -> Response {
    let mut response = if accepts_html(headers) {
        page::not_found()
    } else {
        http::text(StatusCode::NOT_FOUND, "not found\n")
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    http::no_store(headers);
    response
}

fn visitor<'r>(method: &Method, headers: &'r HeaderMap) -> Visitor<'r> {
    let mut purposes = PURPOSES.iter().flat_map(|name| headers.get_all(name));
    Visitor {
        head_only: method == Method::HEAD,
        user_agent: headers.get(header::USER_AGENT).map(HeaderValue::as_bytes),
        is_unasked: purposes.any(|purpose| is_unasked(purpose.as_bytes())),
    }
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .is_some_and(|accept| is_html_in(accept.as_bytes()))
}

/// Whether the value of an `Accept` header names HTML.
fn is_html_in(accept: &[u8]) -> bool {
    std::str::from_utf8(accept).is_ok_and(|accept| accept.contains("text/html"))
}

/// No cache may keep it, and no search engine list it.
fn keep_private(headers: &mut HeaderMap) {
    http::no_store(headers);
    headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
}
