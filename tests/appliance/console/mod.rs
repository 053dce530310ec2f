//! The web console, as browsers and attackers reach it.

mod administrators;
mod cookies;
mod disabled;
mod forms;
mod headers;
mod hostile_texts;
mod jobs;
mod kept_forms;
mod lists;
mod one_time_links;
mod openid;
mod other_sites;
mod ownership;
mod sign_in;
mod transfer;
mod trusted_header;

use serde_json::Value;

use crate::support::browser::{Browser, hidden};
use crate::support::fixture::{Appliance, code, poll};

/// Makes a link that signs in once; returns its path below the console.
fn sign_in_link(appliance: &Appliance, user: &str, kind: &str) -> String {
    let ks = appliance.admin_ks();
    let made = make_sign_in_link(appliance, &ks, user, kind);
    assert_eq!(code(&made), "", "{made}");
    format!("/{}", made["path"].as_str().unwrap())
}

fn make_sign_in_link(appliance: &Appliance, ks: &str, user: &str, kind: &str) -> Value {
    appliance.call("tinyd", "signInLink", ks, &[("userId", user), ("type", kind)])
}

/// Has a change of many links confirmed, and waits for its end; returns the page that says so.
fn change_many(browser: &mut Browser, fields: &[(&str, &str)]) -> String {
    let confirm = browser.submit("/bulk/confirm", fields);
    let count = hidden(confirm.text(), "count");
    let progress = browser.done("/bulk", &[fields, &[("count", count.as_str())]].concat());
    end_of_change(browser, &progress)
}

fn end_of_change(browser: &mut Browser, progress: &str) -> String {
    let mut page = String::new();
    poll("the end of the change", || {
        page = browser.get(progress).text().to_owned();
        page.contains("Back to the list")
    });
    page
}

fn statuses(appliance: &Appliance, ids: &[&String]) -> Vec<i64> {
    let ks = appliance.admin_ks();
    let status = |id: &&String| appliance.link("get", &ks, &[("id", id)])["status"].as_i64();
    // Deleted links are not found.
    ids.iter().map(|id| status(id).unwrap_or(0)).collect()
}
