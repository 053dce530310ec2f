//! Which fields of a link a client wants (`KalturaDetachedResponseProfile`).

use std::collections::BTreeSet;

use crate::api::fields::Fields;
use crate::api::params::{Param, Params};
use crate::api::short_link::object::LINK_CLASS;
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;

/// The parameter that holds a profile.
const PROFILE: &str = "responseProfile";
/// `KalturaResponseProfileType`.
const INCLUDE_FIELDS: i64 = 1;
const EXCLUDE_FIELDS: i64 = 2;

/// Names of fields that a profile may list; those behind have no effect.
const NAMES_MAX: usize = 1_000;
/// Longer than the name of any field of a link.
const NAME_MAX_BYTES: usize = 32;

/// The fields of links that a client wants, or does not.
#[derive(Debug)]
pub struct Profile {
    fields: BTreeSet<String>,
    includes: bool,
}

impl Profile {
    /// The profile of a call; `None` if it has none of its own. One that is kept on Kaltura's server, by its id or
    /// name, is not known here.
    pub fn from_params(params: &Params) -> Result<Option<Self>, ApiError> {
        if !matches!(params.get(PROFILE), Some(Param::Object(_))) {
            return Ok(None);
        }
        let profile = Fields::new(params, PROFILE)?;
        let includes = match profile.integer("type")? {
            None => return Ok(None),
            Some(INCLUDE_FIELDS) => true,
            Some(EXCLUDE_FIELDS) => false,
            Some(other) => {
                return Err(ApiError::InvalidEnum {
                    value: other.to_string(),
                    name: profile.name("type"),
                    kind: "KalturaResponseProfileType",
                });
            }
        };
        let fields = profile.text("fields")?.unwrap_or("").split(',');
        // No field has a longer name, and no link so many.
        let fields = fields.map(str::trim).filter(|field| field.len() <= NAME_MAX_BYTES);
        let fields = fields.take(NAMES_MAX).map(str::to_owned).collect();
        Ok(Some(Self { fields, includes }))
    }

    /// Sets the fields of links that are not wanted to null, as Kaltura does: of the formats, XML alone shows them.
    pub fn apply(&self, value: &mut Value) {
        match value {
            Value::Object(object) if object.class == LINK_CLASS => {
                for (name, value) in &mut object.fields {
                    if self.fields.contains(*name) != self.includes {
                        *value = Value::Null;
                    }
                }
            }
            Value::Object(object) => object.fields.iter_mut().for_each(|(_, value)| self.apply(value)),
            Value::List(items) => items.iter_mut().for_each(|item| self.apply(item)),
            _ => {}
        }
    }
}
