//! The pages of administrators.

mod audit;
mod clicks;
mod health;
mod jobs;
mod transfer;
mod users;

use crate::console::cookie::SignedIn;
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::{Console, Page};

impl Console {
    pub(super) async fn show_admin(&self, path: &[&str], request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        if !signed_in.is_admin() {
            return Err(Problem::AdministratorsOnly);
        }
        match *path {
            ["all"] => self.all_links(request, signed_in).await,
            ["audit"] => self.audit_page(request, signed_in).await,
            ["audit.jsonl"] => self.audit_file(request, signed_in).await,
            ["clicks"] => self.clicks_page(signed_in).await,
            ["jobs"] => Ok(self.jobs_page(signed_in)),
            ["health"] => self.health_page(signed_in),
            ["transfer", ref rest @ ..] => self.show_transfer(rest, request, signed_in).await,
            ["users"] => Ok(self.find_user(request)),
            ["users", user] => self.user_page(user, signed_in).await,
            _ => Err(Problem::NotFound),
        }
    }

    pub(super) fn change_admin(&self, path: &[&str], form: &Fields, signed_in: &SignedIn) -> Page {
        if !signed_in.is_admin() {
            return Err(Problem::AdministratorsOnly);
        }
        match *path {
            ["transfer", ref rest @ ..] => self.change_transfer(rest, form, signed_in),
            _ => Err(Problem::NotFound),
        }
    }
}
