//! The API: request → parameters → action → result, and the permissions of sessions.
//!
//! Owns the meaning of every parameter.

mod access;
mod body;
mod caller;
mod destinations;
mod fields;
#[cfg(fuzzing)]
mod fuzz;
mod history;
mod json;
mod multirequest;
mod params;
mod session;
mod short_link;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};

pub use caller::COMMAND_LINE;
#[cfg(fuzzing)]
pub use fuzz::{fuzz_parameters, fuzz_references};
pub use params::Params;

use crate::access::SessionStarts;
use crate::api::caller::{Caller, caller_of};
use crate::api::short_link::profile::Profile;
use crate::http::{self, BodyLimits, Budget, ClientPresence, Reservation, Response};
use crate::kaltura;
use crate::kaltura::format::{Format, Value};
use crate::kaltura::{ApiError, Requested, Target};
use crate::links::{LinkError, Links, NewDestinations, READ_TIMEOUT, Turn};
use crate::metrics::{ActionName, Listener, Metrics, Refusal, UNKNOWN_ACTION};
use crate::model::ForbiddenHost;
use crate::redirect::{Client, Redirects};
use crate::store::{REOPEN_SECONDS_MAX, StoreError, WriteError};
use crate::transfer::Transfers;

#[derive(Debug, Clone, Copy)]
enum Action {
    Add,
    Get,
    List,
    Update,
    Delete,
    Restore,
    RenewId,
    Goto,
    StartSession,
    EndSession,
    RestoreMany,
    DeleteUser,
    Backup,
    Export,
    Import,
    ClicksByDay,
    Audit,
    Ping,
    GetTime,
    GetVersion,
    SignInLink,
}

impl Action {
    /// Whether refusing the answer is of no use: the action has done its work.
    const fn changes_something(self) -> bool {
        matches!(
            self,
            Self::Add
                | Self::Update
                | Self::Delete
                | Self::Restore
                | Self::RenewId
                | Self::RestoreMany
                | Self::DeleteUser
                | Self::EndSession
                | Self::Import
        )
    }

    /// Whether it needs a secret of a partner, itself or in a session.
    const fn needs_session(self) -> bool {
        !matches!(self, Self::Goto | Self::Ping | Self::GetTime | Self::GetVersion)
    }

    /// Whether an edge of a cluster cannot do it. A sign-in link is for a console, which an edge has not.
    const fn needs_admin_box(self) -> bool {
        self.changes_something() || matches!(self, Self::SignInLink)
    }
}

/// The services and their actions, in lower case (docs/kaltura-api.md#services; `restore`, `restoreMany`,
/// `renewId` and the service `tinyd` are ours).
const ACTIONS: [(&str, &str, Action); 21] = [
    (short_link::SERVICE, "add", Action::Add),
    (short_link::SERVICE, "get", Action::Get),
    (short_link::SERVICE, "list", Action::List),
    (short_link::SERVICE, "update", Action::Update),
    (short_link::SERVICE, "delete", Action::Delete),
    (short_link::SERVICE, "restore", Action::Restore),
    (short_link::SERVICE, "restoremany", Action::RestoreMany),
    (short_link::SERVICE, "renewid", Action::RenewId),
    (short_link::SERVICE, "goto", Action::Goto),
    ("session", "start", Action::StartSession),
    ("session", "end", Action::EndSession),
    ("user", "delete", Action::DeleteUser),
    (transfer::SERVICE, "backup", Action::Backup),
    (transfer::SERVICE, "export", Action::Export),
    (transfer::SERVICE, "import", Action::Import),
    (transfer::SERVICE, "signinlink", Action::SignInLink),
    (transfer::SERVICE, "clicksbyday", Action::ClicksByDay),
    (transfer::SERVICE, "audit", Action::Audit),
    ("system", "ping", Action::Ping),
    ("system", "gettime", Action::GetTime),
    ("system", "getversion", Action::GetVersion),
];

/// How long the client may take for a line of the response to an import.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client waits for a call, whose work goes on: longer than imports hold the writer. Without it, a disk that
/// does not answer would hold all places.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The API of the admin listener.
#[derive(Debug)]
pub struct Api {
    links: Arc<Links>,
    redirects: Arc<Redirects>,
    starts: Arc<SessionStarts>,
    bodies: BodyLimits,
    budget: Arc<Budget>,
    destinations: NewDestinations,
    transfers: Arc<Transfers>,
    metrics: Arc<Metrics>,
    /// On an edge of a cluster: whose API to call for what this one cannot do.
    admin_box: Option<String>,
}

/// A request whose parameters have been read.
struct Running {
    params: Params,
    caller: Caller,
    reservation: Reservation,
    started: Instant,
}

/// The result of a call.
#[derive(Debug)]
enum Outcome {
    /// With the turn in which it was read: kept until it has been written.
    Value(Value, Option<Turn>),
    /// The results of a multirequest.
    Written(Vec<u8>, StatusCode),
    /// A redirect: the whole response, also out of a multirequest.
    Response(Response),
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Self::Value(value, None)
    }
}

impl Api {
    pub fn new(
        links: Arc<Links>,
        redirects: Arc<Redirects>,
        starts: Arc<SessionStarts>,
        bodies: BodyLimits,
        transfers: Arc<Transfers>,
        destinations: NewDestinations,
        metrics: Arc<Metrics>,
    ) -> Self {
        let names = ACTIONS.iter().map(|(service, name, _)| (*service, *name));
        metrics.calls.expect(names);
        Self {
            links,
            redirects,
            starts,
            bodies,
            budget: Arc::clone(transfers.budget()),
            destinations,
            transfers,
            metrics,
            admin_box: None,
        }
    }

    /// The API of an edge of a cluster; of an admin box with `None`.
    pub fn with_admin_box(self, admin_box: Option<String>) -> Self {
        Self { admin_box, ..self }
    }

    /// On an edge: whose API and console to use.
    pub fn admin_box(&self) -> Option<&str> {
        self.admin_box.as_deref()
    }

    /// What an edge answers to what it cannot do; `None`: this is none.
    fn edge(&self) -> Option<ApiError> {
        let admin = self.admin_box.clone()?;
        Some(ApiError::Edge { admin })
    }

    pub async fn respond(self: Arc<Self>, request: Request<Incoming>, address: IpAddr) -> Response {
        let started = Instant::now();
        match *request.method() {
            Method::GET | Method::HEAD | Method::POST => {}
            Method::OPTIONS => return http::cors_preflight(),
            _ => return http::allow(request.method(), http::API_METHODS),
        }
        if request.method() == Method::POST && Self::is_import(&request) {
            return self.import(request, address).await;
        }
        let (head, incoming) = request.into_parts();
        let mut params = Params::default();
        let Some(mut reservation) = self.budget.reserve(0) else {
            return refuse(&ApiError::Overloaded, &params, &head.headers, started);
        };
        // The calls keep a copy of the headers.
        let lines = head.headers.iter();
        reservation.grow_anyway(lines.map(|(name, value)| name.as_str().len() + value.len()).sum());
        if let Err(fault) = self.read_params(&head, incoming, &mut params, &mut reservation).await {
            self.count(UNKNOWN_ACTION, Some(&fault), started);
            return refuse(&fault, &params, &head.headers, started);
        }
        let (caller, _presence) = caller_of(&head, address, started);
        let attendance = head.extensions.get::<ClientPresence>().cloned().unwrap_or_default();
        let mut is_awaited = caller.reading.is_awaited.subscribe();
        let running = Running {
            params,
            caller,
            reservation,
            started,
        };
        // A task of its own: a client that goes away does not stop half-way what it has begun.
        let mut task = tokio::spawn(self.run_and_write(running));
        let patience = started + CALL_TIMEOUT;
        let fault = loop {
            tokio::select! {
                done = &mut task => match done {
                    Ok(response) => return response,
                    Err(error) => {
                        tracing::error!(%error, "API call did not end");
                        break ApiError::Internal;
                    }
                },
                // The task goes on, but reads no more.
                () = tokio::time::sleep_until(patience.into()) => break ApiError::OutcomeUnknown,
                // Here, so that the task of the connection looks at it once more.
                Ok(()) = is_awaited.changed() => {
                    if *is_awaited.borrow_and_update() {
                        attendance.require_until(patience);
                    } else {
                        attendance.release();
                    }
                }
            }
        };
        fault.respond(&Format::DEFAULT, started.elapsed())
    }

    async fn run_and_write(self: Arc<Self>, running: Running) -> Response {
        let started = running.started;
        let format = match requested(&running.params).and_then(Requested::format_or_default) {
            Ok(format) => format,
            Err(fault) => {
                self.count(UNKNOWN_ACTION, Some(&fault), started);
                return fault.respond(&Format::DEFAULT, started.elapsed());
            }
        };
        let written = self.run(running, &format).await;
        written.unwrap_or_else(|fault| fault.respond(&format, started.elapsed()))
    }

    /// Runs the calls of a request and writes their results.
    async fn run(&self, mut running: Running, format: &Format) -> Result<Response, ApiError> {
        let service = running.params.given("service")?.ok_or(ApiError::ServiceNotSpecified)?;
        let outcome = if service.eq_ignore_ascii_case("multirequest") {
            self.run_multirequest(&mut running, format).await?
        } else {
            check_room(&running.reservation)?;
            self.call(&running.params, &running.caller).await?
        };
        let mut reservation = running.reservation;
        let (body, status) = match outcome {
            Outcome::Response(response) => return Ok(response),
            Outcome::Written(body, status) => (body, status),
            // The turn lasts until the result is written.
            Outcome::Value(value, _turn) => {
                let body = format.render(&value, running.started.elapsed());
                self.reserve_result(&running.params, &mut reservation, body.len())?;
                (body, StatusCode::OK)
            }
        };
        reservation.shrink_to(body.len());
        let mut response = kaltura::respond(status, format, body);
        reservation.leave_to(&mut response);
        Ok(response)
    }

    /// All parameters of a request: those of the body, overridden by those of the query, overridden by those of the
    /// path. Reads on after a fault, so that the answer can be in the requested format.
    async fn read_params(
        &self,
        head: &hyper::http::request::Parts,
        incoming: Incoming,
        params: &mut Params,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        let mut all = match body::read(incoming, self.bodies, reservation).await {
            Ok(bytes) => body::parse(&head.headers, bytes, params).await,
            Err(fault) => Err(fault),
        };
        let mut of_target = Params::default();
        all = all.and(Self::read_target(head, &mut of_target));
        if !reservation.grow(params.memory_bytes() + of_target.memory_bytes()) {
            all = all.and(Err(ApiError::Overloaded));
        }
        params.merge(of_target);
        all
    }

    /// The parameters of a request's target. Reads on after a fault.
    fn read_target(head: &hyper::http::request::Parts, of_target: &mut Params) -> Result<(), ApiError> {
        let target = Target::from_uri(&head.uri).into_iter();
        let by_precedence: Vec<_> = target.flat_map(Target::parameters).collect();
        let mut all = Ok(());
        // A later parameter replaces an earlier one.
        for (source, key, value) in by_precedence.into_iter().rev() {
            all = all.and(of_target.insert_of_url(source, key, value));
        }
        all
    }

    /// Reserves memory for the result of a call. Refuses a read for which there is no room; the result of a change is
    /// short, and is answered in any case.
    fn reserve_result(&self, call: &Params, reservation: &mut Reservation, bytes: usize) -> Result<(), ApiError> {
        if reservation.grow(bytes) {
            return Ok(());
        }
        if !meant_action(call).is_ok_and(|(.., action)| action.changes_something()) {
            self.metrics.refused(Listener::Admin, Refusal::BufferedBytes);
            return Err(ApiError::Overloaded);
        }
        reservation.grow_anyway(bytes);
        Ok(())
    }

    /// Runs one action.
    async fn call(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let started = Instant::now();
        // The names are those of the table: what the client sent could be anything, a session among others.
        let (name, result) = match meant_action(params) {
            Ok((service, name, action)) => ((service, name), self.try_to(action, params, caller).await),
            Err(fault) => (UNKNOWN_ACTION, Err(fault)),
        };
        self.count(name, result.as_ref().err(), started);
        result
    }

    fn count(&self, action: ActionName, fault: Option<&ApiError>, started: Instant) {
        let code = fault.map_or("", |fault| fault.code());
        let elapsed = started.elapsed();
        self.metrics.calls.count(action, code, elapsed);
        if matches!(fault, Some(ApiError::TooSlow)) {
            self.metrics.connections(Listener::Admin).refused(Refusal::BodyTimeout);
        }
        if matches!(fault, Some(ApiError::Overloaded)) {
            self.metrics.refused(Listener::Admin, Refusal::BufferedBytes);
        }
        let (service, action) = action;
        tracing::debug!(service, action, code, ?elapsed, "call");
    }

    /// Runs an action unless this is an edge that cannot.
    async fn try_to(&self, action: Action, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let Some(edge) = self.edge() else {
            return self.dispatch(action, params, caller).await;
        };
        let knows_sessions = self.starts.partners().ids().next().is_some();
        if action.needs_admin_box() || action.needs_session() && !knows_sessions {
            return Err(edge);
        }
        let done = self.dispatch(action, params, caller).await;
        done.map_err(|fault| match fault {
            // Calls of a session with a limit are counted on admin boxes.
            ApiError::ReadOnly => edge,
            fault => fault,
        })
    }

    async fn dispatch(&self, action: Action, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        // First, so that a broken profile stops the action.
        let profile = Profile::from_params(params)?;
        let mut outcome = match action {
            Action::Add => self.add(params, caller).await,
            Action::Get => self.get(params, caller).await,
            Action::List => self.list(params, caller).await,
            Action::Update => self.update(params, caller).await,
            Action::Delete => self.delete(params, caller).await,
            Action::Restore => self.restore(params, caller).await,
            Action::RestoreMany => self.restore_many(params, caller).await,
            Action::RenewId => self.renew_id(params, caller).await,
            Action::Backup => self.backup(params, caller).await,
            Action::Export => self.export(params, caller).await,
            // With service and action in the URL, `respond` recognises it before it reads the body.
            Action::Import => Err(ApiError::invalid("import", "service and action must be in the URL")),
            Action::ClicksByDay => self.clicks_by_day(params, caller).await,
            Action::Audit => self.audit(params, caller).await,
            Action::Goto => self.goto(params, caller).await,
            Action::StartSession => self.start_session(params, caller),
            Action::EndSession => self.end_session(params, caller).await,
            Action::DeleteUser => self.delete_user(params, caller).await,
            Action::SignInLink => self.sign_in_link(params, caller).await,
            Action::Ping => Ok(Value::Bool(true).into()),
            Action::GetTime => Ok(Value::Int(self.links.clock().now().as_unix()).into()),
            // tinyd's own: no number says which version of Kaltura it is like.
            Action::GetVersion => Ok(Value::text(env!("CARGO_PKG_VERSION")).into()),
        }?;
        if let (Some(profile), Outcome::Value(value, _)) = (profile, &mut outcome) {
            profile.apply(value);
        }
        Ok(outcome)
    }

    /// `goto` by POST, or in a multirequest: the same answer as by GET.
    async fn goto(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let requested = requested(params).unwrap_or_default();
        let client = Client {
            headers: &caller.headers,
            address: caller.address,
            presence: None,
        };
        let response = self
            .redirects
            .goto(&Method::POST, params.text("id")?, requested, client)
            .await;
        Ok(Outcome::Response(response))
    }
}

/// Begins nothing without memory for its answer.
fn check_room(reservation: &Reservation) -> Result<(), ApiError> {
    if reservation.is_exhausted() {
        return Err(ApiError::Overloaded);
    }
    Ok(())
}

/// The action that a call means, with the names of its service and itself.
fn meant_action(params: &Params) -> Result<(&'static str, &'static str, Action), ApiError> {
    let service = params.given("service")?.ok_or(ApiError::ServiceNotSpecified)?;
    let mut actions = ACTIONS
        .iter()
        .filter(|(known, ..)| known.eq_ignore_ascii_case(service))
        .peekable();
    if actions.peek().is_none() {
        return Err(ApiError::ServiceDoesNotExist {
            service: service.to_owned(),
        });
    }
    let name = params.given("action")?.ok_or(ApiError::ActionNotSpecified)?;
    let meant = actions.find(|(_, known, _)| known.eq_ignore_ascii_case(name));
    meant.copied().ok_or_else(|| ApiError::ActionDoesNotExist {
        action: name.to_owned(),
        service: service.to_owned(),
    })
}

/// The answer to a request whose parameters cannot be read: in the requested format as far as known, else in that of
/// the body.
fn refuse(fault: &ApiError, params: &Params, headers: &HeaderMap, started: Instant) -> Response {
    let mut requested = requested(params).unwrap_or_default();
    if requested.format.is_none() && body::is_json(headers) {
        requested.format = Some("1");
    }
    let mut response = fault.respond(&requested.format_of_faults(), started.elapsed());
    let is_unread = matches!(
        fault,
        ApiError::TooLarge { .. } | ApiError::TooSlow | ApiError::Overloaded
    );
    if is_unread {
        close_after(&mut response);
    }
    response
}

/// Ends the connection where the body has not been read to its end: nothing can come after it.
fn close_after(response: &mut Response) {
    let close = header::HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

fn requested(params: &Params) -> Result<Requested<'_>, ApiError> {
    Ok(Requested {
        format: params.text("format")?,
        callback: params.text("callback")?,
        ignore_null: params.text("ignoreNull")?.is_some_and(kaltura::is_true),
        proxy: params.text("proxy")?.is_some_and(kaltura::is_true),
    })
}

impl From<LinkError> for ApiError {
    fn from(error: LinkError) -> Self {
        match error {
            // Actions that know the id name it.
            LinkError::NotFound => Self::InvalidObjectId { id: String::new() },
            LinkError::Retired => Self::RetiredShortLink { id: String::new() },
            LinkError::UniqueIdTaken(unique_id) => Self::UniqueIdExists { unique_id },
            LinkError::Host(ForbiddenHost { host, allowed }) => Self::DestinationHostNotAllowed { host, allowed },
            LinkError::TooManyToday { user, limit } => Self::LinksPerDayExceeded { user, limit },
            LinkError::NoUser => Self::InvalidUserId,
            // Of searches, which only the console has.
            LinkError::ClicksNotCounted => Self::Internal,
            LinkError::Validity(why) => Self::invalid("shortLink:startsAt", why.to_string()),
            LinkError::RenewalUnknown(id) => Self::RenewalUnknown { id },
            LinkError::Write(error) => error.into(),
            LinkError::Read(error) => error.into(),
        }
    }
}

const UNAVAILABLE: ApiError = ApiError::Unavailable {
    retry_after_seconds: REOPEN_SECONDS_MAX,
};

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // The store has logged that, once, when it failed.
            StoreError::Closed | StoreError::Log(_) => UNAVAILABLE,
            StoreError::Stopped(_) => Self::TookTooLong {
                seconds: READ_TIMEOUT.as_secs(),
            },
            error => {
                tracing::error!(%error, "cannot read the store");
                Self::Internal
            }
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Unavailable => UNAVAILABLE,
            WriteError::ReadOnly => Self::ReadOnly,
            WriteError::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}
