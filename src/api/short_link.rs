//! The service `shortlink_shortlink` (contract, sections 5, 9 and 10).

use std::collections::{BTreeSet, HashMap};

use crate::api::access::scope_of;
use crate::api::destinations::destination;
use crate::api::fields::{Field, Fields, parse_integer};
use crate::api::object::{object, object_with_usage, wants_clicks};
use crate::api::{Api, Caller, Outcome, Params};
use crate::http::Fault;
use crate::ks::{Kind, Session};
use crate::links::{Draft, LinkError, Restored};
use crate::model::{
    Destination, FULL_URL_MIN_BYTES, ID_MAX_BYTES, LinkId, NAME_MAX_CHARS, SYSTEM_NAME_MIN_BYTES, ShortLink, Status,
    Timestamp, USER_ID_MAX_CHARS, whole_number,
};
use crate::store::{Order, OrderField, Page, Query, TimeRange};
use crate::wire::{Object, Value};

/// The parameter that holds a link.
const LINK: &str = "shortLink";
/// The name of the enumeration of statuses.
const STATUS_ENUM: &str = "KalturaShortLinkStatus";

/// Links on a page where nothing else is said.
const PAGE_SIZE_DEFAULT: i64 = 30;
/// Links on a page at most.
const PAGE_SIZE_MAX: i64 = 500;
/// Values that a filter may list at most.
const IN_VALUES_MAX: usize = 1_000;
/// Filter values for createdAt and updatedAt within this many seconds of zero are relative to now: ten years.
const RELATIVE_MAX_SECONDS: i64 = 315_360_000;

impl Api {
    pub(super) async fn add(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.session(params, caller).await?;
        let fields = Fields::of(params, LINK)?;
        let draft = draft(&fields, &session)?;
        self.destinations.require(&draft.full_url)?;
        Ok(object(&self.links.add(draft).await?).into())
    }

    pub(super) async fn get(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        if wants_clicks(params)? {
            let found = self.links.get_with_usage(id, scope_of(&session)).await;
            let (link, usage) = found.map_err(|error| naming(text, error))?;
            return Ok(object_with_usage(&link, &usage).into());
        }
        let found = self.links.get(id, &scope_of(&session)).await;
        Ok(object(&found.map_err(|error| naming(text, error))?).into())
    }

    pub(super) async fn update(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let fields = Fields::of(params, LINK)?;
        if !fields.is_present() {
            return Err(Fault::MissingParameter { name: LINK.to_owned() });
        }
        // What is too short for a text is too short for null.
        for (property, length) in [("systemName", SYSTEM_NAME_MIN_BYTES), ("fullUrl", FULL_URL_MIN_BYTES)] {
            if fields.field(property)? == Field::Null {
                return Err(Fault::MinLength { property, length });
            }
        }
        let mut patch = Patch::of(&fields)?;
        patch.refusal = patch
            .full_url
            .as_ref()
            .and_then(|url| self.destinations.require(url).err());
        let kind = session.kind;
        let edit = move |stored: &ShortLink| patch.apply(stored, kind);
        let updated = self.links.update(id, scope_of(&session), edit).await;
        Ok(object(&updated.map_err(|error| naming(text, error))??).into())
    }

    pub(super) async fn delete(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let deleted = self.links.delete(id, scope_of(&session)).await;
        Ok(object(&deleted.map_err(|error| naming(text, error))?).into())
    }

    /// Ours: Kaltura's operators have only their database for this.
    pub(super) async fn restore(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self
            .admin_session(params, caller, "shortlink_shortlink", "restore")
            .await?;
        let (text, id) = link_id(params)?;
        let restored = self.links.restore(id, session.partner).await;
        Ok(object(&restored.map_err(|error| naming(text, error))?).into())
    }

    /// Ours: as `restore`, for several at once. A link that cannot be restored stops no other.
    pub(super) async fn restore_many(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self
            .admin_session(params, caller, "shortlink_shortlink", "restoreMany")
            .await?;
        let texts: Vec<_> = params
            .required("ids")?
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .collect();
        if texts.len() > IN_VALUES_MAX {
            return Err(Fault::invalid("ids", format!("at most {IN_VALUES_MAX} at once")));
        }
        let dry_run = params.flag("dryRun")?;
        let ids = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let restored = self.links.restore_all(ids, session.partner, dry_run).await?;
        let outcomes: HashMap<_, _> = restored
            .iter()
            .map(|(id, outcome)| (id.as_str(), *outcome))
            .rev()
            .collect();
        let result = |text: &&str| {
            // What cannot be an id is the id of no link.
            let outcome = outcomes.get(text).copied().unwrap_or(Restored::Unknown);
            let (outcome, status) = match outcome {
                Restored::Restored => ("restored", Some(Status::Enabled)),
                Restored::Already(status) => ("notDeleted", Some(status)),
                Restored::UniqueIdTaken => ("uniqueIdTaken", Some(Status::Deleted)),
                Restored::Unknown => ("unknown", None),
                Restored::Damaged => ("damaged", None),
            };
            let fields = vec![
                // What is longer than an id is shown as far as it goes.
                (
                    "id",
                    Value::text(text.get(..text.floor_char_boundary(ID_MAX_BYTES)).unwrap_or("")),
                ),
                ("outcome", Value::text(outcome)),
                (
                    "status",
                    status.map_or(Value::Null, |status| Value::Int(status.number().into())),
                ),
            ];
            let class = "TinydRestoredLink";
            Value::Object(Object { class, fields })
        };
        Ok(Value::List(texts.iter().map(result).collect()).into())
    }

    pub(super) async fn list(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.session(params, caller).await?;
        let query = query(params, &session, self.links.clock().now())?;
        let context = caller.read_context();
        let (objects, total, turn) = if wants_clicks(params)? {
            let ((listing, usages), turn) = self.links.list_with_usage(query, &context).await?;
            let links = listing.links.iter().zip(&usages);
            let objects = links.map(|(link, usage)| object_with_usage(link, usage)).collect();
            (objects, listing.total, turn)
        } else {
            let (listing, turn) = self.links.list(query, &context).await?;
            (listing.links.iter().map(object).collect(), listing.total, turn)
        };
        let fields = vec![
            ("objects", Value::List(objects)),
            ("totalCount", Value::Int(i64::try_from(total).unwrap_or(i64::MAX))),
        ];
        let class = "KalturaShortLinkListResponse";
        Ok(Outcome::Value(Value::Object(Object { class, fields }), Some(turn)))
    }
}

/// The parameter `id`: its text for errors, and the id. What cannot be an id is the id of no link.
fn link_id(params: &Params) -> Result<(&str, LinkId), Fault> {
    let text = params.required("id")?;
    let id = text
        .parse()
        .map_err(|_| Fault::InvalidObjectId { id: text.to_owned() })?;
    Ok((text, id))
}

fn naming(id: &str, error: LinkError) -> Fault {
    match error {
        LinkError::NotFound => Fault::InvalidObjectId { id: id.to_owned() },
        error => error.into(),
    }
}

/// What `add` makes of its parameter.
fn draft(fields: &Fields<'_>, session: &Session) -> Result<Draft, Fault> {
    if !fields.is_present() {
        return Err(Fault::MissingParameter { name: LINK.to_owned() });
    }
    let patch = Patch::of(fields)?;
    // There is nothing stored that these could repeat.
    if let Some((property, _)) = patch.claims.first() {
        return Err(Fault::NotUpdatable { property });
    }
    let missing = |name| Fault::MissingParameter {
        name: fields.name(name),
    };
    let system_name = patch.system_name.ok_or_else(|| missing("systemName"))?;
    let full_url = patch.full_url.ok_or_else(|| missing("fullUrl"))?;
    let user_id = match patch.user_id.flatten() {
        Some(user) if session.kind == Kind::User && session.user.as_ref() != Some(&user) => {
            return Err(Fault::AdminProperty { property: "userId" });
        }
        Some(user) => Some(user),
        None => session.user.clone().map(|user| checked_user_id(&user)).transpose()?,
    };
    Ok(Draft {
        partner_id: session.partner,
        user_id,
        name: patch.name.flatten(),
        system_name,
        full_url,
        unique_id: patch.unique_id.flatten(),
        status: patch.status.unwrap_or(Status::Enabled),
        expires_at: patch.expires_at.flatten(),
    })
}

/// What a request says about a link: outer `None` = nothing, inner `None` = null.
#[derive(Debug, Default)]
struct Patch {
    user_id: Option<Option<String>>,
    name: Option<Option<String>>,
    system_name: Option<String>,
    full_url: Option<Destination>,
    /// Why that makes no new link; fine if it is what is stored.
    refusal: Option<Fault>,
    unique_id: Option<Option<String>>,
    status: Option<Status>,
    expires_at: Option<Option<Timestamp>>,
    /// Read-only fields and what is said of them; fine if it is what is stored.
    claims: Vec<(&'static str, Claim)>,
}

#[derive(Debug)]
enum Claim {
    Null,
    Text(String),
    Number(i64),
}

impl Patch {
    fn of(fields: &Fields<'_>) -> Result<Self, Fault> {
        let mut patch = Self {
            user_id: nullable(fields.field("userId")?, checked_user_id)?
                .map(|user| user.filter(|user| !user.is_empty())),
            name: nullable(fields.field("name")?, |text| checked_name("name", text))?,
            unique_id: nullable(fields.field("uniqueId")?, |text| checked_name("uniqueId", text))?
                .map(|unique_id| unique_id.filter(|unique_id| !unique_id.is_empty())),
            status: status(fields, "status")?,
            expires_at: expires_at(fields)?,
            ..Self::default()
        };
        patch.system_name = match fields.field("systemName")? {
            Field::Absent | Field::Null => None,
            Field::Text(text) => {
                check_min("systemName", text, SYSTEM_NAME_MIN_BYTES)?;
                Some(checked_name("systemName", text)?)
            }
        };
        patch.full_url = match fields.field("fullUrl")? {
            Field::Absent | Field::Null => None,
            Field::Text(text) => {
                check_min("fullUrl", text, FULL_URL_MIN_BYTES)?;
                Some(destination(text)?)
            }
        };
        for property in ["id", "createdAt", "updatedAt", "partnerId"] {
            let claim = match fields.field(property)? {
                Field::Absent | Field::Text("") => continue,
                Field::Null => Claim::Null,
                Field::Text(text) if property == "id" => Claim::Text(text.to_owned()),
                Field::Text(text) => Claim::Number(parse_integer(&fields.name(property), text)?),
            };
            patch.claims.push((property, claim));
        }
        Ok(patch)
    }

    /// The link with what the request says. Nothing of it is kept if any of it is refused.
    fn apply(self, stored: &ShortLink, kind: Kind) -> Result<ShortLink, Fault> {
        for (property, claim) in &self.claims {
            let repeats = match (*property, claim) {
                ("id", Claim::Text(id)) => id == stored.id.as_str(),
                ("createdAt", Claim::Number(time)) => *time == stored.created_at.as_unix(),
                ("updatedAt", Claim::Number(time)) => *time == stored.updated_at.as_unix(),
                ("partnerId", Claim::Number(id)) => *id == i64::from(stored.partner_id.0),
                _ => false,
            };
            if !repeats {
                return Err(Fault::NotUpdatable { property });
            }
        }
        if self.unique_id.is_some_and(|unique_id| unique_id != stored.unique_id) {
            return Err(Fault::NotUpdatable { property: "uniqueId" });
        }
        let mut link = stored.clone();
        if let Some(user_id) = self.user_id
            && user_id != stored.user_id
        {
            if kind == Kind::User {
                return Err(Fault::AdminProperty { property: "userId" });
            }
            link.user_id = user_id;
        }
        if let Some(name) = self.name {
            link.name = name;
        }
        if let Some(system_name) = self.system_name {
            link.system_name = system_name;
        }
        if let Some(full_url) = self.full_url.filter(|url| url.as_str() != stored.full_url) {
            self.refusal.map_or(Ok(()), Err)?;
            link.full_url = full_url.into_string();
        }
        if let Some(status) = self.status {
            link.status = status;
        }
        if let Some(expires_at) = self.expires_at {
            link.expires_at = expires_at;
        }
        Ok(link)
    }
}

fn nullable(
    field: Field<'_>,
    check: impl FnOnce(&str) -> Result<String, Fault>,
) -> Result<Option<Option<String>>, Fault> {
    Ok(match field {
        Field::Absent => None,
        Field::Null => Some(None),
        Field::Text(text) => Some(Some(check(text)?)),
    })
}

fn check_min(property: &'static str, text: &str, length: usize) -> Result<(), Fault> {
    if text.len() < length {
        return Err(Fault::MinLength { property, length });
    }
    Ok(())
}

fn checked(property: &'static str, text: &str, length: usize) -> Result<String, Fault> {
    if text.chars().count() > length {
        return Err(Fault::MaxLength { property, length });
    }
    Ok(text.to_owned())
}

fn checked_name(property: &'static str, text: &str) -> Result<String, Fault> {
    checked(property, text, NAME_MAX_CHARS)
}

fn checked_user_id(text: &str) -> Result<String, Fault> {
    checked("userId", text, USER_ID_MAX_CHARS)
}

fn status(fields: &Fields<'_>, name: &str) -> Result<Option<Status>, Fault> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    let status = whole_number(text).and_then(Status::from_number);
    status.map(Some).ok_or_else(|| Fault::InvalidEnum {
        value: text.to_owned(),
        name: fields.name(name),
        kind: STATUS_ENUM,
    })
}

/// 0, -1 and null stand for never. A time in the past is accepted: the link has then expired at once.
fn expires_at(fields: &Fields<'_>) -> Result<Option<Option<Timestamp>>, Fault> {
    if fields.field("expiresAt")? == Field::Null {
        return Ok(Some(None));
    }
    match fields.integer("expiresAt")? {
        None => Ok(None),
        Some(0 | -1) => Ok(Some(None)),
        Some(seconds) if Timestamp::from_unix(seconds) <= Timestamp::MAX => {
            Ok(Some(Some(Timestamp::from_unix(seconds))))
        }
        Some(_) => Err(Fault::invalid(
            fields.name("expiresAt"),
            format!("expected unix seconds up to {} (milliseconds?)", Timestamp::MAX),
        )),
    }
}

/// What `list` makes of its parameters.
fn query(params: &Params, session: &Session, now: Timestamp) -> Result<Query, Fault> {
    let filter = Fields::of(params, "filter")?;
    let pager = Fields::of(params, "pager")?;
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
    let own = i64::from(session.partner.0);
    let equal = filter.integer("partnerIdEqual")?;
    let listed = integers(&filter, "partnerIdIn")?;
    if equal.is_some_and(|partner| partner != own) || listed.is_some_and(|partners| !partners.contains(&own)) {
        // No session sees another partner's links.
        query.ids = Some(BTreeSet::new());
    }
    if session.kind == Kind::User {
        let user = session.user.clone().ok_or(Fault::InvalidUserId)?;
        if let Some(other) = filter.text("userIdEqual")?
            && other != user
        {
            return Err(Fault::AnotherUsersShortLink { user: other.to_owned() });
        }
        let allowed = query.users.is_none_or(|users| users.contains(&user));
        query.users = Some(if allowed {
            BTreeSet::from([user])
        } else {
            BTreeSet::new()
        });
    }
    Ok(query)
}

/// The values that `NAMEEqual` and `NAMEIn` leave: `None` if neither is given.
fn set_of(filter: &Fields<'_>, equal: &str, within: &str) -> Result<Option<BTreeSet<String>>, Fault> {
    let equal = filter.text(equal)?.map(|text| BTreeSet::from([text.to_owned()]));
    let listed = filter.text(within)?.map(|text| {
        let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
        values.map(str::to_owned).collect::<BTreeSet<_>>()
    });
    if listed.as_ref().is_some_and(|values| values.len() > IN_VALUES_MAX) {
        return Err(Fault::invalid(
            filter.name(within),
            format!("at most {IN_VALUES_MAX} values"),
        ));
    }
    Ok(match (equal, listed) {
        (Some(equal), Some(listed)) => Some(&equal & &listed),
        (equal, listed) => equal.or(listed),
    })
}

/// The numbers that `NAMEIn` lists.
fn integers(filter: &Fields<'_>, within: &str) -> Result<Option<BTreeSet<i64>>, Fault> {
    let texts = set_of(filter, "", within)?;
    texts
        .map(|texts| {
            texts
                .iter()
                .map(|text| parse_integer(&filter.name(within), text))
                .collect()
        })
        .transpose()
}

/// Deleted links are seen only by a filter that names their status.
fn statuses(filter: &Fields<'_>) -> Result<BTreeSet<Status>, Fault> {
    let equal = status(filter, "statusEqual")?.map(|status| BTreeSet::from([status]));
    // A number that is no status is the status of no link.
    let listed = integers(filter, "statusIn")?.map(|numbers| {
        numbers
            .into_iter()
            .filter_map(Status::from_number)
            .collect::<BTreeSet<_>>()
    });
    Ok(match (equal, listed) {
        (Some(equal), Some(listed)) => &equal & &listed,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => BTreeSet::from([Status::Disabled, Status::Enabled]),
    })
}

fn range(filter: &Fields<'_>, field: &str, relative_to: Option<Timestamp>) -> Result<TimeRange, Fault> {
    let absolute = |seconds: i64| match relative_to {
        Some(now) if seconds.unsigned_abs() <= RELATIVE_MAX_SECONDS.unsigned_abs() => now.plus(seconds),
        _ => Timestamp::from_unix(seconds),
    };
    Ok(TimeRange {
        from: filter.integer(&format!("{field}GreaterThanOrEqual"))?.map(absolute),
        to: filter.integer(&format!("{field}LessThanOrEqual"))?.map(absolute),
    })
}

/// An order that is not known is ignored. A form parser may have turned the plus into a space.
fn order(text: Option<&str>) -> Order {
    let Some((sign, field)) = text.and_then(|text| text.split_at_checked(1)) else {
        return Order::default();
    };
    let field = match field {
        "createdAt" => OrderField::CreatedAt,
        "updatedAt" => OrderField::UpdatedAt,
        "expiresAt" => OrderField::ExpiresAt,
        _ => return Order::default(),
    };
    match sign {
        "+" | " " => Order {
            field,
            descending: false,
        },
        "-" => Order {
            field,
            descending: true,
        },
        _ => Order::default(),
    }
}

fn page(pager: &Fields<'_>) -> Result<Page, Fault> {
    let size = pager
        .integer("pageSize")?
        .unwrap_or(PAGE_SIZE_DEFAULT)
        .clamp(0, PAGE_SIZE_MAX);
    let index = pager.integer("pageIndex")?.unwrap_or(1).max(1);
    Ok(Page {
        size: usize::try_from(size).unwrap_or(0),
        index: usize::try_from(index).unwrap_or(usize::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ks::Privileges;
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
        for (text, field, descending) in [
            ("+createdAt", OrderField::CreatedAt, false),
            ("-createdAt", OrderField::CreatedAt, true),
            (" updatedAt", OrderField::UpdatedAt, false),
            ("-updatedAt", OrderField::UpdatedAt, true),
            ("+expiresAt", OrderField::ExpiresAt, false),
            ("-expiresAt", OrderField::ExpiresAt, true),
            ("", OrderField::CreatedAt, true),
            ("createdAt", OrderField::CreatedAt, true),
            ("+name", OrderField::CreatedAt, true),
            ("ü", OrderField::CreatedAt, true),
        ] {
            assert_eq!(
                query_of(&[("filter:orderBy", text)]).order,
                Order { field, descending },
                "{text}"
            );
        }
    }

    #[test]
    fn each_range_is_of_its_own_time_and_small_values_are_relative_to_now() {
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
