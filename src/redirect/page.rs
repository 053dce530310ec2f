//! The page that a browser shows for a link that does not redirect.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use crate::http::{self, Response};
use crate::kaltura::format::Exception;

/// Nothing is loaded and nothing runs; the one style sheet is in the page.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *");

/// The page for a path at which there is nothing.
pub(super) fn not_found() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "There is nothing at this address",
        "This server redirects short links. Check the address of your link: a part of it may be missing.",
        "NOT_FOUND",
    )
}

pub(super) fn of(status: StatusCode, exception: &Exception) -> Response {
    let (title, explanation) = match exception.code {
        "EXPIRED_SHORT_LINK" => (
            "This link has expired",
            "It was made to work for a limited time, which is over.",
        ),
        "INVALID_SHORT_LINK" if status == StatusCode::GONE => ("This link is gone", "Whoever made it has deleted it."),
        "INVALID_SHORT_LINK" => ("This link is switched off", "Whoever made it has disabled it for now."),
        "DESTINATION_FORBIDDEN" => (
            "This cannot be shown here",
            "What this link leads to is not passed on by this server. Opened directly, it may work.",
        ),
        "DESTINATION_UNREACHABLE" => (
            "What this link leads to is not there",
            "The link is right, but the server that it leads to does not answer as it should. Please try again later.",
        ),
        "DESTINATION_TIMEOUT" => (
            "What this link leads to takes too long",
            "The link is right, but the server that it leads to does not answer in time. Please try again later.",
        ),
        "PROXY_LOOP" => (
            "This link leads in circles",
            "What it leads to is fetched by a server that fetches it from here.",
        ),
        "TOO_MANY_FETCHES" => (
            "Many people are here at the moment",
            "The link is right. Please try again in some seconds.",
        ),
        _ => (
            "There is no such link",
            "It may have been cut off or mistyped: look at the address once more.",
        ),
    };
    page(status, title, explanation, exception.code)
}

fn page(status: StatusCode, title: &str, explanation: &str, code: &str) -> Response {
    // Only texts of our own stand in the page; what the visitor sent is not repeated.
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto 0;padding:0 1.5rem;\
         color:#222;background:#fff}}small{{color:#666}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}small{{color:#999}}}}</style></head>\
         <body><main><h1>{title}</h1><p>{explanation}</p><p><small>{code}</small></p></main></body></html>\n"
    );
    let mut response = http::bytes(status, "text/html; charset=utf-8", body);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}
