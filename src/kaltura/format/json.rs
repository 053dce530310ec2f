//! JSON and JSONP.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use super::value::{Exception, Object, Value};

pub(super) fn document(value: &Value) -> Vec<u8> {
    // Writing to memory cannot fail, and every key is a text.
    serde_json::to_vec(value).unwrap_or_default()
}

/// `CALLBACK(JSON);`.
pub(super) fn call(callback: &str, value: &Value) -> Vec<u8> {
    format!("{callback}({});", in_script(value)).into_bytes()
}

/// JSON with the two line separators escaped that it allows and older JavaScript does not, and `<`, so that no text
/// ends the script element or opens a comment in it.
pub(super) fn in_script(value: &Value) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
        .replace('<', "\\u003c")
}

/// An item of a list that has this many before it.
pub(super) fn item(before: usize, mut json: Vec<u8>) -> Vec<u8> {
    if before > 0 {
        json.insert(0, b',');
    }
    json
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.fields {
            if *value != Value::Null {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("objectType", self.class)?;
        map.end()
    }
}

impl Serialize for Exception {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("code", self.code)?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("objectType", "KalturaAPIException")?;
        map.serialize_entry("args", &Args(&self.args))?;
        map.end()
    }
}

struct Args<'a>(&'a [(&'static str, String)]);

impl Serialize for Args<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            // As PHP writes an empty array.
            return serializer.serialize_seq(Some(0))?.end();
        }
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
