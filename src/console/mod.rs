//! The web console: pages on which people make and share links, and administrators manage them.
//!
//! The pages are rendered here and work without a script. What somebody may do follows from the same rules as for a
//! KS: a page asks `links` with the scope of its session. The API never sees a cookie.

mod admin;
mod assets;
mod cookie;
#[cfg(fuzzing)]
mod fuzz;
mod header;
mod jobs;
mod links;
mod oidc;
mod page;
mod playback;
mod plot;
mod problem;
mod qr;
mod request;
mod settings;
mod sign_in;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use url::Url;

pub use cookie::CookieKey;
#[cfg(fuzzing)]
pub use fuzz::fuzz_console;
pub use header::{HeaderSettings, check_header};
pub use oidc::{OidcSecret, OidcSettings, check_group, check_issuer, check_name};
pub use settings::{ConsoleSettings, check_url};

use crate::access::{Grant, SessionStarts};
use crate::admin::Monitor;
use crate::console::cookie::{SignInMethod, SignedIn};
use crate::console::jobs::{BackgroundJob, JobKind, JobOwner, Jobs};
use crate::console::oidc::Oidc;
use crate::console::page::{isolate, protect, see_other};
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields, read_form};
use crate::http::{self, Response};
use crate::links::{Links, NewDestinations};
use crate::metrics::StartMethod;
use crate::redirect::{Branding, Colour};
use crate::transfer::Transfers;

/// Where the console is on the admin listener.
pub const CONSOLE_PATH: &str = "/console";

/// Methods of pages with a form.
const FORM_METHODS: &str = "GET, HEAD, POST";

/// What the console works with.
#[derive(Debug)]
pub struct ConsoleContext {
    pub links: Arc<Links>,
    pub starts: Arc<SessionStarts>,
    pub monitor: Arc<Monitor>,
    pub destinations: NewDestinations,
    pub transfers: Arc<Transfers>,
    pub key: CookieKey,
    pub short_url_base: String,
    pub branding: Branding,
    /// How long a form may take to arrive.
    pub body_timeout: Duration,
}

#[derive(Debug)]
pub struct Console {
    links: Arc<Links>,
    starts: Arc<SessionStarts>,
    monitor: Arc<Monitor>,
    destinations: NewDestinations,
    transfers: Arc<Transfers>,
    key: CookieKey,
    short_url_base: String,
    branding: Branding,
    body_timeout: Duration,
    /// The style sheet with the colour of the organisation.
    theme: String,
    oidc: Option<Oidc>,
    header: Option<HeaderSettings>,
    url: Option<Url>,
    /// The path of the console as browsers see it, without a slash at the end.
    base: String,
    jobs: Arc<Jobs>,
}

/// What a page answers.
type Page = Result<Response, Problem>;

impl Console {
    pub fn new(settings: &ConsoleSettings, context: ConsoleContext) -> Result<Self, String> {
        let base = settings
            .url
            .as_ref()
            .map(|url| url.path().trim_end_matches('/').to_owned());
        Ok(Self {
            links: context.links,
            starts: context.starts,
            monitor: context.monitor,
            destinations: context.destinations,
            transfers: context.transfers,
            key: context.key,
            oidc: settings.oidc.clone().map(Oidc::new).transpose()?,
            header: settings.header.clone(),
            short_url_base: context.short_url_base,
            theme: theme(&context.branding),
            branding: context.branding,
            body_timeout: context.body_timeout,
            url: settings.url.clone(),
            base: base.unwrap_or_else(|| CONSOLE_PATH.to_owned()),
            jobs: Arc::default(),
        })
    }

    /// The answer to a request for a path of the console.
    pub async fn respond(self: &Arc<Self>, path: &str, request: Request<Incoming>, client: IpAddr) -> Response {
        let below = path.strip_prefix(CONSOLE_PATH).unwrap_or_default();
        let parsed = ConsoleRequest::new(&request, below, client, self.url.as_ref());
        if below.is_empty() {
            return see_other(&format!("{}/", self.base));
        }
        if parsed.is_read() {
            return self.answer(&parsed, request).await;
        }
        let console = Arc::clone(self);
        // A task of its own: a browser that goes away does not stop half-way what it has begun.
        let task = tokio::spawn(async move { console.answer(&parsed, request).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "page of the console did not end");
            self.problem(&Problem::Internal, None)
        })
    }

    async fn answer(&self, request: &ConsoleRequest, original: Request<Incoming>) -> Response {
        if let Err(problem) = request.check_host(self.url.as_ref()) {
            return self.problem(&problem, None);
        }
        if request.path_parts() == ["theme.css"] && request.is_read() {
            return http::bytes(StatusCode::OK, "text/css; charset=utf-8", self.theme.clone());
        }
        if let [assets, name] = request.path_parts().as_slice()
            && *assets == "assets"
            && request.is_read()
        {
            return assets::respond(name, &request.headers).unwrap_or_else(|| self.problem(&Problem::NotFound, None));
        }
        let signed_in = match self.signed_in(request) {
            Ok(signed_in) => signed_in,
            Err(problem) => return self.problem(&problem, None),
        };
        let answered = match request.method {
            Method::GET | Method::HEAD => self.show(request, signed_in.as_ref()).await,
            Method::POST => match request.check_origin(self.url.as_ref()) {
                // The only form that is not read into memory.
                Ok(()) if request.path_parts() == ["transfer", "upload"] => {
                    self.upload(request, original.into_body(), signed_in.as_ref()).await
                }
                Ok(()) => match self.form(request, original.into_body()).await {
                    Ok(form) => self.change(request, &form, signed_in.as_ref()).await,
                    Err(problem) => Err(problem),
                },
                Err(problem) => Err(problem),
            },
            _ => return http::allow(&request.method, FORM_METHODS),
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(Problem::SignInFirst) if request.is_read() => see_other(&self.sign_in_path(request)),
            Err(problem) => self.problem(&problem, signed_in.as_ref()),
        };
        // A page that keeps itself up to date is no use of the console.
        let signed_in = signed_in.filter(|_| !request.is_by_script());
        let used = signed_in.and_then(|signed_in| signed_in.refreshed(self.links.clock().now()));
        if let Some(cookie) = used.and_then(|used| self.key.set_cookie(&used, request.is_secure)) {
            // Signing in and out sets its own.
            response.headers_mut().entry(SET_COOKIE).or_insert(cookie);
        }
        if request.is_secure {
            isolate(response.headers_mut());
        }
        response
    }

    /// Who has sent a request: by the header of a proxy or, where it says nothing, by a cookie.
    fn signed_in(&self, request: &ConsoleRequest) -> Result<Option<SignedIn>, Problem> {
        let Some(granted) = self.header.as_ref().and_then(|header| header.read(request).transpose()) else {
            return Ok(self.signed_in_by_cookie(request));
        };
        let is_known = |grant: &Grant| self.starts.partners().get(grant.partner).is_some();
        let known = granted.and_then(|grant| Some(grant).filter(is_known).ok_or(Problem::SignInFirst));
        match self.counted(StartMethod::Header, known) {
            Ok(grant) => Ok(Some(self.key.signed_in_by_header(grant, self.links.clock().now()))),
            Err(Problem::SignInFirst) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Who has sent a request, if that session is still valid.
    fn signed_in_by_cookie(&self, request: &ConsoleRequest) -> Option<SignedIn> {
        let found = self.key.find(&request.headers, request.is_secure)?;
        let session = &found.session;
        session.check_expiry(self.links.clock().now()).ok()?;
        self.links.check_not_revoked(session).ok()?;
        // A partner may have been taken out of the configuration, or have other secrets now.
        let partners = self.starts.partners();
        let partner = partners.get(session.partner)?;
        let is_valid = found.method != SignInMethod::Local || found.secrets == self.key.mark_of(partner);
        is_valid.then_some(found)
    }

    async fn form(&self, request: &ConsoleRequest, body: Incoming) -> Result<Fields, Problem> {
        read_form(&request.headers, body, self.body_timeout, self.transfers.budget()).await
    }

    async fn show(&self, request: &ConsoleRequest, signed_in: Option<&SignedIn>) -> Page {
        let path = request.path_parts();
        match path.as_slice() {
            [] => Ok(see_other(&self.path("links"))),
            ["sign-in"] => Ok(self.show_sign_in(request, signed_in)),
            ["sign-in", "link", token] => self.sign_in_link_page(token),
            ["sign-in", "oidc"] => self.begin_at_provider(request).await,
            ["sign-in", "callback"] => self.return_from_provider(request).await,
            [
                "all" | "audit" | "audit.jsonl" | "clicks" | "health" | "jobs" | "transfer" | "users",
                ..,
            ] => self.show_admin(&path, request, required(signed_in)?).await,
            ["bulk", number] => self.bulk_progress(number, required(signed_in)?),
            ["links", rest @ ..] => self.show_links(rest, request, required(signed_in)?).await,
            _ => Err(Problem::NotFound),
        }
    }

    async fn change(&self, request: &ConsoleRequest, form: &Fields, signed_in: Option<&SignedIn>) -> Page {
        let path = request.path_parts();
        match path.as_slice() {
            ["sign-in"] => return Ok(self.sign_in(request, form)),
            ["sign-in", "link", token] => return self.spend_sign_in_link(request, token),
            _ => {}
        }
        let is_of_session = |signed_in| self.key.is_form_token(signed_in, form.text("token"));
        let allowed = match signed_in {
            None => Err(Problem::SignInFirst),
            Some(signed_in) if !is_of_session(signed_in) => Err(Problem::OldForm),
            Some(signed_in) => Ok(signed_in),
        };
        let signed_in = match (allowed, path.as_slice()) {
            (Ok(signed_in), _) => signed_in,
            (Err(problem), ["links", rest @ ..]) => return self.with_entered(rest, form, signed_in, problem).await,
            (Err(problem), _) => return Err(problem),
        };
        match path.as_slice() {
            ["sign-out"] => self.sign_out(request, signed_in).await,
            ["bulk", "confirm"] => self.confirm_bulk(form, signed_in).await,
            ["bulk"] => self.begin_bulk(form, signed_in).await,
            ["transfer", ..] => self.change_admin(&path, form, signed_in),
            ["links", rest @ ..] => self.change_links(rest, form, signed_in).await,
            _ => Err(Problem::NotFound),
        }
    }

    fn is_operator(&self, signed_in: &SignedIn) -> bool {
        signed_in.is_admin() && self.starts.is_operator(signed_in.session.partner)
    }

    /// Takes a job of somebody, before it begins to run.
    fn begin_job(&self, kind: JobKind, signed_in: &SignedIn) -> Result<Arc<BackgroundJob>, Problem> {
        let owner = JobOwner {
            session: signed_in.session.digest,
            partner: signed_in.session.partner,
            user: signed_in.user.clone(),
        };
        let begun = self.jobs.begin(owner, self.links.clock().now(), kind);
        begun.ok_or(Problem::TooManyJobs)
    }

    /// A path of the console, as browsers see it.
    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.base)
    }
}

/// The colour of the organisation, made readable on light and on dark.
fn theme(branding: &Branding) -> String {
    // The backgrounds of style.css that are closest to the text on them: what reads there reads on the others.
    const LIGHT: Colour = Colour::new(0xe8, 0xf1, 0xfb);
    const DARK: Colour = Colour::new(0x1b, 0x2b, 0x3d);
    let variables = |background: Colour| {
        let accent = branding.accent.readable_on(background);
        format!("--accent:{accent};--on-accent:{}", accent.of_text_on_it())
    };
    let (light, dark) = (variables(LIGHT), variables(DARK));
    format!(":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n")
}

fn required(signed_in: Option<&SignedIn>) -> Result<&SignedIn, Problem> {
    signed_in.ok_or(Problem::SignInFirst)
}

/// A response that a browser shows, or saves, for somebody.
fn file(kind: &'static str, body: Vec<u8>, name: Option<String>) -> Response {
    let mut response = http::bytes(StatusCode::OK, kind, body);
    let headers = response.headers_mut();
    protect(headers);
    if let Some(name) = name {
        save_as(headers, &name);
    }
    response
}

/// Has browsers save a response under this name.
fn save_as(headers: &mut HeaderMap, name: &str) {
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
}
