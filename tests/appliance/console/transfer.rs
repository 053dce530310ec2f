//! Import and export by the browser.

use std::fs;
use std::io::Write as _;
use std::net::Shutdown;

use crate::support::browser::{Browser, hidden};
use crate::support::fixture::{Appliance, PARTNER, poll};
use crate::support::http::{Answer, connect, exchange_over};

const OTHER_PARTNER: &str = "7654321";
const OTHER_SECRET: &str = "of another partner";
const BOUNDARY: &str = "----tinyd";
const CSV: &str = "id,systemName,fullUrl,name\n\
    web1,ONE,https://example.com/1,First\n\
    web2,TWO,https://example.com/2,\"<b>Second</b>\"\n";

fn field(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
    )
}

/// The fields of the form before the file.
fn fields(token: &str, more: &[(&str, &str)]) -> String {
    let mut fields = vec![("token", token), ("conflict", "fail"), ("format", "")];
    fields.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    fields.extend(more);
    fields.iter().map(|(name, value)| field(name, value)).collect()
}

fn post(browser: &mut Browser, body: &str) -> Answer {
    let origin = browser.origin();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [("Origin", origin.as_str()), ("Content-Type", &kind)];
    let body = format!("{body}--{BOUNDARY}--\r\n");
    browser.send("POST", "/transfer/upload", &headers, body.as_bytes())
}

fn upload(browser: &mut Browser, name: &str, content: &str, more: &[(&str, &str)]) -> Answer {
    let token = browser.token();
    post(browser, &format!("{}{}", fields(&token, more), file(name, content)))
}

/// The path below the console to which an answer leads.
fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.header("location").strip_prefix("/console").unwrap().to_owned()
}

/// The page of a file once nothing is going on.
fn settled(browser: &mut Browser, path: &str) -> String {
    let mut page = String::new();
    poll("settled", || {
        let answer = browser.get(path);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().clone_into(&mut page);
        !page.contains("http-equiv")
    });
    page
}

/// Uploads a file that must be taken; returns its path and what would happen.
fn checked(browser: &mut Browser, name: &str, content: &str, more: &[(&str, &str)]) -> (String, String) {
    let path = location(&upload(browser, name, content, more));
    let page = settled(browser, &path);
    (path, page)
}

/// Imports a checked file.
fn confirmed(browser: &mut Browser, path: &str, page: &str) -> String {
    let mut fields = vec![];
    if page.contains("name=\"keep_going\"") {
        fields.push(("keep_going", "1"));
    }
    assert_eq!(browser.done(&format!("{path}/import"), &fields), path);
    settled(browser, path)
}

/// A number of the report.
fn count(page: &str, name: &str) -> u64 {
    let start = format!("<dt>{name}</dt><dd>");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('<').next().unwrap().parse().unwrap()
}

fn counts(page: &str) -> [u64; 5] {
    ["Added", "Replaced", "Unchanged", "Skipped", "Refused"].map(|name| count(page, name))
}

fn links(appliance: &Appliance) -> u64 {
    appliance.list(&appliance.admin_ks(), &[]).1
}

/// Files without a name that the server has open in its data folder.
fn spooled(appliance: &Appliance) -> usize {
    let folder = fs::read_dir(format!("/proc/{}/fd", appliance.process_id())).unwrap();
    let targets = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let own = appliance.folder.path();
    targets
        .filter(|target| target.starts_with(own) && target.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

#[test]
fn file_is_shown_first_and_imported_as_shown() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let (path, page) = checked(&mut admin, "links.csv", CSV, &[]);
    assert_eq!(counts(&page), [2, 0, 0, 0, 0]);
    assert!(page.contains("Import 2 links") && page.contains("web1, web2"), "{page}");
    assert!(page.contains("Nothing has been imported yet"), "{page}");
    assert_eq!((links(&appliance), appliance.goto("web1").status), (0, 404));

    let done = confirmed(&mut admin, &path, &page);
    assert!(
        done.contains("The file is imported") && !done.contains("/import\""),
        "{done}"
    );
    assert_eq!(counts(&done), [2, 0, 0, 0, 0]);
    assert_eq!(appliance.goto("web1").header("location"), "https://example.com/1");
    assert_eq!(links(&appliance), 2);
    poll("freed", || spooled(&appliance) == 0);

    // Whoever confirms twice sees the first outcome.
    appliance.link("delete", &appliance.admin_ks(), &[("id", "web1")]);
    assert_eq!(admin.done(&format!("{path}/import"), &[]), path);
    assert_eq!(appliance.goto("web1").status, 410);
    let (_, page) = checked(&mut admin, "links.csv", CSV, &[("conflict", "skip")]);
    assert_eq!(counts(&page), [0, 0, 1, 1, 0]);
    assert!(page.contains("nothing to import"), "{page}");
    let (path, page) = checked(&mut admin, "links.csv", CSV, &[("conflict", "update")]);
    assert_eq!(counts(&page), [0, 1, 1, 0, 0]);
    confirmed(&mut admin, &path, &page);
    assert_eq!(appliance.goto("web1").status, 302);
}

#[test]
fn file_belongs_to_the_session_that_uploaded_it() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let (path, _) = checked(&mut admin, "links.csv", CSV, &[]);
    let others = [
        Browser::of_admin(&appliance),
        Browser::of(&appliance, OTHER_PARTNER, "admin", OTHER_SECRET),
        Browser::of_user(&appliance, "jane"),
    ];
    for mut other in others {
        let status = if other.get("/transfer").status == 403 { 403 } else { 404 };
        assert_eq!(other.get(&path).status, status);
        for action in ["import", "cancel"] {
            let answer = other.submit(&format!("{path}/{action}"), &[]);
            assert!(answer.status == status || action == "cancel", "{answer:?}");
        }
    }
    // Nor without the token, or by a GET.
    assert_eq!(admin.post(&format!("{path}/import"), &[("token", "x")]).status, 403);
    assert_eq!(admin.get(&format!("{path}/import")).status, 404);
    assert_eq!(links(&appliance), 0);
    let page = settled(&mut admin, &path);
    assert!(page.contains("Import 2 links"), "{page}");
    for wrong in ["0", "x", "ffffffffffffffffffffffffffffffff", "-1"] {
        assert_eq!(admin.get(&format!("/transfer/{wrong}")).status, 404, "{wrong}");
    }
}

#[test]
fn upload_without_right_or_token_spools_nothing() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let (mut jane, mut stranger) = (Browser::of_user(&appliance, "jane"), Browser::new(&appliance));
    let (token, of_jane) = (admin.token(), jane.token());
    let file = file("links.csv", CSV);
    let with = |token: &str| format!("{}{file}", fields(token, &[]));
    let late = format!("{file}{}", fields(&token, &[]));
    for (browser, body) in [
        (&admin, with("")),
        (&admin, with("x")),
        (&admin, with(&of_jane)),
        (&admin, late),
        (&admin, fields("x", &[])),
        (&jane, with(&of_jane)),
        (&stranger, with(&token)),
    ] {
        assert_eq!(post(&mut browser.clone(), &body).status, 403, "{body}");
    }
    for origin in ["http://evil.test", "null"] {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let headers = [("Origin", origin), ("Content-Type", &kind)];
        let body = format!("{}--{BOUNDARY}--\r\n", with(&token));
        let answer = admin.send("POST", "/transfer/upload", &headers, body.as_bytes());
        assert_eq!(answer.status, 403, "{origin}");
    }
    assert_eq!(jane.get("/transfer").status, 403);
    assert_eq!(jane.get("/transfer/export?format=csv").status, 403);
    assert_eq!(stranger.get("/transfer").status, 303);

    // A file that is still arriving, with the wrong token and with the right one.
    for (token, files) in [("x", 0), (token.as_str(), 1)] {
        let mut stream = begin(&appliance, &admin, &fields(token, &[]), 1_000_000);
        stream.write_all(&vec![b'x'; 500_000]).unwrap();
        if files > 0 {
            poll("spooled", || spooled(&appliance) == files);
        }
        assert_eq!(spooled(&appliance), files);
        stream.shutdown(Shutdown::Both).unwrap();
        poll("freed", || spooled(&appliance) == 0);
    }
    assert_eq!(links(&appliance), 0);
}

/// Sends an upload up to the start of its file.
fn begin(appliance: &Appliance, browser: &Browser, fields: &str, bytes: u64) -> std::net::TcpStream {
    let host = appliance.admin.strip_prefix("http://").unwrap();
    let mut stream = connect(host);
    let part = file("links.csv", "");
    let head = format!(
        "POST /console/transfer/upload HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {}\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {bytes}\r\n\r\n{fields}{}",
        browser.cookie,
        part.trim_end()
    );
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    stream
}

#[test]
fn file_that_cannot_be_taken_is_refused_with_the_reason() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    for (name, content, more, status, reason) in [
        ("links.xlsx", CSV, &[][..], 422, "save spreadsheets as CSV"),
        ("links.csv", "", &[], 422, "not empty"),
        ("", "", &[("format", "csv")], 422, "not empty"),
        ("links.csv", CSV, &[("format", "xml")], 404, ""),
        ("links.csv", CSV, &[("conflict", "explode")], 404, ""),
        ("links.csv", CSV, &[("partner", "1")], 403, "operator"),
    ] {
        let answer = upload(&mut admin, name, content, more);
        assert_eq!(answer.status, status, "{name} {more:?}");
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
    let token = admin.token();
    assert_eq!(post(&mut admin, &fields(&token, &[])).status, 422);
    let answer = admin.submit("/transfer/upload", &[]);
    assert_eq!(answer.status, 415, "{answer:?}");
    for (name, content) in [
        ("a.csv", "id;nonsense\n1;2\n"),
        ("a.csv", "\u{0}\u{0}"),
        ("a.csv", "\"x"),
    ] {
        let (_, page) = checked(&mut admin, name, content, &[]);
        assert!(page.contains("Not imported"), "{page}");
    }
    poll("freed", || spooled(&appliance) == 0);

    let stream = begin(&appliance, &admin, &fields(&token, &[]), 600 * 1024 * 1024);
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = exchange_over(stream, b"");
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("at most 512 MB"), "{}", answer.text());
}

#[test]
fn refused_lines_are_listed_as_text() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let content = "{\"id\":\"good\",\"systemName\":\"GOOD\",\"fullUrl\":\"https://example.com/good\"}\n\
        {\"id\":\"<script>alert(1)</script>\",\"systemName\":\"BAD\",\"fullUrl\":\"https://example.com/\"}\n\
        {\"id\":\"evil\",\"systemName\":\"BAD\",\"fullUrl\":\"javascript:alert(1)\"}\n\
        {\"<img src=x onerror=alert(1)>\":1}\n\
        not JSON\n";
    let name = "<b>\u{202e}evil.jsonl";
    let (path, page) = checked(&mut admin, name, content, &[]);
    assert_eq!(counts(&page), [1, 0, 0, 0, 4]);
    for hostile in ["<script>alert", "<img src=x", "<b>", "\u{202e}"] {
        assert!(!page.contains(hostile), "{hostile}: {page}");
    }
    for line in [2, 3, 4, 5] {
        assert!(page.contains(&format!("Line&nbsp;{line}<")), "{page}");
    }
    assert!(
        page.contains("4 lines are refused") && page.contains("Leave out 4 lines, import 1 link"),
        "{page}"
    );
    // As it was uploaded, nothing is imported.
    assert_eq!(admin.done(&format!("{path}/import"), &[]), path);
    assert!(settled(&mut admin, &path).contains("Nothing was imported"));
    assert_eq!(links(&appliance), 0);
    let (path, page) = checked(&mut admin, "links.jsonl", content, &[]);
    let done = confirmed(&mut admin, &path, &page);
    assert_eq!((counts(&done), links(&appliance)), ([1, 0, 0, 0, 4], 1));
}

#[test]
fn export_imports_unchanged() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let id = admin.create(&[("name", "a \"b\", ü"), ("full_url", "https://example.com/?a=b&c=d")]);
    let gone = admin.create(&[]);
    admin.done(&format!("/links/{gone}/delete"), &[]);
    for format in ["csv", "jsonl"] {
        let answer = admin.get(&format!("/transfer/export?format={format}"));
        assert_eq!(answer.status, 200);
        let disposition = answer.header("content-disposition").to_owned();
        let is_named = disposition.starts_with("attachment; filename=\"links-20")
            && disposition.ends_with(&format!(".{format}\""));
        assert!(is_named, "{disposition}");
        assert_eq!(answer.header("cache-control"), "no-store");
        let content = answer.text().to_owned();
        assert!(content.contains(&id) && content.contains(&gone), "{content}");
        let (_, page) = checked(&mut admin, &format!("links.{format}"), &content, &[]);
        assert_eq!(counts(&page), [0, 0, 2, 0, 0]);
    }
    assert_eq!(admin.get("/transfer/export?format=xml").status, 404);
    // Another partner has no part in it.
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", OTHER_SECRET);
    assert_eq!(other.get("/transfer/export?format=jsonl").text(), "");
    assert_eq!(
        other
            .get(&format!("/transfer/export?format=jsonl&partner={PARTNER}"))
            .status,
        403
    );
    let (_, page) = checked(
        &mut other,
        "links.csv",
        &format!("id,systemName,fullUrl\n{id},ONE,https://example.com/1\n"),
        &[("conflict", "update")],
    );
    assert_eq!(counts(&page), [0, 0, 0, 0, 1]);
}

#[test]
fn operators_choose_a_partner_or_all() {
    let appliance = Appliance::start_with_operator();
    let mut operator = Browser::of_admin(&appliance);
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", OTHER_SECRET);
    other.create(&[]);
    let export = |browser: &mut Browser, query: &str| {
        let answer = browser.get(&format!("/transfer/export?format=jsonl{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().lines().count()
    };
    assert_eq!(export(&mut operator, ""), 1);
    assert_eq!(export(&mut operator, &format!("&partner={OTHER_PARTNER}")), 1);
    assert_eq!(export(&mut operator, &format!("&partner={PARTNER}")), 0);
    assert!(operator.get("/transfer").text().contains("All partners"));
    assert!(!other.get("/transfer").text().contains("All partners"));
    let line = "{\"id\":\"op12\",\"partnerId\":7654321,\"systemName\":\"OPS\",\"fullUrl\":\"https://example.com/\"}\n";
    let (_, page) = checked(&mut operator, "a.jsonl", line, &[("partner", PARTNER)]);
    assert_eq!(counts(&page), [0, 0, 0, 0, 1]);
    let (path, page) = checked(&mut operator, "a.jsonl", line, &[]);
    confirmed(&mut operator, &path, &page);
    assert_eq!(export(&mut other, ""), 2);
}

#[test]
fn waiting_file_is_freed_on_cancel_and_sign_out() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let (path, _) = checked(&mut admin, "links.csv", CSV, &[]);
    poll("checked", || spooled(&appliance) == 1);
    assert_eq!(admin.done(&format!("{path}/cancel"), &[]), "/transfer");
    assert_eq!((spooled(&appliance), admin.get(&path).status), (0, 404));
    // A session has one file at a time, and a partner only a few.
    let mut first = checked(&mut admin, "links.csv", CSV, &[]).0;
    for _ in 0..5 {
        let (next, _) = checked(&mut admin, "links.csv", CSV, &[]);
        assert_eq!(admin.get(&first).status, 404);
        first = next;
    }
    poll("checked", || spooled(&appliance) == 1);
    let mut others: Vec<_> = (0..4).map(|_| Browser::of_admin(&appliance)).collect();
    let statuses: Vec<_> = others
        .iter_mut()
        .map(|other| upload(other, "links.csv", CSV, &[]).status)
        .collect();
    assert_eq!(statuses, [303, 303, 303, 429]);
    for browser in others.iter_mut().chain([&mut admin]) {
        let token = hidden(browser.get("/transfer").text(), "token");
        assert_eq!(browser.post("/sign-out", &[("token", &token)]).status, 303);
    }
    poll("freed", || spooled(&appliance) == 0);
    assert_eq!(links(&appliance), 0);
}
