//! What each listener serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::api::Api;
use crate::fetch;
use crate::http::{self, AccessLog, Budget, Call, Fault, Requested, Response, Target};
use crate::public::{self, Client, Public};
use crate::server::connection::Service;
use crate::server::monitor::Monitor;
use crate::server::{readiness, status};
use crate::wire::Format;

/// The public listener: redirects and nothing else.
#[derive(Debug, Clone)]
pub(super) struct PublicService {
    public: Arc<Public>,
    access_log: Arc<AccessLog>,
}

impl PublicService {
    pub(super) const fn new(public: Arc<Public>, access_log: Arc<AccessLog>) -> Self {
        Self { public, access_log }
    }

    /// The answer to what the public listener does not serve.
    async fn refuse(&self, request: &Request<Incoming>, client: IpAddr) -> Response {
        if http::is_about_server(request) {
            return http::allow(request.method(), http::API_METHODS);
        }
        let Some(target) = Target::of(request.uri()) else {
            return public::not_found(request.headers());
        };
        match *request.method() {
            Method::GET | Method::HEAD | Method::POST => {}
            Method::OPTIONS => return http::cors_preflight(),
            _ => return http::allow(request.method(), http::API_METHODS),
        }
        let call = Call::of(target);
        let requested = Requested::from(&call);
        if call.is_goto() {
            // By POST, with the id in the body or nowhere.
            return self.public.goto(None, requested, client_of(request, client)).await;
        }
        let fault = Fault::ServiceForbidden {
            service: call.service.as_deref().unwrap_or("").to_owned(),
            action: call.action.as_deref().unwrap_or("").to_owned(),
        };
        fault.respond(&requested.format_of_faults(), Duration::ZERO)
    }
}

impl Service for PublicService {
    const NAME: &'static str = "public";

    fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    async fn respond(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let answered = self
            .public
            .respond(request.method(), request.uri(), client_of(&request, client));
        let mut response = match answered.await {
            Some(response) => response,
            None => self.refuse(&request, client).await,
        };
        if !request.body().is_end_stream() {
            // The body is not read, so nothing can come after it.
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The admin listener: the API, and the redirects too, because a client knows one base URL.
#[derive(Debug, Clone)]
pub(super) struct AdminService {
    api: Arc<Api>,
    public: Arc<Public>,
    monitor: Arc<Monitor>,
    access_log: Arc<AccessLog>,
    budget: Arc<Budget>,
}

impl AdminService {
    pub(super) const fn new(
        api: Arc<Api>,
        public: Arc<Public>,
        monitor: Arc<Monitor>,
        access_log: Arc<AccessLog>,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            api,
            public,
            monitor,
            access_log,
            budget,
        }
    }

    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let target = Target::of(request.uri());
        let is_goto = || target.is_some_and(|target| Call::of(target).is_goto());
        if fetch::is_from_proxy(request.headers()) && !is_goto() {
            return from_proxy();
        }
        if http::is_about_server(&request) {
            return http::allow(request.method(), http::API_METHODS);
        }
        match &*http::merge_slashes(request.uri().path()) {
            "/healthz" => return readiness::healthz(request.method()),
            "/readyz" => return readiness::readyz(request.method(), self.monitor.links()),
            "/metrics" => return self.monitor.metrics(&request),
            "/status" => return status::respond(request.method(), &self.monitor),
            _ => {}
        }
        // A goto with a body, which may say more about it, is the API's.
        let is_of_api = target.is_some();
        if request.body().is_end_stream() || !is_of_api {
            let redirect = self
                .public
                .respond(request.method(), request.uri(), client_of(&request, client));
            if let Some(response) = redirect.await {
                return response;
            }
        }
        if is_of_api {
            return Arc::clone(&self.api).respond(request, client).await;
        }
        public::not_found(request.headers())
    }
}

impl Service for AdminService {
    const NAME: &'static str = "admin";

    fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    async fn respond(&self, request: Request<Incoming>, client: IpAddr) -> Response {
        let response = self.answer(request, client).await;
        self.budget.hold(response).unwrap_or_else(overloaded)
    }
}

fn client_of(request: &Request<Incoming>, address: IpAddr) -> Client<'_> {
    Client {
        headers: request.headers(),
        address,
        attendance: request.extensions().get(),
    }
}

/// The answer to what was fetched for somebody. However a destination may have led here, by a way that only the network knows
/// perhaps, nothing of the admin listener is content for strangers.
fn from_proxy() -> Response {
    let mut response = http::text(StatusCode::LOOP_DETECTED, "this is no destination of short links\n");
    http::no_store(response.headers_mut());
    response
}

/// The answer for which there is no memory.
fn overloaded() -> Response {
    let mut response = Fault::Overloaded.respond(&Format::DEFAULT, Duration::ZERO);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
