//! Tests that need a program beyond the Rust toolchain.
//!
//! A test is ignored, with the reason, if its tool does not work here. With `TINYD_TESTS=all`, it fails instead.

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

mod acme;
mod browser;
mod clients;
mod cluster;
mod console;
mod copies;
mod faults;
mod fetch;
mod guide;
mod harness;
mod linearizability;
mod network;
mod nginx;
mod oidc;
mod promtool;
mod redbot;
mod restart;
mod revocation;
mod slowhttptest;
mod status;
#[allow(dead_code, reason = "tests/appliance uses the rest")]
#[path = "../appliance/support/mod.rs"]
mod support;
mod systemd;
mod tls;
mod tool;
mod vectors;
mod wrapper;

use std::process::ExitCode;

use harness::{Test, test};

const TESTS: &[Test] = &[
    test!(acme::pebble_issues_by_http_01_and_the_certificate_is_kept, Pebble),
    test!(acme::pebble_issues_by_tls_alpn_01, Pebble),
    test!(acme::pebble_as_it_is_by_default_issues, Pebble),
    test!(acme::pebble_renews_a_certificate_that_is_due, Pebble),
    test!(acme::pebble_refuses_and_the_old_certificate_stays, Pebble),
    test!(acme::pebble_is_down_at_first_and_issues_later, Pebble),
    test!(acme::pebble_forgets_the_account_and_another_is_made, Pebble),
    test!(acme::pebble_revokes_and_the_operator_orders_another, Pebble),
    test!(browser::chromium_is_redirected_over_http2, Chromium),
    test!(browser::chromium_shows_a_page_and_requests_nothing_else, Chromium),
    test!(browser::h2load_gets_every_redirect, Nghttp2),
    test!(browser::nghttp_is_redirected, Nghttp2),
    test!(clients::python_client_works_unchanged, Python),
    test!(clients::node_client_and_kmc_work_unchanged, Node),
    test!(clients::typescript_client_works_unchanged_in_a_browser, Node, Chromium),
    test!(clients::php_reads_the_php_format, Php),
    test!(cluster::writes_of_any_box_are_on_all, Nats),
    test!(cluster::hundred_edges_show_every_link, Nats),
    test!(cluster::killed_boxes_return_with_everything, Nats),
    test!(cluster::rolling_restart_fails_no_redirect, Nats),
    test!(cluster::calls_are_linearizable_through_two_boxes, Nats),
    test!(cluster::killed_servers_lose_nothing, Nats),
    test!(cluster::hung_leader_loses_nothing, Nats),
    test!(cluster::lost_quorum_refuses_writes_until_it_is_back, Nats),
    test!(cluster::damaged_replica_misleads_no_box, Nats),
    test!(cluster::lost_end_of_the_log_is_put_back, Nats),
    test!(cluster::deleted_stream_is_made_anew, Nats),
    test!(cluster::forked_box_stops_and_is_salvaged, Nats),
    test!(cluster::lost_end_that_no_box_keeps_is_given_up, Nats),
    test!(cluster::box_away_for_too_long_goes_on_from_a_copy, Nats),
    test!(cluster::copy_waits_for_room_on_the_servers, Nats),
    test!(cluster::full_disks_of_servers_lose_nothing, Nats, Mount),
    test!(cluster::edge_with_a_key_reads_the_log_and_cannot_write, Nats),
    test!(cluster::partitioned_server_is_left, Nats, Network),
    test!(console::people_use_the_console_in_chromium, Node, Chromium),
    test!(copies::copy_on_a_full_disk_leaves_no_file, Bash, Mount),
    test!(faults::failed_syncs_lose_no_write_and_no_redirect, Strace),
    test!(faults::full_disk_loses_no_write_and_no_redirect, Strace),
    test!(faults::store_recovers_from_full_and_read_only_disks, Bash, Mount),
    test!(
        faults::start_on_full_and_read_only_disks_serves_what_is_there,
        Bash,
        Mount
    ),
    test!(faults::damaged_store_is_not_taken_for_a_full_disk, Bash, Mount),
    test!(fetch::redirect_into_the_network_is_never_followed, Network),
    test!(fetch::one_private_address_refuses_the_whole_name, Network),
    test!(guide::guide_examples_work_word_for_word, Bash, Curl),
    test!(linearizability::calls_are_linearizable_while_the_disk_fails, Strace),
    test!(nginx::documented_nginx_settings_keep_both_upstreams, Nginx),
    test!(nginx::nginx_without_the_settings_drops_both_upstreams, Nginx),
    test!(oidc::people_sign_in_with_openid_connect, Node, Chromium),
    test!(promtool::promtool_accepts_the_metrics, Promtool),
    test!(promtool::promtool_accepts_the_dashboard_queries, Promtool),
    test!(promtool::promtool_accepts_and_tests_the_alerts, Promtool),
    test!(redbot::redbot_finds_no_unexpected_problem, Python),
    test!(restart::restart_fails_no_request, Bash),
    test!(slowhttptest::slow_heads_fail_no_redirect, Slowhttptest),
    test!(slowhttptest::slow_bodies_fail_no_redirect, Slowhttptest),
    test!(slowhttptest::slow_reads_fail_no_redirect, Slowhttptest),
    test!(status::status_is_unhealthy_while_writes_are_refused, Strace),
    test!(status::status_is_unhealthy_when_descriptors_run_out, Bash),
    test!(systemd::hung_redirect_thread_stops_the_heartbeat, Strace),
    test!(systemd::hung_general_thread_stops_the_heartbeat_not_redirects, Strace),
    test!(tls::client_of_rsa_only_is_served, Openssl),
    test!(tls::curl_is_redirected_over_tls, Curl),
    test!(tls::java_is_redirected_over_tls, Java),
    test!(tls::openssl_may_not_renegotiate, Openssl),
    test!(tls::openssl_resumes_sessions, Openssl),
    test!(tls::testssl_finds_no_weakness, Testssl),
    test!(vectors::no_spelling_of_a_private_address_is_fetched, Network),
    test!(vectors::refused_addresses_are_reachable_when_allowed, Network),
    test!(vectors::no_redirect_reaches_a_private_address, Network),
    test!(vectors::public_addresses_are_fetched, Network),
    test!(vectors::own_public_address_is_refused, Network),
    test!(vectors::own_listeners_are_refused_even_when_allowed, Network),
    test!(vectors::system_resolvers_are_used_without_search_domains, Network),
];

fn main() -> ExitCode {
    harness::run(TESTS)
}
