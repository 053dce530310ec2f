//! `tinyd status` of an unhealthy server.

use std::fs;

use crate::support::fixture::{Appliance, configuration_with_operator, folder, poll};
use crate::support::scrape::Scrape;
use crate::support::status::{line, shown, status};
use crate::wrapper::{serve_under, start_with_failing};

pub fn status_is_unhealthy_while_writes_are_refused() {
    let appliance = start_with_failing("fdatasync", "EIO", "20+", folder(&configuration_with_operator()));
    let ks = appliance.admin_ks();
    let params = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    let add = || appliance.post("shortlink_shortlink", "add", &[&[("ks", &*ks)], &params[..]].concat());
    poll("a failure", || add().status == 503);
    appliance.wait_for_log("store failed: refusing writes");
    let output = appliance.tinyd(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(shown(&output).starts_with("NOT HEALTHY: "), "{}", shown(&output));
    let problem = line(&output, "problem").to_owned();
    assert!(
        problem.starts_with("the store refuses writes: ") && problem.contains("os error 5"),
        "{problem}"
    );
    assert!(line(&output, "store").starts_with("REFUSES WRITES"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("is not healthy"), "{told}");
    let scrape = Scrape::of(&appliance);
    assert_eq!(
        (
            scrape.get("tinyd_store_accepting_writes"),
            scrape.get("tinyd_store_failures_total")
        ),
        (0.0, 1.0)
    );
    assert!(
        scrape.get("tinyd_api_calls_total{action=\"shortlink_shortlink.add\",code=\"INTERNAL_SERVERL_ERROR\"}") > 0.0
    );
    assert!(status(&appliance)["api"]["failed"]["start"].as_u64().unwrap() > 0);
}

pub fn status_is_unhealthy_when_descriptors_run_out() {
    let folder = folder(&configuration_with_operator());
    let settings = fs::read_to_string(folder.path().join("tinyd.toml")).unwrap();
    fs::write(
        folder.path().join("tinyd.toml"),
        format!("[public]\nthreads = 1\n{settings}"),
    )
    .unwrap();
    // Not by connections: their limits keep descriptors free.
    let script = "ulimit -n 256; for number in {20..239}; do eval \"exec $number</dev/null\"; done; exec \"$@\"";
    let appliance = Appliance::start_by(serve_under(&["bash", "-c", script, "-"]), folder);
    let said = status(&appliance);
    assert_eq!(said["healthy"], false);
    let problem = said["problems"][0].as_str().unwrap();
    assert!(problem.contains("of 256 open files are used up"), "{problem}");
}
