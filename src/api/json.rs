//! Parameters written as JSON. They are put into their tree while they are read: a tree of JSON values beside it
//! would take a hundred times the memory of the text.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::api::params::{Param, Params, check_characters, check_depth, check_name, split_key, text_of};
use crate::kaltura::ApiError;

/// Adds the fields of a JSON object, which errors call `name`. Reads on after a fault.
pub(super) fn insert(params: &mut Params, name: &str, text: &[u8]) -> Result<(), ApiError> {
    let mut deserializer = serde_json::Deserializer::from_str(text_of(name, text)?);
    let read = deserializer.deserialize_map(Root(params));
    match read.and_then(|inserted| deserializer.end().map(|()| inserted)) {
        Ok(inserted) => inserted,
        Err(error) if error.is_data() => Err(ApiError::invalid(name, "expected one JSON object")),
        // The error speaks of lines and columns, and does not repeat the text.
        Err(error) => Err(ApiError::invalid(name, format!("broken JSON: {error}"))),
    }
}

/// Whether the tree took a value. Errors of the syntax are serde's.
type Inserted = Result<(), ApiError>;

/// The whole text.
struct Root<'p>(&'p mut Params);

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Inserted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inserted, A::Error> {
        let mut all = Ok(());
        while let Some(key) = map.next_key::<String>()? {
            let mut above = Vec::new();
            let node = Node {
                params: self.0,
                above: &mut above,
                key,
            };
            all = all.and(map.next_value_seed(node)?);
        }
        Ok(all)
    }
}

/// A value and its place.
struct Node<'p> {
    params: &'p mut Params,
    /// The names of the objects around it.
    above: &'p mut Vec<String>,
    key: String,
}

impl Node<'_> {
    /// Makes the way to a value: as deep as the tree may be, so that the recursion is as bounded.
    fn enter(&mut self) -> Inserted {
        check_name(&self.key)?;
        let names = split_key(&self.key);
        check_depth(self.above.len() + names.len(), &self.key)?;
        self.above.extend(names.into_iter().map(str::to_owned));
        Ok(())
    }

    fn text(mut self, text: &str) -> Inserted {
        self.enter()?;
        check_characters(&self.key, text)?;
        let path: Vec<&str> = self.above.iter().map(String::as_str).collect();
        self.params.insert_param(&path, &self.key, Param::Text(text.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Inserted;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Inserted, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Inserted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// Null means absent.
    fn visit_unit<E: Error>(mut self) -> Result<Inserted, E> {
        Ok(self.enter())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Inserted, E> {
        Ok(self.text(if flag { "1" } else { "0" }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Inserted, E> {
        Ok(self.text(&number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Inserted, E> {
        Ok(self.text(&number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Inserted, E> {
        // As JSON writes it. JSON has none that is not finite.
        let text = Number::from_f64(number).map_or_else(String::new, |number| number.to_string());
        Ok(self.text(&text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Inserted, E> {
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Inserted, A::Error> {
        let depth = self.above.len();
        let mut inserted = self.enter();
        let mut position = 0;
        while inserted.is_ok() {
            let inner = self.above.len();
            let node = Node {
                params: self.params,
                above: self.above,
                key: position.to_string(),
            };
            let Some(item) = items.next_element_seed(node)? else {
                break;
            };
            self.above.truncate(inner);
            (inserted, position) = (item, position + 1);
        }
        // After an error, reads the rest for its syntax only.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.above.truncate(depth);
        Ok(inserted)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Inserted, A::Error> {
        let depth = self.above.len();
        let mut inserted = self.enter();
        let mut is_empty = true;
        while inserted.is_ok() {
            let Some(key) = map.next_key::<String>()? else { break };
            is_empty = false;
            let inner = self.above.len();
            let node = Node {
                params: self.params,
                above: self.above,
                key,
            };
            inserted = map.next_value_seed(node)?;
            self.above.truncate(inner);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        if is_empty && inserted.is_ok() {
            // An object without fields is still there.
            inserted = self.params.insert_object(self.above, &self.key);
        }
        self.above.truncate(depth);
        Ok(inserted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::{PARAMETER_BYTES, PARAMETERS_MAX};

    #[test]
    fn hostile_json_takes_little_more_memory_than_its_text() {
        const TEXT_BYTES: usize = 1_000_000;
        for unit in ["0,", "{},", "[],", r#"{"":0},"#, "null,", r#""","#, "[[[[]]]],", "1e9,"] {
            let items = unit.repeat(TEXT_BYTES / unit.len());
            let text = format!(r#"{{"a":[{}]}}"#, items.trim_end_matches(','));
            let info = allocation_counter::measure(|| {
                // Whether it is refused, or there is nothing in it, does not matter here.
                let _ = insert(&mut Params::default(), "body", text.as_bytes());
            });
            let most = 2 * TEXT_BYTES + PARAMETERS_MAX * PARAMETER_BYTES;
            assert!(info.bytes_max < most as u64, "{unit}: {} bytes", info.bytes_max);
        }
    }

    #[test]
    fn what_comes_after_an_error_is_still_read() {
        let many = vec!["0"; PARAMETERS_MAX + 1].join(",");
        let mut params = Params::default();
        let error = insert(
            &mut params,
            "body",
            format!(r#"{{"a":["\u0001", {{}}], "format":1, "b":[{many}]}}"#).as_bytes(),
        );
        assert_eq!(error.unwrap_err().exception().code, "INVALID_PARAMETER_CHAR");
        assert_eq!(params.text("format").unwrap(), Some("1"));
        for (text, reason) in [
            ("[]", "expected one JSON object"),
            ("1", "expected one JSON object"),
            ("{} {}", "broken JSON"),
            (r#"{"a":"#, "broken JSON"),
            (r#"{"a":[1,}"#, "broken JSON"),
            ("", "broken JSON"),
        ] {
            let error = insert(&mut Params::default(), "body", text.as_bytes()).unwrap_err();
            assert!(error.exception().args[1].1.contains(reason), "{text}: {error:?}");
        }
    }
}
