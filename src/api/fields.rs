//! Reading the fields of an object parameter, with errors that name them.

use crate::api::params::{Param, Params};
use crate::kaltura::ApiError;
use crate::model::validate;
use crate::model::{PartnerId, whole_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Absent,
    /// `NAME__null`.
    Null,
    Text(&'a str),
}

/// The fields of one object parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    object: &'a str,
    params: Option<&'a Params>,
}

impl<'a> Fields<'a> {
    /// The fields of the parameter `object`, which may be absent.
    pub(super) fn new(params: &'a Params, object: &'a str) -> Result<Self, ApiError> {
        let params = match params.get(object) {
            None => None,
            Some(Param::Object(params)) => Some(params),
            // How form clients write an object without fields.
            Some(Param::Text(text)) if text.is_empty() => None,
            Some(Param::Text(_)) => return Err(ApiError::invalid(object, "expected an object, not a text")),
            Some(Param::Refused(fault)) => return Err((**fault).clone()),
        };
        Ok(Self { object, params })
    }

    /// The fields of the parameter `object`, which must be there.
    pub(super) fn required(params: &'a Params, object: &'a str) -> Result<Self, ApiError> {
        let fields = Self::new(params, object)?;
        fields.params.ok_or_else(|| ApiError::missing(object))?;
        Ok(fields)
    }

    /// The name of a field as errors give it.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}:{field}", self.object)
    }

    pub(super) fn field(&self, name: &str) -> Result<Field<'a>, ApiError> {
        let Some(params) = self.params else {
            return Ok(Field::Absent);
        };
        if params.get(&format!("{name}__null")).is_some() {
            return Ok(Field::Null);
        }
        let text = params.get(name).map(|param| param.text(&self.name(name))).transpose()?;
        Ok(text.map_or(Field::Absent, Field::Text))
    }

    /// The text of a field, if it is given, not null and not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        Ok(match self.field(name)? {
            Field::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        })
    }

    /// Likewise, its number.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.text(name)?
            .map(|text| parse_integer(&self.name(name), text))
            .transpose()
    }
}

pub(super) fn parse_integer(name: &str, text: &str) -> Result<i64, ApiError> {
    whole_number(text).ok_or_else(|| ApiError::invalid(name, "expected a whole number of at most 64 bits"))
}

/// Reads the number of a partner; `None` if it can be no partner's.
pub(super) fn parse_partner(text: &str) -> Option<PartnerId> {
    validate::partner_id(whole_number(text)?)
}
