//! The tree of which every answer consists.

/// A result, before it is written in a format.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    Null,
    /// 1 or 0 in XML.
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Value>),
    Object(Object),
    /// In the place of a result.
    Exception(Exception),
}

/// An object of the API: its class name and its fields in output order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `objectType`.
    pub class: &'static str,
    /// Names and values, in the order of docs/kaltura-api.md#kalturashortlink.
    pub fields: Vec<(&'static str, Value)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// A code of docs/kaltura-api.md#error-codes.
    pub code: &'static str,
    /// The message with its arguments filled in.
    pub message: String,
    pub args: Vec<(&'static str, String)>,
}

impl Value {
    pub const fn object(class: &'static str, fields: Vec<(&'static str, Self)>) -> Self {
        Self::Object(Object { class, fields })
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn memory_bytes(&self) -> usize {
        let held = match self {
            Self::Null | Self::Bool(_) | Self::Int(_) => 0,
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(Self::memory_bytes).sum(),
            Self::Object(Object { fields, .. }) => fields
                .iter()
                .map(|(name, value)| size_of_val(*name) + value.memory_bytes())
                .sum(),
            Self::Exception(exception) => {
                exception.message.len() + exception.args.iter().map(|(_, value)| value.len()).sum::<usize>()
            }
        };
        size_of::<Self>() + held
    }

    pub fn optional_text(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::text)
    }
}
