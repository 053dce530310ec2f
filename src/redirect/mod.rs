//! `/tiny`, `goto` and `/robots.txt`, answered from memory, or from the store while the links are still loading. Never
//! sees sessions.

mod branding;
mod fast;
mod forgive;
mod guesses;
mod language;
mod page;
mod previews;
mod proxied;
mod texts;

pub use branding::{Branding, Colour, LOGO_MAX_BYTES, Logo, check_name};
pub use fast::request::{Ahead, Asker};
pub use fast::{FastPath, Now, Outcome, Waiting};
pub use guesses::UnknownIdLimit;
pub use page::Pages;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
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
use crate::redirect::language::Language;
use crate::redirect::page::Notice;
use crate::redirect::previews::{PURPOSES, Visitor, Visitors, is_unasked};

/// A browser may keep the 301 of `/tiny`: it only says where goto is.
const HOP_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// Without it, a crawler may keep `/robots.txt` as long as it likes.
const ROBOTS_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=86400");

/// Search engines must not find links (docs/kaltura-api.md#tiny).
const ROBOTS: &str = "User-agent: *\nDisallow: /tiny/\nDisallow: /api_v3/\n";

/// Of answers that are no page.
const VARY: HeaderValue = HeaderValue::from_static("Accept");

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

/// What a client gets in place of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Representation {
    /// For programs.
    Text,
    /// For browsers.
    Page(Language),
}

/// Redirects to the destinations of links.
#[derive(Debug)]
pub struct Redirects {
    links: Arc<Links>,
    tiny: Tiny,
    /// Whether a text that is no id counts as the id in it, if there is such a link.
    forgiving: bool,
    guesses: Arc<UnknownIdLimit>,
    pages: Arc<Pages>,
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
        pages: &Arc<Pages>,
        fetcher: Option<Fetcher>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            links: Arc::clone(links),
            tiny,
            forgiving,
            guesses: Arc::clone(guesses),
            pages: Arc::clone(pages),
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
        let representation = || representation(client.headers, requested);
        let unknown = || {
            let response = respond_to(Verdict::Unknown, text, requested, &self.pages, representation);
            (RedirectOutcome::Unknown, response)
        };
        let too_many = || {
            (
                RedirectOutcome::Refused,
                too_many_guesses(&self.pages, representation()),
            )
        };
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
        let began = Instant::now();
        let representation = || representation(client.headers, requested);
        let refused = |fault: &ApiError| no_redirect(fault, requested, &self.pages, representation());
        let Some(text) = text else {
            return refused(&ApiError::missing("id"));
        };
        let (outcome, response) = match self.judge(text, requested, client).await {
            Err(refused) => refused,
            Ok((id, verdict)) => {
                if let Verdict::Redirect(location) = &verdict {
                    let now = self.links.clock().now();
                    let visit = self.visitors.visit_of(&visitor(method, client.headers));
                    if let Some(fetcher) = self.fetcher.as_ref().filter(|_| requested.proxy) {
                        // A download that anybody can begin must not outlast the drain.
                        if self.links.is_ending() {
                            return refused(&ApiError::TooManyFetches);
                        }
                        let head_only = method == Method::HEAD;
                        let fetched = proxied::fetch(fetcher, id, location, head_only, client).await;
                        if fetched.is_ok() && proxied::is_from_the_beginning(client.headers) {
                            self.recorder.record(id, visit, now);
                        }
                        return fetched.unwrap_or_else(|fault| refused(&fault));
                    }
                    self.recorder.record(id, visit, now);
                }
                let outcome = outcome_of(&verdict);
                let response = respond_to(verdict, id.as_str(), requested, &self.pages, representation);
                (outcome, response)
            }
        };
        self.metrics.redirects.count(outcome, began.elapsed());
        response
    }

    /// The answer to a path that the server does not serve.
    pub fn not_found(&self, headers: &HeaderMap) -> Response {
        let status = StatusCode::NOT_FOUND;
        let representation = representation(headers, Requested::default());
        let mut response = text_or_page(status, "not found\n", Notice::PageNotFound, &self.pages, representation);
        http::no_store(response.headers_mut());
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

/// Looks for the representation only where it does not redirect.
fn respond_to(
    verdict: Verdict,
    id: &str,
    requested: Requested<'_>,
    pages: &Pages,
    representation: impl FnOnce() -> Representation,
) -> Response {
    let invalid = |deleted| ApiError::InvalidShortLink {
        id: id.to_owned(),
        deleted,
    };
    let fault = match verdict {
        Verdict::Redirect(location) => return found(location),
        Verdict::Loading => {
            let text = "links are being loaded, please try again\n";
            return unavailable(text, Notice::Loading, pages, representation());
        }
        Verdict::Damaged => {
            let text = "this link is temporarily unavailable\n";
            return unavailable(text, Notice::Damaged, pages, representation());
        }
        Verdict::Unknown => ApiError::InvalidObjectId { id: id.to_owned() },
        Verdict::Disabled => invalid(false),
        Verdict::Deleted => invalid(true),
        Verdict::Expired => ApiError::ExpiredShortLink { id: id.to_owned() },
        Verdict::NotYet(starts_at) => ApiError::NotYetOpenShortLink {
            id: id.to_owned(),
            starts_at,
        },
    };
    no_redirect(&fault, requested, pages, representation())
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

fn text_or_page(
    status: StatusCode,
    text: impl Into<Bytes>,
    notice: Notice,
    pages: &Pages,
    representation: Representation,
) -> Response {
    match representation {
        Representation::Page(language) => pages.respond(status, notice, language),
        Representation::Text => {
            let mut response = http::text(status, text);
            response.headers_mut().insert(header::VARY, VARY);
            response
        }
    }
}

/// Better to come again than a false 404.
fn unavailable(text: &'static str, notice: Notice, pages: &Pages, representation: Representation) -> Response {
    let mut response = text_or_page(StatusCode::SERVICE_UNAVAILABLE, text, notice, pages, representation);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, http::RETRY_AFTER_SECONDS.into());
    keep_private(headers);
    response
}

/// Says nothing about the id.
fn too_many_guesses(pages: &Pages, representation: Representation) -> Response {
    let text = "too many unknown short links were asked for, please come again in a minute\n";
    let (status, notice) = (StatusCode::TOO_MANY_REQUESTS, Notice::TooManyGuesses);
    let mut response = text_or_page(status, text, notice, pages, representation);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, guesses::WINDOW_SECONDS.into());
    keep_private(headers);
    response
}

/// The answer for a link that does not redirect, in the requested format, else as a page or as text.
fn no_redirect(fault: &ApiError, requested: Requested<'_>, pages: &Pages, representation: Representation) -> Response {
    let exception = fault.exception();
    let status = fault.goto_status();
    let mut response = match requested.format() {
        Ok(Some(format)) => {
            let body = format.render(&Value::Exception(exception), std::time::Duration::ZERO);
            let mut response = http::bytes(status, format.content_type(), body);
            response.headers_mut().insert(header::VARY, VARY);
            response
        }
        // goto ignores an unknown format, like everything else that clients add.
        Ok(None) | Err(_) => {
            let Exception { code, message, .. } = exception;
            let text = format!("{message} ({code})\n");
            text_or_page(status, text, fault.into(), pages, representation)
        }
    };
    let headers = response.headers_mut();
    fault.write_headers(headers);
    keep_private(headers);
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

fn representation(headers: &HeaderMap, requested: Requested<'_>) -> Representation {
    if let Ok(Some(_)) = requested.format() {
        return Representation::Text;
    }
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    let languages = headers.get_all(header::ACCEPT_LANGUAGE).into_iter();
    Representation::preferred(accept, languages.map(HeaderValue::as_bytes))
}

impl Representation {
    /// By the first `Accept`, and all values of `Accept-Language`.
    fn preferred<'h>(accept: Option<&[u8]>, languages: impl Iterator<Item = &'h [u8]>) -> Self {
        if accept.is_some_and(is_html_in) {
            Self::Page(Language::preferred(languages))
        } else {
            Self::Text
        }
    }
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
