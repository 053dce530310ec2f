//! A certified OpenID provider, and people who sign in with it in Chromium (`tests/oidc`).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::clients::npm_installed;
use crate::support::fixture::{Appliance, Process, configuration, folder};

/// As `tests/oidc/exercise.mjs` has it.
const CLIENT_SECRET: &str = "a secret of the client, 0123456789";

pub fn people_sign_in_with_openid_connect() {
    let script = npm_installed("oidc").join("exercise.mjs");
    let mut command = Command::new("node");
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut exercise = Process(command.spawn().unwrap());
    let mut output = BufReader::new(exercise.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let urls: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let settings = format!(
        "[admin]\ntrusted_proxies = \"127.0.0.1\"\n[console]\nurl = {}\n[console.oidc]\nissuer = {}\n\
         client_id = \"tinyd\"\nclient_secret_file = \"client.secret\"\nuser_claim = \"email\"\n\
         scopes = [\"email\", \"groups\"]\nadmin_groups = \"link-admins\"\nuser_groups = \"staff\"\n\
         partner = 1234567\n",
        urls["console"], urls["issuer"]
    );
    let folder = folder(&configuration(&settings));
    fs::write(folder.path().join("client.secret"), CLIENT_SECRET).unwrap();
    let appliance = Appliance::start_in(folder);
    let mut input = exercise.0.stdin.take().unwrap();
    writeln!(input, "{}", appliance.admin).unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert!(exercise.0.wait().unwrap().success(), "{said}");
    assert!(!appliance.log().contains(CLIENT_SECRET), "the secret is in the log");
}
