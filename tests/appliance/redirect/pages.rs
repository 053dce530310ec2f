//! The page for an unknown path.

use crate::support::fixture::Appliance;
use crate::support::http::request;

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
                    assert_eq!(answer.header("vary"), "Accept");
                    assert_eq!(answer.header("x-content-type-options"), "nosniff");
                }
                assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
                assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
                assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
                if method == "HEAD" {
                    continue;
                }
                assert_eq!(text.text(), "not found\n");
                assert!(page.text().starts_with("<!doctype html>"), "{page:?}");
                assert!(page.text().contains("This server redirects short links."), "{page:?}");
                assert!(!page.text().contains("script"), "{page:?}");
            }
        }
    }
}
