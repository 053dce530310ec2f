//! The actions of `shortlink_shortlink`: session, parameters, one call of `links`, answer.

use std::collections::HashMap;

use crate::api::destinations::require_new;
use crate::api::fields::{Field, Fields};
use crate::api::short_link::object::{ObjectForm, wants_clicks};
use crate::api::short_link::patch::{Patch, draft};
use crate::api::short_link::query::query;
use crate::api::short_link::{IN_VALUES_MAX, LINK, SERVICE};
use crate::api::{Api, Caller, Outcome, Params};
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::links::{LinkError, RestoreOutcome, Scope, UpdateError};
use crate::model::validate::{self, FULL_URL, SYSTEM_NAME};
use crate::model::{ID_MAX_BYTES, LinkId, ShortLink, Status};

impl Api {
    pub(in crate::api) async fn add(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let form = ObjectForm::from_params(params)?;
        let fields = Fields::required(params, LINK)?;
        let draft = draft(&fields, &session)?;
        require_new(&self.destinations, &draft.full_url)?;
        Ok(form
            .object(&self.links.add(draft, caller.actor(&session)).await?)
            .into())
    }

    pub(in crate::api) async fn get(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let form = ObjectForm::from_params(params)?;
        let scope = Scope::of(&session);
        let found = if wants_clicks(params)? {
            let found = self.links.get_with_usage(id, scope).await;
            found.map(|(link, usage)| form.object_with_usage(&link, &usage))
        } else {
            self.links.get(id, &scope).await.map(|link| form.object(&link))
        };
        Ok(found.map_err(|error| naming(text, error))?.into())
    }

    pub(in crate::api) async fn update(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let form = ObjectForm::from_params(params)?;
        let fields = Fields::required(params, LINK)?;
        // What is too short for a text is too short for null.
        for rule in [SYSTEM_NAME, FULL_URL] {
            if fields.field(rule.field)? == Field::Null {
                return Err(ApiError::MinLength {
                    property: rule.field,
                    length: rule.min_bytes,
                });
            }
        }
        let mut patch = Patch::from_fields(&fields)?;
        patch.refusal = patch
            .full_url
            .as_ref()
            .and_then(|url| require_new(&self.destinations, url).err());
        let kind = session.kind;
        let sees_start = form.with_start || patch.starts_at.is_some();
        let edit = move |stored: &ShortLink| {
            let link = patch.apply(stored, kind)?;
            // Clients of Kaltura do not see the start, and may end a link before it.
            if sees_start && link.expires_at != stored.expires_at {
                validate::validity(link.starts_at, link.expires_at).map_err(LinkError::from)?;
            }
            Ok::<_, ApiError>(link)
        };
        let updated = self
            .links
            .update(id, Scope::of(&session), caller.actor(&session), edit)
            .await;
        let updated = updated.map_err(|error| match error {
            UpdateError::Link(error) => naming(text, error),
            UpdateError::Refused(refusal) => refusal,
        });
        Ok(form.object(&updated?).into())
    }

    pub(in crate::api) async fn delete(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let form = ObjectForm::from_params(params)?;
        let deleted = self.links.delete(id, Scope::of(&session), caller.actor(&session)).await;
        let deleted = deleted.map_err(|error| naming(text, error))?;
        Ok(form.object(&deleted.link).into())
    }

    /// tinyd's own: for a link that went to the wrong people.
    pub(in crate::api) async fn renew_id(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let form = ObjectForm::from_params(params)?;
        let renewed = self
            .links
            .renew_id(id, Scope::of(&session), caller.actor(&session))
            .await;
        Ok(form.object(&renewed.map_err(|error| naming(text, error))?).into())
    }

    /// tinyd's own: Kaltura's operators edit their database.
    pub(in crate::api) async fn restore(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "restore").await?;
        let (text, id) = link_id(params)?;
        let form = ObjectForm::from_params(params)?;
        let restored = self.links.restore(id, session.partner, caller.actor(&session)).await;
        Ok(form.object(&restored.map_err(|error| naming(text, error))?).into())
    }

    /// tinyd's own: as `restore`, for several links. A link that cannot be restored does not stop the others.
    pub(in crate::api) async fn restore_many(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "restoreMany").await?;
        let texts: Vec<_> = params
            .required("ids")?
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .collect();
        if texts.len() > IN_VALUES_MAX {
            return Err(ApiError::invalid("ids", format!("at most {IN_VALUES_MAX} at once")));
        }
        let dry_run = params.flag("dryRun")?;
        let ids = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let by = caller.actor(&session);
        let restored = self.links.restore_all(ids, session.partner, dry_run, by).await?;
        let outcomes: HashMap<_, _> = restored
            .iter()
            .map(|(id, outcome)| (id.as_str(), *outcome))
            .rev()
            .collect();
        let result = |text: &&str| {
            // What cannot be an id is the id of no link.
            let outcome = outcomes.get(text).copied().unwrap_or(RestoreOutcome::Unknown);
            let (outcome, status) = match outcome {
                RestoreOutcome::Restored => ("restored", Some(Status::Enabled)),
                RestoreOutcome::Already(status) => ("notDeleted", Some(status)),
                RestoreOutcome::Retired => ("retired", Some(Status::Deleted)),
                RestoreOutcome::UniqueIdTaken => ("uniqueIdTaken", Some(Status::Deleted)),
                RestoreOutcome::Unknown => ("unknown", None),
                RestoreOutcome::Damaged => ("damaged", None),
            };
            // An id that is too long is cut.
            let (id, _) = text.split_at(text.floor_char_boundary(ID_MAX_BYTES));
            let status = status.map_or(Value::Null, |status| Value::Int(status.number().into()));
            let fields = vec![
                ("id", Value::text(id)),
                ("outcome", Value::text(outcome)),
                ("status", status),
            ];
            Value::object("TinydRestoredLink", fields)
        };
        Ok(Value::List(texts.iter().map(result).collect()).into())
    }

    pub(in crate::api) async fn list(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let form = ObjectForm::from_params(params)?;
        let query = query(params, &session, self.links.clock().now())?;
        let (objects, total, turn) = if wants_clicks(params)? {
            let ((listing, usages), turn) = self.links.list_with_usage(query, &caller.reading).await?;
            let links = listing.links.iter().zip(&usages);
            let objects = links.map(|(link, usage)| form.object_with_usage(link, usage)).collect();
            (objects, listing.total, turn)
        } else {
            let (listing, turn) = self.links.list(query, &caller.reading).await?;
            (
                listing.links.iter().map(|link| form.object(link)).collect(),
                listing.total,
                turn,
            )
        };
        let fields = vec![
            ("objects", Value::List(objects)),
            ("totalCount", Value::Int(i64::try_from(total).unwrap_or(i64::MAX))),
        ];
        let listing = Value::object("KalturaShortLinkListResponse", fields);
        Ok(Outcome::Value(listing, Some(turn)))
    }
}

/// The parameter `id`: its text for errors, and the id. What cannot be an id is the id of no link.
fn link_id(params: &Params) -> Result<(&str, LinkId), ApiError> {
    let text = params.required("id")?;
    let id = text
        .parse()
        .map_err(|_| ApiError::InvalidObjectId { id: text.to_owned() })?;
    Ok((text, id))
}

fn naming(id: &str, error: LinkError) -> ApiError {
    match error {
        LinkError::NotFound => ApiError::InvalidObjectId { id: id.to_owned() },
        LinkError::Retired => ApiError::RetiredShortLink { id: id.to_owned() },
        error => error.into(),
    }
}
