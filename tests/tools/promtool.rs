//! promtool checks the metrics, the dashboard and the alerts.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::fixture::Appliance;
use crate::support::scrape::{monitoring, open_metrics};

fn promtool(args: &[&str], input: &str) -> String {
    let child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool: apt-get install prometheus");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

/// An appliance with a little of each kind of traffic.
fn used() -> Appliance {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[uniqueId]", "a-unique-id")]);
    appliance.goto(&id);
    appliance.get_public(&format!("/tiny/{id}"));
    appliance.goto("zzzzzzzz");
    appliance.link("get", "djJ8nonsense", &[("id", &id)]);
    appliance
}

pub fn promtool_accepts_the_metrics() {
    let appliance = used();
    promtool(&["check", "metrics"], appliance.get_admin("/metrics").text());
    // The parser of the Prometheus server, which wants a timestamp with each sample here.
    let folder = tempfile::tempdir().unwrap();
    let (file, blocks) = (folder.path().join("scrape"), folder.path().join("blocks"));
    let open = open_metrics(&appliance);
    let stamped = open.text().lines().map(|line| match line.strip_prefix('#') {
        Some(_) => format!("{line}\n"),
        None => format!("{line} 1800000000\n"),
    });
    fs::write(&file, stamped.collect::<String>()).unwrap();
    let paths = [file, blocks].map(|path| path.to_str().unwrap().to_owned());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", &paths[0], &paths[1]], "");
}

pub fn promtool_accepts_the_dashboard_queries() {
    let dashboard: serde_json::Value = serde_json::from_str(&monitoring("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = String::new();
    for (number, panel) in panels.iter().filter(|panel| panel["type"] != "row").enumerate() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for (target, query) in targets.iter().enumerate() {
            let query = query["expr"].as_str().unwrap();
            // With Grafana's variables filled in.
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$job", "tinyd")
                .replace("$instance", ".*");
            queries.push_str(&format!("  - record: panel:{number}:{target}\n    expr: {query:?}\n"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yml");
    fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{queries}")).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

pub fn promtool_accepts_and_tests_the_alerts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/monitoring");
    promtool(&["check", "rules", &format!("{folder}/alerts.yml")], "");
    promtool(&["test", "rules", &format!("{folder}/alerts.test.yml")], "");
}
