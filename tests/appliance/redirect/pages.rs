//! What people see in place of a redirect.

use std::fs;

use crate::support::fixture::{Appliance, configuration, folder};
use crate::support::http::{Answer, request};

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const BROWSER: &str = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";

/// What browsers set to a language send, the tag that they get, and titles of pages: unknown, disabled, deleted,
/// expired, not open yet.
const LANGUAGES: [(&str, &str, [&str; 5]); 5] = [
    (
        "nl,en-GB;q=0.7",
        "en",
        [
            "Link not found",
            "Link disabled",
            "Link deleted",
            "Link expired",
            "Link not open yet",
        ],
    ),
    (
        "de-AT,de;q=0.9,en;q=0.8",
        "de",
        [
            "Link nicht gefunden",
            "Link deaktiviert",
            "Link gelöscht",
            "Link abgelaufen",
            "Link noch nicht freigeschaltet",
        ],
    ),
    (
        "fr-CA, fr;q=0.9",
        "fr",
        [
            "Lien introuvable",
            "Lien désactivé",
            "Lien supprimé",
            "Lien expiré",
            "Lien pas encore actif",
        ],
    ),
    (
        "es-419,es;q=0.9,en;q=0.1",
        "es",
        [
            "Enlace no encontrado",
            "Enlace desactivado",
            "Enlace eliminado",
            "Enlace caducado",
            "Enlace aún no disponible",
        ],
    ),
    (
        "iw-IL,he;q=0.5",
        "he",
        [
            "הקישור לא נמצא",
            "הקישור הושבת",
            "הקישור נמחק",
            "תוקף הקישור פג",
            "הקישור עדיין לא פעיל",
        ],
    ),
];

fn get(base: &str, target: &str, languages: &str) -> Answer {
    let headers = [("Accept", BROWSER), ("Accept-Language", languages)];
    request(base, "GET", target, &headers, b"")
}

/// An appliance whose pages have a name and a logo.
fn branded(name: &str, more: &str) -> Appliance {
    let section = format!("{more}[console]\nname = '''{name}'''\naccent = \"#ffdd00\"\nlogo = \"logo.svg\"\n");
    let folder = folder(&configuration(&section));
    fs::write(folder.path().join("logo.svg"), SVG).unwrap();
    Appliance::start_in(folder)
}

fn assert_is_page(page: &Answer, status: u16, language: &str, title: &str) {
    assert_eq!(page.status, status, "{page:?}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("content-language"), language);
    assert_eq!(page.header("vary"), "Accept, Accept-Language");
    assert_eq!(page.header("cache-control"), "no-store");
    let direction = if language == "he" { "rtl" } else { "ltr" };
    let begin = format!("<!doctype html>\n<html lang=\"{language}\" dir=\"{direction}\">");
    let text = page.text();
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.contains(&format!("<h1>{title}</h1>")), "{text}");
    // Nothing runs, and nothing is loaded.
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("script-src"),
        "{policy}"
    );
    for part in ["<script", "http:", "https:", "=\"//", "url(", "@import"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
}

#[test]
fn unknown_path_is_html_for_browsers_and_text_for_tools() {
    let appliance = Appliance::start();
    for base in [&appliance.public, &appliance.admin] {
        for target in [
            "/",
            "//",
            "/index.html",
            "/tinyx",
            "/tiny",
            "/.well-known/x",
            "/%3Cscript%3E",
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let ask = |accept: &str| request(base, method, target, &[("Accept", accept)], b"");
                let text = ask("*/*");
                let page = ask("text/html,application/xhtml+xml;q=0.9");
                for answer in [&text, &page] {
                    assert_eq!(answer.status, 404, "{method} {target}");
                    assert_eq!(answer.header("cache-control"), "no-store");
                    assert_eq!(answer.header("x-content-type-options"), "nosniff");
                }
                assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
                assert_eq!(text.header("vary"), "Accept");
                assert_eq!(page.header("content-language"), "en");
                if method == "HEAD" {
                    continue;
                }
                assert_eq!(text.text(), "not found\n");
                assert_is_page(&page, 404, "en", "Page not found");
                assert!(page.text().contains("This server redirects short links"), "{page:?}");
                assert!(page.text().contains(">NOT_FOUND</code>"), "{page:?}");
            }
        }
    }
    let page = get(&appliance.public, "/", "de");
    assert_is_page(&page, 404, "de", "Seite nicht gefunden");
}

#[test]
fn every_refusal_speaks_the_language_of_the_visitor() {
    let appliance = branded("Université", "");
    let ks = appliance.admin_ks();
    let deleted = appliance.add(&ks, &[]);
    appliance.link("delete", &ks, &[("id", &deleted)]);
    let links = [
        ("zzzzzzzz".to_owned(), 404, "INVALID_OBJECT_ID"),
        (
            appliance.add(&ks, &[("shortLink[status]", "1")]),
            404,
            "INVALID_SHORT_LINK",
        ),
        (deleted, 410, "INVALID_SHORT_LINK"),
        (
            appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]),
            410,
            "EXPIRED_SHORT_LINK",
        ),
        (
            appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]),
            404,
            "NOT_YET_OPEN_SHORT_LINK",
        ),
    ];
    for (accepted, language, titles) in LANGUAGES {
        for ((id, status, code), title) in links.iter().zip(titles) {
            // The fast path, hyper, and the admin listener.
            for (base, query) in [
                (&appliance.public, ""),
                (&appliance.public, "?x=y"),
                (&appliance.admin, ""),
            ] {
                let page = get(base, &format!("{GOTO}{id}{query}"), accepted);
                assert_is_page(&page, *status, language, title);
                let text = page.text();
                assert!(text.contains(&format!("<title>{title} – Université</title>")), "{text}");
                assert!(text.contains(&format!(">{code}</code>")), "{text}");
                assert!(
                    text.contains("<img src=\"data:image/svg+xml;base64,") && text.contains("#ffdd00"),
                    "{text}"
                );
                assert!(!text.contains(id.as_str()), "{text}");
                assert_eq!(page.header("x-kaltura"), format!("error-{code}"));
            }
        }
        let json = get(&appliance.public, &format!("{GOTO}zzzzzzzz?format=1"), accepted);
        assert_eq!((json.header("vary"), json.header("content-language")), ("Accept", ""));
        let missing = get(&appliance.public, GOTO.trim_end_matches("id/"), accepted);
        assert_eq!((missing.status, missing.header("content-language")), (400, language));
        assert!(missing.text().contains("MISSING_MANDATORY_PARAMETER"), "{missing:?}");
    }
}

#[test]
fn client_that_guesses_gets_a_page_in_its_language() {
    let settings = "[public]\nmax_guesses_per_minute = 1\ntrusted_proxies = \"127.0.0.1\"\n";
    let appliance = branded("Université", settings);
    for (query, client) in [("", "203.0.113.7"), ("?x=y", "203.0.113.8")] {
        let guess = |number: usize, accept: &str| {
            let target = format!("{GOTO}guess{number}{query}");
            let headers = [
                ("Accept", accept),
                ("Accept-Language", "de"),
                ("X-Forwarded-For", client),
            ];
            request(&appliance.public, "GET", &target, &headers, b"")
        };
        // The first two only refuse these, unless a minute ends; from then on, the client is shut out.
        let refused = |number: &usize| guess(*number, BROWSER).status == 429;
        for number in [(0..30).find(refused).unwrap(), (30..60).filter(refused).nth(3).unwrap()] {
            let page = guess(number, BROWSER);
            assert_is_page(&page, 429, "de", "Zu viele Versuche");
            assert_eq!(page.header("retry-after"), "60");
            assert_eq!(page.header("x-robots-tag"), "noindex");
            let text = guess(number, "*/*");
            assert_eq!(text.status, 429);
            assert!(
                text.text().starts_with("too many unknown short links were asked for"),
                "{text:?}"
            );
        }
    }
}

#[test]
fn hostile_name_is_text_in_every_page() {
    let name = "</title></main><script>alert(1)</script><img src=x onerror=\"alert(1)\">\u{202e}&amp;";
    let shown = "&lt;/title&gt;&lt;/main&gt;&lt;script&gt;alert(1)&lt;/script&gt;\
                 &lt;img src=x onerror=&quot;alert(1)&quot;&gt;\u{202e}&amp;amp;";
    let appliance = branded(name, "");
    for target in ["/".to_owned(), format!("{GOTO}zzzzzzzz"), format!("{GOTO}zzzzzzzz?x=y")] {
        for (accepted, ..) in LANGUAGES {
            let page = get(&appliance.public, &target, accepted);
            let text = page.text();
            // In the title, of the logo, and at the foot.
            assert_eq!(text.matches(shown).count(), 3, "{text}");
            assert_eq!(text.matches("<img").count(), 1, "{text}");
            assert!(!text.contains("<script"), "{text}");
        }
    }
}
