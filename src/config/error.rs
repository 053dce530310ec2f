//! What is wrong with the settings.

use std::path::PathBuf;

/// A setting or a file is wrong. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting has a value that it cannot have.
    #[error("{origin}: {key} = {value}: {reason}")]
    Setting {
        /// Where it was set: a file, or flag and environment variable.
        origin: String,
        key: String,
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A key that there is none of.
    #[error("{origin}: {key}: unknown key; known here are {known}")]
    UnknownKey { origin: String, key: String, known: String },
    /// A file that is not TOML.
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says, without the line itself, which may hold a secret.
        reason: String,
    },
    /// A file or folder that cannot be read or made.
    #[error("{}: {action}: {cause}", path.display())]
    File {
        path: PathBuf,
        action: &'static str,
        cause: std::io::Error,
    },
}
