//! The filters of the list, all of which stand in the page's URL.

use std::collections::BTreeSet;

use url::{Url, form_urlencoded};

use crate::console::cookie::SignedIn;
use crate::console::request::Fields;
use crate::console::view::{input_date, parse_date, time_of_link};
use crate::links::{SearchDate, SearchOrder, SearchQuery, SearchState};
use crate::model::{LinkId, Status, Timestamp};
use crate::store::{Order, OrderField, Page, Query, TimeRange};

/// What Kaltura's console makes at every look at an embed code, and never deletes.
const KMC_PREVIEW: &str = "KMC-PREVIEW";

const PAGE_LINKS: usize = 50;
/// More than any store has.
const PAGES_MAX: usize = 1_000_000_000;
/// Days are shown and read in UTC.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// The words of a choice in the URL, and as they are shown.
pub type Choices = &'static [(&'static str, &'static str)];

pub const STATES: Choices = &[
    ("", "All but deleted"),
    ("works", "Works"),
    ("waits", "Opens later"),
    ("expired", "Expired"),
    ("off", "Switched off"),
    ("deleted", "Deleted"),
];

pub const ORDERS: Choices = &[
    ("", "Newest first"),
    ("created", "Oldest first"),
    ("name", "Name, A to Z"),
    ("-name", "Name, Z to A"),
    ("host", "Destination, A to Z"),
    ("-host", "Destination, Z to A"),
    ("owner", "Owner, A to Z"),
    ("-owner", "Owner, Z to A"),
    ("-clicks", "Most clicks first"),
    ("clicks", "Fewest clicks first"),
    ("-updated", "Last changed first"),
    ("updated", "Longest unchanged first"),
    ("expires", "First to expire first"),
    ("-expires", "Last to expire first"),
];

/// The times of links that may be filtered.
pub const DATES: Choices = &[
    ("", "Made"),
    ("updated", "Last changed"),
    ("starts", "Works from"),
    ("expires", "Works until"),
];

/// What a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether the links of everybody are listed.
    pub is_for_all: bool,
    pub text: String,
    pub state: String,
    pub owner: String,
    /// What happened between the first and the last day.
    pub date: String,
    pub from: String,
    pub to: String,
    pub is_unused: bool,
    pub is_without_previews: bool,
    pub order: String,
    pub page: usize,
}

impl Filter {
    /// Unknown words count as not given.
    pub fn read(fields: &Fields, is_for_all: bool) -> Self {
        let known = |name: &str, choices: Choices| {
            let value = fields.text(name);
            let is_known = choices.iter().any(|(word, _)| *word == value);
            if is_known { value.to_owned() } else { String::new() }
        };
        let [from, to] = ["from", "to"].map(|name| input_date(parse_date(fields.text(name))));
        let has_days = !from.is_empty() || !to.is_empty();
        Self {
            is_for_all,
            text: fields.text("q").to_owned(),
            state: known("state", STATES),
            owner: if is_for_all {
                fields.text("owner").to_owned()
            } else {
                String::new()
            },
            date: if has_days { known("date", DATES) } else { String::new() },
            from,
            to,
            is_unused: fields.text("unused") == "1",
            is_without_previews: fields.text("previews") == "0",
            order: known("order", ORDERS),
            page: fields.text("page").parse().unwrap_or(1).clamp(1, PAGES_MAX),
        }
    }

    /// Whether it leaves links out.
    pub fn is_narrow(&self) -> bool {
        let all = Self {
            is_for_all: self.is_for_all,
            order: self.order.clone(),
            page: self.page,
            ..Self::default()
        };
        *self != all
    }

    /// As the query of a URL.
    pub fn to_query(&self) -> String {
        let flag = |is_on: bool, value| if is_on { value } else { "" };
        let page = if self.page > 1 {
            self.page.to_string()
        } else {
            String::new()
        };
        let fields = [
            ("q", self.text.as_str()),
            ("state", &self.state),
            ("owner", &self.owner),
            ("date", &self.date),
            ("from", &self.from),
            ("to", &self.to),
            ("unused", flag(self.is_unused, "1")),
            ("previews", flag(self.is_without_previews, "0")),
            ("order", &self.order),
            ("page", &page),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(given)
            .finish()
    }

    pub fn to_search(&self, signed_in: &SignedIn) -> SearchQuery {
        let own = || Some(signed_in.user.clone());
        let owner = Some(self.owner.clone()).filter(|owner| !owner.is_empty());
        let by = self.order.trim_start_matches('-');
        let order = match by {
            "name" => SearchOrder::Title,
            "host" => SearchOrder::Host,
            "owner" => SearchOrder::Owner,
            "clicks" => SearchOrder::Clicks,
            "updated" => SearchOrder::Updated,
            "expires" => SearchOrder::Expires,
            _ => SearchOrder::Created,
        };
        // The newest first, unless somebody wants it otherwise.
        let is_descending = self.order.is_empty() || self.order.len() > by.len();
        SearchQuery {
            partner: signed_in.session.partner,
            owner: if self.is_for_all && signed_in.is_admin() {
                owner
            } else {
                own()
            },
            text: self.text.clone(),
            id: id_in(&self.text),
            state: match self.state.as_str() {
                "works" => SearchState::Works,
                "waits" => SearchState::Waits,
                "expired" => SearchState::Expired,
                "off" => SearchState::Off,
                "deleted" => SearchState::Deleted,
                _ => SearchState::Present,
            },
            date: match self.date.as_str() {
                "updated" => SearchDate::Updated,
                "starts" => SearchDate::Starts,
                "expires" => SearchDate::Expires,
                _ => SearchDate::Created,
            },
            range: TimeRange {
                from: parse_date(&self.from),
                to: parse_date(&self.to).map(|day| day.plus(DAY_SECONDS - 1)),
            },
            only_unused: self.is_unused,
            without_system_name: self.is_without_previews.then(|| KMC_PREVIEW.to_owned()),
            order,
            is_descending,
            offset: (self.page - 1).saturating_mul(PAGE_LINKS),
            limit: PAGE_LINKS,
        }
    }

    /// The same for the store, where one of its indexes answers it: then nothing has to be in memory.
    pub fn to_list(&self, signed_in: &SignedIn) -> Option<Query> {
        let SearchQuery {
            partner,
            owner,
            text,
            state,
            date,
            range,
            only_unused,
            without_system_name,
            order,
            is_descending,
            ..
        } = self.to_search(signed_in);
        let statuses = match state {
            SearchState::Present => BTreeSet::from([Status::Enabled, Status::Disabled]),
            SearchState::Off => BTreeSet::from([Status::Disabled]),
            SearchState::Deleted => BTreeSet::from([Status::Deleted]),
            SearchState::Works | SearchState::Waits | SearchState::Expired => return None,
        };
        let field = match order {
            SearchOrder::Created => OrderField::Created,
            SearchOrder::Updated => OrderField::Updated,
            SearchOrder::Expires => OrderField::Expires,
            SearchOrder::Title | SearchOrder::Host | SearchOrder::Owner | SearchOrder::Clicks => return None,
        };
        if date != SearchDate::Created && range.is_bounded() {
            return None;
        }
        // The other orders would be read from their beginning to find a few.
        let is_indexed = field == OrderField::Created || owner.is_none() && !range.is_bounded();
        let is_plain = text.is_empty() && !only_unused && without_system_name.is_none();
        (is_indexed && is_plain).then(|| Query {
            partner,
            ids: None,
            users: owner.map(|owner| BTreeSet::from([owner])),
            system_names: None,
            unique_id: None,
            statuses,
            created: range,
            updated: TimeRange::default(),
            expires: TimeRange::default(),
            order: Order::new(field, is_descending),
            page: Page {
                size: PAGE_LINKS,
                index: self.page,
            },
        })
    }

    /// The first page in another order, as a query.
    pub fn ordered(&self, order: &str) -> String {
        let order = order.to_owned();
        let other = Self {
            order,
            page: 1,
            ..self.clone()
        };
        other.to_query()
    }

    /// The pages before and after this one, as queries.
    pub fn neighbours(&self, total: u64) -> [Option<String>; 2] {
        let page = |page: usize| Self { page, ..self.clone() }.to_query();
        let end = u64::try_from(self.page.saturating_mul(PAGE_LINKS)).unwrap_or(u64::MAX);
        [
            (self.page > 1).then(|| page(self.page - 1)),
            (end < total).then(|| page(self.page + 1)),
        ]
    }

    /// The numbers of the first and last link on the page.
    pub fn range(&self, shown: usize) -> [usize; 2] {
        let before = (self.page - 1).saturating_mul(PAGE_LINKS);
        [before.saturating_add(1), before.saturating_add(shown)]
    }
}

/// The id in a text: alone, or at the end of a short URL.
fn id_in(text: &str) -> Option<LinkId> {
    let path = Url::parse(text).ok().map(|url| url.path().to_owned());
    let path = path.as_deref().unwrap_or(text).trim_end_matches('/');
    path.rsplit('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .parse()
        .ok()
}

/// The moment of a preset from now, or of a day, until the end of which a link works; outer `None` if the text is
/// neither.
pub fn read_end(text: &str, now: Timestamp) -> Option<Option<Timestamp>> {
    if text == "never" {
        return Some(None);
    }
    match text.parse::<i64>() {
        Ok(seconds) if seconds > 0 => time_of_link(now.plus(seconds)).map(Some),
        Ok(_) => None,
        Err(_) => time_of_link(parse_date(text)?.plus(DAY_SECONDS - 1)).map(Some),
    }
}

/// A filter stands in the URL as it is, and asks for a page.
#[cfg(fuzzing)]
pub fn fuzz_filter(fields: &Fields, signed_in: &SignedIn) {
    for is_for_all in [true, false] {
        let filter = Filter::read(fields, is_for_all);
        let query = filter.to_query();
        assert_eq!(
            Filter::read(&Fields::parse(query.as_bytes()), is_for_all),
            filter,
            "{query}"
        );
        let search = filter.to_search(signed_in);
        assert_eq!(
            (search.limit, search.owner.is_none()),
            (PAGE_LINKS, is_for_all && filter.owner.is_empty())
        );
        if let Some(list) = filter.to_list(signed_in) {
            assert_eq!((list.partner, list.page.index), (search.partner, filter.page));
        }
        let [first, last] = filter.range(PAGE_LINKS);
        assert!(first <= last);
        filter.neighbours(u64::MAX);
    }
    read_end(fields.text("end"), Timestamp::from_unix(1_800_000_000));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_stands_in_the_url() {
        let query = "q=a%26b&state=off&owner=me&date=expires&from=2026-01-02&unused=1&previews=0&order=-expires&page=3";
        let filter = Filter::read(&Fields::parse(query.as_bytes()), true);
        assert_eq!(filter.to_query(), query);
        assert!(filter.is_narrow());
        let nothing = Filter::read(
            &Fields::parse(b"state=none&date=expires&from=soon&to=-000100-01-01&order=x&page=0&unused=yes"),
            true,
        );
        assert_eq!(
            (nothing.to_query().as_str(), nothing.page, nothing.is_narrow()),
            ("", 1, false)
        );
        // Only administrators choose owners.
        assert_eq!(Filter::read(&Fields::parse(b"owner=you"), false).to_query(), "");
    }

    #[test]
    fn short_urls_and_ids_are_found() {
        for text in [
            "67mk41xj",
            "67MK41XJ",
            "https://links.example.com/tiny/67mk41xj",
            "/tiny/67mk41xj/",
        ] {
            assert_eq!(
                id_in(text).map(|id| id.to_string()).as_deref(),
                Some("67mk41xj"),
                "{text}"
            );
        }
        assert_eq!(id_in("a lecture"), None);
    }

    #[test]
    fn pages_have_neighbours() {
        let filter = Filter {
            page: 2,
            ..Filter::default()
        };
        assert_eq!(filter.neighbours(100), [Some(String::new()), None]);
        assert_eq!(filter.neighbours(101), [Some(String::new()), Some("page=3".to_owned())]);
        assert_eq!(filter.range(7), [51, 57]);
        let beyond = Filter {
            page: usize::MAX,
            ..filter
        };
        assert_eq!(beyond.range(0), [usize::MAX; 2]);
    }

    #[test]
    fn ends_are_presets_days_or_never() {
        let now = Timestamp::from_unix(1_000);
        assert_eq!(read_end("never", now), Some(None));
        assert_eq!(read_end("60", now), Some(Some(Timestamp::from_unix(1_060))));
        assert_eq!(
            read_end("1970-01-02", now),
            Some(Some(Timestamp::from_unix(2 * 86_400 - 1)))
        );
        for text in ["0", "soon", "9223372036854775807", "1969-12-30"] {
            assert_eq!(read_end(text, now), None, "{text}");
        }
    }
}
