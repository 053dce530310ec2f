//! A client of Kaltura's API that starts a session and lists links, and tries again what may pass.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::StatusCode;
use url::Url;

use crate::cli::exit::{CliError, Failure};
use crate::cli::from_kaltura::pages::{Listing, Page, Window};
use crate::cli::progress::LogWriter;
use crate::model::shown;
use crate::tls;

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Before each further try.
const PAUSES_SECONDS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// Longest pause that the server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Links on a page: the most that Kaltura takes.
const PAGE_SIZE: u64 = 500;
/// 500 links with the longest destinations of Kaltura's database, escaped.
const RESPONSE_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Type of an ADMIN session.
const ADMIN: u8 = 2;
const SESSION_SECONDS: u32 = 86_400;
/// A user who owns no link: only an ADMIN session may list another user's links.
const NOBODY: &str = "tinyd-import-checks-for-an-admin-session";
/// Exceptions of a server that is overloaded or has failed.
const TRANSIENT: [&str; 4] = [
    "INTERNAL_SERVERL_ERROR",
    "INTERNAL_DATABASE_ERROR",
    "ACTION_BLOCKED",
    "LOCK_TIMED_OUT",
];

/// What proves to Kaltura who we are.
pub(super) enum Access {
    /// A session that exists already.
    Ks(String),
    /// The admin secret of the partner.
    Secret(String),
}

pub(super) struct Source {
    agent: ureq::Agent,
    /// The URL of `api_v3`, without a slash at the end.
    base: String,
    partner: u32,
    access: Access,
    session: String,
    /// Whether this server has ever answered as Kaltura does.
    has_answered: bool,
    /// Whether the session has ever been accepted.
    is_accepted: bool,
}

enum Trouble {
    /// May be over at the next try, which the server may want to come later.
    Passing(String, Option<Duration>),
    /// The session is not accepted.
    Session(CliError),
    Lasting(CliError),
}

impl Trouble {
    fn error(self) -> CliError {
        match self {
            Self::Passing(reason, _) => Failure::Unreachable.error(reason),
            Self::Session(error) | Self::Lasting(error) => error,
        }
    }
}

/// The URL of an API as requests begin with it.
pub(super) fn base(url: &str) -> Result<Url, String> {
    let expected = "expected the address of api_v3, such as https://www.kaltura.com/api_v3";
    let mut url = Url::parse(url).map_err(|error| format!("{error}; {expected}"))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(expected.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{expected}, without user, query or fragment"));
    }
    let path = url.path().trim_end_matches('/');
    let path = if path.is_empty() { "/api_v3" } else { path }.to_owned();
    url.set_path(&path);
    Ok(url)
}

impl Source {
    /// Starts a session, or makes sure that the one given is an ADMIN session.
    pub(super) fn open(agent: ureq::Agent, base: &Url, partner: u32, access: Access) -> Result<Self, CliError> {
        let session = match &access {
            Access::Ks(ks) => ks.clone(),
            Access::Secret(_) => String::new(),
        };
        let mut source = Self {
            agent,
            base: base.as_str().trim_end_matches('/').to_owned(),
            partner,
            access,
            session,
            has_answered: false,
            is_accepted: false,
        };
        match &source.access {
            Access::Secret(_) => source.start_session()?,
            Access::Ks(_) => {
                let params = json!({ "filter": { "userIdEqual": NOBODY }, "pager": { "pageSize": 1 } });
                let listed = source.call("shortlink_shortlink", "list", &params);
                listed.map_err(Trouble::error)?;
            }
        }
        Ok(source)
    }

    fn start_session(&mut self) -> Result<(), CliError> {
        let Access::Secret(secret) = &self.access else {
            return Ok(());
        };
        let params = json!({
            "secret": secret,
            "partnerId": self.partner,
            "type": ADMIN,
            "expiry": SESSION_SECONDS,
        });
        self.session.clear();
        let started = self.call("session", "start", &params).map_err(Trouble::error)?;
        let session = started
            .as_str()
            .ok_or_else(|| self.not_kaltura("session.start without a session"))?;
        session.clone_into(&mut self.session);
        Ok(())
    }

    /// Calls an action until it has a result or a failure that lasts.
    fn call(&mut self, service: &str, action: &str, params: &Value) -> Result<Value, Trouble> {
        let mut pauses = PAUSES_SECONDS.map(Duration::from_secs).into_iter();
        loop {
            let (reason, wanted) = match self.call_once(service, action, params) {
                Err(Trouble::Passing(reason, wanted)) => (reason, wanted),
                done => return done,
            };
            let Some(pause) = pauses.next() else {
                let tries = PAUSES_SECONDS.len() + 1;
                let text = format!("{reason}; gave up after {tries} tries");
                return Err(Trouble::Lasting(Failure::Unreachable.error(text)));
            };
            let pause = wanted.unwrap_or(pause).min(PAUSE_MAX);
            let line = format!("{reason}; next try in {} s\n", pause.as_secs());
            // Without a terminal to write to, it is tried again all the same.
            let _ = LogWriter.write_all(shown::lines(&line).as_bytes());
            std::thread::sleep(pause);
        }
    }

    fn call_once(&mut self, service: &str, action: &str, params: &Value) -> Result<Value, Trouble> {
        let mut body = params.clone();
        if let Value::Object(fields) = &mut body {
            fields.insert("format".to_owned(), json!(1));
            if !self.session.is_empty() {
                fields.insert("ks".to_owned(), json!(self.session));
            }
        }
        let request = self
            .agent
            .post(format!("{}/service/{service}/action/{action}", self.base));
        let sent = request.content_type("application/json").send(body.to_string());
        let mut response = sent.map_err(|error| self.not_answered(&error))?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wanted = header("retry-after").and_then(|text| Some(Duration::from_secs(text.trim().parse().ok()?)));
        let location = header("location").map(str::to_owned);
        let is_transient = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if is_transient {
            return Err(Trouble::Passing(format!("{} answered {status}", self.base), wanted));
        }
        if let Some(location) = location.filter(|_| status.is_redirection()) {
            let text = format!(
                "{} redirects to {}: give the address that it leads to",
                self.base,
                self.redacted(&location)
            );
            return Err(Trouble::Lasting(Failure::Unreachable.error(text)));
        }
        let text = response
            .body_mut()
            .with_config()
            .limit(RESPONSE_MAX_BYTES)
            .read_to_string();
        let text = text.map_err(|error| self.not_answered(&error))?;
        let Ok(result) = serde_json::from_str::<Value>(&text) else {
            return Err(match self.has_answered {
                true => Trouble::Passing(format!("{} answered {status}, but no JSON", self.base), wanted),
                false => Trouble::Lasting(self.not_kaltura(status)),
            });
        };
        if result["objectType"] == "KalturaAPIException" {
            self.has_answered = true;
            return Err(self.refusal(&result));
        }
        if !status.is_success() {
            return Err(Trouble::Lasting(self.not_kaltura(status)));
        }
        self.has_answered = true;
        self.is_accepted |= !self.session.is_empty();
        Ok(result)
    }

    fn not_kaltura(&self, answer: impl Display) -> CliError {
        let text = format!(
            "{} answered {answer}, and not as Kaltura's API does (expected the address of api_v3, such as \
             https://www.kaltura.com/api_v3)",
            self.base
        );
        Failure::Unreachable.error(text)
    }

    fn not_answered(&self, error: &ureq::Error) -> Trouble {
        let untrusted = match error {
            ureq::Error::Io(error) => tls::failure(error),
            _ => None,
        };
        if let Some(reason) = untrusted {
            let text = format!("no secure connection to {}: {reason} (--ca)", self.base);
            return Trouble::Lasting(Failure::Unreachable.error(text));
        }
        let text = format!("cannot reach {}: {error}", self.base);
        let is_absent = match error {
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
            _ => false,
        };
        if is_absent && !self.has_answered {
            // More likely a wrong address than a moment of absence.
            return Trouble::Lasting(Failure::Unreachable.error(text));
        }
        Trouble::Passing(text, None)
    }

    fn refusal(&self, exception: &Value) -> Trouble {
        let code = exception["code"].as_str().unwrap_or("");
        let partner = self.partner;
        let (failure, text) = match code {
            _ if TRANSIENT.contains(&code) => {
                return Trouble::Passing(format!("{} answered {code}", self.base), None);
            }
            "START_SESSION_ERROR" | "INVALID_PARTNER_ID" => (
                Failure::NotAllowed,
                format!("no session for partner {partner}: wrong partner ID, or not its admin secret"),
            ),
            "INVALID_KS" | "MISSING_KS" => {
                let reason = exception["args"]["ERR_DESC"].as_str().unwrap_or("not accepted");
                let text = format!("the session is not valid for Kaltura: {}", self.redacted(reason));
                return Trouble::Session(Failure::NotAllowed.error(format!("{text} ({code})")));
            }
            "SERVICE_FORBIDDEN" | "CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK" | "INVALID_USER_ID" => (
                Failure::NotAllowed,
                "the session may not list all links: expected an ADMIN session (type 2)".to_owned(),
            ),
            "SERVICE_DOES_NOT_EXISTS" | "ACTION_DOES_NOT_EXISTS" => (
                Failure::Refused,
                "this Kaltura has no short links: is its plugin short_link enabled?".to_owned(),
            ),
            _ => (
                Failure::Refused,
                self.redacted(exception["message"].as_str().unwrap_or("no message")),
            ),
        };
        Trouble::Lasting(failure.error(format!("{text} ({})", self.redacted(code))))
    }

    /// A text of the server: it may repeat what was sent.
    fn redacted(&self, text: &str) -> String {
        let secret = match &self.access {
            Access::Ks(secret) | Access::Secret(secret) => secret,
        };
        let parts = [secret, &self.session].into_iter().filter(|part| !part.is_empty());
        parts.fold(text.to_owned(), |text, part| text.replace(part, "…"))
    }
}

impl Listing for Source {
    fn list(&mut self, window: Window, page: u64) -> Result<Page, CliError> {
        // A status that is not named would not be listed: deleted links.
        let mut filter = json!({ "orderBy": "+createdAt", "statusIn": "1,2,3" });
        let (from, to) = match window {
            Window::From(from) => (from, None),
            Window::Within(second) => (Some(second), Some(second)),
        };
        if let Some(from) = from {
            filter["createdAtGreaterThanOrEqual"] = json!(from);
        }
        if let Some(to) = to {
            filter["createdAtLessThanOrEqual"] = json!(to);
        }
        let pager = json!({ "pageSize": PAGE_SIZE, "pageIndex": page });
        // Kaltura ignores what another tinyd needs.
        let params = json!({ "filter": filter, "pager": pager, "withStartsAt": true });
        let mut listed = match self.call("shortlink_shortlink", "list", &params) {
            // Sessions end; a secret starts another one.
            Err(Trouble::Session(_)) if self.is_accepted && matches!(self.access, Access::Secret(_)) => {
                self.is_accepted = false;
                self.start_session()?;
                self.call("shortlink_shortlink", "list", &params)
            }
            listed => listed,
        }
        .map_err(Trouble::error)?;
        let total = listed["totalCount"].as_u64();
        let Some((Value::Array(links), total)) = listed.get_mut("objects").map(Value::take).zip(total) else {
            return Err(self.not_kaltura("a list without objects and totalCount"));
        };
        Ok(Page { links, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_is_the_address_of_the_api() {
        for (url, wanted) in [
            ("https://www.kaltura.com/api_v3", "https://www.kaltura.com/api_v3"),
            ("https://www.kaltura.com/api_v3/", "https://www.kaltura.com/api_v3"),
            ("https://www.kaltura.com", "https://www.kaltura.com/api_v3"),
            ("http://[::1]:8081/base/api_v3//", "http://[::1]:8081/base/api_v3"),
        ] {
            assert_eq!(base(url).unwrap().as_str(), wanted, "{url}");
        }
        for url in [
            "www.kaltura.com/api_v3",
            "ftp://kaltura.example/api_v3",
            "https://",
            "https://me:secret@kaltura.example/api_v3",
            "https://kaltura.example/api_v3?ks=1",
            "https://kaltura.example/api_v3#x",
        ] {
            let reason = base(url).unwrap_err();
            assert!(reason.contains("https://www.kaltura.com/api_v3"), "{url}: {reason}");
        }
    }
}
