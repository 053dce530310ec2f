//! Lines of import files, and output of commands.

use std::process::Output;

/// The standard output of a command that must end with this code.
pub fn told(output: &Output, code: i32) -> String {
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(code), "{out}{error}");
    out.into_owned()
}

pub fn complained(output: &Output, code: i32) -> String {
    told(output, code);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn line(id: &str, more: &str) -> String {
    format!("{{\"id\":\"{id}\",\"systemName\":\"NAME\",\"fullUrl\":\"https://example.com/{id}\"{more}}}\n")
}
