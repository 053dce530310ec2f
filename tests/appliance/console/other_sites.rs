//! Requests that pages of other sites make a browser send.

use crate::support::browser::{Browser, FORM, form};
use crate::support::fixture::{Appliance, PARTNER, USER_SECRET};
use crate::support::http::{connect, request_over};

/// Writes of a signed-in user, with a form field that each needs.
fn writes(id: &str) -> Vec<String> {
    let of_link = ["edit", "playback", "disable", "enable", "delete", "restore"];
    let of_link = of_link.map(|action| format!("/links/{id}/{action}"));
    let rest = ["/links/new", "/sign-out"].map(str::to_owned);
    of_link.into_iter().chain(rest).collect()
}

#[test]
fn write_from_another_origin_changes_nothing() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "kept")]);
    let token = jane.token();
    let port = appliance.admin.rsplit(':').next().unwrap().to_owned();
    let other_port = if port == "1" { "2" } else { "1" };
    let own = appliance.admin.as_str();
    let origins = [
        "null".to_owned(),
        String::new(),
        "*".to_owned(),
        "http://evil.test".to_owned(),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{other_port}"),
        "http://127.0.0.1".to_owned(),
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{port}.evil.test"),
        format!("http://evil.test/127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}@evil.test"),
        appliance.public.clone(),
        "file:///".to_owned(),
        "chrome-extension://abc".to_owned(),
    ];
    let origins: Vec<_> = origins.iter().map(|origin| vec![("Origin", origin.as_str())]).collect();
    let mut hostile = origins;
    hostile.push(vec![]);
    for site in ["cross-site", "same-site", "none", "", "Same-Origin"] {
        hostile.push(vec![("Sec-Fetch-Site", site)]);
    }
    // What a browser says about the origin counts more.
    hostile.push(vec![("Origin", "http://evil.test"), ("Sec-Fetch-Site", "same-origin")]);
    hostile.push(vec![("Referer", own)]);
    for headers in &hostile {
        for path in writes(&id) {
            let answer = jane.post_with(&path, headers, &[("token", &token), ("full_url", "https://evil.test/")]);
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.text().contains("another site"), "{}", answer.text());
        }
        let answer = Browser::new(&appliance).post_with(
            "/sign-in",
            headers,
            &[("partner", PARTNER), ("user", "jane"), ("secret", USER_SECRET)],
        );
        assert_eq!((answer.status, answer.header("set-cookie")), (403, ""), "{headers:?}");
    }
    assert!(jane.is_signed_in());
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
    assert_eq!(
        (&link["fullUrl"], &link["status"]),
        (&"https://example.com/video".into(), &2.into())
    );
    // Browsers that send no Origin with writes of the same origin.
    let answer = jane.post_with(
        &format!("/links/{id}/disable"),
        &[("Sec-Fetch-Site", "same-origin")],
        &[("token", &token)],
    );
    assert_eq!(answer.status, 303);
}

#[test]
fn write_needs_the_token_of_its_session() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    let token = jane.token();
    let of_other_session = Browser::of_user(&appliance, "jane").token();
    let of_admin = Browser::of_admin(&appliance).token();
    assert!(token != of_other_session && token != of_admin);
    let longer = format!("{token}x");
    let cookie = jane.cookie.clone();
    let mark = cookie.rsplit('.').next().unwrap();
    for wrong in ["", "x", &of_other_session, &of_admin, &longer, &token[1..], mark] {
        for path in writes(&id) {
            let answer = jane.post(&path, &[("token", wrong), ("full_url", "https://evil.test/")]);
            assert_eq!(answer.status, 403, "{path} {wrong}");
            assert!(answer.text().contains("out of date"), "{}", answer.text());
        }
    }
    for path in writes(&id) {
        assert_eq!(jane.post(&path, &[]).status, 403, "{path}");
        // In the URL, where other sites could learn it from, it does not count.
        assert_eq!(jane.post(&format!("{path}?token={token}"), &[]).status, 403, "{path}");
        // No GET changes anything.
        let answer = jane.get(&format!("{path}?token={token}&full_url=https://evil.test/"));
        assert!(matches!(answer.status, 200 | 404), "{path}: {answer:?}");
    }
    assert!(jane.is_signed_in());
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
    assert_eq!(
        (&link["fullUrl"], &link["status"]),
        (&"https://example.com/video".into(), &2.into())
    );
}

#[test]
fn form_of_an_ended_session_changes_nothing() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let (old, token) = (jane.clone(), jane.token());
    jane.submit("/sign-out", &[]);
    let answer = old
        .clone()
        .post("/links/new", &[("token", &token), ("full_url", "https://example.com/")]);
    assert_eq!((answer.status, answer.header("location")), (403, ""));
    assert!(answer.text().contains("Sign in"), "{}", answer.text());
    let mut again = Browser::of_user(&appliance, "jane");
    assert_eq!(again.post("/links/new", &[("token", &token)]).status, 403);
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 0);
}

#[test]
fn name_of_another_site_is_refused() {
    let appliance = Appliance::start_with("[console]\nurl = \"http://links.example.org/console\"\n");
    let jane = Browser::of_user(&appliance, "jane");
    let address = appliance.admin.strip_prefix("http://").unwrap();
    let port = address.rsplit(':').next().unwrap();
    let ask = |host: &str, method: &str, path: &str, body: &str| {
        let origin = format!("http://{host}");
        let headers = [
            ("Cookie", jane.cookie.as_str()),
            ("Origin", &origin),
            ("Content-Type", FORM),
        ];
        request_over(connect(address), host, method, path, &headers, body.as_bytes())
    };
    let sign_in = form(&[("partner", PARTNER), ("user", "jane"), ("secret", USER_SECRET)]);
    for host in [
        format!("evil.test:{port}"),
        "evil.test".to_owned(),
        "links.example.org.evil.test".to_owned(),
        "evil-links.example.org".to_owned(),
        format!("127.0.0.1.nip.io:{port}"),
        "localhost.evil.test".to_owned(),
        "evillocalhost".to_owned(),
        "go.localdomain".to_owned(),
    ] {
        for path in [
            "/console/links",
            "/console/sign-in",
            "/console/assets/x.js",
            "/console/nowhere",
        ] {
            let answer = ask(&host, "GET", path, "");
            assert_eq!((answer.status, answer.header("set-cookie")), (421, ""), "{host} {path}");
        }
        let answer = ask(&host, "POST", "/console/sign-in", &sign_in);
        assert_eq!((answer.status, answer.header("set-cookie")), (421, ""), "{host}");
    }
    for host in [
        address.to_owned(),
        format!("localhost:{port}"),
        "LOCALHOST".to_owned(),
        "tinyd.localhost".to_owned(),
        "[::1]:8081".to_owned(),
        "192.0.2.7".to_owned(),
        "links.example.org".to_owned(),
        format!("Links.Example.Org:{port}"),
    ] {
        assert_eq!(ask(&host, "GET", "/console/links", "").status, 200, "{host}");
        assert_eq!(ask(&host, "POST", "/console/sign-in", &sign_in).status, 303, "{host}");
    }
}
