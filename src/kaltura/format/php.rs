//! PHP's `serialize()` format: objects by class name, exceptions and lists as arrays.

use super::value::{Exception, Object, Value};

pub(super) fn document(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"N;"),
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"b:1;" } else { b"b:0;" }),
        Value::Int(number) => out.extend_from_slice(format!("i:{number};").as_bytes()),
        Value::Text(text) => write_text(out, text),
        Value::List(items) => {
            out.extend_from_slice(format!("a:{}:{{", items.len()).as_bytes());
            for (index, item) in items.iter().enumerate() {
                write_item(out, index, item);
            }
            out.push(b'}');
        }
        Value::Object(object) => write_object(out, object),
        Value::Exception(exception) => write_exception(out, exception),
    }
}

/// An item of a list, at its position.
pub(super) fn item(index: usize, item: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_item(&mut out, index, item);
    out
}

fn write_item(out: &mut Vec<u8>, index: usize, item: &Value) {
    out.extend_from_slice(format!("i:{index};").as_bytes());
    write_value(out, item);
}

/// Lengths are counted in bytes, as PHP does.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("s:{}:\"{text}\";", text.len()).as_bytes());
}

fn write_object(out: &mut Vec<u8>, object: &Object) {
    let present = || object.fields.iter().filter(|(_, value)| *value != Value::Null);
    let class = object.class;
    out.extend_from_slice(format!("O:{}:\"{class}\":{}:{{", class.len(), present().count()).as_bytes());
    for (name, value) in present() {
        write_text(out, name);
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_exception(out: &mut Vec<u8>, exception: &Exception) {
    out.extend_from_slice(b"a:4:{");
    for (name, text) in [
        ("code", exception.code),
        ("message", exception.message.as_str()),
        ("objectType", "KalturaAPIException"),
    ] {
        write_text(out, name);
        write_text(out, text);
    }
    write_text(out, "args");
    out.extend_from_slice(format!("a:{}:{{", exception.args.len()).as_bytes());
    for (name, value) in &exception.args {
        write_text(out, name);
        write_text(out, value);
    }
    out.extend_from_slice(b"}}");
}
