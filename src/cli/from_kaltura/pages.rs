//! All links of a Kaltura account, page by page, each of them once.
//!
//! Kaltura lists no more than the first 10,000 links of a filter, and says nothing about the order of links that were
//! created in one second. So this reads by time: the first page from a second on, then the first page from the last
//! second of that one. A second that fills a page is read by itself, and its links are told apart by their ids.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::collections::HashSet;

use serde_json::Value;

use crate::cli::exit::{CliError, Failure};

/// Links that Kaltura lists of one filter at most, over all pages.
const LISTED_MAX: u64 = 10_000;
/// How often a second is read that seems to lack links: pages may overlap.
const ROUNDS_MAX: u32 = 4;
/// Kaltura takes smaller times, of ten years or less, as relative to now.
const RELATIVE_MAX_SECONDS: i64 = 315_360_000;

/// Which links are listed, by the second of their creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    From(Option<i64>),
    Within(i64),
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) links: Vec<Value>,
    /// How many links the window has, on all pages.
    pub(super) total: u64,
}

/// Lists links, of every status and ordered by the time of creation.
pub(super) trait Listing {
    /// The page of this number, from 1.
    fn list(&mut self, window: Window, page: u64) -> Result<Page, CliError>;
}

/// What one page has brought.
#[derive(Debug)]
pub(super) struct Portion {
    /// Links that no earlier portion had.
    pub(super) links: Vec<Value>,
    /// Links that the window had when it was read, for the progress.
    pub(super) total: u64,
    /// All links that were created before this second have been read.
    pub(super) from: Option<i64>,
    /// A second of which so many links cannot be listed.
    pub(super) unlisted: Option<(i64, u64)>,
}

#[derive(Debug)]
enum Step {
    From(Option<i64>),
    Within(Second),
    Over,
}

/// Reading the links of one second.
#[derive(Debug)]
struct Second {
    at: i64,
    page: u64,
    /// Links on the pages of this round, repeated ones too.
    listed: u64,
    round: u32,
    ids: HashSet<String>,
}

#[derive(Debug)]
pub(super) struct Pages<L> {
    listing: L,
    next: Step,
}

impl<L: Listing> Pages<L> {
    /// Reads the links that were created in this second and later, else all.
    pub(super) fn new(listing: L, from: Option<i64>) -> Self {
        let from = from.filter(|from| *from > RELATIVE_MAX_SECONDS);
        Self {
            listing,
            next: Step::From(from),
        }
    }

    /// The next portion; `None` after the last one. After an error, it can be asked for again.
    pub(super) fn next(&mut self) -> Result<Option<Portion>, CliError> {
        match &mut self.next {
            Step::Over => Ok(None),
            Step::From(from) => {
                let from = *from;
                self.next_from(from).map(Some)
            }
            Step::Within(second) => {
                let (portion, is_over) = second.next(&mut self.listing)?;
                if is_over {
                    self.next = Step::From(portion.from);
                }
                Ok(Some(portion))
            }
        }
    }

    fn next_from(&mut self, from: Option<i64>) -> Result<Portion, CliError> {
        let Page { mut links, total } = self.listing.list(Window::From(from), 1)?;
        let first = links.first().map(created_at);
        let is_early = from.zip(first).is_some_and(|(from, first)| first < from);
        if is_early || !links.iter().map(created_at).is_sorted() {
            let text = "the links are not listed by createdAt, so they cannot be read completely";
            return Err(Failure::Other.error(text));
        }
        let last = links.last().map(created_at);
        if links.len() as u64 >= total {
            self.next = Step::Over;
            return Ok(Portion::new(links, total, last.or(from)));
        }
        let Some((first, last)) = first.zip(last) else {
            let text = format!("an empty page, although {total} links are left");
            return Err(Failure::Other.error(text));
        };
        if last <= RELATIVE_MAX_SECONDS {
            let text = format!(
                "more links than one page were created up to second {last}; the API takes times before 1980 as \
                 relative to now, so they cannot be listed: import them from a file"
            );
            return Err(Failure::Other.error(text));
        }
        if first == last {
            self.next = Step::Within(Second::new(first));
            return Ok(Portion::new(Vec::new(), total, from));
        }
        // Others of the last second may be on the next page.
        links.retain(|link| created_at(link) < last);
        self.next = Step::From(Some(last));
        Ok(Portion::new(links, total, Some(last)))
    }
}

impl Portion {
    const fn new(links: Vec<Value>, total: u64, from: Option<i64>) -> Self {
        Self {
            links,
            total,
            from,
            unlisted: None,
        }
    }
}

impl Second {
    fn new(at: i64) -> Self {
        Self {
            at,
            page: 1,
            listed: 0,
            round: 1,
            ids: HashSet::new(),
        }
    }

    /// The links of the next page that are new, and whether it was the last one.
    fn next(&mut self, listing: &mut impl Listing) -> Result<(Portion, bool), CliError> {
        let Page { mut links, total } = listing.list(Window::Within(self.at), self.page)?;
        self.listed += links.len() as u64;
        let ends_round = links.is_empty() || self.listed >= total.min(LISTED_MAX);
        links.retain(|link| self.ids.insert(id(link)));
        let mut portion = Portion::new(links, total, Some(self.at));
        if !ends_round {
            self.page += 1;
            return Ok((portion, false));
        }
        let lacking = total.saturating_sub(self.ids.len() as u64);
        if lacking > 0 && total <= LISTED_MAX && self.round < ROUNDS_MAX {
            (self.page, self.listed, self.round) = (1, 0, self.round + 1);
            return Ok((portion, false));
        }
        portion.unlisted = (lacking > 0).then_some((self.at, lacking));
        portion.from = Some(self.at + 1);
        Ok((portion, true))
    }
}

/// A link without a time is the oldest of all.
fn created_at(link: &Value) -> i64 {
    link["createdAt"].as_i64().unwrap_or(0)
}

/// The id of a link, for people: as JSON if it is no text.
pub(super) fn id(link: &Value) -> String {
    let id = &link["id"];
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PAGE: usize = 5;

    /// A list as Kaltura's server gives it, with small pages; ties come in another order with each round.
    struct Account {
        times: Vec<i64>,
        turns_ties: bool,
        calls: usize,
    }

    impl Listing for Account {
        fn list(&mut self, window: Window, page: u64) -> Result<Page, CliError> {
            self.calls += 1;
            let is_meant = |at: i64| match window {
                Window::From(from) => from.is_none_or(|from| at >= from),
                Window::Within(second) => at == second,
            };
            let mut links: Vec<_> = self.times.iter().copied().enumerate().collect();
            links.retain(|(_, at)| is_meant(*at));
            let turn = if self.turns_ties { self.calls } else { 0 };
            links.sort_by_key(|(id, at)| (*at, (id + turn) % self.times.len()));
            let total = links.len() as u64;
            links.truncate(LISTED_MAX as usize);
            let on_page = links.into_iter().skip((page as usize - 1) * PAGE).take(PAGE);
            let link = |(id, at): (usize, i64)| json!({ "id": format!("{id:04}"), "createdAt": at });
            Ok(Page {
                links: on_page.map(link).collect(),
                total,
            })
        }
    }

    fn account(times: Vec<i64>) -> Account {
        Account {
            times,
            turns_ties: false,
            calls: 0,
        }
    }

    /// The ids of all portions from a second on, and the links that were not listed.
    fn read(account: Account, from: Option<i64>) -> (Vec<String>, Vec<(i64, u64)>) {
        let mut pages = Pages::new(account, from);
        let (mut ids, mut unlisted) = (Vec::new(), Vec::new());
        while let Some(portion) = pages.next().unwrap() {
            ids.extend(portion.links.iter().map(id));
            unlisted.extend(portion.unlisted);
        }
        (ids, unlisted)
    }

    const START: i64 = 1_700_000_000;

    proptest! {
        #[test]
        fn every_link_is_read_once(offsets in prop::collection::vec(0_i64..8, 0..60), resumed in 0_i64..9) {
            let times: Vec<_> = offsets.iter().map(|offset| START + offset).collect();
            let (mut ids, unlisted) = read(account(times.clone()), None);
            ids.sort();
            let all: Vec<_> = (0..times.len()).map(|id| format!("{id:04}")).collect();
            prop_assert_eq!((ids, unlisted), (all, vec![]));

            let (mut ids, _) = read(account(times.clone()), Some(START + resumed));
            ids.sort();
            let later = (0..times.len()).filter(|id| times[*id] >= START + resumed);
            prop_assert_eq!(ids, later.map(|id| format!("{id:04}")).collect::<Vec<_>>());
        }

        /// All links before the second that a portion names have been read by then.
        #[test]
        fn a_run_can_stop_after_any_portion(offsets in prop::collection::vec(0_i64..8, 1..60)) {
            let times: Vec<_> = offsets.iter().map(|offset| START + offset).collect();
            let mut pages = Pages::new(account(times.clone()), None);
            let mut ids = HashSet::new();
            while let Some(portion) = pages.next().unwrap() {
                ids.extend(portion.links.iter().map(id));
                let Some(from) = portion.from else { continue };
                let mut earlier = (0..times.len()).filter(|id| times[*id] < from);
                let are_read = earlier.all(|id| ids.contains(&format!("{id:04}")));
                prop_assert!(are_read, "{from}: {ids:?}");
            }
        }
    }

    #[test]
    fn overlapping_pages_of_a_second_are_read_again() {
        let mut account = account(vec![START; 12]);
        account.turns_ties = true;
        let (mut ids, unlisted) = read(account, None);
        ids.sort();
        assert_eq!(ids, (0..12).map(|id| format!("{id:04}")).collect::<Vec<_>>());
        assert_eq!(unlisted, []);
    }

    #[test]
    fn unlisted_links_of_a_second_are_counted() {
        let mut times = vec![START; LISTED_MAX as usize + 3];
        times.push(START + 1);
        let (ids, unlisted) = read(account(times), None);
        assert_eq!(ids.len(), LISTED_MAX as usize + 1);
        assert_eq!(unlisted, [(START, 3)]);
    }

    #[test]
    fn lists_that_cannot_be_read_completely_are_errors() {
        struct Fixed(Vec<i64>, u64);
        impl Listing for Fixed {
            fn list(&mut self, _: Window, _: u64) -> Result<Page, CliError> {
                let links = self.0.iter().map(|at| json!({ "id": "abcd", "createdAt": at }));
                Ok(Page {
                    links: links.collect(),
                    total: self.1,
                })
            }
        }
        for (times, from, reason) in [
            (vec![START + 1, START], None, "not listed by createdAt"),
            (vec![START], Some(START + 1), "not listed by createdAt"),
            (vec![], None, "an empty page, although 9 links are left"),
            (vec![1, 2], None, "before 1980"),
        ] {
            let error = Pages::new(Fixed(times, 9), from).next().unwrap_err();
            assert!(error.error.to_string().contains(reason), "{:?}", error.error);
        }
    }
}
