//! The client of the admin listener that `tinyd link` and `tinyd user` share.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::io::{self, Read, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::ConfigArgs;
use crate::cli::exit::{CliError, Failure};
use crate::cli::ks::chosen_partner;
use crate::cli::secure::TlsArgs;
use crate::config::{ConfigError, Settings};
use crate::console::CONSOLE_PATH;
use crate::kaltura::session::{self, Claims, Kind};
use crate::model::Clock;
use crate::model::shown;
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Of the session of one command.
const SESSION_SECONDS: i64 = 300;

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,

    /// URL of the admin listener [default: from the configuration]
    #[arg(long, value_name = "URL", env = "TINYD_URL", hide_env_values = true, global = true)]
    pub(super) url: Option<String>,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    /// Partner ID [default: the only partner, or the only operator]
    #[arg(long, value_name = "ID", global = true)]
    pub(super) partner: Option<u32>,

    /// User ID of the session; owns new links [default: none]
    #[arg(
        long = "as",
        value_name = "USER",
        default_value = "",
        hide_default_value = true,
        global = true
    )]
    pub(super) user: String,

    /// Print JSON, as the API returns it
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl ClientArgs {
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::load(&self.config.overrides())
    }

    /// Prints an answer on standard output: its JSON if the arguments ask for that, else the text.
    pub(super) fn print(
        &self,
        answer: &Value,
        text: impl FnOnce() -> Result<String, CliError>,
    ) -> Result<(), CliError> {
        let text = if self.json { shown::json(answer) } else { text()? };
        Ok(writeln!(io::stdout(), "{text}")?)
    }
}

type Response = ureq::http::Response<ureq::Body>;

/// A session on the admin listener.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    ks: String,
    /// The base of short URLs, if the configuration names it.
    pub(super) short_url_base: Option<String>,
    /// As the configuration names it.
    console_url: Option<String>,
}

impl Client {
    /// Connects as the arguments say. A session in `TINYD_KS` is used as it is, and then no configuration is needed.
    pub(super) fn new(args: &ClientArgs) -> Result<Self, CliError> {
        let given = std::env::var("TINYD_KS").ok().filter(|ks| !ks.is_empty());
        let settings = match (args.settings(), &given) {
            (Ok(settings), _) => Some(settings),
            // With a session and a URL, nothing is needed from the configuration.
            (Err(_), Some(_)) if args.url.is_some() => None,
            (Err(error), _) => return Err(error.into()),
        };
        let ks = match (given, &settings) {
            (Some(ks), _) => ks,
            (None, Some(settings)) => mint(settings, args)?,
            (None, None) => {
                return Err(Failure::Usage.error("no session: set TINYD_KS or name a --config"));
            }
        };
        let url = args.url.clone().or_else(|| settings.as_ref().map(Settings::admin_url));
        let url = url.unwrap_or_default().trim_end_matches('/').to_owned();
        Ok(Self {
            agent: args.tls.agent(&url, TIMEOUT)?,
            url,
            ks,
            short_url_base: settings.as_ref().map(Settings::short_url_base),
            console_url: settings.and_then(|settings| Some(settings.console?.url?.to_string())),
        })
    }

    /// The base of the console, without a slash at the end.
    pub(super) fn console_url(&self) -> String {
        let url = self
            .console_url
            .as_deref()
            .map(|url| url.trim_end_matches('/').to_owned());
        url.unwrap_or_else(|| format!("{}{CONSOLE_PATH}", self.url))
    }

    /// The URL of the listener.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn call(&self, service: &str, action: &str, params: Value) -> Result<Value, CliError> {
        let sent = self
            .agent
            .post(self.url_of(service, action))
            .content_type("application/json")
            .send(self.signed(params));
        self.result(sent.map_err(|error| self.unreachable(&error))?)
    }

    /// Calls an action of the service `tinyd` whose result is a stream; returns it, and how many links it leaves out.
    pub(super) fn stream(&self, action: &str, params: Value) -> Result<(ureq::BodyReader<'static>, u64), CliError> {
        let request = self.streaming(action).content_type("application/json");
        let response = self.streamed(request.send(self.signed(params)))?;
        let damaged = response.headers().get("x-tinyd-damaged");
        let damaged = damaged.and_then(|text| text.to_str().ok()?.parse().ok());
        Ok((response.into_body().into_reader(), damaged.unwrap_or(0)))
    }

    /// Sends fields and a file to an action of the service `tinyd`, and returns the answer, which is a stream.
    pub(super) fn upload(
        &self,
        action: &str,
        fields: Vec<(&'static str, String)>,
        file: impl Read,
    ) -> Result<ureq::BodyReader<'static>, CliError> {
        let boundary = format!("tinyd-{:032x}", rand::random::<u128>());
        let begin = |name: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
        let mut head = String::new();
        for (name, value) in [("ks", self.ks.clone())].into_iter().chain(fields) {
            head += &format!("{}\r\n\r\n{value}\r\n", begin(name));
        }
        head += &format!("{}; filename=\"links\"\r\n\r\n", begin("file"));
        let end = format!("\r\n--{boundary}--\r\n");
        let mut body = head.as_bytes().chain(file).chain(end.as_bytes());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let request = self.streaming(action).content_type(content_type);
        let response = self.streamed(request.send(ureq::SendBody::from_reader(&mut body)))?;
        Ok(response.into_body().into_reader())
    }

    /// A request whose answer may go on for ever once it has begun.
    fn streaming(&self, action: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let request = self.agent.post(self.url_of("tinyd", action)).config();
        request
            .timeout_global(None)
            .timeout_recv_response(Some(TIMEOUT))
            .build()
    }

    /// The format is in the URL, so that a listener that reads no bodies knows it.
    fn url_of(&self, service: &str, action: &str) -> String {
        format!("{}/api_v3/service/{service}/action/{action}?format=1", self.url)
    }

    fn signed(&self, mut params: Value) -> String {
        if let Value::Object(params) = &mut params {
            params.insert("ks".to_owned(), json!(self.ks));
        }
        params.to_string()
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        if matches!(error, ureq::Error::Timeout(_)) {
            return Failure::Unavailable
                .error(format!("no response from {} in {TIMEOUT:?}: outcome unknown", self.url));
        }
        if let Some(reason) = untrusted(error) {
            return Failure::Unreachable.error(not_secured(&self.url, &reason));
        }
        let is_unsent = match error {
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
            _ => false,
        };
        if is_unsent {
            return Failure::Unreachable.error(format!("cannot reach tinyd at {}: {error}", self.url));
        }
        Failure::Unavailable.error(format!("connection to {} closed: outcome unknown: {error}", self.url))
    }

    /// The response, unless it is JSON: results of streams are not, but exceptions are.
    fn streamed(&self, sent: Result<Response, ureq::Error>) -> Result<Response, CliError> {
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.body().mime_type() != Some("application/json") {
            return Ok(response);
        }
        let result = self.result(response)?;
        Err(Failure::Unreachable.error(format!("{} answered {result}, and not with a stream", self.url)))
    }

    fn result(&self, mut response: Response) -> Result<Value, CliError> {
        let status = response.status();
        let body = response.body_mut().read_to_string();
        let body = body.map_err(|error| self.unreachable(&error))?;
        let result: Value = serde_json::from_str(&body).map_err(|_| {
            Failure::Unreachable.error(format!(
                "{} answered {status}, but not as tinyd does: is it the admin listener?",
                self.url
            ))
        })?;
        if result["objectType"] == "KalturaAPIException" {
            return Err(refusal(&result, status.as_u16()));
        }
        Ok(result)
    }
}

/// Why a connection could not be secured, if that is the error.
pub(super) fn untrusted(error: &ureq::Error) -> Option<String> {
    match error {
        ureq::Error::Io(error) => tls::failure(error),
        _ => None,
    }
}

pub(super) fn not_secured(url: &str, reason: &str) -> String {
    format!("no secure connection to tinyd at {url}: {reason} (--ca, --client-cert)")
}

fn mint(settings: &Settings, args: &ClientArgs) -> Result<String, CliError> {
    let claims = Claims {
        partner: chosen_partner(settings, args.partner)?,
        user: &args.user,
        kind: Kind::Admin,
        expiry: Clock::system().now().plus(SESSION_SECONDS),
        privileges: "disableentitlement",
    };
    let partner = settings.partners.get(claims.partner);
    let minted = partner.and_then(|partner| session::mint(&claims, partner, rand::random()));
    minted.ok_or_else(|| Failure::Usage.error("the partner has no admin secret"))
}

fn refusal(exception: &Value, status: u16) -> CliError {
    let text = |name: &str| exception[name].as_str().unwrap_or("");
    let code = text("code");
    let failure = match (status, code) {
        (503, _) => Failure::Unavailable,
        (_, "INVALID_OBJECT_ID") => Failure::NotFound,
        (_, "MISSING_KS" | "INVALID_KS" | "SERVICE_FORBIDDEN" | "START_SESSION_ERROR") => Failure::NotAllowed,
        (200 | 413, _) => Failure::Refused,
        _ => Failure::Other,
    };
    let reason = exception["args"]["REASON"].as_str().map(|reason| format!(": {reason}"));
    failure.error(format!("{} ({code}){}", text("message"), reason.unwrap_or_default()))
}
