//! Why a destination was not fetched.

use std::borrow::Cow;

use crate::metrics::FetchOutcome;

/// Why a destination was not fetched. The texts are for the log: clients must not learn about internal addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Not allowed by the settings or the policy.
    #[error("refused: {0}")]
    Forbidden(Cow<'static, str>),
    #[error("not reached: {0}")]
    Unreachable(Cow<'static, str>),
    /// The response is malformed or truncated.
    #[error("broken: {0}")]
    Broken(Cow<'static, str>),
    /// With at least so many bytes.
    #[error("too large: {0} bytes and more than fetch.max_bytes")]
    TooLarge(u64),
    #[error("too slow: {0}")]
    TimedOut(&'static str),
    /// The request came through a proxied link.
    #[error("the request has come through a proxied link already")]
    Loop,
    /// Too many fetches, in all or of the client.
    #[error("too many fetches at a time")]
    Busy,
}

impl FetchError {
    pub(super) const fn outcome(&self) -> FetchOutcome {
        match self {
            Self::Forbidden(_) => FetchOutcome::Forbidden,
            Self::Unreachable(_) => FetchOutcome::Unreachable,
            Self::Broken(_) => FetchOutcome::Broken,
            Self::TooLarge(_) => FetchOutcome::TooLarge,
            Self::TimedOut(_) => FetchOutcome::TimedOut,
            Self::Loop => FetchOutcome::Loop,
            Self::Busy => FetchOutcome::Busy,
        }
    }

    pub(super) fn forbidden(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Forbidden(reason.into())
    }

    pub(super) fn unreachable(cause: impl ToString) -> Self {
        Self::Unreachable(cause.to_string().into())
    }

    pub(super) fn broken(cause: impl ToString) -> Self {
        Self::Broken(cause.to_string().into())
    }
}
