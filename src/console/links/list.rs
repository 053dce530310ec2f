//! The list of links.

use std::collections::BTreeSet;

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::page::{Frame, Section, html, notice};
use crate::console::request::ConsoleRequest;
use crate::console::view::{DestinationView, StateView, TimeView, plain, title};
use crate::console::{Console, Page};
use crate::model::{LinkId, ShortLink, Status, Usage, grouped};
use crate::store::{Order, Page as StorePage, Query, TimeRange};

const PAGE_LINKS: usize = 50;

#[derive(Debug, Template)]
#[template(path = "list.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<RowView>,
    total: String,
    filters: Vec<FilterView>,
    /// The ids of the link that has just been deleted, which may be undone.
    deleted: Option<LinkId>,
    previous: Option<String>,
    next: Option<String>,
    is_filtered: bool,
}

#[derive(Debug)]
struct RowView {
    id: LinkId,
    title: String,
    system_name: String,
    short_url: String,
    destination: DestinationView,
    state: StateView,
    created: TimeView,
    clicks: String,
}

#[derive(Debug)]
struct FilterView {
    words: &'static str,
    url: String,
    is_on: bool,
}

/// The statuses that a filter shows, by its word in the URL.
const FILTERS: [(&str, &str, &[Status]); 4] = [
    ("", "All", &[Status::Enabled, Status::Disabled]),
    ("on", "Switched on", &[Status::Enabled]),
    ("off", "Switched off", &[Status::Disabled]),
    ("deleted", "Deleted", &[Status::Deleted]),
];

impl Console {
    pub(super) async fn my_links(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let wanted = request.query.text("show");
        let of_name = FILTERS.iter().find(|(name, ..)| *name == wanted);
        let (filter, _, statuses) = of_name.unwrap_or(&FILTERS[0]);
        let index = request.query.text("page").parse().unwrap_or(1).max(1);
        let query = Query {
            partner: signed_in.session.partner,
            ids: None,
            users: Some(BTreeSet::from([signed_in.user.clone()])),
            system_names: None,
            unique_id: None,
            statuses: statuses.iter().copied().collect(),
            created: TimeRange::default(),
            updated: TimeRange::default(),
            expires: TimeRange::default(),
            order: Order::default(),
            page: StorePage {
                size: PAGE_LINKS,
                index,
            },
        };
        let ((listing, usages), _turn) = self.links.list_with_usage(query, &Self::reading()).await?;
        let now = self.links.clock().now();
        let rows = listing.links.iter().zip(&usages);
        let page_url = |index: usize| format!("{}?show={filter}&page={index}", self.path("links"));
        let filters = FILTERS.iter().map(|(name, words, _)| FilterView {
            words,
            url: format!("{}?show={name}", self.path("links")),
            is_on: name == filter,
        });
        let mut frame = self.frame(Some(signed_in), Section::MyLinks);
        frame.notice = notice(request);
        let page = ListPage {
            frame,
            rows: rows.map(|(link, usage)| self.row(link, usage, now)).collect(),
            total: grouped(listing.total),
            filters: filters.collect(),
            deleted: request.query.text("deleted").parse().ok(),
            previous: (index > 1).then(|| page_url(index - 1)),
            next: (index.saturating_mul(PAGE_LINKS) < usize::try_from(listing.total).unwrap_or(usize::MAX))
                .then(|| page_url(index + 1)),
            is_filtered: !filter.is_empty(),
        };
        Ok(html(StatusCode::OK, &page))
    }

    fn row(&self, link: &ShortLink, usage: &Usage, now: crate::model::Timestamp) -> RowView {
        RowView {
            id: link.id,
            title: title(link),
            system_name: plain(&link.system_name),
            short_url: self.short_url(link.id),
            destination: DestinationView::new(&link.full_url),
            state: StateView::new(link, now),
            created: TimeView::new(link.created_at),
            clicks: grouped(usage.clicks),
        }
    }
}
