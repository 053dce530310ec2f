//! The lists: one's own links, and for administrators those of everybody.

use std::time::Instant;

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::links::edit::PRESETS;
use crate::console::links::filter::{Choices, Filter, ORDERS, STATES};
use crate::console::page::{Frame, Section, html, notice};
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::console::view::{DestinationView, StateView, TimeView, plain, title};
use crate::console::{Console, Page};
use crate::links::{READ_TIMEOUT, ReadContext};
use crate::model::{LinkId, ShortLink, Timestamp, Usage, grouped};

#[derive(Debug, Template)]
#[template(path = "list.html")]
struct ListPage {
    frame: Frame,
    title: &'static str,
    /// The page's own path.
    path: String,
    filter: Filter,
    states: Choices,
    orders: Choices,
    presets: Choices,
    rows: Vec<RowView>,
    total: u64,
    total_words: String,
    range: [usize; 2],
    /// The link that has just been deleted, which may be undone.
    deleted: Option<LinkId>,
    undo: String,
    previous: Option<String>,
    next: Option<String>,
}

#[derive(Debug)]
struct RowView {
    id: LinkId,
    title: String,
    system_name: String,
    owner: String,
    /// As it is, for addresses.
    owner_id: String,
    short_url: String,
    destination: DestinationView,
    state: StateView,
    created: TimeView,
    clicks: String,
}

impl ListPage {
    fn is_deleted_shown(&self) -> bool {
        self.filter.state == "deleted"
    }

    fn may_restore(&self) -> bool {
        self.frame.signed_in.as_ref().is_some_and(|account| account.is_admin)
    }
}

impl Console {
    pub(super) async fn my_links(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let filter = Filter::read(&request.query, false);
        self.list(filter, request, signed_in).await
    }

    pub(in crate::console) async fn all_links(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let filter = Filter::read(&request.query, true);
        self.list(filter, request, signed_in).await
    }

    async fn list(&self, filter: Filter, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let (links, total) = self.find(&filter, signed_in).await?;
        let now = self.links.clock().now();
        let (section, title, path) = if filter.is_for_all {
            (Section::AllLinks, "All links", "all")
        } else {
            (Section::MyLinks, "My links", "links")
        };
        let mut frame = self.frame(Some(signed_in), section);
        frame.notice = notice(request);
        let rows: Vec<_> = links.iter().map(|(link, usage)| self.row(link, usage, now)).collect();
        let [previous, next] = filter.neighbours(total);
        let page = ListPage {
            frame,
            title,
            path: self.path(path),
            states: STATES,
            orders: ORDERS,
            presets: PRESETS,
            total,
            total_words: grouped(total),
            range: filter.range(rows.len()),
            rows,
            deleted: request.query.text("deleted").parse().ok(),
            undo: request.query.text("undo").to_owned(),
            previous,
            next,
            filter,
        };
        Ok(html(StatusCode::OK, &page))
    }

    /// The links of a page, and how many there are on all pages.
    async fn find(&self, filter: &Filter, signed_in: &SignedIn) -> Result<(Vec<(ShortLink, Usage)>, u64), Problem> {
        let Some(query) = filter.to_list(signed_in) else {
            let found = self.links.search(filter.to_search(signed_in)).await?;
            return Ok((found.links, found.total));
        };
        let context = ReadContext::until(Instant::now() + READ_TIMEOUT);
        let ((listing, usages), _turn) = self.links.list_with_usage(query, &context).await?;
        Ok((listing.links.into_iter().zip(usages).collect(), listing.total))
    }

    fn row(&self, link: &ShortLink, usage: &Usage, now: Timestamp) -> RowView {
        RowView {
            id: link.id,
            title: title(link),
            system_name: plain(&link.system_name),
            owner: plain(link.user_id.as_deref().unwrap_or_default()),
            owner_id: link.user_id.clone().unwrap_or_default(),
            short_url: self.short_url(link.id),
            destination: DestinationView::new(&link.full_url),
            state: StateView::new(link, now),
            created: TimeView::new(link.created_at),
            clicks: grouped(usage.clicks),
        }
    }
}
