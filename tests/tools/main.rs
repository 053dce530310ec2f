//! Tests that need a program beyond the Rust toolchain.
//!
//! A test whose tool does not work here is reported as ignored, with the reason. With `TINYD_TESTS=all`, it fails instead.

#![allow(
    unreachable_pub,
    reason = "what a test binary shares among its modules reaches nobody else"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking"
)]

mod clients;
mod copies;
mod faults;
mod fetch;
mod first_start;
mod guide;
mod harness;
mod linearizability;
mod network;
mod nginx;
mod promtool;
mod redbot;
mod restart;
mod slowhttptest;
mod status;
#[allow(dead_code, reason = "tests/appliance uses the rest")]
#[path = "../appliance/support/mod.rs"]
mod support;
mod systemd;
mod tool;
mod vectors;
mod wrapper;

use std::process::ExitCode;

use harness::{Test, test};

const TESTS: &[Test] = &[
    test!(clients::the_python_client_works_unchanged, Python),
    test!(clients::the_node_client_and_the_kmc_work_unchanged, Node),
    test!(
        clients::the_typescript_client_works_unchanged_in_a_browser,
        Node,
        Chromium
    ),
    test!(clients::php_reads_its_format, Php),
    test!(copies::a_copy_that_does_not_fit_leaves_nothing_behind, Bash, Mount),
    test!(
        faults::syncs_that_fail_cost_no_acknowledged_write_and_no_redirect,
        Strace
    ),
    test!(
        faults::writes_that_find_no_space_cost_no_acknowledged_write_and_no_redirect,
        Strace
    ),
    test!(
        faults::a_full_disk_and_one_made_read_only_are_survived_until_they_take_writes_again,
        Bash,
        Mount
    ),
    test!(
        fetch::a_step_into_the_network_is_refused_when_followed_and_harmless_when_passed_on,
        Network
    ),
    test!(fetch::one_address_that_is_not_public_refuses_them_all, Network),
    test!(
        first_start::the_first_start_says_what_to_do_next_and_that_works,
        Bash,
        Curl
    ),
    test!(guide::the_examples_of_the_guide_work_word_for_word, Bash, Curl),
    test!(
        linearizability::concurrent_calls_are_linearizable_while_the_disk_fails,
        Strace
    ),
    test!(nginx::nginx_keeps_both_upstreams_with_the_settings_of_the_guide, Nginx),
    test!(nginx::nginx_without_these_settings_takes_both_upstreams_out, Nginx),
    test!(promtool::promtool_finds_nothing_wrong_with_the_scrape, Promtool),
    test!(promtool::the_dashboard_is_json_and_its_panels_have_queries, Promtool),
    test!(promtool::promtool_finds_nothing_wrong_with_the_alerts, Promtool),
    test!(redbot::redbot_finds_nothing_wrong, Python),
    test!(restart::no_request_fails_while_it_restarts, Bash),
    test!(
        slowhttptest::the_slow_heads_of_slowhttptest_cost_no_redirect,
        Slowhttptest
    ),
    test!(
        slowhttptest::the_slow_bodies_of_slowhttptest_cost_no_redirect,
        Slowhttptest
    ),
    test!(
        slowhttptest::the_slow_reads_of_slowhttptest_cost_no_redirect,
        Slowhttptest
    ),
    test!(status::a_store_that_refuses_writes_is_ill_health_and_says_why, Strace),
    test!(status::files_that_are_used_up_are_ill_health, Bash),
    test!(systemd::the_watchdog_hears_nothing_when_a_thread_hangs, Strace),
    test!(
        systemd::a_general_thread_that_hangs_keeps_no_redirect_waiting_and_the_watchdog_hears_nothing,
        Strace
    ),
    test!(vectors::no_spelling_of_what_is_inside_gets_there, Network),
    test!(vectors::what_is_refused_would_have_been_reached, Network),
    test!(vectors::no_redirect_leads_inside_either, Network),
    test!(vectors::what_is_outside_is_fetched, Network),
    test!(vectors::a_public_address_that_is_this_machines_is_refused, Network),
    test!(
        vectors::the_appliances_own_listeners_are_refused_even_if_everything_is_allowed,
        Network
    ),
    test!(
        vectors::the_machines_own_name_servers_are_asked_where_no_others_are_named_and_nothing_is_added,
        Network
    ),
];

fn main() -> ExitCode {
    harness::run(TESTS)
}
