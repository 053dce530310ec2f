//! Why a destination was not fetched.

use std::borrow::Cow;

use crate::metrics::FetchOutcome;

/// Why a destination was not fetched. The texts are for the log of the operator: what they tell of an address inside
/// is not for clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It is none that is fetched.
    #[error("refused: {0}")]
    Forbidden(Cow<'static, str>),
    /// Its name was not found, or nobody answered there.
    #[error("not reached: {0}")]
    Unreachable(Cow<'static, str>),
    /// What was answered is no answer.
    #[error("broken: {0}")]
    Broken(Cow<'static, str>),
    /// The answer has so many bytes, or more, which are more than allowed.
    #[error("too large: {0} bytes and more than fetch.max_bytes")]
    TooLarge(u64),
    #[error("too slow: {0}")]
    TimedOut(&'static str),
    /// The request has come through a proxy like this one.
    #[error("the request has come through a proxied link already")]
    Loop,
    /// As many fetches are going on as may, in all or for the client.
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
