//! The errors of the API, as clients see them (docs/kaltura-api.md#errors).

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::http::Response;
use crate::kaltura::format::{Exception, Format, Value};
use crate::kaltura::response;

/// Why a request was not carried out. Holds only what the client may know; causes are logged where they arise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is an error of docs/kaltura-api.md#error-codes")]
pub enum ApiError {
    ServiceNotSpecified,
    ActionNotSpecified,
    ServiceDoesNotExist {
        service: String,
    },
    ActionDoesNotExist {
        action: String,
        service: String,
    },
    MissingKs,
    /// `end` is the end of the KS only, by which people can tell which one is meant.
    InvalidKs {
        end: String,
        number: i8,
        description: String,
    },
    ServiceForbidden {
        service: String,
        action: String,
    },
    StartSession {
        partner: String,
    },
    MissingParameter {
        name: String,
    },
    InvalidChar {
        field: String,
    },
    /// `reason` says what was wrong and what would be right.
    InvalidValue {
        name: String,
        reason: String,
    },
    InvalidEnum {
        value: String,
        name: String,
        kind: &'static str,
    },
    MinLength {
        property: &'static str,
        length: usize,
    },
    MaxLength {
        property: &'static str,
        length: usize,
    },
    NotUpdatable {
        property: &'static str,
    },
    AdminProperty {
        property: &'static str,
    },
    WrongFormat {
        property: &'static str,
        format: String,
    },
    InvalidObjectId {
        id: String,
    },
    /// `deleted` tells a link that is gone from one that is switched off.
    InvalidShortLink {
        id: String,
        deleted: bool,
    },
    ExpiredShortLink {
        id: String,
    },
    UniqueIdExists {
        unique_id: String,
    },
    AnotherUsersShortLink {
        user: String,
    },
    InvalidUserId,
    UnknownFormat {
        format: String,
    },
    /// A body over the limit.
    TooLarge {
        limit_bytes: usize,
    },
    /// A body that is compressed.
    ContentEncoding {
        coding: String,
    },
    /// A body that did not come in time.
    TooSlow,
    /// The store could not be read.
    Internal,
    /// The store has failed and is being opened again; nothing was written.
    Unavailable {
        retry_after_seconds: u64,
    },
    /// The disk has too little room for what was sent; nothing was written.
    NoSpace {
        reason: String,
    },
    /// As many backups and exports are going on as may.
    Busy,
    /// Reading took longer than it may. What was done before stays.
    TookTooLong {
        seconds: u64,
    },
    /// What is held in memory for requests and answers is as much as may be; nothing was done.
    Overloaded,
    /// The appliance serves a store that it never writes to.
    ReadOnly,
    /// The write may or may not be on disk.
    OutcomeUnknown,
    /// The destination of a link is none that is fetched. Why is not for those who ask.
    DestinationForbidden {
        id: String,
    },
    /// It was not reached, or what it answered is no answer that could be passed on.
    DestinationUnreachable {
        id: String,
    },
    /// It took too long.
    DestinationTimeout {
        id: String,
    },
    /// A proxied link leads to a proxied link.
    ProxyLoop {
        id: String,
    },
    /// As many destinations are being fetched as may, in all or for the client.
    TooManyFetches,
}

/// How much of a message goes into a header, in bytes. What a client sent may be in it, and clients and proxies refuse
/// headers of more than about 8,192.
const HEADER_MESSAGE_MAX_BYTES: usize = 256;
/// How much of what a client sent an error repeats, in bytes: enough to recognise it.
const ECHO_MAX_BYTES: usize = 256;
/// Longest reason that an error gives, in bytes. It is ours, but may repeat a part of the input too.
const REASON_MAX_BYTES: usize = 1024;
/// The argument that holds a reason.
const REASON: &str = "REASON";
/// How long a client is asked to wait for others to finish, in seconds.
const BUSY_SECONDS: u64 = 30;
/// The same where others are only being answered.
const OVERLOADED_SECONDS: u64 = 1;

impl ApiError {
    /// An invalid value, with its reason.
    pub fn invalid(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidValue {
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// The exception that stands for this fault in an answer.
    #[must_use]
    pub fn exception(&self) -> Exception {
        let (code, template, mut args) = self.parts();
        for (name, value) in &mut args {
            cut(
                value,
                if *name == REASON {
                    REASON_MAX_BYTES
                } else {
                    ECHO_MAX_BYTES
                },
            );
        }
        let mut message = String::with_capacity(template.len() + 32);
        // One pass, so that an argument that looks like a placeholder stays what it is.
        let mut pieces = template.split('@');
        if let Some(first) = pieces.next() {
            message.push_str(first);
        }
        while let (Some(name), Some(text)) = (pieces.next(), pieces.next()) {
            if let Some((_, value)) = args.iter().find(|(known, _)| *known == name) {
                message.push_str(value);
            }
            message.push_str(text);
        }
        Exception { code, message, args }
    }

    /// Code, message with `@NAME@` for arguments, and arguments.
    fn parts(&self) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
        let none = Vec::new;
        match self {
            Self::ServiceNotSpecified => (
                "SERVICE_NOT_SPECIFIED",
                "Service name was not specified, please specify one",
                none(),
            ),
            Self::ActionNotSpecified => (
                "ACTION_NOT_SPECIFIED",
                "Action name was not specified, please specify one",
                none(),
            ),
            Self::ServiceDoesNotExist { service } => (
                "SERVICE_DOES_NOT_EXISTS",
                "Service \"@SRV_NAME@\" does not exists",
                vec![("SRV_NAME", service.clone())],
            ),
            Self::ActionDoesNotExist { action, service } => (
                "ACTION_DOES_NOT_EXISTS",
                "Action \"@ACTION_NAME@\" does not exists for service \"@SERVICE_NAME@\"",
                vec![("ACTION_NAME", action.clone()), ("SERVICE_NAME", service.clone())],
            ),
            Self::MissingKs => ("MISSING_KS", "Missing KS, session not established", none()),
            Self::InvalidKs {
                end,
                number,
                description,
            } => (
                "INVALID_KS",
                "Invalid KS \"@KSID@\", Error \"@ERR_CODE@,@ERR_DESC@\"",
                vec![
                    ("KSID", end.clone()),
                    ("ERR_CODE", number.to_string()),
                    ("ERR_DESC", description.clone()),
                ],
            ),
            Self::ServiceForbidden { service, action } => (
                "SERVICE_FORBIDDEN",
                "The access to service [@SERVICE@] is forbidden",
                vec![("SERVICE", format!("{service}->{action}"))],
            ),
            Self::StartSession { partner } => (
                "START_SESSION_ERROR",
                "Error while starting session for partner [@PID@]",
                vec![("PID", partner.clone())],
            ),
            Self::MissingParameter { name } => (
                "MISSING_MANDATORY_PARAMETER",
                "Missing parameter \"@PARAM_NAME@\"",
                vec![("PARAM_NAME", name.clone())],
            ),
            Self::InvalidChar { field } => (
                "INVALID_PARAMETER_CHAR",
                "Invalid char in \"@XML_FIELD@\" field",
                vec![("XML_FIELD", field.clone())],
            ),
            Self::InvalidValue { name, reason } => invalid_value(name.clone(), reason.clone()),
            Self::InvalidEnum { value, name, kind } => (
                "INVALID_ENUM_VALUE",
                "Invalid enumeration value \"@ENUM_VAL@\" for parameter \"@PARAM_NAME@\", \
                 expecting enumeration type \"@ENUM_TYPE@\"",
                vec![
                    ("ENUM_VAL", value.clone()),
                    ("PARAM_NAME", name.clone()),
                    ("ENUM_TYPE", (*kind).to_owned()),
                ],
            ),
            _ => self.parts_of_server(),
        }
    }

    /// What is no mistake of the caller's, or concerns the request as a whole.
    fn parts_of_server(&self) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
        let none = Vec::new;
        match self {
            Self::TooLarge { limit_bytes } => {
                invalid_value("body".into(), format!("larger than the limit of {limit_bytes} bytes"))
            }
            Self::ContentEncoding { coding } => invalid_value(
                "Content-Encoding".into(),
                format!("{coding} is not supported: send the body without compression"),
            ),
            Self::TooSlow => invalid_value("body".into(), "did not arrive in time".into()),
            Self::Internal => internal(none()),
            Self::Unavailable { retry_after_seconds } => internal(vec![(
                REASON,
                format!("store unavailable, nothing was written: retry after {retry_after_seconds} seconds"),
            )]),
            Self::NoSpace { reason } => internal(vec![(REASON, format!("nothing was written: {reason}"))]),
            Self::Busy => internal(vec![(
                REASON,
                "too many backups, exports or imports at a time".to_owned(),
            )]),
            Self::TookTooLong { seconds } => internal(vec![(
                REASON,
                format!(
                    "took longer than {seconds} seconds: ask for less, by a narrower filter or fewer calls at once"
                ),
            )]),
            Self::Overloaded => internal(vec![(
                REASON,
                format!(
                    "too much is being received and answered, nothing was done: retry after {OVERLOADED_SECONDS} second"
                ),
            )]),
            Self::ReadOnly => internal(vec![(REASON, "this appliance is read-only".to_owned())]),
            Self::OutcomeUnknown => internal(vec![(
                REASON,
                "outcome unknown: the write may or may not have been stored".to_owned(),
            )]),
            _ => self.parts_of_link(),
        }
    }

    /// The faults that concern a link or one of its properties.
    fn parts_of_link(&self) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
        let property = |property: &str| vec![("PROP_NAME", format!("KalturaShortLink::{property}"))];
        match self {
            Self::MinLength { property: name, length } => (
                "PROPERTY_VALIDATION_MIN_LENGTH",
                "The property \"@PROP_NAME@\" must have a min length of @MIN_LEN@ characters",
                [property(name), vec![("MIN_LEN", length.to_string())]].concat(),
            ),
            Self::MaxLength { property: name, length } => (
                "PROPERTY_VALIDATION_MAX_LENGTH",
                "The property \"@PROP_NAME@\" cannot have more than @MAX_LEN@ characters",
                [property(name), vec![("MAX_LEN", length.to_string())]].concat(),
            ),
            Self::NotUpdatable { property: name } => (
                "PROPERTY_VALIDATION_NOT_UPDATABLE",
                "The property \"@PROP_NAME@\" cannot be updated",
                property(name),
            ),
            Self::AdminProperty { property: name } => (
                "PROPERTY_VALIDATION_ADMIN_PROPERTY",
                "The property \"@PROP_NAME@\" is updatable with admin session only",
                property(name),
            ),
            Self::WrongFormat { property: name, format } => (
                "PROPERTY_VALIDATION_WRONG_FORMAT",
                "The property \"@PROP_NAME@\" must match format @FORMAT@",
                [property(name), vec![("FORMAT", format.clone())]].concat(),
            ),
            Self::InvalidObjectId { id } => (
                "INVALID_OBJECT_ID",
                "Invalid object id [@ID@]",
                vec![("ID", id.clone())],
            ),
            Self::InvalidShortLink { id, .. } => (
                "INVALID_SHORT_LINK",
                "Invalid short link [@ID@]",
                vec![("ID", id.clone())],
            ),
            Self::ExpiredShortLink { id } => (
                "EXPIRED_SHORT_LINK",
                "Expired short link [@ID@]",
                vec![("ID", id.clone())],
            ),
            Self::UniqueIdExists { unique_id } => (
                "SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS",
                "Short link unique id [@UNIQUE_ID@] already exists",
                vec![("UNIQUE_ID", unique_id.clone())],
            ),
            Self::AnotherUsersShortLink { user } => (
                "CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK",
                "cannot retrieve another user's [\"@USER_ID@\"] short link using non-admin session",
                vec![("USER_ID", user.clone())],
            ),
            Self::InvalidUserId => ("INVALID_USER_ID", "Invalid user id", Vec::new()),
            Self::UnknownFormat { format } => (
                "UNKNOWN_RESPONSE_FORMAT",
                "Response format provided [@FORMAT@] is not recognized by server",
                vec![("FORMAT", format.clone())],
            ),
            _ => self.parts_of_destination(),
        }
    }

    /// The faults that concern the destination of a proxied link. Kaltura has no codes for them
    /// (docs/kaltura-api.md#error-codes-of-tinyd).
    fn parts_of_destination(&self) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
        let of = |id: &String| vec![("ID", id.clone())];
        match self {
            Self::DestinationForbidden { id } => (
                "DESTINATION_FORBIDDEN",
                "The destination of short link [@ID@] is not one that this server fetches",
                of(id),
            ),
            Self::DestinationUnreachable { id } => (
                "DESTINATION_UNREACHABLE",
                "The destination of short link [@ID@] could not be fetched",
                of(id),
            ),
            Self::DestinationTimeout { id } => (
                "DESTINATION_TIMEOUT",
                "The destination of short link [@ID@] did not answer in time",
                of(id),
            ),
            Self::ProxyLoop { id } => (
                "PROXY_LOOP",
                "Short link [@ID@] was asked for by a server that fetches destinations itself",
                of(id),
            ),
            Self::TooManyFetches => (
                "TOO_MANY_FETCHES",
                "Too many destinations are being fetched at the moment, please try again",
                Vec::new(),
            ),
            _ => internal(Vec::new()),
        }
    }

    /// The status of an API answer: an exception is a success to HTTP, because clients parse the body and some reject
    /// other codes. Our own failures are not (docs/kaltura-api.md#statuses).
    #[must_use]
    pub const fn api_status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentEncoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable { .. }
            | Self::NoSpace { .. }
            | Self::Busy
            | Self::TookTooLong { .. }
            | Self::Overloaded
            | Self::ReadOnly
            | Self::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        }
    }

    /// Adds the headers by which Kaltura's own tools recognise an error.
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
    }
}

/// Leaves so many bytes of a text at most, and shows that something is missing.
fn cut(text: &mut String, most: usize) {
    const MARK: char = '…';
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - MARK.len_utf8()));
        text.push(MARK);
    }
}

fn invalid_value(name: String, reason: String) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
    (
        "INVALID_PARAMETER_VALUE",
        "invalid value for parameter \"@PARAM_NAME@\"",
        // Kaltura's message has no room for it: an argument of our own (docs/kaltura-api.md#errors).
        vec![("PARAM_NAME", name), (REASON, reason)],
    )
}

fn internal(args: Vec<(&'static str, String)>) -> (&'static str, &'static str, Vec<(&'static str, String)>) {
    ("INTERNAL_SERVERL_ERROR", "Internal server error occurred", args)
}

impl ApiError {
    /// The API's answer for this fault.
    #[must_use]
    pub fn respond(&self, format: &Format, elapsed: Duration) -> Response {
        let mut response = response::api(self.api_status(), format, &Value::Exception(self.exception()), elapsed);
        self.write_headers(response.headers_mut());
        let (name, value) = match self {
            Self::Unavailable { retry_after_seconds } => (RETRY_AFTER, HeaderValue::from(*retry_after_seconds)),
            Self::Busy => (RETRY_AFTER, HeaderValue::from(BUSY_SECONDS)),
            Self::Overloaded => (RETRY_AFTER, HeaderValue::from(OVERLOADED_SECONDS)),
            // What would have been accepted (RFC 9110, section 15.5.16).
            Self::ContentEncoding { .. } => (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            _ => return response,
        };
        response.headers_mut().insert(name, value);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_specification() {
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
    fn an_argument_is_never_taken_for_a_placeholder() {
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
    fn errors_repeat_little_of_the_input() {
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
                let most = if *name == REASON {
                    REASON_MAX_BYTES
                } else {
                    ECHO_MAX_BYTES
                };
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
    fn faults_of_ours_are_no_success() {
        for (fault, status) in [
            (ApiError::OutcomeUnknown, 503),
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
    fn headers_cannot_be_split() {
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
