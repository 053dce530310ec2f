//! What all pages have in common: the frame around them, and their headers.

use askama::Template;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

use crate::console::Console;
use crate::console::assets;
use crate::console::cookie::{SignInMethod, SignedIn};
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::console::view::plain;
use crate::http::{self, Response};

/// Everything comes from this origin, nothing runs that is written in a page, and no other page frames it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// The frame of a page.
#[derive(Debug)]
pub struct Frame {
    pub base: String,
    /// The organisation.
    pub name: Option<String>,
    pub logo: Option<String>,
    pub style: String,
    pub script: String,
    pub signed_in: Option<AccountView>,
    /// The entry of the navigation that is shown.
    pub section: Section,
    /// What has just been done.
    pub notice: Option<&'static str>,
    /// In a cluster: on how many of how many boxes that is visible.
    pub visible: Option<(usize, usize)>,
}

#[derive(Debug)]
pub struct AccountView {
    pub user: String,
    pub is_admin: bool,
    pub is_operator: bool,
    /// Not where a proxy has signed them in.
    pub may_sign_out: bool,
    /// The field of forms that proves that they are ours.
    pub token: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    None,
    MyLinks,
    AllLinks,
    Clicks,
    Audit,
    Jobs,
    Health,
    Transfer,
    NewLink,
}

impl Frame {
    /// The token of a form; empty where nobody is signed in.
    pub fn token(&self) -> &str {
        self.signed_in.as_ref().map_or("", |account| account.token.as_str())
    }
}

impl Console {
    pub(super) fn frame(&self, signed_in: Option<&SignedIn>, section: Section) -> Frame {
        let account = |signed_in: &SignedIn| AccountView {
            user: plain(&signed_in.user),
            is_admin: signed_in.is_admin(),
            is_operator: self.is_operator(signed_in),
            may_sign_out: signed_in.method != SignInMethod::Header,
            token: self.key.form_token(signed_in),
        };
        Frame {
            base: self.base.clone(),
            name: self.branding.name.clone(),
            logo: self.branding.logo.as_ref().map(|logo| logo.data_url().to_owned()),
            style: assets::STYLE.path(),
            script: assets::SCRIPT.path(),
            signed_in: signed_in.map(account),
            section,
            notice: None,
            visible: None,
        }
    }

    /// The frame of a page to which a form leads, with what has been done.
    pub(super) async fn frame_after(&self, request: &ConsoleRequest, signed_in: &SignedIn, section: Section) -> Frame {
        let notice = notice(request);
        let visible = match request.query.text("entry").parse().ok().filter(|_| notice.is_some()) {
            Some(entry) => self.monitor.visible(entry).await,
            None => None,
        };
        Frame {
            notice,
            visible,
            ..self.frame(Some(signed_in), section)
        }
    }

    /// On to the page at this path, which says what has been done.
    pub(super) fn done(&self, path: &str, what: &str) -> Response {
        // It names the entry of the change, or one that came right after it.
        let entry = self.monitor.entry().map(|entry| format!("&entry={entry}"));
        see_other(&format!("{path}?done={what}{}", entry.unwrap_or_default()))
    }

    pub(super) fn problem(&self, problem: &Problem, signed_in: Option<&SignedIn>) -> Response {
        let page = ProblemPage {
            frame: self.frame(signed_in, Section::None),
            title: problem.title(),
            explanation: problem.explanation(),
            may_sign_in: problem.leads_to_sign_in(),
        };
        html(problem.status(), &page)
    }
}

/// Why a form was not taken, above what was entered in it.
#[derive(Debug)]
pub struct RefusalView {
    pub title: &'static str,
    pub words: String,
    /// Whether to sign in is what helps.
    pub may_sign_in: bool,
}

impl RefusalView {
    pub fn new(problem: &Problem) -> Self {
        Self {
            title: problem.title(),
            words: problem.explanation_with_form(),
            may_sign_in: problem.leads_to_sign_in(),
        }
    }
}

/// Goes on by itself, as a navigation of this site: a redirect would be one of the site that led here, which carries no
/// cookie with SameSite=Strict, and to which no form may lead.
#[derive(Debug, Template)]
#[template(path = "go_on.html")]
pub struct GoOnPage {
    pub frame: Frame,
    pub title: &'static str,
    pub words: String,
    pub link: &'static str,
    pub url: String,
}

#[derive(Debug, Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    title: &'static str,
    explanation: String,
    may_sign_in: bool,
}

pub fn html(status: StatusCode, page: &impl Template) -> Response {
    let mut response = match page.render() {
        Ok(body) => http::bytes(status, "text/html; charset=utf-8", body),
        // Writing into memory does not fail.
        Err(_) => http::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot render the page\n"),
    };
    protect(response.headers_mut());
    response
}

/// On to another page, which the browser gets.
pub fn see_other(location: &str) -> Response {
    let mut response = http::answer(StatusCode::SEE_OTHER);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    protect(response.headers_mut());
    response
}

/// The headers of everything that is for somebody.
pub fn protect(headers: &mut HeaderMap) {
    http::no_store(headers);
    http::forbid_indexing(headers);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not no-referrer, with which browsers send no origin.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

/// A header of HTTPS only: browsers report it as an error elsewhere.
pub fn isolate(headers: &mut HeaderMap) {
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
}

/// What has been done, by the word for it in the URL to which a form leads.
fn notice(request: &ConsoleRequest) -> Option<&'static str> {
    Some(match request.query.text("done") {
        "created" => "Link created.",
        "saved" => "Saved. The change takes effect at once.",
        "disabled" => "Link switched off. It stopped working at once.",
        "enabled" => "Link switched on. It works at once.",
        "restored" => "Link restored. It works again.",
        "restored-off" => "Link restored. It is switched off, as it was before.",
        "renewed" => "New ID made. The old one stopped working for good.",
        _ => return None,
    })
}
