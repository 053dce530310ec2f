//! Exit codes and error messages.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::log;
use crate::model::shown;

/// What the exit code of a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Anything that has no code of its own.
    Other = 1,
    /// The arguments or settings are wrong.
    Usage = 2,
    /// There is no such link.
    NotFound = 3,
    /// The session is not accepted or may not do this.
    NotAllowed = 4,
    Refused = 5,
    Unreachable = 6,
    /// Nothing was written, or that is not known.
    Unavailable = 7,
    /// It was done, but not for everything.
    Incomplete = 8,
}

#[derive(Debug)]
pub(super) struct CliError {
    pub(super) failure: Failure,
    pub(super) error: anyhow::Error,
}

impl Failure {
    pub(super) fn error(self, text: impl Into<String>) -> CliError {
        CliError {
            failure: self,
            error: anyhow::Error::msg(text.into()),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for CliError {
    fn from(error: E) -> Self {
        let error = error.into();
        let usage = error.is::<crate::config::ConfigError>();
        let failure = if usage { Failure::Usage } else { Failure::Other };
        Self { failure, error }
    }
}

impl CliError {
    pub(super) fn is_broken_pipe(&self) -> bool {
        let error = self.error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Writes a failure to standard error, and turns it into the exit code.
pub(super) fn report(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if !error.is_broken_pipe() {
        let text = format!("tinyd: {}", shown::lines(&format!("{:#}", error.error)));
        let text = if log::is_journal() {
            log::with_priority(3, &text)
        } else {
            text + "\n"
        };
        let _ = io::stderr().write_all(text.as_bytes());
    }
    ExitCode::from(error.failure as u8)
}
