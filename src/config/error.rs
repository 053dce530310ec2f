//! What is wrong with the settings.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    #[error("{error} (run tinyd-admin, or name the configuration of the service: --config {})", service.display())]
    BesideService { error: Box<Self>, service: PathBuf },
}

impl ConfigError {
    /// Where a file is missing that nobody has named, and the machine has a service: names that.
    pub(super) fn beside_service(self, service: &Path) -> Self {
        match &self {
            Self::File { cause, .. } if cause.kind() == ErrorKind::NotFound && service.exists() => {
                Self::BesideService {
                    error: Box::new(self),
                    service: service.to_owned(),
                }
            }
            _ => self,
        }
    }
}
