//! What is wrong with the settings.

use std::path::PathBuf;

/// A setting or a file is wrong. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: {key} = {value}: {reason}")]
    Setting {
        /// Where it was set: a file, or flag and environment variable.
        origin: String,
        key: String,
        value: String,
        reason: String,
    },
    #[error("{origin}: {key}: unknown key; known here are {known}")]
    UnknownKey { origin: String, key: String, known: String },
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        /// What the parser says, without the line itself, which may hold a secret.
        reason: String,
    },
    #[error("{}: {action}: {cause}", path.display())]
    File {
        path: PathBuf,
        action: &'static str,
        cause: std::io::Error,
    },
}
