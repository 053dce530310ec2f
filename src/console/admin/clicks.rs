//! How all links of a partner have been used.

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::page::{Frame, Section, html};
use crate::console::plot::Plot;
use crate::console::{Console, Page};

#[derive(Debug, Template)]
#[template(path = "clicks.html")]
struct ClicksPage {
    frame: Frame,
    plot: Plot,
    counts_clicks: bool,
}

impl Console {
    pub(super) async fn clicks_page(&self, signed_in: &SignedIn) -> Page {
        let used = self.links.clicks_of_partner_by_day(signed_in.session.partner).await?;
        let page = ClicksPage {
            frame: self.frame(Some(signed_in), Section::Clicks),
            plot: Plot::new(&used, self.links.clock().now().day()),
            counts_clicks: self.links.is_counting_clicks(),
        };
        Ok(html(StatusCode::OK, &page))
    }
}
