//! What has happened to links, from the service `tinyd`: clicks by day, and the audit log.

use crate::api::fields::parse_integer;
use crate::api::transfer::SERVICE;
use crate::api::{Api, Caller, Outcome, Params};
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::kaltura::session::Kind;
use crate::links::{LinkError, Scope};
use crate::model::{AuditAction, DailyUsage, LinkId, Timestamp};
use crate::store::AuditQuery;

const CLICKS_BY_DAY: &str = "clicksByDay";
const AUDIT: &str = "audit";

impl Api {
    /// The clicks of a link, or of all links of a partner together, on each of the last days.
    pub(super) async fn clicks_by_day(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let days = match params.given("id")? {
            Some(text) => {
                let invalid = || ApiError::InvalidObjectId { id: text.to_owned() };
                let id = text.parse().map_err(|_| invalid())?;
                let days = self.links.clicks_by_day(id, Scope::of(&session)).await;
                days.map_err(|error| match error {
                    LinkError::NotFound => invalid(),
                    error => error.into(),
                })?
            }
            None if session.kind == Kind::User => return Err(ApiError::forbidden(SERVICE, CLICKS_BY_DAY)),
            None => {
                let partner = self.partner_meant(params, &session, CLICKS_BY_DAY)?;
                let partner = partner.unwrap_or(session.partner);
                self.links.clicks_of_partner_by_day(partner).await?
            }
        };
        Ok(Value::List(days.iter().map(object).collect()).into())
    }
}

impl Api {
    /// The audit log as JSON Lines, the newest entries first: those of the session's partner, or for operators, where
    /// no partner is named, all.
    pub(super) async fn audit(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, AUDIT).await?;
        let left = number(params, "limit")?.unwrap_or(u64::MAX);
        let query = AuditQuery {
            partner: self.partner_meant(params, &session, AUDIT)?,
            user: params.given("userId")?.map(str::to_owned),
            id: link(params)?,
            action: change(params)?,
            since: time(params, "since")?,
            until: time(params, "until")?,
            before: number(params, "before")?,
            limit: usize::MAX,
        };
        let response = self.transfers.audit(query, left).await?;
        Ok(Outcome::Response(response))
    }
}

fn link(params: &Params) -> Result<Option<LinkId>, ApiError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| ApiError::InvalidObjectId { id: text.to_owned() })
    };
    params.given("id")?.map(parse).transpose()
}

fn change(params: &Params) -> Result<Option<AuditAction>, ApiError> {
    let Some(text) = params.given("change")? else {
        return Ok(None);
    };
    let known = || AuditAction::ALL.map(AuditAction::name).join(", ");
    let action =
        AuditAction::named(text).ok_or_else(|| ApiError::invalid("change", format!("expected one of {}", known())));
    action.map(Some)
}

fn time(params: &Params, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let text = params.given(name)?;
    Ok(text
        .map(|text| parse_integer(name, text))
        .transpose()?
        .map(Timestamp::from_unix))
}

fn number(params: &Params, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(number) = params.given(name)?.map(|text| parse_integer(name, text)).transpose()? else {
        return Ok(None);
    };
    let number = u64::try_from(number).ok().filter(|number| *number > 0);
    number
        .map(Some)
        .ok_or_else(|| ApiError::invalid(name, "expected a number above 0"))
}

fn object(used: &DailyUsage) -> Value {
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let fields = vec![
        ("day", Value::Int(used.day.start().as_unix())),
        ("clicks", count(used.clicks)),
        ("previews", count(used.previews)),
    ];
    Value::object("TinydDailyUsage", fields)
}
