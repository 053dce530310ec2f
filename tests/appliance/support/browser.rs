//! A browser without a script: keeps its cookie, and sends forms as browsers do.

use super::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET};
use super::http::{Answer, encode, request, request_over};
use super::tls::{Client, NAME};

pub const FORM: &str = "application/x-www-form-urlencoded";

/// How it reaches the console.
#[derive(Clone)]
enum Route {
    Plain { base: String },
    Tls { client: Box<Client>, address: String },
}

#[derive(Clone)]
pub struct Browser {
    route: Route,
    /// `name=value`; empty without one.
    pub cookie: String,
}

impl Browser {
    pub fn new(appliance: &Appliance) -> Self {
        let base = appliance.admin.clone();
        Self {
            route: Route::Plain { base },
            cookie: String::new(),
        }
    }

    /// Over TLS, by the name of the certificate.
    pub fn over_tls(appliance: &Appliance, client: Client) -> Self {
        let (client, address) = (Box::new(client), appliance.admin_tls.clone());
        Self {
            route: Route::Tls { client, address },
            cookie: String::new(),
        }
    }

    /// Signed in as a user.
    pub fn of_user(appliance: &Appliance, user: &str) -> Self {
        Self::of(appliance, PARTNER, user, USER_SECRET)
    }

    /// Signed in as an administrator.
    pub fn of_admin(appliance: &Appliance) -> Self {
        Self::of(appliance, PARTNER, "admin", ADMIN_SECRET)
    }

    pub fn of(appliance: &Appliance, partner: &str, user: &str, secret: &str) -> Self {
        let mut browser = Self::new(appliance);
        let answer = browser.sign_in(partner, user, secret);
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
    }

    /// The same browser, after a restart on another port.
    pub fn moved_to(&self, appliance: &Appliance) -> Self {
        Self {
            cookie: self.cookie.clone(),
            ..Self::new(appliance)
        }
    }

    /// The origin of its pages.
    pub fn origin(&self) -> String {
        match &self.route {
            Route::Plain { base } => base.clone(),
            Route::Tls { .. } => format!("https://{NAME}"),
        }
    }

    /// Sends a request for a path below the console, with its cookie.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let cookie = self.cookie.clone();
        let cookie = (!cookie.is_empty()).then_some(("Cookie", cookie.as_str()));
        let headers: Vec<_> = headers.iter().copied().chain(cookie).collect();
        let target = format!("/console{path}");
        let answer = match &self.route {
            Route::Plain { base } => request(base, method, &target, &headers, body),
            Route::Tls { client, address } => {
                request_over(client.connect(address), NAME, method, &target, &headers, body)
            }
        };
        if let Some(pair) = answer
            .header("set-cookie")
            .split(';')
            .next()
            .filter(|pair| !pair.is_empty())
        {
            let is_cleared = answer.header("set-cookie").contains("Max-Age=0");
            self.cookie = if is_cleared { String::new() } else { pair.to_owned() };
        }
        answer
    }

    pub fn get(&mut self, path: &str) -> Answer {
        // As when somebody types an address; over plain HTTP, only at addresses of the machine itself.
        self.send("GET", path, &[("Sec-Fetch-Site", "none")], b"")
    }

    /// Sends these fields from a page of the console.
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let origin = self.origin();
        self.post_with(path, &[("Origin", &origin)], fields)
    }

    /// Sends these fields with these headers.
    pub fn post_with(&mut self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let headers = [&[("Content-Type", FORM)], headers].concat();
        self.send("POST", path, &headers, form(fields).as_bytes())
    }

    /// The token of its forms.
    pub fn token(&mut self) -> String {
        let page = self.get("/links/new");
        assert_eq!(page.status, 200, "{page:?}");
        hidden(page.text(), "token")
    }

    /// Sends a form of the console.
    pub fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token();
        self.post(path, &[&[("token", token.as_str())], fields].concat())
    }

    /// Submits a form that must succeed; returns where it leads, below the console.
    pub fn done(&mut self, path: &str, fields: &[(&str, &str)]) -> String {
        let answer = self.submit(path, fields);
        assert_eq!(answer.status, 303, "{path}: {answer:?}");
        answer.header("location").strip_prefix("/console").unwrap().to_owned()
    }

    /// Makes a link and returns its ID.
    pub fn create(&mut self, fields: &[(&str, &str)]) -> String {
        let defaults = [("full_url", "https://example.com/video")];
        let is_given = |name: &str| fields.iter().any(|(other, _)| *other == name);
        let defaults = defaults.into_iter().filter(|(name, _)| !is_given(name));
        let fields: Vec<_> = defaults.chain(fields.iter().copied()).collect();
        let location = self.done("/links/new", &fields);
        let id = location.strip_prefix("/links/").unwrap();
        id.strip_suffix("?done=created").unwrap().to_owned()
    }

    pub fn sign_in(&mut self, partner: &str, user: &str, secret: &str) -> Answer {
        self.post("/sign-in", &[("partner", partner), ("user", user), ("secret", secret)])
    }

    /// Whether it still sees pages.
    pub fn is_signed_in(&mut self) -> bool {
        match self.get("/links").status {
            200 => true,
            303 => false,
            status => panic!("{status}"),
        }
    }
}

pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The value of the first hidden field of this name.
pub fn hidden(page: &str, name: &str) -> String {
    let start = format!("<input type=\"hidden\" name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().to_owned()
}
