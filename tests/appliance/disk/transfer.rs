//! Backup, import, export, and the tools for offline stores.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::TcpStream;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::fixture::{Appliance, Process, code, poll, tinyd};
use crate::support::http::request;
use crate::support::transfer::{complained, line, told};

/// Runs the command line against an appliance with this standard input.
fn piped(appliance: &Appliance, args: &[&str], input: &str) -> Output {
    let mut command = tinyd();
    command
        .args(args)
        .env("TINYD_CONFIG", appliance.config())
        .env("TINYD_URL", &appliance.admin);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it has read all input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Imports from standard input as the first partner.
fn import_piped(appliance: &Appliance, args: &[&str], input: &str) -> Output {
    piped(
        appliance,
        &[&["import", "-", "--partner", "1234567"], args].concat(),
        input,
    )
}

fn offline(args: &[&str]) -> Output {
    tinyd().args(args).output().unwrap()
}

#[test]
fn online_backup_is_a_servable_store() {
    let appliance = Appliance::start_with_operator();
    let ks = appliance.admin_ks();
    let ids: Vec<_> = (0..20).map(|_| appliance.add(&ks, &[])).collect();
    let path = appliance.folder.path().join("backup.redb");
    let file = path.to_str().unwrap();

    // Writes continue; the backup has those that came before it.
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::SeqCst) {
                appliance.add(&ks, &[]);
            }
        });
        let made = appliance.tinyd(&["backup", file]);
        stopped.store(true, Ordering::SeqCst);
        assert!(told(&made, 0).contains("no problems"));
    });
    assert!(complained(&appliance.tinyd(&["backup", file]), 2).contains("add --overwrite"));
    told(&appliance.tinyd(&["backup", "--overwrite", file]), 0);
    // A backup must not overwrite the open store: later writes would be lost.
    let served = appliance.store();
    for command in ["backup", "export"] {
        let refused = appliance.tinyd(&[command, "--overwrite", served.to_str().unwrap()]);
        assert!(complained(&refused, 2).contains("is a store in use, so it is not replaced"));
    }
    let device = appliance.tinyd(&["export", "--overwrite", "/dev/null"]);
    assert!(complained(&device, 2).contains("is not a plain file"));
    // Other users of the machine must not read it.
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);

    let found = offline(&["link", "get", &ids[3], "--store", file]);
    assert!(told(&found, 0).contains("https://example.com/video"));
    assert!(complained(&offline(&["link", "get", "zzzz", "--store", file]), 3).contains("has no link zzzz"));
    assert!(told(&offline(&["verify", "--store", file]), 0).contains("no problems"));

    let mut serving = tinyd();
    serving.args([
        "serve",
        "--read-only",
        "--store",
        file,
        "--public",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    serving
        .arg("--config")
        .arg(appliance.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut serving = Process(serving.spawn().unwrap());
    let mut lines = BufReader::new(serving.0.stdout.take().unwrap()).lines();
    let mut base = || lines.next().unwrap().unwrap().split_once(' ').unwrap().1.to_owned();
    let (public, admin) = (base(), base());
    for id in &ids {
        let target = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}");
        assert_eq!(
            request(&public, "GET", &target, &[], b"").header("location"),
            "https://example.com/video"
        );
    }
    poll("ready", || request(&admin, "GET", "/readyz", &[], b"").status == 200);
    let delete = format!(
        "/api_v3/service/shortlink_shortlink/action/delete?format=1&ks={ks}&id={}",
        ids[0]
    );
    let refused = request(&admin, "GET", &delete, &[], b"");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("this appliance is read-only"), "{refused:?}");
}

#[test]
fn backup_and_export_of_all_partners_need_an_operator() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    appliance.add(&ks, &[]);
    // Two partners are configured, and neither is an operator.
    let refused = appliance.call("tinyd", "backup", &appliance.other_partners_ks(), &[]);
    assert_eq!(code(&refused), "SERVICE_FORBIDDEN");
    assert_eq!(
        code(&appliance.call("tinyd", "backup", &appliance.user_ks("me"), &[])),
        "SERVICE_FORBIDDEN"
    );
    assert_eq!(
        code(&appliance.call("tinyd", "export", &appliance.user_ks("me"), &[])),
        "SERVICE_FORBIDDEN"
    );
    let foreign = appliance.call(
        "tinyd",
        "export",
        &appliance.other_partners_ks(),
        &[("partnerId", "1234567")],
    );
    assert_eq!(code(&foreign), "SERVICE_FORBIDDEN");
    // A multirequest cannot contain a stream.
    let calls = [
        ("1:service", "tinyd"),
        ("1:action", "backup"),
        ("2:service", "system"),
        ("2:action", "ping"),
    ];
    let params = [
        &[("format", "1"), ("ks", ks.as_str()), ("service", "multirequest")],
        &calls[..],
    ]
    .concat();
    let results = appliance.post("multirequest", "null", &params).json();
    assert_eq!(
        (&results[0]["args"]["PARAM_NAME"], &results[1]),
        (&"service".into(), &true.into())
    );
    // The operator has no links of its own.
    let params = [("format", "1"), ("ks", &appliance.other_partners_ks())];
    let own = appliance.post("tinyd", "export", &params);
    assert_eq!((own.status, own.text()), (200, ""));
}

#[test]
fn exported_links_import_unchanged() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let odd = [
        ("shortLink[name]", "a \"b\", ü\n日"),
        ("shortLink[uniqueId]", "k,1"),
        ("shortLink[expiresAt]", "1900000000"),
    ];
    appliance.add(&ks, &odd);
    let deleted = appliance.add(
        &ks,
        &[("shortLink[userId]", "me"), ("shortLink[startsAt]", "1800000000")],
    );
    appliance.link("delete", &ks, &[("id", &deleted)]);
    let partner = ["--partner", "1234567"];
    let folder = appliance.folder.path();
    for format in ["jsonl", "csv"] {
        let (file, store) = (
            folder.join(format!("links.{format}")),
            folder.join(format!("{format}.redb")),
        );
        let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());
        told(&appliance.tinyd(&[&["export", file], &partner[..]].concat()), 0);
        assert!(complained(&appliance.tinyd(&[&["export", file], &partner[..]].concat()), 2).contains("--overwrite"));
        // Existing links, equal in every field.
        let again = appliance.tinyd(&[&["import", file], &partner[..]].concat());
        assert_eq!(
            told(&again, 0),
            "0 added, 0 updated, 2 unchanged, 0 skipped, 0 refused\n"
        );
        // Into an offline store and out again.
        assert_eq!(
            told(&offline(&["import", "--store", store, file]), 0),
            "2 added, 0 updated, 0 unchanged, 0 skipped, 0 refused\n"
        );
        let out = told(&offline(&["export", "--format", format, "--store", store, "-"]), 0);
        assert_eq!(out, fs::read_to_string(file).unwrap());
        assert!(out.contains(&deleted));
        told(&offline(&["verify", "--store", store]), 0);
    }
}

#[test]
fn import_is_all_or_nothing_unless_keep_going() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let taken = appliance.add(&ks, &[("shortLink[uniqueId]", "key")]);
    let good = [line("good1", ""), line("good2", "")].concat();
    let bad = [
        good.as_str(),
        &line(&taken, ""),
        "{broken\n",
        &line("good3", ",\"uniqueId\":\"key\""),
        &line("good4", ",\"partnerId\":7654321"),
    ]
    .concat();
    let import = |args: &[&str], input: &str| import_piped(&appliance, args, input);
    let status = |id: &str| appliance.goto(id).status;

    let refused = import(&[], &bad);
    let told_problems = complained(&refused, 5);
    let reasons = [
        format!("line 3: another link has the id {taken}"),
        "line 4: key must be a string (column 2)".to_owned(),
        format!("line 5: the link {taken} has the unique id \"key\""),
        "line 6: a link of partner 7654321, not of 1234567".to_owned(),
        "tinyd: wrong lines: 4".to_owned(),
    ];
    assert_eq!(told_problems.lines().collect::<Vec<_>>(), reasons);
    assert!(told(&refused, 5).starts_with("import aborted, nothing changed: 2 added"));
    assert_eq!((status("good1"), status(&taken)), (404, 302));

    let dry = import(&["--dry-run"], &good);
    assert!(told(&dry, 0).starts_with("nothing was changed; it would be: 2 added"));
    assert_eq!(status("good1"), 404);

    let kept = import(&["--keep-going", "--json"], &bad);
    let report: serde_json::Value = serde_json::from_str(&told(&kept, 5)).unwrap();
    assert_eq!(
        (&report["added"], &report["refused"], &report["applied"]),
        (&2.into(), &4.into(), &true.into())
    );
    assert_eq!((status("good1"), status("good2"), status("good3")), (302, 302, 404));
    // A second import changes no link.
    assert!(told(&import(&["--keep-going"], &bad), 5).starts_with("0 added, 0 updated, 2 unchanged"));
}

#[test]
fn import_skips_or_updates_existing_links() {
    let appliance = Appliance::start();
    let import = |args: &[&str], input: &str| import_piped(&appliance, args, input);
    let old = line("abcd", ",\"createdAt\":1700000000,\"userId\":\"me\"");
    let new = line("abcd", ",\"createdAt\":1600000000,\"status\":1");
    assert!(told(&import(&[], &old), 0).starts_with("1 added"));
    let skipped = import(&["--on-conflict", "skip"], &new);
    assert_eq!(
        told(&skipped, 0),
        "0 added, 0 updated, 0 unchanged, 1 skipped, 0 refused\n"
    );
    assert_eq!(appliance.goto("abcd").status, 302);
    let updated = import(&["--on-conflict", "update"], &new);
    assert_eq!(
        told(&updated, 0),
        "0 added, 1 updated, 0 unchanged, 0 skipped, 0 refused\n"
    );
    assert_eq!(appliance.goto("abcd").header("x-kaltura"), "error-INVALID_SHORT_LINK");
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", "abcd")]);
    assert_eq!(
        (&link["createdAt"], &link["userId"]),
        (&1_600_000_000.into(), &serde_json::Value::Null)
    );
}

/// Files of before, and of Kaltura, know of no start.
#[test]
fn import_keeps_sets_and_clears_starts() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]);
    let start = || appliance.link("get", &ks, &[("id", &id), ("withStartsAt", "1")])["startsAt"].as_i64();
    let import = |format: &str, input: &str| {
        let args = ["--format", format, "--on-conflict", "update"];
        told(&import_piped(&appliance, &args, input), 0)
    };
    let csv =
        |name: &str, value: &str| format!("id,systemName,fullUrl{name}\n{id},NAME,https://example.com/x{value}\n");
    assert!(import("csv", &csv("", "")).starts_with("0 added, 1 updated"));
    assert_eq!(start(), Some(4_000_000_000));
    assert!(import("csv", &csv(",startsAt", ",4000000001")).starts_with("0 added, 1 updated"));
    assert_eq!(start(), Some(4_000_000_001));
    assert!(import("csv", &csv(",startsAt", ",")).starts_with("0 added, 1 updated"));
    assert_eq!(start(), None);
    assert!(import("jsonl", &line(&id, ",\"startsAt\":4000000002")).starts_with("0 added, 1 updated"));
    import("jsonl", &line(&id, ",\"name\":\"new\""));
    assert_eq!(start(), Some(4_000_000_002));
    import("jsonl", &line(&id, ",\"startsAt\":null"));
    assert_eq!(start(), None);
}

/// An omitted field is no difference, so that an interrupted import can be repeated a day later.
#[test]
fn import_line_without_times_is_idempotent() {
    let appliance = Appliance::start();
    let import = |input: &str, args: &[&str]| import_piped(&appliance, args, input);
    assert!(told(&import(&line("abcd", ",\"createdAt\":1700000000"), &[]), 0).starts_with("1 added"));
    assert!(told(&import(&line("abcd", ""), &[]), 0).starts_with("0 added, 0 updated, 1 unchanged"));
    let updated = import(&line("abcd", ",\"name\":\"new\""), &["--on-conflict", "update"]);
    assert!(told(&updated, 0).starts_with("0 added, 1 updated"));
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", "abcd")]);
    assert_eq!(
        (&link["createdAt"], &link["name"]),
        (&1_700_000_000.into(), &"new".into())
    );
}

#[test]
fn unreadable_import_is_rejected_with_its_reason() {
    let appliance = Appliance::start();
    let import = |args: &[&str], input: &str| import_piped(&appliance, args, input);
    let unnamed = import(&["--format", "csv"], "id,url\nabcd,https://example.com/\n");
    assert!(complained(&unnamed, 5).contains("line 1 names \"url\"; known are id, createdAt"));
    assert!(complained(&appliance.tinyd(&["import", "/tmp", "--partner", "1234567"]), 2).contains("/tmp is a folder"));
    let missing = appliance.tinyd(&["import", "/does/not/exist", "--partner", "1234567"]);
    assert!(complained(&missing, 1).contains("cannot read /does/not/exist"));
    // A session without permission is rejected after the upload.
    let many = (0..20_000)
        .map(|number| line(&format!("{number:05}"), ""))
        .collect::<String>();
    let mut command = tinyd();
    command
        .args(["import", "-", "--url", &appliance.admin])
        .env("TINYD_KS", appliance.user_ks("me"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(many.as_bytes());
    assert!(complained(&child.wait_with_output().unwrap(), 4).contains("SERVICE_FORBIDDEN"));
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 0);
}

/// The server does not buffer an endless form field in memory.
#[test]
fn import_reads_little_before_authentication() {
    let appliance = Appliance::start();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", appliance.process_id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    };
    let before = resident();
    let mut stream = TcpStream::connect(appliance.admin.strip_prefix("http://").unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let head = "POST /api_v3/service/tinyd/action/import HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\
                Content-Type: multipart/form-data; boundary=x\r\n\r\n";
    assert_eq!(stream.write(head.as_bytes()).unwrap(), head.len());
    // Writes until the socket buffers are full and stay so.
    let (piece, mut sent) = (vec![b'x'; 1024 * 1024], 0_usize);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        match stream.write(&piece) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
    let grown = resident() - before;
    assert!(grown < 16 * 1024, "grown by {grown} kB");
}

#[test]
fn file_actions_name_missing_parameters() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let post = |fields: &[(&str, &str)]| {
        let mut body = String::new();
        for (name, value) in fields {
            body.push_str(&format!(
                "--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        body.push_str("--x--\r\n");
        let headers = [("Content-Type", "multipart/form-data; boundary=x")];
        let target = "/api_v3/service/tinyd/action/import?format=1";
        request(&appliance.admin, "POST", target, &headers, body.as_bytes()).json()
    };
    let missing = post(&[("ks", &ks)]);
    assert_eq!(
        (code(&missing), &missing["args"]["PARAM_NAME"]),
        ("MISSING_MANDATORY_PARAMETER", &"file".into())
    );
    assert_eq!(code(&post(&[("file", "")])), "MISSING_KS");
    let wrong = post(&[("ks", &ks), ("conflict", "maybe"), ("file", "")]);
    assert_eq!(wrong["args"]["REASON"], "expected fail, skip or update");
    let wrong = post(&[("ks", &ks), ("fileFormat", "xls"), ("file", "")]);
    assert_eq!(wrong["args"]["REASON"], "expected jsonl or csv");
    // An invalid flag does not count as off.
    let wrong = post(&[("ks", &ks), ("dryRun", "yes"), ("file", "")]);
    assert_eq!(wrong["args"]["REASON"], "expected true or false, 1 or 0");
    let in_body = appliance.post("tinyd", "import", &[("format", "1"), ("ks", &ks)]);
    assert!(in_body.text().contains("expected multipart/form-data"), "{in_body:?}");
}

#[test]
fn deleted_links_are_restored_from_a_file() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let ids: Vec<_> = (0..3).map(|_| appliance.add(&ks, &[])).collect();
    let held = appliance.add(&ks, &[("shortLink[uniqueId]", "key")]);
    for id in [&ids[0], &ids[1], &held] {
        appliance.link("delete", &ks, &[("id", id)]);
    }
    appliance.add(&ks, &[("shortLink[uniqueId]", "key")]);
    let file = format!(
        "# by mistake\n{}\nhttps://go.example.com/tiny/{} # the sale\n\n{}\n{held}\nzzzz\nno id at all\n",
        ids[0], ids[1], ids[2]
    );
    let expected = format!(
        "{} restored\n{} restored\n{} already enabled\n{held} stays deleted: another link has its unique id now\n\
         zzzz unknown\nno id at all unknown\n",
        ids[0], ids[1], ids[2]
    );
    let counts = "2 restored, 1 not deleted, 2 unknown, 1 that cannot be\n";
    let restore = |args: &[&str]| {
        piped(
            &appliance,
            &[&["link", "restore", "--from", "-", "--partner", "1234567"], args].concat(),
            &file,
        )
    };
    let dry = told(&restore(&["--dry-run"]), 3);
    assert_eq!(dry, format!("{expected}nothing was changed; it would be: {counts}"));
    assert_eq!(appliance.goto(&ids[0]).status, 410);
    assert_eq!(told(&restore(&[]), 3), format!("{expected}{counts}"));
    for id in &ids {
        assert_eq!(appliance.goto(id).status, 302);
    }
    let again = appliance.tinyd(&["link", "restore", &ids[0], "--partner", "1234567"]);
    assert_eq!(
        told(&again, 0),
        format!("{} already enabled\n0 restored, 1 not deleted, 0 unknown\n", ids[0])
    );
    // Not a link of another partner.
    let foreign = appliance.tinyd(&["link", "restore", &ids[0], "--partner", "7654321"]);
    assert!(told(&foreign, 3).contains("unknown"));
    let many = vec!["abcd"; 1_001].join(",");
    let refused = appliance.link("restoreMany", &ks, &[("ids", &many)]);
    assert_eq!(refused["args"]["REASON"], "at most 1000 at once");
}

#[test]
fn offline_tools_refuse_a_store_in_use() {
    let mut appliance = Appliance::start();
    appliance.add(&appliance.admin_ks(), &[]);
    let store = appliance.store();
    let store = store.to_str().unwrap();
    let file = appliance.folder.path().join("links.jsonl");
    fs::write(&file, line("abcd", ",\"partnerId\":1")).unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["verify", "--store", store][..],
        &["compact", "--store", store],
        &["import", "--store", store, file],
    ] {
        assert!(complained(&offline(args), 2).contains("already in use"), "{args:?}");
    }
    assert!(appliance.terminate().success());
    assert!(told(&offline(&["compact", "--store", store]), 0).contains("MiB now"));
    told(&offline(&["verify", "--store", store]), 0);
    assert!(complained(&offline(&["compact", "--store", "/does/not/exist"]), 2).contains("no such file"));
    appliance.restart();
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 1);
}
