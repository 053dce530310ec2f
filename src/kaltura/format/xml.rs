//! XML as `api_v3` writes it.

use std::fmt::Write as _;
use std::time::Duration;

use super::value::{Exception, Value};
use crate::model::is_xml_char;

/// What comes before a result.
pub(super) const BEGIN: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><xml><result>";

/// What comes after it.
pub(super) fn end(elapsed: Duration) -> String {
    format!(
        "</result><executionTime>{:.4}</executionTime></xml>",
        elapsed.as_secs_f64()
    )
}

pub(super) fn document(value: &Value, ignore_null: bool, elapsed: Duration) -> Vec<u8> {
    let mut out = String::from(BEGIN);
    write_value(&mut out, value, ignore_null);
    out.push_str(&end(elapsed));
    out.into_bytes()
}

/// An item of a list.
pub(super) fn item(item: &Value, ignore_null: bool) -> Vec<u8> {
    let mut out = String::new();
    write_item(&mut out, item, ignore_null);
    out.into_bytes()
}

fn write_item(out: &mut String, item: &Value, ignore_null: bool) {
    out.push_str("<item>");
    write_value(out, item, ignore_null);
    out.push_str("</item>");
}

fn write_value(out: &mut String, value: &Value, ignore_null: bool) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push(if *flag { '1' } else { '0' }),
        Value::Int(number) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::Text(text) => write_text(out, text),
        Value::List(items) => {
            for item in items {
                write_item(out, item, ignore_null);
            }
        }
        Value::Object(object) => {
            write_element(out, "objectType", object.class);
            for (name, value) in &object.fields {
                if ignore_null && *value == Value::Null {
                    continue;
                }
                let _ = write!(out, "<{name}>");
                write_value(out, value, ignore_null);
                let _ = write!(out, "</{name}>");
            }
        }
        Value::Exception(exception) => write_exception(out, exception),
    }
}

fn write_exception(out: &mut String, exception: &Exception) {
    out.push_str("<error>");
    write_element(out, "code", exception.code);
    write_element(out, "message", &exception.message);
    write_element(out, "objectType", "KalturaAPIException");
    out.push_str("<args>");
    for (name, value) in &exception.args {
        out.push_str("<item>");
        write_element(out, "objectType", "KalturaApiExceptionArg");
        write_element(out, "name", name);
        write_element(out, "value", value);
        out.push_str("</item>");
    }
    out.push_str("</args></error>");
}

fn write_element(out: &mut String, name: &str, text: &str) {
    let _ = write!(out, "<{name}>");
    write_text(out, text);
    let _ = write!(out, "</{name}>");
}

fn write_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            // A parser would turn a bare CR into LF.
            '\r' => out.push_str("&#13;"),
            c if is_xml_char(c) => out.push(c),
            // Nothing that is stored has such characters; the public listener, which refuses nothing, may repeat some.
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}
