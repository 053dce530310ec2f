//! The web console, as browsers and attackers reach it.

mod administrators;
mod cookies;
mod disabled;
mod forms;
mod headers;
mod hostile_texts;
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

use crate::support::fixture::{Appliance, code};

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
