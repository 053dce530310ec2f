//! Why an order failed, in a text that is fit for the log.

use std::fmt::Write as _;

use instant_acme::{Error, Problem};

/// Longest text of an authority that is logged, in characters.
const TEXT_MAX_CHARS: usize = 400;

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFailure {
    pub reason: String,
    /// Whether the authority does not know the account.
    pub is_account_unknown: bool,
}

impl OrderFailure {
    pub fn new(reason: impl ToString) -> Self {
        Self {
            reason: printable(&reason.to_string()),
            is_account_unknown: false,
        }
    }

    pub fn of_damaged_account() -> Self {
        Self {
            is_account_unknown: true,
            ..Self::new("the account in the data folder is damaged")
        }
    }

    /// What was being done, and what went wrong. `secrets` are not repeated.
    pub fn of(what: &str, error: &Error, secrets: &[String]) -> Self {
        let (text, kind) = match error {
            Error::Api(problem) => (text_of(problem), problem.r#type.as_deref().unwrap_or_default()),
            Error::Timeout(_) => ("the authority did not finish in time".to_owned(), ""),
            // Its text may quote the answer.
            Error::Json(_) => ("the answer is not what ACME expects there".to_owned(), ""),
            error => (error.to_string(), ""),
        };
        Self {
            reason: printable(&format!("{what}: {}", without(secrets, &text))),
            is_account_unknown: kind.ends_with(":accountDoesNotExist"),
        }
    }
}

/// The texts of a problem document (RFC 7807).
fn text_of(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = problem.detail.clone().unwrap_or_else(|| "no detail".to_owned());
    if !kind.is_empty() {
        let _ = write!(text, " ({kind})");
    }
    for one in problem.subproblems.iter().take(3) {
        let _ = write!(text, "; {one}");
    }
    text
}

fn without(secrets: &[String], text: &str) -> String {
    secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

/// In one line of bounded length, without control characters.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() || is_format(c) { ' ' } else { c };
    let mut printable: String = text.chars().take(TEXT_MAX_CHARS).map(shown).collect();
    if text.chars().nth(TEXT_MAX_CHARS).is_some() {
        printable.push('…');
    }
    printable
}

/// Characters that change how others are shown.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Error {
        Error::Api(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn text_of_an_authority_is_cut_and_printable() {
        let long = "x".repeat(10_000);
        let error = problem(&format!(
            r#"{{"type":"urn:ietf:params:acme:error:malformed","detail":"a\nb\u001b[31m\u202e{long}"}}"#
        ));
        let reason = OrderFailure::of("new order", &error, &[]).reason;
        assert!(reason.starts_with("new order: a b [31m x"), "{reason}");
        assert_eq!(reason.chars().count(), TEXT_MAX_CHARS + 1);
    }

    #[test]
    fn tokens_are_not_logged() {
        let error = problem(
            r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"expected tok.thumb, got /tok: 404"}"#,
        );
        let secrets = ["tok.thumb".to_owned(), "tok".to_owned(), String::new()];
        let reason = OrderFailure::of("challenge", &error, &secrets).reason;
        assert_eq!(reason, "challenge: expected …, got /…: 404 (unauthorized)");
    }

    #[test]
    fn unknown_accounts_are_told_from_other_problems() {
        let unknown = problem(r#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#);
        assert!(OrderFailure::of("", &unknown, &[]).is_account_unknown);
        let other = problem(r#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#);
        assert!(!OrderFailure::of("", &other, &[]).is_account_unknown);
    }
}
