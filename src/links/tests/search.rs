//! Searches against a model of them, and changes of many links.

use std::collections::HashMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::links::tests::audit::somebody;
use crate::store::{Lane, TimeRange};

const NOW: i64 = 1_000;

fn open() -> (Links, Clock, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(NOW));
    let links = Links::open(folder.path(), clock.clone(), 8).unwrap();
    links.load().unwrap();
    (links, clock, folder)
}

fn query() -> SearchQuery {
    SearchQuery {
        is_descending: false,
        ..SearchQuery::of(PARTNER)
    }
}

/// What a search should find, in order, by looking at every link.
fn expected(all: &[ShortLink], query: &SearchQuery, used: &HashMap<LinkId, u64>, now: Timestamp) -> Vec<LinkId> {
    let holds = |text: &str| text.to_lowercase().contains(&query.text.to_lowercase());
    let host = |link: &ShortLink| {
        let url = url::Url::parse(&link.full_url).unwrap();
        url.host_str().unwrap().to_owned()
    };
    let is_of_state = |link: &ShortLink| {
        let has_started = link.starts_at.is_none_or(|start| start <= now);
        let has_ended = link.expires_at.is_some_and(|end| end < now);
        match (query.state, link.status) {
            (SearchState::Present, status) => status != Status::Deleted,
            (SearchState::Off, status) => status == Status::Disabled,
            (SearchState::Deleted, status) => status == Status::Deleted,
            (SearchState::Works, Status::Enabled) => has_started && !has_ended,
            (SearchState::Waits, Status::Enabled) => !has_started && !has_ended,
            (SearchState::Expired, Status::Enabled) => has_ended,
            _ => false,
        }
    };
    let date = |link: &ShortLink| match query.date {
        SearchDate::Created => Some(link.created_at),
        SearchDate::Updated => Some(link.updated_at),
        SearchDate::Starts => link.starts_at,
        SearchDate::Expires => link.expires_at,
    };
    let fits = |link: &&ShortLink| {
        link.partner_id == query.partner
            && query
                .owner
                .as_ref()
                .is_none_or(|owner| link.user_id.as_ref() == Some(owner))
            && is_of_state(link)
            && query.range.contains(date(link))
            && (!query.only_unused || !used.contains_key(&link.id))
            && query
                .without_system_name
                .as_ref()
                .is_none_or(|name| link.system_name != *name)
            && (query.id == Some(link.id)
                || holds(&link.system_name)
                || holds(link.name.as_deref().unwrap_or_default())
                || holds(&host(link)))
    };
    let mut found: Vec<_> = all.iter().filter(fits).collect();
    let title = |link: &ShortLink| {
        let name = link.name.clone().filter(|name| !name.is_empty());
        name.unwrap_or_else(|| link.system_name.clone()).to_lowercase()
    };
    let clicks = |link: &ShortLink| used.get(&link.id).copied().unwrap_or_default();
    let order = |one: &ShortLink, other: &ShortLink| match query.order {
        SearchOrder::Created => one.created_at.cmp(&other.created_at),
        SearchOrder::Updated => one.updated_at.cmp(&other.updated_at),
        SearchOrder::Expires => one.expires_at.cmp(&other.expires_at),
        SearchOrder::Title => title(one).cmp(&title(other)),
        SearchOrder::Host => host(one).cmp(&host(other)),
        SearchOrder::Owner => one.user_id.cmp(&other.user_id),
        SearchOrder::Clicks => clicks(one).cmp(&clicks(other)),
    };
    let is_last = |link: &ShortLink| query.order == SearchOrder::Expires && link.expires_at.is_none();
    found.sort_by(|one, other| {
        let order = order(one, other).then(one.id.cmp(&other.id));
        let order = if query.is_descending { order.reverse() } else { order };
        is_last(one).cmp(&is_last(other)).then(order)
    });
    found.iter().map(|link| link.id).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize, usize, Option<i64>, Option<i64>),
    Rename(usize, usize),
    SetStatus(usize, i64),
    Visit(usize),
    Search(SearchQuery),
}

const NAMES: [&str; 5] = ["", "Lecture ONE", "lecture two", "Ünïcode", "kmc"];
const HOSTS: [&str; 3] = ["video.example.com", "EXAMPLE.org", "münchen.de"];

fn any_query() -> impl Strategy<Value = SearchQuery> {
    use SearchState::*;
    let texts = ["", "lect", "ONE", "ün", "example", "xn--", "km", "none"];
    let states = vec![Present, Works, Waits, Expired, Off, Deleted];
    let orders = vec![
        SearchOrder::Created,
        SearchOrder::Updated,
        SearchOrder::Expires,
        SearchOrder::Title,
        SearchOrder::Host,
        SearchOrder::Owner,
        SearchOrder::Clicks,
    ];
    let dates = vec![
        SearchDate::Created,
        SearchDate::Updated,
        SearchDate::Starts,
        SearchDate::Expires,
    ];
    let flags = any::<[bool; 5]>();
    let select = proptest::sample::select::<&str>;
    (
        select(texts.to_vec()),
        proptest::sample::select(states),
        proptest::sample::select(orders),
        proptest::sample::select(dates),
        flags,
    )
        .prop_map(
            |(text, state, order, date, [only_unused, without_previews, owned, recent, is_descending])| SearchQuery {
                text: text.to_owned(),
                state,
                order,
                only_unused,
                without_system_name: without_previews.then(|| "KMC-PREVIEW".to_owned()),
                owner: owned.then(|| "me".to_owned()),
                date,
                range: TimeRange {
                    from: recent.then(|| Timestamp::from_unix(NOW + 3)),
                    to: None,
                },
                is_descending,
                ..query()
            },
        )
}

fn any_step() -> impl Strategy<Value = Step> {
    let time = || prop::option::of(0..2 * NOW);
    prop_oneof![
        5 => (0..NAMES.len(), 0..HOSTS.len(), time(), time())
            .prop_map(|(name, host, starts, ends)| Step::Add(name, host, starts, ends)),
        3 => (any::<usize>(), 0..NAMES.len()).prop_map(|(link, name)| Step::Rename(link, name)),
        3 => (any::<usize>(), 1_i64..=3).prop_map(|(link, status)| Step::SetStatus(link, status)),
        2 => any::<usize>().prop_map(Step::Visit),
        4 => any_query().prop_map(Step::Search),
    ]
}

struct Searched {
    links: Links,
    clock: Clock,
    recorder: ClickRecorder,
    all: Vec<ShortLink>,
    used: HashMap<LinkId, u64>,
    _folder: TempDir,
}

impl Searched {
    fn new() -> Self {
        let (links, clock, folder) = open();
        Self {
            recorder: links.recorder(),
            links,
            clock,
            all: Vec::new(),
            used: HashMap::new(),
            _folder: folder,
        }
    }

    async fn take(&mut self, number: usize, step: Step) {
        let now = Timestamp::from_unix(NOW + i64::try_from(number).unwrap());
        self.clock.set(now);
        let scope = Scope {
            partner: PARTNER,
            owner: None,
        };
        let count = self.all.len();
        match step {
            Step::Add(name, host, starts, ends) => {
                let mut starts = starts.map(Timestamp::from_unix);
                let ends = ends.map(Timestamp::from_unix);
                if !is_valid(starts, ends) {
                    starts = None;
                }
                let new = Draft {
                    name: Some(NAMES[name].to_owned()),
                    system_name: if name == 4 { "KMC-PREVIEW" } else { "NAME" }.to_owned(),
                    user_id: (name % 2 == 0).then(|| "me".to_owned()),
                    starts_at: starts,
                    expires_at: ends,
                    ..draft(&format!("https://{}/{number}", HOSTS[host]))
                };
                self.all.push(self.links.add(new, somebody()).await.unwrap());
            }
            Step::Search(query) => {
                let found = self.links.search(query.clone()).await.unwrap();
                let ids: Vec<_> = found.links.iter().map(|(link, _)| link.id).collect();
                let expected = expected(&self.all, &query, &self.used, now);
                assert_eq!(ids, expected, "{query:?}");
                assert_eq!(found.total, expected.len() as u64);
            }
            _ if count == 0 => {}
            Step::Rename(link, name) => {
                let edit = move |old: &ShortLink| {
                    Ok::<_, ()>(ShortLink {
                        name: Some(NAMES[name].to_owned()),
                        ..old.clone()
                    })
                };
                let id = self.all[link % count].id;
                if let Ok(new) = self.links.update(id, scope, somebody(), edit).await {
                    self.all[link % count] = new;
                }
            }
            Step::SetStatus(link, status) => {
                let change = match status {
                    1 => BulkChange::Disable,
                    2 => BulkChange::Enable,
                    _ => BulkChange::Delete,
                };
                let id = self.all[link % count].id;
                self.links
                    .change_together(vec![id], scope, change, somebody())
                    .await
                    .unwrap();
                self.all[link % count] = self
                    .links
                    .store()
                    .read(move |snapshot| snapshot.get(id))
                    .await
                    .unwrap()
                    .unwrap();
            }
            Step::Visit(link) => {
                let id = self.all[link % count].id;
                self.recorder.record(id, crate::model::Visit::Click, now);
                self.links.flush_clicks().await.unwrap();
                *self.used.entry(id).or_default() += 1;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn search_finds_what_fits_in_order(steps in proptest::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut searched = Searched::new();
            for (number, step) in steps.into_iter().enumerate() {
                searched.take(number, step).await;
            }
        });
    }
}

#[tokio::test]
async fn pages_of_a_search_join_without_gaps() {
    let (links, _, _folder) = open();
    for number in 0..25 {
        links
            .add(draft(&format!("https://example.com/{number}")), somebody())
            .await
            .unwrap();
    }
    let all = links.search(query()).await.unwrap();
    let mut joined = Vec::new();
    for page in 0..4 {
        let found = links
            .search(SearchQuery {
                offset: page * 10,
                limit: 10,
                ..query()
            })
            .await
            .unwrap();
        assert_eq!(found.total, 25);
        joined.extend(found.links);
    }
    assert_eq!(joined, all.links);
    let mut ids = links.search_ids(query()).await.unwrap();
    ids.sort();
    let mut expected: Vec<_> = joined.iter().map(|(link, _)| link.id).collect();
    expected.sort();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn id_is_found_whatever_the_text() {
    let (links, _, _folder) = open();
    let one = links.add(draft("https://example.com/1"), somebody()).await.unwrap();
    links.add(draft("https://example.com/2"), somebody()).await.unwrap();
    let by_id = SearchQuery {
        text: one.id.to_string(),
        id: Some(one.id),
        ..query()
    };
    let found = links.search(by_id).await.unwrap();
    assert_eq!(
        found.links.iter().map(|(link, _)| link.id).collect::<Vec<_>>(),
        [one.id]
    );
}

#[tokio::test]
async fn changes_together_leave_others_alone() {
    let (links, _, _folder) = open();
    let mine = Draft {
        user_id: Some("me".to_owned()),
        ..draft("https://example.com/1")
    };
    let mine = links.add(mine, somebody()).await.unwrap();
    let other = links.add(draft("https://example.com/2"), somebody()).await.unwrap();
    let waits = Draft {
        starts_at: Some(Timestamp::from_unix(5_000)),
        user_id: Some("me".to_owned()),
        ..draft("https://example.com/3")
    };
    let waits = links.add(waits, somebody()).await.unwrap();
    let scope = Scope {
        partner: PARTNER,
        owner: Some("me".to_owned()),
    };
    let all = vec![mine.id, other.id, waits.id];
    let change = |change| links.change_together(all.clone(), scope.clone(), change, somebody());
    let counts = |changed, unchanged, refused| BulkCounts {
        changed,
        unchanged,
        refused,
    };
    assert_eq!(change(BulkChange::Disable).await.unwrap(), counts(2, 1, 0));
    assert_eq!(change(BulkChange::Disable).await.unwrap(), counts(0, 3, 0));
    let end = Some(Timestamp::from_unix(4_000));
    assert_eq!(change(BulkChange::Extend(end)).await.unwrap(), counts(1, 1, 1));
    assert_eq!(change(BulkChange::Delete).await.unwrap(), counts(2, 1, 0));
    assert_eq!(change(BulkChange::Restore).await.unwrap(), counts(2, 1, 0));
    let everything = Scope {
        partner: PARTNER,
        owner: None,
    };
    assert_eq!(links.get(other.id, &everything).await.unwrap(), other);
    assert_eq!(links.get(mine.id, &everything).await.unwrap().expires_at, end);
}

#[tokio::test]
async fn what_depends_on_clicks_needs_them_counted() {
    let (links, _, _folder) = open();
    let links = links.counting_clicks(false);
    let unused = SearchQuery {
        only_unused: true,
        ..query()
    };
    let by_clicks = SearchQuery {
        order: SearchOrder::Clicks,
        ..query()
    };
    for refused in [unused, by_clicks] {
        let found = links.search(refused.clone()).await;
        assert!(matches!(found, Err(LinkError::ClicksNotCounted)), "{refused:?}");
        let found = links.search_ids(refused).await;
        assert!(matches!(found, Err(LinkError::ClicksNotCounted)));
    }
    assert_eq!(links.search(query()).await.unwrap().total, 0);
}

/// No step may be taken in the store, where it takes more than this.
const NO_STEPS: u64 = 0;

#[test]
fn list_from_memory_has_what_was_just_written() {
    let (links, _clock, _folder) = open();
    block_on(async {
        let query = clicks::all_enabled();
        for _ in 0..50 {
            links.add(draft("https://e.example/"), somebody()).await.unwrap();
        }
        let list = |lane| {
            let snapshot = links.store().snapshot().unwrap();
            links
                .search
                .list_or_read(&query, &snapshot, &ReadLimit::steps(NO_STEPS), lane)
        };
        // The first one is answered by the store, and has the links read for the next.
        assert!(matches!(list(Lane::Apart), Err(StoreError::Stopped(_))));
        assert!(!links.search.is_ready());
        tokio::select! {
            () = links.keep_reading_for_lists() => unreachable!("it never ends"),
            () = async { while links.search_memory_bytes() == 0 { tokio::task::yield_now().await } } => {}
        }
        let added = links.add(draft("https://e.example/last"), somebody()).await.unwrap();
        links.delete(added.id, everybody(), somebody()).await.unwrap();
        let last = links.add(draft("https://e.example/"), somebody()).await.unwrap();
        let listed = list(Lane::Apart).unwrap();
        assert_eq!(listed.total, 51);
        let ids: Vec<_> = listed.links.iter().map(|link| link.id).collect();
        assert!(ids.contains(&last.id) && !ids.contains(&added.id));
        // Short lists are the store's.
        assert!(matches!(list(Lane::Shared), Err(StoreError::Stopped(_))));
        links.search.clear();
        assert!(matches!(list(Lane::Apart), Err(StoreError::Stopped(_))));
    });
}
