//! A damaged store: what clients and the operator see.

use std::fs;

use crate::support::fixture::{Appliance, configuration_with_operator, folder, poll, serve, tinyd};

/// Replaces each occurrence of a text in the store's file by one of the same length.
fn damage(appliance: &Appliance, from: &str, to: &str) {
    let mut content = fs::read(appliance.store()).unwrap();
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let positions: Vec<_> = (0..content.len())
        .filter(|at| content[*at..].starts_with(from))
        .collect();
    assert!(!positions.is_empty());
    for at in positions {
        content[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(appliance.store(), content).unwrap();
}

#[test]
fn damaged_record_is_503_and_reported_everywhere() {
    // The audit log has the destination too, and would be another problem.
    let configuration = format!("{}[links]\naudit_entries = 0\n", configuration_with_operator());
    let mut appliance = Appliance::start_in(folder(&configuration));
    let ks = appliance.admin_ks();
    let add = |url: &str| appliance.add(&ks, &[("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", url)]);
    let (damaged, whole) = (add("https://www.kaltura.com/a"), add("https://www.kaltura.com/b"));
    appliance.terminate();
    damage(&appliance, "https://www.kaltura.com/a", "https://www.kaltura.ccm/a");
    appliance.restart();

    assert_eq!(appliance.goto(&damaged).status, 503);
    assert_eq!(appliance.goto(&whole).header("location"), "https://www.kaltura.com/b");
    poll("the verification", || {
        appliance.get_admin("/readyz").json()["store"]["verified"].is_i64()
    });
    // It serves all other links, so the load balancer keeps it.
    let ready = appliance.get_admin("/readyz");
    assert_eq!((ready.status, &ready.json()["store"]["problems"]), (200, &1.into()));
    assert!(
        appliance
            .get_admin("/metrics")
            .text()
            .contains("tinyd_store_problems 1")
    );
    appliance.wait_for_log(&format!("{damaged}: wrong checksum"));
    let status = appliance.tinyd(&["status"]);
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(!status.status.success() && told.contains("1 PROBLEMS"), "{told}");

    let copy = appliance.folder.path().join("backup.redb");
    let made = appliance.tinyd(&["backup", copy.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(!made.status.success() && !copy.exists(), "{told}");
    assert!(told.contains(&format!("{damaged}: wrong checksum")), "{told}");
}

#[test]
fn foreign_journal_keeps_redirects_and_rejects_writes() {
    let crashed = || {
        let mut appliance = Appliance::start_with_operator();
        let ks = appliance.admin_ks();
        let ids = ["https://e.example/1", "https://e.example/2"]
            .map(|url| appliance.add(&ks, &[("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", url)]));
        appliance.kill();
        (appliance, ids)
    };
    let ((crashed, ids), (other, _)) = (crashed(), crashed());
    let journal = |appliance: &Appliance| appliance.folder.path().join("data/links.redb.journal");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::copy(crashed.config(), folder.path().join("tinyd.toml")).unwrap();
    fs::copy(crashed.store(), folder.path().join("data/links.redb")).unwrap();
    fs::copy(journal(&other), folder.path().join("data/links.redb.journal")).unwrap();
    let mut one = Appliance::spawn_by(serve(), folder);
    poll("loaded", || one.get_admin("/readyz").json()["map"]["loaded"] == true);
    let ready = one.get_admin("/readyz");
    assert_eq!(ready.status, 503);
    let reason = ready.json()["store"]["reason"].clone();
    assert!(
        reason.as_str().unwrap().contains("journal of another store"),
        "{reason}"
    );
    // The first write is durable: it created the journal.
    assert_eq!(one.goto(&ids[0]).header("location"), "https://e.example/1");
    let ks = one.admin_ks();
    let refused = one.post(
        "shortlink_shortlink",
        "add",
        &[
            ("ks", &ks),
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://e.example/3"),
        ],
    );
    assert_eq!(refused.status, 503);

    one.terminate();
    fs::copy(journal(&crashed), journal(&one)).unwrap();
    one.restart();
    for (id, url) in ids.iter().zip(["https://e.example/1", "https://e.example/2"]) {
        assert_eq!(one.goto(id).header("location"), url);
    }
}

#[test]
fn unreadable_store_is_named_at_start_and_left_unchanged() {
    let folder = folder(&configuration_with_operator());
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let store = data.join("links.redb");
    let mut damaged = include_bytes!("../../../src/store/testdata/format_1.redb").to_vec();
    for byte in &mut damaged[64..200] {
        *byte = 0x5a;
    }
    for (content, reason) in [
        (b"not a database at all".to_vec(), "links.redb"),
        (Vec::new(), "links.redb"),
        (damaged, "links.redb"),
    ] {
        fs::write(&store, &content).unwrap();
        for mode in [&[][..], &["--read-only"]] {
            let config = folder.path().join("tinyd.toml");
            let mut command = tinyd();
            command
                .args(["serve", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
                .args(mode);
            let ended = command
                .arg("--config")
                .arg(config)
                .arg("--data")
                .arg(&data)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(1), "{told}");
            assert!(
                told.lines().last().unwrap().starts_with("tinyd: ") && told.contains(reason),
                "{told}"
            );
            assert!(fs::read(&store).unwrap() == content, "the file was changed");
        }
    }
}
