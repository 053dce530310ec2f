//! One tree of values in every format, against golden files; and every text through every format and back.

use crate::model::is_xml_char;
use std::time::Duration;

use proptest::prelude::*;

use super::value::Object;
use super::*;

/// A multirequest's result with everything that an answer can hold.
fn tree() -> Value {
    let link = Object {
        class: "KalturaShortLink",
        fields: vec![
            ("id", Value::text("67mk41xj")),
            ("createdAt", Value::Int(1_778_429_631)),
            ("expiresAt", Value::Null),
            ("name", Value::text("Übung – 日本 🎬 <b>\"R&D's\"</b>\r\n\tend")),
            ("fullUrl", Value::text("https://www.kaltura.com/a/b?c=d&e=\u{2028}f")),
            ("status", Value::Int(2)),
        ],
    };
    let listing = Object {
        class: "KalturaShortLinkListResponse",
        fields: vec![
            ("objects", Value::List(vec![Value::Object(link.clone())])),
            ("totalCount", Value::Int(1)),
        ],
    };
    let empty = Object {
        class: "KalturaShortLinkListResponse",
        fields: vec![("objects", Value::List(Vec::new())), ("totalCount", Value::Int(0))],
    };
    Value::List(vec![
        Value::Object(link),
        Value::Object(listing),
        Value::Object(empty),
        Value::Exception(Exception {
            code: "INVALID_OBJECT_ID",
            message: "Invalid object id [<none>]".into(),
            args: vec![("ID", "<none>".into())],
        }),
        Value::Exception(Exception {
            code: "MISSING_KS",
            message: "Missing KS, session not established".into(),
            args: Vec::new(),
        }),
        Value::Bool(true),
        Value::Bool(false),
        Value::Null,
        Value::Int(-7),
        Value::text(""),
    ])
}

#[test]
fn a_list_written_item_by_item_is_the_same() {
    let (list, Value::List(items)) = (tree(), tree()) else {
        panic!("not a list")
    };
    for format in [
        Format::Json,
        Format::Xml { ignore_null: false },
        Format::Xml { ignore_null: true },
        Format::Php,
        Format::jsonp("jQuery1.cb_2").unwrap(),
    ] {
        let mut writer = ListWriter::new(&format);
        for item in &items {
            let item = writer.item(item);
            writer.push(&item);
        }
        assert_eq!(writer.finish(ELAPSED), format.render(&list, ELAPSED), "{format:?}");
        let empty = format.render(&Value::List(Vec::new()), ELAPSED);
        assert_eq!(ListWriter::new(&format).finish(ELAPSED), empty, "{format:?}");
    }
}

const ELAPSED: Duration = Duration::from_micros(1234);

#[test]
fn one_tree_in_every_format() {
    let callback = Format::jsonp("jQuery1.cb_2").unwrap();
    for (format, golden) in [
        (Format::Json, include_str!("testdata/tree.json")),
        (Format::Xml { ignore_null: false }, include_str!("testdata/tree.xml")),
        (
            Format::Xml { ignore_null: true },
            include_str!("testdata/tree_ignore_null.xml"),
        ),
        (Format::Php, include_str!("testdata/tree.php.txt")),
        (callback, include_str!("testdata/tree.js")),
    ] {
        let written = String::from_utf8(format.render(&tree(), ELAPSED)).unwrap();
        assert_eq!(written, golden, "{format:?}");
    }
}

#[test]
fn scalars_stand_alone() {
    for (value, json, xml, php) in [
        (Value::Null, "null", "", "N;"),
        (Value::Bool(true), "true", "1", "b:1;"),
        (Value::text("é\""), "\"é\\\"\"", "é&quot;", "s:3:\"é\"\";"),
    ] {
        let text = |format: Format| String::from_utf8(format.render(&value, ELAPSED)).unwrap();
        assert_eq!(text(Format::Json), json);
        assert_eq!(text(Format::Php), php);
        let expected = format!(
            "<?xml version=\"1.0\" \
            encoding=\"utf-8\"?><xml><result>{xml}</result><executionTime>0.0012</executionTime></xml>"
        );
        assert_eq!(text(Format::DEFAULT), expected);
    }
}

#[test]
fn callbacks_are_names_and_nothing_else() {
    for good in ["f", "jQuery17_1", "a.b_C9", &"x".repeat(256)] {
        assert!(Format::jsonp(good).is_some(), "{good}");
    }
    for bad in ["", "alert(1)//", "a b", "a-b", "ü", "a\n", &"x".repeat(257)] {
        assert!(Format::jsonp(bad).is_none(), "{bad}");
    }
}

proptest! {
    #[test]
    fn json_reads_back_as_what_was_written(text in any::<String>(), number in any::<i64>()) {
        let value = Value::List(vec![Value::text(&text), Value::Int(number)]);
        let read: serde_json::Value = serde_json::from_slice(&Format::Json.render(&value, ELAPSED)).unwrap();
        prop_assert_eq!(read, serde_json::json!([text, number]));
    }

    #[test]
    fn xml_has_no_markup_and_no_forbidden_character_of_a_text(text in any::<String>()) {
        let written = String::from_utf8(Format::DEFAULT.render(&Value::text(&text), ELAPSED)).unwrap();
        let inside = written.split("<result>").nth(1).unwrap().split("</result>").next().unwrap();
        prop_assert!(!inside.contains(['<', '>', '"', '\'']));
        prop_assert!(written.chars().all(is_xml_char));
        let mut read = inside.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        read = read.replace("&apos;", "'").replace("&#13;", "\r").replace("&amp;", "&");
        let expected: String = text.chars().map(|c| if is_xml_char(c) { c } else { '\u{FFFD}' }).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn php_counts_bytes(text in any::<String>()) {
        let written = Format::Php.render(&Value::text(&text), ELAPSED);
        prop_assert_eq!(written, format!("s:{}:\"{}\";", text.len(), text).into_bytes());
    }
}
