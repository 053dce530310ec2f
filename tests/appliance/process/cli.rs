//! The command line: output, exit codes, help.

use std::process::Output;

use serde_json::Value;

use crate::support::fixture::{Appliance, PARTNER, tinyd};

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failed(output: &Output) -> (i32, String) {
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

/// The configuration has two partners, so the command must name one.
fn link(appliance: &Appliance, args: &[&str]) -> Output {
    appliance.tinyd(&[&["link"], args, &["--partner", PARTNER]].concat())
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap()
}

#[test]
fn cli_adds_shows_changes_and_deletes_links() {
    let appliance = Appliance::start();
    let run = |args: &[&str]| link(&appliance, args);
    let added = run(&[
        "add",
        "https://example.com/a",
        "--system-name",
        "FIRST",
        "--name",
        "The first",
        "--owner",
        "me",
        "--expires",
        "7d",
        "--unique-id",
        "key",
        "--as",
        "somebody",
    ]);
    let shown = out(&added);
    let id = shown
        .lines()
        .next()
        .unwrap()
        .strip_prefix("id")
        .unwrap()
        .trim()
        .to_owned();
    for line in [
        "leads to     https://example.com/a",
        "status       enabled",
        "system name  FIRST",
        "owner        me",
    ] {
        assert!(shown.lines().any(|other| other == line), "{line:?} is not in\n{shown}");
    }
    assert!(
        shown.contains(&format!("short URL    http://127.0.0.1:8080/tiny/{id}")),
        "{shown}"
    );
    assert_eq!(appliance.goto(&id).status, 302);

    let url = format!("https://go.example.com/tiny/{id}");
    assert_eq!(json(&run(&["get", &url, "--json"]))["id"], id.as_str());
    let updated = json(&run(&[
        "update",
        &id,
        "--to",
        "https://example.com/b",
        "--status",
        "disabled",
        "--clear",
        "name,expires",
        "--json",
    ]));
    assert_eq!(
        (&updated["fullUrl"], &updated["status"]),
        (&"https://example.com/b".into(), &1.into())
    );
    assert_eq!((updated.get("name"), updated.get("expiresAt")), (None, None));

    let second = json(&run(&[
        "add",
        "https://example.com/c",
        "--system-name",
        "SECOND",
        "--json",
    ]));
    let second = second["id"].as_str().unwrap();
    let listed = out(&run(&["list", "--order", "+createdAt"]));
    assert!(
        listed.starts_with("ID        STATUS    CLICKS  LAST USED             EXPIRES  OWNER  SYSTEM NAME  LEADS TO\n"),
        "{listed}"
    );
    assert!(listed.ends_with("2 of 2 links, page 1\n"), "{listed}");
    let only = json(&run(&[
        "list",
        "--status",
        "disabled",
        "--owner",
        "me",
        "--unique-id",
        "key",
        "--json",
    ]));
    assert_eq!(
        (&only["totalCount"], &only["objects"][0]["id"]),
        (&1.into(), &id.as_str().into())
    );

    assert_eq!(
        out(&run(&["delete", &id, second])),
        format!("{id} deleted\n{second} deleted\n")
    );
    assert_eq!(appliance.goto(second).status, 410);
    let restored = format!("{second} restored\n1 restored, 0 not deleted, 0 unknown\n");
    assert_eq!(out(&run(&["restore", second])), restored);
    assert_eq!(appliance.goto(second).status, 302);

    let starting = run(&["update", second, "--starts", "2096-10-02T07:06:40Z"]);
    let starting = out(&starting);
    assert!(
        starting.contains("\nstarts       2096-10-02T07:06:40Z\nexpires "),
        "{starting}"
    );
    let listed = out(&run(&["list"]));
    assert!(
        listed.contains("  STARTS                EXPIRES  ") && listed.contains("2096-10-02T07:06:40Z  never"),
        "{listed}"
    );
    assert_eq!(appliance.goto(second).status, 404);
    for clearing in [["--starts", "now"], ["--clear", "starts"]] {
        let cleared = out(&run(&[&["update", second], &clearing[..]].concat()));
        assert!(!cleared.contains("starts"), "{cleared}");
        run(&["update", second, "--starts", "30d"]);
    }
    let (exit, said) = failed(&run(&["update", second, "--expires", "7d"]));
    assert!(exit == 5 && said.contains("is not before expiresAt"), "{exit} {said}");
    assert_eq!(failed(&run(&["update", second, "--starts", "never"])).0, 2);
    run(&["update", second, "--clear", "starts"]);

    // Without options, it changes nothing and shows the link.
    assert_eq!(out(&run(&["update", second])).lines().count(), 8);
    assert_eq!(out(&run(&["update", second, "--owner", "them"])).lines().count(), 9);
    let user = appliance.tinyd(&["user", "delete", "them", "--partner", PARTNER]);
    assert_eq!(out(&user), "them: all links deleted\n");
    assert_eq!(appliance.goto(second).status, 410);
}

#[test]
fn exit_code_tells_the_kind_of_error() {
    let appliance = Appliance::start();
    let run = |args: &[&str]| failed(&link(&appliance, args));
    let (exit, said) = run(&["get", "zzzzzzzz"]);
    assert_eq!(
        (exit, said.as_str()),
        (3, "tinyd: Invalid object id [zzzzzzzz] (INVALID_OBJECT_ID)\n")
    );
    let (exit, said) = run(&["add", "javascript:alert(1)", "--system-name", "NAME"]);
    assert_eq!(exit, 5);
    assert!(said.contains("PROPERTY_VALIDATION_WRONG_FORMAT"), "{said}");
    assert_eq!(run(&["add", "https://example.com/"]).0, 2);
    assert_eq!(run(&["list", "--status", "lost"]).0, 2);
    let (exit, said) = failed(&appliance.tinyd(&["link", "list"]));
    assert_eq!(exit, 2);
    assert!(
        said.contains("--partner is required") && said.contains("1234567, 7654321"),
        "{said}"
    );
    assert_eq!(run(&["list", "--url", "http://127.0.0.1:1"]).0, 6);
    let (exit, said) = run(&["list", "--url", &appliance.public]);
    assert_eq!(exit, 4, "{said}");

    let mut command = tinyd();
    let with_ks = command
        .args(["link", "list"])
        .env("TINYD_URL", &appliance.admin)
        .env("TINYD_KS", "nonsense");
    assert_eq!(failed(&with_ks.output().unwrap()).0, 4);
    let ks = appliance.admin_ks();
    let listed = tinyd()
        .args(["link", "list"])
        .env("TINYD_URL", &appliance.admin)
        .env("TINYD_KS", ks)
        .output()
        .unwrap();
    assert!(out(&listed).ends_with("0 of 0 links, page 1\n"));

    // An invalid ID does not stop the deletion of the others.
    let id = appliance.add(&appliance.admin_ks(), &[]);
    assert_eq!(run(&["delete", "zzzzzzzz", &id]).0, 3);
    assert_eq!(appliance.goto(&id).status, 410);
}

#[test]
fn help_has_examples_and_completions_are_generated() {
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["ks", "--help"],
        &["link", "add", "--help"],
        &["check", "--help"],
        &["cluster", "init", "--help"],
        &["cluster", "join", "--help"],
        &["cluster", "status", "--help"],
        &["cluster", "key", "--help"],
        &["cluster", "include", "--help"],
        &["cluster", "recreate", "--help"],
        &["cluster", "salvage", "--help"],
        &["cluster", "leave", "--help"],
    ] {
        let help = out(&tinyd().args(command).output().unwrap());
        assert!(help.contains("Example"), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&tinyd().args(["completions", shell]).output().unwrap());
        assert!(script.contains("tinyd") && script.contains("restore"), "{script}");
    }
    let script = out(&tinyd()
        .args(["completions", "bash", "--name", "tinyd-admin"])
        .output()
        .unwrap());
    assert!(script.contains(" tinyd-admin\n"), "{script}");
    assert!(out(&tinyd().arg("--version").output().unwrap()).starts_with("tinyd 0."));
}

#[test]
fn man_pages_of_commands_and_settings_are_written() {
    let folder = tempfile::tempdir().unwrap();
    // Twice: the folders are there then.
    for _ in 0..2 {
        out(&tinyd().arg("man").arg(folder.path()).output().unwrap());
    }
    for (page, part) in [
        ("man1/tinyd.1", "serve"),
        ("man1/tinyd-link-add.1", "system"),
        ("man5/tinyd.toml.5", "max_guesses_per_minute"),
    ] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(part), "{page}: {text}");
    }
    let (exit, said) = failed(&tinyd().args(["man", "/no/such/folder"]).output().unwrap());
    assert_eq!(exit, 1);
    assert!(
        said.contains("cannot write man pages into /no/such/folder: No such file or directory"),
        "{said}"
    );
}

#[test]
fn check_prints_effective_settings() {
    let appliance = Appliance::start();
    let said = out(&appliance.tinyd(&["check", "--public", "127.0.0.1:9999"]));
    for part in [
        "tinyd.toml: ok",
        "redirects: http://127.0.0.1:9999, this machine only",
        "short URLs: http://127.0.0.1:9999/tiny/ID",
        "warning: ",
        "\npublic.listen = 127.0.0.1:9999\npublic.tiny = hop\n",
        "public.max_guesses_per_minute = 600",
        "public.forgiving = true",
        "admin.body_timeout_seconds = ",
        "public.proxy_protocol = false",
        "log.access = off",
        "partner.id = 1234567, partner.admin_secret = (1), partner.user_secret = (1), partner.operator = false, \
         partner.destination_hosts = , partner.links_per_user_and_day = 0\n",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(!said.contains("secret-0123456789"), "{said}");
    std::fs::write(appliance.config(), "[links]\nid_length = 99\n").unwrap();
    let (exit, said) = failed(&appliance.tinyd(&["check"]));
    assert_eq!(exit, 2);
    assert!(
        said.contains("links.id_length = 99: expected a whole number from 4 to 20"),
        "{said}"
    );
}
