use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::config::{Overrides, Settings, keys, read};
use crate::fetch::FetchSettings;

fn load_in(folder: &Path, text: &str) -> Result<Settings, String> {
    let partner = "[[partner]]\nid = 7\nadmin_secret = \"hush hush hush hush\"\n";
    let text = format!("[fetch]\n{text}\n{partner}");
    read::parse(&text, &folder.join("tinyd.toml"), &Overrides::default()).map_err(|error| error.to_string())
}

fn load(text: &str) -> Result<Settings, String> {
    load_in(Path::new("."), text)
}

fn fetch(text: &str) -> FetchSettings {
    load(text).unwrap().fetch.unwrap()
}

/// A file with so many authorities, which is named.
fn with_authorities(folder: &Path, count: usize) -> String {
    let certificate = |_| {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
    };
    let pem: String = (0..count).map(certificate).collect();
    fs::write(folder.join("ca.pem"), pem).unwrap();
    "ca_file = \"ca.pem\"".to_owned()
}

#[test]
fn the_section_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
        allow = ["10.1.2.0/24", "fd12::7"]
        ports = [443, 8443]
        follow = 3
        connect_timeout_seconds = 1
        first_byte_timeout_seconds = 3
        idle_timeout_seconds = 4
        total_timeout_seconds = 5
        max_bytes = 6
        max_fetches = 8
        max_fetches_per_client = 7
        trusted_hosts = ["*.Example.com", "10.1.2.3"]
        name_servers = "192.0.2.53:5353"
    "#;
    let text = [text, &with_authorities(folder.path(), 2)].concat();
    let settings = load_in(folder.path(), &text).unwrap();
    let fetch = settings.fetch.as_ref().unwrap();
    assert_eq!(
        fetch.allow,
        ["10.1.2.0/24", "fd12::7/128"].map(|network| network.parse().unwrap())
    );
    assert_eq!(fetch.ports, [443, 8443]);
    assert_eq!(fetch.follow, 3);
    let timeouts = [
        fetch.connect_timeout,
        fetch.first_byte_timeout,
        fetch.idle_timeout,
        fetch.total_timeout,
    ];
    assert_eq!(timeouts, [1, 3, 4, 5].map(Duration::from_secs));
    assert_eq!((fetch.bytes, fetch.fetches, fetch.fetches_per_client), (6, 8, 7));
    assert!(fetch.trusted_hosts[0].matches("a.example.com") && fetch.trusted_hosts[1].matches("10.1.2.3"));
    assert_eq!(fetch.name_servers, ["192.0.2.53:5353".parse().unwrap()]);
    assert_eq!(fetch.authorities.count(), 2);
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn only_public_addresses_are_fetched_by_default() {
    let default = fetch("");
    assert_eq!((&default.ports[..], default.follow), (&[80, 443][..], 0));
    let timeouts = [
        default.connect_timeout,
        default.first_byte_timeout,
        default.idle_timeout,
        default.total_timeout,
    ];
    assert_eq!(timeouts.map(|time| time.as_secs()), [2, 5, 10, 3600]);
    assert_eq!(
        (default.bytes, default.fetches, default.fetches_per_client),
        (4 << 30, 256, 16)
    );
    assert!(default.allow.is_empty() && default.trusted_hosts.is_empty());
    assert_eq!(fetch("allow = []\ntrusted_hosts = []\nname_servers = []"), default);
    assert_eq!(fetch("ports = 8443").ports, [8443]);
}

#[test]
fn fetching_can_be_switched_off_but_not_hide_mistakes() {
    assert_eq!(
        load("enabled = false\nallow = \"0.0.0.0/0\"").map(|settings| settings.fetch),
        Ok(None)
    );
    assert!(load("enabled = false\nports = []").unwrap_err().contains("fetch.ports"));
}

#[test]
fn defaults_give_way_to_what_is_said() {
    let short = fetch("total_timeout_seconds = 3\nmax_fetches = 4");
    let seconds = Duration::from_secs;
    assert_eq!(
        (short.connect_timeout, short.first_byte_timeout),
        (seconds(2), seconds(3))
    );
    assert_eq!((short.idle_timeout, short.fetches_per_client), (seconds(3), 4));
    assert!(load("max_fetches = 4").unwrap().warnings.is_empty());
}

#[test]
fn every_mistake_is_named_with_key_value_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.pem"), "no certificate at all").unwrap();
    fs::write(
        folder.path().join("broken.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for (text, parts) in [
        ("enabled = \"yes\"", ["fetch.enabled", "\"yes\"", "true or false"]),
        ("alow = []", ["fetch.alow", "unknown key", "enabled, allow, ports"]),
        (
            "allow = \"intranet\"",
            ["fetch.allow", "\"intranet\"", "such as 10.0.0.0/8"],
        ),
        ("allow = [10]", ["fetch.allow", "[10]", "a list of strings"]),
        (
            "allow = \"10.1.2.3/24\"",
            ["fetch.allow", "\"10.1.2.3/24\"", "expected 10.1.2.0/24"],
        ),
        (
            "allow = \"::ffff:10.0.0.0/104\"",
            ["fetch.allow", "\"::ffff:10.0.0.0/104\"", "expected 10.0.0.0/8"],
        ),
        ("ports = []", ["fetch.ports", "[]", "at least one port"]),
        ("ports = [80, 0]", ["fetch.ports", "[80, 0]", "from 1 to 65535"]),
        ("ports = 65536", ["fetch.ports", "65536", "from 1 to 65535"]),
        ("ports = [\"80\"]", ["fetch.ports", "[\"80\"]", "such as [80, 443]"]),
        ("follow = 4", ["fetch.follow", "4", "from 0 to 3"]),
        (
            "connect_timeout_seconds = 0",
            ["fetch.connect_timeout_seconds", "0", "from 1 to 86400"],
        ),
        (
            "first_byte_timeout_seconds = 11\ntotal_timeout_seconds = 10",
            [
                "fetch.first_byte_timeout_seconds",
                "= 11",
                "at most total_timeout_seconds = 10",
            ],
        ),
        (
            "idle_timeout_seconds = 3601",
            [
                "fetch.idle_timeout_seconds",
                "3601",
                "at most total_timeout_seconds = 3600",
            ],
        ),
        ("max_bytes = 0", ["fetch.max_bytes", "0", "from 1"]),
        ("max_bytes = 1.5", ["fetch.max_bytes", "1.5", "a whole number"]),
        ("max_fetches = 0", ["fetch.max_fetches", "0", "from 1"]),
        (
            "max_fetches_per_client = 0",
            ["fetch.max_fetches_per_client", "0", "from 1"],
        ),
        (
            "trusted_hosts = [\"https://a.example\"]",
            [
                "fetch.trusted_hosts",
                "\"https://a.example\"",
                "such as www.example.com",
            ],
        ),
        (
            "name_servers = [\"ns.example\"]",
            ["fetch.name_servers", "\"ns.example\"", "IP:PORT"],
        ),
        (
            "name_servers = \"192.0.2.53:0\"",
            ["fetch.name_servers", "53:0", "IP:PORT"],
        ),
        ("ca_file = 3", ["fetch.ca_file", "3", "a string in quotes"]),
        ("ca_file = \"none.pem\"", ["none.pem", "fetch.ca_file", "No such file"]),
        (
            "ca_file = \"empty.pem\"",
            ["fetch.ca_file", "\"empty.pem\"", "no certificate"],
        ),
        (
            "ca_file = \"broken.pem\"",
            ["fetch.ca_file", "\"broken.pem\"", "certificate"],
        ),
    ] {
        let error = load_in(folder.path(), text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?} gives {error:?}, without {part:?}");
        }
    }
}

#[test]
fn broad_settings_are_warned_of() {
    for (text, part) in [
        ("allow = \"0.0.0.0/0\"", "0.0.0.0/0 is larger than any private network"),
        ("allow = \"::/1\"", "larger than any private network"),
        ("allow = \"127.0.0.1\"", "127.0.0.1/32 has addresses of this machine"),
        ("allow = \"127.0.0.0/8\"", "this machine"),
        ("allow = \"::1\"", "this machine"),
        ("allow = \"0.0.0.0\"", "this machine"),
        (
            "allow = [\"10.0.0.0/8\", \"169.254.0.0/16\"]",
            "169.254.0.0/16 has the metadata address of clouds",
        ),
        (
            "trusted_hosts = [\"a.com\", \"*.com\"]",
            "*.com trusts all of a top-level domain",
        ),
        (
            "max_fetches = 4\nmax_fetches_per_client = 5",
            "more than max_fetches = 4",
        ),
    ] {
        let warnings = load(text).unwrap().warnings;
        assert!(
            matches!(&warnings[..], [one] if one.contains(part)),
            "{text:?} warns {warnings:?}"
        );
    }
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd12:3456::/32"];
    let text = format!("allow = {private:?}\ntrusted_hosts = \"*.example.com\"");
    assert_eq!(load(&text).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn each_changed_key_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = with_authorities(folder.path(), 1);
    let load = |text: &str| load_in(folder.path(), text).unwrap();
    let running = load("");
    for text in [
        "enabled = false",
        "allow = \"10.0.0.0/8\"",
        "ports = 443",
        "follow = 1",
        "connect_timeout_seconds = 7",
        "first_byte_timeout_seconds = 7",
        "idle_timeout_seconds = 7",
        "total_timeout_seconds = 77",
        "max_bytes = 7",
        "max_fetches = 77",
        "max_fetches_per_client = 7",
        "trusted_hosts = \"a.example\"",
        "name_servers = \"192.0.2.53:53\"",
        &ca_file,
    ] {
        let key = text.split(' ').next().unwrap();
        let changed = load(text);
        assert_eq!(running.fixed_differences(&changed), [format!("fetch.{key}")]);
        assert_eq!(changed.fixed_differences(&changed), Vec::<String>::new());
        assert!(keys::of_section("fetch").any(|(known, _)| known.name == key));
    }
}

#[test]
fn fetches_leave_room_for_redirects() {
    let mut settings = load("").unwrap();
    settings.fit_connections(400);
    assert_eq!(settings.fetch.as_ref().map(|fetch| fetch.fetches), Some(50));
    assert_eq!(
        (settings.admin_limits.connections, settings.public_limits.connections),
        (150, 150)
    );
    assert!(
        settings
            .warnings
            .iter()
            .any(|warning| warning.contains("fetch.max_fetches = 256"))
    );
    let mut settings = load("enabled = false").unwrap();
    settings.fit_connections(400);
    assert_eq!(
        (settings.admin_limits.connections, settings.public_limits.connections),
        (200, 200)
    );
}

#[test]
fn old_name_of_the_section_works_and_is_warned_of() {
    let parse = |text: &str| read::parse(text, Path::new("./tinyd.toml"), &Overrides::default());
    let partner = "[[partner]]\nid = 7\nadmin_secret = \"hush hush hush hush\"\n";
    let settings = parse(&format!("[proxy]\nfollow = 2\n{partner}")).unwrap();
    assert_eq!(settings.fetch.unwrap().follow, 2);
    assert_eq!(
        settings.warnings,
        ["[proxy]: this section is named [fetch] now; rename it"]
    );
    let wrong = parse(&format!("[proxy]\nfollow = 4\n{partner}"))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("proxy.follow = 4: expected a whole number from 0 to 3"),
        "{wrong}"
    );
    let both = parse(&format!("[proxy]\nfollow = 2\n[fetch]\nfollow = 2\n{partner}")).unwrap_err();
    assert!(
        both.to_string().contains("named [fetch] now, and the file has both"),
        "{both}"
    );
}
