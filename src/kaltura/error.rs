//! The errors of the API, as clients see them (docs/kaltura-api.md#errors). The catalogue declares each of them once.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::http::Response;
use crate::kaltura;
use crate::kaltura::format::{Exception, Format, Value};
use crate::model::{LinkId, Timestamp};

/// Longest message in a header, in bytes. Clients and proxies refuse headers of more than about 8,192.
const HEADER_MESSAGE_MAX_BYTES: usize = 256;
/// Longest part of a client's input that an error repeats, in bytes.
const ECHO_MAX_BYTES: usize = 256;
/// Longest reason, in bytes. A reason may repeat a part of the input.
const REASON_MAX_BYTES: usize = 1024;
/// `Retry-After` of [`ApiError::Overloaded`], in seconds.
const OVERLOADED_SECONDS: u64 = 1;
/// `Retry-After` of [`ApiError::Restarting`], in seconds.
const RESTARTING_SECONDS: u64 = 5;

/// Codes and messages that several errors share.
const INVALID_VALUE: (&str, &str) = (
    "INVALID_PARAMETER_VALUE",
    "invalid value for parameter \"@PARAM_NAME@\"",
);
const INTERNAL: (&str, &str) = ("INTERNAL_SERVERL_ERROR", "Internal server error occurred");

struct Entry {
    code: &'static str,
    /// With `@NAME@` in the place of arguments.
    template: &'static str,
    args: Vec<(&'static str, String)>,
    api_status: StatusCode,
    goto_status: StatusCode,
    /// `Retry-After`, in seconds.
    retry: Option<u64>,
}

/// Declares the variants of [`ApiError`], each with its code, message and arguments, its status where that differs
/// from 200 in the API (`api`) or 404 of goto (`goto`), and the seconds to wait before a retry. Kaltura's messages have
/// no room for a reason: `REASON` is an argument of tinyd's own.
macro_rules! catalogue {
    ($(
        $(#[$doc:meta])*
        $name:ident $({ $($field:ident: $kind:ty),* })? => $text:expr
            $(, args [$($arg:ident: $value:expr),*])?
            $(, api $api:ident)? $(, goto $goto:expr)? $(, retry $retry:expr)?;
    )*) => {
        /// Why a request failed. Holds only what the client may know; causes are logged where they arise.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ApiError {
            $($(#[$doc])* $name $({ $($field: $kind),* })?,)*
        }

        impl ApiError {
            fn entry(&self) -> Entry {
                match self {
                    $(Self::$name $({ $($field),* })? => {
                        let (code, template): (&'static str, &'static str) = $text;
                        Entry {
                            code,
                            template,
                            args: vec![$($((stringify!($arg), ToString::to_string(&$value))),*)?],
                            api_status: [$(StatusCode::$api,)? StatusCode::OK][0],
                            goto_status: [$($goto,)? StatusCode::NOT_FOUND][0],
                            retry: [$(Some($retry),)? None][0],
                        }
                    })*
                }
            }
        }
    };
}

catalogue! {
    // The request.
    ServiceNotSpecified => ("SERVICE_NOT_SPECIFIED", "Service name was not specified, please specify one");
    ActionNotSpecified => ("ACTION_NOT_SPECIFIED", "Action name was not specified, please specify one");
    ServiceDoesNotExist { service: String } =>
        ("SERVICE_DOES_NOT_EXISTS", "Service \"@SRV_NAME@\" does not exists"), args [SRV_NAME: service];
    ActionDoesNotExist { action: String, service: String } =>
        ("ACTION_DOES_NOT_EXISTS", "Action \"@ACTION_NAME@\" does not exists for service \"@SERVICE_NAME@\""),
        args [ACTION_NAME: action, SERVICE_NAME: service];
    UnknownFormat { format: String } =>
        ("UNKNOWN_RESPONSE_FORMAT", "Response format provided [@FORMAT@] is not recognized by server"),
        args [FORMAT: format];

    // The session.
    MissingKs => ("MISSING_KS", "Missing KS, session not established");
    /// `end` is the end of the KS, by which a person can recognise it.
    InvalidKs { end: String, number: i8, description: String } =>
        ("INVALID_KS", "Invalid KS \"@KSID@\", Error \"@ERR_CODE@,@ERR_DESC@\""),
        args [KSID: end, ERR_CODE: number, ERR_DESC: description];
    ServiceForbidden { service: String, action: String } =>
        ("SERVICE_FORBIDDEN", "The access to service [@SERVICE@] is forbidden"),
        args [SERVICE: format!("{service}->{action}")];
    StartSession { partner: String } =>
        ("START_SESSION_ERROR", "Error while starting session for partner [@PID@]"), args [PID: partner];
    InvalidUserId => ("INVALID_USER_ID", "Invalid user id");
    AnotherUsersShortLink { user: String } =>
        ("CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK",
         "cannot retrieve another user's [\"@USER_ID@\"] short link using non-admin session"),
        args [USER_ID: user];

    // A parameter.
    MissingParameter { name: String } =>
        ("MISSING_MANDATORY_PARAMETER", "Missing parameter \"@PARAM_NAME@\""), args [PARAM_NAME: name],
        goto StatusCode::BAD_REQUEST;
    InvalidChar { field: String } =>
        ("INVALID_PARAMETER_CHAR", "Invalid char in \"@XML_FIELD@\" field"), args [XML_FIELD: field];
    /// `reason` says what the value should be.
    InvalidValue { name: String, reason: String } => INVALID_VALUE, args [PARAM_NAME: name, REASON: reason];
    InvalidEnum { value: String, name: String, kind: &'static str } =>
        ("INVALID_ENUM_VALUE",
         "Invalid enumeration value \"@ENUM_VAL@\" for parameter \"@PARAM_NAME@\", \
          expecting enumeration type \"@ENUM_TYPE@\""),
        args [ENUM_VAL: value, PARAM_NAME: name, ENUM_TYPE: kind];

    // A property of a link.
    MinLength { property: &'static str, length: usize } =>
        ("PROPERTY_VALIDATION_MIN_LENGTH",
         "The property \"@PROP_NAME@\" must have a min length of @MIN_LEN@ characters"),
        args [PROP_NAME: qualified(property), MIN_LEN: length];
    MaxLength { property: &'static str, length: usize } =>
        ("PROPERTY_VALIDATION_MAX_LENGTH", "The property \"@PROP_NAME@\" cannot have more than @MAX_LEN@ characters"),
        args [PROP_NAME: qualified(property), MAX_LEN: length];
    NotUpdatable { property: &'static str } =>
        ("PROPERTY_VALIDATION_NOT_UPDATABLE", "The property \"@PROP_NAME@\" cannot be updated"),
        args [PROP_NAME: qualified(property)];
    AdminProperty { property: &'static str } =>
        ("PROPERTY_VALIDATION_ADMIN_PROPERTY", "The property \"@PROP_NAME@\" is updatable with admin session only"),
        args [PROP_NAME: qualified(property)];
    WrongFormat { property: &'static str, format: String } =>
        ("PROPERTY_VALIDATION_WRONG_FORMAT", "The property \"@PROP_NAME@\" must match format @FORMAT@"),
        args [PROP_NAME: qualified(property), FORMAT: format];

    // A link.
    InvalidObjectId { id: String } => ("INVALID_OBJECT_ID", "Invalid object id [@ID@]"), args [ID: id];
    /// Disabled or, where `deleted`, deleted.
    InvalidShortLink { id: String, deleted: bool } =>
        ("INVALID_SHORT_LINK", "Invalid short link [@ID@]"), args [ID: id],
        goto if *deleted { StatusCode::GONE } else { StatusCode::NOT_FOUND };
    ExpiredShortLink { id: String } =>
        ("EXPIRED_SHORT_LINK", "Expired short link [@ID@]"), args [ID: id], goto StatusCode::GONE;
    /// tinyd's own: Kaltura's links have no start.
    NotYetOpenShortLink { id: String, starts_at: Timestamp } =>
        ("NOT_YET_OPEN_SHORT_LINK", "Short link [@ID@] opens at @STARTS_AT@"),
        args [ID: id, STARTS_AT: starts_at.in_utc()];
    /// tinyd's own: another id has taken its place.
    RetiredShortLink { id: String } =>
        ("RETIRED_SHORT_LINK", "Short link [@ID@] has a new id, and this one is never used again"), args [ID: id];
    UniqueIdExists { unique_id: String } =>
        ("SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS", "Short link unique id [@UNIQUE_ID@] already exists"),
        args [UNIQUE_ID: unique_id];

    // What a partner allows (docs/kaltura-api.md#error-codes-of-tinyd).
    DestinationHostNotAllowed { host: String, allowed: String } =>
        ("DESTINATION_HOST_NOT_ALLOWED",
         "Short links to host [@HOST@] are not allowed, expected one of [@ALLOWED@]"),
        args [HOST: host, ALLOWED: allowed];
    LinksPerDayExceeded { user: String, limit: u32 } =>
        ("LINKS_PER_DAY_EXCEEDED",
         "User [@USER_ID@] has added @LIMIT@ short links today, no more are allowed before midnight (UTC)"),
        args [USER_ID: user, LIMIT: limit];

    // The body.
    TooLarge { limit_bytes: usize } =>
        INVALID_VALUE, args [PARAM_NAME: "body", REASON: format!("larger than the limit of {limit_bytes} bytes")],
        api PAYLOAD_TOO_LARGE;
    ContentEncoding { coding: String } =>
        INVALID_VALUE, args [
            PARAM_NAME: "Content-Encoding",
            REASON: format!("{coding} is not supported: send the body without compression")
        ], api UNSUPPORTED_MEDIA_TYPE;
    TooSlow => INVALID_VALUE, args [PARAM_NAME: "body", REASON: "did not arrive in time"], api REQUEST_TIMEOUT;

    // The server. An API answer with one of these is no success to HTTP (docs/kaltura-api.md#statuses).
    /// The store could not be read.
    Internal => INTERNAL, api INTERNAL_SERVER_ERROR;
    /// The store has failed and is being reopened.
    Unavailable { retry_after_seconds: u64 } =>
        INTERNAL, args [
            REASON: format!("store unavailable, nothing was written: retry after {retry_after_seconds} seconds")
        ], api SERVICE_UNAVAILABLE, retry *retry_after_seconds;
    /// The disk is too full for the upload.
    NoSpace { reason: String } =>
        INTERNAL, args [REASON: format!("nothing was written: {reason}")], api SERVICE_UNAVAILABLE;
    Busy => INTERNAL, args [REASON: "too many backups, exports or imports at a time"], api SERVICE_UNAVAILABLE,
        retry 30;
    /// The calls made before the deadline stay in effect.
    TookTooLong { seconds: u64 } =>
        INTERNAL, args [
            REASON: format!("took longer than {seconds} seconds: use a narrower filter or fewer calls at once")
        ], api SERVICE_UNAVAILABLE;
    /// The memory for requests and answers is used up; nothing was done.
    Overloaded =>
        INTERNAL, args [
            REASON: format!("server overloaded, nothing was done: retry after {OVERLOADED_SECONDS} second")
        ], api SERVICE_UNAVAILABLE, retry OVERLOADED_SECONDS;
    /// What takes long is not begun any more.
    Restarting =>
        INTERNAL, args [
            REASON: format!("server restarting, nothing was done: retry after {RESTARTING_SECONDS} seconds")
        ], api SERVICE_UNAVAILABLE, retry RESTARTING_SECONDS;
    ReadOnly => INTERNAL, args [REASON: "this appliance is read-only"], api SERVICE_UNAVAILABLE;
    /// `admin` is the URL of an admin box, or says that one is meant.
    Edge { admin: String } =>
        INTERNAL, args [
            REASON: format!("this server is an edge of a cluster, nothing was done: use the API of {admin}")
        ], api SERVICE_UNAVAILABLE;
    OutcomeUnknown =>
        INTERNAL, args [REASON: "outcome unknown: the write may or may not have been stored"], api SERVICE_UNAVAILABLE;
    RenewalUnknown { id: LinkId } =>
        INTERNAL, args [
            REASON: format!("outcome unknown: if the write was stored, the link has the id {id} now")
        ], api SERVICE_UNAVAILABLE;

    // The destination of a link that is fetched (docs/kaltura-api.md#error-codes-of-tinyd).
    /// The reason is not for the client.
    DestinationForbidden { id: String } =>
        ("DESTINATION_FORBIDDEN", "The destination of short link [@ID@] is not one that this server fetches"),
        args [ID: id], goto StatusCode::FORBIDDEN;
    /// Also where the answer cannot be passed on.
    DestinationUnreachable { id: String } =>
        ("DESTINATION_UNREACHABLE", "The destination of short link [@ID@] could not be fetched"),
        args [ID: id], goto StatusCode::BAD_GATEWAY;
    DestinationTimeout { id: String } =>
        ("DESTINATION_TIMEOUT", "The destination of short link [@ID@] did not answer in time"),
        args [ID: id], goto StatusCode::GATEWAY_TIMEOUT;
    /// A fetched link leads to a fetched link.
    ProxyLoop { id: String } =>
        ("PROXY_LOOP", "Short link [@ID@] was asked for by a server that fetches destinations itself"),
        args [ID: id], goto StatusCode::LOOP_DETECTED;
    TooManyFetches =>
        ("TOO_MANY_FETCHES", "Too many destinations are being fetched at the moment, please try again"),
        goto StatusCode::SERVICE_UNAVAILABLE, retry 5;
}

impl ApiError {
    pub fn invalid(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidValue {
            name: name.into(),
            reason: reason.into(),
        }
    }

    pub fn missing(name: impl Into<String>) -> Self {
        Self::MissingParameter { name: name.into() }
    }

    pub fn forbidden(service: impl Into<String>, action: impl Into<String>) -> Self {
        Self::ServiceForbidden {
            service: service.into(),
            action: action.into(),
        }
    }

    pub fn code(&self) -> &'static str {
        self.entry().code
    }

    pub fn exception(&self) -> Exception {
        let entry = self.entry();
        let mut args = entry.args;
        for (name, value) in &mut args {
            cut(value, argument_max_bytes(name));
        }
        // One pass, so that an argument that looks like a placeholder stays what it is. Every second piece is a name.
        let pieces = entry.template.split('@').enumerate().map(|(position, piece)| {
            let named = args.iter().find(|(name, _)| position % 2 == 1 && *name == piece);
            named.map_or(piece, |(_, value)| value)
        });
        let message = pieces.collect();
        Exception {
            code: entry.code,
            message,
            args,
        }
    }

    /// 200 for most: clients parse the body, and some reject other codes.
    pub fn api_status(&self) -> StatusCode {
        self.entry().api_status
    }

    pub fn goto_status(&self) -> StatusCode {
        self.entry().goto_status
    }

    /// Adds the headers by which Kaltura's own tools recognise an error, and those that tell a client how to retry.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let Exception { code, message, .. } = self.exception();
        let end = message.floor_char_boundary(HEADER_MESSAGE_MAX_BYTES);
        let app = format!("exiting on error {code} - {}", message.get(..end).unwrap_or(""));
        for (name, text) in [("x-kaltura", format!("error-{code}")), ("x-kaltura-app", app)] {
            let encoded = utf8_percent_encode(&text, CONTROLS).to_string();
            if let Ok(value) = HeaderValue::try_from(encoded) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(seconds) = self.entry().retry {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Self::ContentEncoding { .. } = self {
            // The accepted coding (RFC 9110, section 15.5.16).
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    pub fn respond(&self, format: &Format, elapsed: Duration) -> Response {
        let body = format.render(&Value::Exception(self.exception()), elapsed);
        let mut response = kaltura::respond(self.api_status(), format, body);
        self.write_headers(response.headers_mut());
        response
    }
}

fn qualified(property: &str) -> String {
    format!("KalturaShortLink::{property}")
}

fn argument_max_bytes(name: &str) -> usize {
    if ["REASON", "ALLOWED"].contains(&name) {
        REASON_MAX_BYTES
    } else {
        ECHO_MAX_BYTES
    }
}

/// Cuts a text to `most` bytes, with a mark at the cut.
fn cut(text: &mut String, most: usize) {
    const MARK: char = '…';
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - MARK.len_utf8()));
        text.push(MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kaltura() {
        let fault = ApiError::InvalidKs {
            end: "abc123".into(),
            number: -1,
            description: "INVALID_STR".into(),
        };
        assert_eq!(
            fault.exception().message,
            "Invalid KS \"abc123\", Error \"-1,INVALID_STR\""
        );
        let fault = ApiError::MinLength {
            property: "fullUrl",
            length: 10,
        };
        assert_eq!(
            fault.exception().message,
            "The property \"KalturaShortLink::fullUrl\" must have a min length of 10 characters"
        );
    }

    #[test]
    fn argument_is_never_taken_for_a_placeholder() {
        let fault = ApiError::ActionDoesNotExist {
            action: "@SERVICE_NAME@".into(),
            service: "x@y".into(),
        };
        assert_eq!(
            fault.exception().message,
            "Action \"@SERVICE_NAME@\" does not exists for service \"x@y\""
        );
    }

    #[test]
    fn errors_repeat_at_most_256_bytes_of_the_input() {
        let long = || "ü'".repeat(400_000);
        for fault in [
            ApiError::StartSession { partner: long() },
            ApiError::InvalidObjectId { id: long() },
            ApiError::ActionDoesNotExist {
                action: long(),
                service: long(),
            },
            ApiError::invalid(long(), long()),
            ApiError::InvalidEnum {
                value: long(),
                name: long(),
                kind: "x",
            },
        ] {
            let Exception { message, args, .. } = fault.exception();
            assert!(message.len() < 1_000, "{} bytes", message.len());
            for (name, value) in args.iter().filter(|(_, value)| value != "x") {
                let most = argument_max_bytes(name);
                assert!(
                    (most - 4..=most).contains(&value.len()),
                    "{name}: {} bytes",
                    value.len()
                );
                assert!(value.ends_with('…'));
            }
        }
        let short = ApiError::StartSession {
            partner: "x".repeat(256),
        };
        assert_eq!(short.exception().args[0].1.len(), 256);
    }

    #[test]
    fn server_errors_have_their_http_status() {
        for (fault, status) in [
            (ApiError::OutcomeUnknown, 503),
            (
                ApiError::RenewalUnknown {
                    id: "abcd".parse().unwrap(),
                },
                503,
            ),
            (ApiError::Unavailable { retry_after_seconds: 1 }, 503),
            (ApiError::ReadOnly, 503),
            (ApiError::Internal, 500),
            (ApiError::TooLarge { limit_bytes: 1 }, 413),
            (ApiError::ContentEncoding { coding: "gzip".into() }, 415),
            (ApiError::TooSlow, 408),
            (ApiError::MissingKs, 200),
        ] {
            assert_eq!(fault.api_status(), status, "{fault:?}");
        }
        let exception = ApiError::OutcomeUnknown.exception();
        assert_eq!(exception.code, "INTERNAL_SERVERL_ERROR");
        assert!(exception.args[0].1.starts_with("outcome unknown"));
    }

    #[test]
    fn line_break_in_input_cannot_split_headers() {
        let mut headers = HeaderMap::new();
        let id = "a\r\nSet-Cookie: x=ü".to_owned();
        ApiError::InvalidObjectId { id }.write_headers(&mut headers);
        assert_eq!(headers["x-kaltura"], "error-INVALID_OBJECT_ID");
        assert_eq!(
            headers["x-kaltura-app"],
            "exiting on error INVALID_OBJECT_ID - Invalid object id [a%0D%0ASet-Cookie: x=%C3%BC]"
        );
        let id = "ü".repeat(100_000);
        ApiError::InvalidObjectId { id }.write_headers(&mut headers);
        assert!(headers["x-kaltura-app"].len() < 1_000);
    }
}
