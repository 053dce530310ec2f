//! What pages say to visitors, one file a language. A text that is missing does not compile.

mod de;
mod en;
mod es;
mod fr;
mod he;

use jiff::civil::DateTime;

use crate::redirect::language::Language;

#[derive(Debug)]
pub struct Texts {
    /// The direction of writing, as in `dir`.
    pub direction: &'static str,
    /// The button that opens the link once more.
    pub try_again: &'static str,
    /// What the code at the foot is.
    pub code: &'static str,
    pub months: [&'static str; 12],
    /// The first day of a month, which some languages do not write as a number alone.
    pub first_day: &'static str,

    pub page_not_found: Text,
    pub unknown: Text,
    pub incomplete: Text,
    pub disabled: Text,
    pub deleted: Text,
    pub expired: Text,
    /// Its explanation has `{day}`, `{month}`, `{year}` and `{time}`, which are in UTC and say so.
    pub not_yet: Text,
    pub forbidden: Text,
    pub unreachable: Text,
    pub timeout: Text,
    pub redirect_loop: Text,
    pub busy: Text,
    pub too_many_guesses: Text,
    pub loading: Text,
    pub damaged: Text,
}

#[derive(Debug)]
pub struct Text {
    pub title: &'static str,
    /// What has happened.
    pub explanation: &'static str,
    /// What the visitor can do.
    pub advice: &'static str,
}

impl Texts {
    /// A text with a time as this language writes it, to the minute where it begins one.
    pub fn with_time(&self, text: &str, time: DateTime) -> String {
        let month = usize::try_from(time.month() - 1)
            .ok()
            .and_then(|month| self.months.get(month));
        let day = match time.day() {
            1 => self.first_day.to_owned(),
            day => day.to_string(),
        };
        let form = if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
        text.replace("{day}", &day)
            .replace("{month}", month.unwrap_or(&""))
            .replace("{year}", &time.year().to_string())
            .replace("{time}", &time.strftime(form).to_string())
    }

    pub const fn in_language(language: Language) -> &'static Self {
        match language {
            Language::English => &en::TEXTS,
            Language::German => &de::TEXTS,
            Language::French => &fr::TEXTS,
            Language::Spanish => &es::TEXTS,
            Language::Hebrew => &he::TEXTS,
        }
    }
}
