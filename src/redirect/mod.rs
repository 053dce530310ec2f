//! `/tiny`, `goto` and `/robots.txt`, answered from memory, or from the store while the links are still loading. Never
//! sees sessions.

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

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Uri};

use crate::fetch::Fetcher;
use crate::http::{self, ClientPresence, Response};
use crate::kaltura;
use crate::kaltura::format::{Exception, Value};
use crate::kaltura::{ApiError, Call, ParameterSource, Requested, Target};
use crate::links::{ClickRecorder, Links, Verdict};
use crate::metrics::{Metrics, RedirectOutcome};
use crate::model::LinkId;
use crate::redirect::guesses::Guess;
use crate::redirect::previews::{PURPOSES, Visitor, Visitors, is_unasked};

/// A browser may keep the 301 of `/tiny`: it only says where goto is.
const HOP_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// Without it, a crawler may keep `/robots.txt` as long as it likes.
const ROBOTS_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// Search engines must not find links (docs/kaltura-api.md#tiny).
const ROBOTS: &str = "User-agent: *\nDisallow: /tiny/\nDisallow: /api_v3/\n";

/// The paths before the ID.
const TINY: &str = "/tiny/";
const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

/// The answer to `/tiny/{id}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tiny {
    /// 301 to goto, as Kaltura does.
    #[default]
    Hop,
    /// The answer of goto: one round trip fewer.
    Direct,
}

/// Redirects to the destinations of links.
#[derive(Debug)]
pub struct Redirects {
    links: Arc<Links>,
    tiny: Tiny,
    /// Whether a text that is no id counts as the id in it, if there is such a link.
    forgiving: bool,
    guesses: Arc<UnknownIdLimit>,
    /// With it, goto answers the content of a destination to clients that want that.
    fetcher: Option<Fetcher>,
    metrics: Arc<Metrics>,
    recorder: ClickRecorder,
    visitors: Visitors,
}

/// The client that sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Client<'r> {
    pub headers: &'r HeaderMap,
    pub address: IpAddr,
    /// Notified if the client has to stay until it has its answer.
    pub presence: Option<&'r ClientPresence>,
}

impl Redirects {
    pub fn new(
        links: &Arc<Links>,
        tiny: Tiny,
        forgiving: bool,
        guesses: &Arc<UnknownIdLimit>,
        fetcher: Option<Fetcher>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            links: Arc::clone(links),
            tiny,
            forgiving,
            guesses: Arc::clone(guesses),
            fetcher,
            metrics: Arc::clone(metrics),
            recorder: links.recorder(),
            visitors: Visitors::default(),
        })
    }

    /// The answer to a client's request for one of its own resources; `None` for any other. Reads no body.
    pub async fn respond(&self, method: &Method, uri: &Uri, client: Client<'_>) -> Option<Response> {
        let mut response = self.answer(method, uri, client).await?;
        if method == Method::HEAD && http::is_empty(&response) {
            // hyper adds it to answers of GET only.
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(response)
    }

    async fn answer(&self, method: &Method, uri: &Uri, client: Client<'_>) -> Option<Response> {
        let path = kaltura::merge_slashes(uri.path());
        if let Some(id) = self.after_tiny(&path) {
            if !matches!(*method, Method::GET | Method::HEAD) {
                return Some(http::allow(method, http::READ_METHODS));
            }
            let id = kaltura::decode_lossy(ParameterSource::Path, id);
            return Some(match self.tiny {
                Tiny::Hop => self.hop_from(&id, client).await,
                Tiny::Direct => self.goto(method, Some(&id), Requested::default(), client).await,
            });
        }
        if path == "/robots.txt" {
            return Some(match *method {
                Method::GET | Method::HEAD => robots(),
                _ => http::allow(method, http::READ_METHODS),
            });
        }
        let call = Call::from_target(Target::from_uri(uri)?);
        match *method {
            _ if !call.is_goto() => return None,
            Method::GET | Method::HEAD => {}
            // The id of a POST may be in the body, which is not read here.
            Method::POST if call.id.is_some() => {}
            _ => return None,
        }
        let (id, requested) = (call.id.as_deref(), Requested::from(&call));
        Some(self.goto(method, id, requested, client).await)
    }

    /// The text after `/tiny/`, in any case: some people type the whole URL in capitals.
    fn after_tiny<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (tiny, id) = path.split_at_checked(TINY.len())?;
        (tiny == TINY || self.forgiving && tiny.eq_ignore_ascii_case(TINY)).then_some(id)
    }

    /// The way to goto. Looks for a link only where the text is no id: goto does that for ids.
    async fn hop_from(&self, text: &str, client: Client<'_>) -> Response {
        let began = Instant::now();
        let (outcome, response) = match LinkId::from_bytes(text.as_bytes()) {
            Ok(id) => (RedirectOutcome::Hop, hop(id.as_str())),
            Err(_) => match self.judge(text, Requested::default(), client).await {
                Ok((id, _)) => (RedirectOutcome::Hop, hop(id.as_str())),
                Err(refused) => refused,
            },
        };
        self.metrics.redirects.count(outcome, began.elapsed());
        response
    }

    /// The link that a text means, and its verdict; else the answer. An id in a text that is none counts as one guess.
    async fn judge(&self, text: &str, requested: Requested<'_>, client: Client<'_>) -> Result<Judged, Refused> {
        let unknown = || {
            let response = respond_to(Verdict::Unknown, text, requested, accepts_html(client.headers));
            (RedirectOutcome::Unknown, response)
        };
        let too_many = || (RedirectOutcome::Refused, too_many_guesses());
        let in_text = || self.forgiving.then(|| forgive::id_in(text)).flatten();
        let id = LinkId::from_bytes(text.as_bytes()).ok().or_else(in_text);
        let id = id.ok_or_else(unknown)?;
        let now = self.links.clock().now();
        if self.guesses.is_anybody_shut_out(now) && self.guesses.is_shut_out(client.address, now) {
            return Err(too_many());
        }
        match self.links.look_up(id).await {
            Verdict::Unknown if self.guesses.note(client.address, id, now) == Guess::TooMany => Err(too_many()),
            Verdict::Unknown => Err(unknown()),
            verdict => Ok((id, verdict)),
        }
    }

    /// The answer of `goto` (docs/kaltura-api.md#goto).
    pub async fn goto(
        &self,
        method: &Method,
        text: Option<&str>,
        requested: Requested<'_>,
        client: Client<'_>,
    ) -> Response {
        let (began, accepts_html) = (Instant::now(), accepts_html(client.headers));
        let Some(text) = text else {
            return no_redirect(&ApiError::missing("id"), requested, accepts_html);
        };
        let (outcome, response) = match self.judge(text, requested, client).await {
            Err(refused) => refused,
            Ok((id, verdict)) => {
                if let Verdict::Redirect(location) = &verdict {
                    let now = self.links.clock().now();
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

type Judged = (LinkId, Verdict);
type Refused = (RedirectOutcome, Response);

const fn outcome_of<L>(verdict: &Verdict<L>) -> RedirectOutcome {
    match verdict {
        Verdict::Redirect(_) => RedirectOutcome::Found,
        Verdict::Disabled => RedirectOutcome::Disabled,
        Verdict::Deleted => RedirectOutcome::Deleted,
        Verdict::Expired => RedirectOutcome::Expired,
        Verdict::NotYet(_) => RedirectOutcome::NotYet,
        Verdict::Unknown => RedirectOutcome::Unknown,
        Verdict::Loading => RedirectOutcome::Loading,
        Verdict::Damaged => RedirectOutcome::Damaged,
    }
}

fn respond_to(verdict: Verdict, id: &str, requested: Requested<'_>, accepts_html: bool) -> Response {
    let invalid = |deleted| ApiError::InvalidShortLink {
        id: id.to_owned(),
        deleted,
    };
    let fault = match verdict {
        Verdict::Redirect(location) => return found(location),
        Verdict::Loading => return unavailable("links are being loaded, please try again\n"),
        Verdict::Damaged => return unavailable("this link is temporarily unavailable\n"),
        Verdict::Unknown => ApiError::InvalidObjectId { id: id.to_owned() },
        Verdict::Disabled => invalid(false),
        Verdict::Deleted => invalid(true),
        Verdict::Expired => ApiError::ExpiredShortLink { id: id.to_owned() },
        Verdict::NotYet(starts_at) => ApiError::NotYetOpenShortLink {
            id: id.to_owned(),
            starts_at,
        },
    };
    no_redirect(&fault, requested, accepts_html)
}

fn found(location: HeaderValue) -> Response {
    let mut response = http::answer(StatusCode::FOUND);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    keep_private(headers);
    response
}

/// 301 to goto, as clients of Kaltura know it.
fn hop(id: &str) -> Response {
    let mut response = http::answer(StatusCode::MOVED_PERMANENTLY);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("{GOTO}{id}")) {
        headers.insert(header::LOCATION, location);
    }
    keep_private(headers);
    headers.insert(header::CACHE_CONTROL, HOP_CACHE_CONTROL);
    response
}

fn robots() -> Response {
    let mut response = http::text(StatusCode::OK, ROBOTS);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, ROBOTS_CACHE_CONTROL);
    response
}

/// A text with `Retry-After`.
fn later(status: StatusCode, text: &'static str, seconds: impl Into<HeaderValue>) -> Response {
    let mut response = http::text(status, text);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    keep_private(response.headers_mut());
    response
}

/// Better to come again than a false 404.
fn unavailable(text: &'static str) -> Response {
    later(StatusCode::SERVICE_UNAVAILABLE, text, http::RETRY_AFTER_SECONDS)
}

/// Says nothing about the id.
fn too_many_guesses() -> Response {
    let text = "too many unknown short links were asked for, please come again in a minute\n";
    later(StatusCode::TOO_MANY_REQUESTS, text, guesses::WINDOW_SECONDS)
}

/// The answer for a link that does not redirect, in the requested format, else as a page or as text.
fn no_redirect(fault: &ApiError, requested: Requested<'_>, accepts_html: bool) -> Response {
    let exception = fault.exception();
    let status = fault.goto_status();
    let mut response = match requested.format() {
        Ok(Some(format)) => {
            let body = format.render(&Value::Exception(exception), std::time::Duration::ZERO);
            http::bytes(status, format.content_type(), body)
        }
        // goto ignores an unknown format, like everything else that clients add.
        Ok(None) | Err(_) if accepts_html => page::respond(status, &exception),
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

/// The answer to a path that the server does not serve.
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
    let accept = headers.get(header::ACCEPT);
    accept.is_some_and(|accept| is_html_in(accept.as_bytes()))
}

/// Whether the value of an `Accept` header names HTML.
fn is_html_in(accept: &[u8]) -> bool {
    std::str::from_utf8(accept).is_ok_and(|accept| accept.contains("text/html"))
}

/// No cache may keep it, and no search engine list it.
fn keep_private(headers: &mut HeaderMap) {
    http::no_store(headers);
    http::forbid_indexing(headers);
}
