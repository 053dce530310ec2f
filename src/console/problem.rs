//! Why a request to the console gets no page, in words for people.

use hyper::StatusCode;

use crate::console::view::{counted, plain};
use crate::links::LinkError;
use crate::model::{ForbiddenHost, LinkId, shown};
use crate::store::{StoreError, WriteError};
use crate::transfer::TransferError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nobody is signed in.
    SignInFirst,
    /// A link that signs in once.
    UsedLink,
    /// At the OpenID provider: too late, of another browser, or ended before.
    StaleSignIn,
    /// What the OpenID provider says for it.
    SignInDenied(String),
    SignInUnverified,
    /// Why the OpenID provider's word makes nobody a user.
    NoIdentity(String),
    /// The name of a header of a trusted proxy, and what is wrong with it.
    HeaderRefused(String, String),
    ProviderDown,
    ProviderBusy,
    NotFound,
    /// Of a link.
    NoSuchLink,
    /// The link has another id.
    Retired,
    AdministratorsOnly,
    OperatorsOnly,
    NotConfirmed,
    /// Of a change of many.
    NothingSelected,
    NoEnd,
    /// Of a list: what it asks for depends on clicks.
    ClicksNotCounted,
    TooManyJobs,
    /// Of an import.
    NoFile,
    UnknownFormat,
    LargeFile(u64),
    TooManyFiles,
    NoDiskSpace,
    /// The file has been forgotten, or is of another session.
    NoUpload,
    UnknownHost,
    OtherOrigin,
    /// The form is of another session.
    OldForm,
    NoForm,
    LongForm,
    SlowForm,
    /// The unique id of a link that is to be restored has another holder.
    UniqueIdTaken(String),
    /// The partner does not allow the host of the destination, but these.
    HostNotAllowed {
        host: String,
        allowed: String,
    },
    /// The user has added as many links today as the partner allows.
    TooManyToday(u32),
    /// Somebody has changed the other end of its validity meanwhile.
    EndsBeforeStart,
    NotWritten(WriteError),
    /// The outcome is unknown for a new id, which is this one.
    RenewalUnknown(LinkId),
    TookTooLong,
    /// The memory for requests is used up.
    Overloaded,
    Internal,
}

impl Problem {
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::SignInFirst
            | Self::AdministratorsOnly
            | Self::OperatorsOnly
            | Self::OtherOrigin
            | Self::OldForm
            | Self::StaleSignIn
            | Self::SignInDenied(_)
            | Self::SignInUnverified
            | Self::NoIdentity(_) => StatusCode::FORBIDDEN,
            Self::UsedLink | Self::Retired => StatusCode::GONE,
            Self::NotFound | Self::NoSuchLink | Self::NoUpload => StatusCode::NOT_FOUND,
            Self::NothingSelected
            | Self::NotConfirmed
            | Self::NoEnd
            | Self::ClicksNotCounted
            | Self::NoFile
            | Self::UnknownFormat => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyJobs | Self::TooManyFiles => StatusCode::TOO_MANY_REQUESTS,
            Self::NoDiskSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::HeaderRefused(..) => StatusCode::BAD_REQUEST,
            Self::NoForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::LongForm | Self::LargeFile(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowForm => StatusCode::REQUEST_TIMEOUT,
            Self::UniqueIdTaken(_) | Self::EndsBeforeStart => StatusCode::CONFLICT,
            Self::HostNotAllowed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyToday(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotWritten(_)
            | Self::RenewalUnknown(_)
            | Self::TookTooLong
            | Self::Overloaded
            | Self::ProviderDown
            | Self::ProviderBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether to sign in is what helps.
    pub const fn leads_to_sign_in(&self) -> bool {
        matches!(
            self,
            Self::SignInFirst
                | Self::UsedLink
                | Self::StaleSignIn
                | Self::SignInDenied(_)
                | Self::SignInUnverified
                | Self::NoIdentity(_)
                | Self::ProviderDown
                | Self::ProviderBusy
        )
    }

    /// Whether what was sent may be taken at another time: nobody should have to enter it again.
    pub const fn may_be_sent_again(&self) -> bool {
        !matches!(
            self,
            Self::NotFound | Self::NoSuchLink | Self::Retired | Self::AdministratorsOnly | Self::NotConfirmed
        )
    }

    pub const fn title(&self) -> &'static str {
        match self {
            Self::SignInFirst => "Sign in first",
            Self::UsedLink => "This sign-in link is used up",
            Self::StaleSignIn => "This sign-in has expired",
            Self::SignInDenied(_) | Self::SignInUnverified | Self::NoIdentity(_) | Self::HeaderRefused(..) => {
                "You are not signed in"
            }
            Self::ProviderDown | Self::ProviderBusy => "The sign-in service does not answer",
            Self::NotFound => "Page not found",
            Self::NoSuchLink => "No such link",
            Self::Retired => "This link has a new ID",
            Self::AdministratorsOnly => "For administrators only",
            Self::OperatorsOnly => "For operators only",
            Self::NotConfirmed => "Not confirmed",
            Self::NothingSelected => "No link is selected",
            Self::NoEnd => "No end is chosen",
            Self::ClicksNotCounted => "Clicks are not counted",
            Self::TooManyJobs => "Too many changes at a time",
            Self::NoFile => "No file",
            Self::UnknownFormat => "Unknown format",
            Self::LargeFile(_) => "The file is too large",
            Self::TooManyFiles => "Too many files at a time",
            Self::NoDiskSpace => "No room for the file",
            Self::NoUpload => "This file is no longer here",
            Self::UnknownHost => "Unknown address",
            Self::OtherOrigin => "Request from another site",
            Self::OldForm => "This form is out of date",
            Self::NoForm | Self::LongForm | Self::SlowForm => "The form could not be read",
            Self::UniqueIdTaken(_) => "Another link has its unique ID",
            Self::HostNotAllowed { .. } => "Links may not lead there",
            Self::TooManyToday(_) => "No more links today",
            Self::EndsBeforeStart => "The link would never work",
            Self::NotWritten(WriteError::ReadOnly) => "Read-only",
            Self::NotWritten(WriteError::Unavailable) => "Cannot save at the moment",
            Self::NotWritten(WriteError::OutcomeUnknown) | Self::RenewalUnknown(_) => "Saved, or not",
            Self::TookTooLong => "That took too long",
            Self::Overloaded => "The server is busy",
            Self::Internal => "Something went wrong",
        }
    }

    /// The explanation above a form that still has what was entered.
    pub fn explanation_with_form(&self) -> String {
        match self {
            Self::SignInFirst => {
                "You are not signed in, or your session has ended. Nothing was saved yet. What you entered is still \
                 here: sign in in another tab, then send it again."
            }
            Self::OldForm => {
                "You have signed in anew since this page was opened. Nothing was saved yet. What you entered is still \
                 here: send it again."
            }
            Self::EndsBeforeStart => "It would end before it starts. Nothing was saved yet.",
            Self::NotWritten(WriteError::OutcomeUnknown) => {
                "The disk failed while this was saved. Send it again: nothing is made twice."
            }
            other => return other.explanation(),
        }
        .to_owned()
    }

    pub fn explanation(&self) -> String {
        if let Some(explanation) = self.of_sign_in() {
            return explanation;
        }
        match self {
            Self::NotFound => "There is no such page in this console.",
            Self::NoSuchLink => "There is no link with this ID, or it is not yours.",
            Self::Retired => "This ID never works again. Look for the link in your list: only its ID is another one.",
            Self::AdministratorsOnly => "Your account may manage your own links.",
            Self::OperatorsOnly => "This concerns the whole server, and your partner is not its operator.",
            Self::NotConfirmed => "Nothing was changed. Tick the box to confirm.",
            Self::NothingSelected => "Select links in the list, or choose all that the filter finds.",
            Self::NoEnd => "Choose until when the links work.",
            Self::ClicksNotCounted => {
                "This server does not count clicks (links.count_clicks = false), so it knows neither which links were \
                 never used nor which are used most. Leave out that filter or order."
            }
            Self::TooManyJobs => "Wait until your other change has ended.",
            Self::NoFile => "Choose a file that is not empty.",
            Self::UnknownFormat => {
                "The name of the file ends neither in .csv nor in .jsonl. Choose its format, and save spreadsheets as \
                 CSV."
            }
            Self::LargeFile(limit) => {
                let limit = limit / 1024 / 1024;
                return format!(
                    "It may have at most {limit} MB. Split it, or run {} import.",
                    shown::command()
                );
            }
            Self::TooManyFiles => "Other files are being imported or exported. Try again in a minute.",
            Self::NoDiskSpace => "The disk of the server has no room for the file. Nothing was imported.",
            Self::NoUpload => {
                "A checked file waits for ten minutes, for the session that uploaded it. Choose it once more under \
                 Import / export."
            }
            Self::UnknownHost => {
                "This server does not know the host name that you used. Open the console by its IP address, or have \
                 the operator set console.url to the address that people use."
            }
            Self::OtherOrigin => "Another web site sent this request, so nothing was changed.",
            Self::OldForm => "You have signed in anew since this page was opened. Nothing was changed; load it again.",
            Self::NoForm => "Expected the fields of a form.",
            Self::LongForm => "The form is too long. A destination has at most 8,192 bytes.",
            Self::SlowForm => "The form took too long to arrive. Try again.",
            Self::UniqueIdTaken(unique_id) => {
                let unique_id = plain(unique_id);
                return format!("Another link has the unique ID {unique_id} now. Delete that link first.");
            }
            Self::HostNotAllowed { host, allowed } => {
                return format!("Links may not lead to {host}. Your organisation allows {allowed}.");
            }
            Self::TooManyToday(limit) => {
                let links = counted((*limit).into(), "new link");
                return format!("The limit of {links} a day is reached. Go on after midnight (UTC).");
            }
            Self::EndsBeforeStart => "It would end before it starts. Nothing was changed; load the page again.",
            Self::NotWritten(error) => {
                return format!("{}. {}.", capitalized(&error.to_string()), capitalized(error.remedy()));
            }
            Self::RenewalUnknown(id) => {
                return format!("The disk failed while this was saved. If it was, the link has the ID {id} now.");
            }
            Self::TookTooLong => "The server is busy. Try a narrower search.",
            Self::Overloaded => "Nothing was changed. Try again in a moment.",
            _ => "The log of the server says what it was.",
        }
        .to_owned()
    }

    /// What concerns signing in.
    fn of_sign_in(&self) -> Option<String> {
        let explanation = match self {
            Self::SignInFirst => "You are not signed in, or your session has ended.",
            Self::UsedLink => {
                let command = shown::command();
                return Some(format!(
                    "It works once, within ten minutes. Run {command} console for a new one, or sign in below."
                ));
            }
            Self::StaleSignIn => {
                "A sign-in works once, within ten minutes, and in the browser that began it. Sign in again."
            }
            Self::SignInDenied(reason) => return Some(format!("The sign-in service says: {reason}")),
            Self::SignInUnverified => {
                "The answer of the sign-in service could not be verified. The log of this server says why."
            }
            Self::NoIdentity(reason) => return Some(reason.clone()),
            Self::HeaderRefused(name, reason) => {
                return Some(format!(
                    "The proxy in front of this server says who you are in {name}, which {reason}."
                ));
            }
            Self::ProviderDown => {
                "Your organisation's sign-in service cannot be reached at the moment. Try again soon, or sign in \
                 another way. The log of this server says more."
            }
            Self::ProviderBusy => "Too many people are waiting for it. Try again in a minute.",
            _ => return None,
        };
        Some(explanation.to_owned())
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::NotFound => Self::NoSuchLink,
            LinkError::Retired => Self::Retired,
            LinkError::UniqueIdTaken(unique_id) => Self::UniqueIdTaken(unique_id),
            LinkError::Host(ForbiddenHost { host, allowed }) => Self::HostNotAllowed { host, allowed },
            LinkError::TooManyToday { limit, .. } => Self::TooManyToday(limit),
            // Nobody signs in without a user.
            LinkError::NoUser => Self::SignInFirst,
            LinkError::ClicksNotCounted => Self::ClicksNotCounted,
            LinkError::Validity(_) => Self::EndsBeforeStart,
            LinkError::RenewalUnknown(id) => Self::RenewalUnknown(id),
            LinkError::Write(error) => error.into(),
            LinkError::Read(error) => error.into(),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        Self::NotWritten(error)
    }
}

/// As the beginning of a sentence.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Busy | TransferError::NoMemory => Self::TooManyFiles,
            TransferError::Ending => Self::Overloaded,
            TransferError::TooSlow => Self::SlowForm,
            TransferError::NotMultipart | TransferError::Broken(_) | TransferError::NotUtf8 { .. } => Self::NoForm,
            TransferError::LongField { .. } => Self::LongForm,
            TransferError::TooLarge { limit } => Self::LargeFile(limit),
            TransferError::NoSpace(_) => Self::NoDiskSpace,
            TransferError::Store(error) => error.into(),
            TransferError::Interrupted => Self::Internal,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            // The store has logged that, once, when it failed.
            StoreError::Closed | StoreError::Log(_) => Self::NotWritten(WriteError::Unavailable),
            StoreError::Stopped(_) => Self::TookTooLong,
            error => {
                tracing::error!(%error, "cannot read the store");
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_write_is_told_with_its_remedy() {
        let words = |error: WriteError| Problem::from(error).explanation();
        assert_eq!(
            words(WriteError::Unavailable),
            "No link can be changed at the moment. Try again soon."
        );
        let unknown = "Outcome unknown: the store failed during the write. \
                       Look whether it is stored before you try again.";
        assert_eq!(words(WriteError::OutcomeUnknown), unknown);
    }
}
