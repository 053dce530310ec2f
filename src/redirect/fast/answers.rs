//! The answers of the fast path, rendered at the start from those of the general threads.

use hyper::header::{HeaderValue, STRICT_TRANSPORT_SECURITY};

use crate::http::Response;
use crate::kaltura::{ApiError, Requested};
use crate::model::{ID_MAX_BYTES, ID_MIN_BYTES, LinkId};
use crate::redirect::fast::template::Template;
use crate::redirect::language::Language;
use crate::redirect::page::Pages;
use crate::redirect::{Representation, found, hop, no_redirect, too_many_guesses};

/// An id that stands for all of its length, when cut to that. No answer holds anything like it.
const ANY_ID: &str = "zq9xj7zq9xj7zq9xj7zq";
const ANY_LOCATION: &str = "https://location.invalid/";

/// An answer in place of a redirect, for any id.
#[derive(Debug)]
pub struct NoRedirect {
    /// By the length of the id, from the shortest: the length of the answer depends on it.
    texts: Vec<Template>,
    /// By language. A page does not have the id.
    pages: [Template; Language::ALL.len()],
}

impl NoRedirect {
    fn new(render: impl Fn(&str, Representation) -> Template) -> Self {
        let text = |length| render(ANY_ID.get(..length).unwrap_or(ANY_ID), Representation::Text);
        Self {
            texts: (ID_MIN_BYTES..=ID_MAX_BYTES).map(text).collect(),
            pages: Language::ALL.map(|language| render(ANY_ID, Representation::Page(language))),
        }
    }

    pub fn get(&self, id: LinkId, representation: Representation) -> Option<&Template> {
        match representation {
            Representation::Text => self.texts.get(id.as_bytes().len() - ID_MIN_BYTES),
            Representation::Page(language) => self.pages.get(language as usize),
        }
    }
}

/// The answers of all threads.
#[derive(Debug)]
pub struct Answers {
    pub found: Template,
    pub hop: Template,
    pub too_many_guesses: NoRedirect,
    pub unknown: NoRedirect,
    pub disabled: NoRedirect,
    pub deleted: NoRedirect,
    pub expired: NoRedirect,
}

impl Answers {
    pub fn new(pages: &Pages, hsts: Option<&HeaderValue>) -> Self {
        let render = |mut response: Response, id: &str, location: &str| {
            if let Some(hsts) = hsts {
                response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
            }
            Template::new(response, id.as_bytes(), location.as_bytes())
        };
        let refusal = |fault: &dyn Fn(String) -> ApiError| {
            NoRedirect::new(|id, representation| {
                let response = no_redirect(&fault(id.to_owned()), Requested::default(), pages, representation);
                render(response, id, "")
            })
        };
        let invalid = |deleted| refusal(&|id| ApiError::InvalidShortLink { id, deleted });
        Self {
            found: render(found(HeaderValue::from_static(ANY_LOCATION)), "", ANY_LOCATION),
            hop: render(hop(ANY_ID), ANY_ID, ""),
            too_many_guesses: NoRedirect::new(|_, representation| {
                render(too_many_guesses(pages, representation), "", "")
            }),
            unknown: refusal(&|id| ApiError::InvalidObjectId { id }),
            disabled: invalid(false),
            deleted: invalid(true),
            expired: refusal(&|id| ApiError::ExpiredShortLink { id }),
        }
    }
}
