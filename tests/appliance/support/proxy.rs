//! An appliance that fetches the content of destinations.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::client::{Download, Fetched, connect, request};
use super::fixture::{Appliance, PARTNER, code};
use super::origin::Origin;

pub const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

/// Networks of this machine.
pub const THIS_MACHINE: &str = "allow = [\"127.0.0.0/8\", \"::1/128\"]\n";

/// An appliance that fetches, and a session that adds links.
pub struct Proxy {
    pub appliance: Appliance,
    pub ks: String,
}

impl Proxy {
    /// Fetches from these upstreams.
    pub fn to(origins: &[&Origin]) -> Self {
        Self::with(origins, "")
    }

    /// The same, with more lines of `[fetch]`, and other sections after them.
    pub fn with(origins: &[&Origin], settings: &str) -> Self {
        Self::start(&format!("{THIS_MACHINE}{}{settings}", ports(origins)))
    }

    /// With these lines of `[fetch]`, and other sections after them. Other timeouts are long, so that a busy machine
    /// does not look like a slow upstream.
    pub fn start(settings: &str) -> Self {
        let is_free = |key: &&str| !settings.contains(*key) && !settings.contains("total_timeout_seconds");
        let patience = [
            "connect_timeout_seconds",
            "first_byte_timeout_seconds",
            "idle_timeout_seconds",
        ];
        let patience = patience
            .iter()
            .copied()
            .filter(|key| is_free(key))
            .map(|key| format!("{key} = 60\n"));
        let patience: String = patience.collect();
        Self::of(Appliance::start_with(&format!("[fetch]\n{patience}{settings}\n")))
    }

    pub fn of(appliance: Appliance) -> Self {
        let ks = appliance.admin_ks();
        Self { appliance, ks }
    }

    /// A link to a destination.
    pub fn link(&self, url: &str) -> String {
        self.any_link(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// The same, or the error of the destination. A destination that add rejects is imported, as from an older
    /// store.
    pub fn any_link(&self, url: &str) -> Result<String, String> {
        self.try_link(url).or_else(|_| self.import(url))
    }

    fn import(&self, url: &str) -> Result<String, String> {
        static IMPORTED: AtomicUsize = AtomicUsize::new(0);
        let id = format!("old{:05}", IMPORTED.fetch_add(1, Ordering::Relaxed));
        let link = serde_json::json!({ "id": id, "systemName": "NAME", "fullUrl": url });
        let file = self.appliance.folder.path().join("old.jsonl");
        std::fs::write(&file, format!("{link}\n")).unwrap();
        let imported = self
            .appliance
            .tinyd(&["import", file.to_str().unwrap(), "--partner", PARTNER]);
        let complaints = String::from_utf8_lossy(&imported.stderr).into_owned();
        if imported.status.success() {
            Ok(id)
        } else {
            Err(complaints)
        }
    }

    /// The same; the error code if it is rejected.
    pub fn try_link(&self, url: &str) -> Result<String, String> {
        let params = [("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", url)];
        let link: Value = self.appliance.link("add", &self.ks, &params);
        match link["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(code(&link).to_owned()),
        }
    }

    /// The head of the proxied response for a link. `headers` are lines.
    pub fn ask(&self, id: &str, method: &str, headers: &str) -> Download {
        let request = request(method, &proxied(id), headers);
        Download::ask(connect(&self.appliance.public), &request)
    }

    /// The content of a destination.
    pub fn fetch(&self, url: &str) -> Fetched {
        self.fetch_with(url, "")
    }

    /// The same; `headers` are lines.
    pub fn fetch_with(&self, url: &str, headers: &str) -> Fetched {
        self.ask(&self.link(url), "GET", headers).finish()
    }

    /// Checks that plain redirects work.
    pub fn assert_redirects(&self) {
        let id = self.link("https://example.com/video");
        let answer = self.appliance.goto(&id);
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, "https://example.com/video")
        );
    }
}

/// The target of a proxied goto.
pub fn proxied(id: &str) -> String {
    format!("{GOTO}{id}/proxy/true")
}

/// The configuration line with the ports of these upstreams.
pub fn ports(origins: &[&Origin]) -> String {
    let ports: Vec<_> = origins.iter().map(|origin| origin.port().to_string()).collect();
    let ports = if ports.is_empty() {
        "80".to_owned()
    } else {
        ports.join(", ")
    };
    format!("ports = [{ports}]\n")
}

/// Checks that a response is tinyd's own error with this code and reveals no detail of the destination.
#[track_caller]
pub fn assert_fault(fetched: &Fetched, status: u16, code: &str) {
    assert_eq!(fetched.status, status, "{fetched:?}");
    assert_eq!(fetched.header("x-kaltura"), format!("error-{code}"), "{fetched:?}");
    let app = fetched.header("x-kaltura-app");
    assert!(app.starts_with(&format!("exiting on error {code} - ")), "{fetched:?}");
    assert!(fetched.header("cache-control").contains("no-store"), "{fetched:?}");
    assert_eq!(fetched.header("x-robots-tag"), "noindex", "{fetched:?}");
    assert_eq!(fetched.header("x-content-type-options"), "nosniff", "{fetched:?}");
    assert!(fetched.is_whole && fetched.text().contains(code), "{fetched:?}");
    assert_eq!(fetched.header("retry-after").is_empty(), status != 503, "{fetched:?}");
    for secret in ["127.0.0.", "::1", "10.0.0.", "169.254.", SECRET] {
        assert!(!fetched.everything().contains(secret), "{secret}: {fetched:?}");
    }
}

/// Content of an upstream that must not reach a client.
pub const SECRET: &str = "internal-word";
