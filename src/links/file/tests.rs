//! What is written is read back, whatever is read is a link or a reason.

use proptest::prelude::*;

use super::*;
use crate::model::work::assert_is_linear;
use crate::model::{PartnerId, ShortLink, Status, Timestamp};

const DEFAULTS: Defaults = Defaults {
    now: Timestamp::from_unix(1_000),
    partner: Some(PartnerId(7)),
};

fn lines(format: FileFormat, file: &[u8]) -> Vec<(u64, Result<ShortLink, String>)> {
    let lines = read(format, file, DEFAULTS).unwrap();
    lines.map(Result::unwrap).map(|line| (line.number, line.link)).collect()
}

/// The reasons of a file, with their lines.
fn reasons(format: FileFormat, file: &str) -> Vec<(u64, String)> {
    let lines = lines(format, file.as_bytes()).into_iter();
    lines.filter_map(|(number, link)| Some((number, link.err()?))).collect()
}

fn written(format: FileFormat, links: &[ShortLink]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = LinkWriter::new(format, &mut file).unwrap();
    for link in links {
        writer.write(link).unwrap();
    }
    writer.finish().unwrap();
    file
}

prop_compose! {
    fn any_link()(
        id in "[0-9a-z]{4,20}",
        partner in any::<u32>(),
        times in any::<[i32; 2]>(),
        starts in prop::option::of(1_i64..2_000_000_000),
        expires in prop::option::of(2_000_000_000_i64..253_402_300_799),
        user in prop::option::of("[ -~äß日\n]{1,20}"),
        name in prop::option::of("[ -~äß日\n\",;]{1,20}"),
        system_name in "[ -~äß日]{3,20}",
        tail in "[!-~äß日]{0,20}",
        unique_id in prop::option::of("[ -~äß日\n]{1,20}"),
        status in 1_i64..=3,
    ) -> ShortLink {
        ShortLink {
            id: id.parse().unwrap(),
            created_at: Timestamp::from_unix(times[0].into()),
            updated_at: Timestamp::from_unix(times[1].into()),
            starts_at: starts.map(Timestamp::from_unix),
            expires_at: expires.map(Timestamp::from_unix),
            partner_id: PartnerId(partner),
            user_id: user,
            name,
            system_name,
            full_url: format!("https://e.example/{tail}"),
            unique_id,
            status: Status::from_number(status).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn written_values_are_read_back(links in prop::collection::vec(any_link(), 0..10)) {
        for format in [FileFormat::JsonLines, FileFormat::Csv] {
            let file = written(format, &links);
            let read: Vec<_> = lines(format, &file).into_iter().map(|(_, link)| link.unwrap()).collect();
            prop_assert_eq!(&read, &links);
        }
    }

    #[test]
    fn reading_is_total(link in any_link(), bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>()) {
        for format in [FileFormat::JsonLines, FileFormat::Csv] {
            let _ = read(format, bytes.as_slice(), DEFAULTS).map(Iterator::count);
            let mut file = written(format, std::slice::from_ref(&link));
            let position = at.index(file.len());
            file.splice(position..position, bytes.iter().copied());
            let _ = read(format, file.as_slice(), DEFAULTS).map(Iterator::count);
        }
    }
}

#[test]
fn a_line_may_leave_out_what_the_api_would_choose() {
    let file = "\u{feff}{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\"}\r\n\n";
    let expected = ShortLink {
        id: "abcd".parse().unwrap(),
        created_at: DEFAULTS.now,
        updated_at: DEFAULTS.now,
        starts_at: None,
        expires_at: None,
        partner_id: PartnerId(7),
        user_id: None,
        name: None,
        system_name: "NAME".into(),
        full_url: "https://e.example/".into(),
        unique_id: None,
        status: Status::Enabled,
    };
    assert_eq!(
        lines(FileFormat::JsonLines, file.as_bytes()),
        [(1, Ok(expected.clone()))]
    );
    let file = "\u{feff}id,systemName,fullUrl,expiresAt\nabcd,NAME,https://e.example/,-1\n";
    assert_eq!(lines(FileFormat::Csv, file.as_bytes()), [(2, Ok(expected))]);
}

#[test]
fn a_line_may_set_clear_or_keep_the_start() {
    let of = |format, file: &str| {
        let mut lines = read(format, file.as_bytes(), DEFAULTS).unwrap();
        let line = lines.next().unwrap().unwrap();
        (line.has_start, line.link.unwrap().starts_at.map(Timestamp::as_unix))
    };
    for (value, expected) in [
        ("", None),
        ("0", None),
        ("-1", None),
        ("2000000000", Some(2_000_000_000)),
    ] {
        let csv = format!("id,systemName,fullUrl,startsAt\nabcd,NAME,https://e.example/,{value}\n");
        assert_eq!(of(FileFormat::Csv, &csv), (true, expected), "{value:?}");
        let value = if value.is_empty() { "null" } else { value };
        let json = format!(r#"{{"id":"abcd","systemName":"NAME","fullUrl":"https://e.example/","startsAt":{value}}}"#);
        assert_eq!(of(FileFormat::JsonLines, &json), (true, expected), "{value}");
    }
    let csv = "id,systemName,fullUrl\nabcd,NAME,https://e.example/\n";
    assert_eq!(of(FileFormat::Csv, csv), (false, None));
    // As a retired id is exported, which is always deleted.
    let retired = |status, never| {
        format!("id,systemName,fullUrl,status,startsAt\nabcd,NAME,https://e.example/,{status},{never}\n")
    };
    // The last two are of older exports, one of them saved by a spreadsheet.
    for never in ["never", "Never", "253402300800", "2.53402E+11"] {
        let start = of(FileFormat::Csv, &retired(3, never));
        assert_eq!(start, (true, Some(Timestamp::NEVER.as_unix())), "{never}");
    }
    let refused = reasons(FileFormat::Csv, &retired(2, "never"));
    assert!(
        refused[0]
            .1
            .starts_with("startsAt: never (253402300800) is for deleted links"),
        "{refused:?}"
    );
    let json = r#"{"id":"abcd","systemName":"NAME","fullUrl":"https://e.example/"}"#;
    assert_eq!(of(FileFormat::JsonLines, json), (false, None));
}

#[test]
fn what_the_api_lists_can_be_read() {
    let file = r#"{"id":"67mk41xj","createdAt":1778429631,"updatedAt":1778429631,"expiresAt":null,"partnerId":1234567,"userId":"me","name":null,"systemName":"NAME","fullUrl":"https://e.example/","uniqueId":null,"status":2,"objectType":"KalturaShortLink"}"#;
    assert!(lines(FileFormat::JsonLines, file.as_bytes())[0].1.is_ok());
}

#[test]
fn a_line_that_is_wrong_says_where_and_why() {
    let link =
        |more: &str| format!("{{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\"{more}}}\n");
    let file = [
        link(""),
        "{\n".into(),
        link(",\"fullurl\":1"),
        link(",\"status\":4"),
        link(",\"expiresAt\":1778429631000"),
        link("").replace("abcd", "ab"),
        link("").replace("https", "gopher"),
        link("").replace("NAME", "N"),
        link(",\"name\":\"\\u0001\""),
        link(&format!(",\"name\":\"{}\"", "x".repeat(64))),
        format!("{}\n", "x".repeat(200_000)),
        link(",\"name\":7"),
        link(",\"status\":3,\"startsAt\":253402300800,\"expiresAt\":20"),
        link(",\"startsAt\":\"now\""),
    ]
    .concat();
    let found = reasons(FileFormat::JsonLines, &file);
    let expected = [
        (2, "EOF while parsing an object"),
        (3, "unknown field `fullurl`"),
        (4, "status: expected 1"),
        (5, "expiresAt: expected unix seconds up to 253402300799 (milliseconds?)"),
        (6, "id \"ab\": an id has 4 to 20 characters"),
        (7, "fullUrl: a destination is an http or https URL"),
        (8, "systemName: at least 3 bytes, not \"N\""),
        (9, "name: a character that XML forbids"),
        (10, "name: at most 63 characters"),
        (11, "longer than 131072 bytes"),
        (12, "invalid type: integer `7`, expected a string"),
        (13, "expiresAt: a link whose id is retired has none"),
        (14, "invalid type: string \"now\""),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, reason), (expected_line, beginning)) in found.iter().zip(expected) {
        assert_eq!(*line, expected_line, "{reason}");
        assert!(reason.starts_with(beginning), "{line}: {reason}");
    }
    let file =
        "id,systemName,fullUrl,status\nabcd,NAME,https://e.example/,2\nabcd,NAME\nabcd,NAME,https://e.example/,on\n";
    let expected = [(3, "2 values for 4 names"), (4, "status: expected a whole number")];
    // However lines end, and if some are empty or some values have several.
    let odd =
        "\r\nabcd,\"NA\nME\",https://e.example/,2\r\n\r\n\r\nabcd,NAME\r\n\r\nabcd,\"N\n\nM\",https://e.example/,on";
    let odd = format!("id,systemName,fullUrl,status\r\n{odd}");
    let expected_odd = [(7, "2 values for 4 names"), (9, "status: expected a whole number")];
    assert_eq!(
        reasons(FileFormat::Csv, &odd),
        expected_odd.map(|(line, reason)| (line, reason.to_owned()))
    );
    assert_eq!(
        reasons(FileFormat::Csv, file),
        expected.map(|(line, reason)| (line, reason.to_owned()))
    );
    for (file, reason) in [
        ("id,url\n", "line 1 names \"url\"; known are id, createdAt"),
        ("id,id\n", "line 1 names id twice"),
        ("id,fullUrl\n", "line 1 does not name systemName"),
    ] {
        let refused = read(FileFormat::Csv, file.as_bytes(), DEFAULTS).map(drop).unwrap_err();
        assert!(refused.starts_with(reason), "{refused}");
    }
}

#[test]
fn unclosed_quote_does_not_load_the_whole_file() {
    let file = format!("id,systemName,fullUrl\n\"{}", "x\n".repeat(1_000_000));
    let error = read(FileFormat::Csv, file.as_bytes(), DEFAULTS)
        .unwrap()
        .find_map(Result::err);
    assert!(error.unwrap().to_string().contains("a quote that is not closed"));
    let names = read(FileFormat::Csv, &file.as_bytes()[22..], DEFAULTS).map(drop);
    assert!(names.unwrap_err().contains("a quote that is not closed"));
}

#[test]
fn a_link_without_partner_is_refused_where_none_is_meant() {
    let file = b"{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\"}";
    let defaults = Defaults {
        partner: None,
        ..DEFAULTS
    };
    let line = read(FileFormat::JsonLines, file.as_slice(), defaults)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(
        line.link.unwrap_err(),
        "partnerId: missing, and the import names no partner"
    );
}

#[test]
fn csv_is_read_however_a_spreadsheet_writes_it() {
    let plain = "id,systemName,fullUrl,name\nabcd,NAME,https://e.example/;a,\"x;y\"\nab,NAME,https://e.example/,z\n";
    let semicolons =
        "id;systemName;fullUrl;name\nabcd;NAME;\"https://e.example/;a\";\"x;y\"\nab;NAME;https://e.example/;z\n";
    let tabs =
        "id\tsystemName\tfullUrl\tname\nabcd\tNAME\thttps://e.example/;a\tx;y\nab\tNAME\thttps://e.example/\tz\n";
    let quoted = semicolons.replacen(
        "id;systemName;fullUrl;name",
        "\"id\";\"systemName\";\"fullUrl\";\"name\"",
        1,
    );
    let expected = lines(FileFormat::Csv, plain.as_bytes());
    let link = expected[0].1.as_ref().unwrap();
    assert_eq!(
        (link.full_url.as_str(), link.name.as_deref()),
        ("https://e.example/;a", Some("x;y"))
    );
    assert_eq!((expected[0].0, expected[1].0, expected.len()), (2, 3, 2));
    assert!(expected[1].1.is_err());
    for text in [plain, semicolons, tabs, &quoted] {
        for end in ["\n", "\r\n", "\r"] {
            for mark in ["", "\u{feff}"] {
                let file = format!("{mark}{}", text.replace('\n', end));
                assert_eq!(lines(FileFormat::Csv, file.as_bytes()), expected, "{file:?}");
            }
        }
    }
    // A line says what stands between the values: the others count from there.
    for (separator, text) in [(",", plain), (";", semicolons), ("\t", tabs), (";", &quoted)] {
        for mark in ["", "\u{feff}"] {
            for end in ["\n", "\r\n", "\r"] {
                let quote = if mark.is_empty() { "" } else { "\"" };
                let file = format!("{mark}{quote}sep={separator}{quote}\n{text}").replace('\n', end);
                let shifted: Vec<_> = expected
                    .iter()
                    .map(|(number, link)| (number + 1, link.clone()))
                    .collect();
                assert_eq!(lines(FileFormat::Csv, file.as_bytes()), shifted, "{file:?}");
            }
        }
    }
    let refusal = |file: &str| read(FileFormat::Csv, file.as_bytes(), DEFAULTS).map(drop).unwrap_err();
    assert_eq!(
        refusal("sep=|\nid|url\n"),
        "line 1 says sep='|'; expected a comma, semicolon or tab"
    );
    assert!(refusal("sep=;\nid;url\n").starts_with("line 2 names \"url\""));
}

#[test]
fn lines_of_csv_are_counted_however_they_end() {
    for end in ["\n", "\r\n", "\r"] {
        let file = "id,systemName,fullUrl\n\nabcd,NAME\nabcd,\"N\n\nM\",gopher://x\n\n\nab,NAME,https://e.example/";
        let numbers: Vec<_> = reasons(FileFormat::Csv, &file.replace('\n', end))
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        assert_eq!(numbers, [3, 4, 9], "{end:?}");
    }
}

#[test]
fn a_file_in_utf_16_is_named_as_such() {
    let text = "id,systemName,fullUrl\r\nabcd,NAME,https://e.example/\r\n";
    let units = || text.encode_utf16();
    let little: Vec<_> = units().flat_map(u16::to_le_bytes).collect();
    let big: Vec<_> = units().flat_map(u16::to_be_bytes).collect();
    let marked = |mark: [u8; 2], bytes: &[u8]| [&mark[..], bytes].concat();
    for file in [marked([0xff, 0xfe], &little), marked([0xfe, 0xff], &big), little, big] {
        for format in [FileFormat::Csv, FileFormat::JsonLines] {
            let refused = read(format, file.as_slice(), DEFAULTS).map(drop).unwrap_err();
            assert!(refused.starts_with("the file is UTF-16, expected UTF-8"), "{refused}");
        }
    }
    // What is too short to say is no such file.
    assert_eq!(lines(FileFormat::JsonLines, b"").len(), 0);
    assert_eq!(lines(FileFormat::JsonLines, b"\xef\xbb\xbf").len(), 0);
    assert_eq!(lines(FileFormat::JsonLines, b"{").len(), 1);
}

#[test]
fn files_take_work_in_proportion() {
    let row = r#"{"id":"abcd","systemName":"name","fullUrl":"https://e.example/"}"#;
    let make = |size: usize| {
        let json = [
            "\n".repeat(size * 10),
            format!("{row}\n").repeat(size),
            "[".repeat(size * 10),
            format!("{{\"id\":\"{}", "\\u0041".repeat(size)),
            "{\n".repeat(size),
        ];
        let csv = [
            "abcd,name,https://e.example/\r\n".repeat(size),
            "\"a\"\"\n\",".repeat(size),
            "\n".repeat(size * 10),
            "\"\n\"\r".repeat(size),
            ",".repeat(size * 10),
        ];
        (json, csv.map(|lines| format!("id,systemName,fullUrl\n{lines}")))
    };
    let count = |format, file: String| read(format, file.as_bytes(), DEFAULTS).map(Iterator::count);
    assert_is_linear(50, make, |(json, csv)| {
        (
            json.map(|file| count(FileFormat::JsonLines, file)),
            csv.map(|file| count(FileFormat::Csv, file)),
        )
    });
}

#[test]
fn integers_of_rows_lose_their_fraction() {
    let csv = "id,systemName,fullUrl,createdAt,expiresAt,partnerId,status\n\
               abcd,NAME,https://e.example/,1.7e9,1900000000.0,7.0,1.0\n\
               abce,NAME,https://e.example/,12abc,,7,1\n\
               abcf,NAME,https://e.example/,1,,-7.0,1\n";
    let json = "{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\",\
                \"createdAt\":1.7e9,\"expiresAt\":1900000000.9,\"partnerId\":7.0,\"status\":1.0}\n\
                {\"id\":\"abce\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\",\"createdAt\":1e19}\n\
                {\"id\":\"abcf\",\"systemName\":\"NAME\",\"fullUrl\":\"https://e.example/\",\"partnerId\":4294967296.0}\n";
    for (format, file) in [(FileFormat::Csv, csv), (FileFormat::JsonLines, json)] {
        let mut links = lines(format, file.as_bytes()).into_iter().map(|(_, link)| link);
        let link = links.next().unwrap().unwrap();
        let times = (link.created_at.as_unix(), link.expires_at.map(Timestamp::as_unix));
        assert_eq!(times, (1_700_000_000, Some(1_900_000_000)), "{format:?}");
        assert_eq!((link.partner_id, link.status), (PartnerId(7), Status::Disabled));
        for refused in links {
            assert!(refused.is_err(), "{format:?}: {refused:?}");
        }
    }
}
