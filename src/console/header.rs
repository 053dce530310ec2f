//! Signing in by a header of a trusted proxy, which has signed somebody in itself.
//!
//! The header is read at each request and there is no cookie, so that nobody stays signed in after the proxy says
//! somebody else, or nobody.

use hyper::header::HeaderName;

use crate::access::Grant;
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::kaltura::session::Kind;
use crate::model::PartnerId;
use crate::model::validate::USER_ID;

/// Longest list of groups.
const GROUPS_MAX_BYTES: usize = 8 * 1024;

/// Headers that have a meaning of their own.
const TAKEN: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "sec-fetch-site",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderSettings {
    pub user: HeaderName,
    pub groups: Option<HeaderName>,
    pub admin_groups: Vec<String>,
    pub partner: PartnerId,
}

/// Refuses what cannot be the name of a header that says who somebody is.
pub fn check_header(text: &str) -> Result<(), String> {
    let name = text.parse::<HeaderName>().ok();
    name.filter(|name| !TAKEN.contains(&name.as_str()))
        .map(drop)
        .ok_or_else(|| "expected the name of a header of its own, such as X-Forwarded-User".to_owned())
}

impl HeaderSettings {
    /// Who the proxy says has signed in; `None` where it says nothing.
    pub fn read(&self, request: &ConsoleRequest) -> Result<Option<Grant>, Problem> {
        if !request.is_from_proxy {
            return Ok(None);
        }
        let Some(user) = only_value(request, &self.user)? else {
            return Ok(None);
        };
        let refuse = |reason: String| Err(Problem::HeaderRefused(self.user.to_string(), reason));
        if user.is_empty() {
            return refuse("is empty".to_owned());
        }
        // A proxy that adds to a header of the client, and does not replace it, makes a list.
        if user.contains(',') {
            return refuse("has a comma, as if the client had sent it too".to_owned());
        }
        if let Err(error) = USER_ID.check(user) {
            return refuse(format!("is no user: expected {error}"));
        }
        let groups = match &self.groups {
            Some(name) => only_value(request, name)?.unwrap_or_default(),
            None => "",
        };
        let is_admin = groups
            .split([',', '|'])
            .any(|group| self.admin_groups.iter().any(|admin| admin == group.trim()));
        Ok(Some(Grant {
            partner: self.partner,
            user: user.to_owned(),
            kind: if is_admin { Kind::Admin } else { Kind::User },
        }))
    }
}

/// The value of a header that may be there once.
fn only_value<'r>(request: &'r ConsoleRequest, name: &HeaderName) -> Result<Option<&'r str>, Problem> {
    let refuse = |reason: &str| Err(Problem::HeaderRefused(name.to_string(), reason.to_owned()));
    let mut values = request.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return refuse("is there twice");
    }
    if value.len() > GROUPS_MAX_BYTES {
        return refuse("is too long");
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => refuse("is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;
    use crate::http::connection::{Arrival, Scheme};

    fn settings() -> HeaderSettings {
        HeaderSettings {
            user: HeaderName::from_static("x-forwarded-user"),
            groups: Some(HeaderName::from_static("x-forwarded-groups")),
            admin_groups: vec!["link admins".to_owned()],
            partner: PartnerId(7),
        }
    }

    fn read(headers: &[(&str, &[u8])], is_from_proxy: bool) -> Result<Option<(String, Kind)>, Problem> {
        let mut builder = Request::builder().uri("/console/links");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let arrival = Arrival {
            scheme: Scheme::Http,
            is_from_proxy,
        };
        let request = builder.extension(arrival).body(()).unwrap();
        let request = ConsoleRequest::new(&request, "/links", "192.0.2.1".parse().unwrap(), None);
        let grant = settings().read(&request)?;
        Ok(grant.map(|grant| (grant.user, grant.kind)))
    }

    const USER: &str = "x-forwarded-user";
    const GROUPS: &str = "x-forwarded-groups";

    #[test]
    fn trusted_proxy_says_who_somebody_is() {
        let anna = |kind| Ok(Some(("Änna".to_owned(), kind)));
        for (groups, kind) in [
            (&b""[..], Kind::User),
            (b"staff", Kind::User),
            (b"staff, link admins", Kind::Admin),
            (b"staff|link admins", Kind::Admin),
            (b"link admins2,xlink admins", Kind::User),
        ] {
            assert_eq!(read(&[(USER, "Änna".as_bytes()), (GROUPS, groups)], true), anna(kind));
        }
        assert_eq!(read(&[(USER, "Änna".as_bytes())], true), anna(Kind::User));
        assert_eq!(read(&[(GROUPS, b"link admins")], true), Ok(None));
        assert_eq!(read(&[], true), Ok(None));
    }

    #[test]
    fn header_of_anybody_else_is_ignored() {
        assert_eq!(read(&[(USER, b"anna"), (GROUPS, b"link admins")], false), Ok(None));
        assert_eq!(read(&[(USER, b"anna"), (USER, b"ben")], false), Ok(None));
    }

    #[test]
    fn ambiguous_headers_are_refused() {
        let long = [b'x'; 101];
        for headers in [
            &[(USER, &b"anna"[..]), (USER, b"ben")][..],
            &[(USER, b"anna"), (USER, b"anna")],
            &[(USER, b"mallory, anna")],
            &[(USER, b"")],
            &[(USER, b"  ")],
            &[(USER, b"\xff")],
            &[(USER, &long)],
            &[(USER, b"anna"), (GROUPS, b"staff"), (GROUPS, b"link admins")],
            &[(USER, b"anna"), (GROUPS, &[b'g'; GROUPS_MAX_BYTES + 1])],
        ] {
            let refused = read(headers, true);
            assert!(
                matches!(refused, Err(Problem::HeaderRefused(..))),
                "{headers:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn headers_with_a_meaning_are_no_users() {
        assert!(check_header("X-Forwarded-User").is_ok());
        assert!(check_header("Remote-User").is_ok());
        for wrong in ["", "X Y", "Cookie", "host", "X-Forwarded-For", "ü"] {
            assert!(check_header(wrong).is_err(), "{wrong}");
        }
    }
}
