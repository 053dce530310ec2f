//! Request targets of the API: `/api_v3`, pairs in the path, parameters in the query (docs/kaltura-api.md#paths).

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::percent_decode_str;

/// The target of a request to the API, split but not decoded.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pairs: &'a str,
    query: &'a str,
}

/// Where a parameter stands. A `+` is a space in a query and itself in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterSource {
    /// `/key/value`.
    Path,
    /// `?key=value`, or a form.
    Query,
}

impl<'a> Target<'a> {
    pub fn from_uri(uri: &'a Uri) -> Option<Self> {
        let rest = uri.path().trim_start_matches('/').strip_prefix("api_v3")?;
        let rest = match rest.as_bytes().first() {
            None => rest,
            Some(b'/') => rest.trim_start_matches('/'),
            Some(_) => return None,
        };
        let pairs = match rest.strip_prefix("index.php") {
            Some("") => "",
            Some(more) => more.strip_prefix('/').unwrap_or(rest),
            None => rest,
        };
        Some(Self {
            pairs,
            query: uri.query().unwrap_or(""),
        })
    }

    /// The parameters by precedence, the path before the query: of those with one name, the first one counts. So a
    /// session that is restricted to the beginning of a URI cannot get at another action by what is appended.
    pub fn parameters(self) -> impl Iterator<Item = (ParameterSource, &'a str, &'a str)> {
        let query = self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (ParameterSource::Query, key, value)
        });
        let mut segments = self.pairs.split('/').filter(|segment| !segment.is_empty());
        let path = std::iter::from_fn(move || {
            let key = segments.next()?;
            Some((ParameterSource::Path, key, segments.next().unwrap_or("")))
        });
        path.chain(query)
    }
}

/// The action that a target names, and those of its parameters that the public listener needs. Anything else in the
/// target, however malformed, is ignored.
#[derive(Debug, Default)]
pub struct Call<'a> {
    pub service: Option<Cow<'a, str>>,
    pub action: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
    pub format: Option<Cow<'a, str>>,
    pub callback: Option<Cow<'a, str>>,
    pub ignore_null: Option<Cow<'a, str>>,
    pub proxy: Option<Cow<'a, str>>,
}

impl<'a> Call<'a> {
    pub fn from_target(target: Target<'a>) -> Self {
        let mut call = Self::default();
        for (source, key, value) in target.parameters() {
            let slot = match key {
                "service" => &mut call.service,
                "action" => &mut call.action,
                "id" => &mut call.id,
                "format" => &mut call.format,
                "callback" => &mut call.callback,
                "ignoreNull" => &mut call.ignore_null,
                "proxy" => &mut call.proxy,
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(decode_lossy(source, value));
            }
        }
        call
    }

    pub fn is_goto(&self) -> bool {
        self.is("shortlink_shortlink", "goto")
    }

    /// Whether the target names this action, in any case.
    pub fn is(&self, service: &str, action: &str) -> bool {
        let is = |text: &Option<Cow<'_, str>>, name| text.as_ref().is_some_and(|text| text.eq_ignore_ascii_case(name));
        is(&self.service, service) && is(&self.action, action)
    }
}

/// A path in which each run of slashes is one. An empty segment means nothing: Kaltura's web server merges slashes, and
/// its clients send `//api_v3` where their `serviceUrl` ends in a slash.
pub fn merge_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    Cow::Owned(merged)
}

/// Whether the text of a boolean parameter is true: everything else is false.
pub fn is_true(text: &str) -> bool {
    matches!(text, "1" | "true" | "True")
}

/// Decodes percent-encoding, and `+` in a query. What is malformed stays. Allocates only to decode.
pub fn decode_lossy(source: ParameterSource, text: &str) -> Cow<'_, str> {
    if source == ParameterSource::Query && text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    fn parameters(uri: &str) -> Option<Vec<(String, String)>> {
        let uri: Uri = uri.parse().unwrap();
        let target = Target::from_uri(&uri)?;
        let decoded = target
            .parameters()
            .map(|(source, key, value)| (key.into(), decode_lossy(source, value).into()));
        Some(decoded.collect())
    }

    fn pairs(all: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(all.iter().map(|&(key, value)| (key.into(), value.into())).collect())
    }

    #[test]
    fn every_entrance_is_known() {
        for root in ["/api_v3", "/api_v3/", "/api_v3/index.php", "/api_v3/index.php/"] {
            assert_eq!(parameters(root), pairs(&[]), "{root}");
        }
        for other in ["/", "/api_v3x", "/api_v2/service/x", "/tiny/abcd", "/API_V3/"] {
            assert_eq!(parameters(other), None, "{other}");
        }
        let expected = pairs(&[("service", "a"), ("action", "b"), ("id", "c d")]);
        assert_eq!(parameters("/api_v3/service/a/action/b/id/c%20d"), expected);
        assert_eq!(parameters("/api_v3/?service=a&action=b&id=c+d"), expected);
        assert_eq!(parameters("/api_v3/index.php?service=a&&action=b&id=c%20d"), expected);
        assert_eq!(
            parameters("/api_v3/index.php/service/a?action=b"),
            pairs(&[("service", "a"), ("action", "b")])
        );
    }

    #[test]
    fn value_may_contain_a_slash_and_plus_stays_plus_in_a_path() {
        assert_eq!(
            parameters("/api_v3/service/a%2Fb+c/x"),
            pairs(&[("service", "a/b+c"), ("x", "")])
        );
    }

    #[test]
    fn empty_segments_mean_nothing() {
        let expected = pairs(&[("service", "a"), ("action", "b"), ("id", "c")]);
        for target in [
            "//api_v3/service/a/action/b/id/c",
            "///api_v3//service//a///action/b/id//c//",
            "/api_v3//index.php//service/a/action//b/id/c",
            "//api_v3/index.php?service=a&action=b&id=c",
        ] {
            assert_eq!(parameters(target), expected, "{target}");
        }
        for other in ["//", "//api_v3x", "/x//api_v3/service/a", "//api_v2"] {
            assert_eq!(parameters(other), None, "{other}");
        }
        for (path, merged) in [
            ("", ""),
            ("*", "*"),
            ("/", "/"),
            ("///", "/"),
            ("/a/b", "/a/b"),
            ("//a///b//", "/a/b/"),
        ] {
            assert_eq!(merge_slashes(path), merged, "{path}");
        }
    }

    #[test]
    fn goto_is_recognised_in_every_form() {
        for (uri, id) in [
            (
                "/api_v3/service/shortlink_shortlink/action/goto/id/67mk41xj",
                "67mk41xj",
            ),
            (
                "/api_v3/service/shortLink_shortLink/action/GoTo/id/67mk41xj/id/other?ks=x&id=other",
                "67mk41xj",
            ),
            (
                "/api_v3/index.php?service=shortLink_shortLink&action=goto&id=67mk41xj&format=1",
                "67mk41xj",
            ),
            (
                "/api_v3/service/shortlink_shortlink/action/goto?id=%36%37mk41xj&bad=%zz",
                "67mk41xj",
            ),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let call = Call::from_target(Target::from_uri(&uri).unwrap());
            assert!(call.is_goto(), "{uri}");
            assert_eq!(call.id.as_deref(), Some(id), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_target_is_total(rest in "[/?&=%+a-z0-9:\\[\\]]{0,40}") {
            if let Ok(uri) = format!("/api_v3/{rest}").parse::<Uri>() {
                let target = Target::from_uri(&uri).unwrap();
                let _ = Call::from_target(target).is_goto();
                // What counts for a call is what comes first of its name.
                let named = |name| target.parameters().find(|(_, key, _)| *key == name);
                let id = named("id").map(|(source, _, value)| decode_lossy(source, value));
                prop_assert_eq!(Call::from_target(target).id, id);
            }
        }
    }

    #[test]
    fn targets_take_work_in_proportion() {
        let make = |size| {
            let path = "/a/%41".repeat(size);
            let query = "id=%41&id=+&=&&".repeat(size);
            format!("/api_v3{}/{path}?{query}", "/".repeat(size))
                .parse::<Uri>()
                .unwrap()
        };
        assert_is_linear(100, make, |uri| {
            Call::from_target(Target::from_uri(&uri).unwrap()).is_goto()
        });
    }
}
