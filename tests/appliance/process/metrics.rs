//! The metrics of the appliance.

use std::collections::BTreeSet;

use crate::support::browser::Browser;
use crate::support::certificates::Authority;
use crate::support::fixture::{
    ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, code, configuration_with_operator, folder, poll,
};
use crate::support::http::request;
use crate::support::scrape::{Scrape, monitoring, open_metrics};
use crate::support::tls::{NAME, settings, write_pair};

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

/// The increase of each sample.
fn added(before: &Scrape, after: &Scrape, samples: &[String]) -> Vec<f64> {
    samples
        .iter()
        .map(|sample| after.get(sample) - before.get(sample))
        .collect()
}

#[test]
fn redirects_are_counted_by_outcome_on_both_paths() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let ids = [
        appliance.add(&ks, &[]),
        appliance.add(&ks, &[("shortLink[status]", "1")]),
        appliance.add(&ks, &[]),
        appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]),
        appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]),
        "zzzzzzzz".to_owned(),
    ];
    appliance.link("delete", &ks, &[("id", &ids[2])]);
    let outcomes = [
        "found", "disabled", "deleted", "expired", "not_yet", "unknown", "hop", "loading", "damaged", "refused",
    ];
    let samples = outcomes.map(|outcome| format!("tinyd_redirects_total{{outcome=\"{outcome}\"}}"));
    let timed = ["tinyd_redirect_duration_seconds_count".to_owned()];
    // The fast path, hyper on the public listener, and the admin listener.
    for (base, header) in [
        (&appliance.public, ("Accept", "*/*")),
        (&appliance.public, ("Upgrade", "other")),
        (&appliance.admin, ("Accept", "*/*")),
    ] {
        let before = Scrape::of(&appliance);
        for id in &ids {
            for method in ["GET", "HEAD"] {
                request(base, method, &format!("{GOTO}{id}"), &[header], b"");
            }
        }
        request(base, "GET", &format!("/tiny/{}", ids[0]), &[header], b"");
        // An invalid ID has no link.
        request(base, "GET", "/tiny/NO", &[header], b"");
        let after = Scrape::of(&appliance);
        let expected = [2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0];
        assert_eq!(added(&before, &after, &samples), expected, "{base} {header:?}");
        // The response can arrive before the server has counted it.
        poll("durations", || {
            added(&before, &Scrape::of(&appliance), &timed) == [14.0]
        });
        let sum = ["tinyd_redirect_duration_seconds_sum".to_owned()];
        assert!(added(&before, &Scrape::of(&appliance), &sum)[0] > 0.0);
    }
    // A goto inside the API counts as a redirect too.
    let before = Scrape::of(&appliance);
    assert_eq!(
        appliance.post("shortlink_shortlink", "goto", &[("id", &ids[0])]).status,
        302
    );
    assert_eq!(added(&before, &Scrape::of(&appliance), &samples)[0], 1.0);
}

#[test]
fn pipelined_redirects_are_all_counted() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let before = Scrape::of(&appliance);
    let one = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let host = appliance.public.strip_prefix("http://").unwrap();
    crate::support::http::exchange(host, [one.repeat(999), last].concat().as_bytes());
    let samples = [
        "tinyd_redirects_total{outcome=\"found\"}",
        "tinyd_redirect_duration_seconds_count",
        "tinyd_redirect_duration_seconds_bucket{le=\"+Inf\"}",
    ];
    let samples = samples.map(str::to_owned);
    poll("durations", || {
        added(&before, &Scrape::of(&appliance), &samples) == [1_000.0; 3]
    });
}

#[test]
fn calls_are_counted_by_action_and_error_code() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[uniqueId]", "one")]);
    let calls = |action: &str, code: &str| format!("tinyd_api_calls_total{{action=\"{action}\",code=\"{code}\"}}");
    let samples = [
        calls("shortlink_shortlink.get", ""),
        calls("shortlink_shortlink.get", "INVALID_OBJECT_ID"),
        calls("shortlink_shortlink.add", "SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS"),
        calls("session.start", "START_SESSION_ERROR"),
        calls("system.ping", ""),
        calls("unknown", "SERVICE_DOES_NOT_EXISTS"),
        calls("unknown", "ACTION_DOES_NOT_EXISTS"),
        calls("unknown", "UNKNOWN_RESPONSE_FORMAT"),
        calls("unknown", "INVALID_PARAMETER_VALUE"),
        "tinyd_api_call_duration_seconds_count{action=\"system.ping\"}".to_owned(),
        starts("api", "refused"),
        starts("api", "throttled"),
    ];
    let before = Scrape::of(&appliance);
    appliance.link("get", &ks, &[("id", &id)]);
    assert_eq!(
        code(&appliance.link("get", &ks, &[("id", "zzzzzzzz")])),
        "INVALID_OBJECT_ID"
    );
    let again = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
        ("shortLink[uniqueId]", "one"),
    ];
    appliance.link("add", &ks, &again);
    for _ in 0..11 {
        appliance.post("session", "start", &[("secret", "wrong"), ("partnerId", PARTNER)]);
    }
    let multirequest = [
        ("format", "1"),
        ("1:service", "system"),
        ("1:action", "ping"),
        ("2:service", "system"),
        ("2:action", "ping"),
        ("3:service", "no such"),
        ("3:action", "ping"),
    ];
    assert_eq!(appliance.post("multirequest", "null", &multirequest).status, 200);
    appliance.post("system", "no-such", &[]);
    appliance.post("system", "ping", &[("format", "77")]);
    let json = [("Content-Type", "application/json")];
    let broken = request(
        &appliance.admin,
        "POST",
        "/api_v3/service/system/action/ping",
        &json,
        b"{",
    );
    assert!(broken.text().contains("INVALID_PARAMETER_VALUE"), "{broken:?}");
    let expected = [1.0, 1.0, 1.0, 11.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 10.0, 1.0];
    assert_eq!(added(&before, &Scrape::of(&appliance), &samples), expected);
    // Each action has a sample before its first call.
    assert!(Scrape::of(&appliance).0.contains_key(&calls("user.delete", "")));
}

/// The sample of session starts.
fn starts(method: &str, outcome: &str) -> String {
    format!("tinyd_session_starts_total{{method=\"{method}\",outcome=\"{outcome}\"}}")
}

#[test]
fn session_starts_are_counted_by_method_and_outcome() {
    let more = "[admin]\ntrusted_proxies = \"127.0.0.1\"\n[console]\n\
        trusted_header = \"X-User\"\npartner = 1234567\n";
    let appliance = Appliance::start_with(more);
    let ks = appliance.admin_ks();
    let samples = [
        starts("api", "started"),
        starts("secret", "started"),
        starts("secret", "refused"),
        starts("secret", "throttled"),
        starts("link", "started"),
        starts("link", "refused"),
        starts("header", "started"),
        starts("header", "refused"),
    ];
    let before = Scrape::of(&appliance);
    appliance.start_session(ADMIN_SECRET, "me", "2", "");
    let sign_in = |secret: &str| Browser::new(&appliance).sign_in(PARTNER, "jane", secret).status;
    assert_eq!(sign_in(ADMIN_SECRET), 303);
    for _ in 0..10 {
        assert_eq!(sign_in("guessed"), 403);
    }
    assert_eq!(sign_in("guessed"), 429);
    let made = appliance.call("tinyd", "signInLink", &ks, &[("userId", "jane"), ("type", "0")]);
    let path = format!("/{}", made["path"].as_str().unwrap());
    for status in [303, 410] {
        assert_eq!(Browser::new(&appliance).post(&path, &[]).status, status);
    }
    let page = |user: &str| {
        Browser::new(&appliance)
            .send("GET", "/links", &[("X-User", user)], b"")
            .status
    };
    assert_eq!([page("jane"), page("jane"), page("a,b")], [200, 200, 400]);
    let expected = [1.0, 1.0, 10.0, 1.0, 1.0, 1.0, 2.0, 1.0];
    assert_eq!(added(&before, &Scrape::of(&appliance), &samples), expected);
}

#[test]
fn rejected_sessions_are_counted_by_reason() {
    let appliance = Appliance::start();
    let start = |privileges: &str| appliance.start_session(ADMIN_SECRET, "me", "2", privileges);
    let ended = start("");
    appliance.call("session", "end", &ended, &[]);
    let counted = start("actionslimit:1");
    let list = |ks: &str| appliance.link("list", ks, &[]);
    list(&counted);
    let before = Scrape::of(&appliance);
    for ks in [
        "djJ8nonsense",
        "djJ8nonsense",
        &ended,
        &counted,
        &start("iprestrict:192.0.2.1"),
        &start("urirestrict:/other*"),
    ] {
        assert_eq!(code(&list(ks)), "INVALID_KS");
    }
    let missing = appliance.post("shortlink_shortlink", "list", &[("format", "1")]);
    assert_eq!(code(&missing.json()), "MISSING_KS");
    let reasons = [
        "missing",
        "malformed",
        "revoked",
        "actions_limit",
        "restricted_ip",
        "restricted_uri",
        "expired",
    ];
    let samples = reasons.map(|reason| format!("tinyd_ks_failures_total{{reason=\"{reason}\"}}"));
    let expected = [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0];
    assert_eq!(added(&before, &Scrape::of(&appliance), &samples), expected);
}

#[test]
fn link_counts_change_with_the_acknowledged_write() {
    let mut appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let links = |appliance: &Appliance| {
        let scrape = Scrape::of(appliance);
        ["enabled", "disabled", "deleted"].map(|status| scrape.get(&format!("tinyd_links{{status=\"{status}\"}}")))
    };
    assert_eq!(links(&appliance), [0.0, 0.0, 0.0]);
    let ids: Vec<_> = (0..3).map(|_| appliance.add(&ks, &[])).collect();
    assert_eq!(links(&appliance), [3.0, 0.0, 0.0]);
    appliance.link("update", &ks, &[("id", &ids[0]), ("shortLink[status]", "1")]);
    assert_eq!(links(&appliance), [2.0, 1.0, 0.0]);
    appliance.link("delete", &ks, &[("id", &ids[1])]);
    assert_eq!(links(&appliance), [1.0, 1.0, 1.0]);
    appliance.link("restore", &ks, &[("id", &ids[1])]);
    assert_eq!(links(&appliance), [2.0, 1.0, 0.0]);
    let scrape = Scrape::of(&appliance);
    assert_eq!(
        (scrape.get("tinyd_map_links"), scrape.get("tinyd_map_loaded")),
        (3.0, 1.0)
    );
    assert!(scrape.get("tinyd_map_bytes") > 64.0 * 1024.0 && scrape.has("tinyd_map_load_seconds"));
    // The counts survive a restart.
    for is_killed in [false, true] {
        if is_killed {
            appliance.kill();
        } else {
            assert!(appliance.terminate().success());
        }
        appliance.restart();
        assert_eq!(links(&appliance), [2.0, 1.0, 0.0], "{is_killed}");
    }
}

#[test]
fn commits_are_counted_and_timed() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let before = Scrape::of(&appliance);
    for _ in 0..10 {
        appliance.add(&ks, &[]);
    }
    let samples = [
        "tinyd_store_commit_duration_seconds_count",
        "tinyd_store_batch_writes_count",
        "tinyd_store_batch_writes_sum",
    ];
    let after = Scrape::of(&appliance);
    assert_eq!(added(&before, &after, &samples.map(str::to_owned)), [10.0; 3]);
    assert!(
        after.get("tinyd_store_commit_duration_seconds_sum") > before.get("tinyd_store_commit_duration_seconds_sum")
    );
    assert!(after.get("tinyd_store_file_bytes") > 0.0 && after.get("tinyd_store_disk_free_bytes") > 0.0);
    assert_eq!(
        (
            after.get("tinyd_store_accepting_writes"),
            after.get("tinyd_store_queued_writes")
        ),
        (1.0, 0.0)
    );
    poll("a checkpoint", || {
        let scrape = Scrape::of(&appliance);
        scrape.get("tinyd_store_checkpoint_duration_seconds_count") > 0.0
            && scrape.get("tinyd_store_journal_bytes") == 0.0
    });
}

#[test]
fn metrics_contain_no_client_data() {
    let appliance = Appliance::start_with_operator();
    let ks = appliance.start_session(ADMIN_SECRET, "editor@example.com", "2", "");
    let id = appliance.add(&ks, &[("shortLink[uniqueId]", "a-unique-id")]);
    appliance.goto(&id);
    appliance.goto("zzzzzzzz");
    appliance.get_public(&format!("/tiny/{id}"));
    appliance.post("no-such-service", "no-such-action", &[("ks", &ks)]);
    appliance.post("session", "start", &[("secret", "wrong"), ("partnerId", "7654321")]);
    for answer in [appliance.get_admin("/metrics"), open_metrics(&appliance)] {
        let text = answer.text();
        for word in [
            &id,
            &ks,
            "zzzzzzzz",
            "example.com",
            "a-unique-id",
            "NAME",
            "no-such",
            "127.0.0.1",
            PARTNER,
            "7654321",
            ADMIN_SECRET,
            USER_SECRET,
        ] {
            assert!(!text.contains(word), "{word}:\n{text}");
        }
    }
}

#[test]
fn metrics_are_served_on_the_admin_listener_only() {
    let appliance = Appliance::start();
    let text = appliance.get_admin("/metrics");
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(text.header("cache-control"), "no-store");
    let open = open_metrics(&appliance);
    let of_open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), of_open);
    assert!(open.text().ends_with("# EOF\n"));
    assert_eq!(request(&appliance.admin, "HEAD", "/metrics", &[], b"").status, 200);
    for (method, status) in [("POST", 405), ("DELETE", 405), ("OPTIONS", 204)] {
        let answer = request(&appliance.admin, method, "/metrics", &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (status, "GET, HEAD, OPTIONS"));
    }
    assert_eq!(appliance.get_public("/metrics").status, 404);
}

#[test]
fn metrics_describe_the_process_and_the_build() {
    let scrape = Scrape::of(&Appliance::start());
    let build = format!("tinyd_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.get(&build), 1.0);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
        "process_start_time_seconds",
    ] {
        assert!(scrape.has(name) && scrape.get(name) >= 0.0, "{name}");
    }
    assert!(scrape.get("process_open_fds") > 5.0 && scrape.get("process_resident_memory_bytes") > 1e6);
    assert!(scrape.get("process_start_time_seconds") > 1.7e9);
}

/// The metrics named in a text.
fn named_metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("tinyd_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn dashboard_and_alerts_name_existing_metrics() {
    let folder = folder(&(settings("") + &configuration_with_operator()));
    write_pair(folder.path(), &Authority::new().issue(&[NAME], |_| {}));
    let appliance = Appliance::start_in(folder);
    appliance.add(&appliance.admin_ks(), &[]);
    // The sample exists only after the first backup.
    let copy = appliance.folder.path().join("backup.redb");
    assert!(appliance.tinyd(&["backup", copy.to_str().unwrap()]).status.success());
    poll("a backup", || {
        Scrape::of(&appliance).has("tinyd_last_backup_timestamp_seconds")
    });
    let scrape = Scrape::of(&appliance);
    for name in ["grafana-dashboard.json", "alerts.yml", "alerts.test.yml"] {
        let text = monitoring(name);
        let metrics = named_metrics(&text);
        assert!(metrics.len() > 10, "{name}");
        // A unit test knows those of a cluster.
        for metric in metrics
            .into_iter()
            .filter(|metric| !metric.starts_with("tinyd_cluster_"))
        {
            assert!(scrape.has(metric), "{name}: there is no {metric}");
        }
    }
}

#[test]
fn each_alert_has_a_test_and_a_runbook() {
    let (alerts, tests) = (monitoring("alerts.yml"), monitoring("alerts.test.yml"));
    let names: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        assert!(
            tests.contains(&format!("- alertname: {name}\n")),
            "{name} is not tested"
        );
        assert!(
            tests.contains(&format!("alertname: {name}, ")),
            "nothing shows that {name} can be silent"
        );
        let runbook = format!("runbook: docs/monitoring.md#{}\n", name.to_lowercase());
        assert!(alerts.contains(&runbook), "{name} has no runbook");
    }
}
