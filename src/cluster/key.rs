//! NKEYs: what a box identifies itself with to the servers.

use std::fmt::Write as _;

use nkeys::{KeyPair, KeyPairType};

use crate::cluster::presence::Member;
use crate::cluster::{ClusterSettings, Role};

/// The seed of a new key, which never leaves its box.
pub fn generate() -> Result<String, String> {
    KeyPair::new_user().seed().map_err(|error| error.to_string())
}

/// Refuses what is no seed of a user's NKEY.
pub fn check(text: &str) -> Result<(), String> {
    match KeyPair::from_seed(text).map(|pair| pair.key_pair_type()) {
        Ok(KeyPairType::User) => Ok(()),
        Ok(_) => Err("is the seed of another kind of NKEY; expected that of a user, which begins with SU".to_owned()),
        Err(_) => Err("holds no seed of an NKEY; expected one line of 58 characters that begins with SU".to_owned()),
    }
}

/// The public key of a seed.
pub fn public_key(seed: &str) -> Result<String, String> {
    let key = KeyPair::from_seed(seed).map_err(|error| error.to_string())?;
    Ok(key.public_key())
}

/// A user for the configuration of the servers, with what the box needs and nothing else.
pub fn user(settings: &ClusterSettings, public_key: &str) -> String {
    let ClusterSettings { name, node, role, .. } = settings;
    let stream = settings.stream();
    let mut publish = vec![
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}_COPY"),
        // The same, as a leaf node maps them.
        format!("tinyd.{name}.read"),
        format!("tinyd.{name}.read_copy"),
        settings.subject(&Member::subject(role.name(), node)),
        format!("tinyd.{name}.entry"),
        format!("tinyd.{name}.clicks.{node}"),
    ];
    let mut subscribe = vec![
        format!("_INBOX_{node}.>"),
        format!("tinyd.{name}.live"),
        format!("tinyd.{name}.head"),
        format!("tinyd.{name}.ask"),
        format!("tinyd.{name}.given.{node}"),
    ];
    if *role == Role::Admin {
        // Also the name under which the command line asks.
        publish = vec!["$JS.API.>".to_owned(), format!("tinyd.{name}.>")];
        subscribe = vec![
            format!("_INBOX_{node}.>"),
            format!("_INBOX_{node}-status.>"),
            format!("tinyd.{name}.>"),
        ];
    }
    let list = |subjects: &[String]| {
        let mut text = String::new();
        for subject in subjects {
            // Writing to a string does not fail.
            let _ = write!(text, "\n      \"{subject}\"");
        }
        text
    };
    format!(
        "{{ # {node}\n  nkey: {public_key}\n  permissions: {{\n    publish: [\
         {}\n    ]\n    subscribe: [{}\n    ]\n  }}\n}}",
        list(&publish),
        list(&subscribe)
    )
}
