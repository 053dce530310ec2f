//! What each listener serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::acme::Challenges;
use crate::admin::Monitor;
use crate::api::Api;
use crate::console::{CONSOLE_PATH, Console};
use crate::fetch;
use crate::http::connection::serve::Service;
use crate::http::{self, Budget, Response};
use crate::kaltura::format::Format;
use crate::kaltura::{self, AccessLog, ApiError, Call, Requested, Subject, Target};
use crate::redirect::{Client, Redirects};
use crate::server::https_redirect::HttpsRedirect;

/// The public listener: redirects and nothing else.
#[derive(Debug, Clone)]
pub(super) struct PublicService {
    pub(super) redirects: Arc<Redirects>,
    pub(super) access_log: Arc<AccessLog>,
    /// Of plain HTTP that sends clients to HTTPS.
    pub(super) https_redirect: Option<Arc<HttpsRedirect>>,
    pub(super) challenges: Arc<Challenges>,
}

impl PublicService {
    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        // Before anything else: an authority follows no rules of ours.
        let challenge = self.challenges.respond(request.method(), request.uri().path()).await;
        let redirected = || self.https_redirect.as_ref()?.respond(request.uri(), request.headers());
        let mut response = match challenge.or_else(redirected) {
            Some(response) => response,
            None => self.redirect(&request, client).await,
        };
        if !request.body().is_end_stream() {
            // The body is not read, so no request can follow it.
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn redirect(&self, request: &Request<Incoming>, client: IpAddr) -> Response {
        let answered = self
            .redirects
            .respond(request.method(), request.uri(), client_of(request, client));
        match answered.await {
            Some(response) => response,
            None => self.refuse(request, client).await,
        }
    }

    async fn refuse(&self, request: &Request<Incoming>, client: IpAddr) -> Response {
        if http::is_about_server(request) {
            return http::allow(request.method(), http::API_METHODS);
        }
        let Some(target) = Target::from_uri(request.uri()) else {
            return self.redirects.not_found(request.headers());
        };
        match *request.method() {
            Method::GET | Method::HEAD | Method::POST => {}
            Method::OPTIONS => return http::cors_preflight(),
            _ => return http::allow(request.method(), http::API_METHODS),
        }
        let call = Call::from_target(target);
        let requested = Requested::from(&call);
        if call.is_goto() {
            // A POST has the id in its body, if at all.
            return self
                .redirects
                .goto(&Method::POST, None, requested, client_of(request, client))
                .await;
        }
        let fault = ApiError::ServiceForbidden {
            service: call.service.as_deref().unwrap_or("").to_owned(),
            action: call.action.as_deref().unwrap_or("").to_owned(),
        };
        fault.respond(&requested.format_of_faults(), Duration::ZERO)
    }
}

impl Service for PublicService {
    async fn respond(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        logged(&self.access_log, "public", request, client, |request| {
            self.answer(request, client)
        })
        .await
    }
}

/// The admin listener: the API, and redirects too, because clients know one base URL.
#[derive(Debug, Clone)]
pub(super) struct AdminService {
    pub(super) api: Arc<Api>,
    pub(super) redirects: Arc<Redirects>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) access_log: Arc<AccessLog>,
    pub(super) budget: Arc<Budget>,
    pub(super) console: Option<Arc<Console>>,
}

impl AdminService {
    /// The console alone, if there is one.
    pub(super) fn only_console(&self) -> Option<ConsoleService> {
        Some(ConsoleService {
            console: Arc::clone(self.console.as_ref()?),
            access_log: Arc::clone(&self.access_log),
            budget: Arc::clone(&self.budget),
        })
    }

    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let target = Target::from_uri(request.uri());
        let is_goto = || target.is_some_and(|target| Call::from_target(target).is_goto());
        if fetch::is_from_proxy(request.headers()) && !is_goto() {
            return from_proxy();
        }
        if http::is_about_server(&request) {
            return http::allow(request.method(), http::API_METHODS);
        }
        let path = kaltura::merge_slashes(request.uri().path());
        if let Some(response) = self.monitor.respond(&path, &request) {
            return response;
        }
        if let Some(console) = &self.console
            && is_of_console(&path)
        {
            let path = path.into_owned();
            return console.respond(&path, request, client).await;
        }
        if let Some(admin_box) = self.api.admin_box()
            && is_of_console(&path)
        {
            let text = format!("this server is an edge of a cluster: use the console of {admin_box}\n");
            return http::text(StatusCode::NOT_FOUND, text);
        }
        // A goto with a body, which may have parameters, is the API's.
        let is_of_api = target.is_some();
        if request.body().is_end_stream() || !is_of_api {
            let redirect = self
                .redirects
                .respond(request.method(), request.uri(), client_of(&request, client));
            if let Some(response) = redirect.await {
                return response;
            }
        }
        if is_of_api {
            return Arc::clone(&self.api).respond(request, client).await;
        }
        self.redirects.not_found(request.headers())
    }
}

/// The console's own listener: its pages and nothing else.
#[derive(Debug, Clone)]
pub(super) struct ConsoleService {
    pub(super) console: Arc<Console>,
    pub(super) access_log: Arc<AccessLog>,
    pub(super) budget: Arc<Budget>,
}

impl ConsoleService {
    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let path = kaltura::merge_slashes(request.uri().path()).into_owned();
        if path == "/" {
            return self.console.respond(CONSOLE_PATH, request, client).await;
        }
        if fetch::is_from_proxy(request.headers()) || !is_of_console(&path) {
            return http::text(StatusCode::NOT_FOUND, "not found\n");
        }
        self.console.respond(&path, request, client).await
    }
}

impl Service for ConsoleService {
    async fn respond(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let answer = |request| async move {
            let response = self.answer(request, client).await;
            self.budget.hold(response).unwrap_or_else(overloaded)
        };
        logged(&self.access_log, "console", request, client, answer).await
    }
}

fn is_of_console(path: &str) -> bool {
    let below = path.strip_prefix(CONSOLE_PATH);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

impl Service for AdminService {
    async fn respond(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let answer = |request| async move {
            let response = self.answer(request, client).await;
            self.budget.hold(response).unwrap_or_else(overloaded)
        };
        logged(&self.access_log, "admin", request, client, answer).await
    }
}

async fn logged<F: Future<Output = Response>>(
    log: &AccessLog,
    listener: &'static str,
    request: Request<Incoming>,
    client: IpAddr,
    answer: impl FnOnce(Request<Incoming>) -> F,
) -> Response {
    if !log.takes_next() {
        return answer(request).await;
    }
    let (started, method, uri) = (Instant::now(), request.method().clone(), request.uri().clone());
    let response = answer(request).await;
    let subject = Subject::from_uri(&uri);
    log.write(
        listener,
        client,
        method.as_str(),
        &subject,
        response.status(),
        Some(started.elapsed()),
    );
    response
}

fn client_of(request: &Request<Incoming>, address: IpAddr) -> Client<'_> {
    Client {
        headers: request.headers(),
        address,
        presence: request.extensions().get(),
    }
}

/// The response to our own fetch: a destination must not lead to the admin listener.
fn from_proxy() -> Response {
    let mut response = http::text(StatusCode::LOOP_DETECTED, "short links cannot lead here\n");
    http::no_store(response.headers_mut());
    response
}

fn overloaded() -> Response {
    let mut response = ApiError::Overloaded.respond(&Format::DEFAULT, Duration::ZERO);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
