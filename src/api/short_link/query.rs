//! The parameters of `list`: filter, order and page (docs/kaltura-api.md#lists).

use std::collections::BTreeSet;

use crate::api::Params;
use crate::api::fields::{Fields, parse_integer};
use crate::api::short_link::{IN_VALUES_MAX, status};
use crate::kaltura::ApiError;
use crate::kaltura::session::{Kind, Session};
use crate::model::{Status, Timestamp};
use crate::store::{Order, OrderField, Page, Query, SORT_MAX_LINKS, TimeOrder, TimeRange};

/// Links on a page where nothing else is said.
const PAGE_SIZE_DEFAULT: i64 = 30;
/// Links on a page at most.
const PAGE_SIZE_MAX: i64 = 500;
/// Filter values for createdAt and updatedAt within this many seconds of zero are relative to now: ten years.
const RELATIVE_MAX_SECONDS: i64 = 315_360_000;

pub fn query(params: &Params, session: &Session, now: Timestamp) -> Result<Query, ApiError> {
    let filter = Fields::new(params, "filter")?;
    let pager = Fields::new(params, "pager")?;
    let mut query = Query {
        partner: session.partner,
        ids: set_of(&filter, "idEqual", "idIn")?
            .map(|texts| texts.iter().filter_map(|text| text.parse().ok()).collect()),
        users: set_of(&filter, "userIdEqual", "userIdIn")?,
        system_names: set_of(&filter, "systemNameEqual", "systemNameIn")?,
        unique_id: filter.text("uniqueIdEqual")?.map(str::to_owned),
        statuses: statuses(&filter)?,
        created: range(&filter, "createdAt", Some(now))?,
        updated: range(&filter, "updatedAt", Some(now))?,
        expires: range(&filter, "expiresAt", None)?,
        order: order(filter.text("orderBy")?),
        page: page(&pager)?,
    };
    if query.is_beyond_sorting() {
        let reason = format!(
            "ordered by several keys or by id, pages end at the {SORT_MAX_LINKS}th link: order by one time to read \
            further"
        );
        return Err(ApiError::invalid(pager.name("pageIndex"), reason));
    }
    let own = i64::from(session.partner.0);
    let equal = filter.integer("partnerIdEqual")?;
    let listed = integers(&filter, "partnerIdIn")?;
    if equal.is_some_and(|partner| partner != own) || listed.is_some_and(|partners| !partners.contains(&own)) {
        // No session sees another partner's links.
        query.ids = Some(BTreeSet::new());
    }
    if session.kind == Kind::User {
        let user = session.user.clone().ok_or(ApiError::InvalidUserId)?;
        if let Some(other) = filter.text("userIdEqual")?
            && other != user
        {
            return Err(ApiError::AnotherUsersShortLink { user: other.to_owned() });
        }
        let allowed = query.users.is_none_or(|users| users.contains(&user));
        query.users = Some(allowed.then_some(user).into_iter().collect());
    }
    Ok(query)
}

/// The values that `NAMEEqual` and `NAMEIn` leave: `None` if neither is given.
fn set_of(filter: &Fields<'_>, equal: &str, within: &str) -> Result<Option<BTreeSet<String>>, ApiError> {
    let equal = filter.text(equal)?.map(|text| BTreeSet::from([text.to_owned()]));
    let listed = filter.text(within)?.map(|text| {
        let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
        values.map(str::to_owned).collect::<BTreeSet<_>>()
    });
    if listed.as_ref().is_some_and(|values| values.len() > IN_VALUES_MAX) {
        let reason = format!("at most {IN_VALUES_MAX} values");
        return Err(ApiError::invalid(filter.name(within), reason));
    }
    Ok(intersection(equal, listed))
}

fn intersection<T: Ord + Clone>(one: Option<BTreeSet<T>>, other: Option<BTreeSet<T>>) -> Option<BTreeSet<T>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one & &other),
        (one, other) => one.or(other),
    }
}

/// The numbers that `NAMEIn` lists.
fn integers(filter: &Fields<'_>, within: &str) -> Result<Option<BTreeSet<i64>>, ApiError> {
    let Some(texts) = set_of(filter, "", within)? else {
        return Ok(None);
    };
    let name = filter.name(within);
    let numbers = texts.iter().map(|text| parse_integer(&name, text));
    numbers.collect::<Result<_, _>>().map(Some)
}

/// Deleted links are seen only by a filter that names their status.
fn statuses(filter: &Fields<'_>) -> Result<BTreeSet<Status>, ApiError> {
    let equal = status(filter, "statusEqual")?.map(|status| BTreeSet::from([status]));
    // A number that is no status is the status of no link.
    let listed = integers(filter, "statusIn")?;
    let listed = listed.map(|numbers| numbers.into_iter().filter_map(Status::from_number).collect());
    Ok(intersection(equal, listed).unwrap_or_else(|| BTreeSet::from([Status::Disabled, Status::Enabled])))
}

fn range(filter: &Fields<'_>, field: &str, relative_to: Option<Timestamp>) -> Result<TimeRange, ApiError> {
    let absolute = |seconds: i64| match relative_to {
        Some(now) if seconds.unsigned_abs() <= RELATIVE_MAX_SECONDS.unsigned_abs() => now.plus(seconds),
        _ => Timestamp::from_unix(seconds),
    };
    Ok(TimeRange {
        from: filter.integer(&format!("{field}GreaterThanOrEqual"))?.map(absolute),
        to: filter.integer(&format!("{field}LessThanOrEqual"))?.map(absolute),
    })
}

/// The keys of an order, separated by commas; without a sign, a key is ascending. Unknown and repeated keys have no
/// effect, nor have keys behind the id, which no two links share.
fn order(text: Option<&str>) -> Order {
    let mut times = [None; OrderField::COUNT];
    let mut ids_descend = None;
    for key in text.unwrap_or("").split(',').map(str::trim) {
        let descending = key.starts_with('-');
        // A form parser may have turned the plus into a space, which is trimmed.
        let name = key.strip_prefix(['-', '+']).unwrap_or(key);
        let field = match name {
            "createdAt" => OrderField::Created,
            "updatedAt" => OrderField::Updated,
            "expiresAt" => OrderField::Expires,
            "id" => {
                ids_descend = Some(descending);
                break;
            }
            _ => continue,
        };
        let is_known = |time: &Option<TimeOrder>| time.is_some_and(|time| time.field == field);
        if !times.iter().any(is_known)
            && let Some(free) = times.iter_mut().find(|time| time.is_none())
        {
            *free = Some(TimeOrder { field, descending });
        }
    }
    // Ties are in the direction of the last key.
    let last = times.iter().flatten().next_back().map(|time| time.descending);
    match ids_descend.or(last) {
        Some(ids_descend) => Order { times, ids_descend },
        None => Order::default(),
    }
}

fn page(pager: &Fields<'_>) -> Result<Page, ApiError> {
    let size = pager.integer("pageSize")?.unwrap_or(PAGE_SIZE_DEFAULT);
    let index = pager.integer("pageIndex")?.unwrap_or(1).max(1);
    Ok(Page {
        size: usize::try_from(size.clamp(0, PAGE_SIZE_MAX)).unwrap_or(0),
        index: usize::try_from(index).unwrap_or(usize::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kaltura::session::Privileges;
    use crate::model::PartnerId;

    const NOW: Timestamp = Timestamp::from_unix(2_000_000_000);

    fn query_of(params: &[(&str, &str)]) -> Query {
        let mut all = Params::default();
        for (name, value) in params {
            all.insert(name, (*value).to_owned()).unwrap();
        }
        let session = Session {
            partner: PartnerId(7),
            user: Some("me".into()),
            kind: Kind::Admin,
            expiry: Timestamp::MAX,
            privileges: Privileges::default(),
            digest: [0; 20],
        };
        query(&all, &session, NOW).unwrap()
    }

    #[test]
    fn each_order_is_by_its_own_time() {
        let keys = |text: &str| query_of(&[("filter:orderBy", text)]).order;
        for (text, field, descending) in [
            ("+createdAt", OrderField::Created, false),
            ("-createdAt", OrderField::Created, true),
            (" updatedAt", OrderField::Updated, false),
            ("-updatedAt", OrderField::Updated, true),
            ("+expiresAt", OrderField::Expires, false),
            ("-expiresAt", OrderField::Expires, true),
            ("", OrderField::Created, true),
            ("createdAt", OrderField::Created, false),
            ("expiresAt", OrderField::Expires, false),
            ("+name", OrderField::Created, true),
            ("ü", OrderField::Created, true),
            (",,-", OrderField::Created, true),
            ("-name,updatedAt", OrderField::Updated, false),
            ("-updatedAt,+updatedAt,-id", OrderField::Updated, true),
        ] {
            assert_eq!(keys(text), Order::new(field, descending), "{text}");
        }
    }

    #[test]
    fn an_order_has_several_keys_up_to_the_id() {
        let time = |field, descending| Some(TimeOrder { field, descending });
        let (created, updated, expires) = (OrderField::Created, OrderField::Updated, OrderField::Expires);
        for (text, times, ids_descend) in [
            ("id", [None; 3], false),
            ("-id,+createdAt", [None; 3], true),
            (
                "-updatedAt, createdAt",
                [time(updated, true), time(created, false), None],
                false,
            ),
            ("+expiresAt,-id", [time(expires, false), None, None], true),
            (
                "expiresAt,-updatedAt,-name,+updatedAt,-createdAt",
                [time(expires, false), time(updated, true), time(created, true)],
                true,
            ),
        ] {
            let order = Order { times, ids_descend };
            assert_eq!(query_of(&[("filter:orderBy", text)]).order, order, "{text}");
        }
    }

    #[test]
    fn each_range_is_of_its_own_time_small_values_are_relative() {
        let at = |seconds| Some(Timestamp::from_unix(seconds));
        let query = query_of(&[
            ("filter:createdAtGreaterThanOrEqual", "-60"),
            ("filter:createdAtLessThanOrEqual", "315360001"),
            ("filter:updatedAtGreaterThanOrEqual", "1000000000"),
            ("filter:updatedAtLessThanOrEqual", "315360000"),
            ("filter:expiresAtGreaterThanOrEqual", "1"),
        ]);
        let range = |from, to| TimeRange { from, to };
        assert_eq!(query.created, range(at(1_999_999_940), at(315_360_001)));
        assert_eq!(query.updated, range(at(1_000_000_000), at(2_315_360_000)));
        assert_eq!(query.expires, range(at(1), None));
    }
}
