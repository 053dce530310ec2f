//! Signing in and out.

use std::sync::Arc;

use askama::Template;
use hyper::StatusCode;
use hyper::header::SET_COOKIE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::form_urlencoded;

use crate::access::{Grant, StartRefused};
use crate::console::cookie::{SignInMethod, SignedIn, clear_cookie};
use crate::console::page::{Frame, GoOnPage, Section, html, see_other};
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::view::plain;
use crate::console::{Console, Page};
use crate::http::Response;
use crate::metrics::{StartMethod, StartOutcome};
use crate::model::validate::{self, USER_ID};
use crate::model::{PartnerId, whole_number};
use crate::store::WriteError;

#[derive(Debug, Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    partner: String,
    user: String,
    /// Where to go afterwards, below the base.
    next: String,
    error: Option<&'static str>,
    /// Where to sign in with OpenID Connect, if that is possible.
    provider_url: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "sign_in_link.html")]
struct SignInLinkPage {
    frame: Frame,
    user: String,
    token: String,
}

/// In the query, where a page of this site leads on to the sign-in page.
const LED_ON: &str = "on";

/// What may not stand in the page to come back to, as it is.
const NOT_IN_NEXT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'/')
    .remove(b'?')
    .remove(b'&')
    .remove(b'=')
    .remove(b'%')
    .remove(b'+')
    .remove(b'~');

const WRONG: &str = "Partner, user or secret are wrong.";
const THROTTLED: &str = "Too many failed attempts from your network. Try again in a minute.";
const NO_USER: &str = "Enter a user name of at most 100 characters.";

impl Console {
    /// The path of the page on which to sign in and come back.
    pub(super) fn sign_in_path(&self, request: &ConsoleRequest) -> String {
        let encode = |part: &str| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
        let mut next = request
            .path
            .iter()
            .map(|part| encode(part))
            .collect::<Vec<_>>()
            .join("/");
        if !request.query_text.is_empty() {
            next = format!("{next}?{}", utf8_percent_encode(&request.query_text, NOT_IN_NEXT));
        }
        self.sign_in_url(&[("next", &next)])
    }

    fn sign_in_url(&self, fields: &[(&str, &str)]) -> String {
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        let mut query = form_urlencoded::Serializer::new(String::new());
        self.path(&format!("sign-in?{}", query.extend_pairs(given).finish()))
    }

    /// The page on which to sign in. Whoever comes from another site may be signed in: a page of this site leads them
    /// here once more, with their cookie.
    pub(super) fn show_sign_in(&self, request: &ConsoleRequest, signed_in: Option<&SignedIn>) -> Response {
        let next = request.query.text("next");
        let is_led_on = !request.query.text(LED_ON).is_empty();
        if signed_in.is_some() && is_led_on {
            return see_other(&self.next_path(next));
        }
        if signed_in.is_some() || is_led_on || !request.may_lack_cookie() {
            return self.sign_in_page(request, None, StatusCode::OK);
        }
        let page = GoOnPage {
            frame: self.frame(None, Section::None),
            title: "One moment",
            words: "This page opens by itself.".to_owned(),
            link: "Open it",
            url: self.sign_in_url(&[("next", next), (LED_ON, "1")]),
        };
        html(StatusCode::OK, &page)
    }

    pub(super) fn sign_in_page(
        &self,
        request: &ConsoleRequest,
        failed: Option<(&Fields, &'static str)>,
        status: StatusCode,
    ) -> Response {
        let partners = self.starts.partners();
        let mut ids = partners.ids();
        let only = match (ids.next(), ids.next()) {
            (Some(id), None) => id.to_string(),
            _ => String::new(),
        };
        let given = |name| failed.map(|(form, _)| form.text(name).to_owned());
        let next = given("next").unwrap_or_else(|| request.query.text("next").to_owned());
        let page = SignInPage {
            provider_url: self.oidc.as_ref().map(|oidc| oidc.start_url(&next)),
            frame: self.frame(None, Section::None),
            partner: given("partner").unwrap_or(only),
            user: given("user").unwrap_or_default(),
            next,
            error: failed.map(|(_, error)| error),
        };
        html(status, &page)
    }

    pub(super) fn sign_in(&self, request: &ConsoleRequest, form: &Fields) -> Response {
        let refuse = |error| self.sign_in_page(request, Some((form, error)), StatusCode::FORBIDDEN);
        let user = form.text("user");
        if user.is_empty() || USER_ID.check(user).is_err() {
            return refuse(NO_USER);
        }
        let partner = whole_number(form.text("partner")).and_then(validate::partner_id);
        // No partner has this number.
        let partner = partner.unwrap_or(PartnerId(0));
        let checked = self.starts.kind_of(request.client, partner, form.text("secret"));
        let outcome = checked.err().map_or(StartOutcome::Started, StartOutcome::from);
        self.starts.count(StartMethod::Secret, outcome);
        match checked {
            Ok(kind) => {
                let user = user.to_owned();
                let next = self.next_path(form.text("next"));
                self.signed_in_response(request, Grant { partner, user, kind }, &next)
            }
            Err(StartRefused::Secret) => refuse(WRONG),
            Err(StartRefused::Throttled) => {
                self.sign_in_page(request, Some((form, THROTTLED)), StatusCode::TOO_MANY_REQUESTS)
            }
        }
    }

    /// Where to go after signing in: only to pages of this console.
    pub(super) fn next_path(&self, next: &str) -> String {
        let is_plain = utf8_percent_encode(next, NOT_IN_NEXT).to_string() == next;
        let path = next.split('?').next().unwrap_or_default();
        // Browsers go up at an encoded dot too.
        let goes_up = percent_decode_str(path).decode_utf8_lossy().contains("..");
        let is_page = is_plain && !next.starts_with('/') && !next.starts_with("sign-") && !goes_up;
        self.path(if is_page { next } else { "" })
    }

    fn signed_in_response(&self, request: &ConsoleRequest, grant: Grant, next: &str) -> Response {
        // Whoever signs in is likely to search.
        let (links, partner) = (Arc::clone(&self.links), grant.partner);
        tokio::spawn(async move { links.prepare_search(partner).await });
        // A new one each time, so that nobody can plant theirs.
        let partners = self.starts.partners();
        let secrets = partners.get(grant.partner).map(|partner| self.key.mark_of(partner));
        let signed_in = SignedIn::begin(grant, SignInMethod::Local, self.links.clock().now());
        let signed_in = signed_in.bound_to(secrets.unwrap_or_default());
        let mut response = see_other(next);
        if let Some(cookie) = self.key.set_cookie(&signed_in, request.is_secure) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    /// A page with a button: programs that look at links before people open them do not use the link up.
    pub(super) fn sign_in_link_page(&self, token: &str) -> Page {
        let grant = self.starts.links().and_then(|links| links.look_at(token));
        let page = SignInLinkPage {
            frame: self.frame(None, Section::None),
            user: plain(&grant.ok_or(Problem::UsedLink)?.user),
            token: token.to_owned(),
        };
        Ok(html(StatusCode::OK, &page))
    }

    pub(super) fn spend_sign_in_link(&self, request: &ConsoleRequest, token: &str) -> Page {
        let grant = self.starts.links().and_then(|links| links.spend(token));
        let grant = self.counted(StartMethod::Link, grant.ok_or(Problem::UsedLink));
        Ok(self.signed_in_response(request, grant?, &self.path("")))
    }

    /// The result of signing in, counted.
    pub(super) fn counted<T>(&self, method: StartMethod, result: Result<T, Problem>) -> Result<T, Problem> {
        let outcome = match &result {
            Ok(_) => StartOutcome::Started,
            Err(Problem::ProviderDown | Problem::ProviderBusy | Problem::Internal) => StartOutcome::Unavailable,
            Err(_) => StartOutcome::Refused,
        };
        self.starts.count(method, outcome);
        result
    }

    /// Ends a session; this browser loses it in any case.
    pub(super) async fn sign_out(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        if signed_in.method == SignInMethod::Header {
            return Err(Problem::NotFound);
        }
        self.jobs.forget_files(signed_in.session.digest);
        let mut response = match self.links.revoke(&signed_in.to_revoke(), signed_in.actor()).await {
            Ok(()) | Err(WriteError::ReadOnly) => {
                let of_provider = self.leave_provider(signed_in).await;
                of_provider.unwrap_or_else(|| see_other(&self.path("sign-in")))
            }
            Err(error) => self.problem(&error.into(), None),
        };
        if let Some(cookie) = clear_cookie(request.is_secure) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        Ok(response)
    }
}
