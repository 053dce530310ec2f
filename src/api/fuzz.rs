//! Entrances for the fuzzer, which reaches public items only.

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::api::{Params, body, multirequest};
use crate::kaltura::ParameterSource;
use crate::kaltura::format::Value;

/// Reads parameters in the form, and from the source, that the first byte chooses.
pub fn fuzz_parameters(data: &[u8]) {
    let Some((&form, data)) = data.split_first() else {
        return;
    };
    let mut params = Params::default();
    let types = [
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data; boundary=x",
    ];
    match types.get(usize::from(form % 5)) {
        Some(media_type) => {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            let parsing = body::parse(&headers, Bytes::copy_from_slice(data), &mut params);
            assert!(parsing.now_or_never().is_some(), "it waits for something");
        }
        None => {
            let source = if form % 5 == 3 {
                ParameterSource::Path
            } else {
                ParameterSource::Query
            };
            let text = String::from_utf8_lossy(data);
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            // A refusal is as good as an acceptance here.
            let _ = params.insert_encoded(source, key, value);
        }
    }
}

/// Puts results in place of references in a text.
pub fn fuzz_references(text: &str) {
    let fields = vec![
        ("id", Value::text("abcd")),
        ("status", Value::Int(2)),
        ("name", Value::Null),
    ];
    let link = Value::object("KalturaShortLink", fields);
    multirequest::fuzz(text, &[Value::text("ks"), link.clone(), Value::List(vec![link])]);
}
