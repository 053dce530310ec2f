//! The page that a browser shows for a link that does not redirect.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use crate::http::{self, Response};
use crate::kaltura::format::Exception;

/// Nothing is loaded and nothing runs; the one style sheet is in the page.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *");

pub(super) fn not_found() -> Response {
    let explanation = "This server redirects short links. Check the address for typos.";
    page(StatusCode::NOT_FOUND, "Page not found", explanation, "NOT_FOUND")
}

pub(super) fn respond(status: StatusCode, exception: &Exception) -> Response {
    let starts_at = exception.args.iter().find(|(name, _)| *name == "STARTS_AT");
    let opens = starts_at.map(|(_, time)| format!("This link opens at {time}."));
    let (title, explanation) = match exception.code {
        "NOT_YET_OPEN_SHORT_LINK" => ("Link not open yet", opens.as_deref().unwrap_or_default()),
        "EXPIRED_SHORT_LINK" => ("Link expired", "This link was valid for a limited time."),
        "INVALID_SHORT_LINK" if status == StatusCode::GONE => ("Link deleted", "The owner has deleted this link."),
        "INVALID_SHORT_LINK" => ("Link disabled", "The owner has disabled this link."),
        "DESTINATION_FORBIDDEN" => (
            "Page not available here",
            "This server does not pass on the destination of this link. Opened directly, it may work.",
        ),
        "DESTINATION_UNREACHABLE" => (
            "Page unavailable",
            "The link is valid, but its destination is not responding correctly. Try again later.",
        ),
        "DESTINATION_TIMEOUT" => (
            "Page not responding",
            "The link is valid, but its destination is not responding in time. Try again later.",
        ),
        "PROXY_LOOP" => ("Redirect loop", "This link points back to itself."),
        "TOO_MANY_FETCHES" => ("Server busy", "Try again in a few seconds."),
        _ => ("Link not found", "Check the address for typos."),
    };
    page(status, title, explanation, exception.code)
}

fn page(status: StatusCode, title: &str, explanation: &str, code: &str) -> Response {
    // The page repeats nothing that the visitor sent.
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
