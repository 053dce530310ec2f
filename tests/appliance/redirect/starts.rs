//! Links that have not started yet.

use crate::support::fixture::Appliance;
use crate::support::http::request;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
/// 2096-10-02 07:06:40 UTC.
const START: &str = "4000000000";

#[test]
fn link_answers_404_with_its_start_until_then() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\n"));
        let ks = appliance.admin_ks();
        let id = appliance.add(&ks, &[("shortLink[startsAt]", START)]);
        // The fast path, hyper on the public listener, and the admin listener.
        for (base, more) in [
            (&appliance.public, ("User-Agent", "x")),
            (&appliance.public, ("Upgrade", "other")),
            (&appliance.admin, ("User-Agent", "x")),
        ] {
            let ask = |accept, format: &str| {
                let answer = request(
                    base,
                    "GET",
                    &format!("{GOTO}{id}{format}"),
                    &[("Accept", accept), more],
                    b"",
                );
                assert_eq!(answer.status, 404);
                assert_eq!(answer.header("cache-control"), "no-store");
                assert_eq!(answer.header("x-robots-tag"), "noindex");
                assert_eq!(answer.header("x-kaltura"), "error-NOT_YET_OPEN_SHORT_LINK");
                answer
            };
            let text = format!("Short link [{id}] opens at 2096-10-02 07:06:40 UTC (NOT_YET_OPEN_SHORT_LINK)\n");
            assert_eq!(ask("*/*", "").text(), text);
            let page = ask("text/html", "");
            assert!(
                page.text()
                    .contains("This link opens on 2 October 2096 at 07:06:40\u{a0}(UTC)."),
                "{page:?}"
            );
            let exception = ask("*/*", "?format=1").json();
            assert_eq!(exception["args"]["STARTS_AT"], "2096-10-02 07:06:40 UTC");
            // Nothing is fetched before the start.
            assert_eq!(ask("*/*", "/proxy/true").text(), text);
        }
        let tiny_status = if tiny == "hop" { 301 } else { 404 };
        assert_eq!(appliance.get_public(&format!("/tiny/{id}")).status, tiny_status);
        appliance.link("update", &ks, &[("id", &id), ("shortLink[startsAt]", "1000")]);
        assert_eq!(appliance.goto(&id).status, 302);
    }
}

#[test]
fn other_reasons_come_before_a_start() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let start = ("shortLink[startsAt]", START);
    for (status, http, code) in [("1", 404, "INVALID_SHORT_LINK"), ("3", 410, "INVALID_SHORT_LINK")] {
        let id = appliance.add(&ks, &[start, ("shortLink[status]", status)]);
        let answer = appliance.goto(&id);
        assert_eq!(
            (answer.status, answer.header("x-kaltura")),
            (http, &*format!("error-{code}"))
        );
    }
    let past = [("shortLink[startsAt]", "1000"), ("shortLink[expiresAt]", "2000")];
    assert_eq!(
        appliance.goto(&appliance.add(&ks, &past)).header("x-kaltura"),
        "error-EXPIRED_SHORT_LINK"
    );
}

#[test]
fn start_holds_while_links_load_and_after_a_restart() {
    let mut appliance = Appliance::start_with("[log]\naccess = 1\n");
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[startsAt]", START)]);
    appliance.terminate();
    appliance.restart();
    assert_eq!(appliance.goto(&id).header("x-kaltura"), "error-NOT_YET_OPEN_SHORT_LINK");
    appliance.wait_for_log(&format!("goto {id}"));
    appliance.kill();
    appliance.restart();
    assert_eq!(appliance.goto(&id).status, 404);
}
