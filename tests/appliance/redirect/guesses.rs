//! The limit on unknown IDs per client; known IDs are not limited.

use crate::support::fixture::Appliance;
use crate::support::http::{Answer, request};
use crate::support::scrape::Scrape;
use crate::support::scrape::refusals;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

fn goto(base: &str, id: &str, more: &str, client: &str) -> Answer {
    request(
        base,
        "GET",
        &format!("{GOTO}{id}{more}"),
        &[("X-Forwarded-For", client)],
        b"",
    )
}

#[test]
fn unknown_ids_are_rate_limited_per_client() {
    let settings = "[public]\nmax_guesses_per_minute = 10\ntrusted_proxies = \"127.0.0.1\"\n\
                    [admin]\ntrusted_proxies = \"127.0.0.1\"\n";
    let appliance = Appliance::start_with(settings);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    // The fast path, hyper, and the admin listener, each from its own client.
    for (base, more, client) in [
        (&appliance.public, "", "203.0.113.7"),
        (&appliance.public, "?x=y", "2001:db8::7"),
        (&appliance.admin, "", "198.51.100.7"),
    ] {
        let redirects =
            |outcome| Scrape::of(&appliance).get(&format!("tinyd_redirects_total{{outcome=\"{outcome}\"}}"));
        let before = ["unknown", "refused"].map(redirects);
        // A new minute may begin in between, which resets the counts.
        let mut statuses = Vec::new();
        for number in 0..30 {
            statuses.push(goto(base, &format!("guess{number}"), more, client).status);
            if statuses.ends_with(&[429]) && !statuses[..statuses.len() - 1].contains(&429) {
                let refused = goto(base, "guess", more, client);
                assert_eq!(refused.header("retry-after"), "60");
                assert_eq!(refused.header("cache-control"), "no-store");
                assert!(
                    refused.text().starts_with("too many unknown short links"),
                    "{refused:?}"
                );
                // Known IDs redirect.
                assert_eq!(goto(base, &id, more, client).status, 302);
            }
        }
        let allowed = statuses.iter().take_while(|status| **status == 404).count();
        assert_eq!(allowed, 10, "{client}: {statuses:?}");
        assert!(
            statuses[10..].iter().all(|status| *status == 429),
            "{client}: {statuses:?}"
        );
        // A client that goes on is shut out; others are not.
        assert_eq!(goto(base, &id, more, client).status, 429, "{client}");
        // Counted: twenty of the thirty, the one that was checked, and the one for a known ID.
        let after = ["unknown", "refused"].map(redirects);
        assert_eq!([after[0] - before[0], after[1] - before[1]], [10.0, 22.0], "{client}");
        assert_eq!(goto(base, &id, more, "203.0.113.8").status, 302);
        assert_eq!(goto(base, "guess", more, "203.0.113.8").status, 404);
    }
    assert!(refusals(&appliance, "public", "guesses") >= 60);
}

#[test]
fn loopback_is_not_shut_out_and_repeats_are_no_guess() {
    let appliance = Appliance::start_with("[public]\nmax_guesses_per_minute = 10\n");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    for _ in 0..100 {
        assert_eq!(appliance.goto("misprint").status, 404);
    }
    for number in 0..50 {
        appliance.goto(&format!("guess{number}"));
    }
    assert_eq!(appliance.goto("another1").status, 429);
    // A proxy on this machine would appear as loopback.
    assert_eq!(appliance.goto(&id).status, 302);
}

#[test]
fn first_shutout_is_logged_with_the_setting() {
    let settings = "[public]\nmax_guesses_per_minute = 10\ntrusted_proxies = \"127.0.0.1\"\n";
    let appliance = Appliance::start_with(settings);
    let shut_outs = || Scrape::of(&appliance).get("tinyd_guessers_shut_out_total");
    let guess = |client: &str| {
        for number in 0..30 {
            goto(&appliance.public, &format!("guess{number}"), "", client);
        }
    };
    assert_eq!(shut_outs(), 0.0);
    // Clients with a private address get 429 and are not shut out.
    guess("10.0.0.7");
    assert_eq!(shut_outs(), 0.0);
    assert!(!appliance.log().contains("shutting out"), "{}", appliance.log());
    for client in ["203.0.113.7", "203.0.113.8"] {
        guess(client);
    }
    assert!(shut_outs() >= 2.0);
    appliance.wait_for_log("shutting out a client");
    let log = appliance.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("shutting out")).collect();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    for part in [
        "WARN",
        "client=203.0.113.0",
        "public.max_guesses_per_minute",
        "public.shut_out_guessers",
        "public.trusted_proxies",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
