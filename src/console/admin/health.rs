//! What `tinyd status` says.

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::page::{Frame, Section, html};
use crate::console::problem::Problem;
use crate::console::{Console, Page};

#[derive(Debug, Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    is_healthy: bool,
    version: String,
    uptime: String,
    minutes: String,
    problems: Vec<String>,
    hints: Vec<String>,
    rows: Vec<(&'static str, String)>,
}

impl Console {
    /// For administrators of operators: it is about the server, not about their links.
    pub(super) fn health_page(&self, signed_in: &SignedIn) -> Page {
        if !self.is_operator(signed_in) {
            return Err(Problem::OperatorsOnly);
        }
        let status = self.monitor.status();
        let [uptime, minutes] = status.spans();
        let page = HealthPage {
            frame: self.frame(Some(signed_in), Section::Health),
            is_healthy: status.healthy,
            rows: status.rows(),
            version: status.version,
            problems: status.problems,
            hints: status.hints,
            uptime,
            minutes,
        };
        Ok(html(StatusCode::OK, &page))
    }
}
