//! Signing in with OpenID Connect.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use url::Url;

use crate::support::browser::hidden;
use crate::support::fixture::{Appliance, configuration, folder, poll};
use crate::support::http::{Answer, encode, request};
use crate::support::openid::{ACCESS_TOKEN, CLIENT_SECRET, OpenIdProvider, SignedBy};
use crate::support::scrape::Scrape;

fn start(provider: &OpenIdProvider, more: &str) -> Appliance {
    let folder = folder(&configuration(&provider.settings(more)));
    fs::write(folder.path().join("client.secret"), CLIENT_SECRET).unwrap();
    Appliance::start_in(folder)
}

/// A browser that keeps every cookie.
struct Visitor<'a> {
    appliance: &'a Appliance,
    cookies: BTreeMap<String, String>,
}

impl<'a> Visitor<'a> {
    const fn new(appliance: &'a Appliance) -> Self {
        Self {
            appliance,
            cookies: BTreeMap::new(),
        }
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        let mut headers = vec![("Origin", self.appliance.admin.as_str())];
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        if !body.is_empty() {
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
        }
        let target = format!("/console/{path}");
        let answer = request(&self.appliance.admin, method, &target, &headers, body.as_bytes());
        for line in answer.header("set-cookie").lines() {
            let (pair, attributes) = line.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            }
        }
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    /// Goes to the provider; returns the `state` with which it sends the browser back.
    fn begin(&mut self, provider: &OpenIdProvider) -> String {
        let started = self.get("sign-in/oidc?next=links%2Fnew");
        assert_eq!(started.status, 303, "{started:?}");
        provider.authorize(started.header("location"))
    }

    fn come_back(&mut self, state: &str) -> Answer {
        self.get(&format!("sign-in/callback?code=the-code&state={state}"))
    }

    fn sign_in(&mut self, provider: &OpenIdProvider) -> Answer {
        let state = self.begin(provider);
        self.come_back(&state)
    }

    fn is_signed_in(&mut self) -> bool {
        self.get("links").status == 200
    }
}

/// Signs in with these claims in the ID token.
fn status_with(appliance: &Appliance, provider: &OpenIdProvider, claims: Value, signed_by: SignedBy) -> u16 {
    provider.sign(claims, signed_by);
    let mut visitor = Visitor::new(appliance);
    let answer = visitor.sign_in(provider);
    assert_eq!(visitor.is_signed_in(), answer.status == 200, "{answer:?}");
    answer.status
}

#[test]
fn people_sign_in_with_their_account() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "admin_groups = [\"admins\"]\n");
    for (groups, is_admin) in [(json!(["staff"]), false), (json!(["staff", "admins"]), true)] {
        provider.sign(json!({"groups": groups}), SignedBy::Provider);
        let mut visitor = Visitor::new(&appliance);
        let page = visitor.get("sign-in?next=links%2Fnew&on=1");
        let start = "http://127.0.0.1:1/console/sign-in/oidc?next=links%2Fnew";
        assert!(page.text().contains(&format!("href=\"{start}\"")), "{}", page.text());
        let state = visitor.begin(&provider);
        assert_eq!(visitor.cookies.len(), 1);
        let answer = visitor.come_back(&state);
        assert_eq!(answer.status, 200, "{answer:?}");
        // No redirect: that would carry no cookie with SameSite=Strict.
        let refresh = "http-equiv=\"refresh\" content=\"0; url=/console/links/new\"";
        assert!(answer.text().contains(refresh), "{}", answer.text());
        let cookies = answer.header("set-cookie");
        assert!(cookies.contains("; Path=/; HttpOnly; SameSite=Strict"), "{cookies}");
        assert_eq!(visitor.cookies.keys().collect::<Vec<_>>(), ["tinyd"]);
        let page = visitor.get("links");
        assert!(page.text().contains("<bdi>anna</bdi>"), "{}", page.text());
        assert_eq!(page.text().contains("administrator"), is_admin);
    }
    for secret in [CLIENT_SECRET, ACCESS_TOKEN, "the-code"] {
        assert!(!appliance.log().contains(secret), "{secret} is in the log");
    }
}

#[test]
fn sign_in_ends_once_in_the_browser_that_began_it() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let mut visitor = Visitor::new(&appliance);
    let state = visitor.begin(&provider);
    // Somebody else is sent there with the code of an attacker.
    let mut victim = Visitor::new(&appliance);
    assert_eq!(victim.come_back(&state).status, 403);
    let own = victim.begin(&provider);
    assert_eq!(victim.come_back(&state).status, 403);
    assert_eq!(victim.come_back(&own).status, 403, "the cookie is gone");
    for wrong in ["", "guessed", &own] {
        let mut copy = Visitor::new(&appliance);
        copy.cookies.clone_from(&visitor.cookies);
        assert_eq!(copy.come_back(wrong).status, 403, "{wrong}");
    }
    assert_eq!(provider.token_requests(), 0);
    let cookies = visitor.cookies.clone();
    let state = visitor.begin(&provider);
    let of_second = visitor.cookies.clone();
    assert_ne!(cookies, of_second);
    assert_eq!(visitor.come_back(&state).status, 200);
    let mut again = Visitor::new(&appliance);
    again.cookies = of_second;
    assert_eq!(again.come_back(&state).status, 403);
    assert_eq!(provider.token_requests(), 1);
    assert!(!victim.is_signed_in() && !again.is_signed_in());
}

#[test]
fn planted_session_is_not_taken_over() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let mut attacker = Visitor::new(&appliance);
    attacker.sign_in(&provider);
    let planted = attacker.cookies["tinyd"].clone();
    let mut victim = Visitor::new(&appliance);
    victim.cookies.insert("tinyd".to_owned(), planted.clone());
    provider.sign(json!({"sub": "victim"}), SignedBy::Provider);
    assert_eq!(victim.sign_in(&provider).status, 200);
    assert_ne!(victim.cookies["tinyd"], planted);
    assert!(attacker.get("links").text().contains("<bdi>anna</bdi>"));
    assert!(victim.get("links").text().contains("<bdi>victim</bdi>"));
}

#[test]
fn wrong_id_tokens_sign_nobody_in() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let status = |claims, signed_by| status_with(&appliance, &provider, claims, signed_by);
    assert_eq!(status(json!({}), SignedBy::Provider), 200);
    for wrong in [
        json!({"nonce": "of another sign-in"}),
        json!({"nonce": null}),
        json!({"iss": "https://login.evil.example"}),
        json!({"iss": null}),
        json!({"aud": "another client"}),
        json!({"aud": ["tinyd:console", "another client"]}),
        json!({"aud": null}),
        json!({"exp": 1_000_000_000}),
        json!({"exp": null}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "x".repeat(101)}),
        json!({"sub": "a\u{1}b"}),
    ] {
        let answered = status(wrong.clone(), SignedBy::Provider);
        // What is no ID token at all is an error of the provider.
        assert!(matches!(answered, 403 | 503), "{answered} {wrong}");
    }
    for stranger in [SignedBy::Stranger, SignedBy::Nobody, SignedBy::ClientSecret] {
        assert_eq!(status(json!({}), stranger), 403, "{stranger:?}");
    }
    assert_eq!(status(json!({}), SignedBy::Provider), 200);
}

#[test]
fn rotated_keys_are_fetched_once() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let status = || status_with(&appliance, &provider, json!({}), SignedBy::Provider);
    assert_eq!((status(), status()), (200, 200));
    assert_eq!(provider.key_requests(), 1);
    provider.rotate(1);
    assert_eq!((status(), status()), (200, 200));
    assert_eq!(provider.key_requests(), 2);
    // Nobody makes tinyd ask for keys all the time.
    provider.rotate(2);
    assert_eq!((status(), status()), (403, 403));
    assert_eq!(provider.key_requests(), 2);
    let counted = Scrape::of(&appliance);
    for (outcome, number) in [("started", 4.0), ("refused", 2.0)] {
        let sample = format!("tinyd_session_starts_total{{method=\"oidc\",outcome=\"{outcome}\"}}");
        assert!((counted.get(&sample) - number).abs() < 0.1, "{outcome}");
    }
}

#[test]
fn provider_that_is_down_stops_only_its_own_sign_in() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    drop(provider);
    let answer = Visitor::new(&appliance).get("sign-in/oidc");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("cannot be reached"), "{}", answer.text());
    assert!(answer.text().contains("href=\"/console/sign-in\""), "{}", answer.text());
    assert_eq!(Visitor::new(&appliance).get("sign-in").status, 200);
    appliance.wait_for_log("cannot read the OpenID provider");
}

#[test]
fn provider_that_hangs_stops_only_its_own_sign_in() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    provider.hang(true);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| Visitor::new(&appliance).get("sign-in/oidc").status);
        poll("a request to the provider", || provider.waiting() > 0);
        // All this is answered before the provider is.
        assert_eq!(Visitor::new(&appliance).get("sign-in").status, 200);
        let id = appliance.add(&appliance.admin_ks(), &[]);
        assert_eq!(appliance.goto(&id).status, 302);
        assert_eq!(provider.waiting(), 1);
        assert!(!waits.is_finished());
        assert_eq!(waits.join().unwrap(), 503);
    });
}

#[test]
fn another_issuer_is_not_the_provider() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let mut visitor = Visitor::new(&appliance);
    let state = visitor.begin(&provider);
    let iss = encode("https://login.evil.example");
    let answer = visitor.get(&format!("sign-in/callback?code=the-code&state={state}&iss={iss}"));
    assert_eq!((answer.status, provider.token_requests()), (403, 0));
    let state = visitor.begin(&provider);
    let iss = encode(&provider.issuer());
    let answer = visitor.get(&format!("sign-in/callback?code=the-code&state={state}&iss={iss}"));
    assert_eq!(answer.status, 200);
    let other = OpenIdProvider::start();
    other.call_itself("https://login.evil.example");
    let appliance = start(&other, "");
    assert_eq!(Visitor::new(&appliance).get("sign-in/oidc").status, 503);
}

#[test]
fn refusals_of_the_provider_are_shown_as_text() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let mut visitor = Visitor::new(&appliance);
    let state = visitor.begin(&provider);
    let reason = encode("<script>alert(1)</script>");
    let answer = visitor.get(&format!(
        "sign-in/callback?error=access_denied&error_description={reason}&state={state}"
    ));
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("access_denied"), "{}", answer.text());
    let state = visitor.begin(&provider);
    let answer = visitor.get(&format!("sign-in/callback?error={reason}&state={state}"));
    assert!(!answer.text().contains("<script>alert"), "{}", answer.text());
    // The code of somebody else, or one that was used before.
    let state = visitor.begin(&provider);
    let answer = visitor.get(&format!("sign-in/callback?code=another&state={state}"));
    assert_eq!((answer.status, provider.token_requests()), (403, 1));
    assert!(!visitor.is_signed_in());
}

#[test]
fn claims_may_come_from_userinfo() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "user_claim = \"email\"\nadmin_groups = \"admins\"\n");
    let status = || status_with(&appliance, &provider, json!({}), SignedBy::Provider);
    assert_eq!(status(), 503, "userinfo is of nobody");
    let email = "anna@example.com";
    for (info, expected) in [
        (json!({"sub": "anna", "email": email, "email_verified": true}), 200),
        (json!({"sub": "anna", "email": email, "email_verified": false}), 403),
        (json!({"sub": "anna", "email": email}), 403),
        (json!({"sub": "anna"}), 403),
        (json!({"sub": "ben", "email": email, "email_verified": true}), 503),
    ] {
        provider.set_userinfo(info.clone());
        assert_eq!(status(), expected, "{info}");
    }
}

#[test]
fn sign_out_ends_both_sessions() {
    let provider = OpenIdProvider::start();
    let appliance = start(&provider, "");
    let mut visitor = Visitor::new(&appliance);
    visitor.sign_in(&provider);
    let session = visitor.cookies.clone();
    let token = hidden(visitor.get("links/new").text(), "token");
    let answer = visitor.send("POST", "sign-out", &format!("token={token}"));
    assert_eq!((answer.status, visitor.cookies.len()), (200, 0), "{answer:?}");
    let (_, url) = answer.text().split_once("content=\"0; url=").unwrap();
    let url = url
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&")
        .replace("&#38;", "&");
    let url = Url::parse(&url).unwrap();
    assert!(
        url.as_str().starts_with(&format!("{}/end?", provider.issuer())),
        "{url}"
    );
    let query: BTreeMap<_, _> = url.query_pairs().collect();
    assert_eq!(query["id_token_hint"].split('.').count(), 3);
    assert_eq!(query["post_logout_redirect_uri"], "http://127.0.0.1:1/console/sign-in");
    visitor.cookies = session;
    assert!(!visitor.is_signed_in());
}
