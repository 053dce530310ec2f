//! The pages that people see in place of a redirect. They need nothing but themselves: no script runs in them, and they
//! load nothing. All are rendered at the start; that of a link before its start lacks the time, which stands between
//! two parts of it.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

use crate::http::{self, Response};
use crate::kaltura::ApiError;
use crate::model::Timestamp;
use crate::redirect::branding::{Branding, Colour};
use crate::redirect::language::Language;
use crate::redirect::texts::{Text, Texts};

/// The style sheet and the logo are in the page. Other sites may show what a link shows, in a frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors *",
);
const VARY: HeaderValue = HeaderValue::from_static("Accept, Accept-Language");

/// Where a page has the explanation that names a time, before it is split there. No name of an organisation has it.
const EXPLANATION: &str = "\0";

/// What texts stand on, in light and dark.
const LIGHT: Colour = Colour::WHITE;
const DARK: Colour = Colour::new(0x1b, 0x1e, 0x21);

/// What a page is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    PageNotFound,
    Unknown,
    Incomplete,
    Disabled,
    Deleted,
    Expired,
    /// The link starts then.
    NotYet(Timestamp),
    Forbidden,
    Unreachable,
    Timeout,
    Loop,
    Busy,
    TooManyGuesses,
    Loading,
    Damaged,
}

impl Notice {
    /// Of links with a start, one stands for all.
    const ALL: [Self; 15] = [
        Self::PageNotFound,
        Self::Unknown,
        Self::Incomplete,
        Self::Disabled,
        Self::Deleted,
        Self::Expired,
        Self::NotYet(Timestamp::MIN),
        Self::Forbidden,
        Self::Unreachable,
        Self::Timeout,
        Self::Loop,
        Self::Busy,
        Self::TooManyGuesses,
        Self::Loading,
        Self::Damaged,
    ];

    /// The code at the foot, by which support knows the page.
    const fn code(self) -> &'static str {
        match self {
            Self::PageNotFound => "NOT_FOUND",
            Self::Unknown => "INVALID_OBJECT_ID",
            Self::Incomplete => "MISSING_MANDATORY_PARAMETER",
            Self::Disabled | Self::Deleted => "INVALID_SHORT_LINK",
            Self::Expired => "EXPIRED_SHORT_LINK",
            Self::NotYet(_) => "NOT_YET_OPEN_SHORT_LINK",
            Self::Forbidden => "DESTINATION_FORBIDDEN",
            Self::Unreachable => "DESTINATION_UNREACHABLE",
            Self::Timeout => "DESTINATION_TIMEOUT",
            Self::Loop => "PROXY_LOOP",
            Self::Busy => "TOO_MANY_FETCHES",
            Self::TooManyGuesses => "TOO_MANY_REQUESTS",
            Self::Loading => "LINKS_LOADING",
            Self::Damaged => "LINK_DAMAGED",
        }
    }

    const fn text(self, texts: &Texts) -> &Text {
        match self {
            Self::PageNotFound => &texts.page_not_found,
            Self::Unknown => &texts.unknown,
            Self::Incomplete => &texts.incomplete,
            Self::Disabled => &texts.disabled,
            Self::Deleted => &texts.deleted,
            Self::Expired => &texts.expired,
            Self::NotYet(_) => &texts.not_yet,
            Self::Forbidden => &texts.forbidden,
            Self::Unreachable => &texts.unreachable,
            Self::Timeout => &texts.timeout,
            Self::Loop => &texts.redirect_loop,
            Self::Busy => &texts.busy,
            Self::TooManyGuesses => &texts.too_many_guesses,
            Self::Loading => &texts.loading,
            Self::Damaged => &texts.damaged,
        }
    }

    /// Whether the same address may work soon.
    const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::NotYet(_)
                | Self::Unreachable
                | Self::Timeout
                | Self::Busy
                | Self::TooManyGuesses
                | Self::Loading
                | Self::Damaged
        )
    }
}

impl From<&ApiError> for Notice {
    fn from(fault: &ApiError) -> Self {
        match fault {
            ApiError::MissingParameter { .. } => Self::Incomplete,
            ApiError::InvalidShortLink { deleted: false, .. } => Self::Disabled,
            ApiError::InvalidShortLink { deleted: true, .. } => Self::Deleted,
            ApiError::ExpiredShortLink { .. } => Self::Expired,
            ApiError::NotYetOpenShortLink { starts_at, .. } => Self::NotYet(*starts_at),
            ApiError::DestinationForbidden { .. } => Self::Forbidden,
            ApiError::DestinationUnreachable { .. } => Self::Unreachable,
            ApiError::DestinationTimeout { .. } => Self::Timeout,
            ApiError::ProxyLoop { .. } => Self::Loop,
            ApiError::TooManyFetches => Self::Busy,
            _ => Self::Unknown,
        }
    }
}

/// The pages in all languages.
#[derive(Debug)]
pub struct Pages {
    /// By notice, in the order of `Language`: what stands before the explanation that names a time, and behind it.
    rendered: Vec<(Notice, [[Bytes; 2]; Language::ALL.len()])>,
}

impl Default for Pages {
    fn default() -> Self {
        Self::new(&Branding::default())
    }
}

impl Pages {
    pub fn new(branding: &Branding) -> Self {
        let style = style(branding);
        let of_notice = |notice| {
            let pages = Language::ALL.map(|language| {
                let page = render(notice, language, branding, &style);
                let (before, behind) = page.split_once(EXPLANATION).unwrap_or((&page, ""));
                [before, behind].map(|part| Bytes::copy_from_slice(part.as_bytes()))
            });
            (notice, pages)
        };
        Self {
            rendered: Notice::ALL.into_iter().map(of_notice).collect(),
        }
    }

    pub(super) fn respond(&self, status: StatusCode, notice: Notice, language: Language) -> Response {
        const HTML: &str = "text/html; charset=utf-8";
        let [before, behind] = self.parts(notice, language);
        let mut response = match notice {
            Notice::NotYet(starts_at) => {
                let texts = Texts::in_language(language);
                let explanation = starts_at
                    .utc()
                    .map(|time| texts.with_time(texts.not_yet.explanation, time));
                http::joined(status, HTML, [before, explanation.unwrap_or_default().into(), behind])
            }
            _ => http::bytes(status, HTML, before),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::VARY, VARY);
        response
    }

    fn parts(&self, notice: Notice, language: Language) -> [Bytes; 2] {
        let mut rendered = self.rendered.iter();
        let pages = rendered.find(|(other, _)| std::mem::discriminant(other) == std::mem::discriminant(&notice));
        pages
            .and_then(|(_, pages)| pages.get(language as usize))
            .cloned()
            .unwrap_or_default()
    }
}

/// Repeats nothing that the visitor has sent.
fn render(notice: Notice, language: Language, branding: &Branding, style: &str) -> String {
    let texts = Texts::in_language(language);
    let Texts {
        direction, code: label, ..
    } = texts;
    let Text {
        title,
        explanation,
        advice,
    } = notice.text(texts);
    let explanation = match notice {
        Notice::NotYet(_) => EXPLANATION,
        _ => explanation,
    };
    let (tag, code) = (language.tag(), notice.code());
    let name = branding.name.as_deref().map(escaped).unwrap_or_default();
    let (in_title, in_foot) = if name.is_empty() {
        Default::default()
    } else {
        (format!(" – {name}"), format!("<bdi>{name}</bdi> · "))
    };
    let header = match &branding.logo {
        Some(logo) => format!("<header><img src=\"{}\" alt=\"{name}\"></header>", logo.data_url()),
        None if name.is_empty() => String::new(),
        None => format!("<header><bdi>{name}</bdi></header>"),
    };
    // The name stands there once.
    let in_foot = branding.logo.as_ref().map(|_| in_foot).unwrap_or_default();
    // An empty address is that of the page.
    let button = if notice.may_pass() {
        format!("<p><a href=\"\">{}</a></p>", texts.try_again)
    } else {
        String::new()
    };
    format!(
        "<!doctype html>\n<html lang=\"{tag}\" dir=\"{direction}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}{in_title}</title><link rel=\"icon\" href=\"data:,\"><style>{style}</style></head>\
         <body><main>{header}<h1>{title}</h1><p>{explanation}</p><p>{advice}</p>{button}\
         <footer>{in_foot}{label}: <code dir=\"ltr\">{code}</code></footer></main></body></html>\n"
    )
}

fn style(branding: &Branding) -> String {
    let accent = branding.accent;
    let on_accent = accent.of_text_on_it();
    let (strong, strong_in_dark) = (accent.readable_on(LIGHT), accent.readable_on(DARK));
    format!(
        ":root{{color-scheme:light dark;--page:#f3f4f6;--card:{LIGHT};--text:#1c1e21;--soft:#565c64;--line:#d9dce1;\
         --strong:{strong}}}\
         @media(prefers-color-scheme:dark){{:root{{--page:#101214;--card:{DARK};--text:#eceef0;--soft:#a8aeb6;\
         --line:#363b41;--strong:{strong_in_dark}}}img{{background:#fff;padding:.5rem;border-radius:.375rem}}}}\
         *{{box-sizing:border-box}}\
         body{{margin:0;min-height:100vh;min-height:100dvh;display:grid;place-items:center;padding:1.5rem 1rem;\
         background:var(--page);color:var(--text);\
         font:1.0625rem/1.55 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",Arial,sans-serif}}\
         main{{width:100%;max-width:34rem;padding:clamp(1.5rem,6vw,2.75rem);border:1px solid var(--line);\
         border-top:.375rem solid {accent};border-radius:0 0 .75rem .75rem;background:var(--card);\
         overflow-wrap:break-word}}\
         header{{margin-bottom:1.75rem;color:var(--strong);font-weight:600}}\
         img{{display:block;width:auto;height:auto;max-width:min(100%,16rem);max-height:4.5rem}}\
         h1{{margin:0 0 .75rem;font-size:clamp(1.5rem,6vw,2rem);line-height:1.2}}p{{margin:0 0 1rem}}\
         a{{display:inline-block;margin-top:.5rem;padding:.65rem 1.4rem;border:2px solid var(--strong);\
         border-radius:.5rem;background:{accent};color:{on_accent};font-weight:600;text-decoration:none}}\
         a:hover{{text-decoration:underline}}a:focus-visible{{outline:3px solid var(--text);outline-offset:3px}}\
         footer{{margin-top:2rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);\
         font-size:.875rem}}"
    )
}

/// For text and for attributes in double quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.trim().chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    use super::*;
    use crate::redirect::branding::Logo;

    fn branding(name: &str) -> Branding {
        Branding {
            name: Some(name.to_owned()),
            accent: "#ffdd00".parse().unwrap(),
            logo: None,
        }
    }

    fn page(branding: &Branding, notice: Notice, language: Language) -> String {
        render(notice, language, branding, &style(branding))
    }

    fn body(response: Response) -> Bytes {
        let length = response.body().size_hint().exact().unwrap();
        let body = response
            .into_body()
            .collect()
            .now_or_never()
            .unwrap()
            .unwrap()
            .to_bytes();
        assert_eq!(body.len() as u64, length);
        body
    }

    #[test]
    fn every_notice_has_its_page_in_each_language() {
        let pages = Pages::default();
        for notice in Notice::ALL {
            for (position, language) in Language::ALL.into_iter().enumerate() {
                assert_eq!(language as usize, position);
                let response = pages.respond(StatusCode::NOT_FOUND, notice, language);
                assert_eq!(response.headers()["content-language"], language.tag());
                let body = body(response);
                let mut expected = page(&Branding::default(), notice, language);
                if let Notice::NotYet(starts_at) = notice {
                    let texts = Texts::in_language(language);
                    let explanation = texts.with_time(texts.not_yet.explanation, starts_at.utc().unwrap());
                    expected = expected.replace(EXPLANATION, &explanation);
                }
                assert_eq!(body, expected);
            }
        }
    }

    #[test]
    fn every_text_is_there_in_each_language_once() {
        let mut texts = BTreeSet::new();
        for language in Language::ALL {
            let mut titles = BTreeSet::new();
            for notice in Notice::ALL {
                let Text {
                    title,
                    explanation,
                    advice,
                } = notice.text(Texts::in_language(language));
                for text in [title, explanation, advice] {
                    assert!(text.chars().count() > 5, "{language:?} {notice:?}: {text:?}");
                    assert!(
                        !text.contains(['<', '>', '&', '"', '\n']) && !text.contains("  "),
                        "{text:?}"
                    );
                }
                assert!(
                    explanation.ends_with('.') && advice.ends_with('.'),
                    "{language:?} {notice:?}"
                );
                assert!(titles.insert(title), "{language:?} {notice:?}");
                assert!(texts.insert(*explanation), "{language:?} {notice:?}");
            }
        }
    }

    #[test]
    fn a_start_is_written_as_each_language_writes_it() {
        let pages = Pages::default();
        let explanation = |at: i64, language| {
            let notice = Notice::NotYet(Timestamp::from_unix(at));
            let page = body(pages.respond(StatusCode::NOT_FOUND, notice, language));
            let page = String::from_utf8(page.to_vec()).unwrap();
            let (_, rest) = page.split_once("</h1><p>").unwrap();
            rest.split_once("</p>").unwrap().0.to_owned()
        };
        // 2026-12-01 08:00:00, 2096-10-02 07:06:40 and 9999-12-31 23:59:59.
        let (first, seconds, last) = (1_796_112_000, 4_000_000_000, Timestamp::MAX.as_unix());
        for (at, language, expected) in [
            (
                first,
                Language::English,
                "This link opens on 1 December 2026 at 08:00\u{a0}(UTC).",
            ),
            (
                seconds,
                Language::English,
                "This link opens on 2 October 2096 at 07:06:40\u{a0}(UTC).",
            ),
            (
                last,
                Language::English,
                "This link opens on 31 December 9999 at 23:59:59\u{a0}(UTC).",
            ),
            (
                first,
                Language::German,
                "Dieser Link wird am 1. Dezember 2026 um 08:00 Uhr\u{a0}(UTC) freigeschaltet.",
            ),
            (
                first,
                Language::French,
                "Ce lien sera actif à partir du 1er décembre 2026 à 08:00\u{a0}(UTC).",
            ),
            (
                seconds,
                Language::French,
                "Ce lien sera actif à partir du 2 octobre 2096 à 07:06:40\u{a0}(UTC).",
            ),
            (
                first,
                Language::Spanish,
                "Este enlace estará disponible a partir del 1 de diciembre de 2026, 08:00 h\u{a0}(UTC).",
            ),
            (
                first,
                Language::Hebrew,
                "הקישור ייפתח ב-1 בדצמבר 2026 בשעה 08:00\u{a0}(UTC).",
            ),
        ] {
            assert_eq!(explanation(at, language), expected);
        }
    }

    /// A page has the logo inside, and a visitor can have many of them.
    #[test]
    fn page_before_a_start_is_not_copied() {
        let pages = Pages::default();
        let mut body = pages
            .respond(StatusCode::NOT_FOUND, Notice::NotYet(Timestamp::MAX), Language::French)
            .into_body();
        let mut pieces = std::iter::from_fn(|| body.frame().now_or_never().unwrap());
        let mut next = || pieces.next().unwrap().unwrap().into_data().unwrap();
        let (before, _, behind) = (next(), next(), next());
        let kept = pages.parts(Notice::NotYet(Timestamp::MIN), Language::French);
        assert_eq!(
            [before, behind].map(|piece| piece.as_ptr()),
            kept.map(|piece| piece.as_ptr())
        );
    }

    #[test]
    fn codes_are_those_of_the_errors() {
        let id = || "zzzz".to_owned();
        for fault in [
            ApiError::missing("id"),
            ApiError::InvalidObjectId { id: id() },
            ApiError::InvalidShortLink {
                id: id(),
                deleted: true,
            },
            ApiError::InvalidShortLink {
                id: id(),
                deleted: false,
            },
            ApiError::ExpiredShortLink { id: id() },
            ApiError::NotYetOpenShortLink {
                id: id(),
                starts_at: Timestamp::MAX,
            },
            ApiError::DestinationForbidden { id: id() },
            ApiError::DestinationUnreachable { id: id() },
            ApiError::DestinationTimeout { id: id() },
            ApiError::ProxyLoop { id: id() },
            ApiError::TooManyFetches,
        ] {
            assert_eq!(Notice::from(&fault).code(), fault.code());
        }
    }

    #[test]
    fn name_is_text_whatever_it_is() {
        let name = "</title><script>alert('x')</script> \" onload=\"x & co";
        let shown = "&lt;/title&gt;&lt;script&gt;alert('x')&lt;/script&gt; &quot; onload=&quot;x &amp; co";
        let logo = Logo::parse(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
        let with_logo = Branding {
            logo: Some(logo),
            ..branding(name)
        };
        for (branding, places) in [(branding(name), 2), (with_logo, 3)] {
            let page = page(&branding, Notice::Expired, Language::English);
            assert_eq!(page.matches(shown).count(), places, "{page}");
            assert!(!page.contains("<script"), "{page}");
            assert_eq!(page.matches("</title>").count(), 1);
        }
    }

    #[test]
    fn page_without_branding_has_no_traces_of_it() {
        let page = page(&Branding::default(), Notice::Expired, Language::English);
        assert!(page.contains("<title>Link expired</title>"), "{page}");
        for part in ["<header", "<img", "<bdi", "<a ", "http:", "https:", "url("] {
            assert!(!page.contains(part), "{part}: {page}");
        }
    }
}
