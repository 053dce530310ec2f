//! The lists: one's own links, and for administrators those of everybody.

use std::time::Instant;

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::links::edit::PRESETS;
use crate::console::links::filter::{Choices, DATES, Filter, ORDERS, STATES};
use crate::console::page::{Frame, Section, html};
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::console::view::{DestinationView, StateView, TimeView, counted, plain, title};
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
    orders: Vec<(&'static str, &'static str)>,
    dates: Choices,
    heads: Vec<HeadView>,
    counts_clicks: bool,
    presets: Choices,
    rows: Vec<RowView>,
    total: u64,
    /// "1 link", "2 links".
    total_words: String,
    range: [usize; 2],
    /// The link that has just been deleted, which may be undone.
    deleted: Option<LinkId>,
    undo: String,
    previous: Option<String>,
    next: Option<String>,
}

/// The head of a column.
#[derive(Debug)]
struct HeadView {
    words: &'static str,
    is_number: bool,
    /// For assistive technology: whether the list is sorted by it.
    sort: Option<&'static str>,
    /// Sorts the list by it, the other way round if it is so already.
    query: Option<String>,
}

/// A column by which a list can be sorted: its words and its orders, the one first that people expect.
type SortedColumn = (&'static str, [&'static str; 2]);

const NAME: SortedColumn = ("Name", ["name", "-name"]);
const HOST: SortedColumn = ("Leads to", ["host", "-host"]);
const OWNER: SortedColumn = ("Owner", ["owner", "-owner"]);
const CLICKS: SortedColumn = ("Clicks", ["-clicks", "clicks"]);
const MADE: SortedColumn = ("Made", ["", "created"]);

impl HeadView {
    fn unsorted(words: &'static str) -> Self {
        Self {
            words,
            is_number: false,
            sort: None,
            query: None,
        }
    }

    fn new((words, [first, second]): SortedColumn, filter: &Filter) -> Self {
        let is_descending = |order: &str| order.is_empty() || order.starts_with('-');
        let sort = if is_descending(&filter.order) {
            "descending"
        } else {
            "ascending"
        };
        let next = if filter.order == first { second } else { first };
        Self {
            words,
            is_number: words == CLICKS.0,
            sort: (filter.order == first || filter.order == second).then_some(sort),
            query: Some(filter.ordered(next)),
        }
    }

    fn all(filter: &Filter, counts_clicks: bool) -> Vec<Self> {
        let sorted = |column| Self::new(column, filter);
        let mut heads = vec![
            sorted(NAME),
            Self::unsorted("Short link"),
            sorted(HOST),
            Self::unsorted("State"),
        ];
        heads.extend(filter.is_for_all.then(|| sorted(OWNER)));
        heads.extend(counts_clicks.then(|| sorted(CLICKS)));
        heads.push(sorted(MADE));
        heads
    }
}

/// The orders of a list, without those by what it has not.
fn orders(filter: &Filter, counts_clicks: bool) -> Vec<(&'static str, &'static str)> {
    let has = |order: &str| match order.trim_start_matches('-') {
        "owner" => filter.is_for_all,
        "clicks" => counts_clicks,
        _ => true,
    };
    ORDERS.iter().copied().filter(|(order, _)| has(order)).collect()
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
        let frame = self.frame_after(request, signed_in, section).await;
        let rows: Vec<_> = links.iter().map(|(link, usage)| self.row(link, usage, now)).collect();
        let [previous, next] = filter.neighbours(total);
        let counts_clicks = self.links.is_counting_clicks();
        let page = ListPage {
            frame,
            title,
            path: self.path(path),
            states: STATES,
            orders: orders(&filter, counts_clicks),
            dates: DATES,
            heads: HeadView::all(&filter, counts_clicks),
            counts_clicks,
            presets: PRESETS,
            total,
            total_words: counted(total, "link"),
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
