//! The output of `/status` and `tinyd status`.

use std::process::Output;

use serde_json::Value;

use super::fixture::Appliance;

pub fn status(appliance: &Appliance) -> Value {
    let answer = appliance.get_admin("/status");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

pub fn shown(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The value of the line with this name.
pub fn line<'o>(output: &'o Output, name: &str) -> &'o str {
    let mut lines = shown(output).lines();
    let line = lines.find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}:\n{}", shown(output))).trim()
}
