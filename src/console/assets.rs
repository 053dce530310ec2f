//! The script and the style sheet, compressed when the program is built. Their names change with their content, so
//! that browsers may keep them for ever.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

use crate::http::{self, Response};

/// A year, and no question whether it has changed.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

#[derive(Debug)]
pub struct Asset {
    kind: &'static str,
    /// Of the content.
    hash: &'static str,
    extension: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $extension:literal, $kind:literal) => {
        Asset {
            kind: $kind,
            hash: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".hash")),
            extension: $extension,
            plain: include_bytes!(concat!("assets/", $name)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

pub static STYLE: Asset = asset!("style.css", "css", "text/css; charset=utf-8");
pub static SCRIPT: Asset = asset!("script.js", "js", "text/javascript; charset=utf-8");

impl Asset {
    /// Below the base of the console.
    pub fn path(&self) -> String {
        format!("assets/{}.{}", self.hash, self.extension)
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
        let mut accepted = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let is_compressed = accepted.any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && parts.all(|part| part != "q=0")
        });
        let body = if is_compressed { self.gzip } else { self.plain };
        let mut response = http::bytes(StatusCode::OK, self.kind, body);
        let headers = response.headers_mut();
        if is_compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::CACHE_CONTROL, FOR_EVER);
        response
    }
}

/// The asset of this name, if there is one.
pub fn respond(name: &str, headers: &HeaderMap) -> Option<Response> {
    let all = [&STYLE, &SCRIPT];
    let asset = all
        .into_iter()
        .find(|asset| asset.path().strip_prefix("assets/") == Some(name))?;
    Some(asset.respond(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_small() {
        let all = [&STYLE, &SCRIPT];
        let bytes: usize = all.iter().map(|asset| asset.plain.len() + asset.gzip.len()).sum();
        assert!(bytes <= 100 * 1024, "{bytes} bytes");
    }

    #[test]
    fn asset_is_compressed_where_that_is_accepted() {
        let name = STYLE.path().replace("assets/", "");
        for (accepted, is_compressed) in [
            ("gzip, br", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(accepted);
            let response = respond(&name, &HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)])).unwrap();
            let is_gzip = response.headers().contains_key(header::CONTENT_ENCODING);
            assert_eq!(is_gzip, is_compressed, "{accepted}");
        }
        assert!(respond("other.css", &HeaderMap::new()).is_none());
    }
}
