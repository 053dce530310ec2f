//! Parameters: a tree of texts, in any spelling (docs/kaltura-api.md#parameters).

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::kaltura::{ApiError, ParameterSource};
use crate::model::is_xml_char;
use crate::model::validate::without_byte_order_mark;

/// Parameters of one request at most: a multirequest of 200 calls with 25 each.
pub(super) const PARAMETERS_MAX: usize = 5_000;
/// Bytes of memory that a parameter takes at most beside its text: an object of its own, with room for ten more.
pub(super) const PARAMETER_BYTES: usize = 1024;
/// Levels of nesting at most: a filter in a call of a multirequest has three.
const DEPTH_MAX: usize = 10;

/// Longest name of a parameter, in bytes. A long one would be copied for everything that is nested in it.
const NAME_MAX_BYTES: usize = 256;
/// The part of a longer one that an error repeats.
const NAME_SHOWN_BYTES: usize = 64;

/// A parameter: a text, or parameters of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    Text(String),
    /// An object or a list; a list's keys are its positions.
    Object(Params),
    /// Broken, and why: refuses only the actions that read it.
    Refused(Box<ApiError>),
}

impl Param {
    /// Its text; `name` is for errors.
    pub(super) fn text(&self, name: &str) -> Result<&str, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Object(_) => Err(ApiError::invalid(name, "expected a text, not an object")),
            Self::Refused(fault) => Err((**fault).clone()),
        }
    }
}

/// Parameters by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    pub(super) named: BTreeMap<String, Param>,
    // At the root only.
    count: usize,
}

impl Params {
    /// Adds a parameter whose name and value are percent-encoded as where it came from. A parameter of the same name is
    /// replaced; objects are merged.
    pub fn insert_encoded(&mut self, source: ParameterSource, key: &str, value: &str) -> Result<(), ApiError> {
        let key = decode(source, key, key)?;
        let value = decode(source, &key, value)?;
        self.insert(&key, value)
    }

    /// As [`Params::insert_encoded`], for a parameter of a URL: a broken one refuses only the actions that read it,
    /// because URLs come with many that none does.
    pub fn insert_of_url(&mut self, source: ParameterSource, key: &str, value: &str) -> Result<(), ApiError> {
        let Ok(key) = decode(source, key, key).and_then(|key| check_name(&key).map(|()| key)) else {
            return Ok(());
        };
        let value = decode(source, &key, value).and_then(|value| check_characters(&key, &value).map(|()| value));
        let param = match value {
            Ok(text) => Param::Text(text),
            Err(fault) => Param::Refused(Box::new(fault)),
        };
        self.insert_param(&split_key(&key), &key, param)
    }

    /// Adds a parameter whose name may be nested: `a[b]` and `a:b` are one.
    pub fn insert(&mut self, key: &str, value: String) -> Result<(), ApiError> {
        check_name(key)?;
        check_characters(key, &value)?;
        self.insert_param(&split_key(key), key, Param::Text(value))
    }

    pub(super) fn insert_param(&mut self, path: &[&str], key: &str, param: Param) -> Result<(), ApiError> {
        check_depth(path.len(), key)?;
        self.count_one(key)?;
        let Some((last, objects)) = path.split_last() else {
            return Ok(());
        };
        let at = objects.iter().fold(self, |at, name| at.object_at(name));
        // `a[]` is the next position of a list.
        let name = if last.is_empty() {
            at.named.len().to_string()
        } else {
            (*last).to_owned()
        };
        at.named.insert(name, param);
        Ok(())
    }

    fn count_one(&mut self, key: &str) -> Result<(), ApiError> {
        self.count += 1;
        if self.count > PARAMETERS_MAX {
            return Err(too_many_parameters(key));
        }
        Ok(())
    }

    /// Adds an object without fields.
    pub(super) fn insert_object(&mut self, path: &[String], key: &str) -> Result<(), ApiError> {
        self.count_one(key)?;
        path.iter().fold(self, |at, name| at.object_at(name));
        Ok(())
    }

    /// The object with this name. Replaces anything else.
    fn object_at(&mut self, name: &str) -> &mut Self {
        if !matches!(self.get(name), Some(Param::Object(_))) {
            self.set(name, Param::Object(Self::default()));
        }
        match self.named.get_mut(name) {
            Some(Param::Object(object)) => object,
            _ => unreachable!("an object has just replaced anything else"),
        }
    }

    /// Bytes of memory that the tree takes beside its texts.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.count * PARAMETER_BYTES
    }

    /// Puts other parameters over these: texts replace, objects are merged.
    pub fn merge(&mut self, over: Self) {
        for (name, param) in over.named {
            match (self.named.get_mut(&name), param) {
                (Some(Param::Object(below)), Param::Object(above)) => below.merge(above),
                (_, param) => self.set(&name, param),
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Param> {
        self.named.get(name)
    }

    pub fn set(&mut self, name: &str, param: Param) {
        self.named.insert(name.to_owned(), param);
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.get(name).map(|param| param.text(name)).transpose()
    }

    /// The text with this name, if it is there and not empty.
    pub fn given(&self, name: &str) -> Result<Option<&str>, ApiError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// Whether a switch of tinyd's own is on; without a value it is off.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)?.map(str::to_ascii_lowercase).as_deref() {
            Some("1" | "true") => Ok(true),
            None | Some("" | "0" | "false") => Ok(false),
            // Kaltura takes it for false, but a dry run must never write.
            Some(_) => Err(ApiError::invalid(name, "expected true or false, 1 or 0")),
        }
    }

    /// The text with this name, which must not be empty.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.given(name)?.ok_or_else(|| ApiError::missing(name))
    }
}

/// Splits a name at its colons and brackets. A name whose brackets do not fit stays whole.
pub(super) fn split_key(key: &str) -> Vec<&str> {
    let (front, brackets) = match key.find('[') {
        Some(start) if start > 0 => key.split_at(start),
        _ => (key, ""),
    };
    let mut names: Vec<&str> = front.split(':').collect();
    let mut rest = brackets;
    while let Some(opened) = rest.strip_prefix('[') {
        let Some((name, after)) = opened.split_once(']') else {
            return vec![key];
        };
        names.push(name);
        rest = after;
    }
    if rest.is_empty() { names } else { vec![key] }
}

pub(super) fn check_depth(levels: usize, key: &str) -> Result<(), ApiError> {
    if levels > DEPTH_MAX {
        return Err(ApiError::invalid(key, format!("nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() > NAME_MAX_BYTES {
        let (shown, _) = name.split_at(name.floor_char_boundary(NAME_SHOWN_BYTES));
        let reason = format!("its name has {} bytes, more than {NAME_MAX_BYTES}", name.len());
        return Err(ApiError::invalid(printable(shown), reason));
    }
    check_characters(name, name)
}

pub(super) fn check_characters(field: &str, text: &str) -> Result<(), ApiError> {
    if text.chars().all(is_xml_char) {
        return Ok(());
    }
    Err(invalid_char(field))
}

fn invalid_char(name: &str) -> ApiError {
    let field = printable(name);
    ApiError::InvalidChar { field }
}

/// The name without characters that cannot be shown.
fn printable(name: &str) -> String {
    name.chars().filter(|&c| is_xml_char(c)).collect()
}

pub(super) fn too_many_parameters(name: &str) -> ApiError {
    ApiError::invalid(name, format!("a request has at most {PARAMETERS_MAX} parameters"))
}

/// The text of a parameter or body, without the byte order mark that some clients put before it.
pub(super) fn text_of<'t>(name: &str, bytes: &'t [u8]) -> Result<&'t str, ApiError> {
    let text = std::str::from_utf8(without_byte_order_mark(bytes));
    text.map_err(|_| ApiError::InvalidChar { field: name.to_owned() })
}

/// Undoes percent-encoding, and in a query or form `+`. Unlike the public listener, the API is strict: a value that
/// was cut off or encoded wrongly must not be stored.
fn decode(source: ParameterSource, field: &str, text: &str) -> Result<String, ApiError> {
    let bytes = text.as_bytes();
    let broken = bytes.iter().enumerate().any(|(position, &byte)| {
        let digits = bytes.get(position + 1..position + 3);
        byte == b'%' && !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        let reason = "broken percent-encoding: % must be followed by two hexadecimal digits";
        return Err(ApiError::invalid(field, reason));
    }
    let spaced = match source {
        ParameterSource::Query => text.replace('+', " "),
        ParameterSource::Path => text.to_owned(),
    };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| invalid_char(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    fn tree(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        for (key, value) in pairs {
            params.insert_encoded(ParameterSource::Query, key, value).unwrap();
        }
        params
    }

    fn json(text: &str) -> Result<Params, ApiError> {
        let mut params = Params::default();
        crate::api::json::insert(&mut params, "json", text.as_bytes())?;
        Ok(params)
    }

    fn named(params: &Params) -> &BTreeMap<String, Param> {
        &params.named
    }

    #[test]
    fn the_three_spellings_are_one() {
        let brackets = tree(&[("shortLink[fullUrl]", "https%3A%2F%2Fe.example"), ("1[a][b]", "c+d")]);
        let colons = tree(&[("shortLink:fullUrl", "https://e.example"), ("1:a:b", "c d")]);
        let mixed = tree(&[("shortLink[fullUrl]", "https://e.example"), ("1:a[b]", "c d")]);
        let nested = json(r#"{"shortLink": {"fullUrl": "https://e.example"}, "1": {"a": {"b": "c d"}}}"#).unwrap();
        let keys = json(r#"{"shortLink:fullUrl": "https://e.example", "1": {"a[b]": "c d"}}"#).unwrap();
        for other in [&colons, &mixed, &nested, &keys] {
            assert_eq!(named(&brackets), named(other));
        }
    }

    #[test]
    fn json_scalars_stand_for_texts_and_null_for_nothing() {
        let params = json(r#"{"a": 2, "b": true, "c": false, "d": null, "e": [7, "x"], "f": {}, "g": -1}"#).unwrap();
        let mut expected = tree(&[
            ("a", "2"),
            ("b", "1"),
            ("c", "0"),
            ("e[0]", "7"),
            ("e[1]", "x"),
            ("g", "-1"),
        ]);
        expected.set("f", Param::Object(Params::default()));
        assert_eq!(named(&params), named(&expected));
    }

    #[test]
    fn later_parameters_win_and_objects_merge() {
        let params = tree(&[
            ("a[b]", "1"),
            ("a[c]", "2"),
            ("a[b]", "3"),
            ("x", "4"),
            ("x[y]", "5"),
            ("l[]", "6"),
            ("l[]", "7"),
        ]);
        assert_eq!(
            named(&params),
            named(&tree(&[
                ("a:b", "3"),
                ("a:c", "2"),
                ("x:y", "5"),
                ("l:0", "6"),
                ("l:1", "7")
            ]))
        );
    }

    #[test]
    fn names_with_unbalanced_brackets_stay_whole() {
        for key in ["a[b", "a[b]c", "[a]", "a]b"] {
            assert_eq!(split_key(key), [key]);
        }
    }

    #[test]
    fn what_is_broken_is_named() {
        let mut params = Params::default();
        for (key, value, code) in [
            ("name", "100%", "INVALID_PARAMETER_VALUE"),
            ("name", "%zz", "INVALID_PARAMETER_VALUE"),
            ("name", "%4", "INVALID_PARAMETER_VALUE"),
            ("name", "%ff", "INVALID_PARAMETER_CHAR"),
            ("name", "%00", "INVALID_PARAMETER_CHAR"),
            ("name", "%08", "INVALID_PARAMETER_CHAR"),
            ("name", "%EF%BF%BF", "INVALID_PARAMETER_CHAR"),
            ("%01", "x", "INVALID_PARAMETER_CHAR"),
            ("a[b][c][d][e][f][g][h][i][j][k]", "x", "INVALID_PARAMETER_VALUE"),
        ] {
            let fault = params.insert_encoded(ParameterSource::Query, key, value).unwrap_err();
            assert_eq!(fault.exception().code, code, "{key}={value}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(11), "}".repeat(11));
        assert!(json(&deep).is_err());
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        assert!(params.insert(&long, String::new()).is_err());
        assert!(json(&format!("{{\"{long}\": {{\"a\": 1}}}}")).is_err());
        assert!(params.insert(&long[1..], String::new()).is_ok());
        assert!((0..=PARAMETERS_MAX).any(|n| params.insert(&n.to_string(), String::new()).is_err()));
    }

    #[test]
    fn names_take_work_in_proportion() {
        let make = |size| {
            let deep = [
                &"a".repeat(size),
                &":a".repeat(size),
                &"[a]".repeat(size),
                &"[".repeat(size),
            ]
            .map(String::clone);
            let many = (0..size).map(|number| format!("a[{}]", number % 50));
            deep.into_iter()
                .chain(many)
                .chain(vec!["l[]".to_owned(); size])
                .collect::<Vec<_>>()
        };
        assert_is_linear(100, make, |names| {
            let mut params = Params::default();
            for name in names {
                let _ = params.insert_encoded(ParameterSource::Query, &name, "%41+b");
            }
        });
    }

    #[test]
    fn a_long_name_is_not_copied_for_what_is_nested_in_it() {
        const BYTES: usize = 20_000;
        let leaves: serde_json::Map<_, _> = (0..BYTES / 10).map(|number| (number.to_string(), "x".into())).collect();
        let object = serde_json::Map::from_iter([("a".repeat(BYTES), leaves.into())]);
        let text = serde_json::to_vec(&object).unwrap();
        let used =
            allocation_counter::measure(|| drop(crate::api::json::insert(&mut Params::default(), "json", &text)));
        assert!(used.bytes_total <= 100 * BYTES as u64, "{used:?}");
    }

    proptest! {
        #[test]
        fn parsing_is_total(key in "\\PC{0,20}|[a\\[\\]:]{0,20}", value in ".{0,20}|[%+0-9a-f]{0,8}") {
            let mut params = Params::default();
            let _ = params.insert_encoded(ParameterSource::Query, &key, &value);
            let _ = params.insert_encoded(ParameterSource::Path, &key, &value);
            let _ = params.insert(&key, value);
        }

        #[test]
        fn what_is_serialized_parses_back(
            pairs in proptest::collection::btree_map("[a-z]{1,5}", ("[a-z]{1,5}", "[ -~äß日\n]{0,12}"), 0..6),
        ) {
            let mut form = form_urlencoded::Serializer::new(String::new());
            let mut object = serde_json::Map::new();
            for (name, (inner, value)) in &pairs {
                form.append_pair(&format!("{name}[{inner}]"), value);
                object.insert(name.clone(), serde_json::json!({inner.as_str(): value}));
            }
            let (form, mut parsed, mut nested) = (form.finish(), Params::default(), Params::default());
            for pair in form.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap();
                parsed.insert_encoded(ParameterSource::Query, key, value).unwrap();
            }
            crate::api::json::insert(&mut nested, "json", serde_json::Value::Object(object).to_string().as_bytes())
                .unwrap();
            prop_assert_eq!(named(&parsed), named(&nested));
            for (name, (inner, value)) in &pairs {
                let Some(Param::Object(object)) = parsed.get(name) else { panic!("no object") };
                prop_assert_eq!(object.text(inner).unwrap(), Some(value.as_str()));
            }
        }
    }
}
