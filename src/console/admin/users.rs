//! The links of a user, and the way to change all of them.

use askama::Template;
use hyper::StatusCode;
use url::form_urlencoded;

use crate::console::cookie::SignedIn;
use crate::console::page::{Frame, Section, html, see_other};
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::console::view::plain;
use crate::console::{Console, Page};
use crate::http::Response;
use crate::links::{SearchQuery, SearchState};
use crate::model::grouped;
use crate::model::validate::USER_ID;

#[derive(Debug, Template)]
#[template(path = "user.html")]
struct UserPage {
    frame: Frame,
    user: String,
    /// As it is, for forms.
    user_id: String,
    /// As a part of a path, and in a query.
    in_path: String,
    links: u64,
    present: String,
    deleted: String,
}

impl Console {
    /// The path of a user's page.
    fn path_of_user(&self, user: &str) -> String {
        self.path(&format!("users/{}", encoded(user)))
    }

    /// From the name in a form to the page of the user.
    pub(super) fn find_user(&self, request: &ConsoleRequest) -> Response {
        match request.query.text("user") {
            "" => see_other(&self.path("all")),
            user => see_other(&self.path_of_user(user)),
        }
    }

    pub(super) async fn user_page(&self, user: &str, signed_in: &SignedIn) -> Page {
        if user.is_empty() || USER_ID.check(user).is_err() {
            return Err(Problem::NotFound);
        }
        let mut counts = [0; 2];
        for (count, state) in counts.iter_mut().zip([SearchState::Present, SearchState::Deleted]) {
            let query = SearchQuery {
                owner: Some(user.to_owned()),
                state,
                limit: 0,
                ..SearchQuery::of(signed_in.session.partner)
            };
            *count = self.links.search(query).await?.total;
        }
        let [present, deleted] = counts;
        let page = UserPage {
            frame: self.frame(Some(signed_in), Section::AllLinks),
            user: plain(user),
            user_id: user.to_owned(),
            in_path: encoded(user),
            links: present,
            present: grouped(present),
            deleted: grouped(deleted),
        };
        Ok(html(StatusCode::OK, &page))
    }
}

fn encoded(text: &str) -> String {
    // A plus would be a plus in a path.
    form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
