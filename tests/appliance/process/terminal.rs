//! Environment variables of the command line, and output to a terminal.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::fixture::{Appliance, PARTNER, Process, configuration, tinyd};

/// Every variable that tinyd reads.
const VARIABLES: [&str; 14] = [
    "TINYD_CONFIG",
    "TINYD_DATA",
    "TINYD_PUBLIC",
    "TINYD_ADMIN",
    "TINYD_TINY",
    "TINYD_THREADS",
    "TINYD_ID_LENGTH",
    "TINYD_LOG",
    "TINYD_LOG_FORMAT",
    "TINYD_URL",
    "TINYD_KS",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
];

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn empty_variable_counts_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tinyd.toml");
    fs::write(
        &file,
        configuration("[public]\nlisten = \"127.0.0.1:7999\"\n[links]\nid_length = 9\n"),
    )
    .unwrap();
    let empty = |args: &[&str]| {
        let mut command = tinyd();
        command
            .args(args)
            .current_dir(folder.path())
            .envs(VARIABLES.map(|name| (name, "")));
        command
    };
    let config = ["--config", file.to_str().unwrap()];
    let checked = said(&empty(&[&["check"], &config[..]].concat()).output().unwrap());
    for part in [
        "127.0.0.1:7999",
        "127.0.0.1:8081",
        "links.id_length = 9",
        "log.format = text",
    ] {
        assert!(checked.contains(part), "{part} is not in {checked}");
    }
    // A first start in the current folder.
    let args = ["serve", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let child = empty(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let admin = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("admin ").map(str::to_owned))
        .unwrap();
    assert!(folder.path().join("tinyd-data/tinyd.toml").exists());
    let address = admin.strip_prefix("http://").unwrap();
    let listed = empty(&["link", "list"]).env("TINYD_ADMIN", address).output().unwrap();
    assert!(said(&listed).contains("0 of 0 links"), "{listed:?}");
}

/// A C1 control that clears the screen, one that sets the window title, and bidirectional overrides.
const HOSTILE: &str = "A\u{9b}2JB\u{85}\u{202e}moc.elpmaxe\u{2066}\u{200f}\u{61c}C";
const HARMLESS: &str = "A\\u{9b}2JB\\u{85}\\u{202e}moc.elpmaxe\\u{2066}\\u{200f}\\u{61c}C";

fn assert_harmless(text: &str) {
    let active = |c: char| {
        c != '\n'
            && (c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || c == '\u{2066}'
                || c == '\u{200f}'
                || c == '\u{61c}')
    };
    assert!(!text.contains(active), "{text:?}");
}

#[test]
fn stored_text_cannot_control_the_terminal() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(
        &ks,
        &[
            ("shortLink[systemName]", HOSTILE),
            ("shortLink[name]", HOSTILE),
            ("shortLink[userId]", HOSTILE),
            ("shortLink[uniqueId]", HOSTILE),
            (
                "shortLink[fullUrl]",
                &format!("https://example.com/{}", HOSTILE.replace(|c: char| c.is_control(), "")),
            ),
        ],
    );
    let link = |args: &[&str]| appliance.tinyd(&[&["link"], args, &["--partner", PARTNER]].concat());
    let shown = said(&link(&["get", &id]));
    assert_harmless(&shown);
    assert_eq!(shown.matches(HARMLESS).count(), 4, "{shown}");
    let listed = said(&link(&["list"]));
    assert_harmless(&listed);
    assert_eq!(listed.matches(HARMLESS).count(), 2, "{listed}");
    // JSON escapes them.
    for output in [
        link(&["get", &id, "--json"]),
        link(&["list", "--json"]),
        link(&["update", &id, "--json", "--status", "enabled"]),
    ] {
        let json = said(&output);
        assert_harmless(&json);
        let value: Value = serde_json::from_str(&json).unwrap();
        let link = if value["objects"].is_array() {
            &value["objects"][0]
        } else {
            &value
        };
        assert_eq!(link["name"], HOSTILE, "{json}");
    }
    // Errors may quote the line or the argument.
    let file = appliance.folder.path().join("links.jsonl");
    fs::write(&file, format!("{{\"id\":\"abcd\",\"{HOSTILE}\":1}}\n")).unwrap();
    let refused = appliance.tinyd(&["import", "--partner", PARTNER, file.to_str().unwrap()]);
    assert_harmless(&String::from_utf8(refused.stderr).unwrap());
    let refused = link(&["get", HOSTILE]);
    assert!(!refused.status.success());
    assert_harmless(&String::from_utf8(refused.stderr).unwrap());
    for args in [["restore", HOSTILE], ["delete", HOSTILE]] {
        let output = link(&args);
        assert_harmless(&String::from_utf8([output.stdout, output.stderr].concat()).unwrap());
    }
    let deleted = appliance.tinyd(&["user", "delete", HOSTILE, "--partner", PARTNER]);
    assert_harmless(&said(&deleted));
}

#[test]
fn dry_run_shows_the_first_ids() {
    let appliance = Appliance::start();
    let file = appliance.folder.path().join("links.csv");
    // A spreadsheet has read the first ID as a number and dropped its zeros.
    let rows: String = (0..9)
        .map(|number| {
            format!(
                "\r\n{}1234{number};NAME;https://example.com/;",
                if number == 3 { "AB" } else { "" }
            )
        })
        .collect();
    fs::write(&file, format!("\u{feff}sep=;\r\nid;systemName;fullUrl;name{rows}")).unwrap();
    let import =
        |args: &[&str]| appliance.tinyd(&[&["import", "--partner", PARTNER, file.to_str().unwrap()], args].concat());
    let told = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let dry = import(&["--dry-run"]);
    assert_eq!(
        told(&dry),
        "nothing was changed; it would be: 8 added, 0 updated, 0 unchanged, 0 skipped, 1 refused\n\
         first ids as they would be: 12340, 12341, 12342, 12344, 12345\n"
    );
    let reason = String::from_utf8(dry.stderr).unwrap();
    assert!(reason.starts_with("line 6: id \"AB12343\""), "{reason}");
    let json: Value = serde_json::from_str(&told(&import(&["--dry-run", "--json"]))).unwrap();
    assert_eq!(
        json["firstIds"],
        serde_json::json!(["12340", "12341", "12342", "12344", "12345"])
    );
    assert_eq!(appliance.goto("12340").status, 404);
    let done = told(&import(&["--keep-going"]));
    assert_eq!(done, "8 added, 0 updated, 0 unchanged, 0 skipped, 1 refused\n");
    assert_eq!(appliance.goto("12340").status, 302);
    // The same for an offline store.
    let store = appliance.folder.path().join("copy.redb");
    assert!(
        appliance
            .tinyd(&[
                "import",
                "--store",
                store.to_str().unwrap(),
                "--partner",
                PARTNER,
                "--keep-going",
                file.to_str().unwrap()
            ])
            .status
            .code()
            .is_some()
    );
    let again = import(&["--dry-run", "--store", store.to_str().unwrap()]);
    assert!(
        told(&again).ends_with("first ids as they would be: 12340, 12341, 12342, 12344, 12345\n"),
        "{again:?}"
    );

    fs::write(
        &file,
        "id;systemName"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let refused = import(&[]);
    assert_eq!(refused.status.code(), Some(5));
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains("the file is UTF-16, expected UTF-8"), "{reason}");
}
