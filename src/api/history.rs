//! What has happened to links, from the service `tinyd`: clicks by day.

use crate::api::transfer::SERVICE;
use crate::api::{Api, Caller, Outcome, Params};
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::kaltura::session::Kind;
use crate::links::{LinkError, Scope};
use crate::model::DailyUsage;

const CLICKS_BY_DAY: &str = "clicksByDay";

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

fn object(used: &DailyUsage) -> Value {
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let fields = vec![
        ("day", Value::Int(used.day.start().as_unix())),
        ("clicks", count(used.clicks)),
        ("previews", count(used.previews)),
    ];
    Value::object("TinydDailyUsage", fields)
}
